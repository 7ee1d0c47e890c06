//! Notices between processes, over one channel that every process listens on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Error,
    live::{Bus, Notice, Subscription, Topic},
};
use futures_util::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{Redis, pubsub};
use crate::MemoryBus;

/// Notices that wait to be sent; what does not fit is made up for by one that tells everybody to look.
const QUEUE: usize = 4096;
/// Notices sent in one round trip at most.
const BATCH: usize = 256;
/// How often a quiet subscription is asked whether it lives, and how long the answer may take.
const PULSE: Duration = Duration::from_secs(1);

/// From whom, and about what: nothing stands for notices that were lost.
type Message = (Uuid, Option<(Topic, Notice)>);

/// Carries notices between processes over Redis. A process hears itself without it.
///
/// While Redis is away nothing is carried, and nobody is held up; when it is back every listener is told to look once, since
/// notices may have been missed.
#[derive(Debug)]
pub struct RedisBus {
    local: MemoryBus,
    outbox: mpsc::Sender<(Topic, Notice)>,
    /// Whether notices were dropped since it was last looked at.
    lost: Arc<AtomicBool>,
    /// End with the bus.
    _tasks: JoinSet<()>,
}

impl RedisBus {
    /// Begins to listen.
    ///
    /// # Errors
    /// When it cannot subscribe now.
    pub async fn start(redis: Redis) -> Result<Self, Error> {
        let (local, origin) = (MemoryBus::new(), Uuid::from_bytes(origin()));
        let (outbox, waiting) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        let first = subscribe(&redis).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(redis.clone(), first, local.clone(), origin));
        tasks.spawn(send(redis, waiting, lost.clone(), origin));
        Ok(Self { local, outbox, lost, _tasks: tasks })
    }
}

/// Tells this bus from others for as long as it lives.
fn origin() -> [u8; 16] {
    use couple_core::Entropy as _;
    let mut bytes = [0; 16];
    couple_core::OsEntropy.fill(&mut bytes);
    bytes
}

fn channel(redis: &Redis) -> String {
    format!("{}:bus", redis.prefix)
}

async fn subscribe(redis: &Redis) -> Result<redis::aio::PubSub, Error> {
    let mut connection = pubsub(&redis.manager).await?;
    connection.subscribe(channel(redis)).await.map_err(|error| super::failed("subscribe", error))?;
    Ok(connection)
}

async fn listen(redis: Redis, first: redis::aio::PubSub, local: MemoryBus, origin: Uuid) {
    let mut connection = first;
    loop {
        let (mut sink, mut stream) = connection.split();
        loop {
            match timeout(PULSE, stream.next()).await {
                Ok(Some(message)) => hear(&local, origin, message.get_payload_bytes()).await,
                Ok(None) => break,
                Err(_) => {
                    if !timeout(PULSE, sink.ping::<redis::Value>()).await.is_ok_and(|pong| pong.is_ok()) {
                        break;
                    }
                }
            }
        }
        tracing::warn!(
            "the subscription to Redis ended; notices of other processes are missed until it is back"
        );
        let mut pause = Duration::from_millis(50);
        connection = loop {
            match subscribe(&redis).await {
                Ok(connection) => break connection,
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        };
        tracing::info!("subscribed to Redis again");
        local.stir();
    }
}

async fn hear(local: &MemoryBus, origin: Uuid, payload: &[u8]) {
    match serde_json::from_slice::<Message>(payload) {
        // Heard when it was published.
        Ok((from, _)) if from == origin => {}
        Ok((_, Some((topic, notice)))) => local.publish(topic, notice).await,
        Ok((_, None)) => local.stir(),
        // Of another version: something happened, nobody here knows what.
        Err(_) => local.stir(),
    }
}

async fn send(
    redis: Redis,
    mut waiting: mpsc::Receiver<(Topic, Notice)>,
    lost: Arc<AtomicBool>,
    origin: Uuid,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let (channel, mut owed) = (channel(&redis), false);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        owed |= lost.swap(false, Ordering::Relaxed);
        let mut commands = redis::pipe();
        let messages = batch.drain(..).map(Some).chain(owed.then_some(None));
        for message in messages {
            if let Ok(text) = serde_json::to_vec(&(origin, message)) {
                commands.cmd("PUBLISH").arg(&channel).arg(text).ignore();
            }
        }
        owed = match redis.link("publish").await {
            Ok(mut link) => commands.query_async::<()>(&mut *link).await.is_err(),
            Err(_) => true,
        };
        if owed {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[async_trait]
impl Bus for RedisBus {
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
