//! SQLite: one connection that writes, and several that read concurrently (WAL).

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use couple_core::{Error, ErrorKind};
use sqlx::{
    ConnectOptions, Connection as _, Pool, SqlStr, Sqlite,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::private_file;

use super::{
    Dialect, Row, SqlStore, Statement,
    dialect::{ExecuteStatement, LockWait, count_up_returning},
    dialect_text::Sql,
    error::classify,
    job_batch::BatchStatements,
    migrate::{Migration, migrate},
    writer::Writer,
};

/// Store in one SQLite file. A commit is durable before it returns (`synchronous=FULL`).
pub type SqliteStore = SqlStore<Sqlite>;

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "initial", sql: include_str!("../../migrations/sqlite/0001_initial.sql") },
    Migration { version: 2, name: "proofs", sql: include_str!("../../migrations/sqlite/0002_proofs.sql") },
    Migration {
        version: 3,
        name: "media_traits",
        sql: include_str!("../../migrations/sqlite/0003_media_traits.sql"),
    },
    Migration {
        version: 4,
        name: "resumable_upload",
        sql: include_str!("../../migrations/sqlite/0004_resumable_upload.sql"),
    },
    Migration {
        version: 5,
        name: "job_leased",
        sql: include_str!("../../migrations/sqlite/0005_job_leased.sql"),
    },
];

/// Application id in the file's header, "coup" in ASCII. Identifies a database of this crate.
const APPLICATION_ID: i64 = 0x636f_7570;

impl Dialect for Sqlite {
    // Takes the write lock immediately: under WAL a transaction that started with a read cannot always become
    // a writer.
    const BEGIN: &'static str = "BEGIN IMMEDIATE";

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
    fn built() -> &'static BatchStatements {
        static BUILT: LazyLock<BatchStatements> =
            LazyLock::new(|| BatchStatements::new(true, "ON CONFLICT DO NOTHING"));
        &BUILT
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
            11 | 26 => ErrorKind::Corrupt,          // CORRUPT, NOTADB
            13 => ErrorKind::Full,                  // FULL
            3 | 8 | 14 => ErrorKind::Misconfigured, // PERM, READONLY, CANTOPEN
            _ => ErrorKind::Internal,
        }
    }
}

/// Size in bytes above which the write-ahead log is checkpointed.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// Path of a database's write-ahead log.
fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Path of a database's shared-memory file, the index of the log.
fn shared_memory_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-shm");
    name.into()
}

/// Class of a failure to create the database file.
fn unwritable(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        _ => ErrorKind::Misconfigured,
    }
}

/// Checkpoints the log on a separate connection.
///
/// On the writer's connection, the commit that fills the log would wait for the whole checkpoint.
async fn checkpoint(pool: Pool<Sqlite>, log: PathBuf) {
    loop {
        sleep(Duration::from_millis(100)).await;
        if log.metadata().is_ok_and(|log| log.len() > MAX_LOG_BYTES)
            && let Ok(mut connection) = pool.acquire().await
        {
            // A passive checkpoint does not wait for readers; the next one copies the remaining pages.
            let done = Sqlite::run(&mut connection, "PRAGMA wal_checkpoint(PASSIVE)").await;
            if let Err(error) = done {
                tracing::warn!(%error, "could not checkpoint the write-ahead log");
            }
            // The log file keeps its size and is overwritten from the start.
            sleep(Duration::from_millis(400)).await;
        }
    }
}

/// Settings of a SQLite store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    path: PathBuf,
    readers: u32,
    merge: usize,
    max_pages: Option<u32>,
}

impl SqliteOptions {
    /// Sets the path of the file; its folder must exist.
    ///
    /// A missing file is created with access for its owner only. Access of users other than owner and group
    /// is removed from an existing file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), readers: 4, merge: 64, max_pages: None }
    }
    /// Sets the number of reading connections. Default: 4.
    #[must_use]
    pub const fn with_readers(mut self, readers: u32) -> Self {
        self.readers = readers;
        self
    }
    /// Sets the maximum number of waiting commits per transaction. Default: 64; 1 disables merging.
    #[must_use]
    pub const fn with_max_merged_commits(mut self, merge: usize) -> Self {
        self.merge = merge;
        self
    }

    /// Sets the maximum size of the file in pages of 4 KiB; beyond it, commits fail as on a full disk.
    ///
    /// Default: none.
    #[must_use]
    pub const fn with_max_pages(mut self, pages: u32) -> Self {
        self.max_pages = Some(pages);
        self
    }

    /// Opens the file and migrates its schema.
    ///
    /// # Errors
    /// The error names the file and the remedy: not a database, another program's database, a newer schema,
    /// not writable, in use, or disk full.
    pub async fn open(self) -> Result<SqliteStore, Error> {
        let name = self.path.display().to_string();
        let open = self.open_inner().await;
        open.map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::Corrupt => {
                    "is damaged or not a SQLite database: restore it from a backup or choose another file"
                }
                ErrorKind::Misconfigured => "cannot be used",
                ErrorKind::Full => "has no room: free some space",
                ErrorKind::Unavailable => "cannot be opened now: another program may hold it",
                _ => "cannot be opened",
            };
            Error::new(error.kind(), "open SQLite").context(format!("{name} {advice}")).source(error)
        })
    }

    async fn open_inner(&self) -> Result<SqliteStore, Error> {
        let fail = |error| classify::<Sqlite>("open", error);
        // An empty file is a valid empty database. SQLite gives the log file the same permissions.
        if !self.path.exists() {
            let made = private_file::options().create(true).truncate(false).open(&self.path);
            made.map_err(|source| Error::new(unwritable(&source), "open").source(source))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(256)
            .disable_statement_logging();
        // Check before anything is changed, so that another program's file stays unchanged.
        let new = self.check(&options).await?;
        for file in [self.path.clone(), log_of(&self.path), shared_memory_of(&self.path)] {
            if file.exists()
                && let Err(error) = private_file::close_to_others(&file)
            {
                tracing::warn!(%error, file = %file.display(), "every user of this machine can read the database");
            }
        }
        let options = options
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);

        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await
            .map_err(fail)?;
        {
            let mut connection = writer.acquire().await.map_err(fail)?;
            migrate::<Sqlite>(&mut connection, MIGRATIONS).await?;
            if new {
                Sqlite::run(&mut connection, "PRAGMA application_id = 0x636f7570").await.map_err(fail)?;
            }
            if let Some(pages) = self.max_pages {
                Statement::<Sqlite>::built(format!("PRAGMA max_page_count = {pages}").into())
                    .rows(&mut connection)
                    .await
                    .map_err(fail)?;
            }
            // Automatic checkpoints only if the background checkpoints fall far behind: at 64 MiB.
            Sqlite::run(&mut connection, "PRAGMA wal_autocheckpoint = 16384").await.map_err(fail)?;
            // From here on callers wait, so the limit is shorter.
            Sqlite::run(&mut connection, "PRAGMA busy_timeout = 2000").await.map_err(fail)?;
        }
        let reads = SqlitePoolOptions::new()
            .max_connections(self.readers.max(1))
            .min_connections(1)
            .acquire_timeout(Duration::from_secs(2))
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await
            .map_err(fail)?;
        let housekeeping = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(fail)?;
        let mut background = JoinSet::new();
        background.spawn(checkpoint(housekeeping.clone(), log_of(&self.path)));
        let writer = Writer::start(writer, 1, self.merge);
        Ok(SqlStore { reads, writer, housekeeping: Some(housekeeping), _background: background })
    }

    /// Refuses a damaged file and another program's database. Returns true for an empty database.
    async fn check(&self, options: &SqliteConnectOptions) -> Result<bool, Error> {
        const APPLICATION: Sql = sql!("SELECT application_id FROM pragma_application_id");
        const TABLES: Sql = sql!("SELECT COUNT(*) FROM sqlite_schema");
        const HEALTH: Sql = sql!("PRAGMA quick_check(1)");
        let fail = |error| classify::<Sqlite>("open", error);
        let mut connection = options.connect().await.map_err(fail)?;
        let number = async |connection: &mut _, sql| -> Result<i64, Error> {
            let rows = Statement::<Sqlite>::new(sql).rows(connection).await.map_err(fail)?;
            rows.first().map_or(Ok(0), |row| Row::<Sqlite>::new(row).take())
        };
        let tables = number(&mut connection, TABLES).await?;
        let application = number(&mut connection, APPLICATION).await?;
        if tables > 0 && application != APPLICATION_ID {
            return Err(Error::new(ErrorKind::Misconfigured, "open")
                .context("it is another program's database: choose another file"));
        }
        if tables > 0 && self.path.metadata().is_ok_and(|file| file.len() < 64 << 20) {
            let rows = Statement::<Sqlite>::new(HEALTH).rows(&mut connection).await.map_err(fail)?;
            let report: String =
                rows.first().map_or(Ok("ok".to_owned()), |row| Row::<Sqlite>::new(row).take())?;
            if report != "ok" {
                return Err(Error::new(ErrorKind::Corrupt, "open").context(report.replace('\n', "; ")));
            }
        }
        connection.close().await.map_err(fail)?;
        Ok(tables == 0)
    }
}
