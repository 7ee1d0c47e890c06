//! The server loop: what `axum::serve` leaves to its caller.

use std::{
    convert::Infallible, future::poll_fn, io, net::SocketAddr, pin::Pin, sync::Arc, task::Poll,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::{unconstrained, yield_now},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

use super::{
    Problem,
    connection::{AHEAD, Connection},
    waiting::{self, Slot},
};

/// Connections that may wait to be accepted: a process that restarts gets all its clients within a moment.
const BACKLOG: u32 = 4096;
/// Connections that are accepted before others have their turn.
const AT_ONCE: usize = 1024;
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
    // What a connection reads into, so at most the size of a request's head.
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout).max_buf_size(AHEAD);
    let answers = Arc::new(Answers { http, router });
    let mut stop = std::pin::pin!(stop);
    let mut taken = 0_usize;
    loop {
        // All that wait, and not 128 of them as tokio would have it: when everybody comes at once the system's queue is full sooner than
        // those who were let in are answered, and whoever finds it full tries again a second later.
        let accepted = tokio::select! {
            accepted = unconstrained(listener.accept()) => accepted,
            () = stop.as_mut() => break,
        };
        taken += 1;
        if taken.is_multiple_of(AT_ONCE) {
            yield_now().await;
        }
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
                let held = (place, stopping.subscribe());
                // Boxed, since it is passed on and on.
                let connection = Box::new(Connection::new(stream, options.write_timeout, held));
                drop(tokio::spawn(answer(answers.clone(), connection, peer)));
            }
            Err(_) => drop(tokio::spawn(turn_away(stream))),
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = timeout(options.drain, stopping.closed()).await;
}

/// What answers every connection.
struct Answers {
    http: http1::Builder,
    router: Router,
}

async fn answer(answers: Arc<Answers>, mut connection: Box<Connection>, peer: SocketAddr) {
    loop {
        // Boxed: a connection that waits must not keep room for what reads requests.
        let Some((back, body)) = Box::pin(converse(&answers, connection, peer)).await else { return };
        connection = back;
        if waiting::write(&mut connection, body).await.is_none() {
            return;
        }
    }
}

/// Answers requests until the connection ends, or until an answer has to wait: then with the rest of it.
async fn converse(
    answers: &Answers,
    mut connection: Box<Connection>,
    peer: SocketAddr,
) -> Option<(Box<Connection>, Body)> {
    let mut stopping = connection.stopping();
    let slot = Arc::new(Slot::default());
    connection.tell(slot.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let slot = waiting::may_wait(&request).then(|| slot.clone());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = answers.router.clone();
        async move {
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(match slot {
                Some(slot) => slot.keep(response),
                None => response,
            })
        }
    });
    let mut http = answers.http.serve_connection(TokioIo::new(connection), service).with_upgrades();
    let mut stop = std::pin::pin!(stopping.wait_for(|stopping| *stopping));
    let mut stopped = false;
    let body = poll_fn(|context| {
        loop {
            // What goes wrong with one connection is its client's to know.
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
    .await?;
    let parts = http.into_parts()?;
    let mut connection = parts.io.into_inner();
    connection.back(&parts.read_buf);
    Some((connection, body))
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
