//! JPEG, in Rust.

use jpeg_encoder::{
    ChromaSubsamplingMethod, ColorType, Encoder, EncodingError, ImageBuffer, JpegColorType,
    QuantizationTableType, SamplingFactor,
};

use crate::picture::{
    jpeg::{self, Quantisation},
    pixels::{Pixels, Planes},
};

/// From how many pixels on each row of units begins anew (a few bytes for each), so that more cores than one can decode it: a kept
/// copy, while somebody waits for what is made of it.
const RESTARTED: u32 = 4 << 20;

/// The sums of the steps of quality 50 (T.81, tables K.1 and K.2).
const LUMA: u32 = 3_688;
const CHROMA: u32 = 5_505;

pub(super) fn encode(
    pixels: &Pixels,
    quality: u8,
    source: Option<&Quantisation>,
) -> Result<Vec<u8>, EncodingError> {
    let (width, height) = pixels.size();
    let restarted = width.saturating_mul(height) >= RESTARTED;
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
    if restarted {
        encoder.set_restart_interval(width.div_ceil(16));
    }
    match pixels {
        Pixels::Rgb(_) | Pixels::Rgba(_) => {
            encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
            encoder.encode(&pixels.to_rgb(), width, height, ColorType::Rgb)?;
        }
        Pixels::Planes(planes) => {
            // It asks for chroma of each pixel; of four that are the same it is to take one.
            encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Nearest);
            encoder.encode_image(Doubled { planes, width, height })?;
        }
    }
    // The encoder's own optimised tables come with a scan for each component: valid, but more memory here and in every decoder, and some
    // decoders show such a file wrong.
    Ok(jpeg::optimised(&bytes).unwrap_or(bytes))
}

/// Whether steps are larger, in total, than those of a quality, where those of quality 50 have the sum `sum`.
fn is_coarser(steps: &[u16; 64], sum: u32, quality: u8) -> bool {
    let quality = u32::from(quality);
    let percent = if quality < 50 { 5_000 / quality } else { 200 - 2 * quality };
    100 * steps.iter().map(|&step| u32::from(step)).sum::<u32>() > sum * percent
}

/// Planes, as the encoder asks for them.
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
