//! Finds the lossless (VP8L) streams of a WebP file that `image-webp` would decode.

use super::prefix_codes::{Size, size_in_header};
use crate::Limits;

/// Calls `show` for every VP8L stream, with its bytes, its size in pixels, and whether it has a header.
pub(super) fn streams(file: &[u8], limits: &Limits, show: &mut impl FnMut(&[u8], Size, bool)) -> Option<()> {
    let first = Chunk::at(file, 12)?;
    match first.kind {
        b"VP8L" => show(first.payload, size_in_header(first.payload)?, true),
        b"VP8X" => extended(file, &first, limits, show)?,
        _ => {}
    }
    Some(())
}

/// Finds the streams of a file in the extended format.
///
/// These are the first chunk of each type and the chunks of the frames. If there is no still picture, the decoder decodes the first frame
/// with the size of the canvas.
fn extended(
    file: &[u8],
    header: &Chunk<'_>,
    limits: &Limits,
    show: &mut impl FnMut(&[u8], Size, bool),
) -> Option<()> {
    // The decoder does not check the length of this chunk.
    let fields = file.get(header.start..)?;
    let canvas = (u24(fields, 4)?.saturating_add(1), u24(fields, 7)?.saturating_add(1));
    let (mut still, mut alpha, mut frame) = (None, None, None);
    let mut at = header.next();
    while let Some(chunk) = Chunk::at(file, at) {
        at = chunk.next();
        match chunk.kind {
            b"VP8L" => still = still.or(Some(chunk)),
            b"ALPH" => alpha = alpha.or(Some(chunk)),
            b"ANMF" => frame = frame.or(Some(chunk)),
            _ => {}
        }
    }
    let mut at = frame.map_or(file.len(), |frame| frame.start.saturating_add(16));
    for chunk in [still, alpha].into_iter().flatten() {
        chunk.show(canvas, show);
    }
    for _ in 0..2 {
        let Some(chunk) = Chunk::at(file, at) else { break };
        at = chunk.next();
        chunk.show(canvas, show);
    }
    frames(file, frame?, canvas, limits, show)
}

/// The first stream of every frame, up to the limit of pixels: further frames are not decoded.
fn frames<'a>(
    file: &'a [u8],
    mut frame: Chunk<'a>,
    canvas: Size,
    limits: &Limits,
    show: &mut impl FnMut(&[u8], Size, bool),
) -> Option<()> {
    let mut left = u64::from(limits.animation_megapixels) * 1_000_000;
    while frame.kind == b"ANMF" {
        let fields = file.get(frame.start..)?;
        let size = (u24(fields, 6)?.saturating_add(1), u24(fields, 9)?.saturating_add(1));
        left = left.checked_sub(u64::from(size.0) * u64::from(size.1))?;
        if size.0 > canvas.0 || size.1 > canvas.1 {
            return None;
        }
        let chunk = Chunk::at(file, frame.start.checked_add(16)?)?;
        // So that no byte belongs to two frames.
        if chunk.length.checked_add(chunk.length % 2)?.checked_add(24)? > frame.length {
            return None;
        }
        chunk.show(size, show);
        frame = Chunk::at(file, frame.start.checked_add(frame.length)?)?;
    }
    Some(())
}

#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) kind: &'a [u8; 4],
    /// Position of the payload in the file.
    start: usize,
    /// Declared length of the payload.
    length: usize,
    /// Available part of the payload.
    pub(super) payload: &'a [u8],
}

impl<'a> Chunk<'a> {
    pub(super) fn at(file: &'a [u8], at: usize) -> Option<Self> {
        let (kind, rest) = file.get(at..)?.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let payload = rest.get(..length).unwrap_or(rest);
        Some(Self { kind, start: at + 8, length, payload })
    }

    /// Position of the next chunk.
    pub(super) fn next(&self) -> usize {
        self.start.saturating_add(self.length).saturating_add(self.length % 2)
    }

    /// Calls `show` with the chunk's stream, if it has one.
    ///
    /// The first byte of `ALPH` is its compression (section 2.7.1.2).
    fn show(&self, size: Size, show: &mut impl FnMut(&[u8], Size, bool)) {
        match (self.kind, self.payload) {
            (b"VP8L", stream) => show(stream, size, true),
            (b"ALPH", [how, stream @ ..]) if how & 3 == 1 => show(stream, size, false),
            _ => {}
        }
    }
}

fn u24(bytes: &[u8], at: usize) -> Option<u32> {
    let &[low, middle, high] = bytes.get(at..)?.first_chunk::<3>()?;
    Some(u32::from_le_bytes([low, middle, high, 0]))
}
