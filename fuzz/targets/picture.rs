//! Any bytes are rendered or rejected with a reason, and no decoder panics.
#![no_main]

#[allow(dead_code, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "the tests use the other items")]
#[path = "../../couple-media/picture/tests/support/heic.rs"]
mod heic;
#[path = "../../couple-media/picture/tests/support/mod.rs"]
mod support;

use std::{path::PathBuf, time::Duration};

use couple_picture::{AVATARS, Encoding, Limits, PHOTOS, Recipe, Rejected, inspect, render, upright_size};
use image::{DynamicImage, Frame, ImageFormat, codecs::gif::GifEncoder};
use libfuzzer_sys::fuzz_target;

/// Writes seeds to the corpus: a picture of every type, which the fuzzer would hardly find.
fn seed() {
    let Some(corpus) = std::env::args().skip(1).map(PathBuf::from).find(|path| path.is_dir()) else { return };
    let (photo, fields) = (support::photo(40, 24), support::fields(16, 16));
    let grey = DynamicImage::ImageRgb8(photo.clone()).into_luma8();
    let deep = DynamicImage::ImageRgb8(fields.clone()).into_rgba16();
    let baseline = support::jpeg(&photo);
    let mut moving = Vec::new();
    let frames = [&fields, &photo].map(|pixels| Frame::new(DynamicImage::from(pixels.clone()).into_rgba8()));
    GifEncoder::new(&mut moving).encode_frames(frames).expect("two frames");
    let seeds = [
        support::jpeg_with(&photo, |encoder| encoder.set_progressive(true)),
        support::jpeg_with(&photo, |encoder| encoder.set_restart_interval(2)),
        support::jpeg_exif(&baseline, &support::exif(6, true)),
        baseline,
        support::png(&photo),
        support::written(grey, ImageFormat::Png),
        support::written(deep, ImageFormat::Png),
        support::webp(&photo),
        support::webp_with(&photo, 0x08, &[(b"EXIF", &support::exif(3, false))]),
        support::written(fields.clone(), ImageFormat::WebP),
        support::gif(&fields),
        moving,
        heic::single(&[]),
        heic::heic(&[heic::grid(1, 2, 64, 128, &[]), heic::coded(heic::FIELDS, &[]), heic::coded(heic::HALVES, &[])]),
    ];
    for (n, seed) in seeds.iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{n}")), seed).expect("a corpus that can be written");
    }
}

fuzz_target!(init: seed(), |bytes: &[u8]| {
    // Sizes that a second of fuzzing can process.
    let limits = Limits::default()
        .with_megapixels(1)
        .with_animation_megapixels(1)
        .with_memory(64 << 20)
        .with_deadline(Duration::from_secs(5))
        .with_libwebp(bytes.last().is_some_and(|byte| byte & 8 != 0));
    let inspected = inspect(bytes, &limits);
    if let (Ok(info), Some(size)) = (&inspected, upright_size(bytes, &limits)) {
        assert_eq!(size, (info.width, info.height));
    }
    let limits = limits.with_frames(20);
    let (renditions, encoding) = match bytes.last().map_or(0, |byte| byte % 4) {
        0 => (PHOTOS.to_vec(), Encoding::JPEG),
        1 => (AVATARS.to_vec(), Encoding::ANIMATED_WEBP),
        _ => (AVATARS.to_vec(), Encoding::JPEG),
    };
    match render(bytes, &Recipe { renditions, crop: None, encoding }, &limits) {
        Ok(rendered) => {
            let info = inspected.expect("a picture that is rendered passes inspection");
            assert_eq!((rendered.width, rendered.height), (info.width, info.height));
            let magic: &[u8] = if encoding == Encoding::JPEG { &[0xFF, 0xD8] } else { b"RIFF" };
            assert!(rendered.images.iter().all(|image| image.bytes.starts_with(magic)));
        }
        Err(reason) => {
            assert_ne!(reason, Rejected::Corrupt("the decoder panicked".into()), "a panic");
            assert_ne!(reason, Rejected::TookTooLong);
        }
    }
});
