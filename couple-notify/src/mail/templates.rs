//! Port for the texts of mails.

use couple_core::mail::{Mail, MailText};

/// Port that writes the texts of mails. Every closure `Fn(&Mail, &str) -> Option<MailText>` implements it.
///
/// Codes, links and lifetimes come from [`Mail::message`], so a text always states the configured lifetimes. Text of users, such as the
/// name in an invitation, goes to a recipient who did not ask for it: pass it through [`defused`], and escape it in HTML.
///
/// ```
/// use couple_core::mail::{Mail, MailText, Message};
/// use couple_notify::mail::{Letterhead, defused};
///
/// let german = |mail: &Mail, app: &str| match (&mail.message, mail.locale.as_ref().map(|locale| locale.as_str())) {
///     (Message::Invitation { from, code, link, .. }, Some("de")) => Some(MailText {
///         subject: format!("Eine Einladung bei {app}"),
///         text: format!(
///             "{} lädt dich ein. Code: {}\n\n{}\n",
///             from.as_ref().map_or("Jemand".into(), |from| defused(from.as_str(), 40)),
///             code.expose(),
///             link.expose()
///         ),
///         html: None,
///     }),
///     _ => None,
/// };
/// let letterhead = Letterhead::new("Love", "love@example.org")?.with_templates(german);
/// # Ok::<(), couple_core::Error>(())
/// ```
pub trait Templates: Send + Sync + 'static {
    /// Text of a mail in the language of [`Mail::locale`], from the app named `app`.
    ///
    /// None for the built-in text in that language, or for the text of a [custom](couple_core::mail::Message::Custom) mail.
    fn render(&self, mail: &Mail, app: &str) -> Option<MailText>;
}

impl<F: Fn(&Mail, &str) -> Option<MailText> + Send + Sync + 'static> Templates for F {
    fn render(&self, mail: &Mail, app: &str) -> Option<MailText> {
        self(mail, app)
    }
}

/// Prepares text that another user typed for a mail to a recipient who did not ask for it.
///
/// At most `max_chars` characters on one line, without characters that change the direction of text. Text that mail programs turn into links is changed so that they do not:
/// `https[:]//example[.]org`, `ana[at]example[.]org`. HTML is not escaped.
#[must_use]
pub fn defused(text: &str, max_chars: usize) -> String {
    let mut characters = text.chars().map(|c| if breaks_text(c) { ' ' } else { c }).peekable();
    let (mut out, mut before) = (String::new(), ' ');
    for _ in 0..max_chars {
        let Some(c) = characters.next() else { return out };
        let next = characters.peek().copied().unwrap_or(' ');
        let after_word = before.is_alphanumeric();
        match c {
            // The ideographic and the full-width full stop also separate labels of a domain (UTS 46).
            '.' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}' if after_word && next.is_alphabetic() => {
                out.push_str("[.]");
            }
            '@' | '\u{ff20}' if after_word && next.is_alphanumeric() => out.push_str("[at]"),
            // `https://…`, `tel:+…`, `mailto:…`; a time of day is not changed.
            ':' if after_word && !next.is_whitespace() && !next.is_numeric() => out.push_str("[:]"),
            c => out.push(c),
        }
        before = c;
    }
    if characters.peek().is_some() {
        out.push('…');
    }
    out
}

/// Controls, separators of lines and paragraphs, and controls of bidirectional text (UAX 9, 2).
fn breaks_text(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
