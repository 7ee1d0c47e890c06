//! A custom event bus with a bounded queue for each subscription, checked by `couple-conformance`.
//!
//! `cargo run --example own_bus` uses it, `cargo test --example own_bus` checks it.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use couple::core::live::{Bus, Notice, Subscription, Topic};
use tokio::sync::mpsc;

/// Maximum number of notices that wait for one subscriber.
const QUEUE_LENGTH: usize = 64;

struct Subscriber {
    topics: Vec<Topic>,
    queue: mpsc::Sender<Notice>,
    missed: Arc<AtomicBool>,
}

struct Receiver {
    queue: mpsc::Receiver<Notice>,
    missed: Arc<AtomicBool>,
}

#[derive(Clone, Default)]
struct QueueBus(Arc<Mutex<Vec<Subscriber>>>);

#[async_trait]
impl Bus for QueueBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A dropped receiver closes its queue (B4).
        subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        for subscriber in subscribers.iter().filter(|subscriber| subscriber.topics.contains(&topic)) {
            // Never waits: a full queue drops the notice, and its subscriber receives `Changed` (B2).
            if subscriber.queue.try_send(notice.clone()).is_err() {
                subscriber.missed.store(true, Ordering::Release);
                // The receiver may have emptied the queue in between, and wait: this wakes it. If the queue is still
                // full, it reads the flag after the next notice.
                let _ = subscriber.queue.try_send(Notice::Changed);
            }
        }
    }

    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        let (sender, queue) = mpsc::channel(QUEUE_LENGTH);
        let missed = Arc::new(AtomicBool::new(false));
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| !subscriber.queue.is_closed());
        subscribers.push(Subscriber { topics, queue: sender, missed: missed.clone() });
        Box::new(Receiver { queue, missed })
    }
}

#[async_trait]
impl Subscription for Receiver {
    async fn next(&mut self) -> Notice {
        if self.missed.swap(false, Ordering::AcqRel) {
            return Notice::Changed;
        }
        match self.queue.recv().await {
            Some(notice) => notice,
            // The bus was dropped: no notice will arrive.
            None => std::future::pending().await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = QueueBus::default();
    let backend = couple::Backend::builder().bus(bus.clone()).build()?;
    let mut jobs = bus.subscribe(vec![Topic::Queue("mail".to_owned())]).await;
    let sign_up =
        couple::account::SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
    backend.accounts()?.sign_up(&couple::RequestContext::default(), &sign_up).await?;
    let notice = tokio::time::timeout(std::time::Duration::from_secs(5), jobs.next()).await?;
    println!("a sign-up published {notice:?} to the queue of mails");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    couple_conformance::bus!(async { QueueBus::default() });
}
