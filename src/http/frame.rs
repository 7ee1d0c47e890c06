//! Frames of a live connection as JSON, the same over every transport.

use couple_core::pairing::Side;
use couple_notify::live::{CloseReason, Frame, Reset, Stream};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::{
    App, Problem,
    timeline::{By, EntryOut},
};

/// JSON value of presence.
pub(super) const fn presence(here: bool) -> &'static str {
    if here { "here" } else { "away" }
}

/// A frame that the server sends to a client.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FrameOut<'a> {
    /// A new entry, and the cursor after it.
    Entry {
        #[schema(value_type = EntryOut)]
        entry: &'a RawValue,
        cursor: String,
    },
    /// A signal of the partner. `thumb_kiss` is from the system, since both sent a `thumb`.
    Signal {
        from: By,
        kind: &'a str,
        #[schema(value_type = Option<Object>)]
        body: Option<&'a RawValue>,
    },
    /// Presence of the partner: `here` or `away`.
    Presence { presence: &'static str },
    /// Read positions of both members, as `seq`.
    Read { my_read_seq: i64, partner_read_seq: i64, cursor: String },
    /// All entries so far have been sent.
    CaughtUp { cursor: String },
    /// Resync: load a snapshot, then continue from this cursor.
    Reset { reason: &'static str, cursor: String },
    /// The client's message was refused, with the `code` of a problem.
    Refused { code: &'a str },
    /// The stream has ended; reconnect after that time.
    Bye { reason: &'a str, retry_after_ms: u64 },
    /// Heartbeat that the client asked for: no other frame was sent in its interval.
    Ping,
    /// Response to a client's `ping`.
    Pong,
}

impl FrameOut<'_> {
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Type of a frame.
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

/// JSON text of a frame for its reader.
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
                CloseReason::SignedOut | CloseReason::NotPaired => 0,
                // Reconnects are spread over the time that the process has to stop.
                CloseReason::Draining => app.jitter(
                    u64::try_from(app.backend.live().options().reconnect_spread().as_millis()).unwrap_or(0),
                ),
                // Streams that began together expire together.
                CloseReason::Expired => app.jitter(1_000),
                CloseReason::Unavailable => 1_000 + app.jitter(4_000),
            };
            FrameOut::Bye { reason: reason(*why), retry_after_ms }
        }
    };
    out.text()
}

/// A client's signal over a bidirectional connection.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientFrame {
    kind: String,
    #[serde(default)]
    body: Option<serde_json::Value>,
}

/// A frame that a client sends as JSON.
///
/// `{"type": "signal", "kind": …, "body": …}`, or `{"type": "ping"}`, which is answered.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ClientFrameJson {
    Signal(ClientFrame),
    Ping,
}

/// Handles a client's frame, and returns the response, if any. Text that is no frame is ignored.
pub(super) async fn handle_client_frame(stream: &mut Stream, text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    value.get("type")?;
    match serde_json::from_value(value) {
        Ok(ClientFrameJson::Signal(signal)) => forward_signal(stream, &signal).await,
        Ok(ClientFrameJson::Ping) => Some(FrameOut::Pong.text()),
        Err(_) => Some(refused("invalid_field")),
    }
}

/// Frame that reports a refused message.
pub(super) fn refused(code: &str) -> String {
    FrameOut::Refused { code }.text()
}

/// Forwards a signal to the partner. Returns a frame if it was refused.
pub(super) async fn forward_signal(stream: &mut Stream, signal: &ClientFrame) -> Option<String> {
    let problem = stream.signal(&signal.kind, signal.body.as_ref()).await.err()?;
    Some(refused(Problem::from(problem).code()))
}

/// Reason for the end of a stream, as in a `bye` frame.
pub(super) const fn reason(why: CloseReason) -> &'static str {
    match why {
        CloseReason::SignedOut => "signed_out",
        CloseReason::NotPaired => "not_paired",
        // To the client both mean the same: it reconnects soon.
        CloseReason::Draining | CloseReason::Expired => "draining",
        CloseReason::Unavailable => "unavailable",
    }
}
