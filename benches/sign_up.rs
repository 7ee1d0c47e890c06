//! Sign-ups per second through HTTP on SQLite, durable before the response.
//!
//! The mail is queued in the same commit. 64 connections; the load generator runs on the same cores. With and without group commit, and
//! with a worker that writes each mail to a file meanwhile; interleaved rounds, medians.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod support;

use std::time::Duration;

use couple::{
    Backend,
    core::limits::Unlimited,
    notify::mail::{FileMailer, Letterhead},
    store::sql::SqliteOptions,
};
use support::{load, median, runtime, serve};

const ROUNDS: usize = 5;

fn round(merge: usize, works: bool) -> f64 {
    let (server, generator) = (runtime(2), runtime(1));
    let folder = support::folder();
    let backend = server.block_on(async {
        let store =
            SqliteOptions::new(folder.join("couple.db")).with_max_merged_commits(merge).open().await.unwrap();
        let mailer = FileMailer::new(folder.join("mail"), Letterhead::default()).unwrap();
        Backend::builder()
            .blobs(couple::blobs::Blobs::memory())
            .store(store)
            .keys(couple::Keyring::new([7; 32]))
            .limits(Unlimited)
            .mailer(mailer)
            .build()
            .unwrap()
    });
    let worker = works.then(|| server.block_on(async { backend.worker().start() }));
    let address = serve(&server, backend);
    let run = load(address, 64, Duration::from_secs(3), None, 202, |n| {
        let body = format!(r#"{{"email":"person.{n}@example.org","display_name":"Person {n}"}}"#);
        ("/v1/accounts", None, body)
    });
    let seen = generator.block_on(run);
    drop(worker);
    server.shutdown_background();
    drop(std::fs::remove_dir_all(folder));
    seen.per_second
}

fn main() {
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (seen, (merge, works)) in seen.iter_mut().zip([(64, false), (1, false), (64, true)]) {
            seen.push(round(merge, works));
        }
    }
    let [merged, single, beside] = seen.map(median);
    println!("sign-ups per second, group commit:                 {merged:>8.0}");
    println!("sign-ups per second, one commit each:              {single:>8.0}");
    println!("sign-ups per second, group commit, worker mailing: {beside:>7.0}");
}
