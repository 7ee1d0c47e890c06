//! Planted faults: for each one, the check that is named for it fails and says what does not hold.
//!
//! `adapter` is a copy of the store, the bus and the presence in memory, with many faults of which at most one is planted. Without a fault
//! it passes the kit.

mod account;
mod adapter;
mod blobs;
mod date;
mod device;
mod idempotency;
mod job;
mod live;
mod media;
mod notification;
mod pairing;
mod plant;
mod race;
mod store;
mod timeline;
mod upload;

use std::sync::{Arc, Mutex};

use adapter::{Deployment, FaultyBlobs, FaultyLimits, FaultyPresence, FaultyStore, opened};
use plant::planted;

mod sound {
    use super::*;
    couple_conformance::store!(
        named: |name| async move { FaultyStore::open(&name) },
        reopen: |name| async move { FaultyStore::reopen(&name) },
        second_process: |name| async move { FaultyStore::reopen(&name) },
        broken: async { FaultyStore::broken() },
        outage: async { FaultyStore::breakable() },
    );
    couple_conformance::bus!(
        named: |name| async move { opened(&name, Deployment::default).process(0) },
        second_process: |name| async move { opened(&name, Deployment::default).process(1) },
        outage: async { Deployment::breakable() },
    );
    couple_conformance::presence!(
        named: |name| async move { opened(&name, FaultyPresence::new) },
        second_process: |name| async move { opened(&name, FaultyPresence::new) },
        outage: async { FaultyPresence::breakable() },
    );
    couple_conformance::limits!(
        named: |name, clock| async move { opened(&name, || FaultyLimits::new(clock)) },
        second_process: |name, clock| async move { opened(&name, || FaultyLimits::new(clock)) },
        outage: |clock| async { FaultyLimits::breakable(clock) },
    );
    couple_conformance::blobs!(async { FaultyBlobs::open() });
}

/// Sources that list the faults with their checks.
const TESTS: &[&str] = &[
    include_str!("account.rs"),
    include_str!("blobs.rs"),
    include_str!("date.rs"),
    include_str!("device.rs"),
    include_str!("idempotency.rs"),
    include_str!("job.rs"),
    include_str!("live.rs"),
    include_str!("media.rs"),
    include_str!("notification.rs"),
    include_str!("pairing.rs"),
    include_str!("race.rs"),
    include_str!("store.rs"),
    include_str!("timeline.rs"),
    include_str!("upload.rs"),
];

#[test]
fn planted_fault_of_the_run_is_known() {
    if let Some(fault) = plant::of_the_run() {
        assert!(
            TESTS.iter().any(|test| plant::expects(test, fault)),
            "COUPLE_PLANTED_FAULT names no fault: {fault}"
        );
    }
}

#[test]
fn every_planted_fault_is_expected() {
    let sources = [
        include_str!("adapter/account.rs"),
        include_str!("adapter/blobs.rs"),
        include_str!("adapter/bus.rs"),
        include_str!("adapter/date.rs"),
        include_str!("adapter/device.rs"),
        include_str!("adapter/idempotency.rs"),
        include_str!("adapter/job.rs"),
        include_str!("adapter/limits.rs"),
        include_str!("adapter/media.rs"),
        include_str!("adapter/mod.rs"),
        include_str!("adapter/notification.rs"),
        include_str!("adapter/pairing.rs"),
        include_str!("adapter/presence.rs"),
        include_str!("adapter/remote_bus.rs"),
        include_str!("adapter/timeline.rs"),
        include_str!("adapter/upload.rs"),
    ];
    let unexpected: Vec<_> = sources
        .into_iter()
        .flat_map(plant::planted_in)
        .filter(|fault| !TESTS.iter().any(|test| plant::expects(test, fault)))
        .collect();
    assert!(unexpected.is_empty(), "no check is named for {unexpected:?}");
}

#[test]
fn panic_of_a_check_is_reported_while_a_blocking_task_hangs() {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    let check = move |()| {
        let ended = ended.clone();
        async move {
            let (begin, begun) = tokio::sync::oneshot::channel();
            let _hanging = tokio::task::spawn_blocking(move || {
                let _ = begin.send(());
                ended.lock().expect("no thread panics").recv()
            });
            begun.await.expect("a blocking task starts");
            panic!("a sentence of the check");
        }
    };
    let runtime = || plant::runtime("no fault");
    let broken = couple_conformance::outcome("s1_commit_is_atomic", runtime, |_| async {}, check);
    drop(end);
    assert_eq!(broken, Err("S1 does not hold: commit is atomic\na sentence of the check".to_owned()));
}

#[test]
fn check_is_repeated_on_a_new_store_after_a_commit_without_an_answer() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let opened = names.clone();
    let open = move |name: String| {
        let store = if name == "s8" { FaultyStore::slow() } else { FaultyStore::new() };
        opened.lock().expect("no thread panics").push(name);
        async { store }
    };
    let held = couple_conformance::outcome(
        "s8_commit_returns_one_result_per_change",
        || plant::runtime("no fault"),
        open,
        couple_conformance::store::s8_commit_returns_one_result_per_change,
    );
    assert_eq!(held, Ok(()));
    assert_eq!(*names.lock().expect("no thread panics"), ["s8", "s8r2"]);
}
