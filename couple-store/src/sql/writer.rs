//! Group commit: commits that wait at the same time become one transaction.
//!
//! A commit never waits for a row lock inside a merged transaction. A [`transaction`](super::transaction) first
//! locks the rows that are free and leaves out the commits whose rows are not. The writer passes those to the
//! [`blocked`] queue, which retries them separately.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use couple_core::{Change, Error, ErrorKind};
use sqlx::Pool;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
    time::timeout,
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

/// Queue of commits, and the writer tasks that run them.
pub(super) struct Writer<D: Dialect> {
    queue: RwLock<Option<mpsc::Sender<CommitRequest>>>,
    tasks: Mutex<JoinSet<()>>,
    pool: WriterPool<D>,
}

impl<D: Dialect> Writer<D> {
    /// Starts `tasks` writers, each with a connection of `pool`.
    ///
    /// A writer merges up to `merge` commits into one transaction. If other transactions can hold locks, an
    /// additional task with its own connection retries blocked commits.
    pub(super) fn start(pool: WriterPool<D>, names: &Arc<TableNames>, tasks: u32, merge: usize) -> Self {
        let merge = merge.max(1);
        let (queue, inbox) = mpsc::channel(MAX_QUEUED_COMMITS);
        let inbox = Arc::new(Mutex::new(inbox));
        let mut running = JoinSet::new();
        let blocked = D::TRANSACTION_TIMEOUT.map(|timeout| {
            let (queue, inbox) = BlockedQueue::new(MAX_QUEUED_COMMITS);
            let inbox = Arc::new(Mutex::new(inbox));
            let (pool, names) = (pool.clone(), names.clone());
            running.spawn(supervise("blocked commits", move || {
                blocked::serve(pool.clone(), names.clone(), inbox.clone(), merge, timeout)
            }));
            queue
        });
        for _ in 0..tasks.max(1) {
            let (pool, names) = (pool.clone(), names.clone());
            let (inbox, blocked) = (inbox.clone(), blocked.clone());
            running.spawn(supervise("commits", move || {
                serve(pool.clone(), names.clone(), inbox.clone(), blocked.clone(), merge)
            }));
        }
        Self { queue: RwLock::new(Some(queue)), tasks: Mutex::new(running), pool }
    }

    /// Enqueues a commit and waits for its result. If the caller is cancelled, the commit is still atomic.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> CommitResult {
        let failed = |kind, context: &str| Error::new(kind, "commit").context(context);
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else {
            return Err(failed(ErrorKind::Unavailable, "the store is closed").into());
        };
        let (request, answered) = CommitRequest::new(changes);
        let whole = async {
            match timeout(QUEUE_TIMEOUT, queue.send(request)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(failed(ErrorKind::Unavailable, "the writers ended").into()),
                Err(_) => return Err(failed(ErrorKind::Overloaded, "too many commits wait").into()),
            }
            // A writer that panicked may have done so after the database committed, so the outcome is
            // unknown.
            let unknown = || failed(ErrorKind::TimedOut, "the writer ended before it answered");
            answered.await.unwrap_or_else(|_| Err(unknown().into()))
        };
        match within_timeout::<D, _>(whole).await {
            Some(answer) => answer,
            None => Err(failed(ErrorKind::TimedOut, "no answer in time").into()),
        }
    }

    /// Closes the queue, waits for the commits in it, and closes the connections.
    pub(super) async fn close(&self) {
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        if !self.pool.is_of_host {
            self.pool.pool.close().await;
        }
    }
}

/// Runs a task and restarts it after a panic.
///
/// The commits that it held then fail with an unknown outcome.
async fn supervise<F: Future<Output = ()> + Send + 'static>(name: &'static str, start: impl Fn() -> F) {
    loop {
        // A `JoinSet` aborts its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(start());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(%error, name, "a writer panicked and is started again");
            }
            _ => return,
        }
    }
}

async fn serve<D: Dialect>(
    pool: WriterPool<D>,
    names: Arc<TableNames>,
    inbox: Arc<Mutex<mpsc::Receiver<CommitRequest>>>,
    blocked: Option<BlockedQueue>,
    merge: usize,
) {
    let mut waiting = Vec::with_capacity(merge);
    let mut connection = WriterConnection { pool, names, waits: true, held: None };
    while inbox.lock().await.recv_many(&mut waiting, merge).await > 0 {
        let running = blocked.as_ref().map(|blocked| blocked.divert(&mut waiting));
        // Where transactions wait for locks, the queue of blocked commits has them already.
        let alone: Vec<_> = waiting.extract_if(.., |request| request.runs_host_statements()).collect();
        let mut left = connection.round(&mut waiting).await;
        for request in alone {
            left.extend(connection.round(&mut vec![request]).await);
        }
        for request in left {
            match &blocked {
                Some(blocked) => blocked.push(request),
                None => {
                    request.refuse(Error::new(ErrorKind::Overloaded, "commit").context("a row is locked"));
                }
            }
        }
        // Drop the registration only now: the locks of the commits in the queue block from here on.
        drop(running);
    }
}
