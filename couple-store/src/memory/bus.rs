//! Notices within one process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use couple_core::live::{Bus, Notice, Subscription, Topic};
use tokio::sync::Notify;

/// Notices that say more than that something happened, and wait for a subscriber; of more it is told that something happened.
const WAITING: usize = 32;

/// Carries notices within this process.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus(Arc<Mutex<Topics>>);

#[derive(Debug, Default)]
struct Topics {
    listeners: HashMap<Topic, Vec<(u64, Arc<Listener>)>>,
    next: u64,
}

/// One subscriber: any number of changes is one, what says more waits in a bounded queue. There are as many as live connections, so it
/// takes no room for what is not there.
#[derive(Debug, Default)]
struct Listener {
    told: Notify,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    changed: bool,
    others: VecDeque<Notice>,
}

impl Waiting {
    fn look(&mut self) {
        self.changed = true;
        self.others.retain(|notice| !matches!(notice, Notice::Appended(_)));
    }
}

impl Listener {
    fn tell(&self, notice: &Notice) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match notice {
            // Who is told to look sees what was appended then, and as it is by then.
            Notice::Changed => waiting.look(),
            Notice::Appended(_) if waiting.changed => {}
            Notice::Appended(_) if waiting.others.len() >= WAITING / 2 => waiting.look(),
            other if waiting.others.len() < WAITING => waiting.others.push_back(other.clone()),
            _ => waiting.look(),
        }
        drop(waiting);
        self.told.notify_one();
    }

    /// What there is; that something changed comes last.
    fn take(&self) -> Option<Notice> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let other = waiting.others.pop_front();
        other.or_else(|| std::mem::take(&mut waiting.changed).then_some(Notice::Changed))
    }
}

impl MemoryBus {
    /// A bus with nobody on it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells everybody to look: something may have been missed.
    pub fn stir(&self) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, listener) in topics.listeners.values().flatten() {
            listener.tell(&Notice::Changed);
        }
    }

    /// How many topics are listened to: none once everybody left.
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
            listener.tell(&notice);
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
            self.listener.told.notified().await;
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
