//! Growth of the cost of commits, reads and jobs with the number of rows.
//!
//! Measures duration and processor time of a sign-up's commit, an append, a page of 50, and a job claimed and finished, with 10,000 and
//! 1,000,000 rows (or those of `COUPLE_GROWTH_ROWS`, separated by commas) in each table that they read. The servers have caches of
//! 4 GiB: the bench measures the growth of work, not of disk access.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

#[path = "../tests/support/engine.rs"]
mod engine;
#[path = "../couple-store/tests/support/mysql.rs"]
mod mysql;
#[path = "../couple-store/tests/support/postgres.rs"]
mod postgres;
mod support;

use std::{sync::Arc, time::Duration};

use couple::{
    CoupleId, OsEntropy, Store, SystemClock,
    core::JobId,
    job::{JobChange, NewJob},
    pairing::Side,
    store::sql::{MySqlOptions, PostgresOptions},
    timeline::{Body, NewEntry, Page, TimelineChange},
};
use engine::Engine;
use sqlx::Connection as _;
use support::runtime;
use tokio::time::Instant;

const TIMES: usize = 3_000;
/// Tables that the measured operations read.
const TABLES: [&str; 3] = ["couple_couple", "couple_entry", "couple_job"];

async fn time<F: Future<Output = ()>>(what: &str, engine: &Engine, work: impl Fn(usize) -> F) {
    for n in 0..100 {
        work(n).await;
    }
    let before = engine.cpu();
    let mut took = Vec::new();
    for n in 0..TIMES {
        let begun = Instant::now();
        work(100 + n).await;
        took.push(begun.elapsed());
    }
    let spent = (engine.cpu() - before) * 1e6 / TIMES as f64;
    took.sort_unstable();
    let at = |percent: usize| took[(TIMES - 1) * percent / 100].as_secs_f64() * 1e6;
    println!(
        "  {what:<24} p50 {:>6.0} µs   p99 {:>6.0} µs   server's processor {spent:>5.0} µs",
        at(50),
        at(99)
    );
}

fn job(queue: &str) -> NewJob {
    let now = couple::Clock::now(&SystemClock);
    NewJob {
        id: JobId::new(&SystemClock, &OsEntropy),
        queue: queue.to_owned(),
        name: "verify".to_owned(),
        payload: r#"{"email":"somebody@example.org"}"#.to_owned(),
        dedupe_key: None,
        due_at: now,
        expires_at: now.plus(Duration::from_hours(1)),
        max_attempts: 5,
        created_at: now,
    }
}

async fn measure(store: Arc<dyn Store>, engine: &Engine, rows: u32) {
    // Couples of 100 entries each, in pseudo-random order.
    let couple = |n: usize| {
        let id = 1 + (n as u128 * 7_919) % u128::from(rows / 100 - 1);
        CoupleId::from_uuid(uuid::Uuid::from_u128(id))
    };
    time("a sign-up's commit", engine, |_| {
        let store = store.clone();
        async move { drop(store.commit(vec![JobChange::Enqueue(job("later")).into()]).await.unwrap()) }
    })
    .await;
    time("an append", engine, |n| {
        let store = store.clone();
        let entry = NewEntry {
            author: Some(Side::First),
            client_id: Some(format!("bench-{n}")),
            kind: "text".to_owned(),
            body: Some(Body::from_stored(r#"{"text":"good morning"}"#)),
            target: None,
            at: couple::Clock::now(&SystemClock),
        };
        let append = TimelineChange::Append { couple: couple(n), entry };
        async move { drop(store.commit(vec![append.into()]).await.unwrap()) }
    })
    .await;
    time("a page of 50", engine, |n| {
        let store = store.clone();
        let couple = couple(n);
        async move { assert_eq!(store.entries(couple, Page::After(0), 50, None).await.unwrap().len(), 50) }
    })
    .await;
    time("a job claimed, finished", engine, |n| {
        let store = store.clone();
        async move {
            let now = couple::Clock::now(&SystemClock);
            let lease_until = now.plus(Duration::from_secs(30));
            let claim = JobChange::Claim {
                queue: "mail".to_owned(),
                now,
                lease_until,
                claim: n as i64 + 1,
                limit: 1,
            };
            let claimed = store.commit(vec![claim.into()]).await.unwrap().into_claimed_jobs().remove(0);
            let finish = JobChange::Finish { id: claimed.job.id, claim: claimed.claim };
            store.commit(vec![finish.into()]).await.unwrap();
        }
    })
    .await;
}

fn main() {
    let rows = std::env::var("COUPLE_GROWTH_ROWS").unwrap_or_else(|_| "10000,1000000".to_owned());
    for rows in rows.split(',').map(|rows| rows.parse::<u32>().unwrap()) {
        runtime(2).block_on(async {
            for name in ["mariadb", "postgres"] {
                let cache: &[_] = match name {
                    "mariadb" => &["--innodb-buffer-pool-size=4G", "--innodb-log-file-size=1G"],
                    _ => &["-c", "shared_buffers=4GB", "-c", "max_wal_size=8GB"],
                };
                let engine = Engine::start_with(name, cache).await;
                let url = engine.fresh();
                let store: Arc<dyn Store> = if name == "mariadb" {
                    let store = MySqlOptions::new(&url).connect().await.unwrap();
                    let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
                    mysql::seed(&mut connection, rows, |table| TABLES.contains(&table)).await;
                    Arc::new(store)
                } else {
                    let store = PostgresOptions::new(&url).connect().await.unwrap();
                    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
                    postgres::seed(&mut connection, rows, |table| TABLES.contains(&table)).await;
                    Arc::new(store)
                };
                println!("{name}, {rows} rows in each table");
                measure(store, &engine, rows).await;
            }
        });
    }
}
