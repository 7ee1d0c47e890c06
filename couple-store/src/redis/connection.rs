//! Connections to a single server, to the master named by Sentinels, or to a Cluster, for the pool.

use std::sync::Arc;

use redis::{
    AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, RedisFuture, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    sentinel::SentinelClient,
};
use tokio::sync::Mutex;

/// Connection manager of the pool.
#[derive(Clone)]
pub(super) enum Manager {
    One { client: Client, config: AsyncConnectionConfig },
    Sentinel { client: Arc<Mutex<SentinelClient>>, config: AsyncConnectionConfig },
    Cluster { client: ClusterClient, nodes: Vec<Client> },
}

enum ConnectionKind {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Connection that knows whether it is broken.
pub(super) struct RedisConnection {
    kind: ConnectionKind,
    broken: bool,
}

impl bb8::ManageConnection for Manager {
    type Connection = RedisConnection;
    type Error = RedisError;

    async fn connect(&self) -> Result<RedisConnection, RedisError> {
        let kind = match self {
            Self::One { client, config } => {
                ConnectionKind::Single(client.get_multiplexed_async_connection_with_config(config).await?)
            }
            Self::Sentinel { client, config } => {
                ConnectionKind::Single(client.lock().await.get_async_connection_with_config(config).await?)
            }
            Self::Cluster { client, .. } => ConnectionKind::Cluster(client.get_async_connection().await?),
        };
        Ok(RedisConnection { kind, broken: false })
    }
    async fn is_valid(&self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        redis::cmd("PING").query_async(connection).await
    }
    fn has_broken(&self, connection: &mut RedisConnection) -> bool {
        connection.broken
    }
}

impl RedisConnection {
    /// Marks the connection as broken if its server is down or is no longer the master.
    fn record_failure<T>(&mut self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        if let Err(error) = &answer
            && (error.is_io_error()
                || error.is_timeout()
                || error.is_unrecoverable_error()
                || error.code() == Some("READONLY"))
        {
            self.broken = true;
        }
        answer
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            // Mark the connection as broken while a command runs: after a cancellation the next response
            // would belong to it.
            let before = std::mem::replace(&mut self.broken, true);
            let answer = match &mut self.kind {
                ConnectionKind::Single(connection) => connection.req_packed_command(command).await,
                ConnectionKind::Cluster(connection) => connection.req_packed_command(command).await,
            };
            self.broken = before;
            self.record_failure(answer)
        })
    }
    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let before = std::mem::replace(&mut self.broken, true);
            let answer = match &mut self.kind {
                ConnectionKind::Single(connection) => {
                    connection.req_packed_commands(commands, offset, count).await
                }
                ConnectionKind::Cluster(connection) => {
                    connection.req_packed_commands(commands, offset, count).await
                }
            };
            self.broken = before;
            self.record_failure(answer)
        })
    }
    fn get_db(&self) -> i64 {
        match &self.kind {
            ConnectionKind::Single(connection) => connection.get_db(),
            ConnectionKind::Cluster(connection) => connection.get_db(),
        }
    }
}
