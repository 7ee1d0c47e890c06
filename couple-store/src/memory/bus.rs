//! Notices within one process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use couple_core::live::{Bus, Notice, Subscription, Topic};
use tokio::sync::{Notify, mpsc};

/// Signals that wait for a subscriber; it may lose more, since a signal is for now.
const SIGNALS: usize = 32;

/// Carries notices within this process.
#[derive(Debug, Clone, Default)]
pub struct MemoryBus(Arc<Mutex<Topics>>);

#[derive(Debug, Default)]
struct Topics {
    listeners: HashMap<Topic, Vec<(u64, Arc<Listener>)>>,
    next: u64,
}

/// One subscriber: any number of changes is one permit, signals wait in a bounded queue.
#[derive(Debug)]
struct Listener {
    changed: Notify,
    signals: mpsc::Sender<Notice>,
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
            listener.changed.notify_one();
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
    signals: mpsc::Receiver<Notice>,
}

#[async_trait]
impl Bus for MemoryBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, listener) in topics.listeners.get(&topic).into_iter().flatten() {
            match &notice {
                Notice::Changed => listener.changed.notify_one(),
                signal @ Notice::Signal { .. } => {
                    if listener.signals.try_send(signal.clone()).is_err() {
                        listener.changed.notify_one();
                    }
                }
            }
        }
    }

    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        let (sender, signals) = mpsc::channel(SIGNALS);
        let listener = Arc::new(Listener { changed: Notify::new(), signals: sender });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        for topic in &topics {
            all.listeners.entry(topic.clone()).or_default().push((id, listener.clone()));
        }
        drop(all);
        Box::new(Subscribed { bus: self.clone(), id, topics, listener, signals })
    }
}

#[async_trait]
impl Subscription for Subscribed {
    async fn next(&mut self) -> Notice {
        tokio::select! {
            biased;
            Some(signal) = self.signals.recv() => signal,
            () = self.listener.changed.notified() => Notice::Changed,
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
