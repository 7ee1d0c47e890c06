//! Users of a backend: the built-in accounts, or those of the host.

use std::sync::Arc;

use couple_core::{
    AccountId, Entropy, Error, ErrorKind, Ports, Timestamp,
    account::{
        AccountPolicy, Accounts, Argon2id, Erasures, HashCost, HashingPool, MailJobHandler, PasswordHasher,
        PurgeAccountsHandler, PurgePlan, PurgeTokensHandler,
    },
    job::{Registry, Schedule},
    live::SessionChecker,
    mail::Mailer,
    pairing::Directory,
};

use super::{Backend, BackendBuilder};
#[cfg(feature = "http")]
use crate::http::{Authenticator, HostSessions};

/// Maximum number of accounts per run of the purge, so that a fault cannot delete all accounts.
const MAX_ACCOUNTS_PER_PURGE: u32 = 20;

/// Users of the host, as set on the builder.
#[derive(Default)]
pub(super) struct HostUsers {
    directory: Option<Arc<dyn Directory>>,
    #[cfg(feature = "http")]
    authenticator: Option<Arc<dyn Authenticator>>,
}

/// Options of the built-in accounts.
pub(super) struct AccountOptions {
    pub(super) policy: AccountPolicy,
    pub(super) password_hasher: Option<Arc<dyn PasswordHasher>>,
    pub(super) hash_cost: Option<HashCost>,
    pub(super) hash_threads: usize,
}

/// Users of a backend.
pub(super) struct Users {
    /// None: the host has its own users.
    pub(super) accounts: Option<Accounts>,
    pub(super) directory: Arc<dyn Directory>,
    #[cfg(feature = "http")]
    pub(super) authenticator: Option<Arc<dyn Authenticator>>,
    erasures: Erasures,
    policy: AccountPolicy,
}

impl HostUsers {
    /// Composes the users: those of the host if it has a directory, otherwise the built-in accounts.
    pub(super) fn compose(
        self,
        ports: &Ports,
        options: AccountOptions,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Users, Error> {
        let AccountOptions { policy, password_hasher, hash_cost, hash_threads } = options;
        let (accounts, directory): (_, Arc<dyn Directory>) = match self.directory {
            Some(directory) => (None, directory),
            None => {
                #[cfg(feature = "http")]
                if self.authenticator.is_some() {
                    return Err(Error::new(ErrorKind::Misconfigured, "build backend").context(
                        "an .authenticator(…) needs the .directory(…) of its users: the built-in accounts do not know them",
                    ));
                }
                // 19 MiB and two passes take about 15 ms: a queue of 64 per thread is empty within a second.
                let pool = HashingPool::new(
                    hasher_of(password_hasher, hash_cost)?,
                    hash_threads,
                    hash_threads * 64,
                    entropy,
                )?;
                let accounts = Accounts::new(ports.clone(), Arc::new(pool), policy.clone());
                (Some(accounts.clone()), Arc::new(accounts))
            }
        };
        Ok(Users {
            accounts,
            directory,
            #[cfg(feature = "http")]
            authenticator: self.authenticator,
            erasures: Erasures::new(ports.clone(), &policy),
            policy,
        })
    }
}

/// Hasher of the host, or Argon2id with the given cost.
fn hasher_of(
    hasher: Option<Arc<dyn PasswordHasher>>,
    cost: Option<HashCost>,
) -> Result<Arc<dyn PasswordHasher>, Error> {
    match (hasher, cost) {
        (Some(hasher), None) => Ok(hasher),
        (None, cost) => Ok(Arc::new(Argon2id::new(cost.unwrap_or(HashCost::RECOMMENDED))?)),
        (Some(_), Some(_)) => Err(Error::new(ErrorKind::Misconfigured, "build backend")
            .context(".hash_cost(…) is the cost of the default hasher: remove it, and set the cost in the hasher of .password_hasher(…)")),
    }
}

impl Users {
    /// Adds the handler that erases persons, and those of the built-in accounts' jobs.
    ///
    /// With a pusher, the tallies of reloads are purged for users of a host, too.
    pub(super) fn register(
        &self,
        jobs: Registry,
        ports: &Ports,
        mailer: &Arc<dyn Mailer>,
        has_pusher: bool,
    ) -> Registry {
        let mut jobs = jobs.with(PurgeAccountsHandler::new(ports.clone(), MAX_ACCOUNTS_PER_PURGE));
        if self.accounts.is_some() || has_pusher {
            jobs = jobs.with(PurgeTokensHandler::new(ports.clone(), self.policy.clone()));
        }
        if self.accounts.is_none() {
            return jobs;
        }
        jobs.with(MailJobHandler::new(ports.clone(), mailer.clone(), self.policy.clone()))
    }

    /// Schedules of the handlers of [`register`](Self::register).
    pub(super) fn schedules(&self, has_pusher: bool) -> Vec<Schedule> {
        let mut schedules = vec![PurgeAccountsHandler::schedule()];
        let purges = self.accounts.is_some() || has_pusher;
        schedules.extend(purges.then(PurgeTokensHandler::schedule));
        schedules
    }

    /// Lifetimes of the built-in sessions; none if the host has its own users.
    pub(super) fn session_policy(&self) -> Option<AccountPolicy> {
        self.accounts.as_ref().map(|_| self.policy.clone())
    }

    /// Check of the sessions that live streams follow.
    pub(super) fn session_checker(&self) -> Arc<dyn SessionChecker> {
        #[cfg(feature = "http")]
        if let Some(authenticator) = &self.authenticator {
            return Arc::new(HostSessions(authenticator.clone()));
        }
        match &self.accounts {
            Some(accounts) => Arc::new(accounts.clone()),
            None => Arc::new(Unchecked),
        }
    }
}

/// Checker of a host with its own users and without an authenticator, which opens live streams through the service.
///
/// The gates of its streams check their sessions themselves.
struct Unchecked;

#[async_trait::async_trait]
impl SessionChecker for Unchecked {
    async fn still_valid(&self, principals: &[couple_core::Principal]) -> Result<Vec<bool>, Error> {
        Ok(vec![true; principals.len()])
    }
}

impl Backend {
    /// Service for sign-up, sign-in, sessions, recovery, profile and deletion.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if the host has its own users, see [`BackendBuilder::directory`].
    pub fn accounts(&self) -> Result<&Accounts, Error> {
        self.0.users.accounts.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Misconfigured, "use the built-in accounts")
                .context("this backend was built with the users of the host, .directory(…)")
        })
    }

    /// Forgets a person: requests the erasure of everything of a user of the host, or of a built-in account.
    ///
    /// Returns the time at which the grace period of
    /// [`AccountPolicy::with_deletion_grace`](couple_core::account::AccountPolicy::with_deletion_grace) ends. Within the hour after it a
    /// job ends the couple, erases entries, reactions, pictures, invites and blocks, and commits the event
    /// [`AccountErased`](couple_core::events::Event::AccountErased). Until then [`withdraw_forget`](Self::withdraw_forget), and for an
    /// account also a sign-in, withdraws the request.
    ///
    /// A host calls it before it deletes its own row of the user, because a repeat is harmless: it returns the time of the first request.
    ///
    /// The id is never used again, also not for the same person: a returning user has a new id. The former one can upload no avatar, and
    /// the blocks that others placed on it are erased.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), couple::Error> {
    /// # let backend = couple::Backend::builder().build()?;
    /// # let person = couple::AccountId::new(&*backend.ports().clock, &*backend.ports().entropy);
    /// let plan = backend.plan_forget(person).await?;
    /// println!("{} couples, {} pictures", plan.erases.len(), plan.pictures);
    /// let due = backend.forget(person).await?;
    /// assert_eq!(backend.forget(person).await?, due);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn forget(&self, person: AccountId) -> Result<Timestamp, Error> {
        self.0.users.erasures.request(person).await
    }

    /// Withdraws a request of [`forget`](Self::forget). Returns false if there is none, or its grace period has ended.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn withdraw_forget(&self, person: AccountId) -> Result<bool, Error> {
        self.0.users.erasures.withdraw(person).await
    }

    /// Dry run of [`forget`](Self::forget): what would be erased, and when. Changes nothing.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn plan_forget(&self, person: AccountId) -> Result<PurgePlan, Error> {
        self.0.users.erasures.plan(person).await
    }

    /// Source of profiles and addresses of users.
    #[must_use]
    pub fn directory(&self) -> &Arc<dyn Directory> {
        &self.0.users.directory
    }

    /// Authenticator of the host, if it has its own users.
    #[cfg(feature = "http")]
    pub(crate) fn authenticator(&self) -> Option<&Arc<dyn Authenticator>> {
        self.0.users.authenticator.as_ref()
    }
}

impl BackendBuilder {
    /// Sets the users of the host, in place of the built-in accounts. Default: the built-in accounts.
    ///
    /// Pairing, profiles and invite mails ask it. The built-in accounts are then absent: [`Backend::accounts`], their routes, and
    /// their jobs and schedules except `account.purge`, which erases users of the host too. For the HTTP routes the host also sets an [`authenticator`](Self::authenticator).
    #[must_use]
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.users.directory = Some(Arc::new(directory));
        self
    }

    /// Sets the authentication of the host's users by the HTTP routes, live streams and Socket.IO.
    ///
    /// Required for the routes with a [`directory`](Self::directory), and refused without one: a process without routes, such as a worker,
    /// needs none.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.users.authenticator = Some(Arc::new(authenticator));
        self
    }
}
