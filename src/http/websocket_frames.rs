//! Counts WebSocket frames in a stream of bytes (RFC 6455, 5.2).

/// Counts the frames in one direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct FrameCounter {
    head: [u8; 14],
    in_head: usize,
    left: u64,
}

impl FrameCounter {
    /// Number of frames whose head ends in `bytes`.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.in_head] = bytes[0];
            self.in_head += 1;
            bytes = &bytes[1..];
            if let Some(length) = payload_length(&self.head[..self.in_head]) {
                (self.left, self.in_head) = (length, 0);
                count += 1;
            }
        }
        count
    }

    /// Whether the last frame is complete.
    pub(super) const fn is_between(&self) -> bool {
        self.in_head == 0 && self.left == 0
    }
}

/// Length of a frame's payload by its head; none if the head is not complete.
fn payload_length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let length = head.get(2..2 + extended)?;
    if head.len() < 2 + extended + mask {
        return None;
    }
    Some(match extended {
        0 => u64::from(second & 0x7F),
        _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_arrive() {
        let mut bytes = vec![0x81, 0x81, 1, 2, 3, 4, b'2'];
        bytes.extend([0x82, 0xFE, 1, 0, 1, 2, 3, 4]);
        bytes.extend([0; 256]);
        bytes.extend([0x89, 0]);
        bytes.extend([0x81, 0x7F, 0, 0, 0, 0, 0, 0, 0, 3]);
        bytes.extend(b"abc");
        for size in [1, 2, 3, 7, 100, 1_000] {
            let mut frames = FrameCounter::default();
            assert_eq!(bytes.chunks(size).map(|part| frames.count(part)).sum::<u32>(), 4, "{size}");
            assert!(frames.is_between());
            frames.count(&bytes[..8]);
            assert!(!frames.is_between());
        }
    }
}
