//! Commits that wait for a writer.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use couple_core::{Change, CommitError, Committed, Error, ErrorKind, job::JobChange};
use tokio::{sync::oneshot, time::Instant};

use super::{
    lock_registry::CommitRegistration,
    locks::{Lock, locks_of},
};

/// Capacity of each queue of commits, per store.
pub(super) const MAX_QUEUED_COMMITS: usize = 1024;

/// Answer to the caller of a commit.
pub(super) type CommitResult = Result<Committed, CommitError>;

/// Commit that a caller waits for.
pub(super) struct CommitRequest {
    pub(super) changes: Vec<Change>,
    /// Locks that the changes need, in order.
    pub(super) locks: Vec<Lock>,
    pub(super) answer: oneshot::Sender<CommitResult>,
    since: Instant,
    start: CommitStart,
    /// Number of runs that failed transiently for a reason other than a lock.
    pub(super) tries: u32,
    /// Registration as a blocked commit; none until a lock blocks it.
    pub(super) registration: Option<CommitRegistration>,
}

/// Whether a commit began: true once a writer runs it, false once its caller stopped waiting before that.
#[derive(Clone, Default)]
pub(super) struct CommitStart(Arc<OnceLock<bool>>);

impl CommitStart {
    /// Prevents the start. Returns false if the commit has begun, so that its outcome is unknown.
    pub(super) fn cancel(&self) -> bool {
        !*self.0.get_or_init(|| false)
    }
}

impl CommitRequest {
    /// Creates a request, and the receiver of its result.
    pub(super) fn new(changes: Vec<Change>) -> (Self, oneshot::Receiver<CommitResult>) {
        let (answer, answered) = oneshot::channel();
        let locks = locks_of(&changes);
        (
            Self {
                changes,
                locks,
                answer,
                since: Instant::now(),
                start: CommitStart::default(),
                tries: 0,
                registration: None,
            },
            answered,
        )
    }
    /// Start of the commit, for its caller.
    pub(super) fn start(&self) -> CommitStart {
        self.start.clone()
    }
    /// Marks the commit as begun. Returns false if its caller has stopped waiting.
    pub(super) fn begin(&self) -> bool {
        !self.is_abandoned() && *self.start.0.get_or_init(|| true)
    }
    /// Whether a statement of the commit skips locked rows.
    pub(super) fn skips_locked_rows(&self) -> bool {
        let skips = |change: &Change| {
            matches!(change, Change::Job(JobChange::Claim { .. } | JobChange::ClaimAbandoned { .. }))
        };
        self.changes.iter().any(skips)
    }
    /// Whether the commit locks rows whose keys are not known before it runs, so that it is never merged.
    pub(super) fn locks_unknown_rows(&self) -> bool {
        self.runs_host_statements() || self.locks.iter().any(|lock| matches!(lock, Lock::Expired(_)))
    }
    /// Whether the commit runs statements of the host.
    pub(super) fn runs_host_statements(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Host(_)))
    }
    /// Whether the commit needs a lock that cannot be checked without waiting for it.
    pub(super) fn has_unchecked_locks(&self) -> bool {
        self.locks.iter().any(|lock| !lock.is_row())
    }
    /// Whether the commit would fail, too, after `other` met a held lock in the same round.
    ///
    /// If transactions wait for locks, a shared lock suffices: it could cost another time-out. Otherwise all locks must be the same.
    pub(super) fn fails_with(&self, other: &Self, waits: bool) -> bool {
        if waits {
            self.locks.iter().any(|lock| other.locks.contains(lock))
        } else {
            !self.locks.is_empty() && self.locks == other.locks
        }
    }
    /// Whether the caller has stopped waiting.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
    /// Time since the commit entered the queue.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }
    /// Fails the commit, because it waited for too long or there was no room for it.
    pub(super) fn refuse_as_overloaded(self, reason: &'static str) {
        self.refuse(Error::new(ErrorKind::Overloaded, "commit").context(reason));
    }
    /// Fails the commit: its caller gets the error.
    pub(super) fn refuse(self, error: Error) {
        let _ = self.answer.send(Err(error.into()));
    }
}
