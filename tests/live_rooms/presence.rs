//! Presence: leases of members, and what their partners see.

use std::{sync::atomic::Ordering, time::Duration};

use couple::{
    core::live::{Notice, Presence},
    notify::live::LiveOptions,
    pairing::Side,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{SOON, TestGate, World, all_within, received};

#[tokio::test(start_paused = true)]
async fn presence_is_renewed_while_a_stream_announces_it_and_ends_soon_after() {
    let world = World::new().await;
    let ana = world.members[0];
    let mut partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let mut silent = world.caught_up(Side::First, &TestGate::open()).await;
    let mut one = world.caught_up(Side::First, &TestGate::open()).await;
    let mut two = world.caught_up(Side::First, &TestGate::open()).await;
    assert_eq!(world.leases.calls(ana), []);
    let started = world.leases.start.elapsed().as_secs();
    one.announce();
    one.announce();
    two.announce();
    assert_eq!(received(&mut partner).await, ["partner here"]);
    sleep(Duration::from_secs(60)).await;
    let renewed = [(started, "renew", 60), (started + 25, "renew", 60), (started + 50, "renew", 60)];
    assert_eq!(world.leases.calls(ana), renewed);
    drop(two);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.leases.calls(ana), renewed, "another stream announces it");
    drop(one);
    sleep(Duration::from_millis(2_900)).await;
    // A client that reconnects or polls again.
    let mut one = world.caught_up(Side::First, &TestGate::open()).await;
    one.announce();
    sleep(Duration::from_millis(100)).await;
    let calls = world.leases.calls(ana);
    assert_eq!(calls[3..], [(started + 72, "renew", 60)], "it was not gone for three seconds");
    drop(one);
    let ended = Instant::now();
    assert_eq!(received(&mut partner).await, [""; 0]);
    sleep_until(ended + Duration::from_millis(2_900)).await;
    assert_eq!(world.leases.calls(ana).len(), 4);
    sleep_until(ended + Duration::from_millis(3_100)).await;
    assert_eq!(world.leases.calls(ana)[4..], [(started + 76, "shorten", 2)]);
    assert_eq!(all_within(&mut partner, SOON).await, [""; 0], "another process may renew it");
    assert_eq!(all_within(&mut partner, Duration::from_millis(2_500)).await, ["partner away"]);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.leases.calls(ana).len(), 5, "nothing renews it any more");
    assert_eq!(received(&mut silent).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn presence_of_a_partner_is_queried_only_for_open_streams_and_anew_for_the_first() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    let _silent = world.caught_up(Side::First, &TestGate::open()).await;
    ana.announce();
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner here"]);
    drop(ben);
    drop(ana);
    // Ben has no stream: whether Ana is present is of no interest, and not known.
    sleep(Duration::from_secs(1)).await;
    world.leases.queries.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(20)).await;
    let of_ben = world.leases.queries.load(Ordering::SeqCst);
    assert!(of_ben <= 1, "{of_ben} queries");
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner away"], "not what was known before");
}

#[tokio::test(start_paused = true)]
async fn client_that_knows_the_partner_s_presence_receives_changes_only() {
    let world = World::new().await;
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    ben.knows_presence();
    assert_eq!(all_within(&mut ben, Duration::from_secs(60)).await, ["caught up"]);
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    ana.announce();
    assert_eq!(all_within(&mut ben, SOON).await, ["partner here"]);
    assert!(format!("{ben:?}").starts_with("Stream { at: Membership"), "{ben:?}");
}

/// Another process has seen the end of a member's last connection there.
#[tokio::test(start_paused = true)]
async fn end_of_a_connection_elsewhere_renews_the_presence_of_a_member_who_is_here() {
    let world = World::new().await;
    let mut one = world.caught_up(Side::First, &TestGate::open()).await;
    world.notice(Notice::Left(Side::First)).await;
    sleep(SOON).await;
    assert_eq!(world.leases.calls(world.members[0]), [], "the stream announces no presence");
    one.announce();
    sleep(Duration::from_secs(10)).await;
    world.notice(Notice::Left(Side::First)).await;
    sleep(SOON).await;
    let calls = world.leases.calls(world.members[0]);
    assert_eq!(calls.iter().map(|call| call.0).collect::<Vec<_>>(), [0, 10]);
}

/// Calls run one at a time, and an empty room is not closed before the last one has ended.
#[tokio::test(start_paused = true)]
async fn lease_is_shortened_after_a_slow_renewal_though_the_room_is_empty() {
    let world = World::new().await;
    *world.leases.renewal_delay.lock().unwrap() = Duration::from_millis(4_500);
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    stream.announce();
    sleep(SOON).await;
    drop(stream);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.leases.calls(world.members[0]), [(0, "renew", 60), (4, "shorten", 2)]);
}

/// Calls that renew, shorten and query a lease never run concurrently.
#[tokio::test(start_paused = true)]
async fn calls_of_the_presence_port_run_one_at_a_time() {
    let world = World::new().await;
    let (mut ana, mut ben) =
        (world.open(Side::First, &TestGate::open()).await, world.open(Side::Second, &TestGate::open()).await);
    ana.announce();
    ben.announce();
    sleep(Duration::from_secs(15)).await;
    *world.leases.call_delay.lock().unwrap() = Duration::from_secs(4);
    drop(ana);
    while world.leases.running.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    // The lease is being shortened; the notice makes the room query it.
    world.notice(Notice::Here(Side::First)).await;
    sleep(Duration::from_secs(12)).await;
    let calls = world.leases.calls(world.members[0]);
    assert_eq!(calls.last().map(|(_, call, _)| *call), Some("shorten"), "{calls:?}");
    assert_eq!(world.leases.max_running.load(Ordering::SeqCst), 1);
}

/// The room renews a lease by a timer, not at its next sweep or query.
#[tokio::test(start_paused = true)]
async fn lease_is_renewed_25_seconds_after_its_last_renewal() {
    let world = World::with(LiveOptions::default().with_sweep_interval(Duration::from_mins(10))).await;
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    sleep(Duration::from_secs(10)).await;
    let start = world.leases.start.elapsed().as_secs();
    stream.announce();
    sleep(Duration::from_secs(60)).await;
    let renewed = world.leases.calls(world.members[0]).into_iter().map(|(at, ..)| at - start);
    assert_eq!(renewed.collect::<Vec<_>>(), [0, 25, 50]);
}

/// No notice tells that a process has died; the lease of its member ends.
#[tokio::test(start_paused = true)]
async fn partner_whose_process_died_is_away_when_the_lease_has_ended() {
    let world = World::new().await;
    world.leases.renew(world.members[0], Duration::from_secs(60)).await.unwrap();
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner here"]);
    assert_eq!(all_within(&mut ben, Duration::from_millis(59_900)).await, [""; 0]);
    assert_eq!(all_within(&mut ben, Duration::from_millis(200)).await, ["partner away"]);
    assert!(world.leases.queries.load(Ordering::SeqCst) < 6, "queries only when the lease may have ended");
}

#[tokio::test(start_paused = true)]
async fn end_of_a_couple_shortens_no_lease() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    ana.announce();
    sleep(SOON).await;
    world.leave(Side::Second).await;
    assert_eq!(received(&mut ana).await, ["bye NotPaired", "nothing more"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.leases.calls(world.members[0]), [(0, "renew", 60)]);
}

#[tokio::test(start_paused = true)]
async fn partner_is_here_until_the_end_of_the_lease_while_presence_cannot_be_queried() {
    let world = World::new().await;
    world.leases.renew(world.members[0], Duration::from_secs(60)).await.unwrap();
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner here"]);
    world.leases.fails.store(true, Ordering::SeqCst);
    assert_eq!(all_within(&mut ben, Duration::from_millis(59_900)).await, [""; 0]);
    assert_eq!(all_within(&mut ben, Duration::from_millis(200)).await, ["partner away"]);
}
