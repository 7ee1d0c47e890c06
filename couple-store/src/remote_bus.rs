//! Common part of the event buses between processes.
//!
//! A bounded outbox, batches and endless retries. Wherever notices may have been lost, a notice makes
//! subscribers read the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Entropy as _, Error, OsEntropy,
    job::Backoff,
    live::{Bus, Notice, Subscription, Topic},
};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::MemoryBus;

/// Capacity of the outbox, in notices.
///
/// Notices that do not fit are replaced by one that makes all subscribers read the store.
const MAX_QUEUED_NOTICES: usize = 4096;
/// Maximum number of notices per round trip.
const MAX_NOTICES_PER_MESSAGE: usize = 256;
/// Interval of liveness checks of a quiet subscription, and the time limit of each check.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Delays between attempts to send or to subscribe, without a limit of attempts.
const RETRY_BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), most: Duration::from_secs(1) };

/// Batch of notices: sending process, and topic and content of each notice; none for lost notices.
///
/// The batch is one message, because the cost of a transport is per message.
type Message = (Uuid, Vec<Option<(Topic, Notice)>>);

/// Transport that delivers text messages to all processes.
pub(crate) trait Transport: Send + Sync + 'static {
    /// Name of the transport in log messages.
    const NAME: &'static str;
    /// Maximum length of a message in bytes.
    const MAX_TEXT_BYTES: usize;
    /// Subscription to the messages of all processes.
    type Subscription: Send;
    /// Subscribes.
    fn subscribe(&self) -> impl Future<Output = Result<Self::Subscription, Error>> + Send;
    /// Passes received messages to `receiver` until the subscription fails.
    fn receive(
        subscription: Self::Subscription,
        receiver: &RemoteReceiver,
    ) -> impl Future<Output = ()> + Send;
    /// Sends messages. After an error some of them may have been sent.
    fn publish(&self, texts: &[String]) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Event bus over a transport. Notices within the process do not use the transport.
#[derive(Debug)]
pub(crate) struct RemoteBus {
    local: MemoryBus,
    outbox: mpsc::Sender<(Topic, Notice)>,
    /// Whether notices were dropped since the sender last checked.
    lost: Arc<AtomicBool>,
    /// Tasks, aborted when the bus is dropped.
    _tasks: JoinSet<()>,
}

impl RemoteBus {
    pub(crate) async fn start<M: Transport>(transport: M) -> Result<Self, Error> {
        // Random id of this process's bus, by which it recognises its own messages.
        let mut origin = [0; 16];
        OsEntropy.fill(&mut origin);
        let (local, origin, transport) = (MemoryBus::new(), Uuid::from_bytes(origin), Arc::new(transport));
        let (outbox, waiting) = mpsc::channel(MAX_QUEUED_NOTICES);
        let lost = Arc::new(AtomicBool::new(false));
        let first = transport.subscribe().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(transport.clone(), first, RemoteReceiver { local: local.clone(), origin }));
        tasks.spawn(send(transport, waiting, lost.clone(), origin));
        Ok(Self { local, outbox, lost, _tasks: tasks })
    }
}

/// Receiver of other processes' messages.
pub(crate) struct RemoteReceiver {
    local: MemoryBus,
    origin: Uuid,
}

impl RemoteReceiver {
    pub(crate) async fn take(&self, text: &[u8]) {
        match serde_json::from_slice::<Message>(text) {
            // An own message: local subscribers received it when it was published.
            Ok((from, _)) if from == self.origin => {}
            Ok((_, notices)) => {
                for notice in notices {
                    match notice {
                        Some((topic, notice)) => self.local.publish(topic, notice).await,
                        None => self.local.notify_all(),
                    }
                }
            }
            // A message of another version: its content is unknown, so all subscribers read the store.
            Err(_) => self.local.notify_all(),
        }
    }
}

async fn listen<M: Transport>(transport: Arc<M>, first: M::Subscription, receiver: RemoteReceiver) {
    let mut subscription = first;
    loop {
        M::receive(subscription, &receiver).await;
        tracing::warn!(
            "the subscription to {} ended; notices of other processes are lost until the next subscription",
            M::NAME
        );
        let mut attempt = 1;
        subscription = loop {
            sleep(RETRY_BACKOFF.wait(attempt, &OsEntropy)).await;
            match transport.subscribe().await {
                Ok(subscription) => break subscription,
                Err(error) => tracing::debug!(%error, attempt, "could not subscribe; will be retried"),
            }
            attempt += 1;
        };
        tracing::info!("subscribed to {} again", M::NAME);
        receiver.local.notify_all();
    }
}

async fn send<M: Transport>(
    transport: Arc<M>,
    mut waiting: mpsc::Receiver<(Topic, Notice)>,
    lost: Arc<AtomicBool>,
    origin: Uuid,
) {
    let (mut batch, mut failed) = (Vec::with_capacity(MAX_NOTICES_PER_MESSAGE), 0);
    loop {
        if failed > 0 {
            // Retry without waiting for a new notice: other processes still need the failed ones.
            sleep(RETRY_BACKOFF.wait(failed, &OsEntropy)).await;
            while batch.len() < MAX_NOTICES_PER_MESSAGE
                && let Ok(one) = waiting.try_recv()
            {
                batch.push(one);
            }
        } else if waiting.recv_many(&mut batch, MAX_NOTICES_PER_MESSAGE).await == 0 {
            return;
        }
        let must_resync = lost.swap(false, Ordering::Relaxed) || failed > 0;
        let notices = batch.drain(..).map(Some).chain(must_resync.then_some(None));
        let texts = write(origin, M::MAX_TEXT_BYTES, notices);
        failed = match transport.publish(&texts).await {
            Ok(()) => 0,
            Err(_) => failed + 1,
        };
    }
}

/// Serializes notices into as few [`Message`] texts of at most `longest` bytes as possible.
///
/// A notice that is too long for a text is replaced by [`Notice::Changed`].
fn write(
    origin: Uuid,
    longest: usize,
    notices: impl Iterator<Item = Option<(Topic, Notice)>>,
) -> Vec<String> {
    let begin = || format!(r#"["{origin}",["#);
    let around = begin().len() + "]]".len();
    let (mut texts, mut text) = (Vec::new(), begin());
    for notice in notices {
        let Ok(mut item) = serde_json::to_string(&notice) else { continue };
        if let Some((topic, _)) = notice
            && around + item.len() > longest
        {
            let Ok(happened) = serde_json::to_string(&Some((topic, Notice::Changed))) else { continue };
            item = happened;
        }
        if text.len() + ",]]".len() + item.len() > longest && text.len() + 2 > around {
            text.push_str("]]");
            texts.push(std::mem::replace(&mut text, begin()));
        }
        if text.len() + 2 > around {
            text.push(',');
        }
        text.push_str(&item);
    }
    text.push_str("]]");
    texts.push(text);
    texts
}

#[async_trait]
impl Bus for RemoteBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        self.local.publish(topic.clone(), notice.clone()).await;
        if self.outbox.try_send((topic, notice)).is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.local.subscribe(topics).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_packed_into_few_messages() {
        let about = |n: usize, notice| Some((Topic::Queue(n.to_string()), notice));
        let notices = || (0..100).map(|n| about(n, Notice::Changed)).chain([None]);
        let all: Vec<_> = notices().collect();
        for longest in [80, 100, 1_000, 100_000] {
            let texts = write(Uuid::nil(), longest, notices());
            assert!(texts.iter().all(|text| text.len() <= longest), "{texts:?}");
            let read = |text: &String| serde_json::from_str::<Message>(text).unwrap().1;
            let read: Vec<_> = texts.iter().flat_map(read).collect();
            assert_eq!(read, all);
            assert!(texts.len() == 1 || longest < 100_000);
        }
    }

    #[test]
    fn oversized_notice_becomes_changed() {
        let topic = Topic::Queue("q".to_owned());
        let signal =
            Notice::Signal { from: couple_core::pairing::Side::First, kind: "x-".repeat(100), body: None };
        let texts = write(Uuid::nil(), 200, [Some((topic.clone(), signal))].into_iter());
        let read: Message = serde_json::from_str(&texts[0]).unwrap();
        assert_eq!((texts.len(), read.1), (1, vec![Some((topic, Notice::Changed))]));
    }
}
