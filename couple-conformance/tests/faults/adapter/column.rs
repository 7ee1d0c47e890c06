//! Faults of single columns: what a column type, a collation or a comparison does to values.
//!
//! The fault of a column is named after it: `account-created-at-in-seconds` is the kind `-in-seconds` of `account-created-at`.

use couple_core::{Digest, Timestamp, timeline::Body};

use crate::plant::planted_kind;

/// Column, or condition on a column, with its name.
#[derive(Clone, Copy)]
pub(super) struct Column<'a>(&'a str);

pub(super) const fn column(name: &str) -> Column<'_> {
    Column(name)
}

impl Column<'_> {
    fn kind(self) -> Option<&'static str> {
        planted_kind(self.0)
    }

    /// Time as the column stores it.
    pub(super) fn time(self, at: Timestamp) -> Timestamp {
        let cut = |to: i64| Timestamp::from_micros(at.micros().div_euclid(to) * to);
        match self.kind() {
            Some("-in-milliseconds") => cut(1_000),
            Some("-in-seconds") => cut(1_000_000),
            Some("-before-1970" | "-since-1970") => at.max(Timestamp::from_micros(0)),
            Some("-after-2038" | "-until-2038") => {
                at.min(Timestamp::from_micros(i64::from(i32::MAX) * 1_000_000))
            }
            _ => at,
        }
    }

    /// Number as the column stores it.
    pub(super) fn number(self, number: i64) -> i64 {
        match self.kind() {
            Some("-in-16-bits") => number.clamp(i64::from(i16::MIN), i64::from(u16::MAX)),
            Some("-in-32-bits") => number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)),
            Some("-unsigned") => number.max(0),
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "the fault")]
            Some("-as-float") => number as f64 as i64,
            Some("-as-a-float") => number / 1024 * 1024,
            _ => number,
        }
    }

    pub(super) fn pixels(self, number: u32) -> u32 {
        u32::try_from(self.number(i64::from(number))).expect("a smaller number")
    }

    /// Text as the column stores it.
    pub(super) fn text(self, text: &str) -> String {
        match self.kind() {
            Some("-trimmed") => text.trim_end().to_owned(),
            Some("-in-lower-case") => text.to_lowercase(),
            Some("-without-emoji") => text.replace(|c| c > '\u{ffff}', "?"),
            Some("-in-latin-1") => text.replace(|c| c > '\u{ff}', "?"),
            Some("-unescaped") => text.replace('\\', ""),
            Some("-parsed-as-json") => Body::from_stored(text).value().to_string(),
            Some("-lost") => String::new(),
            kind => text[..text.floor_char_boundary(kind.and_then(cut).unwrap_or(usize::MAX))].to_owned(),
        }
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Vec<u8> {
        match self.kind() {
            Some("-cut-at-nul") => bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            Some("-as-text") => String::from_utf8_lossy(bytes).into_owned().into_bytes(),
            Some("-trimmed") => bytes.trim_ascii_end().to_vec(),
            Some("-in-lower-case") => bytes.to_ascii_lowercase(),
            kind => bytes[..bytes.len().min(kind.and_then(cut).unwrap_or(usize::MAX))].to_vec(),
        }
    }

    /// Digest as the column stores it.
    pub(super) fn digest(self, digest: Digest) -> Digest {
        let bytes = self.bytes(digest.as_bytes());
        Digest::from_bytes(std::array::from_fn(|n| bytes.get(n).copied().unwrap_or(0)))
    }

    /// Key that a look-up or a unique index compares in place of this one.
    pub(super) fn key(self, key: &str) -> String {
        match self.kind() {
            Some("-case-insensitive" | "-ignores-case") => key.to_lowercase(),
            Some("-compared-without-blanks" | "-ignores-trailing-blanks") => key.trim_end().to_owned(),
            Some("-without-accents" | "-ignores-accents") => {
                key.replace(['á'], "a").replace('é', "e").replace('ú', "u").replace('\u{301}', "")
            }
            Some("-reads-a-prefix") => key.get(..32).unwrap_or(key).to_owned(),
            _ => key.to_owned(),
        }
    }

    /// Whether a look-up takes a stored key for the one that it looks for.
    pub(super) fn finds(self, stored: &str, sought: &str) -> bool {
        match self.kind() {
            Some("-found-by-pattern" | "-is-like") => is_like(stored.as_bytes(), sought.as_bytes()),
            Some("-found-by-prefix") => stored.starts_with(sought),
            _ => self.key(stored) == self.key(sought),
        }
    }

    /// Number of rows that a limit keeps: with a fault one less, one more, or all.
    pub(super) fn limit(self, limit: usize) -> usize {
        match self.kind() {
            Some("-limit-is-one-less") => limit.saturating_sub(1),
            Some("-limit-is-one-more") => limit + 1,
            Some("-limit-is-ignored") => usize::MAX,
            _ => limit,
        }
    }

    /// `earlier < than`, or with a fault `earlier <= than`, as a condition on time.
    pub(super) fn is_before(self, earlier: Timestamp, than: Timestamp) -> bool {
        match self.kind() {
            Some("-takes-the-same-time") => earlier <= than,
            Some("-takes-all") => true,
            _ => earlier < than,
        }
    }
}

/// Bytes of `-cut-at-255`, `-cut-at-255-bytes` or `-cut-at-8-kib`.
fn cut(kind: &str) -> Option<usize> {
    let length = kind.strip_prefix("-cut-at-")?;
    match length.strip_suffix("-kib") {
        Some(kib) => kib.parse::<usize>().ok().map(|kib| kib * 1024),
        None => length.trim_end_matches("-bytes").parse().ok(),
    }
}

/// `stored LIKE pattern` of SQL.
fn is_like(stored: &[u8], pattern: &[u8]) -> bool {
    match (stored.split_first(), pattern.split_first()) {
        (_, Some((b'%', rest))) => (0..=stored.len()).any(|n| is_like(&stored[n..], rest)),
        (Some((_, stored)), Some((b'_', rest))) => is_like(stored, rest),
        (Some((one, stored)), Some((other, rest))) => one == other && is_like(stored, rest),
        (None, None) => true,
        _ => false,
    }
}
