//! Decodes scans of progressive files (T.81, annex G).
//!
//! Each scan refines coefficients that are kept until the end. A scan of which no coefficient is needed is skipped.
#![expect(clippy::cast_possible_truncation, reason = "coefficients are 16 bits wide, runs 4")]

use super::{
    bits::Bits,
    coefficients::{At, Coefficients},
    huffman::Table,
    idct::ZIGZAG,
    picture::Picture,
    scan::Scan,
    tables::Tables,
};
use crate::Rejected;

impl Picture<'_> {
    /// Reads a scan of a progressive file.
    pub(super) fn refine(&mut self, scan: &Scan, tables: &Tables, coded: &[u8]) -> Result<(), Rejected> {
        let Some(mut coefficients) = self.coefficients.take() else { return Ok(()) };
        let read = if scan.first == 0 {
            self.dc_scan(&mut coefficients, scan, tables, coded)
        } else {
            self.ac_scan(&mut coefficients, scan, tables, coded)
        };
        self.coefficients = Some(coefficients);
        read
    }

    fn dc_scan(
        &self,
        coefficients: &mut Coefficients,
        scan: &Scan,
        tables: &Tables,
        coded: &[u8],
    ) -> Result<(), Rejected> {
        let alone = scan.components.len() == 1;
        let mut decoders = Vec::with_capacity(scan.components.len());
        for &(_, dc, _) in &scan.components {
            decoders.push(if scan.high == 0 { Some(tables.dc(dc, true)?) } else { None });
        }
        let first = scan.components[0].0;
        let (columns, rows) = if alone {
            (self.grids[first].columns, self.grids[first].rows)
        } else {
            (self.units.columns, self.units.rows)
        };
        let mut restarts = Restarts::every(tables.restart);
        let mut bits = Bits::of(coded);
        let mut predicted = [0_i32; 4];
        for row in 0..rows {
            self.deadline.check()?;
            for column in 0..columns {
                if restarts.due(&mut bits)? {
                    predicted = [0; 4];
                }
                for ((&(index, ..), decoder), predicted) in
                    scan.components.iter().zip(&decoders).zip(&mut predicted)
                {
                    let described = &self.header.components[index];
                    let (across, down) =
                        if alone { (1, 1) } else { (described.across as usize, described.down as usize) };
                    for y in 0..down {
                        for x in 0..across {
                            let block = (down * row + y) * self.grids[index].stride + across * column + x;
                            let value = &mut coefficients.components[index].values[block * coefficients.kept];
                            bits.refill();
                            if let Some(decoder) = decoder {
                                *predicted = predicted.wrapping_add(decoder.value(&mut bits, false)?.1);
                                *value = (*predicted << scan.low) as i16;
                            } else if bits.take(1) != 0 {
                                *value |= 1 << scan.low;
                            }
                        }
                    }
                }
            }
            if bits.overrun() {
                return Err(Rejected::Truncated);
            }
        }
        Ok(())
    }

    fn ac_scan(
        &self,
        coefficients: &mut Coefficients,
        scan: &Scan,
        tables: &Tables,
        coded: &[u8],
    ) -> Result<(), Rejected> {
        let &[(index, _, table)] = &scan.components[..] else { return Ok(()) };
        let (grid, slots, kept) = (self.grids[index], coefficients.slots, coefficients.kept);
        let component = &mut coefficients.components[index];
        if scan.first >= component.end {
            return Ok(());
        }
        let table = tables.ac(table, true)?;
        let mut restarts = Restarts::every(tables.restart);
        let mut bits = Bits::of(coded);
        let mut ended = 0_u32;
        for row in 0..grid.rows {
            self.deadline.check()?;
            for column in 0..grid.columns {
                if restarts.due(&mut bits)? {
                    ended = 0;
                }
                let block = row * grid.stride + column;
                let mut at = At {
                    slots: &slots,
                    values: &mut component.values[block * kept..(block + 1) * kept],
                    nonzero: &mut component.nonzero[block],
                };
                if scan.high == 0 {
                    first(&mut at, &table, scan, &mut bits, &mut ended)?;
                } else {
                    further(&mut at, &table, scan, &mut bits, &mut ended)?;
                }
            }
            if bits.overrun() {
                return Err(Rejected::Truncated);
            }
        }
        Ok(())
    }

    /// Computes the samples from the coefficients of all scans, for a progressive file.
    pub(super) fn transform_all(&mut self, tables: &Tables) -> Result<(), Rejected> {
        let Some(coefficients) = self.coefficients.take() else { return Ok(()) };
        // The coefficients of a component are freed once its samples exist.
        for (index, (component, grid)) in coefficients.components.into_iter().zip(&self.grids).enumerate() {
            self.planes[index] = vec![0; grid.stride * grid.height * self.eighths * self.eighths];
            let quantiser = tables.quantiser(self.header.components[index].table, self.eighths)?;
            let stride = grid.stride * self.eighths;
            let kept: Vec<(usize, usize)> =
                (0..64).filter_map(|k| Some((k, usize::from(coefficients.slots[k]?)))).collect();
            let needed = kept.iter().fold(0_u64, |mask, (k, _)| mask | 1 << k);
            for row in 0..grid.rows {
                self.deadline.check()?;
                for column in 0..grid.columns {
                    let block_index = row * grid.stride + column;
                    let values = &component.values[block_index * coefficients.kept..];
                    let last = 63_u32
                        .saturating_sub((component.nonzero[block_index] & needed | 1).leading_zeros())
                        as usize;
                    let mut block = [0.0; 64];
                    for &(k, slot) in kept.iter().take_while(|(k, _)| *k <= last) {
                        block[usize::from(ZIGZAG[k])] = f32::from(values[slot]) * quantiser[k];
                    }
                    let start = self.eighths * (row * stride + column);
                    self.transform.run(&block, last, &mut self.planes[index][start..], stride);
                }
            }
        }
        Ok(())
    }
}

/// Countdown to the next restart marker.
struct Restarts {
    interval: usize,
    left: usize,
}

impl Restarts {
    fn every(interval: usize) -> Self {
        Self { interval, left: interval }
    }

    /// Called before each unit; returns whether the decoder restarts.
    fn due(&mut self, bits: &mut Bits<'_>) -> Result<bool, Rejected> {
        if self.interval == 0 {
            return Ok(false);
        }
        let due = self.left == 0;
        if due {
            bits.restart()?;
            self.left = self.interval;
        }
        self.left -= 1;
        Ok(due)
    }
}

/// Reads the first scan of a band (T.81, G.1.2.2).
#[inline]
fn first(
    at: &mut At<'_>,
    table: &Table,
    scan: &Scan,
    bits: &mut Bits<'_>,
    ended: &mut u32,
) -> Result<(), Rejected> {
    if *ended > 0 {
        *ended -= 1;
        return Ok(());
    }
    let mut k = scan.first;
    while k <= scan.last {
        bits.refill();
        let symbol = table.symbol(bits)?;
        let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if size == 0 {
            if run < 15 {
                *ended = (1 << run) - 1 + bits.take(run as u32).cast_unsigned();
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let value = bits.signed(size);
        if k > scan.last {
            return Err(Rejected::Corrupt("a run beyond its block".into()));
        }
        at.set(k, value << scan.low);
        k += 1;
    }
    Ok(())
}

/// Reads a refinement scan of a band, one bit per coefficient (T.81, G.1.2.3).
#[inline]
fn further(
    at: &mut At<'_>,
    table: &Table,
    scan: &Scan,
    bits: &mut Bits<'_>,
    ended: &mut u32,
) -> Result<(), Rejected> {
    let bit = 1_i16 << scan.low;
    let mut k = scan.first;
    if *ended == 0 {
        while k <= scan.last {
            bits.refill();
            let symbol = table.symbol(bits)?;
            let (mut run, size) = (usize::from(symbol >> 4), symbol & 15);
            let mut fresh = 0;
            if size == 0 {
                if run < 15 {
                    *ended = (1 << run) + bits.take(run as u32).cast_unsigned();
                    break;
                }
            } else {
                fresh = if bits.take(1) != 0 { i32::from(bit) } else { -i32::from(bit) };
            }
            // Skips `run` zeros; each coefficient in between that is not zero gets its bit.
            while k <= scan.last {
                if *at.nonzero >> k & 1 != 0 {
                    if bits.bit() {
                        at.sharpen(k, bit);
                    }
                } else if run == 0 {
                    if fresh != 0 {
                        at.set(k, fresh);
                    }
                    k += 1;
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
        }
    }
    if *ended > 0 {
        let mut left =
            if k > scan.last { 0 } else { *at.nonzero & u64::MAX << k & u64::MAX >> (63 - scan.last) };
        while left != 0 {
            if bits.bit() {
                at.sharpen(left.trailing_zeros() as usize, bit);
            }
            left &= left - 1;
        }
        *ended -= 1;
    }
    Ok(())
}
