//! Stores in SQL. Each statement is written once for all dialects.
//!
//! `dialect` defines the requirements for a driver and the differences between dialects. The modules named
//! after areas hold the statements and are generic over the dialect; `apply` chooses the area of a change.
//! `writer` merges waiting commits (group commit) and `transaction` runs them; `locks` defines what each
//! change locks; `blocked` retries commits that wait for a lock, which `lock_registry` records, and commits with
//! `host_statements`. `sqlite_file` opens
//! SQLite; `server` connects to a server, with the differences of `mysql` and `postgres`. `migrate` creates
//! the tables, whose prefix `table_names` puts into statements. `bus` is an event bus over PostgreSQL.

#[macro_use]
mod dialect_text;

/// SQL condition: the row belongs to one of 16 sessions, whose id is in a column.
macro_rules! one_of_sessions {
    ($column:literal) => {
        concat!(
            "(account_id = $1 AND ",
            $column,
            " = $2)",
            " OR (account_id = $3 AND ",
            $column,
            " = $4)",
            " OR (account_id = $5 AND ",
            $column,
            " = $6)",
            " OR (account_id = $7 AND ",
            $column,
            " = $8)",
            " OR (account_id = $9 AND ",
            $column,
            " = $10)",
            " OR (account_id = $11 AND ",
            $column,
            " = $12)",
            " OR (account_id = $13 AND ",
            $column,
            " = $14)",
            " OR (account_id = $15 AND ",
            $column,
            " = $16)",
            " OR (account_id = $17 AND ",
            $column,
            " = $18)",
            " OR (account_id = $19 AND ",
            $column,
            " = $20)",
            " OR (account_id = $21 AND ",
            $column,
            " = $22)",
            " OR (account_id = $23 AND ",
            $column,
            " = $24)",
            " OR (account_id = $25 AND ",
            $column,
            " = $26)",
            " OR (account_id = $27 AND ",
            $column,
            " = $28)",
            " OR (account_id = $29 AND ",
            $column,
            " = $30)",
            " OR (account_id = $31 AND ",
            $column,
            " = $32)",
        )
    };
}

mod account;
mod apply;
mod apply_error;
mod blocked;
#[cfg(feature = "postgres")]
mod bus;
mod commit_request;
mod date;
mod device;
mod dialect;
mod error;
mod host_statements;
mod idempotency;
mod job;
mod job_batch;
mod lock_registry;
mod locks;
mod media;
mod migrate;
#[cfg(feature = "mysql")]
mod mysql;
mod notification;
mod pairing;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite_file;
mod table_names;
mod tally;
mod timeline;
mod transaction;
mod upload;
mod writer;

#[cfg(feature = "postgres")]
pub use bus::PostgresBus;
pub use dialect::Dialect;
pub use host_statements::HostFuture;
pub use migrate::SchemaStatus;
#[cfg(feature = "mysql")]
pub use mysql::{MySqlOptions, MySqlStore};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use server::{Server, ServerOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
#[cfg(feature = "sqlite")]
pub use sqlite_file::SqliteOptions;

use std::sync::Arc;

use async_trait::async_trait;
use couple_core::{Change, CommitError, Committed, Error, ErrorKind, Store};
use sqlx::Pool;

use dialect::{Row, Statement, within_timeout};
use dialect_text::Sql;
use table_names::{TableConnection, TableNames};
use writer::Writer;

/// Store in an SQL database.
pub struct SqlStore<D: Dialect> {
    reads: Pool<D>,
    /// Whether the pool for reads ends with the store, and is not the host's.
    owns_reads: bool,
    names: Arc<TableNames>,
    writer: Writer<D>,
    /// Connection for maintenance, such as checkpoints.
    housekeeping: Option<Pool<D>>,
    /// Background tasks, aborted when the store is dropped.
    _background: tokio::task::JoinSet<()>,
}

impl<D: Dialect> std::fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("dialect", &D::NAME).finish_non_exhaustive()
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Runs a read on a pooled connection and decodes its rows.
    async fn read<T>(
        &self,
        statement: Statement<D>,
        decode: impl Fn(&mut Row<'_, D>) -> Result<T, Error> + Send,
    ) -> Result<Vec<T>, Error> {
        let fail = |error| error::classify::<D>("read", error);
        let timed_out = || Error::new(ErrorKind::TimedOut, "read").context(D::NAME);
        let started = tokio::time::Instant::now();
        let mut connection =
            within_timeout::<D, _>(self.reads.acquire()).await.ok_or_else(timed_out)?.map_err(fail)?;
        let rows = {
            let mut named = TableConnection { inner: &mut *connection, names: &self.names };
            let reading = statement.rows(&mut named);
            match D::TRANSACTION_TIMEOUT {
                None => Some(reading.await),
                // The limit includes the time spent waiting for a connection.
                Some(limit) => tokio::time::timeout_at(started + limit, reading).await.ok(),
            }
        };
        let Some(rows) = rows else {
            // Do not return the connection to the pool: its next user would wait for this response.
            drop(connection.detach());
            return Err(timed_out());
        };
        let rows = rows.map_err(fail)?;
        rows.iter().map(|row| decode(&mut Row::new(row))).collect()
    }

    async fn read_one<T>(
        &self,
        statement: Statement<D>,
        decode: impl Fn(&mut Row<'_, D>) -> Result<T, Error> + Send,
    ) -> Result<Option<T>, Error> {
        Ok(self.read(statement, decode).await?.pop())
    }
}

/// Every named statement in the text of a dialect, for tests of query plans.
#[doc(hidden)]
#[must_use]
pub fn statements<D: Dialect>() -> Vec<(&'static str, &'static str)> {
    [
        account::ALL,
        tally::ALL,
        pairing::ALL,
        timeline::ALL,
        media::ALL,
        upload::ALL,
        device::ALL,
        notification::ALL,
        date::ALL,
        job::ALL,
        idempotency::ALL,
    ]
    .concat()
    .into_iter()
    .map(|(name, sql)| (name, D::text_of(sql)))
    .collect()
}

const PING: Sql = sql!("SELECT 1");

#[async_trait]
impl<D: Dialect> Store for SqlStore<D> {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        if changes.is_empty() {
            return Ok(Committed::default());
        }
        self.writer.commit(changes).await
    }

    async fn close(&self) -> Result<(), Error> {
        if self.owns_reads {
            self.reads.close().await;
        }
        if let Some(housekeeping) = &self.housekeeping {
            housekeeping.close().await;
        }
        // Close the writer last: SQLite checkpoints its log when the last connection closes, and only a
        // writer can.
        self.writer.close().await;
        Ok(())
    }

    fn writer_restarts(&self) -> u64 {
        self.writer.restarts()
    }

    async fn ping(&self) -> Result<(), Error> {
        self.read(Statement::new(PING), |_| Ok(())).await.map(drop)
    }
}
