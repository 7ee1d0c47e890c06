//! Tall, wide and very large pictures: the sizes of their renditions, and memory.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use couple_picture::{self as picture, AVATARS, Encoding, Fit, Limits, PHOTOS, Recipe, Rendition, inspect};
use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage, imageops, imageops::FilterType};
use jpeg_encoder::{ColorType, Encoder};
use peak_alloc::PeakAlloc;
use support::{flat_jpeg, jpeg_with, photo, png, render, seen, ssim, webp, with_segment, written};

/// Counts allocated bytes, which unlike the resident memory exclude memory that the allocator keeps for reuse.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const COPY: Rendition = Rendition::new("copy", Fit::Readable, 4096, 4096);

/// Held by each test that decodes a picture.
///
/// If the runner starts tests as threads, the measured memory of the process includes that of concurrent tests.
static DECODING: Mutex<()> = Mutex::new(());

fn lock_measurements() -> MutexGuard<'static, ()> {
    DECODING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn recipe(renditions: &[Rendition], encoding: Encoding) -> Recipe {
    Recipe { renditions: renditions.to_vec(), crop: None, encoding }
}

fn sizes(width: u32, height: u32) -> [(u32, u32); 4] {
    PHOTOS.map(|size| size.size_of(width, height))
}

#[test]
fn photos_within_three_to_one_fit_a_square() {
    assert_eq!(sizes(4000, 3000), [(4000, 3000), (2048, 1536), (1080, 810), (320, 240)]);
    assert_eq!(sizes(1000, 2500), [(1000, 2500), (819, 2048), (432, 1080), (128, 320)]);
    assert_eq!(sizes(60, 40), [(60, 40); 4]);
}

/// Text in a screenshot is readable at a width of 720 pixels.
#[test]
fn long_photos_keep_a_minimum_shorter_side() {
    assert_eq!(sizes(1080, 8000), [(1080, 8000), (720, 5333), (380, 2813), (113, 833)]);
    assert_eq!(sizes(1080, 14_000)[..2], [(1080, 14_000), (720, 9333)]);
    assert_eq!(sizes(16_382, 3628)[..2], [(6502, 1440), (3251, 720)]);
    assert_eq!(sizes(700, 9000)[1], (700, 9000));
    // The maximum of WebP limits the longer side.
    assert_eq!(sizes(3000, 65_535)[1], (720, 15_728));
    assert_eq!(sizes(800, 60_000)[0], (218, 16_383));
    for (width, height) in [(1080, 8000), (16_382, 3628), (3000, 65_535), (800, 60_000)] {
        for (size, turned) in sizes(width, height).into_iter().zip(sizes(height, width)) {
            assert_eq!(size, (turned.1, turned.0));
        }
    }
}

#[test]
fn tall_screenshot_is_shown() {
    let _lock = lock_measurements();
    let pixels = photo(1080, 14_000);
    let rendered =
        render(&jpeg_with(&pixels, |_| {}), &recipe(&PHOTOS[1..2], Encoding::Jpeg { quality: 100 })).unwrap();
    let shown = seen(&rendered.images[0]);
    assert_eq!(shown.dimensions(), (720, 9333));
    assert!(ssim(&shown, &imageops::resize(&pixels, 720, 9333, FilterType::Lanczos3)) > 0.98);
}

/// Makes the stored copy of each picture, as a worker does, and checks the peak memory.
#[test]
fn panoramas_and_200_megapixels_are_shown_within_the_memory_limit() {
    let _lock = lock_measurements();
    // For a machine that is busy with other tests.
    let limits = Limits::default().with_deadline(Duration::from_secs(120));
    for (width, height, copy) in
        [(16_382, 3_628, (6_502, 1_440)), (12_000, 9_000, (4_096, 3_072)), (16_320, 12_240, (4_096, 3_072))]
    {
        let file = flat_jpeg(width, height, false);
        let recipe = recipe(&[COPY], Encoding::JPEG);
        let estimate = inspect(&file, &limits).unwrap().memory(&recipe, &limits).unwrap();
        assert!(estimate <= limits.memory(), "{width} × {height}: {estimate}");
        let before = reset_peak();
        let rendered = picture::render(&file, &recipe, &limits).unwrap();
        let taken = peak() - before;
        assert!(taken <= limits.memory(), "{width} × {height}: {taken}");
        assert_eq!((rendered.width, rendered.height), (width.into(), height.into()));
        assert_eq!((rendered.images[0].width, rendered.images[0].height), copy);
    }
}

/// Current memory of this process in bytes; resets its peak (Linux, `proc(5)`).
fn reset_peak() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS")
}

fn peak() -> usize {
    status("VmHWM")
}

fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Permits are taken by the estimate, so it must not be less than the memory used.
#[test]
fn estimated_memory_is_not_exceeded() {
    let _lock = lock_measurements();
    let limits = Limits::default().with_deadline(Duration::from_secs(120));
    let pixels = photo(2000, 1500);
    let glass = RgbaImage::from_fn(2000, 1500, |x, y| {
        let [red, green, blue] = pixels.get_pixel(x, y).0;
        Rgba([red, green, blue, (x / 8) as u8])
    });
    let files = [
        ("baseline", jpeg_with(&pixels, |_| {})),
        ("progressive", jpeg_with(&pixels, |e| e.set_progressive(true))),
        ("large progressive", flat_jpeg(8000, 6000, true)),
        ("PNG", png(&pixels)),
        ("PNG with alpha", written(glass.clone(), ImageFormat::Png)),
        ("WebP", webp(&pixels)),
        ("lossless WebP with alpha", written(glass, ImageFormat::WebP)),
    ];
    for (name, file) in files {
        for (renditions, encoding) in [
            (&AVATARS[..], Encoding::JPEG),
            (&[COPY], Encoding::JpegUnlessTransparent { quality: 90 }),
            (&PHOTOS, Encoding::WEBP),
        ] {
            let recipe = recipe(renditions, encoding);
            let estimate = inspect(&file, &limits).unwrap().memory(&recipe, &limits).unwrap();
            let before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            picture::render(&file, &recipe, &limits).unwrap();
            let taken = ALLOCATOR.peak_usage() - before;
            assert!(taken <= estimate, "{name}, {encoding:?}: {taken} bytes, estimated {estimate}");
        }
    }
}

/// Colours of CMYK, and of a profile, are converted from planes of full size.
#[test]
fn estimated_memory_of_converted_jpeg_is_not_exceeded() {
    let _lock = lock_measurements();
    let limits = Limits::default().with_deadline(Duration::from_secs(120));
    let pixels = photo(2000, 1500);
    let cmyk: Vec<u8> = pixels.pixels().flat_map(|&Rgb([c, m, y])| [c, m, y, 200]).collect();
    let (mut inks, mut state) = (Vec::new(), 1_u32);
    Encoder::new(&mut inks, 92).encode(&cmyk, 2000, 1500, ColorType::Cmyk).unwrap();
    let noise = RgbImage::from_fn(1000, 750, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Rgb([(state >> 24) as u8; 3])
    });
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let profile = [&b"ICC_PROFILE\0\x01\x01"[..], &profile].concat();
    let files = [
        ("CMYK", inks),
        ("noise", jpeg_with(&noise, |e| e.set_quality(100))),
        ("with a profile", with_segment(&jpeg_with(&pixels, |_| {}), 0xE2, &profile)),
    ];
    for (name, file) in files {
        for (renditions, encoding) in [(&AVATARS[..], Encoding::JPEG), (&[COPY], Encoding::COPY)] {
            let recipe = recipe(renditions, encoding);
            let estimate = inspect(&file, &limits).unwrap().memory(&recipe, &limits).unwrap();
            let before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            picture::render(&file, &recipe, &limits).unwrap();
            let taken = ALLOCATOR.peak_usage() - before;
            assert!(taken <= estimate, "{name}, {encoding:?}: {taken} bytes, estimated {estimate}");
        }
    }
}
