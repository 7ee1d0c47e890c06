//! Texts of push messages.

use super::NotificationKind;
use crate::{DisplayName, Locale};

/// Content that a text is made for.
#[derive(Debug, Clone)]
pub struct PushMessage {
    /// Kind of event.
    pub kind: NotificationKind,
    /// Preview of the partner and the entry; none if the recipient has not switched previews on.
    pub preview: Option<Preview>,
}

/// Data of the partner that a push message may show.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Name of the partner.
    pub partner: DisplayName,
    /// Start of the text of the entry, or the reaction; none for entries without a text.
    pub text: Option<String>,
}

/// Texts of push messages in the languages of an app.
///
/// ```
/// use couple_core::{Locale, notification::{EnglishTexts, PushMessage, PushTexts}};
///
/// struct Texts;
///
/// impl PushTexts for Texts {
///     fn title_and_body(&self, message: &PushMessage, locale: Option<&Locale>) -> (String, String) {
///         match locale.map(Locale::as_str) {
///             Some("de") if message.preview.is_none() => ("Es gibt etwas Neues".to_owned(), String::new()),
///             _ => EnglishTexts.title_and_body(message, locale),
///         }
///     }
/// }
/// ```
pub trait PushTexts: Send + Sync + 'static {
    /// Title and body of a message; the body may be empty.
    ///
    /// `locale` is the language of the device, or of the person's profile.
    fn title_and_body(&self, message: &PushMessage, locale: Option<&Locale>) -> (String, String);
}

impl<T: PushTexts + ?Sized> PushTexts for std::sync::Arc<T> {
    fn title_and_body(&self, message: &PushMessage, locale: Option<&Locale>) -> (String, String) {
        (**self).title_and_body(message, locale)
    }
}

/// Texts in English, the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnglishTexts;

impl PushTexts for EnglishTexts {
    fn title_and_body(&self, message: &PushMessage, _: Option<&Locale>) -> (String, String) {
        let general = match message.kind {
            NotificationKind::Entry => "You have a new message",
            NotificationKind::Reaction => "You have a new reaction",
            NotificationKind::Pairing => "Your invite was accepted",
            NotificationKind::Invite => "You have a new invite",
            NotificationKind::PartnerLeft => "Your connection has ended",
        };
        match &message.preview {
            None => (general.to_owned(), String::new()),
            Some(Preview { partner, text }) => {
                (partner.to_string(), text.clone().unwrap_or_else(|| general.to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_without_preview_shows_nothing_of_the_partner() {
        for kind in NotificationKind::ALL {
            let (title, body) = EnglishTexts.title_and_body(&PushMessage { kind, preview: None }, None);
            assert!(title.starts_with("You"), "{title}");
            assert_eq!(body, "");
        }
    }

    #[test]
    fn preview_shows_name_and_text() {
        let partner = DisplayName::parse("name", "Ana").unwrap();
        let message = |text: Option<&str>| PushMessage {
            kind: NotificationKind::Entry,
            preview: Some(Preview { partner: partner.clone(), text: text.map(str::to_owned) }),
        };
        let texts = |text| EnglishTexts.title_and_body(&message(text), None);
        assert_eq!(texts(Some("Hi")), ("Ana".to_owned(), "Hi".to_owned()));
        assert_eq!(texts(None), ("Ana".to_owned(), "You have a new message".to_owned()));
    }
}
