//! Rendering of a mail as RFC 5322 text.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use couple_core::{EmailAddress, Error, ErrorKind, mail::Mail};
use lettre::{
    Address,
    message::{Body, Mailbox, MultiPart, SinglePart, header, header::ContentTransferEncoding as Encoding},
};

use super::{Templates, english::english};

/// Sender of mails: the app's name and the address, and the host's texts.
#[derive(Clone)]
pub struct Letterhead {
    app: String,
    from: Mailbox,
    templates: Option<Arc<dyn Templates>>,
}

impl fmt::Debug for Letterhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letterhead").field("app", &self.app).field("from", &self.from).finish_non_exhaustive()
    }
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
        Ok(Self { app: app.to_owned(), from: Mailbox::new(Some(app.to_owned()), mailbox), templates: None })
    }

    /// Sets the port that writes the texts. Default: English texts without HTML.
    #[must_use]
    pub fn with_templates(mut self, templates: impl Templates) -> Self {
        self.templates = Some(Arc::new(templates));
        self
    }

    /// Renders a mail for sending.
    pub(super) fn render(&self, mail: &Mail) -> Result<lettre::Message, Error> {
        // The stored address was checked when it was entered. An error here is permanent.
        let refused =
            |source: lettre::error::Error| Error::new(ErrorKind::Rejected, "render mail").source(source);
        let to: Address = mail.to.mailbox().parse().map_err(|source: lettre::address::AddressError| {
            Error::new(ErrorKind::Rejected, "render mail").source(source)
        })?;
        let replaced = self.templates.as_ref().and_then(|templates| templates.render(mail, &self.app));
        let words = replaced.unwrap_or_else(|| english(&mail.message, &self.app));
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
            .subject(words.subject)
            .date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .raw_header(automatic);
        let text = part(header::ContentType::TEXT_PLAIN, &words.text);
        match words.html {
            None => builder.singlepart(text),
            // The last part is the preferred one (RFC 2046, 5.1.4).
            Some(html) => builder.multipart(
                MultiPart::alternative()
                    .singlepart(text)
                    .singlepart(part(header::ContentType::TEXT_HTML, &html)),
            ),
        }
        .map_err(refused)
    }
}

/// A text part that every relay accepts.
///
/// 8-bit bodies need the extension 8BITMIME, which not every relay has (RFC 6152).
///
/// ASCII text is sent unencoded, so that a code and a link are readable in a mail file; any other text is sent in the shorter of
/// quoted-printable and base64 (RFC 2045).
fn part(content_type: header::ContentType, text: &str) -> SinglePart {
    // Texts of a host may have line ends of other systems.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let body = if text.is_ascii() && text.lines().all(|line| line.len() <= MAX_LINE_BYTES) {
        Body::dangerous_pre_encoded(text.replace('\n', "\r\n").into_bytes(), Encoding::SevenBit)
    } else {
        Body::new(text)
    };
    SinglePart::builder().header(content_type).body(body)
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
        String::from_utf8(letterhead.render(mail).unwrap().formatted()).unwrap()
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
        for wrong in ["", "A\nB"] {
            let error = Letterhead::new(wrong, "a@example.org").map(drop).unwrap_err().to_string();
            assert!(error.contains(&format!("name {wrong:?}")), "{error}");
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
        assert!(long.contains(&format!("{}…", "a".repeat(40))), "{long}");
        assert!(long.contains(&format!("{}…", "b".repeat(160))), "{long}");
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
    fn missing_template_falls_back_to_english() {
        let letterhead = Letterhead::default().with_templates(german);
        let mut mail = mail(sign_up(), "ana@example.org");
        let text = rendered(&letterhead, &mail);
        assert!(text.contains("Subject: Your code for Couple\r\n"), "{text}");
        mail.locale = Locale::matched("de");
        mail.message = Message::PasswordChanged;
        let text = rendered(&letterhead, &mail);
        assert!(text.contains("Subject: Your password at Couple was changed\r\n"), "{text}");
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
        let (_, rich) = text.split_once("Content-Type: text/html; charset=utf-8").unwrap();
        assert!(decoded(rich).starts_with("<p>Bis später, <b>Zoë</b></p>"), "{rich}");
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
