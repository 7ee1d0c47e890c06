//! Conversion of a picture's colours to sRGB.

use image::RgbImage;
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use super::{Rejected, samples::Colour};

/// Interleaved samples of one colour model, of any number of channels.
pub(super) struct ColourSamples {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 1, 3 or 4: grey, RGB, or CMYK with 255 for full ink.
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
}

impl ColourSamples {
    /// Interleaves planes of one size, as a JPEG has them.
    pub(super) fn of_planes(width: u32, height: u32, mut planes: Vec<Vec<u8>>, colour: Colour) -> Self {
        let mut samples = Vec::new();
        let channels = match (colour, &planes[..]) {
            (Colour::Rgb, [r, g, b]) => {
                samples.extend(r.iter().zip(g).zip(b).flat_map(|((&r, &g), &b)| [r, g, b]));
                3
            }
            (Colour::YCbCr, [y, cb, cr]) => {
                samples.extend(y.iter().zip(cb).zip(cr).flat_map(|((&y, &cb), &cr)| rgb(y, cb, cr, JFIF)));
                3
            }
            #[cfg(feature = "heic")]
            (Colour::Bt709, [y, cb, cr]) => {
                samples.extend(y.iter().zip(cb).zip(cr).flat_map(|((&y, &cb), &cr)| rgb(y, cb, cr, BT709)));
                3
            }
            #[cfg(feature = "heic")]
            (Colour::Bt2020, [y, cb, cr]) => {
                samples.extend(y.iter().zip(cb).zip(cr).flat_map(|((&y, &cb), &cr)| rgb(y, cb, cr, BT2020)));
                3
            }
            (Colour::Cmyk, [c, m, y, k]) => {
                let inks = c.iter().zip(m).zip(y).zip(k);
                samples.extend(inks.flat_map(|(((&c, &m), &y), &k)| [255 - c, 255 - m, 255 - y, 255 - k]));
                4
            }
            (Colour::Ycck, [y, cb, cr, k]) => {
                let inks = y.iter().zip(cb).zip(cr).zip(k);
                samples.extend(inks.flat_map(|(((&y, &cb), &cr), &k)| {
                    let [c, m, y] = rgb(y, cb, cr, JFIF);
                    [c, m, y, 255 - k]
                }));
                4
            }
            _ => {
                samples = planes.swap_remove(0);
                1
            }
        };
        Self { width, height, channels, samples }
    }

    /// Reduces grey samples that are stored as RGB to one channel if the profile is for grey.
    pub(super) fn with_grey_alone(mut self, profile: Option<&[u8]>) -> Self {
        let profile = profile.and_then(|profile| ColorProfile::new_from_slice(profile).ok());
        if self.channels == 3 && profile.is_some_and(|profile| profile.color_space == DataColorSpace::Gray) {
            self.samples = self.samples.chunks_exact(3).map(|pixel| pixel[0]).collect();
            self.channels = 1;
        }
        self
    }

    /// Converts to sRGB.
    ///
    /// A profile that cannot be read, or is for another colour model, is ignored, as browsers do.
    pub(super) fn into_srgb(self, profile: Option<&[u8]>) -> Result<RgbImage, Rejected> {
        let Self { width, height, channels, samples } = self;
        let profile = profile.and_then(|profile| ColorProfile::new_from_slice(profile).ok());
        let converted = profile.and_then(|profile| by_profile(&profile, channels, &samples));
        let samples = match (converted, channels) {
            (Some(converted), _) => converted,
            (None, 1) => samples.into_iter().flat_map(|grey| [grey; 3]).collect(),
            (None, 4) => samples
                .chunks_exact(4)
                .flat_map(|ink| without_profile([ink[0], ink[1], ink[2], ink[3]]))
                .collect(),
            (None, _) => samples,
        };
        RgbImage::from_raw(width, height, samples)
            .ok_or_else(|| Rejected::Corrupt("samples are missing".into()))
    }
}

fn by_profile(profile: &ColorProfile, channels: usize, samples: &[u8]) -> Option<Vec<u8>> {
    let layout = match (profile.color_space, channels) {
        (DataColorSpace::Gray, 1) => Layout::Gray,
        (DataColorSpace::Rgb, 3) => Layout::Rgb,
        (DataColorSpace::Cmyk, 4) => Layout::Rgba,
        _ => return None,
    };
    let (srgb, options) = (ColorProfile::new_srgb(), TransformOptions::default());
    let transform = profile.create_transform_8bit(layout, &srgb, Layout::Rgb, options).ok()?;
    let mut converted = vec![0; samples.len() / channels * 3];
    transform.transform(samples, &mut converted).ok()?;
    Some(converted)
}

/// Converts CMYK to RGB as browsers do without a profile.
fn without_profile([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    [c, m, y].map(|ink| (u16::from(255 - ink) * u16::from(255 - k) / 255).to_le_bytes()[0])
}

/// JFIF's coefficients (ITU-T T.871, section 7), with 16 fractional bits.
///
/// In order: Cr to red, Cb and Cr to green, Cb to blue.
pub(super) const JFIF: [i32; 4] = [91_881, 22_554, 46_802, 116_130];
/// Coefficients of ITU-R BT.709 (H.273, matrix 1).
#[cfg(feature = "heic")]
const BT709: [i32; 4] = [103_206, 12_276, 30_679, 121_609];
/// Coefficients of ITU-R BT.2020 (H.273, matrix 9).
#[cfg(feature = "heic")]
const BT2020: [i32; 4] = [96_639, 10_784, 37_444, 123_299];

#[inline]
#[expect(clippy::cast_sign_loss, reason = "clamped to a byte")]
pub(super) fn rgb(y: u8, cb: u8, cr: u8, [to_red, cb_to_green, cr_to_green, to_blue]: [i32; 4]) -> [u8; 3] {
    let (y, cb, cr) = ((i32::from(y) << 16) + (1 << 15), i32::from(cb) - 128, i32::from(cr) - 128);
    let byte = |value: i32| (value >> 16).clamp(0, 255) as u8;
    [byte(y + to_red * cr), byte(y - cb_to_green * cb - cr_to_green * cr), byte(y + to_blue * cb)]
}
