//! L1–L6: rate limiter.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Clock as _, ManualClock,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};

const RULE: Rule = Rule { name: "test", burst: 5, period: Duration::from_secs(50) };

fn key(name: &str) -> LimitKey {
    LimitKey::new("test", name)
}

async fn take(limiter: &impl RateLimiter, name: &str) -> Result<(), Limited> {
    limiter.take(&RULE, &key(name)).await.unwrap()
}

async fn take_burst(limiter: &impl RateLimiter, name: &str) {
    for _ in 0..5 {
        take(limiter, name).await.unwrap();
    }
}

/// A new bucket has `burst` tokens, and no more.
pub async fn l1_new_key_has_burst_tokens(limiter: impl RateLimiter, _: &ManualClock) {
    take_burst(&limiter, "a").await;
    assert!(take(&limiter, "a").await.is_err());
    assert!(take(&limiter, "a").await.is_err());
}

/// A bucket gains one token after `period / burst`, and is full after `period`.
pub async fn l2_bucket_refills_over_its_period(limiter: impl RateLimiter, clock: &ManualClock) {
    take_burst(&limiter, "a").await;
    clock.advance(Duration::from_secs(9));
    assert!(take(&limiter, "a").await.is_err());
    clock.advance(Duration::from_secs(1));
    take(&limiter, "a").await.unwrap();
    assert!(take(&limiter, "a").await.is_err());
    clock.advance(Duration::from_secs(50));
    take_burst(&limiter, "a").await;
    assert!(take(&limiter, "a").await.is_err());
}

/// Different keys and different rules do not share a bucket.
pub async fn l3_keys_and_rules_do_not_share_a_bucket(limiter: impl RateLimiter, _: &ManualClock) {
    take_burst(&limiter, "a").await;
    take_burst(&limiter, "b").await;
    let other = Rule { name: "other", ..RULE };
    assert_eq!(limiter.take(&other, &key("a")).await.unwrap(), Ok(()));
}

/// A retry succeeds after the returned time.
pub async fn l4_retry_after_the_stated_time_succeeds(limiter: impl RateLimiter, clock: &ManualClock) {
    take_burst(&limiter, "a").await;
    let limited = take(&limiter, "a").await.unwrap_err();
    assert!(limited.retry_after > Duration::ZERO && limited.retry_after <= Duration::from_secs(10));
    clock.advance(limited.retry_after);
    take(&limiter, "a").await.unwrap();
}

/// Many concurrent callers get exactly `burst` tokens.
pub async fn l5_concurrent_callers_get_exactly_burst_tokens(limiter: impl RateLimiter, _: &ManualClock) {
    let limiter = Arc::new(limiter);
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { usize::from(take(&*limiter, "a").await.is_ok()) })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += task.await.unwrap();
    }
    assert_eq!(taken, 5);
}

/// A wall clock that jumps ahead and is corrected does not freeze a bucket.
///
/// A retry after the returned time always succeeds.
pub async fn l6_corrected_clock_does_not_freeze_a_bucket(limiter: impl RateLimiter, clock: &ManualClock) {
    let right = clock.now();
    clock.set(right.plus(Duration::from_hours(24)));
    take_burst(&limiter, "a").await;
    clock.set(right);
    for _ in 0..10 {
        if let Err(limited) = take(&limiter, "a").await {
            assert!(limited.retry_after <= Duration::from_secs(10), "{limited:?}");
            clock.advance(limited.retry_after);
            take(&limiter, "a").await.unwrap();
        }
    }
    clock.advance(Duration::from_secs(50));
    take_burst(&limiter, "a").await;
    assert!(take(&limiter, "a").await.is_err());
}
