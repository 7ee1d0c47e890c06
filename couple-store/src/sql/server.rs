//! Connections to a database server: the common part of MySQL, MariaDB and PostgreSQL.

use std::{sync::Arc, time::Duration};

use couple_core::{Error, ErrorKind};
use sqlx::{
    ConnectOptions as _, Connection as _, Pool,
    pool::{PoolConnection, PoolOptions},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Dialect, Row, SchemaStatus, SqlStore, TableConnection, TableNames,
    dialect::ReadColumn,
    dialect_text::Sql,
    error::classify,
    migrate::{Migration, RECORD_TABLE, check, migrate},
    table_names::NameOptions,
    writer::{Writer, WriterPool},
};

/// Time limit of the first connection, and of a query on it before the schema is migrated.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time after which a connection is checked before use; also the time limit of the check.
const CHECK_AFTER_IDLE: Duration = Duration::from_millis(500);

type Options<D> = <<D as sqlx::Database>::Connection as sqlx::Connection>::Options;

/// Database server, and the setup of its connections.
pub trait Server: Dialect {
    /// Name of the server in messages.
    const ENGINE_NAME: &'static str;
    /// Schemes of its URLs.
    const SCHEMES: &'static [&'static str];
    /// Options that a URL may have after its `?`.
    const URL_OPTIONS: &'static [&'static str];
    /// Statements for every new connection: time-outs, isolation level, strictness.
    const SESSION_SETUP: &'static [&'static str];
    /// Query whether a connection of the host's pool can be used: 1 or 0.
    const POOL_CHECK: &'static str;
    /// Message of a pool that cannot be used.
    const POOL_REQUIREMENT: &'static str;
    /// Query for the version, as text.
    const VERSION_QUERY: Sql;
    /// Checks that a version is supported.
    ///
    /// # Errors
    /// Message that names the minimum version.
    fn check(version: &str) -> Result<(), String>;
    /// Migrations of the schema.
    fn migrations() -> &'static [Migration];
    /// Parses a URL.
    ///
    /// # Errors
    /// The URL is invalid.
    fn options(url: &str) -> sqlx::Result<Options<Self>>;
    /// Query for the schema or database in which a new connection finds `table`, or would create it.
    fn location(options: &Options<Self>, table: &str) -> String;
    /// Host, port and database, without credentials.
    fn address(options: &Options<Self>) -> String;
}

/// Where the connections of a store come from.
enum ConnectionSource<D: sqlx::Database> {
    /// Pools of the store, to the database with this URL.
    Url(String),
    /// A pool of the host.
    Pool(Pool<D>),
}

/// Number of connections by default, if the host has its own pool.
const CONNECTIONS_OF_HOST_POOL: u32 = 4;

/// Settings of a store on a database server.
pub struct ServerOptions<D: sqlx::Database> {
    source: ConnectionSource<D>,
    connections: u32,
    merge: usize,
    pub(super) names: NameOptions,
    migrates: bool,
}

impl<D: sqlx::Database> Clone for ServerOptions<D> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            ConnectionSource::Url(url) => ConnectionSource::Url(url.clone()),
            ConnectionSource::Pool(pool) => ConnectionSource::Pool(pool.clone()),
        };
        Self { source, names: self.names.clone(), ..*self }
    }
}

impl<D: sqlx::Database> std::fmt::Debug for ServerOptions<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL contains a password.
        f.debug_struct("ServerOptions")
            .field("connections", &self.connections)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl<D: Server> ServerOptions<D> {
    /// Sets the URL: `scheme://user:password@host:port/database`.
    ///
    /// Options, such as those of TLS, follow after `?`.
    pub fn new(url: impl Into<String>) -> Self {
        Self::with_source(ConnectionSource::Url(url.into()), 10)
    }

    /// Uses the connections of a pool of the host.
    ///
    /// The store takes half of [`with_max_connections`](Self::with_max_connections), by default 2 of 4, out of
    /// the pool for as long as it is open, to write, and another one while commits with statements of the host
    /// run: only on these it sets time-outs, isolation level and strictness, as on its own. It borrows others for
    /// each read, changes no setting of them, and closes one whose read has no response in 2 s. So the pool must
    /// have two connections more than the store keeps. The store closes its connections when it, or the pool, is
    /// closed. It never closes the pool.
    ///
    /// Requirements of the connections: encoding UTF-8 (`utf8mb4` in MySQL), `autocommit` in MySQL, not read-only.
    /// They are the defaults of sqlx, and are checked when the store is opened. The store then looks up the schema
    /// or the database of its tables, and names it in each statement. So a connection can have another
    /// `search_path`, or use another database, later.
    #[must_use]
    pub fn of_pool(pool: Pool<D>) -> Self {
        Self::with_source(ConnectionSource::Pool(pool), CONNECTIONS_OF_HOST_POOL)
    }

    fn with_source(source: ConnectionSource<D>, connections: u32) -> Self {
        Self { source, connections, merge: 64, names: NameOptions::default(), migrates: true }
    }

    /// Sets the maximum number of connections. Default: 10, or 4 with a pool of the host; the minimum is 3.
    ///
    /// Half of them write; one of these is for commits that a lock blocks. Commits with statements of the host use
    /// one more while they run.
    #[must_use]
    pub const fn with_max_connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }
    /// Sets the maximum number of waiting commits per transaction. Default: 64; 1 disables merging.
    #[must_use]
    pub const fn with_max_merged_commits(mut self, merge: usize) -> Self {
        self.merge = merge;
        self
    }

    /// Sets the prefix of the names of tables and indexes. Default: `couple_`.
    ///
    /// It begins with a to z, has only a to z, 0 to 9 and `_`, and at most 24 characters; or it is empty.
    /// Installations with different prefixes can share a database.
    #[must_use]
    pub fn with_table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.prefix = prefix.into();
        self
    }
    /// Sets whether [`connect`](Self::connect) migrates the schema. Default: true.
    ///
    /// If false, `connect` refuses a database that lacks a migration, so the account of the process needs no
    /// privilege to create tables.
    #[must_use]
    pub const fn with_migration_on_connect(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// Connects and migrates the schema. Concurrent processes wait for one another.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for an invalid URL, prefix or schema, a wrong password, an unknown database,
    /// a server that is too old or of another kind, tables of another program with our names, or a newer or
    /// changed schema; [`ErrorKind::Unavailable`] when no server responds.
    pub async fn connect(self) -> Result<SqlStore<D>, Error> {
        let options = self.connect_options()?;
        self.names.check()?;
        // One of the writing connections is for blocked commits.
        let writing = (self.connections / 2).max(2);
        let prepared = self.located(&options, async {
            self.check_pool(writing).await?;
            let (names, status) = self.prepare(&options, self.migrates).await?;
            status.require_current()?;
            Ok(names)
        });
        let names = prepared.await?;
        let (reads, writes) = match self.source {
            ConnectionSource::Pool(pool) => {
                (pool.clone(), WriterPool { pool, setup: D::SESSION_SETUP, is_of_host: true })
            }
            ConnectionSource::Url(_) => {
                let readers = self.connections.saturating_sub(writing).max(1);
                // One more is open while commits with statements of the host run.
                let pool = own_pool::<D>(writing + 1, options.clone());
                (own_pool::<D>(readers, options), WriterPool { pool, setup: &[], is_of_host: false })
            }
        };
        let owns_reads = !writes.is_of_host;
        let writer = Writer::start(writes, &names, writing - 1, self.merge);
        Ok(SqlStore { reads, owns_reads, names, writer, housekeeping: None, _background: JoinSet::new() })
    }

    /// Migrates the schema. Concurrent processes wait for one another.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn migrate(&self) -> Result<(), Error> {
        let options = self.connect_options()?;
        self.names.check()?;
        self.located(&options, self.prepare(&options, true)).await.map(drop)
    }

    /// Finds the missing migrations and changes nothing.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn check(&self) -> Result<SchemaStatus, Error> {
        let options = self.connect_options()?;
        self.names.check()?;
        self.located(&options, self.prepare(&options, false)).await.map(|(_, status)| status)
    }

    /// Adds the address of the server to an error.
    async fn located<T>(
        &self,
        options: &Options<D>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        work.await.map_err(|error| {
            let place = format!("{} at {}", D::ENGINE_NAME, D::address(options));
            Error::new(error.kind(), "connect").context(place).source(error)
        })
    }

    /// Options of a connection to the database.
    pub(super) fn connect_options(&self) -> Result<Options<D>, Error> {
        match &self.source {
            ConnectionSource::Url(url) => Self::read_url(url),
            ConnectionSource::Pool(pool) => Ok((*pool.connect_options()).clone()),
        }
    }

    fn read_url(url: &str) -> Result<Options<D>, Error> {
        let wrong = |reason: String| Error::new(ErrorKind::Misconfigured, "connect").context(reason);
        if !D::SCHEMES.iter().any(|scheme| url.starts_with(&format!("{scheme}://"))) {
            return Err(wrong(format!("the URL of {} begins with {}://", D::ENGINE_NAME, D::SCHEMES[0])));
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let name = option.split('=').next().unwrap_or(option);
            if !D::URL_OPTIONS.contains(&name) {
                let known = D::URL_OPTIONS.join(", ");
                return Err(wrong(format!(
                    "the URL of {} has an option `{name}` that is not supported; supported options are {known}",
                    D::ENGINE_NAME
                )));
            }
        }
        // Drop the driver's message: it may quote the URL with its password.
        D::options(url).map_err(|_| {
            wrong(format!(
                "the URL of {} cannot be read: {}://user:password@host:port/database",
                D::ENGINE_NAME,
                D::SCHEMES[0]
            ))
        })
    }

    /// Checks a pool of the host: its size, and the settings of its connections.
    async fn check_pool(&self, writing: u32) -> Result<(), Error> {
        let ConnectionSource::Pool(pool) = &self.source else { return Ok(()) };
        let wrong = |reason: String| Err(Error::new(ErrorKind::Misconfigured, "connect").context(reason));
        let (size, needed) = (pool.options().get_max_connections(), writing + 2);
        if size < needed {
            return wrong(format!(
                "the pool of the host has at most {size} connections, of which the store takes {writing}, and one more \
                 for statements of the host: allow at least {needed}"
            ));
        }
        let mut connection = self.first_connection().await?;
        let is_usable: Option<i64> = ask::<D, _>(&mut connection, D::POOL_CHECK.to_owned()).await?;
        connection.close().await.map_err(|error| classify::<D>("connect", error))?;
        if is_usable == Some(1) { Ok(()) } else { wrong(D::POOL_REQUIREMENT.to_owned()) }
    }

    /// A connection of the same source as the store's, to prepare the database.
    async fn first_connection(&self) -> Result<D::Connection, Error> {
        let connecting = async {
            match &self.source {
                ConnectionSource::Url(url) => {
                    let options = Self::read_url(url)?;
                    Ok(options.connect().await)
                }
                // Its settings, such as the search path, are those of the pool's other connections.
                ConnectionSource::Pool(pool) => Ok(pool.acquire().await.map(PoolConnection::detach)),
            }
        };
        let connected = timeout(STARTUP_TIMEOUT, connecting).await.map_err(|_| no_response::<D>())?;
        connected?.map_err(|error| match error {
            sqlx::Error::Protocol(_) => Error::new(ErrorKind::Misconfigured, "connect")
                .context(format!("the server does not use the protocol of {}", D::ENGINE_NAME))
                .source(error),
            other => classify::<D>("connect", other),
        })
    }

    /// Checks the server's version and the schema, and migrates it if `migrates`.
    ///
    /// Returns the names of the tables, and the migrations that are still missing.
    async fn prepare(
        &self,
        options: &Options<D>,
        migrates: bool,
    ) -> Result<(Arc<TableNames>, SchemaStatus), Error> {
        let mut connection = self.first_connection().await?;
        let version: Option<String> =
            ask::<D, _>(&mut connection, D::text_of(D::VERSION_QUERY).to_owned()).await?;
        D::check(&version.unwrap_or_default())
            .map_err(|reason| Error::new(ErrorKind::Misconfigured, "connect").context(reason))?;
        let record = self.names.bare(RECORD_TABLE);
        let location: Option<Option<String>> =
            ask::<D, _>(&mut connection, D::location(options, &record)).await?;
        let names = TableNames::new::<D>(self.names.clone(), location.flatten())?;
        let mut named = TableConnection { inner: &mut connection, names: &names };
        let status = if migrates {
            migrate::<D>(&mut named, D::migrations()).await?;
            SchemaStatus::of([])
        } else {
            check::<D>(&mut named, D::migrations()).await?.status()
        };
        connection.close().await.map_err(|error| classify::<D>("connect", error))?;
        Ok((names, status))
    }
}

fn no_response<D: Server>() -> Error {
    Error::new(ErrorKind::Unavailable, "connect")
        .context(format!("no {} server responded within 5 s", D::ENGINE_NAME))
}

/// First column of the first row that a query returns; none without a row.
async fn ask<D: Server + ReadColumn<T>, T>(
    connection: &mut D::Connection,
    query: String,
) -> Result<Option<T>, Error> {
    let asked = timeout(STARTUP_TIMEOUT, D::fetch_raw(connection, query)).await;
    let rows = asked.map_err(|_| no_response::<D>())?.map_err(|error| classify::<D>("connect", error))?;
    rows.first().map(|row| Row::<D>::new(row).take()).transpose()
}

impl<D: Server> From<&str> for ServerOptions<D> {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl<D: Server> From<&String> for ServerOptions<D> {
    fn from(url: &String) -> Self {
        Self::new(url)
    }
}

impl<D: Server> From<String> for ServerOptions<D> {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

/// Pool of the store.
fn own_pool<D: Server>(connections: u32, options: Options<D>) -> Pool<D> {
    PoolOptions::<D>::new()
        .max_connections(connections)
        .acquire_timeout(D::TRANSACTION_TIMEOUT.unwrap_or(STARTUP_TIMEOUT))
        // Check only idle connections, below: a check before each use would double the cost of a read.
        .test_before_acquire(false)
        .before_acquire(|connection, seen| {
            Box::pin(async move {
                Ok(seen.idle_for < CHECK_AFTER_IDLE
                    || timeout(CHECK_AFTER_IDLE, connection.ping()).await.is_ok_and(|pong| pong.is_ok()))
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                for sql in D::SESSION_SETUP {
                    D::run(connection, sql).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(options)
}
