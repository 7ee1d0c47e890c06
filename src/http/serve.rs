//! The server loop: like `axum::serve`, with limits on connections and on slow clients.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request, Version, header, uri::Authority},
    response::IntoResponse as _,
};
use hyper::{
    body::{Body as _, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::{unconstrained, yield_now},
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt as _;

use super::{
    Problem,
    connection::{Connection, READ_AHEAD_BYTES, last_answer},
    connection_table::{Activity, Bounds, ConnectionTable, Full},
    descriptors::affordable,
    request_body::{BodyPace, RequestBody},
    streaming_response::{self, Slot},
};

/// Maximum connections that wait to be accepted: after a restart all clients reconnect within a moment.
const ACCEPT_BACKLOG: u32 = 4096;
/// Maximum connections that are accepted before the loop yields to other tasks.
const MAX_ACCEPTS_PER_TURN: usize = 1024;
/// Pause after the system could not accept a connection, most likely for lack of file descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Maximum refused connections that concurrently get a response; further ones are just closed.
const MAX_CONCURRENT_REFUSALS: usize = 32;

/// Limits and timeouts of connections.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Maximum concurrent connections. Default: 20,000.
    ///
    /// When all are in use, the one that has waited longest for its client is closed for a new one; when none waits, a new one gets
    /// 503. Fewer are accepted if the limit on open files is lower, see [`raise_descriptor_limit`].
    ///
    /// [`raise_descriptor_limit`]: super::raise_descriptor_limit
    pub connections: usize,
    /// Maximum connections of one IPv4 address or one IPv6 /64.
    ///
    /// Default: none, which is an eighth of `connections`.
    ///
    /// A /56 has twice as many and a /48 four times. The client's longest waiting connection is closed for a new one; if none waits, the
    /// new one gets 429.
    pub connections_per_client: Option<usize>,
    /// Peers that `connections_per_client` does not limit: reverse proxies. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Maximum time for the head of a request to arrive, and so the maximum idle time of a connection.
    ///
    /// Default: 30 s.
    pub head_timeout: Duration,
    /// Maximum time for the next part of a request's body to arrive, on every route.
    ///
    /// Default: 65 s, a little more than for uploads, which have their own limits.
    pub body_timeout: Duration,
    /// Minimum bytes of a body per second of waiting for it, on average over `body_timeout`.
    ///
    /// Default: 250, a quarter of the rate of a bad mobile network.
    pub body_rate: u32,
    /// Maximum time for which a client may accept none of the bytes sent to it. Default: 10 s.
    pub write_timeout: Duration,
    /// Maximum time to drain the rest of a request that was answered early. Default: 30 s.
    ///
    /// At most 32 MiB are read, and a pause of 5 s ends it.
    pub linger: Duration,
    /// Time for which connections are still accepted after `stop` completes. Default: 5 s.
    ///
    /// In this time load balancers see that the server is not ready and stop sending requests.
    pub stop_delay: Duration,
    /// Maximum time for open connections to end after `stop_delay`. Default: 10 s.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_client: None,
            trusted_proxies: Vec::new(),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(65),
            body_rate: 250,
            write_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(30),
            stop_delay: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// Listens at an address, with a long queue for connections that arrive together.
///
/// # Errors
/// The error of the system: the address is in use, or may not be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // On Windows it would let two processes share a port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Serves connections with `router` until `stop` completes and `stop_delay` has passed.
///
/// Then it waits at most `drain` for open connections to end. Handlers find the client's address in [`ConnectInfo`]. The router also
/// runs under `axum::serve`; this server limits the resources of a client as well: the time for a head and for a body, the time to
/// accept the response, the number of connections, and the buffers of each.
///
/// Call `backend.announce_stop()` when `stop` completes, so that readiness answers 503 during `stop_delay`, and
/// `backend.live().drain()` to end live streams.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    stop: impl Future<Output = ()> + Send,
) {
    let total = affordable(options.connections);
    let per_client = options.connections_per_client.unwrap_or(total / 8).max(1);
    let table = ConnectionTable::new(Bounds { total, per_client, exempt: options.trusted_proxies.clone() });
    // Notifies all connections; closed when the last connection has ended.
    let stopping = watch::Sender::new(false);
    let mut http = http1::Builder::new();
    // The buffer into which a connection reads, and so the maximum size of a request's head.
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(READ_AHEAD_BYTES);
    let pace = BodyPace { idle: options.body_timeout, rate: options.body_rate };
    let answers = Arc::new(ConnectionServices { http, router, pace, linger: options.linger });
    let turned_away = Arc::new(Semaphore::new(MAX_CONCURRENT_REFUSALS));
    let mut refusals = RefusalWarnings::default();
    let mut stop = pin!(async {
        stop.await;
        sleep(options.stop_delay).await;
    });
    let mut taken = 0_usize;
    loop {
        // Without tokio's budget of 128 operations: otherwise, when many clients connect together, the system's queue overflows before they
        // are accepted, and a client that finds it full tries again a second later.
        let accepted = tokio::select! {
            accepted = unconstrained(listener.accept()) => accepted,
            () = stop.as_mut() => break,
        };
        taken += 1;
        if taken.is_multiple_of(MAX_ACCEPTS_PER_TURN) {
            yield_now().await;
        }
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // A connection that its client has closed already says nothing about the others.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) =>
            {
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                if !table.make_room() {
                    sleep(ACCEPT_RETRY_PAUSE).await;
                }
                // The tasks of closed connections must run to close them.
                yield_now().await;
                continue;
            }
        };
        // Small responses must not wait for more data to send.
        let _ = stream.set_nodelay(true);
        match table.register(peer.ip()) {
            Ok(registration) => {
                let activity = registration.activity().clone();
                let held = (registration, stopping.subscribe());
                // Boxed, because it is moved often.
                let connection = Connection::new(stream, options.write_timeout, options.body_rate, held);
                let connection = Box::new(connection);
                let task = tokio::spawn(answer(answers.clone(), connection, peer));
                activity.served_by(task.abort_handle());
            }
            Err(full) => {
                refusals.tell(full, peer);
                if let Ok(permit) = turned_away.clone().try_acquire_owned() {
                    tokio::spawn(async move {
                        turn_away(stream, full).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = timeout(options.drain, stopping.closed()).await;
}

/// Shared state of all connections.
struct ConnectionServices {
    http: http1::Builder,
    router: Router,
    pace: BodyPace,
    linger: Duration,
}

async fn answer(answers: Arc<ConnectionServices>, mut connection: Box<Connection>, peer: SocketAddr) {
    loop {
        // Boxed: a waiting connection must not keep memory for parsing requests.
        match Box::pin(converse(&answers, connection, peer)).await {
            Some((back, Some(body))) => {
                connection = back;
                if streaming_response::write(&mut connection, body).await.is_none() {
                    return;
                }
            }
            Some((over, None)) => return Box::pin(over.close(answers.linger)).await,
            None => return,
        }
    }
}

/// Answers requests until the connection ends or a response must wait; then returns its body.
///
/// None: it was upgraded.
async fn converse(
    answers: &ConnectionServices,
    mut connection: Box<Connection>,
    peer: SocketAddr,
) -> Option<(Box<Connection>, Option<Body>)> {
    let mut stopping = connection.stopping();
    let slot = Arc::new(Slot::default());
    connection.tell(slot.clone());
    let activity = connection.registration().activity().clone();
    let service = service_fn(|request: Request<Incoming>| {
        let slot = streaming_response::may_wait(&request).then(|| slot.clone());
        let (router, activity) = (answers.router.clone(), activity.clone());
        let begun = activity.begin();
        let pace = answers.pace;
        async move {
            if !begun {
                // The connection is being closed: the client can repeat a request whose handler has not begun.
                return std::future::pending().await;
            }
            let mut left = None;
            let expects = request.headers().contains_key(header::EXPECT);
            let mut request = request.map(|incoming| {
                if incoming.is_end_stream() {
                    return Body::empty();
                }
                let (body, rest) = RequestBody::new(incoming, pace, activity.clone());
                left = Some(rest);
                Body::new(body)
            });
            request.extensions_mut().insert(ConnectInfo(peer));
            let mut response = match malformed(&request) {
                Some(problem) => {
                    drop(request);
                    problem.into_response()
                }
                None => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
            };
            if let Some(left) = left
                && left.is_left(expects).await
            {
                activity.leave_unread();
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if response.status() == axum::http::StatusCode::SWITCHING_PROTOCOLS {
                activity.upgraded();
            }
            let response = match slot {
                Some(slot) => slot.keep(response),
                None => response,
            };
            Ok::<_, Infallible>(response.map(|body| ResponseBody { body, activity }))
        }
    });
    let mut http = answers.http.serve_connection(TokioIo::new(connection), service).with_upgrades();
    let mut stop = pin!(stopping.wait_for(|stopping| *stopping));
    let mut stopped = false;
    let body = poll_fn(|context| {
        loop {
            // An error of a connection concerns only its client.
            if Pin::new(&mut http).poll(context).is_ready() {
                return Poll::Ready(None);
            }
            if let Some(body) = slot.take() {
                return Poll::Ready(Some(body));
            }
            if stopped || stop.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            stopped = true;
            Pin::new(&mut http).graceful_shutdown();
        }
    })
    .await;
    let parts = http.into_parts()?;
    let mut connection = parts.io.into_inner();
    connection.back(&parts.read_buf);
    Some((connection, body))
}

/// The problem of an invalid head that hyper accepts (RFC 9112, 3.2).
fn malformed<B>(request: &Request<B>) -> Option<Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return None,
        (None, _) => "the Host header is missing",
        (Some(_), Some(_)) => "there is more than one Host header",
        (Some(host), None) if host.is_empty() => return None,
        (Some(host), None) => match host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) {
            Some(host) if !host.as_str().contains('@') => return None,
            _ => "the Host header is not a valid host",
        },
    };
    Some(Problem::new("malformed_request").detail(detail))
}

/// Body of a response that records when it was sent.
struct ResponseBody {
    body: Body,
    activity: Arc<Activity>,
}

impl hyper::body::Body for ResponseBody {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.activity.answered();
    }
}

/// Times of the last warnings about refused connections: at most one per minute and reason.
#[derive(Debug, Default)]
struct RefusalWarnings {
    total: Option<Instant>,
    client: Option<Instant>,
}

impl RefusalWarnings {
    const WARNING_INTERVAL: Duration = Duration::from_secs(60);

    fn tell(&mut self, full: Full, peer: SocketAddr) {
        let last = match full {
            Full::Total => &mut self.total,
            Full::Client => &mut self.client,
        };
        if last.is_some_and(|last| last.elapsed() < Self::WARNING_INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        match full {
            Full::Total => tracing::warn!("the maximum number of connections is in use: refusing new ones"),
            Full::Client => tracing::warn!(
                peer = %peer.ip(),
                "a client has reached its maximum number of connections; if it is a proxy, add it to the trusted proxies"
            ),
        }
    }
}

/// Refuses a connection beyond a limit: answers with a problem without parsing its request.
async fn turn_away(mut stream: TcpStream, full: Full) {
    let code = match full {
        Full::Total => "overloaded",
        Full::Client => "too_many_connections",
    };
    let answer = last_answer(&Problem::new(code));
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // Bytes that the client sent are read: otherwise the system resets the connection, and the response is lost.
        stream.take(64 * 1024).read_to_end(&mut Vec::new()).await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::sync::{Notify, oneshot};

    use super::*;

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(router: Router, options: ServeOptions) -> Server {
        let options = ServeOptions { stop_delay: Duration::ZERO, ..options };
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, router, options, async {
            let _ = stopped.await;
        }));
        Server { address, stop, task }
    }

    async fn ask(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn all_of(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut text)).await.expect("it ends");
        String::from_utf8_lossy(&text).into_owned()
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn handler_sees_the_client_address() {
        let who = get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string());
        let server = start(Router::new().route("/", who), ServeOptions::default());
        assert!(all_of(ask(server.address, GET).await).await.ends_with("127.0.0.1"));
    }

    #[tokio::test]
    async fn connection_beyond_the_limit_gets_503() {
        let options =
            ServeOptions { connections: 1, connections_per_client: Some(2), ..ServeOptions::default() };
        let (began, ends) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let held = (began.clone(), ends.clone());
        let slow = get(async move || {
            held.0.notify_one();
            held.1.notified().await;
            "hello"
        });
        let server = start(Router::new().route("/", slow), options);
        let first = ask(server.address, GET).await;
        began.notified().await;
        let told = all_of(TcpStream::connect(server.address).await.unwrap()).await;
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{told}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{told}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "overloaded");
        ends.notify_one();
        assert!(all_of(first).await.ends_with("hello"));
        ends.notify_one();
        let again = async { while !all_of(ask(server.address, GET).await).await.ends_with("hello") {} };
        timeout(Duration::from_secs(5), again).await.expect("the permit is free again");
    }

    /// The last frame of a response is passed to hyper long before it is written.
    #[tokio::test]
    async fn response_that_is_being_written_is_not_idle() {
        let much = get(async || vec![b'x'; 64 << 20]);
        let options =
            ServeOptions { connections: 1, connections_per_client: Some(2), ..ServeOptions::default() };
        let server = start(Router::new().route("/", much), options);
        let mut slow = ask(server.address, "GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        // By then hyper has taken the whole body; it writes more of it whenever the client reads.
        let mut begun = vec![0; 8 << 20];
        slow.read_exact(&mut begun).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        let told = all_of(TcpStream::connect(server.address).await.unwrap()).await;
        assert!(told.starts_with("HTTP/1.1 503"), "{told}");
        let mut bytes = begun.len();
        let mut space = vec![0; 1 << 20];
        while bytes < 64 << 20 {
            bytes += timeout(Duration::from_secs(5), slow.read(&mut space)).await.unwrap().unwrap();
            assert!(bytes > 0);
        }
        // The connection is idle from then on.
        sleep(Duration::from_millis(300)).await;
        let mut next = ask(server.address, GET).await;
        let mut begun = [0; 12];
        next.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn incomplete_head_closes_the_connection() {
        let options = ServeOptions { head_timeout: Duration::from_millis(200), ..ServeOptions::default() };
        let server = start(Router::new(), options);
        assert_eq!(
            all_of(ask(server.address, "GET / HTTP/1.1\r\nhost:").await).await.matches("200 OK").count(),
            0
        );
    }

    #[tokio::test]
    async fn client_that_reads_nothing_is_disconnected() {
        // More than the buffers of both ends can hold.
        let much = get(async || vec![b'x'; 64 << 20]);
        let options = ServeOptions {
            write_timeout: Duration::from_millis(300),
            drain: Duration::from_secs(30),
            ..ServeOptions::default()
        };
        let server = start(Router::new().route("/", much), options);
        let stuck = ask(server.address, GET).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.stop.send(()).unwrap();
        timeout(Duration::from_secs(5), server.task)
            .await
            .expect("the server does not wait for the client")
            .unwrap();
        drop(stuck);
    }

    #[tokio::test]
    async fn requests_in_progress_end_before_shutdown() {
        let slow = get(async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "done"
        });
        let server = start(Router::new().route("/", slow), ServeOptions::default());
        let asked = ask(server.address, GET).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.stop.send(()).unwrap();
        assert!(all_of(asked).await.ends_with("done"));
        timeout(Duration::from_secs(2), server.task).await.expect("it ends").unwrap();
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
