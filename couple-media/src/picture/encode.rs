//! From pixels to a file.

use image::RgbImage;
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use super::{Encoding, Rejected};

/// Fails for no picture that [`scale`](super::scale) makes.
pub(super) fn encode(pixels: &RgbImage, encoding: Encoding) -> Result<Vec<u8>, Rejected> {
    let failed = |error: &dyn std::fmt::Debug| Rejected::Corrupt(format!("it cannot be encoded: {error:?}"));
    match encoding {
        Encoding::Jpeg { quality } => {
            let side = |side: u32| u16::try_from(side).map_err(|error| failed(&error));
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, quality.clamp(1, 100));
            encoder.set_sampling_factor(SamplingFactor::F_2_2);
            encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
            encoder
                .encode(pixels, side(pixels.width())?, side(pixels.height())?, ColorType::Rgb)
                .map_err(|error| failed(&error))?;
            Ok(bytes)
        }
        Encoding::WebP { quality } | Encoding::AnimatedWebP { quality } => {
            let encoder = webp::Encoder::from_rgb(pixels, pixels.width(), pixels.height());
            let memory =
                encoder.encode_simple(false, f32::from(quality.min(100))).map_err(|error| failed(&error))?;
            Ok(memory.to_vec())
        }
    }
}

/// The picture's [ThumbHash](https://evanw.github.io/thumbhash/).
pub(super) fn placeholder(pixels: &RgbImage) -> Vec<u8> {
    let opaque: Vec<u8> =
        pixels.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2], 255]).collect();
    fast_thumbhash::rgba_to_thumb_hash(pixels.width() as usize, pixels.height() as usize, &opaque)
}
