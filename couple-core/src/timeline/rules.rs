//! Decisions of the timeline, as pure functions.

use std::time::Duration;

use serde_json::Value;

use super::{
    Body, Entry, EntryKinds, EntryPermission, MEDIA_STATE_KEY, NewEntry, PERSONAL_KINDS, PHOTO,
    TimelineChange, TimelineError, system,
};
use crate::{
    AccountId, Change, CoupleId, Invalid, MediaId, Timestamp,
    pairing::{Couple, PairingChange, Side},
    text::is_blank,
};

/// Checks a kind that a client appends: one of the built-in kinds, or an app's own `x-…`.
///
/// # Errors
/// [`Invalid`] for any other kind, including those of the system.
pub fn kind(kind: &str) -> Result<&str, Invalid> {
    let own = kind.strip_prefix("x-").is_some_and(|rest| {
        (1..=30).contains(&rest.len())
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    });
    if own || PERSONAL_KINDS.contains(&kind) { Ok(kind) } else { Err(Invalid::new("kind", "unknown_kind")) }
}

/// Checks a kind that entries are filtered by: 1 to 64 visible ASCII characters.
///
/// The system's kinds are valid.
///
/// # Errors
/// [`Invalid`].
pub fn kind_filter(kind: &str) -> Result<&str, Invalid> {
    let shaped = (1..=64).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_graphic());
    if shaped { Ok(kind) } else { Err(Invalid::new("kind", "invalid")) }
}

/// Checks the kind of a signal.
///
/// # Errors
/// [`Invalid`] unless it is `typing`, `hug`, `kiss`, `thumb` or `x-…`.
pub fn signal_kind(signal: &str) -> Result<&str, Invalid> {
    match signal {
        "typing" | "hug" | "kiss" | THUMB => Ok(signal),
        _ if signal.starts_with("x-") => kind(signal),
        _ => Err(Invalid::new("kind", "unknown_kind")),
    }
}

/// Signal of a member who presses on the screen. Its body is `{"x": …, "y": …}`, each from 0 to 1.
pub const THUMB: &str = "thumb";
/// Signal that both members receive when they press the same place.
pub const THUMB_KISS: &str = "thumb_kiss";
/// Maximum time between two presses that meet.
pub const MAX_THUMB_INTERVAL: Duration = Duration::from_millis(1_500);
/// Maximum distance between two presses that meet, as a fraction of the screen: about a fingertip.
const MAX_THUMB_DISTANCE: f64 = 0.1;

/// Position on a screen, relative to its size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThumbPosition {
    /// Distance from the left edge, 0 to 1.
    pub x: f64,
    /// Distance from the top edge, 0 to 1.
    pub y: f64,
}

/// Position in the body of a thumb signal.
///
/// # Errors
/// [`Invalid`] for a body without a valid position.
pub fn thumb(body: Option<&Value>) -> Result<ThumbPosition, Invalid> {
    let part = |name: &str, field: &'static str| {
        let number = body.and_then(|body| body.get(name)).and_then(Value::as_f64);
        number.filter(|number| (0.0..=1.0).contains(number)).ok_or(Invalid::new(field, "out_of_range"))
    };
    Ok(ThumbPosition { x: part("x", "body.x")?, y: part("y", "body.y")? })
}

/// Midpoint of two presses; none if they are too far apart to meet.
#[must_use]
pub fn thumbs_meet(one: ThumbPosition, other: ThumbPosition) -> Option<ThumbPosition> {
    let near = (one.x - other.x).hypot(one.y - other.y) <= MAX_THUMB_DISTANCE;
    near.then_some(ThumbPosition { x: (one.x + other.x) / 2.0, y: (one.y + other.y) / 2.0 })
}

/// Checks a client id: 1 to 64 visible ASCII characters.
///
/// # Errors
/// [`Invalid`].
pub fn client_id(id: &str) -> Result<&str, Invalid> {
    let shaped = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    if shaped { Ok(id) } else { Err(Invalid::new("client_id", "invalid")) }
}

/// Checks the body of a kind.
///
/// A `text` needs a `text` that is not blank, a `photo` the id of a picture. In a photo, the member [`MEDIA_STATE_KEY`]
/// is dropped, because only the system writes it.
///
/// # Errors
/// [`Invalid`].
pub fn body(kind: &str, value: &Value) -> Result<Body, Invalid> {
    let object = value.as_object().ok_or(Invalid::new("body", "not_an_object"))?;
    if kind == "text" {
        match object.get("text").and_then(Value::as_str) {
            Some(text) if !is_blank(text) => {}
            _ => return Err(Invalid::new("body.text", "required")),
        }
    }
    if kind != PHOTO {
        return Body::new("body", value);
    }
    if media_id(value).is_none() {
        return Err(Invalid::new("body.media_id", "required"));
    }
    Body::new("body", &without_media_state(value.clone()))
}

/// Body of a photo entry without the JSON field that the system writes.
fn without_media_state(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.remove(MEDIA_STATE_KEY);
    }
    value
}

/// Body of a photo with the member that the system writes.
#[must_use]
pub fn with_media_state(body: &Body, state: Value) -> Body {
    let mut value = body.value();
    value[MEDIA_STATE_KEY] = state;
    Body::from_stored(value.to_string())
}

/// Id of the picture that a body names.
#[must_use]
pub fn media_id(body: &Value) -> Option<MediaId> {
    body.get("media_id")?.as_str()?.parse().ok()
}

/// Id of the picture that an entry names; none unless it is a photo.
#[must_use]
pub fn media_of(entry: &Entry) -> Option<MediaId> {
    let body = entry.body.as_ref().filter(|_| entry.kind == PHOTO)?;
    media_id(&body.value())
}

/// Checks a reaction: 1 to 16 characters, not all ASCII or invisible, without spaces and controls.
///
/// Emoji are not enumerated: whatever an emoji keyboard produces is valid.
///
/// # Errors
/// [`Invalid`].
pub fn emoji(emoji: &str) -> Result<&str, Invalid> {
    let shaped = (1..=16).contains(&emoji.chars().count())
        && !is_blank(emoji)
        && !emoji.chars().any(|c| c.is_control() || c.is_whitespace())
        && !emoji.is_ascii();
    if shaped { Ok(emoji) } else { Err(Invalid::new("emoji", "invalid")) }
}

/// Checks that a repeated client id has the same content as the existing entry.
///
/// # Errors
/// [`TimelineError::KeyReused`] when the content differs.
pub fn repeated(existing: &Entry, kind: &str, body: &Body) -> Result<(), TimelineError> {
    // An edited or deleted entry counts as the same: its original body is not stored.
    let touched = existing.edited_at.is_some() || existing.deleted_at.is_some();
    let is_same_body = |existing: &Body| match kind {
        PHOTO => without_media_state(existing.value()) == body.value(),
        _ => existing == body,
    };
    let same = existing.kind == kind && (touched || existing.body.as_ref().is_some_and(is_same_body));
    if same { Ok(()) } else { Err(TimelineError::KeyReused) }
}

/// Changes that replace an entry's body and append the entry that reports it.
///
/// # Errors
/// [`TimelineError::EntryNotFound`], [`TimelineError::NotAuthor`], [`TimelineError::EntryFixed`], [`TimelineError::EntryDeleted`],
/// [`TimelineError::Invalid`], [`TimelineError::InvalidBody`].
pub fn edit(
    couple: CoupleId,
    entry: Option<&Entry>,
    by: Side,
    value: &Value,
    kinds: &EntryKinds,
    at: Timestamp,
) -> Result<Vec<Change>, TimelineError> {
    let (entry, author) = require_permitted(entry, by, |kind| kinds.edits_by(kind))?;
    let mut body = kinds.body(&entry.kind, value)?;
    if entry.kind == PHOTO {
        if media_id(value) != media_of(entry) {
            // The picture of an entry cannot change: an entry with another picture is a new entry.
            return Err(Invalid::new("body.media_id", "cannot_change").into());
        }
        let before = entry.body.as_ref().map(Body::value).unwrap_or_default();
        if let Some(state) = before.get(MEDIA_STATE_KEY) {
            body = with_media_state(&body, state.clone());
        }
    }
    let edit = TimelineChange::Edit { couple, seq: entry.seq, author, body, at };
    Ok(vec![edit.into(), report_entry(couple, system::EDITED, by, entry.seq, at)])
}

/// Changes that make an entry a tombstone and append the entry that reports it.
///
/// # Errors
/// The same as for [`edit`], except [`TimelineError::Invalid`] and [`TimelineError::InvalidBody`].
pub fn delete(
    couple: CoupleId,
    entry: Option<&Entry>,
    by: Side,
    kinds: &EntryKinds,
    at: Timestamp,
) -> Result<Vec<Change>, TimelineError> {
    let (entry, author) = require_permitted(entry, by, |kind| kinds.deletions_by(kind))?;
    let delete = TimelineChange::Delete { couple, seq: entry.seq, author, at };
    Ok(vec![delete.into(), report_entry(couple, system::DELETED, by, entry.seq, at)])
}

/// Changes that set or remove a reaction; none if the reaction is as wanted.
///
/// # Errors
/// [`TimelineError::EntryNotFound`], [`TimelineError::EntryDeleted`], [`TimelineError::Invalid`].
pub fn react(
    couple: CoupleId,
    entry: Option<&Entry>,
    side: Side,
    wanted: Option<&str>,
    at: Timestamp,
) -> Result<Vec<Change>, TimelineError> {
    let wanted = wanted.map(emoji).transpose()?;
    let entry = entry.filter(|entry| is_personal(entry)).ok_or(TimelineError::EntryNotFound)?;
    if entry.deleted_at.is_some() {
        return Err(TimelineError::EntryDeleted);
    }
    if entry.reactions[side.index()].as_deref() == wanted {
        return Ok(Vec::new());
    }
    let react = TimelineChange::React { couple, seq: entry.seq, side, emoji: wanted.map(str::to_owned) };
    Ok(vec![react.into(), report_entry(couple, system::REACTED, side, entry.seq, at)])
}

/// Change that reports a new name or avatar to the partner.
///
/// For an account that was read as unpaired, the change is the precondition that it still is: otherwise a new
/// partner would keep the old name.
#[must_use]
pub fn profile_changed(couple: Option<&Couple>, who: AccountId, at: Timestamp) -> Change {
    let Some(couple) = couple else { return PairingChange::ExpectUnpaired { account: who }.into() };
    let entry = NewEntry::system(system::PROFILE_CHANGED, couple.side_of(who), None, at);
    TimelineChange::Append { couple: couple.id, entry }.into()
}

/// Whether a member wrote the entry, not the system.
fn is_personal(entry: &Entry) -> bool {
    kind(&entry.kind).is_ok()
}

/// The entry and its author, if the member `by` may change it.
fn require_permitted(
    entry: Option<&Entry>,
    by: Side,
    permitted: impl FnOnce(&str) -> EntryPermission,
) -> Result<(&Entry, Side), TimelineError> {
    let entry = entry.ok_or(TimelineError::EntryNotFound)?;
    let author = entry.author.filter(|_| is_personal(entry)).ok_or(TimelineError::NotAuthor)?;
    match permitted(&entry.kind) {
        EntryPermission::Author if author != by => return Err(TimelineError::NotAuthor),
        EntryPermission::Nobody => return Err(TimelineError::EntryFixed),
        EntryPermission::Author | EntryPermission::Members => {}
    }
    if entry.deleted_at.is_some() {
        return Err(TimelineError::EntryDeleted);
    }
    Ok((entry, author))
}

fn report_entry(couple: CoupleId, kind: &str, by: Side, target: i64, at: Timestamp) -> Change {
    TimelineChange::Append { couple, entry: NewEntry::system(kind, Some(by), Some(target), at) }.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{ManualClock, SeededEntropy, timeline::EntryKind};

    #[test]
    fn unknown_kinds_are_refused() {
        for good in ["text", "hug", "x-mood.v2", "x-a"] {
            assert!(kind(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "paired",
            "entry_edited",
            "x-",
            "x-A",
            "X-a",
            "x-a b",
            "Text",
            &format!("x-{}", "a".repeat(31)),
        ] {
            assert!(kind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn invalid_bodies_are_refused() {
        assert!(body("text", &json!({"text": "hi", "x": [1]})).is_ok());
        for bad in [
            json!({"text": ""}),
            json!({"text": "  "}),
            json!({"text": "\u{200B}\u{2060} \u{FE0F}"}),
            json!({}),
            json!({"text": 1}),
            json!("hi"),
            json!(null),
            json!([]),
        ] {
            assert!(body("text", &bad).is_err(), "{bad}");
        }
        assert!(body("hug", &json!({})).is_ok());
        assert!(body("hug", &json!({"a": "\u{0}"})).is_err());
        assert!(body("hug", &json!({"a": "\\u0000"})).is_ok());
        assert!(body("hug", &json!({"a": "x".repeat(Body::MAX_BODY_BYTES)})).is_err());
        let nested = |levels: usize| {
            let text = format!("{}{{}}{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels - 1));
            body("hug", &serde_json::from_str(&text).unwrap()).map_err(|invalid| invalid.code)
        };
        assert!(nested(Body::MAX_LEVELS).is_ok());
        assert_eq!(nested(Body::MAX_LEVELS + 1), Err("too_deep"));
        for number in
            ["9007199254740993", "18446744073709551615", "-9223372036854775808", "0.1", "-1e15", "1e-300"]
        {
            let value: Value = serde_json::from_str(&format!("{{\"n\":[{number}]}}")).unwrap();
            assert!(body("hug", &value).is_ok(), "{number}");
        }
        for number in ["18446744073709551616", "-9223372036854775809", "9007199254740993.5", "1e300"] {
            let value: Value = serde_json::from_str(&format!("{{\"n\":[{number}]}}")).unwrap();
            assert_eq!(body("hug", &value).unwrap_err().code, "number_not_exact", "{number}");
        }
    }

    #[test]
    fn thumbs_meet_only_if_valid_and_close() {
        let at = |x: f64, y: f64| thumb(Some(&json!({ "x": x, "y": y })));
        assert_eq!(at(0.5, 1.0), Ok(ThumbPosition { x: 0.5, y: 1.0 }));
        for bad in
            [json!({}), json!({"x": 0.5}), json!({"x": 0.5, "y": 1.1}), json!({"x": "0", "y": 0}), json!(0)]
        {
            assert!(thumb(Some(&bad)).is_err(), "{bad}");
        }
        assert!(thumb(None).is_err() && at(-0.1, 0.0).is_err());
        let meet = |x: f64| thumbs_meet(ThumbPosition { x: 0.5, y: 0.5 }, ThumbPosition { x, y: 0.5 });
        assert_eq!(meet(0.5), Some(ThumbPosition { x: 0.5, y: 0.5 }));
        assert!(meet(0.59).is_some() && meet(0.41).is_some() && meet(0.61).is_none());
    }

    #[test]
    fn reactions_are_emoji() {
        for good in ["❤️", "👩‍❤️‍👨", "👍🏽", "é"] {
            assert!(emoji(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "<b>", "❤ ❤", "\u{0}", "\u{200D}", "\u{FE0F}\u{200B}", &"❤".repeat(17)] {
            assert!(emoji(bad).is_err(), "{bad}");
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    fn ids() -> (CoupleId, MediaId) {
        let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(1));
        (CoupleId::new(&clock, &entropy), MediaId::new(&clock, &entropy))
    }

    fn entry(kind: &str, body: &Value) -> Entry {
        let body = Some(Body::new("body", body).unwrap());
        let new = NewEntry {
            author: Some(Side::First),
            client_id: None,
            kind: kind.to_owned(),
            body,
            target: None,
            at: at(0),
        };
        new.at_seq(7)
    }

    fn reported(kind: &str, by: Side) -> Change {
        let entry = NewEntry::system(kind, Some(by), Some(7), at(9));
        TimelineChange::Append { couple: ids().0, entry }.into()
    }

    #[test]
    fn own_kinds_have_one_to_thirty_characters_after_their_prefix() {
        for good in ["x-a", "x-0", "x-_", "x-.", "x--", &format!("x-{}", "a".repeat(30))] {
            assert_eq!(kind(good), Ok(good));
        }
        for bad in ["x-é", "x-a/b", "x-a:b", "y-a", "a", &format!("x-{}", "a".repeat(31))] {
            assert_eq!(kind(bad), Err(Invalid::new("kind", "unknown_kind")), "{bad}");
        }
    }

    #[test]
    fn filters_and_client_ids_are_one_to_sixty_four_visible_characters() {
        let long = "a".repeat(64);
        for good in ["a", "paired", "~!", long.as_str()] {
            assert_eq!((kind_filter(good), client_id(good)), (Ok(good), Ok(good)));
        }
        let too_long = "a".repeat(65);
        for bad in ["", "a b", "\u{7F}", "é", too_long.as_str()] {
            assert_eq!(kind_filter(bad), Err(Invalid::new("kind", "invalid")), "{bad}");
            assert_eq!(client_id(bad), Err(Invalid::new("client_id", "invalid")), "{bad}");
        }
    }

    #[test]
    fn signals_are_those_of_the_contract_or_the_app_s_own() {
        for good in ["typing", "hug", "kiss", "thumb", "x-wave"] {
            assert_eq!(signal_kind(good), Ok(good));
        }
        // `text` and `mood` are kinds of entries, which no signal may have; `thumb_kiss` is the system's.
        for bad in ["text", "mood", "photo", "thumb_kiss", "", "x-", "x-A", "wave"] {
            assert_eq!(signal_kind(bad), Err(Invalid::new("kind", "unknown_kind")), "{bad}");
        }
    }

    #[test]
    fn presses_meet_in_their_middle_within_a_tenth_of_the_screen() {
        let point = |x: f64, y: f64| ThumbPosition { x, y };
        assert_eq!(thumbs_meet(point(0.25, 0.5), point(0.3125, 0.5625)), Some(point(0.28125, 0.53125)));
        // Each coordinate alone is near; together they are too far apart.
        assert_eq!(thumbs_meet(point(0.5, 0.5), point(0.59, 0.59)), None);
        assert_eq!(thumbs_meet(point(0.5, 0.5), point(0.5, 0.7)), None);
        assert!(thumbs_meet(point(0.0, 0.0), point(0.1, 0.0)).is_some(), "exactly a tenth");
        let edge = |number: f64| thumb(Some(&json!({ "x": number, "y": number })));
        assert_eq!((edge(0.0), edge(1.0)), (Ok(point(0.0, 0.0)), Ok(point(1.0, 1.0))));
        let code = |body: Value| thumb(Some(&body)).unwrap_err();
        assert_eq!(code(json!({ "x": 2, "y": 0 })), Invalid::new("body.x", "out_of_range"));
        assert_eq!(code(json!({ "x": 0, "y": 2 })), Invalid::new("body.y", "out_of_range"));
    }

    #[test]
    fn photo_names_its_picture_and_only_the_system_writes_its_state() {
        let (_, media) = ids();
        let sent = json!({ "media_id": media, "caption": "c", MEDIA_STATE_KEY: { "state": "ready" } });
        let stored = body(PHOTO, &sent).unwrap();
        assert_eq!(stored.value(), json!({ "media_id": media, "caption": "c" }));
        for bad in [json!({}), json!({ "media_id": 1 }), json!({ "media_id": "x" })] {
            assert_eq!(body(PHOTO, &bad), Err(Invalid::new("body.media_id", "required")), "{bad}");
        }
        // Other kinds keep the member, and need no picture.
        let other = json!({ MEDIA_STATE_KEY: 1 });
        assert_eq!(body("hug", &other).unwrap().value(), other);
        let with = with_media_state(&stored, json!({ "state": "processing" }));
        let expected =
            json!({ "media_id": media, "caption": "c", MEDIA_STATE_KEY: { "state": "processing" } });
        assert_eq!(with.value(), expected);
        assert_eq!(media_of(&entry(PHOTO, &json!({ "media_id": media }))), Some(media));
        assert_eq!(media_of(&entry("hug", &json!({ "media_id": media }))), None);
    }

    #[test]
    fn reactions_have_up_to_sixteen_characters() {
        assert!(emoji(&"❤".repeat(16)).is_ok());
        for bad in ["a", "❤a b", "é\u{7}", "\u{200B}"] {
            assert_eq!(emoji(bad), Err(Invalid::new("emoji", "invalid")), "{bad}");
        }
    }

    #[test]
    fn repeated_client_id_needs_the_same_content() {
        let (_, media) = ids();
        let text = |text: &str| Body::new("body", &json!({ "text": text })).unwrap();
        let stored = entry("text", &json!({ "text": "hi" }));
        assert_eq!(repeated(&stored, "text", &text("hi")), Ok(()));
        assert_eq!(repeated(&stored, "text", &text("ho")), Err(TimelineError::KeyReused));
        assert_eq!(repeated(&stored, "hug", &text("hi")), Err(TimelineError::KeyReused));
        let edited = Entry { edited_at: Some(at(1)), ..stored.clone() };
        let deleted = Entry { deleted_at: Some(at(1)), body: None, ..stored.clone() };
        for touched in [edited, deleted] {
            assert_eq!(repeated(&touched, "text", &text("ho")), Ok(()));
            assert_eq!(repeated(&touched, "hug", &text("hi")), Err(TimelineError::KeyReused));
        }
        // The state of a picture changes without an edit.
        let photo = entry(PHOTO, &json!({ "media_id": media, MEDIA_STATE_KEY: 1 }));
        let sent = Body::new("body", &json!({ "media_id": media })).unwrap();
        assert_eq!(repeated(&photo, PHOTO, &sent), Ok(()));
        let other = Body::new("body", &json!({ "media_id": media, "caption": "c" })).unwrap();
        assert_eq!(repeated(&photo, PHOTO, &other), Err(TimelineError::KeyReused));
    }

    #[test]
    fn edit_replaces_the_body_and_is_reported() {
        let ((couple, media), kinds) = (ids(), EntryKinds::default());
        let change = |entry: Option<&Entry>, by, value: Value| edit(couple, entry, by, &value, &kinds, at(9));
        let edited = |body: &Value| {
            let body = Body::new("body", body).unwrap();
            TimelineChange::Edit { couple, seq: 7, author: Side::First, body, at: at(9) }.into()
        };
        let (text, new) = (entry("text", &json!({ "text": "hi" })), json!({ "text": "ho" }));
        let report = reported(system::EDITED, Side::First);
        assert_eq!(change(Some(&text), Side::First, new.clone()), Ok(vec![edited(&new), report.clone()]));
        assert_eq!(change(Some(&text), Side::Second, new.clone()), Err(TimelineError::NotAuthor));
        assert_eq!(change(None, Side::First, new.clone()), Err(TimelineError::EntryNotFound));
        let deleted = Entry { deleted_at: Some(at(1)), ..text.clone() };
        assert_eq!(change(Some(&deleted), Side::First, new.clone()), Err(TimelineError::EntryDeleted));
        let of_system = Entry { kind: system::PAIRED.to_owned(), ..text.clone() };
        assert_eq!(change(Some(&of_system), Side::First, new), Err(TimelineError::NotAuthor));
        assert!(change(Some(&text), Side::First, json!({})).is_err());
        // A photo keeps its picture, and what the system wrote about it.
        let photo = entry(PHOTO, &json!({ "media_id": media, MEDIA_STATE_KEY: { "state": "ready" } }));
        let kept = json!({ "media_id": media, "caption": "c", MEDIA_STATE_KEY: { "state": "ready" } });
        assert_eq!(
            change(Some(&photo), Side::First, json!({ "media_id": media, "caption": "c" })),
            Ok(vec![edited(&kept), report.clone()])
        );
        let without = entry(PHOTO, &json!({ "media_id": media }));
        let plain = json!({ "media_id": media, "caption": "c" });
        assert_eq!(change(Some(&without), Side::First, plain.clone()), Ok(vec![edited(&plain), report]));
        let other = MediaId::new(&ManualClock::default(), &SeededEntropy::new(2));
        assert_eq!(
            change(Some(&photo), Side::First, json!({ "media_id": other })),
            Err(Invalid::new("body.media_id", "cannot_change").into())
        );
    }

    #[test]
    fn deletion_is_reported() {
        let ((couple, _), kinds) = (ids(), EntryKinds::default());
        let text = entry("text", &json!({ "text": "hi" }));
        let deleted = TimelineChange::Delete { couple, seq: 7, author: Side::First, at: at(9) };
        assert_eq!(
            delete(couple, Some(&text), Side::First, &kinds, at(9)),
            Ok(vec![deleted.into(), reported(system::DELETED, Side::First)])
        );
        let refused = delete(couple, Some(&text), Side::Second, &kinds, at(9));
        assert_eq!(refused, Err(TimelineError::NotAuthor));
    }

    #[test]
    fn reaction_is_set_once_per_member() {
        let (couple, _) = ids();
        let text = entry("text", &json!({ "text": "hi" }));
        let liked = Entry { reactions: [None, Some("❤".to_owned())], ..text.clone() };
        let change = |entry: Option<&Entry>, side, wanted| react(couple, entry, side, wanted, at(9));
        let reacted = |side, emoji: Option<&str>| {
            let emoji = emoji.map(str::to_owned);
            let change = TimelineChange::React { couple, seq: 7, side, emoji };
            Ok(vec![change.into(), reported(system::REACTED, side)])
        };
        assert_eq!(change(Some(&text), Side::Second, Some("❤")), reacted(Side::Second, Some("❤")));
        assert_eq!(change(Some(&liked), Side::First, Some("❤")), reacted(Side::First, Some("❤")));
        assert_eq!(change(Some(&liked), Side::Second, Some("❤")), Ok(Vec::new()));
        assert_eq!(change(Some(&liked), Side::Second, None), reacted(Side::Second, None));
        assert_eq!(change(Some(&liked), Side::First, None), Ok(Vec::new()));
        assert_eq!(change(None, Side::First, None), Err(TimelineError::EntryNotFound));
        let of_system = Entry { kind: system::PAIRED.to_owned(), ..text.clone() };
        assert_eq!(change(Some(&of_system), Side::First, Some("❤")), Err(TimelineError::EntryNotFound));
        let deleted = Entry { deleted_at: Some(at(1)), ..text.clone() };
        assert_eq!(change(Some(&deleted), Side::First, Some("❤")), Err(TimelineError::EntryDeleted));
        assert_eq!(change(Some(&text), Side::First, Some("a")), Err(Invalid::new("emoji", "invalid").into()));
    }

    #[test]
    fn kinds_of_the_host_decide_who_edits_and_deletes() {
        let (couple, _) = ids();
        let own = entry("x-a", &json!({}));
        let permitted = |permission| {
            let kind = EntryKind::new("x-a").with_edits_by(permission).with_deletions_by(permission);
            let kinds = EntryKinds::new(vec![kind], false).unwrap();
            [Side::First, Side::Second].map(|by| {
                let edited = edit(couple, Some(&own), by, &json!({}), &kinds, at(9)).err();
                assert_eq!(delete(couple, Some(&own), by, &kinds, at(9)).err(), edited);
                edited
            })
        };
        assert_eq!(permitted(EntryPermission::Author), [None, Some(TimelineError::NotAuthor)]);
        assert_eq!(permitted(EntryPermission::Members), [None, None]);
        assert_eq!(
            permitted(EntryPermission::Nobody),
            [Some(TimelineError::EntryFixed), Some(TimelineError::EntryFixed)]
        );
    }

    #[test]
    fn changed_profile_is_reported_to_the_couple_or_requires_that_there_is_none() {
        let (couple_id, _) = ids();
        let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(5));
        let [ana, ben] = [(); 2].map(|()| AccountId::new(&clock, &entropy));
        let couple = Couple {
            id: couple_id,
            members: [ana, ben],
            since: at(0),
            epoch: 1,
            ended_at: None,
            title: None,
            anniversary: None,
            previous: None,
            restore: [false, false],
            head_seq: 0,
            read: [0, 0],
        };
        let entry = NewEntry::system(system::PROFILE_CHANGED, Some(Side::Second), None, at(9));
        assert_eq!(
            profile_changed(Some(&couple), ben, at(9)),
            TimelineChange::Append { couple: couple_id, entry }.into()
        );
        assert_eq!(profile_changed(None, ben, at(9)), PairingChange::ExpectUnpaired { account: ben }.into());
    }
}
