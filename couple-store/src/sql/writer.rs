//! Group commit: commits that wait for the disk together become one transaction.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use couple_core::{
    Change, CommitError, Committed, Conflict, CoupleId, Error, ErrorKind, account::AccountChange,
    media::Space, pairing::PairingChange, timeline::TimelineChange,
};
use sqlx::{Pool, pool::PoolConnection};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use uuid::Uuid;

use super::{
    Dialect,
    apply::{Stop, apply},
    error::classify,
    job::Enqueues,
    patiently, timeline,
};

/// Commits that wait for a writer at most.
const QUEUE: usize = 1024;
/// How long a commit waits for its place in that queue.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a transaction that met another one is run again.
const TRIES: u32 = 10;

type Answer = Result<Committed, CommitError>;

struct Request {
    changes: Vec<Change>,
    answer: oneshot::Sender<Answer>,
}

/// The door to the tasks that write.
pub(super) struct Writer<D: Dialect> {
    door: RwLock<Option<mpsc::Sender<Request>>>,
    tasks: Mutex<JoinSet<()>>,
    pool: Pool<D>,
}

impl<D: Dialect> Writer<D> {
    /// Starts `tasks` tasks that each write through a connection of `pool` and merge up to `merge` commits into one
    /// transaction.
    pub(super) fn start(pool: Pool<D>, tasks: u32, merge: usize) -> Self {
        let (door, inbox) = mpsc::channel(QUEUE);
        let inbox = Arc::new(Mutex::new(inbox));
        let mut running = JoinSet::new();
        for _ in 0..tasks.max(1) {
            running.spawn(serve(pool.clone(), inbox.clone(), merge.max(1)));
        }
        Self { door: RwLock::new(Some(door)), tasks: Mutex::new(running), pool }
    }

    /// Hands a commit over and waits for its end. One whose caller stops waiting is committed whole or not at all.
    pub(super) async fn commit(&self, changes: Vec<Change>) -> Answer {
        let failed = |kind, context: &str| Error::new(kind, "commit").context(context);
        let door = self.door.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(door) = door else {
            return Err(failed(ErrorKind::Unavailable, "the store is closed").into());
        };
        let (answer, answered) = oneshot::channel();
        let whole = async {
            match timeout(PATIENCE, door.send(Request { changes, answer })).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(failed(ErrorKind::Unavailable, "the writers ended").into()),
                Err(_) => return Err(failed(ErrorKind::Overloaded, "too many commits wait").into()),
            }
            answered.await.unwrap_or_else(|_| Err(failed(ErrorKind::Unavailable, "the writer ended").into()))
        };
        match patiently::<D, _>(whole).await {
            Some(answer) => answer,
            None => Err(failed(ErrorKind::TimedOut, "no answer in time").into()),
        }
    }

    /// Waits for what was handed over before, and closes.
    pub(super) async fn close(&self) {
        drop(self.door.write().unwrap_or_else(PoisonError::into_inner).take());
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        self.pool.close().await;
    }
}

async fn serve<D: Dialect>(pool: Pool<D>, inbox: Arc<Mutex<mpsc::Receiver<Request>>>, merge: usize) {
    let mut waiting = Vec::with_capacity(merge);
    let mut held: Option<PoolConnection<D>> = None;
    while inbox.lock().await.recv_many(&mut waiting, merge).await > 0 {
        // Who stopped waiting was told that there was no answer.
        waiting.retain(|request| !request.answer.is_closed());
        // Writers that lock rows in one order do not wait for one another in a circle.
        waiting.sort_by_cached_key(|request| first_lock(&request.changes));
        // A connection that died unused is found out by using it; what did not get as far as its commit goes to another.
        for last in [false, true] {
            if waiting.is_empty() {
                break;
            }
            let connection = match held.take() {
                Some(connection) => Ok(connection),
                None => pool.acquire().await,
            };
            match connection {
                Ok(mut connection) => match write::<D>(&mut connection, &mut waiting).await {
                    Ok(()) => held = Some(connection),
                    Err(lost) => {
                        // What state it is in nobody knows.
                        drop(connection.detach());
                        if last {
                            refuse(&mut waiting, &classify::<D>("commit", lost));
                        }
                    }
                },
                Err(error) => refuse(&mut waiting, &classify::<D>("commit", error)),
            }
        }
    }
}

/// The couple or else the account whose row a commit locks first.
fn first_lock(changes: &[Change]) -> Option<Uuid> {
    let account = || {
        changes.iter().find_map(|change| match change {
            Change::Account(AccountChange::Update(account)) => Some(account.id.as_uuid()),
            Change::Account(AccountChange::InsertSession { session, .. }) => Some(session.account.as_uuid()),
            Change::Account(AccountChange::Erase { id, .. }) => Some(id.as_uuid()),
            Change::Pairing(PairingChange::InsertInvite { invite, .. }) => Some(invite.inviter.as_uuid()),
            Change::Pairing(PairingChange::Found(couple)) => {
                couple.members.iter().min().map(|id| id.as_uuid())
            }
            Change::Media(change) => Some(change.space().as_uuid()),
            _ => None,
        })
    };
    couples_of(changes).next().map(CoupleId::as_uuid).or_else(account)
}

/// The couples whose rows a commit locks.
fn couples_of(changes: &[Change]) -> impl Iterator<Item = CoupleId> {
    changes.iter().filter_map(|change| match change {
        Change::Timeline(
            TimelineChange::Append { couple, .. }
            | TimelineChange::Edit { couple, .. }
            | TimelineChange::Delete { couple, .. }
            | TimelineChange::React { couple, .. }
            | TimelineChange::MarkRead { couple, .. },
        ) => Some(*couple),
        Change::Pairing(
            PairingChange::Describe { id, .. }
            | PairingChange::Restore { id, .. }
            | PairingChange::End { id, .. },
        ) => Some(*id),
        Change::Media(change) => match change.space() {
            Space::Couple(id) => Some(id),
            Space::Account(_) => None,
        },
        _ => None,
    })
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
    /// The database refused something, and undid it all.
    Failed(sqlx::Error),
    /// The connection broke before the commit: nothing was written.
    Lost(sqlx::Error),
    /// The connection broke while it committed, or nothing was heard in time.
    Unknown(String),
}

/// Commits what waits and answers. `Err`: the connection is not to be used again, and what is left in `waiting` was not
/// committed.
async fn write<D: Dialect>(
    connection: &mut D::Connection,
    waiting: &mut Vec<Request>,
) -> Result<(), sqlx::Error> {
    let (mut savepoints, mut tries) = (false, 0);
    loop {
        let end = patiently::<D, _>(transact::<D>(connection, waiting, savepoints)).await;
        match end.unwrap_or_else(|| End::Unknown("no answer in time".to_owned())) {
            End::Committed(answers) => {
                for (request, answer) in waiting.drain(..).zip(answers) {
                    let _ = request.answer.send(answer.map_err(CommitError::Conflict));
                }
                return Ok(());
            }
            End::Entangled if savepoints => {
                let error = Error::new(ErrorKind::Internal, "commit").context("a savepoint did not hold");
                refuse(waiting, &error);
                return Ok(());
            }
            End::Entangled => savepoints = true,
            // One caller's failure must not be another's.
            End::Failed(_) if waiting.len() > 1 => {
                let mut each = std::mem::take(waiting).into_iter();
                for request in each.by_ref() {
                    let mut one = vec![request];
                    if let Err(lost) = Box::pin(write::<D>(connection, &mut one)).await {
                        waiting.extend(one.into_iter().chain(each));
                        return Err(lost);
                    }
                }
                return Ok(());
            }
            End::Failed(sqlx::Error::Database(error)) if tries < TRIES && D::is_transient(error.as_ref()) => {
                tries += 1;
                sleep(Duration::from_millis(u64::from(tries))).await;
            }
            End::Failed(error) | End::NotBegun(error) => {
                refuse(waiting, &classify::<D>("commit", error));
                return Ok(());
            }
            End::Lost(error) => return Err(error),
            End::Unknown(said) => {
                refuse(waiting, &Error::new(ErrorKind::TimedOut, "commit").context(said));
                return Err(sqlx::Error::WorkerCrashed);
            }
        }
    }
}

/// The database has answered, so the connection works; else it is lost.
fn answered<D: Dialect>(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if D::kind_of(error.as_ref()) != ErrorKind::Unavailable || D::PATIENCE.is_none())
        || matches!(error, sqlx::Error::Decode(_) | sqlx::Error::Encode(_))
}

fn timed_out<D: Dialect>(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if D::kind_of(error.as_ref()) == ErrorKind::TimedOut)
}

/// Runs one transaction over all that waits.
async fn transact<D: Dialect>(connection: &mut D::Connection, waiting: &[Request], savepoints: bool) -> End {
    match D::run(connection, D::BEGIN).await {
        Ok(()) => {}
        Err(error) if answered::<D>(&error) => return End::NotBegun(error),
        Err(error) => return End::Lost(error),
    }
    let failed = match attempt::<D>(connection, waiting, savepoints).await {
        Ok(Some(answers)) => match D::run(connection, "COMMIT").await {
            Ok(()) => return End::Committed(answers),
            // One that took too long may have happened nevertheless.
            Err(error) if answered::<D>(&error) && !timed_out::<D>(&error) => End::Failed(error),
            Err(error) => return End::Unknown(error.to_string()),
        },
        Ok(None) => End::Entangled,
        Err(error) if answered::<D>(&error) => End::Failed(error),
        Err(error) => return End::Lost(error),
    };
    match D::run(connection, "ROLLBACK").await {
        // The database may have rolled back by itself; that there is nothing to roll back is fine.
        Ok(()) | Err(sqlx::Error::Database(_)) => failed,
        Err(broken) => End::Lost(broken),
    }
}

async fn attempt<D: Dialect>(
    connection: &mut D::Connection,
    waiting: &[Request],
    savepoints: bool,
) -> Result<Option<Vec<Result<Committed, Conflict>>>, sqlx::Error> {
    let mut answers = Vec::with_capacity(waiting.len());
    let several = |request: &Request| couples_of(&request.changes).collect::<BTreeSet<_>>().len() > 1;
    if D::PATIENCE.is_some() && waiting.iter().any(several) {
        let couples = waiting.iter().flat_map(|request| couples_of(&request.changes)).collect();
        timeline::lock::<D>(connection, &couples).await?;
    }
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
