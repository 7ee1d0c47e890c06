//! Texts of the page behind the link that stops the digests.

use couple_core::Locale;

use super::catalogue::Catalogue;

/// Texts of the page behind the link that stops a person's digests, in one language.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StopPage {
    /// BCP 47 tag of the language.
    pub language: &'static str,
    /// Whether the language is written from right to left.
    pub is_right_to_left: bool,
    /// Title of the page.
    pub title: String,
    /// Question whether to stop the digests.
    pub question: String,
    /// Label of the button that stops them.
    pub button: String,
    /// Confirmation that they are stopped.
    pub done: String,
    /// Text for a link that does not work.
    pub failed: String,
}

impl StopPage {
    /// Texts in the language nearest to the preferred one of an `Accept-Language` header (RFC 9110, 12.5.4).
    ///
    /// English if there is none.
    #[must_use]
    pub fn nearest(accept_language: &str) -> Self {
        let words = Catalogue::nearest(preferred(accept_language).as_ref());
        Self {
            language: words.language,
            is_right_to_left: words.is_right_to_left(),
            title: words.stop_title(),
            question: words.stop_question(),
            button: words.digest_stop(),
            done: words.stop_done(),
            failed: words.stop_failed(),
        }
    }
}

/// Language with the highest weight, the first of those with the same weight.
fn preferred(accept_language: &str) -> Option<Locale> {
    let mut found: Option<(&str, f32)> = None;
    for range in accept_language.split(',') {
        let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok()).unwrap_or(0.0);
        if weight > found.map_or(0.0, |(_, highest)| highest) {
            found = Some((tag.trim(), weight));
        }
    }
    found.and_then(|(tag, _)| Locale::matched(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_in_the_preferred_language() {
        for (header, language) in [
            ("", "en"),
            ("*", "en"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("en;q=0.8, fr;q=0.9", "fr"),
            ("ar", "ar"),
            ("pt-PT", "pt-BR"),
            ("fr;q=0, de;q=0.1", "de"),
            ("fr;q=x", "en"),
            ("zz, de", "en"),
        ] {
            assert_eq!(StopPage::nearest(header).language, language, "{header}");
        }
        let page = StopPage::nearest("ar");
        assert!(page.is_right_to_left && page.button.contains("إيقاف"), "{page:?}");
    }
}
