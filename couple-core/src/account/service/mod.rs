//! Use cases of accounts, one file for each group.

mod admission;
mod deletion;
mod email_change;
mod mail_requests;
mod passwords;
mod profile;
mod proof;
mod session_start;
mod sessions;
mod sign_in;
mod verification;
mod widget_tokens;

use std::sync::Arc;

pub use mail_requests::SignUp;
pub use profile::ProfilePatch;
pub use proof::Proof;
pub use session_start::SignedIn;
pub use sign_in::SignIn;
pub use verification::Verification;

use super::{Account, AccountError, AccountPolicy, HashingPool, MailJob};
use crate::{AccountId, Change, EmailAddress, Error, Failure, Invalid, Locale, Ports, TokenId};

type AccountResult<T> = Result<T, Failure<AccountError>>;

/// Service for sign-up, verification, sign-in, sessions, password recovery, profile and deletion.
#[derive(Debug, Clone)]
pub struct Accounts {
    ports: Ports,
    hasher: Arc<HashingPool>,
    policy: Arc<AccountPolicy>,
}

impl Accounts {
    /// Creates the service.
    #[must_use]
    pub fn new(ports: Ports, hasher: Arc<HashingPool>, policy: AccountPolicy) -> Self {
        Self { ports, hasher, policy: Arc::new(policy) }
    }

    /// Lifetimes and limits.
    #[must_use]
    pub fn policy(&self) -> &AccountPolicy {
        &self.policy
    }

    /// Account of a signed-in user.
    async fn current(&self, id: AccountId) -> AccountResult<Account> {
        self.ports.store.account(id).await?.ok_or(Failure::Refused(AccountError::Unauthenticated))
    }

    /// Change that enqueues a mail to the address of an account.
    fn notify(
        &self,
        account: &Account,
        job: impl FnOnce(EmailAddress, Option<Locale>) -> MailJob,
    ) -> Result<Change, Error> {
        self.ports.enqueue(&job(account.email.clone(), account.locale.clone()))
    }

    fn new_token_id(&self) -> TokenId {
        self.ports.new_id()
    }
}

fn invalid(field: Invalid) -> Failure<AccountError> {
    Failure::Refused(AccountError::Invalid(field))
}

/// Local part of an address: a word that a password must not consist of.
fn local_part(email: &EmailAddress) -> &str {
    email.as_str().rsplit_once('@').map_or("", |(local, _)| local)
}
