//! Pictures of a couple: access, entries about them, and deletion.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use couple::{
    AccountId, Backend, Failure, Keyring, RequestContext, Store,
    account::{Account, AccountChange, PurgeAccountsHandler},
    core::{MediaId, digest},
    job::{JobChange, Worker, WorkerOptions},
    media::{
        AdmittedUpload, DiscardBlobs, Format, InspectedUpload, Media, MediaError, MediaPolicy,
        MediaReads as _, MediaState, Pictures, Purpose, RenderMedia, Rendition, Source, Space,
        rules::Rendered,
    },
    pairing::{Couple, PairingChange, Person},
    store::MemoryStore,
    timeline::{self, Append, Page},
};
use couple_conformance::World;
use serde_json::{Value, json};

/// A couple, with services and store.
struct Two {
    world: World,
    store: Arc<MemoryStore>,
    backend: Backend,
    pictures: Pictures,
    couple: Couple,
}

impl Two {
    async fn new() -> Self {
        let world = World::default();
        let store = Arc::new(MemoryStore::new());
        let backend = Backend::builder()
            .store(store.clone())
            .blobs(couple::blobs::Blobs::memory())
            .keys(Keyring::new([7; 32]))
            .clock(world.clock.clone())
            .build()
            .unwrap();
        let people = [world.account("ana"), world.account("ben")];
        let couple = world.couple([people[0].id, people[1].id]);
        let mut changes: Vec<_> = people.map(|one| AccountChange::Insert(one).into()).into();
        changes.push(PairingChange::Pair(couple.clone()).into());
        store.commit(changes).await.unwrap();
        let pictures = Pictures::new(backend.ports().clone(), MediaPolicy::default());
        Self { world, store, backend, pictures, couple }
    }
    fn ana(&self) -> AccountId {
        self.couple.members[0]
    }
    fn ben(&self) -> AccountId {
        self.couple.members[1]
    }

    async fn upload(&self, who: AccountId, purpose: Purpose, content: &str) -> (AdmittedUpload, Media) {
        let upload = self.pictures.begin(who, None, purpose, Some(100)).await.unwrap();
        let received = InspectedUpload {
            digest: digest(&[content.as_bytes()]),
            source: Source { blob: "upload".into(), bytes: 100, media_type: "image/png".into() },
            crop: None,
            width: 40,
            height: 30,
            placeholder: (purpose == Purpose::Photo).then(|| b"thumb".to_vec()),
        };
        let stored = self.pictures.add(&RequestContext::default(), &upload, received).await.unwrap();
        assert_eq!(stored.created, stored.media.id == upload.id);
        (upload, stored.media)
    }
    async fn photo(&self, who: AccountId, content: &str) -> Media {
        self.upload(who, Purpose::Photo, content).await.1
    }

    /// Records the result of a worker that has decoded the picture.
    async fn render(&self, media: &Media) -> bool {
        let rendition = self.world.rendition("64", Format::Jpeg);
        let rendered = Rendered {
            width: 50,
            height: 30,
            animated: false,
            alpha: true,
            placeholder: vec![1],
            source: Some(Source { blob: "master.jpg".into(), bytes: 50, media_type: "image/jpeg".into() }),
            renditions: vec![Rendition { used_at: None, ..rendition }],
        };
        self.pictures.finish(media.id, rendered).await.unwrap()
    }

    async fn post(&self, who: AccountId, name: &str, media: MediaId) -> Result<i64, String> {
        let body = json!({ "media_id": media, "text": "look" });
        self.append(who, name, body).await
    }
    async fn append(&self, who: AccountId, name: &str, body: Value) -> Result<i64, String> {
        let append = Append { couple: None, client_id: name.into(), kind: "photo".into(), body };
        match self.backend.timeline().append(&RequestContext::default(), who, &append).await {
            Ok(appended) => Ok(appended.entry.seq),
            Err(Failure::Refused(refusal)) => Err(refusal.code().to_owned()),
            Err(Failure::Failed(error)) => panic!("{error}"),
        }
    }
    /// Kinds and bodies of the log after `seq`.
    async fn log(&self, seq: i64) -> Vec<(String, Value)> {
        let read = self.backend.timeline().read(self.couple.id, Page::After(seq), 200, None).await.unwrap();
        let text = |view: timeline::EntryView| {
            (view.entry.kind, view.entry.body.map_or(Value::Null, |body| body.value()))
        };
        read.into_iter().map(text).collect()
    }
    async fn sees(&self, who: AccountId, media: &Media) -> bool {
        match self.pictures.view(who, media.id).await {
            Ok((seen, _)) => seen.id == media.id,
            Err(Failure::Refused(MediaError::MediaNotFound)) => false,
            Err(other) => panic!("{other}"),
        }
    }
    async fn there(&self, media: &Media) -> bool {
        self.store.media(media.id).await.unwrap().is_some()
    }
    async fn used_bytes(&self, space: Space) -> i64 {
        self.store.media_space(space).await.unwrap().bytes
    }

    /// Claims the jobs of pictures: pictures to render, and blobs to remove.
    async fn work(&self) -> (Vec<MediaId>, Vec<String>) {
        let claim = JobChange::Claim {
            queue: "media".into(),
            now: self.world.now(),
            lease_until: self.world.later(9_000_000),
            claim: 1,
            limit: 1000,
        };
        let (mut rendered, mut removed) = (Vec::new(), Vec::new());
        for claimed in self.store.commit(vec![claim.into()]).await.unwrap().into_claimed_jobs() {
            match claimed.job.name.as_str() {
                "media.render" => {
                    rendered.push(serde_json::from_str::<RenderMedia>(&claimed.job.payload).unwrap().media);
                }
                "media.discard" => {
                    removed.extend(serde_json::from_str::<DiscardBlobs>(&claimed.job.payload).unwrap().names);
                }
                other => panic!("{other}"),
            }
        }
        // Jobs of one millisecond have no order.
        (sorted(rendered), sorted(removed))
    }

    async fn leave(&self) {
        let person = Person { id: self.ana(), email: Some(self.world.email("ana")) };
        self.backend.pairings().leave(&RequestContext::default(), &person, None, false).await.unwrap();
    }
}

#[tokio::test]
async fn same_bytes_are_one_picture_and_one_job() {
    let two = Two::new().await;
    let (upload, first) = two.upload(two.ana(), Purpose::Photo, "a").await;
    assert_eq!(first.space, Space::Couple(two.couple.id));
    assert_eq!(first.folder(), upload.folder());
    assert!(first.folder().starts_with(&format!("c/{}/{}-", two.couple.id, first.id)), "{}", first.folder());
    let (other, again) = two.upload(two.ana(), Purpose::Photo, "a").await;
    assert_eq!(again, first);
    assert_ne!(other.folder(), upload.folder());
    let theirs = two.photo(two.ben(), "a").await;
    assert_ne!(theirs.id, first.id);
    assert_eq!(two.work().await, (sorted(vec![first.id, theirs.id]), vec![]));
    assert_eq!(two.used_bytes(first.space).await, 200);
}

#[tokio::test]
async fn lost_picture_may_be_uploaded_again() {
    let two = Two::new().await;
    let photos = [two.photo(two.ana(), "a").await, two.photo(two.ana(), "b").await];
    for (photo, reason) in photos.iter().zip(["lost", "unavailable"]) {
        two.post(two.ana(), reason, photo.id).await.unwrap();
        assert!(two.pictures.reject(photo.id, reason).await.unwrap());
    }
    let gone = two.photo(two.ana(), "c").await;
    assert!(two.render(&gone).await);
    let there = two.store.renditions(gone.space, gone.id).await.unwrap();
    two.pictures.forget(&gone, vec!["master.jpg".into()]).await.unwrap();
    assert_eq!(two.photo(two.ana(), "c").await.id, gone.id, "one of its renditions exists");
    two.pictures.forget(&gone, vec![there[0].blob.clone()]).await.unwrap();
    two.work().await;
    let mut again = Vec::new();
    for (content, before) in [("a", &photos[0]), ("b", &photos[1]), ("c", &gone)] {
        let photo = two.photo(two.ana(), content).await;
        assert!(photo.id != before.id && !two.there(before).await);
        again.push(photo.id);
    }
    let removed = [&photos[0], &photos[1], &gone].map(Media::folder).to_vec();
    assert_eq!(two.work().await, (sorted(again), sorted(removed)));
    assert_eq!(two.used_bytes(gone.space).await, 300);
    // A rejected picture stays rejected.
    let bad = two.photo(two.ana(), "d").await;
    assert!(two.pictures.reject(bad.id, "truncated").await.unwrap());
    assert_eq!(two.photo(two.ana(), "d").await.id, bad.id);
}

#[tokio::test]
async fn quota_is_enforced() {
    let two = Two::new().await;
    let tight = MediaPolicy::default().with_couple_quota(150);
    let pictures = Pictures::new(two.backend.ports().clone(), tight);
    let begin = |bytes| pictures.begin(two.ana(), None, Purpose::Photo, Some(bytes));
    assert!(matches!(begin(151).await, Err(Failure::Refused(MediaError::QuotaExceeded))));
    assert!(matches!(begin(u64::MAX).await, Err(Failure::Refused(MediaError::QuotaExceeded))));
    let uploads = [begin(100).await.unwrap(), begin(100).await.unwrap()];
    let mut stored = Vec::new();
    for (n, upload) in uploads.iter().enumerate() {
        let received = InspectedUpload {
            digest: digest(&[&[u8::try_from(n).unwrap()]]),
            source: Source { blob: "upload".into(), bytes: 100, media_type: "image/png".into() },
            crop: None,
            width: 1,
            height: 1,
            placeholder: None,
        };
        stored.push(pictures.add(&RequestContext::default(), upload, received).await);
    }
    assert!(stored[0].is_ok());
    assert!(matches!(stored[1], Err(Failure::Refused(MediaError::QuotaExceeded))));
    assert_eq!(two.used_bytes(Space::Couple(two.couple.id)).await, 100);
}

#[tokio::test]
async fn entries_are_updated_when_their_photo_is_ready() {
    let two = Two::new().await;
    let (early, late, bad) = (
        two.photo(two.ana(), "early").await,
        two.photo(two.ana(), "late").await,
        two.photo(two.ana(), "bad").await,
    );
    assert_eq!(two.post(two.ana(), "1", early.id).await, Ok(1));
    assert_eq!(two.post(two.ana(), "2", bad.id).await, Ok(2));
    assert!(two.render(&early).await);
    assert!(!two.render(&early).await);
    // No entry names it yet.
    assert!(two.render(&late).await);
    assert_eq!(two.post(two.ana(), "3", late.id).await, Ok(4));
    assert!(two.pictures.reject(bad.id, "truncated").await.unwrap());
    assert!(!two.pictures.reject(bad.id, "truncated").await.unwrap());
    let log = two.log(2).await;
    let kinds: Vec<&str> = log.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["media_ready", "photo", "media_rejected"]);
    let sharp = json!({ "media_id": early.id, "placeholder": "AQ==", "width": 50, "height": 30, "animated": false, "alpha": true });
    assert_eq!(log[0].1, sharp);
    // Each entry has the state at the time when it was appended.
    let seen = two.log(0).await;
    let blurred = json!({ "state": "processing", "placeholder": "dGh1bWI=", "width": 40, "height": 30 });
    assert_eq!((&seen[0].1["media"], &seen[1].1["media"]), (&blurred, &blurred));
    let ready = json!({ "state": "ready", "placeholder": "AQ==", "width": 50, "height": 30, "animated": false, "alpha": true });
    assert_eq!((&log[1].1["media"], &log[1].1["text"]), (&ready, &json!("look")));
    assert_eq!(log[2].1, json!({ "media_id": bad.id, "reason": "truncated" }));
    // The upload is replaced by the stored copy; of a rejected picture nothing is stored.
    let removed = two.work().await.1;
    assert_eq!(removed, sorted(vec![early.path("upload"), late.path("upload"), bad.folder()]));
    assert_eq!(two.used_bytes(early.space).await, 2 * 60);
    assert_eq!(two.post(two.ana(), "4", bad.id).await, Err("media_rejected".into()));
}

#[tokio::test]
async fn entry_may_only_name_a_photo_of_its_author() {
    let two = &Two::new().await;
    let (photo, theirs) = (two.photo(two.ana(), "a").await, two.photo(two.ben(), "b").await);
    let avatar = two.upload(two.ana(), Purpose::Avatar, "c").await.1;
    let unknown = MediaId::from_uuid(uuid::Uuid::max());
    for id in [theirs.id, unknown] {
        assert_eq!(two.post(two.ana(), "x", id).await, Err("media_not_found".into()));
    }
    assert_eq!(two.post(two.ana(), "x", avatar.id).await, Err("media_wrong_purpose".into()));
    for body in [json!({}), json!({ "media_id": 7 }), json!({ "media_id": "none" })] {
        assert_eq!(two.append(two.ana(), "x", body).await, Err("invalid_field".into()));
    }
    assert_eq!(two.post(two.ana(), "1", photo.id).await, Ok(1));
    // A repeat with another picture is another entry; one with another text is not.
    let edit = |id| {
        let body = json!({ "media_id": id, "text": "look again" });
        async move { two.backend.timeline().edit(two.ana(), None, 1, &body).await }
    };
    assert!(matches!(edit(theirs.id).await, Err(Failure::Refused(timeline::TimelineError::Invalid(_)))));
    edit(photo.id).await.unwrap();
    let body = &two.log(0).await[0].1;
    assert_eq!((&body["text"], &body["media"]["width"]), (&json!("look again"), &json!(40)));
    // A client's `media` is ignored, and does not make a repeat a different entry.
    let mut body = json!({ "media_id": photo.id, "media": { "width": 7 } });
    assert_eq!(two.append(two.ana(), "0", body.clone()).await, Ok(3));
    body["media"] = Value::Null;
    assert_eq!(two.append(two.ana(), "0", body).await, Ok(3));
    let other = json!({ "media_id": photo.id, "text": "no" });
    assert_eq!(two.append(two.ana(), "0", other).await, Err("idempotency_key_reused".into()));
    assert_eq!(two.log(2).await[0].1["media"]["width"], 40);
    // A repeat returns its entry even if the picture is deleted.
    two.pictures.delete(two.ana(), photo.id).await.unwrap();
    assert_eq!(two.post(two.ana(), "1", photo.id).await, Ok(1));
    assert_eq!(two.post(two.ana(), "2", photo.id).await, Err("media_not_found".into()));
    let not_mine = two.pictures.delete(two.ana(), theirs.id).await;
    assert!(matches!(not_mine, Err(Failure::Refused(MediaError::MediaNotFound))));
}

#[tokio::test]
async fn deleting_the_last_entry_deletes_its_photo() {
    let two = Two::new().await;
    let photo = two.photo(two.ana(), "a").await;
    assert!(two.render(&photo).await);
    for name in ["1", "2"] {
        two.post(two.ana(), name, photo.id).await.unwrap();
    }
    two.work().await;
    two.backend.timeline().delete(two.ana(), None, 1).await.unwrap();
    assert!(two.there(&photo).await);
    assert_eq!(two.work().await, (vec![], vec![]));
    two.backend.timeline().delete(two.ana(), None, 2).await.unwrap();
    assert!(!two.there(&photo).await);
    assert_eq!(two.work().await, (vec![], vec![photo.folder()]));
    assert_eq!(two.used_bytes(photo.space).await, 0);
}

#[tokio::test]
async fn pictures_are_visible_to_their_couple_only() {
    let two = Two::new().await;
    let photo = two.photo(two.ana(), "a").await;
    let avatar = two.upload(two.ana(), Purpose::Avatar, "b").await.1;
    two.post(two.ana(), "1", photo.id).await.unwrap();
    two.post(two.ana(), "2", photo.id).await.unwrap();
    let strangers = two.world.stored_couple(&two.store).await.members;
    for media in [&photo, &avatar] {
        assert!(two.sees(two.ana(), media).await && two.sees(two.ben(), media).await);
        for stranger in strangers {
            assert!(!two.sees(stranger, media).await);
        }
    }
    two.leave().await;
    for media in [&photo, &avatar] {
        assert!(two.sees(two.ana(), media).await && !two.sees(two.ben(), media).await);
    }
    // A new couple of the same accounts does not see the old couple's pictures, unless both restore them.
    let again = Couple { previous: Some(two.couple.id), ..two.world.couple(two.couple.members) };
    two.store.commit(vec![PairingChange::Pair(again.clone()).into()]).await.unwrap();
    assert!(two.sees(two.ben(), &avatar).await && !two.sees(two.ben(), &photo).await);
    two.backend.pairings().restore(two.ana(), None, true).await.unwrap();
    assert!(!two.sees(two.ben(), &photo).await);
    two.backend.pairings().restore(two.ben(), None, true).await.unwrap();
    assert!(two.sees(two.ben(), &photo).await);
}

#[tokio::test]
async fn late_result_for_an_ended_couple_publishes_nothing() {
    let two = Two::new().await;
    let photo = two.photo(two.ana(), "a").await;
    two.post(two.ana(), "1", photo.id).await.unwrap();
    let upload = two.pictures.begin(two.ana(), None, Purpose::Photo, None).await.unwrap();
    two.leave().await;
    let head = two.log(0).await.len();
    assert!(two.render(&photo).await);
    assert_eq!(two.store.media(photo.id).await.unwrap().unwrap().state, MediaState::Ready);
    assert_eq!(two.log(0).await.len(), head);
    let received = InspectedUpload {
        digest: digest(&[b"late"]),
        source: Source { blob: "upload".into(), bytes: 1, media_type: "image/png".into() },
        crop: None,
        width: 1,
        height: 1,
        placeholder: None,
    };
    let late = two.pictures.add(&RequestContext::default(), &upload, received).await;
    assert!(matches!(late, Err(Failure::Refused(MediaError::NotPaired))));
    let begin = two.pictures.begin(two.ana(), None, Purpose::Photo, None).await;
    assert!(matches!(begin, Err(Failure::Refused(MediaError::NotPaired))));
}

#[tokio::test]
async fn new_avatar_replaces_the_previous_one() {
    let two = Two::new().await;
    let one = two.upload(two.ana(), Purpose::Avatar, "1").await.1;
    let other = two.upload(two.ana(), Purpose::Avatar, "2").await.1;
    let theirs = two.upload(two.ben(), Purpose::Avatar, "1").await.1;
    let photo = two.photo(two.ana(), "3").await;
    let set = |id| two.pictures.set_avatar(two.ana(), id);
    assert!(matches!(set(Some(theirs.id)).await, Err(Failure::Refused(MediaError::MediaNotFound))));
    assert!(matches!(set(Some(photo.id)).await, Err(Failure::Refused(MediaError::WrongPurpose))));
    two.work().await;
    set(Some(one.id)).await.unwrap();
    set(Some(one.id)).await.unwrap();
    // It is shown while it is processed, and the partner is notified again when it is ready.
    assert!(two.render(&one).await);
    set(Some(other.id)).await.unwrap();
    assert!(!two.there(&one).await);
    assert_eq!(two.store.avatar_of(two.ana()).await.unwrap().unwrap().id, other.id);
    set(None).await.unwrap();
    set(None).await.unwrap();
    assert_eq!(two.store.avatar_of(two.ana()).await.unwrap(), None);
    let kinds: Vec<String> = two.log(0).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, vec!["profile_changed"; 4]);
    assert_eq!(two.work().await.1, sorted(vec![one.path("upload"), one.folder(), other.folder()]));
    assert_eq!(two.used_bytes(Space::Account(two.ana())).await, 0);
    assert_eq!(two.used_bytes(Space::Account(two.ben())).await, 100);
}

#[tokio::test]
async fn use_of_a_rendition_is_recorded_once_a_day() {
    let two = Two::new().await;
    let photo = two.photo(two.ana(), "a").await;
    two.render(&photo).await;
    let day = std::time::Duration::from_hours(24);
    two.pictures.remember(&photo, two.world.rendition("1080", Format::WebP)).await.unwrap();
    assert!(!two.pictures.remember(&photo, two.world.rendition("1080", Format::WebP)).await.unwrap());
    let used = || async {
        let there = two.store.renditions(photo.space, photo.id).await.unwrap();
        there.into_iter().find(|rendition| rendition.name == "1080").unwrap()
    };
    let first = used().await;
    two.world.clock.advance(day / 2);
    two.pictures.touch(&photo, &first).await.unwrap();
    assert_eq!(used().await, first);
    two.world.clock.advance(day);
    two.pictures.touch(&photo, &first).await.unwrap();
    assert_eq!(used().await.used_at, Some(two.world.now()));
    two.work().await;
    two.pictures.forget(&photo, vec![first.blob.clone()]).await.unwrap();
    assert_eq!(two.store.renditions(photo.space, photo.id).await.unwrap().len(), 1);
    assert_eq!(two.work().await.1, [photo.path(&first.blob)]);
}

#[tokio::test]
async fn deleted_account_deletes_only_its_own_pictures() {
    let two = Two::new().await;
    let mut own = vec![two.upload(two.ana(), Purpose::Avatar, "face").await.1];
    // More than one page.
    for n in 0..115 {
        own.push(two.photo(two.ana(), &n.to_string()).await);
    }
    let theirs = two.photo(two.ben(), "theirs").await;
    two.pictures.set_avatar(two.ana(), Some(own[0].id)).await.unwrap();
    two.post(two.ana(), "1", own[1].id).await.unwrap();
    two.work().await;
    let account = account(&two, two.ana()).await;
    let due = Account { deletion_due: Some(two.world.now()), ..account };
    two.store.commit(vec![AccountChange::Update(due).into()]).await.unwrap();
    let purge = PurgeAccountsHandler::new(two.backend.ports().clone(), 20);
    let plan = purge.plan().await.unwrap();
    assert_eq!((plan.len(), plan[0].pictures), (1, 116));
    assert!(two.there(&own[0]).await, "a plan changes nothing");
    // The worker's schedule starts with a run within its interval.
    two.store
        .commit(vec![two.backend.ports().enqueue(&couple::account::PurgeAccounts {}).unwrap()])
        .await
        .unwrap();
    let worker: Worker = Worker::new(
        two.backend.ports().clone(),
        couple::job::Registry::default().with(purge),
        Vec::new(),
        vec![couple::job::Queue::new("default", 1)],
        WorkerOptions::default(),
    );
    worker.run_until_idle().await.unwrap();
    for media in &own {
        assert!(!two.there(media).await);
    }
    assert_eq!(two.work().await.1, sorted(own.iter().map(Media::folder).collect()));
    assert!(two.there(&theirs).await && two.sees(two.ben(), &theirs).await);
    assert_eq!(two.used_bytes(theirs.space).await, 100);
    let space = two.store.media_space(Space::Account(two.ana())).await.unwrap();
    assert!(space.closed && space.bytes == 0 && space.avatar.is_none());
    assert!(couple::account::AccountReads::account(&two.store, two.ana()).await.unwrap().is_none());
}

fn sorted<T: Ord>(mut them: Vec<T>) -> Vec<T> {
    them.sort();
    them
}

async fn account(two: &Two, id: AccountId) -> Account {
    couple::account::AccountReads::account(&two.store, id).await.unwrap().unwrap()
}
