//! Parameters of scans: quantisation, Huffman codes, restart interval.

use super::{
    huffman::Table,
    idct::{ZIGZAG, whole_scale},
    standard,
};
use crate::Rejected;

/// Current tables.
///
/// Huffman tables are built when a scan first uses them, so that a file full of definitions costs nothing.
#[derive(Default)]
pub(super) struct Tables {
    /// Quantisation tables by destination, in zigzag order.
    quantisers: [Option<[u16; 64]>; 4],
    dc: [Option<Vec<u8>>; 4],
    ac: [Option<Vec<u8>>; 4],
    /// Units between restarts; 0 for none.
    pub(super) restart: usize,
}

fn damaged() -> Rejected {
    Rejected::Corrupt("a table is damaged".into())
}

impl Tables {
    pub(super) fn quantisation(&mut self, mut payload: &[u8]) -> Result<(), Rejected> {
        while let Some((&head, rest)) = payload.split_first() {
            let wide = head >> 4 != 0;
            let (values, rest) = rest.split_at_checked(if wide { 128 } else { 64 }).ok_or_else(damaged)?;
            let table = self.quantisers.get_mut(usize::from(head & 15)).ok_or_else(damaged)?;
            *table = Some(std::array::from_fn(|k| {
                if wide { u16::from_be_bytes([values[2 * k], values[2 * k + 1]]) } else { values[k].into() }
            }));
            payload = rest;
        }
        Ok(())
    }

    /// Steps of the quantiser table with this number (0 to 3), in zigzag order.
    pub(super) fn steps(&self, number: usize) -> Option<&[u16; 64]> {
        self.quantisers.get(number)?.as_ref()
    }

    pub(super) fn huffman(&mut self, mut payload: &[u8]) -> Result<(), Rejected> {
        while let Some((&head, rest)) = payload.split_first() {
            let counts = rest.first_chunk::<16>().ok_or_else(damaged)?;
            let length = 16 + counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let (definition, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
            let class = match head >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(damaged()),
            };
            *class.get_mut(usize::from(head & 15)).ok_or_else(damaged)? = Some(definition.to_vec());
            payload = rest;
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, payload: &[u8]) -> Result<(), Rejected> {
        let interval = payload.first_chunk().ok_or_else(damaged)?;
        self.restart = u16::from_be_bytes(*interval).into();
        Ok(())
    }

    /// Returns the table of DC codes at a destination, 0 to 3.
    ///
    /// In a sequential file, such as a frame of a Motion JPEG stream, it is the standard table if the file defines none.
    pub(super) fn dc(&self, number: usize, progressive: bool) -> Result<Table, Rejected> {
        let standard = || standard::DC.get(number).copied().filter(|_| !progressive);
        Table::new(self.dc[number].as_deref().or_else(standard).ok_or_else(damaged)?, false)
    }

    /// Returns the table of AC codes at a destination, 0 to 3, by the same rule.
    pub(super) fn ac(&self, number: usize, progressive: bool) -> Result<Table, Rejected> {
        let standard = || standard::AC.get(number).copied().filter(|_| !progressive);
        Table::new(self.ac[number].as_deref().or_else(standard).ok_or_else(damaged)?, true)
    }

    /// Factors of coefficients before the transform to `eighths`, from the quantiser table with this number (0 to 3).
    pub(super) fn quantiser(&self, table: u8, eighths: usize) -> Result<[f32; 64], Rejected> {
        let table = self.quantisers[usize::from(table)].ok_or_else(damaged)?;
        let scale = whole_scale();
        Ok(std::array::from_fn(|k| {
            let scale = if eighths == 8 { scale[usize::from(ZIGZAG[k])] } else { 1.0 };
            f32::from(table[k]) * scale
        }))
    }
}
