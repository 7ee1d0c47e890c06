//! Event bus within one process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use couple_core::live::{Bus, Notice, Subscription, Topic};
use tokio::sync::Notify;

/// Capacity of a subscriber's queue, in notices.
///
/// When it is full, [`Notice::Changed`] replaces further notices.
const MAX_QUEUED_SIGNALS: usize = 32;

/// Event bus that carries notices within this process.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus(Arc<Mutex<Topics>>);

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
        match notice {
            // A subscriber that reads the store also sees the appended entry, in its current state.
            Notice::Changed => waiting.set_changed(),
            Notice::Appended(_) if waiting.changed => {}
            Notice::Appended(_) if waiting.others.len() >= MAX_QUEUED_SIGNALS / 2 => waiting.set_changed(),
            other if waiting.others.len() < MAX_QUEUED_SIGNALS => waiting.others.push_back(other.clone()),
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

impl MemoryBus {
    /// Creates a bus without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends [`Notice::Changed`] to all subscribers, because notices may have been lost.
    pub fn notify_all(&self) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, listener) in topics.listeners.values().flatten() {
            listener.deliver(&Notice::Changed);
        }
    }

    /// Number of topics with a subscriber.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).listeners.len()
    }
}

struct Subscribed {
    bus: MemoryBus,
    id: u64,
    topics: Vec<Topic>,
    listener: Arc<Listener>,
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, listener) in topics.listeners.get(&topic).into_iter().flatten() {
            listener.deliver(&notice);
        }
    }

    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        let listener = Arc::new(Listener::default());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        for topic in &topics {
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
            self.listener.ready.notified().await;
        }
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let mut all = self.bus.0.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in &self.topics {
            if let Some(listeners) = all.listeners.get_mut(topic) {
                listeners.retain(|(id, _)| *id != self.id);
                if listeners.is_empty() {
                    all.listeners.remove(topic);
                }
            }
        }
    }
}
