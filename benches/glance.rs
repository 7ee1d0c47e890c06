//! Response times of a glance that has not changed (304), through HTTP on SQLite with 1,000 couples, at 1,000 requests a second.
//!
//! Each response time counts from the time at which the request was due. `COUPLE_BENCH_SECONDS` is the duration (10).
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod people;
mod support;

use std::{sync::Arc, time::Duration};

use couple::{Backend, core::limits::Unlimited, store::sql::SqliteOptions};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, header::ETAG};
use support::{load_of, runtime, serve};
use tower::ServiceExt as _;

const COUPLES: usize = 1_000;
const RATE: f64 = 1_000.0;

fn request(token: &str, tag: &str) -> Request<Full<Bytes>> {
    let request =
        Request::get("/v1/glance").header("host", "b").header("authorization", format!("Bearer {token}"));
    request.header("if-none-match", tag).body(Full::default()).unwrap()
}

fn main() {
    let (server, generator) = (runtime(2), runtime(1));
    let folder = support::folder();
    let (backend, seen) = server.block_on(async {
        let store = SqliteOptions::new(folder.join("couple.db")).open().await.unwrap();
        let backend = Backend::builder()
            .blobs(couple::blobs::Blobs::memory())
            .store(store)
            .keys(couple::Keyring::new([7; 32]))
            .limits(Unlimited)
            .build()
            .unwrap();
        let tokens = people::seed(backend.ports(), COUPLES).await;
        let router = couple::http::router(backend.clone());
        let mut seen = Vec::new();
        for token in tokens {
            let answer =
                router.clone().oneshot(request(&token, "").map(axum::body::Body::new)).await.unwrap();
            assert_eq!(answer.status(), 200);
            let tag = answer.headers()[ETAG].to_str().unwrap().to_owned();
            assert!(answer.into_body().collect().await.unwrap().to_bytes().len() > 50);
            seen.push((token, tag));
        }
        (backend, Arc::new(seen))
    });
    let address = serve(&server, backend);
    let time = std::env::var("COUPLE_BENCH_SECONDS").map_or(10, |text| text.parse().unwrap());
    let unchanged = move |n: u64| {
        let (token, tag) = &seen[usize::try_from(n * 7919).unwrap() % seen.len()];
        request(token, tag)
    };
    let found = load_of(address, 32, Duration::from_secs(time), Some(RATE), 304, unchanged);
    let found = generator.block_on(found);
    println!("unchanged glances per second: {:>8.0}", found.per_second);
    println!("p50:                          {:>8.2} ms", found.p50.as_secs_f64() * 1e3);
    println!("p99:                          {:>8.2} ms", found.p99.as_secs_f64() * 1e3);
    server.shutdown_background();
    drop(std::fs::remove_dir_all(folder));
}
