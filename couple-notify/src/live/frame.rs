//! Frames: messages of a live stream to its client.

use std::sync::{Arc, OnceLock};

use couple_core::{
    pairing::Side,
    timeline::{Body, EntryView},
};
use serde_json::value::RawValue;

use super::Cursor;

/// Reason for the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The session ended.
    SignedOut,
    /// The time ended for which the client was authenticated. It reconnects, and is refused if its session has ended too.
    Expired,
    /// The couple ended.
    NotPaired,
    /// The process is stopping; the client reconnects to another one.
    Draining,
    /// The store does not respond.
    Unavailable,
}

/// Reason for a resync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The cursor is of another couple or epoch, or beyond the log.
    CursorUnknown,
}

/// An entry with its encoded JSON, shared by all streams of a couple.
///
/// It is read once for all streams, and encoded once for each of the two members.
#[derive(Debug)]
pub struct EncodedEntry {
    /// The entry.
    pub view: EntryView,
    json: [OnceLock<Box<RawValue>>; 2],
}

impl EncodedEntry {
    pub(super) const fn new(view: EntryView) -> Self {
        Self { view, json: [OnceLock::new(), OnceLock::new()] }
    }
    /// JSON for a reader, encoded by `make` at the first call.
    pub fn json(&self, reader: Side, make: impl FnOnce(&EntryView) -> Box<RawValue>) -> &RawValue {
        self.json[reader.index()].get_or_init(|| make(&self.view))
    }
    /// Approximate size in bytes, JSON included.
    pub(super) fn size(&self) -> usize {
        let of =
            |entry: &couple_core::timeline::Entry| entry.body.as_ref().map_or(0, |body| body.as_str().len());
        512 + 3 * (of(&self.view.entry) + self.view.target.as_ref().map_or(0, of))
    }
}

/// A message of a live stream to its client.
#[derive(Debug, Clone)]
pub enum Frame {
    /// An entry, in `seq` order, with the cursor after it.
    Entry {
        /// The entry.
        line: Arc<EncodedEntry>,
        /// Cursor after the entry.
        cursor: Cursor,
    },
    /// Read positions, by [`Side`].
    Read {
        /// `seq` up to which each member has read.
        read: [i64; 2],
        /// Cursor after the frame.
        cursor: Cursor,
    },
    /// A signal, which is not stored.
    Signal {
        /// Sender; none: both members.
        from: Option<Side>,
        /// Kind of the signal.
        kind: String,
        /// Content of the signal.
        body: Option<Body>,
    },
    /// Presence of the partner.
    Presence {
        /// Whether the partner is present.
        here: bool,
    },
    /// All entries so far have been sent.
    CaughtUp {
        /// Current cursor.
        cursor: Cursor,
    },
    /// Resync: load a snapshot, then continue from this cursor.
    Reset {
        /// Reason for the resync.
        reason: Reset,
        /// Cursor at the end of the log.
        cursor: Cursor,
    },
    /// The stream has ended.
    Bye(CloseReason),
}
