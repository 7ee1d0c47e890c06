//! Counts the frames of an animation, without decoding them.

use super::{Kind, Limits, gif};

/// Number of frames and repetitions of an animation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameCount {
    /// Number of complete frames in the file.
    pub(super) frames: u32,
    /// Number of repetitions; 0 is endless.
    pub(super) loops: u16,
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

impl FrameCount {
    /// Counts frames without decoding. A truncated file counts the frames that are complete.
    pub(super) fn of(kind: Kind, bytes: &[u8]) -> Self {
        let mut count = Self { frames: 0, loops: 1 };
        match kind {
            Kind::Gif => count.gif(bytes),
            Kind::WebP => count.webp(bytes),
            _ => None,
        };
        count
    }

    fn gif(&mut self, bytes: &[u8]) -> Option<()> {
        for block in gif::Blocks::of(bytes)? {
            match block {
                gif::Block::Frame(_) => self.frames = self.frames.saturating_add(1),
                // Number of repetitions.
                gif::Block::Again(0) => self.loops = 0,
                gif::Block::Again(again) => self.loops = again.saturating_add(1),
                gif::Block::Other => {}
            }
        }
        Some(())
    }

    fn webp(&mut self, bytes: &[u8]) -> Option<()> {
        let mut rest = bytes.get(12..)?;
        loop {
            let kind = take(&mut rest, 4)?;
            let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?) as usize;
            let payload = take(&mut rest, length)?;
            match (kind, payload) {
                (b"ANIM", &[_, _, _, _, low, high, ..]) => self.loops = u16::from_le_bytes([low, high]),
                (b"ANMF", _) => self.frames = self.frames.saturating_add(1),
                _ => {}
            }
            rest = rest.get(length % 2..)?;
        }
    }

    /// Number of frames that are kept: one, unless all of them are within the limits.
    pub(super) fn within_limits(self, width: u32, height: u32, limits: &Limits) -> u32 {
        let pixels = u64::from(width) * u64::from(height) * u64::from(self.frames);
        let within =
            self.frames <= limits.frames && pixels <= u64::from(limits.animation_megapixels) * 1_000_000;
        if within { self.frames.max(1) } else { 1 }
    }
}
