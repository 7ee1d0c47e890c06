//! Erasure of a person at the request of the host: a user of the host, or a built-in account.

use std::{fmt, time::Duration};

use super::{Account, AccountChange, AccountPolicy, PurgePlan, rules};
use crate::{
    AccountId, Decision, Error, Ports, Timestamp, UnitOfWork, device::DeviceChange, pairing::PairingChange,
};

/// Service by which a host forgets persons, without a session of theirs.
///
/// [`PurgeAccounts`](super::PurgeAccounts) erases the data after the grace period, for users of a host and for
/// built-in accounts by the same steps.
#[derive(Clone)]
pub struct Erasures {
    ports: Ports,
    grace: Duration,
}

impl fmt::Debug for Erasures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erasures").field("grace", &self.grace).finish_non_exhaustive()
    }
}

impl Erasures {
    /// Creates the service, with the [grace period](AccountPolicy::with_deletion_grace) of the policy.
    #[must_use]
    pub const fn new(ports: Ports, policy: &AccountPolicy) -> Self {
        Self { ports, grace: policy.deletion_grace }
    }

    /// Requests the erasure of everything of a person after the grace period. Returns the end of that period.
    ///
    /// Withdraws the person's invites and removes the person's devices, and no invite or couple of the person is created from now on. The sessions
    /// of an account end, and its next sign-in withdraws the request. A repeated request changes nothing and
    /// returns the time of the first one. An unknown person may have data, so the request is accepted.
    ///
    /// A host never uses the id of an erased person again: a returning user has a new id. The former one can upload
    /// no avatar, and the blocks that others placed on it are erased.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn request(&self, person: AccountId) -> Result<Timestamp, Error> {
        let work = UnitOfWork::new(&self.ports);
        let (now, due) = (work.now(), work.now().plus(self.grace));
        work.run_unkeyed(
            async |_| self.read(person).await,
            |pending| {
                let changes = match pending {
                    Pending { due: Some(due), .. } => return Ok(Decision::Answer(*due)),
                    Pending { account: Some(account), .. } => rules::request_deletion(account, due, now),
                    Pending { account: None, .. } => vec![
                        PairingChange::WithdrawInvitesOf { inviter: person }.into(),
                        PairingChange::SetErasure { person, due: Some(due), before: None }.into(),
                        DeviceChange::RemoveOf { account: person }.into(),
                    ],
                };
                Ok(Decision::commit(changes, due))
            },
        )
        .await
    }

    /// Withdraws a request whose grace period has not ended. Returns whether there was one.
    ///
    /// Withdrawn invites and ended sessions stay so.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn withdraw(&self, person: AccountId) -> Result<bool, Error> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |_| self.read(person).await,
            |Pending { account, due }| {
                if due.is_none_or(|due| due <= now) {
                    return Ok(Decision::Answer(false));
                }
                let change = match account {
                    Some(account) => {
                        AccountChange::Update(Account { deletion_due: None, ..account.clone() }).into()
                    }
                    None => PairingChange::SetErasure { person, due: None, before: *due }.into(),
                };
                Ok(Decision::commit(vec![change], true))
            },
        )
        .await
    }

    /// Dry run: what would be erased, and when, if it was requested now or was requested before. Changes nothing.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn plan(&self, person: AccountId) -> Result<PurgePlan, Error> {
        let requested = self.read(person).await?.due;
        let due = requested.unwrap_or_else(|| self.ports.now().plus(self.grace));
        PurgePlan::of(&self.ports, person, due).await
    }

    async fn read(&self, person: AccountId) -> Result<Pending, Error> {
        match self.ports.store.account(person).await? {
            Some(account) => Ok(Pending { due: account.deletion_due, account: Some(account) }),
            None => Ok(Pending { account: None, due: self.ports.store.erasure_of(person).await? }),
        }
    }
}

/// Account of a person, if the store has one, and the time of a requested erasure.
struct Pending {
    account: Option<Account>,
    due: Option<Timestamp>,
}
