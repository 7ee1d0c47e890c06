//! Event buses of two processes, over a transport that can fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use couple_conformance::{AlternatingBus, Breakable};
use couple_core::live::{Bus, Notice, Subscription, Topic};

use super::{EngineState, FaultyBus};
use crate::planted;

/// Two processes with a bus each, and the transport between them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deployment {
    buses: [FaultyBus; 2],
    transport: EngineState,
    /// Whether the transport has lost notices.
    has_lost: Arc<AtomicBool>,
}

impl Deployment {
    /// Bus of one of the two processes.
    pub(crate) fn process(&self, index: usize) -> RemoteBus {
        RemoteBus { deployment: self.clone(), index }
    }

    /// Both buses, of which the calls use either.
    pub(crate) fn alternating(&self) -> AlternatingBus {
        AlternatingBus::new(self.process(0), self.process(1))
    }

    /// Both buses, with a transport that fails and works again.
    pub(crate) fn breakable() -> Breakable<AlternatingBus> {
        let deployment = Self::default();
        Breakable::new(deployment.alternating(), move |fails| {
            deployment.transport.set_down(fails);
            if !fails && deployment.has_lost.load(Ordering::SeqCst) && !planted("bus-outage-is-silent") {
                deployment.buses.iter().for_each(FaultyBus::notify_all);
            }
        })
    }
}

/// Bus of one process, which also sends its notices to the other one.
pub(crate) struct RemoteBus {
    deployment: Deployment,
    index: usize,
}

#[async_trait]
impl Bus for RemoteBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        let Deployment { buses, transport, has_lost } = &self.deployment;
        buses[self.index].publish(topic.clone(), notice.clone()).await;
        let is_kept = match &notice {
            Notice::Signal { .. } => planted("bus-signals-stay-in-their-process"),
            Notice::Here(_) | Notice::Left(_) => planted("bus-presence-stays-in-its-process"),
            Notice::Changed | Notice::Appended(_) => planted("bus-changes-stay-in-their-process"),
        };
        if is_kept {
            return;
        }
        if transport.is_down() || (transport.has_failed() && planted("bus-outage-lasts")) {
            if planted("bus-outage-blocks-publishing") {
                std::future::pending::<()>().await;
            }
            has_lost.store(true, Ordering::SeqCst);
            return;
        }
        let notice = if let Notice::Appended(_) = notice { Notice::Changed } else { notice };
        buses[1 - self.index].publish(topic, notice).await;
    }

    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.deployment.buses[self.index].subscribe(topics).await
    }
}
