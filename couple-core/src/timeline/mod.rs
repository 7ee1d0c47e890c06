//! Timeline: the append-only log of a couple.
//!
//! The commit that appends an entry assigns its `seq` under the lock of the couple's row. So the log has no
//! gaps and is in commit order, and a reader with a cursor misses no entry. An edit, a deletion or a reaction
//! changes the entry in place *and* appends an entry that targets it, so that a device that was offline
//! learns of the change by reading on. The appended entry holds no copy, so deleted content is gone.

#[cfg(feature = "json-schema")]
mod body_schema;
mod kinds;
mod port;
pub mod rules;
mod service;

pub use kinds::{EntryKind, EntryKinds, EntryPermission, InvalidBody};
pub use port::{Page, TimelineChange, TimelineReads};
pub use service::{Append, Appended, EntryView, Membership, Timeline};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Invalid, Timestamp, pairing::Side};

/// JSON value, stored as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Body(String);

impl Body {
    /// Maximum length in bytes of the JSON text.
    pub const MAX_BODY_BYTES: usize = 16 * 1024;
    /// Maximum number of nested objects and arrays, including the value itself.
    pub const MAX_LEVELS: usize = 32;

    /// Checks a JSON value and converts it to text.
    ///
    /// # Errors
    /// [`Invalid`] when the text is longer than [`MAX_BODY_BYTES`](Self::MAX_BODY_BYTES), has more levels than
    /// [`MAX_LEVELS`](Self::MAX_LEVELS), or contains a NUL or a number that JSON parsers would change: one
    /// that is no 64-bit integer and is beyond ±2^53.
    pub fn new(field: &'static str, value: &serde_json::Value) -> Result<Self, Invalid> {
        check(value, Self::MAX_LEVELS).map_err(|code| Invalid::new(field, code))?;
        let text = value.to_string();
        if text.len() > Self::MAX_BODY_BYTES {
            return Err(Invalid::new(field, "too_long"));
        }
        Ok(Self(text))
    }
    /// Wraps stored JSON text without checking it.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Converts into the JSON text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
    /// Parses the text; null if the stored text is not JSON.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or(serde_json::Value::Null)
    }
}

/// Error code of a value that cannot be stored: too many levels, a NUL, or an inexact number.
fn check(value: &serde_json::Value, levels: usize) -> Result<(), &'static str> {
    use serde_json::Value;
    /// 2^53: from here on, neighbouring integers have the same floating-point value.
    const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
    let nul = |text: &str| if text.contains('\0') { Err("control_character") } else { Ok(()) };
    match value {
        Value::String(text) => nul(text),
        Value::Number(number) if !number.is_f64() => Ok(()),
        Value::Number(number) if number.as_f64().is_none_or(|n| n.abs() >= MAX_EXACT_INTEGER) => {
            Err("number_not_exact")
        }
        Value::Array(_) | Value::Object(_) if levels == 0 => Err("too_deep"),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, levels - 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            nul(name)?;
            check(value, levels - 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Kinds of entry that a client may append; an app defines its own as `x-…`.
pub const PERSONAL_KINDS: [&str; 7] = ["text", "photo", "hug", "kiss", "mood", "place", "doodle"];

/// Kinds of entry that only the system appends.
pub mod system {
    /// First entry of every couple.
    pub const PAIRED: &str = "paired";
    /// A member changed their display name or avatar.
    pub const PROFILE_CHANGED: &str = "profile_changed";
    /// Title or anniversary of the couple changed.
    pub const COUPLE_CHANGED: &str = "couple_changed";
    /// A date of the couple was added, changed or removed.
    pub const DATES_CHANGED: &str = "dates_changed";
    /// The body of the entry `target` was replaced.
    pub const EDITED: &str = "entry_edited";
    /// A picture in use can be shown: `{"media_id": …, "placeholder": …, "width": …, "height": …}`.
    pub const MEDIA_READY: &str = "media_ready";
    /// A picture in use was rejected: `{"media_id": …, "reason": …}`.
    pub const MEDIA_REJECTED: &str = "media_rejected";
    /// The entry `target` became a tombstone.
    pub const DELETED: &str = "entry_deleted";
    /// A reaction to the entry `target` was set or removed.
    pub const REACTED: &str = "entry_reacted";
    /// Both members restored the previous couple's timeline.
    pub const RESTORED: &str = "restored";
}

/// Kind whose body names a picture as `media_id`.
///
/// The system adds the picture's state at the time of the append, as [`MEDIA_STATE_KEY`].
pub const PHOTO: &str = "photo";
/// Member of a photo's body that only the system writes.
///
/// Its value is `{"state": …, "placeholder": …, "width": …, "height": …}`.
pub const MEDIA_STATE_KEY: &str = "media";

/// Entry of a couple's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the couple's log: 1, 2, 3, ….
    pub seq: i64,
    /// Member who wrote or caused the entry; none if no member caused it.
    pub author: Option<Side>,
    /// Client-chosen id, unique per author: a repeated append creates no second entry.
    pub client_id: Option<String>,
    /// Kind of the entry.
    pub kind: String,
    /// Content; none for a tombstone.
    pub body: Option<Body>,
    /// `seq` of the entry that this entry reports a change of.
    pub target: Option<i64>,
    /// Time of the append.
    pub created_at: Timestamp,
    /// Time of the last edit.
    pub edited_at: Option<Timestamp>,
    /// Time at which the entry became a tombstone.
    pub deleted_at: Option<Timestamp>,
    /// Reaction of each member, by [`Side`].
    pub reactions: [Option<String>; 2],
}

/// Entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// Member who writes or causes the entry; none if no member causes it.
    pub author: Option<Side>,
    /// Client-chosen id, unique per author.
    pub client_id: Option<String>,
    /// Kind of the entry.
    pub kind: String,
    /// Content.
    pub body: Option<Body>,
    /// `seq` of the entry that this entry reports a change of.
    pub target: Option<i64>,
    /// Time of the append.
    pub at: Timestamp,
}

impl NewEntry {
    /// Entry as it is stored with its `seq`.
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

    /// System entry about an action of the member `by`.
    #[must_use]
    pub fn system(kind: &str, by: Option<Side>, target: Option<i64>, at: Timestamp) -> Self {
        Self { author: by, client_id: None, kind: kind.to_owned(), body: None, target, at }
    }
}

/// Error of a timeline use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimelineError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The body does not fit the rules that the host defined for its kind.
    #[error(transparent)]
    InvalidBody(#[from] InvalidBody),
    /// The account is in no couple.
    #[error("you are not in a couple")]
    NotPaired,
    /// The couple has no entry with this `seq`.
    #[error("there is no such entry")]
    EntryNotFound,
    /// The entry was written by the partner or the system.
    #[error("only its author may change an entry")]
    NotAuthor,
    /// The host defined that entries of this kind are not edited, or not deleted.
    #[error("entries of this kind cannot be changed")]
    EntryFixed,
    /// The entry is a tombstone.
    #[error("the entry was deleted")]
    EntryDeleted,
    /// The entry names a picture that is not one of its author's photos in this couple.
    #[error("there is no such picture")]
    MediaNotFound,
    /// Decoding rejected the picture that the entry names.
    #[error("the picture was rejected; upload another one")]
    MediaRejected,
    /// The picture that the entry names was uploaded as an avatar.
    #[error("the picture was uploaded for another purpose")]
    MediaWrongPurpose,
    /// The idempotency key or client id was used for another entry.
    #[error("this key was used for another request")]
    KeyReused,
    /// There is no previous couple, or not both members restored its timeline.
    #[error("there is no earlier timeline that both members agreed to restore")]
    NoPrevious,
    /// The cursor belongs to another couple or epoch: take a snapshot and continue from there.
    #[error("this cursor belongs to an ended couple; start without a cursor")]
    CursorReset,
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many requests; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
}

impl TimelineError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::InvalidBody(_) => "invalid_field",
            Self::NotPaired => "not_paired",
            Self::EntryNotFound => "entry_not_found",
            Self::NotAuthor => "not_author",
            Self::EntryFixed => "entry_fixed",
            Self::EntryDeleted => "entry_deleted",
            Self::MediaNotFound => "media_not_found",
            Self::MediaRejected => "media_rejected",
            Self::MediaWrongPurpose => "media_wrong_purpose",
            Self::KeyReused => "idempotency_key_reused",
            Self::NoPrevious => "no_previous",
            Self::CursorReset => "cursor_reset",
            Self::RateLimited(_) => "rate_limited",
        }
    }
}

from_common_refusals!(TimelineError);
