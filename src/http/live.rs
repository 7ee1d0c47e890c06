//! Live delivery over HTTP: WebSocket, server-sent events and long poll, from the same frames.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    body::Body,
    extract::{
        Query, State, WebSocketUpgrade, rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, header},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use couple_core::{AccountId, Error, Failure, Secret, account, pairing::Side};
use couple_notify::live::{Bye, Cursor, Frame, Gate, Reset, Stream};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, App, Problem,
    extract::Signed,
    socket,
    timeline::{By, EntryOut, bad_query},
};
use crate::Backend;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live))
}

/// Live connections: so many in all, and so many of one person.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<HashMap<AccountId, usize>>,
    all: Arc<Semaphore>,
    most: usize,
    per_account: usize,
}

impl Streams {
    pub(super) fn new(most: usize, per_account: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), all: Arc::new(Semaphore::new(most)), most, per_account })
    }
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.most - self.all.available_permits()
    }
    fn take(self: &Arc<Self>, account: AccountId) -> Answer<Place> {
        let Ok(permit) = self.all.clone().try_acquire_owned() else {
            return Err(Problem::new("overloaded"));
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(account).or_default();
        if *count >= self.per_account {
            return Err(Problem::new("too_many_streams"));
        }
        *count += 1;
        drop(open);
        Ok(Place { streams: self.clone(), account, _permit: permit })
    }
}

/// One live connection's place; given back when dropped.
pub(super) struct Place {
    streams: Arc<Streams>,
    account: AccountId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.account);
            }
        }
    }
}

/// How long a poll waits, unless it says otherwise, at least and at most: below what proxies and phones cut off.
const WAIT: u64 = 25;
const WAIT_MOST: u64 = 50;
/// Frames in one answer to a poll.
const FRAMES: usize = 200;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Following {
    /// A cursor, or a `seq`. Without one: from now on.
    after: Option<String>,
    /// Seconds that a poll waits. Without it: 25 to 50, at random.
    #[param(maximum = 50)]
    wait: Option<u64>,
    /// The session's token, for a browser's `EventSource`, which cannot send a header. Proxies may log it: prefer the header.
    #[param(value_type = Option<String>)]
    access_token: Option<Secret<String>>,
    /// `off`: the partner is not told that this person is here, nor that they chose so.
    #[serde(default)]
    presence: Announced,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Announced {
    #[default]
    On,
    Off,
}

/// How presence is written.
pub(super) const fn presence(here: bool) -> &'static str {
    if here { "here" } else { "away" }
}

/// What a client is told.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum FrameOut {
    /// A new entry, and the cursor after it.
    Entry {
        #[schema(value_type = EntryOut)]
        entry: Box<EntryOut>,
        cursor: String,
    },
    /// Something of the partner's, for now.
    Signal { from: By, kind: String, body: serde_json::Value },
    /// Whether the partner is `here` or `away`.
    Presence { presence: &'static str },
    /// Up to where each has read.
    Read { my_read_seq: i64, partner_read_seq: i64, cursor: String },
    /// All that there was has been sent.
    CaughtUp { cursor: String },
    /// Take a snapshot, then go on from this cursor.
    Reset { reason: &'static str, cursor: String },
    /// The stream is over; come back after that time.
    Bye { reason: &'static str, retry_after_ms: u64 },
}

impl FrameOut {
    pub(super) fn new(frame: Frame, reader: Side, jitter: impl Fn(u64) -> u64) -> Self {
        match frame {
            Frame::Entry { view, cursor } => {
                Self::Entry { entry: Box::new(EntryOut::of(*view, reader)), cursor: cursor.to_string() }
            }
            Frame::Signal { from, kind, body } => Self::Signal {
                from: By::new(Some(from), Some(reader)),
                kind,
                body: body.map_or(serde_json::Value::Null, |body| body.value()),
            },
            Frame::Presence { here } => Self::Presence { presence: presence(here) },
            Frame::Read { read, cursor } => Self::Read {
                my_read_seq: read[reader.index()],
                partner_read_seq: read[reader.other().index()],
                cursor: cursor.to_string(),
            },
            Frame::CaughtUp { cursor } => Self::CaughtUp { cursor: cursor.to_string() },
            Frame::Reset { reason: Reset::CursorUnknown, cursor } => {
                Self::Reset { reason: "cursor_unknown", cursor: cursor.to_string() }
            }
            Frame::Bye(bye) => {
                let (reason, wait) = match bye {
                    Bye::SignedOut => ("signed_out", 0),
                    Bye::NotPaired => ("not_paired", 0),
                    Bye::Draining => ("draining", jitter(5_000)),
                    Bye::Unavailable => ("unavailable", 1_000 + jitter(4_000)),
                };
                Self::Bye { reason, retry_after_ms: wait }
            }
        }
    }
}

/// The answer to a poll.
#[derive(Debug, Serialize, ToSchema)]
struct Polled {
    frames: Vec<FrameOut>,
    /// What to poll with next.
    cursor: String,
}

/// A session, asked again as every request asks.
struct SessionGate {
    backend: Backend,
    bearer: Secret<String>,
}

#[async_trait]
impl Gate for SessionGate {
    async fn is_open(&self) -> Result<bool, Error> {
        match self.backend.accounts().authenticate(&self.bearer).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(account::Refusal::Unauthenticated)) => Ok(false),
            Err(Failure::Refused(_)) => Ok(false),
            Err(Failure::Failed(error)) => Err(error),
        }
    }
}

/// The couple's log as it grows, over one of three transports with the same frames, all resumable from a cursor on any
/// process. A WebSocket upgrade: frames as JSON text; a browser, which cannot send a header with it, offers two
/// subprotocols, `couple` and the session's token. `Accept: text/event-stream`: server-sent events, whose `id` is the cursor, so
/// that `Last-Event-ID` resumes. Else a long poll, which answers at once when there is something.
#[utoipa::path(get, path = "/v1/couple/live", tag = "live", security(("session" = [])),
    params(Following, ("Last-Event-ID" = Option<String>, Header, description = "The cursor, instead of `after`")),
    responses(
        (status = 200, description = "Frames", content((Polled = "application/json"), (String = "text/event-stream"))),
        (status = 101, description = "A WebSocket")))]
async fn live(
    State(app): State<App>,
    signed: Option<Signed>,
    headers: HeaderMap,
    query: Result<Query<Following>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let Query(Following { after, wait, access_token, presence }) = query.map_err(bad_query)?;
    let offered = upgrade.as_ref().ok().and_then(offered_token);
    let signed = match (signed, offered.or(access_token)) {
        (Some(signed), _) => signed,
        (None, Some(token)) => Signed::by(&app, token).await?,
        (None, None) => return Err(Problem::new("unauthenticated")),
    };
    let wait = wait.unwrap_or_else(|| WAIT + jitter(&app, WAIT_MOST - WAIT));
    if wait > WAIT_MOST {
        return Err(Problem::new("invalid_field").field("wait", "out_of_range"));
    }
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let after = match last_id.or(after.as_deref()) {
        Some(text) => Some(
            text.parse::<Cursor>().map_err(|_| Problem::new("invalid_field").field("after", "invalid"))?,
        ),
        None => None,
    };
    if upgrade.is_err() && headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return Err(Problem::new("malformed_request").detail("a WebSocket upgrade that is none"));
    }
    let place = app.streams.take(signed.id())?;
    let gate = SessionGate { backend: app.backend.clone(), bearer: signed.bearer.clone() };
    let mut stream = app.backend.live().open(signed.id(), Arc::new(gate), after).await?;
    if presence == Announced::On {
        stream.announce();
    }
    if let Ok(upgrade) = upgrade {
        return Ok(socket::upgrade(app, upgrade, stream, place));
    }
    let events = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| {
        accept.split(',').any(|kind| kind.split(';').next().unwrap_or("").trim() == "text/event-stream")
    });
    if events {
        Ok(follow(app, stream, place))
    } else {
        Ok(answer(app, stream, place, Duration::from_secs(wait)))
    }
}

/// The token beside our own name among the subprotocols.
fn offered_token(upgrade: &WebSocketUpgrade) -> Option<Secret<String>> {
    let offered = upgrade.requested_protocols().filter_map(|protocol| protocol.to_str().ok());
    let mut others = offered.filter(|protocol| *protocol != socket::PROTOCOL);
    others.next().map(|token| Secret::new(token.to_owned()))
}

/// A random number of milliseconds below `most`, so that those who come back do not come at once.
pub(super) fn jitter(app: &App, most: u64) -> u64 {
    let mut random = [0; 8];
    app.backend.ports().entropy.fill(&mut random);
    u64::from_be_bytes(random) % most.max(1)
}

/// The head goes out at once, so that what waits is one small future and not the whole way of a request.
fn answer(app: App, stream: Stream, place: Place, wait: Duration) -> Response {
    let body = futures_util::stream::once(async move {
        let polled = poll(&app, stream, wait).await;
        drop(place);
        Ok::<_, Infallible>(serde_json::to_vec(&polled).unwrap_or_default())
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

async fn poll(app: &App, mut stream: Stream, wait: Duration) -> Polled {
    let side = stream.membership().side;
    // Else every poll would end with what the one before told. That it is not known now is found out while waiting.
    let _ = stream.knows_presence().await;
    let mut frames = Vec::new();
    let deadline = Instant::now() + wait;
    let mut caught_up = false;
    while frames.len() < FRAMES {
        // What there is goes along however short the wait; only then the clock counts.
        let next =
            if caught_up { timeout_at(deadline, stream.next()).await } else { Ok(stream.next().await) };
        match next {
            Ok(Some(Frame::CaughtUp { .. })) => {
                caught_up = true;
                if !frames.is_empty() {
                    break;
                }
            }
            Ok(Some(frame)) => {
                let last =
                    caught_up || matches!(frame, Frame::Signal { .. } | Frame::Bye(_) | Frame::Reset { .. });
                frames.push(FrameOut::new(frame, side, |most| jitter(app, most)));
                if last {
                    break;
                }
            }
            Ok(None) | Err(_) => break,
        }
    }
    Polled { frames, cursor: stream.cursor().to_string() }
}

fn follow(app: App, stream: Stream, place: Place) -> Response {
    let side = stream.membership().side;
    let ping = Duration::from_millis(20_000 + jitter(&app, 10_000));
    let retry = Duration::from_millis(1_000 + jitter(&app, 2_000));
    let begin = (stream, place, Some(retry));
    let events = futures_util::stream::unfold(begin, move |(mut stream, place, retry)| {
        let app = app.clone();
        async move {
            let frame = stream.next().await?;
            let resumable = !matches!(frame, Frame::Signal { .. } | Frame::Presence { .. } | Frame::Bye(_));
            let out = FrameOut::new(frame, side, |most| jitter(&app, most));
            let mut event = Event::default().data(serde_json::to_string(&out).unwrap_or_default());
            if resumable {
                event = event.id(stream.cursor().to_string());
            }
            // With the first frame: some clients take one by itself for an event.
            if let Some(retry) = retry {
                event = event.retry(retry);
            }
            Some((Ok::<_, Infallible>(event), (stream, place, None)))
        }
    });
    // Buffering proxies would hold events back.
    let headers = [("x-accel-buffering", "no")];
    let keep_alive = KeepAlive::new().interval(ping).text("ping");
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}
