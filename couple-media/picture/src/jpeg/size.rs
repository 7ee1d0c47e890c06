//! Size of a picture, from the beginning of its file.

use image::metadata::Orientation;

use super::segments::Segments;
use crate::orientation;

/// Width, height and orientation, if the available segments contain them.
pub(crate) fn size(head: &[u8]) -> Option<(u32, u32, Orientation)> {
    let (mut size, mut orientation) = (None, None);
    // The first incomplete segment ends the loop.
    for segment in Segments::of(head).map_while(Result::ok) {
        match (segment.marker, segment.payload) {
            (0xC0..=0xC2, &[_, h1, h0, w1, w0, ..]) => {
                size = Some((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into()));
            }
            (0xE1, payload) if payload.starts_with(b"Exif\0") => {
                orientation = orientation.or_else(|| orientation::read(payload));
            }
            _ => {}
        }
    }
    size.map(|(width, height)| (width, height, orientation.unwrap_or(Orientation::NoTransforms)))
}
