//! Three processes behind a load balancer, restarted by SIGTERM one after another while clients write, read and listen.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    ALONE,
    device::{Device, Protocol, Transport},
    engine::Engine,
    processes::Fleet,
    support::Client,
};

const COUPLES: usize = 24;
/// Time between two requests of a client.
const PAUSE: Duration = Duration::from_millis(30);
/// Time over which reconnects are spread, as the server example sets it.
const SPREAD: Duration = Duration::from_secs(10);

/// Writes and reads, each request once, until `done`; returns the texts of its entries.
async fn write(
    mut client: Client,
    pair: Vec<String>,
    n: usize,
    done: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut texts = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let (token, text) = (&pair[texts.len() % 2], format!("{n}-{}", texts.len()));
        let entry = json!({ "client_id": text, "kind": "text", "body": { "text": text } });
        for (method, path, body) in [
            ("POST", "/v1/couple/entries", Some(&entry)),
            ("GET", "/v1/couple/entries?limit=5", None),
            ("GET", "/v1/me", None),
        ] {
            let answer = client.once(method, path, Some(token), body, &[]).await;
            assert!(
                answer.as_ref().is_ok_and(|answer| answer.status < 300),
                "{method} {path} fails during a restart: {answer:?}"
            );
            requests.fetch_add(1, Ordering::Relaxed);
        }
        texts.push(text);
        sleep(PAUSE).await;
    }
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_fails_no_request_loses_no_entry_and_spreads_reconnects() {
    let _alone = ALONE.lock().await;
    let mut fleet = Fleet::start(3, COUPLES).await;
    let addresses: Vec<String> = fleet.addresses().iter().map(ToString::to_string).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let haproxy = Engine::start_with("haproxy", &addresses).await;
    let balancer = ([127, 0, 0, 1], haproxy.port).into();
    let devices: Vec<_> = (fleet.tokens.iter().enumerate())
        .map(|(n, token)| Device::start_with(Protocol::ALL[n % 4], vec![balancer], token.clone(), None, true))
        .collect();
    let (done, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for (n, pair) in fleet.tokens.chunks(2).enumerate() {
        let (pair, done, requests) = (pair.to_vec(), done.clone(), requests.clone());
        writers.spawn(async move { (n, write(Client::new(balancer), pair, n, done, requests).await) });
    }
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    for which in 0..3 {
        fleet.restart_one(which).await;
        sleep(Duration::from_secs(1)).await;
    }
    let restarts = begun.elapsed();
    // Until the clients of the last process are connected again.
    sleep(SPREAD).await;
    done.store(true, Ordering::Relaxed);
    let mut written = vec![Vec::new(); COUPLES];
    while let Some(one) = writers.join_next().await {
        let (n, texts) = one.unwrap();
        written[n] = texts;
    }
    let stopped = Instant::now();
    while devices.iter().enumerate().any(|(n, device)| device.count() < written[n / 2].len()) {
        assert!(stopped.elapsed() < Duration::from_secs(20), "a device lacks entries");
        sleep(Duration::from_millis(20)).await;
    }
    let mut delays = Vec::new();
    for (n, device) in devices.iter().enumerate() {
        let texts: BTreeSet<_> = device.texts(&devices[n ^ 1]).into_iter().collect();
        assert_eq!(texts, written[n / 2].iter().cloned().collect(), "entries of device {n}");
        let log = device.log.lock().unwrap();
        assert_eq!(log.broken, Vec::<String>::new(), "{:?} was cut off", device.protocol);
        assert_eq!(log.reordered, 0, "{:?}", device.protocol);
        let is_poll = device.protocol == Protocol::Plain(Transport::Poll);
        assert!(is_poll || !log.byes.is_empty(), "{:?} was not told to reconnect", device.protocol);
        for (reason, delay) in &log.byes {
            assert_eq!(reason, "draining");
            delays.push(*delay);
        }
    }
    println!(
        "{COUPLES} couples, {} devices: 3 restarts in {:.1} s, {} requests, none failed; {} entries, none lost; {} connections ended",
        devices.len(),
        restarts.as_secs_f64(),
        requests.load(Ordering::Relaxed),
        written.iter().map(Vec::len).sum::<usize>(),
        delays.len()
    );
    let soon = delays.iter().filter(|delay| **delay < SPREAD / 2).count();
    assert!(delays.iter().all(|delay| *delay <= SPREAD), "{delays:?}");
    assert!(
        soon * 6 >= delays.len() && soon * 6 <= delays.len() * 5,
        "reconnects are not spread out: {delays:?}"
    );
}
