//! A custom rate limiter: the generic cell rate algorithm (GCRA) over a hash map, checked by `couple-conformance`.
//!
//! `cargo run --example own_limits` uses it, `cargo test --example own_limits` checks it.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Clock, Error, ErrorKind,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};

/// Number of buckets from which full ones are removed.
const MIN_SWEEP: usize = 1_024;

/// Token buckets in the memory of one process. A full bucket needs no memory: it is the same as a new one.
struct GcraLimits {
    clock: Arc<dyn Clock>,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    /// Latest time that was read: a clock that goes back neither fills nor freezes a bucket (L6).
    now: Duration,
    /// Time at which each bucket is full again. All that a bucket needs follows from it.
    full_at: HashMap<(Rule, LimitKey), Duration>,
    /// Number of buckets that starts the next sweep.
    sweep_at: usize,
}

impl GcraLimits {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let buckets = Buckets { now: Duration::ZERO, full_at: HashMap::new(), sweep_at: MIN_SWEEP };
        Self { clock, buckets: Mutex::new(buckets) }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).full_at.len()
    }
}

impl Buckets {
    fn take(&mut self, rule: &Rule, key: &LimitKey, token: Duration) -> Result<(), Limited> {
        let bucket = (*rule, key.clone());
        let full_at = self.full_at.get(&bucket).copied().unwrap_or_default().max(self.now);
        // Each missing token delays the time at which the bucket is full. If this take delays it by more than a
        // whole bucket, the bucket is empty.
        let (full_at, limit) = (full_at.saturating_add(token), self.now.saturating_add(token * rule.burst));
        if full_at > limit {
            return Err(Limited { retry_after: full_at - limit });
        }
        self.full_at.insert(bucket, full_at);
        Ok(())
    }

    /// Removes the buckets that are full. Each sweep waits until the map has doubled, so a take costs constant time on average.
    fn sweep(&mut self) {
        if self.full_at.len() >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > self.now);
            self.full_at.shrink_to(self.full_at.len() * 2);
            self.sweep_at = MIN_SWEEP.max(self.full_at.len() * 2);
        }
    }
}

#[async_trait]
impl RateLimiter for GcraLimits {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let token =
            rule.period.checked_div(rule.burst).filter(|token| !token.is_zero()).ok_or_else(|| {
                Error::new(ErrorKind::Misconfigured, "rate limit")
                    .context(format!("rule {}: burst and period must not be 0", rule.name))
            })?;
        // One lock for all keys, held for less than a microsecond, makes concurrent takes exact (L5).
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.now = buckets.now.max(self.clock.monotonic());
        buckets.sweep();
        Ok(buckets.take(rule, key, token))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = GcraLimits::new(Arc::new(couple::SystemClock));
    let backend = couple::Backend::builder().limits(limits).build()?;
    let sign_up =
        couple::account::SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
    let mut accepted = 0;
    let refusal = loop {
        match backend.accounts()?.sign_up(&couple::RequestContext::default(), &sign_up).await {
            Ok(()) => accepted += 1,
            Err(refusal) => break refusal,
        }
    };
    println!("{accepted} sign-ups with one address were accepted, then: {refusal}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use couple::ManualClock;

    use super::*;

    couple_conformance::limits!(|clock| async { GcraLimits::new(clock) });

    #[tokio::test]
    async fn full_buckets_are_removed() {
        let clock = Arc::new(ManualClock::default());
        let limits = GcraLimits::new(clock.clone());
        let rule = Rule { name: "test", burst: 3, period: Duration::from_secs(30) };
        for n in 0..100_000 {
            clock.advance(Duration::from_millis(10));
            limits.take(&rule, &LimitKey::new("client", n)).await.unwrap().unwrap();
        }
        // A bucket is full again after 10 s: 1,000 are not full.
        assert!(limits.len() <= 2 * MIN_SWEEP, "{} buckets", limits.len());
    }
}
