//! All eight orientations, in both byte orders and in all file types.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

mod support;

use couple_picture::{AVATARS, Crop, Encoding, Limits, PHOTOS, Recipe, inspect, upright_size};
use image::{RgbImage, imageops};
use support::{
    assert_near, colour_at, exif, fields, gif, jpeg, jpeg_exif, photo, png, render, seen, shown, ssim, webp,
    webp_with, with_chunk,
};

/// The picture as stored by a camera for this orientation (Exif 2.32, 4.6.4, table 6).
fn stored(upright: &RgbImage, orientation: u16) -> RgbImage {
    match orientation {
        1 => upright.clone(),
        2 => imageops::flip_horizontal(upright),
        3 => imageops::rotate180(upright),
        4 => imageops::flip_vertical(upright),
        5 => imageops::rotate270(&imageops::flip_horizontal(upright)),
        6 => imageops::rotate270(upright),
        7 => imageops::rotate90(&imageops::flip_horizontal(upright)),
        _ => imageops::rotate90(upright),
    }
}

#[test]
fn every_orientation_is_made_upright() {
    let upright = fields(96, 64);
    for orientation in 1..=8 {
        for big_endian in [false, true] {
            let (pixels, exif) = (stored(&upright, orientation), exif(orientation, big_endian));
            // PNG and WebP hold the block alone, but many programs write JPEG's identifier before it, and some write it twice.
            let with_header = [b"Exif\0\0", &exif[..]].concat();
            let twice = [b"Exif\0\0", &with_header[..]].concat();
            let files = [
                jpeg_exif(&jpeg(&pixels), &exif),
                jpeg_exif(&jpeg(&pixels), &with_header),
                with_chunk(&png(&pixels), b"eXIf", &exif),
                with_chunk(&png(&pixels), b"eXIf", &with_header),
                webp_with(&pixels, 0x08, &[(b"EXIF", &exif)]),
                webp_with(&pixels, 0x08, &[(b"EXIF", &with_header)]),
                webp_with(&pixels, 0x08, &[(b"EXIF", &twice)]),
            ];
            for (kind, file) in files.iter().enumerate() {
                let info = inspect(file, &Limits::default()).unwrap();
                assert_eq!((info.width, info.height), (96, 64), "{orientation} {kind}");
                // Known from the beginning of the file if the orientation is there: in WebP it is at the end.
                let early = upright_size(&file[..file.len() - 20], &Limits::default());
                assert_eq!(early, (kind < 4).then_some((96, 64)), "{orientation} {kind}");
                let seen = shown(file);
                assert_eq!(seen.dimensions(), (96, 64));
                for (x, y) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                    assert_near(colour_at(&seen, x, y), colour_at(&upright, x, y), 12);
                }
            }
        }
    }
}

/// The first bytes of every type contain the size; before they have arrived, there is none.
#[test]
fn size_is_known_from_the_first_bytes() {
    let (pixels, limits) = (photo(301, 202), Limits::default());
    let lossless = webp::Encoder::from_rgb(&pixels, 301, 202).encode_lossless().to_vec();
    let extended = webp_with(&pixels, 0x20, &[(b"ICCP", b"none")]);
    for file in [jpeg(&pixels), png(&pixels), webp(&pixels), lossless, extended, gif(&pixels)] {
        let known = (0..file.len()).find(|&length| upright_size(&file[..length], &limits).is_some()).unwrap();
        assert!(known < 800, "{known}");
        for length in known..file.len() {
            assert_eq!(upright_size(&file[..length], &limits), Some((301, 202)), "{length}");
        }
    }
    let strict = Limits::default().with_side(300);
    assert_eq!(upright_size(&png(&pixels), &strict), None);
}

/// A crop applies to the upright picture, whatever its stored orientation and decoding scale.
#[test]
fn crop_applies_to_the_upright_picture() {
    let upright = photo(1200, 800);
    let crop = Crop { x: 130, y: 270, width: 420, height: 420 };
    let wanted = imageops::crop_imm(&upright, crop.x, crop.y, crop.width, crop.height).to_image();
    let encoding = Encoding::Jpeg { quality: 100 };
    for orientation in 1..=8 {
        let pixels = stored(&upright, orientation);
        let exif = exif(orientation, false);
        for file in [jpeg_exif(&jpeg(&pixels), &exif), with_chunk(&png(&pixels), b"eXIf", &exif)] {
            let recipe = Recipe { renditions: AVATARS[1..].to_vec(), crop: Some(crop), encoding };
            let rendered = render(&file, &recipe).unwrap();
            assert_eq!((rendered.width, rendered.height), (1200, 800));
            for image in &rendered.images {
                let wanted =
                    imageops::resize(&wanted, image.width, image.height, imageops::FilterType::Lanczos3);
                let alike = ssim(&seen(image), &wanted);
                assert!(alike > 0.98, "{orientation} {}: {alike}", image.name);
            }
        }
    }
}

#[test]
fn uncropped_photos_are_rotated() {
    let upright = photo(900, 1300);
    let file = with_chunk(&png(&stored(&upright, 6)), b"eXIf", &exif(6, true));
    let recipe =
        Recipe { renditions: PHOTOS.to_vec(), crop: None, encoding: Encoding::Jpeg { quality: 100 } };
    let rendered = render(&file, &recipe).unwrap();
    let sizes: Vec<_> = rendered.images.iter().map(|image| (image.width, image.height)).collect();
    assert_eq!(sizes, [(900, 1300), (900, 1300), (748, 1080), (222, 320)]);
    for image in &rendered.images {
        let wanted = imageops::resize(&upright, image.width, image.height, imageops::FilterType::Lanczos3);
        assert!(ssim(&seen(image), &wanted) > 0.98);
    }
}

/// Directories in a loop, with invalid offsets, or that declare four thousand million entries.
#[test]
fn looped_and_broken_directories_are_ignored() {
    let upright = fields(96, 64);
    let looped = b"II\x2a\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0".to_vec();
    let nowhere = b"MM\0\x2a\xff\xff\xff\xf0".to_vec();
    let mut counted = exif(6, false);
    counted[8..10].copy_from_slice(&[0xFF, 0xFF]);
    for exif in [looped, nowhere, counted, Vec::new(), vec![0; 3], vec![0xFF; 60_000]] {
        let seen = shown(&jpeg_exif(&jpeg(&upright), &exif));
        assert!(seen.dimensions() == (96, 64) || seen.dimensions() == (64, 96));
    }
}
