//! The protocol by which a live stream is woken (subscribe, read, wait), under seeded interleavings of who writes and who reads: at
//! every point where one may be overtaken by the other, it now and then is. Nothing is ever waited for that has happened
//! already. 20,000 interleavings; `COUPLE_INTERLEAVINGS` sets another number. A mutant that reads before it subscribes is caught.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    AccountId, Backend, Call, Error,
    core::{
        limits::Unlimited,
        live::{Bus, Notice, Subscription, Topic},
    },
    notify::live::{Cursor, Frame, Gate},
    store::MemoryBus,
    timeline::Append,
};

#[path = "../benches/people/mod.rs"]
mod people;

/// Entries that are written in one interleaving.
const ENTRIES: usize = 2;
/// Turns of the runtime after which nothing that was spawned is still under way.
const QUIET: u32 = 32;

/// Decides who goes on: `SplitMix64`, whose few lines are in Steele, Lea and Flood (2014).
#[derive(Clone, Default)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn seed(&self, seed: u64) {
        *self.0.lock().unwrap() = seed;
    }
    fn roll(&self, below: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
    /// Lets others go first, or not.
    async fn pause(&self) {
        for _ in 0..self.roll(3) {
            let mut passed = false;
            std::future::poll_fn(|context| {
                if std::mem::replace(&mut passed, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }
}

/// A bus whose users are overtaken.
#[derive(Clone)]
struct Slow {
    inner: MemoryBus,
    dice: Dice,
    /// The mutant: who subscribes does so only when it begins to wait.
    late: Arc<AtomicBool>,
}

enum Listening {
    Now(Box<dyn Subscription>),
    Later(MemoryBus, Vec<Topic>),
}

struct SlowSubscription(Listening, Dice);

#[async_trait]
impl Bus for Slow {
    async fn publish(&self, topic: Topic, notice: Notice) {
        self.dice.pause().await;
        self.inner.publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.dice.pause().await;
        let listening = if self.late.load(Ordering::Relaxed) {
            Listening::Later(self.inner.clone(), topics)
        } else {
            Listening::Now(self.inner.subscribe(topics).await)
        };
        self.dice.pause().await;
        Box::new(SlowSubscription(listening, self.dice.clone()))
    }
}

#[async_trait]
impl Subscription for SlowSubscription {
    async fn next(&mut self) -> Notice {
        self.1.pause().await;
        if let Listening::Later(bus, topics) = &self.0 {
            self.0 = Listening::Now(bus.subscribe(topics.clone()).await);
        }
        let Listening::Now(subscription) = &mut self.0 else { unreachable!("it listens") };
        let notice = subscription.next().await;
        self.1.pause().await;
        notice
    }
}

struct SlowGate(Dice);

#[async_trait]
impl Gate for SlowGate {
    async fn open_for(&self) -> Result<Option<Duration>, Error> {
        self.0.pause().await;
        Ok(Some(Duration::MAX))
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs both, each only when it was woken, in an order of the dice's, between what they have spawned. False: somebody waits for ever.
async fn meet(dice: &Dice, one: impl Future<Output = ()>, other: impl Future<Output = ()>) -> bool {
    let mut futures: [std::pin::Pin<&mut dyn Future<Output = ()>>; 2] = [pin!(one), pin!(other)];
    let flags = [Arc::new(Flag(true.into())), Arc::new(Flag(true.into()))];
    let (mut done, mut quiet) = ([false; 2], 0);
    while done != [true; 2] {
        let ready: Vec<usize> = (0..2).filter(|&n| !done[n] && flags[n].0.load(Ordering::SeqCst)).collect();
        // A commit goes on as a task of its own, which only the runtime can run.
        if ready.is_empty() || dice.roll(4) == 0 {
            quiet = if ready.is_empty() { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return false;
            }
            tokio::task::yield_now().await;
            continue;
        }
        quiet = 0;
        let next = ready[usize::try_from(dice.roll(ready.len() as u64)).unwrap()];
        flags[next].0.store(false, Ordering::SeqCst);
        let waker = Waker::from(flags[next].clone());
        done[next] = futures[next].as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    }
    true
}

struct Stage {
    backend: Backend,
    bus: Slow,
    dice: Dice,
    couple: [AccountId; 2],
    head: i64,
}

impl Stage {
    async fn new(late: bool) -> Self {
        let dice = Dice::default();
        let bus = Slow { inner: MemoryBus::new(), dice: dice.clone(), late: Arc::new(late.into()) };
        let backend = Backend::builder().bus(bus.clone()).limits(Unlimited).build().unwrap();
        let tokens = people::seed(backend.ports(), 1).await;
        let mut couple = Vec::new();
        for token in tokens {
            let (_, account) = backend.accounts().authenticate(&couple::Secret::new(token)).await.unwrap();
            couple.push(account.id);
        }
        Self { backend, bus, dice, couple: [couple[0], couple[1]], head: 0 }
    }

    /// One writes, the other follows and is cut off now and then; whether everything arrived, in order.
    async fn play(&mut self, seed: u64) -> bool {
        self.dice.seed(seed);
        let (backend, dice, head) = (&self.backend, &self.dice, self.head);
        let write = async {
            for n in 0..ENTRIES {
                dice.pause().await;
                let body = serde_json::json!({ "text": "x" });
                let command =
                    Append { couple: None, client_id: format!("{seed}-{n}"), kind: "text".to_owned(), body };
                backend.timeline().append(&Call::default(), self.couple[0], &command).await.unwrap();
            }
        };
        let mut seen = Vec::new();
        let follow = async {
            let mut cursor = Cursor::at(head);
            while seen.len() < ENTRIES {
                let gate = Arc::new(SlowGate(dice.clone()));
                let mut stream = backend.live().open(self.couple[1], gate, Some(cursor)).await.unwrap();
                let cut = dice.roll(4);
                while seen.len() < ENTRIES && cut != seen.len() as u64 {
                    if let Some(Frame::Entry { line, .. }) = stream.next().await {
                        seen.push(line.view.entry.seq);
                    }
                }
                cursor = stream.cursor();
            }
        };
        let arrived = meet(dice, write, follow).await;
        self.head += ENTRIES as i64;
        assert_eq!(self.bus.inner.topics(), 0, "a subscription is left behind");
        arrived && seen == (head + 1..=self.head).collect::<Vec<_>>()
    }
}

/// The first seed at which somebody waits for ever.
fn first_stall(late: bool, seeds: u64) -> Option<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // The sweep, thirty seconds away, is not what saves us: it would take longer than all of this.
    runtime.block_on(async {
        let mut stage = Stage::new(late).await;
        for seed in 0..seeds {
            if seed % 1_000 == 999 {
                stage = Stage::new(late).await;
            }
            if !stage.play(seed).await {
                return Some(seed);
            }
        }
        None
    })
}

#[test]
fn nobody_waits_for_what_has_happened() {
    let seeds = std::env::var("COUPLE_INTERLEAVINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    assert_eq!(first_stall(false, seeds), None);
}

#[test]
fn who_reads_before_subscribing_is_caught() {
    let caught = first_stall(true, 20_000);
    assert!(caught.is_some(), "the interleavings do not find the mutant");
}
