//! Listeners of a host: what they add is committed with the event, or not at all.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use couple::{
    AccountId, Backend, Error, ErrorKind, Failure, Keyring, ManualClock, RequestContext,
    account::{HashCost, Proof, PurgeAccounts, SignUp, SignedIn, Verification},
    blobs::Blobs,
    core::{
        Change, CommitError, Conflict, EmailAddress,
        limits::Unlimited,
        live::{Notice, Topic},
        mail::Message,
    },
    events::{Additions, Event},
    gallery::UploadMetadata,
    job::{Context, Job},
    media::Purpose,
    notify::mail::MemoryMailer,
    pairing::{Couple, InviteOutcome, InviteRef, NewInvite, PairingChange, Person},
    timeline::{Append, NewEntry, Page, TimelineChange, TimelineError},
};
use couple_conformance::World;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    stores::{TestStore, on_every_store},
};

on_every_store! {
    every_event_is_followed_by_its_job,
    commit_that_is_repeated_after_conflicts_enqueues_one_job,
    refused_commit_enqueues_no_job,
    entry_of_a_listener_is_appended_and_is_no_event,
    append_with_commits_its_changes_once,
}

/// Job of the host, enqueued by its listener.
#[derive(Serialize, Deserialize)]
struct Heard {
    event: String,
}

impl Job for Heard {
    const NAME: &'static str = "host.heard";
    const QUEUE: &'static str = "default";
}

/// Makes commits that append an entry conflict, although nothing else was committed.
#[derive(Default)]
struct Conflicts(AtomicUsize);

#[async_trait]
impl StoreObserver for Conflicts {
    async fn before(&self, _: &'static str) {}
    async fn after(&self, _: &'static str) {}
    fn conflict(&self, changes: &[Change]) -> Option<Conflict> {
        let appends = changes.iter().any(|change| change.appended().is_some());
        let left = self.0.load(Ordering::SeqCst);
        (appends && left > 0).then(|| {
            self.0.store(left - 1, Ordering::SeqCst);
            Conflict::ClientIdUsed
        })
    }
}

/// State of the host's listener.
#[derive(Default)]
struct Hook {
    calls: AtomicUsize,
    fails: AtomicBool,
    answers: AtomicBool,
}

impl Hook {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Internal, "listen"));
        }
        if self.answers.load(Ordering::SeqCst) {
            let entry = |kind: &str| NewEntry::system(kind, None, None, additions.now());
            match event {
                Event::CoupleFounded { .. } => additions.append(entry("x-welcome"))?,
                Event::EntryAppended { entry: of, .. } if of.kind == "text" => {
                    additions.append(entry("x-echo"))?;
                }
                Event::CoupleEnded { .. } => additions.append(entry("x-farewell"))?,
                _ => {}
            }
        }
        additions.enqueue(&Heard { event: describe(event) })
    }
}

fn describe(event: &Event<'_>) -> String {
    match event {
        Event::AccountVerified { email, display_name, .. } => {
            format!("verified {} {display_name}", email.as_str())
        }
        Event::AccountErased { account } => format!("erased {account}"),
        Event::InviteSent { invite } => {
            format!("invited {}", invite.target.as_ref().map_or("anyone", |target| target.as_str()))
        }
        Event::CoupleFounded { couple } => format!("founded {}", couple.id),
        Event::CoupleEnded { couple, .. } => format!("ended {couple}"),
        Event::EntryAppended { entry, .. } => {
            format!("appended {} {}", entry.kind, entry.client_id.as_deref().unwrap_or("-"))
        }
        Event::EntryEdited { seq, body, .. } => format!("edited {seq} {}", body.as_str()),
        Event::EntryDeleted { seq, author, .. } => format!("deleted {seq} {author:?}"),
        Event::ReadPositionMoved { side, seq, .. } => format!("read {seq} {side:?}"),
        Event::PictureAdded { picture } => format!("picture {} added", picture.id),
        Event::PictureReady { picture, .. } => format!("picture {picture} ready"),
        other => panic!("{other:?}"),
    }
}

struct Host {
    backend: Backend,
    mailer: MemoryMailer,
    clock: Arc<ManualClock>,
    conflicts: Arc<Conflicts>,
    hook: Arc<Hook>,
    heard: Arc<Mutex<Vec<String>>>,
    _store: TestStore,
}

impl Host {
    fn new(store: TestStore) -> Self {
        let (mailer, clock) = (MemoryMailer::new(), Arc::<ManualClock>::default());
        let (conflicts, hook) = (Arc::<Conflicts>::default(), Arc::<Hook>::default());
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let (listening, hearing) = (hook.clone(), heard.clone());
        let backend = Backend::builder()
            .store(ObservedStore(store.store.clone(), conflicts.clone()))
            .blobs(Blobs::memory())
            .keys(Keyring::new([7; 32]))
            .mailer(mailer.clone())
            .clock(clock.clone())
            .limits(Unlimited)
            .hash_cost(HashCost::FOR_TESTS)
            .on(move |event, additions| listening.on(event, additions))
            .jobs(move |jobs, _| {
                let heard = hearing.clone();
                jobs.with_fn(move |job: Heard, _: Context| {
                    heard.lock().unwrap().push(job.event);
                    async { Ok(()) }
                })
            })
            .build()
            .unwrap();
        Self { backend, mailer, clock, conflicts, hook, heard, _store: store }
    }

    /// Runs all jobs; returns the events that the host's listener has received since the last call, sorted.
    async fn heard(&self) -> Vec<String> {
        self.backend.worker().run_until_idle().await.unwrap();
        let mut heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.sort_unstable();
        heard
    }

    async fn join(&self, name: &str) -> SignedIn {
        let email = format!("{name}@example.org");
        let sign_up = SignUp { email: email.clone(), display_name: name.to_owned(), locale: None };
        self.backend.accounts().unwrap().sign_up(&RequestContext::default(), &sign_up).await.unwrap();
        self.backend.worker().run_until_idle().await.unwrap();
        let Some(Message::ConfirmSignUp { code, .. }) = self.mailer.last_to(&email).map(|mail| mail.message)
        else {
            panic!("no code for {email}");
        };
        let proof = Proof::Code { email, code };
        let verification = Verification { proof, password: None, display_name: None, locale: None };
        self.backend.accounts().unwrap().verify(&RequestContext::default(), &verification).await.unwrap()
    }

    /// Creates a couple without accounts.
    async fn couple(&self) -> Couple {
        let world = World::default();
        let couple = world.couple([world.account_id(), world.account_id()]);
        self.backend.ports().commit(vec![PairingChange::Pair(couple.clone()).into()]).await.unwrap();
        couple
    }

    async fn append(&self, by: AccountId, id: &str, with: &[Change]) -> Result<bool, Failure<TimelineError>> {
        let context = RequestContext::default();
        let appended = self.backend.timeline().append_with(&context, by, &text(id), with).await?;
        Ok(appended.created)
    }

    async fn log(&self, couple: &Couple) -> Vec<String> {
        let log = self.backend.timeline().read(couple.id, Page::After(0), 200, None).await.unwrap();
        log.into_iter().map(|view| view.entry.kind).collect()
    }
}

fn text(id: &str) -> Append {
    Append { couple: None, client_id: id.into(), kind: "text".into(), body: json!({ "text": "hello" }) }
}

fn person(email: &EmailAddress, id: AccountId) -> Person {
    Person { id, email: Some(email.clone()) }
}

fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

async fn every_event_is_followed_by_its_job(store: TestStore) {
    let host = Host::new(store);
    let (backend, context) = (&host.backend, RequestContext::default());
    let (ana, ben) = (host.join("ana").await, host.join("ben").await);
    assert_eq!(host.heard().await, ["verified ana@example.org ana", "verified ben@example.org ben"]);

    let [ana_person, ben_person] = [&ana, &ben].map(|one| person(&one.account.email, one.account.id));
    let to_ben = NewInvite { email: Some("ben@example.org".into()), message: None };
    let sent = backend.pairings().invite(&context, &ana_person, &to_ben).await.unwrap();
    let InviteOutcome::Pending(sent) = sent else { panic!("paired") };
    assert_eq!(host.heard().await, ["invited ben@example.org"]);
    // The listener of the library has enqueued the mail.
    let mailed = host.mailer.last_to("ben@example.org").unwrap().message;
    assert!(matches!(mailed, Message::Invitation { .. }), "{mailed:?}");

    let invite = InviteRef::Id(sent.invite.id);
    let couple = backend.pairings().accept(&context, &ben_person, &invite).await.unwrap();
    assert_eq!(host.heard().await, ["appended paired -".to_owned(), format!("founded {}", couple.id)]);

    let (ana_id, ben_id) = (ana.account.id, ben.account.id);
    assert!(host.append(ana_id, "one", &[]).await.unwrap());
    backend.timeline().edit(ana_id, None, 2, &json!({ "text": "bye" })).await.unwrap();
    backend.timeline().mark_read(ben_id, None, 3).await.unwrap();
    backend.timeline().delete(ana_id, None, 2).await.unwrap();
    let expected = [
        "appended entry_deleted -",
        "appended entry_edited -",
        "appended text one",
        "deleted 2 First",
        "edited 2 {\"text\":\"bye\"}",
        "read 3 Second",
    ];
    assert_eq!(host.heard().await, expected);

    let about = UploadMetadata::from(Purpose::Photo);
    let mut upload = backend.gallery().upload(ana_id, about, None).await.unwrap();
    upload.write(png().into()).await.unwrap();
    let stored = upload.finish(|_| RequestContext::default(), async { Ok(true) }).await.unwrap();
    let picture = stored.media.id;
    assert_eq!(host.heard().await, [format!("picture {picture} added"), format!("picture {picture} ready")]);

    backend.pairings().leave(&context, &ben_person, None, false).await.unwrap();
    assert_eq!(host.heard().await, [format!("ended {}", couple.id)]);

    let due = backend.accounts().unwrap().request_deletion(&ana.session, None).await.unwrap();
    host.clock.advance(due.since(backend.ports().now()));
    backend.enqueue(&PurgeAccounts {}).await.unwrap();
    assert_eq!(host.heard().await, [format!("erased {ana_id}")]);
    backend.close().await.unwrap();
}

async fn commit_that_is_repeated_after_conflicts_enqueues_one_job(store: TestStore) {
    let host = Host::new(store);
    let couple = host.couple().await;
    host.heard().await;
    let calls = host.hook.calls.swap(0, Ordering::SeqCst);
    assert_eq!(calls, 1);
    host.conflicts.0.store(3, Ordering::SeqCst);
    assert!(host.append(couple.members[0], "one", &[]).await.unwrap());
    assert_eq!(host.hook.calls.load(Ordering::SeqCst), 4, "once for each attempt");
    assert_eq!(host.heard().await, ["appended text one"]);
    // Conflicts among concurrent requests: one of them appends the entry.
    let requests = (0..8).map(|_| host.append(couple.members[0], "two", &[]));
    let created = futures_util::future::join_all(requests).await;
    assert_eq!(created.into_iter().filter(|created| *created.as_ref().unwrap()).count(), 1);
    assert_eq!(host.heard().await, ["appended text two"]);
    host.backend.close().await.unwrap();
}

async fn refused_commit_enqueues_no_job(store: TestStore) {
    let host = Host::new(store);
    let couple = host.couple().await;
    host.heard().await;
    // A precondition that does not hold.
    let again = Couple { id: World::new(2).couple_id(), ..couple.clone() };
    let refused = host.backend.ports().commit(vec![PairingChange::Pair(again).into()]).await;
    assert!(matches!(refused, Err(CommitError::Conflict(Conflict::Paired(_)))), "{refused:?}");
    // A refused request.
    let stranger = World::new(3).account_id();
    assert!(matches!(
        host.append(stranger, "one", &[]).await,
        Err(Failure::Refused(TimelineError::NotPaired))
    ));
    // An error of the listener.
    host.hook.fails.store(true, Ordering::SeqCst);
    let failed = host.append(couple.members[0], "one", &[]).await;
    assert!(matches!(failed, Err(Failure::Failed(error)) if error.kind() == ErrorKind::Internal));
    host.hook.fails.store(false, Ordering::SeqCst);
    assert_eq!(host.heard().await, [""; 0]);
    assert_eq!(host.log(&couple).await, [""; 0]);
    // A listener cannot append to the log of a couple that ends.
    host.hook.answers.store(true, Ordering::SeqCst);
    let end = PairingChange::End {
        id: couple.id,
        members: couple.members,
        at: host.backend.ports().now(),
        by: None,
    };
    assert!(matches!(host.backend.ports().commit(vec![end.into()]).await, Err(CommitError::Failed(_))));
    assert_eq!(host.heard().await, [""; 0]);
    host.backend.close().await.unwrap();
}

async fn entry_of_a_listener_is_appended_and_is_no_event(store: TestStore) {
    let host = Host::new(store);
    host.hook.answers.store(true, Ordering::SeqCst);
    let couple = host.couple().await;
    let ports = host.backend.ports();
    let mut notices = ports.bus.subscribe(vec![Topic::Couple(couple.id)]).await;
    let append = TimelineChange::Append { couple: couple.id, entry: World::default().entry("one") };
    let committed = ports.commit(vec![append.into()]).await.unwrap();
    assert_eq!(committed.results().len(), 1, "one result for each change of the caller");
    assert_eq!(committed.appended_seqs().collect::<Vec<_>>(), [2]);
    assert_eq!(host.log(&couple).await, ["x-welcome", "text", "x-echo"]);
    // The notice does not carry one of two entries: live streams read both.
    assert!(matches!(notices.next().await, Notice::Changed));
    assert_eq!(host.heard().await, ["appended text one".to_owned(), format!("founded {}", couple.id)]);
    host.backend.close().await.unwrap();
}

async fn append_with_commits_its_changes_once(store: TestStore) {
    let host = Host::new(store);
    let couple = host.couple().await;
    host.heard().await;
    let with = [host.backend.ports().enqueue(&Heard { event: "with".into() }).unwrap()];
    assert!(host.append(couple.members[0], "one", &with).await.unwrap());
    assert_eq!(host.heard().await, ["appended text one", "with"]);
    // A repeat finds the entry, and commits nothing.
    assert!(!host.append(couple.members[0], "one", &with).await.unwrap());
    assert_eq!(host.heard().await, [""; 0]);
    host.backend.close().await.unwrap();
}
