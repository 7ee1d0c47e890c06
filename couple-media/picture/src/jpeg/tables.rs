//! Parameters of scans: quantisation, Huffman codes, restart interval, scan header.

use super::{
    header::Header,
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
    pub(super) fn steps(&self, place: usize) -> Option<&[u16; 64]> {
        self.quantisers.get(place)?.as_ref()
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
    pub(super) fn dc(&self, header: &Header, place: usize) -> Result<Table, Rejected> {
        let standard = || standard::DC.get(place).copied().filter(|_| !header.progressive);
        Table::new(self.dc[place].as_deref().or_else(standard).ok_or_else(damaged)?, false)
    }

    /// Returns the table of AC codes at a destination, 0 to 3, by the same rule.
    pub(super) fn ac(&self, header: &Header, place: usize) -> Result<Table, Rejected> {
        let standard = || standard::AC.get(place).copied().filter(|_| !header.progressive);
        Table::new(self.ac[place].as_deref().or_else(standard).ok_or_else(damaged)?, true)
    }

    /// Factors of a component's coefficients before the transform to `eighths`.
    pub(super) fn quantiser(
        &self,
        header: &Header,
        component: usize,
        eighths: usize,
    ) -> Result<[f32; 64], Rejected> {
        let place = usize::from(header.components[component].table);
        let table = self.quantisers[place].ok_or_else(damaged)?;
        let scale = whole_scale();
        Ok(std::array::from_fn(|k| {
            let scale = if eighths == 8 { scale[usize::from(ZIGZAG[k])] } else { 1.0 };
            f32::from(table[k]) * scale
        }))
    }
}

/// Header of a scan (T.81, B.2.3).
pub(super) struct Scan {
    /// Index in the frame of each component, and numbers of its DC and AC tables.
    pub(super) components: Vec<(usize, usize, usize)>,
    /// First and last coefficient, in zigzag order.
    pub(super) first: usize,
    pub(super) last: usize,
    /// Lowest bit of the previous scan of these coefficients; 0 in the first scan.
    pub(super) high: u32,
    /// Lowest bit of this scan.
    pub(super) low: u32,
}

impl Scan {
    pub(super) fn read(payload: &[u8], header: &Header) -> Result<Self, Rejected> {
        let damaged = || Rejected::Corrupt("a scan header is damaged".into());
        let (&count, rest) = payload.split_first().ok_or_else(damaged)?;
        let (descriptions, rest) = rest.split_at_checked(2 * usize::from(count)).ok_or_else(damaged)?;
        let &[first, last, approximation, ..] = rest else { return Err(damaged()) };
        let mut components: Vec<(usize, usize, usize)> = Vec::with_capacity(4);
        for description in descriptions.chunks_exact(2) {
            let place = header
                .components
                .iter()
                .position(|component| component.id == description[0])
                .ok_or_else(damaged)?;
            let (dc, ac) = (usize::from(description[1] >> 4), usize::from(description[1] & 15));
            if dc > 3 || ac > 3 || components.iter().any(|(other, ..)| *other == place) {
                return Err(damaged());
            }
            components.push((place, dc, ac));
        }
        let scan = Self {
            components,
            first: first.into(),
            last: last.into(),
            high: (approximation >> 4).into(),
            low: (approximation & 15).into(),
        };
        let sound = match (header.progressive, scan.first) {
            (false, _) => true,
            (true, 0) => scan.last == 0,
            (true, first) => first <= scan.last && scan.last < 64 && scan.components.len() == 1,
        } && !scan.components.is_empty()
            && (!header.progressive || scan.low <= 13 && (scan.high == 0 || scan.high == scan.low + 1));
        if sound { Ok(scan) } else { Err(damaged()) }
    }
}
