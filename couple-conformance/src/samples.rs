//! Values that an adapter can change or confuse: extreme times, long texts, digests with special bytes, similar texts.

use std::time::Duration;

use couple_core::{Digest, Timestamp};

/// Smallest difference between two stored times.
pub(crate) const MOMENT: Duration = Duration::from_micros(1);

/// Odd number above 2^32, different for each `n`.
pub(crate) const fn big(n: i64) -> i64 {
    (1 << 40) + 2 * n + 1
}

/// Time in 1930 with odd microseconds. Each `n` gives a later second.
pub(crate) const fn before_1970(n: i64) -> Timestamp {
    Timestamp::from_micros(-1_234_567_890_123_457 + n * 1_000_002)
}

/// Time in 2100 with odd microseconds. Each `n` gives a later second.
pub(crate) const fn after_2038(n: i64) -> Timestamp {
    Timestamp::from_micros(4_123_456_789_123_457 + n * 1_000_002)
}

/// Time in 1930.
pub(crate) const EARLY: Timestamp = before_1970(0);

/// Time in 2100.
pub(crate) const LATE: Timestamp = after_2038(0);

/// Text of `count` characters with four bytes each in UTF-8.
pub(crate) fn longest(count: usize) -> String {
    ['😀', '👋', '🏽', '🎂', '🌍'].into_iter().cycle().take(count).collect()
}

/// Text of exactly `bytes` bytes, which starts with `start`.
///
/// It has upper case, accents, emoji, quotes, a backslash and what is special in patterns of SQL; it ends with a blank.
pub(crate) fn long_text(start: &str, bytes: usize) -> String {
    let mut text = format!("{start} %_\\'\"É👩‍❤️‍👨");
    let end = "李👋Z ";
    let room = bytes.checked_sub(text.len() + end.len()).expect("the text is longer");
    text.extend(std::iter::repeat_n('é', room / 2));
    text.extend(std::iter::repeat_n('x', room % 2));
    text + end
}

/// ASCII text of `length` bytes without equal parts.
pub(crate) fn longest_ascii(length: usize) -> String {
    (0..length).map(|n| char::from(b'a' + u8::try_from(n * n % 26).unwrap_or(0))).collect()
}

/// Text of 33 characters with upper case, accents in both forms, emoji, trailing blank, and the special characters of SQL and JSON.
pub(crate) fn special(start: &str) -> String {
    format!("{start} Ábc a\u{301} ıİ %_\\'\"{{}}\t 👩\u{200D}❤\u{FE0F} ")
}

/// Digests of which a comparison by text, with a collation, or of a part takes two for equal.
pub(crate) fn similar_digests() -> [Digest; 6] {
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = [b'a'; 32];
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        Digest::from_bytes(bytes)
    };
    [
        with(&[]),
        // Upper case.
        with(&[(9, b'A')]),
        // The same up to a NUL, and in the first half.
        with(&[(16, 0), (31, b'b')]),
        with(&[(16, 0), (31, b'c')]),
        // A blank and a NUL at the end.
        with(&[(31, b' ')]),
        with(&[(31, 0)]),
    ]
}

/// Texts that differ from `text`, but equal it in a comparison with a collation, with padding, or with LIKE.
pub(crate) fn near(text: &str) -> Vec<String> {
    let accented = text.replacen('a', "á", 1);
    let combining = text.replacen('a', "a\u{301}", 1);
    let wildcard = text.replacen('a', "_", 1);
    let half = text.len() / 2;
    let mut near = vec![
        text.to_uppercase(),
        format!("{text} "),
        format!(" {text}"),
        accented,
        combining,
        wildcard,
        format!("{}%", &text[..half]),
        "%".to_owned(),
        text[..text.len() - 1].to_owned(),
        format!("{text}."),
    ];
    near.retain(|one| one != text);
    near
}
