//! Declared sizes of a photo, transparent photos and avatars, and the responses about them.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use image::{ImageFormat, Rgba, RgbaImage};
use serde_json::json;
use tower::ServiceExt as _;

use crate::world::World;

pub(crate) async fn fetch(world: &World, path: &str, token: &str, accept: &str) -> (HeaderMap, Vec<u8>) {
    let request =
        Request::get(path).header("authorization", format!("Bearer {token}")).header("accept", accept);
    let answer = world.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    assert_eq!(head.status, 200);
    (head.headers, to_bytes(body, 1 << 24).await.unwrap().to_vec())
}

/// Uploads a photo and posts it to the couple; returns its id.
async fn shown(world: &World, token: &str, file: Vec<u8>) -> String {
    let id = world.upload(token, "purpose=photo", file).await.text("id");
    let body = json!({"client_id": id, "kind": "photo", "body": {"media_id": id}});
    assert_eq!(world.post("/v1/couple/entries", token, body).await.status, 201);
    world.work().await;
    id
}

/// Uploads an avatar and sets it as the account's avatar.
async fn avatar(world: &World, token: &str, file: Vec<u8>) -> String {
    let id = world.upload(token, "purpose=avatar", file).await.text("id");
    let body = json!({ "media_id": id });
    assert_eq!(world.call("PUT", "/v1/me/avatar", Some(token), Some(body)).await.status, 204);
    world.work().await;
    id
}

/// A grey JPEG, two bits per block.
fn grey(width: u16, height: u16) -> Vec<u8> {
    let ([w1, w0], [h1, h0]) = (width.to_be_bytes(), height.to_be_bytes());
    let mut file = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
    file.extend([1; 64]);
    file.extend([0xFF, 0xC0, 0, 11, 8, h1, h0, w1, w0, 1, 1, 0x11, 0]);
    for class in [0, 0x10] {
        file.extend([0xFF, 0xC4, 0, 20, class, 1]);
        file.extend([0; 16]);
    }
    file.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0]);
    let blocks = usize::from(width).div_ceil(8) * usize::from(height).div_ceil(8);
    file.resize(file.len() + (2 * blocks).div_ceil(8), 0);
    file.extend([0xFF, 0xD9]);
    file
}

/// Also above 4096 pixels, where renditions are made from a copy whose own size is rounded.
#[tokio::test]
async fn declared_sizes_are_exact_before_and_after_they_are_made() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    for (width, height) in [(5001, 3337), (4999, 3331), (4097, 2731), (7001, 1033), (1080, 8000), (301, 199)]
    {
        let id = shown(&world, &ana, grey(width, height)).await;
        let path = format!("/v1/media/{id}");
        let before = world.get(&path, &ben).await.body;
        assert_eq!((&before["width"], &before["height"]), (&json!(width), &json!(height)));
        for size in before["renditions"].as_array().unwrap() {
            let name = size["name"].as_str().unwrap();
            let (_, bytes) = fetch(&world, &format!("{path}/{name}"), &ben, "image/webp").await;
            let (width, height) = image::load_from_memory(&bytes).unwrap().into_rgb8().dimensions();
            assert_eq!((&size["width"], &size["height"]), (&json!(width), &json!(height)), "{size}");
        }
        assert_eq!(world.get(&path, &ben).await.body, before);
    }
}

#[tokio::test]
async fn transparent_photo_is_transparent_for_clients_that_accept_webp_or_png() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let sticker = RgbaImage::from_fn(400, 300, |x, _| Rgba([220, 30, 40, if x < 200 { 0 } else { 255 }]));
    let mut file = std::io::Cursor::new(Vec::new());
    sticker.write_to(&mut file, ImageFormat::Png).unwrap();
    let id = shown(&world, &ana, file.into_inner()).await;
    let path = format!("/v1/media/{id}");
    let picture = world.get(&path, &ben).await.body;
    assert_eq!((&picture["alpha"], &picture["animated"]), (&json!(true), &json!(false)));
    for (accept, kind) in [
        ("image/png,image/webp,*/*", "image/webp"),
        ("image/png,*/*", "image/png"),
        ("image/png;q=0,*/*", "image/jpeg"),
        ("*/*", "image/jpeg"),
    ] {
        for _ in 0..2 {
            let (headers, bytes) = fetch(&world, &format!("{path}/320"), &ben, accept).await;
            assert_eq!(headers["content-type"], kind, "{accept}");
            assert!(headers["vary"].to_str().unwrap().contains("accept"));
            let seen = image::load_from_memory(&bytes).unwrap().into_rgba8();
            assert_eq!(seen.dimensions(), (320, 240));
            let (left, right) = (seen.get_pixel(20, 120).0, seen.get_pixel(300, 120).0);
            assert_eq!(right[3], 255);
            if kind == "image/jpeg" {
                assert!(left.iter().all(|&value| value > 250), "{left:?}");
            } else {
                assert_eq!(left[3], 0, "{accept}");
            }
        }
    }
    // An opaque photo is never served as PNG.
    let photo = world.photo(&ana, 500).await;
    let (headers, _) = fetch(&world, &format!("/v1/media/{photo}/320"), &ben, "image/png,*/*").await;
    assert_eq!(headers["content-type"], "image/jpeg");
    assert_eq!(world.get(&format!("/v1/media/{photo}"), &ben).await.body["alpha"], json!(false));
}

/// An avatar is rendered as JPEG after the upload, on white; with transparent parts it is also available as WebP and PNG.
#[tokio::test]
async fn transparent_avatar_is_transparent_for_clients_that_accept_webp_or_png() {
    let world = World::new();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let sticker = RgbaImage::from_fn(400, 300, |x, _| Rgba([220, 30, 40, if x < 200 { 0 } else { 255 }]));
    let opaque = RgbaImage::from_pixel(400, 300, Rgba([220, 30, 40, 255]));
    for (pixels, alpha) in [(sticker, true), (opaque, false)] {
        let mut file = std::io::Cursor::new(Vec::new());
        pixels.write_to(&mut file, ImageFormat::Png).unwrap();
        let id = avatar(&world, &ana, file.into_inner()).await;
        let path = format!("/v1/media/{id}");
        let before = world.get(&path, &ben).await.body;
        assert_eq!(before["alpha"], json!(alpha));
        for (accept, kind) in [
            ("image/png,image/webp,*/*", "image/webp"),
            ("image/png,*/*", "image/png"),
            ("image/png;q=0,*/*", "image/jpeg"),
            ("*/*", "image/jpeg"),
        ] {
            let kind = if alpha { kind } else { "image/jpeg" };
            for (name, side) in [("512", 300), ("128", 128)] {
                let (headers, bytes) = fetch(&world, &format!("{path}/{name}"), &ben, accept).await;
                assert_eq!(headers["content-type"], kind, "{accept}");
                let seen = image::load_from_memory(&bytes).unwrap().into_rgba8();
                assert_eq!(seen.dimensions(), (side, side));
                let (left, right) = (seen.get_pixel(8, 64).0, seen.get_pixel(side - 8, 64).0);
                assert_eq!(right[3], 255);
                match (alpha, kind) {
                    (true, "image/jpeg") => assert!(left.iter().all(|&value| value > 250), "{left:?}"),
                    (true, _) => assert_eq!(left[3], 0, "{accept}"),
                    (false, _) => assert_eq!(left[3], 255),
                }
            }
        }
        assert_eq!(world.get(&path, &ben).await.body["renditions"], before["renditions"]);
    }
}
