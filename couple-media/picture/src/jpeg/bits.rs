//! Bit reader and bit writer for entropy-coded data.
#![expect(clippy::cast_possible_truncation, reason = "at most 32 bits are read")]

use crate::Rejected;

/// Reads bits, the most significant first, without stuffed zeros.
///
/// It stops at a marker and returns zeros beyond it, which [`overrun`](Self::overrun) reports.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, aligned to the most significant one.
    buffer: u64,
    /// Number of bits in the buffer.
    count: u32,
    /// Number of zero bits that were added beyond the end of the data.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn of(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, made_up: 0 }
    }

    /// Makes at least 32 bits available: a code of 16 and a value of 16.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(next) = self.data.get(self.at..).and_then(|rest| rest.first_chunk()) {
            let next = u64::from_be_bytes(*next);
            // No byte is 0xFF: no marker, and no stuffed zeros.
            if (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0 {
                self.buffer |= next >> self.count;
                let bytes = (63 - self.count) / 8;
                self.at += bytes as usize;
                self.count += 8 * bytes;
                return;
            }
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xFF, 0x00, ..]) => {
                    self.at += 2;
                    0xFF
                }
                // A fill byte before a marker.
                Some([0xFF, 0xFF, ..]) => {
                    self.at += 1;
                    continue;
                }
                Some([0xFF, ..] | []) | None => {
                    self.made_up += 8;
                    0
                }
                Some([byte, ..]) => {
                    self.at += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Returns the next `count` bits (1 to 16) without consuming them.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> usize {
        (self.buffer >> (64 - count)) as usize
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count = self.count.wrapping_sub(count);
    }

    /// Reads the next `count` bits (0 to 16) as an unsigned number.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> i32 {
        // Shifted twice, because a shift by 64 overflows.
        let value = (self.buffer >> 1 >> (63 - count)) as i32;
        self.skip(count);
        value
    }

    /// Reads one bit, after a refill.
    #[inline(always)]
    pub(super) fn bit(&mut self) -> bool {
        self.refill();
        self.take(1) != 0
    }

    /// Reads the next `size` bits (0 to 16) as a difference (T.81, F.2.2.1, EXTEND).
    #[inline(always)]
    pub(super) fn signed(&mut self, size: u32) -> i32 {
        extend(self.take(size), size)
    }

    /// Whether more bits were read than exist.
    pub(super) fn overrun(&self) -> bool {
        self.made_up > self.count
    }

    /// Whether everything was read except for padding.
    pub(super) fn ended(&self) -> bool {
        !self.overrun()
            && self.count - self.made_up < 8
            && self.data[self.at..].iter().all(|&byte| byte == 0xFF)
    }

    /// Continues after the next restart marker.
    ///
    /// # Errors
    /// [`Rejected::Truncated`] if the data end here, [`Rejected::Corrupt`] if something else follows.
    pub(super) fn restart(&mut self) -> Result<(), Rejected> {
        let missing = || Rejected::Corrupt("a restart marker is missing".into());
        // Whole bytes that are unread mean that data and marker do not match.
        if self.overrun() || self.count - self.made_up >= 8 {
            return Err(if self.at >= self.data.len() { Rejected::Truncated } else { missing() });
        }
        while let Some([0xFF, 0xFF, ..]) = self.data.get(self.at..) {
            self.at += 1;
        }
        match self.data.get(self.at..) {
            Some([0xFF, 0xD0..=0xD7, ..]) => {}
            Some([] | [0xFF]) | None => return Err(Rejected::Truncated),
            Some(_) => return Err(missing()),
        }
        *self = Self { at: self.at + 2, ..Self::of(self.data) };
        Ok(())
    }
}

#[inline(always)]
pub(super) fn extend(value: i32, size: u32) -> i32 {
    // Values from 2^(size - 1) on are unchanged; lower ones stand for negative numbers.
    if size == 0 || value >> (size - 1) != 0 { value } else { value - (1 << size) + 1 }
}

/// Appends entropy-coded bits to a file, the most significant first.
///
/// A zero byte is stuffed after each 0xFF.
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that are not written yet, aligned to the least significant one.
    buffer: u64,
    /// Number of these bits, less than 32.
    count: u32,
}

impl BitWriter {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, buffer: 0, count: 0 }
    }

    /// The file, to which segments can be added before the first bit.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends the low `count` bits (0 to 32); the others are zero.
    #[inline(always)]
    pub(super) fn put(&mut self, bits: u32, count: u32) {
        self.buffer = self.buffer << count | u64::from(bits);
        self.count += count;
        if self.count >= 32 {
            self.count -= 32;
            self.write((self.buffer >> self.count) as u32);
        }
    }

    #[inline(always)]
    fn write(&mut self, four: u32) {
        let bytes = four.to_be_bytes();
        // No byte of it is 0xFF.
        if (!four).wrapping_sub(0x0101_0101) & four & 0x8080_8080 == 0 {
            self.bytes.extend_from_slice(&bytes);
        } else {
            bytes.into_iter().for_each(|byte| self.write_byte(byte));
        }
    }

    fn write_byte(&mut self, byte: u8) {
        self.bytes.push(byte);
        if byte == 0xFF {
            self.bytes.push(0);
        }
    }

    /// Fills up the last byte with ones.
    fn fill(&mut self) {
        let free = self.count.next_multiple_of(8) - self.count;
        self.buffer = self.buffer << free | ((1 << free) - 1);
        self.count += free;
        while self.count > 0 {
            self.count -= 8;
            self.write_byte((self.buffer >> self.count) as u8);
        }
    }

    /// Ends a restart interval.
    pub(super) fn marker(&mut self, marker: u8) {
        self.fill();
        self.bytes.extend([0xFF, marker]);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.fill();
        self.bytes
    }
}
