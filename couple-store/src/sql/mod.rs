//! Stores in SQL. Each statement is written once, for every dialect.
//!
//! `dialect` says what a driver must be able to do and what the dialects disagree about; the files named after areas
//! hold the statements and are generic over it; `writer` turns commits into transactions and merges those that
//! wait; `sqlite` opens SQLite; `server` connects to the others, and `mysql` and `postgres` say how they differ; `bus` carries
//! notices over PostgreSQL.

#[macro_use]
mod spelling;

mod account;
mod apply;
mod blocked;
#[cfg(feature = "postgres")]
mod bus;
mod dialect;
mod error;
mod idempotency;
mod job;
mod media;
mod migrate;
#[cfg(feature = "mysql")]
mod mysql;
mod pairing;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tally;
mod timeline;
mod upload;
mod writer;

#[cfg(feature = "postgres")]
pub use bus::PostgresBus;
pub use dialect::Dialect;
#[cfg(feature = "mysql")]
pub use mysql::{MySqlOptions, MySqlStore};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub use server::{Server, ServerOptions};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};

use async_trait::async_trait;
use couple_core::{Change, CommitError, Committed, Error, ErrorKind, Store};
use sqlx::Pool;

use dialect::{Row, Statement};
use spelling::Sql;
use writer::Writer;

/// Waits as long as this dialect's patience lasts: `None` after that.
async fn patiently<D: Dialect, T>(work: impl Future<Output = T>) -> Option<T> {
    match D::PATIENCE {
        None => Some(work.await),
        Some(patience) => tokio::time::timeout(patience, work).await.ok(),
    }
}

/// A store in SQL.
pub struct SqlStore<D: Dialect> {
    reads: Pool<D>,
    writer: Writer<D>,
    /// For what is done beside reading and writing.
    housekeeping: Option<Pool<D>>,
    /// Ends with the store.
    _background: tokio::task::JoinSet<()>,
}

impl<D: Dialect> std::fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("dialect", &D::NAME).finish_non_exhaustive()
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Runs a read on a connection of the pool and decodes its rows.
    async fn read<T>(
        &self,
        statement: Statement<D>,
        decode: impl Fn(&mut Row<'_, D>) -> Result<T, Error> + Send,
    ) -> Result<Vec<T>, Error> {
        let fail = |error| error::classify::<D>("read", error);
        let late = || Error::new(ErrorKind::TimedOut, "read").context(D::NAME);
        let begun = tokio::time::Instant::now();
        let mut connection = patiently::<D, _>(self.reads.acquire()).await.ok_or_else(late)?.map_err(fail)?;
        let rows = {
            let reading = statement.rows(&mut connection);
            match D::PATIENCE {
                None => Some(reading.await),
                // What waiting for a connection took is part of it.
                Some(patience) => tokio::time::timeout_at(begun + patience, reading).await.ok(),
            }
        };
        let Some(rows) = rows else {
            // Whoever borrowed it next would wait for the answer to this.
            drop(connection.detach());
            return Err(late());
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

/// Every named statement as a dialect reads it, for tests of query plans.
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
        job::ALL,
        idempotency::ALL,
    ]
    .concat()
    .into_iter()
    .map(|(name, sql)| (name, D::spell(sql)))
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
        self.reads.close().await;
        if let Some(housekeeping) = &self.housekeeping {
            housekeeping.close().await;
        }
        // Last, so that the last connection of all is the one that may tidy up: SQLite then folds its log into the file.
        self.writer.close().await;
        Ok(())
    }

    async fn ping(&self) -> Result<(), Error> {
        self.read(Statement::new(PING), |_| Ok(())).await.map(drop)
    }
}
