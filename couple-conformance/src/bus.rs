//! B1–B5: event bus.

use std::{sync::Arc, time::Duration};

use couple_core::{
    AccountId, CoupleId,
    live::{Bus, Notice, Subscription, Topic},
    pairing::Side,
    timeline::Body,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Breakable, World,
    outage::{CALL_LIMIT, recovers},
};

fn signal(n: usize) -> Notice {
    Notice::Signal { from: Side::First, kind: format!("x-{n}"), body: None }
}

async fn next_notice(subscription: &mut Box<dyn Subscription>) -> Option<Notice> {
    timeout(Duration::from_secs(2), subscription.next()).await.ok()
}

/// A notice that is published after subscribing arrives unchanged, also if the subscriber waits for it later, or if an earlier wait was
/// cancelled.
pub async fn b1_notice_reaches_every_subscription(bus: impl Bus) {
    let topic = Topic::Couple(World::default().couple_id());
    let queue = Topic::Queue("q".to_owned());
    let mut one = bus.subscribe(vec![topic.clone()]).await;
    let mut other = bus.subscribe(vec![topic.clone(), queue.clone()]).await;
    // The longest kind.
    let long_kind = format!("x-{}", "k".repeat(62));
    let body = Some(Body::from_stored(r#"{"text":"Olá 👩‍❤️‍👨"}"#));
    let notices = [
        Notice::Changed,
        signal(1),
        Notice::Signal { from: Side::Second, kind: long_kind, body },
        Notice::Here(Side::Second),
        Notice::Left(Side::First),
    ];
    for notice in notices {
        bus.publish(topic.clone(), notice.clone()).await;
        for subscription in [&mut one, &mut other] {
            let received = next_notice(subscription).await;
            assert!(
                received.as_ref() == Some(&notice),
                "a notice does not arrive as {notice:?}: {received:?}"
            );
        }
    }
    bus.publish(queue, Notice::Changed).await;
    let received = next_notice(&mut other).await;
    assert!(received == Some(Notice::Changed), "a notice of the second topic does not arrive: {received:?}");
    let appended = Notice::Appended(Arc::new(World::default().entry("a").at_seq(1)));
    bus.publish(topic.clone(), appended.clone()).await;
    for subscription in [&mut one, &mut other] {
        let received = next_notice(subscription).await;
        let arrived = received == Some(Notice::Changed) || received.as_ref() == Some(&appended);
        assert!(arrived, "a notice of an entry does not arrive, or as another one: {received:?}");
    }
    // Unread notices, of which two are equal.
    let mut unread: Vec<Notice> = [1, 2, 2, 3, 4, 5, 6, 7, 8, 9].map(signal).into();
    for notice in &unread {
        bus.publish(topic.clone(), notice.clone()).await;
    }
    while !unread.is_empty() {
        match next_notice(&mut one).await {
            // In place of all that are missing.
            Some(Notice::Changed) => break,
            Some(received) => {
                let place = unread.iter().position(|notice| *notice == received);
                unread.remove(place.unwrap_or_else(|| panic!("an unread notice arrives as {received:?}")));
            }
            None => panic!("of 10 unread notices, these do not arrive, and no `Changed`: {unread:?}"),
        }
    }
    for n in 0..20 {
        // The caller gives up at about the time at which the notice arrives.
        let wait = timeout(Duration::from_millis(2) + Duration::from_micros(100 * n), one.next());
        let publish = async {
            sleep(Duration::from_millis(2)).await;
            bus.publish(topic.clone(), signal(7)).await;
        };
        let early = tokio::join!(wait, publish).0.ok();
        let received = if early.is_some() { early } else { next_notice(&mut one).await };
        assert!(received == Some(signal(7)), "a notice does not arrive after a cancelled wait: {received:?}");
    }
}

/// A publisher never waits; a subscriber that missed signals receives [`Notice::Changed`].
pub async fn b2_slow_subscriber_receives_changed(bus: impl Bus) {
    let topic = Topic::Couple(World::default().couple_id());
    let mut slow = bus.subscribe(vec![topic.clone()]).await;
    let flood = async {
        for n in 0..10_000 {
            bus.publish(topic.clone(), signal(n)).await;
        }
    };
    timeout(Duration::from_secs(10), flood).await.expect("publishing waits for a slow subscriber");
    // Signals that were not missed come first, after any delay of a slow machine.
    let changed = async { while slow.next().await != Notice::Changed {} };
    timeout(Duration::from_secs(5), changed).await.expect("no notice reports the missed notices");
}

/// A subscription receives no notices of other topics, however similar they are.
pub async fn b3_subscription_receives_only_its_topics(bus: impl Bus) {
    let world = World::default();
    let (couple, account) = (world.couple_id(), world.account_id());
    let topics = [Topic::Couple(couple), Topic::Account(account), Topic::Queue("mail".to_owned())];
    let others = [
        Topic::Couple(world.couple_id()),
        Topic::Account(world.account_id()),
        // The same id in a topic of another kind.
        Topic::Account(AccountId::from_uuid(couple.as_uuid())),
        Topic::Couple(CoupleId::from_uuid(account.as_uuid())),
        Topic::Queue(couple.as_uuid().to_string()),
        Topic::Queue("Mail".to_owned()),
        Topic::Queue("mail ".to_owned()),
        Topic::Queue("mai".to_owned()),
        Topic::Queue("m%".to_owned()),
        Topic::Queue("*".to_owned()),
    ];
    let mut subscription = bus.subscribe(topics.to_vec()).await;
    for (n, other) in others.into_iter().enumerate() {
        bus.publish(other.clone(), signal(n)).await;
        let received = timeout(Duration::from_millis(100), subscription.next()).await;
        assert!(received.is_err(), "a notice of another topic arrives: {other:?}");
    }
    for (n, topic) in topics.into_iter().enumerate() {
        // No notice of another topic equals it, so that one which arrives late is not taken for it.
        let own = signal(1_000 + n);
        bus.publish(topic.clone(), own.clone()).await;
        let received = next_notice(&mut subscription).await;
        assert!(
            received.as_ref() == Some(&own),
            "the notice of {topic:?} does not arrive, or one of another topic before it: {received:?}"
        );
    }
}

/// Dropped subscriptions are no longer served: a notice arrives as fast as before. Others of the same topic stay.
pub async fn b4_dropped_subscriptions_are_removed(bus: impl Bus) {
    let topic = Topic::Couple(World::default().couple_id());
    let mut kept = bus.subscribe(vec![topic.clone()]).await;
    let mut fastest = async || {
        let mut fastest = Duration::MAX;
        for _ in 0..30 {
            let start = Instant::now();
            bus.publish(topic.clone(), Notice::Changed).await;
            let received = next_notice(&mut kept).await;
            assert!(
                received == Some(Notice::Changed),
                "dropping subscriptions ended another one of the topic"
            );
            fastest = start.elapsed().min(fastest);
        }
        fastest
    };
    let before = fastest().await;
    for _ in 0..20_000 {
        drop(bus.subscribe(vec![topic.clone()]).await);
    }
    let after = fastest().await;
    let most = before * 4 + Duration::from_millis(1);
    assert!(
        after <= most,
        "20,000 dropped subscriptions are still served: a notice takes {after:?}, before it took {before:?}"
    );
}

/// Publishing does not wait for a transport that has failed. After the outage each subscription receives what it missed, or `Changed`, and
/// later notices arrive again.
pub async fn b5_outage_loses_no_notice_silently<B: Bus>(bus: Breakable<B>) {
    // Longer than the delays with which a bus tries to send again.
    const NOTICE_LIMIT: Duration = Duration::from_secs(10);
    let (bus, outage) = bus.into_parts();
    let topic = Topic::Couple(World::default().couple_id());
    let mut subscriptions =
        [bus.subscribe(vec![topic.clone()]).await, bus.subscribe(vec![topic.clone()]).await];
    bus.publish(topic.clone(), signal(0)).await;
    for subscription in &mut subscriptions {
        let received = timeout(NOTICE_LIMIT, subscription.next()).await.ok();
        assert!(received == Some(signal(0)), "a notice does not arrive before an outage: {received:?}");
    }
    outage.begin();
    let published: Vec<Notice> = (1..=20).map(signal).collect();
    let publish = async {
        for notice in &published {
            bus.publish(topic.clone(), notice.clone()).await;
        }
    };
    timeout(CALL_LIMIT, publish).await.expect("publishing waits for a transport that has failed");
    // So that the bus tries to send during the outage.
    sleep(Duration::from_millis(300)).await;
    outage.end();
    for (n, subscription) in subscriptions.iter_mut().enumerate() {
        let mut missing = published.clone();
        while !missing.is_empty() {
            match timeout(NOTICE_LIMIT, subscription.next()).await {
                // In place of all that are missing.
                Ok(Notice::Changed) => break,
                // A bus may deliver a notice twice.
                Ok(received) => missing.retain(|notice| *notice != received),
                Err(_) => panic!(
                    "subscription {n} lacks notices of an outage, 10 s after it, and receives no `Changed`: {missing:?}"
                ),
            }
        }
    }
    for (n, subscription) in subscriptions.iter_mut().enumerate() {
        let mut last = 100;
        recovers(&format!("no notice arrives at subscription {n}"), async || {
            // Enough for each of two processes to publish.
            let sent: Vec<Notice> = (last..last + 8).map(signal).collect();
            last += 8;
            for notice in &sent {
                bus.publish(topic.clone(), notice.clone()).await;
            }
            let mut missing = sent;
            while !missing.is_empty() {
                let received = timeout(Duration::from_millis(500), subscription.next()).await.ok()?;
                missing.retain(|notice| *notice != received);
            }
            Some(())
        })
        .await;
    }
}
