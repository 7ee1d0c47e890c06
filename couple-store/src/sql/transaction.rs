//! Runs waiting commits as one transaction, and sends their results.

use std::{collections::HashSet, future::pending, pin::pin, sync::Arc, time::Duration};

use couple_core::{Change, ChangeResult, CommitError, Committed, Conflict, Error, ErrorKind};
use sqlx::{Connection as _, pool::PoolConnection};
use tokio::{
    select,
    time::{sleep, timeout},
};

use super::{
    Dialect, TableConnection,
    apply::apply,
    apply_error::ApplyError,
    commit_request::CommitRequest,
    dialect::{LockWait, within_timeout},
    error::classify,
    host_statements::database_error,
    job::Enqueues,
    locks::{self, Lock},
    table_names::TableNames,
    writer::WriterPool,
};

/// Maximum number of runs of a commit that fails transiently for a reason other than a lock.
const MAX_TRIES: u32 = 10;
/// Maximum time to wait until a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connection of a writer task.
pub(super) struct WriterConnection<D: Dialect> {
    pub(super) pool: WriterPool<D>,
    pub(super) names: Arc<TableNames>,
    /// Whether its transactions wait for locks, up to the lock time-out.
    pub(super) waits: bool,
    /// Idle time after which the connection is closed; none to keep it.
    pub(super) max_idle: Option<Duration>,
    held: Option<PoolConnection<D>>,
}

impl<D: Dialect> WriterConnection<D> {
    /// Creates it without a connection, which is opened at the first use.
    pub(super) const fn new(
        pool: WriterPool<D>,
        names: Arc<TableNames>,
        waits: bool,
        max_idle: Option<Duration>,
    ) -> Self {
        Self { pool, names, waits, max_idle, held: None }
    }

    async fn connect(&mut self) -> sqlx::Result<PoolConnection<D>> {
        if let Some(connection) = self.held.take() {
            return Ok(connection);
        }
        let connecting = async {
            let mut connection = self.pool.pool.acquire().await?;
            // After a panic the connection may be inside a transaction: no other task may use it.
            connection.close_on_drop();
            for sql in self.pool.setup {
                D::run(&mut connection, sql).await?;
            }
            Ok(connection)
        };
        within_timeout::<D, _>(connecting).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Waits for work. Meanwhile, closes the connection if its pool is closed or it was idle for too long.
    pub(super) async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if self.held.is_some() {
            let idle = async {
                match self.max_idle {
                    Some(limit) => sleep(limit).await,
                    None => pending().await,
                }
            };
            select! {
                biased;
                done = &mut work => return done,
                // The host's `close` waits for this connection.
                () = self.pool.pool.close_event() => {
                    tracing::warn!("the host closed its pool before the store: commits fail from now on");
                }
                () = idle => {}
            }
            self.held = None;
        }
        work.await
    }

    /// Runs the waiting commits and sends their results.
    ///
    /// Returns the commits that a lock of another transaction blocks.
    pub(super) async fn round(&mut self, waiting: &mut Vec<CommitRequest>) -> Vec<CommitRequest> {
        let mut blocked = BlockedCommits::default();
        let mut claims = Vec::new();
        if D::TRANSACTION_TIMEOUT.is_some() && waiting.iter().any(CommitRequest::has_unchecked_locks) {
            // A transaction that claims jobs waits longer for locks. Claims alone need none.
            claims.extend(
                waiting.extract_if(.., |request| request.skips_locked_rows() && request.locks.is_empty()),
            );
        }
        self.run(waiting, &mut blocked).await;
        self.run(&mut claims, &mut blocked).await;
        blocked.commits
    }

    /// Runs commits and sends their results; moves those that a lock blocks to `blocked`.
    async fn run(&mut self, waiting: &mut Vec<CommitRequest>, blocked: &mut BlockedCommits) {
        // Writers that lock rows in one order do not wait for one another in a circle.
        waiting.sort_by(|one, other| one.locks.first().cmp(&other.locks.first()));
        // A connection that broke while idle is noticed by its use; commits that were not yet committed run again on another one.
        for last in [false, true] {
            waiting.retain(CommitRequest::begin);
            if waiting.is_empty() {
                break;
            }
            // In SQLite, statements of the host can change settings of the connection that all commits use.
            let has_changed =
                D::TRANSACTION_TIMEOUT.is_none() && waiting.iter().any(CommitRequest::runs_host_statements);
            match self.connect().await {
                Ok(mut connection) => {
                    let mut named = TableConnection { inner: &mut *connection, names: &self.names };
                    match write::<D>(&mut named, self.waits, waiting, blocked).await {
                        // They can also leave a transaction of sqlx open.
                        Ok(()) if has_changed || connection.is_in_transaction() => close(connection).await,
                        Ok(()) => self.held = Some(connection),
                        Err(lost) => {
                            if last {
                                refuse(waiting, &classify::<D>("commit", lost));
                            }
                            // The state of the connection is unknown. A server may not respond any more.
                            match D::TRANSACTION_TIMEOUT {
                                None => close(connection).await,
                                Some(_) => drop(connection.detach()),
                            }
                        }
                    }
                }
                Err(error) => refuse(waiting, &classify::<D>("commit", error)),
            }
        }
    }
}

/// Closes a connection, and waits for that: SQLite does it on another thread, and then checkpoints its log.
async fn close<D: Dialect>(connection: PoolConnection<D>) {
    match timeout(CLOSE_TIMEOUT, connection.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "could not close the connection of a writer"),
        Err(_) => tracing::warn!("the connection of a writer was not closed in {CLOSE_TIMEOUT:?}"),
    }
}

/// Commits of a round that locks of other transactions block.
#[derive(Default)]
struct BlockedCommits {
    commits: Vec<CommitRequest>,
    /// Whether the round has waited for a lock until the time-out.
    has_waited: bool,
}

impl BlockedCommits {
    /// Whether a commit must leave the round, because it could cost another time-out.
    ///
    /// After a time-out, all commits with locks that cannot be checked leave: each of these locks could be held, too.
    fn excludes(&self, request: &CommitRequest, waits: bool) -> bool {
        self.has_waited && request.has_unchecked_locks()
            || self.commits.iter().any(|other| request.fails_with(other, waits))
    }

    /// Moves the commits that must leave the round.
    fn take_from(&mut self, waiting: &mut Vec<CommitRequest>, waits: bool) {
        let excluded: Vec<_> = waiting.extract_if(.., |request| self.excludes(request, waits)).collect();
        self.commits.extend(excluded);
    }
}

fn refuse(waiting: &mut Vec<CommitRequest>, error: &Error) {
    for request in waiting.drain(..) {
        request.refuse(Error::new(error.kind(), "commit").context(error.to_string()));
    }
}

/// Result of each commit in a transaction; none for a commit that a lock of another transaction blocks.
type CommitResults = Vec<Option<Result<Committed, Conflict>>>;

/// Result of a transaction.
enum TransactionEnd {
    /// The transaction did not begin: the database reported an error, for example a lock on the whole file.
    NotBegun(sqlx::Error),
    /// The transaction committed, with the result of each commit.
    Committed(CommitResults),
    /// A commit conflicted after it had written: only a savepoint can undo it alone.
    NeedsSavepoints,
    /// The database reported an error and the transaction was rolled back.
    ///
    /// The position of the commit that failed is given if it is known.
    Failed(Option<usize>, sqlx::Error),
    /// The statements of the host failed, and the transaction of its commit was rolled back.
    Host(Error),
    /// The connection broke before COMMIT: nothing was written.
    Lost(sqlx::Error),
    /// The connection broke during COMMIT, the database did not respond in time, or statements of the host
    /// ended the transaction.
    Unknown(String),
}

/// End of a transaction after the response to COMMIT.
fn committed<D: Dialect>(result: sqlx::Result<()>, answers: CommitResults) -> TransactionEnd {
    match result {
        Ok(()) => TransactionEnd::Committed(answers),
        // A COMMIT that timed out may have taken effect.
        Err(error) if answered::<D>(&error) && !timed_out::<D>(&error) => TransactionEnd::Failed(None, error),
        Err(error) => TransactionEnd::Unknown(error.to_string()),
    }
}

/// Runs the waiting commits and sends their results; moves commits that a lock blocks to `blocked`.
///
/// After `Err` the connection must not be used again, and the commits left in `waiting` were not committed.
/// Each iteration removes a commit or switches to savepoints.
async fn write<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    may_wait: bool,
    waiting: &mut Vec<CommitRequest>,
    blocked: &mut BlockedCommits,
) -> Result<(), sqlx::Error> {
    let mut savepoints = false;
    loop {
        // Remove commits whose caller has timed out, perhaps during the previous run.
        waiting.retain(|request| !request.is_abandoned());
        if waiting.is_empty() {
            return Ok(());
        }
        let wait = match may_wait {
            _ if waiting.iter().any(CommitRequest::runs_host_statements) => LockWait::TimeOut,
            // In MariaDB, SKIP LOCKED fails while the lock time-out is 0.
            _ if waiting.iter().any(CommitRequest::skips_locked_rows) => LockWait::TimeOut,
            true => LockWait::Brief,
            false => LockWait::Never,
        };
        let waits = wait != LockWait::Never;
        let transaction = async {
            if waiting.iter().any(CommitRequest::runs_host_statements) {
                return transact_with_host::<D>(connection, waiting).await;
            }
            transact::<D>(connection, wait, waiting, savepoints).await
        };
        match within_timeout::<D, _>(transaction)
            .await
            .unwrap_or_else(|| TransactionEnd::Unknown("no response in time".to_owned()))
        {
            TransactionEnd::Committed(answers) => {
                for (mut request, answer) in waiting.drain(..).zip(answers) {
                    match answer {
                        Some(answer) => {
                            if let (Ok(_), Some(registration)) = (&answer, &mut request.registration) {
                                registration.committed();
                            }
                            let _ = request.answer.send(answer.map_err(CommitError::Conflict));
                        }
                        None => blocked.commits.push(request),
                    }
                }
            }
            TransactionEnd::NeedsSavepoints if savepoints => {
                let error = Error::new(ErrorKind::Internal, "commit")
                    .context("a commit could not be undone alone although it had a savepoint");
                refuse(waiting, &error);
            }
            TransactionEnd::NeedsSavepoints => savepoints = true,
            TransactionEnd::Failed(None, error) if waiting.len() > 1 => {
                if waits && D::lock_wait(wait).is_some() && is_locked::<D>(&error) {
                    blocked.has_waited = true;
                    let before = waiting.len();
                    blocked.take_from(waiting, waits);
                    if waiting.len() < before {
                        // Probably the commit that met the lock is among those that left.
                        continue;
                    }
                }
                // Run the commits one by one, so that a failure affects only the commit that causes it.
                let mut each = std::mem::take(waiting).into_iter();
                for request in each.by_ref() {
                    if blocked.excludes(&request, waits) {
                        blocked.commits.push(request);
                        continue;
                    }
                    let mut one = vec![request];
                    if let Err(lost) = Box::pin(write::<D>(connection, may_wait, &mut one, blocked)).await {
                        waiting.extend(one.into_iter().chain(each));
                        return Err(lost);
                    }
                }
            }
            TransactionEnd::Failed(at, error) => {
                let mut request = waiting.remove(at.unwrap_or(0));
                if may_pass::<D>(&error, &mut request) {
                    if D::lock_wait(wait).is_some() && is_locked::<D>(&error) {
                        blocked.has_waited |= waits;
                        blocked.commits.push(request);
                        let position = blocked.commits.len() - 1;
                        blocked.take_from(waiting, waits);
                        // Queue it last, so that each of the others is the first to run in one of the next rounds.
                        blocked.commits[position..].rotate_left(1);
                    } else {
                        blocked.commits.push(request);
                    }
                } else {
                    request.refuse(classify::<D>("commit", error));
                }
            }
            // Statements of the host run alone.
            TransactionEnd::Host(error) => waiting.remove(0).refuse(error),
            TransactionEnd::NotBegun(error) => refuse(waiting, &classify::<D>("commit", error)),
            TransactionEnd::Lost(error) => return Err(error),
            TransactionEnd::Unknown(reason) => {
                refuse(waiting, &Error::new(ErrorKind::TimedOut, "commit").context(reason));
                return Err(sqlx::Error::WorkerCrashed);
            }
        }
    }
}

/// Whether a commit should run again, because it failed due to another transaction.
fn may_pass<D: Dialect>(error: &sqlx::Error, request: &mut CommitRequest) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    if !D::is_transient(error.as_ref()) {
        return false;
    }
    // A lock may be held until the commit times out. After a duplicate key the next run finds the row.
    if D::kind_of(error.as_ref()) != ErrorKind::Overloaded {
        request.tries += 1;
    }
    request.tries <= MAX_TRIES
}

/// Whether a commit failed because another transaction held a lock.
fn is_locked<D: Dialect>(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if D::kind_of(error.as_ref()) == ErrorKind::Overloaded)
}

/// Whether an error is a response of the database, so that the connection still works.
fn answered<D: Dialect>(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if D::kind_of(error.as_ref()) != ErrorKind::Unavailable || D::TRANSACTION_TIMEOUT.is_none())
        || matches!(error, sqlx::Error::Decode(_) | sqlx::Error::Encode(_))
}

fn timed_out<D: Dialect>(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if D::kind_of(error.as_ref()) == ErrorKind::TimedOut)
}

/// Runs the waiting commits in one transaction.
async fn transact<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    wait: LockWait,
    waiting: &[CommitRequest],
    savepoints: bool,
) -> TransactionEnd {
    let locked = match begin::<D>(connection, wait, waiting).await {
        Ok(locked) => locked,
        Err(end) => return end,
    };
    let failed = match attempt::<D>(connection, waiting, &locked, savepoints).await {
        Ok(Some(answers)) if has_written(&answers) => {
            match committed::<D>(D::run(connection.inner, "COMMIT").await, answers) {
                end @ TransactionEnd::Failed(..) => end,
                end => return end,
            }
        }
        other => match rolled_back::<D>(other) {
            TransactionEnd::Lost(error) => return TransactionEnd::Lost(error),
            end => end,
        },
    };
    match D::run(connection.inner, "ROLLBACK").await {
        // An error means that the database has rolled back already, so there is nothing to roll back.
        Ok(()) | Err(sqlx::Error::Database(_)) => failed,
        Err(broken) => TransactionEnd::Lost(broken),
    }
}

/// Runs a commit with statements of the host, which is never merged with others.
///
/// sqlx begins the transaction, so that a `begin()` of the host makes a savepoint in it.
async fn transact_with_host<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    waiting: &[CommitRequest],
) -> TransactionEnd {
    let names = connection.names;
    let mut transaction = match connection.inner.begin_with(D::BEGIN).await {
        Ok(transaction) => transaction,
        Err(error) if answered::<D>(&error) => return TransactionEnd::NotBegun(error),
        Err(error) => return TransactionEnd::Lost(error),
    };
    let mut named = TableConnection { inner: &mut *transaction, names };
    let wanted = waiting.iter().flat_map(|request| request.locks.iter().copied());
    let locked = match D::lock_wait(LockWait::TimeOut) {
        Some(_) => locks::lock_free_rows::<D>(&mut named, "", "", wanted).await,
        None => Ok(HashSet::new()),
    };
    let attempted = match locked {
        Ok(locked) => attempt::<D>(&mut named, waiting, &locked, false).await,
        Err(error) => Err(AttemptError::Failed(None, error)),
    };
    let end = match attempted {
        Ok(Some(answers)) if has_written(&answers) => {
            return match committed::<D>(transaction.commit().await, answers) {
                // COMMIT checks deferred constraints of the host's tables.
                TransactionEnd::Failed(at, error) => match database_error::<D>(error.into()) {
                    Ok(error) => TransactionEnd::Failed(at, error),
                    Err(refusal) => TransactionEnd::Host(refusal),
                },
                end => end,
            };
        }
        other => rolled_back::<D>(other),
    };
    if matches!(end, TransactionEnd::Lost(_) | TransactionEnd::Unknown(_)) {
        return end;
    }
    match transaction.rollback().await {
        Ok(()) | Err(sqlx::Error::Database(_)) => end,
        Err(broken) => TransactionEnd::Lost(broken),
    }
}

/// Whether a commit succeeded, so that the transaction must be committed.
fn has_written(answers: &CommitResults) -> bool {
    answers.iter().any(|answer| matches!(answer, Some(Ok(_))))
}

/// End of a transaction that is rolled back, because it has written nothing or has failed.
fn rolled_back<D: Dialect>(attempted: Result<Option<CommitResults>, AttemptError>) -> TransactionEnd {
    match attempted {
        Ok(Some(answers)) => TransactionEnd::Committed(answers),
        Ok(None) => TransactionEnd::NeedsSavepoints,
        Err(AttemptError::Host(error)) => TransactionEnd::Host(error),
        Err(AttemptError::Unknown(reason)) => TransactionEnd::Unknown(reason),
        Err(AttemptError::Failed(at, error)) if answered::<D>(&error) => TransactionEnd::Failed(at, error),
        Err(AttemptError::Failed(_, error)) => TransactionEnd::Lost(error),
    }
}

/// Starts a transaction and locks the rows that are free, in one round trip.
///
/// Returns the rows that another transaction holds, without waiting for them.
async fn begin<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    wait: LockWait,
    waiting: &[CommitRequest],
) -> Result<HashSet<Lock>, TransactionEnd> {
    let Some([before, after]) = D::lock_wait(wait) else {
        return match D::run(connection.inner, D::BEGIN).await {
            Ok(()) => Ok(HashSet::new()),
            Err(error) if answered::<D>(&error) => Err(TransactionEnd::NotBegun(error)),
            Err(error) => Err(TransactionEnd::Lost(error)),
        };
    };
    let wanted = waiting.iter().flat_map(|request| request.locks.iter().copied());
    match locks::lock_free_rows::<D>(connection, &format!("{before}{}", D::BEGIN), after, wanted).await {
        Ok(held) => Ok(held),
        Err(error) if answered::<D>(&error) => match D::run(connection.inner, "ROLLBACK").await {
            Ok(()) | Err(sqlx::Error::Database(_)) => Err(TransactionEnd::Failed(None, error)),
            Err(broken) => Err(TransactionEnd::Lost(broken)),
        },
        Err(error) => Err(TransactionEnd::Lost(error)),
    }
}

/// Reason why a transaction must be rolled back.
enum AttemptError {
    /// The database failed, at the commit with this position if it is known.
    Failed(Option<usize>, sqlx::Error),
    /// The statements of the host failed.
    Host(Error),
    /// The statements of the host ended the transaction, or took too long.
    Unknown(String),
}

/// Runs the commits that need no row in `locked`. Returns none if savepoints are needed.
///
/// A single commit that conflicts needs none: the whole transaction is rolled back.
async fn attempt<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    waiting: &[CommitRequest],
    locked: &HashSet<Lock>,
    savepoints: bool,
) -> Result<Option<CommitResults>, AttemptError> {
    let mut answers: CommitResults = Vec::with_capacity(waiting.len());
    // Insert the new jobs of all commits at the end in one statement, because most rows of a burst are jobs.
    let mut enqueues = Enqueues::default();
    for (position, request) in waiting.iter().enumerate() {
        let failed = |error| AttemptError::Failed(Some(position), error);
        if request.locks.iter().any(|lock| locked.contains(lock)) {
            answers.push(None);
            continue;
        }
        if savepoints {
            D::run(connection.inner, "SAVEPOINT one").await.map_err(failed)?;
        }
        let mark = enqueues.mark();
        let mut results = Vec::with_capacity(request.changes.len());
        let mut stopped = None;
        for (n, change) in request.changes.iter().enumerate() {
            if enqueues.take(change) {
                results.push(ChangeResult::Applied);
                continue;
            }
            if matches!(change, Change::Job(_) | Change::Host(_)) {
                // The change must see the jobs that its own commit enqueues.
                enqueues.write_since::<D>(mark, connection).await.map_err(failed)?;
            }
            match apply::<D>(connection, change).await {
                Ok(result) => results.push(result),
                Err(ApplyError::Failed(error)) => return Err(failed(error)),
                Err(ApplyError::Host(error)) => return Err(AttemptError::Host(error)),
                Err(ApplyError::Unknown(reason)) => return Err(AttemptError::Unknown(reason)),
                Err(ApplyError::Conflict(conflict)) => {
                    stopped = Some((n, conflict));
                    break;
                }
            }
        }
        match stopped {
            None => {
                if savepoints {
                    D::run(connection.inner, "RELEASE SAVEPOINT one").await.map_err(failed)?;
                }
                answers.push(Some(Ok(results.into_iter().collect())));
            }
            Some((n, conflict)) => {
                enqueues.back_to(mark);
                if savepoints {
                    D::run(connection.inner, "ROLLBACK TO SAVEPOINT one").await.map_err(failed)?;
                } else if n > 0 && waiting.len() > 1 {
                    return Ok(None);
                }
                answers.push(Some(Err(conflict)));
            }
        }
    }
    let failed = |error| AttemptError::Failed(None, error);
    enqueues.write_since::<D>(0, connection).await.map_err(failed)?;
    Ok(Some(answers))
}
