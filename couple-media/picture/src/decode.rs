//! Decodes a file to samples, at the smallest size that its renditions allow.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, RgbImage};

use super::{
    Encoding, Info, Limits, Recipe, Rejected, gif,
    image_decoder::{image_limits, profile, rejected},
    inspect::Details,
    jpeg,
    limits::Deadline,
    png,
    samples::{Colour, Decoded, MIN_RATIO_OF_MEANS, Packed, Samples},
    scale::Plan,
};

/// Minimum ratio of the decoded size of a JPEG to the size that a rendition needs.
///
/// A block that is decoded at a reduced size has more aliasing than a mean of pixels.
const MIN_RATIO_OF_BLOCKS: f64 = 3.0;
/// The same ratio, also for means, if a larger one would exceed the memory limit.
///
/// libvips always uses this ratio.
const MIN_RATIO: f64 = 2.0;

/// Decodes a picture for renditions that need `scale` (at most 1) of its size.
pub(super) fn decode(
    bytes: &[u8],
    info: Info,
    scale: f64,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Decoded, Rejected> {
    let size = info.scaled(scale, limits);
    match info.details {
        Details::Jpeg(mut header) => {
            let profile = header.profile.take();
            let planes = jpeg::decode(bytes, &header, size.eighths, limits, deadline)?;
            Ok(Decoded { samples: Samples::Planes(planes, header.colour), profile, grey: false })
        }
        Details::Png(header) => {
            let packed = png::decode(bytes, &header, size.factor, limits, deadline)?;
            let grey = header.colours.grey();
            Ok(Decoded { samples: Samples::Packed(packed), grey, profile: header.colours.profile() })
        }
        #[cfg(feature = "heic")]
        Details::Heic(header) => super::heic::decode(bytes, &header, size.factor, limits, deadline),
        Details::Other(format) => other(bytes, format, limits),
    }
}

/// Size at which a picture is decoded, and the memory for it.
#[derive(Debug, Clone, Copy)]
struct Scaled {
    /// Decoded size of a JPEG, in eighths.
    eighths: usize,
    /// Factor by which other formats are scaled down while they are decoded.
    factor: u32,
    /// Memory for decoding in bytes, as an upper estimate.
    memory: usize,
    /// Bytes of `memory` that hold the decoded samples.
    sample_bytes: usize,
    /// Number of samples per pixel of the picture, horizontally and vertically.
    density: f64,
}

impl Info {
    /// Upper estimate of the memory of [`render`](super::render) in bytes, from the header alone.
    ///
    /// The file itself is not included.
    ///
    /// # Errors
    /// [`Rejected::CropOutside`].
    pub fn memory(&self, recipe: &Recipe, limits: &Limits) -> Result<usize, Rejected> {
        let plan = Plan::new(self, recipe)?;
        let size = self.scaled(plan.scale(), limits);
        let rows = f64::from(self.width.max(self.height)) * size.density;
        let views = plan.memory(rows, self.channels(), self.converted());
        // Samples are scaled down between views, so for a moment they exist twice.
        let shown = 1.25 * size.sample_bytes as f64 + views;
        let moving = self.frames > 1 && matches!(recipe.encoding, Encoding::AnimatedWebP { .. });
        // An animation holds its canvas, a frame, the previous frame and the bytes of all frames.
        let animation = if moving { size.memory as f64 + views + limits.bytes as f64 } else { 0.0 };
        let most = shown.max(size.memory as f64) + animation;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded up; saturates")]
        let most = most.ceil() as usize;
        Ok(most.saturating_add(BASE))
    }

    /// Number of planes of a JPEG whose colours are converted; none for other pictures.
    fn converted(&self) -> Option<f64> {
        match &self.details {
            Details::Jpeg(header) if header.profile.is_some() || header.colour != Colour::YCbCr => {
                Some(header.planes() as f64)
            }
            _ => None,
        }
    }

    fn channels(&self) -> f64 {
        match &self.details {
            // Planes are resized one by one.
            Details::Jpeg(_) => 1.0,
            _ => 4.0,
        }
    }

    /// Chooses the smallest size that is sufficient for Lanczos, or a smaller one if memory is short.
    fn scaled(&self, scale: f64, limits: &Limits) -> Scaled {
        let (width, height) = (self.width as usize, self.height as usize);
        match &self.details {
            Details::Jpeg(header) => {
                let of = |eighths| Scaled {
                    eighths,
                    factor: 1,
                    memory: jpeg::memory(header, eighths),
                    sample_bytes: jpeg::plane_bytes(header, eighths),
                    density: eighths as f64 / 8.0,
                };
                let best = eighths(MIN_RATIO_OF_BLOCKS * scale);
                let find = |least: f64, memory: usize| {
                    (eighths(least * scale)..=best).rev().map(of).find(|size| size.memory <= memory)
                };
                // Renditions need memory as well. A picture decoded at exactly the needed size is better than none.
                find(MIN_RATIO, limits.memory / 2)
                    .or_else(|| find(1.0, limits.memory))
                    .unwrap_or_else(|| of(best))
            }
            details => {
                let of = |factor| {
                    let memory = match details {
                        Details::Png(header) => png::memory(self.length, header, factor),
                        #[cfg(feature = "heic")]
                        Details::Heic(header) => super::heic::memory(header, factor),
                        // The decoder's planes or rows, its pixels, and a copy with alpha.
                        _ => 12 * width * height + self.tables,
                    };
                    let density = match details {
                        Details::Other(_) => 1.0,
                        _ => 1.0 / f64::from(factor),
                    };
                    Scaled { eighths: 8, factor, memory, sample_bytes: memory, density }
                };
                let best = of(factor(MIN_RATIO_OF_MEANS * scale));
                if best.memory <= limits.memory { best } else { of(factor(MIN_RATIO * scale)) }
            }
        }
    }
}

/// Bytes that every picture takes: tables, a thread's stack, small buffers.
const BASE: usize = 1 << 20;

/// Smallest number of eighths that is at least `scale`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 8")]
fn eighths(scale: f64) -> usize {
    (8.0 * scale - 1e-6).ceil().clamp(1.0, 8.0) as usize
}

/// Factor by which a picture is scaled down while it is decoded. More than 64 would not be faster.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 64")]
fn factor(scale: f64) -> u32 {
    (1.0 / scale + 1e-6).floor().clamp(1.0, 64.0) as u32
}

fn other(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<Decoded, Rejected> {
    let bytes = &*gif::with_screen(bytes);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(image_limits(limits));
    let mut decoder = reader.into_decoder().map_err(rejected)?;
    if decoder.total_bytes() > limits.memory as u64 / 2 {
        return Err(Rejected::TooComplex("decoding needs too much memory".into()));
    }
    let profile = profile(&mut decoder);
    let pixels = if limits.libwebp && format == ImageFormat::WebP { by_libwebp(bytes) } else { None };
    let packed = match pixels {
        Some(pixels) => Packed::of_rgb(pixels.width(), pixels.height(), pixels.into_raw()),
        None => match DynamicImage::from_decoder(decoder).map_err(rejected)? {
            DynamicImage::ImageRgb8(pixels) => {
                Packed::of_rgb(pixels.width(), pixels.height(), pixels.into_raw())
            }
            pixels => Packed::of_rgba(pixels.width(), pixels.height(), pixels.into_rgba8().into_raw()),
        },
    };
    Ok(Decoded { samples: Samples::Packed(packed), profile, grey: false })
}

/// Decodes a still, opaque, lossy WebP with libwebp.
///
/// None: it is something else or damaged, which the other decoder handles.
///
/// A lossless file is excluded because libwebp's memory for it is not bounded by any header.
fn by_libwebp(bytes: &[u8]) -> Option<RgbImage> {
    let seen = webp::BitstreamFeatures::new(bytes)?;
    let lossy = matches!(seen.format(), Some(webp::BitstreamFormat::Lossy));
    if !lossy || seen.has_alpha() || seen.has_animation() {
        return None;
    }
    let decoded = webp::Decoder::new(bytes).decode()?;
    RgbImage::from_raw(decoded.width(), decoded.height(), decoded.to_vec())
}
