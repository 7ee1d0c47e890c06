//! How large a picture is, from as much of its beginning as there is.

use image::metadata::Orientation;

use super::{Kind, Limits, gif, inspect::turned, jpeg, png};

/// The width and height of a picture, upright, in pixels, by what its first bytes say. It looks for no end and promises nothing:
/// [`inspect`](super::inspect) may still refuse the whole.
///
/// None: they do not say so yet, or say what would be refused.
#[must_use]
pub fn upright_size(head: &[u8], limits: &Limits) -> Option<(u32, u32)> {
    let (width, height, orientation) = match Kind::of(head)? {
        Kind::Jpeg => jpeg::size(head)?,
        Kind::Png => png::size(head)?,
        Kind::WebP => webp(head)?,
        Kind::Gif => {
            let [[w0, w1], [h0, h1]] = gif::screen(head)?;
            (two(w0, w1), two(h0, h1), Orientation::NoTransforms)
        }
        #[cfg(feature = "heic")]
        Kind::Heic => return None,
    };
    limits.check_size(width, height).ok()?;
    Some(if turned(orientation) { (height, width) } else { (width, height) })
}

fn two(low: u8, high: u8) -> u32 {
    u16::from_le_bytes([low, high]).into()
}

/// The first chunk of a WebP file (RFC 9649, 2.5 to 2.7).
fn webp(head: &[u8]) -> Option<(u32, u32, Orientation)> {
    /// Of the extended format: its orientation stands at its end.
    const EXIF: u8 = 0x08;
    let plain = |width, height| Some((width, height, Orientation::NoTransforms));
    match (head.get(12..16)?, head.get(20..30)?) {
        (b"VP8 ", &[_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1]) => {
            // The two highest bits of each say how to scale (RFC 6386, 9.1).
            plain(two(w0, w1) & 0x3FFF, two(h0, h1) & 0x3FFF)
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
