//! What buses between processes have in common: who publishes waits for nobody, what waits is sent together, and whoever may have
//! missed something is told to look.

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

/// Notices that wait to be sent; what does not fit is made up for by one that tells everybody to look.
const QUEUE: usize = 4096;
/// Notices sent in one round trip at most.
const BATCH: usize = 256;
/// How often a quiet subscription is asked whether it lives, and how long the answer may take.
pub(crate) const PULSE: Duration = Duration::from_secs(1);
/// When to try again, for ever.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(50), most: Duration::from_secs(1) };

/// From whom, and about what: nothing stands for notices that were lost. What waits goes as one message, since a medium's work is by
/// the message.
type Message = (Uuid, Vec<Option<(Topic, Notice)>>);

/// Carries text to every process that listens.
pub(crate) trait Medium: Send + Sync + 'static {
    /// Its name in the log.
    const CALLED: &'static str;
    /// The longest text that it carries, in bytes.
    const LONGEST: usize;
    /// What hears the others.
    type Subscription: Send;
    /// Begins to listen.
    fn subscribe(&self) -> impl Future<Output = Result<Self::Subscription, Error>> + Send;
    /// Passes on what comes, until the subscription is dead.
    fn hear(subscription: Self::Subscription, ear: &Ear) -> impl Future<Output = ()> + Send;
    /// Sends texts; some may have been sent when it fails.
    fn publish(&self, texts: &[String]) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A bus over a medium. A process hears itself without it.
#[derive(Debug)]
pub(crate) struct Between {
    local: MemoryBus,
    outbox: mpsc::Sender<(Topic, Notice)>,
    /// Whether notices were dropped since it was last looked at.
    lost: Arc<AtomicBool>,
    /// End with the bus.
    _tasks: JoinSet<()>,
}

impl Between {
    pub(crate) async fn start<M: Medium>(medium: M) -> Result<Self, Error> {
        // Tells this bus from others for as long as it lives.
        let mut origin = [0; 16];
        OsEntropy.fill(&mut origin);
        let (local, origin, medium) = (MemoryBus::new(), Uuid::from_bytes(origin), Arc::new(medium));
        let (outbox, waiting) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        let first = medium.subscribe().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(medium.clone(), first, Ear { local: local.clone(), origin }));
        tasks.spawn(send(medium, waiting, lost.clone(), origin));
        Ok(Self { local, outbox, lost, _tasks: tasks })
    }
}

/// Takes what others sent.
pub(crate) struct Ear {
    local: MemoryBus,
    origin: Uuid,
}

impl Ear {
    pub(crate) async fn take(&self, text: &[u8]) {
        match serde_json::from_slice::<Message>(text) {
            // Heard when it was published.
            Ok((from, _)) if from == self.origin => {}
            Ok((_, notices)) => {
                for notice in notices {
                    match notice {
                        Some((topic, notice)) => self.local.publish(topic, notice).await,
                        None => self.local.stir(),
                    }
                }
            }
            // Of another version: something happened, nobody here knows what.
            Err(_) => self.local.stir(),
        }
    }
}

async fn listen<M: Medium>(medium: Arc<M>, first: M::Subscription, ear: Ear) {
    let mut subscription = first;
    loop {
        M::hear(subscription, &ear).await;
        tracing::warn!(
            "the subscription to {} ended; notices of other processes are missed until it is back",
            M::CALLED
        );
        let mut attempt = 1;
        subscription = loop {
            sleep(AGAIN.wait(attempt, &OsEntropy)).await;
            match medium.subscribe().await {
                Ok(subscription) => break subscription,
                Err(error) => tracing::debug!(%error, attempt, "not subscribed yet"),
            }
            attempt += 1;
        };
        tracing::info!("subscribed to {} again", M::CALLED);
        ear.local.stir();
    }
}

async fn send<M: Medium>(
    medium: Arc<M>,
    mut waiting: mpsc::Receiver<(Topic, Notice)>,
    lost: Arc<AtomicBool>,
    origin: Uuid,
) {
    let (mut batch, mut failed) = (Vec::with_capacity(BATCH), 0);
    loop {
        if failed > 0 {
            // Others are owed a word, whether or not anything more is published.
            sleep(AGAIN.wait(failed, &OsEntropy)).await;
            while batch.len() < BATCH
                && let Ok(one) = waiting.try_recv()
            {
                batch.push(one);
            }
        } else if waiting.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let owed = lost.swap(false, Ordering::Relaxed) || failed > 0;
        let notices = batch.drain(..).map(Some).chain(owed.then_some(None));
        let texts = write(origin, M::LONGEST, notices);
        failed = match medium.publish(&texts).await {
            Ok(()) => 0,
            Err(_) => failed + 1,
        };
    }
}

/// [`Message`]s as text, as few as `longest` bytes for each allow; of a notice that is too long for one, that it happened.
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
impl Bus for Between {
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
    fn as_few_messages_as_their_length_allows() {
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
    fn of_what_is_too_long_it_is_said_that_it_happened() {
        let topic = Topic::Queue("q".to_owned());
        let signal =
            Notice::Signal { from: couple_core::pairing::Side::First, kind: "x-".repeat(100), body: None };
        let texts = write(Uuid::nil(), 200, [Some((topic.clone(), signal))].into_iter());
        let read: Message = serde_json::from_str(&texts[0]).unwrap();
        assert_eq!((texts.len(), read.1), (1, vec![Some((topic, Notice::Changed))]));
    }
}
