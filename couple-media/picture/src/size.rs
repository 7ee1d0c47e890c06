//! Size of a picture, from the available beginning of its file.

use image::metadata::Orientation;

use super::{Kind, Limits, gif, jpeg, orientation::swaps_sides, png};

/// Width and height of the upright picture in pixels, from the first bytes of its file.
///
/// The rest of the file is not checked: [`inspect`](super::inspect) may still reject it. None: more bytes are needed, or the picture
/// would be rejected.
#[must_use]
pub fn upright_size(head: &[u8], limits: &Limits) -> Option<(u32, u32)> {
    let (width, height, orientation) = match Kind::of(head)? {
        Kind::Jpeg => jpeg::size(head)?,
        Kind::Png => png::size(head)?,
        Kind::WebP => webp(head)?,
        Kind::Gif => {
            let [[w0, w1], [h0, h1]] = gif::screen(head)?;
            (u16_le(w0, w1), u16_le(h0, h1), Orientation::NoTransforms)
        }
        #[cfg(feature = "heic")]
        Kind::Heic => return None,
    };
    limits.check_size(width, height).ok()?;
    Some(if swaps_sides(orientation) { (height, width) } else { (width, height) })
}

fn u16_le(low: u8, high: u8) -> u32 {
    u16::from_le_bytes([low, high]).into()
}

/// Reads the first chunk of a WebP file (RFC 9649, 2.5 to 2.7).
fn webp(head: &[u8]) -> Option<(u32, u32, Orientation)> {
    /// Flag of the extended format; the orientation is at the end of the file.
    const EXIF: u8 = 0x08;
    let plain = |width, height| Some((width, height, Orientation::NoTransforms));
    match (head.get(12..16)?, head.get(20..30)?) {
        (b"VP8 ", &[_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1]) => {
            // The two highest bits of each are a scaling factor (RFC 6386, 9.1).
            plain(u16_le(w0, w1) & 0x3FFF, u16_le(h0, h1) & 0x3FFF)
        }
        (b"VP8L", &[0x2F, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([b0, b1, b2, b3]);
            plain((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        }
        (b"VP8X", &[flags, _, _, _, w0, w1, w2, h0, h1, h2]) if flags & EXIF == 0 => {
            plain(u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1)
        }
        _ => None,
    }
}
