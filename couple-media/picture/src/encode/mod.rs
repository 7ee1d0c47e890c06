//! Encoders: write pixels as JPEG, WebP or PNG.

mod jpeg;

use png::{BitDepth, ColorType};

use super::{Encoding, Rejected, jpeg::Quantisation, pixels::Pixels};

/// Encodes pixels. Succeeds for every picture that [`scale`](super::scale) makes.
///
/// `source` is the quantisation of the uploaded JPEG, if its pixels were not scaled. The kept copy, but no rendition for clients, uses its
/// steps where they are coarser: the blocks of the copy then have the coefficients of the upload, and take no more bytes.
pub(super) fn encode(
    pixels: &Pixels,
    encoding: Encoding,
    source: Option<&Quantisation>,
) -> Result<Vec<u8>, Rejected> {
    match (encoding, pixels) {
        (Encoding::JpegUnlessTransparent { quality }, Pixels::Rgba(_))
        | (Encoding::WebP { quality } | Encoding::AnimatedWebP { quality }, _) => webp(pixels, quality),
        (Encoding::JpegUnlessTransparent { quality }, Pixels::Planes(_)) => {
            jpeg::encode(pixels, quality.clamp(1, 100), source).map_err(|error| failed(&error))
        }
        (Encoding::Jpeg { quality } | Encoding::JpegUnlessTransparent { quality }, _) => {
            jpeg::encode(pixels, quality.clamp(1, 100), None).map_err(|error| failed(&error))
        }
        (Encoding::Png, _) => png(pixels),
    }
}

/// Encoding that is used for a picture, depending on whether a part of it is transparent.
pub(super) fn used(pixels: &Pixels, encoding: Encoding) -> Encoding {
    match (encoding, pixels) {
        (Encoding::JpegUnlessTransparent { quality }, Pixels::Rgba(_)) => Encoding::WebP { quality },
        (Encoding::JpegUnlessTransparent { quality }, _) => Encoding::Jpeg { quality },
        _ => encoding,
    }
}

fn png(pixels: &Pixels) -> Result<Vec<u8>, Rejected> {
    let (mut bytes, (width, height)) = (Vec::new(), pixels.size());
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_depth(BitDepth::Eight);
    let opaque;
    let samples = match pixels {
        Pixels::Rgba(pixels) => {
            encoder.set_color(ColorType::Rgba);
            pixels.as_raw()
        }
        pixels => {
            opaque = pixels.to_rgb();
            encoder.set_color(ColorType::Rgb);
            opaque.as_raw()
        }
    };
    let mut writer = encoder.write_header().map_err(|error| failed(&error))?;
    writer.write_image_data(samples).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))?;
    Ok(bytes)
}

fn failed(error: &dyn std::fmt::Debug) -> Rejected {
    Rejected::Corrupt(format!("it cannot be encoded: {error:?}"))
}

fn webp(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, Rejected> {
    let (width, height) = pixels.size();
    let opaque;
    let encoder = match pixels {
        Pixels::Rgba(pixels) => webp::Encoder::from_rgba(pixels, width, height),
        pixels => {
            opaque = pixels.to_rgb();
            webp::Encoder::from_rgb(&opaque, width, height)
        }
    };
    let memory = encoder.encode_simple(false, f32::from(quality.min(100))).map_err(|error| failed(&error))?;
    Ok(memory.to_vec())
}

/// The picture's [ThumbHash](https://evanw.github.io/thumbhash/).
pub(super) fn placeholder(pixels: &Pixels) -> Vec<u8> {
    let pixels = pixels.to_rgba();
    fast_thumbhash::rgba_to_thumb_hash(pixels.width() as usize, pixels.height() as usize, &pixels)
}
