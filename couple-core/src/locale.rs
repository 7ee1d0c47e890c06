//! Locale identifiers as devices and browsers send them, converted to BCP 47.

use crate::Locale;

/// Maximum length in bytes of the text that is parsed; the rest is ignored.
const MAX_BYTES: usize = 256;

impl Locale {
    /// Canonical BCP 47 tag of the locale that a device names.
    ///
    /// Keeps language, script, region and variants (RFC 5646, 2.1.1), not extensions. Accepts `en_US`,
    /// `de_DE.UTF-8@euro`, `zh_CN_#Hans`, the old codes `iw`, `in` and `ji`, and the first choice of an
    /// `Accept-Language` list. Returns none for a text without a language: a locale is a preference, so an
    /// unknown one is no error.
    #[must_use]
    pub fn matched(text: &str) -> Option<Self> {
        let first = text.get(..text.len().min(MAX_BYTES))?.split([',', ';', '.', '@']).next()?.trim();
        let mut subtags = first.split(['-', '_', ' ']).map(|subtag| subtag.trim_start_matches('#'));
        let language = subtags.next()?.to_ascii_lowercase();
        let alphabetic = language.bytes().all(|b| b.is_ascii_alphabetic());
        if !alphabetic || !matches!(language.len(), 2 | 3 | 5..=8) || language == "posix" {
            return None;
        }
        let mut tag = match language.as_str() {
            "iw" => "he".to_owned(),
            "in" => "id".to_owned(),
            "ji" => "yi".to_owned(),
            _ => language,
        };
        let (mut script, mut region, mut variants) = (None, None, Vec::new());
        // A subtag of one letter or digit starts an extension.
        for subtag in subtags.take_while(|subtag| subtag.len() != 1) {
            let ascii = subtag.bytes().all(|b| b.is_ascii_alphanumeric());
            let letters = subtag.bytes().all(|b| b.is_ascii_alphabetic());
            let digits = subtag.bytes().all(|b| b.is_ascii_digit());
            match subtag.len() {
                4 if letters && script.is_none() => script = Some(title_case(subtag)),
                2 if letters && region.is_none() => region = Some(subtag.to_ascii_uppercase()),
                3 if digits && region.is_none() => region = Some(subtag.to_owned()),
                5..=8 if ascii => variants.push(subtag.to_ascii_lowercase()),
                4 if ascii && subtag.starts_with(|c: char| c.is_ascii_digit()) => {
                    variants.push(subtag.to_ascii_lowercase());
                }
                _ => {}
            }
        }
        for subtag in script.into_iter().chain(region).chain(variants) {
            if tag.len() + 1 + subtag.len() > Self::MAX_LENGTH {
                break;
            }
            tag.push('-');
            tag.push_str(&subtag);
        }
        Some(Self::from_stored(tag))
    }
}

fn title_case(subtag: &str) -> String {
    let (first, rest) = subtag.split_at(1);
    first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_locales_become_canonical_tags() {
        for (text, tag) in [
            ("en_US", "en-US"),
            ("pt-br", "pt-BR"),
            ("DE", "de"),
            ("de_DE.UTF-8@euro", "de-DE"),
            ("zh_CN_#Hans", "zh-Hans-CN"),
            ("zh-hant-tw", "zh-Hant-TW"),
            ("es-419", "es-419"),
            ("iw_IL", "he-IL"),
            ("sl-nedis", "sl-nedis"),
            ("de-CH-1996", "de-CH-1996"),
            ("en-US-u-ca-gregory", "en-US"),
            ("en_US@rg=dezzzz", "en-US"),
            ("fr-CH, fr;q=0.9, en;q=0.8", "fr-CH"),
            (" nl ", "nl"),
            ("en-??", "en"),
            ("en_\u{0}", "en"),
        ] {
            let matched = Locale::matched(text);
            assert_eq!(matched.as_ref().map(Locale::as_str), Some(tag), "{text:?}");
            let again = matched.as_ref().and_then(|locale| Locale::matched(locale.as_str()));
            assert_eq!(again, matched, "{text:?}");
        }
        for text in
            ["", "-", "??", "C", "POSIX", "*", "1x", "\u{0}", "en\u{e9}", "日本語", "toolongalanguage"]
        {
            assert_eq!(Locale::matched(text), None, "{text:?}");
        }
        let long = Locale::matched(&format!("en-US-{}", "abcdefgh-".repeat(30))).unwrap();
        assert!(long.as_str().len() <= Locale::MAX_LENGTH);
    }
}
