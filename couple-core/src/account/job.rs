//! The mails of accounts, as jobs. What a request must not know (is there an account?) is looked up here.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AccountChange, Policy, Token, TokenKind, rules};
use crate::{
    AccountId, CommitError, Conflict, DisplayName, EmailAddress, Error, Locale, Ports, SessionId, Timestamp,
    TokenId,
    job::{Context, Handler, Job, JobError},
    mail::{Mail, Mailer, Message},
};

/// A mail of the accounts. Carries the id that its code and link are derived from, never the code or link.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "mail", rename_all = "snake_case")]
pub enum MailJob {
    /// Somebody signed up.
    SignUp {
        /// The token to be.
        token: TokenId,
        /// Where to.
        email: EmailAddress,
        /// Their name.
        display_name: DisplayName,
        /// Their language.
        locale: Option<Locale>,
    },
    /// Somebody wants the sign-up mail again.
    Resend {
        /// The token to be.
        token: TokenId,
        /// Where to.
        email: EmailAddress,
    },
    /// Somebody wants a code to sign in with.
    SignIn {
        /// The token to be.
        token: TokenId,
        /// Where to.
        email: EmailAddress,
    },
    /// Somebody forgot a password.
    Password {
        /// The token to be.
        token: TokenId,
        /// Where to.
        email: EmailAddress,
    },
    /// An account wants another address.
    Email {
        /// The token to be.
        token: TokenId,
        /// Whose.
        account: AccountId,
        /// The session that asked.
        session: SessionId,
        /// The new address.
        email: EmailAddress,
    },
    /// The address was changed; tells the old one.
    EmailChanged {
        /// The old address.
        to: EmailAddress,
        /// Their language.
        locale: Option<Locale>,
    },
    /// The password was changed.
    PasswordChanged {
        /// Whom to tell.
        to: EmailAddress,
        /// Their language.
        locale: Option<Locale>,
    },
    /// The account will be deleted.
    DeletionScheduled {
        /// Whom to tell.
        to: EmailAddress,
        /// Their language.
        locale: Option<Locale>,
        /// When.
        due: Timestamp,
    },
}

impl Job for MailJob {
    const NAME: &'static str = "account.mail";
    const QUEUE: &'static str = "mail";
    // Waits are half an hour on average: a mail outlives an outage of the mail server of about a day.
    const MAX_ATTEMPTS: i64 = 60;
}

/// Sends the mails of accounts.
pub struct MailJobHandler {
    ports: Ports,
    mailer: Arc<dyn Mailer>,
    policy: Policy,
}

impl MailJobHandler {
    /// Over its ports.
    #[must_use]
    pub fn new(ports: Ports, mailer: Arc<dyn Mailer>, policy: Policy) -> Self {
        Self { ports, mailer, policy }
    }

    /// The token of this job, written if it is not yet there. A retry after half of the code's life takes a fresh one:
    /// the mail must not carry a dead code.
    async fn token(&self, mailing: rules::Mailing<'_>) -> Result<Token, Error> {
        let now = self.ports.now();
        let written = self.ports.store.token(mailing.id).await?;
        let fresh = match written {
            Some(token) if now < token.created_at.plus(self.policy.code_lifetime / 2) => return Ok(token),
            Some(_) => {
                let id = TokenId::new(&*self.ports.clock, &*self.ports.entropy);
                rules::Mailing { id, ..mailing }
            }
            None => mailing,
        };
        let token = fresh.token(&self.ports.keys, &self.policy, now);
        match self.ports.commit(vec![AccountChange::InsertToken(token.clone()).into()]).await {
            // Another worker of the same job was faster; its token is the same but for the time.
            Ok(_) | Err(CommitError::Conflict(Conflict::TokenExists(_))) => Ok(token),
            Err(CommitError::Conflict(conflict)) => {
                Err(Error::new(crate::ErrorKind::Internal, "insert token").source(conflict))
            }
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    /// What is to be sent, and to whom; none when there is nothing to say.
    async fn compose(&self, job: MailJob) -> Result<Option<(EmailAddress, Option<Locale>, Message)>, Error> {
        let keys = &self.ports.keys;
        let link =
            |token: &Token, page| self.ports.links.to(page, &rules::link_of(keys, token.kind, token.id));
        let mailing = |id, kind, email, account| rules::Mailing {
            id,
            kind,
            email,
            account,
            display_name: None,
            locale: None,
        };
        Ok(match job {
            MailJob::SignUp { token, email, display_name, locale } => {
                let existing = self.ports.store.account_by_email(email.key()).await?;
                let written = self.ports.store.token(token).await?;
                if written.is_some_and(|written| written.used_at.is_some()) {
                    // An earlier run's mail arrived and was answered; this one runs because its worker died before
                    // it could say so. "You have an account" would be the news of their own sign-up.
                    return Ok(None);
                }
                let mailing = rules::Mailing {
                    display_name: Some(display_name),
                    locale: locale.clone(),
                    ..mailing(token, TokenKind::SignUp, &email, None)
                };
                // Written for a known address too: it makes wrong codes cost the same there, and confirms nothing.
                let token = self.token(mailing).await?;
                if let Some(account) = existing {
                    Some((account.email, account.locale, Message::AlreadySignedUp))
                } else {
                    let message = Message::ConfirmSignUp {
                        code: rules::code_of(keys, token.id),
                        link: link(&token, "verify"),
                    };
                    Some((email, locale, message))
                }
            }
            MailJob::Resend { token, email } => {
                let open =
                    self.ports.store.open_tokens(TokenKind::SignUp, email.key(), self.ports.now()).await?;
                let waiting = open.into_iter().find(|open| open.display_name.is_some());
                let existing = self.ports.store.account_by_email(email.key()).await?;
                let (Some(waiting), None) = (waiting, existing) else { return Ok(None) };
                let mailing = rules::Mailing {
                    display_name: waiting.display_name,
                    locale: waiting.locale.clone(),
                    ..mailing(token, TokenKind::SignUp, &waiting.email, None)
                };
                let token = self.token(mailing).await?;
                let message = Message::ConfirmSignUp {
                    code: rules::code_of(keys, token.id),
                    link: link(&token, "verify"),
                };
                Some((waiting.email, waiting.locale, message))
            }
            MailJob::SignIn { token, email } => {
                let account = self.ports.store.account_by_email(email.key()).await?;
                let id = account.as_ref().map(|account| account.id);
                let token = self.token(mailing(token, TokenKind::SignIn, &email, id)).await?;
                account.map(|account| {
                    (
                        account.email,
                        account.locale,
                        Message::SignInCode { code: rules::code_of(keys, token.id) },
                    )
                })
            }
            MailJob::Password { token, email } => {
                let account = self.ports.store.account_by_email(email.key()).await?;
                let id = account.as_ref().map(|account| account.id);
                let token = self.token(mailing(token, TokenKind::Password, &email, id)).await?;
                account.map(|account| {
                    (account.email, account.locale, Message::SetPassword { link: link(&token, "password") })
                })
            }
            MailJob::Email { token, account, session, email } => {
                let Some(account) = self.ports.store.account(account).await? else { return Ok(None) };
                // A password change or a sign-out since then takes the request back.
                if !self.ports.store.sessions_of(account.id).await?.iter().any(|live| live.id == session) {
                    return Ok(None);
                }
                let taken = self.ports.store.account_by_email(email.key()).await?.is_some();
                // Written for a taken address too, as nobody's: wrong codes then cost the same.
                let owner = (!taken).then_some(account.id);
                let token = self.token(mailing(token, TokenKind::Email, &email, owner)).await?;
                if taken {
                    return Ok(Some((email, account.locale, Message::AlreadySignedUp)));
                }
                let message = Message::ConfirmEmail {
                    code: rules::code_of(keys, token.id),
                    link: link(&token, "email"),
                };
                Some((email, account.locale, message))
            }
            MailJob::EmailChanged { to, locale } => Some((to, locale, Message::EmailChanged)),
            MailJob::PasswordChanged { to, locale } => Some((to, locale, Message::PasswordChanged)),
            MailJob::DeletionScheduled { to, locale, due } => {
                Some((to, locale, Message::DeletionScheduled { due }))
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
