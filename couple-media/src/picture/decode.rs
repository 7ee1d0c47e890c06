//! From bytes to samples, as small as what is wanted of them allows.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, RgbImage, RgbaImage,
    error::LimitErrorKind,
};

use super::{
    Info, Limits, Rejected,
    inspect::Details,
    jpeg::{self, Colour, Plane},
    limits::Deadline,
    png, vp8l,
};

/// How much larger than what is wanted of it a picture is decoded, at least. Lanczos3 does the last step: with less left
/// to it, what the first step lets through shows as moiré. A block without its high frequencies lets more through
/// than a mean of pixels does.
const LEFT_OF_BLOCKS: f64 = 3.0;
/// The same of means of pixels.
const LEFT_OF_MEANS: f64 = 3.0;
/// The same where memory would not suffice else; libvips leaves no more.
const LEFT_AT_LEAST: f64 = 2.0;

/// Samples as the file has them: not upright, in its colours.
pub(super) enum Samples {
    Planes(Vec<Plane>, Colour),
    Rgb {
        pixels: RgbImage,
        /// How many of them stand for one pixel of the picture, across and down.
        density: f64,
    },
}

pub(super) struct Decoded {
    pub(super) samples: Samples,
    pub(super) profile: Option<Vec<u8>>,
}

/// Decodes what is to be shown at `scale` (1 at most) of its size.
pub(super) fn decode(
    bytes: &[u8],
    info: Info,
    scale: f64,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Decoded, Rejected> {
    match info.details {
        Details::Jpeg(mut header) => {
            let profile = header.profile.take();
            let planes = jpeg::decode(bytes, &header, eighths(scale), limits, deadline)?;
            Ok(Decoded { samples: Samples::Planes(planes, header.colour), profile })
        }
        Details::Png(mut header) => {
            let profile = header.profile.take();
            let (factor, pixels) =
                smaller(scale, |factor| png::decode(bytes, &header, factor, limits, deadline))?;
            Ok(Decoded { samples: Samples::Rgb { pixels, density: 1.0 / f64::from(factor) }, profile })
        }
        #[cfg(feature = "heic")]
        Details::Heic(header) => {
            let decode = |factor| super::heic::decode(bytes, &header, factor, limits, deadline);
            smaller(scale, decode).map(|(_, decoded)| decoded)
        }
        Details::Other(format) => other(bytes, format, limits),
    }
}

/// The least number of eighths that leaves enough.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 8")]
fn eighths(scale: f64) -> usize {
    (8.0 * LEFT_OF_BLOCKS * scale - 1e-6).ceil().clamp(1.0, 8.0) as usize
}

/// Decodes by the largest factor that leaves enough, or by a larger one that takes less memory.
fn smaller<T>(scale: f64, decode: impl Fn(u32) -> Result<T, Rejected>) -> Result<(u32, T), Rejected> {
    let (best, least) = (factor(LEFT_OF_MEANS * scale), factor(LEFT_AT_LEAST * scale));
    match decode(best) {
        Err(Rejected::TooComplex(_)) if least > best => decode(least).map(|decoded| (least, decoded)),
        decoded => decoded.map(|decoded| (best, decoded)),
    }
}

/// More than 64 would not make it faster.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 64")]
fn factor(scale: f64) -> u32 {
    (1.0 / scale + 1e-6).floor().clamp(1.0, 64.0) as u32
}

fn other(bytes: &[u8], format: ImageFormat, limits: &Limits) -> Result<Decoded, Rejected> {
    if format == ImageFormat::WebP {
        vp8l::check(bytes, limits)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(image_limits(limits));
    let mut decoder = reader.into_decoder().map_err(rejected)?;
    if decoder.total_bytes() > limits.memory as u64 / 2 {
        return Err(Rejected::TooComplex("it needs too much memory".into()));
    }
    let profile = profile(&mut decoder);
    if limits.libwebp
        && format == ImageFormat::WebP
        && let Some(pixels) = by_libwebp(bytes)
    {
        return Ok(Decoded { samples: Samples::Rgb { pixels, density: 1.0 }, profile });
    }
    let pixels = match DynamicImage::from_decoder(decoder).map_err(rejected)? {
        DynamicImage::ImageRgb8(pixels) => pixels,
        pixels => flattened(&pixels.into_rgba8())?,
    };
    Ok(Decoded { samples: Samples::Rgb { pixels, density: 1.0 }, profile })
}

/// None: it moves, is transparent, without loss or damaged, and the other decoder does what has to be done about that. Of a file
/// without loss libwebp would take memory that no header bounds.
fn by_libwebp(bytes: &[u8]) -> Option<RgbImage> {
    let seen = webp::BitstreamFeatures::new(bytes)?;
    let lossy = matches!(seen.format(), Some(webp::BitstreamFormat::Lossy));
    if !lossy || seen.has_alpha() || seen.has_animation() {
        return None;
    }
    let decoded = webp::Decoder::new(bytes).decode()?;
    RgbImage::from_raw(decoded.width(), decoded.height(), decoded.to_vec())
}

/// What the `image` crate's decoders are held to.
pub(super) fn image_limits(limits: &Limits) -> image::Limits {
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(limits.memory as u64);
    allowed
}

/// A profile of a size that profiles have.
pub(super) fn profile(decoder: &mut impl ImageDecoder) -> Option<Vec<u8>> {
    decoder.icc_profile().ok().flatten().filter(|profile| profile.len() <= jpeg::PROFILE)
}

/// What a picture shows over white.
pub(super) fn flattened(pixels: &RgbaImage) -> Result<RgbImage, Rejected> {
    let (width, height) = pixels.dimensions();
    let colours = pixels.pixels().flat_map(|p| png::opaque([p.0[0], p.0[1], p.0[2]], p.0[3])).collect();
    RgbImage::from_raw(width, height, colours).ok_or(Rejected::Truncated)
}

pub(super) fn rejected(error: ImageError) -> Rejected {
    match error {
        ImageError::Unsupported(error) => Rejected::Unsupported(error.to_string()),
        ImageError::Limits(error) => match error.kind() {
            LimitErrorKind::InsufficientMemory => Rejected::TooComplex("it needs too much memory".into()),
            _ => Rejected::TooComplex(error.to_string()),
        },
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Rejected::Truncated
        }
        error => Rejected::Corrupt(error.to_string()),
    }
}
