//! What a client is told.

use std::sync::{Arc, OnceLock};

use couple_core::{
    pairing::Side,
    timeline::{Body, View},
};
use serde_json::value::RawValue;

use super::Cursor;

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bye {
    /// The session ended or expired.
    SignedOut,
    /// The couple ended.
    NotPaired,
    /// The process is going away; another one answers.
    Draining,
    /// The store does not answer.
    Unavailable,
}

/// Why a client must take a snapshot before it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The cursor is of another couple or epoch, or beyond the log.
    CursorUnknown,
}

/// An entry as it goes out: read once for all who follow, and written out once for each of the two.
#[derive(Debug)]
pub struct Line {
    /// What.
    pub view: View,
    json: [OnceLock<Box<RawValue>>; 2],
}

impl Line {
    pub(super) const fn new(view: View) -> Self {
        Self { view, json: [OnceLock::new(), OnceLock::new()] }
    }
    /// Its JSON for a reader, made the first time it is asked for.
    pub fn json(&self, reader: Side, make: impl FnOnce(&View) -> Box<RawValue>) -> &RawValue {
        self.json[reader.index()].get_or_init(|| make(&self.view))
    }
    /// About how many bytes it holds, its JSON included.
    pub(super) fn size(&self) -> usize {
        let of =
            |entry: &couple_core::timeline::Entry| entry.body.as_ref().map_or(0, |body| body.as_str().len());
        512 + 3 * (of(&self.view.entry) + self.view.target.as_ref().map_or(0, of))
    }
}

/// What a client is told.
#[derive(Debug, Clone)]
pub enum Frame {
    /// An entry, in `seq` order, with the cursor after it.
    Entry {
        /// What.
        line: Arc<Line>,
        /// Where the client is then.
        cursor: Cursor,
    },
    /// Read positions, by [`Side`].
    Read {
        /// Up to where each has read.
        read: [i64; 2],
        /// Where the client is then.
        cursor: Cursor,
    },
    /// Something for now.
    Signal {
        /// Who sent it; none: both did.
        from: Option<Side>,
        /// What.
        kind: String,
        /// With what.
        body: Option<Body>,
    },
    /// Whether the partner is here.
    Presence {
        /// True: here.
        here: bool,
    },
    /// Everything that there was has been sent.
    CaughtUp {
        /// Where the client is.
        cursor: Cursor,
    },
    /// Take a snapshot, then go on from this cursor.
    Reset {
        /// Why.
        reason: Reset,
        /// Where the log ends now.
        cursor: Cursor,
    },
    /// The stream is over.
    Bye(Bye),
}
