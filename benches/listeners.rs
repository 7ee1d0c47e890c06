//! Time of a commit in memory by the number of listeners of the host: 0, 1 and 10, each of which does nothing.
//!
//! The commits: an entry, which is an event, and a job, which is none. Batches of commits in turn, medians.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints its results")]

mod support;

use couple::{
    Backend,
    core::{Change, Ports},
    job::Job,
    pairing::PairingChange,
    timeline::{NewEntry, TimelineChange},
};
use couple_conformance::World;
use serde::{Deserialize, Serialize};
use support::{median, runtime};
use tokio::time::Instant;

const ROUNDS: usize = 40;
const COMMITS: u32 = 2_000;
const LISTENERS: [usize; 3] = [0, 1, 10];

/// Job of the host. Its deduplication key keeps the table of jobs small.
#[derive(Serialize, Deserialize)]
struct Cleanup {}

impl Job for Cleanup {
    const NAME: &'static str = "bench.cleanup";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

fn backend(listeners: usize) -> Backend {
    (0..listeners).fold(Backend::builder(), |builder, _| builder.on(|_, _| Ok(()))).build().unwrap()
}

/// Microseconds of one commit.
async fn each(ports: &Ports, change: impl Fn() -> Change) -> f64 {
    let begun = Instant::now();
    for _ in 0..COMMITS {
        ports.commit(vec![change()]).await.unwrap();
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(COMMITS)
}

fn main() {
    runtime(2).block_on(async {
        let (backends, world) = (LISTENERS.map(backend), World::default());
        let couple = world.couple([world.account_id(), world.account_id()]);
        for backend in &backends {
            backend.ports().commit(vec![PairingChange::Pair(couple.clone()).into()]).await.unwrap();
        }
        let mut times = [const { [const { Vec::new() }; 2] }; 3];
        for _ in 0..ROUNDS {
            for (backend, times) in backends.iter().zip(&mut times) {
                let ports = backend.ports();
                let entry = || {
                    let entry = NewEntry::system("x-bench", None, None, ports.now());
                    TimelineChange::Append { couple: couple.id, entry }.into()
                };
                times[0].push(each(ports, entry).await);
                times[1].push(each(ports, || ports.enqueue(&Cleanup {}).unwrap()).await);
            }
        }
        println!("listeners of the host   entry, µs   job, µs");
        for (listeners, [entries, jobs]) in LISTENERS.iter().zip(times) {
            println!("{listeners:>21}   {:>9.2}   {:>7.2}", median(entries), median(jobs));
        }
    });
}
