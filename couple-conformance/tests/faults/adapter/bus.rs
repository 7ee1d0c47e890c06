//! Event bus within one process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use couple_core::{
    live::{Bus, Notice, Subscription, Topic},
    pairing::Side,
};
use tokio::sync::Notify;

use crate::planted;

/// Capacity of a subscriber's queue, in notices.
///
/// When it is full, [`Notice::Changed`] replaces further notices.
const MAX_QUEUED_SIGNALS: usize = 32;

/// Event bus that carries notices within this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyBus(Arc<Mutex<Topics>>);

#[derive(Debug, Default)]
struct Topics {
    listeners: HashMap<Topic, Vec<(u64, Arc<Listener>)>>,
    next: u64,
}

/// Subscriber: [`Notice::Changed`] is stored as a flag, other notices in a bounded queue.
///
/// Each live connection has one, so the queue allocates no memory while it is empty.
#[derive(Debug, Default)]
struct Listener {
    ready: Notify,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    changed: bool,
    others: VecDeque<Notice>,
}

impl Waiting {
    fn set_changed(&mut self) {
        self.changed = true;
        self.others.retain(|notice| !matches!(notice, Notice::Appended(_)));
    }
}

impl Listener {
    fn deliver(&self, notice: &Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let notice = &match notice {
            Notice::Signal { from, kind, body: _ } if planted("bus-signal-loses-its-body") => {
                Notice::Signal { from: *from, kind: kind.clone(), body: None }
            }
            Notice::Signal { from, kind: _, body } if planted("bus-signal-loses-its-kind") => {
                Notice::Signal { from: *from, kind: "x".to_owned(), body: body.clone() }
            }
            Notice::Signal { from: _, kind, body } if planted("bus-signal-loses-its-sender") => {
                Notice::Signal { from: Side::First, kind: kind.clone(), body: body.clone() }
            }
            Notice::Signal { from, kind, body } if planted("bus-signal-kind-is-cut") => {
                Notice::Signal { from: *from, kind: kind.chars().take(32).collect(), body: body.clone() }
            }
            Notice::Signal { .. } if planted("bus-drops-signals") => return,
            Notice::Signal { .. } if planted("bus-replaces-signals") => Notice::Changed,
            Notice::Appended(_) if planted("bus-drops-entries") => return,
            Notice::Changed if planted("bus-drops-changed") => return,
            other => other.clone(),
        };
        match notice {
            // A subscriber that reads the store also sees the appended entry, in its current state.
            Notice::Changed => waiting.set_changed(),
            Notice::Appended(_) if waiting.changed => {}
            Notice::Appended(_) if waiting.others.len() >= MAX_QUEUED_SIGNALS / 2 => waiting.set_changed(),
            other if planted("bus-keeps-the-latest-notice") => waiting.others = [other.clone()].into(),
            other if planted("bus-merges-equal-notices") && waiting.others.contains(other) => {}
            other if waiting.others.len() < MAX_QUEUED_SIGNALS => waiting.others.push_back(other.clone()),
            _ if planted("bus-overflow-is-silent") => {}
            other if planted("bus-queue-is-unbounded") => waiting.others.push_back(other.clone()),
            _ => waiting.set_changed(),
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// Next notice; [`Notice::Changed`] comes after all others.
    fn take(&self) -> Option<Notice> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let other = waiting.others.pop_front();
        other.or_else(|| std::mem::take(&mut waiting.changed).then_some(Notice::Changed))
    }
}

impl FaultyBus {
    /// Creates a bus without subscribers.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Makes all subscribers read the store.
    pub(crate) fn notify_all(&self) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.listeners.values().flatten().for_each(|(_, listener)| listener.deliver(&Notice::Changed));
    }
}

fn id_of(topic: &Topic) -> Option<uuid::Uuid> {
    match topic {
        Topic::Couple(id) => Some(id.as_uuid()),
        Topic::Account(id) => Some(id.as_uuid()),
        Topic::Queue(_) => None,
    }
}

impl FaultyBus {
    fn listeners_of(&self, topic: &Topic) -> Vec<Arc<Listener>> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = if planted("bus-first-subscription-only") { 1 } else { usize::MAX };
        let matches = |one: &Topic| {
            one == topic
                || planted("bus-delivers-all-topics")
                || (planted("bus-takes-an-account-for-a-couple") && id_of(one) == id_of(topic))
                || (planted("bus-folds-names-of-queues")
                    && format!("{one:?}").to_lowercase() == format!("{topic:?}").to_lowercase())
        };
        let listeners = topics.listeners.iter().filter(|(one, _)| matches(one)).flat_map(|(_, all)| all);
        listeners.take(count).map(|(_, listener)| listener.clone()).collect()
    }
}

struct Subscribed {
    bus: FaultyBus,
    id: u64,
    topics: Vec<Topic>,
    listener: Arc<Listener>,
}

#[async_trait]
impl Bus for FaultyBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        for listener in self.listeners_of(&topic) {
            listener.deliver(&notice);
        }
        if planted("bus-publishing-waits") {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        let listener = Arc::new(Listener::default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        let count = if planted("bus-subscribes-to-the-first-topic") { 1 } else { usize::MAX };
        for topic in topics.iter().take(count) {
            if planted("bus-second-subscription-replaces-the-first") {
                all.listeners.remove(topic);
            }
            all.listeners.entry(topic.clone()).or_default().push((id, listener.clone()));
        }
        drop(all);
        Box::new(Subscribed { bus: self.clone(), id, topics, listener })
    }
}

#[async_trait]
impl Subscription for Subscribed {
    async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.listener.take() {
                return notice;
            }
            if planted("bus-cancelled-next-loses-a-notice") {
                self.listener.ready.notified().await;
                if let Some(notice) = self.listener.take() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    return notice;
                }
                continue;
            }
            self.listener.ready.notified().await;
        }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        if planted("bus-keeps-dropped-subscriptions") {
            return;
        }
        let mut all = self.bus.0.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in &self.topics {
            if let Some(listeners) = all.listeners.get_mut(topic) {
                if planted("bus-drop-ends-others-too") {
                    listeners.clear();
                }
                listeners.retain(|(id, _)| *id != self.id);
                if listeners.is_empty() {
                    all.listeners.remove(topic);
                }
            }
        }
    }
}
