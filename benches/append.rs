//! Entries appended per second through HTTP on SQLite with 1,000 couples, durable before the response.
//!
//! Measures the peak rate with 64 connections, then p50 and p99 at half of it, from the time at which each request was due.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod people;
mod support;

use std::{sync::Arc, time::Duration};

use couple::{Backend, core::limits::Unlimited, store::sql::SqliteOptions};
use support::{load, runtime, serve};

const COUPLES: usize = 1_000;

fn main() {
    let (server, generator) = (runtime(2), runtime(1));
    let folder = support::folder();
    let (backend, tokens) = server.block_on(async {
        let store = SqliteOptions::new(folder.join("couple.db")).open().await.unwrap();
        let backend = Backend::builder()
            .blobs(couple::blobs::Blobs::memory())
            .store(store)
            .keys(couple::Keyring::new([7; 32]))
            .limits(Unlimited)
            .build()
            .unwrap();
        let tokens = people::seed(backend.ports(), COUPLES).await;
        (backend, Arc::new(tokens))
    });
    let address = serve(&server, backend);
    let time = Duration::from_secs(5);
    let peak = generator.block_on(load(address, 64, time, None, 201, people::entry(tokens.clone(), "peak")));
    let half = load(address, 64, time, Some(peak.per_second / 2.0), 201, people::entry(tokens, "half"));
    let half = generator.block_on(half);
    println!("entries per second at the peak:  {:>8.0}", peak.per_second);
    println!("entries per second at half load: {:>8.0}", half.per_second);
    println!("p50 at half load:                {:>8.2} ms", half.p50.as_secs_f64() * 1e3);
    println!("p99 at half load:                {:>8.2} ms", half.p99.as_secs_f64() * 1e3);
    server.shutdown_background();
    drop(std::fs::remove_dir_all(folder));
}
