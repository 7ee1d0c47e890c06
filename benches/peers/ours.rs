//! Our server as a process with one thread; publishes entries on command.

use std::{io::BufRead as _, path::Path, sync::Arc, time::Duration};

use couple::{
    Backend, OsEntropy, RequestContext, Secret, Store, SystemClock,
    core::limits::Unlimited,
    http::{HttpOptions, ServeOptions, listen, router_with, serve},
    store::{
        KeyFile, MemoryStore,
        redis::{Redis, RedisBus, RedisPresence},
        sql::{MySqlOptions, PostgresBus, PostgresOptions},
    },
    timeline::Append,
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::{COUPLES, people, support::runtime};

pub(crate) fn now() -> u64 {
    u64::try_from(couple::Clock::now(&SystemClock).micros()).unwrap()
}

fn over(store: impl Store, folder: &Path) -> couple::BackendBuilder {
    let keys = KeyFile::new(folder.join("couple.key")).open(&OsEntropy).unwrap();
    Backend::builder().blobs(couple::blobs::Blobs::memory()).keys(keys).store(store).limits(Unlimited)
}

/// Creates the couples in a store that several processes share.
pub(crate) async fn seed(store: impl Store, folder: &Path) {
    let backend = over(store, folder).build().unwrap();
    people::seed(backend.ports(), COUPLES).await;
    backend.close().await.unwrap();
}

async fn with_redis(builder: couple::BackendBuilder, url: &str) -> Backend {
    let redis = Redis::connect(url, 4).await.unwrap();
    let builder = builder.presence(RedisPresence::new(redis.clone()));
    builder.bus(RedisBus::start(redis).await.unwrap()).build().unwrap()
}

/// Publishing and serving back end.
async fn backends(how: &[&str]) -> [Backend; 2] {
    match how {
        [] => {
            let backend = Backend::builder().limits(Unlimited).build().unwrap();
            people::seed(backend.ports(), COUPLES).await;
            [backend.clone(), backend]
        }
        ["two", redis] => {
            let (store, folder) = (Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap());
            seed(store.clone(), folder.path()).await;
            [
                with_redis(over(store.clone(), folder.path()), redis).await,
                with_redis(over(store, folder.path()), redis).await,
            ]
        }
        ["sql", redis, database, folder] => {
            let store = MySqlOptions::new(*database).with_max_connections(10).connect().await.unwrap();
            let backend = with_redis(over(store, Path::new(folder)), redis).await;
            [backend.clone(), backend]
        }
        ["postgres", database, folder] => {
            let store = PostgresOptions::new(*database).with_max_connections(10).connect().await.unwrap();
            let bus = PostgresBus::start(*database).await.unwrap();
            let backend = over(store, Path::new(folder)).bus(bus).build().unwrap();
            [backend.clone(), backend]
        }
        other => panic!("{other:?}"),
    }
}

/// Server process: executes commands from standard input: `RATE SECONDS`, where a rate of 0 is maximum.
pub(crate) fn be_the_server(how: &[&str]) {
    let runtime = runtime(1);
    let inside = runtime.enter();
    let [says, listened] = runtime.block_on(backends(how));
    let mut speakers = Vec::new();
    for n in 0..COUPLES {
        let token = Secret::new(format!("bench-{n}-first-0123456789"));
        let (_, account) = runtime.block_on(says.accounts().unwrap().authenticate(&token)).unwrap();
        speakers.push(account.id);
    }
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    println!("{}", listener.local_addr().unwrap());
    let options =
        HttpOptions::default().with_max_live_connections(20_000).with_max_live_connections_per_account(100);
    let app = router_with(listened, options);
    runtime.spawn(serve(
        listener,
        app,
        ServeOptions::default().with_max_connections_per_client(Some(usize::MAX)),
        std::future::pending(),
    ));
    drop(inside);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (rate, seconds) = line.split_once(' ').unwrap();
        let (rate, seconds): (f64, f64) = (rate.parse().unwrap(), seconds.parse().unwrap());
        let said = runtime.block_on(runtime.spawn(say(says.clone(), speakers.clone(), rate, seconds)));
        println!("{}", said.unwrap());
    }
}

async fn say(backend: Backend, speakers: Vec<couple::AccountId>, rate: f64, seconds: f64) -> u32 {
    let (begun, mut said) = (Instant::now(), 0_u32);
    let mut under_way = tokio::task::JoinSet::new();
    while begun.elapsed().as_secs_f64() < seconds {
        if rate > 0.0 {
            sleep_until(begun + Duration::from_secs_f64(f64::from(said) / rate)).await;
        } else if said.is_multiple_of(64) {
            // Yields, so that a writer without pauses does not starve readers.
            tokio::task::yield_now().await;
        }
        let (speaker, at) = (speakers[said as usize % speakers.len()], now());
        let (client_id, body) = (format!("{at}-{said}"), json!({ "text": at.to_string() }));
        let command = Append { couple: None, client_id, kind: "text".to_owned(), body };
        if rate > 0.0 {
            // A task per entry: a slow append must not delay later ones.
            let backend = backend.clone();
            under_way.spawn(async move {
                backend.timeline().append(&RequestContext::default(), speaker, &command).await.unwrap();
            });
        } else {
            backend.timeline().append(&RequestContext::default(), speaker, &command).await.unwrap();
        }
        said += 1;
    }
    under_way.join_all().await;
    said
}
