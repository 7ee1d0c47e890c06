//! Huffman tables (T.81, annexes C and F).
#![expect(clippy::cast_possible_truncation, reason = "codes and runs are below 2^16")]

use super::bits::{Bits, extend};
use crate::picture::Rejected;

/// Number of bits that are looked up together.
///
/// 2,048 entries of four bytes: the two tables of a scan fit in the first-level cache.
const LOOKED_UP: u32 = 11;

/// Run length that ends a block.
const END: u32 = 64;
/// Flag of an entry: the bits of the value do not fit in the looked-up bits.
const APART: u32 = 0x40;

pub(super) struct Table {
    /// By the next bits: code and value together. Zero if the code is longer than the looked-up bits.
    ///
    /// From the least significant bit: six bits of length, [`APART`], eight bits of run from bit 8, and from bit 16 the value. With
    /// `APART` the length is that of the code alone, and the value's size replaces the value.
    values: Vec<u32>,
    /// By the next bits: symbol × 256 + length of the code; zero as above.
    codes: Vec<u16>,
    /// By length: one more than the largest code, aligned to 16 bits from the left.
    limits: [u32; 18],
    /// By length: the offset from a code to the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// `definition` begins with the 16 counts of codes by length; as many symbols must follow.
    pub(super) fn new(definition: &[u8], ac: bool) -> Result<Self, Rejected> {
        let damaged = || Rejected::Corrupt("a Huffman table is damaged".into());
        let (counts, symbols) = definition.split_first_chunk::<16>().ok_or_else(damaged)?;
        let mut table = Self {
            values: vec![0; 1 << LOOKED_UP],
            codes: vec![0; 1 << LOOKED_UP],
            limits: [0; 18],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = counts[length as usize - 1];
            table.offsets[length as usize] =
                i32::try_from(place).map_err(|_| damaged())? - code.cast_signed();
            for _ in 0..count {
                let symbol = *symbols.get(place).ok_or_else(damaged)?;
                if code >> length != 0 {
                    return Err(damaged());
                }
                table.enter(code, length, symbol, ac);
                (code, place) = (code + 1, place + 1);
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        table.limits[17] = u32::MAX;
        Ok(table)
    }

    fn enter(&mut self, code: u32, length: u32, symbol: u8, ac: bool) {
        if length > LOOKED_UP {
            return;
        }
        let free = LOOKED_UP - length;
        let first = (code << free) as usize;
        for (more, entry) in (0_u32..).zip(&mut self.values[first..first + (1 << free)]) {
            *entry = looked_up(symbol, length, more, free, ac);
        }
        self.codes[first..first + (1 << free)].fill(u16::from(symbol) << 8 | length as u16);
    }

    /// Reads the next symbol; 16 bits must be available.
    #[inline(always)]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8, Rejected> {
        let entry = self.codes[bits.peek(LOOKED_UP)];
        if entry != 0 {
            bits.skip(u32::from(entry & 0xFF));
            return Ok((entry >> 8) as u8);
        }
        self.long_symbol(bits)
    }

    #[cold]
    fn long_symbol(&self, bits: &mut Bits<'_>) -> Result<u8, Rejected> {
        let next = bits.peek(16) as u32;
        let mut length = LOOKED_UP + 1;
        while next >= self.limits[length as usize] {
            length += 1;
        }
        if length > 16 {
            return Err(Rejected::Corrupt("an unknown Huffman code".into()));
        }
        bits.skip(length);
        let place = (next >> (16 - length)).cast_signed() + self.offsets[length as usize];
        self.symbols
            .get(usize::try_from(place).unwrap_or(usize::MAX))
            .copied()
            .ok_or_else(|| Rejected::Corrupt("an unknown Huffman code".into()))
    }

    /// Reads the next run of zeros and the value after it; a run of at least 64 ends the block.
    ///
    /// 32 bits must be available.
    #[inline(always)]
    pub(super) fn value(&self, bits: &mut Bits<'_>, ac: bool) -> Result<(usize, i32), Rejected> {
        let entry = self.values[bits.peek(LOOKED_UP)];
        if entry & APART == 0 && entry != 0 {
            bits.skip(entry & 0x3F);
            return Ok(((entry >> 8 & 0xFF) as usize, entry.cast_signed() >> 16));
        }
        if entry != 0 {
            bits.skip(entry & 0x3F);
            return Ok(((entry >> 8 & 0xFF) as usize, bits.signed(entry >> 16)));
        }
        let symbol = self.long_symbol(bits)?;
        let (run, size) = parts(symbol, ac);
        Ok((run as usize, bits.signed(size)))
    }
}

/// Run and size of a symbol.
fn parts(symbol: u8, ac: bool) -> (u32, u32) {
    match (ac, symbol) {
        (true, 0xF0) => (15, 0),
        // EOB; other runs without a value are invalid in a sequential file, and end the block as well.
        (true, symbol) if symbol & 15 == 0 => (END, 0),
        (true, symbol) => (u32::from(symbol >> 4), u32::from(symbol & 15)),
        (false, symbol) => (0, u32::from(symbol.min(16))),
    }
}

fn looked_up(symbol: u8, length: u32, more: u32, free: u32, ac: bool) -> u32 {
    let (run, size) = parts(symbol, ac);
    if size > free {
        return size << 16 | run << 8 | APART | length;
    }
    let value = extend((more >> (free - size)).cast_signed(), size);
    value.cast_unsigned() << 16 | run << 8 | (length + size)
}
