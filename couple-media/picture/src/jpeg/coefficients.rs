//! Coefficients of a progressive file, which are kept until its last scan.
//!
//! Only those that the wanted size needs are kept, and of the others whether they are zero, on which later scans depend.

use super::{idct::ZIGZAG, planes::Grid};

/// Coefficients of all blocks.
pub(super) struct Coefficients {
    /// By zigzag position: index of a coefficient among the kept ones of a block.
    pub(super) slots: [Option<u8>; 64],
    /// Number of coefficients that are kept per block.
    pub(super) kept: usize,
    pub(super) components: Vec<Kept>,
}

pub(super) struct Kept {
    pub(super) values: Vec<i16>,
    /// For each block, a bit per zigzag position: whether the coefficient is not zero.
    pub(super) nonzero: Vec<u64>,
    /// Scans that begin at this zigzag position or later are skipped.
    pub(super) end: usize,
}

fn slots(eighths: usize) -> ([Option<u8>; 64], usize) {
    let mut kept = 0;
    let slots = ZIGZAG.map(|position| {
        let needed = usize::from(position / 8) < eighths && usize::from(position % 8) < eighths;
        needed.then(|| {
            kept += 1;
            kept - 1
        })
    });
    (slots, kept.into())
}

/// Bytes per block that [`Coefficients`] take.
pub(super) fn bytes_per_block(eighths: usize) -> usize {
    8 + 2 * slots(eighths).1
}

impl Coefficients {
    /// With `all`, no scan is skipped: unneeded coefficients are read and discarded.
    pub(super) fn new(grids: &[Grid], eighths: usize, all: bool) -> Self {
        let (slots, kept) = slots(eighths);
        let needed = slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let end = if all { 64 } else { needed };
        let components = grids
            .iter()
            .map(|grid| {
                let blocks = grid.stride * grid.height;
                Kept { values: vec![0; blocks * kept], nonzero: vec![0; blocks], end }
            })
            .collect();
        Self { slots, kept, components }
    }
}

/// Coefficients of the block that a scan is reading.
pub(super) struct At<'a> {
    pub(super) slots: &'a [Option<u8>; 64],
    pub(super) values: &'a mut [i16],
    pub(super) nonzero: &'a mut u64,
}

impl At<'_> {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "coefficients are 16 bits wide")]
    pub(super) fn set(&mut self, k: usize, value: i32) {
        *self.nonzero |= 1 << k;
        if let Some(slot) = self.slots[k] {
            self.values[usize::from(slot)] = value as i16;
        }
    }

    /// Adds one more bit to a coefficient that is not zero.
    #[inline(always)]
    pub(super) fn sharpen(&mut self, k: usize, bit: i16) {
        if let Some(slot) = self.slots[k] {
            let value = &mut self.values[usize::from(slot)];
            *value = value.wrapping_add(if *value < 0 { -bit } else { bit });
        }
    }
}
