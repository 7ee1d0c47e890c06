//! Animations that stay animated: frames, durations and repetitions, and limits.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test")]

mod support;

use std::{io::Cursor, time::Duration};

use couple_picture::{self as picture, Encoding, Fit, Limits, Recipe, Rejected, Rendition, inspect};
use image::{
    AnimationDecoder as _, Delay, Frame, ImageFormat, Rgba, RgbaImage,
    codecs::{
        gif::{GifEncoder, Repeat},
        webp::WebPDecoder,
    },
};
use tokio::time::Instant;

const RED: [u8; 3] = [230, 20, 20];
const GREEN: [u8; 3] = [20, 220, 20];
const BLUE: [u8; 3] = [20, 20, 230];

/// A frame of one colour with a square of another colour in the corner.
fn frame(field: [u8; 3], corner: [u8; 3]) -> RgbaImage {
    let opaque = |[r, g, b]: [u8; 3]| Rgba([r, g, b, 255]);
    RgbaImage::from_fn(120, 80, |x, y| opaque(if x >= 80 && y >= 40 { corner } else { field }))
}

fn gif(frames: &[(RgbaImage, u32)], repeat: Option<Repeat>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    if let Some(repeat) = repeat {
        encoder.set_repeat(repeat).unwrap();
    }
    for (pixels, milliseconds) in frames {
        let delay = Delay::from_numer_denom_ms(*milliseconds, 1);
        encoder.encode_frame(Frame::from_parts(pixels.clone(), 0, 0, delay)).unwrap();
    }
    drop(encoder);
    bytes
}

/// Three frames: red; its corner green, for longer; all blue. Repeated endlessly.
fn three() -> Vec<u8> {
    let frames = [(frame(RED, RED), 100), (frame(RED, GREEN), 250), (frame(BLUE, BLUE), 1_500)];
    gif(&frames, Some(Repeat::Infinite))
}

fn recipe(encoding: Encoding) -> Recipe {
    let sizes = [("large", 4_000), ("small", 60)];
    let renditions = sizes.map(|(name, side)| Rendition::new(name, Fit::Within, side, side)).to_vec();
    Recipe { renditions, crop: None, encoding }
}

fn animated(bytes: &[u8], limits: &Limits) -> Result<picture::Rendered, Rejected> {
    picture::render(bytes, &recipe(Encoding::AnimatedWebP { quality: 95 }), limits)
}

/// Frames of a WebP and their durations, as another decoder reads them.
fn frames(webp: &[u8]) -> Vec<(RgbaImage, Duration)> {
    let decoder = WebPDecoder::new(Cursor::new(webp)).unwrap();
    let frames = decoder.into_frames().collect_frames().unwrap();
    frames.into_iter().map(|frame| (frame.buffer().clone(), frame.delay().into())).collect()
}

/// Number of repetitions of a WebP.
fn loops(webp: &[u8]) -> u16 {
    let at = webp.windows(4).position(|kind| kind == b"ANIM").unwrap();
    u16::from_le_bytes([webp[at + 12], webp[at + 13]])
}

#[track_caller]
fn assert_at(pixels: &RgbaImage, x: f32, y: f32, colour: [u8; 3]) {
    let (width, height) = (pixels.width() as f32, pixels.height() as f32);
    #[expect(clippy::cast_sign_loss, reason = "within the picture")]
    let seen = pixels.get_pixel((x * width) as u32, (y * height) as u32).0;
    let far = seen.iter().zip(colour).any(|(&seen, wanted)| seen.abs_diff(wanted) > 24);
    assert!(!far && seen[3] == 255, "{seen:?} is not {colour:?}");
}

#[test]
fn frames_keep_their_pixels_and_times() {
    let rendered = animated(&three(), &Limits::default()).unwrap();
    assert_eq!((rendered.width, rendered.height), (120, 80));
    for (image, size) in rendered.images.iter().zip([(120, 80), (60, 40)]) {
        assert_eq!((image.width, image.height), size);
        assert_eq!(image::guess_format(&image.bytes).unwrap(), ImageFormat::WebP);
        let frames = frames(&image.bytes);
        let times: Vec<u128> = frames.iter().map(|(_, time)| time.as_millis()).collect();
        assert_eq!(times, [100, 250, 1_500]);
        for ((pixels, _), (field, corner)) in frames.iter().zip([(RED, RED), (RED, GREEN), (BLUE, BLUE)]) {
            assert_eq!(pixels.dimensions(), size);
            assert_at(pixels, 0.3, 0.3, field);
            assert_at(pixels, 0.85, 0.75, corner);
        }
        assert_eq!(loops(&image.bytes), 0);
    }
    // A frame in which only the corner changes contains only the corner.
    let whole =
        picture::render(&three(), &recipe(Encoding::WebP { quality: 95 }), &Limits::default()).unwrap();
    assert_eq!(whole.placeholder, rendered.placeholder);
}

#[test]
fn frame_contains_only_what_changes() {
    let still = frame(GREEN, BLUE);
    let bytes = gif(&[(still.clone(), 100), (still.clone(), 200), (still, 300), (frame(RED, RED), 50)], None);
    let rendered = animated(&bytes, &Limits::default()).unwrap();
    let times: Vec<u128> = frames(&rendered.images[0].bytes).iter().map(|(_, t)| t.as_millis()).collect();
    assert_eq!(times, [600, 50]);
    assert_eq!(loops(&rendered.images[0].bytes), 1);
    let twice = animated(
        &gif(&[(frame(RED, RED), 10), (frame(BLUE, RED), 10)], Some(Repeat::Finite(2))),
        &Limits::default(),
    );
    assert_eq!(loops(&twice.unwrap().images[0].bytes), 3);
}

#[test]
fn rendered_animation_can_be_rendered_again() {
    let once = animated(&three(), &Limits::default()).unwrap();
    let again = animated(&once.images[0].bytes, &Limits::default()).unwrap();
    assert_eq!(inspect(&once.images[0].bytes, &Limits::default()).unwrap().frames, 3);
    let (before, after) = (frames(&once.images[0].bytes), frames(&again.images[0].bytes));
    assert_eq!(before.len(), after.len());
    for ((before, time), (after, same)) in before.iter().zip(&after) {
        assert_eq!(time, same);
        assert_at(after, 0.3, 0.3, [0, 1, 2].map(|channel| before.get_pixel(36, 24).0[channel]));
    }
}

/// Only the first frame is shown unless the recipe asks for an animation.
#[test]
fn first_frame_is_shown_by_default() {
    for encoding in [Encoding::JPEG, Encoding::WEBP] {
        let rendered = picture::render(&three(), &recipe(encoding), &Limits::default()).unwrap();
        let pixels = image::load_from_memory(&rendered.images[0].bytes).unwrap().into_rgba8();
        assert_at(&pixels, 0.85, 0.75, RED);
        assert!(!rendered.images[0].bytes.windows(4).any(|kind| kind == b"ANMF"));
    }
    // A picture with one frame becomes an ordinary WebP.
    let still = gif(&[(frame(RED, BLUE), 100)], None);
    let rendered = animated(&still, &Limits::default()).unwrap();
    assert!(!rendered.images[0].bytes.windows(4).any(|kind| kind == b"ANMF"));
}

#[test]
fn metadata_of_an_animation_is_removed() {
    let mut bytes = three();
    let end = bytes.len() - 1;
    let secret = b"\x21\xfe\x0esecret comment\0\x21\xff\x0bXMP DataXMP\x06secret\0";
    bytes.splice(end..end, secret.iter().copied());
    bytes.extend(b"secret");
    let rendered = animated(&bytes, &Limits::default()).unwrap();
    for image in rendered.images {
        assert_eq!(frames(&image.bytes).len(), 3);
        assert!(!image.bytes.windows(6).any(|part| part == b"secret"));
    }
}

/// A transparent pixel that shows the background is transparent in WebP, too.
#[test]
fn transparent_part_of_an_animation_is_kept() {
    let clear =
        RgbaImage::from_fn(40, 40, |x, _| if x < 20 { Rgba([0; 4]) } else { Rgba([20, 20, 230, 255]) });
    let rendered = animated(&gif(&[(clear, 40), (frame(RED, RED), 40)], None), &Limits::default());
    let frames = frames(&rendered.unwrap().images[0].bytes);
    assert_eq!(frames[0].0.get_pixel(8, 20).0[3], 0);
    assert_at(&frames[0].0, 0.8, 0.5, BLUE);
}

/// Of 100,000 frames, and of few frames with too many pixels in total, only the first is shown.
#[test]
fn animation_beyond_the_limits_becomes_its_first_frame() {
    let two = gif(&[(frame(RED, RED), 10), (frame(BLUE, BLUE), 10)], None);
    let single = gif(&[(frame(RED, RED), 10)], None);
    // The bytes that the second frame adds, repeated.
    let frame = &two[single.len() - 1..two.len() - 1];
    let bomb = [&two[..two.len() - 1], &frame.repeat(99_998), b";"].concat();
    let limits = Limits::default().with_bytes(bomb.len());
    let started = Instant::now();
    assert_eq!(inspect(&bomb, &limits).unwrap().frames, 1);
    let rendered = animated(&bomb, &limits).unwrap();
    assert!(started.elapsed() < limits.deadline(), "{:?}", started.elapsed());
    let pixels = image::load_from_memory(&rendered.images[0].bytes).unwrap().into_rgba8();
    assert_at(&pixels, 0.3, 0.3, RED);

    let hundred = [&two[..two.len() - 1], &frame.repeat(118), b";"].concat();
    let frames = |set: fn(Limits) -> Limits| {
        let limits = set(Limits::default());
        inspect(&hundred, &limits).unwrap().frames
    };
    assert_eq!(frames(|limits| limits), 120);
    assert_eq!(frames(|limits| limits.with_frames(119)), 1);
    // 120 frames of 9,600 pixels are 1.15 megapixels.
    assert_eq!(frames(|limits| limits.with_animation_megapixels(1)), 1);
    assert_eq!(frames(|limits| limits.with_animation_megapixels(2)), 120);
}

/// A truncated file shows its complete frames, or is refused if no frame is complete.
#[test]
fn truncated_animation_shows_its_complete_frames() {
    let bytes = three();
    for length in (0..bytes.len()).step_by(7) {
        if let Ok(rendered) = animated(&bytes[..length], &Limits::default()) {
            image::load_from_memory(&rendered.images[0].bytes).unwrap();
        }
    }
    let without_end = animated(&bytes[..bytes.len() - 1], &Limits::default()).unwrap();
    assert_eq!(frames(&without_end.images[0].bytes).len(), 3);
    let elapsed = Limits::default().with_deadline(Duration::ZERO);
    assert_eq!(animated(&bytes, &elapsed), Err(Rejected::TookTooLong));
    for at in (0..bytes.len()).step_by(4) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        match animated(&damaged, &Limits::default()) {
            Ok(rendered) => drop(image::load_from_memory(&rendered.images[0].bytes).unwrap()),
            Err(reason) => assert_ne!(reason, Rejected::Corrupt("the decoder panicked".into()), "{at}"),
        }
    }
}
