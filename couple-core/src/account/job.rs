//! Mail jobs of accounts.
//!
//! A job looks up what a request must not reveal: whether an address has an account.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AccountChange, AccountPolicy, SeenToken, TallyId, Token, TokenKind, rules};
use crate::{
    AccountId, CommitError, Conflict, Digest, DisplayName, EmailAddress, Error, Label, Locale, Ports, Secret,
    SessionId, Timestamp, TokenId,
    job::{Context, Handler, Job, JobError},
    mail::{Lifetimes, Mail, Mailer, Message},
};

/// Mail of an account. Holds the id from which code and link are derived, never the code or the link.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "mail", rename_all = "snake_case")]
pub enum MailJob {
    /// Confirmation of a sign-up.
    SignUp {
        /// Id for the token.
        token: TokenId,
        /// Recipient.
        email: EmailAddress,
        /// Display name of the sign-up.
        display_name: DisplayName,
        /// Preferred language.
        locale: Option<Locale>,
        /// Client network that requested the mail, as a keyed digest.
        #[serde(default)]
        network: Option<Digest>,
    },
    /// Repeated confirmation of a sign-up.
    Resend {
        /// Id for the token.
        token: TokenId,
        /// Recipient.
        email: EmailAddress,
        /// Client network that requested the mail, as a keyed digest.
        #[serde(default)]
        network: Option<Digest>,
    },
    /// Code and link for signing in.
    SignIn {
        /// Id for the token.
        token: TokenId,
        /// Recipient.
        email: EmailAddress,
        /// Client network that requested the mail, as a keyed digest.
        #[serde(default)]
        network: Option<Digest>,
    },
    /// Link for setting a new password.
    Password {
        /// Id for the token.
        token: TokenId,
        /// Recipient.
        email: EmailAddress,
    },
    /// Confirmation of a new address.
    Email {
        /// Token that the request inserted.
        token: TokenId,
        /// Id of the account.
        account: AccountId,
        /// Session that requested the change.
        session: SessionId,
        /// New address of the account, and recipient.
        email: EmailAddress,
    },
    /// Tells the current address that a change was requested and how to cancel it.
    EmailAsked {
        /// Token of the link that cancels the change.
        token: TokenId,
        /// Current address.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
    },
    /// Tells the old address that the address has changed.
    EmailChanged {
        /// Old address.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
    },
    /// Tells the new address that it belongs to the account.
    EmailConfirmed {
        /// New address.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
    },
    /// Tells the owner that a device signed in from which no session existed.
    NewDevice {
        /// Recipient.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
        /// Name that the device gave itself.
        device: Option<Label>,
        /// Time of the sign-in.
        at: Timestamp,
    },
    /// Tells the former owner that the account was deleted.
    Deleted {
        /// Address of the deleted account.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
    },
    /// Tells the owner that the password has changed.
    PasswordChanged {
        /// Recipient.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
    },
    /// Tells the owner that the account will be deleted.
    DeletionScheduled {
        /// Recipient.
        to: EmailAddress,
        /// Preferred language.
        locale: Option<Locale>,
        /// Time of the deletion.
        due: Timestamp,
    },
    /// Mail beyond the limit of its address: sent only if the network of the client is known.
    ///
    /// The job looks this up, and not the request, so that the request takes the same time for every network.
    ForKnownNetwork {
        /// Client network that requested the mail, as a keyed digest.
        network: Digest,
        /// Address whose limit is used up.
        email: EmailAddress,
        /// The mail.
        job: Box<Self>,
    },
}

impl Job for MailJob {
    const NAME: &'static str = "account.mail";
    const QUEUE: &'static str = "mail";
    // The average delay is half an hour: a mail survives an outage of the mail server of about a day.
    const MAX_ATTEMPTS: i64 = 60;
}

/// Handler that sends the mails of accounts.
pub struct MailJobHandler {
    ports: Ports,
    mailer: Arc<dyn Mailer>,
    policy: AccountPolicy,
}

impl MailJobHandler {
    /// Creates the handler.
    #[must_use]
    pub fn new(ports: Ports, mailer: Arc<dyn Mailer>, policy: AccountPolicy) -> Self {
        Self { ports, mailer, policy }
    }

    /// Returns the token of this job; inserts it if it does not exist.
    ///
    /// A retry after half of the code's lifetime inserts a fresh token, so that the mail never contains an
    /// expired code.
    async fn token(&self, new_token: rules::NewToken<'_>) -> Result<Token, Error> {
        let now = self.ports.now();
        let written = self.ports.store.token(new_token.id).await?;
        let fresh = match written {
            Some(token) if now < token.created_at.plus(self.policy.code_lifetime / 2) => return Ok(token),
            Some(_) => {
                let id = self.ports.new_id();
                rules::NewToken { id, ..new_token }
            }
            None => new_token,
        };
        let token = fresh.token(&self.ports.keys, &self.policy, now);
        match self.ports.commit(vec![AccountChange::InsertToken(token.clone()).into()]).await {
            // A concurrent run of the same job inserted the token; it differs only in its time.
            Ok(_) | Err(CommitError::Conflict(Conflict::TokenExists(_))) => Ok(token),
            Err(CommitError::Conflict(conflict)) => {
                Err(Error::new(crate::ErrorKind::Internal, "insert token").source(conflict))
            }
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    /// Returns the token of a change of address, if the change is still open.
    ///
    /// After half of the code's lifetime a fresh token replaces it, so that the mail never contains an
    /// expired code.
    async fn email_token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        let now = self.ports.now();
        let open = |token: &Token| token.used_at.is_none() && token.used_form.is_none();
        let Some(written) = self.ports.store.token(id).await?.filter(open) else { return Ok(None) };
        if now < written.created_at.plus(self.policy.code_lifetime / 2) {
            return Ok(Some(written));
        }
        let fresh = rules::NewToken {
            id: self.ports.new_id(),
            kind: written.kind,
            email: &written.email,
            account: written.account,
            display_name: None,
            locale: None,
            session: written.session,
            network: written.network,
        };
        let fresh = fresh.token(&self.ports.keys, &self.policy, now);
        let seen = SeenToken { tries: None, used_form: None };
        // Insert the fresh token only if the change is still open. Keep the old one, because the next attempt
        // of this job refers to it.
        let changes = vec![
            AccountChange::RequireToken { id, seen }.into(),
            AccountChange::InsertToken(fresh.clone()).into(),
        ];
        match self.ports.commit(changes).await {
            Ok(_) => Ok(Some(fresh)),
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    /// Message that confirms a sign-up.
    fn confirm_sign_up(&self, token: &Token) -> Message {
        Message::ConfirmSignUp {
            code: rules::code_of(&self.ports.keys, token.id),
            link: self.link(token, "verify"),
            lifetimes: self.lifetimes(token),
        }
    }

    fn lifetimes(&self, token: &Token) -> Lifetimes {
        Lifetimes { code: self.policy.code_lifetime, link: rules::link_lifetime(token.kind, &self.policy) }
    }

    fn link(&self, token: &Token, page: &str) -> Secret<String> {
        self.ports.links.to(page, &rules::link_of(&self.ports.keys, token.kind, token.id))
    }

    /// Recipient, language and content of a job's mail; none if no mail is to be sent.
    async fn compose(&self, job: MailJob) -> Result<Option<(EmailAddress, Option<Locale>, Message)>, Error> {
        let keys = &self.ports.keys;
        let new_token = |id, kind, email, account| rules::NewToken {
            id,
            kind,
            email,
            account,
            display_name: None,
            locale: None,
            session: None,
            network: None,
        };
        Ok(match job {
            MailJob::SignUp { token, email, display_name, locale, network } => {
                let existing = self.ports.store.account_by_email(email.key()).await?;
                let written = self.ports.store.token(token).await?;
                if written.is_some_and(|token| token.used_at.is_some() || token.used_form.is_some()) {
                    // A previous run sent the mail and its recipient used it, but the worker died before it
                    // finished the job. Now the address has an account, and "you have an account" would
                    // report the recipient's own sign-up.
                    return Ok(None);
                }
                let new_token = rules::NewToken {
                    display_name: Some(display_name),
                    locale: locale.clone(),
                    network,
                    ..new_token(token, TokenKind::SignUp, &email, None)
                };
                // Insert a token for an address with an account too, so that wrong codes cost the same. It
                // confirms nothing.
                let token = self.token(new_token).await?;
                if let Some(account) = existing {
                    Some((account.email, account.locale, Message::AlreadySignedUp))
                } else {
                    Some((email, locale, self.confirm_sign_up(&token)))
                }
            }
            MailJob::Resend { token, email, network } => {
                let now = self.ports.now();
                let mut open = self.ports.store.open_tokens(TokenKind::SignUp, email.key(), now).await?;
                let existing = self.ports.store.account_by_email(email.key()).await?;
                open.retain(|open| open.id != token && open.display_name.is_some());
                // Take the name from the sign-up of the same client network, else from the first sign-up, so
                // that a stranger who signs up later with the address cannot set it.
                let from_network = open.iter().position(|open| open.network == network);
                let waiting = from_network.map(|index| open.swap_remove(index)).or_else(|| open.pop());
                let waiting = waiting.filter(|_| existing.is_none());
                let to = waiting.as_ref().map_or(&email, |waiting| &waiting.email);
                let new_token = rules::NewToken {
                    display_name: waiting.as_ref().and_then(|waiting| waiting.display_name.clone()),
                    locale: waiting.as_ref().and_then(|waiting| waiting.locale.clone()),
                    network,
                    ..new_token(token, TokenKind::SignUp, to, None)
                };
                // Insert a token for every address, so that wrong codes cost the same. Without a name it
                // confirms nothing.
                let token = self.token(new_token).await?;
                waiting.map(|waiting| (waiting.email, waiting.locale, self.confirm_sign_up(&token)))
            }
            MailJob::SignIn { token, email, network } => {
                let account = self.ports.store.account_by_email(email.key()).await?;
                let id = account.as_ref().map(|account| account.id);
                let new_token =
                    rules::NewToken { network, ..new_token(token, TokenKind::SignIn, &email, id) };
                let token = self.token(new_token).await?;
                account.map(|account| {
                    let message = Message::SignInCode {
                        code: rules::code_of(keys, token.id),
                        link: self.link(&token, "signin"),
                        lifetimes: self.lifetimes(&token),
                    };
                    (account.email, account.locale, message)
                })
            }
            MailJob::Password { token, email } => {
                let account = self.ports.store.account_by_email(email.key()).await?;
                let id = account.as_ref().map(|account| account.id);
                let token = self.token(new_token(token, TokenKind::Password, &email, id)).await?;
                account.map(|account| {
                    let link = self.link(&token, "password");
                    let lifetime = self.lifetimes(&token).link;
                    (account.email, account.locale, Message::SetPassword { link, lifetime })
                })
            }
            MailJob::Email { token, account, session: _, email } => {
                // The token is not open after a password change, the end of the session or a cancellation.
                let Some(token) = self.email_token(token).await? else { return Ok(None) };
                let Some(account) = self.ports.store.account(account).await? else { return Ok(None) };
                if self.ports.store.account_by_email(email.key()).await?.is_some() {
                    return Ok(Some((email, account.locale, Message::AlreadySignedUp)));
                }
                let message = Message::ConfirmEmail {
                    code: rules::code_of(keys, token.id),
                    link: self.link(&token, "email"),
                    lifetimes: self.lifetimes(&token),
                };
                Some((email, account.locale, message))
            }
            MailJob::EmailAsked { token, to, locale } => {
                let token = self.ports.store.token(token).await?;
                let token = token.filter(|token| token.used_at.is_none());
                token.map(|token| {
                    let (link, lifetime) = (self.link(&token, "cancel"), self.lifetimes(&token).link);
                    (to, locale, Message::EmailChangeAsked { link, lifetime })
                })
            }
            MailJob::EmailChanged { to, locale } => Some((to, locale, Message::EmailChanged)),
            MailJob::EmailConfirmed { to, locale } => Some((to, locale, Message::EmailConfirmed)),
            MailJob::NewDevice { to, locale, device, at } => {
                Some((to, locale, Message::NewDevice { device, at }))
            }
            MailJob::Deleted { to, locale } => Some((to, locale, Message::Deleted)),
            MailJob::PasswordChanged { to, locale } => Some((to, locale, Message::PasswordChanged)),
            MailJob::DeletionScheduled { to, locale, due } => {
                Some((to, locale, Message::DeletionScheduled { due }))
            }
            MailJob::ForKnownNetwork { network, email, job } => {
                let id = TallyId::client(keys, email.key(), &network);
                match self.ports.store.tally(id, self.ports.now()).await? {
                    Some(_) => return Box::pin(self.compose(*job)).await,
                    None => None,
                }
            }
        })
    }
}

#[async_trait]
impl Handler<MailJob> for MailJobHandler {
    async fn run(&self, job: MailJob, context: &Context) -> Result<(), JobError> {
        let Some((to, locale, message)) = self.compose(job).await? else { return Ok(()) };
        let mail = Mail { id: context.id.to_string(), to, locale, at: context.enqueued_at, message };
        self.mailer.send(&mail).await?;
        Ok(())
    }
}
