//! A host's own engine for pictures, which reads a type of file that the default does not know.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use couple::{
    Backend, Error, ErrorKind, Failure,
    core::limits::Unlimited,
    gallery::{GalleryOptions, PictureHeader, PictureRenderer, RenderPlan, Renderer},
    http::HttpOptions,
    picture::{Limits, Recipe, Rejected, Rendered},
};
use image::{ImageFormat, Rgb, RgbImage};
use tokio::time::Instant;

use crate::{
    sizes::fetch,
    world::{World, png},
};

const PLUM: [u8; 3] = [142, 69, 133];

/// A file of the host's type: a mark, width, height, one colour.
fn plain(width: u16, height: u16) -> Vec<u8> {
    [&b"ONE COLOUR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &PLUM].concat()
}

/// Reads plain pictures, and by the default engine the stored copies that it made of them.
#[derive(Debug, Clone, Default)]
struct PlainRenderer {
    calls: Arc<Mutex<Vec<String>>>,
    failures: Arc<Mutex<usize>>,
    /// Whether the engine returns no images.
    forgets_images: Arc<AtomicBool>,
    /// Whether `plan` does not return.
    plan_hangs: Arc<AtomicBool>,
    /// Whether `render` does not return.
    render_hangs: Arc<AtomicBool>,
}

impl PlainRenderer {
    fn count(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }
    fn taken_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
    fn header(file: &[u8]) -> Option<(u32, u32)> {
        match file.strip_prefix(b"ONE COLOUR") {
            Some(&[w1, w0, h1, h0, ..]) => {
                Some((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()))
            }
            _ => None,
        }
    }
}

impl Renderer for PlainRenderer {
    fn media_types(&self) -> &'static [&'static str] {
        &["image/x-plain"]
    }
    fn media_type(&self, head: &[u8]) -> Option<&'static str> {
        head.starts_with(b"ONE COLOUR").then_some("image/x-plain")
    }
    fn size(&self, head: &[u8], is_whole: bool, _: &Limits) -> Result<Option<(u32, u32)>, Rejected> {
        assert!(is_whole);
        self.count("size");
        Ok(Self::header(head))
    }
    fn plan(
        &self,
        file: &[u8],
        recipe: &dyn Fn(PictureHeader) -> Recipe,
        limits: &Limits,
    ) -> Result<RenderPlan, Rejected> {
        let Some((width, height)) = Self::header(file) else {
            self.count("plan copy");
            return PictureRenderer.plan(file, recipe, limits);
        };
        self.count("plan upload");
        while self.plan_hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(RenderPlan { recipe: recipe(PictureHeader { width, height, frames: 1 }), memory: 1 << 20 })
    }
    fn render(&self, file: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Rendered, Failure<Rejected>> {
        let names: Vec<&str> = recipe.renditions.iter().map(|size| &*size.name).collect();
        self.count(&format!("render {}", names.join(" ")));
        while self.render_hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(Error::new(ErrorKind::Unavailable, "render picture").into());
        }
        let Some((width, height)) = Self::header(file) else {
            return PictureRenderer.render(file, recipe, limits);
        };
        let mut pixels = std::io::Cursor::new(Vec::new());
        let picture = RgbImage::from_pixel(width, height, Rgb(PLUM));
        picture.write_to(&mut pixels, ImageFormat::Png).unwrap();
        let mut rendered = PictureRenderer.render(&pixels.into_inner(), recipe, limits)?;
        if self.forgets_images.load(Ordering::SeqCst) {
            rendered.images.clear();
        }
        Ok(rendered)
    }
}

fn world() -> (World, PlainRenderer) {
    let renderer = PlainRenderer::default();
    let builder = Backend::builder().limits(Unlimited).renderer(renderer.clone());
    (World::of(builder, HttpOptions::default()), renderer)
}

/// Checks that a rendition in JPEG has this size and, within the loss of JPEG, the colour of the upload.
async fn assert_plum(world: &World, path: &str, token: &str, size: (u32, u32)) {
    let (_, bytes) = fetch(world, path, token, "image/jpeg").await;
    let pixels = image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).unwrap().to_rgb8();
    assert_eq!(pixels.dimensions(), size);
    for (seen, sent) in pixels.get_pixel(size.0 / 2, size.1 / 2).0.into_iter().zip(PLUM) {
        assert!(seen.abs_diff(sent) <= 3, "{seen} instead of {sent}");
    }
}

#[tokio::test]
async fn host_renderer_renders_photos_and_their_sizes_on_request() {
    let (world, renderer) = world();
    let (ana, ben) = world.couple("ana@example.org", "ben@example.org").await;
    let uploaded = world.upload(&ana, "purpose=photo", plain(1_600, 800)).await;
    assert_eq!((uploaded.status, &uploaded.body["width"]), (202, &1_600.into()));
    let path = format!("/v1/media/{}", uploaded.text("id"));
    world
        .post(
            "/v1/couple/entries",
            &ana,
            serde_json::json!({
                "client_id": "photo", "kind": "photo", "body": {"media_id": uploaded.text("id")}
            }),
        )
        .await;
    world.work().await;
    assert_eq!(renderer.taken_calls(), ["size", "plan upload", "render copy"]);
    for _ in 0..2 {
        assert_plum(&world, &format!("{path}/320"), &ben, (320, 160)).await;
    }
    assert_eq!(renderer.taken_calls(), ["plan copy", "render 320"]);
}

#[tokio::test]
async fn host_renderer_renders_avatars() {
    let (world, renderer) = world();
    let ana = world.join("ana@example.org").await;
    let uploaded = world.upload(&ana, "purpose=avatar", plain(600, 600)).await;
    world.work().await;
    assert_eq!(renderer.taken_calls(), ["size", "plan upload", "render 512 256 128 64"]);
    assert_plum(&world, &format!("/v1/media/{}/64", uploaded.text("id")), &ana, (64, 64)).await;
    assert_eq!(renderer.taken_calls(), [""; 0]);
}

#[tokio::test]
async fn types_of_the_host_renderer_are_the_accepted_ones() {
    let (world, _) = world();
    let ana = world.join("ana@example.org").await;
    let capabilities = world.get("/v1/capabilities", &ana).await;
    assert_eq!(capabilities.body["media"]["types"], serde_json::json!(["image/x-plain"]));
    let refused = world.upload(&ana, "purpose=avatar", png(10, 10)).await;
    assert_eq!(refused.said(), (415, "unknown_type"));
    assert!(refused.text("detail").ends_with("accepted are image/x-plain"), "{}", refused.body);
}

#[tokio::test]
async fn temporary_failure_of_the_renderer_is_tried_again() {
    let (world, renderer) = world();
    let ana = world.join("ana@example.org").await;
    *renderer.failures.lock().unwrap() = 1;
    let uploaded = world.upload(&ana, "purpose=avatar", plain(600, 600)).await;
    let path = format!("/v1/media/{}", uploaded.text("id"));
    world.work().await;
    assert_eq!(world.get(&path, &ana).await.text("state"), "processing");
    world.later(Duration::from_hours(1));
    world.work().await;
    assert_eq!(world.get(&path, &ana).await.text("state"), "ready");
}

#[tokio::test]
async fn picture_without_its_images_does_not_become_ready() {
    let (world, renderer) = world();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    renderer.forgets_images.store(true, Ordering::SeqCst);
    let uploaded = world.upload(&ana, "purpose=photo", plain(1_600, 800)).await;
    let path = format!("/v1/media/{}", uploaded.text("id"));
    world.work().await;
    assert_eq!(world.get(&path, &ana).await.text("state"), "processing");
    renderer.forgets_images.store(false, Ordering::SeqCst);
    world.later(Duration::from_hours(1));
    world.work().await;
    assert_eq!(world.get(&path, &ana).await.text("state"), "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn renderer_that_hangs_fails_the_job_and_keeps_its_memory() {
    let renderer = PlainRenderer::default();
    let limits = Limits::default().with_deadline(Duration::from_millis(500));
    let builder = Backend::builder()
        .limits(Unlimited)
        .renderer(renderer.clone())
        .gallery(GalleryOptions::default().with_limits(limits));
    let world = World::of(builder, HttpOptions::default());
    let ana = world.join("ana@example.org").await;
    let memory = || world.backend.gallery().stats().memory;
    for (hangs, least, side) in [(&renderer.plan_hangs, 1, 60), (&renderer.render_hangs, 1 << 20, 61)] {
        hangs.store(true, Ordering::SeqCst);
        let uploaded = world.upload(&ana, "purpose=avatar", plain(side, side)).await;
        let path = format!("/v1/media/{}", uploaded.text("id"));
        let started = Instant::now();
        // A call on a thread of the runtime would block this one, too.
        let until = hangs.clone();
        drop(std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(8));
            until.store(false, Ordering::SeqCst);
        }));
        world.work().await;
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(1), "the caller waits for twice the deadline, not {took:?}");
        assert!(took < Duration::from_secs(6), "the caller stops waiting after twice the deadline: {took:?}");
        assert_eq!(world.get(&path, &ana).await.text("state"), "processing");
        assert!(memory() >= least, "memory is reserved while the engine runs");
        hangs.store(false, Ordering::SeqCst);
        while memory() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.later(Duration::from_hours(1));
        world.work().await;
        assert_eq!(world.get(&path, &ana).await.text("state"), "ready");
    }
}
