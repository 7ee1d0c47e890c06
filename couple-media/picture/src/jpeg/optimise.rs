//! Rewrites a sequential JPEG losslessly with Huffman tables made for it, as `jpegtran -optimize` does.
//!
//! An encoder that keeps no coefficients has to use tables made for an average photo. This module reads the symbols of its output twice:
//! first to count them, then to write them with the optimal tables for these counts. It needs memory for the two files only.

use super::{
    bits::{BitWriter, Bits},
    header::Header,
    huffman::{Codes, Table},
    planes::{Grid, Units},
    scan::Scan,
    segments::{DHT, DRI, EOI, SOI, SOS, Segments},
    tables::Tables,
};
use crate::{Limits, Rejected};

/// Rewrites a JPEG of one sequential scan.
///
/// None if the file has several scans, is progressive or damaged, or would not become smaller.
pub(crate) fn optimised(bytes: &[u8]) -> Option<Vec<u8>> {
    let limits = Limits { megapixels: u32::MAX, ..Limits::default() };
    let header = Header::read(bytes, &limits).ok()?;
    let rewritten = rewrite(bytes, &header).ok()??;
    (rewritten.len() < bytes.len()).then_some(rewritten)
}

fn rewrite(bytes: &[u8], header: &Header) -> Result<Option<Vec<u8>>, Rejected> {
    if header.progressive || !header.ended {
        return Ok(None);
    }
    let mut tables = Tables::default();
    let mut rewritten = Vec::with_capacity(bytes.len());
    rewritten.extend([0xFF, SOI]);
    let mut scans = 0;
    for segment in Segments::of(bytes) {
        let segment = segment?;
        match segment.marker {
            DHT => {
                tables.huffman(segment.payload)?;
                continue;
            }
            DRI => tables.restart(segment.payload)?,
            _ => {}
        }
        if segment.marker == EOI {
            rewritten.extend([0xFF, EOI]);
            continue;
        }
        if segment.marker != SOS {
            write_segment(&mut rewritten, segment.marker, segment.payload);
            continue;
        }
        let scan = Scan::read(segment.payload, header)?;
        scans += 1;
        if scans > 1 || scan.components.len() != header.components.len() {
            return Ok(None);
        }
        let reader = Reader::new(header, &scan, &tables)?;
        let mut counts = Counts { dc: [[0; 256]; 4], ac: [[0; 256]; 4] };
        reader.read(segment.coded, &mut counts)?;
        let codes = |counts: &[[u32; 256]; 4]| counts.each_ref().map(Codes::optimal);
        let mut writer = Writer {
            dc: codes(&counts.dc),
            ac: codes(&counts.ac),
            bits: BitWriter::of(rewritten),
            restarts: 0,
        };
        for (class, codes) in [(0x00, &writer.dc), (0x10, &writer.ac)] {
            for (number, codes) in (0..).zip(codes).filter(|(_, codes)| !codes.definition().is_empty()) {
                write_segment(writer.bits.bytes(), DHT, &[&[class | number], codes.definition()].concat());
            }
        }
        write_segment(writer.bits.bytes(), SOS, segment.payload);
        reader.read(segment.coded, &mut writer)?;
        rewritten = writer.bits.finish();
    }
    Ok((scans == 1).then_some(rewritten))
}

fn write_segment(to: &mut Vec<u8>, marker: u8, payload: &[u8]) {
    // A payload that was read has at most 65,533 bytes; a table has at most 273.
    let length = u16::try_from(payload.len() + 2).unwrap_or(u16::MAX);
    to.extend([0xFF, marker]);
    to.extend(length.to_be_bytes());
    to.extend(payload);
}

/// Consumer of the symbols of a scan, in order.
///
/// `table` is the number of a Huffman table, 0 to 3; `bits` are the bits of the value that follows the symbol.
trait Symbols {
    fn dc(&mut self, table: usize, size: u8, bits: u32);
    fn ac(&mut self, table: usize, symbol: u8, bits: u32);
    fn restart(&mut self);
}

struct Counts {
    dc: [[u32; 256]; 4],
    ac: [[u32; 256]; 4],
}

impl Symbols for Counts {
    #[inline]
    fn dc(&mut self, table: usize, size: u8, _: u32) {
        self.dc[table][usize::from(size)] += 1;
    }

    #[inline]
    fn ac(&mut self, table: usize, symbol: u8, _: u32) {
        self.ac[table][usize::from(symbol)] += 1;
    }

    fn restart(&mut self) {}
}

struct Writer {
    dc: [Codes; 4],
    ac: [Codes; 4],
    bits: BitWriter,
    restarts: u8,
}

impl Symbols for Writer {
    #[inline]
    fn dc(&mut self, table: usize, size: u8, bits: u32) {
        let (code, length) = self.dc[table].code(size);
        self.bits.put(code << size | bits, length + u32::from(size));
    }

    #[inline]
    fn ac(&mut self, table: usize, symbol: u8, bits: u32) {
        let (code, length) = self.ac[table].code(symbol);
        let size = symbol & 15;
        self.bits.put(code << size | bits, length + u32::from(size));
    }

    fn restart(&mut self) {
        self.bits.marker(0xD0 + self.restarts % 8);
        self.restarts = self.restarts.wrapping_add(1);
    }
}

struct Component {
    dc: Table,
    ac: Table,
    /// Numbers of its DC and AC tables, 0 to 3.
    tables: (usize, usize),
    /// Columns of blocks in a unit (MCU).
    across: usize,
    /// Rows of blocks in a unit (MCU).
    down: usize,
    grid: Grid,
}

/// Reads the symbols of a scan.
struct Reader {
    components: Vec<Component>,
    units: Units,
    /// Number of units between restart markers; 0 if there are no such markers.
    restart: usize,
}

impl Reader {
    fn new(header: &Header, scan: &Scan, tables: &Tables) -> Result<Self, Rejected> {
        let units = Units::of(header);
        let mut components = Vec::with_capacity(scan.components.len());
        for &(index, dc, ac) in &scan.components {
            let described = &header.components[index];
            components.push(Component {
                dc: tables.dc(dc, false)?,
                ac: tables.ac(ac, false)?,
                tables: (dc, ac),
                across: described.across as usize,
                down: described.down as usize,
                grid: units.grid(header, described),
            });
        }
        Ok(Self { components, units, restart: tables.restart })
    }

    fn read(&self, coded: &[u8], to: &mut impl Symbols) -> Result<(), Rejected> {
        let mut bits = Bits::of(coded);
        let (mut read, mut written) = ([0; 4], [0; 4]);
        let mut left = self.restart;
        for row in 0..self.units.rows {
            for column in 0..self.units.columns {
                if self.restart > 0 {
                    if left == 0 {
                        bits.restart()?;
                        to.restart();
                        left = self.restart;
                        (read, written) = ([0; 4], [0; 4]);
                    }
                    left -= 1;
                }
                for ((component, read), written) in self.components.iter().zip(&mut read).zip(&mut written) {
                    component.unit(&mut bits, (column, row), (read, written), to)?;
                }
            }
            if bits.overrun() {
                return Err(Rejected::Truncated);
            }
        }
        if bits.ended() { Ok(()) } else { Err(damaged()) }
    }
}

impl Component {
    /// Reads the component's blocks of one unit.
    ///
    /// `read` and `written` are the DC coefficients of the previous block: in the input, and in the output.
    #[inline]
    fn unit(
        &self,
        bits: &mut Bits<'_>,
        (column, row): (usize, usize),
        (read, written): (&mut i32, &mut i32),
        to: &mut impl Symbols,
    ) -> Result<(), Rejected> {
        for y in 0..self.down {
            for x in 0..self.across {
                let (column, row) = (self.across * column + x, self.down * row + y);
                if column < self.grid.columns && row < self.grid.rows {
                    self.block(bits, read, written, to)?;
                } else {
                    // No pixel of the block is shown. It is replaced by the block with the shortest code, as libjpeg does.
                    self.block(bits, read, &mut 0, &mut Discard)?;
                    to.dc(self.tables.0, 0, 0);
                    to.ac(self.tables.1, 0, 0);
                }
            }
        }
        Ok(())
    }

    /// Reads one block (T.81, F.2.2) and passes its symbols to `to`.
    #[inline]
    fn block(
        &self,
        bits: &mut Bits<'_>,
        read: &mut i32,
        written: &mut i32,
        to: &mut impl Symbols,
    ) -> Result<(), Rejected> {
        bits.refill();
        let (_, difference) = self.dc.value(bits, false)?;
        *read = read.wrapping_add(difference);
        let difference = read.wrapping_sub(*written);
        *written = *read;
        let (size, value) = difference_bits(difference)?;
        to.dc(self.tables.0, size, value);
        let mut k = 1;
        while k < 64 {
            bits.refill();
            let symbol = self.ac.symbol(bits)?;
            let (run, size) = (symbol >> 4, u32::from(symbol & 15));
            to.ac(self.tables.1, symbol, bits.take(size).cast_unsigned());
            match (run, size) {
                (0, 0) => return Ok(()),
                (15, _) | (_, 1..) => k += usize::from(run) + 1,
                _ => return Err(damaged()),
            }
        }
        if k == 64 { Ok(()) } else { Err(damaged()) }
    }
}

/// Number of bits, and the bits, that encode a difference of DC coefficients (T.81, F.1.2.1).
#[inline]
fn difference_bits(difference: i32) -> Result<(u8, u32), Rejected> {
    let size = u32::BITS - difference.unsigned_abs().leading_zeros();
    // 8-bit samples have sizes up to 11.
    let size = u8::try_from(size).ok().filter(|size| *size <= 11).ok_or_else(damaged)?;
    let value = if difference < 0 { difference - 1 } else { difference };
    Ok((size, value.cast_unsigned() & ((1 << size) - 1)))
}

/// Discards symbols.
struct Discard;

impl Symbols for Discard {
    fn dc(&mut self, _: usize, _: u8, _: u32) {}
    fn ac(&mut self, _: usize, _: u8, _: u32) {}
    fn restart(&mut self) {}
}

fn damaged() -> Rejected {
    Rejected::Corrupt("its coded data are damaged".into())
}

#[cfg(test)]
mod tests;
