//! HEIC: decodes HEVC intra pictures (ITU-T H.265) in HEIF tile by tile, and scales them down.
//!
//! Phones write 12 megapixels as 48 tiles, so memory is needed for one tile and for the result, and the deadline is checked between
//! tiles. In a picture without tiles the deadline is checked between slices, of which there is mostly one.

use std::borrow::Cow;

use heifer_hevc_dec::{
    Error,
    nal::NalUnit,
    params::{ParameterSets, Sps},
    recon::{Frame, Reconstructor},
    slice::SliceHeader,
    syntax::{self, decode_slice_segment},
};
use moxcms::ColorProfile;

use super::{
    Limits, Rejected,
    colour::ColourSamples,
    heif::{Coded, Grid, Header, Nclx},
    limits::Deadline,
    samples::{Colour, Decoded, Packed, Plane, Samples},
    scale,
};

/// Maximum excess of a coded picture over its visible size, in pixels: it consists of whole blocks.
const PADDING: u32 = 64;

/// Decodes all planes at 1/`factor` of their size, or larger if the tile size is not divisible by it.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    factor: u32,
    limits: &Limits,
    deadline: Deadline,
) -> Result<Decoded, Rejected> {
    let factor = [Some(&header.picture), header.alpha.as_ref()]
        .into_iter()
        .flatten()
        .map(|grid| divisor(grid, factor))
        .min()
        .unwrap_or(1);
    let size = (header.width, header.height);
    let left = limits.memory.saturating_sub(result_bytes(header, factor)) as u64;
    let picture = Canvas::fill(bytes, &header.picture, size, factor, left, deadline)?;
    let colour = picture.colour()?;
    let mut planes = picture.planes;
    if colour == Colour::Rgb {
        // Coded in the order green, blue, red.
        planes.rotate_right(1);
    }
    let profile = match &header.profile {
        Some(profile) => Some(profile.clone()),
        None => profile(picture.nclx)?,
    };
    let samples = match &header.alpha {
        None => Samples::Planes(planes, colour),
        Some(grid) => {
            let alpha = Canvas::fill(bytes, grid, size, factor, left, deadline)?;
            Samples::Packed(transparent(planes, colour, alpha, factor)?)
        }
    };
    Ok(Decoded { samples, profile, grey: false })
}

/// Converts the colour planes to RGB, and joins them with alpha to RGBA.
fn transparent(planes: Vec<Plane>, colour: Colour, alpha: Canvas, factor: u32) -> Result<Packed, Rejected> {
    let missing = || Rejected::Corrupt("samples are missing".into());
    let [luma, ..] = &planes[..] else { return Err(missing()) };
    let (width, height) = (luma.width, luma.height);
    let mut large = Vec::with_capacity(planes.len());
    for plane in planes {
        large.push(scale::enlarged(plane, width, height)?);
    }
    let colours = ColourSamples::of_planes(width, height, large, colour).into_srgb(None)?;
    let alpha = alpha.planes.into_iter().next().ok_or_else(missing)?.samples;
    let pixels = colours.pixels().zip(alpha).flat_map(|(pixel, alpha)| {
        let [red, green, blue] = pixel.0;
        [red, green, blue, alpha]
    });
    Ok(Packed { density: 1.0 / f64::from(factor), ..Packed::of_rgba(width, height, pixels.collect()) })
}

/// Memory for decoding at 1/`factor`, in bytes.
///
/// Four bytes per pixel of the result, 16 if alpha is joined, and at most ten per pixel of a tile.
pub(super) fn memory(header: &Header, factor: u32) -> usize {
    let grids = [Some(&header.picture), header.alpha.as_ref()].into_iter().flatten();
    let factor = grids.clone().map(|grid| divisor(grid, factor)).min().unwrap_or(1);
    let tiles = grids.map(|grid| 10 * grid.tile_width as usize * grid.tile_height as usize);
    result_bytes(header, factor) + tiles.max().unwrap_or(0)
}

/// Memory for the result, in bytes.
fn result_bytes(header: &Header, factor: u32) -> usize {
    let bytes = if header.alpha.is_some() { 16 } else { 4 };
    bytes * header.width.div_ceil(factor) as usize * header.height.div_ceil(factor) as usize
}

/// Largest power of two, at most `factor`, by which each tile and its chroma are divisible.
fn divisor(grid: &Grid, factor: u32) -> u32 {
    let mut divisor = 1 << factor.max(1).ilog2();
    while grid.tiles.len() > 1
        && !(grid.tile_width | grid.tile_height).is_multiple_of(2 * divisor)
        && divisor > 1
    {
        divisor /= 2;
    }
    divisor
}

/// ICC profile for code points (ITU-T H.273). None: sRGB, or so similar that browsers treat it as sRGB.
fn profile(colour: Nclx) -> Result<Option<Vec<u8>>, Rejected> {
    if let 16 | 18 = colour.transfer {
        return Err(Rejected::Unsupported("high dynamic range".into()));
    }
    let profile = match colour.primaries {
        9 => ColorProfile::new_bt2020(),
        12 => ColorProfile::new_display_p3(),
        _ => return Ok(None),
    };
    Ok(profile.encode().ok())
}

/// Planes of a picture, filled tile by tile.
struct Canvas {
    planes: Vec<Plane>,
    nclx: Nclx,
    chroma: u8,
}

impl Canvas {
    fn fill(
        bytes: &[u8],
        grid: &Grid,
        size: (u32, u32),
        factor: u32,
        memory: u64,
        deadline: Deadline,
    ) -> Result<Self, Rejected> {
        let mut canvas: Option<Self> = None;
        for (at, coded) in (0..).zip(&grid.tiles) {
            let (left, top) = (at % grid.columns * grid.tile_width, at / grid.columns * grid.tile_height);
            deadline.check()?;
            if left >= size.0 || top >= size.1 {
                continue;
            }
            let (frame, own) = frame(bytes, coded, grid, memory, deadline)?;
            let canvas =
                canvas.get_or_insert_with(|| Self::new(&frame, grid.colour.unwrap_or(own), size, factor));
            if canvas.chroma != frame.chroma_format {
                return Err(Rejected::Unsupported("tiles of several kinds".into()));
            }
            canvas.take(&frame, (left, top), grid, size, factor);
        }
        canvas.ok_or_else(|| Rejected::Corrupt("the file has no picture".into()))
    }

    fn new(frame: &Frame, nclx: Nclx, (width, height): (u32, u32), factor: u32) -> Self {
        let planes = (0..3).filter(|&plane| frame.widths[plane] > 0).map(|plane| {
            let (across, down) = subsampling(frame, plane);
            let (width, height) =
                (width.div_ceil(across).div_ceil(factor), height.div_ceil(down).div_ceil(factor));
            let (stride, rows) = (width as usize, height as usize);
            Plane {
                width,
                height,
                stride,
                samples: vec![0; stride * rows],
                across: 1.0 / f64::from(across * factor),
                down: 1.0 / f64::from(down * factor),
            }
        });
        Self { planes: planes.collect(), nclx, chroma: frame.chroma_format }
    }

    /// Adds the visible part of a tile; each sample is the mean of `factor` × `factor`.
    fn take(&mut self, frame: &Frame, at: (u32, u32), grid: &Grid, size: (u32, u32), factor: u32) {
        for (index, plane) in self.planes.iter_mut().enumerate() {
            let (across, down) = subsampling(frame, index);
            let seen = |at: u32, tile: u32, whole: u32, by: u32| tile.min(whole - at).div_ceil(by) as usize;
            let width = seen(at.0, grid.tile_width, size.0, across);
            let height = seen(at.1, grid.tile_height, size.1, down);
            let table = levels(frame, index, self.nclx);
            let (left, top) = ((at.0 / across / factor) as usize, (at.1 / down / factor) as usize);
            let stride = frame.widths[index] as usize;
            let rows = frame.planes[index].chunks_exact(stride).take(height);
            let factor = factor as usize;
            let mut sums = vec![0_u32; width.div_ceil(factor)];
            for (y, row) in rows.enumerate() {
                let begin = (top + y / factor) * plane.stride + left;
                let to = &mut plane.samples[begin..begin + sums.len()];
                if factor == 1 {
                    for (to, &from) in to.iter_mut().zip(&row[..width]) {
                        *to = table[usize::from(from)];
                    }
                    continue;
                }
                for (sum, samples) in sums.iter_mut().zip(row[..width].chunks(factor)) {
                    *sum += samples.iter().map(|&sample| u32::from(sample)).sum::<u32>();
                }
                if y % factor == factor - 1 || y == height - 1 {
                    let rows = y % factor + 1;
                    for (column, (to, sum)) in to.iter_mut().zip(&mut sums).enumerate() {
                        let count = rows * factor.min(width - column * factor);
                        *to = table[(*sum as usize + count / 2) / count];
                        *sum = 0;
                    }
                }
            }
        }
    }

    fn colour(&self) -> Result<Colour, Rejected> {
        match (self.planes.len(), self.nclx.matrix) {
            (1, _) => Ok(Colour::Grey),
            (_, 0) if self.chroma == 3 => Ok(Colour::Rgb),
            (_, 1) => Ok(Colour::Bt709),
            // BT.601, and unspecified.
            (_, 2 | 4..=6) => Ok(Colour::YCbCr),
            (_, 9) => Ok(Colour::Bt2020),
            (_, matrix) => Err(Rejected::Unsupported(format!("matrix {matrix}"))),
        }
    }
}

fn subsampling(frame: &Frame, plane: usize) -> (u32, u32) {
    match (plane, frame.chroma_format) {
        (1 | 2, 1) => (2, 2),
        (1 | 2, 2) => (2, 1),
        _ => (1, 1),
    }
}

/// Table that converts each level of a plane's samples to a byte in full range.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
fn levels(frame: &Frame, plane: usize, colour: Nclx) -> Vec<u8> {
    let depth = frame.bit_depth[plane.min(1)].clamp(8, 16);
    let step = f32::from(1_u16 << (depth - 8));
    let most = f32::from(u16::MAX >> (16 - depth));
    let chroma = plane > 0 && colour.matrix != 0;
    let (zero, span, base) = match (colour.full_range, chroma) {
        (true, false) => (0.0, most, 0.0),
        (true, true) => (128.0 * step, most, 128.0),
        (false, false) => (16.0 * step, 219.0 * step, 0.0),
        (false, true) => (128.0 * step, 224.0 * step, 128.0),
    };
    let byte = |level: u16| ((f32::from(level) - zero) * 255.0 / span + base).round().clamp(0.0, 255.0) as u8;
    (0..=u16::MAX >> (16 - depth)).map(byte).collect()
}

/// Decodes a coded picture, at least as large as its tile; also returns its own colour code points.
fn frame(
    bytes: &[u8],
    coded: &Coded,
    grid: &Grid,
    memory: u64,
    deadline: Deadline,
) -> Result<(Frame, Nclx), Rejected> {
    let data = match &coded.data[..] {
        [range] => Cow::Borrowed(&bytes[range.clone()]),
        parts if parts.iter().map(ExactSizeIterator::len).sum::<usize>() > bytes.len() => {
            return Err(Rejected::TooComplex("parts of the file overlap".into()));
        }
        parts => Cow::Owned(parts.iter().flat_map(|range| &bytes[range.clone()]).copied().collect()),
    };
    let units = || units(&bytes[coded.config.clone()], &data);
    let mut sets = ParameterSets::default();
    for unit in units() {
        deadline.check()?;
        let unit = NalUnit::parse(unit?).map_err(rejected)?;
        if unit.header.unit_type.is_slice() {
            break;
        }
        if unit.header.layer_id == 0 {
            sets.add(&unit).map_err(rejected)?;
            check_declared_size(&sets, grid)?;
        }
    }
    let mut state: Option<(syntax::Picture<'_>, Reconstructor<'_>)> = None;
    let mut before: Option<SliceHeader> = None;
    let mut last = None;
    for unit in units() {
        let unit = NalUnit::parse(unit?).map_err(rejected)?;
        // Other layers are other views, or depth.
        if !unit.header.unit_type.is_slice() || unit.header.layer_id != 0 {
            continue;
        }
        deadline.check()?;
        let header =
            SliceHeader::parse(&unit.rbsp, &unit.header, &sets, before.as_ref()).map_err(rejected)?;
        if header.first_slice_segment_in_pic_flag && state.is_some() {
            break;
        }
        let (pps, sps) = sets.get(header.slice_pic_parameter_set_id.into()).map_err(rejected)?;
        if state.is_none() {
            fits(sps, grid, memory)?;
        }
        // A slice that goes back would decode the same blocks as often as there are slices.
        if last.is_some_and(|last| header.slice_segment_address <= last) {
            return Err(Rejected::Corrupt("slices out of order".into()));
        }
        last = Some(header.slice_segment_address);
        let (picture, pixels) =
            state.get_or_insert_with(|| (syntax::Picture::new(sps, pps), Reconstructor::new(sps, pps)));
        pixels.start_slice(&header);
        let quantiser = header.slice_qp_y(&sets).map_err(rejected)?;
        let coded = unit.rbsp.get(header.header_size..).ok_or(Rejected::Truncated)?;
        decode_slice_segment(picture, &header, quantiser, coded, pixels).map_err(rejected)?;
        if let Some(error) = pixels.error.take() {
            return Err(rejected(error));
        }
        if !header.dependent_slice_segment_flag {
            before = Some(header);
        }
    }
    let (picture, pixels) = state.ok_or(Rejected::Truncated)?;
    if !picture.is_complete() {
        return Err(Rejected::Truncated);
    }
    let (frame, sps) = (pixels.finish(false), picture.sps);
    let vui = sps.vui.as_ref();
    let coded_colour = Nclx {
        primaries: vui.map_or(2, |vui| vui.colour_primaries.into()),
        transfer: vui.map_or(2, |vui| vui.transfer_characteristics.into()),
        matrix: vui.map_or(2, |vui| vui.matrix_coeffs.into()),
        full_range: vui.is_some_and(|vui| vui.video_full_range_flag),
    };
    // Cropping at the right and bottom is not needed: those samples are not read.
    let [left, _, top, _] = sps.conf_win_offsets;
    Ok((if (left, top) == (0, 0) { frame } else { frame.cropped(sps) }, coded_colour))
}

/// Checks the declared size before decoding, because the decoder allocates memory by it.
fn check_declared_size(sets: &ParameterSets, grid: &Grid) -> Result<(), Rejected> {
    let (most_width, most_height) =
        (grid.tile_width.saturating_add(PADDING), grid.tile_height.saturating_add(PADDING));
    let sizes =
        sets.sps.iter().flatten().map(|sps| (sps.pic_width_in_luma_samples, sps.pic_height_in_luma_samples));
    match sizes.into_iter().find(|&(width, height)| width > most_width || height > most_height) {
        Some((width, height)) => Err(Rejected::TooLarge { width, height }),
        None => Ok(()),
    }
}

/// Checks that a coded picture matches its tile and may be decoded.
fn fits(sps: &Sps, grid: &Grid, memory: u64) -> Result<(), Rejected> {
    let (shown_width, shown_height) = sps.output_size();
    let (width, height) = (sps.pic_width_in_luma_samples, sps.pic_height_in_luma_samples);
    if shown_width < grid.tile_width || shown_height < grid.tile_height {
        return Err(Rejected::Corrupt("a coded picture is smaller than declared".into()));
    }
    if width > grid.tile_width.saturating_add(PADDING) || height > grid.tile_height.saturating_add(PADDING) {
        return Err(Rejected::TooLarge { width, height });
    }
    if sps.separate_colour_plane_flag {
        return Err(Rejected::Unsupported("separately coded colour planes".into()));
    }
    // Two bytes per sample, two more per sample of a plane while it is filtered, and the state of each block.
    let each = if sps.chroma_format_idc < 2 { 7 } else { 10 };
    if u64::from(width) * u64::from(height) * each > memory {
        return Err(Rejected::TooComplex("decoding needs too much memory".into()));
    }
    Ok(())
}

/// NAL units of a picture: its parameter sets (ISO/IEC 14496-15, 8.3.3.1), then its data.
fn units<'a>(config: &'a [u8], data: &'a [u8]) -> impl Iterator<Item = Result<&'a [u8], Rejected>> {
    let length = config.get(21).map_or(4, |&byte| usize::from(byte & 3) + 1);
    let (mut arrays, mut left) = (config.get(23..).unwrap_or_default(), 0);
    let parameters = std::iter::from_fn(move || {
        while left == 0 {
            let (head, rest) = arrays.split_first_chunk::<3>()?;
            left = u16::from_be_bytes([head[1], head[2]]);
            arrays = rest;
        }
        left -= 1;
        Some(unit(&mut arrays, 2))
    });
    let mut data = data;
    let coded = std::iter::from_fn(move || (!data.is_empty()).then(|| unit(&mut data, length)));
    parameters.chain(coded)
}

/// Reads a NAL unit after its length. After an invalid one, the rest is not read.
fn unit<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Rejected> {
    let whole = std::mem::take(rest);
    let (size, after) = whole.split_at_checked(length).ok_or(Rejected::Truncated)?;
    let size = size.iter().fold(0, |size, &byte| size << 8 | usize::from(byte));
    let (unit, after) = after.split_at_checked(size).ok_or(Rejected::Truncated)?;
    *rest = after;
    Ok(unit)
}

fn rejected(error: Error) -> Rejected {
    match error {
        Error::UnexpectedEof => Rejected::Truncated,
        Error::Unimplemented(what) => Rejected::Unsupported(what.into()),
        error => Rejected::Corrupt(error.to_string()),
    }
}
