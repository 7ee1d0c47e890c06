//! Compares the decoder with zune-jpeg, through the `image` crate.
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

use std::time::Duration;

use image::{ImageFormat, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::{super::colour::ColourSamples, *};

/// A smooth picture with edges and some noise, like a photo.
fn picture(width: u32, height: u32) -> RgbImage {
    let mut state = 12_345_u32;
    RgbImage::from_fn(width, height, |x, y| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 28) as f32;
        let wave = |a: f32, b: f32| 100.0 + 80.0 * (x as f32 * a + y as f32 * b).sin();
        let edge = if (x / 17 + y / 23) % 2 == 0 { 20.0 } else { 0.0 };
        image::Rgb([wave(0.05, 0.02), wave(0.013, 0.04), wave(0.03, -0.02)].map(|v| (v + noise + edge) as u8))
    })
}

fn encoded(pixels: &RgbImage, set: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 85);
    set(&mut encoder);
    let (width, height) = (pixels.width() as u16, pixels.height() as u16);
    encoder.encode(pixels, width, height, ColorType::Rgb).unwrap();
    bytes
}

fn planes(bytes: &[u8], eighths: usize) -> (Header, Vec<Plane>) {
    let limits = Limits::default();
    let header = Header::read(bytes, &limits).unwrap();
    let deadline = Deadline::after(Duration::from_secs(60));
    let planes = decode(bytes, &header, eighths, &limits, deadline).unwrap();
    (header, planes)
}

/// Planes without padding, with chroma upsampled to the size of luma.
fn full(header: &Header, planes: &[Plane]) -> RgbImage {
    let (width, height) = (planes[0].width, planes[0].height);
    let same = planes
        .iter()
        .map(|plane| {
            let (across, down) = (plane.across / planes[0].across, plane.down / planes[0].down);
            (0..height)
                .flat_map(|y| (0..width).map(move |x| (x, y)))
                .map(|(x, y)| {
                    let (x, y) = ((f64::from(x) * across) as usize, (f64::from(y) * down) as usize);
                    plane.samples[y * plane.stride + x]
                })
                .collect()
        })
        .collect();
    ColourSamples::of_planes(width, height, same, header.colour).into_srgb(None).unwrap()
}

/// Maximum and mean difference.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences: Vec<u8> = a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|&d| f64::from(d)).sum();
    (*differences.iter().max().unwrap(), sum / differences.len() as f64)
}

fn same_as_zune(bytes: &[u8]) {
    let reference = image::load_from_memory_with_format(bytes, ImageFormat::Jpeg).unwrap().into_rgb8();
    let (header, planes) = planes(bytes, 8);
    let (most, mean) = difference(&full(&header, &planes), &reference);
    assert!(most <= 4 && mean < 0.8, "{most} {mean} of {header:?}");
}

#[test]
fn sequential_files_decode_as_with_zune() {
    for (width, height) in [(64, 64), (203, 117), (8, 8), (1, 1), (17, 300)] {
        let pixels = picture(width, height);
        same_as_zune(&encoded(&pixels, |e| e.set_sampling_factor(SamplingFactor::F_1_1)));
    }
}

#[test]
fn progressive_files_decode_as_with_zune() {
    for (width, height) in [(64, 64), (203, 117), (8, 8), (1, 1), (17, 300)] {
        let pixels = picture(width, height);
        for scans in [2, 4, 10, 30] {
            same_as_zune(&encoded(&pixels, |e| {
                e.set_sampling_factor(SamplingFactor::F_1_1);
                e.set_progressive_scans(scans);
            }));
        }
    }
}

/// Compared with the same file without restart markers.
///
/// zune-jpeg 0.5.15 decodes other pixels than libjpeg does.
#[test]
fn restart_markers_do_not_change_pixels() {
    let pixels = picture(203, 117);
    for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_2] {
        let (_, expected) = planes(&encoded(&pixels, |e| e.set_sampling_factor(sampling)), 8);
        for (interval, progressive) in [(1, false), (3, false), (200, false), (3, true)] {
            let bytes = encoded(&pixels, |e| {
                e.set_sampling_factor(sampling);
                e.set_restart_interval(interval);
                e.set_progressive(progressive);
                e.set_optimized_huffman_tables(true);
            });
            let (_, seen) = planes(&bytes, 8);
            for (seen, expected) in seen.iter().zip(&expected) {
                for row in 0..seen.height as usize {
                    let at = row * seen.stride..row * seen.stride + seen.width as usize;
                    assert_eq!(seen.samples[at.clone()], expected.samples[at]);
                }
            }
        }
    }
}

/// A large file with restart markers is decoded by several threads; errors between parts are detected.
#[test]
fn parallel_decoding_equals_sequential_decoding() {
    let pixels = picture(1_203, 907);
    let with = |interval: u16| {
        encoded(&pixels, |e| {
            e.set_quality(100);
            e.set_sampling_factor(SamplingFactor::F_2_2);
            e.set_restart_interval(interval);
        })
    };
    let columns = 1_203_u16.div_ceil(16);
    let (_, expected) = planes(&with(0), 8);
    for rows in [1, 2, 5, 100] {
        let bytes = with(rows * columns);
        assert!(bytes.len() > 600 << 10);
        let (_, seen) = planes(&bytes, 8);
        for (seen, expected) in seen.iter().zip(&expected) {
            assert!(seen.samples == expected.samples, "restarts after {rows} rows");
        }
    }
    let bytes = with(columns);
    let restarts: Vec<usize> = (0..bytes.len() - 1)
        .filter(|&at| bytes[at] == 0xFF && matches!(bytes[at + 1], 0xD0..=0xD7))
        .collect();
    for &at in &restarts {
        let missing = [&bytes[..at], &bytes[at + 2..]].concat();
        let more = [&bytes[..at], b"more", &bytes[at..]].concat();
        for damaged in [missing, more] {
            let limits = Limits::default();
            let header = Header::read(&damaged, &limits).unwrap();
            let read = decode(&damaged, &header, 1, &limits, Deadline::after(Duration::from_secs(60)));
            assert!(read.is_err());
        }
    }
}

/// Every size and sampling shows the scaled picture, with chroma at its own resolution.
#[test]
fn every_scale_shows_the_picture() {
    let pixels = picture(200, 136);
    for sampling in [
        SamplingFactor::F_1_1,
        SamplingFactor::F_2_1,
        SamplingFactor::F_1_2,
        SamplingFactor::F_2_2,
        SamplingFactor::F_4_1,
    ] {
        for progressive in [false, true] {
            let bytes = encoded(&pixels, |e| {
                e.set_sampling_factor(sampling);
                e.set_progressive(progressive);
            });
            let whole = {
                let (header, planes) = planes(&bytes, 8);
                full(&header, &planes)
            };
            for eighths in 1..=8_u32 {
                let (header, planes) = planes(&bytes, eighths as usize);
                let (width, height) = (25 * eighths, 17 * eighths);
                assert_eq!((planes[0].width, planes[0].height), (width, height));
                let seen = full(&header, &planes);
                let wanted =
                    image::imageops::resize(&whole, width, height, image::imageops::FilterType::CatmullRom);
                let (_, mean) = difference(&seen, &wanted);
                assert!(mean < 12.0, "{sampling:?} {progressive} {eighths}: {mean}");
            }
        }
    }
}

/// A progressive and a sequential file with the same coefficients have the same samples at every scale.
#[test]
fn progressive_and_sequential_files_have_equal_samples() {
    let pixels = picture(150, 90);
    let sequential = encoded(&pixels, |e| e.set_sampling_factor(SamplingFactor::F_2_2));
    for scans in [3, 9, 20] {
        let progressive = encoded(&pixels, |e| {
            e.set_sampling_factor(SamplingFactor::F_2_2);
            e.set_progressive_scans(scans);
        });
        for eighths in 1..=8 {
            let (_, expected) = planes(&sequential, eighths);
            let (_, seen) = planes(&progressive, eighths);
            for (seen, expected) in seen.iter().zip(&expected) {
                let (rows, width) = (seen.height as usize, seen.width as usize);
                for row in 0..rows {
                    let at = row * seen.stride;
                    assert_eq!(seen.samples[at..at + width], expected.samples[at..at + width]);
                }
            }
        }
    }
}
