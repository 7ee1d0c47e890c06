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

/// Pauses between two rounds that committed nothing; doubled from the shortest to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How long commits with a lock are kept apart after one with it was refused. Only a lock time-out finds some locks, and a merged
/// transaction must not wait for the same one again and again.
const SUSPECTED: Duration = Duration::from_secs(10);

/// A lock that blocks commits, or did so shortly before.
#[derive(Default)]
struct Blocking {
    /// Commits that are in the queue.
    commits: usize,
    /// Transactions of this process that may wait for it.
    transactions: usize,
    /// When commits with this lock are merged with others again, if none is in the queue.
    suspected_until: Option<Instant>,
}

impl Blocking {
    fn blocks(&self, now: Instant) -> bool {
        self.commits > 0 || self.transactions > 0 || self.suspected_until.is_some_and(|until| now < until)
    }
}

/// Number of locks above which those that block no more are removed.
const MANY_LOCKS: usize = 4_096;

type Locks = Arc<Mutex<HashMap<Lock, Blocking>>>;

fn locked(locks: &Locks) -> MutexGuard<'_, HashMap<Lock, Blocking>> {
    locks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blocked commit's place: while it lasts, commits that share a lock with it join it.
pub(super) struct Place {
    own: Vec<Lock>,
    all: Locks,
    refused: bool,
}

impl Place {
    fn new(own: Vec<Lock>, all: Locks) -> Self {
        {
            let mut blocking = locked(&all);
            for lock in &own {
                blocking.entry(*lock).or_default().commits += 1;
            }
        }
        Self { own, all, refused: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        release(&mut locked(&self.all), &self.own, now, |blocking| {
            blocking.commits -= 1;
            blocking.suspected_until = self.refused.then(|| now + SUSPECTED);
        });
    }
}

/// A transaction that may wait for locks, until it is dropped.
pub(super) struct Running {
    own: Vec<Lock>,
    all: Locks,
}

impl Drop for Running {
    fn drop(&mut self) {
        release(&mut locked(&self.all), &self.own, Instant::now(), |blocking| blocking.transactions -= 1);
    }
}

/// Updates locks, and removes those that block no more.
fn release(
    all: &mut HashMap<Lock, Blocking>,
    own: &[Lock],
    now: Instant,
    mut update: impl FnMut(&mut Blocking),
) {
    for lock in own {
        if let Entry::Occupied(mut entry) = all.entry(*lock) {
            update(entry.get_mut());
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

    /// Takes out the commits that must not be merged with others, and adds them to the queue: those with a lock that blocks, and those
    /// whose rows are not known before they run. Until the result is dropped, commits that share a lock with the remaining ones are
    /// taken out as well, unless the database tells at once whether it is free: only one transaction waits for it.
    pub(super) fn divert(&self, waiting: &mut Vec<CommitRequest>) -> Running {
        let now = Instant::now();
        let mut all = locked(&self.locks);
        let blocks = |lock: &Lock| all.get(lock).is_some_and(|blocking| blocking.blocks(now));
        let is_apart =
            |request: &mut CommitRequest| request.locks_unknown_rows() || request.locks().iter().any(blocks);
        let apart: Vec<_> = waiting.extract_if(.., is_apart).collect();
        let own = waiting.iter().flat_map(CommitRequest::locks).filter(|lock| !matches!(lock, Lock::Row(..)));
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
                place.refused = true;
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
