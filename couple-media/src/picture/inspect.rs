//! What a file's headers say, before anything is decoded.

use std::io::Cursor;

use image::{ImageDecoder as _, ImageReader, metadata::Orientation};

use super::{Kind, Limits, Rejected, decode::rejected};

/// What a picture's headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// What it is.
    pub kind: Kind,
    /// Upright, in pixels.
    pub width: u32,
    /// Upright, in pixels.
    pub height: u32,
    pub(super) orientation: Orientation,
}

impl Info {
    /// Millions of pixels, rounded up: what a worker takes permits by.
    #[must_use]
    pub fn megapixels(&self) -> u32 {
        u32::try_from((u64::from(self.width) * u64::from(self.height)).div_ceil(1_000_000))
            .unwrap_or(u32::MAX)
    }
}

/// Reads a picture's headers, and refuses what [`render`](super::render) would refuse by them.
///
/// Decodes no pixels: microseconds, and no memory to speak of, whatever the headers claim.
///
/// # Errors
///
/// Unknown, too large, too complex, or visibly damaged or truncated.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Info, Rejected> {
    limits.check_bytes(bytes)?;
    let kind = Kind::of(bytes).ok_or(Rejected::UnknownType)?;
    let reader = ImageReader::with_format(Cursor::new(bytes), super::decode::format(kind));
    let mut decoder = reader.into_decoder().map_err(rejected)?;
    let (width, height) = decoder.dimensions();
    limits.check_size(width, height)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let (width, height) = if turned(orientation) { (height, width) } else { (width, height) };
    Ok(Info { kind, width, height, orientation })
}

/// Whether rows become columns.
pub(super) fn turned(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}
