//! Live delivery to Socket.IO clients: the frames of every transport, as events that are named as they are.
//!
//! Over a WebSocket any process serves any connection, as everywhere. Engine.IO's long polling is the one transport that is
//! sticky: its requests must all reach the process that began it. Behind a balancer have clients set
//! `transports: ["websocket"]`.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{OriginalUri, Request},
    http::HeaderValue,
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, any_service},
};
use couple_core::Secret;
use couple_notify::live::{Cursor, Stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide::{
    ParserConfig, SendError, SocketError, SocketIo,
    extract::{SocketRef, TryData},
    handler::ConnectHandler as _,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};
use tower::{Service as _, service_fn};

use super::{
    Answer, App, Problem,
    frame::{self, Said},
    live::{Announced, signed},
    places::Place,
};

/// Where clients look for it unless they are told otherwise.
pub(super) const PATH: &str = "/socket.io/";

/// What a client may send at once, in bytes.
const MESSAGE: usize = 4096;
/// Messages that wait for a client.
const QUEUE: usize = 32;
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client has to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a client says of itself when it connects.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    token: Secret<String>,
    /// Without one: from now on.
    cursor: Option<String>,
    #[serde(default)]
    presence: Announced,
}

/// Why a client is not let in: a problem's code is the message of its `connect_error`.
struct Refused(Problem);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code())
    }
}

/// What follows, from when a client is let in until it is told so.
type Opened = Arc<Mutex<Option<(Stream, Place)>>>;

/// Answers Socket.IO clients.
pub(super) fn route(app: &App) -> MethodRouter<App> {
    let (service, io) = SocketIo::builder()
        .req_path("/socket.io")
        .ping_interval(Duration::from_secs(25))
        .ping_timeout(Duration::from_secs(20))
        .connect_timeout(HANDSHAKE)
        .max_payload(MESSAGE as u64)
        .ws_max_message_size(MESSAGE)
        .ws_max_frame_size(MESSAGE)
        .ws_read_buffer_size(256)
        .max_buffer_size(QUEUE)
        .with_parser(ParserConfig::common().max_incoming_binaries(0))
        .build_svc();
    let (door, inside) = (app.clone(), app.clone());
    let let_in = async move |socket: SocketRef, TryData(auth): TryData<Auth>| {
        let auth = auth.map_err(|_| Refused(Problem::new("unauthenticated")))?;
        let opened = open(&door, auth).await.map_err(Refused)?;
        let opened: Opened = Arc::new(Mutex::new(Some(opened)));
        socket.extensions.insert(opened);
        Ok::<(), Refused>(())
    };
    let begin = async move |socket: SocketRef| {
        let opened = socket.extensions.remove::<Opened>();
        let opened = opened.and_then(|opened| opened.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some((stream, place)) = opened {
            follow(&inside, socket, stream, place).await;
        }
    };
    let _: () = io.ns("/", begin.with(let_in));
    // Who has not said yet who they are is counted by nobody else.
    let handshakes = Arc::new(Semaphore::new(app.options.live_connections));
    any_service(service_fn(move |request: Request| {
        let (mut service, handshakes) = (service.clone(), handshakes.clone());
        async move {
            let begins = !request
                .uri()
                .query()
                .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("sid=")));
            if begins {
                let Ok(place) = handshakes.try_acquire_owned() else {
                    return Ok(Problem::new("overloaded").into_response());
                };
                tokio::spawn(async move {
                    sleep(HANDSHAKE).await;
                    drop(place);
                });
            }
            let answer = service.call(by_itself(request)).await?;
            Ok::<Response, Infallible>(answer.map(Body::new))
        }
    }))
}

/// Has a copy of what a request says. Its socket keeps it for as long as it lives, and with it the 8 KiB that it was read into.
fn by_itself(mut request: Request) -> Request {
    for value in request.headers_mut().values_mut() {
        if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = copy;
        }
    }
    if let Ok(copy) = request.uri().to_string().parse() {
        *request.uri_mut() = copy;
    }
    // The same address once more, for the routes within routes.
    request.extensions_mut().remove::<OriginalUri>();
    request
}

async fn open(app: &App, auth: Auth) -> Answer<(Stream, Place)> {
    let after = auth.cursor.as_deref().map(str::parse::<Cursor>).transpose();
    let after = after.map_err(|_| Problem::new("invalid_field").field("cursor", "invalid"))?;
    let signed = signed(app, auth.token).await?;
    let place = app.streams.take(signed.id())?;
    let stream = super::live::open(app, &signed, after, auth.presence).await?;
    Ok((stream, place))
}

/// Until the client goes or is told to.
async fn follow(app: &App, socket: SocketRef, mut stream: Stream, place: Place) {
    let side = stream.membership().side;
    let (gone, mut left) = mpsc::channel::<()>(1);
    socket.on_disconnect(async move || {
        let _ = gone.try_send(());
    });
    let (said, mut hears) = mpsc::channel::<Option<Said>>(4);
    socket.on("signal", async move |TryData(frame): TryData<Said>| {
        // Full: as if the network had lost it.
        let _ = said.try_send(frame.ok());
    });
    // It may have gone before anybody listened for that.
    while socket.connected() {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            _ = left.recv() => break,
            Some(said) = hears.recv() => {
                let answer = match said {
                    Some(said) => Box::pin(frame::pass_on(&mut stream, &said)).await,
                    None => Some(frame::refused("invalid_field")),
                };
                match answer {
                    Some(answer) if !send(&socket, "refused", &answer).await => break,
                    _ => continue,
                }
            }
        };
        let Some(frame) = frame else { break };
        if !send(&socket, frame::name(&frame), &frame::text(app, &frame, side)).await {
            break;
        }
    }
    drop(place);
    // What was said goes out first.
    let _ = socket.disconnect();
}

/// Whether it was taken.
async fn send(socket: &SocketRef, event: &str, text: &str) -> bool {
    let frame: &RawValue = serde_json::from_str(text).unwrap_or(RawValue::NULL);
    let patience = Instant::now() + PATIENCE;
    loop {
        match socket.emit(event, frame) {
            Ok(()) => return true,
            Err(SendError::Socket(SocketError::InternalChannelFull)) if Instant::now() < patience => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(_) => return false,
        }
    }
}
