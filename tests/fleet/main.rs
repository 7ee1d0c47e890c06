//! Server processes over one database and Redis, behind a load balancer, with faults.
//!
//! The balancer assigns each connection to the next process, while processes, Redis and connections are killed. Also one process with very
//! many connections, and the logs of processes over every engine.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/couples.rs"]
mod couples;
mod crowd;
mod device;
#[path = "../support/engine.rs"]
mod engine;
mod kills;
mod mail_outage;
mod outages;
mod processes;
#[path = "../../couple-store/tests/support/proxy.rs"]
mod proxy;
mod rolling_restart;
#[path = "../support/smtp_server.rs"]
mod smtp_server;
#[path = "../support/mod.rs"]
mod support;
mod trace_logs;

/// These tests measure time, so each runs alone.
///
/// `.config/nextest.toml` ensures it where every test is a process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A number from the environment, which `./test --long` increases.
fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// A random number below `most`.
fn below(most: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % most
}
