//! Rate limits that all processes count together, by GCRA in one atomic script.

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

/// The generic cell rate algorithm over one key: the time at which the allowance would be whole again, in microseconds.
/// Returns how long to wait, 0 when it was taken. By the server's clock, so that those of the processes may differ.
/// `whole` is never legitimately later than `now + step * burst`; a later value was written while the server's clock was
/// ahead, and is corrected, so that a key does not stay refused for as long as the clock was ahead.
const TAKE: &str = r"
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

/// After a failure Redis is left alone for so long, in microseconds.
const REST: i64 = 1_000_000;

/// Share of an allowance that one process grants by itself while Redis is away. Four processes together then grant at
/// most what Redis grants; one process alone grants a quarter.
const FALLBACK_SHARE: u32 = 4;

/// Rate limits in Redis: one count for all processes.
///
/// While Redis is away each process counts for itself, by a quarter of each rule's burst and rate, at least one. Each
/// request that Redis counts is counted in this process too, so that a key that this process has used does not start
/// anew when Redis goes away.
pub struct RedisLimits {
    redis: Redis,
    script: Script,
    /// Tells the time instead of the server, in tests.
    clock: Option<Arc<dyn Clock>>,
    alone: MemoryLimits,
    begun: Instant,
    /// Until when Redis is not asked, in microseconds since `begun`.
    resting: AtomicI64,
}

impl std::fmt::Debug for RedisLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLimits").field("redis", &self.redis).finish_non_exhaustive()
    }
}

impl RedisLimits {
    /// Counts in this Redis, by its clock.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self::build(redis, None, Arc::new(SystemClock))
    }
    /// Counts by this clock instead: for tests.
    #[must_use]
    pub fn with_clock(redis: Redis, clock: Arc<dyn Clock>) -> Self {
        Self::build(redis, Some(clock.clone()), clock)
    }

    /// What the script is called by, for benches that call it from elsewhere.
    #[doc(hidden)]
    #[must_use]
    pub fn script_hash(&self) -> &str {
        self.script.get_hash()
    }

    fn build(redis: Redis, clock: Option<Arc<dyn Clock>>, alone: Arc<dyn Clock>) -> Self {
        Self {
            redis,
            script: Script::new(TAKE),
            clock,
            alone: MemoryLimits::new(alone),
            begun: Instant::now(),
            resting: AtomicI64::new(0),
        }
    }

    /// Share of a rule that this process grants by itself.
    fn share(rule: &Rule) -> Rule {
        Rule { burst: (rule.burst / FALLBACK_SHARE).max(1), ..*rule }
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Keys name addresses of people, which are not for whoever reads Redis.
    fn key(&self, rule: &Rule, key: &LimitKey) -> Vec<u8> {
        let mut name = format!("{}:limit:{}:", self.redis.prefix, rule.name).into_bytes();
        name.extend(&digest(&[key.as_str().as_bytes()]).as_bytes()[..16]);
        name
    }

    async fn ask(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let step = u64::try_from(rule.period.as_micros() / u128::from(rule.burst.max(1))).unwrap_or(u64::MAX);
        let mut call = self.script.prepare_invoke();
        call.key(self.key(rule, key)).arg(step).arg(rule.burst);
        if let Some(clock) = &self.clock {
            call.arg(clock.now().micros());
        } else {
            call.arg("");
        }
        let mut link = self.redis.link("rate limit").await?;
        let wait: u64 =
            call.invoke_async(&mut *link).await.map_err(|error| super::failed("rate limit", error))?;
        Ok(if wait == 0 { Ok(()) } else { Err(Limited { retry_after: Duration::from_micros(wait) }) })
    }
}

#[async_trait]
impl RateLimiter for RedisLimits {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let alone = self.alone.take(&Self::share(rule), key).await?;
        if self.elapsed() >= self.resting.load(Ordering::Relaxed) {
            match self.ask(rule, key).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::warn!(%error, "limits are counted by this process alone");
                    self.resting.store(self.elapsed() + REST, Ordering::Relaxed);
                }
            }
        }
        Ok(alone)
    }
}
