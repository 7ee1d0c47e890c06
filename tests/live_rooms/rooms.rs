//! Rooms: when they are opened, read, closed and replaced.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use couple::{
    core::{Failure, Principal, live::Notice},
    notify::live::{Live, LiveOptions},
    pairing::Side,
    timeline::TimelineError,
};
use tokio::time::sleep;

use crate::support::{Sessions, TestGate, World, received};

#[tokio::test(start_paused = true)]
async fn room_is_closed_five_seconds_after_its_last_stream() {
    let world = World::new().await;
    let subscriptions = || world.bus.open.load(Ordering::SeqCst);
    let before = subscriptions();
    let one = world.caught_up(Side::First, &TestGate::open()).await;
    world.reads.all();
    let two = world.caught_up(Side::First, &TestGate::open()).await;
    let three = world.caught_up(Side::Second, &TestGate::open()).await;
    assert_eq!(world.reads.all(), [("couple", 2)].into(), "the room is found without a read");
    // The log of the couple, and the sessions of its members.
    assert_eq!(subscriptions(), before + 2, "all streams of a couple share one room");
    drop((one, three));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(subscriptions(), before + 2, "a stream is left");
    drop(two);
    sleep(Duration::from_millis(4_900)).await;
    assert_eq!(subscriptions(), before + 2, "a client that polls may return");
    let again = world.caught_up(Side::Second, &TestGate::open()).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.bus.opened.load(Ordering::SeqCst), before + 2, "it returned to the same room");
    drop(again);
    sleep(Duration::from_millis(5_100)).await;
    assert_eq!(subscriptions(), before, "the room is left open");
    let hub = format!("{:?}", world.backend.live());
    assert!(hub.contains("by_couple: {}") && hub.contains("by_account: {}"), "{hub}");
    assert!(hub.contains("LiveContext { options: LiveOptions { "), "{hub}");
    let _new = world.caught_up(Side::First, &TestGate::open()).await;
    assert_eq!(subscriptions(), before + 2, "a new room");
}

#[tokio::test(start_paused = true)]
async fn room_of_an_ended_couple_is_closed_and_replaced() {
    let world = World::new().await;
    let before = world.bus.open.load(Ordering::SeqCst);
    let mut stream = world.caught_up(Side::Second, &TestGate::open()).await;
    world.leave(Side::First).await;
    assert_eq!(received(&mut stream).await, ["bye NotPaired", "nothing more"]);
    assert_eq!(world.bus.open.load(Ordering::SeqCst), before, "the room is left open");
    let refused = world.backend.live().open(world.members[1], TestGate::open(), None).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused(TimelineError::NotPaired)), "{refused:?}");
    let signal = stream.signal("hug", None).await.unwrap_err();
    assert!(matches!(signal, Failure::Refused(TimelineError::NotPaired)), "{signal:?}");
}

#[tokio::test(start_paused = true)]
async fn account_that_has_left_and_paired_again_does_not_join_its_old_room() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut old = world.caught_up(Side::First, &gate).await;
    world.leave(Side::First).await;
    let ports = world.backend.ports();
    let mut couple = ports.store.couple(world.couple).await.unwrap().unwrap();
    (couple.id, couple.ended_at, couple.head_seq) = (ports.new_id(), None, 0);
    ports.commit(vec![couple::pairing::PairingChange::Pair(couple.clone()).into()]).await.unwrap();
    let mut new = world.open(Side::First, &gate).await;
    assert_eq!(new.membership().couple, couple.id);
    assert_eq!(received(&mut new).await, ["caught up"]);
    assert_eq!(received(&mut old).await, ["bye NotPaired", "nothing more"]);
    // The end of the old room has not removed the new one.
    let opened = world.bus.opened.load(Ordering::SeqCst);
    let _partner = world.caught_up(Side::Second, &gate).await;
    assert_eq!(world.bus.opened.load(Ordering::SeqCst), opened, "the partner joins the new room");
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_process_stops() {
    let world = World::new().await;
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    assert!(!world.backend.live().is_draining());
    world.backend.live().drain();
    assert!(world.backend.live().is_draining());
    assert_eq!(received(&mut stream).await, ["bye Draining", "nothing more"]);
    let mut late = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(received(&mut late).await, ["bye Draining", "nothing more"]);
}

#[tokio::test(start_paused = true)]
async fn no_task_remains_after_the_last_stream() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions, LiveOptions::default());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let gate = TestGate::of(Principal::new(world.members[0], "phone"));
    let mut stream = live.open(world.members[0], gate, None).await.unwrap();
    stream.announce();
    assert_eq!(received(&mut stream).await, ["caught up"]);
    assert!(tasks() > before);
    drop(stream);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(tasks(), before);
}

#[tokio::test]
async fn options_of_live_delivery_are_those_of_the_host() {
    let options =
        LiveOptions::default().with_max_concurrent_reads(7).with_reconnect_spread(Duration::from_secs(4));
    let world = World::with(options).await;
    let options = world.backend.live().options();
    assert_eq!((options.max_concurrent_reads(), options.reconnect_spread()), (7, Duration::from_secs(4)));
}

/// The streams end with the room; the leases of those that announced presence are shortened as after an ordinary end.
#[tokio::test(start_paused = true)]
async fn failed_read_ends_the_room_and_soon_the_presence_that_it_announced() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    let mut ben = world.caught_up(Side::Second, &TestGate::open()).await;
    ana.announce();
    sleep(Duration::from_secs(10)).await;
    world.reads.fails.store(true, Ordering::SeqCst);
    world.notice(Notice::Changed).await;
    for stream in [&mut ana, &mut ben] {
        assert_eq!(received(stream).await.last().unwrap(), "nothing more");
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.leases.calls(world.members[0]), [(0, "renew", 60), (13, "shorten", 2)]);
    assert_eq!(world.leases.calls(world.members[1]), [], "never announced");
    world.reads.fails.store(false, Ordering::SeqCst);
    world.caught_up(Side::First, &TestGate::open()).await;
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_task_of_their_room_panics() {
    let world = World::new().await;
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    world.reads.panics.store(true, Ordering::SeqCst);
    world.notice(Notice::Changed).await;
    assert_eq!(received(&mut stream).await, ["bye Unavailable", "nothing more"]);
    world.reads.panics.store(false, Ordering::SeqCst);
    world.caught_up(Side::First, &TestGate::open()).await;
}
