//! Pictures for tests, and their comparison.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

use std::io::Cursor;

use couple_picture::{self as picture, Encoding, Fit, Limits, Recipe, Rejected, Rendered, Rendition};
use image::{ImageFormat, Rgb, RgbImage};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

/// A smooth picture with edges and grain, like a photo.
pub(crate) fn photo(width: u32, height: u32) -> RgbImage {
    let mut state = 12_345_u32;
    RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = (state >> 28) as f32;
        let wave = |a: f32, b: f32| 100.0 + 70.0 * (x as f32 * a + y as f32 * b).sin();
        let edge = if (x / 37 + y / 53) % 2 == 0 { 40.0 } else { 0.0 };
        Rgb([wave(0.021, 0.008), wave(0.006, 0.017), wave(0.013, -0.009)].map(|v| (v + grain + edge) as u8))
    })
}

/// Four fields: red, green above blue, white.
pub(crate) fn fields(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => Rgb([220, 30, 30]),
        (false, true) => Rgb([30, 200, 40]),
        (true, false) => Rgb([40, 40, 210]),
        (false, false) => Rgb([240, 240, 240]),
    })
}

pub(crate) fn jpeg_with(pixels: &RgbImage, set: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 92);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    set(&mut encoder);
    encoder.encode(pixels, pixels.width() as u16, pixels.height() as u16, ColorType::Rgb).unwrap();
    bytes
}

pub(crate) fn jpeg(pixels: &RgbImage) -> Vec<u8> {
    jpeg_with(pixels, |_| {})
}

pub(crate) fn written(pixels: impl Into<image::DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    pixels.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn png(pixels: &RgbImage) -> Vec<u8> {
    written(pixels.clone(), ImageFormat::Png)
}

pub(crate) fn webp(pixels: &RgbImage) -> Vec<u8> {
    webp::Encoder::from_rgb(pixels, pixels.width(), pixels.height()).encode(90.0).to_vec()
}

pub(crate) fn gif(pixels: &RgbImage) -> Vec<u8> {
    written(pixels.clone(), ImageFormat::Gif)
}

/// Inserts a segment directly after a JPEG's start.
pub(crate) fn with_segment(jpeg: &[u8], marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xFF, marker], &length, payload, &jpeg[2..]].concat()
}

/// Grey JPEG of any size with few bits per block, every coefficient zero.
///
/// Baseline with subsampled chroma, or progressive.
pub(crate) fn flat_jpeg(width: u16, height: u16, progressive: bool) -> Vec<u8> {
    let segment = |marker: u8, payload: &[u8]| {
        let length = u16::try_from(payload.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, marker], &length[..], payload].concat()
    };
    let [h1, h0] = height.to_be_bytes();
    let [w1, w0] = width.to_be_bytes();
    let frame = [8, h1, h0, w1, w0, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
    // Each table has one code of one bit: a difference of zero, or the end of a block.
    let table = |class: u8| [&[class, 1][..], &[0; 15], &[0]].concat();
    let scan = [3, 1, 0, 2, 0, 3, 0, 0, if progressive { 0 } else { 63 }, 0];
    let units = usize::from(width).div_ceil(16) * usize::from(height).div_ceil(16);
    let bits = units * if progressive { 6 } else { 12 };
    [
        vec![0xFF, 0xD8],
        segment(0xDB, &[&[0][..], &[1; 64]].concat()),
        segment(if progressive { 0xC2 } else { 0xC0 }, &frame),
        segment(0xC4, &[table(0x00), table(0x10)].concat()),
        segment(0xDA, &scan),
        vec![0; bits.div_ceil(8)],
        vec![0xFF, 0xD9],
    ]
    .concat()
}

/// Encodes a PNG chunk.
pub(crate) fn png_chunk(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut sum = u32::MAX;
    for &byte in kind.iter().chain(payload) {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    [&(payload.len() as u32).to_be_bytes()[..], kind, payload, &(!sum).to_be_bytes()].concat()
}

/// Inserts a chunk directly after a PNG's header.
pub(crate) fn with_chunk(png: &[u8], kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    [&png[..33], &png_chunk(kind, payload), &png[33..]].concat()
}

pub(crate) fn ihdr(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
    let payload = [&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(b"IHDR", &payload)].concat()
}

/// Exif (2.32, 4.6) with an orientation, a GPS location and a thumbnail, in either byte order.
pub(crate) fn exif(orientation: u16, big_endian: bool) -> Vec<u8> {
    let two = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let four = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let entry = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
        [&two(tag)[..], &two(kind), &four(count), &value].concat()
    };
    let short = |value: u16| {
        let [a, b] = two(value);
        [a, b, 0, 0]
    };
    let text = |value: &[u8; 4]| *value;
    let thumbnail = jpeg(&fields(16, 16));
    // The first directory has three entries at 8; the second, with GPS, two at 50; the third, of the thumbnail, two at 80.
    let mut bytes = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
    bytes.extend(two(42));
    bytes.extend(four(8));
    bytes.extend(two(3));
    bytes.extend(entry(0x010F, 2, 4, text(b"Mkr\0")));
    bytes.extend(entry(0x0112, 3, 1, short(orientation)));
    bytes.extend(entry(0x8825, 4, 1, four(50)));
    bytes.extend(four(80));
    bytes.extend(two(2));
    bytes.extend(entry(1, 2, 2, text(b"N\0\0\0")));
    bytes.extend(entry(2, 5, 3, four(110)));
    bytes.extend(four(0));
    bytes.extend(two(2));
    bytes.extend(entry(0x0201, 4, 1, four(134)));
    bytes.extend(entry(0x0202, 4, 1, four(thumbnail.len() as u32)));
    bytes.extend(four(0));
    for number in [48, 1, 51, 1, 2944, 100] {
        bytes.extend(four(number));
    }
    bytes.extend(thumbnail);
    bytes
}

/// Inserts Exif into a JPEG.
pub(crate) fn jpeg_exif(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    with_segment(jpeg, 0xE1, &[b"Exif\0\0", exif].concat())
}

/// Lossy WebP in the extended format, with additional chunks.
pub(crate) fn webp_with(pixels: &RgbImage, flags: u8, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let simple = webp(pixels);
    let mut body = b"WEBPVP8X\x0a\0\0\0".to_vec();
    body.extend([flags, 0, 0, 0]);
    body.extend(&(pixels.width() - 1).to_le_bytes()[..3]);
    body.extend(&(pixels.height() - 1).to_le_bytes()[..3]);
    let mut take = |kind: &[u8], payload: &[u8]| {
        body.extend(kind);
        body.extend((payload.len() as u32).to_le_bytes());
        body.extend(payload);
        body.extend(&[0][..payload.len() % 2]);
    };
    for (kind, payload) in chunks.iter().filter(|(kind, _)| *kind == b"ICCP") {
        take(&kind[..], payload);
    }
    let length = u32::from_le_bytes(simple[16..20].try_into().unwrap()) as usize;
    take(&simple[12..16], &simple[20..20 + length]);
    for (kind, payload) in chunks.iter().filter(|(kind, _)| *kind != b"ICCP") {
        take(&kind[..], payload);
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// Recipe for the whole picture at its own size, nearly lossless.
pub(crate) fn whole() -> Recipe {
    within(12_000)
}

pub(crate) fn within(side: u32) -> Recipe {
    let renditions = vec![Rendition::new("one", Fit::Within, side, side)];
    Recipe { renditions, crop: None, encoding: Encoding::Jpeg { quality: 100 } }
}

pub(crate) fn render(bytes: &[u8], recipe: &Recipe) -> Result<Rendered, Rejected> {
    picture::render(bytes, recipe, &Limits::default())
}

/// Pixels of a rendition.
pub(crate) fn seen(image: &picture::Image) -> RgbImage {
    let pixels = image::load_from_memory(&image.bytes).unwrap().into_rgb8();
    assert_eq!(pixels.dimensions(), (image.width, image.height));
    pixels
}

/// Pixels of a rendered picture.
pub(crate) fn shown(bytes: &[u8]) -> RgbImage {
    seen(&render(bytes, &whole()).unwrap().images[0])
}

/// Mean colour around a point, whose position is a fraction of the picture.
pub(crate) fn colour_at(pixels: &RgbImage, x: f32, y: f32) -> [u8; 3] {
    let (x, y) = ((x * pixels.width() as f32) as u32, (y * pixels.height() as f32) as u32);
    let mut sums = [0_u32; 3];
    for dx in 0..4 {
        for dy in 0..4 {
            for (sum, value) in sums.iter_mut().zip(pixels.get_pixel(x + dx - 2, y + dy - 2).0) {
                *sum += u32::from(value);
            }
        }
    }
    sums.map(|sum| (sum / 16) as u8)
}

#[track_caller]
pub(crate) fn assert_near(seen: [u8; 3], wanted: [u8; 3], most: u8) {
    let near = seen.iter().zip(wanted).all(|(seen, wanted)| seen.abs_diff(wanted) <= most);
    assert!(near, "{seen:?}, expected {wanted:?}");
}

fn luma(pixels: &RgbImage) -> Vec<f64> {
    pixels
        .pixels()
        .map(|p| 0.299 * f64::from(p.0[0]) + 0.587 * f64::from(p.0[1]) + 0.114 * f64::from(p.0[2]))
        .collect()
}

/// Structural similarity (Wang et al., 2004) of luma, over windows of 8 × 8 four pixels apart.
pub(crate) fn ssim(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let (width, height) = (a.width() as usize, a.height() as usize);
    let (a, b) = (luma(a), luma(b));
    let (mut sum, mut windows) = (0.0, 0.0);
    for top in (0..=height - 8).step_by(4) {
        for left in (0..=width - 8).step_by(4) {
            let (mut sa, mut sb, mut saa, mut sbb, mut sab) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for y in top..top + 8 {
                for x in left..left + 8 {
                    let (va, vb) = (a[y * width + x], b[y * width + x]);
                    (sa, sb) = (sa + va, sb + vb);
                    (saa, sbb, sab) = (saa + va * va, sbb + vb * vb, sab + va * vb);
                }
            }
            let (ma, mb) = (sa / 64.0, sb / 64.0);
            let (va, vb, cov) = (saa / 64.0 - ma * ma, sbb / 64.0 - mb * mb, sab / 64.0 - ma * mb);
            let (c1, c2) = (6.5025, 58.5225);
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            windows += 1.0;
        }
    }
    sum / windows
}
