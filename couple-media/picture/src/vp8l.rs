//! Counts the prefix codes of a lossless WebP (RFC 9649, section 3) before tables are built for them.
//!
//! `image-webp` builds five tables for every group of prefix codes up to the highest that the entropy image names, used or not: 65,536
//! groups, and 1.3 GB, for a file that declares a few pixels. This module reads up to the entropy image, as `image-webp` does, and
//! keeps only that.

use super::{Limits, Rejected};

/// Maximum memory of a group of five prefix codes, in bytes: tables of 4 KiB.
const GROUP: u64 = 5 * 4096;

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

/// Rejects a WebP whose prefix codes would take more than half of the memory.
///
/// Encoders write about 2,600 groups at most.
///
/// It reads the streams that `image-webp` would decode, wherever it would find them: even beyond the end of the enclosing chunk, and
/// after a frame of odd size without its padding byte. [`inspect`](super::inspect()) has limited the file's size, and so the time that
/// this takes.
///
/// Returns the memory for the prefix codes, in bytes.
pub(super) fn check(file: &[u8], limits: &Limits) -> Result<usize, Rejected> {
    let mut most = 0;
    // None: the file ends there, or the decoder would stop.
    let _ = streams(file, limits, &mut |stream, size, headed| {
        most = most.max(groups(stream, size, headed).unwrap_or(0));
    });
    let bytes = usize::try_from(u64::from(most) * GROUP).unwrap_or(usize::MAX);
    if bytes > limits.memory / 2 {
        return Err(Rejected::TooComplex("the file has too many prefix codes".into()));
    }
    Ok(bytes)
}

type Size = (u32, u32);

/// Calls `show` with every stream, its size, and whether it has a header.
fn streams(file: &[u8], limits: &Limits, show: &mut impl FnMut(&[u8], Size, bool)) -> Option<()> {
    let first = Chunk::at(file, 12)?;
    match first.kind {
        b"VP8L" => show(first.payload, size_in_header(first.payload)?, true),
        b"VP8X" => extended(file, &first, limits, show)?,
        _ => {}
    }
    Some(())
}

/// Streams of the extended format, then the frames.
///
/// The streams are the first chunk of each type, and those of the first frame, which the decoder uses if there are no others, with the
/// canvas' size.
fn extended(
    file: &[u8],
    header: &Chunk<'_>,
    limits: &Limits,
    show: &mut impl FnMut(&[u8], Size, bool),
) -> Option<()> {
    // The decoder does not check the length of this chunk.
    let fields = file.get(header.start..)?;
    let canvas = (u24(fields, 4)?.saturating_add(1), u24(fields, 7)?.saturating_add(1));
    let (mut still, mut alpha, mut frame) = (None, None, None);
    let mut at = header.next();
    while let Some(chunk) = Chunk::at(file, at) {
        at = chunk.next();
        match chunk.kind {
            b"VP8L" => still = still.or(Some(chunk)),
            b"ALPH" => alpha = alpha.or(Some(chunk)),
            b"ANMF" => frame = frame.or(Some(chunk)),
            _ => {}
        }
    }
    let mut at = frame.map_or(file.len(), |frame| frame.start.saturating_add(16));
    for chunk in [still, alpha].into_iter().flatten() {
        chunk.show(canvas, show);
    }
    for _ in 0..2 {
        let Some(chunk) = Chunk::at(file, at) else { break };
        at = chunk.next();
        chunk.show(canvas, show);
    }
    frames(file, frame?, canvas, limits, show)
}

/// The first stream of every frame, up to the limit of pixels: further frames are not decoded.
fn frames<'a>(
    file: &'a [u8],
    mut frame: Chunk<'a>,
    canvas: Size,
    limits: &Limits,
    show: &mut impl FnMut(&[u8], Size, bool),
) -> Option<()> {
    let mut left = u64::from(limits.animation_megapixels) * 1_000_000;
    while frame.kind == b"ANMF" {
        let fields = file.get(frame.start..)?;
        let size = (u24(fields, 6)?.saturating_add(1), u24(fields, 9)?.saturating_add(1));
        left = left.checked_sub(u64::from(size.0) * u64::from(size.1))?;
        if size.0 > canvas.0 || size.1 > canvas.1 {
            return None;
        }
        let chunk = Chunk::at(file, frame.start.checked_add(16)?)?;
        // So that no byte belongs to two frames.
        if chunk.length.checked_add(chunk.length % 2)?.checked_add(24)? > frame.length {
            return None;
        }
        chunk.show(size, show);
        frame = Chunk::at(file, frame.start.checked_add(frame.length)?)?;
    }
    Some(())
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: &'a [u8; 4],
    /// Position of the payload in the file.
    start: usize,
    /// Declared length of the payload.
    length: usize,
    /// Available part of the payload.
    payload: &'a [u8],
}

impl<'a> Chunk<'a> {
    fn at(file: &'a [u8], at: usize) -> Option<Self> {
        let (kind, rest) = file.get(at..)?.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let payload = rest.get(..length).unwrap_or(rest);
        Some(Self { kind, start: at + 8, length, payload })
    }

    /// Position of the next chunk.
    fn next(&self) -> usize {
        self.start.saturating_add(self.length).saturating_add(self.length % 2)
    }

    /// Calls `show` with the chunk's stream, if it has one.
    ///
    /// The first byte of `ALPH` is its compression (section 2.7.1.2).
    fn show(&self, size: Size, show: &mut impl FnMut(&[u8], Size, bool)) {
        match (self.kind, self.payload) {
            (b"VP8L", stream) => show(stream, size, true),
            (b"ALPH", [how, stream @ ..]) if how & 3 == 1 => show(stream, size, false),
            _ => {}
        }
    }
}

fn u24(bytes: &[u8], at: usize) -> Option<u32> {
    let &[low, middle, high] = bytes.get(at..)?.first_chunk::<3>()?;
    Some(u32::from_le_bytes([low, middle, high, 0]))
}

/// Size in the header of a stream.
fn size_in_header(stream: &[u8]) -> Option<Size> {
    Reader::of(stream).header()
}

/// Number of groups of prefix codes that the decoder would create for a stream of this size.
///
/// With a header (`headed`), its size must be the same. None: the stream is invalid, and the decoder will report it.
fn groups(stream: &[u8], size: Size, headed: bool) -> Option<u32> {
    let mut reader = Reader::of(stream);
    // The decoder might continue to read, with unpredictable results.
    reader.groups(size, headed).map(|(groups, _)| groups).or(reader.wrapped.then_some(u32::MAX))
}

/// Reads bits, the least significant first.
struct Reader<'a> {
    data: &'a [u8],
    /// Position in bits.
    at: usize,
    /// Whether a code was read that is invalid, but that the decoder accepts.
    wrapped: bool,
}

impl<'a> Reader<'a> {
    fn of(data: &'a [u8]) -> Self {
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
        for place in 0..count {
            value |= u32::from(self.bit()?) << place;
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
    fn groups(&mut self, size: Size, headed: bool) -> Option<(u32, usize)> {
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
    fn group(&mut self, cached: usize) -> Option<[Code; 5]> {
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
        for &place in ORDER.iter().take(count) {
            lengths[place] = self.length()?;
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
struct Code {
    /// Number of codes by length. All zero: there is one symbol, which takes no bits.
    counts: [u16; 16],
    /// Symbols in the order of their codes.
    symbols: Vec<u16>,
}

impl Code {
    /// Builds a code from the lengths of its symbols.
    ///
    /// Sets `wrapped` if there are too many symbols, but the decoder's 16-bit sum overflows to the right value.
    fn of(lengths: &[u8], wrapped: &mut bool) -> Option<Self> {
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
        let (mut code, mut first, mut place) = (0, 0, 0);
        for &count in &self.counts[1..] {
            let count = usize::from(count);
            code |= usize::from(reader.bit()?);
            if code < first + count {
                return self.symbols.get(place + code - first).copied();
            }
            place += count;
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
        let place = 0x1E35_A7BD_u32.wrapping_mul(pixel) >> (32 - cache.len().ilog2());
        cache[place as usize] = pixel;
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
    for place in at..at + length {
        let pixel = pixels[place - distance];
        pixels[place] = pixel;
        // The decoder does not cache a pixel that equals the previous one.
        if distance > 1 {
            remember(cache, pixel);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Picture = (u32, u32, Vec<u8>);

    fn picture(width: u32, height: u32, mut colour: impl FnMut(u32, u32, u32) -> [u32; 3]) -> Picture {
        let mut seed = 1_u32;
        let mut pixels = Vec::new();
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            pixels.extend(colour(x, y, seed >> 16).map(|value| u8::try_from(value & 255).unwrap()));
        }
        (width, height, pixels)
    }

    fn photo(width: u32, height: u32) -> Picture {
        picture(width, height, |x, y, noise| [x / 2 + noise % 9, y / 2 + noise % 5, (x + y) / 4 + noise % 17])
    }

    fn palette(width: u32, height: u32, colours: u32) -> Picture {
        picture(width, height, |x, y, noise| {
            let colour = (x / 7 + y / 5 + noise % 2) % colours;
            [colour * 37, colour * 91, colour * 53]
        })
    }

    fn regions() -> Picture {
        picture(1200, 900, |x, y, noise| match (x / 150 + y / 100 * 3) % 5 {
            0 => [noise, noise >> 3, noise >> 5],
            1 => [x, y, x ^ y],
            2 => [17, 200, 3],
            3 => [noise % 4 * 60, x / 8, 9],
            _ => [x * y / 64, noise % 7, y * 3],
        })
    }

    fn pictures() -> Vec<Picture> {
        let mut pictures = vec![photo(300, 200), picture(100, 70, |_, _, _| [9, 80, 7])];
        pictures.extend([2, 4, 16, 200].map(|colours| palette(123, 77, colours)));
        pictures.extend([(17, 9), (1, 1), (1, 40), (61, 1)].map(|(width, height)| photo(width, height)));
        pictures.extend([palette(17, 9, 3), photo(701, 555), regions()]);
        pictures
    }

    fn encoded((width, height, pixels): &Picture) -> Vec<u8> {
        webp::Encoder::from_rgb(pixels, *width, *height).encode_lossless().to_vec()
    }

    fn stream(file: &[u8]) -> &[u8] {
        let mut rest = 12;
        loop {
            let chunk = Chunk::at(file, rest).unwrap();
            if chunk.kind == b"VP8L" {
                return chunk.payload;
            }
            rest = chunk.next();
        }
    }

    /// Reads further: the codes of every group must exist.
    fn exact(stream: &[u8], size: Size) -> Option<u32> {
        let mut reader = Reader::of(stream);
        let (groups, cached) = reader.groups(size, true)?;
        for _ in 0..groups {
            reader.group(cached)?;
        }
        Some(groups)
    }

    #[test]
    fn groups_of_encoded_pictures_are_counted_and_accepted() {
        let mut most = 0;
        for picture in pictures() {
            let file = encoded(&picture);
            let (size, stream) = ((picture.0, picture.1), stream(&file));
            let counted = groups(stream, size, true).unwrap();
            assert!((1..=2_600).contains(&counted), "{counted}");
            assert_eq!(exact(stream, size), Some(counted), "{size:?}");
            assert!(check(&file, &Limits::default()).is_ok());
            most = most.max(counted);
        }
        assert!(most > 1);
    }

    #[derive(Default)]
    struct Writer(Vec<u8>, u32);

    impl Writer {
        fn bits(mut self, value: u32, count: u32) -> Self {
            for place in 0..count {
                if self.1.is_multiple_of(8) {
                    self.0.push(0);
                }
                *self.0.last_mut().unwrap() |= u8::try_from(value >> place & 1).unwrap() << (self.1 % 8);
                self.1 += 1;
            }
            self
        }

        /// Writes a code of one symbol.
        fn only(self, symbol: u32) -> Self {
            self.bits(0b101, 3).bits(symbol, 8)
        }

        fn header(self, width: u32, height: u32) -> Self {
            self.bits(0x2F, 8).bits(width - 1, 14).bits(height - 1, 14).bits(0, 4)
        }

        /// Writes no transforms, no cache, and an entropy image with blocks of four pixels, all of one group.
        fn group(self, index: u32) -> Self {
            self.bits(0, 2)
                .bits(1, 1)
                .bits(0, 3)
                .bits(0, 1)
                .only(index & 255)
                .only(index >> 8)
                .only(0)
                .only(0)
                .only(0)
        }
    }

    fn chunk(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let mut chunk = [&kind[..], &length.to_le_bytes(), payload].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    }

    fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"RIFF", &[&b"WEBP"[..], &chunks.concat()].concat())
    }

    fn vp8x() -> Vec<u8> {
        chunk(b"VP8X", &[0x12, 0, 0, 0, 63, 0, 0, 63, 0, 0])
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        chunk(b"ANMF", &[&[0, 0, 0, 0, 0, 0, 63, 0, 0, 63, 0, 0, 9, 0, 0, 0], payload].concat())
    }

    fn refused(file: &[u8]) -> bool {
        matches!(check(file, &Limits::default()), Err(Rejected::TooComplex(_)))
    }

    #[test]
    fn stream_with_all_groups_is_rejected_wherever_it_is() {
        let bomb = Writer::default().header(64, 64).group(0xFFFF).0;
        assert_eq!(groups(&bomb, (64, 64), true), Some(65_536));
        assert_eq!(groups(&Writer::default().header(64, 64).group(0x0102).0, (64, 64), true), Some(0x0103));
        let alpha = [vec![1], Writer::default().group(0xFFFF).0].concat();
        let (bomb, alpha) = (chunk(b"VP8L", &bomb), chunk(b"ALPH", &alpha));
        let small = chunk(b"VP8L", &Writer::default().header(64, 64).group(9).0);
        for hidden in [&bomb, &alpha] {
            assert!(refused(&riff(&[vp8x(), hidden.clone()])));
            assert!(refused(&riff(&[vp8x(), frame(hidden)])));
            assert!(refused(&riff(&[vp8x(), frame(&small), frame(hidden)])));
            // The next frame, without the padding byte.
            let mut odd = frame(&[&small[..], &[0]].concat());
            odd.pop();
            assert!(refused(&riff(&[vp8x(), odd, frame(hidden), frame(&small)])));
        }
        assert!(refused(&riff(std::slice::from_ref(&bomb))));
        assert!(!refused(&riff(&[vp8x(), frame(&small), frame(&small)])));
        // A chunk that declares more bytes than the file has.
        let mut longer = riff(&[bomb]);
        longer[16..20].fill(0xFF);
        assert!(refused(&longer));
    }

    #[test]
    fn code_whose_sum_overflows_to_a_complete_one_is_rejected() {
        let mut wrapped = false;
        assert!(Code::of(&[1, 1, 1, 1, 2], &mut wrapped).is_none());
        assert!(!wrapped);
        let mut lengths = vec![1; 3];
        lengths.extend([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15]);
        assert!(Code::of(&lengths, &mut wrapped).is_none());
        assert!(wrapped);
    }

    #[test]
    fn damaged_file_does_not_panic() {
        let file = encoded(&palette(123, 77, 200));
        let bomb = riff(&[vp8x(), frame(&chunk(b"VP8L", &Writer::default().header(64, 64).group(9).0))]);
        for file in [file, encoded(&photo(90, 60)), bomb] {
            for end in 0..file.len() {
                let _ = check(&file[..end], &Limits::default());
            }
            let mut seed = 7_usize;
            for _ in 0..2_000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut damaged = file.clone();
                let bit = (seed >> 33) % (8 * file.len());
                damaged[bit / 8] ^= 1 << (bit % 8);
                let _ = check(&damaged, &Limits::default());
            }
        }
    }
}
