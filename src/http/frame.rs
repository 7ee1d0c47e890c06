//! What a client of a live connection is told, as JSON: the same over every transport.

use couple_core::pairing::Side;
use couple_notify::live::{Bye, Frame, Reset, Stream};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::{
    App, Problem,
    live::jitter,
    timeline::{By, EntryOut},
};

/// How presence is written.
pub(super) const fn presence(here: bool) -> &'static str {
    if here { "here" } else { "away" }
}

/// What a client is told.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FrameOut<'a> {
    /// A new entry, and the cursor after it.
    Entry {
        #[schema(value_type = EntryOut)]
        entry: &'a RawValue,
        cursor: String,
    },
    /// Something of the partner's, for now; a `thumb_kiss` is the system's, since it is both's.
    Signal {
        from: By,
        kind: &'a str,
        #[schema(value_type = Option<Object>)]
        body: Option<&'a RawValue>,
    },
    /// Whether the partner is `here` or `away`.
    Presence { presence: &'static str },
    /// Up to where each has read.
    Read { my_read_seq: i64, partner_read_seq: i64, cursor: String },
    /// All that there was has been sent.
    CaughtUp { cursor: String },
    /// Take a snapshot, then go on from this cursor.
    Reset { reason: &'static str, cursor: String },
    /// What the client sent was not taken; its code as in a problem.
    Refused { code: &'a str },
    /// The stream is over; come back after that time.
    Bye { reason: &'a str, retry_after_ms: u64 },
    /// The heartbeat that the client asked for: no other frame was sent for that time.
    Ping,
    /// The answer to a client's `ping`.
    Pong,
}

impl FrameOut<'_> {
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What kind of frame it is.
#[cfg(feature = "socketio")]
pub(super) const fn name(frame: &Frame) -> &'static str {
    match frame {
        Frame::Entry { .. } => "entry",
        Frame::Signal { .. } => "signal",
        Frame::Presence { .. } => "presence",
        Frame::Read { .. } => "read",
        Frame::CaughtUp { .. } => "caught_up",
        Frame::Reset { .. } => "reset",
        Frame::Bye(_) => "bye",
    }
}

/// A frame as its reader gets it.
pub(super) fn text(app: &App, frame: &Frame, reader: Side) -> String {
    let raw = |text| serde_json::from_str::<&RawValue>(text).unwrap_or(RawValue::NULL);
    let out = match frame {
        Frame::Entry { line, cursor } => {
            let entry = line.json(reader, |view| {
                to_raw_value(&EntryOut::of(view.clone(), reader))
                    .unwrap_or_else(|_| RawValue::NULL.to_owned())
            });
            FrameOut::Entry { entry, cursor: cursor.to_string() }
        }
        Frame::Signal { from, kind, body } => FrameOut::Signal {
            from: By::new(*from, Some(reader)),
            kind,
            body: body.as_ref().map(|body| raw(body.as_str())),
        },
        Frame::Presence { here } => FrameOut::Presence { presence: presence(*here) },
        Frame::Read { read, cursor } => FrameOut::Read {
            my_read_seq: read[reader.index()],
            partner_read_seq: read[reader.other().index()],
            cursor: cursor.to_string(),
        },
        Frame::CaughtUp { cursor } => FrameOut::CaughtUp { cursor: cursor.to_string() },
        Frame::Reset { reason: Reset::CursorUnknown, cursor } => {
            FrameOut::Reset { reason: "cursor_unknown", cursor: cursor.to_string() }
        }
        Frame::Bye(why) => {
            let retry_after_ms = match why {
                Bye::SignedOut | Bye::NotPaired => 0,
                // Spread over the time that the process gives them.
                Bye::Draining => {
                    jitter(app, u64::try_from(app.backend.live().options().drain.as_millis()).unwrap_or(0))
                }
                Bye::Unavailable => 1_000 + jitter(app, 4_000),
            };
            FrameOut::Bye { reason: reason(*why), retry_after_ms }
        }
    };
    out.text()
}

/// What a client may say over a connection that goes both ways.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    kind: String,
    #[serde(default)]
    body: Option<serde_json::Value>,
}

/// A client's frame in JSON: `{"type": "signal", "kind": …, "body": …}`, or `{"type": "ping"}`, which is answered.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum SaidFrame {
    Signal(Said),
    Ping,
}

/// Passes on what a client said, and says what has to be said about it. What is no frame at all is not listened to.
pub(super) async fn hear(stream: &mut Stream, text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("type")?;
    match serde_json::from_value(value) {
        Ok(SaidFrame::Signal(said)) => pass_on(stream, &said).await,
        Ok(SaidFrame::Ping) => Some(FrameOut::Pong.text()),
        Err(_) => Some(refused("invalid_field")),
    }
}

/// What is said about what was not taken.
pub(super) fn refused(code: &str) -> String {
    FrameOut::Refused { code }.text()
}

/// Passes on a signal, and says what has to be said about it.
pub(super) async fn pass_on(stream: &mut Stream, said: &Said) -> Option<String> {
    let problem = stream.signal(&said.kind, said.body.as_ref()).await.err()?;
    Some(refused(Problem::from(problem).code()))
}

/// Why a stream ended, in a word.
pub(super) const fn reason(why: Bye) -> &'static str {
    match why {
        Bye::SignedOut => "signed_out",
        Bye::NotPaired => "not_paired",
        Bye::Draining => "draining",
        Bye::Unavailable => "unavailable",
    }
}
