//! Event bus between the processes: delays, repeats and reorders notices, and replaces lost ones by `Changed`.
//!
//! Within a process notices arrive immediately and in order, as on every bus of the library.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    CoupleId,
    core::live::{Bus, Notice, Subscription, Topic},
    timeline::{Body, Entry},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    invariant::Planted,
    process::Process,
    store::couple_of,
    world::{PROCESSES, World},
};

/// Number of notices that a subscription keeps.
const MAX_NOTICES: usize = 32;

#[derive(Default)]
struct Inbox {
    notices: Mutex<VecDeque<Notice>>,
    ready: Notify,
}

impl Inbox {
    fn push(&self, notice: Notice) {
        let mut notices = self.notices.lock().unwrap();
        if notices.len() == MAX_NOTICES {
            notices.clear();
            notices.push_back(Notice::Changed);
        } else {
            notices.push_back(notice);
        }
        drop(notices);
        self.ready.notify_one();
    }
}

struct Subscriber {
    process: usize,
    topics: Vec<Topic>,
    inbox: Arc<Inbox>,
}

struct State {
    subscribers: BTreeMap<u64, Subscriber>,
    next: u64,
    /// Processes without a connection to the others.
    partitioned: BTreeSet<usize>,
    /// Topics of the notices that a process without a connection has published.
    waiting: [Vec<Topic>; PROCESSES],
    /// Number of connections that a process has lost. Notices on the way to it were lost with them.
    connections: [u64; PROCESSES],
    /// Time of the last loss of notices, or of the `Changed` in their place.
    unsettled_at: Instant,
}

pub(crate) struct Network(Mutex<State>);

impl Network {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            subscribers: BTreeMap::new(),
            next: 0,
            partitioned: BTreeSet::new(),
            waiting: Default::default(),
            connections: [0; PROCESSES],
            unsettled_at: now,
        }))
    }

    /// Time since which no notice was lost; none while a process has no connection.
    pub(crate) fn settled_since(&self) -> Option<Instant> {
        let state = self.0.lock().unwrap();
        state.partitioned.is_empty().then_some(state.unsettled_at)
    }

    /// Separates a process from the others. Returns whether it was connected.
    pub(crate) fn partition(&self, process: usize) -> bool {
        let mut state = self.0.lock().unwrap();
        state.connections[process] += 1;
        state.partitioned.insert(process)
    }

    /// Connects a process again: all subscriptions that may have missed a notice receive `Changed`.
    pub(crate) fn heal(&self, process: usize) {
        let mut state = self.0.lock().unwrap();
        if state.partitioned.remove(&process) {
            let missed = std::mem::take(&mut state.waiting[process]);
            state.unsettled_at = Instant::now();
            for subscriber in state.subscribers.values() {
                let missed = subscriber.topics.iter().any(|topic| missed.contains(topic));
                if missed || subscriber.process == process {
                    subscriber.inbox.push(Notice::Changed);
                }
            }
        }
    }

    /// Breaks the connection of a process for a short time.
    pub(crate) fn reconnect(&self, world: &Arc<World>, process: usize) {
        if self.partition(process) {
            let (world, after) = (world.clone(), Duration::from_millis(world.random.below(1_500)));
            tokio::spawn(async move {
                sleep(after).await;
                world.network.heal(process);
            });
        }
    }

    /// Removes what a dead process has subscribed to and not sent. Returns the couples whose notices are lost.
    pub(crate) fn process_died(&self, process: usize) -> Vec<CoupleId> {
        let mut state = self.0.lock().unwrap();
        state.subscribers.retain(|_, subscriber| subscriber.process != process);
        state.connections[process] += 1;
        std::mem::take(&mut state.waiting[process]).iter().filter_map(couple_of).collect()
    }

    /// Delivers a notice to the subscriptions of a process.
    fn deliver(&self, world: &World, process: usize, topic: &Topic, notice: &Notice) {
        let state = self.0.lock().unwrap();
        for subscriber in state.subscribers.values() {
            if subscriber.process != process || !subscriber.topics.contains(topic) {
                continue;
            }
            let log = matches!((topic, notice), (Topic::Couple(_), Notice::Changed | Notice::Appended(_)));
            if log && world.strikes(Planted::LostNotice, 20) {
                world.note("planted", format_args!("a notice for process {process} is lost"));
                continue;
            }
            subscriber.inbox.push(match notice {
                Notice::Appended(entry) if world.strikes(Planted::AlteredNotice, 20) => {
                    let body = Some(Body::from_stored(r#"{"text":"another text"}"#));
                    Notice::Appended(Arc::new(Entry { body, ..Entry::clone(entry) }))
                }
                notice => notice.clone(),
            });
        }
    }

    /// Sends a notice to another process, where it arrives some time later, if at all.
    fn send(&self, world: &Arc<World>, from: usize, to: usize, topic: &Topic, notice: &Notice) {
        let connection = {
            let mut state = self.0.lock().unwrap();
            if state.partitioned.contains(&from) {
                state.waiting[from].push(topic.clone());
                return;
            }
            state.connections[to]
        };
        let copies = if world.fault(25) { 2 } else { 1 };
        for _ in 0..copies {
            let millis = if world.fault(30) { world.random.below(2_000) } else { world.random.below(15) };
            let (world, topic, notice) = (world.clone(), topic.clone(), notice.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(millis)).await;
                let connected = {
                    let state = world.network.0.lock().unwrap();
                    state.connections[to] == connection && !state.partitioned.contains(&to)
                };
                // Otherwise the receiver gets `Changed` when it is connected again.
                if connected {
                    world.network.deliver(&world, to, &topic, &notice);
                }
            });
        }
    }
}

/// Bus of a process.
pub(crate) struct ProcessBus(pub(crate) Arc<Process>);

struct ProcessSubscription {
    process: Arc<Process>,
    number: u64,
    inbox: Arc<Inbox>,
}

#[async_trait]
impl Bus for ProcessBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        let (process, world) = (&self.0, &self.0.world);
        process.point("before a notice").await;
        if world.planted == Some(Planted::UnannouncedEnd)
            && let Topic::Couple(couple) = &topic
            && world.history().couples.get(couple).is_some_and(|couple| couple.ended_at.is_some())
        {
            return;
        }
        let network = &world.network;
        network.deliver(world, process.id.index, &topic, &notice);
        // A notice of an entry carries its content only within a process.
        let remote = if matches!(notice, Notice::Appended(_)) { Notice::Changed } else { notice };
        for other in (0..PROCESSES).filter(|other| *other != process.id.index) {
            network.send(world, process.id.index, other, &topic, &remote);
        }
        process.point("after a notice").await;
    }

    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        let (process, world) = (&self.0, &self.0.world);
        process.point("in a subscription").await;
        world.delay().await;
        process.point("in a subscription").await;
        let inbox = Arc::<Inbox>::default();
        let mut state = world.network.0.lock().unwrap();
        let number = state.next;
        state.next += 1;
        let subscriber = Subscriber { process: process.id.index, topics, inbox: inbox.clone() };
        state.subscribers.insert(number, subscriber);
        drop(state);
        Box::new(ProcessSubscription { process: process.clone(), number, inbox })
    }
}

#[async_trait]
impl Subscription for ProcessSubscription {
    async fn next(&mut self) -> Notice {
        loop {
            let notice = self.inbox.notices.lock().unwrap().pop_front();
            match notice {
                Some(notice) => return notice,
                None => self.inbox.ready.notified().await,
            }
        }
    }
}

impl Drop for ProcessSubscription {
    fn drop(&mut self) {
        self.process.world.network.0.lock().unwrap().subscribers.remove(&self.number);
    }
}
