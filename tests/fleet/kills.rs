//! Three processes behind a load balancer, killed and interrupted: no entry is lost or duplicated.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    ALONE, below,
    device::{Device, Protocol},
    engine::Engine,
    number,
    processes::{Fleet, append},
    proxy::Proxy,
    support::Client,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_interruptions_of_three_processes_lose_no_entry() {
    let _alone = ALONE.lock().await;
    let (couples, entries) = (number("COUPLE_FLEET_COUPLES", 60), number("COUPLE_FLEET_ENTRIES", 10_000));
    let each = entries / couples;
    let mut fleet = Fleet::start(3, couples).await;
    let addresses: Vec<String> = fleet.addresses().iter().map(ToString::to_string).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let haproxy = Engine::start_with("haproxy", &addresses).await;
    let balancer = ([127, 0, 0, 1], haproxy.port).into();
    let proxy = Proxy::start(balancer, Duration::ZERO).await;

    let life = Some(Duration::from_secs(10));
    let devices: Vec<_> = (fleet.tokens.iter().enumerate())
        .map(|(n, token)| Device::start(Protocol::ALL[n % 4], vec![proxy.address], token.clone(), life))
        .collect();

    let started = Instant::now();
    let (mut writers, written) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for (n, pair) in fleet.tokens.chunks(2).enumerate() {
        let (pair, written) = (pair.to_vec(), written.clone());
        writers.spawn(async move {
            let mut client = Client::new(balancer);
            for m in 0..each {
                let text = format!("{n}-{m}");
                append(&mut client, &pair[m % 2], &text, &text).await;
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let done = Arc::new(AtomicBool::new(false));
    let over = done.clone();
    let all_written = tokio::spawn(async move {
        while let Some(one) = writers.join_next().await {
            one.unwrap();
        }
        over.store(true, Ordering::Relaxed);
        started.elapsed()
    });
    let (mut kills, mut cuts) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        fleet.kill_one(usize::try_from(below(3)).unwrap(), Duration::from_millis(200 + below(800))).await;
        kills += 1;
        sleep(Duration::from_millis(below(2_000))).await;
        proxy.cut();
        cuts += 1;
        sleep(Duration::from_millis(below(2_000))).await;
    }
    let took = all_written.await.unwrap();
    let acknowledged = Instant::now();
    while devices.iter().any(|device| device.count() < each)
        && acknowledged.elapsed() < Duration::from_secs(60)
    {
        sleep(Duration::from_millis(20)).await;
    }
    let caught_up = acknowledged.elapsed();

    let (mut lost, mut reordered, mut doubled, mut again, mut connections) = (0, 0, 0, 0, 0);
    let mut truth: BTreeMap<usize, BTreeMap<i64, String>> = BTreeMap::new();
    for (n, device) in devices.iter().enumerate() {
        let log = device.log.lock().unwrap();
        assert_eq!(log.faults, Vec::<String>::new(), "device {n} by {:?}", device.protocol);
        let texts: BTreeSet<_> = log.entries.values().map(|(text, _)| text).collect();
        lost += each - texts.len();
        doubled += log.entries.len() - texts.len();
        reordered += log.reordered;
        again += log.again;
        connections += log.connections;
        let entries: BTreeMap<_, _> =
            log.entries.iter().map(|(seq, (text, _))| (*seq, text.clone())).collect();
        assert!(
            entries.keys().copied().eq(1..=i64::try_from(entries.len()).unwrap()),
            "device {n} has a gap"
        );
        assert_eq!(
            truth.entry(n / 2).or_insert_with(|| entries.clone()),
            &entries,
            "device {n} differs from its partner"
        );
    }
    let total = written.load(Ordering::Relaxed);
    println!(
        "{couples} couples, {} devices, {total} entries in {:.0} s ({:.0}/s), {kills} processes killed, all connections cut {cuts} \
         times, {connections} connections; caught up {:.1} s after the last: lost {lost}, reordered {reordered}, doubled after \
         de-duplication {doubled} ({again} before)",
        devices.len(),
        took.as_secs_f64(),
        total as f64 / took.as_secs_f64(),
        caught_up.as_secs_f64()
    );
    assert_eq!((lost, reordered, doubled), (0, 0, 0));
    assert!(kills >= 3 && cuts >= 3, "{kills} kills, {cuts} interruptions");
}
