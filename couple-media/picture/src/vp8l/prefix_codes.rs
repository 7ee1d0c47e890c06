//! Reads a lossless stream up to its entropy image, and counts the groups of prefix codes.

/// Order in which the lengths of the code for code lengths are written.
const ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Number of symbols of the five codes of a group, without the colour cache.
///
/// The codes are green and lengths, red, blue, alpha, distances.
const ALPHABETS: [usize; 5] = [280, 256, 256, 256, 40];

/// Maximum number of symbols: green and lengths, and a colour cache of 11 bits.
const SYMBOLS: usize = 280 + (1 << 11);

/// Offsets of the shortest distances, across and up (section 3.5.2.2).
#[rustfmt::skip]
const NEAR: [(i64, i64); 120] = [
    (0, 1),  (1, 0),  (1, 1),  (-1, 1), (0, 2),  (2, 0),  (1, 2),  (-1, 2),
    (2, 1),  (-2, 1), (2, 2),  (-2, 2), (0, 3),  (3, 0),  (1, 3),  (-1, 3),
    (3, 1),  (-3, 1), (2, 3),  (-2, 3), (3, 2),  (-3, 2), (0, 4),  (4, 0),
    (1, 4),  (-1, 4), (4, 1),  (-4, 1), (3, 3),  (-3, 3), (2, 4),  (-2, 4),
    (4, 2),  (-4, 2), (0, 5),  (3, 4),  (-3, 4), (4, 3),  (-4, 3), (5, 0),
    (1, 5),  (-1, 5), (5, 1),  (-5, 1), (2, 5),  (-2, 5), (5, 2),  (-5, 2),
    (4, 4),  (-4, 4), (3, 5),  (-3, 5), (5, 3),  (-5, 3), (0, 6),  (6, 0),
    (1, 6),  (-1, 6), (6, 1),  (-6, 1), (2, 6),  (-2, 6), (6, 2),  (-6, 2),
    (4, 5),  (-4, 5), (5, 4),  (-5, 4), (3, 6),  (-3, 6), (6, 3),  (-6, 3),
    (0, 7),  (7, 0),  (1, 7),  (-1, 7), (5, 5),  (-5, 5), (7, 1),  (-7, 1),
    (4, 6),  (-4, 6), (6, 4),  (-6, 4), (2, 7),  (-2, 7), (7, 2),  (-7, 2),
    (3, 7),  (-3, 7), (7, 3),  (-7, 3), (5, 6),  (-5, 6), (6, 5),  (-6, 5),
    (8, 0),  (4, 7),  (-4, 7), (7, 4),  (-7, 4), (8, 1),  (8, 2),  (6, 6),
    (-6, 6), (8, 3),  (5, 7),  (-5, 7), (7, 5),  (-7, 5), (8, 4),  (6, 7),
    (-6, 7), (7, 6),  (-7, 6), (8, 5),  (7, 7),  (-7, 7), (8, 6),  (8, 7),
];

/// Width and height in pixels.
pub(super) type Size = (u32, u32);

/// Size in the header of a stream.
pub(super) fn size_in_header(stream: &[u8]) -> Option<Size> {
    Reader::of(stream).header()
}

/// Number of groups of prefix codes that the decoder would create for a stream of this size.
///
/// With a header (`headed`), its size must be the same. None: the stream is invalid, and the decoder will report it.
pub(super) fn groups(stream: &[u8], size: Size, headed: bool) -> Option<u32> {
    let mut reader = Reader::of(stream);
    // The decoder might continue to read, with unpredictable results.
    reader.groups(size, headed).map(|(groups, _)| groups).or(reader.wrapped.then_some(u32::MAX))
}

/// Reads bits, the least significant first.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    /// Position in bits.
    at: usize,
    /// Whether a code was read that is invalid, but that the decoder accepts.
    wrapped: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn of(data: &'a [u8]) -> Self {
        Self { data, at: 0, wrapped: false }
    }

    #[inline]
    fn bit(&mut self) -> Option<bool> {
        let byte = self.data.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1 != 0;
        self.at += 1;
        Some(bit)
    }

    /// Reads a number of `count` bits, at most 18.
    fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..count {
            value |= u32::from(self.bit()?) << bit;
        }
        Some(value)
    }

    /// Reads width and height (section 3.4).
    fn header(&mut self) -> Option<Size> {
        if self.bits(8)? != 0x2F {
            return None;
        }
        let size = (self.bits(14)? + 1, self.bits(14)? + 1);
        let _transparent = self.bit()?;
        (self.bits(3)? == 0).then_some(size)
    }

    /// Number of groups, and number of symbols that the colour cache adds to the first code of each.
    pub(super) fn groups(&mut self, size: Size, headed: bool) -> Option<(u32, usize)> {
        if headed && self.header()? != size {
            return None;
        }
        // The decoder keeps 16 bits as well.
        let (width, height) = (size.0 & 0xFFFF, size.1 & 0xFFFF);
        let width = self.transforms(width, height)?;
        let cached = self.cache()?;
        if !self.bit()? {
            return Some((1, cached));
        }
        let bits = self.bits(3)? + 2;
        let entropy = self.image(subsampled(width, bits), subsampled(height, bits))?;
        // The group number is in red and green.
        let highest = entropy.iter().map(|pixel| pixel >> 8 & 0xFFFF).max().unwrap_or(0);
        Some((highest + 1, cached))
    }

    /// Skips the transforms (section 3.5); returns the width of the transformed image.
    fn transforms(&mut self, mut width: u32, height: u32) -> Option<u32> {
        let mut seen = [false; 4];
        while self.bit()? {
            let kind = self.bits(2)?;
            if std::mem::replace(seen.get_mut(kind as usize)?, true) {
                return None;
            }
            match kind {
                0 | 1 => {
                    let bits = self.bits(3)? + 2;
                    self.image(subsampled(width, bits), subsampled(height, bits))?;
                }
                2 => {}
                _ => {
                    let colours = self.bits(8)? + 1;
                    self.image(colours, 1)?;
                    width = subsampled(width, packed(colours));
                }
            }
        }
        Some(width)
    }

    /// Number of colours in the cache.
    fn cache(&mut self) -> Option<usize> {
        if !self.bit()? {
            return Some(0);
        }
        let bits = self.bits(4)?;
        (1..=11).contains(&bits).then_some(1 << bits)
    }

    /// Reads an image within the image, as alpha, red, green and blue from the most significant byte.
    fn image(&mut self, width: u32, height: u32) -> Option<Vec<u32>> {
        let mut cache = vec![0; self.cache()?];
        let codes = self.group(cache.len())?;
        let count = width as usize * height as usize;
        // Codes of one symbol each take no bits, and all pixels are equal. One pixel is sufficient.
        if let [Some(green), Some(red), Some(blue), Some(alpha), _] = codes.each_ref().map(Code::only)
            && green < 256
        {
            return Some(vec![colour(alpha, red, green, blue); count.min(1)]);
        }
        let mut pixels = vec![0; count];
        let mut at = 0;
        while at < count {
            let symbol = codes[0].symbol(self)?;
            if symbol < 256 {
                let (red, blue) = (codes[1].symbol(self)?, codes[2].symbol(self)?);
                let pixel = colour(codes[3].symbol(self)?, red, symbol, blue);
                remember(&mut cache, pixel);
                pixels[at] = pixel;
                at += 1;
            } else if symbol < 280 {
                let length = self.distance(symbol - 256)?;
                let symbol = codes[4].symbol(self)?;
                let distance = distance(self.distance(symbol)?, width);
                copy(&mut pixels, at, distance, length, &mut cache)?;
                at += length;
            } else {
                // Not cached again, as in the decoder.
                pixels[at] = *cache.get(usize::from(symbol) - 280)?;
                at += 1;
            }
        }
        Some(pixels)
    }

    /// Value of a length or distance symbol and the bits after it (section 3.5.2.2).
    fn distance(&mut self, symbol: u16) -> Option<usize> {
        let symbol = u32::from(symbol);
        if symbol < 4 {
            return Some(symbol as usize + 1);
        }
        let more = (symbol - 2) >> 1;
        let offset = (2 + (symbol & 1)) << more;
        Some((offset + self.bits(more)?) as usize + 1)
    }

    /// Reads five prefix codes.
    pub(super) fn group(&mut self, cached: usize) -> Option<[Code; 5]> {
        let [green, red, blue, alpha, distance] = ALPHABETS;
        Some([
            self.code(green + cached)?,
            self.code(red)?,
            self.code(blue)?,
            self.code(alpha)?,
            self.code(distance)?,
        ])
    }

    /// Reads a prefix code (section 3.7.2.1), simple or normal.
    fn code(&mut self, symbols: usize) -> Option<Code> {
        if self.bit()? {
            return self.simple_code(symbols);
        }
        let mut lengths = [0; 19];
        let count = self.bits(4)? as usize + 4;
        for &index in ORDER.iter().take(count) {
            lengths[index] = self.length()?;
        }
        let code = Code::of(&lengths, &mut self.wrapped)?;
        let mut lengths = [0; SYMBOLS];
        let lengths = &mut lengths[..symbols];
        self.lengths(&code, lengths)?;
        Code::of(lengths, &mut self.wrapped)
    }

    fn length(&mut self) -> Option<u8> {
        u8::try_from(self.bits(3)?).ok()
    }

    fn simple_code(&mut self, symbols: usize) -> Option<Code> {
        let two = self.bit()?;
        let bits = if self.bit()? { 8 } else { 1 };
        let first = self.bits(bits)?;
        let second = if two { Some(self.bits(8)?) } else { None };
        if [Some(first), second].into_iter().flatten().any(|symbol| symbol as usize >= symbols) {
            return None;
        }
        let mut code = Code { counts: [0; 16], symbols: vec![u16::try_from(first).ok()?] };
        if let Some(second) = second {
            code.counts[1] = 2;
            code.symbols.push(u16::try_from(second).ok()?);
        }
        Some(code)
    }

    /// Reads the lengths of a normal code's symbols; absent ones are zero.
    fn lengths(&mut self, code: &Code, lengths: &mut [u8]) -> Option<()> {
        let mut written = lengths.len();
        if self.bit()? {
            let bits = 2 + 2 * self.bits(3)?;
            written = self.bits(bits)? as usize + 2;
            if written > lengths.len() {
                return None;
            }
        }
        let (mut at, mut last) = (0, 8);
        while at < lengths.len() && written > 0 {
            written -= 1;
            let symbol = code.symbol(self)?;
            let (length, repeat) = match symbol {
                16 => (last, self.bits(2)? + 3),
                17 => (0, self.bits(3)? + 3),
                18 => (0, self.bits(7)? + 11),
                _ => (u8::try_from(symbol).ok()?, 1),
            };
            if length != 0 {
                last = length;
            }
            let end = at + repeat as usize;
            lengths.get_mut(at..end)?.fill(length);
            at = end;
        }
        Some(())
    }
}

/// A canonical prefix code.
pub(super) struct Code {
    /// Number of codes by length. All zero: there is one symbol, which takes no bits.
    counts: [u16; 16],
    /// Symbols in the order of their codes.
    symbols: Vec<u16>,
}

impl Code {
    /// Builds a code from the lengths of its symbols.
    ///
    /// Sets `wrapped` if there are too many symbols, but the decoder's 16-bit sum overflows to the right value.
    pub(super) fn of(lengths: &[u8], wrapped: &mut bool) -> Option<Self> {
        let mut code = Self { counts: [0; 16], symbols: Vec::new() };
        for &length in lengths.iter().filter(|&&length| length != 0) {
            *code.counts.get_mut(usize::from(length))? += 1;
        }
        let of_length = |wanted: usize| {
            let symbols = (0_u16..).zip(lengths);
            symbols.filter(move |(_, length)| usize::from(**length) == wanted).map(|(symbol, _)| symbol)
        };
        let longest = code.counts.iter().rposition(|&count| count != 0)?;
        code.symbols = (1..=longest).flat_map(of_length).collect();
        if code.symbols.len() == 1 {
            code.counts = [0; 16];
            return Some(code);
        }
        let sum = code.counts[1..=longest].iter().fold(0_u64, |sum, &count| (sum + u64::from(count)) << 1);
        let whole = 2 << longest;
        *wrapped |= sum != whole && sum % (1 << 16) == whole % (1 << 16);
        (sum == whole).then_some(code)
    }

    /// The only symbol, if there is one.
    fn only(&self) -> Option<u16> {
        match self.symbols[..] {
            [symbol] => Some(symbol),
            _ => None,
        }
    }

    #[inline]
    fn symbol(&self, reader: &mut Reader<'_>) -> Option<u16> {
        if let Some(symbol) = self.only() {
            return Some(symbol);
        }
        // First code of this length, and index of its symbol.
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &count in &self.counts[1..] {
            let count = usize::from(count);
            code |= usize::from(reader.bit()?);
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

fn subsampled(size: u32, bits: u32) -> u32 {
    size.div_ceil(1 << bits)
}

/// Number of bits by which a palette of `colours` shifts the picture's width right (section 3.5.4).
fn packed(colours: u32) -> u32 {
    match colours {
        0..=2 => 3,
        3..=4 => 2,
        5..=16 => 1,
        _ => 0,
    }
}

fn colour(alpha: u16, red: u16, green: u16, blue: u16) -> u32 {
    u32::from(alpha) << 24 | u32::from(red) << 16 | u32::from(green) << 8 | u32::from(blue)
}

fn remember(cache: &mut [u32], pixel: u32) {
    // A cache has at least two colours.
    if cache.len() > 1 {
        let index = 0x1E35_A7BD_u32.wrapping_mul(pixel) >> (32 - cache.len().ilog2());
        cache[index as usize] = pixel;
    }
}

/// Distance in pixels of a written distance.
fn distance(written: usize, width: u32) -> usize {
    match NEAR.get(written - 1) {
        Some((across, up)) => usize::try_from(across + up * i64::from(width)).unwrap_or(1).max(1),
        None => written - NEAR.len(),
    }
}

fn copy(pixels: &mut [u32], at: usize, distance: usize, length: usize, cache: &mut [u32]) -> Option<()> {
    if distance > at || length > pixels.len() - at {
        return None;
    }
    for index in at..at + length {
        let pixel = pixels[index - distance];
        pixels[index] = pixel;
        // The decoder does not cache a pixel that equals the previous one.
        if distance > 1 {
            remember(cache, pixel);
        }
    }
    Some(())
}
