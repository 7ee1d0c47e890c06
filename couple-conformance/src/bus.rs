//! B1–B4: event bus.

use std::{sync::Arc, time::Duration};

use couple_core::{
    live::{Bus, Notice, Subscription, Topic},
    pairing::Side,
};
use tokio::time::timeout;

use crate::World;

fn signal(n: usize) -> Notice {
    Notice::Signal { from: Side::First, kind: format!("x-{n}"), body: None }
}

async fn next_notice(subscription: &mut Box<dyn Subscription>) -> Option<Notice> {
    timeout(Duration::from_secs(2), subscription.next()).await.ok()
}

/// A notice that is published after subscribing arrives, also if the subscriber waits for it later.
pub async fn b1_notice_reaches_every_subscription(bus: impl Bus) {
    let topic = Topic::Couple(World::default().couple_id());
    let mut one = bus.subscribe(vec![topic.clone()]).await;
    let mut other = bus.subscribe(vec![topic.clone(), Topic::Queue("q".to_owned())]).await;
    bus.publish(topic.clone(), Notice::Changed).await;
    for subscription in [&mut one, &mut other] {
        assert_eq!(next_notice(subscription).await, Some(Notice::Changed));
    }
    bus.publish(topic.clone(), signal(1)).await;
    for subscription in [&mut one, &mut other] {
        assert_eq!(next_notice(subscription).await, Some(signal(1)));
    }
    bus.publish(Topic::Queue("q".to_owned()), Notice::Changed).await;
    assert_eq!(next_notice(&mut other).await, Some(Notice::Changed));
    let appended = Notice::Appended(Arc::new(World::default().entry("a").at_seq(1)));
    bus.publish(topic, appended.clone()).await;
    for subscription in [&mut one, &mut other] {
        let received = next_notice(subscription).await;
        assert!(received == Some(Notice::Changed) || received.as_ref() == Some(&appended), "{received:?}");
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
    timeout(Duration::from_secs(10), flood).await.expect("publishing does not wait");
    let mut reported = false;
    while let Ok(notice) = timeout(Duration::from_millis(200), slow.next()).await {
        reported |= notice == Notice::Changed;
    }
    assert!(reported, "no notice reports the missed notices");
}

/// A subscription receives no notices of other topics.
pub async fn b3_subscription_receives_only_its_topics(bus: impl Bus) {
    let world = World::default();
    let (one, other) = (Topic::Couple(world.couple_id()), Topic::Account(world.account_id()));
    let mut subscription = bus.subscribe(vec![one]).await;
    bus.publish(other, Notice::Changed).await;
    bus.publish(Topic::Couple(world.couple_id()), Notice::Changed).await;
    assert!(timeout(Duration::from_millis(100), subscription.next()).await.is_err());
}

/// Subscribing works after many dropped subscriptions.
pub async fn b4_dropped_subscriptions_are_removed(bus: impl Bus) {
    let topic = Topic::Couple(World::default().couple_id());
    for _ in 0..1_000 {
        drop(bus.subscribe(vec![topic.clone()]).await);
    }
    let mut subscription = bus.subscribe(vec![topic.clone()]).await;
    bus.publish(topic, Notice::Changed).await;
    assert_eq!(next_notice(&mut subscription).await, Some(Notice::Changed));
}
