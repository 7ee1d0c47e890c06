//! From a picture's own colours to sRGB.

use image::RgbImage;
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::decode::Decoded;

/// A profile that cannot be read, or is not of RGB, is left out of account, as browsers do.
pub(super) fn to_srgb(decoded: Decoded) -> RgbImage {
    let Decoded { mut pixels, profile } = decoded;
    let Some(profile) = profile.and_then(|profile| ColorProfile::new_from_slice(&profile).ok()) else {
        return pixels;
    };
    if profile.color_space != DataColorSpace::Rgb {
        return pixels;
    }
    let (srgb, options) = (ColorProfile::new_srgb(), TransformOptions::default());
    let Ok(transform) = profile.create_transform_8bit(Layout::Rgb, &srgb, Layout::Rgb, options) else {
        return pixels;
    };
    let mut converted = vec![0; pixels.len()];
    if transform.transform(&pixels, &mut converted).is_ok() {
        pixels.copy_from_slice(&converted);
    }
    pixels
}
