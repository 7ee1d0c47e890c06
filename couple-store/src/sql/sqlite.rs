//! SQLite.

use std::time::Duration;

use couple_core::ErrorKind;
use sqlx::{SqlStr, Sqlite, error::DatabaseError};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Dialect, SqlStore,
    dialect::{LockWait, count_up_returning},
    dialect_text::Sql,
    job_batch::BatchStatements,
    migrate::Migration,
};

/// Store in one SQLite file. A commit is durable before it returns (`synchronous=FULL`).
pub type SqliteStore = SqlStore<Sqlite>;

pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "initial", sql: include_str!("../../migrations/sqlite/0001_initial.sql") },
    Migration { version: 2, name: "devices", sql: include_str!("../../migrations/sqlite/0002_devices.sql") },
    Migration {
        version: 3,
        name: "preferences",
        sql: include_str!("../../migrations/sqlite/0003_preferences.sql"),
    },
    Migration { version: 4, name: "dates", sql: include_str!("../../migrations/sqlite/0004_dates.sql") },
    Migration { version: 5, name: "digests", sql: include_str!("../../migrations/sqlite/0005_digests.sql") },
    Migration {
        version: 6,
        name: "widget_tokens",
        sql: include_str!("../../migrations/sqlite/0006_widget_tokens.sql"),
    },
];

/// Virtual machine operations of a statement between two checks of its time limit: about 0.1 ms.
const OPERATIONS_PER_CHECK: i32 = 10_000;

impl Dialect for Sqlite {
    // Takes the write lock immediately: under WAL a transaction that started with a read cannot always become
    // a writer.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const BEGIN_READ: &'static str = "BEGIN";
    const NAME_QUOTE: char = '"';

    // No limit: only this process writes, and the time of a commit depends on the disk alone.
    const TRANSACTION_TIMEOUT: Option<Duration> = None;
    const BY_PRIMARY_KEY: &'static str = "";
    const LOCK: Option<Sql> = None;
    const UNLOCK: Option<Sql> = None;

    fn lock_wait(_: LockWait) -> Option<[&'static str; 2]> {
        None
    }
    fn literal(id: Uuid) -> String {
        format!("x'{}'", id.simple())
    }
    fn literal_bytes(hex: &str) -> String {
        format!("x'{hex}'")
    }
    fn text_of(sql: Sql) -> &'static str {
        sql.sqlite.numbered
    }
    fn is_transient(_: &dyn DatabaseError) -> bool {
        // A transaction never conflicts with another one: there is one writer, and it takes its lock at the
        // start.
        false
    }
    fn batch_statements(prefix: &str) -> BatchStatements {
        BatchStatements::new(prefix, true, "ON CONFLICT DO NOTHING")
    }
    fn existing_relations(_: Option<&str>, names: &str) -> String {
        // SQLite ignores case in names.
        format!("SELECT name FROM sqlite_schema WHERE LOWER(name) IN ({names})")
    }
    async fn interrupt_after(connection: &mut Self::Connection, limit: Duration) -> sqlx::Result<()> {
        // Dropping the connection does not end the statement that its thread runs.
        let deadline = Instant::now() + limit;
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(OPERATIONS_PER_CHECK, move || Instant::now() < deadline);
        Ok(())
    }
    async fn cancel_interrupt(connection: &mut Self::Connection) -> sqlx::Result<()> {
        connection.lock_handle().await?.remove_progress_handler();
        Ok(())
    }
    fn count_up<'c>(
        connection: &'c mut Self::Connection,
        sql: SqlStr,
        args: Self::Arguments,
    ) -> impl Future<Output = sqlx::Result<Option<i64>>> + Send + 'c {
        count_up_returning::<Self>(connection, sql, args)
    }
    fn affected(result: &Self::QueryResult) -> u64 {
        result.rows_affected()
    }
    fn kind_of(error: &dyn DatabaseError) -> ErrorKind {
        // The primary result code is the low byte of the extended one (sqlite.org/rescode.html).
        let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0) & 0xff;
        match code {
            5 | 6 => ErrorKind::Unavailable,        // BUSY, LOCKED
            10 => ErrorKind::Unavailable,           // IOERR
            9 => ErrorKind::TimedOut,               // INTERRUPT
            11 | 26 => ErrorKind::Corrupt,          // CORRUPT, NOTADB
            13 => ErrorKind::Full,                  // FULL
            3 | 8 | 14 => ErrorKind::Misconfigured, // PERM, READONLY, CANTOPEN
            _ => ErrorKind::Internal,
        }
    }
}
