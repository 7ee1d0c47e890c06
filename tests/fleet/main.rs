//! Server processes over one database and Redis, behind a balancer that sends whoever comes to the next one, while processes, Redis
//! and connections are killed; and one process with crowds before it.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

#[path = "../support/couples.rs"]
mod couples;
mod crowd;
mod device;
#[path = "../support/engine.rs"]
mod engine;
mod kills;
mod outages;
mod processes;
#[path = "../../couple-store/tests/support/proxy.rs"]
mod proxy;
#[path = "../support/mod.rs"]
mod support;

/// These tests time what they see, so each has the machine to itself (`.config/nextest.toml` says so where every test is a process).
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A number from the environment: what `./test --long` makes larger.
fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// A random number below `most`.
fn below(most: u64) -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) % most
}
