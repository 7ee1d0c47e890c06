//! What is to be made of a picture. Renditions are data: a host has its own.

use std::borrow::Cow;

/// What [`render`](super::render) is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The sizes wanted, in any order.
    pub renditions: Vec<Rendition>,
    /// The part of the picture that all of them show; the whole by default.
    pub crop: Option<Crop>,
    /// How they are encoded.
    pub encoding: Encoding,
}

/// A size that a picture is offered in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rendition {
    /// What it is called: unique among its siblings.
    pub name: Cow<'static, str>,
    /// How the picture is fitted.
    pub fit: Fit,
    /// In pixels. More than 16,383, the most that WebP can hold, are taken as that.
    pub width: u32,
    /// In pixels, as `width`.
    pub height: u32,
}

impl Rendition {
    /// A rendition with a fixed name.
    #[must_use]
    pub const fn new(name: &'static str, fit: Fit, width: u32, height: u32) -> Self {
        Self { name: Cow::Borrowed(name), fit, width, height }
    }

    /// How large it becomes for a picture of that size, in pixels.
    #[must_use]
    pub fn size_of(&self, width: u32, height: u32) -> (u32, u32) {
        super::scale::size(self, width, height)
    }
}

/// How a picture is fitted into a rendition's size. No picture is enlarged: a smaller one keeps its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// The rendition's aspect ratio, filled: what stands over is cut off, the middle stays.
    Cover,
    /// The picture's aspect ratio, whole, within the rendition's width and height.
    Within,
    /// As [`Within`](Self::Within), but text in a tall screenshot stays readable.
    ///
    /// Of a picture taller or wider than 128:45 (2.84:1) the shorter side is 45/128 of the rendition's, where the picture has so many
    /// pixels, and the longer side at most 16,383 pixels: 720 × 5333 of 1080 × 8000 pixels, within a square of 2048.
    Readable,
    /// The whole picture at exactly the rendition's width and height, or at its own size if that is smaller; rounding may change
    /// the aspect ratio.
    Fill,
}

/// A rectangle of the upright picture, in its pixels ([`Info`](super::Info)'s `width` and `height`), from the top left. What
/// lies outside of the picture is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crop {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// How renditions are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Baseline JPEG, 4:2:0.
    Jpeg {
        /// 1 to 100, as libjpeg counts.
        quality: u8,
    },
    /// Lossy WebP, with alpha where a part of the picture is transparent.
    ///
    /// About a quarter fewer bytes than JPEG at equal quality, for three times the time.
    WebP {
        /// 0 to 100, as libwebp counts.
        quality: u8,
    },
    /// As [`Jpeg`](Self::Jpeg), or lossy WebP with alpha where a part of the picture is transparent.
    JpegUnlessTransparent {
        /// 1 to 100.
        quality: u8,
    },
    /// PNG, with alpha where a part of the picture is transparent: without loss, and several times as large.
    Png,
    /// As [`WebP`](Self::WebP), and an animation stays animated.
    ///
    /// Its frames must be within [`Limits::frames`](super::Limits::frames) and together within
    /// [`Limits::animation_megapixels`](super::Limits::animation_megapixels). Beyond these, or with every other encoding, its first frame
    /// is shown.
    AnimatedWebP {
        /// 0 to 100, as libwebp counts.
        quality: u8,
    },
}

impl Encoding {
    /// JPEG at quality 80, as sharp has it by default.
    pub const JPEG: Self = Self::Jpeg { quality: 80 };
    /// WebP at quality 80, as sharp has it by default.
    pub const WEBP: Self = Self::WebP { quality: 80 };
    /// The same, animated where the picture is.
    pub const ANIMATED_WEBP: Self = Self::AnimatedWebP { quality: 80 };

    /// The copy of a photo that its sizes are made from: JPEG at quality 93.
    ///
    /// A size that is not scaled down is encoded twice. By way of quality 90, whose quantiser steps are half of those of quality 80, that
    /// costs up to 21 % more bytes and 0.04 of SSIM (uploads of quality 95); by way of 93 it is 9 % fewer to 1 % more bytes and at most
    /// 0.006 of SSIM (four photos, uploads of quality 80 to 95), mostly at most 0.001.
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

/// The sizes of a person's picture: squares of 512, 256, 128 and 64 pixels.
pub const AVATARS: [Rendition; 4] = [
    Rendition::new("512", Fit::Cover, 512, 512),
    Rendition::new("256", Fit::Cover, 256, 256),
    Rendition::new("128", Fit::Cover, 128, 128),
    Rendition::new("64", Fit::Cover, 64, 64),
];

/// The sizes of a photo in the timeline: within squares of 4096, 2048, 1080 and 320 pixels, readable.
pub const PHOTOS: [Rendition; 4] = [
    Rendition::new("4096", Fit::Readable, 4096, 4096),
    Rendition::new("2048", Fit::Readable, 2048, 2048),
    Rendition::new("1080", Fit::Readable, 1080, 1080),
    Rendition::new("320", Fit::Readable, 320, 320),
];
