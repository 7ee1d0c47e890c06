//! Orientation of a stored picture, and where Exif metadata has it.

use image::metadata::Orientation;

/// Orientation in an Exif block, if there is one.
///
/// In a JPEG the block follows the identifier `Exif\0\0` (Exif 2.32, 4.7.2). PNG and WebP hold the block alone (PNG, third edition,
/// 11.3.4.5; RFC 9649, 2.7.1.5), but many programs write the identifier there too, and some write it twice.
pub(super) fn read(mut block: &[u8]) -> Option<Orientation> {
    // The second byte after `Exif` is padding, whose value some cameras leave undefined.
    while let [b'E', b'x', b'i', b'f', 0, _, rest @ ..] = block {
        block = rest;
    }
    Orientation::from_exif_chunk(block)
}

/// Whether the orientation swaps width and height.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}
