//! Deleting for good: the most dangerous code there is, so it plans first, re-checks each step and takes small bites.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Account, AccountChange, Policy};
use crate::{
    AccountId, Change, CommitError, CoupleId, Error, Ports, Timestamp,
    job::{Context, Handler, Job, JobError, Schedule},
    media::{self, MediaChange, Space},
    pairing::{PairingChange, Side},
    timeline::TimelineChange,
};

/// What a purge would remove of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgePlan {
    /// Whose.
    pub account: AccountId,
    /// When its grace period ended.
    pub due: Timestamp,
    /// The couple that would end.
    pub ends: Option<CoupleId>,
    /// The couples in which its entries would become tombstones; the other's stay.
    pub erases: Vec<(CoupleId, Side)>,
    /// How many pictures would go: its avatars, and what it uploaded to its couples; the other's stay.
    pub pictures: usize,
}

/// Purges accounts whose grace period is over. Every hour, a few at a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeAccounts {}

impl Job for PurgeAccounts {
    const NAME: &'static str = "account.purge";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Deletes accounts whose grace period is over, so many in one run.
pub struct PurgeAccountsHandler {
    ports: Ports,
    cap: u32,
}

/// Entries that become tombstones in one commit.
const BITE: u32 = 500;

impl PurgeAccountsHandler {
    /// Over its ports; at most `cap` accounts a run.
    #[must_use]
    pub const fn new(ports: Ports, cap: u32) -> Self {
        Self { ports, cap }
    }

    /// How often it runs.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(1), || PurgeAccounts {})
    }

    /// A dry run: what a purge now would remove. Changes nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn plan(&self) -> Result<Vec<PurgePlan>, Error> {
        let mut plans = Vec::new();
        for account in self.ports.store.accounts_to_delete(self.ports.now(), self.cap).await? {
            plans.push(self.plan_one(&account).await?);
        }
        Ok(plans)
    }

    async fn plan_one(&self, account: &Account) -> Result<PurgePlan, Error> {
        let couples = self.ports.store.couples_of(account.id).await?;
        let mut pictures = 0;
        for space in media::spaces(account.id, couples.iter().map(|couple| couple.id)) {
            let mut after = None;
            loop {
                let (own, next) = media::uploaded(&self.ports, account.id, space, after).await?;
                pictures += own.len();
                if next.is_none() {
                    break;
                }
                after = next;
            }
        }
        Ok(PurgePlan {
            account: account.id,
            due: account.deletion_due.unwrap_or_default(),
            ends: couples.iter().find(|couple| couple.ended_at.is_none()).map(|couple| couple.id),
            erases: couples.iter().filter_map(|c| Some((c.id, c.side_of(account.id)?))).collect(),
            pictures,
        })
    }

    /// Deletes what a person uploaded to a space; `false` when they are not to be deleted any more.
    async fn purge_pictures(&self, account: &Account, space: Space) -> Result<bool, Error> {
        let mut after = None;
        loop {
            let (own, next) = media::uploaded(&self.ports, account.id, space, after).await?;
            if !self.still_due(account).await? {
                return Ok(false);
            }
            let mut changes = Vec::new();
            for media in &own {
                changes.extend(media::deletion(&self.ports, media)?);
            }
            // One that was named or deleted meanwhile: the next run reads it again.
            if !self.still(changes).await? {
                return Ok(false);
            }
            if next.is_none() {
                return Ok(true);
            }
            after = next;
        }
    }

    /// Whether an account is still there, and still to be deleted for the same reason.
    async fn still_due(&self, account: &Account) -> Result<bool, Error> {
        let current = self.ports.store.account(account.id).await?;
        Ok(current.is_some_and(|current| current.deletion_due == account.deletion_due))
    }

    async fn purge(&self, account: &Account) -> Result<(), Error> {
        let plan = self.plan_one(account).await?;
        let now = self.ports.now();
        // The first commit carries the version that was read: a sign-in since then wins, and nothing is lost.
        let hold = Account { deletion_due: account.deletion_due, ..account.clone() };
        let mut changes: Vec<Change> = vec![AccountChange::Update(hold).into()];
        changes.extend(plan.ends.map(|id| PairingChange::End { id, at: now }.into()));
        if !self.still(changes).await? {
            return Ok(());
        }
        for space in media::spaces(account.id, plan.erases.iter().map(|(couple, _)| *couple)) {
            if !self.purge_pictures(account, space).await? {
                return Ok(());
            }
        }
        for (couple, author) in plan.erases {
            loop {
                if !self.still_due(account).await? {
                    return Ok(());
                }
                // The change itself re-checks that the couple has ended.
                let erase = TimelineChange::Erase { couple, author, at: now, cap: BITE };
                match self.ports.commit(vec![erase.into()]).await {
                    Ok(done) if done.purged.iter().sum::<u64>() < u64::from(BITE) => break,
                    Ok(_) => {}
                    Err(CommitError::Conflict(_)) => return Ok(()),
                    Err(CommitError::Failed(error)) => return Err(error),
                }
            }
        }
        let close = MediaChange::Close { account: account.id };
        let forget = PairingChange::Forget { account: account.id };
        let erase = AccountChange::Erase { id: account.id, version: account.version + 1 };
        self.still(vec![close.into(), forget.into(), erase.into()]).await?;
        Ok(())
    }

    /// Commits; `false` when the account or couple changed since it was looked at.
    async fn still(&self, changes: Vec<Change>) -> Result<bool, Error> {
        match self.ports.commit(changes).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }
}

#[async_trait]
impl Handler<PurgeAccounts> for PurgeAccountsHandler {
    async fn run(&self, _: PurgeAccounts, _: &Context) -> Result<(), JobError> {
        let due = self.ports.store.accounts_to_delete(self.ports.now(), self.cap).await?;
        for account in &due {
            tracing::info!(account = %account.id, "purging");
            self.purge(account).await?;
        }
        Ok(())
    }
}

/// Purges tokens and sessions that have expired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeTokens {}

impl Job for PurgeTokens {
    const NAME: &'static str = "account.purge_tokens";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Removes expired tokens and sessions.
pub struct PurgeTokensHandler {
    ports: Ports,
    policy: Policy,
}

impl PurgeTokensHandler {
    /// Over its ports.
    #[must_use]
    pub const fn new(ports: Ports, policy: Policy) -> Self {
        Self { ports, policy }
    }
    /// How often it runs.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_mins(10), || PurgeTokens {})
    }
}

#[async_trait]
impl Handler<PurgeTokens> for PurgeTokensHandler {
    async fn run(&self, _: PurgeTokens, _: &Context) -> Result<(), JobError> {
        let now = self.ports.now();
        let idle = now.minus(self.policy.session_idle);
        crate::job::purge_all(&self.ports, |cap| AccountChange::PurgeTokens { before: now, cap }.into())
            .await?;
        crate::job::purge_all(&self.ports, |cap| {
            AccountChange::PurgeSessions { before: now, idle, cap }.into()
        })
        .await?;
        Ok(())
    }
}
