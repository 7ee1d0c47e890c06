//! Compares the database servers through HTTP, with durable settings.
//!
//! Measures sign-ups and entries per second with pools of several sizes, processor time of the process and of the database per operation,
//! and jobs claimed and finished. Server, database and load generator run on the same cores.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

#[path = "../tests/support/engine.rs"]
mod engine;
mod people;
mod support;

use std::{sync::Arc, time::Duration};

use couple::{
    Backend, Store,
    core::{Change, JobId, OsEntropy, SystemClock, limits::Unlimited},
    job::{JobChange, NewJob},
    store::sql::{MySqlOptions, PostgresOptions, SqliteOptions},
};
use engine::Engine;
use support::{load, runtime, serve};
use tokio::time::Instant;

const TIME: Duration = Duration::from_secs(4);
const COUPLES: usize = 500;

/// Location of a store.
enum Place<'a> {
    Sqlite,
    Server(&'a Engine),
}

impl Place<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Server(engine) if engine.name() == "mariadb" => "MariaDB",
            Self::Server(_) => "PostgreSQL",
        }
    }

    /// Opens a new, empty database.
    async fn open(&self, connections: u32) -> Arc<dyn Store> {
        match self {
            Self::Sqlite => Arc::new(
                SqliteOptions::new(support::folder().join("couple.db"))
                    .with_readers(connections)
                    .open()
                    .await
                    .unwrap(),
            ),
            Self::Server(engine) => {
                let url = engine.fresh();
                if engine.name() == "mariadb" {
                    Arc::new(
                        MySqlOptions::new(url).with_max_connections(connections).connect().await.unwrap(),
                    )
                } else {
                    Arc::new(
                        PostgresOptions::new(url).with_max_connections(connections).connect().await.unwrap(),
                    )
                }
            }
        }
    }

    /// Processor seconds that this process, and the database, have used.
    fn spent(&self) -> [f64; 2] {
        let here = engine::cpu(std::process::id());
        match self {
            Self::Sqlite => [here, 0.0],
            Self::Server(engine) => [here, engine.cpu()],
        }
    }
}

fn backend(store: Arc<dyn Store>) -> Backend {
    Backend::builder()
        .blobs(couple::blobs::Blobs::memory())
        .store(store)
        .keys(couple::Keyring::new([7; 32]))
        .limits(Unlimited)
        .build()
        .unwrap()
}

fn through_http(place: &Place<'_>, connections: u32) {
    let (server, generator) = (runtime(2), runtime(1));
    let (backend, tokens) = server.block_on(async {
        let backend = backend(place.open(connections).await);
        let tokens = people::seed(backend.ports(), COUPLES).await;
        (backend, Arc::new(tokens))
    });
    let address = serve(&server, backend);
    let before = place.spent();
    let sign_ups = generator.block_on(load(address, 64, TIME, None, 202, |n| {
        let body = format!(r#"{{"email":"person.{n}@example.org","display_name":"Person {n}"}}"#);
        ("/v1/accounts", None, body)
    }));
    let between = place.spent();
    let entries = generator.block_on(load(address, 64, TIME, None, 201, people::entry(tokens, "run")));
    let after = place.spent();
    let micros = |before: [f64; 2], after: [f64; 2], rate: f64| {
        let each = |n: usize| (after[n] - before[n]) * 1e6 / (rate * TIME.as_secs_f64());
        format!("{:>5.0} + {:>4.0}", each(0), each(1))
    };
    println!(
        "{:<11} {connections:>4}  {:>8.0}  {:>6.1}  {}   {:>8.0}  {:>6.1}  {}",
        place.name(),
        sign_ups.per_second,
        sign_ups.p99.as_secs_f64() * 1e3,
        micros(before, between, sign_ups.per_second),
        entries.per_second,
        entries.p99.as_secs_f64() * 1e3,
        micros(between, after, entries.per_second),
    );
    server.shutdown_background();
}

/// Jobs claimed and finished per second: `batch` per commit, four concurrent workers.
async fn jobs(place: &Place<'_>, batch: u32) -> f64 {
    let store = place.open(10).await;
    let workers = 4;
    let mut all = tokio::task::JoinSet::new();
    let stop = Instant::now() + TIME;
    for _ in 0..workers {
        let store = store.clone();
        all.spawn(async move {
            let mut done = 0;
            let queue = "bench";
            while Instant::now() < stop {
                let new = (0..batch).map(|_| JobChange::Enqueue(job(queue)).into()).collect::<Vec<Change>>();
                store.commit(new).await.unwrap();
                let now = couple::Clock::now(&SystemClock);
                let claim = i64::from(done) + 1;
                let lease_until = now.plus(Duration::from_secs(30));
                let claim =
                    JobChange::Claim { queue: queue.to_owned(), now, lease_until, claim, limit: batch };
                let claimed = store.commit(vec![claim.into()]).await.unwrap().into_claimed_jobs();
                let finish: Vec<Change> = claimed
                    .iter()
                    .map(|one| JobChange::Finish { id: one.job.id, claim: one.claim }.into())
                    .collect();
                done += u32::try_from(finish.len()).unwrap();
                store.commit(finish).await.unwrap();
            }
            done
        });
    }
    let mut done = 0;
    while let Some(one) = all.join_next().await {
        done += one.unwrap();
    }
    f64::from(done) / TIME.as_secs_f64()
}

fn job(queue: &str) -> NewJob {
    let now = couple::Clock::now(&SystemClock);
    NewJob {
        id: JobId::new(&SystemClock, &OsEntropy),
        queue: queue.to_owned(),
        name: "bench".to_owned(),
        payload: "{}".to_owned(),
        dedupe_key: None,
        due_at: now,
        expires_at: now.plus(Duration::from_hours(1)),
        max_attempts: 5,
        created_at: now,
    }
}

fn main() {
    let starting = runtime(1);
    let (mariadb, postgres) =
        starting.block_on(async { (Engine::start("mariadb").await, Engine::start("postgres").await) });
    let places = [Place::Sqlite, Place::Server(&mariadb), Place::Server(&postgres)];
    println!("             pool  sign-ups/s   p99 ms  µs each, here + there   entries/s   p99 ms  µs each");
    for connections in [3, 5, 10, 50] {
        for place in &places {
            through_http(place, connections);
        }
    }
    println!("\njobs enqueued, claimed and finished per second, by four workers");
    for place in &places {
        let (single, batches) = runtime(2).block_on(async { (jobs(place, 1).await, jobs(place, 20).await) });
        println!("{:<11} one by one {single:>7.0}   in batches of 20 {batches:>7.0}", place.name());
    }
}
