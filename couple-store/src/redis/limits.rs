//! Rate limiter shared by all processes, using GCRA in one atomic script.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Clock, Error, SystemClock, digest,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};
use redis::Script;
use tokio::time::Instant;

use super::Redis;
use crate::MemoryLimits;

/// Script of the generic cell rate algorithm for one key.
///
/// The stored value is the time in microseconds at which the bucket is full again.
///
/// Returns the time to wait, or 0 if a token was taken. It uses the clock of the Redis server, so that the
/// clocks of processes may differ. `whole` is never legitimately later than `now + step * burst`: a later
/// value was written while the server's clock was ahead. It is corrected, so that the key is not refused for
/// as long as the clock was ahead.
const TAKE_SCRIPT: &str = r"
local step, burst, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local whole = tonumber(redis.call('GET', KEYS[1]) or now)
if whole < now then whole = now end
if whole > now + step * burst then
  whole = now + step * burst
  redis.call('SET', KEYS[1], string.format('%.0f', whole), 'PX', math.ceil(step * burst / 1000) + 10000)
end
local wait = whole + step - now - step * burst
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', whole + step), 'PX', math.ceil((whole + step - now) / 1000) + 10000)
return 0
";

/// Time in microseconds after a failure in which Redis is not queried.
const RETRY_AFTER_FAILURE: i64 = 1_000_000;

/// Divisor of an allowance that one process grants by itself while Redis is down.
///
/// Four processes together then grant at most the full allowance; a single process grants a quarter of it.
const FALLBACK_SHARE: u32 = 4;

/// Rate limiter in Redis, shared by all processes.
///
/// While Redis is down, each process counts for itself with a quarter of each rule's burst and rate, at least
/// one token. A process also counts the requests that Redis counts, so that a key which the process has used
/// does not start with a full bucket when Redis fails.
pub struct RedisLimits {
    redis: Redis,
    script: Script,
    /// Clock used in place of the server's, in tests.
    clock: Option<Arc<dyn Clock>>,
    fallback: MemoryLimits,
    started_at: Instant,
    /// Time in microseconds since `started_at` until which Redis is not queried.
    retry_at: AtomicI64,
}

impl std::fmt::Debug for RedisLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLimits").field("redis", &self.redis).finish_non_exhaustive()
    }
}

impl RedisLimits {
    /// Uses the clock of the Redis server.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self::build(redis, None, Arc::new(SystemClock))
    }
    /// Uses `clock` in place of the server's clock, for tests.
    #[must_use]
    pub fn with_clock(redis: Redis, clock: Arc<dyn Clock>) -> Self {
        Self::build(redis, Some(clock.clone()), clock)
    }

    /// SHA-1 of the script, for benchmarks that call it themselves.
    #[doc(hidden)]
    #[must_use]
    pub fn script_hash(&self) -> &str {
        self.script.get_hash()
    }

    fn build(redis: Redis, clock: Option<Arc<dyn Clock>>, fallback: Arc<dyn Clock>) -> Self {
        Self {
            redis,
            script: Script::new(TAKE_SCRIPT),
            clock,
            fallback: MemoryLimits::new(fallback),
            started_at: Instant::now(),
            retry_at: AtomicI64::new(0),
        }
    }

    /// The rule with the share of its burst that this process grants by itself.
    fn share(rule: &Rule) -> Rule {
        Rule { burst: (rule.burst / FALLBACK_SHARE).max(1), ..*rule }
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Redis key of a bucket. Digested, because a limit key can contain an e-mail or client address.
    fn key(&self, rule: &Rule, key: &LimitKey) -> Vec<u8> {
        let mut name = format!("{}:limit:{}:", self.redis.prefix, rule.name).into_bytes();
        name.extend(&digest(&[key.as_str().as_bytes()]).as_bytes()[..16]);
        name
    }

    async fn take_from_redis(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let step = u64::try_from(rule.period.as_micros() / u128::from(rule.burst.max(1))).unwrap_or(u64::MAX);
        let mut call = self.script.prepare_invoke();
        call.key(self.key(rule, key)).arg(step).arg(rule.burst);
        if let Some(clock) = &self.clock {
            call.arg(clock.now().micros());
        } else {
            call.arg("");
        }
        let mut connection = self.redis.connection("rate limit").await?;
        let wait: u64 =
            call.invoke_async(&mut *connection).await.map_err(|error| super::failed("rate limit", error))?;
        Ok(if wait == 0 { Ok(()) } else { Err(Limited { retry_after: Duration::from_micros(wait) }) })
    }
}

#[async_trait]
impl RateLimiter for RedisLimits {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let fallback = self.fallback.take(&Self::share(rule), key).await?;
        if self.elapsed() >= self.retry_at.load(Ordering::Relaxed) {
            match self.take_from_redis(rule, key).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::warn!(%error, "Redis failed: this process counts rate limits by itself");
                    self.retry_at.store(self.elapsed() + RETRY_AFTER_FAILURE, Ordering::Relaxed);
                }
            }
        }
        Ok(fallback)
    }
}
