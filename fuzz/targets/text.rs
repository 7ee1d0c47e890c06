//! Text input is refused or parsed, and a parsed value parses again to itself.
#![no_main]

use couple::{
    core::{DisplayName, EmailAddress, Label, Locale, TimeZoneName},
    notify::live::Cursor,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(email) = EmailAddress::parse("email", text) {
        let again =
            EmailAddress::parse("email", email.as_str()).expect("a parsed address parses again");
        assert_eq!(again.key(), email.key());
    }
    if let Ok(name) = DisplayName::parse("name", text) {
        assert_eq!(DisplayName::parse("name", name.as_str()).as_ref(), Ok(&name));
    }
    if let Ok(label) = Label::parse("label", text) {
        assert_eq!(Label::parse("label", label.as_str()).as_ref(), Ok(&label));
    }
    if let Some(locale) = Locale::matched(text) {
        assert_eq!(Locale::matched(locale.as_str()).as_ref(), Some(&locale));
    }
    drop(TimeZoneName::parse("time_zone", text));
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().as_ref(), Ok(&cursor));
    }
});
