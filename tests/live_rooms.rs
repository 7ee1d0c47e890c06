//! Rooms of live streams, on a clock that the tests advance: checks of gates, frames of streams, presence, and clean-up.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

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
    notify::live::{CloseReason, Cursor, Frame, Gate, Live, LiveOptions, Stream},
    pairing::{Person, Side},
    store::{MemoryBus, MemoryStore},
    timeline::{Append, Page, TimelineError},
};
use observed_store::{ObservedStore, StoreObserver};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

#[path = "support/observed_store.rs"]
mod observed_store;
#[path = "../benches/people/mod.rs"]
mod people;

/// Longest time for which a gate's answer and a read of the couple count.
const TRUST: Duration = Duration::from_secs(2);
/// Time in which everything that needs no timer happens.
const SOON: Duration = Duration::from_millis(10);

/// A bus that counts its open subscriptions, and all that there were.
#[derive(Clone)]
struct CountedBus {
    bus: MemoryBus,
    open: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

struct Counted(Box<dyn Subscription>, Arc<AtomicUsize>);

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
struct Reads {
    counts: Mutex<HashMap<&'static str, usize>>,
    fails: AtomicBool,
    panics: AtomicBool,
    /// Time that a read of entries takes.
    entries_delay: Mutex<Duration>,
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
    fn all(&self) -> HashMap<&'static str, usize> {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }
    /// Reads of the couple, and of its entries, since the last call.
    fn taken(&self) -> [usize; 2] {
        let reads = self.all();
        ["couple", "entries"].map(|read| reads.get(read).copied().unwrap_or(0))
    }
}

/// Presence on the clock of the test, with a record of what was called when.
struct Leases {
    start: Instant,
    /// Time that a renewal takes after the lease is renewed.
    renewal_delay: Mutex<Duration>,
    /// Whether queries fail.
    fails: AtomicBool,
    ends: Mutex<HashMap<AccountId, Instant>>,
    queries: AtomicUsize,
    calls: Mutex<Vec<(u64, &'static str, AccountId, u64)>>,
    /// Time that each call takes before its effect.
    call_delay: Mutex<Duration>,
    running: AtomicUsize,
    /// Maximum number of concurrent calls.
    max_running: AtomicUsize,
}

impl Leases {
    /// Takes the time of a call.
    async fn delay(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_running.fetch_max(running, Ordering::SeqCst);
        let delay = *self.call_delay.lock().unwrap();
        sleep(delay).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
    }
    fn set(&self, call: &'static str, account: AccountId, lease: Duration, end: Instant) -> Option<Instant> {
        let seconds = self.start.elapsed().as_secs();
        self.calls.lock().unwrap().push((seconds, call, account, lease.as_secs()));
        self.ends.lock().unwrap().insert(account, end)
    }
    /// Calls for an account: seconds since the start, name, and lease in seconds.
    fn calls(&self, account: AccountId) -> Vec<(u64, &'static str, u64)> {
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
struct TestGate {
    answer: Mutex<Result<Duration, CloseReason>>,
    /// Time that the answer takes.
    answer_delay: Mutex<Duration>,
    asked: AtomicUsize,
    principal: Option<Principal>,
}

impl TestGate {
    fn open() -> Arc<Self> {
        let answer = Mutex::new(Ok(Duration::from_hours(24)));
        Arc::new(Self { answer, answer_delay: Mutex::default(), asked: AtomicUsize::new(0), principal: None })
    }
    /// An open gate of a session, which is watched.
    fn of(principal: Principal) -> Arc<Self> {
        let answer = Mutex::new(Ok(Duration::from_hours(24)));
        let (answer_delay, asked) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { answer, answer_delay, asked, principal: Some(principal) })
    }
    fn set(&self, answer: Result<Duration, CloseReason>) {
        *self.answer.lock().unwrap() = answer;
    }
    fn asked(&self) -> usize {
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

struct World {
    backend: Backend,
    reads: Arc<Reads>,
    bus: CountedBus,
    leases: Arc<Leases>,
    members: [AccountId; 2],
    couple: CoupleId,
}

impl World {
    async fn new() -> Self {
        Self::with(LiveOptions::default()).await
    }
    async fn with(options: LiveOptions) -> Self {
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
    async fn open_after(&self, side: Side, gate: &Arc<TestGate>, after: Option<Cursor>) -> Stream {
        self.backend.live().open(self.members[side.index()], gate.clone(), after).await.unwrap()
    }
    async fn open(&self, side: Side, gate: &Arc<TestGate>) -> Stream {
        self.open_after(side, gate, None).await
    }
    /// Opens a stream that has caught up.
    async fn caught_up(&self, side: Side, gate: &Arc<TestGate>) -> Stream {
        let mut stream = self.open(side, gate).await;
        assert_eq!(received(&mut stream).await, ["caught up"]);
        stream
    }
    async fn say(&self, side: Side, text: &str) {
        let (client_id, body) = (text.to_owned(), json!({ "text": text }));
        let command = Append { couple: None, client_id, kind: "text".to_owned(), body };
        let author = self.members[side.index()];
        self.backend.timeline().append(&RequestContext::default(), author, &command).await.unwrap();
    }
    async fn notice(&self, notice: Notice) {
        self.bus.publish(Topic::Couple(self.couple), notice).await;
    }
    async fn leave(&self, side: Side) {
        let leaver = Person { id: self.members[side.index()], email: None };
        self.backend.pairings().leave(&RequestContext::default(), &leaver, None, false).await.unwrap();
    }
}

fn words(frame: &Frame) -> String {
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
async fn received(stream: &mut Stream) -> Vec<String> {
    received_within(stream, SOON).await
}

async fn received_within(stream: &mut Stream, time: Duration) -> Vec<String> {
    let mut frames = all_within(stream, time).await;
    frames.retain(|frame| frame != "partner away");
    frames
}

/// All frames that a stream has within a time.
async fn all_within(stream: &mut Stream, time: Duration) -> Vec<String> {
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

fn signal(from: Side, kind: &str) -> Notice {
    Notice::Signal { from, kind: kind.to_owned(), body: None }
}

#[tokio::test(start_paused = true)]
async fn room_is_closed_five_seconds_after_its_last_stream() {
    let world = World::new().await;
    let subscriptions = || world.bus.open.load(Ordering::SeqCst);
    let before = subscriptions();
    let one = world.caught_up(Side::First, &TestGate::open()).await;
    world.reads.all();
    let two = world.caught_up(Side::First, &TestGate::open()).await;
    let three = world.caught_up(Side::Second, &TestGate::open()).await;
    assert_eq!(world.reads.all(), [("couple", 2)].into(), "the room is found without a read");
    // The log of the couple, and the sessions of its members.
    assert_eq!(subscriptions(), before + 2, "all streams of a couple share one room");
    drop((one, three));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(subscriptions(), before + 2, "a stream is left");
    drop(two);
    sleep(Duration::from_millis(4_900)).await;
    assert_eq!(subscriptions(), before + 2, "a client that polls may return");
    let again = world.caught_up(Side::Second, &TestGate::open()).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.bus.opened.load(Ordering::SeqCst), before + 2, "it returned to the same room");
    drop(again);
    sleep(Duration::from_millis(5_100)).await;
    assert_eq!(subscriptions(), before, "the room is left open");
    let hub = format!("{:?}", world.backend.live());
    assert!(hub.contains("by_couple: {}") && hub.contains("by_account: {}"), "{hub}");
    assert!(hub.contains("LiveContext { options: LiveOptions { "), "{hub}");
    let _new = world.caught_up(Side::First, &TestGate::open()).await;
    assert_eq!(subscriptions(), before + 2, "a new room");
}

#[tokio::test(start_paused = true)]
async fn room_of_an_ended_couple_is_closed_and_replaced() {
    let world = World::new().await;
    let before = world.bus.open.load(Ordering::SeqCst);
    let mut stream = world.caught_up(Side::Second, &TestGate::open()).await;
    world.leave(Side::First).await;
    assert_eq!(received(&mut stream).await, ["bye NotPaired", "nothing more"]);
    assert_eq!(world.bus.open.load(Ordering::SeqCst), before, "the room is left open");
    let refused = world.backend.live().open(world.members[1], TestGate::open(), None).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused(TimelineError::NotPaired)), "{refused:?}");
    let signal = stream.signal("hug", None).await.unwrap_err();
    assert!(matches!(signal, Failure::Refused(TimelineError::NotPaired)), "{signal:?}");
}

#[tokio::test(start_paused = true)]
async fn account_that_has_left_and_paired_again_does_not_join_its_old_room() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut old = world.caught_up(Side::First, &gate).await;
    world.leave(Side::First).await;
    let ports = world.backend.ports();
    let mut couple = ports.store.couple(world.couple).await.unwrap().unwrap();
    (couple.id, couple.ended_at, couple.head_seq) = (ports.new_id(), None, 0);
    ports.commit(vec![couple::pairing::PairingChange::Pair(couple.clone()).into()]).await.unwrap();
    let mut new = world.open(Side::First, &gate).await;
    assert_eq!(new.membership().couple, couple.id);
    assert_eq!(received(&mut new).await, ["caught up"]);
    assert_eq!(received(&mut old).await, ["bye NotPaired", "nothing more"]);
    // The end of the old room has not removed the new one.
    let opened = world.bus.opened.load(Ordering::SeqCst);
    let _partner = world.caught_up(Side::Second, &gate).await;
    assert_eq!(world.bus.opened.load(Ordering::SeqCst), opened, "the partner joins the new room");
}

/// Each kind of frame is sent only if the gate was asked within the last two seconds.
#[tokio::test(start_paused = true)]
async fn no_frame_is_sent_once_the_answer_of_the_gate_is_too_old() {
    let events = [
        ("entry 2", TRUST - SOON),
        ("entry 2", TRUST),
        ("signal hug of Some(Second)", TRUST - SOON),
        ("signal hug of Some(Second)", TRUST),
        ("read 0 1", TRUST - SOON),
        ("read 0 1", TRUST),
        ("partner here", TRUST - SOON),
        ("partner here", TRUST),
    ];
    for (event, age) in events {
        let world = World::new().await;
        world.say(Side::Second, "first").await;
        let (gate, asked_at) = (TestGate::open(), Instant::now());
        let mut stream = world.caught_up(Side::First, &gate).await;
        let mut partner = world.caught_up(Side::Second, &TestGate::open()).await;
        sleep_until(asked_at + age).await;
        assert_eq!(gate.asked(), 1);
        gate.set(Err(CloseReason::SignedOut));
        match event {
            "entry 2" => world.say(Side::Second, "second").await,
            "read 0 1" => world.backend.timeline().mark_read(world.members[1], None, 1).await.unwrap(),
            "partner here" => partner.announce(),
            _ => world.notice(signal(Side::Second, "hug")).await,
        }
        let frames = received(&mut stream).await;
        if age < TRUST {
            assert_eq!((frames, gate.asked()), (vec![event.to_owned()], 1));
        } else {
            assert_eq!(frames, ["bye SignedOut", "nothing more"], "{event}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_page_of_older_entries_is_sent_once_the_answer_of_the_gate_is_too_old() {
    let world = World::new().await;
    for n in 1..=60 {
        world.say(Side::Second, &n.to_string()).await;
    }
    // The room of the partner keeps the last entries only.
    let _partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    assert_eq!(words(&stream.next().await.unwrap()), "entry 1");
    assert_eq!((stream.cursor().seq, gate.asked()), (1, 1));
    sleep(TRUST).await;
    gate.set(Err(CloseReason::SignedOut));
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
    // Nor is the next page read.
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    while stream.cursor().seq < 20 {
        stream.next().await.unwrap();
    }
    sleep(TRUST).await;
    gate.set(Err(CloseReason::SignedOut));
    world.reads.taken();
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
    assert_eq!(world.reads.taken(), [1, 0]);
    // With a gate that stays open, all arrive, in order.
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    let mut expected: Vec<_> = (1..=60).map(|n| format!("entry {n}")).collect();
    expected.push("caught up".to_owned());
    assert_eq!(received(&mut stream).await, expected);
}

#[tokio::test(start_paused = true)]
async fn signal_is_sent_only_by_a_stream_whose_gate_is_known_to_be_open() {
    let world = World::new().await;
    let mut partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let (gate, asked_at) = (TestGate::open(), Instant::now());
    let mut stream = world.caught_up(Side::First, &gate).await;
    sleep_until(asked_at + TRUST - SOON).await;
    stream.signal("hug", None).await.unwrap();
    assert_eq!(gate.asked(), 1, "it was just asked");
    assert_eq!(received(&mut partner).await, ["signal hug of Some(First)"]);
    sleep_until(asked_at + TRUST).await;
    stream.signal("kiss", None).await.unwrap();
    assert_eq!(gate.asked(), 2, "the answer was too old");
    assert_eq!(received(&mut partner).await, ["signal kiss of Some(First)"]);
    // The end of a session makes every answer void.
    world.bus.publish(Topic::Account(world.members[0]), Notice::Changed).await;
    sleep(SOON).await;
    gate.set(Err(CloseReason::SignedOut));
    let refused = stream.signal("hug", None).await.unwrap_err();
    assert!(matches!(refused, Failure::Refused(TimelineError::NotPaired)), "{refused:?}");
    assert_eq!(received(&mut partner).await, [""; 0]);
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
    // A stream that has ended asks nothing more.
    let asked = gate.asked();
    gate.set(Ok(Duration::from_hours(1)));
    assert!(stream.signal("hug", None).await.is_err());
    assert_eq!((gate.asked(), received(&mut partner).await.len()), (asked, 0));
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_the_time_that_the_gate_returned() {
    let world = World::new().await;
    let (gate, opened) = (TestGate::open(), Instant::now());
    gate.set(Ok(Duration::from_secs(5)));
    let mut stream = world.caught_up(Side::First, &gate).await;
    gate.set(Err(CloseReason::Expired));
    assert_eq!(received_within(&mut stream, Duration::from_secs(20)).await, ["bye Expired", "nothing more"]);
    let took = opened.elapsed();
    assert!((Duration::from_secs(5)..=Duration::from_secs(5) + SOON).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn gate_is_asked_at_each_sweep() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut stream = world.caught_up(Side::First, &gate).await;
    assert_eq!(received_within(&mut stream, Duration::from_secs(3_000)).await, [""; 0]);
    // A sweep after 22.5 to 30 s, at random.
    assert!((105..=124).contains(&gate.asked()), "{} times in 3,000 s", gate.asked());
}

#[tokio::test(start_paused = true)]
async fn signals_reach_the_partner_s_devices_and_old_ones_are_dropped() {
    let world = World::new().await;
    let mut own = world.caught_up(Side::First, &TestGate::open()).await;
    let mut one = world.caught_up(Side::Second, &TestGate::open()).await;
    let mut other = world.caught_up(Side::Second, &TestGate::open()).await;
    for n in 1..=5 {
        world.notice(signal(Side::First, &format!("x-{n}"))).await;
        sleep(SOON).await;
    }
    let all = |numbers: std::ops::RangeInclusive<u32>| -> Vec<String> {
        numbers.map(|n| format!("signal x-{n} of Some(First)")).collect()
    };
    assert_eq!(received(&mut one).await, all(1..=5));
    assert_eq!(received(&mut own).await, [""; 0], "its own side sent them");
    for n in 6..=25 {
        world.notice(signal(Side::First, &format!("x-{n}"))).await;
        sleep(SOON).await;
    }
    assert_eq!(received(&mut one).await, all(10..=25), "the last sixteen");
    assert_eq!(received(&mut other).await, all(10..=25));
    // A stream that opens later gets none of them.
    let mut late = world.caught_up(Side::Second, &TestGate::open()).await;
    assert_eq!(received(&mut late).await, [""; 0]);
    // Signals are kept until the second sweep without a new one.
    let mut sleepy = world.caught_up(Side::Second, &TestGate::open()).await;
    world.notice(signal(Side::First, "x-26")).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(received(&mut sleepy).await, all(26..=26));
    world.notice(signal(Side::First, "x-27")).await;
    sleep(Duration::from_secs(90)).await;
    world.notice(signal(Side::First, "x-28")).await;
    assert_eq!(received(&mut sleepy).await, all(28..=28));
}

#[tokio::test(start_paused = true)]
async fn two_presses_at_one_place_within_a_second_and_a_half_are_a_kiss() {
    let world = World::new().await;
    let mut streams = [
        world.caught_up(Side::First, &TestGate::open()).await,
        world.caught_up(Side::Second, &TestGate::open()).await,
    ];
    let body = |x: f64| couple::timeline::Body::new("body", &json!({ "x": x, "y": 0.5 })).ok();
    let press = |from, x| world.notice(Notice::Signal { from, kind: "thumb".to_owned(), body: body(x) });
    let mut kisses = async || {
        let mut all = Vec::new();
        for stream in &mut streams {
            let frames = received(stream).await;
            all.push(frames.iter().filter(|frame| *frame == "signal thumb_kiss of None").count());
        }
        all
    };
    press(Side::First, 0.5).await;
    press(Side::First, 0.5).await;
    assert_eq!(kisses().await, [0, 0], "one member alone");
    sleep(Duration::from_secs(2)).await;
    let pressed = Instant::now();
    press(Side::First, 0.5).await;
    sleep_until(pressed + Duration::from_millis(1_500)).await;
    press(Side::Second, 0.55).await;
    assert_eq!(kisses().await, [1, 1]);
    press(Side::First, 0.5).await;
    assert_eq!(kisses().await, [0, 0], "each press meets once");
    let pressed = Instant::now();
    press(Side::First, 0.5).await;
    sleep_until(pressed + Duration::from_millis(1_502)).await;
    press(Side::Second, 0.5).await;
    assert_eq!(kisses().await, [0, 0], "too late");
    press(Side::First, 0.9).await;
    assert_eq!(kisses().await, [0, 0], "too far apart");
    world.notice(Notice::Signal { from: Side::Second, kind: "typing".to_owned(), body: body(0.9) }).await;
    assert_eq!(kisses().await, [0, 0], "no press");
}

#[tokio::test(start_paused = true)]
async fn presence_is_renewed_while_a_stream_announces_it_and_ends_soon_after() {
    let world = World::new().await;
    let ana = world.members[0];
    let mut partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let mut silent = world.caught_up(Side::First, &TestGate::open()).await;
    let mut one = world.caught_up(Side::First, &TestGate::open()).await;
    let mut two = world.caught_up(Side::First, &TestGate::open()).await;
    assert_eq!(world.leases.calls(ana), []);
    let started = world.leases.start.elapsed().as_secs();
    one.announce();
    one.announce();
    two.announce();
    assert_eq!(received(&mut partner).await, ["partner here"]);
    sleep(Duration::from_secs(60)).await;
    let renewed = [(started, "renew", 60), (started + 25, "renew", 60), (started + 50, "renew", 60)];
    assert_eq!(world.leases.calls(ana), renewed);
    drop(two);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.leases.calls(ana), renewed, "another stream announces it");
    drop(one);
    sleep(Duration::from_millis(2_900)).await;
    // A client that reconnects or polls again.
    let mut one = world.caught_up(Side::First, &TestGate::open()).await;
    one.announce();
    sleep(Duration::from_millis(100)).await;
    let calls = world.leases.calls(ana);
    assert_eq!(calls[3..], [(started + 72, "renew", 60)], "it was not gone for three seconds");
    drop(one);
    let ended = Instant::now();
    assert_eq!(received(&mut partner).await, [""; 0]);
    sleep_until(ended + Duration::from_millis(2_900)).await;
    assert_eq!(world.leases.calls(ana).len(), 4);
    sleep_until(ended + Duration::from_millis(3_100)).await;
    assert_eq!(world.leases.calls(ana)[4..], [(started + 76, "shorten", 2)]);
    assert_eq!(all_within(&mut partner, SOON).await, [""; 0], "another process may renew it");
    assert_eq!(all_within(&mut partner, Duration::from_millis(2_500)).await, ["partner away"]);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.leases.calls(ana).len(), 5, "nothing renews it any more");
    assert_eq!(received(&mut silent).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_process_stops() {
    let world = World::new().await;
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    assert!(!world.backend.live().is_draining());
    world.backend.live().drain();
    assert!(world.backend.live().is_draining());
    assert_eq!(received(&mut stream).await, ["bye Draining", "nothing more"]);
    let mut late = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(received(&mut late).await, ["bye Draining", "nothing more"]);
}

#[tokio::test(start_paused = true)]
async fn stream_continues_after_a_known_cursor_and_starts_anew_after_an_unknown_one() {
    let world = World::new().await;
    for n in 1..=3 {
        world.say(Side::Second, &n.to_string()).await;
    }
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(1))).await;
    assert_eq!(received(&mut stream).await, ["entry 2", "entry 3", "caught up"]);
    let cursor = stream.cursor();
    world.backend.timeline().mark_read(world.members[1], None, 2).await.unwrap();
    let mut stream = world.open_after(Side::First, &gate, Some(cursor)).await;
    assert_eq!(received(&mut stream).await, ["read 0 2", "caught up"]);
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(4))).await;
    assert_eq!(received(&mut stream).await, ["reset CursorUnknown", "caught up"]);
    assert_eq!(stream.cursor().seq, 3);
}

/// Sessions of which some have ended, with a record of the sessions that were checked.
#[derive(Default)]
struct Sessions {
    ended: Mutex<Vec<String>>,
    asked: Mutex<Vec<String>>,
    /// Whether the answer has one value too few.
    short: AtomicBool,
    /// Whether the next check panics.
    panics: AtomicBool,
}

impl Sessions {
    fn end(&self, name: &str) {
        self.ended.lock().unwrap().push(name.to_owned());
    }
    fn asked(&self) -> Vec<String> {
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

#[tokio::test(start_paused = true)]
async fn sessions_of_open_streams_are_checked_once_a_second() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let [ana, ben] = world.members;
    let phone = || TestGate::of(Principal::new(ana, "phone"));
    let one = live.open(ana, phone(), None).await.unwrap();
    let two = live.open(ana, phone(), None).await.unwrap();
    let unwatched = live.open(ana, TestGate::open(), None).await.unwrap();
    sleep(Duration::from_millis(900)).await;
    assert_eq!(sessions.asked(), [""; 0]);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(sessions.asked(), ["phone"], "once for both streams");
    let other = live.open(ben, TestGate::of(Principal::new(ben, "tablet")), None).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(sessions.asked(), ["phone", "phone", "phone", "tablet", "tablet", "tablet"]);
    drop(one);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions.asked(), ["phone", "tablet"], "the session has another stream");
    drop(two);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions.asked(), ["tablet"]);
    sessions.panics.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sessions.asked(), ["tablet"], "the watch has started again after a panic");
    drop(other);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(sessions.asked(), [""; 0], "no session is followed any more");
    let again = live.open(ana, phone(), None).await.unwrap();
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(sessions.asked(), ["phone"], "the watch has started again");
    drop((again, unwatched));
}

#[tokio::test(start_paused = true)]
async fn no_task_remains_after_the_last_stream() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions, LiveOptions::default());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let gate = TestGate::of(Principal::new(world.members[0], "phone"));
    let mut stream = live.open(world.members[0], gate, None).await.unwrap();
    stream.announce();
    assert_eq!(received(&mut stream).await, ["caught up"]);
    assert!(tasks() > before);
    drop(stream);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn stream_of_an_ended_session_asks_its_gate_at_the_next_check() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let [ana, ben] = world.members;
    let (gate, partner_gate) =
        (TestGate::of(Principal::new(ana, "phone")), TestGate::of(Principal::new(ben, "tablet")));
    let mut stream = live.open(ana, gate.clone(), None).await.unwrap();
    let mut partner = live.open(ben, partner_gate.clone(), None).await.unwrap();
    assert_eq!(
        (received(&mut stream).await, received(&mut partner).await),
        (vec!["caught up".to_owned()], vec!["caught up".to_owned()])
    );
    sessions.short.store(true, Ordering::SeqCst);
    sessions.end("phone");
    gate.set(Err(CloseReason::SignedOut));
    assert_eq!(received_within(&mut stream, Duration::from_secs(5)).await, [""; 0], "the answer is useless");
    sessions.short.store(false, Ordering::SeqCst);
    let ended = received_within(&mut stream, Duration::from_millis(1_050)).await;
    assert_eq!(ended, ["bye SignedOut", "nothing more"]);
    // Between two checks.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(received_within(&mut partner, Duration::from_secs(3)).await, [""; 0], "its session is valid");
    // While the ended session has a stream, it is not checked again, except after a new stream of it has opened.
    sessions.asked();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sessions.asked(), ["tablet", "tablet"]);
    let new_gate = TestGate::of(Principal::new(ana, "phone"));
    let mut new = live.open(ana, new_gate.clone(), None).await.unwrap();
    assert_eq!(received(&mut new).await, ["caught up"]);
    let asked = new_gate.asked();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sessions.asked(), ["phone", "tablet"]);
    assert_eq!(
        (received(&mut new).await, new_gate.asked()),
        (Vec::new(), asked + 1),
        "its gate is still open"
    );
}

#[tokio::test(start_paused = true)]
async fn session_is_checked_with_its_latest_expiry() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let ana = world.members[0];
    let until = |seconds: i64| {
        let at = couple::Timestamp::from_micros(seconds * 1_000_000);
        TestGate::of(Principal::new(ana, "phone").with_expiry(at))
    };
    let mut open = vec![live.open(ana, until(6), None).await.unwrap()];
    // Between two checks.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(sessions.asked(), ["phone@6"]);
    for (expiry, checked) in [(7, "phone@7"), (9, "phone@9"), (8, "phone@9"), (10, "phone@10")] {
        open.push(live.open(ana, until(expiry), None).await.unwrap());
        sleep(Duration::from_millis(1_000)).await;
        assert_eq!(sessions.asked().last().map(String::as_str), Some(checked));
    }
    open.push(live.open(ana, TestGate::of(Principal::new(ana, "phone")), None).await.unwrap());
    sleep(Duration::from_millis(1_000)).await;
    assert_eq!(sessions.asked(), ["phone"], "a session that does not expire");
}

/// A stream of a session that has moved to another couple is reached in its new room.
#[tokio::test(start_paused = true)]
async fn end_of_a_session_reaches_its_streams_in_the_room_of_the_new_couple() {
    let (world, sessions) = (World::new().await, Arc::new(Sessions::default()));
    let live = Live::new(world.backend.ports().clone(), sessions.clone(), LiveOptions::default());
    let (ana, ports) = (world.members[0], world.backend.ports());
    let principal = Principal::new(ana, "phone");
    let old = live.open(ana, TestGate::of(principal.clone()), None).await.unwrap();
    world.leave(Side::First).await;
    let mut couple = ports.store.couple(world.couple).await.unwrap().unwrap();
    (couple.id, couple.ended_at, couple.head_seq) = (ports.new_id(), None, 0);
    ports.commit(vec![couple::pairing::PairingChange::Pair(couple).into()]).await.unwrap();
    sleep(SOON).await;
    let gate = TestGate::of(principal);
    let mut new = live.open(ana, gate.clone(), None).await.unwrap();
    assert_eq!(received(&mut new).await, ["caught up"]);
    sessions.end("phone");
    gate.set(Err(CloseReason::SignedOut));
    let frames = received_within(&mut new, Duration::from_millis(1_100)).await;
    assert_eq!(frames, ["bye SignedOut", "nothing more"]);
    drop(old);
}

#[tokio::test]
async fn options_of_live_delivery_are_those_of_the_host() {
    let options =
        LiveOptions::default().with_max_concurrent_reads(7).with_reconnect_spread(Duration::from_secs(4));
    let world = World::with(options).await;
    let options = world.backend.live().options();
    assert_eq!((options.max_concurrent_reads(), options.reconnect_spread()), (7, Duration::from_secs(4)));
}

/// A stream that waits is woken by each event, not at the next sweep.
#[tokio::test(start_paused = true)]
async fn waiting_stream_receives_each_event_immediately() {
    for expected in [
        "entry 2",
        "signal hug of Some(Second)",
        "read 0 1",
        "bye SignedOut",
        "bye NotPaired",
        "bye Draining",
    ] {
        let world = World::new().await;
        world.say(Side::Second, "first").await;
        let gate = TestGate::open();
        let mut stream = world.caught_up(Side::First, &gate).await;
        let event = async {
            sleep(Duration::from_secs(1)).await;
            match expected {
                "entry 2" => world.say(Side::Second, "second").await,
                "read 0 1" => world.backend.timeline().mark_read(world.members[1], None, 1).await.unwrap(),
                "bye SignedOut" => {
                    gate.set(Err(CloseReason::SignedOut));
                    world.bus.publish(Topic::Account(world.members[0]), Notice::Changed).await;
                }
                "bye NotPaired" => world.leave(Side::Second).await,
                "bye Draining" => world.backend.live().drain(),
                _ => world.notice(signal(Side::Second, "hug")).await,
            }
        };
        let started = Instant::now();
        let frame = async { (words(&stream.next().await.unwrap()), started.elapsed()) };
        let ((frame, after), ()) = tokio::join!(frame, event);
        assert_eq!(frame, expected);
        assert!(after < Duration::from_secs(1) + SOON, "{expected} after {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn answer_of_a_slow_gate_permits_one_frame() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut stream = world.caught_up(Side::First, &gate).await;
    *gate.answer_delay.lock().unwrap() = TRUST * 2;
    sleep(TRUST).await;
    world.say(Side::Second, "one").await;
    world.say(Side::Second, "two").await;
    let started = Instant::now();
    assert_eq!(words(&stream.next().await.unwrap()), "entry 1");
    assert_eq!((started.elapsed(), gate.asked()), (TRUST * 2, 2));
    assert_eq!(words(&stream.next().await.unwrap()), "entry 2");
    assert_eq!((started.elapsed(), gate.asked()), (TRUST * 4, 3));
}

#[tokio::test(start_paused = true)]
async fn answer_that_no_frame_needed_is_not_kept_for_a_later_one() {
    let world = World::new().await;
    let gate = TestGate::open();
    let mut stream = world.caught_up(Side::First, &gate).await;
    world.bus.publish(Topic::Account(world.members[0]), Notice::Changed).await;
    assert_eq!((received(&mut stream).await, gate.asked()), (Vec::new(), 2));
    gate.set(Err(CloseReason::SignedOut));
    sleep(TRUST).await;
    world.say(Side::Second, "secret").await;
    assert_eq!(received(&mut stream).await, ["bye SignedOut", "nothing more"]);
}

#[tokio::test(start_paused = true)]
async fn answer_of_the_gate_is_asked_for_again_after_a_slow_read_of_a_page() {
    let world = World::new().await;
    for n in 1..=60 {
        world.say(Side::Second, &n.to_string()).await;
    }
    let _partner = world.caught_up(Side::Second, &TestGate::open()).await;
    let gate = TestGate::open();
    let mut stream = world.open_after(Side::First, &gate, Some(Cursor::at(0))).await;
    *world.reads.entries_delay.lock().unwrap() = TRUST;
    let signed_out = async {
        sleep(TRUST / 2).await;
        assert_eq!(gate.asked(), 1, "the page is being read");
        gate.set(Err(CloseReason::SignedOut));
    };
    let (frame, ()) = tokio::join!(stream.next(), signed_out);
    assert_eq!(frame.as_ref().map(words).as_deref(), Some("bye SignedOut"));
}

#[tokio::test(start_paused = true)]
async fn gates_that_read_the_store_take_turns_with_other_reads() {
    let world = World::with(LiveOptions::default().with_max_concurrent_reads(1)).await;
    let gate = TestGate::open();
    let mut ana = world.open(Side::First, &gate).await;
    let mut ben = world.open(Side::Second, &gate).await;
    *gate.answer_delay.lock().unwrap() = Duration::from_secs(1);
    let started = Instant::now();
    let frames = tokio::join!(ana.next(), ben.next());
    assert_eq!([frames.0, frames.1].map(|frame| words(&frame.unwrap())), ["caught up", "caught up"]);
    assert_eq!((started.elapsed(), gate.asked()), (Duration::from_secs(2), 2));
}

#[tokio::test(start_paused = true)]
async fn signal_is_kept_for_a_busy_stream_for_at_least_a_sweep() {
    let world = World::new().await;
    let mut stream = world.caught_up(Side::Second, &TestGate::open()).await;
    for n in 0..8 {
        world.notice(signal(Side::First, &format!("x-{n}"))).await;
        if n % 2 == 1 {
            // The log is read, and has no new entry.
            sleep(SOON).await;
            world.notice(Notice::Changed).await;
        }
        sleep(Duration::from_secs(22)).await;
        assert_eq!(received(&mut stream).await, [format!("signal x-{n} of Some(First)")]);
        // Sweeps without a signal.
        sleep(Duration::from_secs(70)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn presence_of_a_partner_is_queried_only_for_open_streams_and_anew_for_the_first() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    let _silent = world.caught_up(Side::First, &TestGate::open()).await;
    ana.announce();
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner here"]);
    drop(ben);
    drop(ana);
    // Ben has no stream: whether Ana is present is of no interest, and not known.
    sleep(Duration::from_secs(1)).await;
    world.leases.queries.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(20)).await;
    let of_ben = world.leases.queries.load(Ordering::SeqCst);
    assert!(of_ben <= 1, "{of_ben} queries");
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner away"], "not what was known before");
}

#[tokio::test(start_paused = true)]
async fn client_that_knows_the_partner_s_presence_receives_changes_only() {
    let world = World::new().await;
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    ben.knows_presence();
    assert_eq!(all_within(&mut ben, Duration::from_secs(60)).await, ["caught up"]);
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    ana.announce();
    assert_eq!(all_within(&mut ben, SOON).await, ["partner here"]);
    assert!(format!("{ben:?}").starts_with("Stream { at: Membership"), "{ben:?}");
}

/// Another process has seen the end of a member's last connection there.
#[tokio::test(start_paused = true)]
async fn end_of_a_connection_elsewhere_renews_the_presence_of_a_member_who_is_here() {
    let world = World::new().await;
    let mut one = world.caught_up(Side::First, &TestGate::open()).await;
    world.notice(Notice::Left(Side::First)).await;
    sleep(SOON).await;
    assert_eq!(world.leases.calls(world.members[0]), [], "the stream announces no presence");
    one.announce();
    sleep(Duration::from_secs(10)).await;
    world.notice(Notice::Left(Side::First)).await;
    sleep(SOON).await;
    let calls = world.leases.calls(world.members[0]);
    assert_eq!(calls.iter().map(|call| call.0).collect::<Vec<_>>(), [0, 10]);
}

/// Calls run one at a time, and an empty room is not closed before the last one has ended.
#[tokio::test(start_paused = true)]
async fn lease_is_shortened_after_a_slow_renewal_though_the_room_is_empty() {
    let world = World::new().await;
    *world.leases.renewal_delay.lock().unwrap() = Duration::from_millis(4_500);
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    stream.announce();
    sleep(SOON).await;
    drop(stream);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.leases.calls(world.members[0]), [(0, "renew", 60), (4, "shorten", 2)]);
}

/// Calls that renew, shorten and query a lease never run concurrently.
#[tokio::test(start_paused = true)]
async fn calls_of_the_presence_port_run_one_at_a_time() {
    let world = World::new().await;
    let (mut ana, mut ben) =
        (world.open(Side::First, &TestGate::open()).await, world.open(Side::Second, &TestGate::open()).await);
    ana.announce();
    ben.announce();
    sleep(Duration::from_secs(15)).await;
    *world.leases.call_delay.lock().unwrap() = Duration::from_secs(4);
    drop(ana);
    while world.leases.running.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    // The lease is being shortened; the notice makes the room query it.
    world.notice(Notice::Here(Side::First)).await;
    sleep(Duration::from_secs(12)).await;
    let calls = world.leases.calls(world.members[0]);
    assert_eq!(calls.last().map(|(_, call, _)| *call), Some("shorten"), "{calls:?}");
    assert_eq!(world.leases.max_running.load(Ordering::SeqCst), 1);
}

/// The room renews a lease by a timer, not at its next sweep or query.
#[tokio::test(start_paused = true)]
async fn lease_is_renewed_25_seconds_after_its_last_renewal() {
    let world = World::with(LiveOptions::default().with_sweep_interval(Duration::from_mins(10))).await;
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    sleep(Duration::from_secs(10)).await;
    let start = world.leases.start.elapsed().as_secs();
    stream.announce();
    sleep(Duration::from_secs(60)).await;
    let renewed = world.leases.calls(world.members[0]).into_iter().map(|(at, ..)| at - start);
    assert_eq!(renewed.collect::<Vec<_>>(), [0, 25, 50]);
}

/// No notice tells that a process has died; the lease of its member ends.
#[tokio::test(start_paused = true)]
async fn partner_whose_process_died_is_away_when_the_lease_has_ended() {
    let world = World::new().await;
    world.leases.renew(world.members[0], Duration::from_secs(60)).await.unwrap();
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner here"]);
    assert_eq!(all_within(&mut ben, Duration::from_millis(59_900)).await, [""; 0]);
    assert_eq!(all_within(&mut ben, Duration::from_millis(200)).await, ["partner away"]);
    assert!(world.leases.queries.load(Ordering::SeqCst) < 6, "queries only when the lease may have ended");
}

#[tokio::test(start_paused = true)]
async fn log_is_read_only_after_a_notice_without_the_next_entry() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    let mut ben = world.caught_up(Side::Second, &TestGate::open()).await;
    world.reads.taken();
    world.say(Side::First, "one").await;
    assert_eq!(
        (received(&mut ana).await, received(&mut ben).await),
        (vec!["entry 1".to_owned()], vec!["entry 1".to_owned()])
    );
    assert_eq!(world.reads.taken(), [0, 0], "the notice has the entry");
    let store = &world.backend.ports().store;
    let entry = store.entries(world.couple, Page::After(0), 1, None).await.unwrap().remove(0);
    world.reads.taken();
    let notice = |seq| Notice::Appended(Arc::new(couple::timeline::Entry { seq, ..entry.clone() }));
    world.notice(notice(1)).await;
    assert_eq!((received(&mut ana).await, world.reads.taken()), (vec![], [0, 0]), "the entry is known");
    // One between them is missing, so that the room reads once for all streams. There is none in the store.
    world.notice(notice(3)).await;
    assert_eq!((received(&mut ana).await, received(&mut ben).await), (vec![], vec![]));
    assert_eq!(world.reads.taken(), [1, 0]);
    // When the last read is too old for the gates' answers to count, the next entry is read too.
    let read_at = Instant::now();
    world.notice(Notice::Changed).await;
    received(&mut ana).await;
    assert_eq!(world.reads.taken(), [1, 0]);
    sleep_until(read_at + TRUST).await;
    world.say(Side::First, "two").await;
    assert_eq!(received(&mut ana).await, ["entry 2"]);
    assert_eq!(world.reads.taken()[1], 1);
}

/// The streams end with the room; the leases of those that announced presence are shortened as after an ordinary end.
#[tokio::test(start_paused = true)]
async fn failed_read_ends_the_room_and_soon_the_presence_that_it_announced() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    let mut ben = world.caught_up(Side::Second, &TestGate::open()).await;
    ana.announce();
    sleep(Duration::from_secs(10)).await;
    world.reads.fails.store(true, Ordering::SeqCst);
    world.notice(Notice::Changed).await;
    for stream in [&mut ana, &mut ben] {
        assert_eq!(received(stream).await.last().unwrap(), "nothing more");
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.leases.calls(world.members[0]), [(0, "renew", 60), (13, "shorten", 2)]);
    assert_eq!(world.leases.calls(world.members[1]), [], "never announced");
    world.reads.fails.store(false, Ordering::SeqCst);
    world.caught_up(Side::First, &TestGate::open()).await;
}

#[tokio::test(start_paused = true)]
async fn end_of_a_couple_shortens_no_lease() {
    let world = World::new().await;
    let mut ana = world.caught_up(Side::First, &TestGate::open()).await;
    ana.announce();
    sleep(SOON).await;
    world.leave(Side::Second).await;
    assert_eq!(received(&mut ana).await, ["bye NotPaired", "nothing more"]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.leases.calls(world.members[0]), [(0, "renew", 60)]);
}

#[tokio::test(start_paused = true)]
async fn streams_end_when_the_task_of_their_room_panics() {
    let world = World::new().await;
    let mut stream = world.caught_up(Side::First, &TestGate::open()).await;
    world.reads.panics.store(true, Ordering::SeqCst);
    world.notice(Notice::Changed).await;
    assert_eq!(received(&mut stream).await, ["bye Unavailable", "nothing more"]);
    world.reads.panics.store(false, Ordering::SeqCst);
    world.caught_up(Side::First, &TestGate::open()).await;
}

#[tokio::test(start_paused = true)]
async fn partner_is_here_until_the_end_of_the_lease_while_presence_cannot_be_queried() {
    let world = World::new().await;
    world.leases.renew(world.members[0], Duration::from_secs(60)).await.unwrap();
    let mut ben = world.open(Side::Second, &TestGate::open()).await;
    assert_eq!(all_within(&mut ben, SOON).await, ["caught up", "partner here"]);
    world.leases.fails.store(true, Ordering::SeqCst);
    assert_eq!(all_within(&mut ben, Duration::from_millis(59_900)).await, [""; 0]);
    assert_eq!(all_within(&mut ben, Duration::from_millis(200)).await, ["partner away"]);
}
