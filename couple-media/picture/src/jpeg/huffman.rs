//! Huffman tables (T.81, annexes C and F).
#![expect(clippy::cast_possible_truncation, reason = "codes and runs are below 2^16")]

use super::bits::{Bits, extend};
use crate::Rejected;

/// Number of bits that are looked up together.
///
/// 2,048 entries of four bytes: the two tables of a scan fit in the first-level cache.
const LOOKED_UP: u32 = 11;

/// Run length that ends a block.
const END: u32 = 64;
/// Flag of an entry: the bits of the value do not fit in the looked-up bits.
const APART: u32 = 0x40;

pub(super) struct Table {
    /// Lookup table of codes together with their values, indexed by the next bits.
    ///
    /// Zero if the code is longer than the looked-up bits.
    ///
    /// From the least significant bit: six bits of length, [`APART`], eight bits of run from bit 8, and from bit 16 the value. With
    /// `APART` the length is that of the code alone, and the value's size replaces the value.
    values: Vec<u32>,
    /// Lookup table of codes, indexed by the next bits: symbol × 256 + length of the code.
    ///
    /// Zero if the code is longer than the looked-up bits.
    codes: Vec<u16>,
    /// Indexed by code length: one more than the largest code, aligned to 16 bits from the left.
    limits: [u32; 18],
    /// Indexed by code length: the offset from a code to the index of its symbol.
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
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = counts[length as usize - 1];
            table.offsets[length as usize] =
                i32::try_from(index).map_err(|_| damaged())? - code.cast_signed();
            for _ in 0..count {
                let symbol = *symbols.get(index).ok_or_else(damaged)?;
                if code >> length != 0 {
                    return Err(damaged());
                }
                table.enter(code, length, symbol, ac);
                (code, index) = (code + 1, index + 1);
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
            *entry = table_entry(symbol, length, more, free, ac);
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
        let index = (next >> (16 - length)).cast_signed() + self.offsets[length as usize];
        self.symbols
            .get(usize::try_from(index).unwrap_or(usize::MAX))
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

fn table_entry(symbol: u8, length: u32, more: u32, free: u32, ac: bool) -> u32 {
    let (run, size) = parts(symbol, ac);
    if size > free {
        return size << 16 | run << 8 | APART | length;
    }
    let value = extend((more >> (free - size)).cast_signed(), size);
    value.cast_unsigned() << 16 | run << 8 | (length + size)
}

/// Maximum length of a Huffman code in JPEG, in bits.
const MAX_CODE_BITS: usize = 16;

/// Huffman codes for encoding.
pub(super) struct Codes {
    /// Table as in a DHT segment: the number of codes of each length, then their symbols.
    ///
    /// Empty if no symbol has a code.
    definition: Vec<u8>,
    /// Code and its length in bits, by symbol.
    codes: [(u16, u8); 256],
}

impl Codes {
    /// Optimal codes for symbols with these counts; no code consists of ones only (T.81, annex K.2).
    pub(super) fn optimal(counts: &[u32; 256]) -> Self {
        let mut codes = Self { definition: Vec::new(), codes: [(0, 0); 256] };
        let mut symbols: Vec<(u64, u8)> =
            (0..=u8::MAX).map(|symbol| (counts[usize::from(symbol)].into(), symbol)).collect();
        symbols.retain(|&(count, _)| count > 0);
        if symbols.is_empty() {
            return codes;
        }
        symbols.sort_by_key(|&(count, symbol)| (std::cmp::Reverse(count), symbol));
        let lengths = lengths(&symbols.iter().map(|&(count, _)| count).collect::<Vec<_>>());
        let mut numbers = [0; MAX_CODE_BITS];
        let (mut code, mut before) = (0_u32, 0);
        for (&(_, symbol), &length) in symbols.iter().zip(&lengths) {
            code <<= length - before;
            before = length;
            codes.codes[usize::from(symbol)] = (code as u16, length as u8);
            numbers[length - 1] += 1_u8;
            code += 1;
        }
        codes.definition = numbers.into_iter().chain(symbols.iter().map(|&(_, symbol)| symbol)).collect();
        codes
    }

    pub(super) fn definition(&self) -> &[u8] {
        &self.definition
    }

    /// Code of a symbol and its length in bits. The symbol must have had a count above zero.
    #[inline(always)]
    pub(super) fn code(&self, symbol: u8) -> (u32, u32) {
        let (code, length) = self.codes[usize::from(symbol)];
        (code.into(), length.into())
    }
}

/// Lengths of the optimal codes of at most 16 bits for symbols with these counts.
///
/// The counts must be in descending order. One code is reserved, so that no symbol gets the code of ones only. Computed by package-merge
/// (Larmore and Hirschberg, 1990): at each level the entries of the previous level are paired, and merged with the symbols. The length of a
/// symbol's code is the number of times that the symbol occurs among the cheapest 2n - 2 entries of the last level.
fn lengths(counts: &[u64]) -> Vec<usize> {
    // A reserved symbol with the count 0 gets the last code, which consists of ones only.
    let rarest_first: Vec<u64> = std::iter::once(0).chain(counts.iter().rev().copied()).collect();
    let symbols = rarest_first.len();
    // Whether each entry of each level is a symbol, not a pair. Each level has its symbols in the order of `rarest_first`.
    let mut levels = vec![vec![true; symbols]];
    let mut list = rarest_first.clone();
    for _ in 1..MAX_CODE_BITS {
        let mut pairs = list.as_chunks::<2>().0.iter().map(|[a, b]| a + b).peekable();
        let mut single = rarest_first.iter().copied().peekable();
        let (mut merged, mut level) = (Vec::with_capacity(2 * symbols), Vec::with_capacity(2 * symbols));
        loop {
            let symbol = match (single.peek(), pairs.peek()) {
                (Some(symbol), Some(pair)) => symbol <= pair,
                (symbol, pair) if symbol.is_none() && pair.is_none() => break,
                (symbol, _) => symbol.is_some(),
            };
            merged.extend(if symbol { single.next() } else { pairs.next() });
            level.push(symbol);
        }
        list = merged;
        levels.push(level);
    }
    let mut lengths = vec![0; symbols];
    let mut taken = 2 * symbols - 2;
    for level in levels.iter().rev() {
        let of_symbols = level[..taken].iter().filter(|&&symbol| symbol).count();
        lengths[..of_symbols].iter_mut().for_each(|length| *length += 1);
        taken = 2 * (taken - of_symbols);
    }
    lengths[1..].iter().rev().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: impl IntoIterator<Item = u32>) -> [u32; 256] {
        let mut counts = [0; 256];
        counts.iter_mut().zip(of).for_each(|(count, value)| *count = value);
        counts
    }

    /// Number of bits of all symbols, and the sum of 2^(16 - length) over all codes.
    fn cost(counts: &[u32; 256]) -> (u64, u32) {
        let codes = Codes::optimal(counts);
        let (mut bits, mut space, mut seen) = (0, 0, 0);
        for (symbol, &count) in (0..=u8::MAX).zip(counts).filter(|(_, count)| **count > 0) {
            let (code, length) = codes.code(symbol);
            assert!((1..=16).contains(&length) && code + 1 < 1 << length, "all ones are reserved");
            bits += u64::from(count) * u64::from(length);
            space += 1 << (16 - length);
            seen += 1;
        }
        assert_eq!(codes.definition().len(), 16 + seen);
        // The decoder reads the symbols back with the written table.
        let table = Table::new(codes.definition(), true).unwrap();
        for symbol in (0..=u8::MAX).filter(|&symbol| counts[usize::from(symbol)] > 0) {
            let (code, length) = codes.code(symbol);
            let bytes = (code << (32 - length)).to_be_bytes();
            let stuffed: Vec<u8> = bytes
                .iter()
                .flat_map(|&byte| [byte, 0].into_iter().take(1 + usize::from(byte == 0xFF)))
                .collect();
            let mut bits = Bits::of(&stuffed);
            bits.refill();
            assert_eq!(table.symbol(&mut bits).unwrap(), symbol);
        }
        (bits, space)
    }

    #[test]
    fn one_symbol_takes_one_bit() {
        assert_eq!(cost(&counts([0, 0, 7])), (7, 1 << 15));
        assert!(Codes::optimal(&[0; 256]).definition().is_empty());
    }

    /// Number of bits of all symbols if code lengths were unlimited.
    ///
    /// This is the sum of the inner nodes of a Huffman tree that includes the reserved code.
    fn min_total_bits(counts: &[u32; 256]) -> u64 {
        let mut nodes: Vec<u64> =
            counts.iter().filter(|count| **count > 0).map(|&count| count.into()).collect();
        nodes.push(0);
        let mut sum = 0;
        while nodes.len() > 1 {
            nodes.sort_by_key(|&node| std::cmp::Reverse(node));
            let node = nodes.pop().unwrap() + nodes.pop().unwrap();
            nodes.push(node);
            sum += node;
        }
        sum
    }

    #[test]
    fn codes_are_as_short_as_their_counts_allow() {
        for counts in [
            counts([8, 4, 2]),
            counts([1, 1, 2, 2]),
            counts([1; 256]),
            counts((0..162).map(|k| 1 + k * k % 97)),
            counts((0..200).map(|k| 20_000 / (k + 1))),
        ] {
            assert_eq!(cost(&counts).0, min_total_bits(&counts));
        }
    }

    /// With counts of a Fibonacci series and no limit, the rarest symbols would have codes of more than 30 bits.
    #[test]
    fn codes_have_at_most_sixteen_bits() {
        let mut pair = (1_u32, 1_u32);
        let series = std::iter::from_fn(|| {
            pair = (pair.1, pair.0.checked_add(pair.1)?);
            Some(pair.0)
        });
        let counts = counts(series.take(40));
        let (bits, space) = cost(&counts);
        // The codes cover all 2^16 combinations of bits except the reserved one.
        assert_eq!(space, (1 << 16) - 1);
        let min_total_bits = min_total_bits(&counts);
        assert!(
            bits > min_total_bits && bits * 1000 < min_total_bits * 1001,
            "{bits}, without a limit {min_total_bits}"
        );
    }
}
