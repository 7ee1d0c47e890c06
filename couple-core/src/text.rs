//! Short texts that users type: names, labels, locales, time zones.

use std::time::Duration;

use serde::Serialize;
use unicode_normalization::UnicodeNormalization as _;

use crate::Timestamp;

/// Validation error: the field and a stable code for the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {code}")]
pub struct Invalid {
    /// Name of the field in the request.
    pub field: &'static str,
    /// `required`, `too_long`, `too_short`, `control_character`, `invalid`, `too_common`, …
    pub code: &'static str,
}

impl Invalid {
    /// Creates the error `code` of `field`.
    #[must_use]
    pub const fn new(field: &'static str, code: &'static str) -> Self {
        Self { field, code }
    }
}

/// Whether a character can end a line, or hide or reorder text.
///
/// These are controls, line separators and the bidirectional overrides and isolates (Unicode TR 36).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// Whether a character is invisible.
///
/// Unicode's `Default_Ignorable_Code_Point`, the other invisible format and bidirectional marks, and the
/// letters with a blank glyph.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D159}'
            | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// Whether a text is empty or has only white space, controls and invisible characters.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// Trims one line of text, normalises it to NFC and checks it.
///
/// `most` is the maximum length in characters.
fn one_line(field: &'static str, text: &str, most: usize) -> Result<String, Invalid> {
    // Check the length before normalising, so that a huge text costs nothing.
    if text.len() > most * 8 {
        return Err(Invalid::new(field, "too_long"));
    }
    let text: String = text.trim().nfc().collect();
    if text.chars().any(is_unsafe) {
        return Err(Invalid::new(field, "control_character"));
    }
    if text.chars().count() > most {
        return Err(Invalid::new(field, "too_long"));
    }
    Ok(text)
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a stored value without checking it.
            pub fn from_stored(text: impl Into<String>) -> Self { Self(text.into()) }
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&self.0) }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from).map(Self)
            }
        }
    )+};
}

texts! {
    /// Display name of an account: 1 to 64 characters in one line, NFC.
    DisplayName;
    /// Title or message: 1 to 200 characters in one line, NFC.
    Label;
    /// BCP 47 language tag in canonical form: language, script, region and variants; at most 35 bytes.
    Locale;
    /// Name of a zone in the IANA time zone database.
    TimeZoneName;
}

impl DisplayName {
    /// Checks a name that a user typed.
    ///
    /// # Errors
    /// [`Invalid`] when it is empty or invisible, is longer than 64 characters or contains control
    /// characters.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let text = one_line(field, text, 64)?;
        if is_blank(&text) {
            return Err(Invalid::new(field, "required"));
        }
        Ok(Self(text))
    }
}

impl Label {
    /// Checks a text that a user typed.
    ///
    /// # Errors
    /// [`Invalid`] when it is empty or invisible, is longer than 200 characters or contains control
    /// characters.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let text = one_line(field, text, 200)?;
        if is_blank(&text) {
            return Err(Invalid::new(field, "required"));
        }
        Ok(Self(text))
    }
}

impl Locale {
    /// Maximum length of a tag in bytes (RFC 5646, 4.4.1).
    pub const MAX_LENGTH: usize = 35;
}

impl TimeZoneName {
    /// Looks a name up in the IANA database that is compiled into the program.
    ///
    /// # Errors
    /// [`Invalid`] when there is no such zone.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
        let known = text.len() <= 64 && jiff::tz::TimeZone::get(text).is_ok_and(|zone| !zone.is_unknown());
        if known { Ok(Self(text.to_owned())) } else { Err(Invalid::new(field, "unknown_time_zone")) }
    }
}

/// Checks a calendar day, `YYYY-MM-DD`, that has begun in at least one time zone (UTC+14) at `now`.
pub(crate) fn parse_birthday(field: &'static str, text: &str, now: Timestamp) -> Result<String, Invalid> {
    const EARLIEST_ZONE: Duration = Duration::from_hours(14);
    let day = parse_day(field, text)?;
    // Both texts start with the year in four digits, so string order is time order.
    if day.as_str() > now.plus(EARLIEST_ZONE).to_rfc3339().split('T').next().unwrap_or_default() {
        return Err(Invalid::new(field, "in_the_future"));
    }
    Ok(day)
}

/// Checks a calendar day, `YYYY-MM-DD`.
pub(crate) fn parse_day(field: &'static str, text: &str) -> Result<String, Invalid> {
    match text.parse::<jiff::civil::Date>() {
        Ok(day) if day.to_string() == text && day.year() >= 1800 => Ok(day.to_string()),
        _ => Err(Invalid::new(field, "invalid_date")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn international_names_are_accepted() {
        for name in ["Zoë", "李小龍", "Nguyễn Thị Minh Khai", "O'Brien", "محمد", "👩‍❤️‍👨", "J"]
        {
            assert!(DisplayName::parse("n", name).is_ok(), "{name}");
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        for name in ["a\r\nBcc: x@y.z", "a\0", "a\u{202E}b", "a\u{2028}b", "\u{7f}"] {
            assert_eq!(
                DisplayName::parse("n", name),
                Err(Invalid::new("n", "control_character")),
                "{name:?}"
            );
        }
        assert_eq!(DisplayName::parse("n", "  "), Err(Invalid::new("n", "required")));
        assert_eq!(DisplayName::parse("n", &"x".repeat(65)), Err(Invalid::new("n", "too_long")));
    }

    #[test]
    fn invalid_time_zones_and_days_are_refused() {
        assert!(TimeZoneName::parse("z", "Europe/Berlin").is_ok());
        assert!(TimeZoneName::parse("z", "Mars/Olympus").is_err());
        assert!(parse_day("d", "2000-02-29").is_ok());
        for bad in ["2001-02-29", "2001-2-9", "20010209", "0000-00-00", "2001-02-09T00:00"] {
            assert!(parse_day("d", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn text_of_only_invisible_characters_is_empty() {
        for text in [
            "\u{200B}",
            "\u{2060}\u{200D}",
            "\u{3164}",
            "\u{2800} \u{2800}",
            "\u{E0020}",
            "\u{FE0F}",
            "\u{AD}",
        ] {
            assert_eq!(DisplayName::parse("n", text), Err(Invalid::new("n", "required")), "{text:?}");
            assert_eq!(Label::parse("n", text), Err(Invalid::new("n", "required")), "{text:?}");
        }
        assert!(DisplayName::parse("n", "a\u{200D}").is_ok());
    }

    #[test]
    fn birthday_in_the_future_is_refused() {
        // 2026-01-01T09:59:59Z, and one second later, when 2 January starts in UTC+14.
        let before = Timestamp::from_micros(1_767_261_599_000_000);
        let after = before.plus(Duration::from_secs(1));
        assert_eq!(parse_birthday("d", "2026-01-02", before), Err(Invalid::new("d", "in_the_future")));
        assert!(parse_birthday("d", "2026-01-02", after).is_ok());
        assert!(parse_birthday("d", "1999-12-31", before).is_ok());
        assert!(parse_birthday("d", "9999-12-31", before).is_err());
    }
}
