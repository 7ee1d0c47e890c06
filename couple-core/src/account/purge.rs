//! Permanent deletion of accounts, and of the data of users whom a host forgets.
//!
//! A mistake here destroys data. So the purge checks the account before each step and works in bounded steps:
//! no commit changes more than [`ENTRY_STEP`] entries, [`PICTURE_STEP`] pictures or [`ROW_STEP`] rows of
//! another kind. An account that fails is logged, counted and skipped, so that it does not block the deletion
//! of other accounts.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Account, AccountChange, AccountPolicy, MailJob};
use crate::{
    AccountId, Change, CommitError, CoupleId, Error, Ports, Timestamp,
    device::DeviceChange,
    job::{Context, Handler, Job, JobError, Schedule},
    media::{self, MediaChange, Space},
    notification::NotificationChange,
    pairing::{Couple, PairingChange, Side},
    timeline::TimelineChange,
    upload::UploadChange,
};

/// Result of a dry run: data of one account, or of one user of a host, that a purge would remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgePlan {
    /// Account that would be deleted, or user who would be forgotten.
    pub account: AccountId,
    /// End of the grace period.
    pub due: Timestamp,
    /// Couple that would end.
    pub ends: Option<CoupleId>,
    /// Couples in which the account's entries would become tombstones; the partner's entries stay.
    pub erases: Vec<(CoupleId, Side)>,
    /// Number of pictures that would be deleted: the account's avatars and uploads.
    ///
    /// The partner's pictures stay.
    pub pictures: usize,
}

impl PurgePlan {
    /// Plan for a person whose data is due at `due`. Changes nothing.
    pub(super) async fn of(ports: &Ports, person: AccountId, due: Timestamp) -> Result<Self, Error> {
        let mut couples = Vec::new();
        let mut after = None;
        while let Some(page) = couples_page(ports, person, &mut after).await? {
            couples.extend(page);
        }
        let mut pictures = 0;
        for space in media::spaces(person, couples.iter().map(|couple| couple.id)) {
            let mut after = None;
            loop {
                let (own, next) = media::uploaded(ports, person, space, after).await?;
                pictures += own.len();
                if next.is_none() {
                    break;
                }
                after = next;
            }
        }
        Ok(Self {
            account: person,
            due,
            ends: couples.iter().find(|couple| couple.ended_at.is_none()).map(|couple| couple.id),
            erases: couples.iter().filter_map(|c| Some((c.id, c.side_of(person)?))).collect(),
            pictures,
        })
    }
}

/// Next page of a person's couples; none after the last page.
async fn couples_page(
    ports: &Ports,
    person: AccountId,
    after: &mut Option<CoupleId>,
) -> Result<Option<Vec<Couple>>, Error> {
    let page = ports.store.couples_page(person, *after, MAX_ROWS_PER_READ).await?;
    *after = page.last().map(|couple| couple.id).or(*after);
    Ok(Some(page).filter(|page| !page.is_empty()))
}

/// Report of one run of the purge.
#[derive(Debug, Default)]
pub struct PurgeReport {
    /// Number of deleted accounts.
    pub purged: u32,
    /// Number of accounts that reached a limit of the run; a later run continues with them.
    pub unfinished: u32,
    /// Accounts that failed, with the error. A later run retries them.
    pub failed: Vec<(AccountId, Error)>,
}

impl PurgeReport {
    /// Whether the run deleted something.
    const fn has_progress(&self) -> bool {
        self.purged > 0 || self.unfinished > 0
    }
}

/// Job that deletes accounts, and the data of users of a host, whose grace period has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeAccounts {}

impl Job for PurgeAccounts {
    const NAME: &'static str = "account.purge";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Cursor in the list of due accounts: due time and id of an account.
type DueCursor = (Timestamp, AccountId);

/// Account, or user of a host, whose data is due for deletion.
struct DuePerson {
    id: AccountId,
    due: Timestamp,
    /// Account as it was read; none for a user of a host.
    account: Option<Account>,
}

/// Handler that deletes accounts whose grace period has ended, up to a maximum number per run.
pub struct PurgeAccountsHandler {
    ports: Ports,
    cap: u32,
    /// Maximum number of commits per account and run.
    steps: u32,
    /// Cursor after which the next run starts, so that a slow account delays the others by one run at most.
    next: Mutex<Option<DueCursor>>,
    /// Couples whose logs were partly erased, with the `seq` after which the next run continues.
    ///
    /// Another process starts at the beginning of the log, which is safe but makes commits that change
    /// nothing.
    erased: Mutex<BTreeMap<(AccountId, CoupleId), i64>>,
}

/// Number of log positions that one commit erases.
const ENTRY_STEP: u32 = 500;
/// Number of pictures that one commit deletes: each takes about ten statements.
const PICTURE_STEP: usize = 10;
/// Number of invites, and of blocks, that one commit removes.
const ROW_STEP: u32 = 500;
/// Number of due accounts, or of couples of an account, per read.
const MAX_ROWS_PER_READ: u32 = 50;
/// Time after which a run starts no further account. Below the worker's default deadline of 10 min.
const RUN_TIME: Duration = Duration::from_mins(5);
/// Maximum number of commits per account and run: enough to erase a million entries.
const ACCOUNT_STEPS: u32 = 2_000;
/// Number of failed accounts after which a run ends: the accounts themselves are hardly the cause.
const MAX_FAILED: usize = 100;
/// Maximum number of log positions that a process keeps.
const MAX_POSITIONS: usize = 1_000;

/// Result of purging one account.
enum PurgeOutcome {
    Purged,
    /// A limit was reached; a later run continues.
    Unfinished,
    /// The account or its couple changed since it was read, for example by a sign-in.
    ///
    /// A later run reads it again.
    Changed,
}

impl PurgeAccountsHandler {
    /// Creates the handler; at most `cap` accounts are deleted per run.
    #[must_use]
    pub const fn new(ports: Ports, cap: u32) -> Self {
        Self { ports, cap, steps: ACCOUNT_STEPS, next: Mutex::new(None), erased: Mutex::new(BTreeMap::new()) }
    }

    /// Sets the maximum number of commits per account and run. Default: 2,000. A later run continues.
    #[must_use]
    pub const fn steps(mut self, steps: u32) -> Self {
        self.steps = steps;
        self
    }

    /// Schedule: every hour.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(1), || PurgeAccounts {})
    }

    /// Dry run: plans for the first `cap` due accounts. Changes nothing.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn plan(&self) -> Result<Vec<PurgePlan>, Error> {
        let mut plans = Vec::new();
        for person in self.due_page(self.ports.now(), None, self.cap).await? {
            plans.push(PurgePlan::of(&self.ports, person.id, person.due).await?);
        }
        Ok(plans)
    }

    /// Page of the due accounts and users of the host, ordered by due time and id.
    async fn due_page(
        &self,
        now: Timestamp,
        after: Option<DueCursor>,
        limit: u32,
    ) -> Result<Vec<DuePerson>, Error> {
        let store = &self.ports.store;
        let mut page = Vec::new();
        for account in store.accounts_to_delete(now, after, limit).await? {
            let due = account.deletion_due.unwrap_or_default();
            page.push(DuePerson { id: account.id, due, account: Some(account) });
        }
        for (due, id) in store.erasures_due(now, after, limit).await? {
            page.push(DuePerson { id, due, account: None });
        }
        page.sort_by_key(|person| (person.due, person.id));
        page.truncate(limit as usize);
        Ok(page)
    }

    /// Deletes due accounts: at most `cap`, for at most five minutes, each in a bounded number of commits.
    ///
    /// Starts after the account at which the last run of this handler stopped. Logs and skips an account that
    /// fails.
    ///
    /// # Errors
    /// Errors of the store, if the list of accounts cannot be read. The report contains the errors of single
    /// accounts.
    pub async fn run_once(&self) -> Result<PurgeReport, Error> {
        let (now, until) = (self.ports.now(), Instant::now() + RUN_TIME);
        let start = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = PurgeReport::default();
        let (mut after, mut wrapped) = (start, start.is_none());
        'run: loop {
            let page = self.due_page(now, after, MAX_ROWS_PER_READ).await?;
            for person in &page {
                let at = (person.due, person.id);
                let enough = report.purged >= self.cap || report.failed.len() >= MAX_FAILED;
                if enough || Instant::now() >= until {
                    break 'run;
                }
                if wrapped && start.is_some_and(|start| at > start) {
                    break 'run;
                }
                after = Some(at);
                tracing::info!(account = %person.id, "purging an account");
                match self.purge(person, until).await {
                    Ok(PurgeOutcome::Purged) => {
                        self.positions().retain(|(purged, _), _| *purged != at.1);
                        report.purged += 1;
                    }
                    Ok(PurgeOutcome::Unfinished) => report.unfinished += 1,
                    Ok(PurgeOutcome::Changed) => {}
                    Err(error) => {
                        tracing::error!(%error, account = %person.id, "could not purge an account");
                        report.failed.push((person.id, error));
                    }
                }
            }
            if page.len() < MAX_ROWS_PER_READ as usize {
                after = None;
                if wrapped {
                    break;
                }
                wrapped = true;
            }
        }
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = after;
        Ok(report)
    }

    async fn purge(&self, person: &DuePerson, until: Instant) -> Result<PurgeOutcome, Error> {
        let (id, now) = (person.id, self.ports.now());
        // The first commit requires the version or the time that was read: after a sign-in, or if the request was
        // withdrawn, it conflicts, and nothing is deleted.
        let mut changes: Vec<Change> = vec![match &person.account {
            Some(account) => AccountChange::Update(account.clone()).into(),
            None => {
                let due = Some(person.due);
                PairingChange::SetErasure { person: id, due, before: due }.into()
            }
        }];
        if let Some(couple) = self.ports.store.couple_of(id).await? {
            changes.push(
                PairingChange::End { id: couple.id, members: couple.members, at: now, by: Some(id) }.into(),
            );
        }
        if !self.commit_unless_conflict(changes).await? {
            return Ok(PurgeOutcome::Changed);
        }
        let step = PurgeStep { handler: self, person, until, left: AtomicU32::new(self.steps) };
        if let Some(stop) = step.purge_pictures(Space::Account(id)).await? {
            return Ok(stop);
        }
        let mut after = None;
        while let Some(couples) = couples_page(&self.ports, id, &mut after).await? {
            for couple in &couples {
                if let Some(stop) = step.purge_pictures(Space::Couple(couple.id)).await? {
                    return Ok(stop);
                }
                if let Some(stop) = step.erase_entries(couple, now).await? {
                    return Ok(stop);
                }
                if let Some(stop) = step.anonymize(couple).await? {
                    return Ok(stop);
                }
            }
        }
        if let Some(stop) = step.forget_rows().await? {
            return Ok(stop);
        }
        let end: Change = match &person.account {
            // A deletion request ends all sessions, and a sign-in since then would have withdrawn the request.
            Some(account) => AccountChange::Erase { id, version: account.version + 1 }.into(),
            None => PairingChange::FinishErasure { person: id, due: person.due }.into(),
        };
        let close = MediaChange::Close { account: id };
        // Remove invites and blocks that were added since the previous step, and the row in `member`.
        let forget = PairingChange::Forget { account: id, cap: ROW_STEP };
        // The job that removes expired uploads also deletes their parts.
        let expire = UploadChange::ExpireOf { owner: id, at: now };
        // A user of a host has no session with which they end.
        let devices = DeviceChange::RemoveOf { account: id };
        let preferences = NotificationChange::Remove { person: id };
        let mut changes =
            vec![end, close.into(), forget.into(), expire.into(), devices.into(), preferences.into()];
        if let Some(account) = &person.account {
            // The last mail to the address: the job is the only row that still has it, and ends with the delivery.
            let (to, locale) = (account.email.clone(), account.locale.clone());
            changes.push(self.ports.enqueue(&MailJob::Deleted { to, locale })?);
        }
        let erased = self.commit_unless_conflict(changes).await?;
        Ok(if erased { PurgeOutcome::Purged } else { PurgeOutcome::Changed })
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<(AccountId, CoupleId), i64>> {
        self.erased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the position up to which a couple's log is erased.
    ///
    /// Above the limit the position with the lowest account id is dropped: a later run erases that log from
    /// the beginning.
    fn keep_position(&self, key: (AccountId, CoupleId), after: i64) {
        let mut positions = self.positions();
        positions.insert(key, after);
        if positions.len() > MAX_POSITIONS {
            positions.pop_first();
        }
    }

    /// Commits; returns `false` if the account or its couple changed since it was read.
    async fn commit_unless_conflict(&self, changes: Vec<Change>) -> Result<bool, Error> {
        Ok(self.commit_counted(changes).await?.is_some())
    }

    /// Commits and returns the number of removed rows; none if the account or its couple changed.
    async fn commit_counted(&self, changes: Vec<Change>) -> Result<Option<u64>, Error> {
        match self.ports.commit(changes).await {
            Ok(committed) => Ok(Some(committed.rows_affected())),
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }
}

/// Steps of one account's purge. A step that cannot continue returns the outcome of the purge.
struct PurgeStep<'a> {
    handler: &'a PurgeAccountsHandler,
    person: &'a DuePerson,
    until: Instant,
    /// Number of commits left for the account in this run.
    left: AtomicU32,
}

impl PurgeStep<'_> {
    /// Checks before each commit that the run has time left and that the account's deletion is still due.
    async fn stop(&self) -> Result<Option<PurgeOutcome>, Error> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 0 || Instant::now() >= self.until {
            return Ok(Some(PurgeOutcome::Unfinished));
        }
        let store = &self.handler.ports.store;
        let due = match self.person.account {
            Some(_) => store.account(self.person.id).await?.and_then(|account| account.deletion_due),
            None => store.erasure_of(self.person.id).await?,
        };
        Ok((due != Some(self.person.due)).then_some(PurgeOutcome::Changed))
    }

    /// Deletes the pictures that the account uploaded to a space.
    async fn purge_pictures(&self, space: Space) -> Result<Option<PurgeOutcome>, Error> {
        let ports = &self.handler.ports;
        let mut after = None;
        loop {
            let (own, next) = media::uploaded(ports, self.person.id, space, after).await?;
            for some in own.chunks(PICTURE_STEP) {
                if let Some(stop) = self.stop().await? {
                    return Ok(Some(stop));
                }
                let mut changes = Vec::new();
                for media in some {
                    changes.extend(media::deletion(ports, media)?);
                }
                // An entry has named the picture, or it was deleted, since it was read: the next run reads it
                // again.
                if !self.handler.commit_unless_conflict(changes).await? {
                    return Ok(Some(PurgeOutcome::Changed));
                }
            }
            if next.is_none() {
                return Ok(None);
            }
            after = next;
        }
    }

    /// Erases the account's entries and reactions of an ended couple, one range of the log after the other.
    async fn erase_entries(&self, couple: &Couple, at: Timestamp) -> Result<Option<PurgeOutcome>, Error> {
        let Some(author) = couple.side_of(self.person.id) else { return Ok(None) };
        let key = (self.person.id, couple.id);
        let mut after = self.handler.positions().get(&key).copied().unwrap_or(0);
        // No entry is appended to the log of an ended couple, and each change requires that the couple has
        // ended.
        while after < couple.head_seq {
            if let Some(stop) = self.stop().await? {
                self.handler.keep_position(key, after);
                return Ok(Some(stop));
            }
            let erase = TimelineChange::Erase { couple: couple.id, author, at, after, cap: ENTRY_STEP };
            if !self.handler.commit_unless_conflict(vec![erase.into()]).await? {
                return Ok(Some(PurgeOutcome::Changed));
            }
            after += i64::from(ENTRY_STEP);
        }
        self.handler.positions().remove(&key);
        Ok(None)
    }

    /// Replaces the account in an ended couple whose log is erased. A later run does not find the couple again.
    async fn anonymize(&self, couple: &Couple) -> Result<Option<PurgeOutcome>, Error> {
        let Some(side) = couple.side_of(self.person.id) else { return Ok(None) };
        if let Some(stop) = self.stop().await? {
            return Ok(Some(stop));
        }
        let ports = &self.handler.ports;
        // A new id for each couple: couples that share an id could be attributed to the same person.
        let with = ports.new_id();
        let change = PairingChange::Anonymize { couple: couple.id, side, with };
        let replaced = self.handler.commit_unless_conflict(vec![change.into()]).await?;
        Ok((!replaced).then_some(PurgeOutcome::Changed))
    }

    /// Removes the account's invites and blocks.
    async fn forget_rows(&self) -> Result<Option<PurgeOutcome>, Error> {
        loop {
            if let Some(stop) = self.stop().await? {
                return Ok(Some(stop));
            }
            let forget = PairingChange::Forget { account: self.person.id, cap: ROW_STEP };
            match self.handler.commit_counted(vec![forget.into()]).await? {
                None => return Ok(Some(PurgeOutcome::Changed)),
                Some(removed) if removed < u64::from(ROW_STEP) => return Ok(None),
                Some(_) => {}
            }
        }
    }
}

#[async_trait]
impl Handler<PurgeAccounts> for PurgeAccountsHandler {
    async fn run(&self, _: PurgeAccounts, _: &Context) -> Result<(), JobError> {
        let mut report = self.run_once().await?;
        let (purged, unfinished, failed) = (report.purged, report.unfinished, report.failed.len());
        if report.has_progress() {
            tracing::info!(purged, unfinished, failed, "purged accounts");
        }
        let Some((account, error)) = report.failed.pop() else { return Ok(()) };
        // Retry with back-off; the job ends in the dead-letter queue, where an operator sees it.
        let message =
            format!("{failed} accounts failed, {purged} were purged; the last that failed is {account}");
        Err(JobError::Retry(Error::new(error.kind(), "purge accounts").context(message).source(error)))
    }
}

/// Job that purges expired tokens, sessions and tallies.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeTokens {}

impl Job for PurgeTokens {
    const NAME: &'static str = "account.purge_tokens";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler that removes expired tokens, sessions and tallies.
pub struct PurgeTokensHandler {
    ports: Ports,
    policy: AccountPolicy,
}

impl PurgeTokensHandler {
    /// Creates the handler.
    #[must_use]
    pub const fn new(ports: Ports, policy: AccountPolicy) -> Self {
        Self { ports, policy }
    }
    /// Schedule: every 10 minutes.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_mins(10), || PurgeTokens {})
    }
}

#[async_trait]
impl Handler<PurgeTokens> for PurgeTokensHandler {
    async fn run(&self, _: PurgeTokens, _: &Context) -> Result<(), JobError> {
        let now = self.ports.now();
        let idle = now.minus(self.policy.session_idle_time);
        let tokens = |cap| AccountChange::PurgeTokens { before: now, cap }.into();
        let sessions = |cap| AccountChange::PurgeSessions { before: now, idle, cap }.into();
        let tallies = |cap| AccountChange::PurgeTallies { before: now, cap }.into();
        // Return errors at the end, so that a failed purge of one table does not prevent the others.
        let tokens = crate::job::purge_all(&self.ports, tokens).await;
        let sessions = crate::job::purge_all(&self.ports, sessions).await;
        crate::job::purge_all(&self.ports, tallies).await?;
        sessions?;
        tokens?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_a_run_that_deleted_something_has_progress() {
        let progress =
            |purged, unfinished| PurgeReport { purged, unfinished, failed: Vec::new() }.has_progress();
        assert!(progress(1, 0) && progress(0, 1) && progress(2, 2));
        assert!(!progress(0, 0));
    }

    #[test]
    fn purges_have_their_names_as_deduplication_keys() {
        assert_eq!(PurgeAccounts {}.dedupe_key().as_deref(), Some(PurgeAccounts::NAME));
        assert_eq!(PurgeTokens {}.dedupe_key().as_deref(), Some(PurgeTokens::NAME));
    }
}
