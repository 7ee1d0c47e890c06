//! Signed URLs of renditions, as `<img>` loads them: without an `Authorization` header.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use serde_json::json;
use tower::ServiceExt as _;

use crate::world::{World, png};

/// Status, headers and bytes of a URL that is loaded without a session.
async fn load(world: &World, url: &str) -> (u16, HeaderMap, Vec<u8>) {
    let path = url.strip_prefix("http://127.0.0.1:8080").unwrap();
    let request =
        Request::get(path).header("accept", "image/avif,image/webp,*/*").body(Body::empty()).unwrap();
    let (head, body) = world.app.clone().oneshot(request).await.unwrap().into_parts();
    (head.status.as_u16(), head.headers, to_bytes(body, 1 << 24).await.unwrap().to_vec())
}

async fn refused(world: &World, url: &str) -> bool {
    let (status, _, body) = load(world, url).await;
    let code = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default()["code"].clone();
    (status, code) == (403, json!("access_invalid"))
}

/// Signed URL of a rendition in the response about a picture.
async fn url(world: &World, token: &str, id: &str, rendition: &str) -> String {
    let answer = world.get(&format!("/v1/media/{id}"), token).await;
    let all = answer.body["renditions"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == rendition).unwrap();
    found["signed_url"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn signed_url_shows_the_rendition_without_a_header() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 500).await;
    for token in [&ana, &ben] {
        let url = url(&world, token, &id, "320").await;
        let (status, headers, bytes) = load(&world, &url).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "image/webp"));
        assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 320);
        assert_eq!(headers["cache-control"], "private, max-age=31536000, immutable");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["content-security-policy"], "default-src 'none'");
        assert_eq!(headers["cross-origin-resource-policy"], "cross-origin");
        assert!(!url.contains(token.as_str()));
    }
    assert_ne!(url(&world, &ana, &id, "320").await, url(&world, &ben, &id, "320").await);
    assert_eq!(world.call("GET", &format!("/v1/media/{id}/320"), None, None).await.status, 401);
    // Responses about accounts and couples contain signed URLs, too.
    let avatar = world.upload(&ana, "purpose=avatar", png(200, 200)).await.text("id");
    let set = world.call("PUT", "/v1/me/avatar", Some(&ana), Some(json!({"media_id": avatar}))).await;
    assert_eq!(set.status, 204);
    world.work().await;
    let mine = world.get("/v1/me", &ana).await.body["avatar"]["renditions"][0]["signed_url"].clone();
    let theirs =
        world.get("/v1/couple", &ben).await.body["partner"]["avatar"]["renditions"][0]["signed_url"].clone();
    for url in [mine, theirs] {
        assert_eq!(load(&world, url.as_str().unwrap()).await.0, 200);
    }
}

#[tokio::test]
async fn signed_url_is_refused_for_another_rendition_or_picture_and_when_tampered_with() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let (one, other) = (world.photo(&ana, 500).await, world.photo(&ana, 501).await);
    let good = url(&world, &ana, &one, "320").await;
    assert_eq!(load(&world, &good).await.0, 200);
    assert!(refused(&world, &good.replace("/320?", "/1080?")).await);
    assert!(refused(&world, &good.replace(&one, &other)).await);
    let (path, access) = good.split_once("access=").unwrap();
    for at in [0, 30, 60, 70, 80, 127] {
        let mut access = access.to_owned().into_bytes();
        access[at] = if access[at] == b'A' { b'B' } else { b'A' };
        assert!(refused(&world, &format!("{path}access={}", String::from_utf8(access).unwrap())).await);
    }
    for access in ["", "x", &access[..100], &format!("{access}AAAA")] {
        assert!(refused(&world, &format!("{path}access={access}")).await, "{access}");
    }
}

#[tokio::test]
async fn signed_url_expires_within_10_minutes() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 500).await;
    let good = url(&world, &ana, &id, "320").await;
    world.later(Duration::from_secs(299));
    assert_eq!(load(&world, &good).await.0, 200, "valid for at least 5 minutes");
    world.later(Duration::from_secs(301));
    assert!(refused(&world, &good).await);
    assert_eq!(load(&world, &url(&world, &ana, &id, "320").await).await.0, 200);
}

#[tokio::test]
async fn signed_url_ends_with_its_session() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 500).await;
    let second = world.sign_in("ana@example.org").await;
    let (one, other) = (url(&world, &ana, &id, "320").await, url(&world, &second, &id, "320").await);
    assert_eq!(world.call("DELETE", "/v1/sessions/current", Some(&ana), None).await.status, 204);
    assert!(refused(&world, &one).await);
    assert_eq!(load(&world, &other).await.0, 200);
    assert_eq!(world.call("DELETE", "/v1/me", Some(&second), None).await.status, 202);
    assert!(refused(&world, &other).await);
}

#[tokio::test]
async fn signed_url_ends_with_its_couple_and_not_by_pairing_again() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 500).await;
    let (own, partners) = (url(&world, &ana, &id, "320").await, url(&world, &ben, &id, "320").await);
    assert_eq!(world.call("DELETE", "/v1/couple", Some(&ben), None).await.status, 204);
    for url in [&own, &partners] {
        assert!(refused(&world, url).await);
    }
    world.pair(&ana, &ben).await;
    for url in [&own, &partners] {
        assert!(refused(&world, url).await, "a URL of the earlier couple");
    }
    assert_eq!(load(&world, &url(&world, &ana, &id, "320").await).await.0, 200, "the owner's own picture");
}
