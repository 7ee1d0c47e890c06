//! Queue of commits that are blocked by a lock of another transaction.
//!
//! They wait here and not within a merged transaction. So a row that another transaction holds (of another
//! process, an operator's session or a backup) delays only the commits that need this row. One task with a
//! separate connection retries them until each one is committed or times out.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use couple_core::{Error, ErrorKind};
use sqlx::Pool;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    Dialect,
    locks::Lock,
    writer::{CommitRequest, MAX_QUEUED_COMMITS, WriterConnection},
};

/// First pause after a round that committed nothing; doubled up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// Maximum pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Time for which commits with a lock stay in this queue after a commit with the lock timed out.
///
/// Some held locks are noticed by a lock time-out only, so a merged transaction would wait for the same lock again and again.
const SUSPECTED: Duration = Duration::from_secs(10);

/// Reasons why commits with a lock must not be merged with others.
#[derive(Default)]
struct Blocking {
    /// Number of commits in the queue that need the lock.
    commits: usize,
    /// Number of running transactions of this process that may wait for the lock.
    transactions: usize,
    /// End of [`SUSPECTED`] after a refused commit; none if no commit was refused, or one succeeded later. Never set for a row.
    suspected_until: Option<Instant>,
}

impl Blocking {
    fn blocks(&self, now: Instant) -> bool {
        self.commits > 0 || self.transactions > 0 || self.suspected_until.is_some_and(|until| now < until)
    }
}

/// Number of locks above which all locks that no longer block are removed.
const MANY_LOCKS: usize = 4_096;

type Locks = Arc<Mutex<HashMap<Lock, Blocking>>>;

fn locked(locks: &Locks) -> MutexGuard<'_, HashMap<Lock, Blocking>> {
    locks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registration of a blocked commit.
///
/// Until it is dropped, commits that share a lock with it are queued here, too.
pub(super) struct Place {
    own: Vec<Lock>,
    all: Locks,
    end: PlaceEnd,
}

/// End of a blocked commit, by which its locks become suspect or trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceEnd {
    /// Nothing: the commit conflicted, failed for another reason, or was abandoned by its caller.
    Unknown,
    /// The commit timed out: its locks are suspected.
    Refused,
    /// The commit had all its locks: they are free.
    Committed,
}

impl Place {
    fn new(own: Vec<Lock>, all: Locks) -> Self {
        {
            let mut blocking = locked(&all);
            for lock in &own {
                blocking.entry(*lock).or_default().commits += 1;
            }
        }
        Self { own, all, end: PlaceEnd::Unknown }
    }
    /// Records that the commit was refused because it timed out.
    fn refused(&mut self) {
        self.end = PlaceEnd::Refused;
    }
    /// Records that the commit succeeded.
    pub(super) fn committed(&mut self) {
        self.end = PlaceEnd::Committed;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        release(&mut locked(&self.all), &self.own, now, |lock, blocking| {
            blocking.commits -= 1;
            match self.end {
                // The next transaction sees whether a row is held, without waiting for it.
                PlaceEnd::Refused if !lock.is_row() => blocking.suspected_until = Some(now + SUSPECTED),
                PlaceEnd::Committed => blocking.suspected_until = None,
                PlaceEnd::Refused | PlaceEnd::Unknown => {}
            }
        });
    }
}

/// Registration of a transaction that may wait for locks, until it is dropped.
pub(super) struct Running {
    own: Vec<Lock>,
    all: Locks,
}

impl Drop for Running {
    fn drop(&mut self) {
        release(&mut locked(&self.all), &self.own, Instant::now(), |_, blocking| blocking.transactions -= 1);
    }
}

/// Updates locks, and removes those that no longer block.
fn release(
    all: &mut HashMap<Lock, Blocking>,
    own: &[Lock],
    now: Instant,
    mut update: impl FnMut(&Lock, &mut Blocking),
) {
    for lock in own {
        if let Entry::Occupied(mut entry) = all.entry(*lock) {
            update(lock, entry.get_mut());
            if !entry.get().blocks(now) {
                entry.remove();
            }
        }
    }
    if all.len() > MANY_LOCKS {
        all.retain(|_, blocking| blocking.blocks(now));
    }
}

/// Queue of blocked commits.
#[derive(Clone)]
pub(super) struct BlockedQueue {
    queue: mpsc::Sender<CommitRequest>,
    locks: Locks,
}

impl BlockedQueue {
    pub(super) fn new(length: usize) -> (Self, mpsc::Receiver<CommitRequest>) {
        let (queue, inbox) = mpsc::channel(length);
        (Self { queue, locks: Locks::default() }, inbox)
    }

    /// Adds a commit; fails it if the queue is full.
    pub(super) fn push(&self, mut request: CommitRequest) {
        request.place = Some(Place::new(request.locks().to_vec(), self.locks.clone()));
        if let Err(error) = self.queue.try_send(request) {
            let full = Error::new(ErrorKind::Overloaded, "commit").context("too many commits wait for locks");
            error.into_inner().refuse(full);
        }
    }

    /// Moves the commits that must not be merged with others from `waiting` to the queue.
    ///
    /// These are commits that need a blocking lock, and commits whose rows are not known before they run. Until the result is dropped,
    /// commits of other transactions that share a lock with the remaining ones are moved, too: only one transaction waits for each lock.
    /// [`Lock::Row`]s are exempt, because nothing waits for them.
    pub(super) fn divert(&self, waiting: &mut Vec<CommitRequest>) -> Running {
        let now = Instant::now();
        let mut all = locked(&self.locks);
        let blocks = |lock: &Lock| all.get(lock).is_some_and(|blocking| blocking.blocks(now));
        let is_apart =
            |request: &mut CommitRequest| request.locks_unknown_rows() || request.locks().iter().any(blocks);
        let apart: Vec<_> = waiting.extract_if(.., is_apart).collect();
        let own = waiting.iter().flat_map(CommitRequest::locks).filter(|lock| !lock.is_row());
        let own: Vec<Lock> = own.copied().collect();
        for lock in &own {
            all.entry(*lock).or_default().transactions += 1;
        }
        drop(all);
        for request in apart {
            self.push(request);
        }
        Running { own, all: self.locks.clone() }
    }
}

/// Retries blocked commits until they time out.
pub(super) async fn serve<D: Dialect>(
    pool: Pool<D>,
    inbox: Arc<tokio::sync::Mutex<mpsc::Receiver<CommitRequest>>>,
    merge: usize,
    patience: Duration,
) {
    let mut inbox = inbox.lock().await;
    let mut session = WriterConnection { pool, waits: false, held: None };
    let mut waiting: Vec<CommitRequest> = Vec::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        if waiting.is_empty() {
            pause = SHORTEST_PAUSE;
            if inbox.recv_many(&mut waiting, MAX_QUEUED_COMMITS).await == 0 {
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
        // Fail the commit while its caller still waits: nothing was written.
        for mut request in
            waiting.extract_if(.., |request| request.age() > patience * 3 / 4).collect::<Vec<_>>()
        {
            if let Some(place) = &mut request.place {
                place.refused();
            }
            request.refuse(
                Error::new(ErrorKind::Overloaded, "commit")
                    .context("a row that the commit changes is locked by another transaction"),
            );
        }
        let mut left = Vec::new();
        let purges: Vec<_> = waiting.extract_if(.., |request| request.locks_unknown_rows()).collect();
        while !waiting.is_empty() {
            let mut batch: Vec<CommitRequest> = waiting.drain(..waiting.len().min(merge)).collect();
            left.extend(session.round(&mut batch).await);
        }
        for purge in purges {
            left.extend(session.round(&mut vec![purge]).await);
        }
        waiting = left;
        pause = if waiting.len() < before { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        if !waiting.is_empty() {
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::locks::Table;

    const ROW: Lock = Lock::Row(Table::Couple, [1; 32]);
    const ADDRESS: Lock = Lock::Address([2; 32]);

    fn place(locks: &Locks) -> Place {
        Place::new(vec![ROW, ADDRESS], locks.clone())
    }

    fn blocks(locks: &Locks, lock: Lock) -> bool {
        locked(locks).get(&lock).is_some_and(|blocking| blocking.blocks(Instant::now()))
    }

    #[test]
    fn refused_commit_makes_its_locks_suspect_but_not_its_rows() {
        let locks = Locks::default();
        let mut refused = place(&locks);
        assert!(blocks(&locks, ROW) && blocks(&locks, ADDRESS), "while the commit waits");
        refused.refused();
        drop(refused);
        assert!(blocks(&locks, ADDRESS));
        assert!(!blocks(&locks, ROW), "whether a row is held is seen without waiting");
    }

    #[test]
    fn only_a_successful_commit_clears_a_suspicion() {
        let locks = Locks::default();
        let (mut refused, mut committed) = (place(&locks), place(&locks));
        let abandoned = place(&locks);
        refused.refused();
        drop(refused);
        drop(abandoned);
        committed.committed();
        assert_eq!(locked(&locks)[&ADDRESS].commits, 1);
        assert!(locked(&locks)[&ADDRESS].suspected_until.is_some(), "an abandoned commit shows nothing");
        drop(committed);
        assert!(!blocks(&locks, ADDRESS));
        assert!(locked(&locks).is_empty());
    }
}
