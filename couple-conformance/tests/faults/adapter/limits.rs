//! Rate limiter with faults: GCRA over one map.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple_conformance::{AlternatingLimiter, Breakable};
use couple_core::{
    Clock, Error, ErrorKind,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};

use super::EngineState;
use crate::planted;

/// Number of buckets of a limiter that keeps too few.
const FEW_BUCKETS: usize = 2_000;

/// Rule and key of a bucket.
type Bucket = (&'static str, String);

/// Time at which each bucket is full again.
#[derive(Clone)]
pub(crate) struct FaultyLimits {
    clock: Arc<dyn Clock>,
    full_at: Arc<Mutex<HashMap<Bucket, Duration>>>,
    /// Latest new bucket, for a fault that evicts it.
    latest: Arc<Mutex<Option<Bucket>>>,
    storage: EngineState,
}

impl FaultyLimits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, full_at: Arc::default(), latest: Arc::default(), storage: EngineState::default() }
    }

    /// Rate limiters of two processes.
    pub(crate) fn of_two_processes(clock: Arc<dyn Clock>) -> AlternatingLimiter {
        let one = Self::new(clock.clone());
        let other = if planted("limits-count-per-process") { Self::new(clock) } else { one.clone() };
        AlternatingLimiter::new(one, other)
    }

    /// Rate limiter whose storage fails and works again.
    pub(crate) fn breakable(clock: Arc<dyn Clock>) -> Breakable<Self> {
        let limits = Self::new(clock);
        let storage = limits.storage.clone();
        Breakable::new(limits, move |fails| storage.set_down(fails))
    }

    /// Result of a call during an outage; none if the storage works.
    async fn outage(&self, rule: &Rule, key: &LimitKey) -> Option<Result<Result<(), Limited>, Error>> {
        let lasts = self.storage.has_failed() && planted("limits-outage-lasts");
        if !self.storage.is_down() && !lasts {
            return None;
        }
        if planted("limits-outage-hangs") {
            std::future::pending::<()>().await;
        }
        let bucket = (rule.name, key.as_str().to_owned());
        let is_new = !self.full_at.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&bucket);
        if planted("limits-outage-grants-everything") || (is_new && planted("limits-outage-grants-new-keys"))
        {
            return Some(Ok(Ok(())));
        }
        let kind =
            if planted("limits-outage-is-a-bug") { ErrorKind::Internal } else { ErrorKind::Unavailable };
        Some(Err(Error::new(kind, "rate limit").context("planned outage")))
    }

    /// Makes room for a new bucket. Returns whether it is kept.
    fn keeps_new_bucket(&self, all: &mut HashMap<Bucket, Duration>, bucket: &Bucket) -> bool {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).replace(bucket.clone());
        if all.len() < FEW_BUCKETS {
            return true;
        }
        if planted("limits-evict-the-latest-of-2000-buckets") {
            latest.and_then(|latest| all.remove(&latest));
        }
        !planted("limits-keep-the-first-2000-buckets")
    }

    fn now(&self) -> Duration {
        if planted("limits-use-the-wall-clock") {
            return Duration::from_micros(u64::try_from(self.clock.now().micros()).unwrap_or(0));
        }
        let now = self.clock.monotonic();
        if planted("limits-refill-in-whole-seconds") { Duration::from_secs(now.as_secs()) } else { now }
    }
}

#[async_trait]
impl RateLimiter for FaultyLimits {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        if let Some(result) = self.outage(rule, key).await {
            return result;
        }
        let now = self.now();
        let mut name = key.as_str().to_owned();
        if planted("limits-fold-keys") {
            name = name.to_lowercase();
        }
        if planted("limits-share-one-bucket") {
            name.clear();
        }
        if planted("limits-hash-keys-to-few-buckets") {
            name =
                (name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)))
                    % 65_537)
                    .to_string();
        }
        let rule_name = if planted("limits-rules-share-a-bucket") { "" } else { rule.name };
        let per_token = rule.period / rule.burst;
        let burst = match rule.burst {
            burst if planted("limits-allow-one-more") => burst + 1,
            burst if planted("limits-allow-one-less") => burst - 1,
            burst => burst,
        };
        let micros = u64::try_from(per_token.as_micros()).unwrap_or(u64::MAX);
        let interval = match per_token {
            _ if planted("limits-refill-too-fast") => per_token / 2,
            _ if planted("limits-interval-is-cut-to-seconds") => Duration::from_secs(per_token.as_secs()),
            _ if planted("limits-interval-is-cut-to-milliseconds") => Duration::from_millis(micros / 1_000),
            _ if planted("limits-interval-is-rounded-up") => Duration::from_millis(micros.div_ceil(1_000)),
            interval if planted("limits-interval-is-at-most-ten-minutes") => {
                interval.min(Duration::from_mins(10))
            }
            interval => interval,
        };
        let before = planted("limits-read-then-write").then(|| {
            let all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(&(rule_name, name.clone())).copied().unwrap_or_default()
        });
        if before.is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > 10_000 && planted("limits-forget-old-buckets") {
            all.clear();
        }
        let bucket = (rule_name, name);
        if !all.contains_key(&bucket) && !self.keeps_new_bucket(&mut all, &bucket) {
            return Ok(Ok(()));
        }
        let full_at = all.entry(bucket).or_default();
        if let Some(before) = before {
            *full_at = before;
        }
        let next = (*full_at).max(now) + interval;
        if next > now + interval * burst {
            let retry_after = next - now - interval * burst;
            let retry_after = match retry_after {
                _ if planted("limits-retry-after-is-zero") => Duration::ZERO,
                _ if planted("limits-retry-after-is-the-period") => rule.period,
                wait if planted("limits-retry-after-is-floored") => Duration::from_secs(wait.as_secs()),
                wait => wait,
            };
            if planted("limits-refusals-take-a-token") {
                *full_at = next;
            }
            return Ok(Err(Limited { retry_after }));
        }
        *full_at = next;
        Ok(Ok(()))
    }
}
