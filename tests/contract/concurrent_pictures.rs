//! Many concurrent pictures: uploads and galleries of one client, and clients that send slowly.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::Request,
};
use couple::{Backend, core::limits::Unlimited, gallery::GalleryOptions, http::HttpOptions};
use futures_util::{StreamExt as _, future::join_all, stream};
use tokio::time::{sleep, timeout};

use crate::{
    media::blob_names,
    world::{TestResponse, World, png},
};

fn upload(token: &str, purpose: &str, body: Body) -> Request<Body> {
    let request = Request::post(format!("/v1/media?purpose={purpose}"));
    request.header("authorization", format!("Bearer {token}")).body(body).unwrap()
}

/// A body whose second half arrives a moment after the first.
fn in_halves(bytes: &[u8]) -> Body {
    let half = bytes.len() / 2;
    let halves = stream::iter([bytes[..half].to_vec(), bytes[half..].to_vec()]);
    Body::from_stream(halves.enumerate().then(async |(nth, half)| {
        sleep(Duration::from_millis(if nth == 0 { 0 } else { 50 })).await;
        Ok::<_, Infallible>(half)
    }))
}

/// A body that sends `bytes` and then nothing, without an end.
fn stalled(bytes: Vec<u8>) -> Body {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from(bytes))]);
    Body::from_stream(first.chain(stream::pending()))
}

/// An upload that continues in the background.
fn in_background(world: &World, request: Request<Body>) -> tokio::task::JoinHandle<()> {
    let app = world.app.clone();
    tokio::spawn(async move { drop(tower::ServiceExt::oneshot(app, request).await) })
}

fn refused(answer: &TestResponse) -> (u16, &str, &str) {
    (answer.status, answer.code(), answer.headers["retry-after"].to_str().unwrap())
}

#[tokio::test]
async fn twenty_concurrent_uploads_of_one_account_are_accepted() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let uploads = (0..20).map(|n| world.raw(upload(&ana, "photo", in_halves(&png(200 + n, 100)))));
    for answer in join_all(uploads).await {
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gallery_of_40_new_photos_opened_in_parallel_is_shown() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let uploads = (0..40).map(|n| world.upload(&ana, "purpose=photo", png(400 + n, 300)));
    let ids: Vec<String> = join_all(uploads).await.iter().map(|answer| answer.text("id")).collect();
    world.work().await;
    let paths: Vec<String> = ids.iter().map(|id| format!("/v1/media/{id}/320")).collect();
    for answer in join_all(paths.iter().map(|path| world.get(path, &ben))).await {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[tokio::test]
async fn uploads_beyond_the_queue_are_refused_with_their_own_code() {
    let short = Duration::from_millis(30);
    let options = HttpOptions::default()
        .with_max_concurrent_uploads(2)
        .with_max_concurrent_uploads_per_account(1)
        .with_max_upload_wait(short);
    let world = World::of(Backend::builder().limits(Unlimited), options);
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    let cleo = world.join("cleo@example.org").await;
    let held = in_background(&world, upload(&ana, "avatar", stalled(png(10, 10))));
    sleep(short).await;
    let answer = world.upload(&ana, "purpose=avatar", png(11, 10)).await;
    assert_eq!(refused(&answer), (429, "too_many_uploads", "1"));
    let other = in_background(&world, upload(&ben, "avatar", stalled(png(10, 10))));
    sleep(short).await;
    let answer = world.upload(&cleo, "purpose=avatar", png(11, 10)).await;
    assert_eq!(refused(&answer), (503, "uploads_busy", "1"));
    // The longer permits are held, the longer the expected wait.
    sleep(Duration::from_millis(1_200)).await;
    let answer = world.upload(&ana, "purpose=avatar", png(11, 10)).await;
    assert_eq!(refused(&answer), (429, "too_many_uploads", "2"));
    let answer = world.upload(&cleo, "purpose=avatar", png(11, 10)).await;
    assert_eq!(refused(&answer), (503, "uploads_busy", "2"));
    held.abort();
    other.abort();
    let _ = (held.await, other.await);
    for token in [&ana, &cleo] {
        assert_eq!(world.upload(token, "purpose=avatar", png(11, 10)).await.status, 202);
    }
}

/// Even if all of them together hold more than a part in memory.
#[tokio::test]
async fn slow_uploads_of_32_accounts_do_not_stop_the_34_uploads_of_another_account() {
    let world = World::new();
    let mut slow = Vec::new();
    for n in 0..32 {
        let token = world.join(&format!("slow{n}@example.org")).await;
        for part in 0..4 {
            slow.push(in_background(&world, upload(&token, "avatar", stalled(png(10 + part, 10)))));
        }
    }
    let ana = world.join("ana@example.org").await;
    sleep(Duration::from_millis(50)).await;
    let uploads = (0..34).map(|n| world.upload(&ana, "purpose=avatar", png(20 + n, 10)));
    let answers =
        timeout(Duration::from_secs(20), join_all(uploads)).await.expect("fast uploads waited for slow ones");
    for answer in answers {
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    assert!(slow.iter().all(|upload| !upload.is_finished()));
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A picture with bytes after its end: larger than an upload may hold without a permit.
fn padded(side: u32, length: usize) -> Vec<u8> {
    let mut bytes = png(side, side);
    bytes.extend((bytes.len()..length).map(|n| (n % 251).to_le_bytes()[0]));
    bytes
}

/// A fast upload takes the only permit for a part in memory, and stalls; parts have 5 MiB.
#[tokio::test]
async fn stalled_upload_releases_its_memory_and_can_continue() {
    let options = GalleryOptions::default().with_max_upload_parts(1);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let bytes = padded(300, 7_000_000);
    let (first, last) = (Bytes::from(bytes[..6_000_000].to_vec()), Bytes::from(bytes[6_000_000..].to_vec()));
    let halves = stream::iter([Ok::<_, Infallible>(first)]).chain(stream::once(async move {
        let _ = wait.await;
        Ok(last)
    }));
    let stalled = world.raw(upload(&ana, "photo", Body::from_stream(halves)));
    let meanwhile = async {
        // Begins after the other upload has the permit.
        sleep(Duration::from_millis(100)).await;
        let answer = world.upload(&ben, "purpose=photo", padded(301, 1_000_000)).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        go_on.send(()).unwrap();
        answer.text("id")
    };
    let (answer, other) = tokio::join!(stalled, meanwhile);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let blobs = world.backend.gallery().blobs();
    for (id, bytes) in [(answer.text("id"), bytes), (other, padded(301, 1_000_000))] {
        let name =
            blob_names(&world).await.into_iter().find(|name| name.contains(&id) && name.ends_with("/upload"));
        assert!(blobs.read(&name.unwrap(), 20 << 20).await.unwrap().unwrap() == bytes, "{id}");
    }
    let none_staged = async {
        while blob_names(&world).await.len() > 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), none_staged).await.expect("staged blobs were not deleted");
}
