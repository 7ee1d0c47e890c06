//! Cursors: positions of clients in a couple's log.

use std::{fmt, str::FromStr};

use couple_core::{CoupleId, pairing::Couple};

/// Position in a log: couple and epoch, `seq` of the last entry, and read positions. Opaque to clients.
///
/// As text it is `COUPLE.EPOCH.SEQ.READ.READ`, where COUPLE is a part of the id that distinguishes the couples of one account. A plain
/// number is accepted, too: a `seq` in the account's current couple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    couple: Option<(u32, i64)>,
    /// `seq` of the last entry that the client has seen.
    pub seq: i64,
    pub(super) read: Option<[i64; 2]>,
}

impl Cursor {
    /// Position of an entry in the log of the account's current couple.
    #[must_use]
    pub const fn at(seq: i64) -> Self {
        Self { couple: None, seq, read: None }
    }
    /// Position in this couple's log.
    #[must_use]
    pub fn of(couple: &Couple, seq: i64, read: [i64; 2]) -> Self {
        Self { couple: Some((tag(couple.id), couple.epoch)), seq, read: Some(read) }
    }
    /// Whether the cursor can belong to this couple: same couple and epoch, and not beyond its log.
    #[must_use]
    pub fn fits(&self, couple: &Couple) -> bool {
        self.seq <= couple.head_seq && self.couple.is_none_or(|at| at == (tag(couple.id), couple.epoch))
    }
}

/// The last 32 bits of a `UUIDv7` are random.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits are needed")]
const fn tag(couple: CoupleId) -> u32 {
    couple.as_uuid().as_u128() as u32
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.couple, self.read) {
            (Some((tag, epoch)), Some([first, second])) => {
                write!(f, "{tag:08x}.{epoch}.{}.{first}.{second}", self.seq)
            }
            _ => write!(f, "{}", self.seq),
        }
    }
}

/// The text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;
    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let number = |part: &str| {
            part.parse::<i64>().ok().filter(|n| *n >= 0 && !part.starts_with('+')).ok_or(InvalidCursor)
        };
        let parts: Vec<&str> = text.split('.').take(6).collect();
        match parts.as_slice() {
            [seq] => Ok(Self::at(number(seq)?)),
            [tag, epoch, seq, first, second] if tag.len() == 8 => Ok(Self {
                couple: Some((u32::from_str_radix(tag, 16).map_err(|_| InvalidCursor)?, number(epoch)?)),
                seq: number(seq)?,
                read: Some([number(first)?, number(second)?]),
            }),
            _ => Err(InvalidCursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_survives_conversion_to_text() {
        let cursor = Cursor { couple: Some((0xab, 1)), seq: 42, read: Some([3, 4]) };
        assert_eq!(cursor.to_string(), "000000ab.1.42.3.4");
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert_eq!("7".parse(), Ok(Cursor::at(7)));
        for bad in
            ["", "-1", "+1", "a", "1.2", "000000ab.1.42.3", "000000ab.1.42.3.4.5", "zzzzzzzz.1.1.1.1", "1e3"]
        {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }

    fn couple(id: u64, epoch: i64, head_seq: i64) -> Couple {
        let uuid = |n: u64| format!("00000000-0000-7000-8000-{n:012x}");
        Couple {
            id: uuid(id).parse().unwrap(),
            members: [uuid(1).parse().unwrap(), uuid(2).parse().unwrap()],
            since: couple_core::Timestamp::default(),
            epoch,
            ended_at: None,
            title: None,
            anniversary: None,
            previous: None,
            restore: [false, false],
            head_seq,
            read: [0, 0],
        }
    }

    #[test]
    fn cursor_fits_only_its_couple_and_epoch_up_to_the_end_of_the_log() {
        let here = couple(0xABCD_0000_0007, 3, 42);
        let cursor = Cursor::of(&here, 42, [1, 2]);
        assert_eq!(cursor.to_string(), "00000007.3.42.1.2");
        assert!(cursor.fits(&here));
        assert!(!cursor.fits(&couple(0xABCD_0000_0007, 3, 41)), "beyond the log");
        assert!(!cursor.fits(&couple(0xABCD_0000_0007, 4, 42)), "another epoch");
        assert!(!cursor.fits(&couple(0xABCD_0000_0008, 3, 42)), "another couple");
        assert!(Cursor::at(42).fits(&here) && !Cursor::at(43).fits(&here));
        for bad in ["0000007.3.42.1.2", "000000007.3.42.1.2"] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "the tag has eight digits");
        }
    }
}
