//! Resumable uploads with tus 1.0.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    body::{Body, Bytes},
    http::Request,
};
use couple::{
    Backend, Keyring,
    blobs::Blobs,
    core::{AccountId, UploadId, limits::Unlimited},
    gallery::{GalleryOptions, PictureRenderer, Sweep},
    http::HttpOptions,
    store::MemoryStore,
};
use data_encoding::BASE64;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    media::blob_names,
    observed_store::{ObservedStore, StoreObserver},
    world::{TestResponse, World, png},
};

const PHOTO: &str = "purpose cGhvdG8=";

async fn send(
    world: &World,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> TestResponse {
    let mut request =
        Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    if !headers.iter().any(|(name, _)| *name == "tus-resumable") {
        request = request.header("tus-resumable", "1.0.0");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = world.raw(request.body(body).unwrap()).await;
    assert_eq!(answer.headers["tus-resumable"], "1.0.0", "{method} {path}");
    answer
}

/// Creates an upload; returns its path.
pub(crate) async fn begin(world: &World, token: &str, length: usize) -> String {
    let metadata = format!("{PHOTO},placeholder {}", BASE64.encode(b"3OcRJYB4d3h_iIeHeEh3eIhw-j3A"));
    let headers = [("upload-length", length.to_string()), ("upload-metadata", metadata)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = send(world, token, "POST", "/v1/uploads", &headers, Body::empty()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    format!("/v1/{}", answer.headers["location"].to_str().unwrap())
}

pub(crate) async fn patch(world: &World, token: &str, path: &str, offset: usize, body: Body) -> TestResponse {
    let offset = offset.to_string();
    let headers = [("content-type", "application/offset+octet-stream"), ("upload-offset", offset.as_str())];
    send(world, token, "PATCH", path, &headers, body).await
}

/// Status and offset.
pub(crate) async fn at(world: &World, token: &str, path: &str) -> (u16, Option<usize>) {
    let answer = send(world, token, "HEAD", path, &[], Body::empty()).await;
    let offset = answer.headers.get("upload-offset").map(|offset| offset.to_str().unwrap().parse().unwrap());
    assert_eq!(answer.headers["cache-control"], "no-store");
    (answer.status, offset)
}

/// Sent in parts, one of which breaks off: its bytes are stored, and the upload becomes the picture.
#[tokio::test]
async fn upload_in_several_requests_becomes_a_picture() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(300, 300);
    let path = begin(&world, &ana, bytes.len()).await;
    assert_eq!(at(&world, &ana, &path).await, (200, Some(0)));
    let half = bytes.len() / 2;
    let answer = patch(&world, &ana, &path, 0, bytes[..half].to_vec().into()).await;
    assert_eq!(
        (answer.status, answer.headers["upload-offset"].to_str().unwrap()),
        (204, half.to_string().as_str())
    );
    assert!(answer.headers.contains_key("upload-expires"));
    let head = send(&world, &ana, "HEAD", &path, &[], Body::empty()).await;
    let metadata = format!("{PHOTO},placeholder {}", BASE64.encode(b"3OcRJYB4d3h_iIeHeEh3eIhw-j3A"));
    assert_eq!(head.headers["upload-metadata"].to_str().unwrap(), metadata, "as it was sent");
    assert_eq!(head.headers["upload-length"].to_str().unwrap(), bytes.len().to_string());
    assert_eq!(
        patch(&world, &ana, &path, 0, bytes[..half].to_vec().into()).await.said(),
        (409, "upload_conflict")
    );
    assert_eq!(patch(&world, &ana, &path, half + 1, vec![0].into()).await.said(), (409, "upload_conflict"));

    let piece = Ok(bytes[half..half + 100].to_vec());
    let broken = futures_util::stream::iter([piece, Err(std::io::Error::other("cut"))]);
    assert_eq!(
        patch(&world, &ana, &path, half, Body::from_stream(broken)).await.said(),
        (503, "upload_interrupted"),
        "clients repeat a 5xx"
    );
    assert_eq!(at(&world, &ana, &path).await, (200, Some(half + 100)));
    // The client disconnects: the request's future is dropped.
    let piece = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes[half + 100..half + 200].to_vec())]);
    let hanging = Body::from_stream(piece.chain(futures_util::stream::pending()));
    let given_up =
        tokio::time::timeout(Duration::from_millis(200), patch(&world, &ana, &path, half + 100, hanging));
    assert!(given_up.await.is_err());
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while at(&world, &ana, &path).await != (200, Some(half + 200)) {
        assert!(tokio::time::Instant::now() < until, "the bytes that arrived are lost");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let last = patch(&world, &ana, &path, half + 200, bytes[half + 200..].to_vec().into()).await;
    assert_eq!(last.status, 204, "{}", last.body);
    let location = last.headers["content-location"].to_str().unwrap().to_owned();
    let again = send(&world, &ana, "HEAD", &path, &[], Body::empty()).await;
    assert_eq!(again.headers["content-location"].to_str().unwrap(), location);
    assert_eq!(again.headers["upload-offset"], again.headers["upload-length"]);
    let early = world.get(&location, &ben).await;
    assert_eq!(early.text("placeholder"), "3OcRJYB4d3h/iIeHeEh3eIhw+j3A");
    assert_eq!((&early.body["state"], &early.body["width"]), (&json!("processing"), &json!(300)));
    world.work().await;
    assert_eq!(world.get(&location, &ben).await.text("state"), "ready");
    // The same bytes in one request are the same picture.
    let same = world.upload(&ana, "purpose=photo", bytes).await;
    assert_eq!((same.status, format!("/v1/media/{}", same.text("id"))), (200, location));
}

/// A client that lost the response repeats the request while the first one is running.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_completions_return_one_picture() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let me = world.get("/v1/me", &ana).await.text("id").parse().unwrap();
    let gallery = world.backend.gallery();
    for side in 300..320 {
        let bytes = png(side, side);
        let path = begin(&world, &ana, bytes.len()).await;
        // Without the HTTP layer, which would create the picture after the last byte.
        let upload = gallery.resume(me, id_of(&path)).await.unwrap();
        let mut appending = upload.append(0, None).await.unwrap();
        assert!(appending.write(bytes.clone().into()).await.unwrap());
        appending.finish().await.unwrap();
        let requests = (0..8).map(|nth: u64| {
            let (world, ana, path) = (&world, &ana, &path);
            async move {
                tokio::time::sleep(Duration::from_micros(nth * 300)).await;
                send(world, ana, "HEAD", path, &[], Body::empty()).await
            }
        });
        let mut locations = BTreeSet::new();
        for answer in futures_util::future::join_all(requests).await {
            assert_eq!(answer.status, 200, "{}", answer.body);
            locations.insert(answer.headers["content-location"].to_str().unwrap().to_owned());
        }
        assert_eq!(locations.len(), 1, "{locations:?}");
        let id = locations.pop_first().unwrap().rsplit('/').next().unwrap().parse().unwrap();
        let media = world.backend.ports().store.media(id).await.unwrap().unwrap();
        assert_eq!(media.source.as_ref().unwrap().bytes, bytes.len() as i64);
        let left = blob_names(&world).await;
        assert!(!left.iter().any(|name| name.starts_with("t/")), "completion removes the parts");
        assert_eq!(left.iter().filter(|name| name.ends_with("/upload")).count(), (side - 299) as usize);
    }
}

#[tokio::test]
async fn invalid_requests_are_refused() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let create = async |headers: &[(&str, &str)]| {
        let answer = send(&world, &ana, "POST", "/v1/uploads", headers, Body::empty()).await;
        (answer.status, answer.code().to_owned())
    };
    let is = |actual: (u16, String), status: u16, code: &str| assert_eq!(actual, (status, code.to_owned()));
    is(create(&[("upload-length", "9")]).await, 422, "invalid_field");
    is(create(&[("upload-metadata", PHOTO)]).await, 400, "malformed_request");
    is(create(&[("upload-metadata", PHOTO), ("upload-length", "-1")]).await, 400, "malformed_request");
    is(create(&[("upload-metadata", PHOTO), ("upload-length", "99999999")]).await, 413, "body_too_large");
    is(create(&[("tus-resumable", "0.2.2")]).await, 412, "unsupported_tus_version");
    is(create(&[("upload-metadata", PHOTO), ("upload-length", "0")]).await, 422, "invalid_field");
    let both = [("upload-metadata", PHOTO), ("upload-length", "9"), ("upload-defer-length", "1")];
    is(create(&both).await, 400, "malformed_request");
    is(create(&[("upload-metadata", PHOTO), ("upload-defer-length", "2")]).await, 400, "malformed_request");
    is(create(&[("upload-concat", "half"), ("upload-length", "9")]).await, 400, "malformed_request");
    let long = format!("{PHOTO},filename {}", "QUFB".repeat(600));
    is(create(&[("upload-metadata", &long), ("upload-length", "9")]).await, 422, "invalid_field");

    let path = begin(&world, &ana, 1_000).await;
    // The upload of another account, and a changed id, are not found.
    assert_eq!(at(&world, &ben, &path).await, (404, None));
    assert_eq!(at(&world, &ana, "/v1/uploads/x").await, (404, None));
    assert_eq!(patch(&world, &ana, &path, 0, vec![1; 1_001].into()).await.said(), (413, "body_too_large"));
    let plain = [("content-type", "image/png"), ("upload-offset", "0")];
    let answer = send(&world, &ana, "PATCH", &path, &plain, vec![1].into()).await;
    assert_eq!(answer.said(), (415, "unsupported_media_type"));

    let path = begin(&world, &ana, 100).await;
    assert_eq!(patch(&world, &ana, &path, 0, vec![b'x'; 100].into()).await.said(), (415, "unknown_type"));
    let path = begin(&world, &ana, 100).await;
    assert_eq!(send(&world, &ana, "DELETE", &path, &[], Body::empty()).await.status, 204);
    assert_eq!(at(&world, &ana, &path).await, (404, None));
    let path = begin(&world, &ana, 100).await;
    world.later(Duration::from_hours(25));
    assert_eq!(at(&world, &ana, &path).await, (410, None));
}

fn id_of(path: &str) -> UploadId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

async fn account_of(world: &World, token: &str) -> AccountId {
    world.get("/v1/me", token).await.text("id").parse().unwrap()
}

fn world_with(options: GalleryOptions) -> World {
    World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default())
}

/// Blobs with bytes of resumable uploads.
async fn parts(world: &World) -> Vec<String> {
    blob_names(world).await.into_iter().filter(|name| name.starts_with("t/")).collect()
}

/// A body whose bytes the test sends; it ends when the sender is dropped.
fn by_hand() -> (mpsc::Sender<io::Result<Bytes>>, Body) {
    let (send, receive) = mpsc::channel(8);
    let stream = futures_util::stream::unfold(receive, async |mut receive: mpsc::Receiver<_>| {
        receive.recv().await.map(|bytes| (bytes, receive))
    });
    (send, Body::from_stream(stream))
}

#[tokio::test]
async fn unfinished_bytes_are_counted_when_they_arrive() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let largest = 20 << 20;
    // Created before any bytes have arrived, so that the check at creation finds none.
    let mut paths = Vec::new();
    for _ in 0..8 {
        paths.push(begin(&world, &ana, largest).await);
    }
    for path in &paths[..5] {
        assert_eq!(patch(&world, &ana, path, 0, vec![1; largest - 1].into()).await.status, 204);
    }
    let answer = patch(&world, &ana, &paths[5], 0, vec![1; largest - 1].into()).await;
    assert_eq!(answer.said(), (413, "unfinished_uploads_full"));
    let store = &world.backend.ports().store;
    let me = account_of(&world, &ana).await;
    assert!(store.unfinished_uploads(me).await.unwrap().bytes <= 100 << 20);
    let headers = [("upload-length", "20971520"), ("upload-metadata", PHOTO)];
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await;
    assert_eq!(answer.said(), (413, "unfinished_uploads_full"));
    // Other accounts are not affected; cancelling an upload frees its bytes.
    let theirs = begin(&world, &ben, largest).await;
    assert_eq!(patch(&world, &ben, &theirs, 0, vec![1; 1_000].into()).await.status, 204);
    assert_eq!(send(&world, &ana, "DELETE", &paths[0], &[], Body::empty()).await.status, 204);
    let (_, offset) = at(&world, &ana, &paths[5]).await;
    let offset = offset.unwrap();
    assert_eq!(patch(&world, &ana, &paths[5], offset, vec![1; 1 << 20].into()).await.status, 204);
}

#[tokio::test]
async fn unfinished_uploads_of_all_accounts_share_a_limit() {
    let world = world_with(GalleryOptions::default().with_max_unfinished_bytes(3_000_000));
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (first, second) = (begin(&world, &ana, 9_000_000).await, begin(&world, &ben, 9_000_000).await);
    assert_eq!(patch(&world, &ana, &first, 0, vec![1; 2_000_000].into()).await.status, 204);
    assert_eq!(patch(&world, &ben, &second, 0, vec![1; 2_000_000].into()).await.said(), (503, "overloaded"));
    assert!(world.backend.ports().store.unfinished_bytes().await.unwrap() <= 3_000_000);
}

#[tokio::test]
async fn number_of_unfinished_uploads_is_limited() {
    let world = world_with(GalleryOptions::default().with_max_unfinished_uploads_per_account(3));
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    for _ in 0..3 {
        begin(&world, &ana, 10).await;
    }
    let headers = [("upload-length", "10"), ("upload-metadata", PHOTO)];
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await;
    assert_eq!(answer.said(), (413, "unfinished_uploads_full"));
}

#[tokio::test]
async fn many_tiny_requests_leave_few_blobs() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(40, 40);
    let path = begin(&world, &ana, bytes.len()).await;
    let mut most = 0;
    for (offset, byte) in bytes.iter().enumerate() {
        let answer = patch(&world, &ana, &path, offset, vec![*byte].into()).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        if offset + 1 < bytes.len() {
            most = most.max(parts(&world).await.len());
        } else {
            let location = answer.headers["content-location"].to_str().unwrap();
            world.work().await;
            assert_eq!(world.get(location, &ana).await.text("state"), "ready", "the bytes are in order");
        }
    }
    assert!(bytes.len() > 300 && most <= 12, "{most} blobs for {} requests", bytes.len());
    assert!(parts(&world).await.is_empty(), "completion removes the parts");
}

#[tokio::test]
async fn requests_that_append_are_limited() {
    let world = World::of(Backend::builder(), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let path = begin(&world, &ana, 2_000).await;
    for offset in 0..600 {
        assert_eq!(patch(&world, &ana, &path, offset, vec![1].into()).await.status, 204);
    }
    assert_eq!(patch(&world, &ana, &path, 600, vec![1].into()).await.said(), (429, "rate_limited"));
}

/// A request stalls with bytes that are not stored, and another begins at 0.
#[tokio::test]
async fn stored_bytes_are_never_overwritten_by_an_older_request() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(300, 300);
    let half = bytes.len() / 2;
    let path = begin(&world, &ana, bytes.len()).await;
    let (hand, body) = by_hand();
    let newer = async {
        hand.send(Ok(vec![0; half / 2].into())).await.unwrap();
        // The older request has claimed the upload once it has read its bytes.
        hand.reserve_many(8).await.unwrap();
        let answer = patch(&world, &ana, &path, 0, bytes[..half].to_vec().into()).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        hand.send(Err(io::Error::other("the connection died"))).await.ok();
        drop(hand);
    };
    let (older, ()) = tokio::join!(patch(&world, &ana, &path, 0, body), newer);
    assert_eq!(older.said(), (423, "upload_locked"), "clients repeat a 423");
    assert_eq!(at(&world, &ana, &path).await, (200, Some(half)));
    let last = patch(&world, &ana, &path, half, bytes[half..].to_vec().into()).await;
    let location = last.headers["content-location"].to_str().unwrap();
    // Only the right bytes are the same picture.
    let same = world.upload(&ana, "purpose=photo", bytes).await;
    assert_eq!((same.status, format!("/v1/media/{}", same.text("id"))), (200, location.to_owned()));
}

/// A stalled request holds the account's only permit.
///
/// A newer one for the same upload takes it over; one for another upload is refused with a status that clients repeat, unlike 429.
#[tokio::test]
async fn newer_request_takes_over_the_permit_of_a_stalled_one() {
    let options = HttpOptions::default()
        .with_max_concurrent_uploads_per_account(1)
        .with_max_upload_wait(Duration::from_millis(300));
    let world = World::of(Backend::builder().limits(Unlimited), options);
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (path, other) = (begin(&world, &ana, 1_000).await, begin(&world, &ana, 1_000).await);
    let (hand, body) = by_hand();
    let newer = async {
        hand.send(Ok(vec![0; 10].into())).await.unwrap();
        hand.reserve_many(8).await.unwrap();
        let refused = patch(&world, &ana, &other, 0, vec![1; 10].into()).await;
        assert_eq!(refused.said(), (503, "uploads_busy"));
        assert!(refused.headers.contains_key("retry-after"));
        assert_eq!(patch(&world, &ana, &path, 0, vec![1; 20].into()).await.status, 204);
    };
    let (older, ()) = tokio::join!(patch(&world, &ana, &path, 0, body), newer);
    assert_eq!(older.said(), (423, "upload_locked"));
    assert_eq!(
        patch(&world, &ana, &other, 0, vec![1; 10].into()).await.status,
        204,
        "the permit was returned"
    );
}

/// Two requests in two processes, which share only the store.
#[tokio::test]
async fn writer_of_another_process_is_fenced_off() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (me, path) = (account_of(&world, &ana).await, begin(&world, &ana, 1_000).await);
    let gallery = world.backend.gallery();
    let other = couple::gallery::Gallery::new(
        world.backend.ports().clone(),
        *gallery.pictures().policy(),
        gallery.blobs().clone(),
        Arc::new(PictureRenderer),
        GalleryOptions::default(),
    );
    let mut older = gallery.resume(me, id_of(&path)).await.unwrap().append(0, None).await.unwrap();
    assert!(older.write(vec![0; 50].into()).await.unwrap());
    let mut newer = other.resume(me, id_of(&path)).await.unwrap().append(0, None).await.unwrap();
    assert!(newer.write(vec![1; 100].into()).await.unwrap());
    newer.finish().await.unwrap();
    assert!(older.finish().await.is_err());
    assert_eq!(at(&world, &ana, &path).await, (200, Some(100)));
    let blobs = parts(&world).await;
    let [blob] = &blobs[..] else { panic!("{blobs:?}") };
    assert_eq!(gallery.blobs().read(blob, 1_000).await.unwrap().unwrap(), vec![1; 100]);
}

/// The time limit can be set; a unit test of `Pace` checks that a gap of 55 s is allowed by default.
#[tokio::test]
async fn stalled_request_ends_with_a_status_that_clients_repeat() {
    let options = HttpOptions::default().with_upload_timeout(Duration::from_secs(6));
    let world = World::of(Backend::builder().limits(Unlimited), options);
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let path = begin(&world, &ana, 1_000).await;
    let (hand, body) = by_hand();
    hand.send(Ok(vec![1; 10].into())).await.unwrap();
    let stored_meanwhile = async {
        while at(&world, &ana, &path).await != (200, Some(10)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!hand.is_closed(), "stored while the request is running");
        hand.closed().await;
    };
    let (answer, ()) = tokio::join!(patch(&world, &ana, &path, 0, body), stored_meanwhile);
    assert_eq!(answer.said(), (503, "upload_interrupted"));
    assert_eq!(at(&world, &ana, &path).await, (200, Some(10)));
}

#[tokio::test]
async fn upload_of_an_ended_couple_is_refused() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(300, 300);
    let path = begin(&world, &ana, bytes.len()).await;
    assert_eq!(patch(&world, &ana, &path, 0, bytes[..1_000].to_vec().into()).await.status, 204);
    let avatar =
        [("upload-length", bytes.len().to_string()), ("upload-metadata", "purpose YXZhdGFy".to_owned())];
    let avatar = avatar.each_ref().map(|(name, value)| (*name, value.as_str()));
    let avatar = send(&world, &ana, "POST", "/v1/uploads", &avatar, Body::empty()).await;
    let avatar = format!("/v1/{}", avatar.headers["location"].to_str().unwrap());
    let left = world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    assert!(left.status < 300, "{}", left.body);
    let rest = || bytes[1_000..].to_vec();
    assert_eq!(patch(&world, &ana, &path, 1_000, rest().into()).await.said(), (410, "upload_couple_ended"));
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    assert_eq!(patch(&world, &ana, &path, 1_000, rest().into()).await.said(), (410, "upload_couple_ended"));
    assert_eq!(at(&world, &ana, &path).await, (410, None));
    let answer = patch(&world, &ana, &avatar, 0, bytes.into()).await;
    assert_eq!(answer.status, 204, "an avatar belongs to no couple: {}", answer.body);
    // It counts as unfinished until it is removed.
    assert_eq!(unfinished(&world, &ana).await, 1);
    assert_eq!(send(&world, &ana, "DELETE", &path, &[], Body::empty()).await.status, 204);
    assert_eq!(unfinished(&world, &ana).await, 0);
    assert_eq!(send(&world, &ana, "DELETE", &path, &[], Body::empty()).await.status, 404);
}

/// Whole, partial and final uploads that a client queued and sends late must not belong to the next couple.
#[tokio::test]
async fn resumable_upload_for_another_couple_is_refused() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let former = world.get("/v1/couple", &ana).await.text("id");
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    let bytes = png(40, 40);
    let length = bytes.len().to_string();
    let create = async |couple: &str, headers: &[(&str, &str)]| {
        let common = [("couple-id", couple), ("content-type", "application/offset+octet-stream")];
        let headers = [&common[..], headers].concat();
        send(&world, &ana, "POST", "/v1/uploads", &headers, bytes.clone().into()).await
    };
    let photo = [("upload-length", length.as_str()), ("upload-metadata", PHOTO)];
    let partial = [("upload-length", length.as_str()), ("upload-concat", "partial")];
    assert_eq!(create(&former, &photo).await.said(), (404, "not_paired"));
    assert_eq!(create(&former, &partial).await.said(), (404, "not_paired"));
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    let current = world.get("/v1/couple", &ana).await.text("id");
    let part = create(&current, &partial).await;
    assert_eq!(part.status, 201, "{}", part.body);
    let concat = format!("final;/v1/{}", part.headers["location"].to_str().unwrap());
    let joined = [("upload-metadata", PHOTO), ("upload-concat", concat.as_str())];
    for couple in [former.as_str(), "no-id", ""] {
        for headers in [&photo, &partial, &joined] {
            assert_eq!(create(couple, headers).await.said(), (404, "not_paired"), "{couple:?} {headers:?}");
        }
    }
    assert_eq!(unfinished(&world, &ana).await, 1, "the partial upload of the current couple");
    assert_eq!(world.get("/v1/media", &cleo).await.body["media"], json!([]));
    assert_eq!(create(&current, &joined).await.status, 201);
    assert_eq!(create(&current, &photo).await.status, 201);
    let avatar = [("upload-length", length.as_str()), ("upload-metadata", "purpose YXZhdGFy")];
    assert_eq!(create(&former, &avatar).await.status, 201, "an avatar belongs to no couple");
}

/// Number of unfinished uploads of an account.
async fn unfinished(world: &World, token: &str) -> i64 {
    let token = couple::Secret::new(token.to_owned());
    let (_, account) = world.backend.accounts().unwrap().authenticate(&token).await.unwrap();
    world.backend.ports().store.unfinished_uploads(account.id).await.unwrap().count
}

/// Delays the answer to how many uploads are unfinished, so that concurrent requests all see the same number.
struct LateNumber;

#[async_trait]
impl StoreObserver for LateNumber {
    async fn before(&self, _: &'static str) {}
    async fn after(&self, what: &'static str) {
        if what == "unfinished_uploads" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn concurrent_creations_do_not_exceed_the_number_of_unfinished_uploads() {
    let builder = Backend::builder()
        .store(ObservedStore(MemoryStore::new(), Arc::new(LateNumber)))
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .limits(Unlimited)
        .gallery(GalleryOptions::default().with_max_unfinished_uploads_per_account(5));
    let world = Arc::new(World::of(builder, HttpOptions::default()));
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let mut creations = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (world, ana) = (world.clone(), ana.clone());
        creations.spawn(async move {
            let headers = [("upload-length", "9"), ("upload-metadata", PHOTO)];
            send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await
        });
    }
    let mut created = 0;
    while let Some(answer) = creations.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 201 {
            created += 1;
        } else {
            assert_eq!(answer.said(), (413, "unfinished_uploads_full"));
        }
    }
    assert_eq!((created, unfinished(&world, &ana).await), (5, 5));
}

#[tokio::test]
async fn one_idempotency_key_for_several_uploads_delays_no_picture() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let mut locations = BTreeSet::new();
    for side in [300, 301] {
        let bytes = png(side, side);
        let path = begin(&world, &ana, bytes.len()).await;
        let headers = [
            ("content-type", "application/offset+octet-stream"),
            ("upload-offset", "0"),
            ("idempotency-key", "the same for each"),
        ];
        let answer = send(&world, &ana, "PATCH", &path, &headers, bytes.into()).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
        locations.insert(answer.headers["content-location"].to_str().unwrap().to_owned());
    }
    assert_eq!((locations.len(), unfinished(&world, &ana).await), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_final_uploads_of_the_same_parts_all_have_the_picture() {
    let world = Arc::new(World::new());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    for side in 300..310 {
        let bytes = png(side, side);
        let length = bytes.len().to_string();
        let headers = [
            ("upload-concat", "partial"),
            ("upload-length", length.as_str()),
            ("content-type", "application/offset+octet-stream"),
        ];
        let part = send(&world, &ana, "POST", "/v1/uploads", &headers, bytes.into()).await;
        assert_eq!(part.status, 201, "{}", part.body);
        let concat = format!("final;/v1/{}", part.headers["location"].to_str().unwrap());
        let mut finals = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (world, ana, concat) = (world.clone(), ana.clone(), concat.clone());
            finals.spawn(async move {
                let headers = [("upload-concat", concat.as_str()), ("upload-metadata", PHOTO)];
                send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await
            });
        }
        let mut locations = BTreeSet::new();
        while let Some(answer) = finals.join_next().await {
            let answer = answer.unwrap();
            if answer.status == 201 {
                let path = format!("/v1/{}", answer.headers["location"].to_str().unwrap());
                let head = send(&world, &ana, "HEAD", &path, &[], Body::empty()).await;
                assert_eq!(head.status, 200, "the upload does not exist");
                assert_eq!(head.headers["content-location"], answer.headers["content-location"]);
                locations.insert(answer.headers["content-location"].to_str().unwrap().to_owned());
            } else {
                let refusals = [(423, "upload_locked"), (404, "upload_not_found")];
                assert!(refusals.contains(&answer.said()), "{}", answer.body);
            }
        }
        assert_eq!(locations.len(), 1);
    }
    assert_eq!(unfinished(&world, &ana).await, 0);
}

#[tokio::test]
async fn first_bytes_may_be_sent_with_the_creation() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let answer = send(&world, &ana, "OPTIONS", "/v1/uploads", &[], Body::empty()).await;
    let extensions =
        "creation,creation-with-upload,creation-defer-length,concatenation,termination,expiration";
    assert_eq!(answer.headers["tus-extension"], extensions);
    let bytes = png(300, 300);
    let length = bytes.len().to_string();
    let headers = [
        ("upload-length", length.as_str()),
        ("upload-metadata", PHOTO),
        ("content-type", "application/offset+octet-stream"),
    ];
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, bytes[..700].to_vec().into()).await;
    assert_eq!((answer.status, answer.headers["upload-offset"].to_str().unwrap()), (201, "700"));
    let path = format!("/v1/{}", answer.headers["location"].to_str().unwrap());
    assert_eq!(patch(&world, &ana, &path, 700, bytes[700..].to_vec().into()).await.status, 204);
    // All bytes; then a connection that breaks: the upload exists nevertheless.
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, bytes.clone().into()).await;
    assert_eq!(answer.status, 201);
    assert!(answer.headers.contains_key("content-location"));
    let broken = futures_util::stream::iter([Ok(bytes[..90].to_vec()), Err(io::Error::other("cut"))]);
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, Body::from_stream(broken)).await;
    assert_eq!((answer.status, answer.headers["upload-offset"].to_str().unwrap()), (201, "90"));
}

#[tokio::test]
async fn length_may_be_declared_later() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(300, 300);
    let headers = [("upload-defer-length", "1"), ("upload-metadata", PHOTO)];
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await;
    assert_eq!((answer.status, &answer.headers["upload-defer-length"]), (201, &"1".parse().unwrap()));
    let path = format!("/v1/{}", answer.headers["location"].to_str().unwrap());
    assert_eq!(patch(&world, &ana, &path, 0, bytes[..500].to_vec().into()).await.status, 204);
    let head = send(&world, &ana, "HEAD", &path, &[], Body::empty()).await;
    assert_eq!(head.headers["upload-defer-length"], "1");
    assert!(!head.headers.contains_key("upload-length"));
    let declare = async |length: usize, offset: usize, body: Vec<u8>| {
        let (length, offset) = (length.to_string(), offset.to_string());
        let headers = [
            ("content-type", "application/offset+octet-stream"),
            ("upload-offset", offset.as_str()),
            ("upload-length", length.as_str()),
        ];
        send(&world, &ana, "PATCH", &path, &headers, body.into()).await
    };
    assert_eq!(declare(99_999_999, 500, vec![1]).await.said(), (413, "body_too_large"));
    assert_eq!(declare(499, 500, vec![]).await.said(), (400, "malformed_request"));
    assert_eq!(declare(bytes.len(), 500, bytes[500..600].to_vec()).await.status, 204);
    assert_eq!(declare(bytes.len() + 1, 600, vec![]).await.said(), (400, "malformed_request"));
    let last = declare(bytes.len(), 600, bytes[600..].to_vec()).await;
    assert!(last.headers.contains_key("content-location"), "{}", last.body);
}

#[tokio::test]
async fn partial_uploads_are_joined() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(300, 300);
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let partial = async |token: &str, length: usize| {
        let length = length.to_string();
        let headers = [("upload-concat", "partial"), ("upload-length", length.as_str())];
        let answer = send(&world, token, "POST", "/v1/uploads", &headers, Body::empty()).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        format!("/v1/{}", answer.headers["location"].to_str().unwrap())
    };
    let join = async |urls: &[&str]| {
        let concat = format!("final;{}", urls.join(" "));
        let headers = [("upload-concat", concat.as_str()), ("upload-metadata", PHOTO)];
        send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await
    };
    let (one, two) = (partial(&ana, first.len()).await, partial(&ana, second.len()).await);
    assert_eq!(patch(&world, &ana, &one, 0, first.to_vec().into()).await.status, 204);
    assert_eq!(patch(&world, &ana, &two, 0, second[..50].to_vec().into()).await.status, 204);
    assert_eq!(join(&[&one, &two]).await.said(), (409, "upload_incomplete"));
    assert_eq!(patch(&world, &ana, &two, 50, second[50..].to_vec().into()).await.status, 204);
    let head = send(&world, &ana, "HEAD", &two, &[], Body::empty()).await;
    assert_eq!(head.headers["upload-concat"], "partial");
    assert!(!head.headers.contains_key("content-location"), "no picture is made of a part");

    let theirs = partial(&ben, 5).await;
    assert_eq!(patch(&world, &ben, &theirs, 0, vec![1; 5].into()).await.status, 204);
    assert_eq!(join(&[&one, &theirs]).await.said(), (404, "upload_not_found"));
    assert_eq!(join(&[&one, &one]).await.said(), (409, "upload_incomplete"));
    assert_eq!(join(&["/v1/media/x"]).await.said(), (400, "malformed_request"));

    let absolute = format!("https://app.example.org{two}");
    let whole = join(&[&one, &absolute]).await;
    assert_eq!(whole.status, 201, "{}", whole.body);
    let location = whole.headers["content-location"].to_str().unwrap();
    let same = world.upload(&ana, "purpose=photo", bytes.clone()).await;
    assert_eq!((same.status, format!("/v1/media/{}", same.text("id"))), (200, location.to_owned()));
    let path = format!("/v1/{}", whole.headers["location"].to_str().unwrap());
    let head = send(&world, &ana, "HEAD", &path, &[], Body::empty()).await;
    assert_eq!(head.headers["upload-concat"].to_str().unwrap(), format!("final;{one} {absolute}"));
    assert_eq!(head.headers["upload-length"].to_str().unwrap(), bytes.len().to_string());
    assert_eq!(patch(&world, &ana, &path, bytes.len(), vec![].into()).await.said(), (403, "upload_is_final"));
    assert_eq!(at(&world, &ana, &one).await, (404, None), "the final upload has taken over its parts");
    assert_eq!(parts(&world).await.len(), 1, "only the other account's part is left");
}

#[tokio::test]
async fn any_number_of_expired_uploads_is_removed() {
    let world = world_with(GalleryOptions::default().with_max_unfinished_uploads_per_account(1_000));
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let me = account_of(&world, &ana).await;
    let mut last = None;
    for n in 0..450 {
        let path = begin(&world, &ana, 100).await;
        if n % 10 == 0 {
            assert_eq!(patch(&world, &ana, &path, 0, vec![1; 9].into()).await.status, 204);
        }
        last = Some(path);
    }
    assert_eq!(world.backend.ports().store.unfinished_uploads(me).await.unwrap().count, 450);
    world.later(Duration::from_hours(25));
    let ports = world.backend.ports();
    ports.commit(vec![ports.enqueue(&couple::gallery::ExpireUploads {}).unwrap()]).await.unwrap();
    world.work().await;
    assert_eq!(world.backend.ports().store.unfinished_uploads(me).await.unwrap().count, 0);
    assert!(parts(&world).await.is_empty());
    let ana = world.sign_in("ana@example.org").await;
    assert_eq!(at(&world, &ana, &last.unwrap()).await, (404, None));
}

/// The sweep deletes any number of bytes that no row names, from the position at which it stopped.
#[tokio::test]
async fn sweep_deletes_leftover_parts_beyond_its_cap_and_continues() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (me, gallery) = (account_of(&world, &ana).await, world.backend.gallery());
    let photo = world.photo(&ana, 300).await;
    for n in 0..2_500 {
        gallery
            .blobs()
            .put(&format!("t/{me}/{}", "a".repeat(n % 40 + 1) + &"b".repeat(n / 40)), vec![1].into())
            .await
            .unwrap();
    }
    // Blobs have the machine's time, which is later than the test's clock.
    world.later(Duration::from_hours(24 * 365 * 20));
    // One page per run.
    let sweep = || gallery.sweep(Sweep { cap: 1, time: Duration::ZERO, ..Sweep::default() });
    let mut removed = 0;
    for run in 0.. {
        let report = sweep().await.unwrap();
        removed += report.upload_parts;
        assert!(report.orphans.is_empty());
        if !blob_names(&world).await.contains("sweep-blobs") {
            assert!(run >= 2, "it deletes one page per run");
            break;
        }
    }
    assert_eq!(removed, 2_500);
    let ana = world.sign_in("ana@example.org").await;
    assert_eq!(world.get(&format!("/v1/media/{photo}"), &ana).await.text("state"), "ready");
}
