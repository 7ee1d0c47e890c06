//! Gates: how long an answer counts, and when a gate is asked again.

use std::time::Duration;

use couple::{
    core::live::{Bus, Notice, Topic},
    notify::live::{CloseReason, Cursor, LiveOptions},
    pairing::Side,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{SOON, TRUST, TestGate, World, received, received_within, signal, words};

/// Each kind of frame is sent only if the gate was asked within the last two seconds.
#[tokio::test(start_paused = true)]
async fn no_frame_is_sent_once_the_answer_of_the_gate_is_too_old() {
    let events = [
        ("entry 2", TRUST - SOON),
        ("entry 2", TRUST),
        ("signal hug of Some(Second)", TRUST - SOON),
        ("signal hug of Some(Second)", TRUST),
        ("read 0 1", TRUST - SOON),
        ("read 0 1", TRUST),
        ("partner here", TRUST - SOON),
        ("partner here", TRUST),
    ];
    for (event, age) in events {
        let world = World::new().await;
        world.say(Side::Second, "first").await;
        let (gate, asked_at) = (TestGate::open(), Instant::now());
        let mut stream = world.caught_up(Side::First, &gate).await;
        let mut partner = world.caught_up(Side::Second, &TestGate::open()).await;
        sleep_until(asked_at + age).await;
        assert_eq!(gate.asked(), 1);
        gate.set(Err(CloseReason::SignedOut));
        match event {
            "entry 2" => world.say(Side::Second, "second").await,
            "read 0 1" => world.backend.timeline().mark_read(world.members[1], None, 1).await.unwrap(),
            "partner here" => partner.announce(),
            _ => world.notice(signal(Side::Second, "hug")).await,
        }
        let frames = received(&mut stream).await;
        if age < TRUST {
            assert_eq!((frames, gate.asked()), (vec![event.to_owned()], 1));
        } else {
            assert_eq!(frames, ["bye SignedOut", "nothing more"], "{event}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_page_of_older_entries_is_sent_once_the_answer_of_the_gate_is_too_old() {
    let world = World::new().await;
    for n in 1..=60 {
        world.say(Side::Second, &n.to_string()).await;
    }
    // The room of the partner keeps the last entries only.
    let _partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    assert_eq!(words(&stream.next().await.unwrap()), "entry 1");
    assert_eq!((stream.cursor().seq, gate.asked()), (1, 1));
    sleep(TRUST).await;
    gate.set(Err(CloseReason::SignedOut));
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
    // Nor is the next page read.
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    while stream.cursor().seq < 20 {
        stream.next().await.unwrap();
    }
    sleep(TRUST).await;
    gate.set(Err(CloseReason::SignedOut));
    world.reads.taken();
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
    assert_eq!(world.reads.taken(), [1, 0]);
    // With a gate that stays open, all arrive, in order.
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    let mut expected: Vec<_> = (1..=60).map(|n| format!("entry {n}")).collect();
    expected.push("caught up".to_owned());
    assert_eq!(received(&mut stream).await, expected);
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_the_time_that_the_gate_returned() {
    let world = World::new().await;
    let (gate, opened) = (TestGate::open(), Instant::now());
    gate.set(Ok(Duration::from_secs(5)));
    let mut stream = world.caught_up(Side::First, &gate).await;
    gate.set(Err(CloseReason::Expired));
    assert_eq!(received_within(&mut stream, Duration::from_secs(20)).await, ["bye Expired", "nothing more"]);
    let took = opened.elapsed();
    assert!((Duration::from_secs(5)..=Duration::from_secs(5) + SOON).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn gate_is_asked_at_each_sweep() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut stream = world.caught_up(Side::First, &gate).await;
    assert_eq!(received_within(&mut stream, Duration::from_secs(3_000)).await, [""; 0]);
    // A sweep after 22.5 to 30 s, at random.
    assert!((105..=124).contains(&gate.asked()), "{} times in 3,000 s", gate.asked());
}

#[tokio::test(start_paused = true)]
async fn answer_of_a_slow_gate_permits_one_frame() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut stream = world.caught_up(Side::First, &gate).await;
    *gate.answer_delay.lock().unwrap() = TRUST * 2;
    sleep(TRUST).await;
    world.say(Side::Second, "one").await;
    world.say(Side::Second, "two").await;
    let started = Instant::now();
    assert_eq!(words(&stream.next().await.unwrap()), "entry 1");
    assert_eq!((started.elapsed(), gate.asked()), (TRUST * 2, 2));
    assert_eq!(words(&stream.next().await.unwrap()), "entry 2");
    assert_eq!((started.elapsed(), gate.asked()), (TRUST * 4, 3));
}

#[tokio::test(start_paused = true)]
async fn answer_that_no_frame_needed_is_not_kept_for_a_later_one() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut stream = world.caught_up(Side::First, &gate).await;
    world.bus.publish(Topic::Account(world.members[0]), Notice::Changed).await;
    assert_eq!((received(&mut stream).await, gate.asked()), (Vec::new(), 2));
    gate.set(Err(CloseReason::SignedOut));
    sleep(TRUST).await;
    world.say(Side::Second, "secret").await;
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
}

#[tokio::test(start_paused = true)]
async fn answer_of_the_gate_is_asked_for_again_after_a_slow_read_of_a_page() {
    let world = World::new().await;
    for n in 1..=60 {
        world.say(Side::Second, &n.to_string()).await;
    }
    let _partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    *world.reads.entries_delay.lock().unwrap() = TRUST;
    let signed_out = async {
        sleep(TRUST / 2).await;
        assert_eq!(gate.asked(), 1, "the page is being read");
        gate.set(Err(CloseReason::SignedOut));
    };
    let (frame, ()) = tokio::join!(stream.next(), signed_out);
    assert_eq!(frame.as_ref().map(words).as_deref(), Some("bye SignedOut"));
}

#[tokio::test(start_paused = true)]
async fn gates_that_read_the_store_take_turns_with_other_reads() {
    let world = World::with(LiveOptions::default().with_max_concurrent_reads(1)).await;
    let gate = TestGate::open();
    let mut ana = world.open(Side::First, &gate).await;
    let mut ben = world.open(Side::Second, &gate).await;
    *gate.answer_delay.lock().unwrap() = Duration::from_secs(1);
    let started = Instant::now();
    let frames = tokio::join!(ana.next(), ben.next());
    assert_eq!([frames.0, frames.1].map(|frame| words(&frame.unwrap())), ["caught up", "caught up"]);
    assert_eq!((started.elapsed(), gate.asked()), (Duration::from_secs(2), 2));
}
