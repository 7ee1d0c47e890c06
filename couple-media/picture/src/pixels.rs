//! Pixels of a view between resizing and encoding.

use std::borrow::Cow;

use image::{Rgb, RgbImage, RgbaImage, buffer::ConvertBuffer as _};

use super::colour;

/// Pixels of a view, upright and in sRGB.
pub(super) enum Pixels {
    Rgb(RgbImage),
    /// At least one pixel is transparent. Colours are not multiplied by alpha.
    Rgba(RgbaImage),
    /// Planes of YCbCr, for JPEG to JPEG: colours are not converted, and chroma is subsampled.
    Planes(Planes),
}

/// Planes of luma, and of chroma at half of its width and height (4:2:0), as in JFIF (ITU-T T.871).
pub(super) struct Planes {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) luma: Vec<u8>,
    pub(super) chroma: [Vec<u8>; 2],
}

impl Pixels {
    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        match self {
            Self::Rgb(pixels) => pixels.dimensions(),
            Self::Rgba(pixels) => pixels.dimensions(),
            Self::Planes(planes) => (planes.width, planes.height),
        }
    }

    /// Whether a part of the picture is transparent.
    pub(super) fn transparent(&self) -> bool {
        matches!(self, Self::Rgba(_))
    }

    /// RGB pixels, blended with white where they are transparent.
    pub(super) fn to_rgb(&self) -> Cow<'_, RgbImage> {
        match self {
            Self::Rgb(pixels) => Cow::Borrowed(pixels),
            Self::Rgba(pixels) => Cow::Owned(RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
                Rgb(over_white(pixels.get_pixel(x, y).0))
            })),
            Self::Planes(planes) => Cow::Owned(planes.to_rgb()),
        }
    }

    /// RGBA pixels, whether or not any is transparent.
    pub(super) fn to_rgba(&self) -> Cow<'_, RgbaImage> {
        match self {
            Self::Rgba(pixels) => Cow::Borrowed(pixels),
            opaque => Cow::Owned(opaque.to_rgb().convert()),
        }
    }
}

fn over_white([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    let (alpha, white) = (u32::from(alpha), 255 * (255 - u32::from(alpha)));
    [red, green, blue].map(|value| ((u32::from(value) * alpha + white + 127) / 255).to_le_bytes()[0])
}

impl Planes {
    /// Width and height of chroma.
    pub(super) fn halved(width: u32, height: u32) -> (u32, u32) {
        (width.div_ceil(2), height.div_ceil(2))
    }

    /// Converts to RGB: each chroma sample applies to its four pixels.
    fn to_rgb(&self) -> RgbImage {
        let (across, _) = Self::halved(self.width, self.height);
        RgbImage::from_fn(self.width, self.height, |x, y| {
            let luma = self.luma[(y * self.width + x) as usize];
            let [cb, cr] = self.chroma.each_ref().map(|chroma| chroma[(y / 2 * across + x / 2) as usize]);
            Rgb(colour::rgb(luma, cb, cr, colour::JFIF))
        })
    }
}
