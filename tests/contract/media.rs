//! Pictures: upload, states, renditions, access, quotas, deletion, sweep.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use couple::{
    Backend,
    core::limits::Unlimited,
    gallery::{GalleryOptions, Sweep, SweepReport},
    http::HttpOptions,
    media,
};
use futures_util::TryStreamExt as _;
use image::ImageFormat;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::world::{TestResponse, World, png};

const NOBODY: &str = "0190aaaa-0000-7000-8000-000000000000";

/// Status, headers and body of a response.
async fn fetch(
    world: &World,
    path: &str,
    token: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, Vec<u8>) {
    let mut request = Request::get(path).header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = world.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    (head.status.as_u16(), head.headers, to_bytes(body, 1 << 24).await.unwrap().to_vec())
}

async fn show(world: &World, token: &str, id: &str) -> i64 {
    let body = json!({"client_id": id, "kind": "photo", "body": {"media_id": id}});
    let answer = world.post("/v1/couple/entries", token, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body["seq"].as_i64().unwrap()
}

/// Entries in the frames after `seq`.
async fn entries_after(world: &World, token: &str, seq: i64) -> Vec<Value> {
    let answer = world.get(&format!("/v1/couple/live?after={seq}&wait=0"), token).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let frames = answer.body["frames"].as_array().unwrap().iter();
    frames.filter(|frame| frame["type"] == "entry").map(|frame| frame["entry"].clone()).collect()
}

pub(crate) async fn blob_names(world: &World) -> BTreeSet<String> {
    world.backend.gallery().blobs().list("").map_ok(|blob| blob.name).try_collect().await.unwrap()
}

fn status_and_code(answer: &TestResponse) -> (u16, String) {
    (answer.status, answer.code().to_owned())
}

/// The partner sees the entry immediately, is notified when the picture is ready, and can load it.
#[tokio::test]
async fn photo_becomes_ready_and_has_renditions() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    // The client's own ThumbHash, with an unescaped `+`.
    let uploaded =
        world.upload(&ana, "purpose=photo&placeholder=3OcRJYB4d3h/iIeHeEh3eIhw+j3A", png(1200, 600)).await;
    assert_eq!((uploaded.status, uploaded.text("state")), (202, "processing".to_owned()));
    let early = json!({"state": "processing", "placeholder": "3OcRJYB4d3h/iIeHeEh3eIhw+j3A", "width": 1200, "height": 600});
    for (field, value) in early.as_object().unwrap() {
        assert_eq!(&uploaded.body[field], value, "{field}");
    }
    let id = uploaded.text("id");
    let path = format!("/v1/media/{id}");
    assert_eq!(world.get(&format!("{path}/320"), &ben).await.said(), (409, "media_processing"));
    let seq = show(&world, &ana, &id).await;
    let entry = &entries_after(&world, &ben, seq - 1).await[0];
    assert_eq!(
        (entry["kind"].as_str(), entry["body"]["media_id"].as_str()),
        (Some("photo"), Some(id.as_str()))
    );
    assert_eq!(entry["body"]["media"], early);

    world.work().await;
    let entry = &entries_after(&world, &ben, seq).await[0];
    assert_eq!(
        (entry["kind"].as_str(), entry["body"]["media_id"].as_str()),
        (Some("media_ready"), Some(id.as_str()))
    );
    let picture = world.get(&path, &ben).await;
    assert_eq!(picture.text("state"), "ready");
    assert!((20..60).contains(&picture.text("placeholder").len()));
    assert_ne!(picture.body["placeholder"], early["placeholder"]);
    for field in ["placeholder", "width", "height", "animated", "alpha"] {
        assert_eq!(entry["body"][field], picture.body[field], "{field}");
    }
    assert_eq!((&picture.body["width"], &picture.body["height"]), (&json!(1200), &json!(600)));
    let sizes = picture.body["renditions"].as_array().unwrap().to_vec();
    let named: Vec<_> =
        sizes.iter().map(|size| (size["name"].as_str().unwrap(), size["width"].as_u64().unwrap())).collect();
    assert_eq!(named, [("4096", 1200), ("2048", 1200), ("1080", 1080), ("320", 320)]);

    for size in &sizes {
        let url = size["url"].as_str().unwrap().strip_prefix("http://127.0.0.1:8080").unwrap();
        for (accept, kind, format) in
            [("image/webp,*/*", "image/webp", ImageFormat::WebP), ("*/*", "image/jpeg", ImageFormat::Jpeg)]
        {
            let (status, headers, bytes) = fetch(&world, url, &ben, &[("accept", accept)]).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, kind));
            let pixels = image::load_from_memory_with_format(&bytes, format).unwrap();
            assert_eq!(u64::from(pixels.width()), size["width"].as_u64().unwrap());
            assert_eq!(u64::from(pixels.height()), size["height"].as_u64().unwrap());
            assert_eq!(headers["content-length"].to_str().unwrap(), bytes.len().to_string());
            assert_eq!(headers["cache-control"], "private, max-age=31536000, immutable");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["content-security-policy"], "default-src 'none'");
            assert!(headers["vary"].to_str().unwrap().contains("accept"));
        }
    }
    assert_eq!(world.get(&format!("{path}/321"), &ben).await.said(), (404, "media_not_found"));
}

/// A cached picture is not sent again, and a range of it can be requested (RFC 9110).
#[tokio::test]
async fn etags_and_ranges_are_supported() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let path = format!("/v1/media/{}/320", world.photo(&ana, 700).await);
    let (_, headers, whole) = fetch(&world, &path, &ben, &[]).await;
    assert_eq!(headers.get_all("etag").iter().count(), 1);
    let tag = headers["etag"].to_str().unwrap().to_owned();
    for tags in [tag.as_str(), "*", &format!("\"other\", W/{tag}")] {
        let (status, headers, bytes) = fetch(&world, &path, &ben, &[("if-none-match", tags)]).await;
        assert_eq!((status, bytes.len(), headers["etag"].to_str().unwrap()), (304, 0, tag.as_str()));
    }
    assert_eq!(fetch(&world, &path, &ben, &[("if-none-match", "\"other\"")]).await.2, whole);
    let (status, headers, part) = fetch(&world, &path, &ben, &[("range", "bytes=100-299")]).await;
    assert_eq!((status, &part[..]), (206, &whole[100..300]));
    assert_eq!(headers["content-range"].to_str().unwrap(), format!("bytes 100-299/{}", whole.len()));
    let (_, _, part) = fetch(&world, &path, &ben, &[("range", "bytes=-50"), ("if-range", &tag)]).await;
    assert_eq!(part, whole[whole.len() - 50..]);
    let (status, _, part) =
        fetch(&world, &path, &ben, &[("range", "bytes=0-1"), ("if-range", "\"other\"")]).await;
    assert_eq!((status, part), (200, whole.clone()));
    let (status, headers, _) = fetch(&world, &path, &ben, &[("range", "bytes=9999999-")]).await;
    assert_eq!(
        (status, headers["content-range"].to_str().unwrap()),
        (416, format!("bytes */{}", whole.len()).as_str())
    );
}

/// The same bytes are the same picture, whatever the other parameters.
#[tokio::test]
async fn repeated_upload_returns_the_same_picture() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let first = world.upload(&ana, "purpose=photo", png(300, 200)).await;
    let before = blob_names(&world).await;
    let second = world.upload(&ana, "purpose=photo", png(300, 200)).await;
    assert_eq!((first.status, second.status), (202, 200));
    assert_eq!((first.text("id"), blob_names(&world).await), (second.text("id"), before));
    world.work().await;
    assert_eq!(world.upload(&ana, "purpose=photo", png(300, 200)).await.text("state"), "ready");
    assert_ne!(world.upload(&ben, "purpose=photo", png(300, 200)).await.text("id"), first.text("id"));

    // With an idempotency key, another picture is a different request.
    let keyed = async |bytes: Vec<u8>| {
        let request = Request::post("/v1/media?purpose=photo")
            .header("authorization", format!("Bearer {ana}"))
            .header("idempotency-key", "k");
        world.raw(request.body(Body::from(bytes)).unwrap()).await
    };
    let one = keyed(png(100, 100)).await;
    assert_eq!((one.status, keyed(png(100, 100)).await.text("id")), (202, one.text("id")));
    assert_eq!(keyed(png(101, 100)).await.said(), (422, "idempotency_key_reused"));
}

/// Other accounts cannot see a picture; after the couple has ended, only its owner can.
#[tokio::test]
async fn picture_is_visible_to_the_couple_only() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (cleo, _) = world.couple("cleo@example.org", "dan@example.org").await;
    let id = world.photo(&ana, 400).await;
    let paths = [format!("/v1/media/{id}"), format!("/v1/media/{id}/320"), format!("/v1/media/{id}/1080")];
    for path in &paths {
        let nobody = path.replace(&id, NOBODY);
        assert_eq!(fetch(&world, path, &ben, &[]).await.0, 200);
        assert_eq!(
            status_and_code(&world.get(path, &cleo).await),
            status_and_code(&world.get(&nobody, &cleo).await)
        );
    }
    assert_eq!(world.call("DELETE", &paths[0], Some(&ben), None).await.said(), (404, "media_not_found"));
    // It cannot be used by another account either.
    for token in [&ben, &cleo] {
        let body = json!({"client_id": "x", "kind": "photo", "body": {"media_id": id}});
        assert_eq!(world.post("/v1/couple/entries", token, body).await.said(), (404, "media_not_found"));
        let avatar = world.call("PUT", "/v1/me/avatar", Some(token), Some(json!({"media_id": id}))).await;
        assert_eq!(avatar.said(), (404, "media_not_found"));
    }
    world.call("DELETE", "/v1/couple", Some(&ben), None).await;
    for path in &paths {
        assert_eq!(world.get(path, &ben).await.said(), (404, "media_not_found"));
        assert_eq!(fetch(&world, path, &ana, &[]).await.0, 200);
    }
    let late = world.upload(&ana, "purpose=photo", png(10, 10)).await;
    assert_eq!(late.said(), (404, "not_paired"));
}

/// Rejected without storing anything; errors found while decoding become the picture's state.
#[tokio::test]
async fn other_files_are_rejected() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for bytes in
        [&b""[..], b"x", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"%PDF-1.7 and more"]
    {
        assert_eq!(world.upload(&ana, "purpose=photo", bytes.to_vec()).await.said(), (415, "unknown_type"));
    }
    for query in [
        "",
        "purpose=",
        "purpose=cover",
        "purpose=photo&crop=0,0,10,10",
        "purpose=avatar&crop=0,0,0,10",
        "purpose=avatar&crop=1,2,3",
        "purpose=avatar&crop=-1,2,3,4",
        "purpose=photo&placeholder=",
        "purpose=photo&placeholder=YWJj",
        "purpose=photo&placeholder=no!hash",
        &format!("purpose=photo&placeholder={}", "A".repeat(56)),
    ] {
        assert_eq!(world.upload(&ana, query, png(10, 10)).await.said(), (422, "invalid_field"), "{query}");
    }
    let form = Request::post("/v1/media?purpose=photo")
        .header("authorization", format!("Bearer {ana}"))
        .header("content-type", "multipart/form-data; boundary=x");
    let form = world.raw(form.body(Body::from("--x--")).unwrap()).await;
    assert_eq!(form.said(), (422, "invalid_field"));
    assert_eq!(form.body["errors"][0], json!({"field": "file", "code": "required"}));
    assert!(blob_names(&world).await.is_empty());

    let truncated = png(300, 300)[..2_000].to_vec();
    let answer = world.upload(&ana, "purpose=photo", truncated).await;
    let id = answer.text("id");
    let seq = show(&world, &ana, &id).await;
    world.work().await;
    let picture = world.get(&format!("/v1/media/{id}"), &ben).await;
    assert_eq!(
        (picture.text("state"), picture.text("reason")),
        ("rejected".to_owned(), "truncated".to_owned())
    );
    assert_eq!(world.get(&format!("/v1/media/{id}/320"), &ben).await.said(), (410, "media_gone"));
    let entry = &entries_after(&world, &ben, seq).await[0];
    assert_eq!((&entry["kind"], &entry["body"]["reason"]), (&json!("media_rejected"), &json!("truncated")));
    assert!(blob_names(&world).await.is_empty());
}

/// If the session ends during an upload, no picture is stored.
#[tokio::test]
async fn end_of_the_session_cancels_its_upload() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (send, receive) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let pieces = futures_util::stream::unfold(receive, |mut receive| async move {
        Some((Ok::<_, std::io::Error>(receive.recv().await?), receive))
    });
    let request = Request::post("/v1/media?purpose=photo").header("authorization", format!("Bearer {ana}"));
    let upload = world.raw(request.body(Body::from_stream(pieces)).unwrap());
    let meanwhile = async {
        let bytes = png(200, 200);
        let (first, last) = bytes.split_at(bytes.len() / 2);
        send.send(first.to_vec()).await.unwrap();
        // The bytes were accepted, so the upload is in progress.
        send.send(last.to_vec()).await.unwrap();
        assert_eq!(world.call("DELETE", "/v1/sessions/current", Some(&ana), None).await.status, 204);
        drop(send);
    };
    let (answer, ()) = tokio::join!(upload, meanwhile);
    assert_eq!(answer.said(), (401, "unauthenticated"));
    assert!(blob_names(&world).await.is_empty());
}

/// Rejected before reading if the length is declared, and otherwise at the limit.
#[tokio::test]
async fn large_slow_and_too_many_uploads_are_rejected() {
    let limits = {
        let limits = couple::picture::Limits::default().with_bytes(100_000);
        GalleryOptions::default().with_limits(limits)
    };
    let options = HttpOptions::default().with_upload_timeout(Duration::from_millis(300));
    let policy = media::MediaPolicy::default().with_couple_quota(150_000);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(limits).pictures(policy), options);
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let mut large = png(10, 10);
    large.resize(100_001, 0);
    assert_eq!(world.upload(&ana, "purpose=photo", large.clone()).await.said(), (413, "body_too_large"));
    let streamed = |bytes: Vec<u8>, open: bool| {
        let pieces: Vec<_> =
            bytes.chunks(1_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let pieces = futures_util::stream::iter(pieces);
        let request =
            Request::post("/v1/media?purpose=photo").header("authorization", format!("Bearer {ana}"));
        let body = match open {
            true => {
                Body::from_stream(futures_util::StreamExt::chain(pieces, futures_util::stream::pending()))
            }
            false => Body::from_stream(pieces),
        };
        request.body(body).unwrap()
    };
    assert_eq!(world.raw(streamed(large, false)).await.said(), (413, "body_too_large"));
    assert_eq!(world.raw(streamed(png(10, 10), true)).await.said(), (408, "body_timed_out"));
    assert!(blob_names(&world).await.is_empty());

    // The quota counts accepted pictures; a rejected one leaves no bytes.
    let padded = |side: u32| {
        let mut bytes = png(side, side);
        bytes.resize(90_000, 0);
        bytes
    };
    assert_eq!(world.upload(&ana, "purpose=photo", padded(10)).await.status, 202);
    let one = blob_names(&world).await;
    assert_eq!(world.upload(&ana, "purpose=photo", padded(11)).await.said(), (409, "quota_exceeded"));
    assert_eq!(world.raw(streamed(padded(12), false)).await.said(), (409, "quota_exceeded"));
    assert_eq!(blob_names(&world).await, one);
}

/// Visible to the partner and, in a small size, to recipients of an invite.
#[tokio::test]
async fn avatar_is_cropped_and_shown_to_the_partner_and_in_invites() {
    let world = World::new();
    let (ana, ben) = (world.join("ana@example.org").await, world.join("ben@example.org").await);
    let uploaded = world.upload(&ana, "purpose=avatar&crop=100,0,300,300", png(600, 300)).await;
    assert_eq!(uploaded.status, 202, "{}", uploaded.body);
    let id = uploaded.text("id");
    let set =
        async |id: &str| world.call("PUT", "/v1/me/avatar", Some(&ana), Some(json!({"media_id": id}))).await;
    assert_eq!(set(&id).await.status, 204);
    assert_eq!(world.get("/v1/me", &ana).await.body["avatar"]["state"], "processing");
    world.work().await;
    let mine = world.get("/v1/me", &ana).await;
    assert_eq!(mine.body["avatar"]["renditions"].as_array().unwrap().len(), 4);
    let before = world.backend.gallery().stats().rendered;

    let invite = world.post("/v1/invites", &ana, json!({})).await.text("code");
    let seen = world.post("/v1/invites/preview", &ben, json!({"code": invite})).await;
    let data = seen.body["from"]["avatar"].as_str().unwrap();
    assert!(data.starts_with("data:image/jpeg;base64,/9j/") && data.len() < 20_000, "{data}");
    // An invite can be previewed without the picture.
    let blobs = world.backend.gallery().blobs();
    let glimpsed = blob_names(&world).await.into_iter().find(|name| name.contains("/128-")).unwrap();
    let bytes = blobs.read(&glimpsed, 1 << 20).await.unwrap().unwrap();
    blobs.put(&glimpsed, vec![0; 100 << 10].into()).await.unwrap();
    let without = world.post("/v1/invites/preview", &ben, json!({"code": invite})).await;
    assert_eq!((without.status, &without.body["from"]["avatar"]), (200, &Value::Null));
    blobs.put(&glimpsed, bytes).await.unwrap();
    assert_eq!(world.get(&format!("/v1/media/{id}"), &ben).await.said(), (404, "media_not_found"));
    world.pair(&ana, &ben).await;
    let partner = world.get("/v1/couple", &ben).await.body["partner"]["avatar"].clone();
    assert_eq!(partner["id"], id);
    for (size, side) in [("512", 300), ("256", 256), ("64", 64)] {
        let (status, headers, bytes) =
            fetch(&world, &format!("/v1/media/{id}/{size}"), &ben, &[("accept", "image/webp")]).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "image/jpeg"));
        let pixels = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(pixels.dimensions(), (side, side));
        // The left edge of the rendition is where the crop begins: red increases from there.
        let red = f64::from(pixels.get_pixel(side / 8, side / 2).0[0]);
        assert!((red - 137.5).abs() < 8.0, "{size}: {red}");
    }
    assert_eq!(world.backend.gallery().stats().rendered, before, "they were made after the upload");

    let seq = world.get("/v1/couple", &ben).await.body["head_seq"].as_i64().unwrap();
    let second = world.upload(&ana, "purpose=avatar", png(200, 200)).await.text("id");
    assert_eq!(set(&second).await.status, 204);
    assert_eq!(entries_after(&world, &ben, seq).await[0]["kind"], "profile_changed");
    world.work().await;
    assert_eq!(world.get(&format!("/v1/media/{id}"), &ana).await.said(), (404, "media_not_found"));
    assert_eq!(world.call("DELETE", "/v1/me/avatar", Some(&ana), None).await.status, 204);
    world.work().await;
    assert_eq!(world.get("/v1/couple", &ben).await.body["partner"]["avatar"], Value::Null);
    assert!(blob_names(&world).await.is_empty());
    assert_eq!(set(NOBODY).await.said(), (404, "media_not_found"));
}

/// A picture is deleted by its owner, or with the last entry that names it; its bytes are deleted, too.
#[tokio::test]
async fn deletion_removes_the_bytes() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let (first, second) = (world.photo(&ana, 400).await, world.photo(&ana, 401).await);
    let seq = show(&world, &ana, &second).await;
    fetch(&world, &format!("/v1/media/{first}/320"), &ben, &[]).await;
    assert_eq!(blob_names(&world).await.len(), 3);
    assert_eq!(world.call("DELETE", &format!("/v1/media/{first}"), Some(&ana), None).await.status, 204);
    let entry = format!("/v1/couple/entries/{seq}");
    assert_eq!(world.call("DELETE", &entry, Some(&ana), None).await.status, 204);
    for id in [&first, &second] {
        assert_eq!(world.get(&format!("/v1/media/{id}"), &ana).await.said(), (404, "media_not_found"));
        assert_eq!(world.get(&format!("/v1/media/{id}/320"), &ben).await.said(), (404, "media_not_found"));
    }
    world.work().await;
    assert!(blob_names(&world).await.is_empty());
}

/// Concurrent requests make a rendition once; an unused one is removed and made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rendition_is_made_once_removed_when_unused_and_made_again() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 900).await;
    let path = format!("/v1/media/{id}/320");
    let before = world.backend.gallery().stats().rendered;
    let requests = (0..20).map(|_| fetch(&world, &path, &ben, &[]));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(|(status, _, bytes)| *status == 200 && *bytes == answers[0].2));
    assert_eq!(world.backend.gallery().stats().rendered, before + 1);

    let there = async || blob_names(&world).await.iter().filter(|name| name.contains("/320-")).count();
    world.later(Duration::from_hours(24 * 20));
    fetch(&world, &path, &ben, &[]).await;
    world.later(Duration::from_hours(24 * 20));
    world.work().await;
    assert_eq!(there().await, 1, "it was requested");
    world.later(Duration::from_hours(24 * 31));
    // A started worker runs schedules; in this test the job is enqueued directly.
    let ports = world.backend.ports();
    ports.commit(vec![ports.enqueue(&couple::gallery::ExpireRenditions {}).unwrap()]).await.unwrap();
    world.work().await;
    assert_eq!(there().await, 0);
    let ben = world.sign_in("ben@example.org").await;
    let (status, headers, _) = fetch(&world, &path, &ben, &[]).await;
    assert_eq!((status, there().await), (200, 1));
    assert_ne!(headers["etag"], answers[0].1["etag"]);
}

/// Too many concurrent requests of one couple get 429; another couple is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_couple_do_not_delay_another() {
    let options = GalleryOptions::default().with_max_pending_renditions_per_couple(1);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (cleo, _) = world.couple("cleo@example.org", "dan@example.org").await;
    let (many, one) = (world.photo(&ana, 1500).await, world.photo(&cleo, 300).await);
    let one = format!("/v1/media/{one}/320");
    let paths = ["2048", "1080", "320"].map(|size| format!("/v1/media/{many}/{size}"));
    let answers = futures_util::future::join_all(paths.iter().map(|path| fetch(&world, path, &ana, &[])));
    let (answers, other) = tokio::join!(answers, fetch(&world, &one, &cleo, &[]));
    assert_eq!(other.0, 200);
    let made = answers.iter().filter(|(status, ..)| *status == 200).count();
    let pending = answers.iter().filter(|(status, headers, body)| {
        let code = serde_json::from_slice::<Value>(body).unwrap_or_default()["code"] == "too_many_renditions";
        *status == 429 && headers.contains_key("retry-after") && code
    });
    assert_eq!((made > 0, pending.count()), (true, paths.len() - made));
    assert!(made < paths.len(), "requests are concurrent, and the limit is one");
    for path in &paths {
        assert_eq!(fetch(&world, path, &ana, &[]).await.0, 200, "a later request succeeds");
    }
}

/// A rendition that cannot be made again is kept, even if it is not requested.
#[tokio::test]
async fn rendition_of_a_lost_copy_is_kept() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 900).await;
    let path = format!("/v1/media/{id}/320");
    let (status, _, bytes) = fetch(&world, &path, &ben, &[]).await;
    assert_eq!(status, 200);
    let (gallery, ports) = (world.backend.gallery(), world.backend.ports());
    let media = ports.store.media(id.parse().unwrap()).await.unwrap().unwrap();
    gallery.pictures().forget(&media, vec![media.source.clone().unwrap().blob]).await.unwrap();
    for _ in 0..3 {
        world.later(Duration::from_hours(24 * 40));
        ports.commit(vec![ports.enqueue(&couple::gallery::ExpireRenditions {}).unwrap()]).await.unwrap();
        world.work().await;
    }
    let ben = world.sign_in("ben@example.org").await;
    let (status, _, still) = fetch(&world, &path, &ben, &[]).await;
    assert_eq!((status, still), (200, bytes));
}

/// Differences between rows and blobs are found, only reported by a dry run, and otherwise repaired.
#[tokio::test]
async fn sweep_repairs_differences_between_rows_and_blobs() {
    let world = World::of(Backend::builder().limits(Unlimited), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let gallery = world.backend.gallery();
    let (whole, lost) = (world.photo(&ana, 300).await, world.photo(&ana, 301).await);
    for id in [&whole, &lost] {
        assert_eq!(fetch(&world, &format!("/v1/media/{id}/320"), &ben, &[]).await.0, 200);
    }
    let blobs = gallery.blobs();
    let good = blob_names(&world).await;
    let of = |id: &str| good.iter().find(|name| name.contains(id) && name.contains("/320-")).unwrap().clone();
    // Blobs of an upload that was never committed, and of a picture whose row does not name them.
    let orphans = BTreeSet::from([
        format!("c/{NOBODY}/{NOBODY}-abcdefgh/upload"),
        of(&whole).replace("/320-", "/321-"),
    ]);
    for name in &orphans {
        blobs.put(name, vec![1].into()).await.unwrap();
    }
    // Files of other programs in the same store.
    let others = BTreeSet::from([
        "backups/2026/dump.sql".to_owned(),
        "c/notes/list.txt".to_owned(),
        format!("c/{NOBODY}/readme.txt"),
        format!("b/{NOBODY}/{NOBODY}-abcdefgh/upload"),
        format!("c/{NOBODY}/{NOBODY}/upload"),
        format!("c/{NOBODY}/{NOBODY}-abcdefgh/deeper/upload"),
    ]);
    for name in &others {
        blobs.put(name, vec![1].into()).await.unwrap();
    }
    blobs.delete(&of(&lost)).await.unwrap();
    let stuck = world.upload(&ana, "purpose=photo", png(302, 302)).await.text("id");

    let sweep = async |how: Sweep| gallery.sweep(how).await.unwrap();
    assert_eq!(
        sweep(Sweep::default()).await,
        SweepReport::default(),
        "everything is younger than the grace period"
    );
    // Blobs have the real time; the clock is moved far beyond it.
    world.later(Duration::from_hours(24 * 365 * 20));
    let look = Sweep { dry_run: true, ..Sweep::default() };
    let seen = sweep(look).await;
    assert_eq!(seen.orphans.iter().cloned().collect::<BTreeSet<_>>(), orphans);
    assert_eq!(seen.lost.len(), 1);
    assert_eq!(seen.lost[0].0.to_string(), lost);
    assert_eq!(seen.stuck.iter().map(ToString::to_string).collect::<Vec<_>>(), [stuck]);
    assert_eq!(sweep(look).await, seen, "only looked");
    assert_eq!(sweep(Sweep { cap: 1, ..look }).await.orphans.len(), 1);
    assert_eq!(sweep(Sweep::default()).await, seen);
    world.work().await;
    assert_eq!(sweep(Sweep::default()).await, SweepReport::default(), "everything is repaired");
    assert_eq!(blob_names(&world).await.intersection(&orphans).count(), 0);
    assert!(blob_names(&world).await.is_superset(&others));
    assert!(blobs.delete_folder("").await.is_err(), "an empty folder name is an error");
    let token = world.sign_in("ana@example.org").await;
    assert_eq!(fetch(&world, &format!("/v1/media/{lost}/320"), &token, &[]).await.0, 200, "made again");
}

/// Photos that no entry names are deleted after a week.
pub(crate) fn forgetful() -> World {
    let options = GalleryOptions::default().with_unposted_photo_lifetime(Some(Duration::from_hours(24 * 7)));
    World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default())
}

/// If the host enables it, a photo that no entry names is deleted; a posted photo and an avatar stay.
#[tokio::test]
async fn photo_without_an_entry_expires() {
    let world = forgetful();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (posted, never) = (world.photo(&ana, 300).await, world.photo(&ana, 301).await);
    show(&world, &ana, &posted).await;
    let face = world.upload(&ana, "purpose=avatar", png(100, 100)).await.text("id");
    world.work().await;
    let gallery = world.backend.gallery();
    world.later(Duration::from_hours(24 * 6));
    assert_eq!(gallery.sweep(Sweep::default()).await.unwrap(), SweepReport::default());
    world.later(Duration::from_hours(48));
    let found = gallery.sweep(Sweep { dry_run: true, ..Sweep::default() }).await.unwrap();
    assert_eq!(
        found.unposted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        std::slice::from_ref(&never)
    );
    assert_eq!(gallery.sweep(Sweep::default()).await.unwrap(), found);
    world.work().await;
    let left = blob_names(&world).await;
    assert!(left.iter().all(|name| name.contains(&posted) || name.contains(&face)), "{left:?}");
    assert_eq!(world.get(&format!("/v1/media/{posted}"), &ana).await.text("state"), "ready");
    assert_eq!(world.get(&format!("/v1/media/{never}"), &ana).await.said(), (404, "media_not_found"));
}

/// A sweep that stops early is continued by the next one.
#[tokio::test]
async fn sweep_continues_from_its_last_position() {
    let world = forgetful();
    let gallery = world.backend.gallery();
    let mut ids = BTreeSet::new();
    for who in ["ana", "ben", "cleo"] {
        let (one, _) = world.couple(&format!("{who}@example.org"), &format!("{who}2@example.org")).await;
        ids.insert(world.photo(&one, 300).await);
    }
    world.later(Duration::from_hours(24 * 8));
    let little = Sweep { cap: 1, ..Sweep::default() };
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let report = gallery.sweep(little).await.unwrap();
        assert_eq!(report.unposted.len(), 1);
        seen.extend(report.unposted.iter().map(ToString::to_string));
    }
    assert_eq!(seen, ids);
    assert_eq!(
        gallery.sweep(Sweep { time: Duration::ZERO, ..little }).await.unwrap(),
        SweepReport::default()
    );
    assert!(blob_names(&world).await.contains("sweep"));
    assert_eq!(gallery.sweep(little).await.unwrap(), SweepReport::default());
    assert!(!blob_names(&world).await.contains("sweep"), "the sweep is complete");
}

/// A picture is answered with a link if the store signs links and the host enables them.
#[tokio::test]
async fn picture_is_answered_with_a_signed_link() {
    let secret = couple::Secret::new("sesame".to_owned());
    let store = couple::blobs::S3Options::new("bucket")
        .with_endpoint("http://127.0.0.1:9")
        .with_credentials("id", &secret);
    let options = HttpOptions::default().with_signed_link_lifetime(Some(Duration::from_secs(90)));
    let world = World::of(Backend::builder().limits(Unlimited).blobs(store.open().unwrap()), options);
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let ports = world.backend.ports();
    let me = world.get("/v1/me", &ana).await.text("id").parse().unwrap();
    let couple = ports.store.couple_of(me).await.unwrap().unwrap();
    let made = couple_conformance::World::default();
    let photo = made.photo(couple.id, me, "a");
    let size = made.rendition("320", media::Format::Jpeg);
    let blob = photo.path(&size.blob);
    let insert = media::MediaChange::Insert { media: photo.clone(), most: 1000 };
    let (of, placeholder) = (photo.as_read(), Vec::new());
    let finish = media::MediaChange::Finish {
        of,
        width: 320,
        height: 240,
        animated: false,
        alpha: false,
        placeholder,
        source: None,
        renditions: vec![size],
    };
    ports.commit(vec![insert.into(), finish.into()]).await.unwrap();
    let (status, headers, bytes) = fetch(&world, &format!("/v1/media/{}/320", photo.id), &ben, &[]).await;
    assert_eq!((status, bytes.len()), (307, 0));
    let link = headers["location"].to_str().unwrap();
    assert!(link.starts_with("http://127.0.0.1:9/bucket/c/") && link.contains(&blob), "{link}");
    assert!(link.contains("X-Amz-Expires=90") && !link.contains("sesame"), "{link}");
    // An unavailable store does not make the server unready, but is reported.
    let ready = world.call("GET", "/readyz", None, None).await;
    assert_eq!((ready.status, &ready.body["pictures"]), (200, &json!("unavailable")));
}

/// A blob store that never answers does not delay a probe, even after a cancelled one.
#[tokio::test]
async fn hanging_blob_store_does_not_delay_readiness() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let secret = couple::Secret::new("sesame".to_owned());
    let store =
        couple::blobs::S3Options::new("bucket").with_endpoint(&endpoint).with_credentials("id", &secret);
    let builder = Backend::builder().limits(Unlimited).blobs(store.open().unwrap());
    let world = World::of(builder, HttpOptions::default());
    let probe = || world.call("GET", "/readyz", None, None);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), probe()).await.is_err(),
        "the first probe was cancelled"
    );
    for _ in 0..3 {
        let ready = tokio::time::timeout(Duration::from_secs(1), probe()).await.unwrap();
        assert_eq!((ready.status, &ready.body["pictures"]), (200, &json!("unavailable")));
    }
}

/// An unmounted store of pictures is not treated as one that has lost all pictures.
#[tokio::test]
async fn unmounted_blob_store_loses_no_picture() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let ids = [world.photo(&ana, 300).await, world.photo(&ana, 301).await];
    let blobs = world.backend.gallery().blobs();
    let mut away = Vec::new();
    for name in blob_names(&world).await {
        away.push((name.clone(), blobs.read(&name, 1 << 20).await.unwrap().unwrap()));
        blobs.delete(&name).await.unwrap();
    }
    world.later(Duration::from_hours(72));
    assert!(world.backend.gallery().sweep(Sweep::default()).await.is_err());
    for (name, bytes) in away {
        blobs.put(&name, bytes).await.unwrap();
    }
    assert_eq!(world.backend.gallery().sweep(Sweep::default()).await.unwrap(), SweepReport::default());
    let token = world.sign_in("ana@example.org").await;
    for id in ids {
        assert_eq!(fetch(&world, &format!("/v1/media/{id}/320"), &token, &[]).await.0, 200);
    }
}

/// Without a stored copy, all renditions are made after the upload, and are kept.
#[tokio::test]
async fn without_a_copy_all_renditions_are_made_and_kept() {
    let options = GalleryOptions::default().with_copy_side(None);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 1500).await;
    assert_eq!(blob_names(&world).await.len(), 4);
    let picture = world.get(&format!("/v1/media/{id}"), &ben).await;
    assert_eq!(picture.body["renditions"].as_array().unwrap().len(), 4);
    let rendered = world.backend.gallery().stats().rendered;
    for size in ["2048", "1080", "320"] {
        let (status, headers, _) =
            fetch(&world, &format!("/v1/media/{id}/{size}"), &ben, &[("accept", "image/webp")]).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "image/jpeg"));
    }
    assert_eq!(world.backend.gallery().stats().rendered, rendered);
}
