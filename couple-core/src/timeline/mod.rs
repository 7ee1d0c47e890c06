//! The timeline: each couple's one append-only log.
//!
//! An entry's `seq` is given out inside the commit that appends it, under the couple's row, so it is gapless and in
//! commit order, and a reader by cursor misses nothing. What changes an entry (an edit, a deletion, a reaction) changes it in
//! place *and* appends an entry that names it, so that a device that was away learns of it by
//! reading on; the naming entry holds no copy, so what is deleted is gone.

mod port;
pub mod rules;
mod service;

pub use port::{Page, TimelineChange, TimelineReads};
pub use service::{Append, Appended, Membership, Timeline, View};

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Invalid, Timestamp, idempotency::KeyReused, pairing::Side};

/// A piece of JSON, kept as its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(String);

impl Body {
    /// At most this many bytes of JSON.
    pub const MOST: usize = 16 * 1024;
    /// At most this many levels of objects and arrays, the value itself included.
    pub const MAX_LEVELS: usize = 32;

    /// Takes a value that is not null.
    ///
    /// # Errors
    /// [`Invalid`] when its text is longer than [`MOST`](Self::MOST), when it has more than [`MAX_LEVELS`](Self::MAX_LEVELS), and
    /// when it holds a NUL or a number that JSON readers would change: no 64-bit integer, and beyond ±2^53.
    pub fn new(field: &'static str, value: &serde_json::Value) -> Result<Self, Invalid> {
        check(value, Self::MAX_LEVELS).map_err(|code| Invalid::new(field, code))?;
        let text = value.to_string();
        if text.len() > Self::MOST {
            return Err(Invalid::new(field, "too_long"));
        }
        Ok(Self(text))
    }
    /// Takes stored JSON text as it is.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The JSON text, taken out.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
    /// The value; null when what is stored is no JSON.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or(serde_json::Value::Null)
    }
}

/// Finds what makes a value unfit to be stored: more than `levels` levels, a NUL, a number that would not stay as it is.
fn check(value: &serde_json::Value, levels: usize) -> Result<(), &'static str> {
    use serde_json::Value;
    /// 2^53: from here on a float does not tell neighbouring integers apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let nul = |text: &str| if text.contains('\0') { Err("control_character") } else { Ok(()) };
    match value {
        Value::String(text) => nul(text),
        Value::Number(number) if !number.is_f64() => Ok(()),
        Value::Number(number) if number.as_f64().is_none_or(|n| n.abs() >= EXACT) => Err("number_not_exact"),
        Value::Array(_) | Value::Object(_) if levels == 0 => Err("too_deep"),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, levels - 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            nul(name)?;
            check(value, levels - 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Kinds that a person may append; an app adds its own as `x-…`.
pub const PERSONAL_KINDS: [&str; 7] = ["text", "photo", "hug", "kiss", "mood", "place", "doodle"];

/// Kinds that only the system appends.
pub mod system {
    /// The first entry of every couple.
    pub const PAIRED: &str = "paired";
    /// One of them changed what they are called.
    pub const PROFILE_CHANGED: &str = "profile_changed";
    /// The couple's title or anniversary changed.
    pub const COUPLE_CHANGED: &str = "couple_changed";
    /// The body of `target` was replaced.
    pub const EDITED: &str = "entry_edited";
    /// A picture that an entry names can be shown: `{"media_id": …, "placeholder": …, "width": …, "height": …}`.
    pub const MEDIA_READY: &str = "media_ready";
    /// A picture that an entry names never will be: `{"media_id": …, "reason": …}`.
    pub const MEDIA_REJECTED: &str = "media_rejected";
    /// `target` became a tombstone.
    pub const DELETED: &str = "entry_deleted";
    /// A reaction on `target` was set or taken back.
    pub const REACTED: &str = "entry_reacted";
    /// Both chose to see the previous couple's timeline.
    pub const RESTORED: &str = "restored";
}

/// The kind whose body names a picture, as `media_id`. What was known of the picture when the entry was appended stands beside
/// that, as [`SEEN`].
pub const PHOTO: &str = "photo";
/// The member of a photo's body that the system writes: `{"state": …, "placeholder": …, "width": …, "height": …}`.
pub const SEEN: &str = "media";

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place: 1, 2, 3, … within the couple.
    pub seq: i64,
    /// Who wrote it; none: the system.
    pub author: Option<Side>,
    /// The author's own name for it, unique among theirs, so that a repeat is not a second entry.
    pub client_id: Option<String>,
    /// What it is.
    pub kind: String,
    /// What it says; none on a tombstone.
    pub body: Option<Body>,
    /// The entry that this one changed.
    pub target: Option<i64>,
    /// When it was appended.
    pub created_at: Timestamp,
    /// When its body was last replaced.
    pub edited_at: Option<Timestamp>,
    /// When it became a tombstone.
    pub deleted_at: Option<Timestamp>,
    /// Each one's reaction, by [`Side`].
    pub reactions: [Option<String>; 2],
}

/// What is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Who writes; none: the system.
    pub author: Option<Side>,
    /// The author's own name for it.
    pub client_id: Option<String>,
    /// What it is.
    pub kind: String,
    /// What it says.
    pub body: Option<Body>,
    /// The entry that it changes.
    pub target: Option<i64>,
    /// When.
    pub at: Timestamp,
}

impl NewEntry {
    /// The entry that this becomes at its place.
    #[must_use]
    pub fn at_seq(self, seq: i64) -> Entry {
        Entry {
            seq,
            author: self.author,
            client_id: self.client_id,
            kind: self.kind,
            body: self.body,
            target: self.target,
            created_at: self.at,
            edited_at: None,
            deleted_at: None,
            reactions: [None, None],
        }
    }

    /// An entry of the system about what `by` did.
    #[must_use]
    pub fn system(kind: &str, by: Option<Side>, target: Option<i64>, at: Timestamp) -> Self {
        Self { author: by, client_id: None, kind: kind.to_owned(), body: None, target, at }
    }
}

/// What a person may be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A field is not as it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// They are in no couple.
    #[error("you are not in a couple")]
    NotPaired,
    /// There is no such entry.
    #[error("there is no such entry")]
    EntryNotFound,
    /// It is the partner's or the system's.
    #[error("only its author may change an entry")]
    NotAuthor,
    /// It was deleted.
    #[error("the entry was deleted")]
    EntryDeleted,
    /// The entry names no picture of its author's that this couple has.
    #[error("there is no such picture")]
    MediaNotFound,
    /// The picture that the entry names was rejected when it was decoded.
    #[error("the picture was rejected; upload another one")]
    MediaRejected,
    /// The picture that the entry names was uploaded as an avatar.
    #[error("the picture was uploaded for another purpose")]
    MediaWrongPurpose,
    /// The key or client id came before with another entry.
    #[error("this key came before with another request")]
    KeyReused,
    /// There is nothing earlier, or not both chose to see it.
    #[error("there is no earlier timeline that both chose to see")]
    NoPrevious,
    /// The cursor is of another couple or epoch: take a snapshot and go on from there.
    #[error("this cursor belongs to an ended couple; start anew")]
    CursorReset,
    /// Too often.
    #[error("too many requests; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
}

impl Refusal {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Invalid(_) => "invalid_field",
            Self::NotPaired => "not_paired",
            Self::EntryNotFound => "entry_not_found",
            Self::NotAuthor => "not_author",
            Self::EntryDeleted => "entry_deleted",
            Self::MediaNotFound => "media_not_found",
            Self::MediaRejected => "media_rejected",
            Self::MediaWrongPurpose => "media_wrong_purpose",
            Self::KeyReused => "idempotency_key_reused",
            Self::NoPrevious => "no_previous",
            Self::CursorReset => "cursor_reset",
            Self::RateLimited(_) => "rate_limited",
        })
    }
}

impl From<KeyReused> for Refusal {
    fn from(_: KeyReused) -> Self {
        Self::KeyReused
    }
}

impl From<crate::limits::Limited> for Refusal {
    fn from(limited: crate::limits::Limited) -> Self {
        Self::RateLimited(limited.retry_after)
    }
}
