//! What the timeline decides.

use super::{Body, Entry, NewEntry, PERSONAL_KINDS, Refusal, TimelineChange, system};
use crate::{
    AccountId, Change, CoupleId, Invalid, Timestamp,
    pairing::{Couple, Side},
};

/// Checks a kind that a person appends: one of the core's own, or an app's `x-…`.
///
/// # Errors
/// [`Invalid`] for anything else, the system's kinds among them.
pub fn kind(kind: &str) -> Result<&str, Invalid> {
    let own = kind.strip_prefix("x-").is_some_and(|rest| {
        (1..=30).contains(&rest.len())
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    });
    if own || PERSONAL_KINDS.contains(&kind) { Ok(kind) } else { Err(Invalid::new("kind", "unknown_kind")) }
}

/// Checks a kind of signal.
///
/// # Errors
/// [`Invalid`] for anything but `typing`, `hug`, `kiss` and `x-…`.
pub fn signal_kind(signal: &str) -> Result<&str, Invalid> {
    match signal {
        "typing" | "hug" | "kiss" => Ok(signal),
        _ if signal.starts_with("x-") => kind(signal),
        _ => Err(Invalid::new("kind", "unknown_kind")),
    }
}

/// Checks an author's own name for an entry: 1 to 64 visible ASCII characters.
///
/// # Errors
/// [`Invalid`].
pub fn client_id(id: &str) -> Result<&str, Invalid> {
    let shaped = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    if shaped { Ok(id) } else { Err(Invalid::new("client_id", "invalid")) }
}

/// Checks the body of a kind: a `text` has a `text` that is not empty.
///
/// # Errors
/// [`Invalid`].
pub fn body(kind: &str, value: &serde_json::Value) -> Result<Body, Invalid> {
    let object = value.as_object().ok_or(Invalid::new("body", "not_an_object"))?;
    if kind == "text" {
        match object.get("text").and_then(serde_json::Value::as_str) {
            Some(text) if !text.trim().is_empty() => {}
            _ => return Err(Invalid::new("body.text", "required")),
        }
    }
    Body::new("body", value)
}

/// Checks a reaction: one to sixteen characters without space or control, whatever an emoji keyboard makes.
///
/// # Errors
/// [`Invalid`].
pub fn emoji(emoji: &str) -> Result<&str, Invalid> {
    let shaped = (1..=16).contains(&emoji.chars().count())
        && !emoji.chars().any(|c| c.is_control() || c.is_whitespace())
        && !emoji.is_ascii();
    if shaped { Ok(emoji) } else { Err(Invalid::new("emoji", "invalid")) }
}

/// What a repeat of a client id comes to: the entry that is there, if it is the same.
///
/// # Errors
/// [`Refusal::KeyReused`] when it says something else.
pub fn repeated(existing: &Entry, kind: &str, body: &Body) -> Result<(), Refusal> {
    // One that was edited or deleted since is still the entry that was asked for.
    let touched = existing.edited_at.is_some() || existing.deleted_at.is_some();
    let same = existing.kind == kind && (touched || existing.body.as_ref() == Some(body));
    if same { Ok(()) } else { Err(Refusal::KeyReused) }
}

/// What replaces an entry's body: the new body, and the entry that tells of it.
///
/// # Errors
/// [`Refusal::EntryNotFound`], [`Refusal::NotAuthor`], [`Refusal::EntryDeleted`].
pub fn edit(
    couple: CoupleId,
    entry: Option<&Entry>,
    author: Side,
    value: &serde_json::Value,
    at: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    let entry = own(entry, author)?;
    let body = body(&entry.kind, value)?;
    let edit = TimelineChange::Edit { couple, seq: entry.seq, author, body, at };
    Ok(vec![edit.into(), told(couple, system::EDITED, author, entry.seq, at)])
}

/// What makes an entry a tombstone.
///
/// # Errors
/// As [`edit`].
pub fn delete(
    couple: CoupleId,
    entry: Option<&Entry>,
    author: Side,
    at: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    let entry = own(entry, author)?;
    let delete = TimelineChange::Delete { couple, seq: entry.seq, author, at };
    Ok(vec![delete.into(), told(couple, system::DELETED, author, entry.seq, at)])
}

/// What sets or takes back a reaction; nothing when it is so already.
///
/// # Errors
/// [`Refusal::EntryNotFound`], [`Refusal::EntryDeleted`], [`Refusal::Invalid`].
pub fn react(
    couple: CoupleId,
    entry: Option<&Entry>,
    side: Side,
    wanted: Option<&str>,
    at: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    let wanted = wanted.map(emoji).transpose()?;
    let entry = entry.filter(|entry| is_personal(entry)).ok_or(Refusal::EntryNotFound)?;
    if entry.deleted_at.is_some() {
        return Err(Refusal::EntryDeleted);
    }
    if entry.reactions[side.index()].as_deref() == wanted {
        return Ok(Vec::new());
    }
    let react = TimelineChange::React { couple, seq: entry.seq, side, emoji: wanted.map(str::to_owned) };
    Ok(vec![react.into(), told(couple, system::REACTED, side, entry.seq, at)])
}

/// The entry that tells the partner of a new name.
#[must_use]
pub fn profile_changed(couple: &Couple, who: AccountId, at: Timestamp) -> Change {
    let entry = NewEntry::system(system::PROFILE_CHANGED, couple.side_of(who), None, at);
    TimelineChange::Append { couple: couple.id, entry }.into()
}

/// Whether a person wrote it, rather than the system about them.
fn is_personal(entry: &Entry) -> bool {
    kind(&entry.kind).is_ok()
}

fn own(entry: Option<&Entry>, author: Side) -> Result<&Entry, Refusal> {
    let entry = entry.ok_or(Refusal::EntryNotFound)?;
    if entry.author != Some(author) || !is_personal(entry) {
        return Err(Refusal::NotAuthor);
    }
    if entry.deleted_at.is_some() {
        return Err(Refusal::EntryDeleted);
    }
    Ok(entry)
}

fn told(couple: CoupleId, kind: &str, by: Side, target: i64, at: Timestamp) -> Change {
    TimelineChange::Append { couple, entry: NewEntry::system(kind, Some(by), Some(target), at) }.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds() {
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
    fn bodies() {
        assert!(body("text", &json!({"text": "hi", "x": [1]})).is_ok());
        for bad in [
            json!({"text": ""}),
            json!({"text": "  "}),
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
        assert!(body("hug", &json!({"a": "x".repeat(Body::MOST)})).is_err());
    }

    #[test]
    fn reactions_are_emoji() {
        for good in ["❤️", "👩‍❤️‍👨", "👍🏽", "é"] {
            assert!(emoji(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "<b>", "❤ ❤", "\u{0}", &"❤".repeat(17)] {
            assert!(emoji(bad).is_err(), "{bad}");
        }
    }
}
