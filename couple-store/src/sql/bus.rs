//! Notices between processes over PostgreSQL, on one channel of the database.

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

use super::{PostgresOptions, error::classify, server::Server as _};
use crate::between::{Between, Ear, Medium, PULSE};

/// What a statement may take, as the store's may.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
const CHANNEL: &str = "couple";
// NOTIFY takes a lock on its whole server until its transaction is committed (postgresql.org/docs/current/sql-notify.html), so it is
// never part of a store's, and one statement sends all that waits. It makes the transaction one that is written to the log: that
// the disk has it matters to nobody, and would have others wait for the lock meanwhile.
const NOTIFY: &str = "SELECT SET_CONFIG('synchronous_commit', 'off', TRUE), COUNT(PG_NOTIFY($1, text)) \
                      FROM UNNEST($2) AS text";

/// Carries notices between processes over PostgreSQL's `LISTEN` and `NOTIFY`: for a host with PostgreSQL and without Redis. A process
/// hears itself without it. It takes two connections of its own, which a pooler must not share between transactions.
///
/// While PostgreSQL is away nothing is carried, and nobody is held up; when it is back every listener is told to look once, since
/// notices may have been missed. A signal of more than about 7,800 bytes is heard in its own process only; of
/// messages that are the same and wait to be sent at once, one is, which concerns signals of about 3,900 bytes and more.
#[derive(Debug)]
pub struct PostgresBus(Between);

impl PostgresBus {
    /// Begins to listen in the database at `url`, as [`PostgresOptions::new`] takes it: that of the processes to be heard. The store
    /// may be another.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a URL that cannot be meant, a wrong password, an unknown database;
    /// [`ErrorKind::Unavailable`] when nobody answers.
    pub async fn start(url: impl Into<String>) -> Result<Self, Error> {
        let mut options = PostgresOptions::new(url).read_url()?;
        let place = Postgres::place(&options);
        if options.get_application_name().is_none() {
            options = options.application_name("couple bus");
        }
        let start = async {
            let sender = Mutex::new(Some(within("connect", options.connect()).await?));
            Between::start(Link { options, sender }).await
        };
        start.await.map(Self).map_err(|error| {
            Error::new(error.kind(), "listen").context(format!("PostgreSQL at {place}")).source(error)
        })
    }
}

struct Link {
    options: PgConnectOptions,
    sender: Mutex<Option<PgConnection>>,
}

impl Medium for Link {
    const CALLED: &'static str = "PostgreSQL";
    const LONGEST: usize = 7_999;
    type Subscription = PgListener;

    async fn subscribe(&self) -> Result<PgListener, Error> {
        let subscribing = async {
            // A pool for each, since a listener that is dropped keeps its connection until the server answers.
            let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.options.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        within("subscribe", subscribing).await
    }

    async fn hear(mut listener: PgListener, ear: &Ear) {
        loop {
            match timeout(PULSE, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => ear.take(notification.payload().as_bytes()).await,
                Ok(_) => return,
                Err(_) => {
                    let pong = sqlx::query("SELECT 1").execute(&mut listener);
                    if !timeout(PULSE, pong).await.is_ok_and(|pong| pong.is_ok()) {
                        return;
                    }
                }
            }
        }
    }

    async fn publish(&self, texts: &[String]) -> Result<(), Error> {
        let mut sender = self.sender.lock().await;
        // Put back only once it has answered.
        let mut connection = match sender.take() {
            Some(connection) => connection,
            None => within("connect", self.options.connect()).await?,
        };
        let sending = sqlx::query(NOTIFY).bind(CHANNEL).bind(texts).execute(&mut connection);
        within("publish", sending).await?;
        *sender = Some(connection);
        Ok(())
    }
}

async fn within<T>(operation: &'static str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
    match timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| classify::<Postgres>(operation, error)),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, operation).context("PostgreSQL does not answer")),
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
