//! Compares the counted groups with those of files that libwebp writes, and builds streams that name too many.

use super::{
    prefix_codes::{Code, Reader, Size},
    streams::Chunk,
    *,
};

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
        for bit in 0..count {
            if self.1.is_multiple_of(8) {
                self.0.push(0);
            }
            *self.0.last_mut().unwrap() |= u8::try_from(value >> bit & 1).unwrap() << (self.1 % 8);
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
