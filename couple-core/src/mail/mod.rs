//! Port for sending mail. Core passes data; the adapter writes the text.

mod checked_mailer;

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{DisplayName, EmailAddress, Error, Label, Locale, Secret, Timestamp};

pub(crate) use checked_mailer::restore;
pub use checked_mailer::{
    CheckedMailer, DeliveryReport, ReportKind, ReportOutcome, RetireReason, RetiredAddress,
};

/// Mail to one recipient.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Id that is the same for all attempts: the local part of the `Message-ID`.
    pub id: String,
    /// Recipient: an address from the store, never from a request.
    pub to: EmailAddress,
    /// Preferred language; the adapter uses it if it supports it.
    pub locale: Option<Locale>,
    /// Time of creation.
    pub at: Timestamp,
    /// Content.
    pub message: Message,
}

/// Lifetimes of a mail's code and of its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Lifetime of the code.
    pub code: Duration,
    /// Lifetime of the link.
    pub link: Duration,
}

/// Text of a mail.
///
/// `Debug` prints the subject only, because a text may contain codes and links.
#[derive(Clone, PartialEq, Eq)]
pub struct MailText {
    /// Subject: one line.
    pub subject: String,
    /// Plain text; lines end with `\n`.
    pub text: String,
    /// HTML document with the same content, for mail programs that show HTML. Values in it must be escaped.
    pub html: Option<String>,
}

impl fmt::Debug for MailText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailText").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Content of a mail.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Message {
    /// Asks the owner of an address to confirm a new account.
    ///
    /// Contains no text of the sign-up: anyone can send a sign-up, and a name such as "WIN at https://…"
    /// would deliver an advertisement to the owner.
    ConfirmSignUp {
        /// Six digits.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
        /// How long code and link work.
        lifetimes: Lifetimes,
    },
    /// Tells the owner of an account that a sign-up used the account's address.
    AlreadySignedUp,
    /// Code for signing in.
    SignInCode {
        /// Six digits.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
        /// How long code and link work.
        lifetimes: Lifetimes,
    },
    /// Link for setting a new password.
    SetPassword {
        /// Link to the page that sets the password.
        link: Secret<String>,
        /// How long the link works.
        lifetime: Duration,
    },
    /// Asks the owner of an account to confirm a new address.
    ConfirmEmail {
        /// Six digits.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
        /// How long code and link work.
        lifetimes: Lifetimes,
    },
    /// Tells the current address that the account requested a change of address.
    EmailChangeAsked {
        /// Link that cancels the change.
        link: Secret<String>,
        /// How long the link works.
        lifetime: Duration,
    },
    /// Tells the old address that it no longer belongs to the account.
    EmailChanged,
    /// Tells the new address that it now belongs to the account.
    EmailConfirmed,
    /// Tells the owner that the password was set or changed.
    PasswordChanged,
    /// Tells the owner that a device signed in by password from which no session exists.
    NewDevice {
        /// Name that the device gave itself.
        device: Option<Label>,
        /// Time of the sign-in.
        at: Timestamp,
    },
    /// Tells the owner that the account will be deleted.
    DeletionScheduled {
        /// Time of the deletion.
        due: Timestamp,
    },
    /// Tells the former owner that the account was deleted. The last mail to the address.
    Deleted,
    /// Invites the recipient to pair.
    ///
    /// Contains text of the inviter only if the recipient has confirmed the address: everyone can invite any address,
    /// and a name such as "WIN at https://…" would deliver an advertisement.
    Invitation {
        /// Display name of the inviter; none if the address belongs to no user.
        from: Option<DisplayName>,
        /// Message of the inviter; none if the address belongs to no user.
        message: Option<Label>,
        /// Short invite code.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
        /// Time at which code and link stop working.
        expires_at: Timestamp,
    },
    /// Tells the inviter that the invite was accepted.
    InviteAccepted {
        /// Display name of the user who accepted.
        partner: DisplayName,
    },
    /// Tells a member that the partner has left, if the host wants it.
    PartnerLeft,
    /// Tells a person who has asked for it that entries are unread.
    Digest {
        /// Number of unread entries, at least 1.
        unread: u32,
        /// Display name of the partner; none if the recipient has not switched previews on.
        from: Option<DisplayName>,
        /// Starts of the newest texts, the oldest of them first; none without previews.
        texts: Vec<Label>,
        /// URL that switches digests off: a page for GET, one click by mail programs for POST (RFC 8058).
        unsubscribe: Secret<String>,
    },
    /// Mail of the host.
    Custom {
        /// Name by which templates recognize the mail.
        name: String,
        /// Text that is sent unless a template replaces it.
        text: MailText,
    },
}

/// Sends mail.
///
/// # Errors
/// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) when the recipient is refused permanently (SMTP 5xx), or the text cannot be sent.
/// Any other error is worth a retry. An outage of the mail server that depends neither on the recipient nor on the text has a
/// [`deferral`](crate::Error::deferral), so that mails wait without using up their attempts.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Sends one mail. `Ok` means that the next mail server has accepted it.
    async fn send(&self, mail: &Mail) -> Result<(), Error>;
}

#[async_trait]
impl<M: Mailer + ?Sized> Mailer for std::sync::Arc<M> {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        (**self).send(mail).await
    }
}

/// Builds the URLs that clients receive. Uses configuration only: no request header can change a link.
#[derive(Debug, Clone)]
pub struct Links {
    base: String,
}

impl Links {
    /// Creates links below the public URL of `couple::http::router`, with or without a trailing slash.
    #[must_use]
    pub fn new(public_url: &str) -> Self {
        Self { base: public_url.trim_end_matches('/').to_owned() }
    }
    /// URL of `path` below the public URL. `path` starts with a slash.
    #[must_use]
    pub fn below(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    /// Path of the public URL, without a slash at its end: the prefix under which clients find the router.
    #[must_use]
    pub fn prefix(&self) -> &str {
        let authority = self.base.split_once("://").map_or("", |(_, authority)| authority);
        authority.find('/').map_or("", |at| &authority[at..])
    }
    /// URL of the page for a token.
    ///
    /// The token is in the fragment, which clients do not send to servers or proxies.
    #[must_use]
    pub fn to(&self, page: &str, token: &Secret<String>) -> Secret<String> {
        Secret::new(format!("{}/open/{page}#{}", self.base, token.expose()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_the_path_of_the_public_url() {
        for (url, prefix) in [
            ("https://my.app", ""),
            ("https://my.app/", ""),
            ("https://my.app/api/", "/api"),
            ("http://127.0.0.1:8080/a/b", "/a/b"),
            ("no URL", ""),
        ] {
            assert_eq!(Links::new(url).prefix(), prefix, "{url}");
        }
    }
}
