//! Live streams: reads of the store per stream, and behaviour when notices are lost.
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
use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use couple::{
    AccountId, Backend, Error, ErrorKind, Keyring, RequestContext, Secret,
    core::{
        limits::Unlimited,
        live::{Bus, Notice, Presence, Subscription, Topic},
    },
    http::{HttpOptions, router_with},
    notify::live::LiveOptions,
    pairing::Person,
    store::{MemoryBus, MemoryPresence, MemoryStore, sql::SqliteOptions},
    timeline::Append,
};
use futures_util::StreamExt as _;
use observed_store::{ObservedStore, StoreObserver};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

#[path = "support/observed_store.rs"]
mod observed_store;
#[path = "../benches/people/mod.rs"]
mod people;

/// Counts reads by name, and how many run concurrently.
#[derive(Default)]
struct Counts {
    reads: Mutex<HashMap<&'static str, usize>>,
    commits: AtomicUsize,
    now: AtomicUsize,
    peak: AtomicUsize,
    /// Additional duration of each read.
    slow: Mutex<Duration>,
    /// Additional time until the result of a session's read is returned.
    delay: Mutex<Duration>,
    /// Whether the next read of present sessions panics.
    panics: AtomicBool,
    /// Whether reads of a couple by its id fail.
    couple_fails: AtomicBool,
}

#[async_trait]
impl StoreObserver for Counts {
    async fn before(&self, what: &'static str) {
        if what == "commit" {
            self.commits.fetch_add(1, Ordering::SeqCst);
            return;
        }
        *self.reads.lock().unwrap().entry(what).or_default() += 1;
        assert!(
            what != "present_sessions" || !self.panics.swap(false, Ordering::SeqCst),
            "a read that panics"
        );
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        let slow = *self.slow.lock().unwrap();
        if !slow.is_zero() {
            sleep(slow).await;
        }
    }
    fn read_fails(&self, what: &'static str) -> Option<Error> {
        let fails = what == "couple" && self.couple_fails.load(Ordering::SeqCst);
        fails.then(|| Error::new(ErrorKind::Unavailable, what))
    }
    async fn after(&self, what: &'static str) {
        if what == "session_by_token" {
            let delay = *self.delay.lock().unwrap();
            sleep(delay).await;
        }
        if what != "commit" {
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Counts {
    fn of(&self, read: &str) -> usize {
        self.reads.lock().unwrap().get(read).copied().unwrap_or(0)
    }
    /// All reads but the periodic check of sessions.
    fn all(&self) -> usize {
        let reads = self.reads.lock().unwrap();
        reads.iter().filter(|(read, _)| **read != "present_sessions").map(|(_, count)| count).sum()
    }
    fn begin(&self) {
        self.reads.lock().unwrap().clear();
        self.peak.store(0, Ordering::SeqCst);
    }
}

/// A bus that loses the selected notices.
#[derive(Clone)]
struct Lossy {
    bus: MemoryBus,
    lost: fn(&Topic) -> bool,
    /// Whether notices carry no entry, as between processes.
    abroad: bool,
}

#[async_trait]
impl Bus for Lossy {
    async fn publish(&self, topic: Topic, notice: Notice) {
        if !(self.lost)(&topic) {
            let notice = match notice {
                Notice::Appended(_) if self.abroad => Notice::Changed,
                other => other,
            };
            self.bus.publish(topic, notice).await;
        }
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        self.bus.subscribe(topics).await
    }
}

struct World {
    backend: Backend,
    app: axum::Router,
    tokens: Vec<String>,
    counts: Arc<Counts>,
}

/// An event stream of a couple's log.
struct Events(BodyDataStream);

impl World {
    async fn new(couples: usize, lost: fn(&Topic) -> bool, live: LiveOptions) -> Self {
        let counts = Arc::new(Counts::default());
        let bus = Lossy { bus: MemoryBus::new(), lost, abroad: false };
        Self::over(ObservedStore(MemoryStore::new(), counts.clone()), counts, couples, bus, live).await
    }

    async fn over(
        store: impl couple::Store,
        counts: Arc<Counts>,
        couples: usize,
        bus: Lossy,
        live: LiveOptions,
    ) -> Self {
        let builder = Backend::builder()
            .blobs(couple::blobs::Blobs::memory())
            .store(store)
            .keys(Keyring::new([0; 32]))
            .limits(Unlimited)
            .live(live);
        let backend = builder.bus(bus).build().unwrap();
        let tokens = people::seed(backend.ports(), couples).await;
        let app = router_with(backend.clone(), HttpOptions::default());
        Self { backend, app, tokens, counts }
    }

    async fn follow(&self, token: &str, after: &str) -> Events {
        let request = Request::get(format!("/v1/couple/live{after}"))
            .header("authorization", format!("Bearer {token}"))
            .header("accept", "text/event-stream");
        let answer = self.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        Events(answer.into_body().into_data_stream())
    }

    async fn say(&self, token: &str, id: &str) {
        let (_, account) =
            self.backend.accounts().unwrap().authenticate(&Secret::new(token.to_owned())).await.unwrap();
        let body = json!({ "text": id });
        let command = Append { couple: None, client_id: id.to_owned(), kind: "text".to_owned(), body };
        self.backend.timeline().append(&RequestContext::default(), account.id, &command).await.unwrap();
    }

    async fn sign_out(&self, token: &str) {
        let accounts = self.backend.accounts().unwrap();
        let (session, _) = accounts.authenticate(&Secret::new(token.to_owned())).await.unwrap();
        accounts.sign_out(&session).await.unwrap();
    }
}

impl Events {
    /// Reads until a word has arrived.
    async fn until(&mut self, word: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(word) {
            let next = timeout(Duration::from_secs(10), self.0.next()).await;
            let next = next.unwrap_or_else(|_| panic!("no {word} within ten seconds: {seen}"));
            let Some(piece) = next else { panic!("it ended without {word}: {seen}") };
            seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
        seen
    }
}

fn nothing(_: &Topic) -> bool {
    false
}

/// All clients are disconnected together, each five entries behind, and reconnect together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_clients_read_each_log_once_with_few_concurrent_reads() {
    let (couples, folder, counts) = (200, tempfile::tempdir().unwrap(), Arc::new(Counts::default()));
    let store = SqliteOptions::new(folder.path().join("couple.db")).open().await.unwrap();
    let store = ObservedStore(store, counts.clone());
    let bus = Lossy { bus: MemoryBus::new(), lost: nothing, abroad: false };
    let world = World::over(store, counts, couples, bus, LiveOptions::default()).await;
    for n in 0..5 {
        for pair in world.tokens.chunks(2) {
            world.say(&pair[0], &format!("e-{n}")).await;
        }
    }
    world.counts.begin();
    let connect = |token: &String| {
        let token = token.clone();
        let world = &world;
        async move {
            let mut events = world.follow(&token, "?after=0&presence=off").await;
            let seen = events.until("caught_up").await;
            assert_eq!(seen.matches("\"type\":\"entry\"").count(), 5, "{seen}");
            events
        }
    };
    let open = futures_util::future::join_all(world.tokens.iter().map(connect)).await;
    let counts = &world.counts;
    let per_couple = |read: &str| counts.of(read) as f64 / couples as f64;
    assert_eq!(open.len(), 2 * couples);
    assert!(per_couple("entries") <= 1.2, "logs read {} times", per_couple("entries"));
    // Reads for authorization: session and couple, before and after subscribing, for each connection.
    assert!(per_couple("session_by_token") <= 4.0, "{:?}", counts.reads);
    assert!(per_couple("couple_of") + per_couple("couple") <= 4.0, "{:?}", counts.reads);
    let peak = counts.peak.load(Ordering::SeqCst);
    assert!(peak <= LiveOptions::default().max_concurrent_reads(), "{peak} concurrent reads");
}

/// An entry is read once for all streams, or not at all if this process wrote it.
///
/// With two devices of each member; their sessions are not read again for each entry.
#[tokio::test]
async fn entry_is_read_at_most_once_for_all_streams() {
    for abroad in [false, true] {
        let counts = Arc::new(Counts::default());
        let store = ObservedStore(MemoryStore::new(), counts.clone());
        let bus = Lossy { bus: MemoryBus::new(), lost: nothing, abroad };
        let world = World::over(store, counts, 1, bus, LiveOptions::default()).await;
        let mut open = Vec::new();
        for n in 0..4 {
            let mut events = world.follow(&world.tokens[n % 2], "").await;
            events.until("caught_up").await;
            open.push(events);
        }
        world.counts.begin();
        for n in 0..20 {
            let word = format!("word-{n}-");
            world.say(&world.tokens[0], &word).await;
            for events in &mut open {
                events.until(&word).await;
            }
        }
        let (counts, read) = (&world.counts, if abroad { 20 } else { 0 });
        // Appending itself reads the session and the couple.
        assert!(counts.of("session_by_token") <= 20 + 4, "{:?}", counts.reads);
        assert_eq!(counts.of("couple_of"), 20, "{:?}", counts.reads);
        assert!(counts.of("entries") <= read && counts.of("couple") <= read + 1, "{:?}", counts.reads);
        assert!(counts.all() <= 2 * 20 + 2 * read + 5, "{:?}", counts.reads);
    }
}

/// A stream that gets an entry's notice, and missed that of the entry before, reads the log.
#[tokio::test]
async fn lost_notice_is_recovered_by_the_next() {
    fn every_other(topic: &Topic) -> bool {
        static SAID: AtomicUsize = AtomicUsize::new(0);
        matches!(topic, Topic::Couple(_)) && SAID.fetch_add(1, Ordering::SeqCst) % 2 == 1
    }
    let world = World::new(1, every_other, LiveOptions::default()).await;
    let mut events = world.follow(&world.tokens[1], "?presence=off").await;
    events.until("caught_up").await;
    for n in 0..10 {
        world.say(&world.tokens[0], &format!("word-{n}-")).await;
    }
    let mut seen = String::new();
    for n in 0..9 {
        let word = format!("word-{n}-");
        if !seen.contains(&word) {
            seen.push_str(&events.until(&word).await);
        }
    }
    let positions: Vec<_> = (0..9).map(|n| seen.find(&format!("word-{n}-")).unwrap()).collect();
    assert!(positions.is_sorted(), "{seen}");
}

/// Presence and signals are not stored, and cause no reads but those of authorization.
#[tokio::test]
async fn presence_and_signals_are_not_stored() {
    let world = World::new(1, nothing, LiveOptions::default()).await;
    let mut events = world.follow(&world.tokens[0], "").await;
    events.until("caught_up").await;
    world.counts.commits.store(0, Ordering::SeqCst);
    let mut other = world.follow(&world.tokens[1], "").await;
    events.until("\"presence\":\"here\"").await;
    other.until("caught_up").await;
    world.counts.begin();
    for (kind, body) in [("typing", "{}"), ("hug", "{}"), ("thumb", r#"{"x":0.5,"y":0.5}"#)] {
        let request = Request::post("/v1/couple/signals")
            .header("authorization", format!("Bearer {}", world.tokens[1]))
            .header("content-type", "application/json")
            .body(Body::from(format!(r#"{{"kind":"{kind}","body":{body}}}"#)));
        let answer = world.app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 202);
        events.until(&format!("\"kind\":\"{kind}\"")).await;
    }
    assert_eq!(world.counts.commits.load(Ordering::SeqCst), 0);
    // Reads of session and couple for each signal, and one check of the streams' sessions.
    assert!(world.counts.all() <= 3 * 2 + 4, "{:?}", world.counts.reads);
}

/// Presence that fails on request.
#[derive(Clone, Default)]
struct Flaky(Arc<MemoryPresence>, Arc<AtomicBool>);

#[async_trait]
impl Presence for Flaky {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        self.0.renew(account, lease).await
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        self.0.shorten(account, lease).await
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        if self.1.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "ask who is here"));
        }
        self.0.left(account).await
    }
}

/// If presence cannot be queried, a partner who was present stays so until the lease expires.
#[tokio::test]
async fn failure_to_query_presence_keeps_the_last_state() {
    let presence = Flaky::default();
    let builder = Backend::builder().limits(Unlimited).presence(presence.clone());
    let backend = builder.build().unwrap();
    let tokens = people::seed(backend.ports(), 1).await;
    let app = router_with(backend.clone(), HttpOptions::default());
    let world = World { backend, app, tokens, counts: Arc::default() };
    let mut events = world.follow(&world.tokens[0], "").await;
    let mut other = world.follow(&world.tokens[1], "").await;
    events.until("\"presence\":\"here\"").await;
    other.until("caught_up").await;
    presence.1.store(true, Ordering::SeqCst);
    let (_, account) =
        world.backend.accounts().unwrap().authenticate(&Secret::new(world.tokens[1].clone())).await.unwrap();
    let (at, _) = world.backend.timeline().membership(account.id).await.unwrap();
    // Makes every stream query again.
    world.backend.ports().bus.publish(Topic::Couple(at.couple), Notice::Here(at.side)).await;
    sleep(Duration::from_millis(100)).await;
    world.say(&world.tokens[1], "a-word").await;
    let received = events.until("a-word").await;
    assert!(!received.contains("away"), "{received}");
}

/// Presence whose calls do not return, like those to a server that accepts connections and never responds.
#[derive(Default)]
struct HangingPresence {
    calls: AtomicUsize,
}

impl HangingPresence {
    async fn hang<T>(&self) -> T {
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[async_trait]
impl Presence for HangingPresence {
    async fn renew(&self, _: AccountId, _: Duration) -> Result<bool, Error> {
        self.hang().await
    }
    async fn shorten(&self, _: AccountId, _: Duration) -> Result<(), Error> {
        self.hang().await
    }
    async fn left(&self, _: AccountId) -> Result<Option<Duration>, Error> {
        self.hang().await
    }
}

/// Neither the first calls of presence nor those that notices cause delay an entry.
#[tokio::test]
async fn presence_that_hangs_delays_no_entry() {
    let presence = Arc::new(HangingPresence::default());
    let backend = Backend::builder().limits(Unlimited).presence(presence.clone()).build().unwrap();
    let tokens = people::seed(backend.ports(), 1).await;
    let app = router_with(backend.clone(), HttpOptions::default());
    let world = World { backend, app, tokens, counts: Arc::default() };
    let mut events = world.follow(&world.tokens[1], "").await;
    events.until("caught_up").await;
    let (_, account) =
        world.backend.accounts().unwrap().authenticate(&Secret::new(world.tokens[0].clone())).await.unwrap();
    let (at, _) = world.backend.timeline().membership(account.id).await.unwrap();
    for n in 0..5 {
        world.backend.ports().bus.publish(Topic::Couple(at.couple), Notice::Here(at.side)).await;
        sleep(Duration::from_millis(50)).await;
        let (started, word) = (Instant::now(), format!("word-{n}-"));
        world.say(&world.tokens[0], &word).await;
        events.until(&word).await;
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
    assert_eq!(presence.calls.load(Ordering::SeqCst), 1, "calls at the same time");
}

/// A read of a room that fails ends its streams. Presence then ends as after any other end of the last stream, except for a member who has
/// reconnected.
#[tokio::test]
async fn presence_ends_after_a_failed_read_unless_the_member_reconnects() {
    let world = World::new(1, nothing, LiveOptions::default()).await;
    let mut members = Vec::new();
    for token in &world.tokens {
        let (_, account) =
            world.backend.accounts().unwrap().authenticate(&Secret::new(token.clone())).await.unwrap();
        members.push(account.id);
    }
    let ports = world.backend.ports();
    let is_present = async |n: usize| ports.presence.left(members[n]).await.unwrap().is_some();
    let mut open = Vec::new();
    for token in &world.tokens {
        open.push(world.follow(token, "").await);
    }
    for events in &mut open {
        events.until("\"presence\":\"here\"").await;
    }
    let (at, _) = world.backend.timeline().membership(members[0]).await.unwrap();
    world.counts.couple_fails.store(true, Ordering::SeqCst);
    ports.bus.publish(Topic::Couple(at.couple), Notice::Changed).await;
    for mut events in open {
        events.until("bye").await;
    }
    world.counts.couple_fails.store(false, Ordering::SeqCst);
    let mut again = world.follow(&world.tokens[1], "").await;
    let ended = Instant::now();
    while is_present(0).await {
        assert!(is_present(1).await, "away although connected");
        assert!(ended.elapsed() < Duration::from_secs(8), "present without a connection");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(ended.elapsed() > Duration::from_secs(2), "time to reconnect");
    again.until("\"presence\":\"away\"").await;
    sleep(Duration::from_secs(3)).await;
    assert!(is_present(1).await, "away although connected");
}

/// If the notice of a session's end is lost, no frame is sent more than two seconds later.
#[tokio::test]
async fn ended_session_receives_no_frame_even_if_its_notice_is_lost() {
    let world = World::new(1, |topic| matches!(topic, Topic::Account(_)), LiveOptions::default()).await;
    let [one, other] = [&world.tokens[0], &world.tokens[1]];
    let mut events = world.follow(other, "?presence=off").await;
    events.until("away").await;
    world.sign_out(other).await;
    sleep(Duration::from_millis(2_050)).await;
    world.say(one, "secret").await;
    let received = events.until("bye").await;
    assert!(received.contains("signed_out") && !received.contains("secret"), "{received}");
}

/// If every notice is lost, an ended session still ends its streams, at one statement per second.
#[tokio::test]
async fn ended_session_ends_its_stream_within_two_seconds_without_a_notice() {
    let world = World::new(20, |_| true, LiveOptions::default()).await;
    let mut open = Vec::new();
    for token in &world.tokens {
        let mut events = world.follow(token, "?presence=off").await;
        events.until("caught_up").await;
        open.push(events);
    }
    world.counts.begin();
    let started = Instant::now();
    for (token, mut events) in world.tokens.iter().zip(open).take(3) {
        let started = Instant::now();
        world.sign_out(token).await;
        events.until("signed_out").await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    let statements = world.counts.of("present_sessions");
    let rounds = started.elapsed().as_secs() + 1;
    assert!((1..=rounds).contains(&(statements as u64)), "{statements} statements in {rounds} rounds");
}

#[tokio::test]
async fn ended_session_ends_its_stream_after_the_watch_has_panicked() {
    let world = World::new(1, |_| true, LiveOptions::default()).await;
    let token = &world.tokens[0];
    let mut events = world.follow(token, "?presence=off").await;
    events.until("caught_up").await;
    world.counts.panics.store(true, Ordering::SeqCst);
    while world.counts.panics.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(10)).await;
    }
    world.sign_out(token).await;
    tokio::time::timeout(Duration::from_secs(3), events.until("signed_out")).await.unwrap();
}

/// A slow result counts as old as its query.
#[tokio::test]
async fn slow_result_of_a_session_check_is_not_trusted_longer() {
    let live = LiveOptions::default().with_session_check_interval(Duration::from_hours(1));
    let world = World::new(1, |topic| matches!(topic, Topic::Account(_)), live).await;
    let accounts = world.backend.accounts().unwrap();
    let mut sessions = Vec::new();
    for token in &world.tokens {
        sessions.push(accounts.authenticate(&Secret::new(token.clone())).await.unwrap().0);
    }
    let say = async |id: &str| {
        let body = json!({ "text": id });
        let command = Append { couple: None, client_id: id.to_owned(), kind: "text".to_owned(), body };
        let writer = sessions[0].account;
        world.backend.timeline().append(&RequestContext::default(), writer, &command).await.unwrap();
    };
    let mut events = world.follow(&world.tokens[1], "?presence=off").await;
    events.until("away").await;
    sleep(Duration::from_millis(2_100)).await;
    *world.counts.delay.lock().unwrap() = Duration::from_millis(1_500);
    world.counts.begin();
    say("before").await;
    // The session is read immediately; the result is delayed.
    let sign_out_while_it_waits = async {
        while world.counts.of("session_by_token") == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let started = Instant::now();
        accounts.sign_out(&sessions[1]).await.unwrap();
        started
    };
    let (_, started) = tokio::join!(events.until("before"), sign_out_while_it_waits);
    tokio::time::sleep_until(started + Duration::from_millis(2_400)).await;
    say("secret").await;
    let received = events.until("bye").await;
    assert!(received.contains("signed_out") && !received.contains("secret"), "{received}");
}

/// The same if the notice of a couple's end is lost.
#[tokio::test]
async fn ended_couple_receives_no_frame_even_if_its_notice_is_lost() {
    let world = World::new(1, |topic| matches!(topic, Topic::Couple(_)), LiveOptions::default()).await;
    let mut events = world.follow(&world.tokens[1], "?presence=off").await;
    events.until("away").await;
    let leaver = Secret::new(world.tokens[0].clone());
    let (_, leaver) = world.backend.accounts().unwrap().authenticate(&leaver).await.unwrap();
    let leaver = Person { id: leaver.id, email: Some(leaver.email) };
    world.backend.pairings().leave(&RequestContext::default(), &leaver, None, false).await.unwrap();
    sleep(Duration::from_millis(2_050)).await;
    // The other device joins the same room, and is refused.
    let request =
        Request::get("/v1/couple/live").header("authorization", format!("Bearer {}", world.tokens[1]));
    let answer = world.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 404);
    let received = events.until("bye").await;
    assert!(received.contains("not_paired"), "{received}");
}

/// If every notice is lost, everything arrives with the next sweep.
#[tokio::test]
async fn bus_that_loses_everything_delays_entries_by_the_sweep() {
    let live = LiveOptions::default().with_sweep_interval(Duration::from_millis(500));
    let world = World::new(1, |_| true, live).await;
    let [one, other] = [&world.tokens[0], &world.tokens[1]];
    let mut events = world.follow(other, "").await;
    events.until("caught_up").await;
    for n in 0..3 {
        let (started, word) = (Instant::now(), format!("word-{n}-"));
        world.say(one, &word).await;
        events.until(&word).await;
        assert!(started.elapsed() < Duration::from_millis(700), "{:?}", started.elapsed());
    }
    let started = Instant::now();
    world.sign_out(other).await;
    events.until("signed_out").await;
    assert!(started.elapsed() < Duration::from_millis(700), "{:?}", started.elapsed());
}

/// An expiring session ends its stream when it expires, not at the next check.
#[tokio::test]
async fn expired_session_ends_its_stream() {
    const IDLE_TIME: Duration = Duration::from_millis(1_200);
    let policy = couple::account::AccountPolicy::default().with_session_idle_time(IDLE_TIME);
    let backend = Backend::builder().limits(Unlimited).accounts(policy).build().unwrap();
    let before = Instant::now();
    let tokens = people::seed(backend.ports(), 1).await;
    let app = router_with(backend.clone(), HttpOptions::default());
    let world = World { backend, app, tokens, counts: Arc::default() };
    let after = Instant::now();
    let mut events = world.follow(&world.tokens[0], "").await;
    events.until("signed_out").await;
    // The session begins between the two times.
    assert!(before.elapsed() > IDLE_TIME, "{:?}", before.elapsed());
    assert!(after.elapsed() < Duration::from_secs(2), "{:?}", after.elapsed());
}

/// An entry that changed before a stream opened is sent in its new state, even from a shared tail.
#[tokio::test]
async fn changed_entry_is_not_sent_from_a_stale_tail() {
    // Open streams get no notice of the changes: the read at the opening of a stream must find them.
    let world = World::new(1, |topic| matches!(topic, Topic::Couple(_)), LiveOptions::default()).await;
    let one = &world.tokens[0];
    let (_, account) =
        world.backend.accounts().unwrap().authenticate(&Secret::new(one.clone())).await.unwrap();
    let timeline = world.backend.timeline();
    for word in ["first", "second", "third"] {
        world.say(one, word).await;
    }
    let mut there = world.follow(&world.tokens[1], "?after=0").await;
    there.until("third").await;
    timeline.edit(account.id, None, 1, &json!({ "text": "edited" })).await.unwrap();
    timeline.delete(account.id, None, 2).await.unwrap();
    timeline.react(account.id, None, 3, Some("❤️")).await.unwrap();
    let received = world.follow(&world.tokens[1], "?after=0").await.until("caught_up").await;
    assert!(!received.contains("\"first\"") && !received.contains("\"second\""), "{received}");
    assert_eq!(received.matches("\"text\":\"edited\"").count(), 2, "{received}");
    assert_eq!(received.matches("\"reactions\":{\"partner\":\"❤️\"}").count(), 2, "{received}");
    // Again, now that the entries about the changes are in the tail itself.
    timeline.edit(account.id, None, 1, &json!({ "text": "again" })).await.unwrap();
    timeline.react(account.id, None, 3, None).await.unwrap();
    let received = world.follow(&world.tokens[1], "?after=0").await.until("caught_up").await;
    assert!(!received.contains("edited\"}") && !received.contains("❤️"), "{received}");
    assert_eq!(received.matches("\"text\":\"again\"").count(), 3, "{received}");
}

/// A client that is far behind catches up in separate pages, without a gap, while the partner writes.
#[tokio::test]
async fn client_far_behind_catches_up_without_delaying_others() {
    let world = World::new(1, nothing, LiveOptions::default()).await;
    let one = &world.tokens[0];
    let mut near = world.follow(&world.tokens[1], "").await;
    near.until("caught_up").await;
    for n in 0..150 {
        world.say(one, &format!("n-{n}-")).await;
    }
    let write = async {
        for n in 150..200 {
            world.say(one, &format!("n-{n}-")).await;
            tokio::task::yield_now().await;
        }
    };
    let read = async {
        let mut far = world.follow(&world.tokens[1], "?after=0").await;
        far.until("n-199-").await
    };
    let ((), far, near) = tokio::join!(write, read, near.until("n-199-"));
    for received in [far, near] {
        let seqs: Vec<usize> = received
            .split("\"entry\":{\"seq\":")
            .skip(1)
            .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    }
}

/// Many new clients that wait to be authenticated do not delay open streams.
#[tokio::test]
async fn waiting_new_clients_do_not_delay_open_streams() {
    let world = World::new(1, nothing, LiveOptions::default()).await;
    let mut inside = world.follow(&world.tokens[1], "").await;
    inside.until("caught_up").await;
    let live = world.backend.live();
    let (mut permits, mut waiting) = (Vec::new(), 0);
    for _ in 0..20 {
        match timeout(Duration::from_millis(5), live.read_permit()).await {
            Ok(permit) => permits.push(permit),
            Err(_) => waiting += 1,
        }
    }
    assert_eq!(
        (permits.len(), waiting),
        (
            LiveOptions::default().max_concurrent_reads() - 1,
            20 - (LiveOptions::default().max_concurrent_reads() - 1)
        )
    );
    world.say(&world.tokens[0], "e-1").await;
    inside.until("e-1").await;
}
