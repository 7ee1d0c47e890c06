//! Push messages and mails about events: who is notified of what, decided again at the moment of sending.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "notifications/digests.rs"]
mod digests;
#[path = "support/observed_store.rs"]
mod observed_store;
#[path = "notifications/people.rs"]
mod people;
#[path = "support/seeded_random.rs"]
mod seeded_random;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    AccountId, Backend, BackendBuilder, CoupleId, Error, ErrorKind, Keyring, ManualClock, Secret, Store,
    Timestamp,
    account::{Account, AccountChange, HashCost, Session},
    blobs::Blobs,
    core::{
        Change, Clock as _, DeviceId, DisplayName, EmailAddress, Locale, SessionId, TimeZoneName, digest,
        live::Presence as _,
    },
    device::{Device, DeviceChange},
    mail::{Mail, Mailer},
    notification::{
        NotificationKind, NotificationPolicy, PreferencesPatch, PushMessage, PushOutcome, PushTexts,
        QuietHours,
    },
    pairing::{Block, Couple, PairingChange, Side},
    push::{Alert, Destination, Payload, Push, PushError, Pusher, Surface},
    store::{MemoryPresence, MemoryStore},
    timeline::{Body, EntryKind, NewEntry, TimelineChange},
};
use observed_store::{ObservedStore, StoreObserver};
use seeded_random::SeededRandom;

/// Error that the push service answers.
#[derive(Clone, Copy)]
enum Answer {
    Gone(Option<Timestamp>),
    Unavailable(Option<Duration>),
    Refused,
    Panics,
}

/// Reads, commits and push messages in the order in which they happened.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Pusher that keeps the messages, and answers once with each of the given errors.
#[derive(Default)]
struct Recorder {
    sent: Mutex<Vec<Push>>,
    answers: Mutex<HashMap<String, Vec<Answer>>>,
    trace: Trace,
    /// Clock that each message advances by 16 s.
    slows: Mutex<Option<Arc<ManualClock>>>,
}

fn token_of(push: &Push) -> String {
    match &push.to {
        Destination::Apns { token, .. } | Destination::Fcm { token, .. } => token.expose().clone(),
        Destination::WebPush { endpoint, .. } => endpoint.expose().clone(),
    }
}

#[async_trait]
impl Pusher for Recorder {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        let token = token_of(push);
        self.trace.add(format!("push {token}"));
        if let Some(clock) = &*self.slows.lock().unwrap() {
            clock.advance(Duration::from_secs(16));
        }
        let answer = self.answers.lock().unwrap().get_mut(&token).and_then(Vec::pop);
        let error = |kind| Error::new(kind, "push");
        match answer {
            None => {
                self.sent.lock().unwrap().push(push.clone());
                Ok(())
            }
            Some(Answer::Gone(since)) => Err(PushError::Gone { since }),
            Some(Answer::Unavailable(retry_after)) => {
                Err(PushError::Unavailable { retry_after, error: error(ErrorKind::Unavailable) })
            }
            Some(Answer::Panics) => panic!("planted in the test"),
            Some(Answer::Refused) => Err(PushError::Refused(error(ErrorKind::Rejected))),
        }
    }
}

/// Makes changes before a read of the store.
struct Interferer {
    store: Arc<MemoryStore>,
    /// Number of reads until the changes are made, and the changes.
    plan: Mutex<Option<(usize, Vec<Change>)>>,
    trace: Trace,
}

#[async_trait]
impl StoreObserver for Interferer {
    async fn before(&self, what: &'static str) {
        let due = {
            let mut plan = self.plan.lock().unwrap();
            match plan.as_mut() {
                Some((0, _)) => plan.take().map(|(_, changes)| changes),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(changes) = due {
            self.store.commit(changes).await.unwrap();
            self.trace.add("CHANGE");
        }
        self.trace.add(what);
    }
    async fn after(&self, _: &'static str) {}
}

/// Mailer that keeps the mails.
#[derive(Clone, Default)]
struct Mailbox(Arc<Mutex<Vec<Mail>>>);

impl Mailbox {
    fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[async_trait]
impl Mailer for Mailbox {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        self.0.lock().unwrap().push(mail.clone());
        Ok(())
    }
}

struct World {
    backend: Backend,
    mailer: Mailbox,
    clock: Arc<ManualClock>,
    presence: Arc<MemoryPresence>,
    recorder: Arc<Recorder>,
    interferer: Arc<Interferer>,
}

#[derive(Clone)]
struct Pair {
    couple: CoupleId,
    /// Writes.
    ana: AccountId,
    /// Is notified.
    ben: AccountId,
    session: SessionId,
}

impl World {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn permitting(policy: NotificationPolicy) -> Self {
        Self::with(|builder| builder.notifications(policy))
    }

    fn with(setting: impl FnOnce(BackendBuilder) -> BackendBuilder) -> Self {
        Self::build(setting, true)
    }

    fn build(setting: impl FnOnce(BackendBuilder) -> BackendBuilder, has_pusher: bool) -> Self {
        let mailer = Mailbox::default();
        let (clock, presence) = (Arc::new(ManualClock::default()), Arc::new(MemoryPresence::new()));
        let (recorder, store) = (Arc::new(Recorder::default()), Arc::new(MemoryStore::new()));
        let interferer = Arc::new(Interferer {
            store: store.clone(),
            plan: Mutex::new(None),
            trace: recorder.trace.clone(),
        });
        let mut builder = Backend::builder();
        if has_pusher {
            builder = builder.pusher(recorder.clone());
        }
        let builder = builder
            .store(ObservedStore(store, interferer.clone()))
            .keys(Keyring::new([7; 32]))
            .blobs(Blobs::memory())
            .clock(clock.clone())
            .presence(presence.clone())
            .hash_cost(HashCost::FOR_TESTS)
            .mailer(mailer.clone())
            .entry_kind(EntryKind::new("x-quiet").with_unread(false));
        let backend = setting(builder).build().unwrap();
        Self { backend, mailer, clock, presence, recorder, interferer }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn commit(&self, changes: Vec<Change>) {
        self.backend.ports().commit(changes).await.unwrap();
    }

    fn account(&self, name: &str) -> Account {
        let id: AccountId = self.backend.ports().new_id();
        Account {
            id,
            email: EmailAddress::parse("email", &format!("{name}-{id}@example.org")).unwrap(),
            display_name: DisplayName::from_stored(name),
            locale: None,
            time_zone: None,
            birthday: None,
            password: None,
            created_at: self.now(),
            deletion_due: None,
            version: 0,
        }
    }

    /// A couple; the second member has a session.
    async fn pair(&self) -> Pair {
        let ports = self.backend.ports();
        let (ana, ben) = (self.account("Ana"), self.account("Ben"));
        let session = Session {
            id: ports.new_id(),
            account: ben.id,
            token: digest(&[ben.id.as_uuid().as_bytes()]),
            device: None,
            created_at: self.now(),
            authenticated_at: self.now(),
            seen_at: self.now(),
            expires_at: self.now().plus(Duration::from_hours(24 * 40)),
            widget_token: None,
        };
        let couple = Couple {
            id: ports.new_id(),
            members: [ana.id, ben.id],
            since: self.now(),
            epoch: 1,
            ended_at: None,
            title: None,
            anniversary: None,
            previous: None,
            restore: [false; 2],
            head_seq: 0,
            read: [0; 2],
        };
        let pair = Pair { couple: couple.id, ana: ana.id, ben: ben.id, session: session.id };
        let changes = vec![
            AccountChange::Insert(ana).into(),
            AccountChange::Insert(ben).into(),
            AccountChange::InsertSession { session, version: 0 }.into(),
            PairingChange::Pair(couple).into(),
        ];
        // Without the listeners: only some tests want the notice of the pairing.
        self.interferer.store.commit(changes).await.unwrap();
        pair
    }

    fn device(&self, account: AccountId, session: Option<SessionId>, token: &str) -> Device {
        Device {
            account,
            id: DeviceId::new(&*self.clock, &*self.backend.ports().entropy),
            session,
            destination: Destination::Fcm {
                token: Secret::new(token.to_owned()),
                app: "org.example.app".to_owned(),
            },
            surface: Surface::Alert,
            locale: None,
            time_zone: None,
            app_version: None,
            registered_at: self.now(),
        }
    }

    /// Registers a device of the second member.
    async fn register(&self, pair: &Pair, token: &str) -> Device {
        let device = self.device(pair.ben, Some(pair.session), token);
        self.put(&device).await;
        device
    }

    async fn put(&self, device: &Device) {
        self.commit(vec![DeviceChange::Put { device: device.clone(), most: 99 }.into()]).await;
    }

    /// Entry of the first member.
    fn entry(&self, client_id: &str, text: &str) -> NewEntry {
        NewEntry {
            author: Some(Side::First),
            client_id: Some(client_id.to_owned()),
            kind: "text".to_owned(),
            body: Some(Body::from_stored(serde_json::json!({ "text": text }).to_string())),
            target: None,
            at: self.now(),
        }
    }

    async fn append(&self, pair: &Pair, entry: NewEntry) {
        self.commit(vec![TimelineChange::Append { couple: pair.couple, entry }.into()]).await;
    }

    async fn mark_read(&self, pair: &Pair, seq: i64) {
        let mark = TimelineChange::MarkRead { couple: pair.couple, side: Side::Second, seq };
        self.commit(vec![mark.into()]).await;
    }

    async fn end(&self, pair: &Pair) {
        self.commit(vec![self.end_of(pair)]).await;
    }

    fn end_of(&self, pair: &Pair) -> Change {
        PairingChange::End { id: pair.couple, members: [pair.ana, pair.ben], at: self.now(), by: None }.into()
    }

    async fn prefer(&self, pair: &Pair, patch: PreferencesPatch) {
        self.backend.notifications().change(pair.ben, &patch).await.unwrap();
    }

    /// Runs all jobs that are due. Returns the tokens that got a message since the last call.
    async fn pushed(&self) -> Vec<String> {
        self.messages().await.iter().map(token_of).collect()
    }

    async fn messages(&self) -> Vec<Push> {
        self.backend.worker().run_until_idle().await.unwrap();
        std::mem::take(&mut self.recorder.sent.lock().unwrap())
    }

    async fn alerts(&self) -> Vec<Alert> {
        let alert = |push: Push| match push.payload {
            Payload::Alert(alert) => alert,
            other => panic!("{other:?}"),
        };
        self.messages().await.into_iter().map(alert).collect()
    }

    /// The next answers of the push service for a token, the first one last.
    fn answer(&self, token: &str, answers: &[Answer]) {
        let answers = answers.iter().rev().copied().collect();
        self.recorder.answers.lock().unwrap().insert(token.to_owned(), answers);
    }

    async fn devices(&self, pair: &Pair) -> usize {
        self.backend.ports().store.devices_of(pair.ben).await.unwrap().len()
    }
}

const NONE: [&str; 0] = [];

#[tokio::test]
async fn unread_entry_is_pushed_to_each_device_of_the_partner() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.register(&pair, "tablet").await;
    world.put(&Device { surface: Surface::Control, ..world.device(pair.ben, None, "control") }).await;
    world.put(&world.device(pair.ana, None, "author")).await;
    world.append(&pair, world.entry("one", "Hi")).await;
    let messages = world.messages().await;
    let mut tokens: Vec<_> = messages.iter().map(token_of).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, ["phone", "tablet"]);
    assert_ne!(messages[0].id, messages[1].id);
    let couple = pair.couple.to_string();
    for push in &messages {
        let Payload::Alert(alert) = &push.payload else { panic!("{push:?}") };
        assert_eq!((alert.badge, alert.thread.as_deref()), (Some(1), Some(&*couple)));
        assert_eq!(push.collapse.as_deref(), Some(&*couple));
        assert_eq!(push.expires_at, Some(world.now().plus(Duration::from_hours(24 * 7))));
        let data = serde_json::json!({ "kind": "entry", "couple_id": couple, "seq": 1 });
        assert_eq!(serde_json::Value::Object(alert.data.clone()), data);
    }
    // The job ends with its message.
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.pushed().await, NONE);
}

#[tokio::test]
async fn without_a_pusher_no_job_is_enqueued() {
    let backend = Backend::builder().hash_cost(HashCost::FOR_TESTS).build().unwrap();
    assert!(!backend.queues().iter().any(|queue| queue.name == "push"));
    let world = World::new();
    assert!(world.backend.queues().iter().any(|queue| queue.name == "push"));
    let pair = world.pair().await;
    let append = TimelineChange::Append { couple: pair.couple, entry: world.entry("one", "Hi") };
    let bare = Backend::builder()
        .store(world.interferer.store.clone())
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .hash_cost(HashCost::FOR_TESTS)
        .build()
        .unwrap();
    bare.ports().commit(vec![append.into()]).await.unwrap();
    assert_eq!(world.backend.ports().store.next_due("push").await.unwrap(), None);
}

#[tokio::test]
async fn message_shows_no_text_unless_previews_are_on() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.append(&pair, world.entry("one", "planted text")).await;
    let [alert] = &world.alerts().await[..] else { panic!("one message") };
    assert_eq!((&*alert.title, &*alert.body), ("You have a new message", ""));
    world.prefer(&pair, PreferencesPatch { previews: Some(true), ..Default::default() }).await;
    world.append(&pair, world.entry("two", "planted text")).await;
    let [alert] = &world.alerts().await[..] else { panic!("one message") };
    assert_eq!((&*alert.title, &*alert.body), ("Ana", "planted text"));
    assert_eq!(alert.badge, Some(2));
}

#[tokio::test]
async fn read_deleted_or_uncounted_entry_is_not_pushed() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.append(&pair, world.entry("read", "Hi")).await;
    world.mark_read(&pair, 1).await;
    assert_eq!(world.pushed().await, NONE);
    world.append(&pair, world.entry("deleted", "Hi")).await;
    let delete = TimelineChange::Delete { couple: pair.couple, seq: 2, author: Side::First, at: world.now() };
    world.commit(vec![delete.into()]).await;
    assert_eq!(world.pushed().await, NONE);
    let quiet = NewEntry { kind: "x-quiet".to_owned(), ..world.entry("uncounted", "Hi") };
    world.append(&pair, quiet).await;
    let system = NewEntry::system("profile_changed", Some(Side::First), None, world.now());
    world.append(&pair, system).await;
    assert_eq!(world.pushed().await, NONE);
}

#[tokio::test]
async fn burst_is_one_message_about_its_last_entry() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    for n in 0..30 {
        world.append(&pair, world.entry(&format!("n{n}"), "Hi")).await;
    }
    let [alert] = &world.alerts().await[..] else { panic!("one message") };
    assert_eq!((alert.badge, alert.data["seq"].as_i64()), (Some(30), Some(30)));
    // Deleting the last one leaves its predecessor to be reported.
    world.append(&pair, world.entry("left", "Hi")).await;
    world.append(&pair, world.entry("deleted", "Hi")).await;
    let delete =
        TimelineChange::Delete { couple: pair.couple, seq: 32, author: Side::First, at: world.now() };
    world.commit(vec![delete.into()]).await;
    let [alert] = &world.alerts().await[..] else { panic!("one message") };
    assert_eq!((alert.badge, alert.data["seq"].as_i64()), (Some(31), Some(31)));
}

#[tokio::test]
async fn entry_that_is_appended_while_the_job_runs_is_pushed_too() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.append(&pair, world.entry("one", "Hi")).await;
    world.recorder.trace.take();
    assert_eq!(world.pushed().await, ["phone"]);
    let steps = world.recorder.trace.take().len();
    for step in 0..steps {
        let last = format!("last{step}");
        world.append(&pair, world.entry(&format!("first{step}"), "Hi")).await;
        // With the job that the listener of a commit adds.
        let ports = world.backend.ports();
        let job = couple::notification::SendPush {
            couple: pair.couple,
            to: Side::Second,
            about: couple::notification::About::Entry(last.clone()),
            put_off_to: None,
            is_second_look: false,
            only: None,
        };
        let append = TimelineChange::Append { couple: pair.couple, entry: world.entry(&last, "Hi") };
        *world.interferer.plan.lock().unwrap() =
            Some((step, vec![append.into(), ports.enqueue(&job).unwrap()]));
        let mut alerts = world.alerts().await;
        // At the last steps the worker has already found its queues empty.
        alerts.extend(world.alerts().await);
        let seqs: Vec<_> = alerts.iter().map(|alert| alert.data["seq"].as_i64()).collect();
        let couple = ports.store.couple(pair.couple).await.unwrap().unwrap();
        if world.interferer.plan.lock().unwrap().take().is_none() {
            assert_eq!(seqs.last(), Some(&Some(couple.head_seq)), "at step {step}: {seqs:?}");
        }
    }
}

#[tokio::test]
async fn person_with_a_live_stream_is_notified_only_if_it_ends_without_a_reading() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    let minute = Duration::from_mins(1);
    // Present at both looks.
    world.presence.renew(pair.ben, Duration::from_hours(1)).await.unwrap();
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(minute);
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(minute);
    assert_eq!(world.pushed().await, NONE);
    // Gone at the second look.
    world.append(&pair, world.entry("two", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    world.presence.shorten(pair.ben, Duration::ZERO).await.unwrap();
    world.clock.advance(minute);
    assert_eq!(world.pushed().await, ["phone"]);
    // Gone, but has read.
    world.presence.renew(pair.ben, Duration::from_hours(1)).await.unwrap();
    world.append(&pair, world.entry("three", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    world.presence.shorten(pair.ben, Duration::ZERO).await.unwrap();
    world.mark_read(&pair, 3).await;
    world.clock.advance(minute);
    assert_eq!(world.pushed().await, NONE);
}

#[tokio::test]
async fn entry_whose_report_was_left_to_a_deleted_one_is_pushed() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    let half = Duration::from_secs(30);
    world.presence.renew(pair.ben, Duration::from_hours(1)).await.unwrap();
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(half);
    world.append(&pair, world.entry("two", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    // The job of the first entry leaves the report to that of the second one.
    world.clock.advance(half);
    assert_eq!(world.pushed().await, NONE);
    let delete = TimelineChange::Delete { couple: pair.couple, seq: 2, author: Side::First, at: world.now() };
    world.commit(vec![delete.into()]).await;
    world.presence.shorten(pair.ben, Duration::ZERO).await.unwrap();
    world.clock.advance(half);
    let [message] = world.messages().await.try_into().unwrap();
    let Payload::Alert(alert) = message.payload else { panic!("no alert") };
    assert_eq!((alert.badge, alert.data["seq"].as_i64()), (Some(1), Some(1)));
}

#[tokio::test]
async fn slow_push_services_hold_no_job_and_reached_devices_get_one_message() {
    let jobs = Arc::new(Mutex::new(HashSet::new()));
    let world = World::with(|builder| {
        let jobs = jobs.clone();
        builder.on_push(move |report| {
            jobs.lock().unwrap().insert(report.job);
        })
    });
    *world.recorder.slows.lock().unwrap() = Some(world.clock.clone());
    let pair = world.pair().await;
    for token in ["phone", "tablet", "browser"] {
        world.register(&pair, token).await;
    }
    world.append(&pair, world.entry("one", "Hi")).await;
    let mut reached = world.pushed().await;
    reached.sort();
    assert_eq!(reached, ["browser", "phone", "tablet"]);
    assert_eq!(jobs.lock().unwrap().len(), 3, "a job of 15 s sends to one device that takes 16 s");
}

#[tokio::test]
async fn quiet_hours_delay_messages_to_their_end() {
    let world = World::new();
    let pair = world.pair().await;
    let device = world.register(&pair, "phone").await;
    // 2026-01-01T00:00Z is 09:00 in Tokyo.
    let quiet = QuietHours::new(8 * 60, 11 * 60).ok();
    world.prefer(&pair, PreferencesPatch { quiet_hours: Some(quiet), ..Default::default() }).await;
    // UTC, because no zone is known.
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, ["phone"]);
    // The zone of the device.
    let tokyo = Device { time_zone: Some(TimeZoneName::parse("z", "Asia/Tokyo").unwrap()), ..device };
    world.put(&tokyo).await;
    for n in 0..3 {
        world.append(&pair, world.entry(&format!("quiet{n}"), "Hi")).await;
        assert_eq!(world.pushed().await, NONE);
    }
    world.clock.advance(Duration::from_hours(2) - Duration::from_micros(1));
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(Duration::from_micros(1));
    let [alert] = &world.alerts().await[..] else { panic!("one message in the morning") };
    assert_eq!(alert.badge, Some(4));
    // The zone of the preferences comes before it.
    let zone = Some(Some("Europe/Rome".to_owned()));
    world.prefer(&pair, PreferencesPatch { time_zone: zone, ..Default::default() }).await;
    world.append(&pair, world.entry("rome", "Hi")).await;
    assert_eq!(world.pushed().await, ["phone"]);
    // Quiet hours that are prolonged meanwhile.
    let quiet = QuietHours::new(2 * 60, 4 * 60).ok();
    world.prefer(&pair, PreferencesPatch { quiet_hours: Some(quiet), ..Default::default() }).await;
    world.append(&pair, world.entry("prolonged", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    let quiet = QuietHours::new(2 * 60, 5 * 60).ok();
    world.prefer(&pair, PreferencesPatch { quiet_hours: Some(quiet), ..Default::default() }).await;
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.pushed().await, ["phone"]);
}

#[tokio::test]
async fn preferences_are_those_of_the_moment_of_sending() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.append(&pair, world.entry("muted", "Hi")).await;
    let until = world.now().plus(Duration::from_hours(1));
    world.prefer(&pair, PreferencesPatch { muted_until: Some(Some(until)), ..Default::default() }).await;
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.pushed().await, NONE, "a muted message is not sent later");
    world.append(&pair, world.entry("loud", "Hi")).await;
    assert_eq!(world.pushed().await, ["phone"]);
    world.append(&pair, world.entry("off", "Hi")).await;
    let off = PreferencesPatch { kinds: [Some(false), None, None], ..Default::default() };
    world.prefer(&pair, off).await;
    assert_eq!(world.pushed().await, NONE);
}

#[tokio::test]
async fn reaction_to_an_own_entry_is_pushed_while_it_lasts() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.append(&pair, NewEntry { author: Some(Side::Second), ..world.entry("his", "Hi") }).await;
    world.append(&pair, world.entry("hers", "Hi")).await;
    world.mark_read(&pair, 2).await;
    assert_eq!(world.pushed().await, NONE);
    let react = async |seq, emoji: Option<&str>| {
        world.clock.advance(Duration::from_secs(1));
        world.backend.timeline().react(pair.ana, None, seq, emoji).await.unwrap();
    };
    react(1, Some("👍")).await;
    let [alert] = &world.alerts().await[..] else { panic!("one message") };
    assert_eq!((&*alert.title, alert.badge), ("You have a new reaction", Some(0)));
    assert_eq!(alert.data["seq"].as_i64(), Some(3));
    // Changed twice: one message. Removed, and to an entry of her own: none.
    react(1, Some("😀")).await;
    react(1, Some("😍")).await;
    let messages = world.messages().await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].collapse, Some(format!("{}.reaction", pair.couple)));
    react(1, Some("😀")).await;
    react(1, None).await;
    assert_eq!(world.pushed().await, NONE);
    react(2, Some("😀")).await;
    assert_eq!(world.pushed().await, NONE);
    react(1, Some("👋")).await;
    world.mark_read(&pair, 99).await;
    assert_eq!(world.pushed().await, NONE, "the reaction was read");
}

#[tokio::test]
async fn inviter_is_notified_of_the_pairing() {
    let world = World::new();
    let (ana, ben) = (world.account_id(), world.account_id());
    world.put(&world.device(ana, None, "inviter")).await;
    world.put(&world.device(ben, None, "partner")).await;
    let couple = Couple {
        id: world.backend.ports().new_id(),
        members: [ana, ben],
        since: world.now(),
        epoch: 1,
        ended_at: None,
        title: None,
        anniversary: None,
        previous: None,
        restore: [false; 2],
        head_seq: 0,
        read: [0; 2],
    };
    let paired = NewEntry::system("paired", None, None, world.now());
    let append = TimelineChange::Append { couple: couple.id, entry: paired };
    world.commit(vec![PairingChange::Pair(couple).into(), append.into()]).await;
    let messages = world.messages().await;
    assert_eq!(messages.iter().map(token_of).collect::<Vec<_>>(), ["inviter"]);
    let Payload::Alert(alert) = &messages[0].payload else { panic!("{messages:?}") };
    assert_eq!((&*alert.title, alert.badge), ("Your invite was accepted", Some(0)));
}

#[tokio::test]
async fn nothing_is_sent_after_leave_block_sign_out_or_expiry() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "left").await;
    world.append(&pair, world.entry("one", "Hi")).await;
    world.end(&pair).await;
    assert_eq!(world.pushed().await, NONE);
    let pair = world.pair().await;
    world.register(&pair, "blocked").await;
    world.append(&pair, world.entry("one", "Hi")).await;
    let blocker_email = EmailAddress::parse("email", "ben@example.org").unwrap().key().clone();
    let block = Block { blocker: pair.ben, blocker_email, blocked: pair.ana, at: world.now() };
    world.commit(vec![PairingChange::Block(block).into()]).await;
    assert_eq!(world.pushed().await, NONE);
    let pair = world.pair().await;
    world.register(&pair, "signed-out").await;
    world.append(&pair, world.entry("one", "Hi")).await;
    world.commit(vec![AccountChange::EndSession { account: pair.ben, id: pair.session }.into()]).await;
    assert_eq!(world.pushed().await, NONE);
    let pair = world.pair().await;
    world.register(&pair, "expired").await;
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, ["expired"]);
    // Unused for 30 days; the purge has not removed the session.
    world.clock.advance(Duration::from_hours(24 * 30));
    world.append(&pair, world.entry("two", "Hi")).await;
    let queue = world.backend.queues().iter().find(|queue| queue.name == "push").unwrap().clone();
    world.backend.worker_for(vec![queue]).run_until_idle().await.unwrap();
    assert_eq!(world.devices(&pair).await, 1, "the purge has not run");
    assert!(world.recorder.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn gone_destination_is_retired_unless_it_was_registered_later() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    let earlier = world.now().minus(Duration::from_micros(1));
    world.answer("phone", &[Answer::Gone(Some(earlier)), Answer::Gone(None)]);
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    assert_eq!(world.devices(&pair).await, 1, "registered after the service noticed it");
    world.append(&pair, world.entry("two", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    assert_eq!(world.devices(&pair).await, 0);
}

#[tokio::test]
async fn refused_message_is_dropped() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.register(&pair, "tablet").await;
    world.answer("phone", &[Answer::Refused]);
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, ["tablet"]);
    world.clock.advance(Duration::from_hours(2));
    assert_eq!(world.pushed().await, NONE);
    assert_eq!(world.devices(&pair).await, 2);
}

#[tokio::test]
async fn host_is_told_what_becomes_of_each_message() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let world = World::with(|builder| {
        let told = told.clone();
        builder.on_push(move |report| {
            let what = match &report.outcome {
                PushOutcome::Nothing(reason) => format!("nothing: {reason}"),
                PushOutcome::Later(_, reason) => format!("later: {reason}"),
                PushOutcome::NotOwned(_) => "not owned".to_owned(),
                PushOutcome::Accepted(push) => format!("accepted {}", token_of(push)),
                PushOutcome::Gone(push) => format!("gone {}", token_of(push)),
                PushOutcome::Refused(push, _) => format!("refused {}", token_of(push)),
                PushOutcome::Unavailable(push, error) => format!("{:?} {}", error.kind(), token_of(push)),
            };
            told.lock().unwrap().push((report.to, report.kind, what));
        })
    });
    let pair = world.pair().await;
    for (device, answer) in [
        ("fine", None),
        ("gone", Some(Answer::Gone(None))),
        ("refused", Some(Answer::Refused)),
        ("down", Some(Answer::Unavailable(None))),
    ] {
        world.register(&pair, device).await;
        world.answer(device, &answer.into_iter().collect::<Vec<_>>());
    }
    world.append(&pair, world.entry("one", "Hi")).await;
    world.pushed().await;
    world.mark_read(&pair, 1).await;
    world.append(&pair, world.entry("two", "Hi")).await;
    world.mark_read(&pair, 2).await;
    world.pushed().await;
    // Devices have no order.
    let mut told = told.lock().unwrap().clone();
    told[..4].sort_by(|(_, _, one), (_, _, other)| one.cmp(other));
    let expected = [
        "Unavailable down",
        "accepted fine",
        "gone gone",
        "refused refused",
        "nothing: the recipient has read it",
    ];
    let expected: Vec<_> =
        expected.map(|what| (pair.ben, NotificationKind::Entry, what.to_owned())).into_iter().collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn only_devices_that_failed_are_tried_again() {
    let world = World::new();
    let pair = world.pair().await;
    for token in ["phone", "tablet", "browser"] {
        world.register(&pair, token).await;
    }
    let minute = Duration::from_mins(1);
    world.answer("phone", &[Answer::Unavailable(Some(minute)), Answer::Unavailable(Some(minute))]);
    world.answer("browser", &[Answer::Unavailable(None)]);
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, ["tablet"]);
    world.clock.advance(Duration::from_secs(59));
    let early = world.pushed().await;
    world.clock.advance(Duration::from_secs(1));
    let mut reached = [early, world.pushed().await].concat();
    assert_eq!(reached, ["browser"]);
    world.clock.advance(minute);
    reached.extend(world.pushed().await);
    assert_eq!(reached, ["browser", "phone"]);
    world.clock.advance(Duration::from_hours(2));
    assert_eq!(world.pushed().await, NONE);
    // The message has the same id at each attempt.
    let ids = async |answers: &[Answer]| {
        world.answer("phone", answers);
        world.clock.advance(minute);
        world.messages().await
    };
    world.append(&pair, world.entry("two", "Hi")).await;
    let messages = ids(&[]).await;
    assert_eq!(messages.len(), 3);
    // Read meanwhile: the retry sends nothing.
    world.append(&pair, world.entry("three", "Hi")).await;
    assert_eq!(ids(&[Answer::Unavailable(Some(minute))]).await.len(), 2);
    world.mark_read(&pair, 3).await;
    assert_eq!(ids(&[]).await.len(), 0);
}

#[tokio::test]
async fn outage_of_the_service_is_retried_after_its_delay() {
    let world = World::new();
    let pair = world.pair().await;
    world.register(&pair, "phone").await;
    world.answer("phone", &[Answer::Unavailable(Some(Duration::from_mins(10)))]);
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(Duration::from_mins(10) - Duration::from_secs(1));
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.pushed().await, ["phone"]);
}

#[tokio::test]
async fn host_writes_the_texts_in_the_language_of_the_device() {
    struct Texts;
    impl PushTexts for Texts {
        fn title_and_body(&self, message: &PushMessage, locale: Option<&Locale>) -> (String, String) {
            (format!("{} {:?}", message.kind.as_str(), locale.map(Locale::as_str)), String::new())
        }
    }
    let (world, recorder) = (World::new(), Arc::new(Recorder::default()));
    let backend = Backend::builder()
        .store(world.interferer.store.clone())
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .clock(world.clock.clone())
        .hash_cost(HashCost::FOR_TESTS)
        .pusher(recorder.clone())
        .push_texts(Texts)
        .build()
        .unwrap();
    let pair = world.pair().await;
    let german = Device { locale: Locale::matched("de-AT"), ..world.device(pair.ben, None, "phone") };
    world.put(&german).await;
    world.append(&pair, world.entry("one", "Hi")).await;
    backend.worker().run_until_idle().await.unwrap();
    let sent = recorder.sent.lock().unwrap();
    let Payload::Alert(alert) = &sent[0].payload else { panic!("{sent:?}") };
    assert_eq!(alert.title, "entry Some(\"de-AT\")");
}

/// Change that is committed between the append and the message.
#[derive(Debug, Clone, Copy)]
enum Race {
    Leave,
    Block,
    SignOut,
    HandOver,
    Remove,
    Erase,
}

impl Race {
    const ALL: [Self; 6] =
        [Self::Leave, Self::Block, Self::SignOut, Self::HandOver, Self::Remove, Self::Erase];

    /// Reads of which the last one before a message must come before the change.
    const fn checks(self) -> &'static str {
        match self {
            Self::Leave => "couple",
            Self::Block => "is_blocked",
            Self::SignOut | Self::HandOver | Self::Remove | Self::Erase => "device",
        }
    }

    fn changes(self, world: &World, pair: &Pair, devices: &[Device]) -> Vec<Change> {
        match self {
            Self::Leave => vec![world.end_of(pair)],
            Self::Block => {
                let blocker_email = EmailAddress::parse("email", "ben@example.org").unwrap().key().clone();
                let block = Block { blocker: pair.ben, blocker_email, blocked: pair.ana, at: world.now() };
                vec![PairingChange::Block(block).into()]
            }
            Self::SignOut => vec![AccountChange::EndSession { account: pair.ben, id: pair.session }.into()],
            Self::Erase => vec![AccountChange::Erase { id: pair.ben, version: 0 }.into()],
            Self::HandOver | Self::Remove => devices
                .iter()
                .map(|device| match self {
                    Self::HandOver => {
                        let account = world.account_id();
                        let device = Device { account, session: None, ..device.clone() };
                        DeviceChange::Put { device, most: 9 }.into()
                    }
                    _ => DeviceChange::Remove { account: device.account, id: device.id }.into(),
                })
                .collect(),
        }
    }
}

impl World {
    fn account_id(&self) -> AccountId {
        self.backend.ports().new_id()
    }

    /// Runs one race: the change is made before read number `step` of the job.
    ///
    /// Returns whether the change was made while the job ran.
    async fn race(&self, race: Race, step: usize) -> bool {
        let pair = self.pair().await;
        let mut devices = Vec::new();
        for n in 0..3 {
            devices.push(self.register(&pair, &format!("{}/{n}", pair.ben)).await);
        }
        self.append(&pair, self.entry("one", "Hi")).await;
        self.recorder.trace.take();
        let changes = race.changes(self, &pair, &devices);
        *self.interferer.plan.lock().unwrap() = Some((step, changes));
        self.pushed().await;
        let was_made = self.interferer.plan.lock().unwrap().take().is_none();
        let trace = self.recorder.trace.take();
        let mut checked_since = None;
        let mut late = 0;
        for what in &trace {
            match (what.as_str(), checked_since) {
                ("CHANGE", _) => checked_since = Some(false),
                (what, Some(false)) if what == race.checks() => checked_since = Some(true),
                (what, Some(checked)) if what.starts_with("push ") => {
                    assert!(!checked, "{race:?} at step {step}: a message after a check: {trace:?}");
                    late += 1;
                }
                _ => {}
            }
        }
        let most = if matches!(race, Race::Block) { 3 } else { 1 };
        assert!(late <= most, "{race:?} at step {step}: {late} messages after the change: {trace:?}");
        was_made
    }
}

#[tokio::test]
async fn no_message_follows_a_check_that_follows_leave_block_sign_out_or_hand_over() {
    let world = World::new();
    for race in Race::ALL {
        let mut step = 0;
        while world.race(race, step).await {
            step += 1;
        }
        assert!(step > 12, "{race:?}: the job has more reads than {step}");
    }
}

#[tokio::test]
async fn random_races_of_many_couples_send_nothing_to_former_partners_or_owners() {
    let (world, random) = (World::new(), SeededRandom::default());
    random.seed(7);
    for _ in 0..10_000 {
        let race = Race::ALL[usize::try_from(random.below(6)).unwrap()];
        world.race(race, usize::try_from(random.below(20)).unwrap()).await;
    }
}

/// Widgets of the second member, registered by its session.
async fn widget(world: &World, pair: &Pair) -> Device {
    let device = Device { surface: Surface::Widget, ..world.device(pair.ben, Some(pair.session), "widget") };
    world.put(&device).await;
    device
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test]
async fn widgets_are_reloaded_at_once_and_then_once_a_minute() {
    let world = World::new();
    let pair = world.pair().await;
    widget(&world, &pair).await;
    world.append(&pair, world.entry("one", "planted text")).await;
    let [push] = &world.messages().await[..] else { panic!("one message") };
    assert_eq!(push.payload, Payload::Reload { surface: Surface::Widget });
    for n in 0..5 {
        world.append(&pair, world.entry(&format!("n{n}"), "Hi")).await;
        assert_eq!(world.pushed().await, NONE);
        world.clock.advance(seconds(10));
    }
    world.clock.advance(seconds(10) - Duration::from_micros(1));
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(world.pushed().await, ["widget"], "one message for all changes of the minute");
    world.clock.advance(seconds(59));
    world.mark_read(&pair, 3).await;
    assert_eq!(world.pushed().await, NONE);
    world.clock.advance(seconds(1));
    assert_eq!(world.pushed().await, ["widget"]);
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.pushed().await, NONE, "nothing has changed");
    world.append(&pair, world.entry("late", "Hi")).await;
    assert_eq!(world.pushed().await, ["widget"]);
}

#[tokio::test]
async fn every_change_of_a_glance_is_followed_by_a_reload_within_a_minute() {
    let world = World::new();
    let pair = world.pair().await;
    widget(&world, &pair).await;
    let random = SeededRandom::default();
    random.seed(7);
    let (mut last, mut waits_since, mut changed_at, mut count): (Option<u64>, Option<u64>, _, u32) =
        (None, None, 0, 0);
    for second in 0..3_000 {
        // Busy and quiet times take turns.
        let one_in = if second / 300 % 2 == 0 { 4 } else { 90 };
        if random.below(one_in) == 0 {
            world.append(&pair, world.entry(&format!("n{second}"), "Hi")).await;
            (waits_since, changed_at) = (waits_since.or(Some(second)), second);
        }
        let pushed = world.pushed().await.len();
        assert!(pushed <= 1, "at {second}");
        if pushed == 1 {
            assert!(last.is_none_or(|last| second - last >= 60), "at {second} after {last:?}");
            // A change in the second of a message may be followed by one more.
            assert!(last.is_none_or(|last| changed_at >= last), "nothing has changed before {second}");
            (last, waits_since, count) = (Some(second), None, count + 1);
        }
        assert!(waits_since.is_none_or(|since| second - since <= 60), "at {second}: {waits_since:?}");
        world.clock.advance(seconds(1));
    }
    assert!(count > 30, "{count}");
}

#[tokio::test]
async fn each_change_reloads_the_widgets_of_the_members_who_see_it() {
    let world = World::new();
    let pair = world.pair().await;
    for (member, token) in [(pair.ana, "ana"), (pair.ben, "ben")] {
        world.put(&Device { surface: Surface::Widget, ..world.device(member, None, token) }).await;
    }
    let of_kind = |kind: &str| NewEntry { kind: kind.to_owned(), ..world.entry(kind, "Hi") };
    let append = |entry| Change::from(TimelineChange::Append { couple: pair.couple, entry });
    let system = |kind| append(NewEntry::system(kind, Some(Side::First), None, world.now()));
    let read = TimelineChange::MarkRead { couple: pair.couple, side: Side::Second, seq: 1 };
    for (what, change, expected) in [
        ("text", append(of_kind("text")), &["ben"][..]),
        ("mood", append(of_kind("mood")), &["ben"]),
        ("photo", append(of_kind("photo")), &["ana", "ben"]),
        ("quiet", append(of_kind("x-quiet")), &[]),
        ("ready", system("media_ready"), &["ana", "ben"]),
        ("name", system("profile_changed"), &["ben"]),
        ("anniversary", system("couple_changed"), &["ana", "ben"]),
        ("deletion", system("entry_deleted"), &["ana", "ben"]),
        ("reaction", system("entry_reacted"), &[]),
        ("read", read.into(), &["ben"]),
        ("end", world.end_of(&pair), &["ana", "ben"]),
    ] {
        world.clock.advance(seconds(60));
        world.commit(vec![change]).await;
        let mut pushed = world.pushed().await;
        pushed.sort_unstable();
        assert_eq!(pushed, expected, "{what}");
    }
}

#[tokio::test]
async fn failed_reload_is_sent_later_and_never_twice_a_minute() {
    let world = World::new();
    let pair = world.pair().await;
    let device = widget(&world, &pair).await;
    for (n, (answer, wait)) in [
        (Answer::Unavailable(None), 60),
        (Answer::Unavailable(Some(seconds(100))), 100),
        // As if the process had died between the commit and the message.
        (Answer::Panics, 60),
    ]
    .into_iter()
    .enumerate()
    {
        world.answer("widget", &[answer]);
        world.append(&pair, world.entry(&format!("n{n}"), "Hi")).await;
        let mut waited = 0;
        while world.pushed().await == NONE {
            world.clock.advance(seconds(1));
            waited += 1;
            assert!(waited <= wait + 10, "{n}");
        }
        assert!(waited >= wait, "{n}: {waited}");
        world.clock.advance(Duration::from_hours(1));
        assert_eq!(world.pushed().await, NONE, "{n}");
    }
    world.answer("widget", &[Answer::Refused]);
    world.append(&pair, world.entry("refused", "Hi")).await;
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.pushed().await, NONE);
    world.answer("widget", &[Answer::Gone(None)]);
    world.append(&pair, world.entry("gone", "Hi")).await;
    world.clock.advance(seconds(60));
    assert_eq!((world.pushed().await, world.devices(&pair).await), (vec![], 0));
    world.put(&device).await;
    world.append(&pair, world.entry("again", "Hi")).await;
    world.clock.advance(seconds(60));
    assert_eq!(world.pushed().await, ["widget"]);
}

#[tokio::test]
async fn reload_that_never_succeeds_ends_after_a_day() {
    let world = World::new();
    let pair = world.pair().await;
    widget(&world, &pair).await;
    world.answer("widget", &[Answer::Unavailable(Some(Duration::from_hours(5))); 99]);
    world.append(&pair, world.entry("one", "Hi")).await;
    for _ in 0..40 {
        world.clock.advance(Duration::from_hours(1));
        assert_eq!(world.pushed().await, NONE);
    }
    assert_eq!(world.backend.ports().store.next_due("push").await.unwrap(), None);
    assert_eq!(world.backend.ports().store.dead_jobs(None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn widgets_of_an_ended_session_are_not_reloaded() {
    let world = World::new();
    let pair = world.pair().await;
    widget(&world, &pair).await;
    world.append(&pair, world.entry("one", "Hi")).await;
    let end = AccountChange::EndSession { account: pair.ben, id: pair.session };
    world.commit(vec![end.into()]).await;
    assert_eq!(world.pushed().await, NONE);
    // A session that has expired and is not purged yet.
    let world = World::new();
    let pair = world.pair().await;
    widget(&world, &pair).await;
    world.clock.advance(Duration::from_hours(24 * 41));
    world.append(&pair, world.entry("one", "Hi")).await;
    assert_eq!(world.pushed().await, NONE);
}
