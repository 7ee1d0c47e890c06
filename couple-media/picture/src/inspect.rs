//! Reads a file's headers without decoding pixels.

use std::io::Cursor;

use image::{ImageDecoder as _, ImageFormat, ImageReader, metadata::Orientation};

use super::{
    Kind, Limits, Rejected,
    frame_count::FrameCount,
    gif,
    image_decoder::rejected,
    jpeg,
    orientation::{self, swaps_sides},
    png, vp8l,
};

/// Properties of a picture, from its headers.
#[derive(Debug)]
#[non_exhaustive]
pub struct Info {
    /// Type of the file.
    pub kind: Kind,
    /// Width of the upright picture, in pixels.
    pub width: u32,
    /// Height of the upright picture, in pixels.
    pub height: u32,
    /// Number of frames that [`Encoding::AnimatedWebP`](super::Encoding::AnimatedWebP) keeps.
    ///
    /// 1, unless the file is an animation (GIF, WebP) within the limits.
    pub frames: u32,
    /// Whether the file is an animation: it has several frames, within the limits or not.
    pub animated: bool,
    /// Length of the file, in bytes.
    pub(super) length: usize,
    /// Memory for tables of prefix codes of a lossless WebP, in bytes.
    pub(super) tables: usize,
    pub(super) orientation: Orientation,
    pub(super) details: Details,
}

/// Details for the decoder of the type.
#[derive(Debug)]
pub(super) enum Details {
    Jpeg(jpeg::Header),
    Png(png::Header),
    #[cfg(feature = "heic")]
    Heic(Box<super::heif::Header>),
    /// The `image` crate reads the headers again.
    Other(ImageFormat),
}

/// Reads a picture's headers, and rejects files that [`render`](super::render) would reject by them.
///
/// No pixels are decoded. It looks for the end of the picture, so it takes about a millisecond for 4 MB, and little memory,
/// whatever the headers claim.
///
/// # Errors
///
/// The file is of an unknown type, too large, too complex, or visibly damaged or truncated.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Info, Rejected> {
    limits.check_bytes(bytes)?;
    let kind = Kind::of(bytes).ok_or(Rejected::UnknownType)?;
    let (width, height, orientation, details) = match kind {
        Kind::Jpeg => {
            let header = jpeg::Header::read(bytes, limits)?;
            (header.width, header.height, header.orientation, Details::Jpeg(header))
        }
        Kind::Png => {
            let header = png::Header::read(bytes, limits)?;
            (header.width, header.height, header.orientation, Details::Png(header))
        }
        #[cfg(feature = "heic")]
        Kind::Heic => {
            let header = super::heif::Header::read(bytes, limits)?;
            (header.width, header.height, header.orientation, Details::Heic(Box::new(header)))
        }
        Kind::WebP | Kind::Gif => {
            if kind == Kind::WebP && bytes.len() < riff_length(bytes) {
                return Err(Rejected::Truncated);
            }
            let format = if kind == Kind::WebP { ImageFormat::WebP } else { ImageFormat::Gif };
            let bytes = gif::with_screen(bytes);
            let reader = ImageReader::with_format(Cursor::new(&bytes[..]), format);
            let mut decoder = reader.into_decoder().map_err(rejected)?;
            let (width, height) = decoder.dimensions();
            limits.check_size(width, height)?;
            let exif = decoder.exif_metadata().ok().flatten();
            let orientation = exif.and_then(|exif| orientation::read(&exif));
            let orientation = orientation.unwrap_or(Orientation::NoTransforms);
            (width, height, orientation, Details::Other(format))
        }
    };
    let count = FrameCount::of(kind, bytes);
    let (frames, animated) = (count.within_limits(width, height, limits), count.frames > 1);
    let tables = if kind == Kind::WebP { vp8l::check(bytes, limits)? } else { 0 };
    let (width, height) = if swaps_sides(orientation) { (height, width) } else { (width, height) };
    Ok(Info { kind, width, height, frames, animated, length: bytes.len(), tables, orientation, details })
}

impl Info {
    /// Quantiser steps of a JPEG, upright; none if colours are converted.
    pub(super) fn quantisation(&self) -> Option<&jpeg::Quantisation> {
        match &self.details {
            Details::Jpeg(header) => header.quantisation.as_ref().filter(|_| header.profile.is_none()),
            _ => None,
        }
    }
}

/// Length of a RIFF file, as it declares.
fn riff_length(bytes: &[u8]) -> usize {
    match bytes {
        &[_, _, _, _, l0, l1, l2, l3, ..] => {
            (u32::from_le_bytes([l0, l1, l2, l3]) as usize).saturating_add(8)
        }
        _ => usize::MAX,
    }
}
