//! Layout of a component's blocks and samples.

use super::header::{Component, Header};
use crate::samples::Plane;

/// Layout of a component's blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// Columns of blocks that contain a part of the picture.
    pub(super) columns: usize,
    pub(super) rows: usize,
    /// Columns of blocks, rounded up to whole units.
    pub(super) stride: usize,
    pub(super) height: usize,
    /// Width in samples.
    pub(super) width_samples: u32,
    pub(super) height_samples: u32,
}

/// Maximum sampling factors of a picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units {
    pub(super) across: u32,
    pub(super) down: u32,
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Units {
    pub(super) fn of(header: &Header) -> Self {
        let across = header.components.iter().map(|component| component.across).max().unwrap_or(1);
        let down = header.components.iter().map(|component| component.down).max().unwrap_or(1);
        Self {
            across,
            down,
            columns: header.width.div_ceil(8 * across) as usize,
            rows: header.height.div_ceil(8 * down) as usize,
        }
    }

    pub(super) fn grid(self, header: &Header, component: &Component) -> Grid {
        let width_samples = (header.width * component.across).div_ceil(self.across);
        let height_samples = (header.height * component.down).div_ceil(self.down);
        Grid {
            columns: width_samples.div_ceil(8) as usize,
            rows: height_samples.div_ceil(8) as usize,
            stride: self.columns * component.across as usize,
            height: self.rows * component.down as usize,
            width_samples,
            height_samples,
        }
    }

    /// Creates a component's plane at `eighths`/8 of its size.
    pub(super) fn plane(
        self,
        header: &Header,
        component: &Component,
        eighths: usize,
        samples: Vec<u8>,
    ) -> Plane {
        let grid = self.grid(header, component);
        let n = u32::try_from(eighths).unwrap_or(8);
        let scale = f64::from(n) / 8.0;
        Plane {
            width: (grid.width_samples * n).div_ceil(8),
            height: (grid.height_samples * n).div_ceil(8),
            stride: grid.stride * eighths,
            samples,
            across: scale * f64::from(component.across) / f64::from(self.across),
            down: scale * f64::from(component.down) / f64::from(self.down),
        }
    }
}
