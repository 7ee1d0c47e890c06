//! A mail as RFC 5322 text.

use std::time::{Duration, SystemTime};

use couple_core::{
    Error, ErrorKind,
    mail::{Mail, Message},
};
use lettre::{
    Address,
    message::{Body, Mailbox, SinglePart, header, header::ContentTransferEncoding as Encoding},
};

/// Who writes: the app's name and the address that mails come from.
#[derive(Debug, Clone)]
pub struct Letterhead {
    app: String,
    from: Mailbox,
}

impl Letterhead {
    /// Mail from `app` at `address`.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when the address is none, or the name holds control characters.
    pub fn new(app: &str, address: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Misconfigured, "mail sender").context(format!("{address}: {why}"))
        };
        if app.is_empty() || app.chars().any(char::is_control) {
            return Err(wrong("the app's name must be one line".to_owned()));
        }
        let address: Address =
            address.parse().map_err(|e: lettre::address::AddressError| wrong(e.to_string()))?;
        Ok(Self { app: app.to_owned(), from: Mailbox::new(Some(app.to_owned()), address) })
    }

    /// The mail, ready to be handed over.
    pub(super) fn render(&self, mail: &Mail) -> Result<lettre::Message, Error> {
        // The stored address was checked when it was taken; what is refused here would be refused for ever.
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
            .singlepart(plain(&text))
            .map_err(refused)
    }

    /// What a mail says. Names appear in the text only, never in the subject or another header.
    fn words(&self, message: &Message) -> (String, String) {
        let app = &self.app;
        let ignore = "If this was not you, ignore this mail: nothing happens without the code.";
        match message {
            Message::ConfirmSignUp { name, code, link } => (
                format!("Your code for {app}"),
                format!(
                    "Hello {name},\n\nyour code is:\n\n    {}\n\nIt is good for 10 minutes. Or open this link:\n\n{}\n\n{ignore}\n",
                    code.expose(),
                    link.expose()
                ),
            ),
            Message::AlreadySignedUp => (
                format!("You already have an account at {app}"),
                format!(
                    "Hello,\n\nsomebody, maybe you, gave this address at {app}, where it already has an account.\n\nSign in as always; if you forgot your password, ask for a new one there.\n"
                ),
            ),
            Message::SignInCode { code } => (
                format!("Your code for {app}"),
                format!("Your code to sign in is:\n\n    {}\n\nIt is good for 10 minutes. {ignore}\n", code.expose()),
            ),
            Message::SetPassword { link } => (
                format!("Set a new password for {app}"),
                format!(
                    "Open this link within an hour to set a new password:\n\n{}\n\nIf you did not ask for it, ignore this mail: your password stays.\n",
                    link.expose()
                ),
            ),
            Message::ConfirmEmail { code, link } => (
                format!("Confirm your new address for {app}"),
                format!(
                    "Your code is:\n\n    {}\n\nIt is good for 10 minutes. Or open this link:\n\n{}\n\n{ignore}\n",
                    code.expose(),
                    link.expose()
                ),
            ),
            Message::EmailChanged => (
                format!("Your address at {app} was changed"),
                "Your account now has another address, and this one is no longer used.\n\nIf this was not you, answer this mail at once.\n".to_owned(),
            ),
            Message::PasswordChanged => (
                format!("Your password at {app} was changed"),
                "Your password was set, and every other device is signed out.\n\nIf this was not you, ask for a new password at once.\n".to_owned(),
            ),
            Message::DeletionScheduled { due } => (
                format!("Your account at {app} will be deleted"),
                format!(
                    "Your account and what you wrote will be deleted on {}.\n\nIf you change your mind, sign in before then.\n",
                    due.to_rfc3339().get(..10).unwrap_or_default()
                ),
            ),
            Message::Invitation { from, message, code, link } => {
                let said = message.as_ref().map_or_else(String::new, |said| format!("\n    “{said}”\n"));
                (
                    format!("An invitation at {app}"),
                    format!(
                        "{from} wants to pair with you at {app}.\n{said}\nTheir code is:\n\n    {}\n\nOr open this link:\n\n{}\n\nIf you do not know them, ignore this mail.\n",
                        code.expose(),
                        link.expose()
                    ),
                )
            }
            _ => (format!("News from {app}"), "Open the app.\n".to_owned()),
        }
    }
}

/// The text as it is, so that a link stays whole for whoever looks at the file, too.
fn plain(text: &str) -> SinglePart {
    let encoding = if text.is_ascii() { Encoding::SevenBit } else { Encoding::EightBit };
    // Every line is ours, or a name, a message or a link of bounded length: far below the 998 bytes that a line may have.
    let body = Body::dangerous_pre_encoded(text.replace('\n', "\r\n").into_bytes(), encoding);
    SinglePart::builder().header(header::ContentType::TEXT_PLAIN).body(body)
}

impl Default for Letterhead {
    fn default() -> Self {
        Self::new("Couple", "couple@localhost").expect("the default is well-formed")
    }
}

#[cfg(test)]
mod tests {
    use couple_core::{DisplayName, EmailAddress, Secret, Timestamp};

    use super::*;

    fn rendered(name: &str, to: &str) -> String {
        let mail = Mail {
            id: "01".to_owned(),
            to: EmailAddress::parse("email", to).unwrap(),
            locale: None,
            at: Timestamp::from_micros(1_767_225_600_000_000),
            message: Message::ConfirmSignUp {
                name: DisplayName::from_stored(name),
                code: Secret::new("123456".to_owned()),
                link: Secret::new("http://x/open/verify#verify_a".to_owned()),
            },
        };
        String::from_utf8(Letterhead::default().render(&mail).unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_mail_has_what_it_needs() {
        let text = rendered("Ana", "Ana.B+x@MÜNCHEN.de");
        for line in [
            "From: Couple <couple@localhost>\r\n",
            "To: Ana.B+x@xn--mnchen-3ya.de\r\n",
            "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n",
            "Message-ID: <01@localhost>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "    123456\r\n",
            "http://x/open/verify#verify_a\r\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn any_name_leaves_the_link_whole() {
        for name in ["李小龍", "محمد علي", "José-María 👩‍❤️‍👨", &"é".repeat(64)] {
            let text = rendered(name, "ana@example.org");
            assert!(text.contains(&format!("Hello {name},\r\n")), "{text}");
            assert!(text.contains("\r\nhttp://x/open/verify#verify_a\r\n"), "{text}");
            assert!(text.contains("Content-Transfer-Encoding: 8bit\r\n"), "{text}");
        }
    }

    #[test]
    fn a_name_adds_no_header_recipient_or_part() {
        // Stored text that no check let through: even then it stays in the body.
        for name in
            ["A\r\nBcc: x@evil.example\r\n\r\n", "A\nTo: x@evil.example", "--b\r\nContent-Type: text/html"]
        {
            let text = rendered(name, "ana@example.org");
            let headers = text.split("\r\n\r\n").next().unwrap();
            assert_eq!(headers.lines().filter(|line| line.starts_with("To:")).count(), 1, "{headers}");
            assert!(!headers.to_lowercase().contains("bcc"), "{headers}");
            assert!(!headers.contains("evil"), "{headers}");
        }
    }
}
