//! PNG, row by row, and made smaller on the way.

use std::io::Cursor;

use image::{RgbImage, metadata::Orientation};
use png::{ColorType, DecodingError, Transformations};

use super::{Limits, Rejected, jpeg::PROFILE, limits::Deadline};

#[derive(Debug)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    pub(super) profile: Option<Vec<u8>>,
    interlaced: bool,
}

impl Header {
    /// Reads the chunks' headers (PNG, third edition, 5.3), to the end of the picture. Inflates nothing but a profile.
    pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Rejected> {
        let mut rest = bytes.get(8..).ok_or(Rejected::Truncated)?;
        let (kind, ihdr) = chunk(&mut rest)?;
        let (b"IHDR", &[w3, w2, w1, w0, h3, h2, h1, h0, _, _, _, _, interlace]) = (kind, ihdr) else {
            return Err(Rejected::Corrupt("it does not begin with its header".into()));
        };
        let (width, height) = (u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]));
        limits.check_size(width, height)?;
        let mut header = Self {
            width,
            height,
            orientation: Orientation::NoTransforms,
            profile: None,
            interlaced: interlace != 0,
        };
        let (mut standard, mut profile) = (false, None);
        loop {
            match chunk(&mut rest)? {
                (b"IEND", _) => break,
                (b"iCCP", payload) => profile = Some(payload),
                (b"sRGB", _) => standard = true,
                (b"eXIf", exif) => {
                    header.orientation = Orientation::from_exif_chunk(exif).unwrap_or(header.orientation);
                }
                _ => {}
            }
        }
        header.profile = profile.filter(|_| !standard).and_then(inflated);
        Ok(header)
    }
}

/// Width, height and orientation, as far as the chunks that are there say so.
pub(super) fn size(head: &[u8]) -> Option<(u32, u32, Orientation)> {
    let mut rest = head.get(8..)?;
    let (b"IHDR", &[w3, w2, w1, w0, h3, h2, h1, h0, ..]) = chunk(&mut rest).ok()? else { return None };
    let mut orientation = Orientation::NoTransforms;
    // The first that is not there as a whole ends it: mostly that of the pixels.
    while let Ok((kind, payload)) = chunk(&mut rest) {
        if kind == b"eXIf" {
            orientation = Orientation::from_exif_chunk(payload).unwrap_or(orientation);
        }
    }
    Some((u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]), orientation))
}

/// The next chunk's type and payload.
fn chunk<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8; 4], &'a [u8]), Rejected> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(Rejected::Truncated)?;
    let (kind, after) = after.split_first_chunk::<4>().ok_or(Rejected::Truncated)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (payload, after) = after.split_at_checked(length).ok_or(Rejected::Truncated)?;
    *rest = after.get(4..).ok_or(Rejected::Truncated)?;
    Ok((kind, payload))
}

/// A profile: its name, a zero, the method, the profile deflated. One that grows beyond [`PROFILE`] is none.
fn inflated(payload: &[u8]) -> Option<Vec<u8>> {
    let name = payload.iter().take(80).position(|&byte| byte == 0)?;
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(payload.get(name + 2..)?, PROFILE).ok()
}

/// Decodes to 1/`factor` of the size, each pixel the mean of `factor` × `factor`.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    factor: u32,
    limits: &Limits,
    deadline: Deadline,
) -> Result<RgbImage, Rejected> {
    let too_much = || Rejected::TooComplex("it needs too much memory".into());
    let left = limits.memory.checked_sub(Smaller::bytes(header, factor)).ok_or_else(too_much)?;
    let mut smaller = Smaller::new(header, factor);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: left });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(rejected)?;
    let (colour, _) = reader.output_color_type();
    if header.interlaced {
        let size = reader.output_buffer_size().filter(|size| *size <= left).ok_or_else(too_much)?;
        let mut whole = vec![0; size];
        deadline.check()?;
        let line = reader.next_frame(&mut whole).map_err(rejected)?.line_size;
        for row in whole.chunks_exact(line) {
            smaller.take(row, colour);
        }
    } else {
        let mut row = vec![0; reader.output_line_size(header.width).ok_or_else(too_much)?];
        for _ in 0..header.height {
            deadline.check()?;
            reader.read_row(&mut row).map_err(rejected)?.ok_or(Rejected::Truncated)?;
            smaller.take(&row, colour);
        }
    }
    smaller.finish()
}

fn rejected(error: DecodingError) -> Rejected {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Rejected::Truncated
        }
        DecodingError::LimitsExceeded => Rejected::TooComplex("it needs too much memory".into()),
        error => Rejected::Corrupt(error.to_string()),
    }
}

/// Takes rows and keeps means.
struct Smaller {
    factor: usize,
    /// The row at hand, opaque.
    row: Vec<u8>,
    /// Of the rows since the last mean, column by column.
    sums: Vec<u16>,
    summed: usize,
    pixels: Vec<u8>,
    out_width: u32,
    out_height: u32,
}

impl Smaller {
    fn new(header: &Header, factor: u32) -> Self {
        let (out_width, out_height) = (header.width.div_ceil(factor), header.height.div_ceil(factor));
        Self {
            factor: factor as usize,
            row: Vec::new(),
            sums: vec![0; 3 * header.width as usize],
            summed: 0,
            pixels: Vec::with_capacity(3 * out_width as usize * out_height as usize),
            out_width,
            out_height,
        }
    }

    /// What it takes: the means, a row, its sums.
    fn bytes(header: &Header, factor: u32) -> usize {
        let (width, height) =
            (header.width.div_ceil(factor) as usize, header.height.div_ceil(factor) as usize);
        3 * width * height + 9 * header.width as usize
    }

    fn take(&mut self, row: &[u8], colour: ColorType) {
        self.row.clear();
        match colour {
            ColorType::Rgb => {}
            ColorType::Rgba => {
                self.row.extend(row.chunks_exact(4).flat_map(|p| opaque([p[0], p[1], p[2]], p[3])));
            }
            ColorType::GrayscaleAlpha => {
                self.row.extend(row.chunks_exact(2).flat_map(|p| opaque([p[0]; 3], p[1])));
            }
            ColorType::Grayscale | ColorType::Indexed => {
                self.row.extend(row.iter().flat_map(|&grey| [grey; 3]));
            }
        }
        let row = if colour == ColorType::Rgb { row } else { &self.row };
        if self.factor == 1 {
            self.pixels.extend_from_slice(row);
            return;
        }
        for (sum, &value) in self.sums.iter_mut().zip(row) {
            *sum += u16::from(value);
        }
        self.summed += 1;
        if self.summed == self.factor {
            self.mean();
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of bytes")]
    fn mean(&mut self) {
        for pixels in self.sums.chunks(3 * self.factor) {
            let count = pixels.len() / 3 * self.summed;
            let mut sums = [0_u32; 3];
            for pixel in pixels.chunks_exact(3) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += u32::from(value);
                }
            }
            // Exact enough to be the quotient: sums stay below 2^24.
            let inverse = 1.0 / count as f32;
            self.pixels.extend(sums.map(|sum| (sum as f32 * inverse + 0.5) as u8));
        }
        self.sums.fill(0);
        self.summed = 0;
    }

    fn finish(mut self) -> Result<RgbImage, Rejected> {
        if self.summed > 0 {
            self.mean();
        }
        RgbImage::from_raw(self.out_width, self.out_height, self.pixels).ok_or(Rejected::Truncated)
    }
}

/// A pixel over white.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a mean of bytes")]
pub(super) fn opaque(colour: [u8; 3], alpha: u8) -> [u8; 3] {
    let (alpha, rest) = (u32::from(alpha), 255 * (255 - u32::from(alpha)));
    colour.map(|value| ((u32::from(value) * alpha + rest + 127) / 255) as u8)
}
