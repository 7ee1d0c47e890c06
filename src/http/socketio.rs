//! Live delivery to Socket.IO clients: the frames of every transport, as events named by their type.
//!
//! Over a WebSocket any process serves any connection, as with the other transports. Engine.IO's long polling needs sticky sessions: all
//! its requests must reach the process that began it. Behind a load balancer, clients should set `transports: ["websocket"]`.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::Request,
    http::HeaderMap,
    routing::{MethodRouter, any_service},
};
use couple_core::Secret;
use couple_notify::live::{Cursor, Stream};
use serde::Deserialize as _;
use serde_json::{Value, value::RawValue};
use socketioxide::{
    ParserConfig, SendError, SocketError, SocketIo,
    extract::{SocketRef, TryData},
    handler::ConnectHandler as _,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tower::service_fn;

use super::{
    ApiResult, App, Problem,
    caller::HostRequest,
    engine_sessions::{Engine, MAX_MESSAGE_BYTES, Session, not_found},
    frame::{self, ClientFrame, FrameOut},
    heartbeat::{self, Heartbeat},
    live::{Announced, authenticated, stream_span},
    stream_permits::StreamPermit,
};

/// Maximum number of messages that are queued for a client.
const MAX_QUEUED_PACKETS: usize = 32;
/// Maximum time for which a client may accept no bytes.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time for a client to authenticate; then the library closes its session.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// `auth` of a client that connects. Unknown keys are ignored.
struct Auth {
    /// Required for built-in sessions.
    token: Option<Secret<String>>,
    /// Cursor to continue after. Without one, only new entries are sent.
    cursor: Option<Cursor>,
    presence: Announced,
    heartbeat: Option<Duration>,
}

impl Auth {
    fn read(auth: &Value) -> ApiResult<Self> {
        let token = auth.get("token").and_then(Value::as_str).map(|token| Secret::new(token.to_owned()));
        let value = |name: &str| auth.get(name).filter(|value| !value.is_null());
        let invalid = |name: &str| Problem::new("invalid_field").field(name, "invalid");
        let cursor = value("cursor").map(|cursor| match cursor {
            Value::String(text) => text.parse().map_err(|_| invalid("cursor")),
            // A `seq`.
            Value::Number(seq) => seq.to_string().parse().map_err(|_| invalid("cursor")),
            _ => Err(invalid("cursor")),
        });
        let presence = value("presence").map(Announced::deserialize);
        let heartbeat =
            value("heartbeat").map(|seconds| seconds.as_u64().ok_or_else(|| invalid("heartbeat")));
        Ok(Self {
            token,
            cursor: cursor.transpose()?,
            presence: presence.transpose().map_err(|_| invalid("presence"))?.unwrap_or_default(),
            heartbeat: heartbeat::interval(heartbeat.transpose()?)?,
        })
    }
}

/// Reason for refusing a client; the problem's code is the message of its `connect_error`.
struct ConnectError(Problem);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code())
    }
}

/// An authenticated client, before its task starts.
struct PendingFollower {
    stream: Stream,
    permit: StreamPermit,
    session: Arc<Session>,
    /// Notified when the client is disconnected.
    disconnected: mpsc::Receiver<()>,
    /// Events that the client sends.
    events: mpsc::Receiver<Event>,
    heartbeat: Heartbeat,
}

/// An event that a client sends.
enum Event {
    /// A signal. None: the argument is not a signal.
    Signal(Option<ClientFrame>),
    Ping,
}

/// Result of a client's authentication, taken by the handler of its connection.
type AuthResult = Arc<Mutex<Option<PendingFollower>>>;

/// Route of Socket.IO clients.
pub(super) fn route(app: &App) -> MethodRouter<App> {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .ping_interval(Duration::from_secs(25))
        .ping_timeout(Duration::from_secs(20))
        .connect_timeout(HANDSHAKE_TIMEOUT)
        .max_payload(MAX_MESSAGE_BYTES as u64)
        .ws_max_message_size(MAX_MESSAGE_BYTES)
        .ws_max_frame_size(MAX_MESSAGE_BYTES)
        .ws_read_buffer_size(256)
        .max_buffer_size(MAX_QUEUED_PACKETS)
        .with_parser(ParserConfig::common().max_incoming_binaries(0))
        .build_with_inner_svc(service_fn(not_found as fn(_) -> _));
    let (connect_app, follow_app) = (app.clone(), app.clone());
    let authenticate = async move |socket: SocketRef, TryData(auth): TryData<Value>| {
        let session = socket.req_parts().extensions.get::<Arc<Session>>().cloned();
        let session = session.ok_or_else(|| ConnectError(Problem::new("internal_error")))?;
        if !session.asks_first() {
            return Err(ConnectError(Problem::new("malformed_request")));
        }
        match open(&connect_app, &socket, &session, &auth.unwrap_or_default()).await {
            Ok(follower) => {
                session.release_permit();
                let opened: AuthResult = Arc::new(Mutex::new(Some(follower)));
                socket.extensions.insert(opened);
                Ok::<(), ConnectError>(())
            }
            Err(problem) => {
                tokio::spawn(async move { session.close_gracefully().await });
                Err(ConnectError(problem))
            }
        }
    };
    let begin = async move |socket: SocketRef| {
        let opened = socket.extensions.remove::<AuthResult>();
        let opened = opened.and_then(|opened| opened.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(follower) = opened {
            follow(&follow_app, socket, follower).await;
        }
    };
    let _: () = io.ns("/", begin.with(authenticate));
    let engine = Engine::new(app.clone(), service);
    any_service(service_fn(move |request: Request| engine.clone().answer(request)))
}

async fn open(
    app: &App,
    socket: &SocketRef,
    session: &Arc<Session>,
    auth: &Value,
) -> ApiResult<PendingFollower> {
    let auth = Auth::read(auth)?;
    let request = HostRequest(session.take_head());
    let token = auth.token;
    let caller = authenticated(app, request.credentials(&HeaderMap::new(), || token)?).await?;
    let permit = app.streams.take(caller.id())?;
    let span = stream_span(&socket.req_parts().headers);
    let stream = super::live::open(app, &caller, auth.cursor, auth.presence, span).await?;
    // Registered before the client is notified that it is connected, since it may disconnect or send an event from then on.
    let (disconnect, disconnected) = mpsc::channel(1);
    socket.on_disconnect(async move || {
        let _ = disconnect.try_send(());
    });
    let (sender, events) = mpsc::channel(4);
    let ping_sender = sender.clone();
    socket.on("signal", async move |TryData(frame): TryData<ClientFrame>| {
        // If the queue is full, the signal is lost, as signals may be.
        let _ = sender.try_send(Event::Signal(frame.ok()));
    });
    socket.on("ping", async move || {
        let _ = ping_sender.try_send(Event::Ping);
    });
    let heartbeat = Heartbeat::new(auth.heartbeat);
    Ok(PendingFollower { stream, permit, session: session.clone(), disconnected, events, heartbeat })
}

/// Serves the client until its connection ends. Then closes its session and returns its permit.
async fn follow(app: &App, socket: SocketRef, follower: PendingFollower) {
    let PendingFollower { mut stream, permit, session, mut disconnected, mut events, mut heartbeat } =
        follower;
    session.release_retained();
    let connection = Connection { socket: Some(socket.clone()), session };
    let side = stream.membership().side;
    loop {
        let (name, text) = tokio::select! {
            frame = stream.next() => match frame {
                Some(frame) => (frame::name(&frame), frame::text(app, &frame, side)),
                None => break,
            },
            _ = disconnected.recv() => break,
            Some(event) = events.recv() => match event {
                Event::Ping => ("pong", FrameOut::Pong.text()),
                Event::Signal(None) => ("refused", frame::refused("invalid_field")),
                Event::Signal(Some(signal)) => match Box::pin(frame::forward_signal(&mut stream, &signal)).await {
                    Some(refused) => ("refused", refused),
                    None => continue,
                },
            },
            () = heartbeat.due() => ("ping", FrameOut::Ping.text()),
        };
        if !send(&socket, name, &text).await {
            break;
        }
        heartbeat.restart();
    }
    drop(stream);
    connection.close().await;
    drop(permit);
}

/// Connection of a client, which ends with its task, even by a panic: it must not stay open without frames.
struct Connection {
    /// None once it has been disconnected.
    socket: Option<SocketRef>,
    session: Arc<Session>,
}

impl Connection {
    async fn close(mut self) {
        self.disconnect();
        self.session.close_gracefully().await;
    }

    /// Disconnects the client after its pending packets. Returns whether it was connected.
    fn disconnect(&mut self) -> bool {
        self.socket.take().map(SocketRef::disconnect).is_some()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.disconnect() {
            let session = self.session.clone();
            tokio::spawn(async move { session.close_gracefully().await });
        }
    }
}

/// Sends an event; returns whether the client accepted it in time.
async fn send(socket: &SocketRef, event: &str, text: &str) -> bool {
    let frame: &RawValue = serde_json::from_str(text).unwrap_or(RawValue::NULL);
    let deadline = Instant::now() + SEND_TIMEOUT;
    loop {
        match socket.emit(event, frame) {
            Ok(()) => return true,
            Err(SendError::Socket(SocketError::InternalChannelFull)) if Instant::now() < deadline => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(_) => return false,
        }
    }
}
