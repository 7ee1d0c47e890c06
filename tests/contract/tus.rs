//! Uploads that resume, by tus 1.0.

use std::{collections::BTreeSet, time::Duration};

use axum::{body::Body, http::Request};
use couple::media::Purpose;
use data_encoding::BASE64;
use futures_util::StreamExt as _;
use serde_json::json;

use crate::{
    media::kept,
    world::{Answer, World, png},
};

const PHOTO: &str = "purpose cGhvdG8=";

async fn send(
    world: &World,
    token: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Answer {
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

/// Begins one; its path.
async fn begin(world: &World, token: &str, length: usize) -> String {
    let metadata = format!("{PHOTO},placeholder {}", BASE64.encode(b"3OcRJYB4d3h_iIeHeEh3eIhw-j3A"));
    let headers = [("upload-length", length.to_string()), ("upload-metadata", metadata)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = send(world, token, "POST", "/v1/uploads", &headers, Body::empty()).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    format!("/v1/{}", answer.headers["location"].to_str().unwrap())
}

async fn patch(world: &World, token: &str, path: &str, offset: usize, body: Body) -> Answer {
    let offset = offset.to_string();
    let headers = [("content-type", "application/offset+octet-stream"), ("upload-offset", offset.as_str())];
    send(world, token, "PATCH", path, &headers, body).await
}

/// Status and offset.
async fn at(world: &World, token: &str, path: &str) -> (u16, Option<usize>) {
    let answer = send(world, token, "HEAD", path, &[], Body::empty()).await;
    let offset = answer.headers.get("upload-offset").map(|offset| offset.to_str().unwrap().parse().unwrap());
    assert_eq!(answer.headers["cache-control"], "no-store");
    (answer.status, offset)
}

/// In pieces, one of which breaks off: what came of it is kept, and the whole is the picture.
#[tokio::test]
async fn in_pieces() {
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
    assert_eq!(
        patch(&world, &ana, &path, 0, bytes[..half].to_vec().into()).await.said(),
        (409, "upload_conflict")
    );
    assert_eq!(patch(&world, &ana, &path, half + 1, vec![0].into()).await.said(), (409, "upload_conflict"));

    let piece = Ok(bytes[half..half + 100].to_vec());
    let broken = futures_util::stream::iter([piece, Err(std::io::Error::other("cut"))]);
    assert_eq!(
        patch(&world, &ana, &path, half, Body::from_stream(broken)).await.said(),
        (400, "malformed_request")
    );
    assert_eq!(at(&world, &ana, &path).await, (200, Some(half + 100)));
    // Whoever asks goes away: the request itself is dropped.
    let piece = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes[half + 100..half + 200].to_vec())]);
    let hanging = Body::from_stream(piece.chain(futures_util::stream::pending()));
    let given_up =
        tokio::time::timeout(Duration::from_millis(200), patch(&world, &ana, &path, half + 100, hanging));
    assert!(given_up.await.is_err());
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    while at(&world, &ana, &path).await != (200, Some(half + 200)) {
        assert!(tokio::time::Instant::now() < until, "what came is lost");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let last = patch(&world, &ana, &path, half + 200, bytes[half + 200..].to_vec().into()).await;
    assert_eq!(last.status, 204, "{}", last.body);
    let place = last.headers["content-location"].to_str().unwrap().to_owned();
    let again = send(&world, &ana, "HEAD", &path, &[], Body::empty()).await;
    assert_eq!(again.headers["content-location"].to_str().unwrap(), place);
    assert_eq!(again.headers["upload-offset"], again.headers["upload-length"]);
    let early = world.get(&place, &ben).await;
    assert_eq!(early.text("placeholder"), "3OcRJYB4d3h/iIeHeEh3eIhw+j3A");
    assert_eq!((&early.body["state"], &early.body["width"]), (&json!("processing"), &json!(300)));
    world.work().await;
    assert_eq!(world.get(&place, &ben).await.text("state"), "ready");
    // The same bytes by one request are the same picture.
    let same = world.upload(&ana, "purpose=photo", bytes).await;
    assert_eq!((same.status, format!("/v1/media/{}", same.text("id"))), (200, place));
}

/// A client that lost the answer asks while the first goes on: all of them answer the one picture, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn completed_by_many_at_once() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let me = world.get("/v1/me", &ana).await.text("id").parse().unwrap();
    let gallery = world.backend.gallery();
    for side in 300..320 {
        let bytes = png(side, side);
        let upload = gallery.begin(me, Purpose::Photo.into(), bytes.len() as u64).await.unwrap();
        for (nth, part) in bytes.chunks(bytes.len() / 50).enumerate() {
            let (send, written) = upload.write((nth * (bytes.len() / 50)) as u64);
            send.send(part.to_vec().into()).await.unwrap();
            drop(send);
            written.await.unwrap().unwrap();
        }
        let path = format!("/v1/uploads/{}", upload.name());
        let asked = (0..8).map(|nth: u64| {
            let (world, ana, path) = (&world, &ana, &path);
            async move {
                tokio::time::sleep(Duration::from_micros(nth * 300)).await;
                send(world, ana, "HEAD", path, &[], Body::empty()).await
            }
        });
        let mut places = BTreeSet::new();
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.status, 200, "{}", answer.body);
            places.insert(answer.headers["content-location"].to_str().unwrap().to_owned());
        }
        assert_eq!(places.len(), 1, "{places:?}");
        let id = places.pop_first().unwrap().rsplit('/').next().unwrap().parse().unwrap();
        let media = world.backend.ports().store.media(id).await.unwrap().unwrap();
        assert_eq!(media.source.as_ref().unwrap().bytes, bytes.len() as i64);
        let left = kept(&world).await;
        assert!(left.iter().filter(|name| name.starts_with("t/")).all(|name| name.ends_with("/done")));
        assert_eq!(left.iter().filter(|name| name.ends_with("/upload")).count(), (side - 299) as usize);
    }
}

#[tokio::test]
async fn what_is_refused() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let create = async |headers: &[(&str, &str)]| {
        let answer = send(&world, &ana, "POST", "/v1/uploads", headers, Body::empty()).await;
        (answer.status, answer.code().to_owned())
    };
    let is = |said: (u16, String), status: u16, code: &str| assert_eq!(said, (status, code.to_owned()));
    is(create(&[("upload-length", "9")]).await, 422, "invalid_field");
    is(create(&[("upload-metadata", PHOTO)]).await, 400, "malformed_request");
    is(create(&[("upload-metadata", PHOTO), ("upload-length", "-1")]).await, 400, "malformed_request");
    is(create(&[("upload-metadata", PHOTO), ("upload-length", "99999999")]).await, 413, "body_too_large");
    is(create(&[("tus-resumable", "0.2.2")]).await, 412, "unsupported_tus_version");

    let path = begin(&world, &ana, 1_000).await;
    // Another's, and one that was changed, are none.
    assert_eq!(at(&world, &ben, &path).await, (404, None));
    assert_eq!(at(&world, &ana, &path.replace("-1000-", "-2000-")).await, (404, None));
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

/// Unfinished ones have room for five of the largest, together.
#[tokio::test]
async fn so_many_unfinished() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let largest = 20 << 20;
    for _ in 0..4 {
        let path = begin(&world, &ana, largest).await;
        assert_eq!(patch(&world, &ana, &path, 0, vec![1; largest - 1].into()).await.status, 204);
    }
    let headers = [("upload-length", "20971520"), ("upload-metadata", PHOTO)];
    begin(&world, &ana, largest).await;
    let path = begin(&world, &ana, largest).await;
    assert_eq!(patch(&world, &ana, &path, 0, vec![1; largest - 1].into()).await.status, 204);
    let answer = send(&world, &ana, "POST", "/v1/uploads", &headers, Body::empty()).await;
    assert_eq!(answer.said(), (409, "quota_exceeded"));
}
