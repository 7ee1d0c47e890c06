//! Header of a scan.

use super::header::Header;
use crate::Rejected;

/// Header of a scan (T.81, B.2.3).
pub(super) struct Scan {
    /// Index in the frame of each component, and numbers of its DC and AC tables.
    pub(super) components: Vec<(usize, usize, usize)>,
    /// Index of the first coefficient, in zigzag order.
    pub(super) first: usize,
    /// Index of the last coefficient, in zigzag order.
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
            let index = header
                .components
                .iter()
                .position(|component| component.id == description[0])
                .ok_or_else(damaged)?;
            let (dc, ac) = (usize::from(description[1] >> 4), usize::from(description[1] & 15));
            if dc > 3 || ac > 3 || components.iter().any(|(other, ..)| *other == index) {
                return Err(damaged());
            }
            components.push((index, dc, ac));
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
