//! A JPEG file as its marker segments (ITU-T T.81, annex B).

use memchr::memchr;

use crate::Rejected;

pub(super) const SOI: u8 = 0xD8;
pub(super) const EOI: u8 = 0xD9;
pub(super) const SOS: u8 = 0xDA;
pub(super) const DQT: u8 = 0xDB;
pub(super) const DHT: u8 = 0xC4;
pub(super) const DRI: u8 = 0xDD;
const TEM: u8 = 0x01;

/// A marker segment.
pub(super) struct Segment<'a> {
    pub(super) marker: u8,
    /// Content without the length field.
    pub(super) payload: &'a [u8],
    /// Entropy-coded data of a scan, restart markers included; empty for other segments.
    pub(super) coded: &'a [u8],
}

/// Iterator over the segments between start and end of the image.
///
/// A file that ends before its first scan results in [`Rejected::Truncated`]. After a scan, an EOI marker may be missing or replaced by
/// other bytes (cameras and interrupted downloads leave such files): the iterator then ends without an [`EOI`] segment, and the
/// decoder checks whether blocks are missing.
pub(super) struct Segments<'a> {
    rest: &'a [u8],
    /// Whether a scan was returned.
    scanned: bool,
    ended: bool,
}

impl<'a> Segments<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes.strip_prefix(&[0xFF, SOI]).unwrap_or_default(), scanned: false, ended: false }
    }

    fn read(&mut self) -> Result<Segment<'a>, Rejected> {
        // Bytes between segments are skipped, as by every decoder: some cameras pad.
        let marker = loop {
            let at = memchr(0xFF, self.rest).ok_or(Rejected::Truncated)?;
            self.rest = &self.rest[at + 1..];
            match self.rest {
                [] => return Err(Rejected::Truncated),
                [0xFF, ..] => {}
                [0x00 | TEM | 0xD0..=0xD7, rest @ ..] => self.rest = rest,
                [marker, rest @ ..] => {
                    self.rest = rest;
                    break *marker;
                }
            }
        };
        match marker {
            EOI => return Ok(Segment { marker, payload: &[], coded: &[] }),
            SOI => return Err(Rejected::Corrupt("a picture begins within the picture".into())),
            _ => {}
        }
        let (length, after) = self.rest.split_first_chunk().ok_or(Rejected::Truncated)?;
        let length = usize::from(u16::from_be_bytes(*length))
            .checked_sub(2)
            .ok_or_else(|| Rejected::Corrupt("a segment without a length".into()))?;
        let (payload, after) = after.split_at_checked(length).ok_or(Rejected::Truncated)?;
        let (coded, after) =
            if marker == SOS { after.split_at(coded_length(after)) } else { (&[][..], after) };
        self.rest = after;
        Ok(Segment { marker, payload, coded })
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<Segment<'a>, Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let segment = self.read();
        self.ended = !matches!(&segment, Ok(segment) if segment.marker != EOI);
        if self.scanned && segment.is_err() {
            return None;
        }
        self.scanned |= matches!(&segment, Ok(segment) if segment.marker == SOS);
        Some(segment)
    }
}

/// Number of bytes before a marker other than a restart, or before the end of the file.
fn coded_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr(0xFF, &bytes[at..]) {
        at += found;
        match bytes.get(at + 1) {
            Some(0x00 | 0xD0..=0xD7) => at += 2,
            Some(0xFF) => at += 1,
            Some(_) => return at,
            None => break,
        }
    }
    bytes.len()
}
