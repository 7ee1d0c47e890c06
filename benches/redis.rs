//! Rate limits and notices over Redis per second, compared with `redis-benchmark`.
//!
//! Both use the same server in the same run: the same script, and one message per notice (the bus joins many notices into one message).
//! Also the duration of looking up a session in each database, compared with a `GET` of as many bytes.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

#[path = "../tests/support/engine.rs"]
mod engine;
mod people;
mod support;

use std::{process::Command, sync::Arc, time::Duration};

use couple::{
    Backend, Store,
    core::{
        digest,
        limits::{LimitKey, RateLimiter as _, Rule, Unlimited},
        live::{Bus as _, Notice, Topic},
    },
    store::{
        redis::{Redis, RedisBus, RedisLimits},
        sql::{MySqlOptions, PostgresOptions},
    },
};
use engine::Engine;
use support::{median, runtime};
use tokio::{task::JoinSet, time::Instant};

const ROUNDS: usize = 5;
const TAKES: u32 = 40_000;
const TASKS: u32 = 32;
const CONNECTIONS: u32 = 4;

/// Two subscribers of a channel, like the two processes of [`notices`]; killed when dropped.
struct Listeners([std::process::Child; 2]);

impl Listeners {
    fn on(port: u16, channel: &str) -> Self {
        Self([(); 2].map(|()| {
            Command::new("redis-cli")
                .args(["-p", &port.to_string(), "SUBSCRIBE", channel])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        }))
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in &mut self.0 {
            let _ = listener.kill();
            let _ = listener.wait();
        }
    }
}

/// Requests per second that `redis-benchmark` reports for a command.
fn theirs(port: u16, arguments: &[&str]) -> f64 {
    let out = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "--csv"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    // "command","requests per second","average latency", …
    let line = text.lines().last().unwrap();
    line.split("\",\"").nth(1).unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

async fn takes(limits: Arc<RedisLimits>) -> f64 {
    let rule = Rule { name: "bench", burst: 1_000_000, period: Duration::from_hours(1) };
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let limits = limits.clone();
        tasks.spawn(async move {
            for n in 0..TAKES / TASKS {
                let key = LimitKey::new("k", (task * 7919 + n) % 10_000);
                limits.take(&rule, &key).await.unwrap().unwrap();
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    f64::from(TAKES) / begun.elapsed().as_secs_f64()
}

/// Notices per second that reach the other process in two seconds while they are sent steadily.
async fn notices(redis: &Redis) -> f64 {
    let (one, other) =
        (RedisBus::start(redis.clone()).await.unwrap(), RedisBus::start(redis.clone()).await.unwrap());
    let total = 200_000_u32;
    let topic = Topic::Queue("bench".to_owned());
    let last = Topic::Queue("last".to_owned());
    let mut end = other.subscribe(vec![last.clone()]).await;
    let begun = Instant::now();
    for n in 0..total {
        one.publish(topic.clone(), Notice::Changed).await;
        // At the rate at which they are delivered: notices beyond the queue's length would only cause a resync.
        if n % 1_000 == 999 {
            one.publish(last.clone(), Notice::Changed).await;
            end.next().await;
        }
    }
    f64::from(total) / begun.elapsed().as_secs_f64()
}

/// Microseconds per sequential look-up.
async fn each<F: Future<Output = ()>>(work: impl Fn(usize) -> F) -> f64 {
    for n in 0..200 {
        work(n).await;
    }
    let begun = Instant::now();
    for n in 0..5_000 {
        work(n).await;
    }
    begun.elapsed().as_secs_f64() * 1e6 / 5_000.0
}

async fn sessions(store: Arc<dyn Store>) -> f64 {
    let backend = Backend::builder()
        .blobs(couple::blobs::Blobs::memory())
        .store(store.clone())
        .keys(couple::Keyring::new([7; 32]))
        .limits(Unlimited)
        .build()
        .unwrap();
    let tokens: Vec<_> =
        people::seed(backend.ports(), 200).await.iter().map(|token| digest(&[token.as_bytes()])).collect();
    each(|n| {
        let (store, token) = (store.clone(), tokens[n % tokens.len()]);
        async move { assert!(store.session_by_token(&token).await.unwrap().is_some()) }
    })
    .await
}

fn main() {
    let runtime = runtime(2);
    let server = runtime.block_on(Engine::start("redis"));
    let url = format!("redis://127.0.0.1:{}", server.port);
    let redis = runtime.block_on(Redis::connect(&url, CONNECTIONS)).unwrap();
    let limits = Arc::new(RedisLimits::new(redis.clone()));
    let payload = "x".repeat(90);
    let mut seen = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        seen[0].push(runtime.block_on(takes(limits.clone())));
        let clients = CONNECTIONS.to_string();
        let script = limits.script_hash();
        seen[1].push(theirs(
            server.port,
            &[
                "-c",
                &clients,
                "-n",
                "40000",
                "-r",
                "10000",
                "EVALSHA",
                script,
                "1",
                "k:__rand_int__",
                "3600",
                "1000000",
                "",
            ],
        ));
        seen[2].push(runtime.block_on(notices(&redis)));
        let publish = ["-c", "1", "-P", "250", "-n", "200000", "PUBLISH", "couple:bus", &payload];
        let listeners = Listeners::on(server.port, "couple:bus");
        // Waits until they have subscribed.
        std::thread::sleep(Duration::from_millis(300));
        seen[3].push(theirs(server.port, &publish));
        drop(listeners);
        seen[4].push(theirs(server.port, &publish));
    }
    let [ours, theirs, carried, published, to_nobody] = seen.map(median);
    println!(
        "limits per second:            {ours:>8.0}   redis-benchmark {theirs:>8.0}   {:.2}",
        ours / theirs
    );
    println!(
        "notices carried per second:   {carried:>8.0}   redis-benchmark {published:>8.0}   {:.2}   (without subscribers {to_nobody:.0})",
        carried / published
    );

    let (mariadb, postgres) =
        runtime.block_on(async { (Engine::start("mariadb").await, Engine::start("postgres").await) });
    let (maria, post, get) = runtime.block_on(async {
        let maria = sessions(Arc::new(MySqlOptions::new(mariadb.fresh()).connect().await.unwrap())).await;
        let post = sessions(Arc::new(PostgresOptions::new(postgres.fresh()).connect().await.unwrap())).await;
        // Taking a token is one look-up by key, and slightly more.
        let rule = Rule { name: "look-up", burst: 1_000_000, period: Duration::from_hours(1) };
        let key = LimitKey::new("k", 1);
        let get = each(|_| async { limits.take(&rule, &key).await.unwrap().unwrap() }).await;
        (maria, post, get)
    });
    println!(
        "microseconds per session look-up: MariaDB {maria:.0}, PostgreSQL {post:.0}; per rate limit in Redis {get:.0}"
    );
}
