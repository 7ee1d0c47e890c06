//! Event bus between processes over PostgreSQL, on one channel of a database for each installation.

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind,
    live::{Bus, Notice, Subscription, Topic},
};
use sqlx::{
    ConnectOptions as _, PgConnection, Postgres,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::Mutex, time::timeout};

use super::{PostgresOptions, error::classify, server::Server as _, table_names::NameOptions};
use crate::remote_bus::{PING_INTERVAL, RemoteBus, RemoteReceiver, Transport};

/// Time limit of a statement, equal to the store's.
const STATEMENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
// NOTIFY holds a lock of the whole server until its transaction commits
// (postgresql.org/docs/current/sql-notify.html). So it is never part of a store's transaction, and one
// statement sends all waiting texts. NOTIFY also makes the transaction write to the write-ahead log;
// synchronous_commit is off, because notices need no durability and a flush would prolong the lock.
const NOTIFY: &str = "SELECT SET_CONFIG('synchronous_commit', 'off', TRUE), COUNT(PG_NOTIFY($1, text)) \
                      FROM UNNEST($2) AS text";

/// Event bus between processes over `LISTEN` and `NOTIFY`, for a host without Redis.
///
/// Notices within the process do not use PostgreSQL. The bus has two connections, which a connection pooler
/// must not share between transactions.
///
/// While PostgreSQL is down no notice reaches other processes, and publishers do not wait. After a reconnect
/// all subscribers get [`Notice::Changed`], because notices may have been lost. A signal of more than about
/// 7,800 bytes reaches its own process only. PostgreSQL merges equal messages of one transaction, which can
/// affect signals of about 3,900 bytes and more.
#[derive(Debug)]
pub struct PostgresBus(RemoteBus);

impl PostgresBus {
    /// Subscribes in the database of the options, which can be a URL only.
    ///
    /// All processes of an installation must use the same database, table prefix and schema; the store may be
    /// in another database. The channel is named after schema and prefix, so installations that share a
    /// database get no notices of one another.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for an invalid URL or prefix, a wrong password or an unknown database;
    /// [`ErrorKind::Unavailable`] when no server responds.
    pub async fn start(options: impl Into<PostgresOptions>) -> Result<Self, Error> {
        let store_options = options.into();
        store_options.names.check()?;
        let channel = channel_of(&store_options.names);
        let mut options = store_options.connect_options()?;
        let address = Postgres::address(&options);
        if options.get_application_name().is_none() {
            options = options.application_name("couple bus");
        }
        let start = async {
            let sender = Mutex::new(Some(within("connect", options.connect()).await?));
            RemoteBus::start(PostgresTransport { options, channel, sender }).await
        };
        start.await.map(Self).map_err(|error| {
            Error::new(error.kind(), "listen").context(format!("PostgreSQL at {address}")).source(error)
        })
    }
}

/// Channel of an installation.
fn channel_of(names: &NameOptions) -> String {
    let place = names.schema.as_ref().map_or_else(String::new, |schema| format!("{schema}."));
    format!("{place}{}notices", names.prefix)
}

struct PostgresTransport {
    options: PgConnectOptions,
    channel: String,
    sender: Mutex<Option<PgConnection>>,
}

impl Transport for PostgresTransport {
    const NAME: &'static str = "PostgreSQL";
    const MAX_TEXT_BYTES: usize = 7_999;
    type Subscription = PgListener;

    async fn subscribe(&self) -> Result<PgListener, Error> {
        let subscribing = async {
            // A pool per listener, because a dropped listener keeps its connection until the server responds.
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(&self.channel).await?;
            Ok(listener)
        };
        within("subscribe", subscribing).await
    }

    async fn receive(mut listener: PgListener, receiver: &RemoteReceiver) {
        loop {
            match timeout(PING_INTERVAL, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => receiver.take(notification.payload().as_bytes()).await,
                Ok(_) => return,
                Err(_) => {
                    let pong = sqlx::query("SELECT 1").execute(&mut listener);
                    if !timeout(PING_INTERVAL, pong).await.is_ok_and(|pong| pong.is_ok()) {
                        return;
                    }
                }
            }
        }
    }

    async fn publish(&self, texts: &[String]) -> Result<(), Error> {
        let mut sender = self.sender.lock().await;
        // Put the connection back only after it has responded.
        let mut connection = match sender.take() {
            Some(connection) => connection,
            None => within("connect", self.options.connect()).await?,
        };
        let sending = sqlx::query(NOTIFY).bind(&self.channel).bind(texts).execute(&mut connection);
        within("publish", sending).await?;
        *sender = Some(connection);
        Ok(())
    }
}

async fn within<T>(operation: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    match timeout(STATEMENT_TIMEOUT, work).await {
        Ok(done) => done.map_err(|error| classify::<Postgres>(operation, error)),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, operation).context("PostgreSQL does not respond")),
    }
}

#[async_trait]
impl Bus for PostgresBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        self.0.publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.0.subscribe(topics).await
    }
}
