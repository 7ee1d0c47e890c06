//! Statements of the host in the transaction of a commit.

use std::{panic::AssertUnwindSafe, pin::Pin, time::Duration};

use couple_core::{
    BoxError, Change, ChangeResult, CommitError, Committed, Error, ErrorKind, HostStatements, Ports,
};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::{Dialect, SqlStore, TableConnection, apply_error::ApplyError};

/// Future of the host's statements: `Box::pin(async move { … })`.
pub type HostFuture<'c> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'c>>;

/// Function that runs the statements on the connection of the transaction.
struct SqlStatements<D: Dialect>(Box<RunStatements<D>>);

type RunStatements<D> =
    dyn for<'c> Fn(&'c mut <D as sqlx::Database>::Connection) -> HostFuture<'c> + Send + Sync;

/// Time limit of one call of the host's function.
const STATEMENTS_TIMEOUT: Duration = Duration::from_secs(2);

// Savepoint around the statements. It does not exist any more if they ended the transaction.
const SET_SAVEPOINT: &str = "SAVEPOINT host_statements";
const RELEASE_SAVEPOINT: &str = "RELEASE SAVEPOINT host_statements";
const ROLLBACK_TO_SAVEPOINT: &str = "ROLLBACK TO SAVEPOINT host_statements";

impl<D: Dialect> SqlStore<D> {
    /// Creates a change that runs statements of the host in the transaction of its commit.
    ///
    /// The change can be part of any commit of this store: both the host's rows and the other changes are
    /// written, or neither. It sees what the changes before it wrote. Its commit is never merged with others.
    ///
    /// `run` can be called again after a deadlock, a held lock or a conflict, each time in a new transaction, so
    /// it must have no other effect than its statements. It can call `begin()` of sqlx, which makes a savepoint.
    /// Statements that use our tables must read only.
    ///
    /// An error of `run` undoes the commit, which then fails with an [`Error`] of kind
    /// [`ErrorKind::Rejected`]; its `source` is the error of `run`. A lock that another transaction holds and a
    /// lost connection count as errors of the database, if `run` returns the [`sqlx::Error`].
    ///
    /// A panic of `run` undoes the commit, too, which then fails with [`ErrorKind::Internal`].
    ///
    /// In SQLite, commits wait for one another: other commits wait for those with statements of up to 100 ms in all, and
    /// for the one that runs then. One with statements that has waited for 10 s, or for 1.5 s if one before it took 0.5 s, fails with
    /// [`ErrorKind::Overloaded`] instead of running; on a server, so does one whose caller would stop waiting.
    ///
    /// `run` has two seconds, and must not end the transaction by a statement such as `COMMIT` or `ROLLBACK`. If it
    /// takes longer or ends the transaction, its connection is closed and the commit fails with
    /// [`ErrorKind::TimedOut`]: it is unknown whether the statements were written.
    pub fn host_change<F>(run: F) -> Change
    where
        F: for<'c> Fn(&'c mut D::Connection) -> HostFuture<'c> + Send + Sync + 'static,
    {
        Change::Host(HostStatements::new(SqlStatements::<D>(Box::new(run))))
    }

    /// Commits `changes` and then, in the same transaction, the statements of the host.
    ///
    /// Listeners and notices are those of [`Ports::commit`]; the store of `ports` must be of this type. See
    /// [`host_change`](Self::host_change) for the rules of `run`.
    ///
    /// Returns one result for each of `changes`, and one for the statements.
    ///
    /// # Errors
    /// As of [`Ports::commit`], and errors of `run`.
    pub async fn commit_with_sql<F>(
        ports: &Ports,
        mut changes: Vec<Change>,
        run: F,
    ) -> Result<Committed, CommitError>
    where
        F: for<'c> Fn(&'c mut D::Connection) -> HostFuture<'c> + Send + Sync + 'static,
    {
        changes.push(Self::host_change(run));
        ports.commit(changes).await
    }
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    statements: &HostStatements,
) -> Result<ChangeResult, ApplyError> {
    let wrong =
        |context: &str| ApplyError::Host(Error::new(ErrorKind::Misconfigured, "commit").context(context));
    let Some(SqlStatements(run)) = statements.downcast_ref::<SqlStatements<D>>() else {
        return Err(wrong("the statements of the host were made for another database"));
    };
    D::run(connection.inner, SET_SAVEPOINT).await?;
    D::interrupt_after(connection.inner, STATEMENTS_TIMEOUT).await?;
    // The call is in the block, so that a panic of the function itself is caught, too.
    let running = AssertUnwindSafe(async { run(connection.inner).await }).catch_unwind();
    let Ok(ran) = timeout(STATEMENTS_TIMEOUT, running).await else {
        return Err(ApplyError::Unknown("the statements of the host took longer than 2 s".to_owned()));
    };
    D::cancel_interrupt(connection.inner).await?;
    let failed = match ran {
        Ok(Ok(())) => match D::run(connection.inner, RELEASE_SAVEPOINT).await {
            Ok(()) => return Ok(ChangeResult::Applied),
            Err(sqlx::Error::Database(_)) => {
                wrong("the statements of the host ignored an error of the database")
            }
            Err(error) => return Err(error.into()),
        },
        Ok(Err(error)) => match database_error::<D>(error) {
            // The database may have ended the transaction itself, for example after a deadlock.
            Ok(error) => return Err(error.into()),
            Err(refusal) => ApplyError::Host(refusal),
        },
        // The panic hook has its message.
        Err(_) => ApplyError::Host(
            Error::new(ErrorKind::Internal, "commit").context("the statements of the host panicked"),
        ),
    };
    match D::run(connection.inner, ROLLBACK_TO_SAVEPOINT).await {
        Ok(()) => Err(failed),
        Err(sqlx::Error::Database(_)) => {
            Err(ApplyError::Unknown("the statements of the host ended the transaction".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Separates failures of the database, after which the commit may run again, from refusals of the host.
///
/// # Errors
/// Any other error, as the refusal of the host.
pub(super) fn database_error<D: Dialect>(error: BoxError) -> Result<sqlx::Error, Error> {
    let error = match error.downcast::<sqlx::Error>() {
        Ok(error) => *error,
        Err(other) => return Err(refused(other)),
    };
    let of_database = match &error {
        // A constraint, a missing table, a missing privilege.
        sqlx::Error::Database(database) => {
            !matches!(D::kind_of(database.as_ref()), ErrorKind::Internal | ErrorKind::Misconfigured)
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            true
        }
        _ => false,
    };
    if of_database { Ok(error) } else { Err(refused(error.into())) }
}

fn refused(error: BoxError) -> Error {
    Error::new(ErrorKind::Rejected, "commit").context("the statements of the host failed").source(error)
}
