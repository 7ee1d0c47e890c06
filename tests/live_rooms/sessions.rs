//! Sessions of open streams: checked once a second, and their ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use couple::{
    core::Principal,
    notify::live::{CloseReason, Live, LiveOptions},
    pairing::Side,
};
use tokio::time::sleep;

use crate::support::{SOON, Sessions, TestGate, World, received, received_within};

#[tokio::test(start_paused = true)]
async fn sessions_of_open_streams_are_checked_once_a_second() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let [ana, ben] = world.members;
    let phone = || TestGate::of(Principal::new(ana, "phone"));
    let one = live.open(ana, phone(), None).await.unwrap();
    let two = live.open(ana, phone(), None).await.unwrap();
    let unwatched = live.open(ana, TestGate::open(), None).await.unwrap();
    sleep(Duration::from_millis(900)).await;
    assert_eq!(sessions.asked(), [""; 0]);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(sessions.asked(), ["phone"], "once for both streams");
    let other = live.open(ben, TestGate::of(Principal::new(ben, "tablet")), None).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(sessions.asked(), ["phone", "phone", "phone", "tablet", "tablet", "tablet"]);
    drop(one);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions.asked(), ["phone", "tablet"], "the session has another stream");
    drop(two);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions.asked(), ["tablet"]);
    sessions.panics.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sessions.asked(), ["tablet"], "the watch has started again after a panic");
    drop(other);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(sessions.asked(), [""; 0], "no session is followed any more");
    let again = live.open(ana, phone(), None).await.unwrap();
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(sessions.asked(), ["phone"], "the watch has started again");
    drop((again, unwatched));
}

#[tokio::test(start_paused = true)]
async fn stream_of_an_ended_session_asks_its_gate_at_the_next_check() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let [ana, ben] = world.members;
    let (gate, partner_gate) =
        (TestGate::of(Principal::new(ana, "phone")), TestGate::of(Principal::new(ben, "tablet")));
    let mut stream = live.open(ana, gate.clone(), None).await.unwrap();
    let mut partner = live.open(ben, partner_gate.clone(), None).await.unwrap();
    assert_eq!(
        (received(&mut stream).await, received(&mut partner).await),
        (vec!["caught up".to_owned()], vec!["caught up".to_owned()])
    );
    sessions.short.store(true, Ordering::SeqCst);
    sessions.end("phone");
    gate.set(Err(CloseReason::SignedOut));
    assert_eq!(received_within(&mut stream, Duration::from_secs(5)).await, [""; 0], "the answer is useless");
    sessions.short.store(false, Ordering::SeqCst);
    let ended = received_within(&mut stream, Duration::from_millis(1_050)).await;
    assert_eq!(ended, ["bye SignedOut", "nothing more"]);
    // Between two checks.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(received_within(&mut partner, Duration::from_secs(3)).await, [""; 0], "its session is valid");
    // While the ended session has a stream, it is not checked again, except after a new stream of it has opened.
    sessions.asked();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sessions.asked(), ["tablet", "tablet"]);
    let new_gate = TestGate::of(Principal::new(ana, "phone"));
    let mut new = live.open(ana, new_gate.clone(), None).await.unwrap();
    assert_eq!(received(&mut new).await, ["caught up"]);
    let asked = new_gate.asked();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions.asked(), ["phone", "tablet"]);
    assert_eq!(
        (received(&mut new).await, new_gate.asked()),
        (Vec::new(), asked + 1),
        "its gate is still open"
    );
}

#[tokio::test(start_paused = true)]
async fn session_is_checked_with_its_latest_expiry() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let ana = world.members[0];
    let until = |seconds: i64| {
        let at = couple::Timestamp::from_micros(seconds * 1_000_000);
        TestGate::of(Principal::new(ana, "phone").with_expiry(at))
    };
    let mut open = vec![live.open(ana, until(6), None).await.unwrap()];
    // Between two checks.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(sessions.asked(), ["phone@6"]);
    for (expiry, checked) in [(7, "phone@7"), (9, "phone@9"), (8, "phone@9"), (10, "phone@10")] {
        open.push(live.open(ana, until(expiry), None).await.unwrap());
        sleep(Duration::from_millis(1_000)).await;
        assert_eq!(sessions.asked().last().map(String::as_str), Some(checked));
    }
    open.push(live.open(ana, TestGate::of(Principal::new(ana, "phone")), None).await.unwrap());
    sleep(Duration::from_millis(1_000)).await;
    assert_eq!(sessions.asked(), ["phone"], "a session that does not expire");
}

/// A stream of a session that has moved to another couple is reached in its new room.
#[tokio::test(start_paused = true)]
async fn end_of_a_session_reaches_its_streams_in_the_room_of_the_new_couple() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let (ana, ports) = (world.members[0], world.backend.ports());
    let principal = Principal::new(ana, "phone");
    let old = live.open(ana, TestGate::of(principal.clone()), None).await.unwrap();
    world.leave(Side::First).await;
    let mut couple = ports.store.couple(world.couple).await.unwrap().unwrap();
    (couple.id, couple.ended_at, couple.head_seq) = (ports.new_id(), None, 0);
    ports.commit(vec![couple::pairing::PairingChange::Pair(couple).into()]).await.unwrap();
    sleep(SOON).await;
    let gate = TestGate::of(principal);
    let mut new = live.open(ana, gate.clone(), None).await.unwrap();
    assert_eq!(received(&mut new).await, ["caught up"]);
    sessions.end("phone");
    gate.set(Err(CloseReason::SignedOut));
    let frames = received_within(&mut new, Duration::from_millis(1_100)).await;
    assert_eq!(frames, ["bye SignedOut", "nothing more"]);
    drop(old);
}
