//! Queue of commits that are blocked by a lock of another transaction.
//!
//! They wait here and not within a merged transaction. So a row that another transaction holds (of another
//! process, an operator's session or a backup) delays only the commits that need this row. One task with a
//! separate connection retries them until each one is committed or times out.
//!
//! A second such task with its own queue runs the commits with statements of the host, which can be slow.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    Dialect,
    commit_request::{CommitRequest, MAX_QUEUED_COMMITS},
    lock_registry::{LockRegistry, TransactionRegistration},
    locks::Lock,
    transaction::WriterConnection,
};

/// First pause after a round that committed nothing; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(1);
/// Maximum pause between two rounds.
const MAX_PAUSE: Duration = Duration::from_millis(20);

/// Queue of blocked commits.
#[derive(Clone)]
pub(super) struct BlockedQueue {
    queue: mpsc::Sender<CommitRequest>,
    locks: LockRegistry,
}

impl BlockedQueue {
    pub(super) fn new(length: usize) -> (Self, mpsc::Receiver<CommitRequest>) {
        let (queue, inbox) = mpsc::channel(length);
        (Self { queue, locks: LockRegistry::default() }, inbox)
    }

    /// Locks because of which commits are not merged with others.
    pub(super) fn locks(&self) -> LockRegistry {
        self.locks.clone()
    }

    /// Adds a commit; fails it if the queue is full.
    pub(super) fn push(&self, mut request: CommitRequest) {
        request.registration = Some(self.locks.register_commit(request.locks.clone()));
        if let Err(error) = self.queue.try_send(request) {
            error.into_inner().refuse_as_overloaded("too many commits wait for locks");
        }
    }

    /// Moves the commits that must not be merged with others from `waiting` to the queue.
    ///
    /// These are commits that need a blocking lock, and commits whose rows are not known before they run. Until the result is dropped,
    /// commits of other transactions that share a lock with the remaining ones are moved, too: only one transaction waits for each lock.
    /// [`Lock::Row`]s are exempt, because nothing waits for them.
    pub(super) fn divert(&self, waiting: &mut Vec<CommitRequest>) -> TransactionRegistration {
        let now = Instant::now();
        let mut uses = self.locks.lock();
        let blocks = |lock: &Lock| uses.get(lock).is_some_and(|lock_use| lock_use.blocks(now));
        let is_separate =
            |request: &mut CommitRequest| request.locks_unknown_rows() || request.locks.iter().any(blocks);
        let separate: Vec<_> = waiting.extract_if(.., is_separate).collect();
        let registration = self.locks.register_transaction(&mut uses, unchecked_locks(waiting));
        drop(uses);
        for request in separate {
            self.push(request);
        }
        registration
    }
}

/// Locks that cannot be checked without waiting, so that a transaction may wait for them.
fn unchecked_locks(requests: &[CommitRequest]) -> Vec<Lock> {
    requests.iter().flat_map(|request| &request.locks).filter(|lock| !lock.is_row()).copied().collect()
}

/// Fails the commits that have waited for longer than `max_age`: nothing was written.
fn refuse_late(waiting: &mut Vec<CommitRequest>, max_age: Duration) {
    for mut request in waiting.extract_if(.., |request| request.age() > max_age) {
        if let Some(registration) = &mut request.registration {
            registration.timed_out();
        }
        let reason = if request.runs_host_statements() {
            "a lock, or other commits with statements of the host, delayed the commit"
        } else {
            "a row that the commit changes is locked by another transaction"
        };
        request.refuse_as_overloaded(reason);
    }
}

/// Retries commits until they time out.
pub(super) async fn serve<D: Dialect>(
    mut connection: WriterConnection<D>,
    inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<CommitRequest>>>,
    locks: LockRegistry,
    merge: usize,
    timeout: Duration,
) {
    let mut inbox = inbox.lock().await;
    let mut waiting: Vec<CommitRequest> = Vec::new();
    let mut pause = MIN_PAUSE;
    // Refuse a commit while its caller still waits.
    let max_age = timeout * 3 / 4;
    loop {
        if waiting.is_empty() {
            pause = MIN_PAUSE;
            if connection.wait_for(inbox.recv_many(&mut waiting, MAX_QUEUED_COMMITS)).await == 0 {
                return;
            }
        } else {
            while waiting.len() < MAX_QUEUED_COMMITS
                && let Ok(request) = inbox.try_recv()
            {
                waiting.push(request);
            }
        }
        let before = waiting.len();
        refuse_late(&mut waiting, max_age);
        let mut left = Vec::new();
        let separate: Vec<_> = waiting.extract_if(.., |request| request.locks_unknown_rows()).collect();
        while !waiting.is_empty() {
            let mut batch: Vec<CommitRequest> = waiting.drain(..waiting.len().min(merge)).collect();
            refuse_late(&mut batch, max_age);
            left.extend(connection.round(&mut batch).await);
        }
        for request in separate {
            let mut one = vec![request];
            // Statements of the host before it in this round can have taken two seconds.
            refuse_late(&mut one, max_age);
            let running = locks.register_transaction(&mut locks.lock(), unchecked_locks(&one));
            left.extend(connection.round(&mut one).await);
            drop(running);
        }
        waiting = left;
        pause = if waiting.len() < before { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
        if !waiting.is_empty() {
            sleep(pause).await;
        }
    }
}
