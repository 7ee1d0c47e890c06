//! Normalises codes and links that users type or paste.

use unicode_normalization::UnicodeNormalization as _;

use crate::text::is_invisible;

/// Maximum length in bytes of a text that is parsed: a pasted link with the text around it.
const MAX_TYPED_BYTES: usize = 2048;

/// First digit of each block of ten decimal digits (category Nd) that NFKC does not fold to ASCII.
const ZEROS: [char; 54] = [
    '\u{660}',
    '\u{6F0}',
    '\u{7C0}',
    '\u{966}',
    '\u{9E6}',
    '\u{A66}',
    '\u{AE6}',
    '\u{B66}',
    '\u{BE6}',
    '\u{C66}',
    '\u{CE6}',
    '\u{D66}',
    '\u{DE6}',
    '\u{E50}',
    '\u{ED0}',
    '\u{F20}',
    '\u{1040}',
    '\u{1090}',
    '\u{17E0}',
    '\u{1810}',
    '\u{1946}',
    '\u{19D0}',
    '\u{1A80}',
    '\u{1A90}',
    '\u{1B50}',
    '\u{1BB0}',
    '\u{1C40}',
    '\u{1C50}',
    '\u{A620}',
    '\u{A8D0}',
    '\u{A900}',
    '\u{A9D0}',
    '\u{A9F0}',
    '\u{AA50}',
    '\u{ABF0}',
    '\u{104A0}',
    '\u{10D30}',
    '\u{11066}',
    '\u{110F0}',
    '\u{11136}',
    '\u{111D0}',
    '\u{112F0}',
    '\u{11450}',
    '\u{114D0}',
    '\u{11650}',
    '\u{116C0}',
    '\u{11730}',
    '\u{118E0}',
    '\u{11950}',
    '\u{11C50}',
    '\u{11D50}',
    '\u{11DA0}',
    '\u{16A60}',
    '\u{1E950}',
];

/// Converts a decimal digit of any script to ASCII. Returns other characters unchanged.
fn ascii_digit(c: char) -> char {
    let value = ZEROS.iter().find_map(|zero| u32::from(c).checked_sub(u32::from(*zero)).filter(|n| *n < 10));
    value.and_then(|value| char::from_digit(value, 10)).unwrap_or(c)
}

/// Whether a character is a dash, hyphen or minus sign after NFKC.
///
/// These are Unicode general category Pd, minus signs and characters that are typed in their place.
fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{58A}' | '\u{5BE}' | '\u{1806}' | '\u{2010}'
            ..='\u{2015}'
                | '\u{2043}'
                | '\u{207B}'
                | '\u{208B}'
                | '\u{2212}'
                | '\u{2E3A}'
                | '\u{2E3B}'
                | '\u{2E40}'
                | '\u{301C}'
                | '\u{3030}'
                | '\u{30A0}'
                | '\u{30FC}'
    )
}

/// Significant characters of a typed code; none if the text is too long to be a code.
///
/// Folds compatibility forms (full-width letters and digits) and digits of other scripts to ASCII. Removes
/// white space, dashes and invisible characters.
fn normalize(text: &str) -> Option<String> {
    if text.len() > MAX_TYPED_BYTES {
        return None;
    }
    let counts = |c: &char| !c.is_whitespace() && !is_dash(*c) && !is_invisible(*c);
    Some(text.nfkc().filter(counts).map(ascii_digit).collect())
}

/// Parses a typed code of exactly `length` decimal digits.
pub(crate) fn digits(text: &str, length: usize) -> Option<String> {
    normalize(text).filter(|code| code.len() == length && code.bytes().all(|b| b.is_ascii_digit()))
}

/// Parses a typed code of exactly `length` letters of Crockford's base 32.
///
/// Ignores case; reads `O` as `0`, `I` and `L` as `1`.
pub(crate) fn letters(text: &str, length: usize) -> Option<String> {
    let fold = |c: char| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        c => c,
    };
    let code: String = normalize(text)?.chars().map(fold).collect();
    let known = |b: u8| b.is_ascii_digit() || (b.is_ascii_uppercase() && b != b'U');
    Some(code).filter(|code| code.len() == length && code.bytes().all(known))
}

/// Finds the bearer token of a kind (`invite_…`) in a typed text.
///
/// The text is the token itself, or a link or sentence with the token in it.
pub(crate) fn link_token<'a>(text: &'a str, kind: &str) -> Option<&'a str> {
    if text.len() > MAX_TYPED_BYTES {
        return None;
    }
    let prefix = format!("{kind}_");
    let token = &text[text.rfind(&prefix)?..];
    let end = token.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'));
    let token = &token[..end.unwrap_or(token.len())];
    Some(token).filter(|token| token.len() > prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_in_every_common_form() {
        for typed in [
            "123456",
            " 123 456\n",
            "123-456",
            "123\u{2013}456",
            "123\u{A0}456",
            "１２３４５６",
            "١٢٣٤٥٦",
            "۱۲۳۴۵۶",
            "१२३४५६",
            "\u{200E}123\u{200B}456\u{202C}",
            "\u{2068}123456\u{2069}",
            "𝟏𝟐𝟑𝟒𝟓𝟔",
            "\u{FEFF}123456",
            "1 2 3 4 5 6",
        ] {
            assert_eq!(digits(typed, 6).as_deref(), Some("123456"), "{typed:?}");
        }
        for typed in ["", "12345", "1234567", "12345a", "123.456", "\u{200B}", "½23456", &"1 ".repeat(2000)]
        {
            assert_eq!(digits(typed, 6), None, "{typed:?}");
        }
    }

    #[test]
    fn letters_are_read_in_every_common_form() {
        for typed in [
            "ABC0D-EFG1H",
            "abcod efglh",
            "ABC0D\u{A0}EFG1H",
            "ABC0D\u{2013}EFG1H",
            "ＡＢＣ０Ｄ－ＥＦＧ１Ｈ\n",
        ] {
            assert_eq!(letters(typed, 10).as_deref(), Some("ABC0DEFG1H"), "{typed:?}");
        }
        for typed in ["", "ABC0D-EFG1", "ABC0D-EFG1HX", "ABC0D-EFG1U", "ABC0D-EFG1É", "ABC0D_EFG1H"] {
            assert_eq!(letters(typed, 10), None, "{typed:?}");
        }
    }

    #[test]
    fn tokens_are_found_in_pasted_text() {
        for typed in [
            "invite_aB-_9",
            "https://example.org/open/invite#invite_aB-_9",
            "https://example.org/open/invite%23invite_aB-_9",
            " <https://example.org/open/invite#invite_aB-_9>.\n",
        ] {
            assert_eq!(link_token(typed, "invite"), Some("invite_aB-_9"), "{typed:?}");
        }
        for typed in ["", "invite", "invite_", "https://example.org/open/invite", "ABC0D-EFG1H"] {
            assert_eq!(link_token(typed, "invite"), None, "{typed:?}");
        }
    }
}
