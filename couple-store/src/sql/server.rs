//! Connections to a database server: the common part of MySQL, MariaDB and PostgreSQL.

use std::{marker::PhantomData, time::Duration};

use couple_core::{Error, ErrorKind};
use sqlx::{ConnectOptions as _, Connection as _, Pool, pool::PoolOptions};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Dialect, Row, SchemaStatus, SqlStore, Statement, TableConnection, TableNames,
    dialect_text::Sql,
    error::classify,
    migrate::{Migration, check, migrate},
    table_names::NameOptions,
    writer::Writer,
};

/// Time limit of the first connection.
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
    /// Host, port and database, without credentials.
    fn address(options: &Options<Self>) -> String;
}

/// Settings of a store on a database server.
#[derive(Clone)]
pub struct ServerOptions<D> {
    url: String,
    connections: u32,
    merge: usize,
    pub(super) names: NameOptions,
    migrates: bool,
    dialect: PhantomData<D>,
}

impl<D> std::fmt::Debug for ServerOptions<D> {
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
        Self {
            url: url.into(),
            connections: 10,
            merge: 64,
            names: NameOptions::default(),
            migrates: true,
            dialect: PhantomData,
        }
    }
    /// Sets the maximum number of connections. Default: 10; the minimum is 3.
    ///
    /// Half of them write; one of these is for commits that a lock blocks.
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
        let (options, names) = (self.read_url()?, TableNames::new::<D>(self.names.clone())?);
        self.located(&options, async {
            let status = self.prepare(&options, &names, self.migrates).await?;
            status.require_current()
        })
        .await?;
        // One of the writing connections is for blocked commits.
        let writing = (self.connections / 2).max(2);
        let readers = self.connections.saturating_sub(writing).max(1);
        let reads = pool::<D>(readers, options.clone());
        let writer = Writer::start(pool::<D>(writing, options), &names, writing - 1, self.merge);
        Ok(SqlStore { reads, names, writer, housekeeping: None, _background: JoinSet::new() })
    }

    /// Migrates the schema. Concurrent processes wait for one another.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn migrate(&self) -> Result<(), Error> {
        let (options, names) = (self.read_url()?, TableNames::new::<D>(self.names.clone())?);
        self.located(&options, self.prepare(&options, &names, true)).await.map(drop)
    }

    /// Finds the missing migrations and changes nothing.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn check(&self) -> Result<SchemaStatus, Error> {
        let (options, names) = (self.read_url()?, TableNames::new::<D>(self.names.clone())?);
        self.located(&options, self.prepare(&options, &names, false)).await
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

    pub(super) fn read_url(&self) -> Result<Options<D>, Error> {
        let wrong = |reason: String| Error::new(ErrorKind::Misconfigured, "connect").context(reason);
        if !D::SCHEMES.iter().any(|scheme| self.url.starts_with(&format!("{scheme}://"))) {
            return Err(wrong(format!("the URL of {} begins with {}://", D::ENGINE_NAME, D::SCHEMES[0])));
        }
        let query = self.url.split_once('?').map_or("", |(_, query)| query);
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
        D::options(&self.url).map_err(|_| {
            wrong(format!(
                "the URL of {} cannot be read: {}://user:password@host:port/database",
                D::ENGINE_NAME,
                D::SCHEMES[0]
            ))
        })
    }

    /// Checks the server's version and the schema, and migrates it if `migrates`. Returns what is missing then.
    async fn prepare(
        &self,
        options: &Options<D>,
        names: &TableNames,
        migrates: bool,
    ) -> Result<SchemaStatus, Error> {
        let fail = |error| classify::<D>("connect", error);
        let connected = timeout(STARTUP_TIMEOUT, options.connect()).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "connect")
                .context(format!("no {} server responded within 5 s", D::ENGINE_NAME))
        })?;
        let mut connection = connected.map_err(|error| match error {
            sqlx::Error::Protocol(_) => Error::new(ErrorKind::Misconfigured, "connect")
                .context(format!("the server does not use the protocol of {}", D::ENGINE_NAME))
                .source(error),
            other => fail(other),
        })?;
        let mut named = TableConnection { inner: &mut connection, names };
        let rows = Statement::<D>::new(D::VERSION_QUERY).rows(&mut named).await.map_err(fail)?;
        let version: String = match rows.first() {
            Some(row) => Row::<D>::new(row).take()?,
            None => String::new(),
        };
        D::check(&version)
            .map_err(|reason| Error::new(ErrorKind::Misconfigured, "connect").context(reason))?;
        let status = if migrates {
            migrate::<D>(&mut named, D::migrations()).await?;
            SchemaStatus::of([])
        } else {
            check::<D>(&mut named, D::migrations()).await?.status()
        };
        connection.close().await.map_err(fail)?;
        Ok(status)
    }
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

fn pool<D: Server>(connections: u32, options: Options<D>) -> Pool<D> {
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
