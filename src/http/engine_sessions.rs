//! Engine.IO sessions, on which Socket.IO connections are based.
//!
//! They are counted per client network until they authenticate, and closed with their Socket.IO connection. The library keeps a session
//! open while its client answers pings, whether or not it is connected to a namespace. So this module adds a [`Session`] to the
//! extensions of the request that began a session, and runs its WebSocket over a [`SessionWire`], which this module can close.
//!
//! The library stores the head of the request that began a session, and keeps its state of a session that has ended until the time to
//! authenticate ends. So this module passes on only a small head, and counts sessions in memory by permits of their own.
//!
//! The library accepts messages as fast as its client sends them, so this module counts the frames of a WebSocket and the packets of
//! polling requests.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{self, Ready},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::gauge::Gauge;
use socketioxide::service::SocketIoService;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, oneshot},
    time::{Sleep, sleep, timeout},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tower::{Service as _, util::ServiceFn};

use super::{
    ApiResult, App, Problem,
    caller::HostRequest,
    client_permits::ClientPermit,
    extract,
    guard::{BODY_TIMEOUT, REQUEST_ID},
    message_rate::MessageRate,
    server::body_problem,
    websocket_frames::FrameCounter,
};

/// Path of Engine.IO, the default of clients.
pub(super) const PATH: &str = "/socket.io/";

/// Maximum bytes of a client's message.
pub(super) const MAX_MESSAGE_BYTES: usize = 4096;
/// Time for a client to read the last packets and to close the session itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum size of the response that begins a session, in bytes.
const OPEN_PACKET: usize = 1024;

/// Service for paths that the Socket.IO library does not serve.
pub(super) type Otherwise = ServiceFn<fn(Request) -> Ready<Result<Response, Infallible>>>;

pub(super) fn not_found(_: Request) -> Ready<Result<Response, Infallible>> {
    future::ready(Ok(Problem::new("not_found").into_response()))
}

/// The Socket.IO library, with limits on its sessions.
pub(super) struct Engine {
    app: App,
    service: SocketIoService<Otherwise>,
    /// Sessions that began with polling, by `sid`; a later request may upgrade them.
    polling: Mutex<HashMap<String, Weak<Session>>>,
}

/// Parameters of a request to the engine.
struct EngineRequest<'a> {
    sid: Option<&'a str>,
    websocket: bool,
}

impl<'a> EngineRequest<'a> {
    /// Whether the library reads the same values as this module.
    ///
    /// It reads `websocket` from `transport=websocket=x`, and a different one of two `sid`.
    fn is_unambiguous(uri: &Uri) -> bool {
        ["EIO", "transport", "sid"].iter().all(|name| {
            let mut values = uri.query().unwrap_or("").split('&').filter_map(|pair| {
                pair.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('='))
            });
            let first = values.next();
            values.next().is_none() && first.is_none_or(|value| value.matches('=').count() <= 1)
        })
    }

    fn by(uri: &'a Uri) -> Self {
        let value = |name: &str| {
            let mut pairs = uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        // The library itself refuses other invalid requests.
        let websocket = value("transport") == Some("websocket") && value("EIO") == Some("4");
        Self { sid: value("sid"), websocket }
    }
}

impl Engine {
    pub(super) fn new(app: App, service: SocketIoService<Otherwise>) -> Arc<Self> {
        Arc::new(Self { app, service, polling: Mutex::default() })
    }

    fn polling(&self) -> MutexGuard<'_, HashMap<String, Weak<Session>>> {
        self.polling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Infallible> {
        let uri = request.uri().clone();
        if !EngineRequest::is_unambiguous(&uri) {
            let problem =
                Problem::new("malformed_request").detail("EIO, transport and sid may occur only once each");
            return Ok(problem.into_response());
        }
        let parameters = EngineRequest::by(&uri);
        let answer = match (parameters.sid, parameters.websocket) {
            (None, true) => self.begin(&request).and_then(|session| self.upgrade(request, session)),
            (None, false) => match self.begin(&request) {
                Ok(session) => {
                    let mut head = stored_head(&request, &session).map(|()| Body::empty());
                    *head.method_mut() = request.method().clone();
                    return Ok(self.register(session, self.pass_on(head).await?).await);
                }
                Err(problem) => Err(problem),
            },
            (Some(sid), true) => {
                let session = self.polling().get(sid).and_then(Weak::upgrade);
                let session = session.ok_or_else(|| Problem::new("malformed_request").detail("unknown sid"));
                session.and_then(|session| self.upgrade(request, session))
            }
            (Some(sid), false) => {
                let session = self.polling().get(sid).and_then(Weak::upgrade);
                return match session {
                    Some(session) => self.exchange(&session, request).await,
                    None => self.pass_on(request).await,
                };
            }
        };
        Ok(answer.unwrap_or_else(Problem::into_response))
    }

    async fn pass_on(&self, request: Request) -> Result<Response, Infallible> {
        Ok(self.service.clone().call(request).await?.map(Body::new))
    }

    /// Forwards a request of a polling session.
    ///
    /// Ends the session if its client closes it, or sends invalid packets.
    async fn exchange(&self, session: &Session, request: Request) -> Result<Response, Infallible> {
        let (head, body) = request.into_parts();
        let (body, closes) = match head.method {
            Method::POST => match session.packets(body).await {
                Ok((packets, closes)) => (Body::from(packets), closes),
                Err(problem) => {
                    session.end_polling().await;
                    return Ok(problem.into_response());
                }
            },
            _ => (body, false),
        };
        let response = self.pass_on(Request::from_parts(head, body)).await?;
        if closes || !response.status().is_success() {
            session.end_polling().await;
        }
        Ok(response)
    }

    fn begin(self: &Arc<Self>, request: &Request) -> ApiResult<Arc<Session>> {
        let client = extract::client_address(&self.app, request.extensions(), request.headers());
        let handshake = self.app.handshakes.take(client)?;
        let retained = self.app.retained_sessions.take(client)?;
        self.app.metrics.socketio_sessions.inc();
        Ok(Arc::new(Session {
            engine: Arc::downgrade(self),
            sid: OnceLock::new(),
            handshake: Mutex::new(Some(handshake)),
            retained: Mutex::new(Some(retained)),
            connect_requested: AtomicBool::new(false),
            wire: Mutex::default(),
            rate: Mutex::new(MessageRate::new()),
            over: Notify::new(),
            gauge: self.app.metrics.socketio_sessions.clone(),
            head: Mutex::new(HostRequest::of(&self.app, request).0),
        }))
    }

    /// Stores the `sid` of a session that begins with polling, from its open packet `0{"sid":"…",…}`.
    async fn register(&self, session: Arc<Session>, response: Response) -> Response {
        if response.status() != StatusCode::OK {
            return response;
        }
        let (head, body) = response.into_parts();
        let Ok(packet) = to_bytes(body, OPEN_PACKET).await else {
            return Problem::new("internal_error").into_response();
        };
        let open = packet.strip_prefix(b"0").map(serde_json::from_slice::<serde_json::Value>);
        if let Some(Ok(open)) = open
            && let Some(sid) = open["sid"].as_str()
        {
            self.polling()
                .insert(session.sid.get_or_init(|| sid.to_owned()).clone(), Arc::downgrade(&session));
        }
        Response::from_parts(head, Body::from(packet))
    }

    /// Upgrades the connection to a session's WebSocket (RFC 6455, 4.2.2).
    fn upgrade(&self, mut request: Request, session: Arc<Session>) -> ApiResult<Response> {
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let (Some(key), Some(upgrade), &Method::GET) = (key, upgrade, request.method()) else {
            return Err(Problem::new("malformed_request").detail("not a valid WebSocket upgrade"));
        };
        let head = stored_head(&request, &session);
        let mut service = self.service.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let polled = session.sid.get().is_some();
            let (wire, closed) = SessionWire::over(upgraded, session.clone());
            let _ = service.call((wire, head)).await;
            // After a failed probe, the library's session would stay in the state of upgrading for ever.
            if polled {
                let _ = closed.await;
                session.close().await;
            }
        });
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
        let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = answer.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.map_err(|_| Problem::new("internal_error"))?);
        Ok(answer)
    }
}

/// Request to begin or upgrade a session, with the parts that the library and [`super::socketio`] read.
///
/// The library stores it with the session. Copies are made because a part of a request keeps the whole read buffer in memory.
fn stored_head(request: &Request, session: &Arc<Session>) -> axum::http::Request<()> {
    let read = |pair: &&str| ["EIO=", "transport=", "sid="].iter().any(|name| pair.starts_with(name));
    let pairs: Vec<&str> = request.uri().query().unwrap_or("").split('&').filter(read).collect();
    let mut head = axum::http::Request::new(());
    if let Ok(uri) = format!("{}?{}", request.uri().path(), pairs.join("&")).parse() {
        *head.uri_mut() = uri;
    }
    if let Some(id) = request.headers().get(REQUEST_ID)
        && let Ok(copy) = HeaderValue::from_bytes(id.as_bytes())
    {
        head.headers_mut().insert(REQUEST_ID, copy);
    }
    head.extensions_mut().insert(session.clone());
    head
}

/// An Engine.IO session.
pub(super) struct Session {
    engine: Weak<Engine>,
    /// `sid` of a session that began with polling.
    sid: OnceLock<String>,
    /// Held until the session authenticates or ends.
    handshake: Mutex<Option<ClientPermit>>,
    /// Held until the client is connected to the namespace, or the library drops its state of the session.
    retained: Mutex<Option<ClientPermit>>,
    /// Whether its client has asked to connect to the namespace.
    connect_requested: AtomicBool,
    wire: Mutex<WireState>,
    /// Rate limit of the client's messages.
    rate: Mutex<MessageRate>,
    /// Notified when its WebSocket is closed.
    over: Notify,
    /// Number of sessions in memory.
    gauge: Gauge,
    /// Head of the request that began the session, for the host's authenticator. Kept until the client authenticates.
    head: Mutex<Option<Box<Parts>>>,
}

/// WebSocket of a session.
#[derive(Debug, Default)]
struct WireState {
    /// Closes the WebSocket when dropped. None: the session has no WebSocket.
    close: Option<oneshot::Sender<()>>,
    /// Whether the session has ended. A later WebSocket is closed immediately.
    ended: bool,
}

impl Session {
    /// Whether this is the first request to connect. A session gets one response, and is closed after it.
    pub(super) fn asks_first(&self) -> bool {
        !self.connect_requested.swap(true, Ordering::Relaxed)
    }

    /// Head of the request that began the session, if a host authenticates the client.
    pub(super) fn take_head(&self) -> Option<Box<Parts>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the permit of a session that has authenticated and is now counted by its account.
    pub(super) fn release_permit(&self) {
        drop(self.handshake.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Stops counting a session whose client is connected to the namespace.
    ///
    /// The library drops its state of such a session as soon as the session ends.
    pub(super) fn release_retained(&self) {
        drop(self.retained.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether the client may send this number of further messages.
    fn allows(&self, messages: u32) -> bool {
        messages == 0 || self.rate.lock().unwrap_or_else(PoisonError::into_inner).allows(messages)
    }

    /// Reads the packets of a request; returns also whether one of them closes the session.
    async fn packets(&self, body: Body) -> ApiResult<(Bytes, bool)> {
        let read = timeout(BODY_TIMEOUT, to_bytes(body, MAX_MESSAGE_BYTES)).await;
        let packets =
            read.map_err(|_| Problem::new("body_timed_out"))?.map_err(|error| body_problem(&error))?;
        let (mut count, mut closes) = (0, false);
        for packet in packets.split(|byte| *byte == SEPARATOR) {
            count += 1;
            closes |= packet.first() == Some(&CLOSE_PACKET);
        }
        if self.allows(count) { Ok((packets, closes)) } else { Err(Problem::new("rate_limited")) }
    }

    /// Ends a polling session, unless it was upgraded meanwhile, and returns its permit.
    ///
    /// The library keeps its state of an ended session until the time to authenticate ends.
    async fn end_polling(&self) {
        let ends = {
            let mut wire = self.wire();
            let ends = wire.close.is_none();
            // No upgrade may come between this check and the close packet.
            wire.ended |= ends;
            ends
        };
        if ends {
            self.release_permit();
            self.close().await;
        }
    }

    fn wire(&self) -> MutexGuard<'_, WireState> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the WebSocket of the session. Closes an older one, and the new one if the session has ended.
    fn set_wire(&self, close: oneshot::Sender<()>) {
        let mut wire = self.wire();
        wire.close = (!wire.ended).then_some(close);
    }

    /// Closes the session after its client has had [`CLOSE_TIMEOUT`] to read the last packets.
    pub(super) async fn close_gracefully(&self) {
        let _ = timeout(CLOSE_TIMEOUT, self.over.notified()).await;
        self.close().await;
    }

    /// Closes the session, whatever its transport.
    async fn close(&self) {
        *self.wire() = WireState { close: None, ended: true };
        if let (Some(sid), Some(engine)) = (self.sid.get(), self.engine.upgrade()) {
            // Sends a close packet, as its client would. A session that was upgraded refuses it.
            let uri = format!("{PATH}?EIO=4&transport=polling&sid={sid}");
            let mut request = Request::new(Body::from(Bytes::from_static(&[CLOSE_PACKET])));
            *request.method_mut() = Method::POST;
            if let Ok(uri) = uri.parse() {
                *request.uri_mut() = uri;
                let _ = engine.pass_on(request).await;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gauge.dec();
        if let (Some(sid), Some(engine)) = (self.sid.get(), self.engine.upgrade()) {
            engine.polling().remove(sid);
        }
    }
}

/// Separates packets of one request (Engine.IO 4).
const SEPARATOR: u8 = 0x1E;
/// The close packet of Engine.IO.
const CLOSE_PACKET: u8 = b'1';
/// The close packet as a client's text frame with a zero mask (RFC 6455, 5.2).
const CLOSE_FRAME: [u8; 7] = [0x81, 0x81, 0, 0, 0, 0, CLOSE_PACKET];
/// A server's close frame with the code 1008, policy violation (RFC 6455, 7.4.1).
const REFUSAL_FRAME: [u8; 4] = [0x88, 2, 0x03, 0xF0];
/// Maximum bytes that are discarded of a client that sent too many messages.
///
/// Reading them lets the client receive the close frame.
const DISCARDED: usize = 1 << 20;

/// WebSocket connection of a session, which this module can close.
///
/// Once closed, it reads as if its client had closed it: the library then writes pending packets, and ends the connection.
struct SessionWire {
    io: TokioIo<Upgraded>,
    /// None: the session is closed.
    closing: Option<oneshot::Receiver<()>>,
    session: Arc<Session>,
    read: FrameCounter,
    written: FrameCounter,
    /// The client sent too many messages.
    refused: Option<Refused>,
    /// Sender that is dropped with the connection, which its receiver notices.
    _gone: oneshot::Sender<()>,
}

/// State of a connection whose client sent too many messages.
struct Refused {
    until: Pin<Box<Sleep>>,
    discarded: usize,
}

impl SessionWire {
    fn over(upgraded: Upgraded, session: Arc<Session>) -> (Self, oneshot::Receiver<()>) {
        let (close, closing) = oneshot::channel();
        let (gone, ended) = oneshot::channel();
        session.set_wire(close);
        let wire = Self {
            io: TokioIo::new(upgraded),
            closing: Some(closing),
            session,
            read: FrameCounter::default(),
            written: FrameCounter::default(),
            refused: None,
            _gone: gone,
        };
        (wire, ended)
    }

    /// Sends the close frame for too many messages. Later writes of the library are dropped.
    fn refuse(&mut self, context: &mut Context<'_>) {
        if self.written.is_between() {
            // A client that accepts no bytes gets no close frame.
            let _ = Pin::new(&mut self.io).poll_write(context, &REFUSAL_FRAME);
        }
        self.refused = Some(Refused { until: Box::pin(sleep(CLOSE_TIMEOUT)), discarded: 0 });
    }

    /// Discards bytes of a refused client until it closes the connection, for a limited time.
    fn poll_discard(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(refused) = &mut self.refused else { return Poll::Ready(Ok(())) };
        let begin = buffer.filled().len();
        while refused.discarded < DISCARDED && refused.until.as_mut().poll(context).is_pending() {
            let read = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
            let bytes = buffer.filled().len() - begin;
            buffer.set_filled(begin);
            if read.is_err() || bytes == 0 {
                break;
            }
            refused.discarded += bytes;
        }
        // The library sees the end of the connection.
        Poll::Ready(Ok(()))
    }
}

impl Drop for SessionWire {
    fn drop(&mut self) {
        self.session.release_permit();
        self.session.over.notify_one();
    }
}

impl AsyncRead for SessionWire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        if wire.refused.is_some() {
            return wire.poll_discard(context, buffer);
        }
        let Some(closing) = &mut wire.closing else { return Poll::Ready(Ok(())) };
        if Pin::new(closing).poll(context).is_ready() {
            wire.closing = None;
            if buffer.remaining() >= CLOSE_FRAME.len() {
                buffer.put_slice(&CLOSE_FRAME);
            }
            return Poll::Ready(Ok(()));
        }
        let begin = buffer.filled().len();
        ready!(Pin::new(&mut wire.io).poll_read(context, buffer))?;
        let frames = wire.read.count(&buffer.filled()[begin..]);
        if wire.session.allows(frames) {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(begin);
        wire.refuse(context);
        wire.poll_discard(context, buffer)
    }
}

impl AsyncWrite for SessionWire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.refused.is_some() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.written.count(&bytes[..written]);
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<Session> {
        Arc::new(Session {
            engine: Weak::new(),
            sid: OnceLock::new(),
            handshake: Mutex::default(),
            retained: Mutex::default(),
            connect_requested: AtomicBool::new(false),
            wire: Mutex::default(),
            rate: Mutex::new(MessageRate::new()),
            over: Notify::new(),
            gauge: Gauge::default(),
            head: Mutex::default(),
        })
    }

    /// The upgrade may have begun before the session ended.
    #[tokio::test]
    async fn websocket_of_an_ended_session_is_closed() {
        let (session, (close, mut closed)) = (session(), oneshot::channel());
        session.end_polling().await;
        session.set_wire(close);
        assert_eq!(closed.try_recv(), Err(oneshot::error::TryRecvError::Closed));

        let (session, (close, mut closed)) = (self::session(), oneshot::channel());
        session.set_wire(close);
        session.end_polling().await;
        assert_eq!(closed.try_recv(), Err(oneshot::error::TryRecvError::Empty), "it was upgraded before");
    }

    #[test]
    fn stored_head_of_a_request_is_small() {
        let padding = "a".repeat(6_000);
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("{PATH}?a={padding}&EIO=4&transport=polling&b=c").parse().unwrap();
        let value = HeaderValue::try_from(padding).unwrap();
        request.headers_mut().insert("x-padding", value.clone());
        request.headers_mut().insert(header::USER_AGENT, value);
        request.headers_mut().insert(REQUEST_ID, HeaderValue::from_static("id"));
        request.extensions_mut().insert([0_u8; 1_000]);
        let head = stored_head(&request, &session());
        assert_eq!(head.uri().to_string(), format!("{PATH}?EIO=4&transport=polling"));
        assert_eq!((head.headers().len(), &head.headers()[REQUEST_ID]), (1, &HeaderValue::from_static("id")));
        assert!(head.extensions().get::<Arc<Session>>().is_some() && head.extensions().len() == 1);
    }
}
