//! Live delivery over HTTP: WebSocket, server-sent events and long poll, from the same frames.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{
        Query, State, WebSocketUpgrade, rejection::QueryRejection, ws::rejection::WebSocketUpgradeRejection,
    },
    http::{HeaderMap, HeaderName, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use couple_core::Secret;
use couple_notify::live::{Cursor, Frame, Stream};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use tracing::Span;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::{Caller, Credentials, HostRequest},
    frame::{self, FrameOut},
    guard::REQUEST_ID,
    heartbeat::{self, Heartbeat},
    server::StreamingResponse,
    socket,
    stream_permits::{Poll, StreamPermit},
    timeline::bad_query,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live))
}

/// Duration of a poll, in seconds: minimum of the default, and maximum.
///
/// Shorter than timeouts of proxies and phones.
const DEFAULT_WAIT_SECONDS: u64 = 25;
const MAX_WAIT_SECONDS: u64 = 50;
/// Maximum length of a device's name, in bytes.
const MAX_DEVICE_CHARS: usize = 64;
/// Maximum number of frames in one response to a poll.
const MAX_FRAMES: usize = 200;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Following {
    /// A cursor or a `seq` to continue after. Without one, only new entries are sent.
    after: Option<String>,
    /// A cursor that takes precedence over `after`.
    ///
    /// For npm `event-source-polyfill`, which cannot send `Last-Event-ID`.
    #[serde(rename = "lastEventId")]
    last_event_id: Option<String>,
    /// Duration of a poll in seconds. Default: 25 to 50, at random.
    #[param(maximum = 50)]
    wait: Option<u64>,
    /// Token of the session, for a browser's `EventSource`, which cannot send a header.
    ///
    /// Proxies may log it: prefer the header.
    #[param(value_type = Option<String>)]
    access_token: Option<Secret<String>>,
    /// `off`: the caller is not shown as present to the partner.
    #[serde(default)]
    #[param(inline)]
    presence: Announced,
    /// Name of the tab or device that polls, at most 64 characters.
    ///
    /// A newer poll of the same device supersedes the older one.
    #[param(max_length = 64)]
    device: Option<String>,
    /// Seconds without another frame after which the server sends `{"type": "ping"}`.
    ///
    /// Default: none is sent.
    ///
    /// It lets a script on a stream or WebSocket detect a dead connection. A poll ignores it.
    #[param(minimum = 5, maximum = 120)]
    heartbeat: Option<u64>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Announced {
    #[default]
    On,
    Off,
}

/// Response to a poll.
#[derive(Debug, Serialize, ToSchema)]
struct Polled<'a> {
    #[schema(value_type = Vec<FrameOut>)]
    frames: Vec<&'a RawValue>,
    /// Cursor for the next poll.
    cursor: String,
}

/// Follow the couple's log over one of three transports, resumable from a cursor on any process.
///
/// All transports have the same frames. WebSocket upgrade: frames are JSON text; a browser, which cannot send an `Authorization`
/// header, offers two subprotocols, `couple` and the session's token. `Accept: text/event-stream`: server-sent events, whose `id` is
/// the cursor, so that `Last-Event-ID` resumes. Otherwise a long poll, which is answered as soon as there is a frame.
///
/// Over a WebSocket a client may send `{"type": "ping"}`, which is answered with `{"type": "pong"}`. A client that sends more than 500
/// messages in a burst, or 20 per second over a longer time, is disconnected with the code 1008.
///
/// A browser's `EventSource` does not reconnect after a status other than 200. So an event stream that is temporarily refused (429 and
/// 503 over the other transports) gets 200, one `bye` frame whose `reason` is the problem's `code`, and a `retry` of 60 to 120 s after
/// `too_many_streams`, otherwise of 5 to 15 s.
#[utoipa::path(get, path = "/v1/couple/live", tag = "live", security(("session" = [])),
    params(Following, ("Last-Event-ID" = Option<String>, Header, description = "The cursor, instead of `after`")),
    responses(
        (status = 200, description = "Frames", content((Polled = "application/json"), (String = "text/event-stream"))),
        (status = 101, description = "A WebSocket"),
        (status = 426, description = "The WebSocket version is not 13")))]
async fn live(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<Following>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    // After the upgrade, which takes the connection out of the request.
    request: HostRequest,
) -> ApiResult<Response> {
    let Query(query) = query.map_err(bad_query)?;
    let events = upgrade.is_err() && accepts_events(&headers);
    match answer_live(&app, &headers, query, upgrade, request, events).await {
        Err(problem) if events && problem.is_temporary() => Ok(temporary_refusal(&app, &problem)),
        answer => answer,
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| {
        accept.split(',').any(|kind| kind.split(';').next().unwrap_or("").trim() == "text/event-stream")
    })
}

async fn answer_live(
    app: &App,
    headers: &HeaderMap,
    query: Following,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: HostRequest,
    events: bool,
) -> ApiResult<Response> {
    let Following { after, last_event_id, wait, access_token, presence, device, heartbeat } = query;
    let wait =
        wait.unwrap_or_else(|| DEFAULT_WAIT_SECONDS + app.jitter(MAX_WAIT_SECONDS - DEFAULT_WAIT_SECONDS));
    if wait > MAX_WAIT_SECONDS {
        return Err(Problem::new("invalid_field").field("wait", "out_of_range"));
    }
    if device.as_ref().is_some_and(|device| device.len() > MAX_DEVICE_CHARS) {
        return Err(Problem::new("invalid_field").field("device", "too_long"));
    }
    let heartbeat = heartbeat::interval(heartbeat)?;
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last_id = [last_id, last_event_id.as_deref()].into_iter().flatten().find(|id| !id.is_empty());
    let after = last_id.or(after.as_deref()).map(str::parse::<Cursor>).transpose();
    let after = after.map_err(|_| Problem::new("invalid_field").field("after", "invalid"))?;
    if let Err(WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_)) = &upgrade
        && headers.contains_key(header::SEC_WEBSOCKET_VERSION)
    {
        return Err(Problem::new("upgrade_required"));
    }
    if upgrade.is_err() && headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return Err(Problem::new("malformed_request").detail("not a valid WebSocket upgrade"));
    }
    let token = || upgrade.as_ref().ok().and_then(offered_token).or(access_token);
    let caller = authenticated(app, request.credentials(headers, token)?).await?;
    let open = open(app, &caller, after, presence, stream_span(headers));
    if let Ok(upgrade) = upgrade {
        let permit = app.streams.take(caller.id())?;
        let stream = open.await?;
        return Ok(socket::upgrade(app.clone(), upgrade, stream, permit, Heartbeat::new(heartbeat)));
    }
    if events {
        let permit = app.streams.take(caller.id())?;
        return Ok(follow_events(app.clone(), open.await?, permit, heartbeat));
    }
    let permit = app.streams.take_poll(caller.id(), caller.session(), device)?;
    Ok(poll_response(app.clone(), open.await?, permit, Duration::from_secs(wait)))
}

/// Span of a live stream, tied to its request by the request id.
///
/// It has no parent: as a child it would keep the request's span in memory as long as the stream is open.
pub(super) fn stream_span(headers: &HeaderMap) -> Span {
    let request_id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    tracing::info_span!(parent: None, "live_stream", request_id)
}

/// Opens a live stream of the caller's couple.
pub(super) async fn open(
    app: &App,
    caller: &Caller,
    after: Option<Cursor>,
    presence: Announced,
    span: Span,
) -> ApiResult<Stream> {
    let gate = Arc::new(caller.sign_in(app));
    let mut stream = app.backend.live().open(caller.id(), gate, after).await?;
    stream.set_span(span);
    if presence == Announced::On {
        stream.announce();
    }
    Ok(stream)
}

/// Authenticates a live connection.
///
/// A semaphore bounds concurrent look-ups in the store, for the case that many clients reconnect together. A call of
/// an authenticator of the host has no permit, so that a slow one does not delay reads of the store.
pub(super) async fn authenticated(app: &App, credentials: Credentials) -> ApiResult<Caller> {
    let _permit = match app.authentication.is_built_in() {
        true => Some(app.backend.live().read_permit().await),
        false => None,
    };
    Caller::by(app, credentials).await
}

/// Token among the offered subprotocols, beside [`PROTOCOL`](socket::PROTOCOL).
fn offered_token(upgrade: &WebSocketUpgrade) -> Option<Secret<String>> {
    let offered = upgrade.requested_protocols().filter_map(|protocol| protocol.to_str().ok());
    let mut others = offered.filter(|protocol| *protocol != socket::PROTOCOL);
    others.next().map(|token| Secret::new(token.to_owned()))
}

/// Response to a poll.
///
/// Its head is sent immediately, so that a waiting poll is one small future and not the whole handler stack.
fn poll_response(app: App, stream: Stream, permit: Poll, wait: Duration) -> Response {
    let poll = poll(Box::new(PollState { app, stream, permit }), wait);
    let body = Body::from_stream(futures_util::stream::once(poll));
    (Extension(StreamingResponse), [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// State of a poll, boxed: otherwise its future reserves space for it twice.
struct PollState {
    app: App,
    stream: Stream,
    permit: Poll,
}

async fn poll(mut poller: Box<PollState>, wait: Duration) -> Result<String, Infallible> {
    let PollState { app, stream, permit } = &mut *poller;
    let side = stream.membership().side;
    // The poll before has reported presence: otherwise every poll would end immediately.
    stream.knows_presence();
    let mut frames = Vec::new();
    let deadline = Instant::now() + wait;
    let mut caught_up = false;
    while frames.len() < MAX_FRAMES {
        // Frames that are available now are sent even if `wait` is over; only then does the deadline apply.
        let next = if caught_up {
            tokio::select! {
                next = timeout_at(deadline, stream.next()) => next.unwrap_or(None),
                () = permit.superseded() => {
                    let retry_after_ms = 1_000 + app.jitter(1_000);
                    frames.push(FrameOut::Bye { reason: "superseded", retry_after_ms }.text());
                    None
                }
            }
        } else {
            stream.next().await
        };
        match next {
            Some(Frame::CaughtUp { .. }) => {
                caught_up = true;
                if !frames.is_empty() {
                    break;
                }
            }
            Some(frame) => {
                frames.push(frame::text(app, &frame, side));
                if caught_up || matches!(frame, Frame::Signal { .. } | Frame::Bye(_) | Frame::Reset { .. }) {
                    break;
                }
            }
            None => break,
        }
    }
    let frames = frames.iter().filter_map(|frame| serde_json::from_str(frame).ok()).collect();
    Ok(serde_json::to_string(&Polled { frames, cursor: stream.cursor().to_string() }).unwrap_or_default())
}

fn follow_events(app: App, stream: Stream, permit: StreamPermit, heartbeat: Option<Duration>) -> Response {
    let side = stream.membership().side;
    let retry = Duration::from_millis(1_000 + app.jitter(2_000));
    let keep_alive = match heartbeat {
        Some(interval) => {
            KeepAlive::new().interval(interval).event(Event::default().data(FrameOut::Ping.text()))
        }
        None => KeepAlive::new().interval(Duration::from_millis(20_000 + app.jitter(10_000))).text("ping"),
    };
    let begin = (Box::new((app, stream, permit)), Some(retry));
    let events = futures_util::stream::unfold(begin, move |(mut held, retry)| async move {
        let (app, stream, _) = &mut *held;
        let frame = stream.next().await?;
        let mut event = Event::default().data(frame::text(app, &frame, side));
        if !matches!(frame, Frame::Signal { .. } | Frame::Presence { .. } | Frame::Bye(_)) {
            event = event.id(stream.cursor().to_string());
        }
        // Sent with the first frame: some clients take a lone `retry` for an event.
        if let Some(retry) = retry {
            event = event.retry(retry);
        }
        Some((Ok::<_, Infallible>(event), (held, None)))
    });
    (Extension(StreamingResponse), event_stream(events, keep_alive)).into_response()
}

/// Ends an event stream that cannot be served for now, so that a browser reconnects.
fn temporary_refusal(app: &App, problem: &Problem) -> Response {
    let (min_ms, spread_ms) = match problem.code() {
        // The limit applies while the account's other streams are open, and each new attempt costs a request.
        "too_many_streams" => (60_000, 60_000),
        _ => (5_000, 10_000),
    };
    let retry_after_ms = min_ms + app.jitter(spread_ms);
    let bye = FrameOut::Bye { reason: problem.code(), retry_after_ms };
    let event = Event::default().data(bye.text()).retry(Duration::from_millis(retry_after_ms));
    event_stream(futures_util::stream::iter([Ok(event)]), KeepAlive::new()).into_response()
}

/// Server-sent events that proxies forward immediately: neither cached, compressed nor buffered.
///
/// A comment comes first, for proxies and clients that wait for the first byte.
fn event_stream(
    events: impl futures_util::Stream<Item = Result<Event, Infallible>> + Send + 'static,
    keep_alive: KeepAlive,
) -> impl IntoResponse {
    let opening = futures_util::stream::iter([Ok(Event::default().comment("open"))]);
    let events = opening.chain(events);
    let headers = [
        (header::CACHE_CONTROL, "no-store, no-cache, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Sse::new(events).keep_alive(keep_alive))
}
