//! The mails of accounts, as jobs. What a request must not know (is there an account?) is looked up here.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{AccountChange, Policy, SeenToken, Token, TokenKind, rules};
use crate::{
    AccountId, CommitError, Conflict, Digest, DisplayName, EmailAddress, Error, Locale, Ports, Secret,
    SessionId, Timestamp, TokenId,
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
        /// Client network that requested it, keyed.
        #[serde(default)]
        network: Option<Digest>,
    },
    /// Somebody wants the sign-up mail again.
    Resend {
        /// The token to be.
        token: TokenId,
        /// Where to.
        email: EmailAddress,
        /// Client network that requested it, keyed.
        #[serde(default)]
        network: Option<Digest>,
    },
    /// Somebody wants a code to sign in with.
    SignIn {
        /// The token to be.
        token: TokenId,
        /// Where to.
        email: EmailAddress,
        /// Client network that requested it, keyed.
        #[serde(default)]
        network: Option<Digest>,
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
        /// Token that the request wrote.
        token: TokenId,
        /// Whose.
        account: AccountId,
        /// The session that asked.
        session: SessionId,
        /// The new address.
        email: EmailAddress,
    },
    /// Tells the present address that the account asked for another one, and how to cancel the change.
    EmailAsked {
        /// Token that cancels.
        token: TokenId,
        /// Present address.
        to: EmailAddress,
        /// Locale of the account.
        locale: Option<Locale>,
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

    /// The token that a change of address wrote, if the change has not ended meanwhile. After half of the code's life a
    /// new token replaces it: the mail must not contain an expired code.
    async fn email_token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        let now = self.ports.now();
        let open = |token: &Token| token.used_at.is_none() && token.used_form.is_none();
        let Some(written) = self.ports.store.token(id).await?.filter(open) else { return Ok(None) };
        if now < written.created_at.plus(self.policy.code_lifetime / 2) {
            return Ok(Some(written));
        }
        let fresh = rules::Mailing {
            id: TokenId::new(&*self.ports.clock, &*self.ports.entropy),
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
        // The new token is written only if the change has not ended; the old one stays for the next attempt of this job.
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

    /// A mail that confirms a sign-up.
    fn confirm_sign_up(&self, token: &Token) -> Message {
        Message::ConfirmSignUp {
            code: rules::code_of(&self.ports.keys, token.id),
            link: self.link(token, "verify"),
        }
    }

    fn link(&self, token: &Token, page: &str) -> Secret<String> {
        self.ports.links.to(page, &rules::link_of(&self.ports.keys, token.kind, token.id))
    }

    /// What is to be sent, and to whom; none when there is nothing to say.
    async fn compose(&self, job: MailJob) -> Result<Option<(EmailAddress, Option<Locale>, Message)>, Error> {
        let keys = &self.ports.keys;
        let mailing = |id, kind, email, account| rules::Mailing {
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
                    // An earlier run's mail arrived and was answered; this one runs because its worker died before
                    // it could say so. "You have an account" would be the news of their own sign-up.
                    return Ok(None);
                }
                let mailing = rules::Mailing {
                    display_name: Some(display_name),
                    locale: locale.clone(),
                    network,
                    ..mailing(token, TokenKind::SignUp, &email, None)
                };
                // Written for a known address too: it makes wrong codes cost the same there, and confirms nothing.
                let token = self.token(mailing).await?;
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
                // The name is from the sign-up of the same client network, else from the first sign-up: never from a stranger who
                // signed up with the address after its owner.
                let own = open.iter().position(|open| open.network == network);
                let waiting = own.map(|own| open.swap_remove(own)).or_else(|| open.pop());
                let waiting = waiting.filter(|_| existing.is_none());
                let to = waiting.as_ref().map_or(&email, |waiting| &waiting.email);
                let mailing = rules::Mailing {
                    display_name: waiting.as_ref().and_then(|waiting| waiting.display_name.clone()),
                    locale: waiting.as_ref().and_then(|waiting| waiting.locale.clone()),
                    network,
                    ..mailing(token, TokenKind::SignUp, to, None)
                };
                // Written for every address: wrong codes then cost the same everywhere. Without a name it confirms
                // nothing.
                let token = self.token(mailing).await?;
                waiting.map(|waiting| (waiting.email, waiting.locale, self.confirm_sign_up(&token)))
            }
            MailJob::SignIn { token, email, network } => {
                let account = self.ports.store.account_by_email(email.key()).await?;
                let id = account.as_ref().map(|account| account.id);
                let mailing = rules::Mailing { network, ..mailing(token, TokenKind::SignIn, &email, id) };
                let token = self.token(mailing).await?;
                account.map(|account| {
                    let message = Message::SignInCode {
                        code: rules::code_of(keys, token.id),
                        link: self.link(&token, "signin"),
                    };
                    (account.email, account.locale, message)
                })
            }
            MailJob::Password { token, email } => {
                let account = self.ports.store.account_by_email(email.key()).await?;
                let id = account.as_ref().map(|account| account.id);
                let token = self.token(mailing(token, TokenKind::Password, &email, id)).await?;
                account.map(|account| {
                    let link = self.link(&token, "password");
                    (account.email, account.locale, Message::SetPassword { link })
                })
            }
            MailJob::Email { token, account, session: _, email } => {
                // A password change, the end of the session or a cancellation has ended the token.
                let Some(token) = self.email_token(token).await? else { return Ok(None) };
                let Some(account) = self.ports.store.account(account).await? else { return Ok(None) };
                if self.ports.store.account_by_email(email.key()).await?.is_some() {
                    return Ok(Some((email, account.locale, Message::AlreadySignedUp)));
                }
                let message = Message::ConfirmEmail {
                    code: rules::code_of(keys, token.id),
                    link: self.link(&token, "email"),
                };
                Some((email, account.locale, message))
            }
            MailJob::EmailAsked { token, to, locale } => {
                let token = self.ports.store.token(token).await?;
                let token = token.filter(|token| token.used_at.is_none());
                token.map(|token| {
                    (to, locale, Message::EmailChangeAsked { link: self.link(&token, "cancel") })
                })
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
