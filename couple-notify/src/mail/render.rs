//! Rendering of a mail as RFC 5322 text.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use couple_core::{
    EmailAddress, Error, ErrorKind,
    mail::{Mail, Message},
};
use lettre::{
    Address,
    message::{Body, Mailbox, MultiPart, SinglePart, header, header::ContentTransferEncoding as Encoding},
};

#[cfg(feature = "dkim")]
use super::DkimKey;
use super::{Templates, built_in::built_in};

/// Sender of mails: the app's name and the address, and the host's texts.
#[derive(Clone)]
pub struct Letterhead {
    app: String,
    from: Mailbox,
    templates: Option<Arc<dyn Templates>>,
    #[cfg(feature = "dkim")]
    dkim: Vec<DkimKey>,
}

impl fmt::Debug for Letterhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letterhead").field("app", &self.app).field("from", &self.from).finish_non_exhaustive()
    }
}

/// A mail as it is sent.
#[derive(Debug)]
pub(super) struct RenderedMail {
    /// Sender and recipient.
    #[cfg(any(feature = "smtp", feature = "sendmail"))]
    pub(super) envelope: lettre::address::Envelope,
    /// Headers and body; lines end with CRLF. ASCII, unless the recipient's address is not.
    pub(super) text: String,
}

/// Maximum bytes of a line with an encoded word (RFC 2047, 2).
const MAX_ENCODED_LINE_BYTES: usize = 76;
/// Maximum bytes of a line without its line break (RFC 5322, 2.1.1).
const MAX_LINE_BYTES: usize = 998;
/// Maximum bytes of a line that every program and relay leaves as it is (RFC 5322, 2.1.1).
const MAX_SHORT_LINE_BYTES: usize = 78;

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
            return Err(Error::new(ErrorKind::Misconfigured, "mail sender")
                .context(format!("the app's name {app:?} is empty or has control characters")));
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
        Ok(Self {
            app: app.to_owned(),
            from: Mailbox::new(Some(without_encoded_words(app)), mailbox),
            templates: None,
            #[cfg(feature = "dkim")]
            dkim: Vec::new(),
        })
    }

    /// Sets the port that writes the texts. Default: built-in texts in the language of the recipient, as text and HTML.
    #[must_use]
    pub fn with_templates(mut self, templates: impl Templates) -> Self {
        self.templates = Some(Arc::new(templates));
        self
    }

    /// Signs each mail with a key (DKIM). Several calls add up: one signature for each key, such as Ed25519 and RSA (RFC 8463, 5).
    #[cfg(feature = "dkim")]
    #[must_use]
    pub fn with_dkim(mut self, key: DkimKey) -> Self {
        self.dkim.push(key);
        self
    }

    /// Renders a mail for sending.
    pub(super) fn render(&self, mail: &Mail) -> Result<RenderedMail, Error> {
        let message = self.compose(mail)?;
        let text = String::from_utf8(message.formatted()).map_err(|_| {
            Error::new(ErrorKind::Rejected, "render mail").context("the message is not UTF-8")
        })?;
        let text = with_folded_sender(text);
        #[cfg(feature = "dkim")]
        let text = {
            let signatures: Vec<_> =
                self.dkim.iter().map(|key| key.signature(&text)).collect::<Result<_, _>>()?;
            signatures.concat() + &text
        };
        Ok(RenderedMail {
            #[cfg(any(feature = "smtp", feature = "sendmail"))]
            envelope: message.envelope().clone(),
            text,
        })
    }

    fn compose(&self, mail: &Mail) -> Result<lettre::Message, Error> {
        // The stored address was checked when it was entered. An error here is permanent.
        let refused =
            |source: lettre::error::Error| Error::new(ErrorKind::Rejected, "render mail").source(source);
        let to: Address = mail.to.mailbox().parse().map_err(|source: lettre::address::AddressError| {
            Error::new(ErrorKind::Rejected, "render mail").source(source)
        })?;
        let replaced = self.templates.as_ref().and_then(|templates| templates.render(mail, &self.app));
        let (words, language) = match replaced {
            // The language of a host's text is unknown.
            Some(words) => (words, None),
            None => built_in(mail, &self.app),
        };
        if words.subject.chars().any(char::is_control) {
            return Err(
                Error::new(ErrorKind::Rejected, "render mail").context("the subject must be one line")
            );
        }
        let seconds = u64::try_from(mail.at.micros() / 1_000_000).unwrap_or(0);
        let automatic = header::HeaderValue::new(
            header::HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        );
        let builder = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(without_encoded_words(&words.subject))
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .message_id(Some(format!("<{}@{}>", local_part(&mail.id), self.from.email.domain())))
            .raw_header(automatic);
        let builder = match language {
            Some(language) => builder.raw_header(header::HeaderValue::new(
                header::HeaderName::new_from_ascii_str("Content-Language"),
                language.to_owned(),
            )),
            None => builder,
        };
        // RFC 8058. A signature must cover both headers (4).
        let builder = match &mail.message {
            Message::Digest { unsubscribe, .. } if is_header_safe(unsubscribe.expose()) => builder
                .raw_header(unfolded("List-Unsubscribe", format!("<{}>", unsubscribe.expose())))
                .raw_header(unfolded("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".to_owned())),
            _ => builder,
        };
        let text = part(header::ContentType::TEXT_PLAIN, &words.text, MAX_LINE_BYTES);
        match words.html {
            None => builder.singlepart(text),
            // The last part is the preferred one (RFC 2046, 5.1.4).
            Some(html) => builder.multipart(MultiPart::alternative().singlepart(text).singlepart(part(
                header::ContentType::TEXT_HTML,
                &html,
                MAX_SHORT_LINE_BYTES,
            ))),
        }
        .map_err(refused)
    }
}

/// A text part that every relay accepts.
///
/// 8-bit bodies need the extension 8BITMIME, which not every relay has (RFC 6152).
///
/// ASCII text without lines above `max_line_bytes` is sent unencoded, so that a code and a link are readable in a mail file; any other text
/// is sent in the shorter of quoted-printable and base64, whose lines have at most 76 characters (RFC 2045).
fn part(content_type: header::ContentType, text: &str, max_line_bytes: usize) -> SinglePart {
    // Texts of a host may have line ends of other systems.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let body = if text.is_ascii() && text.lines().all(|line| line.len() <= max_line_bytes) {
        Body::dangerous_pre_encoded(text.replace('\n', "\r\n").into_bytes(), Encoding::SevenBit)
    } else {
        Body::new(text)
    };
    SinglePart::builder().header(content_type).body(body)
}

/// Breaks the line of a long sender before the address, which `lettre` does not do.
fn with_folded_sender(mut text: String) -> String {
    let start = if text.starts_with("From: ") { Some(0) } else { text.find("\r\nFrom: ").map(|at| at + 2) };
    if let Some(start) = start
        && let Some(end) = text[start..].find("\r\n").map(|length| start + length)
        && end - start > MAX_ENCODED_LINE_BYTES
        && let Some(address) = text[start..end].rfind(" <")
    {
        text.insert_str(start + address, "\r\n");
    }
    text
}

/// Whether a URL can stand in angle brackets in a header, on one line.
fn is_header_safe(url: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>');
    url.bytes().all(is_safe) && url.len() <= MAX_LINE_BYTES - "List-Unsubscribe: <>".len()
}

/// Header whose ASCII value is neither encoded nor folded.
fn unfolded(name: &'static str, value: String) -> header::HeaderValue {
    let name = header::HeaderName::new_from_ascii_str(name);
    header::HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
}

/// Left side of a `Message-ID`: characters that it may not have become `-` (RFC 5322, 3.6.4).
fn local_part(id: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.' | '=');
    id.chars().map(|c| if allowed(c) { c } else { '-' }).collect()
}

/// Text of a header that mail programs do not decode: `=?` begins an encoded word, in which text could be hidden (RFC 2047, 2).
fn without_encoded_words(text: &str) -> String {
    // A word joiner is invisible.
    text.replace("=?", "=\u{2060}?")
}

impl Default for Letterhead {
    fn default() -> Self {
        Self::new("Couple", "couple@localhost").expect("the default is well-formed")
    }
}

#[cfg(test)]
mod tests {
    use couple_core::{
        DisplayName, EmailAddress, Label, Locale, Secret, Timestamp,
        mail::{Lifetimes, MailText, Message},
    };

    use mail_parser::MessageParser;

    use super::*;

    fn mail(message: Message, to: &str) -> Mail {
        Mail {
            id: "01".to_owned(),
            to: EmailAddress::parse("email", to).unwrap(),
            locale: None,
            at: Timestamp::from_micros(1_767_225_600_000_000),
            message,
        }
    }

    fn rendered_with(letterhead: &Letterhead, message: Message, to: &str) -> String {
        rendered(letterhead, &mail(message, to))
    }

    fn rendered(letterhead: &Letterhead, mail: &Mail) -> String {
        letterhead.render(mail).unwrap().text
    }

    fn custom(subject: &str, html: Option<&str>) -> Message {
        let text = MailText {
            subject: subject.to_owned(),
            text: "Hello,\n\nsee you.\n".to_owned(),
            html: html.map(str::to_owned),
        };
        Message::Custom { name: "reminder".to_owned(), text }
    }

    /// Templates in German for recipients who read German.
    fn german(mail: &Mail, app: &str) -> Option<MailText> {
        if mail.locale.as_ref().map(Locale::as_str) != Some("de") {
            return None;
        }
        let text = match &mail.message {
            Message::ConfirmSignUp { code, lifetimes, .. } => {
                format!("Dein Code: {} ({} s)\n", code.expose(), lifetimes.code.as_secs())
            }
            Message::Custom { name, .. } => format!("Vorlage {name}\n"),
            _ => return None,
        };
        Some(MailText { subject: format!("Post von {app}"), text, html: None })
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
            from: Some(DisplayName::from_stored(name)),
            message: message.map(Label::from_stored),
            code: Secret::new("ABCD-EFGH".to_owned()),
            link: Secret::new("http://x/open/invite#invite_a".to_owned()),
            expires_at: Timestamp::from_micros(1_767_312_000_000_000),
        };
        rendered_with(&Letterhead::default(), message, "ana@example.org")
    }

    fn parsed(mail: &str) -> mail_parser::Message<'_> {
        MessageParser::new().parse(mail.as_bytes()).unwrap()
    }

    /// The decoded plain text of a mail.
    fn text_of(mail: &str) -> String {
        parsed(mail).body_text(0).unwrap().replace("\r\n", "\n")
    }

    /// The decoded HTML of a mail, without line breaks.
    fn html_of(mail: &str) -> String {
        parsed(mail).body_html(0).unwrap().replace("\r\n", "").replace('\n', "")
    }

    const CODE: &str = "123456";
    const LINK: &str = "https://couple.example/open/verify#verify_a1b2c3d4e5f6a7b8c9d0e1f2";

    const STOP: &str = "https://couple.example/open/unsubscribe/AZ_x-0";

    /// Digest with two texts if it shows the partner's name.
    fn digest(unread: u32, name: Option<&str>) -> Message {
        Message::Digest {
            unread,
            from: name.map(DisplayName::from_stored),
            texts: name
                .iter()
                .flat_map(|name| [*name, "See <b>you</b> & me"])
                .map(Label::from_stored)
                .collect(),
            unsubscribe: Secret::new(STOP.to_owned()),
        }
    }

    /// Every message with a built-in text; those with a code or a link have [`CODE`] and [`LINK`].
    fn every_message(name: &str) -> Vec<Message> {
        let (code, link) = (|| Secret::new(CODE.to_owned()), || Secret::new(LINK.to_owned()));
        let lifetimes = Lifetimes { code: Duration::from_mins(10), link: Duration::from_hours(24) };
        let at = Timestamp::from_micros(1_767_312_000_000_000);
        let from = Some(DisplayName::from_stored(name));
        let message = Some(Label::from_stored("See <b>you</b> & me"));
        vec![
            Message::ConfirmSignUp { code: code(), link: link(), lifetimes },
            Message::AlreadySignedUp,
            Message::SignInCode { code: code(), link: link(), lifetimes },
            Message::SetPassword { link: link(), lifetime: lifetimes.link },
            Message::ConfirmEmail { code: code(), link: link(), lifetimes },
            Message::EmailChangeAsked { link: link(), lifetime: lifetimes.link },
            Message::EmailChanged,
            Message::EmailConfirmed,
            Message::PasswordChanged,
            Message::NewDevice { device: Some(Label::from_stored(name)), at },
            Message::NewDevice { device: None, at },
            Message::DeletionScheduled { due: at },
            Message::Deleted,
            Message::Invitation { from, message, code: code(), link: link(), expires_at: at },
            Message::Invitation { from: None, message: None, code: code(), link: link(), expires_at: at },
            Message::InviteAccepted { partner: DisplayName::from_stored(name) },
            Message::PartnerLeft,
            digest(1, None),
            digest(2, None),
            digest(3, Some(name)),
        ]
    }

    #[test]
    fn every_message_has_text_and_html_in_every_language() {
        for (tag, direction) in [
            ("en", "ltr"),
            ("ar", "rtl"),
            ("de", "ltr"),
            ("es", "ltr"),
            ("fr", "ltr"),
            ("ja", "ltr"),
            ("ko", "ltr"),
            ("pt-BR", "ltr"),
        ] {
            let mut texts = std::collections::BTreeSet::new();
            for message in every_message("Zoë & <Ana>") {
                let has_link = format!("{message:?}").contains("link");
                let has_code = format!("{message:?}").contains("code");
                let mut mail = mail(message, "ana@example.org");
                mail.locale = Locale::matched(tag);
                let wire = rendered(&Letterhead::new("Two Hearts", "a@example.org").unwrap(), &mail);
                assert!(wire.is_ascii(), "{wire}");
                assert!(wire.lines().all(|line| line.len() <= MAX_LINE_BYTES), "{wire}");
                let encoded = wire.split("Content-Transfer-Encoding: 7bit").next().unwrap();
                let mut folded = encoded.lines().filter(|line| !line.starts_with("List-Unsubscribe: <"));
                assert!(folded.all(|line| line.len() <= MAX_SHORT_LINE_BYTES), "{encoded}");
                assert!(wire.contains(&format!("Content-Language: {tag}\r\n")), "{wire}");
                let (text, html) = (text_of(&wire), html_of(&wire));
                assert!(parsed(&wire).subject().is_some_and(|s| s.contains("Two Hearts")), "{wire}");
                assert!(!text.contains(['{', '}', '$']), "{text}");
                assert!(texts.insert(text.clone()), "two messages have one text: {text}");
                assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>"), "{html}");
                assert!(html.contains(&format!("<html lang=\"{tag}\" dir=\"{direction}\">")), "{html}");
                assert_eq!(has_code, text.contains(&format!("\n    {CODE}\n")), "{text}");
                assert_eq!(has_code, html.contains(&format!(">{CODE}</td>")), "{html}");
                assert_eq!(has_link, text.contains(&format!("\n{LINK}\n")), "{text}");
                assert_eq!(has_link, html.contains(&format!("<a href=\"{LINK}\"")), "{html}");
                assert_eq!(has_link, html.contains(&format!(">{LINK}</a>")), "{html}");
                for active in
                    ["<script", "<img", "<link ", "src=", "url(", "@import", "<Ana>", "<b>", "http:"]
                {
                    assert!(!html.contains(active), "{active} in {html}");
                }
                for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    let line = line.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;");
                    let line = line.trim_matches('"');
                    assert!(html.contains(line), "{line:?} is in the text only: {html}");
                }
            }
        }
    }

    #[test]
    fn text_of_a_user_keeps_its_direction() {
        let arabic = DisplayName::from_stored("محمد");
        let mut mail = mail(Message::InviteAccepted { partner: arabic.clone() }, "ana@example.org");
        let text = text_of(&rendered(&Letterhead::default(), &mail));
        assert!(text.starts_with("\u{2068}محمد\u{2069} accepted"), "{text}");
        mail.locale = Locale::matched("ar");
        mail.message = Message::InviteAccepted { partner: DisplayName::from_stored("Ana\u{202e}") };
        let text = text_of(&rendered(&Letterhead::default(), &mail));
        assert!(text.contains("\u{2068}Ana \u{2069}"), "{text}");
    }

    #[test]
    fn hostile_names_and_subjects_add_no_header_recipient_or_part() {
        let hostile = [
            "A\r\nBcc: x@evil.example\r\n\r\n<b>x</b>",
            "A\nBcc: x@evil.example",
            "A\rBcc: x@evil.example",
            "A\0Bcc: x@evil.example",
            "A\u{2028}Bcc: x@evil.example\u{2029}To: y@evil.example",
            "A\u{85}Bcc: x@evil.example",
            "=?utf-8?q?A=0D=0ABcc:_x@evil.example?=",
            "=?utf-8?B?QQ0KQmNjOiB4QGV2aWwuZXhhbXBsZQ==?=",
            "x@evil.example, y@evil.example",
            "\"x\" <x@evil.example>",
            "x\" <x@evil.example>, \"",
            "<x@evil.example>; Bcc: x@evil.example",
            "(x) \\\" \\\\",
            "--\r\nContent-Type: text/html\r\n\r\nx",
            "Zoë, \"Bcc\": x@evil.example",
            &"é, ".repeat(60),
        ];
        let names =
            |wire: &str| parsed(wire).headers_raw().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        let without_list = |wire: &str| {
            names(wire).into_iter().filter(|name| !name.starts_with("List-")).collect::<Vec<_>>()
        };
        let plain = rendered_with(&Letterhead::default(), custom("Plain", None), "ana@example.org");
        for text in hostile {
            for message in every_message(text) {
                let expected = rendered_with(&Letterhead::default(), Message::Deleted, "ana@example.org");
                let is_digest = matches!(message, Message::Digest { .. });
                let wire = rendered_with(&Letterhead::default(), message, "ana@example.org");
                assert!(wire.is_ascii(), "{wire}");
                let mail = parsed(&wire);
                assert_eq!(without_list(&wire), names(&expected), "{text:?}");
                assert_eq!(names(&wire).len() - names(&expected).len(), if is_digest { 2 } else { 0 });
                assert_eq!((mail.text_body_count(), mail.html_body_count()), (1, 1), "{text:?}");
                assert_eq!((mail.attachment_count(), mail.parts.len()), (0, 3), "{text:?}");
                let to: Vec<_> = mail.to().unwrap().iter().filter_map(|to| to.address()).collect();
                assert_eq!(to, ["ana@example.org"], "{text:?}");
                assert!(!mail.subject().unwrap().contains("evil"), "{text:?}");
            }
            // As the subject of a host's own mail, and as the name of the app.
            let host = mail(custom(text, None), "ana@example.org");
            let sent = Letterhead::default().render(&host).map(|sent| sent.text);
            assert_eq!(sent.is_err(), text.chars().any(char::is_control), "{text:?}");
            if let Ok(wire) = sent {
                assert!(wire.is_ascii(), "{wire}");
                assert_eq!(names(&wire), names(&plain), "{text:?}");
                let subject = parsed(&wire).subject().unwrap().replace('\u{2060}', "");
                assert_eq!(subject.trim(), text.trim(), "{wire}");
            }
            if let Ok(letterhead) = Letterhead::new(text, "a@example.org") {
                let wire = rendered_with(&letterhead, custom("Plain", None), "ana@example.org");
                assert!(wire.is_ascii(), "{wire}");
                assert_eq!(names(&wire), names(&plain), "{text:?}");
                let mail = parsed(&wire);
                let from: Vec<_> = mail.from().unwrap().iter().filter_map(|from| from.address()).collect();
                assert_eq!(from, ["a@example.org"], "{text:?}");
            }
        }
    }

    #[test]
    fn digest_can_be_stopped_with_one_click_and_no_other_mail_has_the_headers() {
        for message in every_message("Zoë") {
            let is_digest = matches!(message, Message::Digest { .. });
            let wire = rendered_with(&Letterhead::default(), message, "ana@example.org");
            let link = format!("\r\nList-Unsubscribe: <{STOP}>\r\n");
            assert_eq!(wire.contains(&link), is_digest, "{wire}");
            let post = "\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
            assert_eq!(wire.contains(post), is_digest, "{wire}");
            assert_eq!(wire.matches("List-Unsubscribe").count(), if is_digest { 3 } else { 0 }, "{wire}");
        }
        let templates = |_: &Mail, _: &str| {
            Some(MailText { subject: "News".to_owned(), text: "Hi\n".to_owned(), html: None })
        };
        let letterhead = Letterhead::default().with_templates(templates);
        let wire = rendered_with(&letterhead, digest(1, None), "ana@example.org");
        assert!(wire.contains(&format!("\r\nList-Unsubscribe: <{STOP}>\r\n")), "{wire}");
    }

    #[test]
    fn url_that_a_header_cannot_hold_is_left_out() {
        let long = format!("https://a.example/{}", "x".repeat(980));
        for url in ["https://münchen.example/a", "https://a.example/>\r\nBcc: x@evil.example", "a b", &long]
        {
            let message = Message::Digest {
                unread: 1,
                from: None,
                texts: Vec::new(),
                unsubscribe: Secret::new(url.to_owned()),
            };
            let wire = rendered_with(&Letterhead::default(), message, "ana@example.org");
            assert!(!wire.contains("List-Unsubscribe"), "{wire}");
        }
    }

    #[test]
    fn digest_has_plural_forms_and_shows_the_partner_only_with_a_name() {
        let text = |tag: &str, unread, name: Option<&str>| {
            let mut mail = mail(digest(unread, name), "ana@example.org");
            mail.locale = Locale::matched(tag);
            text_of(&rendered(&Letterhead::new("Two Hearts", "a@example.org").unwrap(), &mail))
        };
        for (tag, unread, expected) in [
            ("en", 1, "You have 1 unread message at Two Hearts."),
            ("en", 2, "You have 2 unread messages at Two Hearts."),
            ("de", 1, "Du hast 1 ungelesene Nachricht bei Two Hearts."),
            ("de", 7, "Du hast 7 ungelesene Nachrichten bei Two Hearts."),
            ("ar", 1, "لديك رسالة واحدة غير مقروءة في Two Hearts."),
            ("ar", 2, "لديك رسالتان غير مقروءتين في Two Hearts."),
            ("ar", 3, "لديك 3 رسائل غير مقروءة في Two Hearts."),
            ("ar", 11, "لديك 11 رسالة غير مقروءة في Two Hearts."),
            ("ja", 2, "Two Heartsに未読のメッセージが2件あります。"),
        ] {
            let text = text(tag, unread, None);
            assert!(text.starts_with(expected), "{text}");
            assert!(!text.contains('"'), "{text}");
        }
        let shown = text("en", 2, Some("Zoë"));
        assert!(
            shown.starts_with("You have 2 unread messages from Zoë at Two Hearts.\n\n    \"Zoë\"\n"),
            "{shown}"
        );
        assert!(shown.ends_with(&format!("Stop these mails\n{STOP}\n")), "{shown}");
    }

    #[test]
    fn message_id_has_only_characters_that_it_may_have() {
        let mut mail = mail(Message::Deleted, "ana@example.org");
        mail.id = "a\r\nBcc: <x@evil.example>\u{2028}é".to_owned();
        let wire = rendered(&Letterhead::default(), &mail);
        assert!(wire.contains("Message-ID: <a--Bcc---x-evil.example---@localhost>\r\n"), "{wire}");
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
            "Content-Language: en\r\n",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n",
            "    123456\r\n",
            "http://x/open/verify#verify_a\r\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn mail_says_how_long_code_and_link_work() {
        let text = rendered_with(&Letterhead::default(), sign_up(), "ana@example.org");
        assert!(text.contains("The code works for 10 minutes, the link for 24 hours."), "{text}");
        let link = || Secret::new("http://x/open/cancel#a".to_owned());
        let reset = Message::SetPassword { link: link(), lifetime: Duration::from_hours(1) };
        let text = rendered_with(&Letterhead::default(), reset, "ana@example.org");
        assert!(text.contains("The link works for 1 hour."), "{text}");
        let asked = Message::EmailChangeAsked { link: link(), lifetime: Duration::from_hours(48) };
        let text = rendered_with(&Letterhead::default(), asked, "ana@example.org");
        assert!(text.contains("The link works for 2 days."), "{text}");
        let text = text_of(&invitation("Ana", None));
        assert!(text.contains("Code and link work until January 2, 2026, 00:00 UTC."), "{text}");
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
        assert!(text_of(&text).contains("Zoë wants to connect with you"), "{text}");
        assert!(text_of(&text).contains("\nhttp://x/open/invite#invite_a\n"), "{text}");
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
        for wrong in ["", "A\nB"] {
            let error = Letterhead::new(wrong, "a@example.org").map(drop).unwrap_err().to_string();
            assert!(error.contains(&format!("name {wrong:?}")), "{error}");
        }
    }

    #[test]
    fn invitation_neutralises_links_and_long_text_of_the_inviter() {
        let text = text_of(&invitation(
            "WIN at https://evil.example/x",
            Some("www.evil.example or mail me@evil.example, tel:+123 evil。example"),
        ));
        assert!(!text.contains("https://evil"), "{text}");
        for link in ["evil.example", "evil。example", "me@evil", "www.evil"] {
            assert!(!text.contains(link), "{link} in {text}");
        }
        assert!(text.contains("https[:]//evil[.]example/x"), "{text}");
        let long = text_of(&invitation(&"a".repeat(64), Some(&"b".repeat(200))));
        assert!(long.contains(&format!("{}…", "a".repeat(40))), "{long}");
        assert!(long.contains(&format!("{}…", "b".repeat(160))), "{long}");
        // Ordinary text stays as it was typed.
        let plain =
            text_of(&invitation("Ana-Maria O'Neil", Some("Hi! See you at 18:30, ok? 3.5 km. I <3 you...")));
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

    #[test]
    fn host_template_replaces_subject_and_text_in_the_language_of_the_recipient() {
        let letterhead = Letterhead::default().with_templates(german);
        let mut mail = mail(sign_up(), "ana@example.org");
        mail.locale = Locale::matched("de");
        let text = rendered(&letterhead, &mail);
        assert!(text.contains("Subject: Post von Couple\r\n"), "{text}");
        assert!(text.trim_end().ends_with("\r\n\r\nDein Code: 123456 (600 s)"), "{text}");
        mail.message = custom("Given", None);
        let text = rendered(&letterhead, &mail);
        assert!(text.trim_end().ends_with("\r\n\r\nVorlage reminder"), "{text}");
    }

    #[test]
    fn missing_template_falls_back_to_the_built_in_text() {
        let letterhead = Letterhead::default().with_templates(german);
        let mut mail = mail(sign_up(), "ana@example.org");
        let text = rendered(&letterhead, &mail);
        assert!(text.contains("Subject: Your code for Couple\r\n"), "{text}");
        mail.locale = Locale::matched("de");
        mail.message = Message::PasswordChanged;
        let text = rendered(&letterhead, &mail);
        assert_eq!(parsed(&text).subject(), Some("Dein Passwort bei Couple wurde geändert"), "{text}");
    }

    #[test]
    fn custom_mail_is_sent_as_given() {
        let text = rendered_with(&Letterhead::default(), custom("See you", None), "ana@example.org");
        assert!(text.contains("Subject: See you\r\n"), "{text}");
        assert!(text.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{text}");
        assert!(text.trim_end().ends_with("\r\n\r\nHello,\r\n\r\nsee you."), "{text}");
    }

    #[test]
    fn html_is_an_alternative_in_ascii() {
        let html = "<p>Bis später, <b>Zoë</b></p>\n";
        let text = rendered_with(&Letterhead::default(), custom("See you", Some(html)), "ana@example.org");
        assert!(text.is_ascii(), "{text}");
        assert!(text.lines().all(|line| line.len() <= 78), "{text}");
        assert!(text.contains("Content-Type: multipart/alternative;"), "{text}");
        let plain = text.find("Content-Type: text/plain").unwrap();
        let rich = text.find("Content-Type: text/html; charset=utf-8").unwrap();
        assert!(plain < rich, "programs prefer the last part: {text}");
        assert_eq!(html_of(&text), "<p>Bis später, <b>Zoë</b></p>");
    }

    #[test]
    fn line_ends_of_other_systems_are_accepted() {
        for end in ["\n", "\r\n", "\r"] {
            let html = format!("<p>See</p>{end}<p>you</p>{end}");
            let text =
                rendered_with(&Letterhead::default(), custom("See you", Some(&html)), "ana@example.org");
            assert!(text.contains("<p>See</p>\r\n<p>you</p>\r\n"), "{end:?}: {text}");
            assert!(!text.replace("\r\n", "").contains('\r'), "{end:?}: {text}");
        }
    }

    #[test]
    fn line_break_in_a_subject_is_refused() {
        for subject in ["a\r\nBcc: x@evil.example", "a\nb", "a\0"] {
            let error =
                Letterhead::default().render(&mail(custom(subject, None), "ana@example.org")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected, "{subject:?}");
        }
    }

    #[test]
    fn debug_output_hides_the_text() {
        let shown = format!("{:?}", custom("See you", Some("<p>see you</p>")));
        assert!(shown.contains("See you") && !shown.contains("see you"), "{shown}");
    }
}
