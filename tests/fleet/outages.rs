//! Redis outages, temporary and permanent: no entry is lost, and delivery recovers.

use std::time::Duration;

use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::{
    ALONE,
    device::{Device, Protocol, Transport},
    number,
    processes::{Fleet, append},
    support::Client,
};

/// Maximum delay after a lost notice: the sweep of a live connection, and some time more.
const FALLBACK: Duration = Duration::from_secs(45);

/// Devices at one process, over every transport, and their partner, who writes at another.
struct Conversation {
    devices: Vec<Device>,
    partner: Client,
    token: String,
    written: usize,
}

impl Conversation {
    fn new(fleet: &Fleet) -> Self {
        let [ana, ben] = [fleet.tokens[0].clone(), fleet.tokens[1].clone()];
        let (here, there) = (fleet.servers[0].address, fleet.servers[1].address);
        let devices =
            Protocol::ALL.map(|protocol| Device::start(protocol, vec![there], ben.clone(), None)).into();
        Self { devices, partner: Client::new(here), token: ana, written: 0 }
    }

    async fn append(&mut self) -> String {
        let text = format!("said-{}", self.written);
        append(&mut self.partner, &self.token, &text, &text).await;
        self.written += 1;
        text
    }

    /// Time until the slowest device has received it.
    async fn delivery_time(&self, text: &str, limit: Duration) -> Option<Duration> {
        let started = Instant::now();
        while started.elapsed() < limit {
            if self.devices.iter().all(|device| device.when(text).is_some()) {
                return Some(started.elapsed());
            }
            sleep(Duration::from_millis(1)).await;
        }
        None
    }

    /// Measures the time until new entries are delivered without delay again.
    async fn live_again(&mut self) -> Duration {
        let started = Instant::now();
        loop {
            let text = self.append().await;
            if self.delivery_time(&text, Duration::from_millis(100)).await.is_some() {
                return started.elapsed();
            }
            assert!(started.elapsed() < Duration::from_secs(60), "delivery is not live again");
        }
    }

    async fn nothing_is_lost(&self, limit: Duration) -> Duration {
        let started = Instant::now();
        while self.devices.iter().any(|device| device.count() < self.written) {
            let counts: Vec<_> = self.devices.iter().map(Device::count).collect();
            assert!(started.elapsed() < limit, "of {} entries the devices received {counts:?}", self.written);
            sleep(Duration::from_millis(10)).await;
        }
        for device in &self.devices {
            let log = device.log.lock().unwrap();
            assert_eq!((log.reordered, &log.faults), (0, &Vec::new()), "{:?}", device.protocol);
            assert_eq!(log.entries.len(), self.written, "{:?}", device.protocol);
        }
        started.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_outage_loses_no_entry() {
    let _alone = ALONE.lock().await;
    let mut fleet = Fleet::start(2, 1).await;
    let mut conversation = Conversation::new(&fleet);
    conversation.live_again().await;

    // Connections of every type to Redis are killed, repeatedly.
    for _ in 0..50 {
        for kind in ["pubsub", "normal"] {
            let port = fleet.redis.port.to_string();
            let killed =
                Command::new("redis-cli").args(["-p", &port, "client", "kill", "type", kind]).output().await;
            assert!(killed.unwrap().status.success());
        }
        conversation.append().await;
        sleep(Duration::from_millis(20)).await;
    }
    let live = conversation.live_again().await;
    conversation.nothing_is_lost(FALLBACK).await;
    println!(
        "50 times CLIENT KILL: live again after {} ms, lost 0 of {}",
        live.as_millis(),
        conversation.written
    );
    assert!(live < Duration::from_secs(2), "{live:?}");

    let longest = number("COUPLE_FLEET_OUTAGE_SECONDS", 3);
    for seconds in [3, 25, 60].into_iter().filter(|seconds| *seconds <= longest) {
        fleet.redis.kill();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(u64::try_from(seconds).unwrap()) {
            conversation.append().await;
            sleep(Duration::from_millis(50)).await;
        }
        fleet.redis.again().await;
        let live = conversation.live_again().await;
        conversation.nothing_is_lost(FALLBACK).await;
        println!(
            "Redis away for {seconds} s: live again {} ms after its return, lost 0 of {}",
            live.as_millis(),
            conversation.written
        );
        assert!(live < Duration::from_secs(2), "{live:?}");
    }

    // Permanently.
    fleet.redis.kill();
    for _ in 0..50 {
        conversation.append().await;
    }
    let took = conversation.nothing_is_lost(FALLBACK).await;
    println!(
        "Redis never returns: lost 0 of {}, the last received after {:.1} s",
        conversation.written,
        took.as_secs_f64()
    );
}

/// Each poll goes to the next process, which has no state of that client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_polls_at_alternating_processes_lose_no_entry() {
    let _alone = ALONE.lock().await;
    let fleet = Fleet::start(3, 1).await;
    let device = Device::start(Transport::Poll, fleet.addresses(), fleet.tokens[1].clone(), None);
    let mut partner = Client::new(fleet.servers[0].address);
    let (mut written, started) = (0, Instant::now());
    while device.log.lock().unwrap().connections < 1_000 {
        let text = format!("said-{written}");
        append(&mut partner, &fleet.tokens[0], &text, &text).await;
        written += 1;
        // The next entry is written once this one has arrived: each poll waits, is woken at another process, and the next one goes to a
        // third.
        while device.count() < written {
            assert!(started.elapsed() < Duration::from_secs(120), "{text} did not arrive");
            sleep(Duration::from_millis(1)).await;
        }
    }
    let log = device.log.lock().unwrap();
    println!(
        "{} polls at three processes in turn, {written} entries in {:.1} s: lost {}, no 4xx",
        log.connections,
        started.elapsed().as_secs_f64(),
        written - log.entries.len()
    );
    assert_eq!((log.reordered, &log.faults), (0, &Vec::new()));
    assert!(log.entries.keys().copied().eq(1..=i64::try_from(written).unwrap()));
}
