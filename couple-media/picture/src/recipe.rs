//! Recipe: the renditions to make of a picture.

use std::borrow::Cow;

/// Instructions for [`render`](super::render).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Renditions to make, in any order.
    pub renditions: Vec<Rendition>,
    /// Area of the picture that all renditions show. None: the whole.
    pub crop: Option<Crop>,
    /// Encoding of the renditions.
    pub encoding: Encoding,
}

/// A named size of a picture.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rendition {
    /// Name, unique in the recipe.
    pub name: Cow<'static, str>,
    /// How the picture is fitted into the size.
    pub fit: Fit,
    /// Width in pixels, at most 16,383, the maximum of WebP; a larger value means that.
    pub width: u32,
    /// Height in pixels, with the same maximum as `width`.
    pub height: u32,
}

impl Rendition {
    /// A rendition with a fixed name.
    #[must_use]
    pub const fn new(name: &'static str, fit: Fit, width: u32, height: u32) -> Self {
        Self { name: Cow::Borrowed(name), fit, width, height }
    }
}

/// How a picture is fitted into a rendition's size.
///
/// No picture is enlarged: a smaller one keeps its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// Fills the rendition's aspect ratio: the middle is kept and the rest is cut off.
    Cover,
    /// Keeps the picture's aspect ratio and shows all of it, within the rendition's width and height.
    Within,
    /// As [`Within`](Self::Within), but text in a tall screenshot stays readable.
    ///
    /// If a picture is taller or wider than 128:45 (2.84:1), its shorter side is 45/128 of the rendition's, or its own if that is smaller,
    /// and its longer side is at most 16,383 pixels. Example: a picture of 1080 × 8000 becomes 720 × 5333 within a square of 2048.
    Readable,
    /// Shows all of the picture at exactly the rendition's size, or at its own size if that is smaller.
    ///
    /// Rounding may change the aspect ratio.
    Fill,
}

/// A rectangle of the upright picture, in its pixels, from the top left.
///
/// The part outside of the picture is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crop {
    /// Left edge, in pixels.
    pub x: u32,
    /// Upper edge, in pixels.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Encoding of renditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Baseline JPEG, 4:2:0.
    Jpeg {
        /// Quality from 1 to 100, on libjpeg's scale.
        quality: u8,
    },
    /// Lossy WebP, with alpha if a part of the picture is transparent.
    ///
    /// About a quarter fewer bytes than JPEG at equal quality, for three times the time.
    WebP {
        /// Quality from 0 to 100, on libwebp's scale.
        quality: u8,
    },
    /// As [`Jpeg`](Self::Jpeg), or lossy WebP with alpha if a part of the picture is transparent.
    ///
    /// A JPEG that is not scaled keeps its own quantiser steps if they are coarser, so that its blocks keep their coefficients.
    JpegUnlessTransparent {
        /// Quality from 1 to 100.
        quality: u8,
    },
    /// PNG, with alpha if a part of the picture is transparent: lossless, and several times as large.
    Png,
    /// As [`WebP`](Self::WebP), and an animation stays animated.
    ///
    /// The frames must be within [`Limits::frames`](super::Limits::frames) and together within
    /// [`Limits::animation_megapixels`](super::Limits::animation_megapixels). Otherwise, and with every other encoding, only the first
    /// frame is shown.
    AnimatedWebP {
        /// Quality from 0 to 100, on libwebp's scale.
        quality: u8,
    },
}

impl Encoding {
    /// JPEG at quality 80, sharp's default.
    pub const JPEG: Self = Self::Jpeg { quality: 80 };
    /// WebP at quality 80, sharp's default.
    pub const WEBP: Self = Self::WebP { quality: 80 };
    /// WebP at quality 80, animated if the picture is.
    pub const ANIMATED_WEBP: Self = Self::AnimatedWebP { quality: 80 };

    /// Encoding of the stored copy of a photo, from which renditions are made: JPEG at quality 93 or less.
    ///
    /// The copy has the quantiser steps of the upload if these are coarser. A rendition that is not scaled down is encoded twice; with
    /// the same steps the second encoding loses nothing. With a copy of quality 90, whose steps are half of those of quality 80, such a
    /// rendition had up to 21 % more bytes and an SSIM lower by 0.04 (uploads of quality 95).
    pub const COPY: Self = Self::JpegUnlessTransparent { quality: 93 };

    /// Media type of an opaque picture in this encoding.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg { .. } | Self::JpegUnlessTransparent { .. } => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP { .. } | Self::AnimatedWebP { .. } => "image/webp",
        }
    }
}

/// Default renditions of an avatar: squares of 512, 256, 128 and 64 pixels.
pub const AVATARS: [Rendition; 4] = [
    Rendition::new("512", Fit::Cover, 512, 512),
    Rendition::new("256", Fit::Cover, 256, 256),
    Rendition::new("128", Fit::Cover, 128, 128),
    Rendition::new("64", Fit::Cover, 64, 64),
];

/// Default renditions of a photo, [readable](Fit::Readable), within squares of 4096 to 320 pixels.
pub const PHOTOS: [Rendition; 4] = [
    Rendition::new("4096", Fit::Readable, 4096, 4096),
    Rendition::new("2048", Fit::Readable, 2048, 2048),
    Rendition::new("1080", Fit::Readable, 1080, 1080),
    Rendition::new("320", Fit::Readable, 320, 320),
];
