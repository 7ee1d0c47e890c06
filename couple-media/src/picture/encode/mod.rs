//! From pixels to a file.

mod jpeg;

use image::RgbImage;

use super::{Encoding, Rejected, pixels::Pixels};

/// Fails for no picture that [`scale`](super::scale) makes.
pub(super) fn encode(pixels: &Pixels, encoding: Encoding) -> Result<Vec<u8>, Rejected> {
    match encoding {
        Encoding::Jpeg { quality } => {
            jpeg::encode(pixels, quality.clamp(1, 100)).map_err(|error| failed(&error))
        }
        Encoding::WebP { quality } | Encoding::AnimatedWebP { quality } => webp(&pixels.to_rgb(), quality),
    }
}

fn failed(error: &dyn std::fmt::Debug) -> Rejected {
    Rejected::Corrupt(format!("it cannot be encoded: {error:?}"))
}

fn webp(pixels: &RgbImage, quality: u8) -> Result<Vec<u8>, Rejected> {
    let encoder = webp::Encoder::from_rgb(pixels, pixels.width(), pixels.height());
    let memory = encoder.encode_simple(false, f32::from(quality.min(100))).map_err(|error| failed(&error))?;
    Ok(memory.to_vec())
}

/// The picture's [ThumbHash](https://evanw.github.io/thumbhash/).
pub(super) fn placeholder(pixels: &Pixels) -> Vec<u8> {
    let pixels = pixels.to_rgb();
    let opaque: Vec<u8> =
        pixels.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2], 255]).collect();
    fast_thumbhash::rgba_to_thumb_hash(pixels.width() as usize, pixels.height() as usize, &opaque)
}
