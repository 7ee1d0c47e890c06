//! Result of rendering.

use super::Encoding;

/// Result of [`render`](super::render).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Width of the whole picture, upright, in pixels.
    pub width: u32,
    /// Height of the whole picture, upright, in pixels.
    pub height: u32,
    /// Whether the file is an animation, whether or not it stays animated.
    pub animated: bool,
    /// Whether a part of the shown area is transparent.
    pub alpha: bool,
    /// The picture (its crop, if there is one) as a [ThumbHash](https://evanw.github.io/thumbhash/).
    ///
    /// It has about 25 bytes, from which a client draws a blurred placeholder. Clients expect it in base64.
    pub placeholder: Vec<u8>,
    /// One image per rendition of the recipe, in the same order.
    pub images: Vec<Image>,
}

/// An encoded rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Name of the [`Rendition`](super::Rendition).
    pub name: std::borrow::Cow<'static, str>,
    /// Width in pixels; at most that of the rendition.
    pub width: u32,
    /// Height in pixels; at most that of the rendition.
    pub height: u32,
    /// Content of the file; its media type is that of [`encoding`](Self::encoding).
    pub bytes: Vec<u8>,
    /// Encoding of the file: that of the recipe, or the chosen one if the recipe leaves a choice.
    pub encoding: Encoding,
}
