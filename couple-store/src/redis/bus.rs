//! Event bus between processes, over one channel to which every process subscribes.

use async_trait::async_trait;
use couple_core::{
    Error,
    live::{Bus, Notice, Subscription, Topic},
};
use futures_util::StreamExt as _;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::time::timeout;

use super::{Redis, pubsub};
use crate::remote_bus::{PING_INTERVAL, RemoteBus, RemoteReceiver, Transport};

/// Event bus between processes over Redis. Notices within the process do not use Redis.
///
/// While Redis is down no notice reaches other processes, and publishers do not wait. After a reconnect all
/// subscribers get [`Notice::Changed`], because notices may have been lost.
#[derive(Debug)]
pub struct RedisBus(RemoteBus);

impl RedisBus {
    /// Subscribes and starts the tasks of the bus.
    ///
    /// # Errors
    /// Errors of the first subscription.
    pub async fn start(redis: Redis) -> Result<Self, Error> {
        RemoteBus::start(redis).await.map(Self)
    }
}

fn channel(redis: &Redis) -> String {
    format!("{}:bus", redis.prefix)
}

impl Transport for Redis {
    const NAME: &'static str = "Redis";
    // Each subscriber holds a whole message, and twice while it parses it.
    const MAX_TEXT_BYTES: usize = 64 * 1024;
    type Subscription = (PubSubSink, PubSubStream);

    async fn subscribe(&self) -> Result<Self::Subscription, Error> {
        let mut connection = pubsub(&self.manager).await?;
        connection.subscribe(channel(self)).await.map_err(|error| super::failed("subscribe", error))?;
        Ok(connection.split())
    }

    async fn receive((mut sink, mut stream): Self::Subscription, receiver: &RemoteReceiver) {
        loop {
            match timeout(PING_INTERVAL, stream.next()).await {
                Ok(Some(message)) => receiver.take(message.get_payload_bytes()).await,
                Ok(None) => return,
                Err(_) => {
                    if !timeout(PING_INTERVAL, sink.ping::<redis::Value>())
                        .await
                        .is_ok_and(|pong| pong.is_ok())
                    {
                        return;
                    }
                }
            }
        }
    }

    async fn publish(&self, texts: &[String]) -> Result<(), Error> {
        let (channel, mut commands) = (channel(self), redis::pipe());
        for text in texts {
            commands.cmd("PUBLISH").arg(&channel).arg(text).ignore();
        }
        let mut connection = self.connection("publish").await?;
        commands.query_async::<()>(&mut *connection).await.map_err(|error| super::failed("publish", error))
    }
}

#[async_trait]
impl Bus for RedisBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        self.0.publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.0.subscribe(topics).await
    }
}
