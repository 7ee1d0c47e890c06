//! Catalogues of the built-in texts, one for each language, in Fluent (`locales/*.ftl`).
//!
//! `build.rs` checks them and generates one function for each message.

use std::{sync::LazyLock, time::Duration};

use couple_core::{Locale, Timestamp};
use fluent_bundle::{FluentArgs, FluentResource, FluentValue, concurrent::FluentBundle};
use fluent_langneg::{NegotiationStrategy, negotiate_languages};
use icu_plurals::{PluralCategory, PluralRules};
use unic_langid::{CharacterDirection, LanguageIdentifier};

/// Functions that the build generates.
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// Texts of one language.
pub(super) struct Catalogue {
    /// BCP 47 tag.
    pub(super) language: &'static str,
    /// The same tag, for the rules of plurals.
    locale: icu_locale_core::Locale,
    bundle: FluentBundle<FluentResource>,
}

macro_rules! catalogues {
    ($($language:literal),*) => {
        [$(LazyLock::new(|| {
            Catalogue::new($language, include_str!(concat!("../../locales/", $language, ".ftl")))
        })),*]
    };
}

/// All catalogues; the first is the default.
static CATALOGUES: [LazyLock<Catalogue>; 8] = catalogues!["en", "ar", "de", "es", "fr", "ja", "ko", "pt-BR"];

/// Languages of the catalogues, in their order.
static LANGUAGES: LazyLock<Vec<LanguageIdentifier>> = LazyLock::new(|| {
    CATALOGUES.iter().map(|catalogue| catalogue.bundle.locales.first().cloned().unwrap_or_default()).collect()
});

impl Catalogue {
    fn new(language: &'static str, text: &str) -> Self {
        let identifier: LanguageIdentifier = language.parse().expect("the tags in this file are valid");
        let mut bundle = FluentBundle::new_concurrent(vec![identifier]);
        // Marks around each variable would make every text non-ASCII. Text of users is isolated by `isolated`.
        bundle.set_use_isolating(false);
        let resource = FluentResource::try_new(text.to_owned());
        let resource = resource.unwrap_or_else(|_| unreachable!("the build has parsed the file"));
        bundle.add_resource_overriding(resource);
        let locale = language.parse().expect("the tags in this file are valid");
        Self { language, locale, bundle }
    }

    /// Catalogue whose language is nearest to a locale; English if there is none.
    pub(super) fn nearest(locale: Option<&Locale>) -> &'static Self {
        let requested: Option<LanguageIdentifier> = locale.and_then(|locale| locale.as_str().parse().ok());
        let found =
            negotiate_languages(requested.as_slice(), &LANGUAGES, None, NegotiationStrategy::Lookup).pop();
        let index = found.and_then(|found| LANGUAGES.iter().position(|language| language == found));
        &CATALOGUES[index.unwrap_or(0)]
    }

    /// Whether the language is written from right to left.
    pub(super) fn is_right_to_left(&self) -> bool {
        self.bundle.locales.iter().any(|locale| locale.character_direction() == CharacterDirection::RTL)
    }

    fn format<'a>(
        &self,
        id: &str,
        arguments: impl IntoIterator<Item = (&'a str, FluentValue<'a>)>,
    ) -> String {
        let arguments: FluentArgs<'a> = arguments.into_iter().collect();
        let pattern = self.bundle.get_message(id).and_then(|message| message.value());
        let pattern = pattern.unwrap_or_else(|| unreachable!("the build has found {id} in every catalogue"));
        let mut errors = Vec::new();
        let text = self.bundle.format_pattern(pattern, Some(&arguments), &mut errors).into_owned();
        debug_assert!(errors.is_empty(), "{id}: {errors:?}");
        text
    }

    /// Plural form of a number, as the catalogues name it.
    fn form(&self, count: u64) -> &'static str {
        // Fluent's own library is not used: its rules for Arabic are wrong above 102.
        let rules = PluralRules::try_new_cardinal((&self.locale).into());
        match rules.map_or(PluralCategory::Other, |rules| rules.category_for(count)) {
            PluralCategory::Zero => "zero",
            PluralCategory::One => "one",
            PluralCategory::Two => "two",
            PluralCategory::Few => "few",
            PluralCategory::Many => "many",
            PluralCategory::Other => "other",
        }
    }

    /// A lifetime in words: `10 minutes`, `1 hour`, `24 hours`, `2 days`. Rounded down to the unit.
    pub(super) fn duration(&self, lifetime: Duration) -> String {
        match lifetime.as_secs() {
            seconds @ 172_800.. => self.duration_days(seconds / 86_400),
            seconds @ 3_600.. => self.duration_hours(seconds / 3_600),
            seconds @ 60.. => self.duration_minutes(seconds / 60),
            seconds => self.duration_seconds(seconds),
        }
    }

    /// A date in UTC.
    pub(super) fn date_of(&self, at: Timestamp) -> String {
        let text = at.to_rfc3339();
        // `2026-01-02T18:05:00.000000Z`
        let mut parts = text.get(..text.find('T').unwrap_or(0)).unwrap_or_default().rsplitn(3, '-');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
        let (day, month) = (number(), number());
        self.date(day, month, parts.next().unwrap_or_default())
    }

    /// A date and a time of day in UTC.
    pub(super) fn moment(&self, at: Timestamp) -> String {
        let text = at.to_rfc3339();
        let time = text.split_once('T').and_then(|(_, time)| time.get(..5)).unwrap_or_default();
        self.date_time(&self.date_of(at), time)
    }

    /// Text of a user with its own direction, so that it does not change the order of the words around it.
    pub(super) fn isolated(&self, text: &str) -> String {
        if self.is_right_to_left() || text.chars().any(is_right_to_left) {
            // First strong isolate and pop directional isolate (UAX 9, 2.4).
            format!("\u{2068}{text}\u{2069}")
        } else {
            text.to_owned()
        }
    }
}

/// Whether a character is in a block of scripts that are written from right to left.
const fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(tag: &str) -> &'static str {
        Catalogue::nearest(Locale::matched(tag).as_ref()).language
    }

    #[test]
    fn nearest_language_of_a_locale_is_found_and_english_is_the_default() {
        for (tag, language) in [
            ("de", "de"),
            ("de-AT", "de"),
            ("de-CH-1996", "de"),
            ("en_US", "en"),
            ("en-GB", "en"),
            ("es-419", "es"),
            ("fr-CA", "fr"),
            ("ja-JP", "ja"),
            ("ko-KR", "ko"),
            ("pt", "pt-BR"),
            ("pt-BR", "pt-BR"),
            ("pt-PT", "pt-BR"),
            ("pt_AO", "pt-BR"),
            ("ar", "ar"),
            ("ar-EG", "ar"),
            ("zh", "en"),
            ("zh-Hant-TW", "en"),
            ("sl-nedis", "en"),
            ("mul", "en"),
            ("und", "en"),
            ("*", "en"),
            ("", "en"),
        ] {
            assert_eq!(nearest(tag), language, "{tag}");
        }
    }

    #[test]
    fn catalogues_are_those_of_the_build() {
        let mut files: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/locales"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let mut known: Vec<_> = CATALOGUES.iter().map(|one| format!("{}.ftl", one.language)).collect();
        known.sort();
        assert_eq!(files, known);
    }

    #[test]
    fn lifetime_is_rounded_down_to_its_unit() {
        let english = Catalogue::nearest(None);
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (5, "5 seconds"),
            (90, "1 minute"),
            (600, "10 minutes"),
            (3_600, "1 hour"),
            (86_400, "24 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(english.duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn lifetimes_have_the_plural_forms_of_the_language() {
        let arabic = Catalogue::nearest(Locale::matched("ar").as_ref());
        for (days, text) in [
            (2, "يومين"),
            (3, "3 أيام"),
            (10, "10 أيام"),
            (11, "11 يومًا"),
            (99, "99 يومًا"),
            (100, "100 يوم"),
            (103, "103 أيام"),
        ] {
            assert_eq!(arabic.duration_days(days), text);
        }
        assert_eq!(arabic.duration_days(1), "يوم واحد");
        assert_eq!(arabic.duration_days(0), "0 يوم");
        let french = Catalogue::nearest(Locale::matched("fr").as_ref());
        assert_eq!(french.duration_minutes(0), "0 minute");
        assert_eq!(french.duration_minutes(2), "2 minutes");
        let german = Catalogue::nearest(Locale::matched("de").as_ref());
        assert_eq!((german.duration_days(1), german.duration_days(30)), ("1 Tag".into(), "30 Tage".into()));
    }

    #[test]
    fn dates_are_written_as_in_the_language() {
        let at = Timestamp::from_micros(1_767_377_100_000_000);
        for (tag, date, moment) in [
            ("en", "January 2, 2026", "January 2, 2026, 18:05 UTC"),
            ("de", "2. Januar 2026", "2. Januar 2026, 18:05 Uhr (UTC)"),
            ("es", "2 de enero de 2026", "2 de enero de 2026, 18:05 UTC"),
            ("fr", "2 janvier 2026", "2 janvier 2026 à 18:05 UTC"),
            ("ja", "2026年1月2日", "2026年1月2日 18:05（UTC）"),
            ("ko", "2026년 1월 2일", "2026년 1월 2일 18:05(UTC)"),
            ("pt-BR", "2 de janeiro de 2026", "2 de janeiro de 2026, 18:05 UTC"),
            ("ar", "2 يناير 2026", "2 يناير 2026، 18:05 UTC"),
        ] {
            let catalogue = Catalogue::nearest(Locale::matched(tag).as_ref());
            assert_eq!((catalogue.date_of(at), catalogue.moment(at)), (date.into(), moment.into()), "{tag}");
        }
    }
}
