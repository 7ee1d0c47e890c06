//! Compares rewritten files with the originals.
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

use std::time::Duration;

use image::{ImageFormat, load_from_memory_with_format};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::*;
use crate::{jpeg, limits::Deadline};

/// Chroma subsamplings for which the encoder writes all components in one scan.
const SAMPLINGS: [SamplingFactor; 4] =
    [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_2_2];

/// Pseudorandom numbers (linear congruential generator).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }
}

/// Interleaved samples with `channels` channels: like a photo, noise, or one colour.
fn samples(kind: &str, (width, height): (u16, u16), channels: usize) -> Vec<u8> {
    let mut random = Random(5);
    let mut samples = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for channel in 0..channels {
                let wave = (f32::from(x) * 0.05 + f32::from(y) * 0.02 * (channel + 1) as f32).sin();
                samples.push(match kind {
                    "photo" => (110.0 + 90.0 * wave) as u8 + random.below(16) as u8,
                    "noise" => (255 * random.below(2)) as u8,
                    _ => 90,
                });
            }
        }
    }
    samples
}

fn encoded(
    samples: &[u8],
    (width, height): (u16, u16),
    colours: ColorType,
    set: impl FnOnce(&mut Encoder<&mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 80);
    set(&mut encoder);
    encoder.encode(samples, width, height, colours).unwrap();
    bytes
}

/// Decoded samples of each plane, without the padding.
fn shown(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Rejected> {
    let limits = Limits::default();
    let header = Header::read(bytes, &limits)?;
    let planes = jpeg::decode(bytes, &header, 8, &limits, Deadline::after(Duration::from_secs(60)))?;
    Ok(planes
        .iter()
        .map(|plane| {
            let rows = plane.samples.chunks(plane.stride).take(plane.height as usize);
            rows.flat_map(|row| &row[..plane.width as usize]).copied().collect()
        })
        .collect())
}

/// Asserts that optimising keeps all pixels, and returns the optimised file.
///
/// Returns `file` if it would not become smaller.
#[track_caller]
fn assert_same_pixels(file: &[u8]) -> Vec<u8> {
    let optimised = optimised(file).unwrap_or_else(|| file.to_vec());
    assert!(optimised.len() <= file.len());
    assert!(shown(file).unwrap() == shown(&optimised).unwrap(), "by our decoder");
    let [before, after] = [file, &optimised[..]]
        .map(|file| load_from_memory_with_format(file, ImageFormat::Jpeg).unwrap().into_bytes());
    assert!(before == after, "by zune-jpeg");
    optimised
}

#[test]
fn optimised_file_has_the_same_pixels_in_fewer_bytes() {
    for size in [(1, 1), (8, 8), (9, 7), (16, 16), (17, 33), (64, 64), (203, 117), (320, 200)] {
        for kind in ["photo", "noise", "flat"] {
            for quality in [20, 80, 93, 100] {
                let grey = encoded(&samples(kind, size, 1), size, ColorType::Luma, |e| {
                    e.set_quality(quality);
                });
                assert!(assert_same_pixels(&grey).len() < grey.len());
                for sampling in SAMPLINGS {
                    let file = encoded(&samples(kind, size, 3), size, ColorType::Rgb, |e| {
                        e.set_quality(quality);
                        e.set_sampling_factor(sampling);
                    });
                    let optimised = assert_same_pixels(&file);
                    assert!(optimised.len() < file.len(), "{kind}, {size:?}, {sampling:?}, {quality}");
                }
            }
        }
    }
}

#[test]
fn restarts_are_kept() {
    let size = (203, 117);
    for sampling in SAMPLINGS {
        let pixels = samples("photo", size, 3);
        let with = |interval| {
            encoded(&pixels, size, ColorType::Rgb, |e| {
                e.set_sampling_factor(sampling);
                e.set_restart_interval(interval);
            })
        };
        let plain = shown(&with(0)).unwrap();
        let restarts = |file: &[u8]| {
            file.windows(2).filter(|pair| pair[0] == 0xFF && (0xD0..=0xD7).contains(&pair[1])).count()
        };
        for interval in [1, 3, 13, 200] {
            let file = with(interval);
            let optimised = optimised(&file).unwrap();
            assert!(optimised.len() < file.len());
            assert_eq!(restarts(&optimised), restarts(&file));
            assert!(shown(&optimised).unwrap() == plain, "{sampling:?}, {interval}");
        }
    }
}

#[test]
fn every_random_picture_has_the_same_pixels() {
    let mut random = Random(1);
    for _ in 0..300 {
        let size = (1 + random.below(70) as u16, 1 + random.below(70) as u16);
        // From flat to noise, so that rare and frequent symbols occur in all proportions.
        let (level, spread) = (random.below(200), 1 + random.below(56));
        let every = 1 + random.below(64);
        let (quality, sampling) = (1 + random.below(100) as u8, SAMPLINGS[random.below(4)]);
        let pixels: Vec<u8> = (0..3 * usize::from(size.0) * usize::from(size.1))
            .map(|_| (level + if random.below(every) == 0 { random.below(spread) } else { 0 }) as u8)
            .collect();
        let file = encoded(&pixels, size, ColorType::Rgb, |e| {
            e.set_quality(quality);
            e.set_sampling_factor(sampling);
        });
        assert_same_pixels(&file);
    }
}

/// A row of units of 16 × 16 that shows 8 rows of pixels takes less than three quarters of a full one.
#[test]
fn blocks_outside_of_the_picture_cost_next_to_nothing() {
    let coloured = |size| {
        encoded(&samples("photo", size, 3), size, ColorType::Rgb, |e| {
            e.set_sampling_factor(SamplingFactor::F_2_2);
        })
    };
    let optimised = |size| optimised(&coloured(size)).unwrap().len();
    let (half, whole) = (optimised((1600, 8)), optimised((1600, 16)));
    assert!(half * 100 < whole * 75, "{half} bytes for 8 rows, {whole} for 16");
}

#[test]
fn files_of_another_form_are_left_alone() {
    let size = (40, 30);
    let pixels = samples("photo", size, 3);
    let plain = encoded(&pixels, size, ColorType::Rgb, |_| {});
    let progressive = encoded(&pixels, size, ColorType::Rgb, |e| e.set_progressive(true));
    let scan_each = encoded(&pixels, size, ColorType::Rgb, |e| e.set_optimized_huffman_tables(true));
    for file in [&progressive, &scan_each, &plain[..plain.len() - 2], &plain[..200], b""] {
        assert_eq!(optimised(file), None);
    }
    // An optimised file cannot become smaller.
    assert_eq!(optimised(&optimised(&plain).unwrap()), None);
}

/// A damaged file is left alone, or decodes to the same pixels or error as before.
#[test]
fn rewriting_a_damaged_file_adds_no_damage() {
    let size = (67, 45);
    let file = encoded(&samples("photo", size, 3), size, ColorType::Rgb, |e| {
        e.set_sampling_factor(SamplingFactor::F_2_2);
        e.set_restart_interval(4);
    });
    let (mut random, mut taken) = (Random(3), 0);
    for _ in 0..1_000 {
        let mut damaged = file.clone();
        let at = random.below(damaged.len());
        damaged[at] ^= 1 << random.below(8);
        if let Some(optimised) = optimised(&damaged) {
            taken += 1;
            assert!(shown(&damaged) == shown(&optimised), "{at}");
        }
    }
    assert!(taken > 50, "{taken}");
}
