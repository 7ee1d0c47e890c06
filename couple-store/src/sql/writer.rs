//! Group commit: commits that wait for the disk together become one transaction.

use std::time::Duration;

use couple_core::{Change, CommitError, Committed, Conflict, Error, ErrorKind};
use sqlx::{Pool, pool::PoolConnection};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Dialect,
    apply::{Stop, apply},
    error::classify,
    job::Enqueues,
};

/// Commits that wait for the writer at most.
const QUEUE: usize = 1024;
/// How long a commit waits for its place in that queue.
const PATIENCE: Duration = Duration::from_secs(2);

type Answer = Result<Committed, CommitError>;

enum Message {
    Commit(Request),
    /// Ends the task and closes its connection; told when that is done.
    Close(oneshot::Sender<()>),
}

struct Request {
    changes: Vec<Change>,
    answer: oneshot::Sender<Answer>,
}

/// The door to the task that writes.
pub(super) struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Starts a task that writes through `pool` and merges up to `merge` commits into one transaction.
    pub(super) fn start<D: Dialect>(pool: Pool<D>, merge: usize) -> Self {
        let (door, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(serve(pool, inbox, merge.max(1)));
        Self(door)
    }

    /// Hands a commit over and waits for its end. A caller that stops waiting leaves it to be committed.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let request = Request { changes, answer };
        match timeout(PATIENCE, self.0.send(Message::Commit(request))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Error::new(ErrorKind::Unavailable, "commit").into()),
            Err(_) => return Err(Error::new(ErrorKind::Overloaded, "commit").into()),
        }
        answered.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "commit").into()))
    }
}

impl Writer {
    /// Waits for what was handed over before, and closes.
    pub(super) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.0.send(Message::Close(closed)).await.is_ok() {
            let _ = done.await;
        }
    }
}

async fn serve<D: Dialect>(pool: Pool<D>, mut inbox: mpsc::Receiver<Message>, merge: usize) {
    let mut messages = Vec::with_capacity(merge);
    let mut held: Option<PoolConnection<D>> = None;
    while inbox.recv_many(&mut messages, merge).await > 0 {
        let (mut waiting, mut closing) = (Vec::with_capacity(messages.len()), None);
        for message in messages.drain(..) {
            match message {
                Message::Commit(request) => waiting.push(request),
                Message::Close(closed) => closing = Some(closed),
            }
        }
        if let Some(closed) = closing {
            refuse(
                &mut waiting,
                &Error::new(ErrorKind::Unavailable, "commit").context("the store is closed"),
            );
            drop(held.take());
            pool.close().await;
            let _ = closed.send(());
            return;
        }
        let connection = match held.take() {
            Some(connection) => Ok(connection),
            None => pool.acquire().await.map_err(|error| classify::<D>("commit", error)),
        };
        match connection {
            Ok(mut connection) => {
                if write::<D>(&mut connection, &mut waiting).await {
                    held = Some(connection);
                } else {
                    // What state it is in nobody knows.
                    drop(connection.close().await);
                }
            }
            Err(error) => refuse(&mut waiting, &error),
        }
    }
}

fn refuse(waiting: &mut Vec<Request>, error: &Error) {
    for request in waiting.drain(..) {
        let again = Error::new(error.kind(), "commit").context(error.to_string());
        let _ = request.answer.send(Err(again.into()));
    }
}

/// What became of one transaction.
enum End {
    /// It did not even begin: whoever holds the lock holds it for all that wait.
    NotBegun(sqlx::Error),
    /// It committed; these are the answers.
    Committed(Vec<Result<Committed, Conflict>>),
    /// A commit met a conflict after it had written: only its own savepoint can undo that.
    Entangled,
    /// The database failed.
    Failed(sqlx::Error),
}

/// Commits what waits and answers. False: the connection is not to be used again.
async fn write<D: Dialect>(connection: &mut D::Connection, waiting: &mut Vec<Request>) -> bool {
    let alone = waiting.len() == 1;
    let mut end = transact::<D>(connection, waiting, false).await;
    if let Ok(End::Entangled) = end {
        end = transact::<D>(connection, waiting, true).await;
    }
    match end {
        Ok(End::Committed(answers)) => {
            for (request, answer) in waiting.drain(..).zip(answers) {
                let _ = request.answer.send(answer.map_err(CommitError::Conflict));
            }
            true
        }
        Ok(End::NotBegun(error)) => {
            refuse(waiting, &classify::<D>("commit", error));
            true
        }
        // One caller's failure must not be another's.
        Ok(End::Failed(_) | End::Entangled) if !alone => {
            for request in std::mem::take(waiting) {
                let mut one = vec![request];
                if !Box::pin(write::<D>(connection, &mut one)).await {
                    return false;
                }
            }
            true
        }
        Ok(End::Failed(error)) => {
            refuse(waiting, &classify::<D>("commit", error));
            true
        }
        Ok(End::Entangled) => {
            refuse(waiting, &Error::new(ErrorKind::Internal, "commit").context("a savepoint did not hold"));
            true
        }
        Err(error) => {
            refuse(waiting, &classify::<D>("commit", error));
            false
        }
    }
}

/// Runs one transaction over all that waits. `Err`: not even a rollback worked.
async fn transact<D: Dialect>(
    connection: &mut D::Connection,
    waiting: &[Request],
    savepoints: bool,
) -> Result<End, sqlx::Error> {
    if let Err(error) = D::run(connection, D::BEGIN).await {
        return Ok(End::NotBegun(error));
    }
    match attempt::<D>(connection, waiting, savepoints).await {
        Ok(Some(answers)) => match D::run(connection, "COMMIT").await {
            Ok(()) => Ok(End::Committed(answers)),
            Err(error) => {
                D::run(connection, "ROLLBACK").await?;
                Ok(End::Failed(error))
            }
        },
        Ok(None) => {
            D::run(connection, "ROLLBACK").await?;
            Ok(End::Entangled)
        }
        Err(error) => {
            // The database may have rolled back by itself; that there is nothing to roll back is fine.
            let undone = D::run(connection, "ROLLBACK").await;
            match undone {
                Ok(()) => Ok(End::Failed(error)),
                Err(sqlx::Error::Database(_)) => Ok(End::Failed(error)),
                Err(broken) => Err(broken),
            }
        }
    }
}

async fn attempt<D: Dialect>(
    connection: &mut D::Connection,
    waiting: &[Request],
    savepoints: bool,
) -> Result<Option<Vec<Result<Committed, Conflict>>>, sqlx::Error> {
    let mut answers = Vec::with_capacity(waiting.len());
    // New jobs of all commits go in together at the end: most of what a burst writes is jobs.
    let mut enqueues = Enqueues::default();
    for request in waiting {
        if savepoints {
            D::run(connection, "SAVEPOINT one").await?;
        }
        let mark = enqueues.mark();
        let mut out = Committed::default();
        let mut stopped = None;
        for (n, change) in request.changes.iter().enumerate() {
            if enqueues.take(change) {
                continue;
            }
            if matches!(change, Change::Job(_)) {
                // It must see the jobs of its own commit.
                enqueues.write_since::<D>(mark, connection).await?;
            }
            match apply::<D>(connection, change, &mut out).await {
                Ok(()) => {}
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Conflict(conflict)) => {
                    stopped = Some((n, conflict));
                    break;
                }
            }
        }
        match stopped {
            None => {
                if savepoints {
                    D::run(connection, "RELEASE SAVEPOINT one").await?;
                }
                answers.push(Ok(out));
            }
            Some((n, conflict)) => {
                enqueues.back_to(mark);
                if savepoints {
                    D::run(connection, "ROLLBACK TO SAVEPOINT one").await?;
                } else if n > 0 {
                    return Ok(None);
                }
                answers.push(Err(conflict));
            }
        }
    }
    enqueues.write_since::<D>(0, connection).await?;
    Ok(Some(answers))
}
