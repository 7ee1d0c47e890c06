//! Uploads as plain bytes or as a form, and refusals with details that an app can use.

use std::{collections::BTreeSet, time::Duration};

use axum::{body::Body, http::Request};
use couple::{
    Backend, account, core::limits::Unlimited, gallery::GalleryOptions, http::HttpOptions, media,
    picture::Limits,
};
use futures_util::stream;
use serde_json::json;

use crate::world::{TestResponse, World, png};

/// Sends a form in chunks of 1,000 bytes.
async fn send(world: &World, token: &str, query: &str, form: Vec<u8>) -> TestResponse {
    let pieces: Vec<_> = form.chunks(1_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let request = Request::post(format!("/v1/media{query}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "multipart/form-data; boundary=----b");
    world.raw(request.body(Body::from_stream(stream::iter(pieces))).unwrap()).await
}

/// A form of parts, each with the parameters of its disposition, further headers, and bytes.
fn form(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut form = Vec::new();
    for (disposition, headers, bytes) in parts {
        form.extend(
            format!("------b\r\nContent-Disposition: form-data; {disposition}\r\n{headers}\r\n").as_bytes(),
        );
        form.extend_from_slice(bytes);
        form.extend(b"\r\n");
    }
    form.extend(b"------b--\r\n");
    form
}

/// A photo that a client queued and sends late must not be shown to the next partner.
#[tokio::test]
async fn photo_for_another_couple_is_refused() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let former = world.get("/v1/couple", &ana).await.text("id");
    world.call("DELETE", "/v1/couple", Some(&ana), None).await;
    let upload = async |couple: &str, purpose: &str| {
        let request = Request::post(format!("/v1/media?purpose={purpose}"))
            .header("authorization", format!("Bearer {ana}"))
            .header("couple-id", couple);
        world.raw(request.body(Body::from(png(40, 40))).unwrap()).await
    };
    assert_eq!(upload(&former, "photo").await.said(), (404, "not_paired"));
    let cleo = world.join("cleo@example.org").await;
    world.pair(&ana, &cleo).await;
    let current = world.get("/v1/couple", &ana).await.text("id");
    for couple in [former.as_str(), "no-id", ""] {
        assert_eq!(upload(couple, "photo").await.said(), (404, "not_paired"), "{couple:?}");
    }
    assert_eq!(world.get("/v1/media", &cleo).await.body["media"], json!([]));
    assert_eq!(upload(&current, "photo").await.status, 202);
    assert_eq!(upload(&former, "avatar").await.status, 202, "an avatar belongs to no couple");
}

const FILE: &str = "name=\"file\"; filename=\"IMG_0001.jpg\"";

#[tokio::test]
async fn form_with_one_file_is_the_same_upload_as_its_bytes() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(300, 200);
    let file = (FILE, "Content-Type: image/jpeg\r\n", bytes.as_slice());
    let first = send(&world, &ana, "?purpose=photo", form(&[file])).await;
    assert_eq!(first.status, 202, "{}", first.body);
    assert_eq!(first.body["width"], 300);
    let raw = world.upload(&ana, "purpose=photo", bytes.clone()).await;
    assert_eq!((raw.status, raw.text("id")), (200, first.text("id")));
    // Fields that libraries add are ignored; the purpose may be a field before the file.
    let fields = [
        ("name=\"relativePath\"", "", &b"null"[..]),
        ("name=\"purpose\"", "", b"photo"),
        ("name=\"placeholder\"", "", b"3OcRJYB4d3h_iIeHeEh3eIhw-j3A"),
        ("name=\"picture\"; filename=\"a.png\"", "", &bytes),
        ("name=\"after\"", "", b"ignored"),
    ];
    let second = send(&world, &ana, "", form(&fields)).await;
    assert_eq!((second.status, second.text("id")), (200, first.text("id")));
    world.work().await;
    assert_eq!(world.get(&format!("/v1/media/{}", first.text("id")), &ana).await.text("state"), "ready");
}

#[tokio::test]
async fn form_that_is_not_one_picture_is_refused_with_its_field() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let bytes = png(30, 20);
    let (file, photo) = ((FILE, "", bytes.as_slice()), "?purpose=photo");
    let field = |answer: &TestResponse| (answer.status, answer.body["errors"][0].clone());
    let none = send(&world, &ana, photo, form(&[("name=\"purpose\"", "", b"photo")])).await;
    assert_eq!(field(&none), (422, json!({"field": "file", "code": "required"})));
    let two = send(&world, &ana, photo, form(&[file, file])).await;
    assert_eq!(field(&two), (422, json!({"field": "file", "code": "one_file_only"})));
    let late = send(&world, &ana, "", form(&[file, ("name=\"purpose\"", "", b"photo")])).await;
    assert_eq!(field(&late), (422, json!({"field": "purpose", "code": "required"})));
    let mut cut = form(&[file]);
    cut.truncate(cut.len() - 20);
    assert_eq!(send(&world, &ana, photo, cut).await.said(), (400, "malformed_request"));
    let other = Request::post("/v1/media?purpose=photo")
        .header("authorization", format!("Bearer {ana}"))
        .header("content-type", "multipart/mixed; boundary=x");
    let other = world.raw(other.body(Body::from("--x--")).unwrap()).await;
    assert_eq!(other.said(), (415, "unsupported_media_type"));
    assert!(other.headers["accept"].to_str().unwrap().contains("multipart/form-data"));
    assert!(crate::media::blob_names(&world).await.is_empty());
}

#[tokio::test]
async fn refused_type_is_named_with_accepted_types() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    for (bytes, found) in [
        (&b""[..], "an empty body"),
        (b"\0\0\0\x1Cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
        (b"%PDF-1.7 and more", "PDF"),
        (b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB", "base64"),
        (b"<html><body>hello</body></html>", "HTML"),
    ] {
        let answer = world.upload(&ana, "purpose=photo", bytes.to_vec()).await;
        assert_eq!(answer.said(), (415, "unknown_type"));
        let detail = answer.text("detail");
        assert!(detail.contains(found) && detail.contains("image/jpeg, image/png"), "{detail}");
        assert!(answer.headers["accept"].to_str().unwrap().starts_with("image/jpeg, image/png, image/webp"));
    }
}

#[tokio::test]
async fn too_large_pictures_are_refused_with_their_size_and_the_limit() {
    let limits = Limits::default().with_bytes(100_000).with_side(1_000);
    let options = GalleryOptions::default().with_limits(limits);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let request = Request::post("/v1/media?purpose=photo").header("authorization", format!("Bearer {ana}"));
    let request = request.header("content-length", "100001").body(Body::from(vec![0; 100_001])).unwrap();
    let answer = world.raw(request).await;
    assert_eq!(answer.said(), (413, "body_too_large"));
    let detail = answer.text("detail");
    assert!(detail.contains("100001") && detail.contains("100000"), "{detail}");
    let answer = world.upload(&ana, "purpose=photo", png(1_200, 20)).await;
    assert_eq!(answer.said(), (413, "picture_too_large"));
    let detail = answer.text("detail");
    assert!(detail.contains("1200 × 20") && detail.contains("1000 a side"), "{detail}");
    assert!(crate::media::blob_names(&world).await.is_empty());
}

#[tokio::test]
async fn rejected_picture_and_photo_are_refused_as_avatar_with_their_own_codes() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let truncated = png(300, 300)[..2_000].to_vec();
    let rejected = world.upload(&ana, "purpose=avatar", truncated.clone()).await.text("id");
    let bad_photo = world.upload(&ana, "purpose=photo", truncated).await.text("id");
    let processing = world.upload(&ana, "purpose=avatar", png(64, 64)).await.text("id");
    let set = async |id: &str| {
        let answer = world.call("PUT", "/v1/me/avatar", Some(&ana), Some(json!({"media_id": id}))).await;
        (answer.status, answer.code().to_owned())
    };
    assert_eq!(set(&processing).await.0, 204);
    world.work().await;
    assert_eq!(set(&rejected).await, (409, "media_rejected".to_owned()));
    let photo = world.photo(&ana, 300).await;
    assert_eq!(set(&photo).await, (409, "media_wrong_purpose".to_owned()));
    for (id, code) in [(&bad_photo, "media_rejected"), (&processing, "media_wrong_purpose")] {
        let entry = json!({"client_id": id, "kind": "photo", "body": {"media_id": id}});
        assert_eq!(world.post("/v1/couple/entries", &ana, entry).await.said(), (409, code));
    }
}

#[tokio::test]
async fn capabilities_and_document_name_the_limits() {
    let limits = Limits::default().with_bytes(1_234_567);
    let options = GalleryOptions::default().with_limits(limits);
    let policy = media::MediaPolicy::default().with_couple_quota(7_654_321);
    let http = HttpOptions::default().with_max_concurrent_uploads_per_account(7);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options).pictures(policy), http);
    let answer = world.call("GET", "/v1/capabilities", None, None).await;
    let limits = &answer.body["media"];
    for (field, value) in [
        ("bytes", 1_234_567),
        ("concurrent_uploads", 7),
        ("photo_quota_bytes", 7_654_321),
        ("upload_idle_seconds", 60),
        ("signed_url_seconds", 600),
    ] {
        assert_eq!(limits[field], value, "{field}");
    }
    assert!(limits["types"].as_array().unwrap().contains(&json!("image/webp")));
    let document = world.call("GET", "/v1/openapi.json", None, None).await.body;
    let text = document["paths"]["/v1/media"]["post"]["description"].as_str().unwrap();
    for limit in ["1234567 bytes", "7 concurrent uploads", "7654321 bytes", "60 s without bytes"] {
        assert!(text.contains(limit), "{limit} in {text}");
    }
}

#[tokio::test]
async fn pictures_are_listed_in_pages_with_the_remaining_quota() {
    let policy = media::MediaPolicy::default().with_couple_quota(10_000_000);
    let world = World::of(Backend::builder().limits(Unlimited).pictures(policy), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(world.photo(if n % 2 == 0 { &ana } else { &ben }, 300 + n).await);
    }
    let avatar = world.upload(&ana, "purpose=avatar", png(64, 64)).await.text("id");
    world.work().await;
    let mut seen = Vec::new();
    let mut path = "/v1/media?limit=2".to_owned();
    loop {
        let page = world.get(&path, &ben).await;
        assert_eq!(page.status, 200, "{}", page.body);
        for media in page.body["media"].as_array().unwrap() {
            let id = media["id"].as_str().unwrap();
            let single = world.get(&format!("/v1/media/{id}"), &ben).await.body;
            assert_eq!(*media, single);
            seen.push(id.to_owned());
        }
        let quota = &page.body["quota"];
        let (used, left) = (quota["used"].as_i64().unwrap(), quota["remaining"].as_i64().unwrap());
        assert!(used > 0 && used + left == 10_000_000, "{quota}");
        let Some(next) = page.body["next"].as_str() else { break };
        path = format!("/v1/media?limit=2&after={next}");
    }
    // Ids of one millisecond have no order.
    assert_eq!(seen.iter().collect::<BTreeSet<_>>(), ids.iter().collect());
    assert_eq!(seen.len(), 5);
    let mine = world.get("/v1/media?purpose=avatar", &ana).await;
    assert_eq!(mine.body["media"][0]["id"], avatar);
    assert_eq!(mine.body["media"][0]["renditions"].as_array().unwrap().len(), 4);
    assert_eq!(world.get("/v1/media?purpose=avatar", &ben).await.body["media"], json!([]));
    for query in ["limit=0", "limit=101", "limit=x", "after=x", "purpose=x"] {
        assert_eq!(world.get(&format!("/v1/media?{query}"), &ana).await.said(), (422, "invalid_field"));
    }
}

/// The size of a picture may be after the bytes that the server reads before its response.
#[tokio::test]
async fn picture_found_too_large_while_decoding_is_rejected_with_size_and_limits() {
    let mut bytes = vec![0xFF, 0xD8];
    for _ in 0..6 {
        bytes.extend([0xFF, 0xE2, 0xFF, 0xFF]);
        bytes.resize(bytes.len() + 0xFFFD, 0);
    }
    bytes.extend([
        0xFF, 0xC0, 0, 17, 8, 0xEA, 0x60, 0xEA, 0x60, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0, 0xFF, 0xD9,
    ]);
    let limits = Limits::default().with_side(50_000);
    let options = GalleryOptions::default().with_limits(limits);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let answer = world.upload(&ana, "purpose=photo", bytes).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let entry = json!({"client_id": "1", "kind": "photo", "body": {"media_id": answer.text("id")}});
    assert_eq!(world.post("/v1/couple/entries", &ana, entry).await.status, 201);
    world.work().await;
    let picture = world.get(&format!("/v1/media/{}", answer.text("id")), &ana).await;
    let stored =
        world.get("/v1/couple/entries?kind=media_rejected", &ana).await.body["entries"][0]["body"].clone();
    for body in [&picture.body, &stored] {
        assert_eq!(body["reason"], "too_large", "{body}");
        let detail = body["detail"].as_str().unwrap();
        for part in ["60000 × 60000 pixels", "50000 a side", "210 million"] {
            assert!(detail.contains(part), "{detail}");
        }
    }
}

#[tokio::test]
async fn document_states_the_configured_limits() {
    let minutes = Duration::from_mins;
    let policy = account::AccountPolicy::default()
        .with_code_lifetime(minutes(7))
        .with_recent_sign_in_time(minutes(120))
        .with_password_guesses_per_day(37)
        .with_known_network_time(minutes(60 * 24 * 11));
    let limits = Limits::default().with_bytes(1_234_567).with_side(4_321).with_megapixels(17);
    let options = GalleryOptions::default()
        .with_limits(limits)
        .with_max_unfinished_uploads_per_account(41)
        .with_max_unfinished_bytes_per_account(43 << 20);
    let builder = Backend::builder().accounts(policy).gallery(options);
    let http = HttpOptions::default().with_min_upload_rate(45).with_max_upload_wait(minutes(2));
    let document =
        async |world: World| world.call("GET", "/v1/openapi.json", None, None).await.body.to_string();
    let changed = document(World::of(builder, http)).await;
    let usual = document(World::new()).await;
    for (now, before) in [
        ("within the 7 minutes of the code", "within the 10 minutes of the code"),
        ("sign-in within 2 hours", "sign-in within 10 minutes"),
        ("allows 37 wrong passwords", "allows 100 wrong passwords"),
        ("last 11 days", "last 90 days"),
        ("has 41 unfinished uploads, or 43 MiB", "has 100 unfinished uploads, or 100 MiB"),
        (
            "1234567 bytes; 4321 pixels a side; 17 megapixels",
            "20971520 bytes; 65535 pixels a side; 210 megapixels",
        ),
        ("54 more wait for 120 s", "54 more wait for 30 s"),
        ("and 5400 bytes in each 120 s", "and 30720 bytes in each 120 s"),
    ] {
        // Line breaks of the source count as spaces.
        let (changed, usual) = (changed.replace("\\n", " "), usual.replace("\\n", " "));
        assert!(changed.contains(now) && !changed.contains(before), "{now}");
        assert!(usual.contains(before) && !usual.contains(now), "{before}");
    }
    assert!(!changed.contains("{{"), "a limit has no value");
}
