//! Limits, colour profile and errors of the decoders of the `image` crate.

use image::{ImageDecoder, ImageError, error::LimitErrorKind};

use super::{Limits, Rejected, limits::MAX_PROFILE_BYTES};

/// Limits for the decoders of the `image` crate.
pub(super) fn image_limits(limits: &Limits) -> image::Limits {
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(limits.memory as u64);
    allowed
}

/// ICC profile of a picture, if it has a plausible size.
pub(super) fn profile(decoder: &mut impl ImageDecoder) -> Option<Vec<u8>> {
    decoder.icc_profile().ok().flatten().filter(|profile| profile.len() <= MAX_PROFILE_BYTES)
}

pub(super) fn rejected(error: ImageError) -> Rejected {
    match error {
        ImageError::Unsupported(error) => Rejected::Unsupported(error.to_string()),
        ImageError::Limits(error) => match error.kind() {
            LimitErrorKind::InsufficientMemory => {
                Rejected::TooComplex("decoding needs too much memory".into())
            }
            _ => Rejected::TooComplex(error.to_string()),
        },
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Rejected::Truncated
        }
        error => Rejected::Corrupt(error.to_string()),
    }
}
