//! Rate limiter with faults: GCRA over one map.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Clock, Error,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};

use crate::planted;

/// Time at which each bucket is full again.
pub(crate) struct FaultyLimits {
    clock: Arc<dyn Clock>,
    full_at: Mutex<HashMap<(&'static str, String), Duration>>,
}

impl FaultyLimits {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, full_at: Mutex::default() }
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
        let full_at = all.entry((rule_name, name)).or_default();
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
