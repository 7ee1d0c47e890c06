//! Small files that declare a large size, and files made to be costly.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use std::time::Duration;

use couple_picture::{
    self as picture, AVATARS, Crop, Encoding, Fit, Limits, Recipe, Rejected, Rendition, inspect,
};
use support::{fields, gif, ihdr, jpeg, jpeg_with, photo, png, png_chunk, render, whole, with_segment};
use tokio::time::Instant;

/// Replaces the size in a JPEG's header.
fn resized(jpeg: &[u8], width: u16, height: u16) -> Vec<u8> {
    let frame = jpeg.windows(2).position(|pair| matches!(pair, [0xFF, 0xC0 | 0xC2])).unwrap();
    let mut bytes = jpeg.to_vec();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// Peak memory of the process in KiB (Linux).
#[cfg(target_os = "linux")]
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 60,000 × 60,000 pixels in every type: rejected by the header, within 10 ms and 20 MiB.
#[test]
fn huge_declared_size_is_rejected_cheaply() {
    let mut webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    webp.extend([&59_999_u32.to_le_bytes()[..3], &59_999_u32.to_le_bytes()[..3]].concat());
    let mut huge_gif = gif(&fields(8, 8));
    huge_gif[6..10].copy_from_slice(&[0x60, 0xEA, 0x60, 0xEA]);
    let huge_png =
        [ihdr(60_000, 60_000, [8, 6, 0, 0, 0]), png_chunk(b"IDAT", b""), png_chunk(b"IEND", b"")].concat();
    let huge_jpeg = resized(&jpeg(&photo(64, 64)), 60_000, 60_000);
    #[cfg(target_os = "linux")]
    let before = most_memory();
    for file in [&huge_png, &huge_jpeg, &huge_gif] {
        let started = Instant::now();
        let refused = render(file, &whole()).unwrap_err();
        assert!(started.elapsed() < Duration::from_millis(10), "{:?}", started.elapsed());
        assert_eq!(refused, Rejected::TooLarge { width: 60_000, height: 60_000 });
    }
    // The maximum of WebP's own chunks is 16,384; this file declares more and has no such chunk.
    let started = Instant::now();
    render(&webp, &whole()).unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(10));
    #[cfg(target_os = "linux")]
    assert!(most_memory() - before < 20 << 10);
}

#[test]
fn each_limit_is_enforced() {
    let file = jpeg(&photo(400, 300));
    let with = |set: fn(Limits) -> Limits| {
        let limits = set(Limits::default());
        inspect(&file, &limits).map(|info| (info.width, info.height))
    };
    assert_eq!(with(|limits| limits), Ok((400, 300)));
    assert_eq!(with(|limits| limits.with_side(399)), Err(Rejected::TooLarge { width: 400, height: 300 }));
    assert_eq!(with(|limits| limits.with_side(400)), Ok((400, 300)));
    assert_eq!(with(|limits| limits.with_bytes(100)), Err(Rejected::TooManyBytes { limit: 100 }));
    let large = resized(&file, 15_000, 15_000);
    assert_eq!(
        inspect(&large, &Limits::default()).unwrap_err(),
        Rejected::TooLarge { width: 15_000, height: 15_000 }
    );
    for (width, height) in [(0, 300), (400, 0)] {
        assert!(matches!(render(&resized(&file, width, height), &whole()), Err(Rejected::Corrupt(_))));
    }
}

/// A file of a few kilobytes with 48 megapixels of one colour is shown within the memory limit.
#[test]
fn large_flat_picture_is_shown_within_the_memory_limit() {
    let rows = vec![0; (8_000 * 3 + 1) * 6_000];
    let file = [
        ihdr(8_000, 6_000, [8, 2, 0, 0, 0]),
        png_chunk(b"IDAT", &miniz_oxide::deflate::compress_to_vec_zlib(&rows, 9)),
        png_chunk(b"IEND", &[]),
    ]
    .concat();
    drop(rows);
    assert!(file.len() < 200_000);
    let recipe = Recipe { renditions: AVATARS.to_vec(), crop: None, encoding: Encoding::JPEG };
    assert_eq!(render(&file, &recipe).unwrap().images.len(), 4);
    let limits = Limits::default().with_memory(1 << 20);
    assert_eq!(picture::render(&file, &recipe, &limits).unwrap_err().code(), "too_complex");
}

/// A tiny JPEG that declares 48 megapixels is rejected when its data end.
#[test]
fn declared_size_without_data_is_rejected_early() {
    let small = jpeg(&photo(16, 16));
    let progressive = jpeg_with(&photo(16, 16), |e| e.set_progressive_scans(9));
    for file in [small, progressive] {
        let started = Instant::now();
        let refused = render(&resized(&file, 8_000, 6_000), &whole()).unwrap_err();
        assert!(
            matches!(refused, Rejected::Truncated | Rejected::Corrupt(_) | Rejected::TooComplex(_)),
            "{refused:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}

/// 2,000 scans, each of which may cost a pass over the picture.
#[test]
fn many_scans_are_rejected_before_decoding() {
    let file = jpeg_with(&photo(64, 64), |e| e.set_progressive_scans(9));
    let at = file.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let (scan, end) = (&file[at..file.len() - 2], &file[file.len() - 2..]);
    let many = [&file[..at], &scan.repeat(2_000), end].concat();
    let started = Instant::now();
    assert_eq!(render(&resized(&many, 6_000, 6_000), &whole()).unwrap_err().code(), "too_complex");
    assert!(started.elapsed() < Duration::from_millis(100));
}

/// Files with very many definitions of tables, and with very many segments of one byte.
#[test]
fn many_segments_cost_no_more_than_their_bytes() {
    let file = jpeg(&photo(64, 64));
    let table = file.windows(2).position(|pair| pair == [0xFF, 0xC4]).unwrap();
    let length = usize::from(u16::from_be_bytes([file[table + 2], file[table + 3]])) + 2;
    let definition = &file[table..table + length];
    let many = [&file[..2], &definition.repeat((10 << 20) / length), &file[2..]].concat();
    let started = Instant::now();
    render(&many, &whole()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    let comment = with_segment(&[0xFF, 0xD8], 0xFE, b"")[2..].repeat(2 << 20);
    let started = Instant::now();
    render(&[&file[..2], &comment, &file[2..]].concat(), &whole()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Of 100,000 frames only the first is decoded.
#[test]
fn gif_of_many_frames_shows_its_first_frame() {
    let file = gif(&fields(64, 48));
    let (start, trailer) = (13 + 3 * (2 << (file[10] & 7)) * usize::from(file[10] >> 7), file.len() - 1);
    let tiny = [0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0x80, 0, 0, 0, 255, 255, 255, 2, 2, 0x44, 0x01, 0];
    let many = [&file[..trailer], &tiny.repeat(100_000), &file[trailer..]].concat();
    assert!(start < trailer);
    let started = Instant::now();
    assert_eq!(render(&many, &whole()).unwrap().images[0].width, 64);
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[test]
fn rendering_stops_at_the_deadline() {
    let limits = Limits::default().with_deadline(Duration::ZERO);
    for file in [jpeg(&photo(600, 400)), png(&photo(600, 400))] {
        assert_eq!(picture::render(&file, &whole(), &limits), Err(Rejected::TookTooLong));
    }
}

/// Sizes and crops of a recipe are limited to the picture.
#[test]
fn unusual_recipes_are_rendered() {
    let file = jpeg(&photo(333, 17));
    let fits = [(1, 1), (0, 0), (20_000, 20_000), (5, 4_000), (4_000, 5), (u32::MAX, u32::MAX)];
    let renditions: Vec<_> = [Fit::Cover, Fit::Within]
        .into_iter()
        .flat_map(|fit| fits.map(|(width, height)| Rendition::new("odd", fit, width, height)))
        .collect();
    for crop in [
        None,
        Some(Crop { x: 332, y: 16, width: 1, height: 1 }),
        Some(Crop { x: 5, y: 3, width: 7, height: 900 }),
    ] {
        for encoding in
            [Encoding::JPEG, Encoding::WEBP, Encoding::Jpeg { quality: 0 }, Encoding::WebP { quality: 255 }]
        {
            let rendered = render(&file, &Recipe { renditions: renditions.clone(), crop, encoding }).unwrap();
            for image in &rendered.images {
                assert!(image.width <= 333 && image.height <= 17 && image.width * image.height > 0);
                assert_eq!(support::seen(image).dimensions(), (image.width, image.height));
            }
        }
    }
    for crop in [
        Crop { x: 333, y: 0, width: 10, height: 10 },
        Crop { x: 0, y: u32::MAX, width: 10, height: 10 },
        Crop { x: 0, y: 0, width: 0, height: 10 },
    ] {
        assert_eq!(render(&file, &Recipe { crop: Some(crop), ..whole() }), Err(Rejected::CropOutside));
    }
    let nothing = Recipe { renditions: Vec::new(), crop: None, encoding: Encoding::JPEG };
    assert!(!render(&file, &nothing).unwrap().placeholder.is_empty());
}
