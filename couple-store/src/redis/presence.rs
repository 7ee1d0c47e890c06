//! Presence for all processes: Redis keys that expire.

use std::time::Duration;

use async_trait::async_trait;
use couple_core::{AccountId, Error, live::Presence};

use super::{Redis, failed};

/// Presence leases as keys that expire by the clock of the Redis server. Fails while Redis is down.
#[derive(Debug, Clone)]
pub struct RedisPresence(Redis);

impl RedisPresence {
    /// Stores leases in this Redis.
    #[must_use]
    pub const fn new(redis: Redis) -> Self {
        Self(redis)
    }

    fn key(&self, account: AccountId) -> String {
        format!("{}:here:{account}", self.0.prefix)
    }
}

/// Duration of a lease, for a Redis command.
fn milliseconds(lease: Duration) -> u64 {
    u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl Presence for RedisPresence {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        let mut connection = self.0.connection("presence").await?;
        let mut command = redis::cmd("SET");
        command.arg(self.key(account)).arg(1).arg("PX").arg(milliseconds(lease)).arg("GET");
        let before: Option<u8> =
            command.query_async(&mut *connection).await.map_err(|error| failed("presence", error))?;
        Ok(before.is_none())
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        let mut connection = self.0.connection("presence").await?;
        let mut command = redis::cmd("PEXPIRE");
        command.arg(self.key(account)).arg(milliseconds(lease)).arg("LT");
        command.query_async(&mut *connection).await.map_err(|error| failed("presence", error))
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        let mut connection = self.0.connection("presence").await?;
        let mut command = redis::cmd("PTTL");
        command.arg(self.key(account));
        let left: i64 =
            command.query_async(&mut *connection).await.map_err(|error| failed("presence", error))?;
        Ok(u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_millis))
    }
}
