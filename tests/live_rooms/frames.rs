//! Frames of a stream: cursors, and reads of the log.

use std::{sync::Arc, time::Duration};

use couple::{
    core::live::{Bus, Notice, Topic},
    notify::live::{CloseReason, Cursor},
    pairing::Side,
    timeline::Page,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{SOON, TRUST, TestGate, World, received, signal, words};

#[tokio::test(start_paused = true)]
async fn stream_continues_after_a_known_cursor_and_starts_anew_after_an_unknown_one() {
    let world = World::new().await;
    for n in 1..=3 {
        world.say(Side::Second, &n.to_string()).await;
    }
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(1))).await;
    assert_eq!(received(&mut stream).await, ["entry 2", "entry 3", "caught up"]);
    let cursor = stream.cursor();
    world.backend.timeline().mark_read(world.members[1], None, 2).await.unwrap();
    let mut stream = world.open_after(Side::First, &gate, Some(cursor)).await;
    assert_eq!(received(&mut stream).await, ["read 0 2", "caught up"]);
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(4))).await;
    assert_eq!(received(&mut stream).await, ["reset CursorUnknown", "caught up"]);
    assert_eq!(stream.cursor().seq, 3);
}

/// A stream that waits is woken by each event, not at the next sweep.
#[tokio::test(start_paused = true)]
async fn waiting_stream_receives_each_event_immediately() {
    for expected in [
        "entry 2",
        "signal hug of Some(Second)",
        "read 0 1",
        "bye SignedOut",
        "bye NotPaired",
        "bye Draining",
    ] {
        let world = World::new().await;
        world.say(Side::Second, "first").await;
        let gate = TestGate::open();
        let mut stream = world.caught_up(Side::First, &gate).await;
        let event = async {
            sleep(Duration::from_secs(1)).await;
            match expected {
                "entry 2" => world.say(Side::Second, "second").await,
                "read 0 1" => world.backend.timeline().mark_read(world.members[1], None, 1).await.unwrap(),
                "bye SignedOut" => {
                    gate.set(Err(CloseReason::SignedOut));
                    world.bus.publish(Topic::Account(world.members[0]), Notice::Changed).await;
                }
                "bye NotPaired" => world.leave(Side::Second).await,
                "bye Draining" => world.backend.live().drain(),
                _ => world.notice(signal(Side::Second, "hug")).await,
            }
        };
        let started = Instant::now();
        let frame = async { (words(&stream.next().await.unwrap()), started.elapsed()) };
        let ((frame, after), ()) = tokio::join!(frame, event);
        assert_eq!(frame, expected);
        assert!(after < Duration::from_secs(1) + SOON, "{expected} after {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn log_is_read_only_after_a_notice_without_the_next_entry() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    let mut ben = world.caught_up(Side::Second, &TestGate::open()).await;
    world.reads.taken();
    world.say(Side::First, "one").await;
    assert_eq!(
        (received(&mut ana).await, received(&mut ben).await),
        (vec!["entry 1".to_owned()], vec!["entry 1".to_owned()])
    );
    assert_eq!(world.reads.taken(), [0, 0], "the notice has the entry");
    let store = &world.backend.ports().store;
    let entry = store.entries(world.couple, Page::After(0), 1, None).await.unwrap().remove(0);
    world.reads.taken();
    let notice = |seq| Notice::Appended(Arc::new(couple::timeline::Entry { seq, ..entry.clone() }));
    world.notice(notice(1)).await;
    assert_eq!((received(&mut ana).await, world.reads.taken()), (vec![], [0, 0]), "the entry is known");
    // One between them is missing, so that the room reads once for all streams. There is none in the store.
    world.notice(notice(3)).await;
    assert_eq!((received(&mut ana).await, received(&mut ben).await), (vec![], vec![]));
    assert_eq!(world.reads.taken(), [1, 0]);
    // When the last read is too old for the gates' answers to count, the next entry is read too.
    let read_at = Instant::now();
    world.notice(Notice::Changed).await;
    received(&mut ana).await;
    assert_eq!(world.reads.taken(), [1, 0]);
    sleep_until(read_at + TRUST).await;
    world.say(Side::First, "two").await;
    assert_eq!(received(&mut ana).await, ["entry 2"]);
    assert_eq!(world.reads.taken()[1], 1);
}
