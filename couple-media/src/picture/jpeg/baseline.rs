//! Scans of sequential files: a block is whole when it is read.

use super::{
    Picture, Plane,
    bits::Bits,
    huffman::Table,
    idct::{Block, ZIGZAG},
    tables::{Scan, Tables},
};
use crate::picture::Rejected;

/// What a component's blocks are read by.
struct Component {
    place: usize,
    dc: Table,
    ac: Table,
    quantiser: [f32; 64],
    predicted: i32,
    /// Blocks of it in a unit.
    across: usize,
    down: usize,
}

impl Picture<'_> {
    /// Reads a scan of a sequential file.
    pub(super) fn sequential(&mut self, scan: &Scan, tables: &Tables, coded: &[u8]) -> Result<(), Rejected> {
        let alone = scan.components.len() == 1;
        let mut components = Vec::with_capacity(scan.components.len());
        for &(place, dc, ac) in &scan.components {
            let described = &self.header.components[place];
            let (across, down) =
                if alone { (1, 1) } else { (described.across as usize, described.down as usize) };
            components.push(Component {
                place,
                dc: tables.dc(dc)?,
                ac: tables.ac(ac)?,
                quantiser: tables.quantiser(self.header, place, self.eighths)?,
                predicted: 0,
                across,
                down,
            });
        }
        let (columns, rows) = match &components[..] {
            [only] => (self.grids[only.place].columns, self.grids[only.place].rows),
            _ => (self.units.columns, self.units.rows),
        };
        let mut bits = Bits::of(coded);
        let mut left = tables.restart;
        for row in 0..rows {
            self.deadline.check()?;
            for column in 0..columns {
                if tables.restart > 0 {
                    if left == 0 {
                        if !bits.restart() {
                            return Err(Rejected::Corrupt("a restart is missing".into()));
                        }
                        left = tables.restart;
                        for component in &mut components {
                            component.predicted = 0;
                        }
                    }
                    left -= 1;
                }
                for component in &mut components {
                    self.unit(component, &mut bits, column, row)?;
                }
            }
            if bits.overrun() {
                return Err(Rejected::Truncated);
            }
        }
        Ok(())
    }

    /// Reads one component's blocks of a unit.
    #[inline]
    fn unit(
        &mut self,
        component: &mut Component,
        bits: &mut Bits<'_>,
        column: usize,
        row: usize,
    ) -> Result<(), Rejected> {
        let stride = self.grids[component.place].stride * self.eighths;
        for y in 0..component.down {
            for x in 0..component.across {
                let (column, row) = (component.across * column + x, component.down * row + y);
                let mut block = [0.0; 64];
                let last = component.block(bits, &mut block)?;
                let start = self.eighths * (row * stride + column);
                self.transform.run(&block, last, &mut self.planes[component.place][start..], stride);
            }
        }
        Ok(())
    }

    /// Of a progressive file, transforms what all scans together have read. Hands over the planes.
    pub(super) fn finish(mut self, tables: &Tables) -> Result<Vec<Plane>, Rejected> {
        self.transform_all(tables)?;
        let eighths = f64::from(u32::try_from(self.eighths).unwrap_or(8)) / 8.0;
        let scaled = |samples: u32| (samples * u32::try_from(self.eighths).unwrap_or(8)).div_ceil(8);
        let planes = self.grids.iter().zip(self.planes).zip(&self.header.components);
        Ok(planes
            .map(|((grid, samples), component)| Plane {
                width: scaled(grid.width_samples),
                height: scaled(grid.height_samples),
                stride: grid.stride * self.eighths,
                samples,
                across: eighths * f64::from(component.across) / f64::from(self.units.across),
                down: eighths * f64::from(component.down) / f64::from(self.units.down),
            })
            .collect())
    }
}

impl Component {
    /// Reads a block (T.81, F.2.2); says where its last coefficient is.
    #[inline]
    fn block(&mut self, bits: &mut Bits<'_>, block: &mut Block) -> Result<usize, Rejected> {
        bits.refill();
        let (_, difference) = self.dc.value(bits, false)?;
        self.predicted = self.predicted.wrapping_add(difference);
        block[0] = self.predicted as f32 * self.quantiser[0];
        let (mut k, mut last) = (1, 0);
        while k < 64 {
            bits.refill();
            let (run, value) = self.ac.value(bits, true)?;
            k += run;
            if k > 63 {
                break;
            }
            block[usize::from(ZIGZAG[k])] = value as f32 * self.quantiser[k];
            last = k;
            k += 1;
        }
        Ok(last)
    }
}
