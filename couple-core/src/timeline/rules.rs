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
}
