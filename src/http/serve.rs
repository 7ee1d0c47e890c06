//! The server loop: what `axum::serve` leaves to its caller.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, Sleep, sleep, timeout},
};
use tower::ServiceExt as _;

use super::Problem;

/// Connections that may wait to be accepted: a process that restarts gets all its clients within a moment.
const BACKLOG: u32 = 4096;
/// What a connection reads into, so at most the size of a request's head.
const BUFFER: usize = 16 * 1024;
/// A pause after the system refused a connection, for want of file descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// How connections are kept.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections at once; more get 503 and are closed. Default: 20,000.
    pub connections: usize,
    /// How long the head of a request may take to come, so also how long a connection may be idle. Default: 30 s.
    pub head_timeout: Duration,
    /// How long a client may take nothing of what is sent to it. Default: 10 s.
    pub write_timeout: Duration,
    /// How long connections have to end once the server is told to stop. Default: 10 s.
    pub drain: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections: 20_000,
            head_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// Listens at an address, with room for many to connect at once.
///
/// # Errors
/// The system's: the address is in use, or may not be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // On Windows it would let two processes share a port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers connections with `router` until `stop` ends; then lets those that are open end, for a while. Handlers find the
/// client's address in [`ConnectInfo`]. The router also runs under `axum::serve`; this one bounds what a client can hold: the
/// time for a head, the time to take what is sent, the number of connections, the buffers of each.
///
/// Live streams end only when they are told to: call `backend.live().drain()` before `stop` ends.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    stop: impl Future<Output = ()> + Send,
) {
    let places = Arc::new(Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS)));
    // Told to everybody; gone with the last connection.
    let stopping = watch::Sender::new(false);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(BUFFER);
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.as_mut() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // One that went away again says nothing about the others.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) =>
            {
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for more to send.
        let _ = stream.set_nodelay(true);
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let io = Connection {
                    stream,
                    patience: options.write_timeout,
                    stuck: None,
                    _held: (place, stopping.subscribe()),
                };
                tokio::spawn(answer(http.clone(), io, peer, router.clone(), stopping.subscribe()));
            }
            Err(_) => drop(tokio::spawn(turn_away(stream))),
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = timeout(options.drain, stopping.closed()).await;
}

async fn answer(
    http: http1::Builder,
    io: Connection,
    peer: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(io), service).with_upgrades());
    tokio::select! {
        // What goes wrong with one connection is its client's to know.
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// One too many: told so, without reading what it wants.
async fn turn_away(mut stream: TcpStream) {
    let body = serde_json::to_string(&Problem::new("overloaded")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// A client's connection, which ends when the client takes nothing for too long. Its place is given back when it is gone, also
/// after it became a WebSocket.
struct Connection {
    stream: TcpStream,
    patience: Duration,
    /// Runs while the client takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
    _held: (OwnedSemaphorePermit, watch::Receiver<bool>),
}

impl Connection {
    /// What a write came to, unless it has waited too long.
    fn patiently<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stuck = None;
            return wrote;
        }
        let patience = self.patience;
        let stuck =
            self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patiently(context, wrote)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.patiently(context, wrote)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{io::AsyncReadExt as _, sync::oneshot};

    use super::*;

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start(router: Router, options: ServeOptions) -> Server {
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
    async fn answers_and_tells_who_asks() {
        let who = get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string());
        let server = start(Router::new().route("/", who), ServeOptions::default());
        assert!(all_of(ask(server.address, GET).await).await.ends_with("127.0.0.1"));
    }

    #[tokio::test]
    async fn one_too_many_is_told_so() {
        let options = ServeOptions { connections: 1, ..ServeOptions::default() };
        let server = start(Router::new().route("/", get(async || "hello")), options);
        let first = ask(server.address, "GET / HT").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let told = all_of(TcpStream::connect(server.address).await.unwrap()).await;
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1"), "{told}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{told}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "overloaded");
        drop(first);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(all_of(ask(server.address, GET).await).await.ends_with("hello"), "the place is free again");
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_ends_the_connection() {
        let options = ServeOptions { head_timeout: Duration::from_millis(200), ..ServeOptions::default() };
        let server = start(Router::new(), options);
        assert_eq!(
            all_of(ask(server.address, "GET / HTTP/1.1\r\nhost:").await).await.matches("200 OK").count(),
            0
        );
    }

    #[tokio::test]
    async fn who_takes_nothing_is_let_go() {
        // More than the buffers of both sides hold.
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
        timeout(Duration::from_secs(5), server.task).await.expect("nobody is waited for").unwrap();
        drop(stuck);
    }

    #[tokio::test]
    async fn what_is_under_way_ends_first() {
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
