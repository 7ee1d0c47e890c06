//! The port by which mail leaves. What a mail says is data; how it reads is the adapter's.

use async_trait::async_trait;

use crate::{DisplayName, EmailAddress, Error, Label, Locale, Secret, Timestamp};

/// One mail to one person.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Stable over all attempts: the left side of the `Message-ID`.
    pub id: String,
    /// To whom: an address as it is stored, never as a request has it.
    pub to: EmailAddress,
    /// In which language, if the adapter speaks it.
    pub locale: Option<Locale>,
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub message: Message,
}

/// What a mail says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Message {
    /// Confirm the address of a new account. Contains no text of the sign-up: a stranger may have sent it, and a name such as
    /// "WIN at https://…" would be an advertisement to its owner.
    ConfirmSignUp {
        /// Six digits.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
    },
    /// Somebody signed up with the address of an account.
    AlreadySignedUp,
    /// A code to sign in with.
    SignInCode {
        /// Six digits.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
    },
    /// Set a new password.
    SetPassword {
        /// Where.
        link: Secret<String>,
    },
    /// Confirm a new address.
    ConfirmEmail {
        /// Six digits.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
    },
    /// Tell the present address that the account asked for another one.
    EmailChangeAsked {
        /// Link that cancels the change.
        link: Secret<String>,
    },
    /// To the old address: it is no longer the account's.
    EmailChanged,
    /// The password was set or changed.
    PasswordChanged,
    /// The account will be deleted.
    DeletionScheduled {
        /// When.
        due: Timestamp,
    },
    /// Somebody invites the reader to pair.
    Invitation {
        /// Who.
        from: DisplayName,
        /// Their line.
        message: Option<Label>,
        /// The short code.
        code: Secret<String>,
        /// Link with the same effect as the code.
        link: Secret<String>,
    },
}

/// Hands mail over.
///
/// # Errors
/// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) when it will never be taken (SMTP 5xx); anything else is worth trying again.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Hands one mail over. `Ok`: the other side has taken charge of it.
    async fn send(&self, mail: &Mail) -> Result<(), Error>;
}

#[async_trait]
impl<M: Mailer + ?Sized> Mailer for std::sync::Arc<M> {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        (**self).send(mail).await
    }
}

/// Where the links in mails lead. Built from configuration only: no header of a request ever reaches a mail.
#[derive(Debug, Clone)]
pub struct Links {
    base: String,
}

impl Links {
    /// Links below the public URL at which `couple::http::router` is reached, with or without a trailing slash.
    #[must_use]
    pub fn new(public_url: &str) -> Self {
        Self { base: public_url.trim_end_matches('/').to_owned() }
    }
    /// The URL of something below it: `path` begins with a slash.
    #[must_use]
    pub fn below(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    /// The page for a token. It stands in the fragment, which no server, proxy or log sees.
    #[must_use]
    pub fn to(&self, page: &str, token: &Secret<String>) -> Secret<String> {
        Secret::new(format!("{}/open/{page}#{}", self.base, token.expose()))
    }
}
