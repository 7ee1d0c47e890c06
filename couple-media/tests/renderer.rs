//! Default renderer, checked by `couple-conformance`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use couple_conformance::renderer::PictureSample;
use couple_media::gallery::PictureRenderer;
use image::{ImageFormat, Rgb, RgbImage};

const MARKER: &[u8] = b"48.8584 N, 2.2945 E";

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x.to_le_bytes()[0], y.to_le_bytes()[0], 99]));
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

mod jpeg {
    use super::*;

    /// APP1 segment with the Exif orientation 6: the picture is to be rotated by 90° clockwise.
    const ROTATED: &[u8] =
        b"\xFF\xE1\x00\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";

    couple_conformance::renderer!(async {
        let pixels = encoded(700, 500, ImageFormat::Jpeg);
        let comment = [b"\xFF\xFE\0", &[2 + u8::try_from(MARKER.len()).unwrap()][..], MARKER].concat();
        let file = [&pixels[..2], ROTATED, &comment, &pixels[2..], MARKER].concat();
        (PictureRenderer, PictureSample { file, size: (500, 700), marker: MARKER.to_vec() })
    });
}

mod png {
    use super::*;

    couple_conformance::renderer!(async {
        let file = [&encoded(700, 500, ImageFormat::Png)[..], MARKER].concat();
        (PictureRenderer, PictureSample { file, size: (700, 500), marker: MARKER.to_vec() })
    });
}
