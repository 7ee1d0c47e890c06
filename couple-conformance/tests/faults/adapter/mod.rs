//! A copy of the adapters in memory with faults: `planted` is true for the fault of the running test.

#![expect(clippy::nonminimal_bool, reason = "each planted fault is one term of a condition")]

mod account;
mod blobs;
mod bus;
mod column;
mod date;
mod device;
mod idempotency;
mod job;
mod limits;
mod media;
mod notification;
mod pairing;
mod presence;
mod remote_bus;
// Table of the store in memory, unchanged: no fault is planted in it.
#[path = "../../../../couple-store/src/memory/table.rs"]
mod table;
mod timeline;
mod upload;

pub(crate) use blobs::FaultyBlobs;
pub(crate) use bus::FaultyBus;
pub(crate) use limits::FaultyLimits;
pub(crate) use presence::FaultyPresence;
pub(crate) use remote_bus::Deployment;

use std::{
    any::Any,
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple_conformance::Breakable;
use couple_core::{
    AccountId, Change, ChangeResult, CommitError, Committed, Conflict, CoupleId, Error, ErrorKind, Store,
    Timestamp,
    account::{Account, AccountChange},
    pairing::Couple,
    timeline::TimelineChange,
};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use crate::{plant, planted};

/// Lowest and highest id, the ends of key ranges.
const NIL: uuid::Uuid = uuid::Uuid::nil();
const MAX: uuid::Uuid = uuid::Uuid::max();

/// Tables by area.
#[derive(Clone, Default)]
struct State {
    account: account::AccountTables,
    pairing: pairing::PairingTables,
    timeline: timeline::TimelineTables,
    media: media::MediaTables,
    upload: upload::UploadTables,
    device: device::DeviceTables,
    notification: notification::NotificationTables,
    date: date::DateTables,
    job: job::JobTables,
    idempotency: idempotency::IdempotencyTables,
}

/// Tables by the name of their store, which outlive it.
static STORED: LazyLock<Mutex<HashMap<String, Arc<Mutex<State>>>>> = LazyLock::new(Mutex::default);

/// Adapters of live delivery by the name of their check, for its second process.
static OPENED: LazyLock<Mutex<HashMap<String, Box<dyn Any + Send>>>> = LazyLock::new(Mutex::default);

/// The adapter of this name: the first call creates it.
pub(crate) fn opened<T: Clone + Send + 'static>(name: &str, create: impl FnOnce() -> T) -> T {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let adapter = opened.entry(plant::place(name)).or_insert_with(|| Box::new(create()));
    adapter.downcast_ref::<T>().expect("each name has one type").clone()
}

/// Engine that a check stops and starts again.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineState {
    is_down: Arc<AtomicBool>,
    has_failed: Arc<AtomicBool>,
}

impl EngineState {
    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
        self.has_failed.fetch_or(is_down, Ordering::SeqCst);
    }

    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    /// Whether an outage has begun, and may have ended.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }
}

/// Rows as they were read first since the latest commit of this store.
#[derive(Default)]
struct Cache {
    couples: HashMap<CoupleId, Option<Couple>>,
}

/// Store in the memory of this process.
#[derive(Default)]
pub(crate) struct FaultyStore {
    tables: Arc<Mutex<State>>,
    engine: EngineState,
    /// Rows that this store has read, for faults of a cache within one process.
    cache: Mutex<Cache>,
    closed: AtomicBool,
    /// Result of the latest commit, for a fault that swaps results.
    latest: Mutex<Option<Committed>>,
    /// Held by a conflict, for a fault that delays other commits.
    stalled: tokio::sync::Mutex<()>,
    /// Whether a commit or a ping noticed the outage, for a fault of reads.
    noticed: AtomicBool,
    /// Whether the store is too slow to answer concurrent commits.
    slow: bool,
    /// Number of running commits, for a store that is too slow.
    running: AtomicUsize,
    /// Locks of rows, for faults of commits that lock rows in the order of their changes.
    locks: Mutex<HashMap<uuid::Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

impl FaultyStore {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Creates an empty store that can be opened again.
    pub(crate) fn open(name: &str) -> Self {
        let store = Self::new();
        let stored = (plant::place(name), store.tables.clone());
        STORED.lock().unwrap_or_else(PoisonError::into_inner).extend([stored]);
        store
    }

    /// Opens what the store of this name has written.
    pub(crate) fn reopen(name: &str) -> Self {
        let stored = STORED.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = stored.get(&plant::place(name)).expect("a store of this name was opened").clone();
        if planted("store-reopen-loses-the-latest-commit") {
            tables.lock().unwrap_or_else(PoisonError::into_inner).account.forget_latest();
        }
        if let Some(kind) = plant::planted_kind("store-reopen-loses") {
            tables.lock().unwrap_or_else(PoisonError::into_inner).forget_rows(kind);
        }
        Self { tables, ..Self::default() }
    }

    /// Store whose engine does not respond.
    pub(crate) fn broken() -> Self {
        let store = Self::default();
        store.engine.set_down(true);
        store
    }

    /// Store whose engine fails and works again.
    pub(crate) fn breakable() -> Breakable<Self> {
        let store = Self::default();
        let (engine, tables) = (store.engine.clone(), store.tables.clone());
        Breakable::new(store, move |fails| {
            if !fails && planted("store-outage-loses-rows") {
                *tables.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
            }
            engine.set_down(fails);
        })
    }

    /// Store that does not answer concurrent commits in time.
    pub(crate) fn slow() -> Self {
        Self { slow: true, ..Self::default() }
    }

    /// Gives up a commit that runs beside others, if the store is too slow.
    async fn answer_in_time(&self) -> Result<(), Error> {
        if !self.slow && !planted("store-concurrent-commits-get-no-answer") {
            return Ok(());
        }
        let before = self.running.fetch_add(1, Ordering::SeqCst);
        // Longer than the shortest wait that the kit takes for a busy machine.
        sleep(Duration::from_millis(if before > 0 { 1_100 } else { 2 })).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if before > 0 {
            return Err(Error::new(ErrorKind::TimedOut, "commit").context("no answer in time"));
        }
        Ok(())
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        let is_unnoticed = planted("store-outage-reads-nothing")
            || (planted("store-outage-is-noticed-by-a-commit") && !self.noticed.load(Ordering::SeqCst));
        if !is_unnoticed {
            self.check_outage("store-outage-lasts-for-reads")?;
        }
        Ok(self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The account, unless it is the latest one: a read from a replica that is one commit behind.
    fn stale_account(&self, id: AccountId) -> Option<Account> {
        let state = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        state.account.get(id).filter(|_| state.account.latest() != Some(id)).cloned()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the rows of a commit in the order of its changes.
    async fn lock_rows(&self, changes: &[Change]) -> Result<Vec<tokio::sync::OwnedMutexGuard<()>>, Error> {
        let mut rows = Vec::new();
        for row in changes.iter().filter_map(written_row) {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        let mut locked = Vec::new();
        for row in rows {
            let lock =
                self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(row).or_default().clone();
            let limit = if planted("store-crossed-commits-hang") { 60_000 } else { 100 };
            match timeout(Duration::from_millis(limit), lock.lock_owned()).await {
                Ok(guard) => locked.push(guard),
                Err(_) => return Err(Error::new(ErrorKind::Unavailable, "commit").context("deadlock")),
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(locked)
    }

    /// Fails during an outage, and after it with the fault `lasting`.
    fn check_outage(&self, lasting: &str) -> Result<(), Error> {
        let lasts = self.engine.has_failed() && planted(lasting);
        if !self.engine.is_down() && !lasts {
            return Ok(());
        }
        let kind =
            if planted("store-outage-is-a-bug") { ErrorKind::Internal } else { ErrorKind::Unavailable };
        Err(Error::new(kind, "store").context("planned outage"))
    }

    fn apply(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.noticed.store(self.engine.is_down(), Ordering::SeqCst);
        self.check_outage("store-outage-lasts-for-commits")?;
        *self.cache() = Cache::default();
        let forgotten: Vec<Change> = changes.iter().filter(|change| is_not_undone(change)).cloned().collect();
        let mut state = self.state()?;
        let committed: Result<_, CommitError> =
            changes.into_iter().map(|change| state.apply(change)).collect();
        state.end(committed.is_ok());
        if committed.is_err() {
            forgotten.into_iter().for_each(|change| drop(state.apply(change)));
            state.end(true);
        }
        committed
    }
}

/// Time of the system, which a store must not use.
fn system_time() -> Timestamp {
    Timestamp::from_micros(
        i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros()).unwrap_or(0),
    )
}

/// Lets other tasks run, a random number of times: concurrent commits have another order in each run. A fault that only one order
/// shows then fails its test in many runs, and not once in a hundred.
async fn shuffle() {
    let random = RandomState::new().build_hasher().finish();
    for _ in 0..random % 8 {
        yield_now().await;
    }
}

/// Row that a change locks.
fn written_row(change: &Change) -> Option<uuid::Uuid> {
    match change {
        Change::Timeline(TimelineChange::Append { couple, .. }) => Some(couple.as_uuid()),
        Change::Account(AccountChange::Update(account)) => Some(account.id.as_uuid()),
        _ => None,
    }
}

/// Whether the planted fault is that a conflict does not undo this kind of change: `-account-update`.
fn is_not_undone(change: &Change) -> bool {
    is_planted_kind("store-conflict-does-not-undo", change)
}

/// Whether the planted fault concerns this kind of change: its name is `fault` and, such as `-account-update`, the kind.
fn is_planted_kind(fault: &str, change: &Change) -> bool {
    plant::planted_kind(fault).is_some_and(|kind| {
        // Such as `Account(Update(…` and `Pairing(End { …`: the names of the area and of the change.
        let text = format!("{change:?}");
        let mut name = String::new();
        for letter in text.split(['(', ' ']).take(2).flat_map(str::chars) {
            if letter.is_ascii_uppercase() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name == kind
    })
}

impl State {
    fn apply(&mut self, change: Change) -> Result<ChangeResult, CommitError> {
        let result = match change {
            Change::Account(change) => self.account.apply(&mut self.device, &mut self.notification, change),
            Change::Pairing(change) => self.pairing.apply(&self.account, &mut self.date, change),
            Change::Timeline(change) => self.timeline.apply(&mut self.pairing, change),
            Change::Media(change) => self.media.apply(&self.pairing, change).map(|()| ChangeResult::Applied),
            Change::Upload(change) => self.upload.apply(change).map(|()| ChangeResult::Applied),
            Change::Device(change) => {
                self.device.apply(&self.account, change).map(|()| ChangeResult::Applied)
            }
            Change::Notification(change) => self.notification.apply(change).map(|()| ChangeResult::Applied),
            Change::Date(change) => self.date.apply(&self.pairing, change).map(|()| ChangeResult::Applied),
            Change::Job(change) => self.job.apply(change),
            Change::Idempotency(change) => self.idempotency.apply(change),
            Change::Host(_) if planted("store-host-statements-are-ignored") => Ok(ChangeResult::Applied),
            Change::Host(_) => {
                let kind = if planted("store-host-statements-are-unavailable") {
                    ErrorKind::Unavailable
                } else {
                    ErrorKind::Misconfigured
                };
                return Err(Error::new(kind, "commit")
                    .context("a store in memory runs no statements of the host")
                    .into());
            }
        };
        Ok(result?)
    }

    /// Forgets rows of one kind.
    fn forget_rows(&mut self, kind: &str) {
        self.account.forget_rows(kind);
        self.pairing.forget_rows(kind);
        self.timeline.forget_rows(kind);
        self.media.forget_rows(kind);
        self.upload.forget_rows(kind);
        self.device.forget_rows(kind);
        self.date.forget_rows(kind);
        self.job.forget_rows(kind);
        self.idempotency.forget_rows(kind);
        self.end(true);
    }

    /// Ends a commit: keeps its writes, or undoes them.
    fn end(&mut self, keep: bool) {
        let keep = keep || planted("store-conflict-keeps-earlier-changes");
        self.account.end(keep);
        self.pairing.end(keep || planted("store-conflict-keeps-couples"));
        self.timeline.end(keep || planted("store-conflict-keeps-entries"));
        self.media.end(keep || planted("store-conflict-keeps-pictures"));
        self.upload.end(keep || planted("store-conflict-keeps-uploads"));
        self.device.end(keep || planted("store-conflict-keeps-devices"));
        self.notification.end(keep || planted("store-conflict-keeps-preferences"));
        self.date.end(keep || planted("store-conflict-keeps-dates"));
        self.job.end(keep || planted("store-conflict-keeps-jobs"));
        self.idempotency.end(keep || planted("store-conflict-keeps-outcomes"));
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, mut changes: Vec<Change>) -> Result<Committed, CommitError> {
        shuffle().await;
        self.answer_in_time().await?;
        if changes.is_empty() && planted("store-empty-commit-fails") {
            return Err(Error::new(ErrorKind::Internal, "commit").context("no changes").into());
        }
        if changes.iter().any(|change| matches!(change, Change::Host(_))) {
            if planted("store-host-statements-hide-a-conflict") {
                return Err(Error::new(ErrorKind::Misconfigured, "commit").into());
            }
            if planted("store-host-statements-fail-after-others") {
                let rest = changes.split_off(1);
                self.apply(changes)?;
                changes = rest;
            }
        }
        if self.engine.is_down() {
            if planted("store-outage-hangs") {
                std::future::pending::<()>().await;
            }
            if planted("store-outage-acknowledges") {
                return Ok(changes.iter().map(|_| ChangeResult::Applied).collect());
            }
        }
        let _locked = if planted("store-crossed-commits-deadlock") || planted("store-crossed-commits-hang") {
            self.lock_rows(&changes).await?
        } else {
            Vec::new()
        };
        if planted("store-commit-is-cut-late") {
            sleep(Duration::from_millis(8)).await;
            let rest = changes.split_off(changes.len() / 2);
            let first = self.apply(changes)?;
            sleep(Duration::from_millis(4)).await;
            let rest = self.apply(rest)?;
            return Ok(first.results().iter().chain(rest.results()).cloned().collect());
        }
        if planted("store-commit-is-visible-in-part")
            || planted("store-cancelled-commit-is-cut")
            || planted("store-reverse-commit-is-visible-in-part")
        {
            if planted("store-reverse-commit-is-visible-in-part") {
                changes.reverse();
            }
            let rest = changes.split_off(changes.len() / 2);
            let first = self.apply(changes)?;
            sleep(Duration::from_millis(1)).await;
            let rest = self.apply(rest)?;
            return Ok(first.results().iter().chain(rest.results()).cloned().collect());
        }
        // The commit is applied to what it read before, and overwrites what others wrote in between.
        if changes.iter().any(|change| is_planted_kind("store-reads-too-early", change)) {
            let mut read = self.state()?.clone();
            sleep(Duration::from_millis(2)).await;
            let committed =
                changes.into_iter().map(|change| read.apply(change)).collect::<Result<Committed, _>>()?;
            read.end(true);
            *self.state()? = read;
            return Ok(committed);
        }
        // Concurrent commits read the same state, and each writes it again.
        if planted("media-state-is-read-before-the-commit") {
            let read = self.state()?.media.ended_in(&changes);
            sleep(Duration::from_millis(20)).await;
            self.state()?.media.overwrite(read);
        }
        if planted("invite-state-is-read-before-the-commit") {
            let read = self.state()?.pairing.closed_in(&changes);
            sleep(Duration::from_millis(20)).await;
            self.state()?.pairing.overwrite(read);
        }
        if planted("store-close-loses-commits") || planted("store-close-fails-commits") {
            sleep(Duration::from_millis(5)).await;
            if self.closed.load(Ordering::SeqCst) {
                if planted("store-close-loses-commits") {
                    return Ok(changes.iter().map(|_| ChangeResult::Applied).collect());
                }
                return Err(Error::new(ErrorKind::Unavailable, "commit").context("closed").into());
            }
        }
        if changes.len() > 500 {
            if planted("store-large-commit-fails") {
                return Err(Error::new(ErrorKind::Internal, "commit").context("too many changes").into());
            }
            if planted("store-large-commit-is-cut") {
                let results = vec![ChangeResult::Applied; changes.len() - 500];
                changes.truncate(500);
                let first = self.apply(changes)?;
                return Ok(first.results().iter().cloned().chain(results).collect());
            }
        }
        if planted("store-changes-apply-in-reverse") {
            changes.reverse();
        }
        if planted("redeem-goes-before-the-counts-of-its-commit") {
            changes.sort_by_key(|change| matches!(change, Change::Account(AccountChange::CountTries { .. })));
        }
        // Checks the precondition, and redeems the token later.
        if planted("redeem-checks-the-count-too-early")
            && let [Change::Account(AccountChange::RedeemToken { id, at, .. })] = changes[..]
        {
            let result = self.state()?.clone().apply(changes.remove(0))?;
            sleep(Duration::from_millis(2)).await;
            let mut state = self.state()?;
            state.account.redeem(id, at);
            state.end(true);
            return Ok([result].into_iter().collect());
        }
        let result = if planted("store-conflict-delays-others") {
            let _stalled = self.stalled.lock().await;
            let result = self.apply(changes);
            if result.is_err() {
                sleep(Duration::from_millis(100)).await;
            }
            result
        } else {
            self.apply(changes)
        };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if planted("store-conflict-fails-the-next-commit") {
            match (&result, latest.take()) {
                (Err(_), _) => *latest = Some(Committed::default()),
                (Ok(_), Some(_)) => return Err(Conflict::AccountExists.into()),
                (Ok(_), None) => {}
            }
        }
        let mut committed = result?;
        if planted("store-results-are-swapped-between-commits") {
            let before = latest.replace(committed.clone());
            committed =
                before.filter(|one| one.results().len() == committed.results().len()).unwrap_or(committed);
        }
        if planted("store-results-are-reversed") {
            committed = committed.results().iter().rev().cloned().collect();
        }
        if planted("store-results-lack-the-last") {
            committed = committed.results().iter().rev().skip(1).rev().cloned().collect();
        }
        Ok(committed)
    }

    async fn ping(&self) -> Result<(), Error> {
        if planted("store-ping-fails") {
            return Err(Error::new(ErrorKind::Internal, "ping"));
        }
        if planted("store-ping-ignores-the-outage") {
            return Ok(());
        }
        self.noticed.store(self.engine.is_down(), Ordering::SeqCst);
        self.check_outage("store-outage-lasts-for-ping")
    }

    async fn close(&self) -> Result<(), Error> {
        if planted("store-close-hangs")
            || (self.engine.is_down() && planted("store-close-hangs-in-an-outage"))
        {
            std::future::pending::<()>().await;
        }
        let closed_before = self.closed.swap(true, Ordering::SeqCst);
        if planted("store-close-fails") || (closed_before && planted("store-second-close-fails")) {
            return Err(Error::new(ErrorKind::Internal, "close").context("already closed"));
        }
        Ok(())
    }
}
