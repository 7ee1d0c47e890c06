//! Users whom a host forgets: everything of theirs is erased, from every table and from the pictures' blobs.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Request};
use couple::{
    AccountId, Backend, CoupleId, Keyring, ManualClock,
    account::{Account, AccountChange, AccountPolicy, PurgeAccounts, PurgeAccountsHandler},
    blobs::Blobs,
    core::{mail::Message, upload::UploadChange},
    date::DateChange,
    events::Event,
    gallery::ExpireUploads,
    job::{Context, Job, PurgeDead, PurgeOutcomes},
    notification::PreferencesPatch,
    pairing::{Block, Couple, PairingChange, PurgeInvites},
    timeline::{Body as EntryBody, Page},
};
use couple_conformance::World;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    stores::{TestStore, on_every_store},
    users::Host,
};

on_every_store! {
    forgotten_user_is_in_no_table_and_no_blob,
    request_is_withdrawn_within_the_grace_period_only,
    erasure_continues_in_another_process,
    built_in_account_is_forgotten,
}

const GRACE: Duration = Duration::from_hours(24);

/// Job of the host, enqueued by its listener.
#[derive(Serialize, Deserialize)]
struct Heard(String);

impl Job for Heard {
    const NAME: &'static str = "host.heard";
    const QUEUE: &'static str = "default";
}

struct Fixture {
    host: Host,
    clock: Arc<ManualClock>,
    heard: Arc<Mutex<Vec<String>>>,
    store: TestStore,
}

impl Fixture {
    fn new(store: TestStore, blobs: Blobs) -> Self {
        let (clock, heard) = (Arc::<ManualClock>::default(), Arc::<Mutex<Vec<String>>>::default());
        let hearing = heard.clone();
        let builder = Backend::builder()
            .store(store.store.clone())
            .keys(Keyring::new([7; 32]))
            .blobs(blobs)
            .clock(clock.clone())
            .accounts(AccountPolicy::default().with_deletion_grace(GRACE))
            .on(|event, additions| match event {
                Event::AccountErased { account } => additions.enqueue(&Heard(format!("erased {account}"))),
                Event::CoupleEnded { couple, members, .. } => {
                    additions.enqueue(&Heard(ended(*couple, *members)))
                }
                _ => Ok(()),
            })
            .jobs(move |jobs, _| {
                let heard = hearing.clone();
                jobs.with_fn(move |Heard(event): Heard, _: Context| {
                    heard.lock().unwrap().push(event);
                    async { Ok(()) }
                })
            });
        Self { host: Host::of(builder), clock, heard, store }
    }

    /// Adds a user; returns id and session.
    fn user(&self, email: &str) -> (AccountId, String) {
        let id = self.host.users.add(email);
        (id, self.host.users.sign_in(id))
    }

    /// Runs a scheduled job, unless its next run is already scheduled for later.
    async fn run<J: Job>(&self, job: J) {
        self.host.backend.enqueue(&job).await.unwrap();
        self.host.work().await;
    }

    fn heard(&self) -> Vec<String> {
        let mut heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.sort_unstable();
        heard
    }

    /// Pairs two users by a mailed invite.
    async fn pair(&self, from: &str, to: &str, email: &str) {
        let invite = json!({"email": email, "message": "forgotten-message"});
        assert_eq!(self.host.call("POST", "/v1/invites", from, invite).await.0, 201);
        self.host.work().await;
        let mail = self.host.mailer.last_to(email).unwrap();
        let Message::Invitation { link, .. } = mail.message else { panic!("{mail:?}") };
        let accepted =
            self.host.call("POST", "/v1/invites/accept", to, json!({"token": link.expose()})).await;
        assert_eq!(accepted.0, 201, "{}", accepted.1);
    }

    /// Columns with a value that contains a text or an id; none for a store in memory, which has no tables.
    async fn columns_with(&self, needle: &str) -> Option<BTreeSet<String>> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut forms = vec![needle.to_lowercase(), hex(needle.as_bytes())];
        forms.extend(needle.parse::<uuid::Uuid>().map(|id| hex(id.as_bytes())));
        let dump = self.store.dump().await?;
        let found = dump.into_iter().filter(|(_, value)| forms.iter().any(|form| value.contains(form)));
        Some(found.map(|(column, _)| column).collect())
    }
}

/// Text of the end of a couple, as the host's job hears it.
fn ended(couple: CoupleId, [first, second]: [AccountId; 2]) -> String {
    format!("ended {couple} of {first} and {second}")
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string());
        }
    }
    found
}

async fn forgotten_user_is_in_no_table_and_no_blob(store: TestStore) {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(store, Blobs::files(folder.path()).unwrap());
    let (host, backend) = (&fixture.host, &fixture.host.backend);
    let ports = backend.ports();
    let (ana, a) = fixture.user("forgotten.name@example.org");
    let (ben, b) = fixture.user("stays@example.org");
    let (cleo, c) = fixture.user("cleo@example.org");

    // A couple that has ended, with blocks in both directions.
    fixture.pair(&a, &c, "cleo@example.org").await;
    let first = ports.store.couple_of(ana).await.unwrap().unwrap();
    host.say(&a, "forgotten-text-1").await;
    host.upload(&a, "photo").await;
    assert_eq!(host.call("DELETE", "/v1/couple?block=true", &a, Value::Null).await.0, 204);
    let blocker_email = couple::core::EmailKey::from_stored("cleo@example.org");
    let block = Block { blocker: cleo, blocked: ana, blocker_email, at: ports.now() };
    ports.commit(vec![PairingChange::Block(block).into()]).await.unwrap();

    // The current couple.
    fixture.pair(&b, &a, "forgotten.name@example.org").await;
    let Couple { id: second, members, .. } = ports.store.couple_of(ana).await.unwrap().unwrap();
    let before = files(folder.path());
    host.say(&b, "stays").await;
    host.upload(&b, "photo").await;
    let blobs_of_ben: BTreeSet<String> = files(folder.path()).difference(&before).cloned().collect();
    assert!(!blobs_of_ben.is_empty());
    let photo = host.upload(&a, "photo").await;
    let body = json!({"client_id": "p", "kind": "photo", "body": {"media_id": photo, "caption": "forgotten-caption"}});
    assert_eq!(host.call("POST", "/v1/couple/entries", &a, body).await.0, 201);
    let avatar = host.upload(&a, "avatar").await;
    assert_eq!(host.call("PUT", "/v1/me/avatar", &a, json!({"media_id": avatar})).await.0, 204);
    let text = json!({"client_id": "k", "kind": "text", "body": {"text": "forgotten-text-2"}});
    let request = Request::post("/v1/couple/entries").header("x-session", &a).header("idempotency-key", "k");
    let request = request.header("content-type", "application/json").body(Body::from(text.to_string()));
    assert_eq!(host.send(request.unwrap()).await.0, 201);
    let edited = json!({"body": {"text": "forgotten-text-3"}});
    let seq = ports.store.couple(second).await.unwrap().unwrap().head_seq;
    assert_eq!(host.call("PATCH", &format!("/v1/couple/entries/{seq}"), &a, edited).await.0, 200);
    let reacted = host.call("PUT", "/v1/couple/entries/2/reaction", &a, json!({"emoji": "🦔"})).await;
    assert!(reacted.0 < 300, "{}", reacted.1);
    host.work().await;

    // The search finds what there is.
    let texts = ["forgotten", "🦔"];
    for needle in texts {
        assert!(fixture.columns_with(needle).await.is_none_or(|columns| !columns.is_empty()), "{needle}");
    }
    if let Some(columns) = fixture.columns_with(&ana.to_string()).await {
        for column in ["couple_couple.first", "couple_member.account_id", "couple_media.owner"] {
            assert!(columns.contains(column), "{column} in {columns:?}");
        }
    }

    // An unfinished upload that would not expire for days.
    let mut upload = World::default().upload(ana);
    upload.metadata = "filename forgotten.jpg".to_owned();
    upload.expires_at = ports.now().plus(Duration::from_hours(24 * 9));
    let unfinished = upload.id;
    let date = DateChange::Put { date: World::default().date(second), most: 9 };
    ports.commit(vec![UploadChange::Insert { upload, most: 9 }.into(), date.into()]).await.unwrap();

    let previews = PreferencesPatch { previews: Some(true), ..Default::default() };
    backend.notifications().change(ana, &previews).await.unwrap();

    let plan = backend.plan_forget(ana).await.unwrap();
    assert_eq!((plan.account, plan.due), (ana, ports.now().plus(GRACE)));
    assert_eq!((plan.ends, plan.erases.len(), plan.pictures), (Some(second), 2, 3));
    let due = backend.forget(ana).await.unwrap();
    assert_eq!(due, plan.due);
    fixture.clock.advance(GRACE.checked_sub(Duration::from_secs(1)).unwrap());
    fixture.run(PurgeAccounts {}).await;
    assert_eq!(ports.store.couple_of(ana).await.unwrap().map(|couple| couple.id), Some(second));
    assert_eq!(fixture.heard(), [ended(first.id, first.members)], "by leaving");

    host.users.remove(ana);
    // The next run of the schedule.
    fixture.clock.advance(Duration::from_hours(1));
    let due_plans = PurgeAccountsHandler::new(ports.clone(), 9).plan().await.unwrap();
    assert_eq!(due_plans, [backend.plan_forget(ana).await.unwrap()]);
    fixture.run(PurgeAccounts {}).await;
    assert_eq!(fixture.heard(), [ended(second, members), format!("erased {ana}")]);
    // The stored couple names the erased member no longer.
    assert!(!ports.store.couple(second).await.unwrap().unwrap().members.contains(&ana));

    assert_eq!(ports.store.preferences(ana).await.unwrap(), None);
    assert_eq!(ports.store.dates_of(second).await.unwrap(), []);

    // The partner is alone, and keeps own entries and pictures.
    assert_eq!(host.get("/v1/couple", &b).await.0, 404);
    assert_eq!(files(folder.path()), blobs_of_ben);
    let of_ben = ports.store.couples_of(ben).await.unwrap();
    assert_eq!(of_ben.iter().map(|couple| couple.id).collect::<Vec<_>>(), [second]);
    let entries = ports.store.entries(second, Page::After(0), 100, Some("text")).await.unwrap();
    let bodies: Vec<_> = entries.iter().map(|entry| entry.body.as_ref().map(EntryBody::as_str)).collect();
    assert_eq!(bodies, [Some(r#"{"text":"stays"}"#), None]);
    assert_eq!(ports.store.couples_of(ana).await.unwrap(), []);

    fixture.clock.advance(Duration::from_mins(10));
    fixture.run(ExpireUploads {}).await;
    assert_eq!(ports.store.upload(unfinished).await.unwrap(), None);

    // Recorded responses, dead jobs and invites of other users have their own retention.
    fixture.clock.advance(Duration::from_hours(24 * 40));
    fixture.run(PurgeInvites {}).await;
    fixture.run(PurgeOutcomes {}).await;
    fixture.run(PurgeDead {}).await;

    // A session that the host still accepts is that of an unpaired user without an address.
    for (method, path, body, status) in [
        ("GET", "/v1/couple", Value::Null, 404),
        ("GET", "/v1/invites", Value::Null, 200),
        ("POST", "/v1/invites", json!({}), 403),
        ("POST", "/v1/couple/entries", json!({"client_id": "x", "kind": "text", "body": {"text": "x"}}), 404),
        ("GET", "/v1/couple/live?wait=0", Value::Null, 404),
        ("GET", &format!("/v1/media/{photo}"), Value::Null, 404),
        ("PUT", "/v1/me/avatar", json!({"media_id": avatar}), 404),
    ] {
        let answer = host.call(method, path, &a, body).await;
        assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
    }
    let refused = host.send_picture(&a, "avatar").await;
    assert_eq!((refused.0, &refused.1["code"]), (404, &json!("media_not_found")));
    host.work().await;
    assert_eq!(files(folder.path()), blobs_of_ben);

    for needle in texts {
        assert!(fixture.columns_with(needle).await.is_none_or(|columns| columns.is_empty()), "{needle}");
    }
    // The closed space refuses a picture whose upload began before.
    if let Some(columns) = fixture.columns_with(&ana.to_string()).await {
        assert_eq!(columns, BTreeSet::from(["couple_media_space.space_id".to_owned()]));
    }
    backend.close().await.unwrap();
}

async fn request_is_withdrawn_within_the_grace_period_only(store: TestStore) {
    let fixture = Fixture::new(store, Blobs::memory());
    let (host, backend) = (&fixture.host, &fixture.host.backend);
    let (ana, a) = fixture.user("ana.a@example.org");
    let invite = async || host.call("POST", "/v1/invites", &a, json!({})).await.0;
    assert_eq!(invite().await, 201);
    assert!(!backend.withdraw_forget(ana).await.unwrap(), "there is no request");
    let due = backend.forget(ana).await.unwrap();
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(backend.forget(ana).await.unwrap(), due, "a repeated request does not move the time");
    assert_eq!(host.get("/v1/invites", &a).await.1["sent"], json!([]), "invites are withdrawn");
    assert_eq!(invite().await, 401);
    assert!(backend.withdraw_forget(ana).await.unwrap());
    fixture.clock.advance(GRACE);
    fixture.run(PurgeAccounts {}).await;
    assert_eq!(fixture.heard(), Vec::<String>::new());
    assert_eq!(invite().await, 201);
    backend.forget(ana).await.unwrap();
    fixture.clock.advance(GRACE);
    assert!(!backend.withdraw_forget(ana).await.unwrap(), "the erasure has begun");
    fixture.run(PurgeAccounts {}).await;
    assert_eq!(fixture.heard(), [format!("erased {ana}")]);
    // The library keeps no list of erased ids. It is the host that gives a returning user a new id.
    assert_eq!(invite().await, 201);
    backend.close().await.unwrap();
}

/// Each run is that of a new process, which makes two commits only.
async fn erasure_continues_in_another_process(store: TestStore) {
    let fixture = Fixture::new(store, Blobs::memory());
    let backend = &fixture.host.backend;
    let (ana, a) = fixture.user("ana.a@example.org");
    let (_, b) = fixture.user("ben.b@example.org");
    for n in 0..4 {
        // Beyond the rate limit of invite mails.
        fixture.clock.advance(Duration::from_hours(2));
        fixture.pair(&a, &b, "ben.b@example.org").await;
        fixture.host.say(&a, &format!("text-{n}")).await;
        let left = fixture.host.call("DELETE", "/v1/couple", &b, Value::Null).await;
        assert_eq!(left.0, 204, "{}", left.1);
    }
    backend.forget(ana).await.unwrap();
    fixture.clock.advance(GRACE);
    let mut unfinished = 0;
    loop {
        let report = PurgeAccountsHandler::new(backend.ports().clone(), 9).steps(2).run_once().await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        if report.purged == 1 {
            break;
        }
        unfinished += report.unfinished;
        assert!(unfinished < 9, "no progress");
    }
    assert!(unfinished >= 3, "{unfinished}");
    assert_eq!(backend.ports().store.couples_of(ana).await.unwrap(), []);
    assert_eq!(backend.ports().store.erasure_of(ana).await.unwrap(), None);
    backend.close().await.unwrap();
}

/// A host deletes a built-in account without a session of its owner.
async fn built_in_account_is_forgotten(store: TestStore) {
    let world = World::default();
    let backend = Backend::builder()
        .store(store.store.clone())
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .clock(world.clock.clone())
        .accounts(AccountPolicy::default().with_deletion_grace(GRACE))
        .build()
        .unwrap();
    let account = world.account("ana");
    store.store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
    let stored = async || store.store.account(account.id).await.unwrap();
    let due = backend.forget(account.id).await.unwrap();
    assert_eq!(stored().await, Some(Account { deletion_due: Some(due), version: 1, ..account.clone() }));
    assert_eq!(store.store.erasure_of(account.id).await.unwrap(), None);
    assert_eq!(backend.forget(account.id).await.unwrap(), due);
    assert!(backend.withdraw_forget(account.id).await.unwrap());
    assert_eq!(stored().await, Some(Account { version: 2, ..account.clone() }));
    backend.forget(account.id).await.unwrap();
    world.clock.advance(GRACE);
    backend.enqueue(&PurgeAccounts {}).await.unwrap();
    backend.worker().run_until_idle().await.unwrap();
    assert_eq!(stored().await, None);
    backend.close().await.unwrap();
}
