//! Reads the segments of a JPEG file, without coded data.

use image::metadata::Orientation;

use super::{
    idct::ZIGZAG,
    segments::{DQT, EOI, SOS, Segments},
    tables::Tables,
};
use crate::{
    Limits, Rejected,
    limits::MAX_PROFILE_BYTES,
    orientation::{self, swaps_sides},
    samples::Colour,
};

/// A component, which is one plane of the picture.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Number of blocks side by side in a unit (1 to 4).
    pub(super) across: u32,
    /// Number of rows of blocks in a unit (1 to 4).
    pub(super) down: u32,
    /// Number of its quantisation table.
    pub(super) table: u8,
}

#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) orientation: Orientation,
    pub(crate) profile: Option<Vec<u8>>,
    pub(crate) colour: Colour,
    pub(super) progressive: bool,
    /// Whether an EOI marker follows the last scan.
    ///
    /// Without it the decoder checks that every scan exists and is complete.
    pub(super) ended: bool,
    pub(super) components: Vec<Component>,
    /// None if the blocks of the upright picture differ from those of the file.
    pub(crate) quantisation: Option<Quantisation>,
}

/// Quantiser steps of the blocks of the upright picture, row by row, with rising vertical frequency.
#[derive(Debug, Clone)]
pub(crate) struct Quantisation {
    pub(crate) luma: [u16; 64],
    /// None unless chroma has half the width and height of luma (4:2:0).
    ///
    /// Other chroma is resampled, so its blocks change.
    pub(crate) chroma: Option<[u16; 64]>,
}

impl Header {
    /// Reads all segments up to the end of the picture, without coded data.
    pub(crate) fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Rejected> {
        let mut frame: Option<Frame> = None;
        let mut orientation = None;
        let mut profile = Chunks::default();
        let (mut adobe, mut jfif) = (None, false);
        let mut scans = 0;
        let mut ended = false;
        let mut tables = Tables::default();
        for segment in Segments::of(bytes) {
            let segment = segment?;
            match (segment.marker, segment.payload) {
                (0xC0..=0xC2, payload) => {
                    if frame.is_some() {
                        // After a scan it belongs to another picture that follows this one.
                        if scans > 0 {
                            break;
                        }
                        return Err(Rejected::Corrupt("a second frame".into()));
                    }
                    let read = Frame::read(segment.marker, payload)?;
                    limits.check_size(read.width, read.height)?;
                    frame = Some(read);
                }
                (0xC9..=0xCA, _) if scans == 0 => return Err(Rejected::ArithmeticJpeg),
                // C4 and CC define tables; C8 is reserved.
                (0xC3 | 0xC5..=0xC7 | 0xCB | 0xCD..=0xCF, _) if scans == 0 => {
                    return Err(Rejected::Unsupported("lossless or hierarchical JPEG".into()));
                }
                (0xE0, [b'J', b'F', b'I', b'F', 0, ..]) => jfif = true,
                (0xE1, payload) if payload.starts_with(b"Exif\0") => {
                    orientation = orientation.or_else(|| orientation::read(payload));
                }
                (0xE2, payload) => profile.take(payload),
                (0xEE, [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..]) => {
                    adobe = Some(*transform);
                }
                // The decoder refuses a damaged table.
                (DQT, payload) if scans == 0 => drop(tables.quantisation(payload)),
                (EOI, _) => ended = true,
                (SOS, _) => {
                    if frame.is_none() {
                        return Err(Rejected::Corrupt("a scan before its frame".into()));
                    }
                    scans += 1;
                    if scans > limits.scans {
                        return Err(Rejected::TooComplex(format!("more than {} scans", limits.scans)));
                    }
                }
                _ => {}
            }
        }
        let frame =
            frame.filter(|_| scans > 0).ok_or_else(|| Rejected::Corrupt("the file has no picture".into()))?;
        let colour = colour(&frame.components, adobe, jfif)?;
        let orientation = orientation.unwrap_or(Orientation::NoTransforms);
        Ok(Self {
            quantisation: Some(colour)
                .filter(|colour| *colour == Colour::YCbCr)
                .and_then(|_| quantisation(&frame, orientation, &tables)),
            colour,
            width: frame.width,
            height: frame.height,
            orientation,
            profile: profile.whole(),
            progressive: frame.progressive,
            ended,
            components: frame.components,
        })
    }
}

impl Header {
    /// Number of planes: 1, 3 or 4.
    pub(crate) fn planes(&self) -> usize {
        self.components.len()
    }
}

/// Quantiser steps of the upright picture; none if its blocks differ from those of the file.
fn quantisation(frame: &Frame, orientation: Orientation, tables: &Tables) -> Option<Quantisation> {
    let [luma, chroma, other] = &frame.components[..] else { return None };
    // A mirrored or rotated picture has the same blocks only if both sides are multiples of the unit's 16 pixels.
    let whole = frame.width.is_multiple_of(16) && frame.height.is_multiple_of(16);
    if orientation != Orientation::NoTransforms && !whole {
        return None;
    }
    let steps = |component: &Component| {
        let table = tables.steps(usize::from(component.table))?;
        let mut steps = [0; 64];
        for (&step, position) in table.iter().zip(ZIGZAG.map(usize::from)) {
            let position = if swaps_sides(orientation) { position % 8 * 8 + position / 8 } else { position };
            steps[position] = step;
        }
        steps.iter().all(|step| (1..=255).contains(step)).then_some(steps)
    };
    let halved = [chroma, other].iter().all(|chroma| {
        (2 * chroma.across, 2 * chroma.down) == (luma.across, luma.down) && chroma.table == other.table
    });
    Some(Quantisation { luma: steps(luma)?, chroma: halved.then(|| steps(chroma)).flatten() })
}

struct Frame {
    width: u32,
    height: u32,
    progressive: bool,
    components: Vec<Component>,
}

impl Frame {
    fn read(marker: u8, payload: &[u8]) -> Result<Self, Rejected> {
        let damaged = || Rejected::Corrupt("the frame header is damaged".into());
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = payload else { return Err(damaged()) };
        if precision != 8 {
            return Err(Rejected::Unsupported(format!("a JPEG of {precision} bits")));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Rejected::Unsupported(format!("a JPEG of {count} components")));
        }
        let rest = rest.get(..3 * usize::from(count)).ok_or_else(damaged)?;
        let mut components = Vec::with_capacity(usize::from(count));
        for description in rest.chunks_exact(3) {
            let (across, down) = (u32::from(description[1] >> 4), u32::from(description[1] & 15));
            let sound = (1..=4).contains(&across) && (1..=4).contains(&down) && description[2] < 4;
            if !sound || components.iter().any(|other: &Component| other.id == description[0]) {
                return Err(damaged());
            }
            components.push(Component { id: description[0], across, down, table: description[2] });
        }
        if components.iter().map(|component| component.across * component.down).sum::<u32>() > 10 && count > 1
        {
            return Err(Rejected::Corrupt("more than ten blocks in a unit".into()));
        }
        if let [only] = &mut components[..] {
            // A single component is not interleaved, so its sampling factors do not count.
            (only.across, only.down) = (1, 1);
        }
        Ok(Self {
            width: u16::from_be_bytes([w1, w0]).into(),
            height: u16::from_be_bytes([h1, h0]).into(),
            progressive: marker == 0xC2,
            components,
        })
    }
}

/// Guesses the colour model as libjpeg does (`default_decompress_parms`).
fn colour(components: &[Component], adobe: Option<u8>, jfif: bool) -> Result<Colour, Rejected> {
    let ids: Vec<u8> = components.iter().map(|component| component.id).collect();
    Ok(match (components.len(), adobe) {
        (1, _) => Colour::Grey,
        (3, Some(0)) if !jfif => Colour::Rgb,
        (3, None) if !jfif && ids == *b"RGB" => Colour::Rgb,
        (3, _) => Colour::YCbCr,
        (4, Some(2)) => Colour::Ycck,
        (4, _) => Colour::Cmyk,
        _ => return Err(Rejected::Unsupported("this number of components".into())),
    })
}

/// Chunks of an ICC profile (ICC.1, annex B.4).
#[derive(Default)]
struct Chunks<'a> {
    parts: Vec<(u8, &'a [u8])>,
    length: usize,
}

impl<'a> Chunks<'a> {
    fn take(&mut self, payload: &'a [u8]) {
        if let Some([number, _, part @ ..]) = payload.strip_prefix(b"ICC_PROFILE\0") {
            self.length += part.len();
            if self.length <= MAX_PROFILE_BYTES {
                self.parts.push((*number, part));
            }
        }
    }

    fn whole(mut self) -> Option<Vec<u8>> {
        if self.parts.is_empty() || self.length > MAX_PROFILE_BYTES {
            return None;
        }
        self.parts.sort_by_key(|(number, _)| *number);
        Some(self.parts.into_iter().flat_map(|(_, part)| part).copied().collect())
    }
}
