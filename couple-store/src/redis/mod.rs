//! Redis adapters: event bus, rate limiter and presence for many processes.
//!
//! They store no data that must survive.
//!
//! | adapter | while Redis is unavailable |
//! |---|---|
//! | [`RedisBus`] | notices reach only this process; other processes read the store at their fallback interval, and immediately after they reconnect |
//! | [`RedisLimits`] | each process counts for itself with a quarter of each allowance |
//! | [`RedisPresence`] | accounts that were present stay so until their lease expires |

mod bus;
mod connection;
mod limits;
mod presence;

pub use bus::RedisBus;
pub use limits::RedisLimits;
pub use presence::RedisPresence;

use std::time::Duration;

use couple_core::{Error, ErrorKind};
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo as _, TlsMode,
    aio::PubSub,
    cluster::ClusterClientBuilder,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::time::timeout;

use connection::Manager;

/// Time limit of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
const SCHEMES: &str = "redis://HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT, \
                       with rediss for TLS and USER:PASSWORD@ before the hosts";

/// Connection pool to Redis. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    pool: bb8::Pool<Manager>,
    manager: Manager,
    prefix: std::sync::Arc<str>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("connections", &self.pool.state().connections).finish_non_exhaustive()
    }
}

fn failed(operation: &'static str, error: redis::RedisError) -> Error {
    let kind = match error.kind() {
        redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
            ErrorKind::Misconfigured
        }
        _ if error.is_timeout() => ErrorKind::TimedOut,
        _ if error.is_io_error() || error.is_unrecoverable_error() || error.is_cluster_error() => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Internal,
    };
    Error::new(kind, operation).context("Redis").source(error)
}

impl Redis {
    /// Connects, and checks the connection. The pool has up to `connections` connections.
    ///
    /// The URL names one server (`redis://host:port`), Sentinels that name the master
    /// (`redis+sentinel://host:port,host:port/service`) or a Cluster (`redis+cluster://host:port,host:port`);
    /// `rediss` uses TLS. User and password in the URL are for the servers; Sentinels are queried without them.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for an invalid URL or a wrong password; [`ErrorKind::Unavailable`] when
    /// no server responds.
    pub async fn connect(url: &str, connections: u32) -> Result<Self, Error> {
        let manager = manager(url)?;
        let pool = bb8::Pool::builder()
            .max_size(connections.max(1))
            .connection_timeout(CONNECT_TIMEOUT)
            // A broken connection is detected when it is used.
            .test_on_check_out(false)
            .retry_connection(false)
            .build_unchecked(manager.clone());
        // Connect without the pool, whose error says only that a timeout occurred.
        let first = async {
            let mut connection = bb8::ManageConnection::connect(&manager).await?;
            bb8::ManageConnection::is_valid(&manager, &mut connection).await
        };
        match timeout(CONNECT_TIMEOUT * 3, first).await {
            Ok(answered) => answered.map_err(|error| failed("connect", error))?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "connect").context("Redis does not respond"));
            }
        }
        Ok(Self { pool, manager, prefix: "couple".into() })
    }

    /// Sets the prefix of keys and channels, by default `couple`.
    ///
    /// Installations with different prefixes can share a Redis server.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    async fn connection(&self, operation: &'static str) -> Result<bb8::PooledConnection<'_, Manager>, Error> {
        self.pool.get().await.map_err(|error| match error {
            bb8::RunError::User(error) => failed(operation, error),
            bb8::RunError::TimedOut => {
                Error::new(ErrorKind::Unavailable, operation).context("no connection to Redis in time")
            }
        })
    }
}

/// Connection manager for a URL. Errors do not contain the URL, because it may contain a password.
fn manager(url: &str) -> Result<Manager, Error> {
    let wrong =
        || Error::new(ErrorKind::Misconfigured, "connect").context(format!("the URL of Redis is {SCHEMES}"));
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (plain, many) = match scheme.split_once('+') {
        None => (scheme, None),
        Some((plain, many)) => (plain, Some(many)),
    };
    if !matches!(plain, "redis" | "rediss") {
        return Err(wrong());
    }
    let Some(many) = many else {
        let client = Client::open(url).map_err(|_| wrong())?;
        return Ok(Manager::One { client, config });
    };
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let nodes = hosts
        .split(',')
        .map(|host| format!("{plain}://{user}{host}").into_connection_info().map_err(|_| wrong()))
        .collect::<Result<Vec<_>, _>>()?;
    match many {
        "cluster" if path.is_empty() => {
            let mut hints = nodes
                .iter()
                .cloned()
                .map(Client::open)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| wrong())?;
            hints.truncate(16);
            let client = ClusterClientBuilder::new(nodes)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .retries(3)
                .build()
                .map_err(|_| wrong())?;
            Ok(Manager::Cluster { client, nodes: hints })
        }
        "sentinel" if !path.is_empty() && !path.contains('/') => {
            let first = nodes[0].redis_settings();
            let addresses = nodes.iter().map(|node| node.addr().clone());
            let mut builder = SentinelClientBuilder::new(addresses, path, SentinelServerType::Master)
                .map_err(|_| wrong())?;
            // The URLs apply to the Sentinels; the connection to the master needs the same settings.
            if plain == "rediss" {
                builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            }
            if let Some(password) = first.password() {
                builder = builder.set_client_to_redis_password(password);
            }
            if let Some(user) = first.username() {
                builder = builder.set_client_to_redis_username(user);
            }
            let client = builder.build().map_err(|_| wrong())?;
            Ok(Manager::Sentinel { client: tokio::sync::Mutex::new(client).into(), config })
        }
        _ => Err(wrong()),
    }
}

/// Creates a connection that is used for subscriptions only.
async fn pubsub(manager: &Manager) -> Result<PubSub, Error> {
    let connecting = async {
        match manager {
            Manager::One { client, .. } => client.get_async_pubsub().await,
            Manager::Sentinel { client, .. } => {
                let master = client.lock().await.async_get_client().await?;
                master.get_async_pubsub().await
            }
            // A Cluster forwards a published message to all of its nodes, so any node will do.
            Manager::Cluster { nodes, .. } => {
                let mut last = None;
                for node in nodes {
                    match timeout(CONNECT_TIMEOUT / 2, node.get_async_pubsub()).await {
                        Ok(Ok(connection)) => return Ok(connection),
                        Ok(Err(error)) => last = Some(error),
                        Err(_) => {}
                    }
                }
                Err(last.unwrap_or_else(|| (redis::ErrorKind::Io, "no node responds").into()))
            }
        }
    };
    match timeout(CONNECT_TIMEOUT * 2, connecting).await {
        Ok(connected) => connected.map_err(|error| failed("subscribe", error)),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, "subscribe").context("Redis")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_url_is_refused_without_showing_it() {
        for url in [
            "redis://127.0.0.1:6379",
            "rediss://u:p@h:1/2",
            "redis+sentinel://:p@a:1,b:2,c:3/couple",
            "redis+cluster://a:1,b:2",
        ] {
            assert!(manager(url).is_ok(), "{url}");
        }
        for url in [
            "127.0.0.1:6379",
            "mysql://h",
            "redis+sentinel://sesame@a:1",
            "redis+ring://a:1",
            "redis+cluster://u:sesame@a:1/2",
        ] {
            let Err(error) = manager(url) else { panic!("{url} is taken") };
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }
}
