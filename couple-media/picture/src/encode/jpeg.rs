//! JPEG, in Rust.

use jpeg_encoder::{
    ChromaSubsamplingMethod, ColorType, Encoder, EncodingError, ImageBuffer, JpegColorType,
    QuantizationTableType, SamplingFactor,
};

use crate::{
    jpeg::{self, Quantisation},
    pixels::{Pixels, Planes},
};

/// Minimum number of pixels for restart markers, one per row of units and a few bytes each.
///
/// Several threads can decode a file with restart markers, such as a kept copy from which a client waits for a rendition.
const MIN_PIXELS_FOR_RESTARTS: u32 = 4 << 20;

/// Sum of the luma steps of quality 50 (T.81, table K.1).
const LUMA: u32 = 3_688;
/// Sum of the chroma steps of quality 50 (T.81, table K.2).
const CHROMA: u32 = 5_505;

pub(super) fn encode(
    pixels: &Pixels,
    quality: u8,
    source: Option<&Quantisation>,
) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = pixels.size();
    let with_restarts = width.saturating_mul(height) >= MIN_PIXELS_FOR_RESTARTS;
    // No view is larger; zero pixels are refused below.
    let [width, height] = [width, height].map(|side| u16::try_from(side).unwrap_or(0));
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    if let Some(source) = source {
        let coarser = |steps: Option<[u16; 64]>, sum| match steps {
            Some(steps) if is_coarser(&steps, sum, quality) => QuantizationTableType::Custom(Box::new(steps)),
            _ => QuantizationTableType::Default,
        };
        encoder.set_quantization_tables(coarser(Some(source.luma), LUMA), coarser(source.chroma, CHROMA));
    }
    if with_restarts {
        encoder.set_restart_interval(width.div_ceil(16));
    }
    match pixels {
        Pixels::Rgb(_) | Pixels::Rgba(_) => {
            encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
            encoder.encode(&pixels.to_rgb(), width, height, ColorType::Rgb)?;
        }
        Pixels::Planes(planes) => {
            // The encoder asks for the chroma of every pixel: `Doubled` repeats each sample four times, and `Nearest` takes one of the four.
            encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Nearest);
            encoder.encode_image(Doubled { planes, width, height })?;
        }
    }
    // With its own optimised tables the encoder writes a scan for each component. That is valid, but takes more memory here and in every
    // decoder, and some decoders show such files wrongly.
    Ok(jpeg::optimised(&bytes).unwrap_or(bytes))
}

/// Whether the sum of `steps` exceeds that of `quality`. `sum` is the sum of the steps of quality 50.
fn is_coarser(steps: &[u16; 64], sum: u32, quality: u8) -> bool {
    let quality = u32::from(quality);
    let percent = if quality < 50 { 5_000 / quality } else { 200 - 2 * quality };
    100 * steps.iter().map(|&step| u32::from(step)).sum::<u32>() > sum * percent
}

/// Adapter that gives subsampled planes to the encoder, which asks for one chroma sample per pixel.
struct Doubled<'a> {
    planes: &'a Planes,
    width: u16,
    height: u16,
}

impl ImageBuffer for Doubled<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.width
    }

    fn height(&self) -> u16 {
        self.height
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (width, y) = (usize::from(self.width), usize::from(y));
        let across = width.div_ceil(2);
        let [luma, chroma @ .., _] = buffers;
        luma.extend_from_slice(&self.planes.luma[y * width..][..width]);
        for (to, from) in chroma.iter_mut().zip(&self.planes.chroma) {
            to.extend(from[y / 2 * across..][..across].iter().flat_map(|&sample| [sample; 2]));
            to.truncate(to.len() - width % 2);
        }
    }
}
