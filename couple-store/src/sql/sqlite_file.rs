//! Opens a SQLite file: one connection that writes, and several that read concurrently (WAL).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use couple_core::{Error, ErrorKind};
use sqlx::{
    ConnectOptions as _, Connection as _, Pool, Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::private_file;

use super::{
    Row, SchemaStatus, SqlStore, SqliteStore, Statement, TableConnection, TableNames,
    dialect::{Dialect as _, ExecuteStatement as _, ReadColumn},
    dialect_text::Sql,
    error::classify,
    migrate::{check, migrate},
    sqlite::MIGRATIONS,
    table_names::NameOptions,
    writer::{Writer, WriterPool},
};

/// Application id in the file's header, "coup" in ASCII. Identifies a file that this crate has created.
const APPLICATION_ID: i64 = 0x636f_7570;
/// Size in bytes above which the write-ahead log is checkpointed.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// Maximum time to wait for a connection of the host's pool when the store is opened.
const POOL_TIMEOUT: Duration = Duration::from_secs(5);

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

fn fail(error: sqlx::Error) -> Error {
    classify::<Sqlite>("open", error)
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
    host_pool: Option<Pool<Sqlite>>,
    readers: u32,
    merge: usize,
    max_pages: Option<u32>,
    names: NameOptions,
    shared: bool,
    migrates: bool,
}

impl SqliteOptions {
    /// Sets the path of the file; its folder must exist.
    ///
    /// A missing file is created with access for its owner only. Access of users other than owner and group
    /// is removed from an existing file, unless it is [shared](Self::with_shared_file).
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            host_pool: None,
            readers: 4,
            merge: 64,
            max_pages: None,
            names: NameOptions::default(),
            shared: false,
            migrates: true,
        }
    }
    /// Uses the file of a pool of the host, by connections of the store's own.
    ///
    /// SQLite has one writer at a time, and the store merges commits on a connection that it keeps, with settings
    /// of its own. So it does not borrow connections of the pool; only the path of the file is taken from it. As
    /// with [`with_shared_file`](Self::with_shared_file), the host's tables can exist before ours.
    ///
    /// Requirements of the pool, checked when the store is opened: the database is a file, its connections have
    /// the journal mode `WAL` and a busy time-out. While a transaction of the host writes, commits of the store
    /// wait up to 2 s and then fail with [`ErrorKind::Unavailable`]: the host's must be short, and begin with
    /// `BEGIN IMMEDIATE`. To write into the host's tables and ours together, use
    /// [`SqliteStore::commit_with_sql`](super::SqlStore::commit_with_sql).
    #[must_use]
    pub fn of_pool(pool: &Pool<Sqlite>) -> Self {
        let mut options = Self::new(pool.connect_options().get_filename()).with_shared_file(true);
        options.host_pool = Some(pool.clone());
        options
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
    /// Sets the prefix of the names of tables and indexes. Default: `couple_`.
    ///
    /// It begins with a to z, has only a to z, 0 to 9 and `_`, and at most 24 characters; or it is empty.
    /// Two installations with different prefixes can share a file.
    #[must_use]
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.prefix = prefix.into();
        self
    }
    /// Allows to create the tables in a file that has tables of another program. Default: false.
    ///
    /// A file that already has the tables of this store, or that this store has created, is opened in both
    /// cases. Tables of the other program are never changed, nor are the file's application id and permissions.
    #[must_use]
    pub const fn with_shared_file(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }
    /// Sets whether [`open`](Self::open) migrates the schema. Default: true.
    ///
    /// If false, `open` refuses a database that lacks a migration, and creates no file.
    #[must_use]
    pub const fn with_migration_on_open(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// Opens the file and migrates its schema.
    ///
    /// # Errors
    /// The error names the file and the remedy: not a database, tables of another program, an invalid prefix,
    /// a newer or changed schema, not writable, in use, or disk full.
    pub async fn open(self) -> Result<SqliteStore, Error> {
        self.open_inner().await.map_err(|error| self.explain(error))
    }

    /// Creates the file if it is missing, and migrates its schema.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn migrate(&self) -> Result<(), Error> {
        let migrate =
            async { self.prepare(&TableNames::new::<Sqlite>(self.names.clone(), None)?, true).await };
        migrate.await.map_err(|error| self.explain(error))
    }

    /// Finds the missing migrations and changes nothing. A missing file lacks all of them.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub async fn check(&self) -> Result<SchemaStatus, Error> {
        let check = async {
            let names = TableNames::new::<Sqlite>(self.names.clone(), None)?;
            Ok(self.examine(&names).await?.1)
        };
        check.await.map_err(|error| self.explain(error))
    }

    /// Adds the path of the file and the remedy to an error.
    fn explain(&self, error: Error) -> Error {
        let name = self.path.display();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let lacks_folder = folder.is_some_and(|folder| !folder.exists());
        let advice = match error.kind() {
            ErrorKind::Corrupt => {
                "is damaged or not a SQLite database: restore it from a backup or choose another file"
            }
            ErrorKind::Misconfigured if lacks_folder => {
                "is in a folder that does not exist: create the folder"
            }
            ErrorKind::Misconfigured => "cannot be used",
            ErrorKind::Full => "has no room: free some space",
            ErrorKind::Unavailable => "cannot be opened now: another program may hold it",
            _ => "cannot be opened",
        };
        Error::new(error.kind(), "open SQLite").context(format!("{name} {advice}")).source(error)
    }

    /// Options that change nothing in the file.
    fn connect_options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(Duration::from_secs(5))
            .statement_cache_capacity(256)
            .disable_statement_logging()
    }

    fn writing_options(&self) -> SqliteConnectOptions {
        let options = self
            .connect_options()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        match self.max_pages {
            Some(pages) => options.pragma("max_page_count", pages.to_string()),
            None => options,
        }
    }

    async fn open_inner(&self) -> Result<SqliteStore, Error> {
        let names = TableNames::new::<Sqlite>(self.names.clone(), None)?;
        self.prepare(&names, self.migrates).await?;
        let options = self.writing_options();
        // Set by the options, so that a connection that replaces a failed one has them too.
        let writer_options = options
            .clone()
            // Automatic checkpoints only if the background checkpoints fall far behind: at 64 MiB.
            .pragma("wal_autocheckpoint", "16384")
            // From here on callers wait, so the limit is shorter.
            .busy_timeout(Duration::from_secs(2));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(writer_options)
            .await
            .map_err(fail)?;
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
        let writer = WriterPool { pool: writer, setup: &[], is_of_host: false };
        let writer = Writer::start(writer, &names, 1, self.merge);
        Ok(SqlStore {
            reads,
            owns_reads: true,
            names,
            writer,
            housekeeping: Some(housekeeping),
            _background: background,
        })
    }

    /// Checks the file, and creates and migrates it if `migrates`.
    async fn prepare(&self, names: &Arc<TableNames>, migrates: bool) -> Result<(), Error> {
        self.check_pool().await?;
        // An empty file is a valid empty database. SQLite gives the log file the same permissions.
        if migrates && !self.path.exists() {
            let made = private_file::options().create(true).truncate(false).open(&self.path);
            made.map_err(|source| Error::new(unwritable(&source), "open").source(source))?;
        }
        // Check before anything is changed, so that another program's file stays unchanged.
        let (is_empty, status) = self.examine(names).await?;
        if !migrates {
            status.require_current()?;
        }
        for file in [self.path.clone(), log_of(&self.path), shared_memory_of(&self.path)] {
            // The host decides who can read its file.
            if !self.shared
                && file.exists()
                && let Err(error) = private_file::close_to_others(&file)
            {
                tracing::warn!(%error, file = %file.display(), "every user of this machine can read the database");
            }
        }
        if migrates {
            let mut connection = self.writing_options().connect().await.map_err(fail)?;
            migrate::<Sqlite>(&mut TableConnection { inner: &mut connection, names }, MIGRATIONS).await?;
            if is_empty && !self.shared {
                Sqlite::run(&mut connection, "PRAGMA application_id = 0x636f7570").await.map_err(fail)?;
            }
            connection.close().await.map_err(fail)?;
        }
        Ok(())
    }

    /// Checks the pool of the host.
    async fn check_pool(&self) -> Result<(), Error> {
        const SETTINGS: Sql = sql!(
            "SELECT COALESCE(file, ''), journal_mode, timeout FROM pragma_database_list, pragma_journal_mode, \
             pragma_busy_timeout WHERE name = 'main'"
        );
        let Some(pool) = &self.host_pool else { return Ok(()) };
        let wrong = |reason: &str| Err(Error::new(ErrorKind::Misconfigured, "open").context(reason));
        let asking = async {
            let mut connection = pool.acquire().await?;
            Sqlite::fetch_raw(&mut connection, Sqlite::text_of(SETTINGS).to_owned()).await
        };
        let rows = timeout(POOL_TIMEOUT, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let rows = rows.map_err(fail)?;
        let Some(row) = rows.first() else { return wrong("the host's pool shows no settings") };
        let mut row = Row::<Sqlite>::new(row);
        let (file, journal, busy): (String, String, i64) = (row.take()?, row.take()?, row.take()?);
        if file.is_empty() {
            return wrong("the database of the host's pool is in memory: use a file");
        }
        if !journal.eq_ignore_ascii_case("wal") {
            return wrong("connections of the host's pool must have the journal mode WAL");
        }
        if busy <= 0 {
            return wrong("connections of the host's pool must have a busy time-out, for example of 5 s");
        }
        Ok(())
    }

    /// Refuses a damaged file and another program's file.
    ///
    /// Returns whether the database is empty, and the missing migrations.
    async fn examine(&self, names: &TableNames) -> Result<(bool, SchemaStatus), Error> {
        const APPLICATION: Sql = sql!("SELECT application_id FROM pragma_application_id");
        const FIRST_TABLE: Sql = sql!("SELECT name FROM sqlite_schema ORDER BY name LIMIT 1");
        const HEALTH: Sql = sql!("PRAGMA quick_check(1)");
        if !self.path.exists() {
            return Ok((true, SchemaStatus::of(MIGRATIONS)));
        }
        let mut connection = self.connect_options().connect().await.map_err(fail)?;
        let mut named = TableConnection { inner: &mut connection, names };
        let first_table: Option<String> = first(&mut named, FIRST_TABLE).await?;
        let found = check::<Sqlite>(&mut named, MIGRATIONS).await?;
        if let Some(table) = &first_table {
            let application: Option<i64> = first(&mut named, APPLICATION).await?;
            if !found.has_record && !self.shared && application != Some(APPLICATION_ID) {
                return Err(Error::new(ErrorKind::Misconfigured, "open").context(format!(
                    "it is another program's database, with {table}: choose another file, or share it by `with_shared_file`"
                )));
            }
            if self.path.metadata().is_ok_and(|file| file.len() < 64 << 20) {
                let report: String = first(&mut named, HEALTH).await?.unwrap_or_else(|| "ok".to_owned());
                if report != "ok" {
                    return Err(Error::new(ErrorKind::Corrupt, "open").context(report.replace('\n', "; ")));
                }
            }
        }
        connection.close().await.map_err(fail)?;
        Ok((first_table.is_none(), found.status()))
    }
}

/// Value in the first column of the first row.
async fn first<T>(connection: &mut TableConnection<'_, Sqlite>, sql: Sql) -> Result<Option<T>, Error>
where
    Sqlite: ReadColumn<T>,
{
    let rows = Statement::<Sqlite>::new(sql).rows(connection).await.map_err(fail)?;
    rows.first().map(|row| Row::<Sqlite>::new(row).take()).transpose()
}
