//! Signals between the devices of a couple.

use std::time::Duration;

use couple::{
    core::{
        Failure,
        live::{Bus, Notice, Topic},
    },
    notify::live::CloseReason,
    pairing::Side,
    timeline::TimelineError,
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::{SOON, TRUST, TestGate, World, received, signal};

#[tokio::test(start_paused = true)]
async fn signal_is_sent_only_by_a_stream_whose_gate_is_known_to_be_open() {
    let world = World::new().await;
    let mut partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let (gate, asked_at) = (TestGate::open(), Instant::now());
    let mut stream = world.caught_up(Side::First, &gate).await;
    sleep_until(asked_at + TRUST - SOON).await;
    stream.signal("hug", None).await.unwrap();
    assert_eq!(gate.asked(), 1, "it was just asked");
    assert_eq!(received(&mut partner).await, ["signal hug of Some(First)"]);
    sleep_until(asked_at + TRUST).await;
    stream.signal("kiss", None).await.unwrap();
    assert_eq!(gate.asked(), 2, "the answer was too old");
    assert_eq!(received(&mut partner).await, ["signal kiss of Some(First)"]);
    // The end of a session makes every answer void.
    world.bus.publish(Topic::Account(world.members[0]), Notice::Changed).await;
    sleep(SOON).await;
    gate.set(Err(CloseReason::SignedOut));
    let refused = stream.signal("hug", None).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused(TimelineError::NotPaired)), "{refused:?}");
    assert_eq!(received(&mut partner).await, [""; 0]);
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
    // A stream that has ended asks nothing more.
    let asked = gate.asked();
    gate.set(Ok(Duration::from_hours(1)));
    assert!(stream.signal("hug", None).await.is_err());
    assert_eq!((gate.asked(), received(&mut partner).await.len()), (asked, 0));
}

#[tokio::test(start_paused = true)]
async fn signals_reach_the_partner_s_devices_and_old_ones_are_dropped() {
    let world = World::new().await;
    let mut own = world.caught_up(Side::First, &TestGate::open()).await;
    let mut one = world.caught_up(Side::Second, &TestGate::open()).await;
    let mut other = world.caught_up(Side::Second, &TestGate::open()).await;
    for n in 1..=5 {
        world.notice(signal(Side::First, &format!("x-{n}"))).await;
        sleep(SOON).await;
    }
    let all = |numbers: std::ops::RangeInclusive<u32>| -> Vec<String> {
        numbers.map(|n| format!("signal x-{n} of Some(First)")).collect()
    };
    assert_eq!(received(&mut one).await, all(1..=5));
    assert_eq!(received(&mut own).await, [""; 0], "its own side sent them");
    for n in 6..=25 {
        world.notice(signal(Side::First, &format!("x-{n}"))).await;
        sleep(SOON).await;
    }
    assert_eq!(received(&mut one).await, all(10..=25), "the last sixteen");
    assert_eq!(received(&mut other).await, all(10..=25));
    // A stream that opens later gets none of them.
    let mut late = world.caught_up(Side::Second, &TestGate::open()).await;
    assert_eq!(received(&mut late).await, [""; 0]);
    // Signals are kept until the second sweep without a new one.
    let mut sleepy = world.caught_up(Side::Second, &TestGate::open()).await;
    world.notice(signal(Side::First, "x-26")).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(received(&mut sleepy).await, all(26..=26));
    world.notice(signal(Side::First, "x-27")).await;
    sleep(Duration::from_secs(90)).await;
    world.notice(signal(Side::First, "x-28")).await;
    assert_eq!(received(&mut sleepy).await, all(28..=28));
}

#[tokio::test(start_paused = true)]
async fn two_presses_at_one_place_within_a_second_and_a_half_are_a_kiss() {
    let world = World::new().await;
    let mut streams = [
        world.caught_up(Side::First, &TestGate::open()).await,
        world.caught_up(Side::Second, &TestGate::open()).await,
    ];
    let body = |x: f64| couple::timeline::Body::new("body", &json!({ "x": x, "y": 0.5 })).ok();
    let press = |from, x| world.notice(Notice::Signal { from, kind: "thumb".to_owned(), body: body(x) });
    let mut kisses = async || {
        let mut all = Vec::new();
        for stream in &mut streams {
            let frames = received(stream).await;
            all.push(frames.iter().filter(|frame| *frame == "signal thumb_kiss of None").count());
        }
        all
    };
    press(Side::First, 0.5).await;
    press(Side::First, 0.5).await;
    assert_eq!(kisses().await, [0, 0], "one member alone");
    sleep(Duration::from_secs(2)).await;
    let pressed = Instant::now();
    press(Side::First, 0.5).await;
    sleep_until(pressed + Duration::from_millis(1_500)).await;
    press(Side::Second, 0.55).await;
    assert_eq!(kisses().await, [1, 1]);
    press(Side::First, 0.5).await;
    assert_eq!(kisses().await, [0, 0], "each press meets once");
    let pressed = Instant::now();
    press(Side::First, 0.5).await;
    sleep_until(pressed + Duration::from_millis(1_502)).await;
    press(Side::Second, 0.5).await;
    assert_eq!(kisses().await, [0, 0], "too late");
    press(Side::First, 0.9).await;
    assert_eq!(kisses().await, [0, 0], "too far apart");
    world.notice(Notice::Signal { from: Side::Second, kind: "typing".to_owned(), body: body(0.9) }).await;
    assert_eq!(kisses().await, [0, 0], "no press");
}

#[tokio::test(start_paused = true)]
async fn signal_is_kept_for_a_busy_stream_for_at_least_a_sweep() {
    let world = World::new().await;
    let mut stream = world.caught_up(Side::Second, &TestGate::open()).await;
    for n in 0..8 {
        world.notice(signal(Side::First, &format!("x-{n}"))).await;
        if n % 2 == 1 {
            // The log is read, and has no new entry.
            sleep(SOON).await;
            world.notice(Notice::Changed).await;
        }
        sleep(Duration::from_secs(22)).await;
        assert_eq!(received(&mut stream).await, [format!("signal x-{n} of Some(First)")]);
        // Sweeps without a signal.
        sleep(Duration::from_secs(70)).await;
    }
}
