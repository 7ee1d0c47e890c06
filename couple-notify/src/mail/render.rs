//! Rendering of a mail as RFC 5322 text.

use std::time::{Duration, SystemTime};

use couple_core::{
    EmailAddress, Error, ErrorKind,
    mail::{Mail, Message},
};
use lettre::{
    Address,
    message::{Body, Mailbox, SinglePart, header, header::ContentTransferEncoding as Encoding},
};

/// Sender of mails: the app's name and the address.
#[derive(Debug, Clone)]
pub struct Letterhead {
    app: String,
    from: Mailbox,
}

/// Maximum bytes of a line without its line break (RFC 5322, 2.1.1).
const MAX_LINE_BYTES: usize = 998;

impl Letterhead {
    /// Mail from `app` at `address`.
    ///
    /// The address is an e-mail address, `couple@example.org`, or a mailbox with a name, `Our App <couple@example.org>`, whose name then
    /// replaces `app`. An internationalized domain is converted to its ASCII form (RFC 5891), which every relay accepts.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when the address is invalid, or the name is empty or holds control characters.
    pub fn new(app: &str, address: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Misconfigured, "mail sender").context(format!("{address}: {why}"))
        };
        let (name, address_only) =
            match address.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
                Some((name, inner)) => (name.trim().trim_matches('"').trim(), inner),
                None => ("", address),
            };
        let app = if name.is_empty() { app } else { name };
        if app.is_empty() || app.chars().any(char::is_control) {
            return Err(wrong("the app's name must be one line".to_owned()));
        }
        let ascii = if address_only.is_ascii() {
            address_only.trim().to_owned()
        } else {
            EmailAddress::parse("address", address_only)
                .map_err(|error| wrong(error.to_string()))?
                .mailbox()
                .to_owned()
        };
        let mailbox: Address =
            ascii.parse().map_err(|e: lettre::address::AddressError| wrong(e.to_string()))?;
        Ok(Self { app: app.to_owned(), from: Mailbox::new(Some(app.to_owned()), mailbox) })
    }

    /// Renders a mail for sending.
    pub(super) fn render(&self, mail: &Mail) -> Result<lettre::Message, Error> {
        // The stored address was checked when it was entered. An error here is permanent.
        let refused =
            |source: lettre::error::Error| Error::new(ErrorKind::Rejected, "render mail").source(source);
        let to: Address = mail.to.mailbox().parse().map_err(|source: lettre::address::AddressError| {
            Error::new(ErrorKind::Rejected, "render mail").source(source)
        })?;
        let (subject, text) = self.words(&mail.message);
        let seconds = u64::try_from(mail.at.micros() / 1_000_000).unwrap_or(0);
        let automatic = header::HeaderValue::new(
            header::HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        );
        lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .raw_header(automatic)
            .singlepart(plain(text))
            .map_err(refused)
    }

    /// Subject and text of a message.
    ///
    /// Names appear in the text only, never in the subject or another header.
    fn words(&self, message: &Message) -> (String, String) {
        let app = &self.app;
        let ignore = "If this was not you, ignore this mail: nothing happens without the code.";
        match message {
            Message::ConfirmSignUp { code, link, lifetimes } => (
                format!("Your code for {app}"),
                format!(
                    "Hello,\n\nyour code is:\n\n    {}\n\nIt works for {}. Or open this link within {}:\n\n{}\n\n{ignore}\n",
                    code.expose(),
                    in_words(lifetimes.code),
                    in_words(lifetimes.link),
                    link.expose()
                ),
            ),
            Message::AlreadySignedUp => (
                format!("You already have an account at {app}"),
                format!(
                    "Hello,\n\nsomeone, maybe you, tried to sign up at {app} with this address, which already has an account.\n\nSign in as always; if you forgot your password, ask for a new one there.\n"
                ),
            ),
            Message::SignInCode { code, link, lifetimes } => (
                format!("Your code for {app}"),
                format!(
                    "Your code to sign in is:\n\n    {}\n\nIt works for {}. Or open this link within {}:\n\n{}\n\n{ignore}\n",
                    code.expose(),
                    in_words(lifetimes.code),
                    in_words(lifetimes.link),
                    link.expose()
                ),
            ),
            Message::SetPassword { link, lifetime } => (
                format!("Set a new password for {app}"),
                format!(
                    "Open this link within {} to set a new password:\n\n{}\n\nIf you did not ask for it, ignore this mail: your password stays.\n",
                    in_words(*lifetime),
                    link.expose()
                ),
            ),
            Message::ConfirmEmail { code, link, lifetimes } => (
                format!("Confirm your new address for {app}"),
                format!(
                    "Your code is:\n\n    {}\n\nIt works for {}. Or open this link within {}:\n\n{}\n\n{ignore}\n",
                    code.expose(),
                    in_words(lifetimes.code),
                    in_words(lifetimes.link),
                    link.expose()
                ),
            ),
            Message::EmailChangeAsked { link, lifetime } => (
                format!("Your address at {app} is to be changed"),
                format!(
                    "Someone who is signed in to your account asked to use another address for it.\n\nIf this was you, there is nothing to do. If it was not, open this link within {} to keep this address:\n\n{}\n\nThen set a new password and sign out your other devices.\n",
                    in_words(*lifetime),
                    link.expose()
                ),
            ),
            Message::EmailChanged => (
                format!("Your address at {app} was changed"),
                "Your account now has another address, and this one is no longer used.\n\nIf this was not you, answer this mail immediately.\n".to_owned(),
            ),
            Message::PasswordChanged => (
                format!("Your password at {app} was changed"),
                "Your password was set, and every other device is signed out.\n\nIf this was not you, ask for a new password immediately.\n".to_owned(),
            ),
            Message::DeletionScheduled { due } => (
                format!("Your account at {app} will be deleted"),
                format!(
                    "Your account and what you wrote will be deleted on {}.\n\nIf you change your mind, sign in before then.\n",
                    due.to_rfc3339().get(..10).unwrap_or_default()
                ),
            ),
            Message::Invitation { from, message, code, link, expires_at } => {
                let from = without_links(from.as_str(), MAX_NAME_CHARS);
                let said = message.as_ref().map_or_else(String::new, |message| {
                    format!("\n    \"{}\"\n", without_links(message.as_str(), MAX_MESSAGE_CHARS))
                });
                (
                    format!("An invitation at {app}"),
                    format!(
                        "{from} wants to pair with you at {app}.\n{said}\nTheir code is:\n\n    {}\n\nOr open this link:\n\n{}\n\nBoth work until {} UTC. If you do not know them, ignore this mail.\n",
                        code.expose(),
                        link.expose(),
                        expires_at.to_rfc3339().get(..16).unwrap_or_default().replace('T', " ")
                    ),
                )
            }
            _ => (format!("News from {app}"), "Open the app.\n".to_owned()),
        }
    }
}

/// A lifetime in words: `10 minutes`, `1 hour`, `24 hours`, `2 days`. Rounded down to the unit.
fn in_words(lifetime: Duration) -> String {
    let seconds = lifetime.as_secs();
    let (count, unit) = match seconds {
        172_800.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Maximum characters of an inviter's name in an invitation.
const MAX_NAME_CHARS: usize = 40;
/// Maximum characters of an inviter's message in an invitation.
const MAX_MESSAGE_CHARS: usize = 160;

/// Prepares text that another user typed for a mail to a recipient who did not ask for it.
///
/// At most `max_chars` characters on one line. Text that mail programs turn into links is changed so that they do not:
/// `https[:]//example[.]org`, `ana[at]example[.]org`.
fn without_links(text: &str, max_chars: usize) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c }).peekable();
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

/// A text part that every relay accepts.
///
/// 8-bit bodies need the extension 8BITMIME, which not every relay has (RFC 6152).
///
/// ASCII text is sent unencoded, so that a code and a link are readable in a mail file; any other text is sent in the shorter of
/// quoted-printable and base64 (RFC 2045).
fn plain(text: String) -> SinglePart {
    let body = if text.is_ascii() && text.lines().all(|line| line.len() <= MAX_LINE_BYTES) {
        Body::dangerous_pre_encoded(text.replace('\n', "\r\n").into_bytes(), Encoding::SevenBit)
    } else {
        Body::new(text)
    };
    SinglePart::builder().header(header::ContentType::TEXT_PLAIN).body(body)
}

impl Default for Letterhead {
    fn default() -> Self {
        Self::new("Couple", "couple@localhost").expect("the default is well-formed")
    }
}

#[cfg(test)]
mod tests {
    use couple_core::{DisplayName, EmailAddress, Label, Secret, Timestamp, mail::Lifetimes};

    use super::*;

    fn rendered_with(letterhead: &Letterhead, message: Message, to: &str) -> String {
        let mail = Mail {
            id: "01".to_owned(),
            to: EmailAddress::parse("email", to).unwrap(),
            locale: None,
            at: Timestamp::from_micros(1_767_225_600_000_000),
            message,
        };
        String::from_utf8(letterhead.render(&mail).unwrap().formatted()).unwrap()
    }

    fn sign_up() -> Message {
        Message::ConfirmSignUp {
            code: Secret::new("123456".to_owned()),
            link: Secret::new("http://x/open/verify#verify_a".to_owned()),
            lifetimes: Lifetimes { code: Duration::from_mins(10), link: Duration::from_hours(24) },
        }
    }

    fn invitation(name: &str, message: Option<&str>) -> String {
        let message = Message::Invitation {
            from: DisplayName::from_stored(name),
            message: message.map(Label::from_stored),
            code: Secret::new("ABCD-EFGH".to_owned()),
            link: Secret::new("http://x/open/invite#invite_a".to_owned()),
            expires_at: Timestamp::from_micros(1_767_312_000_000_000),
        };
        rendered_with(&Letterhead::default(), message, "ana@example.org")
    }

    /// The decoded body of a mail in quoted-printable (RFC 2045, 6.7).
    fn decoded(mail: &str) -> String {
        let (head, body) = mail.split_once("\r\n\r\n").unwrap();
        if !head.contains("quoted-printable") {
            return body.to_owned();
        }
        let body = body.replace("=\r\n", "");
        let mut bytes = Vec::new();
        let mut rest = body.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first == b'=' {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            } else {
                bytes.push(first);
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn sign_up_mail_has_all_headers_and_is_readable_ascii() {
        let text = rendered_with(&Letterhead::default(), sign_up(), "Ana.B+x@MÜNCHEN.de");
        for line in [
            "From: Couple <couple@localhost>\r\n",
            "To: Ana.B+x@xn--mnchen-3ya.de\r\n",
            "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n",
            "Message-ID: <01@localhost>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Content-Transfer-Encoding: 7bit\r\n",
            "    123456\r\n",
            "http://x/open/verify#verify_a\r\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn mail_says_how_long_code_and_link_work() {
        let text = rendered_with(&Letterhead::default(), sign_up(), "ana@example.org");
        assert!(text.contains("It works for 10 minutes. Or open this link within 24 hours:"), "{text}");
        let link = || Secret::new("http://x/open/cancel#a".to_owned());
        let reset = Message::SetPassword { link: link(), lifetime: Duration::from_hours(1) };
        let text = rendered_with(&Letterhead::default(), reset, "ana@example.org");
        assert!(text.contains("Open this link within 1 hour to set"), "{text}");
        let asked = Message::EmailChangeAsked { link: link(), lifetime: Duration::from_hours(48) };
        let text = rendered_with(&Letterhead::default(), asked, "ana@example.org");
        assert!(text.contains("open this link within 2 days to keep"), "{text}");
        let text = decoded(&invitation("Ana", None));
        assert!(text.contains("Both work until 2026-01-02 00:00 UTC."), "{text}");
        assert_eq!(in_words(Duration::from_secs(90)), "1 minute");
        assert_eq!(in_words(Duration::from_secs(5)), "5 seconds");
    }

    #[test]
    fn every_mail_is_ascii_on_the_wire_with_short_lines() {
        for (name, message) in [
            ("Zoë", Some("“Salut”, ça va ?")),
            ("李小龍", None),
            ("محمد علي", Some("مرحبا")),
            ("José-María 👩‍❤️‍👨", Some("👋")),
            (&"é".repeat(64), Some(&*"ß".repeat(200))),
        ] {
            let text = invitation(name, message);
            assert!(text.is_ascii(), "{text}");
            assert!(text.lines().all(|line| line.len() <= 78), "{text}");
            assert!(!text.contains("Content-Transfer-Encoding: 8bit"), "{text}");
        }
        let text = invitation("Zoë", Some("Salut, ça va ?"));
        assert!(decoded(&text).contains("Zoë wants to pair with you"), "{text}");
        assert!(decoded(&text).contains("\r\nhttp://x/open/invite#invite_a\r\n"), "{text}");
    }

    #[test]
    fn sender_accepts_a_mailbox_with_a_name_and_an_international_domain() {
        let sender = |address| {
            let text =
                rendered_with(&Letterhead::new("Couple", address).unwrap(), sign_up(), "ana@example.org");
            text.lines().find(|line| line.starts_with("From:")).unwrap().to_owned()
        };
        assert_eq!(sender("a@example.org"), "From: Couple <a@example.org>");
        assert_eq!(sender(" a@example.org "), "From: Couple <a@example.org>");
        assert_eq!(sender("Our App <a@example.org>"), "From: \"Our App\" <a@example.org>");
        assert_eq!(sender("\"Our App\" <a@example.org>"), "From: \"Our App\" <a@example.org>");
        assert_eq!(sender("<a@example.org>"), "From: Couple <a@example.org>");
        assert_eq!(sender("a@münchen.example"), "From: Couple <a@xn--mnchen-3ya.example>");
        assert_eq!(sender("couple@localhost"), "From: Couple <couple@localhost>");
        for wrong in ["", "App", "App <>", "a@b@c", "App <a@example.org", "A\nB <a@example.org>"] {
            assert!(Letterhead::new("Couple", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn invitation_neutralises_links_and_long_text_of_the_inviter() {
        let text = decoded(&invitation(
            "WIN at https://evil.example/x",
            Some("www.evil.example or mail me@evil.example, tel:+123 evil。example"),
        ));
        assert!(!text.contains("https://evil"), "{text}");
        for link in ["evil.example", "evil。example", "me@evil", "www.evil"] {
            assert!(!text.contains(link), "{link} in {text}");
        }
        assert!(text.contains("https[:]//evil[.]example/x"), "{text}");
        let long = decoded(&invitation(&"a".repeat(64), Some(&"b".repeat(200))));
        assert!(long.contains(&format!("{}…", "a".repeat(MAX_NAME_CHARS))), "{long}");
        assert!(long.contains(&format!("{}…", "b".repeat(MAX_MESSAGE_CHARS))), "{long}");
        // Ordinary text stays as it was typed.
        let plain =
            decoded(&invitation("Ana-Maria O'Neil", Some("Hi! See you at 18:30, ok? 3.5 km. I <3 you...")));
        assert!(plain.contains("Ana-Maria O'Neil wants"), "{plain}");
        assert!(plain.contains("See you at 18:30, ok?"), "{plain}");
        assert!(plain.contains("I <3 you..."), "{plain}");
    }

    #[test]
    fn stored_name_cannot_add_headers_recipients_or_parts() {
        // Even stored text that bypassed validation stays in the body.
        for name in
            ["A\r\nBcc: x@evil.example\r\n\r\n", "A\nTo: x@evil.example", "--b\r\nContent-Type: text/html"]
        {
            let text = invitation(name, None);
            let headers = text.split("\r\n\r\n").next().unwrap();
            assert_eq!(headers.lines().filter(|line| line.starts_with("To:")).count(), 1, "{headers}");
            assert!(!headers.to_lowercase().contains("bcc"), "{headers}");
            assert!(!headers.contains("evil"), "{headers}");
        }
    }
}
