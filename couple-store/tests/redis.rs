//! Redis adapters on one server, behind Sentinels and on a Cluster pass the conformance kit.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::{sync::Arc, time::Duration};

use couple_conformance::{AlternatingBus, AlternatingLimiter, Breakable};
use couple_core::{
    Clock, ErrorKind, SystemClock,
    limits::{LimitKey, RateLimiter as _, Rule},
    live::{Bus as _, Notice, Topic},
};
use couple_store::redis::{Redis, RedisBus, RedisLimits, RedisPresence};

mod support;

use support::{engine::Engine, proxy::Proxy};

/// Connects with a prefix of keys for each name: all checks use the same ids.
async fn connect(url: &str, name: &str) -> Redis {
    let redis = Redis::connect(url, 2).await.unwrap();
    redis.prefix(&format!("test:{}:{name}", std::process::id()))
}

async fn limits(variable: &str, name: String, clock: Arc<dyn Clock>) -> RedisLimits {
    RedisLimits::with_clock(connect(&support::url_of(variable), &name).await, clock)
}

async fn presence(variable: &str, name: String) -> RedisPresence {
    RedisPresence::new(connect(&support::url_of(variable), &name).await)
}

async fn bus(variable: &str, name: String) -> RedisBus {
    RedisBus::start(connect(&support::url_of(variable), &name).await).await.unwrap()
}

/// Proxy of the server, with its URL.
async fn proxy() -> (Proxy, String) {
    let server = support::url_of("COUPLE_TEST_REDIS").split_once("://").unwrap().1.parse().unwrap();
    let proxy = Proxy::start(server, Duration::ZERO).await;
    let url = format!("redis://{}", proxy.address);
    (proxy, url)
}

/// Rate limiters of two processes, whose server cannot be reached for some time.
async fn breakable_limits(clock: Arc<dyn Clock>) -> Breakable<AlternatingLimiter> {
    let (proxy, url) = proxy().await;
    let one = RedisLimits::with_clock(connect(&url, "l7").await, clock.clone());
    let other = RedisLimits::with_clock(connect(&url, "l7").await, clock);
    Breakable::new(AlternatingLimiter::new(one, other), move |fails| proxy.refuse(fails))
}

async fn breakable_presence() -> Breakable<RedisPresence> {
    let (proxy, url) = proxy().await;
    let presence = RedisPresence::new(connect(&url, "pr5").await);
    Breakable::new(presence, move |fails| proxy.refuse(fails))
}

async fn breakable_bus() -> Breakable<AlternatingBus> {
    let (proxy, url) = proxy().await;
    let one = RedisBus::start(connect(&url, "b5").await).await.unwrap();
    let other = RedisBus::start(connect(&url, "b5").await).await.unwrap();
    Breakable::new(AlternatingBus::new(one, other), move |fails| proxy.refuse(fails))
}

macro_rules! kit {
    ($name:ident, $variable:literal $(, outage: $limits:expr, $presence:expr, $bus:expr)?) => {
        mod $name {
            use super::*;
            couple_conformance::limits!(
                named: |name, clock| limits($variable, name, clock),
                second_process: |name, clock| limits($variable, name, clock)
                $(, outage: $limits)?
            );
            couple_conformance::presence!(
                named: |name| presence($variable, name), second_process: |name| presence($variable, name)
                $(, outage: $presence)?
            );
            couple_conformance::bus!(
                named: |name| bus($variable, name), second_process: |name| bus($variable, name) $(, outage: $bus)?
            );
        }
    };
}
kit!(one, "COUPLE_TEST_REDIS", outage: |clock| breakable_limits(clock), breakable_presence(), breakable_bus());
kit!(sentinel, "COUPLE_TEST_REDIS_SENTINEL");
kit!(cluster, "COUPLE_TEST_REDIS_CLUSTER");

/// Allowances follow the clock of the Redis server, whatever the clock of the process.
#[tokio::test]
async fn limits_use_the_clock_of_the_server() {
    let limits = RedisLimits::new(connect(&support::url_of("COUPLE_TEST_REDIS"), "clock").await);
    let (rule, key) =
        (Rule { name: "r", burst: 2, period: Duration::from_millis(400) }, LimitKey::new("k", 1));
    assert_eq!(limits.take(&rule, &key).await.unwrap(), Ok(()));
    assert_eq!(limits.take(&rule, &key).await.unwrap(), Ok(()));
    let limited = limits.take(&rule, &key).await.unwrap().unwrap_err();
    assert!(limited.retry_after <= Duration::from_millis(200), "{limited:?}");
    tokio::time::sleep(limited.retry_after).await;
    assert_eq!(limits.take(&rule, &key).await.unwrap(), Ok(()));
    assert!(SystemClock.now().micros() > 0);
}

#[tokio::test]
async fn connection_errors_name_their_cause() {
    let error = Redis::connect("redis://127.0.0.1:1", 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let place = support::url_of("COUPLE_TEST_REDIS").split_once("://").unwrap().1.to_owned();
    let error = Redis::connect(&format!("redis://u:sesame@{place}"), 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    assert!(!support::error_text(&error).contains("sesame"), "{error}");
}

/// While Redis is down, a used-up key stays used up, and another key gets less than Redis would grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_stricter_while_redis_is_away() {
    let (proxy, url) = proxy().await;
    let limits = RedisLimits::new(connect(&url, "stricter").await);
    let rule = Rule { name: "r", burst: 20, period: Duration::from_hours(24) };
    let granted = async |key: &LimitKey| {
        let mut granted = 0;
        for _ in 0..30 {
            granted += u32::from(limits.take(&rule, key).await.unwrap().is_ok());
        }
        granted
    };
    let (used, fresh) = (LimitKey::new("k", "used"), LimitKey::new("k", "fresh"));
    assert_eq!(granted(&used).await, 20);
    proxy.silence(true);
    assert_eq!(granted(&used).await, 0, "what was used up is not granted again");
    assert_eq!(granted(&fresh).await, 5, "a quarter of 20");
}

/// Behind a proxy that stops forwarding, publishers do not wait and rate limits still count.
///
/// Each process counts for itself. When Redis responds again, notices and shared counts resume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_server_does_not_block_callers() {
    let (proxy, url) = proxy().await;
    let (here, there) =
        (connect(&url, "silent").await, connect(&support::url_of("COUPLE_TEST_REDIS"), "silent").await);
    let limits = RedisLimits::new(here.clone());
    let (bus, other) = (RedisBus::start(here).await.unwrap(), RedisBus::start(there).await.unwrap());
    let topic = Topic::Queue("q".to_owned());
    let (mut near, mut far) =
        (bus.subscribe(vec![topic.clone()]).await, other.subscribe(vec![topic.clone()]).await);
    proxy.silence(true);

    let started = tokio::time::Instant::now();
    let (rule, key) = (Rule { name: "r", burst: 3, period: Duration::from_hours(1) }, LimitKey::new("k", 1));
    let mut taken = 0;
    for _ in 0..5 {
        taken += u32::from(limits.take(&rule, &key).await.unwrap().is_ok());
    }
    assert_eq!(taken, 1, "a process by itself grants a quarter, at least one");
    let limited = started.elapsed();
    bus.publish(topic.clone(), Notice::Changed).await;
    assert_eq!(tokio::time::timeout(Duration::from_millis(100), near.next()).await, Ok(Notice::Changed));
    let published = started.elapsed() - limited;
    println!("five limits in {} ms, a notice in {} ms", limited.as_millis(), published.as_millis());
    assert!(limited < Duration::from_millis(2_500), "{limited:?}");

    proxy.silence(false);
    let back = tokio::time::Instant::now();
    loop {
        bus.publish(topic.clone(), Notice::Changed).await;
        if tokio::time::timeout(Duration::from_millis(100), far.next()).await.is_ok() {
            break;
        }
        assert!(back.elapsed() < Duration::from_secs(5), "no notice is delivered");
    }
    println!("carried again after {} ms", back.elapsed().as_millis());
}

/// After the master has died, rate limits still count.
///
/// Shared counts and notices resume once the Sentinels have elected a new master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_follows_a_failover() {
    let mut master = Engine::start("redis").await;
    let port = master.port.to_string();
    let _replica = Engine::start_with("redis", &["--replicaof", "127.0.0.1", &port]).await;
    let sentinels = [
        Engine::start_with("sentinel", &[&port]).await,
        Engine::start_with("sentinel", &[&port]).await,
        Engine::start_with("sentinel", &[&port]).await,
    ];
    let hosts = sentinels.each_ref().map(|one| format!("127.0.0.1:{}", one.port)).join(",");
    let url = format!("redis+sentinel://{hosts}/couple");
    // Wait until the Sentinels know one another and the replica.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (one, other) = (Redis::connect(&url, 2).await.unwrap(), Redis::connect(&url, 2).await.unwrap());
    let limits = [RedisLimits::new(one.clone()), RedisLimits::new(other.clone())];
    let (here, there) = (RedisBus::start(one).await.unwrap(), RedisBus::start(other).await.unwrap());
    let topic = Topic::Queue("q".to_owned());
    let mut far = there.subscribe(vec![topic.clone()]).await;

    master.kill();
    let started = tokio::time::Instant::now();
    let mut n = 0;
    loop {
        // One token: granted once by both processes together, or by each process while Redis is down.
        n += 1;
        let (rule, key) =
            (Rule { name: "r", burst: 1, period: Duration::from_hours(1) }, LimitKey::new("k", n));
        let taken = [limits[0].take(&rule, &key).await.unwrap(), limits[1].take(&rule, &key).await.unwrap()];
        if taken[0].is_ok() && taken[1].is_err() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "they do not count together again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let counted = started.elapsed();
    loop {
        here.publish(topic.clone(), Notice::Changed).await;
        if tokio::time::timeout(Duration::from_millis(100), far.next()).await.is_ok() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "no notice is delivered");
    }
    println!(
        "failover: counted together again after {} ms, carried after {} ms",
        counted.as_millis(),
        started.elapsed().as_millis()
    );
}
