//! Output of a decoder: samples in the orientation and colours of the file.

use super::{
    Rejected,
    limits::Deadline,
    means::{MAX_FACTOR, Means},
};

/// Minimum ratio of the kept samples to the size that a rendition needs, for the last step by Lanczos3.
///
/// With a smaller ratio, aliasing of the first step is visible as moiré.
pub(super) const MIN_RATIO_OF_MEANS: f64 = 3.0;

/// Minimum ratio of samples that are scaled down for the smaller of several renditions.
///
/// It is larger than [`MIN_RATIO_OF_MEANS`], because a mean of few samples has aliasing. These samples were decoded for other sizes anyway.
const MIN_RATIO_OF_REDUCED: f64 = 8.0;

/// Samples of a picture.
pub(super) enum Samples {
    Planes(Vec<Plane>, Colour),
    Packed(Packed),
}

/// Colour model of the planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    /// YCbCr of JFIF and BT.601, in full range.
    YCbCr,
    #[cfg(feature = "heic")]
    Bt709,
    #[cfg(feature = "heic")]
    Bt2020,
    Rgb,
    /// CMYK as Adobe's programs write it: 255 is no ink.
    Cmyk,
    /// As [`Cmyk`](Self::Cmyk), with the first three components in YCbCr.
    Ycck,
}

/// Samples of a component.
pub(super) struct Plane {
    /// Width of the visible part, in samples.
    pub(super) width: u32,
    pub(super) height: u32,
    /// Samples between the beginnings of two rows; whole blocks.
    pub(super) stride: usize,
    pub(super) samples: Vec<u8>,
    /// Number of samples per pixel of the picture, horizontally.
    pub(super) across: f64,
    /// Number of samples per pixel of the picture, vertically.
    pub(super) down: f64,
}

/// A decoded picture.
pub(super) struct Decoded {
    pub(super) samples: Samples,
    /// ICC profile. None: sRGB.
    pub(super) profile: Option<Vec<u8>>,
    /// Whether the file holds grey samples: a grey profile then applies although samples are in RGB here.
    pub(super) grey: bool,
}

/// Interleaved samples of all channels.
pub(super) struct Packed {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Number of channels: 3 for RGB, 4 for RGB with alpha.
    ///
    /// With alpha, the colours are multiplied by it, so that means of samples are correct.
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
    /// Number of samples per pixel of the picture, horizontally and vertically.
    pub(super) density: f64,
}

impl Packed {
    /// From RGB samples.
    pub(super) fn of_rgb(width: u32, height: u32, samples: Vec<u8>) -> Self {
        Self { width, height, channels: 3, samples, density: 1.0 }
    }

    /// From RGBA samples that are not multiplied by alpha. Removes alpha if all pixels are opaque.
    pub(super) fn of_rgba(width: u32, height: u32, mut samples: Vec<u8>) -> Self {
        for pixel in samples.as_chunks_mut::<4>().0 {
            *pixel = multiplied(*pixel);
        }
        Self { width, height, channels: 4, samples, density: 1.0 }.without_idle_alpha()
    }

    /// Removes alpha if every pixel is opaque.
    pub(super) fn without_idle_alpha(mut self) -> Self {
        if self.channels == 4 && self.samples.as_chunks::<4>().0.iter().all(|pixel| pixel[3] == 255) {
            let pixels = self.samples.len() / 4;
            for pixel in 1..pixels {
                self.samples.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
            }
            self.samples.truncate(3 * pixels);
            self.channels = 3;
        }
        self
    }

    fn reduced(self, factor: u32, deadline: Deadline) -> Result<Self, Rejected> {
        let row = self.channels * self.width as usize;
        let mut means = Means::new((self.width, self.height), self.channels, factor);
        for row in self.samples.chunks_exact(row) {
            means.take(row);
        }
        deadline.check()?;
        let (width, height, samples) = means.finish();
        Ok(Self { width, height, samples, density: self.density / f64::from(factor), ..self })
    }
}

/// RGB multiplied by alpha.
pub(super) fn multiplied([red, green, blue, alpha]: [u8; 4]) -> [u8; 4] {
    let by = |value: u8| {
        let product = u32::from(value) * u32::from(alpha) + 127;
        (product / 255).to_le_bytes()[0]
    };
    [by(red), by(green), by(blue), alpha]
}

impl Samples {
    /// Scales samples down by means if they are much larger than a view at `scale` needs.
    ///
    /// Only smaller views may follow.
    ///
    /// With `halved`, chroma is needed at half of the scale.
    pub(super) fn reduced(self, scale: f64, halved: bool, deadline: Deadline) -> Result<Self, Rejected> {
        match self {
            Self::Packed(packed) => Ok(Self::Packed(match factor(packed.density, scale) {
                1 => packed,
                factor => packed.reduced(factor, deadline)?,
            })),
            Self::Planes(planes, colour) => {
                let mut reduced = Vec::with_capacity(planes.len());
                for plane in planes {
                    let scale = if halved && !reduced.is_empty() { scale / 2.0 } else { scale };
                    let factor = factor(plane.across.min(plane.down), scale);
                    reduced.push(if factor == 1 { plane } else { reduce(&plane, factor) });
                    deadline.check()?;
                }
                Ok(Self::Planes(reduced, colour))
            }
        }
    }
}

/// Largest factor for averaging samples that leaves [`MIN_RATIO_OF_REDUCED`] samples per pixel of the view.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 64")]
fn factor(density: f64, scale: f64) -> u32 {
    (density / (scale * MIN_RATIO_OF_REDUCED) + 1e-6).floor().clamp(1.0, f64::from(MAX_FACTOR)) as u32
}

fn reduce(plane: &Plane, factor: u32) -> Plane {
    let mut means = Means::new((plane.width, plane.height), 1, factor);
    for row in plane.samples.chunks(plane.stride).take(plane.height as usize) {
        means.take(&row[..plane.width as usize]);
    }
    let (width, height, samples) = means.finish();
    Plane {
        width,
        height,
        stride: width as usize,
        samples,
        across: plane.across / f64::from(factor),
        down: plane.down / f64::from(factor),
    }
}
