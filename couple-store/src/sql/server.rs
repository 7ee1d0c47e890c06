//! Connecting to a database server: what MySQL, MariaDB and PostgreSQL have in common.

use std::{marker::PhantomData, time::Duration};

use couple_core::{Error, ErrorKind};
use sqlx::{ConnectOptions as _, Connection as _, Pool, pool::PoolOptions};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Dialect, Row, SqlStore, Statement,
    error::classify,
    migrate::{Migration, migrate},
    spelling::Sql,
    writer::Writer,
};

/// How long a server may take to accept a connection when a program starts.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection that nobody used for so long is asked whether it lives before it is lent.
const QUIET: Duration = Duration::from_millis(500);

type Options<D> = <<D as sqlx::Database>::Connection as sqlx::Connection>::Options;

/// A database server, and how its connections are made ready.
pub trait Server: Dialect {
    /// The server's name in messages.
    const CALLED: &'static str;
    /// What its URLs begin with.
    const SCHEMES: &'static [&'static str];
    /// The options that a URL may have after its `?`.
    const KNOWN: &'static [&'static str];
    /// Run on every connection: time-outs, isolation, strictness.
    const SESSION: &'static [&'static str];
    /// Asks for the version, as text.
    const VERSION: Sql;
    /// What to do about a version that is too old.
    ///
    /// # Errors
    /// A sentence that names the least version.
    fn check(version: &str) -> Result<(), String>;
    /// The schema, step by step.
    fn migrations() -> &'static [Migration];
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    fn options(url: &str) -> sqlx::Result<Options<Self>>;
    /// Host, port and database, without who signs in.
    fn place(options: &Options<Self>) -> String;
}

/// How a store on a database server is opened.
#[derive(Clone)]
pub struct ServerOptions<D> {
    url: String,
    connections: u32,
    merge: usize,
    dialect: PhantomData<D>,
}

impl<D> std::fmt::Debug for ServerOptions<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL holds a password.
        f.debug_struct("ServerOptions").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl<D: Server> ServerOptions<D> {
    /// The database at `url`: `scheme://user:password@host:port/database`, and options such as how TLS is used after `?`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections: 10, merge: 64, dialect: PhantomData }
    }
    /// Maximum number of connections. Half of them write; one of these is for commits that a lock blocks. Default: 10; fewer than 3
    /// count as 3.
    #[must_use]
    pub const fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }
    /// How many waiting commits become one transaction at most. Default: 64; 1 merges none.
    #[must_use]
    pub const fn merge(mut self, merge: usize) -> Self {
        self.merge = merge;
        self
    }

    /// Connects and brings the schema up to date. Processes that do so at once wait for one another.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a URL that cannot be meant, a wrong password, an unknown database, a server that is
    /// too old or of another kind, a newer schema; [`ErrorKind::Unavailable`] when nobody answers.
    pub async fn connect(self) -> Result<SqlStore<D>, Error> {
        let options = self.read_url()?;
        let place = D::place(&options);
        let told = |error: Error| {
            let kind = error.kind();
            Error::new(kind, "connect").context(format!("{} at {place}", D::CALLED)).source(error)
        };
        self.prepare(&options).await.map_err(told)?;
        // One of the writing connections is for blocked commits.
        let writing = (self.connections / 2).max(2);
        let readers = self.connections.saturating_sub(writing).max(1);
        let reads = pool::<D>(readers, options.clone());
        let writer = Writer::start(pool::<D>(writing, options), writing - 1, self.merge);
        Ok(SqlStore { reads, writer, housekeeping: None, _background: JoinSet::new() })
    }

    pub(super) fn read_url(&self) -> Result<Options<D>, Error> {
        let wrong = |said: String| Error::new(ErrorKind::Misconfigured, "connect").context(said);
        if !D::SCHEMES.iter().any(|scheme| self.url.starts_with(&format!("{scheme}://"))) {
            return Err(wrong(format!("the URL of {} begins with {}://", D::CALLED, D::SCHEMES[0])));
        }
        let query = self.url.split_once('?').map_or("", |(_, query)| query);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let name = option.split('=').next().unwrap_or(option);
            if !D::KNOWN.contains(&name) {
                let known = D::KNOWN.join(", ");
                return Err(wrong(format!(
                    "the URL of {} has an option `{name}`, which is none of {known}",
                    D::CALLED
                )));
            }
        }
        // The driver's message may quote the URL, and that the password.
        D::options(&self.url).map_err(|_| {
            wrong(format!(
                "the URL of {} cannot be read: {}://user:password@host:port/database",
                D::CALLED,
                D::SCHEMES[0]
            ))
        })
    }

    /// Looks who answers, and migrates.
    async fn prepare(&self, options: &Options<D>) -> Result<(), Error> {
        let fail = |error| classify::<D>("connect", error);
        let connected = timeout(PATIENCE, options.connect()).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "connect")
                .context(format!("nobody who speaks as {} does answered in 5 s", D::CALLED))
        })?;
        let mut connection = connected.map_err(|error| match error {
            sqlx::Error::Protocol(_) => Error::new(ErrorKind::Misconfigured, "connect")
                .context(format!("whoever answered does not speak as {} does", D::CALLED))
                .source(error),
            other => fail(other),
        })?;
        let rows = Statement::<D>::new(D::VERSION).rows(&mut connection).await.map_err(fail)?;
        let version: String = match rows.first() {
            Some(row) => Row::<D>::new(row).take()?,
            None => String::new(),
        };
        D::check(&version).map_err(|said| Error::new(ErrorKind::Misconfigured, "connect").context(said))?;
        migrate::<D>(&mut connection, D::migrations()).await?;
        connection.close().await.map_err(fail)
    }
}

fn pool<D: Server>(connections: u32, options: Options<D>) -> Pool<D> {
    PoolOptions::<D>::new()
        .max_connections(connections)
        .acquire_timeout(D::PATIENCE.unwrap_or(PATIENCE))
        // The check below, only for those that were quiet: a question before each use doubles what a read costs.
        .test_before_acquire(false)
        .before_acquire(|connection, seen| {
            Box::pin(async move {
                Ok(seen.idle_for < QUIET
                    || timeout(QUIET, connection.ping()).await.is_ok_and(|pong| pong.is_ok()))
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                for sql in D::SESSION {
                    D::run(connection, sql).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(options)
}
