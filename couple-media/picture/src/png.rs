//! PNG: decodes row by row and scales down meanwhile.

mod colours;

use std::{borrow::Cow, io::Cursor};

use image::metadata::Orientation;
use png::{ColorType, DecodingError, Transformations};

use super::{
    Limits, Rejected,
    limits::Deadline,
    means::Means,
    orientation,
    samples::{Packed, multiplied},
};
use colours::Colours;

#[derive(Debug)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    pub(super) colours: Colours,
    /// Number of decoded channels: 3, or 4 with alpha.
    channels: usize,
    interlaced: bool,
    /// Position at which a file without IEND stops; none for a complete file.
    missing_end: Option<MissingEnd>,
}

/// Usable length of a file without IEND: it ends with the last IDAT chunk, or with a part of it.
#[derive(Debug, Clone, Copy)]
struct MissingEnd {
    /// Length of the complete chunks, with the signature.
    whole: usize,
    /// Number of available payload bytes of the IDAT chunk after these.
    partial: usize,
}

impl Header {
    /// Reads the headers of all chunks (PNG, third edition, 5.3) up to the end of the picture.
    ///
    /// Inflates only a colour profile.
    pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Rejected> {
        let mut rest = bytes.get(8..).ok_or(Rejected::Truncated)?;
        let (kind, ihdr) = chunk(&mut rest)?;
        let (b"IHDR", &[w3, w2, w1, w0, h3, h2, h1, h0, _, colour_type, _, _, interlace]) = (kind, ihdr)
        else {
            return Err(Rejected::Corrupt("the first chunk is not IHDR".into()));
        };
        let (width, height) = (u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]));
        limits.check_size(width, height)?;
        let mut header = Self {
            width,
            height,
            orientation: Orientation::NoTransforms,
            colours: Colours::of(colour_type & 2 == 0),
            channels: if colour_type & 4 == 0 { 3 } else { 4 },
            interlaced: interlace != 0,
            missing_end: None,
        };
        let mut pixels_until = None;
        loop {
            let before = rest;
            match chunk(&mut rest) {
                Ok((b"IEND", _)) => break,
                Ok((b"IDAT", _)) => pixels_until = Some(bytes.len() - rest.len()),
                // Transparent palette entries, or the transparent colour.
                Ok((b"tRNS", _)) => header.channels = 4,
                Ok((b"eXIf", payload)) => {
                    header.orientation = orientation::read(payload).unwrap_or(header.orientation);
                }
                Ok((kind, payload)) => header.colours.take(*kind, payload),
                // The decoder checks whether pixels are missing.
                Err(_) => {
                    let partial = match before {
                        [_, _, _, _, b'I', b'D', b'A', b'T', payload @ ..] => payload.len(),
                        _ => 0,
                    };
                    let whole = if partial > 0 { Some(bytes.len() - before.len()) } else { pixels_until };
                    let whole = whole.ok_or(Rejected::Truncated)?;
                    header.missing_end = Some(MissingEnd { whole, partial });
                    break;
                }
            }
        }
        Ok(header)
    }

    /// The file, completed if its end is missing.
    fn ended<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
        let Some(MissingEnd { whole, partial }) = self.missing_end else { return Cow::Borrowed(bytes) };
        let mut ended = bytes[..whole].to_vec();
        if partial > 0 {
            // The checksum, or a part of it, may follow: bytes after the compressed stream are ignored.
            let payload = &bytes[whole + 8..][..partial];
            ended.extend(u32::try_from(partial).unwrap_or(u32::MAX).to_be_bytes());
            ended.extend(b"IDAT");
            ended.extend(payload);
            ended.extend([0; 4]);
        }
        ended.extend(END);
        Cow::Owned(ended)
    }
}

/// Width, height and orientation, if the available chunks contain them.
pub(super) fn size(head: &[u8]) -> Option<(u32, u32, Orientation)> {
    let mut rest = head.get(8..)?;
    let (b"IHDR", &[w3, w2, w1, w0, h3, h2, h1, h0, ..]) = chunk(&mut rest).ok()? else { return None };
    let mut orientation = Orientation::NoTransforms;
    // The first incomplete chunk ends the loop, mostly that of the pixels.
    while let Ok((kind, payload)) = chunk(&mut rest) {
        if kind == b"eXIf" {
            orientation = orientation::read(payload).unwrap_or(orientation);
        }
    }
    Some((u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]), orientation))
}

/// Reads type and payload of the next chunk.
fn chunk<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8; 4], &'a [u8]), Rejected> {
    let (length, after) = rest.split_first_chunk::<4>().ok_or(Rejected::Truncated)?;
    let (kind, after) = after.split_first_chunk::<4>().ok_or(Rejected::Truncated)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (payload, after) = after.split_at_checked(length).ok_or(Rejected::Truncated)?;
    *rest = after.get(4..).ok_or(Rejected::Truncated)?;
    Ok((kind, payload))
}

/// Memory in bytes for decoding a file of `length` bytes to 1/`factor` of its size.
pub(super) fn memory(length: usize, header: &Header, factor: u32) -> usize {
    let (width, height, channels) = (header.width as usize, header.height as usize, header.channels);
    // The inflated row before it is scaled down, or all rows of an interlaced file.
    let rows = if header.interlaced { 2 * height } else { 4 };
    let copy = if header.missing_end.is_some() { length } else { 0 };
    Means::bytes((header.width, header.height), channels, factor)
        .saturating_add(width.saturating_mul(channels).saturating_mul(rows))
        .saturating_add(copy + INFLATER)
}

/// Memory of the inflater in bytes: window, buffers and tables.
const INFLATER: usize = 256 << 10;

/// Decodes as [`decode_whole`]. A failure of a file without its end is [`Rejected::Truncated`].
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    factor: u32,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Packed, Rejected> {
    decode_whole(bytes, header, factor, limits, deadline).map_err(|rejected| match rejected {
        Rejected::Corrupt(_) if header.missing_end.is_some() => Rejected::Truncated,
        rejected => rejected,
    })
}

/// Decodes to 1/`factor` of the size; each pixel is the mean of `factor` × `factor`.
fn decode_whole(
    bytes: &[u8],
    header: &Header,
    factor: u32,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Packed, Rejected> {
    let too_much = || Rejected::TooComplex("decoding needs too much memory".into());
    let size = (header.width, header.height);
    // One converted row is held in addition.
    let own = Means::bytes(size, header.channels, factor) + header.channels * header.width as usize;
    let left = limits.memory.checked_sub(own).ok_or_else(too_much)?;
    let mut means = Means::new(size, header.channels, factor);
    let bytes = header.ended(bytes);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(&bytes[..]), png::Limits { bytes: left });
    if header.missing_end.is_some_and(|missing_end| missing_end.partial > 0) {
        decoder.ignore_checksums(true);
    }
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(rejected)?;
    let (colour, _) = reader.output_color_type();
    let mut own = Vec::new();
    let mut take = |row: &[u8]| {
        if colour == ColorType::Rgb && header.channels == 3 {
            means.take(row);
        } else {
            own.clear();
            unify(row, colour, header.channels, &mut own);
            means.take(&own);
        }
    };
    if header.interlaced {
        let size = reader.output_buffer_size().filter(|size| *size <= left).ok_or_else(too_much)?;
        let mut whole = vec![0; size];
        deadline.check()?;
        let line = reader.next_frame(&mut whole).map_err(rejected)?.line_size;
        whole.chunks_exact(line).for_each(take);
    } else {
        let mut row = vec![0; reader.output_line_size(header.width).ok_or_else(too_much)?];
        for _ in 0..header.height {
            deadline.check()?;
            reader.read_row(&mut row).map_err(rejected)?.ok_or(Rejected::Truncated)?;
            take(&row);
        }
    }
    let (width, height, samples) = means.finish();
    let density = 1.0 / f64::from(factor);
    Ok(Packed { width, height, channels: header.channels, samples, density }.without_idle_alpha())
}

/// Converts a row to RGB, or to RGB multiplied by alpha, with alpha.
fn unify(row: &[u8], colour: ColorType, channels: usize, to: &mut Vec<u8>) {
    let mut put = |pixel: [u8; 4]| {
        if channels == 4 {
            to.extend(multiplied(pixel));
        } else {
            to.extend(&pixel[..3]);
        }
    };
    match colour {
        ColorType::Rgb => row.as_chunks().0.iter().for_each(|&[r, g, b]| put([r, g, b, 255])),
        ColorType::Rgba => row.as_chunks().0.iter().for_each(|&pixel| put(pixel)),
        ColorType::GrayscaleAlpha => {
            row.as_chunks().0.iter().for_each(|&[grey, a]| put([grey, grey, grey, a]));
        }
        ColorType::Grayscale | ColorType::Indexed => {
            row.iter().for_each(|&grey| put([grey, grey, grey, 255]));
        }
    }
}

fn rejected(error: DecodingError) -> Rejected {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Rejected::Truncated
        }
        DecodingError::LimitsExceeded => Rejected::TooComplex("decoding needs too much memory".into()),
        error => Rejected::Corrupt(error.to_string()),
    }
}
