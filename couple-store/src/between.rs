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

/// From whom, and about what: nothing stands for notices that were lost.
type Message = (Uuid, Option<(Topic, Notice)>);

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
            Ok((_, Some((topic, notice)))) => self.local.publish(topic, notice).await,
            Ok((_, None)) => self.local.stir(),
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
        let messages = batch.drain(..).map(Some).chain(owed.then_some(None));
        let texts: Vec<_> = messages.filter_map(|message| write::<M>((origin, message))).collect();
        failed = match medium.publish(&texts).await {
            Ok(()) => 0,
            Err(_) => failed + 1,
        };
    }
}

/// A message as text; of what is too long, that it happened.
fn write<M: Medium>(message: Message) -> Option<String> {
    let text = serde_json::to_string(&message).ok()?;
    match message {
        (origin, Some((topic, _))) if text.len() > M::LONGEST => {
            serde_json::to_string(&(origin, Some((topic, Notice::Changed)))).ok()
        }
        _ => Some(text),
    }
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
