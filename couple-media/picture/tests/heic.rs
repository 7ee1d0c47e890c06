//! HEIC files composed here: tiles, rotation, colour, alpha, limits, damage.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test")]

#[path = "support/heic.rs"]
mod made;
mod support;

use std::time::Duration;

use couple_picture::{self as picture, AVATARS, Encoding, Kind, Limits, Recipe, Rejected, inspect};
use image::RgbImage;
use made::{FIELDS, HALVES, Item, a_box, coded, full, grid, heic, ispe, nclx, single, srgb};
use support::{assert_near, colour_at, exif, render, seen, shown, whole, within};
use tokio::time::Instant;

const RED: [u8; 3] = [220, 30, 30];
const GREEN: [u8; 3] = [30, 200, 40];
const BLUE: [u8; 3] = [40, 40, 210];
const WHITE: [u8; 3] = [240, 240, 240];

#[track_caller]
fn assert_colour(pixels: &RgbImage, x: f32, y: f32, colour: [u8; 3]) {
    assert_near(colour_at(pixels, x, y), colour, 12);
}

#[track_caller]
fn assert_fields(pixels: &RgbImage, [top_left, top_right, bottom_left, bottom_right]: [[u8; 3]; 4]) {
    assert_colour(pixels, 0.25, 0.25, top_left);
    assert_colour(pixels, 0.75, 0.25, top_right);
    assert_colour(pixels, 0.25, 0.75, bottom_left);
    assert_colour(pixels, 0.75, 0.75, bottom_right);
}

#[test]
fn picture_without_tiles_is_decoded() {
    let file = single(&[]);
    let info = inspect(&file, &Limits::default()).unwrap();
    assert_eq!(
        (info.kind, info.kind.media_type(), info.width, info.height),
        (Kind::Heic, "image/heic", 64, 64)
    );
    assert_fields(&shown(&file), [RED, GREEN, BLUE, WHITE]);
    for image in render(&file, &Recipe { renditions: AVATARS.to_vec(), crop: None, encoding: Encoding::WEBP })
        .unwrap()
        .images
    {
        assert_eq!((image.width, image.height), (64, 64));
    }
}

/// `irot` is anticlockwise, `imir` is applied after it, and the orientation in Exif repeats them.
#[test]
fn orientation_is_applied_once() {
    let irot = |quarters: u8| a_box(b"irot", &[quarters]);
    let imir = |axis: u8| a_box(b"imir", &[axis]);
    let cases = [
        (vec![irot(0)], [RED, GREEN, BLUE, WHITE]),
        (vec![irot(1)], [GREEN, WHITE, RED, BLUE]),
        (vec![irot(2)], [WHITE, BLUE, GREEN, RED]),
        (vec![irot(3)], [BLUE, RED, WHITE, GREEN]),
        (vec![imir(0)], [BLUE, WHITE, RED, GREEN]),
        (vec![imir(1)], [GREEN, RED, WHITE, BLUE]),
        (vec![irot(1), imir(0)], [RED, BLUE, GREEN, WHITE]),
        (vec![irot(1), imir(1)], [WHITE, GREEN, BLUE, RED]),
        (vec![imir(1), irot(1)], [RED, BLUE, GREEN, WHITE]),
        (vec![irot(3), imir(1)], [RED, BLUE, GREEN, WHITE]),
    ];
    for (turns, expected) in cases {
        let mut items = vec![coded(FIELDS, &[&[srgb()], &turns[..]].concat())];
        let tiff = exif(6, true);
        let refers = vec![(*b"cdsc", vec![1])];
        items.push(Item {
            kind: *b"Exif",
            data: [&[0; 4], &tiff[..]].concat(),
            properties: Vec::new(),
            refers,
        });
        let rendered = render(&heic(&items), &whole()).unwrap();
        assert_fields(&seen(&rendered.images[0]), expected);
        let bytes = &rendered.images[0].bytes;
        assert!(
            !bytes.windows(4).any(|part| part == b"Exif") && !bytes.windows(3).any(|part| part == b"Mkr")
        );
    }
}

/// Tiles as phones write them; the last row and column extend beyond the picture.
#[test]
fn tiles_are_joined() {
    let with = |columns: u8, rows: u8, width, height, more: &[Vec<u8>]| {
        let tiles = (0..columns * rows).map(|_| coded(FIELDS, &[srgb()]));
        heic(&std::iter::once(grid(columns, rows, width, height, more)).chain(tiles).collect::<Vec<_>>())
    };
    let file = with(4, 3, 256, 192, &[]);
    let pixels = shown(&file);
    assert_eq!(pixels.dimensions(), (256, 192));
    for (column, row) in (0..4_u8).flat_map(|column| (0..3_u8).map(move |row| (column, row))) {
        let at = |x: f32, y: f32| ((f32::from(column) + x) / 4.0, (f32::from(row) + y) / 3.0);
        for (position, colour) in
            [((0.25, 0.25), RED), ((0.75, 0.25), GREEN), ((0.25, 0.75), BLUE), ((0.75, 0.75), WHITE)]
        {
            let (x, y) = at(position.0, position.1);
            assert_colour(&pixels, x, y, colour);
        }
    }
    // Scaled down while decoding: by every factor, and with sizes that are not divisible.
    for side in [250, 128, 64, 50, 32, 16] {
        let rendered = render(&file, &within(side)).unwrap();
        let small = seen(&rendered.images[0]);
        assert_eq!(small.dimensions(), (side, side * 3 / 4 + u32::from(side % 4 > 1)));
        let mean = |pixels: &RgbImage| {
            let sums = pixels
                .pixels()
                .fold([0_u64; 3], |sums, pixel| [0, 1, 2].map(|c| sums[c] + u64::from(pixel.0[c])));
            sums.map(|sum| sum / u64::from(pixels.width() * pixels.height()))
        };
        for (small, large) in mean(&small).into_iter().zip(mean(&pixels)) {
            assert!(small.abs_diff(large) <= 4, "{side}: {small} for {large}");
        }
    }
    // Cropped: 101 × 75 of 128 × 128, and rotated.
    let pixels = shown(&with(2, 2, 101, 75, &[a_box(b"irot", &[3])]));
    assert_eq!(pixels.dimensions(), (75, 101));
    assert_colour(&pixels, 0.9, 0.1, RED);
    assert_colour(&pixels, 0.9, 0.45, GREEN);
    // A profile or code points of the grid, or of its tiles, apply to the picture.
    assert_eq!(
        render(&with(2, 2, 128, 129, &[]), &whole()).unwrap_err(),
        Rejected::Corrupt("the tiles do not fit the picture".into())
    );
    assert!(matches!(render(&with(2, 2, 64, 128, &[]), &whole()), Err(Rejected::Corrupt(_))));
}

/// The same samples with other matrices, ranges and primaries.
#[test]
fn colour_code_points_are_applied() {
    let with = |primaries, transfer, matrix, full| {
        shown(&heic(&[coded(FIELDS, &[nclx(primaries, transfer, matrix, full)])]))
    };
    let red = |pixels: &RgbImage| colour_at(pixels, 0.25, 0.25);
    let plain = red(&with(1, 13, 6, true));
    assert_eq!(red(&with(1, 13, 5, true)), plain);
    // Y 87, Cb 96, Cr 223 with the matrix of BT.709.
    let other = red(&with(1, 13, 1, true));
    assert!(other.iter().zip([236, 48, 28]).all(|(&seen, wanted)| seen.abs_diff(wanted) < 8), "{other:?}");
    // In limited range, 240 is above white.
    let limited = with(1, 13, 6, false);
    assert_colour(&limited, 0.75, 0.75, [255, 255, 255]);
    // Red of Display P3 is outside of sRGB.
    let wide = red(&with(12, 13, 6, true));
    assert!(wide[0] > plain[0] + 8 && wide[1] < plain[1], "{wide:?}");
    let widest = red(&with(9, 13, 9, true));
    assert!(widest[0] > plain[0] + 8, "{widest:?}");
    for transfer in [16, 18] {
        let file = heic(&[coded(FIELDS, &[nclx(9, transfer, 9, true)])]);
        assert!(matches!(render(&file, &whole()), Err(Rejected::Unsupported(_))));
    }
    // A profile takes precedence over code points.
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let profile = a_box(b"colr", &[b"prof", &profile[..]].concat());
    let pixels = shown(&heic(&[coded(FIELDS, &[srgb(), profile])]));
    assert!(red(&pixels)[0] > plain[0] + 8);
    // Without chroma.
    let grey = shown(&heic(&[coded(HALVES, &[srgb()])]));
    assert_fields(&grey, [[0; 3], [255; 3], [0; 3], [255; 3]]);
}

#[test]
fn alpha_stays_in_png_and_webp_and_is_white_in_jpeg() {
    let alpha = full(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0");
    let mut halves = coded(HALVES, &[srgb(), alpha]);
    halves.refers = vec![(*b"auxl", vec![1])];
    let file = heic(&[coded(FIELDS, &[srgb()]), halves]);
    assert_fields(&shown(&file), [[255; 3], GREEN, [255; 3], WHITE]);
    for encoding in [Encoding::Png, Encoding::WEBP, Encoding::COPY] {
        let rendered = render(&file, &Recipe { encoding, ..whole() }).unwrap();
        assert!(rendered.alpha);
        let pixels = image::load_from_memory(&rendered.images[0].bytes).unwrap().into_rgba8();
        let at = |x: f32, y: f32| {
            pixels.get_pixel((x * pixels.width() as f32) as u32, (y * pixels.height() as f32) as u32).0
        };
        assert_eq!([at(0.25, 0.25)[3], at(0.25, 0.75)[3], at(0.75, 0.75)[3]], [0, 0, 255], "{encoding:?}");
        let [colour @ .., alpha] = at(0.75, 0.25);
        assert_eq!(alpha, 255);
        assert_near(colour, GREEN, 12);
    }
    // A depth map or a thumbnail is not alpha.
    let mut depth = coded(HALVES, &[full(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth\0")]);
    depth.refers = vec![(*b"auxl", vec![1])];
    let mut thumbnail = coded(HALVES, &[]);
    thumbnail.refers = vec![(*b"thmb", vec![1])];
    let pixels = shown(&heic(&[coded(FIELDS, &[srgb()]), depth, thumbnail]));
    assert_fields(&pixels, [RED, GREEN, BLUE, WHITE]);
}

/// Programs that pad a picture to an even size write such a crop.
#[test]
fn crop_at_the_right_and_bottom_is_applied() {
    let clap = |width: u32, height: u32, x: i32, y: i32| {
        let parts = [width, 1, height, 1, x.cast_unsigned(), 2, y.cast_unsigned(), 2];
        a_box(b"clap", &parts.map(u32::to_be_bytes).concat())
    };
    let pixels = shown(&single(&[clap(61, 33, -3, -31)]));
    assert_eq!(pixels.dimensions(), (61, 33));
    assert_colour(&pixels, 0.9, 0.5, GREEN);
    let middle = single(&[clap(32, 32, 0, 0)]);
    assert!(matches!(render(&middle, &whole()), Err(Rejected::Unsupported(_))));
}

#[test]
fn limits_are_checked_before_decoding() {
    let huge = heic(&[grid(250, 250, 60_000, 60_000, &[]), coded(FIELDS, &[srgb()])]);
    let started = Instant::now();
    assert_eq!(render(&huge, &whole()), Err(Rejected::TooLarge { width: 60_000, height: 60_000 }));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // The coded picture has another size than its box declares.
    let mut item = coded(FIELDS, &[srgb()]);
    item.properties[1] = ispe(65, 64);
    assert!(matches!(render(&heic(&[item]), &whole()), Err(Rejected::Corrupt(_))));
    let with = |set: fn(Limits) -> Limits| {
        let limits = set(Limits::default());
        picture::render(&single(&[]), &whole(), &limits)
    };
    assert!(matches!(with(|limits| limits.with_memory(30_000)), Err(Rejected::TooComplex(_))));
    assert!(with(|limits| limits.with_memory(60_000)).is_ok());
    assert_eq!(with(|limits| limits.with_deadline(Duration::ZERO)), Err(Rejected::TookTooLong));
    // The same slice many times, each as much work as a picture.
    let [config, data] = FIELDS;
    let mut item = coded([config, data], &[srgb()]);
    let mut again = item.data.clone();
    // Clears the flag of the first slice.
    again[6] &= 0x7F;
    for _ in 0..1_000 {
        item.data.extend(&again);
    }
    let started = Instant::now();
    let _ = render(&heic(&[item]), &whole());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for brand in [b"avif", b"mp42"] {
        let mut file = single(&[]);
        file[8..12].copy_from_slice(brand);
        assert_eq!(render(&file, &whole()), Err(Rejected::UnknownType));
    }
}

/// Cut off at every length, and with every bit flipped: shown or rejected, and no decoder panics.
#[test]
fn damaged_heic_is_rejected_or_shown() {
    let mut halves = coded(HALVES, &[full(b"auxC", b"urn:mpeg:hevc:2015:auxid:1\0")]);
    halves.refers = vec![(*b"auxl", vec![1])];
    let whole_file = heic(&[grid(1, 1, 60, 62, &[srgb(), a_box(b"irot", &[1])]), coded(FIELDS, &[]), halves]);
    assert_eq!(shown(&whole_file).dimensions(), (62, 60));
    for length in 0..whole_file.len() {
        assert!(render(&whole_file[..length], &whole()).is_err(), "{length}");
    }
    for bit in 0..whole_file.len() * 8 {
        let mut file = whole_file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        if let Err(reason) = render(&file, &within(32)) {
            assert_ne!(reason, Rejected::Corrupt("the decoder panicked".into()), "bit {bit}");
            assert_ne!(reason, Rejected::TookTooLong, "bit {bit}");
        }
    }
}
