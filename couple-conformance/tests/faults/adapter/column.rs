//! Faults of single columns: what a column type, a collation or a comparison does to values.
//!
//! Each function takes the name of a column, and applies the fault whose name is the column and a kind, such as
//! `account-created-at-in-seconds`.

use couple_core::{Digest, Timestamp};

use crate::plant::planted_kind;

/// Time as the column stores it.
pub(super) fn time(column: &str, at: Timestamp) -> Timestamp {
    let cut = |to: i64| Timestamp::from_micros(at.micros().div_euclid(to) * to);
    match planted_kind(column) {
        Some("-in-milliseconds") => cut(1_000),
        Some("-in-seconds") => cut(1_000_000),
        Some("-before-1970") => at.max(Timestamp::from_micros(0)),
        Some("-after-2038") => at.min(Timestamp::from_micros(i64::from(i32::MAX) * 1_000_000)),
        _ => at,
    }
}

/// Number as the column stores it.
pub(super) fn number(column: &str, number: i64) -> i64 {
    match planted_kind(column) {
        Some("-in-32-bits") => number.clamp(i32::MIN.into(), i32::MAX.into()),
        Some("-as-a-float") => number / 1024 * 1024,
        _ => number,
    }
}

/// Text as the column stores it.
pub(super) fn text(column: &str, text: &str) -> String {
    let cut = |most: usize| text[..text.floor_char_boundary(most)].to_owned();
    match planted_kind(column) {
        Some("-cut-at-8") => cut(8),
        Some("-cut-at-32") => cut(32),
        Some("-cut-at-36") => cut(36),
        Some("-cut-at-128") => cut(128),
        Some("-cut-at-255") => cut(255),
        Some("-cut-at-8-kib") => cut(8 * 1024),
        Some("-cut-at-16-kib") => cut(16 * 1024),
        Some("-trimmed") => text.trim_end().to_owned(),
        Some("-in-lower-case") => text.to_lowercase(),
        Some("-without-emoji") => text.chars().map(|c| if c > '\u{FFFF}' { '?' } else { c }).collect(),
        Some("-unescaped") => text.replace('\\', ""),
        _ => text.to_owned(),
    }
}

/// Digest as the column stores it.
pub(super) fn digest(column: &str, digest: Digest) -> Digest {
    let bytes = digest.as_bytes();
    let kept = match planted_kind(column) {
        Some("-cut-at-nul") => bytes.iter().position(|byte| *byte == 0).unwrap_or(32),
        Some("-cut-at-16") => 16,
        Some("-trimmed") => bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1),
        Some("-in-lower-case") => return Digest::from_bytes(bytes.map(|byte| byte.to_ascii_lowercase())),
        _ => return digest,
    };
    Digest::from_bytes(std::array::from_fn(|n| if n < kept { bytes[n] } else { 0 }))
}

/// Whether a look-up by text takes the stored text for the one that it looks for.
pub(super) fn same(column: &str, stored: &str, sought: &str) -> bool {
    match planted_kind(column) {
        Some("-ignores-case") => stored.to_lowercase() == sought.to_lowercase(),
        Some("-ignores-accents") => unaccented(stored) == unaccented(sought),
        Some("-ignores-trailing-blanks") => stored.trim_end() == sought.trim_end(),
        Some("-is-like") => is_like(stored.as_bytes(), sought.as_bytes()),
        Some("-reads-a-prefix") => stored.get(..32).unwrap_or(stored) == sought.get(..32).unwrap_or(sought),
        _ => stored == sought,
    }
}

fn unaccented(text: &str) -> String {
    text.replace('á', "a").replace('\u{301}', "")
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

/// Number of rows that a limit keeps: with a fault one less, one more, or all.
pub(super) fn limit(name: &str, limit: usize) -> usize {
    match planted_kind(name) {
        Some("-limit-is-one-less") => limit - 1,
        Some("-limit-is-one-more") => limit + 1,
        Some("-limit-is-ignored") => usize::MAX,
        _ => limit,
    }
}

/// `earlier < than`, or with a fault `earlier <= than`, as a condition on time.
pub(super) fn before(name: &str, earlier: Timestamp, than: Timestamp) -> bool {
    match planted_kind(name) {
        Some("-takes-the-same-time") => earlier <= than,
        Some("-takes-all") => true,
        _ => earlier < than,
    }
}
