//! A back end with a couple, on a clock that the tests advance, that records the calls of its ports.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    AccountId, Backend, CoupleId, Error, ErrorKind, Keyring, RequestContext,
    core::{
        Failure, Principal,
        limits::Unlimited,
        live::{Bus, Notice, Presence, SessionChecker, Subscription, Topic},
    },
    notify::live::{CloseReason, Cursor, Frame, Gate, LiveOptions, Stream},
    pairing::{Person, Side},
    store::{MemoryBus, MemoryStore},
    timeline::Append,
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    people,
};

/// Longest time for which a gate's answer and a read of the couple count.
pub(crate) const TRUST: Duration = Duration::from_secs(2);
/// Time in which everything that needs no timer happens.
pub(crate) const SOON: Duration = Duration::from_millis(10);

/// A bus that counts its open subscriptions, and all that there were.
#[derive(Clone)]
pub(crate) struct CountedBus {
    pub(crate) bus: MemoryBus,
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) opened: Arc<AtomicUsize>,
}

pub(crate) struct Counted(Box<dyn Subscription>, Arc<AtomicUsize>);

#[async_trait]
impl Subscription for Counted {
    async fn next(&mut self) -> Notice {
        self.0.next().await
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Bus for CountedBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        self.bus.publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.opened.fetch_add(1, Ordering::SeqCst);
        Box::new(Counted(self.bus.subscribe(topics).await, self.open.clone()))
    }
}

/// Counts the reads of the store by name, and may make those of a couple fail or panic.
#[derive(Default)]
pub(crate) struct Reads {
    pub(crate) counts: Mutex<HashMap<&'static str, usize>>,
    pub(crate) fails: AtomicBool,
    pub(crate) panics: AtomicBool,
    /// Time that a read of entries takes.
    pub(crate) entries_delay: Mutex<Duration>,
}

#[async_trait]
impl StoreObserver for Reads {
    async fn before(&self, what: &'static str) {
        let delay = *self.entries_delay.lock().unwrap();
        if what == "entries" && !delay.is_zero() {
            sleep(delay).await;
        }
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
        assert!(what != "couple" || !self.panics.load(Ordering::SeqCst), "a read that panics");
    }
    async fn after(&self, _: &'static str) {}
    fn read_fails(&self, what: &'static str) -> Option<Error> {
        let fails = what == "couple" && self.fails.load(Ordering::SeqCst);
        fails.then(|| Error::new(ErrorKind::Unavailable, what))
    }
}

impl Reads {
    /// All reads since the last call.
    pub(crate) fn all(&self) -> HashMap<&'static str, usize> {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }
    /// Reads of the couple, and of its entries, since the last call.
    pub(crate) fn taken(&self) -> [usize; 2] {
        let reads = self.all();
        ["couple", "entries"].map(|read| reads.get(read).copied().unwrap_or(0))
    }
}

/// Presence on the clock of the test, with a record of what was called when.
pub(crate) struct Leases {
    pub(crate) start: Instant,
    /// Time that a renewal takes after the lease is renewed.
    pub(crate) renewal_delay: Mutex<Duration>,
    /// Whether queries fail.
    pub(crate) fails: AtomicBool,
    pub(crate) ends: Mutex<HashMap<AccountId, Instant>>,
    pub(crate) queries: AtomicUsize,
    pub(crate) calls: Mutex<Vec<(u64, &'static str, AccountId, u64)>>,
    /// Time that each call takes before its effect.
    pub(crate) call_delay: Mutex<Duration>,
    pub(crate) running: AtomicUsize,
    /// Maximum number of concurrent calls.
    pub(crate) max_running: AtomicUsize,
}

impl Leases {
    /// Takes the time of a call.
    pub(crate) async fn delay(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_running.fetch_max(running, Ordering::SeqCst);
        let delay = *self.call_delay.lock().unwrap();
        sleep(delay).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
    pub(crate) fn set(
        &self,
        call: &'static str,
        account: AccountId,
        lease: Duration,
        end: Instant,
    ) -> Option<Instant> {
        let seconds = self.start.elapsed().as_secs();
        self.calls.lock().unwrap().push((seconds, call, account, lease.as_secs()));
        self.ends.lock().unwrap().insert(account, end)
    }
    /// Calls for an account: seconds since the start, name, and lease in seconds.
    pub(crate) fn calls(&self, account: AccountId) -> Vec<(u64, &'static str, u64)> {
        let calls = self.calls.lock().unwrap();
        let own = calls.iter().filter(|(_, _, of, _)| *of == account);
        own.map(|(at, call, _, lease)| (*at, *call, *lease)).collect()
    }
}

#[async_trait]
impl Presence for Leases {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        self.delay().await;
        let now = Instant::now();
        let before = self.set("renew", account, lease, now + lease);
        let delay = *self.renewal_delay.lock().unwrap();
        sleep(delay).await;
        Ok(before.is_none_or(|end| end <= now))
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        self.delay().await;
        let end = Instant::now() + lease;
        let end = self.ends.lock().unwrap().get(&account).map_or(end, |there| end.min(*there));
        self.set("shorten", account, lease, end);
        Ok(())
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        self.delay().await;
        self.queries.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "query presence"));
        }
        let end = self.ends.lock().unwrap().get(&account).copied();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        Ok(left.filter(|left| !left.is_zero()))
    }
}

/// Gate whose answer the test sets. It counts how often it was asked.
pub(crate) struct TestGate {
    pub(crate) answer: Mutex<Result<Duration, CloseReason>>,
    /// Time that the answer takes.
    pub(crate) answer_delay: Mutex<Duration>,
    pub(crate) asked: AtomicUsize,
    pub(crate) principal: Option<Principal>,
}

impl TestGate {
    pub(crate) fn open() -> Arc<Self> {
        let answer = Mutex::new(Ok(Duration::from_hours(24)));
        Arc::new(Self { answer, answer_delay: Mutex::default(), asked: AtomicUsize::new(0), principal: None })
    }
    /// An open gate of a session, which is watched.
    pub(crate) fn of(principal: Principal) -> Arc<Self> {
        let answer = Mutex::new(Ok(Duration::from_hours(24)));
        let (answer_delay, asked) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { answer, answer_delay, asked, principal: Some(principal) })
    }
    pub(crate) fn set(&self, answer: Result<Duration, CloseReason>) {
        *self.answer.lock().unwrap() = answer;
    }
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Gate for TestGate {
    async fn open_for(&self) -> Result<Duration, Failure<CloseReason>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let delay = *self.answer_delay.lock().unwrap();
        if !delay.is_zero() {
            sleep(delay).await;
        }
        self.answer.lock().unwrap().map_err(Failure::Refused)
    }
    fn principal(&self) -> Option<Principal> {
        self.principal.clone()
    }
}

pub(crate) struct World {
    pub(crate) backend: Backend,
    pub(crate) reads: Arc<Reads>,
    pub(crate) bus: CountedBus,
    pub(crate) leases: Arc<Leases>,
    pub(crate) members: [AccountId; 2],
    pub(crate) couple: CoupleId,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(LiveOptions::default()).await
    }
    pub(crate) async fn with(options: LiveOptions) -> Self {
        let bus = CountedBus { bus: MemoryBus::new(), open: Arc::default(), opened: Arc::default() };
        let leases = Arc::new(Leases {
            start: Instant::now(),
            renewal_delay: Mutex::default(),
            fails: AtomicBool::new(false),
            ends: Mutex::default(),
            queries: AtomicUsize::new(0),
            calls: Mutex::default(),
            call_delay: Mutex::default(),
            running: AtomicUsize::new(0),
            max_running: AtomicUsize::new(0),
        });
        let reads = Arc::<Reads>::default();
        let store = ObservedStore(MemoryStore::new(), reads.clone());
        let builder = Backend::builder().store(store).keys(Keyring::new([0; 32]));
        let builder = builder.blobs(couple::blobs::Blobs::memory()).limits(Unlimited);
        let builder = builder.live(options).presence(leases.clone());
        let backend = builder.bus(bus.clone()).build().unwrap();
        let mut members = Vec::new();
        for token in people::seed(backend.ports(), 1).await {
            let session = backend.accounts().unwrap().authenticate(&couple::Secret::new(token)).await;
            members.push(session.unwrap().1.id);
        }
        let (at, _) = backend.timeline().membership(members[0]).await.unwrap();
        let members = [members[0], members[1]];
        Self { backend, reads, bus, leases, members, couple: at.couple }
    }
    pub(crate) async fn open_after(&self, side: Side, gate: &Arc<TestGate>, after: Option<Cursor>) -> Stream {
        self.backend.live().open(self.members[side.index()], gate.clone(), after).await.unwrap()
    }
    pub(crate) async fn open(&self, side: Side, gate: &Arc<TestGate>) -> Stream {
        self.open_after(side, gate, None).await
    }
    /// Opens a stream that has caught up.
    pub(crate) async fn caught_up(&self, side: Side, gate: &Arc<TestGate>) -> Stream {
        let mut stream = self.open(side, gate).await;
        assert_eq!(received(&mut stream).await, ["caught up"]);
        stream
    }
    pub(crate) async fn say(&self, side: Side, text: &str) {
        let (client_id, body) = (text.to_owned(), json!({ "text": text }));
        let command = Append { couple: None, client_id, kind: "text".to_owned(), body };
        let author = self.members[side.index()];
        self.backend.timeline().append(&RequestContext::default(), author, &command).await.unwrap();
    }
    pub(crate) async fn notice(&self, notice: Notice) {
        self.bus.publish(Topic::Couple(self.couple), notice).await;
    }
    pub(crate) async fn leave(&self, side: Side) {
        let leaver = Person { id: self.members[side.index()], email: None };
        self.backend.pairings().leave(&RequestContext::default(), &leaver, None, false).await.unwrap();
    }
}

pub(crate) fn words(frame: &Frame) -> String {
    match frame {
        Frame::Entry { line, .. } => format!("entry {}", line.view.entry.seq),
        Frame::Read { read, .. } => format!("read {} {}", read[0], read[1]),
        Frame::Signal { from, kind, .. } => format!("signal {kind} of {from:?}"),
        Frame::Presence { here } => format!("partner {}", if *here { "here" } else { "away" }),
        Frame::CaughtUp { .. } => "caught up".to_owned(),
        Frame::Reset { reason, .. } => format!("reset {reason:?}"),
        Frame::Bye(why) => format!("bye {why:?}"),
    }
}

/// Frames that a stream has now, except that the partner is away.
pub(crate) async fn received(stream: &mut Stream) -> Vec<String> {
    received_within(stream, SOON).await
}

pub(crate) async fn received_within(stream: &mut Stream, time: Duration) -> Vec<String> {
    let mut frames = all_within(stream, time).await;
    frames.retain(|frame| frame != "partner away");
    frames
}

/// All frames that a stream has within a time.
pub(crate) async fn all_within(stream: &mut Stream, time: Duration) -> Vec<String> {
    let end = Instant::now() + time;
    let mut frames = Vec::new();
    while let Ok(frame) = timeout_at(end, stream.next()).await {
        let Some(frame) = frame else {
            frames.push("nothing more".to_owned());
            break;
        };
        frames.push(words(&frame));
    }
    frames
}

pub(crate) fn signal(from: Side, kind: &str) -> Notice {
    Notice::Signal { from, kind: kind.to_owned(), body: None }
}

/// Sessions of which some have ended, with a record of the sessions that were checked.
#[derive(Default)]
pub(crate) struct Sessions {
    ended: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
    /// Whether the answer has one value too few.
    pub(crate) short: AtomicBool,
    /// Whether the next check panics.
    pub(crate) panics: AtomicBool,
}

impl Sessions {
    pub(crate) fn end(&self, name: &str) {
        self.ended.lock().unwrap().push(name.to_owned());
    }
    pub(crate) fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

#[async_trait]
impl SessionChecker for Sessions {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "a check that panics");
        let name = |principal: &Principal| {
            let expiry = principal.expires_at().map(|at| at.micros() / 1_000_000);
            format!("{}{}", principal.session().unwrap(), expiry.map_or(String::new(), |at| format!("@{at}")))
        };
        let names: Vec<_> = principals.iter().map(name).collect();
        let ended = self.ended.lock().unwrap();
        let mut valid: Vec<_> = names.iter().map(|name| !ended.contains(name)).collect();
        if self.short.load(Ordering::SeqCst) {
            valid.pop();
        }
        self.asked.lock().unwrap().extend(names);
        Ok(valid)
    }
}
