//! Rate limiter within one process, using GCRA from the crate `governor`.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    ops::Add,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use couple_core::{
    Clock, Error, ErrorKind,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};
use governor::{
    Quota, RateLimiter as Governor, clock::Reference, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::DashMapStateStore,
};

/// Number of takes between two sweeps that remove full buckets.
const SWEEP_EVERY: u32 = 10_000;

/// Rate limiter in the memory of this process. A restart resets it.
pub struct MemoryLimits {
    clock: MonotonicClock,
    rules: Mutex<HashMap<Rule, Arc<Keyed>>>,
    taken: AtomicU32,
}

type Keyed = Governor<LimitKey, DashMapStateStore<LimitKey>, MonotonicClock, NoOpMiddleware<Micros>>;

impl std::fmt::Debug for MemoryLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLimits").finish_non_exhaustive()
    }
}

impl MemoryLimits {
    /// Creates a rate limiter that uses the monotonic time of `clock`.
    ///
    /// So corrections of the wall clock neither fill nor freeze a bucket.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let clock = MonotonicClock { clock, latest: Arc::new(AtomicI64::new(i64::MIN)) };
        Self { clock, rules: Mutex::default(), taken: AtomicU32::new(0) }
    }

    fn governor(&self, rule: &Rule) -> Result<Arc<Keyed>, Error> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyed) = rules.get(rule) {
            return Ok(keyed.clone());
        }
        let wrong = || Error::new(ErrorKind::Misconfigured, "rate limit").context(rule.name);
        let burst = NonZeroU32::new(rule.burst).ok_or_else(wrong)?;
        // A period above a year overflows governor's arithmetic with a large burst, and no rate limit needs
        // one.
        if rule.period > std::time::Duration::from_hours(24 * 366) {
            return Err(wrong());
        }
        let quota = Quota::with_period(rule.period / burst.get()).ok_or_else(wrong)?.allow_burst(burst);
        let keyed = Arc::new(Keyed::dashmap_with_clock(quota, self.clock.clone()));
        rules.insert(*rule, keyed.clone());
        Ok(keyed)
    }

    fn sweep(&self) {
        let all: Vec<Arc<Keyed>> =
            self.rules.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for keyed in all {
            keyed.retain_recent();
            keyed.shrink_to_fit();
        }
    }
}

#[async_trait]
impl RateLimiter for MemoryLimits {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let keyed = self.governor(rule)?;
        if self.taken.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.sweep();
        }
        Ok(keyed.check_key(key).map_err(|until| {
            let now = governor::clock::Clock::now(&self.clock);
            Limited { retry_after: until.wait_time_from(now) }
        }))
    }
}

/// Monotonic time of the injected clock.
///
/// It keeps the latest reading, because the monotonic time of an injected clock may go back.
#[derive(Clone)]
struct MonotonicClock {
    clock: Arc<dyn Clock>,
    latest: Arc<AtomicI64>,
}

impl governor::clock::Clock for MonotonicClock {
    type Instant = Micros;
    fn now(&self) -> Micros {
        let now = i64::try_from(self.clock.monotonic().as_micros()).unwrap_or(i64::MAX);
        Micros(self.latest.fetch_max(now, Ordering::Relaxed).max(now))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Micros(i64);

impl Add<Nanos> for Micros {
    type Output = Self;
    fn add(self, nanos: Nanos) -> Self {
        Self(self.0.saturating_add(i64::try_from(nanos.as_u64().div_ceil(1_000)).unwrap_or(i64::MAX)))
    }
}

impl Reference for Micros {
    fn duration_since(&self, earlier: Self) -> Nanos {
        let micros = u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0);
        Nanos::new(micros.saturating_mul(1_000))
    }
    fn saturating_sub(&self, duration: Nanos) -> Self {
        let micros = i64::try_from(duration.as_u64() / 1_000).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}
