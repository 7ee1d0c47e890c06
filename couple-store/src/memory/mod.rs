//! Adapters in the memory of this process; the store is the executable specification of a store.

mod account;
mod bus;
mod date;
mod device;
mod idempotency;
mod job;
mod limits;
mod media;
mod notification;
mod pairing;
mod presence;
mod table;
mod timeline;
mod upload;

pub use bus::MemoryBus;
pub use limits::MemoryLimits;
pub use presence::MemoryPresence;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use couple_core::{Change, ChangeResult, CommitError, Committed, Error, ErrorKind, Store};

/// Lowest and highest id, the ends of key ranges.
const NIL: uuid::Uuid = uuid::Uuid::nil();
const MAX: uuid::Uuid = uuid::Uuid::max();

/// Tables by area.
#[derive(Default)]
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

/// Store in the memory of this process. A restart loses all data.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Ignore poisoning: each change checks its preconditions before it writes, so a panic leaves no
        // partial change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            Change::Host(_) => {
                return Err(Error::new(ErrorKind::Misconfigured, "commit")
                    .context("a store in memory runs no statements of the host")
                    .into());
            }
        };
        Ok(result?)
    }

    /// Ends a commit: keeps its writes, or undoes them.
    fn end(&mut self, keep: bool) {
        self.account.end(keep);
        self.pairing.end(keep);
        self.timeline.end(keep);
        self.media.end(keep);
        self.upload.end(keep);
        self.device.end(keep);
        self.notification.end(keep);
        self.date.end(keep);
        self.job.end(keep);
        self.idempotency.end(keep);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        let mut state = self.state();
        let committed: Result<_, CommitError> =
            changes.into_iter().map(|change| state.apply(change)).collect();
        state.end(committed.is_ok());
        committed
    }

    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}
