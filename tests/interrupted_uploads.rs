//! Crashes and outages at any step of uploading and showing pictures.
//!
//! Each acknowledged picture becomes ready or rejected, no blob without a row remains, and the stored size of a space is the sum of its
//! blobs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and prints its figures")]

#[path = "support/couples.rs"]
mod couples;
#[path = "support/observed_store.rs"]
mod observed_store;
#[path = "support/step_faults.rs"]
mod step_faults;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use couple::{
    AccountId, Backend, Clock as _, Keyring, ManualClock, RequestContext, Store, SystemClock,
    blobs::Blobs,
    core::MediaId,
    gallery::{Accepts, Gallery, Sweep, SweepReport},
    job::{Job as _, JobChange, JobReads as _, WorkerOptions},
    media::{MediaReads as _, MediaState, Purpose, RenderMedia, Space},
    pairing::Couple,
    store::{KeyFile, MemoryStore, sql::SqliteOptions},
    timeline::{Append, Page, TimelineReads as _},
};
use couple_conformance::World;
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;
use observed_store::ObservedStore;
use serde_json::json;
use step_faults::{FaultPlan, FaultyBlobs, Kind};
use support::{Client, Server, binary, free_address};

/// State that outlives a process.
struct PersistentState {
    store: Arc<MemoryStore>,
    blobs: Arc<InMemory>,
    clock: Arc<ManualClock>,
    couple: Couple,
}

impl PersistentState {
    async fn new() -> Self {
        let (store, world) = (Arc::new(MemoryStore::new()), World::default());
        let couple = world.stored_couple(&store).await;
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        Self { store, blobs: Arc::default(), clock, couple }
    }
    fn ana(&self) -> AccountId {
        self.couple.members[0]
    }

    /// A process over this state.
    fn process(&self, plan: &Arc<FaultPlan>) -> Backend {
        let blobs = Blobs::over(FaultyBlobs(self.blobs.clone(), plan.clone()));
        Backend::builder()
            .store(ObservedStore(self.store.clone(), plan.clone()))
            .blobs(blobs)
            .keys(Keyring::new([7; 32]))
            .clock(self.clock.clone())
            .limits(couple::limits::Unlimited)
            .worker(WorkerOptions::default().with_run_timeout(Duration::from_secs(60)))
            .hash_threads(1)
            .build()
            .unwrap()
    }
}

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(48, 32, |x, y| {
        image::Rgb([shade, (x * 5).to_le_bytes()[0], (y * 7).to_le_bytes()[0]])
    });
    pixels.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Acknowledged results.
#[derive(Default)]
struct Answered {
    uploaded: BTreeSet<MediaId>,
    /// Pictures whose deletion was requested, so they may be gone.
    let_go: BTreeSet<MediaId>,
    shown: Option<MediaId>,
}

async fn upload(gallery: &Gallery, by: AccountId, purpose: Purpose, bytes: Vec<u8>) -> Option<MediaId> {
    let length = Some(bytes.len() as u64);
    let mut uploading = gallery.upload(by, purpose.into(), length).await.ok()?;
    for piece in bytes.chunks(700) {
        uploading.write(bytes::Bytes::copy_from_slice(piece)).await.ok()?;
    }
    Some(uploading.finish(|_| RequestContext::default(), async { Ok(true) }).await.ok()?.media.id)
}

/// A session of a user with pictures. Failed operations are not repeated: a client may give up.
async fn evening(backend: Backend, ana: AccountId, answered: Arc<Mutex<Answered>>) {
    let gallery = backend.gallery();
    let put = async |purpose, bytes| {
        let id = upload(gallery, ana, purpose, bytes).await;
        answered.lock().unwrap().uploaded.extend(id);
        id
    };
    let work = async || drop(backend.worker().run_until_idle().await);
    let avatar = put(Purpose::Avatar, png(1)).await;
    let photo = put(Purpose::Photo, png(2)).await;
    // The same bytes again, as after a lost response.
    let photo = put(Purpose::Photo, png(2)).await.or(photo);
    if avatar.is_some() {
        let _ = gallery.pictures().set_avatar(ana, avatar).await;
    }
    let mut seq = None;
    if let Some(photo) = photo {
        let body = json!({ "media_id": photo });
        let append = Append { couple: None, client_id: "1".into(), kind: "photo".into(), body };
        seq = backend
            .timeline()
            .append(&RequestContext::default(), ana, &append)
            .await
            .ok()
            .map(|done| done.entry.seq);
        if seq.is_some() {
            answered.lock().unwrap().shown = Some(photo);
        }
    }
    work().await;
    if let Some(photo) = photo
        && let Ok((media, there)) = gallery.pictures().view(ana, photo).await
    {
        for webp in [false, true] {
            if let Ok(rendition) = gallery.find(&media, &there, "320", Accepts { webp, png: false }).await {
                let _ = gallery.open(&media, rendition, None).await;
            }
        }
    }
    // A truncated file.
    let mut broken = png(3);
    broken.truncate(100);
    put(Purpose::Photo, broken).await;
    let other = put(Purpose::Avatar, png(4)).await;
    work().await;
    if let (Some(avatar), Some(_)) = (avatar, other) {
        answered.lock().unwrap().let_go.insert(avatar);
        let _ = gallery.pictures().set_avatar(ana, other).await;
    }
    if let (Some(photo), Some(seq)) = (photo, seq) {
        answered.lock().unwrap().let_go.insert(photo);
        let _ = backend.timeline().delete(ana, None, seq).await;
    }
    work().await;
}

/// Runs the session on a separate runtime, and ends that with all its tasks when the process dies.
fn live(persistent: &PersistentState, plan: &Arc<FaultPlan>) -> Arc<Mutex<Answered>> {
    let answered = Arc::new(Mutex::new(Answered::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let backend = persistent.process(plan);
        tokio::select! {
            () = evening(backend, persistent.ana(), answered.clone()) => {}
            () = plan.died.notified() => {}
        }
    });
    runtime.shutdown_background();
    answered
}

/// A later process: runs the remaining jobs, and sweeps.
async fn recover(persistent: &PersistentState) -> SweepReport {
    let backend = persistent.process(&FaultPlan::new(Kind::Well));
    // Leases expire, and failed jobs are retried.
    for _ in 0..24 {
        persistent.clock.advance(Duration::from_mins(30));
        backend.worker().run_until_idle().await.unwrap();
    }
    persistent.clock.advance(Duration::from_hours(72));
    let report = backend.gallery().sweep(Sweep::default()).await.unwrap();
    backend.worker().run_until_idle().await.unwrap();
    let again = backend.gallery().sweep(Sweep::default()).await.unwrap();
    assert_eq!(again, SweepReport::default(), "a second sweep finds nothing");
    assert_eq!(persistent.store.dead_jobs(None, 10).await.unwrap(), []);
    backend.close().await.unwrap();
    report
}

/// Checks that rows and blobs match.
///
/// No picture is in progress, each row has its blobs and each blob its row, and sizes are the sums.
async fn fits(store: &impl Store, blobs: &Blobs) {
    let listed: Vec<_> = blobs.list("").try_collect().await.unwrap();
    let mut there: BTreeMap<String, i64> =
        listed.into_iter().map(|blob| (blob.name, i64::try_from(blob.size).unwrap())).collect();
    for space in store.media_spaces(None, 100).await.unwrap() {
        let mut held = 0;
        for media in store.media_in(space, None, 1000).await.unwrap() {
            assert_ne!(media.state, MediaState::Processing, "{media:?}");
            // Its bytes existed when it was accepted.
            assert_ne!(media.state, MediaState::Rejected("lost".to_owned()), "{media:?}");
            let renditions = store.renditions(space, media.id).await.unwrap();
            let source = media.source.iter().map(|source| (source.blob.clone(), source.bytes));
            for (blob, bytes) in source.chain(renditions.into_iter().map(|one| (one.blob, one.bytes))) {
                assert_eq!(there.remove(&media.path(&blob)), Some(bytes), "{blob} of {media:?}");
                held += bytes;
            }
            if matches!(media.state, MediaState::Ready) && media.purpose == Purpose::Avatar {
                assert_eq!(store.renditions(space, media.id).await.unwrap().len(), 4);
            }
        }
        assert_eq!(store.media_space(space).await.unwrap().bytes, held, "{space:?}");
    }
    assert_eq!(there, BTreeMap::new(), "blobs without a row");
}

/// Checks that rows and blobs match, and that no acknowledged result is lost.
async fn check(persistent: &PersistentState, answered: &Answered) {
    let blobs = Blobs::over(FaultyBlobs(persistent.blobs.clone(), FaultPlan::new(Kind::Well)));
    fits(&persistent.store, &blobs).await;
    for id in answered.uploaded.difference(&answered.let_go) {
        assert!(persistent.store.media(*id).await.unwrap().is_some(), "an acknowledged picture is gone");
    }
    // Clients that saw the picture were notified exactly once of its final state.
    if let Some(shown) = answered.shown {
        let log = persistent.store.entries(persistent.couple.id, Page::After(0), 100, None).await.unwrap();
        let is_notice = |entry: &&couple::timeline::Entry| {
            ["media_ready", "media_rejected"].contains(&entry.kind.as_str())
                && entry.body.as_ref().is_some_and(|body| body.as_str().contains(&shown.to_string()))
        };
        let notice_count = log.iter().filter(is_notice).count();
        let gone = persistent.store.media(shown).await.unwrap().is_none();
        assert!(notice_count == 1 || (gone && notice_count == 0), "notified {notice_count} times");
    }
}

/// Tries one fault after another; a session without faults counts the steps.
fn every(faults: impl Fn([u64; 3]) -> Vec<Kind>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let try_one = |kind: Kind| {
        let persistent = runtime.block_on(PersistentState::new());
        let plan = FaultPlan::new(kind);
        let answered = live(&persistent, &plan);
        let report = runtime.block_on(recover(&persistent));
        runtime.block_on(check(&persistent, &answered.lock().unwrap()));
        (plan.steps(), report, persistent)
    };
    let (steps, report, persistent) = try_one(Kind::Well);
    assert_eq!(report, SweepReport::default(), "a session without faults leaves nothing to sweep");
    assert_eq!(
        runtime.block_on(persistent.store.media_in(Space::Account(persistent.ana()), None, 9)).unwrap().len(),
        1
    );
    let (mut orphans, mut lost, mut stuck, mut tried) = (0, 0, 0, 0);
    for kind in faults(steps) {
        println!("{kind:?}");
        let (_, report, _) = try_one(kind);
        (orphans, lost, stuck) =
            (orphans + report.orphans.len(), lost + report.lost.len(), stuck + report.stuck.len());
        tried += 1;
    }
    println!(
        "{tried} faults in a session of {steps:?} steps: {orphans} orphans swept, {lost} lost, {stuck} stuck"
    );
    assert!(tried > 20 && lost == 0, "no row without its blobs");
}

#[test]
fn process_may_die_at_any_step() {
    every(|[all, ..]| (0..all).map(Kind::Dies).collect());
}

#[test]
fn blob_store_may_be_unavailable_at_any_step() {
    every(|[_, blobs, _]| (0..blobs).map(Kind::Away).collect());
}

#[test]
fn disk_may_be_full_at_any_step() {
    every(|[_, blobs, _]| (0..blobs).map(Kind::Full).collect());
}

#[test]
fn any_commit_may_fail() {
    every(|[.., commits]| (0..commits).map(Kind::Refused).collect());
}

#[test]
fn result_of_any_commit_may_be_lost() {
    every(|[.., commits]| (0..commits).map(Kind::Unheard).collect());
}

/// A client that disconnects after the last byte leaves a picture, and no blob without a row.
#[tokio::test]
async fn client_that_disconnects_after_the_last_byte_leaves_a_picture() {
    let persistent = PersistentState::new().await;
    let backend = persistent.process(&FaultPlan::new(Kind::Well));
    let mut uploading =
        backend.gallery().upload(persistent.ana(), Purpose::Avatar.into(), None).await.unwrap();
    uploading.write(png(1).into()).await.unwrap();
    let (asked, asking) = tokio::sync::oneshot::channel();
    let (go_on, waiting) = tokio::sync::oneshot::channel::<()>();
    let signed_in = async {
        asked.send(()).unwrap();
        waiting.await.unwrap();
        Ok(true)
    };
    tokio::select! {
        _ = uploading.finish(|_| RequestContext::default(), signed_in) => panic!("`signed_in` has not returned"),
        asked = asking => asked.unwrap(),
    }
    go_on.send(()).unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while persistent.store.media_in(Space::Account(persistent.ana()), None, 9).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < until, "the upload did not continue");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(recover(&persistent).await, SweepReport::default());
    check(&persistent, &Answered::default()).await;
}

/// A picture that kills its process at every attempt is rejected with a reason.
#[tokio::test]
async fn picture_that_kills_its_process_is_rejected() {
    let persistent = PersistentState::new().await;
    let backend = persistent.process(&FaultPlan::new(Kind::Well));
    let id = upload(backend.gallery(), persistent.ana(), Purpose::Photo, png(1)).await.unwrap();
    let mut died = 0;
    while persistent.store.media(id).await.unwrap().unwrap().state == MediaState::Processing {
        // The claiming worker dies, up to the last attempt.
        if died < RenderMedia::MAX_ATTEMPTS - 1 {
            let (queue, now) = (RenderMedia::QUEUE.to_owned(), persistent.clock.now());
            let lease_until = now.plus(Duration::from_secs(30));
            let claim = match died {
                0 => JobChange::Claim { queue, now, lease_until, claim: died, limit: 1 },
                _ => JobChange::ClaimAbandoned { queue, now, lease_until, claim: died },
            };
            assert_eq!(
                persistent.store.commit(vec![claim.into()]).await.unwrap().into_claimed_jobs().len(),
                1
            );
            died += 1;
        } else {
            backend.worker().run_until_idle().await.unwrap();
        }
        persistent.clock.advance(Duration::from_mins(1));
    }
    let media = persistent.store.media(id).await.unwrap().unwrap();
    assert_eq!(media.state, MediaState::Rejected("unavailable".to_owned()));
    assert_eq!(backend.gallery().stats().rendered, 0, "it was not decoded again");
    recover(&persistent).await;
    check(&persistent, &Answered::default()).await;
}

/// The server example is killed repeatedly while clients upload.
#[tokio::test]
async fn kills_of_the_server_lose_no_upload() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let tokens = couples::seed_folder(folder.path(), 1).await;
    let (address, binary) = (free_address(), binary());
    let start = || {
        let settings = [("COUPLE_LIMITS", "off"), ("RUST_LOG", "error")];
        Server::spawn(&binary, folder.path(), address, &settings)
    };
    let mut server = start();
    server.until_ready().await;
    let uploads = tokens.iter().enumerate().map(|(who, token)| {
        let (who, token) = (u8::try_from(who).unwrap(), token.clone());
        tokio::spawn(async move {
            let (mut client, mut taken) = (Client::new(address), Vec::new());
            for n in 0..40 {
                let purpose = if n % 4 == 0 { "avatar" } else { "photo" };
                let mut bytes = png(who * 80 + n);
                if n % 8 == 7 {
                    bytes.truncate(200);
                }
                taken.push((token.clone(), client.upload(&token, purpose, &bytes).await, n % 8 == 7));
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            taken
        })
    });
    let uploads: Vec<_> = uploads.collect();
    let mut kills = 0;
    while !uploads.iter().all(tokio::task::JoinHandle::is_finished) || kills < 6 {
        tokio::time::sleep(Duration::from_millis(150 + 60 * (kills % 7))).await;
        server.kill();
        kills += 1;
        server = start();
        server.until_ready().await;
        assert!(kills < 200, "the uploads do not end");
    }
    let mut client = Client::new(address);
    let mut taken = 0;
    for upload in uploads {
        for (token, id, broken) in upload.await.unwrap() {
            let path = format!("/v1/media/{id}");
            let started = tokio::time::Instant::now();
            let state = loop {
                let answer = client.call("GET", &path, Some(&token), None, None).await;
                match answer.body["state"].as_str().unwrap_or_else(|| panic!("{answer:?}")) {
                    // A job of a killed process runs again when its lease has expired.
                    "processing" if started.elapsed() < Duration::from_secs(180) => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    state => break state.to_owned(),
                }
            };
            assert_eq!(state, if broken { "rejected" } else { "ready" }, "{id}");
            taken += 1;
        }
    }
    server.kill();
    let data = folder.path().join("couple-data");
    let store = Arc::new(SqliteOptions::new(data.join("couple.db")).open().await.unwrap());
    let blobs = Blobs::files(data.join("media")).unwrap();
    let keys = KeyFile::new(data.join("couple.key")).open(&couple::OsEntropy).unwrap();
    let backend = Backend::builder().store(store.clone()).blobs(blobs.clone()).keys(keys).build().unwrap();
    // Remaining removals of the last killed process.
    backend.worker().run_until_idle().await.unwrap();
    let now = Sweep { grace: Duration::ZERO, ..Sweep::default() };
    let report = backend.gallery().sweep(now).await.unwrap();
    println!("{kills} kills, {taken} pictures, {} orphans swept", report.orphans.len());
    assert_eq!((report.lost.len(), report.stuck.len()), (0, 0));
    fits(&store, &blobs).await;
    backend.close().await.unwrap();
}
