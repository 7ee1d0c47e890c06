//! Connections to a database server: the common part of MySQL, MariaDB and PostgreSQL.

use std::{marker::PhantomData, time::Duration};

use couple_core::{Error, ErrorKind};
use sqlx::{ConnectOptions as _, Connection as _, Pool, pool::PoolOptions};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Dialect, Row, SqlStore, Statement,
    dialect_text::Sql,
    error::classify,
    migrate::{Migration, migrate},
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
    dialect: PhantomData<D>,
}

impl<D> std::fmt::Debug for ServerOptions<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL contains a password.
        f.debug_struct("ServerOptions").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl<D: Server> ServerOptions<D> {
    /// Sets the URL: `scheme://user:password@host:port/database`.
    ///
    /// Options, such as those of TLS, follow after `?`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections: 10, merge: 64, dialect: PhantomData }
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

    /// Connects and migrates the schema. Concurrent processes wait for one another.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for an invalid URL, a wrong password, an unknown database, a server that
    /// is too old or of another kind, or a newer schema; [`ErrorKind::Unavailable`] when no server responds.
    pub async fn connect(self) -> Result<SqlStore<D>, Error> {
        let options = self.read_url()?;
        let address = D::address(&options);
        let with_address = |error: Error| {
            let kind = error.kind();
            Error::new(kind, "connect").context(format!("{} at {address}", D::ENGINE_NAME)).source(error)
        };
        self.prepare(&options).await.map_err(with_address)?;
        // One of the writing connections is for blocked commits.
        let writing = (self.connections / 2).max(2);
        let readers = self.connections.saturating_sub(writing).max(1);
        let reads = pool::<D>(readers, options.clone());
        let writer = Writer::start(pool::<D>(writing, options), writing - 1, self.merge);
        Ok(SqlStore { reads, writer, housekeeping: None, _background: JoinSet::new() })
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

    /// Checks the server's version, and migrates the schema.
    async fn prepare(&self, options: &Options<D>) -> Result<(), Error> {
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
        let rows = Statement::<D>::new(D::VERSION_QUERY).rows(&mut connection).await.map_err(fail)?;
        let version: String = match rows.first() {
            Some(row) => Row::<D>::new(row).take()?,
            None => String::new(),
        };
        D::check(&version)
            .map_err(|reason| Error::new(ErrorKind::Misconfigured, "connect").context(reason))?;
        migrate::<D>(&mut connection, D::migrations()).await?;
        connection.close().await.map_err(fail)
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
