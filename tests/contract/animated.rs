//! Animations that the host keeps are animated for clients that accept WebP, and for no others.

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use couple::{Backend, core::limits::Unlimited, gallery::GalleryOptions, http::HttpOptions};
use image::{Delay, Frame, Rgba, RgbaImage, codecs::gif::GifEncoder};
use serde_json::json;
use tower::ServiceExt as _;

use crate::world::World;

/// An animation: red, then blue.
fn moving() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for colour in [[230, 20, 20, 255], [20, 20, 230, 255]] {
        let pixels = RgbaImage::from_pixel(400, 300, Rgba(colour));
        encoder.encode_frame(Frame::from_parts(pixels, 0, 0, Delay::from_numer_denom_ms(120, 1))).unwrap();
    }
    drop(encoder);
    bytes
}

async fn fetch(world: &World, path: &str, token: &str, accept: &str) -> (u16, String, Vec<u8>) {
    let request =
        Request::get(path).header("authorization", format!("Bearer {token}")).header("accept", accept);
    let answer = world.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    assert!(head.headers["vary"].to_str().unwrap().contains("accept"));
    let kind = head.headers["content-type"].to_str().unwrap().to_owned();
    (head.status.as_u16(), kind, to_bytes(body, 1 << 24).await.unwrap().to_vec())
}

/// Number of frames of an animated WebP; 0 if it is not animated.
fn frames(bytes: &[u8]) -> usize {
    bytes.windows(4).filter(|kind| kind == b"ANMF").count()
}

#[tokio::test]
async fn animation_is_animated_if_the_host_enables_it() {
    for (animated, expected) in [(true, 2), (false, 0)] {
        let options = GalleryOptions::default().with_animated(animated);
        let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
        let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
        let answer = world.upload(&ana, "purpose=photo", moving()).await;
        let id = answer.text("id");
        let body = json!({"client_id": id, "kind": "photo", "body": {"media_id": id}});
        assert_eq!(world.post("/v1/couple/entries", &ana, body).await.status, 201);
        world.work().await;
        let picture = world.get(&format!("/v1/media/{id}"), &ben).await;
        assert_eq!(picture.text("state"), "ready", "{}", picture.body);
        assert_eq!((&picture.body["width"], &picture.body["height"]), (&json!(400), &json!(300)));
        // Properties of the file, whether or not the server keeps it animated.
        assert_eq!((&picture.body["animated"], &picture.body["alpha"]), (&json!(true), &json!(false)));
        assert!(!picture.text("placeholder").is_empty());

        let path = format!("/v1/media/{id}/320");
        for _ in 0..2 {
            let (status, kind, bytes) = fetch(&world, &path, &ben, "image/webp,*/*").await;
            assert_eq!((status, &kind[..]), (200, "image/webp"));
            assert_eq!(frames(&bytes), expected);
            let first = image::load_from_memory(&bytes).unwrap().into_rgb8();
            assert_eq!(first.dimensions(), (320, 240));
            assert!(first.get_pixel(160, 120).0[0] > 200);
        }
        let (status, kind, bytes) = fetch(&world, &path, &ben, "image/jpeg").await;
        assert_eq!((status, &kind[..]), (200, "image/jpeg"));
        assert!(image::load_from_memory(&bytes).unwrap().into_rgb8().get_pixel(160, 120).0[0] > 200);
    }
}

/// A still picture is stored as without the option.
#[tokio::test]
async fn still_picture_stays_still() {
    let options = GalleryOptions::default().with_animated(true);
    let world = World::of(Backend::builder().limits(Unlimited).gallery(options), HttpOptions::default());
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let id = world.photo(&ana, 500).await;
    let (status, kind, bytes) = fetch(&world, &format!("/v1/media/{id}/320"), &ben, "image/webp").await;
    assert_eq!((status, &kind[..], frames(&bytes)), (200, "image/webp", 0));
    let blobs = world.backend.gallery().blobs();
    let names: Vec<String> =
        futures_util::TryStreamExt::try_collect(futures_util::TryStreamExt::map_ok(blobs.list(""), |blob| {
            blob.name
        }))
        .await
        .unwrap();
    assert!(names.iter().any(|name| name.contains("copy-") && name.ends_with(".jpg")), "{names:?}");
}
