//! L1–L7: rate limiter.

use std::{future::ready, sync::Arc, time::Duration};

use couple_core::{
    Clock as _, ManualClock,
    limits::{LimitKey, Limited, RateLimiter, Rule},
};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use crate::{
    Breakable,
    outage::{CALL_LIMIT, recovers, require_outage},
};

/// Number of keys of which no two share a bucket.
const KEYS: usize = 20_000;
const RULE: Rule = Rule { name: "test", burst: 5, period: Duration::from_secs(50) };

fn key(name: &str) -> LimitKey {
    LimitKey::new("test", name)
}

async fn take(limiter: &impl RateLimiter, name: &str) -> Result<(), Limited> {
    limiter.take(&RULE, &key(name)).await.unwrap()
}

/// Takes the burst of a bucket, and expects that it is then empty.
async fn take_burst(limiter: &impl RateLimiter, name: &str) {
    for taken in 0..5 {
        let token = take(limiter, name).await;
        assert!(token.is_ok(), "a full bucket has fewer than its burst of 5 tokens: {taken}");
    }
    assert!(take(limiter, name).await.is_err(), "a bucket has more than its burst of 5 tokens");
}

/// A new bucket has `burst` tokens, and no more.
pub async fn l1_new_key_has_burst_tokens(limiter: impl RateLimiter, _: &ManualClock) {
    take_burst(&limiter, "a").await;
    assert!(take(&limiter, "a").await.is_err(), "a bucket has more than its burst of 5 tokens");
}

/// A bucket gains one token per `period / burst`, less than 2 ms early and never late, and is full after `period`.
pub async fn l2_bucket_refills_over_its_period(limiter: impl RateLimiter, clock: &ManualClock) {
    // No whole second, so that a clock of seconds is seen.
    clock.advance(Duration::from_millis(301));
    take_burst(&limiter, "a").await;
    clock.advance(Duration::from_millis(9_999));
    for _ in 0..3 {
        assert!(
            take(&limiter, "a").await.is_err(),
            "a bucket gains a token too early: after 9.999 s instead of 10"
        );
    }
    clock.advance(Duration::from_millis(1));
    assert!(take(&limiter, "a").await.is_ok(), "a bucket gains a token too late: not after 10 s");
    assert!(take(&limiter, "a").await.is_err(), "a bucket gains a token too early: two after 10 s");
    let short = Rule { name: "short", burst: 3, period: Duration::from_millis(1_500) };
    let take_short = || async { limiter.take(&short, &key("a")).await.unwrap() };
    for _ in 0..3 {
        assert!(take_short().await.is_ok(), "a full bucket has fewer than its burst of 3 tokens");
    }
    clock.advance(Duration::from_millis(499));
    assert!(take_short().await.is_err(), "a bucket gains a token too early: after 499 ms instead of 500");
    clock.advance(Duration::from_millis(1));
    assert!(take_short().await.is_ok(), "a bucket gains a token too late: not after 500 ms");
    clock.advance(Duration::from_secs(50));
    take_burst(&limiter, "a").await;
    // The time of a token is no whole number of seconds, milliseconds or microseconds.
    for (name, burst, period) in [("thirds", 3, 10_000), ("sevenths", 7, 1_000)] {
        let rule = Rule { name, burst, period: Duration::from_millis(period) };
        let take = || async { limiter.take(&rule, &key("a")).await.unwrap() };
        for _ in 0..burst {
            assert!(take().await.is_ok(), "a full bucket has fewer than its burst of {burst} tokens");
        }
        let mut passed = 0;
        for token in 1..=u64::from(burst) {
            let due = (period * token).div_ceil(u64::from(burst));
            clock.advance(Duration::from_millis(due - 2 - passed));
            assert!(
                take().await.is_err(),
                "a bucket gains a token too early: number {token} of {burst} in {period} ms, 2 ms before {due} ms"
            );
            clock.advance(Duration::from_millis(2));
            assert!(
                take().await.is_ok(),
                "a bucket gains a token too late: number {token} of {burst} in {period} ms, not after {due} ms"
            );
            passed = due;
        }
    }
    for (name, hours) in [("hour", 1), ("day", 24)] {
        let rule = Rule { name, burst: 4, period: Duration::from_hours(hours) };
        let take = || async { limiter.take(&rule, &key("a")).await.unwrap() };
        for _ in 0..4 {
            assert!(take().await.is_ok(), "a full bucket has fewer than its burst of 4 tokens");
        }
        clock.advance(rule.period / 4 - Duration::from_millis(2));
        let (early, due) = (take().await, rule.period / 4);
        assert!(early.is_err(), "a bucket of {hours} h gains a token too early: 2 ms before {due:?}");
        clock.advance(Duration::from_millis(2));
        assert!(take().await.is_ok(), "a bucket of {hours} h gains a token too late: not after {due:?}");
    }
}

/// Different keys and different rules do not share a bucket, however similar they are.
pub async fn l3_keys_and_rules_do_not_share_a_bucket(limiter: impl RateLimiter, _: &ManualClock) {
    let long = "k".repeat(300);
    let names =
        ["a", "A", "a ", " a", "b", "a:", "á", "a\u{301}", "a/64", "", "*", &long, &format!("{long}.")];
    for name in names {
        for _ in 0..5 {
            let token = take(&limiter, name).await;
            assert!(token.is_ok(), "two keys share a bucket: {name:?} has fewer than 5 tokens");
        }
    }
    for (kind, rule) in [("test", "other"), ("other", "test"), ("Test", "test"), ("test", "Test")] {
        let rule = Rule { name: rule, ..RULE };
        let token = limiter.take(&rule, &LimitKey::new(kind, "a")).await.unwrap();
        assert!(token.is_ok(), "two kinds of keys or two rules share a bucket: {kind} and {}", rule.name);
    }
    // A bucket is neither shared nor forgotten because there are many.
    let once = Rule { name: "once", burst: 1, ..RULE };
    let take_once = |n: usize| {
        let (limiter, once) = (&limiter, &once);
        async move { limiter.take(once, &key(&format!("many{n}"))).await.unwrap().is_ok() }
    };
    assert!(take_once(0).await, "a full bucket has no token");
    let shared = stream::iter(1..KEYS).map(take_once).buffer_unordered(64);
    let shared = shared.filter(|is_taken| ready(!is_taken)).count().await;
    assert_eq!(shared, 0, "of {KEYS} keys, {shared} share a bucket with another one");
    // The first and the last one, and others between them: a limiter may drop the oldest, the newest or any buckets.
    for n in (0..KEYS).step_by(KEYS / 100).chain([KEYS - 1]) {
        assert!(!take_once(n).await, "the empty bucket of key {n} is forgotten while {KEYS} keys are used");
    }
}

/// A retry succeeds after the returned time, and not much earlier.
pub async fn l4_retry_after_the_stated_time_succeeds(limiter: impl RateLimiter, clock: &ManualClock) {
    for millis in [0, 1, 499, 1_001, 9_990] {
        clock.advance(Duration::from_secs(100));
        take_burst(&limiter, "a").await;
        clock.advance(Duration::from_millis(millis));
        let wait = take(&limiter, "a").await.unwrap_err().retry_after;
        let most = Duration::from_millis(10_000 - millis);
        assert!(
            !wait.is_zero() && wait <= most,
            "retry_after is {wait:?} where a token comes after {most:?}"
        );
        clock.advance(wait);
        let retry = take(&limiter, "a").await;
        assert!(retry.is_ok(), "a retry after retry_after, {wait:?}, is refused");
    }
    // A token comes after a third of a second, or at a time that no float has.
    let rules = [(3, Duration::from_secs(1)), (7, Duration::from_secs(10)), (300, Duration::from_mins(1))];
    for (burst, period) in rules {
        let rule = Rule { name: "fractions", burst, period };
        let take = async || limiter.take(&rule, &key("a")).await.unwrap();
        clock.advance(Duration::from_micros(1_000_003));
        while take().await.is_ok() {
            clock.advance(Duration::from_micros(7));
        }
        for round in 0..200_u64 {
            clock.advance(Duration::from_micros(round * 37 % 1_009));
            if let Err(limited) = take().await {
                let wait = limited.retry_after;
                // The clock counts microseconds.
                clock.advance(wait + Duration::from_nanos(999));
                let retry = take().await;
                assert!(
                    retry.is_ok(),
                    "{burst} per {period:?}: a retry after retry_after, {wait:?}, is refused"
                );
            }
        }
    }
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
    assert_eq!(taken, 5, "64 concurrent callers got {taken} tokens of a burst of 5");
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
            let wait = limited.retry_after;
            assert!(
                wait <= Duration::from_secs(10),
                "a corrected clock freezes a bucket: retry_after is {wait:?}"
            );
            clock.advance(wait);
            assert!(take(&limiter, "a").await.is_ok(), "a corrected clock makes a retry after {wait:?} fail");
        }
    }
    clock.advance(Duration::from_secs(50));
    take_burst(&limiter, "a").await;
}

/// During an outage a limiter grants at most what it grants otherwise, and nothing to a key that is used up. After it, a new key has
/// exactly `burst` tokens again.
pub async fn l7_outage_grants_no_more<L: RateLimiter>(limiter: Breakable<L>, _: &ManualClock) {
    let (limiter, outage) = limiter.into_parts();
    let granted = async |name: &str| {
        let mut granted = 0;
        for _ in 0..20 {
            let (rule, key) = (&RULE, key(name));
            let result = timeout(CALL_LIMIT, limiter.take(rule, &key)).await;
            match result.expect("a take does not return during an outage") {
                Ok(taken) => granted += usize::from(taken.is_ok()),
                Err(error) => require_outage("a take", &error),
            }
        }
        granted
    };
    let before = granted("used").await;
    assert_eq!(before, 5, "a bucket has {before} tokens instead of its burst of 5");
    outage.begin();
    let again = granted("used").await;
    assert_eq!(again, 0, "an outage fills an empty bucket: it grants {again} tokens");
    let fresh = granted("fresh").await;
    assert!(fresh <= 5, "during an outage, a bucket grants {fresh} tokens instead of at most its burst of 5");
    outage.end();
    let mut tries = 0;
    recovers("a new bucket has not its burst of 5 tokens", async || {
        tries += 1;
        (granted(&format!("after{tries}")).await == 5).then_some(())
    })
    .await;
}
