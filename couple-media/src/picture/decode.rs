//! From bytes to pixels.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, RgbImage, error::LimitErrorKind,
};

use super::{Info, Kind, Limits, Rejected, limits::Deadline};

/// Pixels, upright and opaque, in the colours that the profile says.
pub(super) struct Decoded {
    pub(super) pixels: RgbImage,
    pub(super) profile: Option<Vec<u8>>,
}

pub(super) fn decode(
    bytes: &[u8],
    info: &Info,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Decoded, Rejected> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format(info.kind));
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(limits.memory as u64);
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(rejected)?;
    let profile = decoder.icc_profile().ok().flatten();
    let mut pixels = DynamicImage::from_decoder(decoder).map_err(rejected)?;
    deadline.check()?;
    pixels.apply_orientation(info.orientation);
    let pixels = if pixels.color().has_alpha() { flatten(&pixels.into_rgba8()) } else { pixels.into_rgb8() };
    Ok(Decoded { pixels, profile })
}

/// What is transparent becomes white.
fn flatten(pixels: &image::RgbaImage) -> RgbImage {
    let mut opaque = RgbImage::new(pixels.width(), pixels.height());
    for (to, from) in opaque.pixels_mut().zip(pixels.pixels()) {
        let alpha = u16::from(from.0[3]);
        for (to, from) in to.0.iter_mut().zip(from.0) {
            let sum = u16::from(from) * alpha + 255 * (255 - alpha);
            *to = u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX);
        }
    }
    opaque
}

pub(super) fn format(kind: Kind) -> ImageFormat {
    match kind {
        Kind::Jpeg => ImageFormat::Jpeg,
        Kind::Png => ImageFormat::Png,
        Kind::WebP => ImageFormat::WebP,
        Kind::Gif => ImageFormat::Gif,
    }
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
