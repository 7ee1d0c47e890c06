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
#[path = "../support/secret_search.rs"]
mod secret_search;
#[path = "../support/smtp_server.rs"]
mod smtp_server;
#[path = "../support/mod.rs"]
mod support;
mod trace_logs;

use std::time::Duration;

use tokio::time::{Instant, sleep};

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

/// Waits for a condition, and panics after `limit`.
async fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A picture whose pixels are `shade`.
fn png(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(40, 40, image::Rgb([shade; 3]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}
