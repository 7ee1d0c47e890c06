//! Group commit: commits that wait at the same time become one transaction.
//!
//! A commit never waits for a row lock inside a merged transaction. A [`transaction`](super::transaction) first
//! locks the rows that are free and leaves out the commits whose rows are not. The writer passes those to the
//! [`blocked`] queue, which retries them separately.

use std::{
    collections::VecDeque,
    iter,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use couple_core::{Change, Error, ErrorKind};
use sqlx::Pool;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Dialect,
    blocked::{self, BlockedQueue},
    commit_request::{CommitRequest, CommitResult, MAX_QUEUED_COMMITS},
    dialect::within_timeout,
    table_names::TableNames,
    transaction::WriterConnection,
};

/// Maximum time that a commit waits to enter the queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle time after which the connection for statements of the host is closed.
const MAX_HOST_IDLE: Duration = Duration::from_secs(1);

/// Maximum time that a commit with statements of the host waits for others in SQLite.
const MAX_HOST_WAIT: Duration = Duration::from_secs(10);
/// The same for a commit that waited for a slow one, so that several slow ones do not delay all other commits.
const MAX_WAIT_FOR_SLOW: Duration = Duration::from_millis(1_500);
/// Time from which a commit with statements of the host is slow.
const SLOW_HOST_COMMIT: Duration = Duration::from_millis(500);
/// Time in SQLite after which no further commit with statements of the host begins before the other commits.
const MAX_HOST_TURN: Duration = Duration::from_millis(100);

/// Pool from which the writer tasks take their connections, which they keep.
pub(super) struct WriterPool<D: Dialect> {
    pub(super) pool: Pool<D>,
    /// Statements that set up a connection; none if the pool does it.
    pub(super) setup: &'static [&'static str],
    /// Whether the host closes the pool.
    pub(super) is_of_host: bool,
}

impl<D: Dialect> Clone for WriterPool<D> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), ..*self }
    }
}

/// Queues through which commits reach the writer tasks.
#[derive(Clone)]
struct Queues {
    commits: mpsc::Sender<CommitRequest>,
    /// Commits with statements of the host; none if they use `commits`, as in SQLite.
    host: Option<mpsc::Sender<CommitRequest>>,
}

impl Queues {
    fn of(&self, request: &CommitRequest) -> &mpsc::Sender<CommitRequest> {
        let host = self.host.as_ref().filter(|_| request.runs_host_statements());
        host.unwrap_or(&self.commits)
    }
}

/// Queues of commits, and the writer tasks that run them.
pub(super) struct Writer<D: Dialect> {
    queues: RwLock<Option<Queues>>,
    tasks: Mutex<JoinSet<()>>,
    restarts: Arc<AtomicU64>,
    pool: WriterPool<D>,
}

impl<D: Dialect> Writer<D> {
    /// Starts `tasks` writers, each with a connection of `pool`.
    ///
    /// A writer merges up to `merge` commits into one transaction. If other transactions can hold locks, an
    /// additional task with its own connection retries blocked commits, and another one runs those with
    /// statements of the host; its connection is closed while there are none.
    pub(super) fn start(pool: WriterPool<D>, names: &Arc<TableNames>, tasks: u32, merge: usize) -> Self {
        let merge = merge.max(1);
        let (commits, inbox) = mpsc::channel(MAX_QUEUED_COMMITS);
        let inbox = Arc::new(Mutex::new(inbox));
        let mut running = JoinSet::new();
        let restarts = Arc::new(AtomicU64::new(0));
        let (mut blocked, mut host) = (None, None);
        if let Some(timeout) = D::TRANSACTION_TIMEOUT {
            let (blocked_queue, blocked_inbox) = BlockedQueue::new(MAX_QUEUED_COMMITS);
            let (host_queue, host_inbox) = mpsc::channel(MAX_QUEUED_COMMITS);
            let tasks = [
                ("blocked commits", blocked_inbox, None),
                ("commits with statements of the host", host_inbox, Some(MAX_HOST_IDLE)),
            ];
            for (name, inbox, max_idle) in tasks {
                // Not the queue itself: with its sender, the channel would stay open and the task would never end.
                let (pool, names, locks) = (pool.clone(), names.clone(), blocked_queue.locks());
                let inbox = Arc::new(Mutex::new(inbox));
                running.spawn(supervise(name, restarts.clone(), move || {
                    let connection = WriterConnection::new(pool.clone(), names.clone(), false, max_idle);
                    blocked::serve(connection, inbox.clone(), locks.clone(), merge, timeout)
                }));
            }
            (blocked, host) = (Some(blocked_queue), Some(host_queue));
        }
        for _ in 0..tasks.max(1) {
            let (pool, names) = (pool.clone(), names.clone());
            let (inbox, blocked) = (inbox.clone(), blocked.clone());
            running.spawn(supervise("commits", restarts.clone(), move || {
                let connection = WriterConnection::new(pool.clone(), names.clone(), true, None);
                serve(connection, inbox.clone(), blocked.clone(), merge)
            }));
        }
        let queues = RwLock::new(Some(Queues { commits, host }));
        Self { queues, tasks: Mutex::new(running), restarts, pool }
    }

    /// Number of restarts of tasks after a panic.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Enqueues a commit and waits for its result. If the caller is cancelled, the commit is still atomic.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> CommitResult {
        let failed = |kind, context: &str| Error::new(kind, "commit").context(context);
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queues) = queues else {
            return Err(failed(ErrorKind::Unavailable, "the store is closed").into());
        };
        let (request, answered) = CommitRequest::new(changes);
        let start = request.start();
        let whole = async {
            match timeout(QUEUE_TIMEOUT, queues.of(&request).send(request)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(failed(ErrorKind::Unavailable, "the writers ended").into()),
                Err(_) => return Err(failed(ErrorKind::Overloaded, "too many commits wait").into()),
            }
            answered.await.unwrap_or_else(|_| {
                // A writer that panicked may have done so after the database committed.
                let (kind, context) = if start.cancel() {
                    (ErrorKind::Overloaded, "the writer ended before the commit began")
                } else {
                    (ErrorKind::TimedOut, "the writer ended before it answered")
                };
                Err(failed(kind, context).into())
            })
        };
        match within_timeout::<D, _>(whole).await {
            Some(answer) => answer,
            None if start.cancel() => {
                Err(failed(ErrorKind::Overloaded, "other commits delayed the commit").into())
            }
            None => Err(failed(ErrorKind::TimedOut, "no answer in time").into()),
        }
    }

    /// Closes the queues, waits for the commits in them, and closes the connections.
    pub(super) async fn close(&self) {
        drop(self.queues.write().unwrap_or_else(PoisonError::into_inner).take());
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        if !self.pool.is_of_host {
            self.pool.pool.close().await;
        }
    }
}

/// Runs a task and restarts it after a panic.
///
/// The commits that it held then fail: with an unknown outcome if they had begun.
async fn supervise<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    restarts: Arc<AtomicU64>,
    start: impl Fn() -> F,
) {
    loop {
        // A `JoinSet` aborts its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(start());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(%error, name, "a writer panicked and is started again");
                restarts.fetch_add(1, Ordering::Relaxed);
            }
            _ => return,
        }
    }
}

async fn serve<D: Dialect>(
    mut connection: WriterConnection<D>,
    inbox: Arc<Mutex<mpsc::Receiver<CommitRequest>>>,
    blocked: Option<BlockedQueue>,
    merge: usize,
) {
    let mut waiting = Vec::with_capacity(merge);
    // Only in SQLite: on a server, another task runs them.
    let mut host = VecDeque::new();
    let mut slow_end: Option<Instant> = None;
    loop {
        let work = async {
            let mut inbox = inbox.lock().await;
            let first = if host.is_empty() { inbox.recv().await } else { None };
            if first.is_none() && host.is_empty() {
                return false;
            }
            for request in first.into_iter().chain(iter::from_fn(|| inbox.try_recv().ok())) {
                if !request.runs_host_statements() {
                    waiting.push(request);
                } else if host.len() == MAX_QUEUED_COMMITS {
                    request.refuse_as_overloaded("too many commits with statements of the host wait");
                } else {
                    host.push_back(request);
                }
                // Those with statements of the host do not count, so that none of the others waits behind them.
                if waiting.len() == merge {
                    break;
                }
            }
            true
        };
        if !connection.wait_for(work).await {
            return;
        }
        let running = blocked.as_ref().map(|blocked| blocked.divert(&mut waiting));
        let mut left = connection.round(&mut waiting).await;
        let turn = Instant::now();
        while turn.elapsed() < MAX_HOST_TURN
            && let Some(request) = host.pop_front()
        {
            if is_late(request.age(), slow_end.map(|end| end.elapsed())) {
                request.refuse_as_overloaded("other commits with statements of the host delayed the commit");
                continue;
            }
            let started = Instant::now();
            left.extend(connection.round(&mut vec![request]).await);
            if started.elapsed() >= SLOW_HOST_COMMIT {
                slow_end = Some(Instant::now());
            }
        }
        for request in left {
            match &blocked {
                Some(blocked) => blocked.push(request),
                None => request.refuse_as_overloaded("a row is locked"),
            }
        }
        // Drop the registration only now: the locks of the commits in the queue block from here on.
        drop(running);
    }
}

/// Whether a commit with statements of the host has waited too long in SQLite, given its age and the time since the end of a slow one.
fn is_late(age: Duration, since_slow: Option<Duration>) -> bool {
    let waited_for_slow = since_slow.is_some_and(|since| since < age);
    age > if waited_for_slow { MAX_WAIT_FOR_SLOW } else { MAX_HOST_WAIT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_with_statements_waits_for_ten_seconds_or_shorter_behind_a_slow_one() {
        let moment = Duration::from_nanos(1);
        assert!(!is_late(MAX_HOST_WAIT, None));
        assert!(is_late(MAX_HOST_WAIT + moment, None));
        // A slow one ended while it waited.
        assert!(!is_late(MAX_WAIT_FOR_SLOW, Some(MAX_WAIT_FOR_SLOW - moment)));
        assert!(is_late(MAX_WAIT_FOR_SLOW + moment, Some(MAX_WAIT_FOR_SLOW)));
        // A slow one had ended before.
        assert!(!is_late(MAX_HOST_WAIT, Some(MAX_HOST_WAIT)));
        assert!(!is_late(MAX_HOST_WAIT, Some(MAX_HOST_WAIT + moment)));
        assert!(is_late(MAX_HOST_WAIT + moment, Some(MAX_HOST_WAIT + moment)));
    }
}
