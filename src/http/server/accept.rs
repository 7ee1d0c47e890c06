//! Accepts connections, within limits, and stops.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::{unconstrained, yield_now},
    time::{Instant, sleep, timeout},
};

use super::{
    ServeOptions,
    connection::Connection,
    connection_table::{Bounds, ConnectionTable, Full},
    conversation::{Conversations, serve_connection},
    descriptors::affordable,
    refusal::complete_response,
};
use crate::http::Problem;

/// Maximum connections that wait to be accepted: after a restart all clients reconnect within a moment.
const ACCEPT_BACKLOG: u32 = 4096;
/// Maximum connections that are accepted before the loop yields to other tasks.
const MAX_ACCEPTS_PER_TURN: usize = 1024;
/// Pause after the system could not accept a connection, most likely for lack of file descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Maximum refused connections that concurrently get a response; further ones are just closed.
const MAX_CONCURRENT_REFUSALS: usize = 32;
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
/// Then it waits at most `drain` for open connections to end. Handlers find the client's address in [`ConnectInfo`](axum::extract::ConnectInfo). The router also
/// runs under `axum::serve`; this server limits the resources of a client as well: the time for a head and for a body, the time to
/// accept the response, the number of connections, and the buffers of each.
///
/// Call `backend.announce_stop()` when `stop` completes, so that readiness answers 503 during `stop_delay`, and
/// `backend.live().drain()` to end live streams.
///
/// The call itself logs a warning if the limit on open files allows fewer connections than `options`; the returned future accepts them.
pub fn serve(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    stop: impl Future<Output = ()> + Send,
) -> impl Future<Output = ()> + Send {
    let total = affordable(options.max_connections);
    accept_connections(listener, router, options, total, stop)
}

/// Serves at most `total` connections concurrently, see [`serve`].
async fn accept_connections(
    listener: TcpListener,
    router: Router,
    options: ServeOptions,
    total: usize,
    stop: impl Future<Output = ()> + Send,
) {
    let per_client = options.max_connections_per_client.unwrap_or(total / 8).max(1);
    let table = ConnectionTable::new(Bounds { total, per_client, exempt: options.trusted_proxies.clone() });
    // Notifies all connections; closed when the last connection has ended.
    let stopping = watch::Sender::new(false);
    let conversations = Arc::new(Conversations::new(router, &options));
    let refusals = Arc::new(Semaphore::new(MAX_CONCURRENT_REFUSALS));
    let mut warnings = RefusalWarnings::default();
    let mut stop = pin!(async {
        stop.await;
        sleep(options.stop_delay).await;
    });
    let mut accepted_count = 0_usize;
    loop {
        // Without tokio's budget of 128 operations: otherwise, when many clients connect together, the system's queue overflows before they
        // are accepted, and a client that finds it full tries again a second later.
        let accepted = tokio::select! {
            accepted = unconstrained(listener.accept()) => accepted,
            () = stop.as_mut() => break,
        };
        accepted_count += 1;
        if accepted_count.is_multiple_of(MAX_ACCEPTS_PER_TURN) {
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
                let state = (registration, stopping.subscribe());
                // Boxed, because it is moved often.
                let connection = Connection::new(stream, options.write_timeout, options.min_body_rate, state);
                let connection = Box::new(connection);
                let task = tokio::spawn(serve_connection(conversations.clone(), connection, peer));
                activity.served_by(task.abort_handle());
            }
            Err(full) => {
                warnings.warn(full, peer);
                if let Ok(permit) = refusals.clone().try_acquire_owned() {
                    tokio::spawn(async move {
                        refuse(stream, full).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = timeout(options.drain_timeout, stopping.closed()).await;
}

/// Times of the last warnings about refused connections: at most one per minute and reason.
#[derive(Debug, Default)]
struct RefusalWarnings {
    total: Option<Instant>,
    client: Option<Instant>,
}

impl RefusalWarnings {
    const WARNING_INTERVAL: Duration = Duration::from_secs(60);

    fn warn(&mut self, full: Full, peer: SocketAddr) {
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

/// Refuses a connection beyond a limit: responds with a problem without parsing its request.
async fn refuse(mut stream: TcpStream, full: Full) {
    let code = match full {
        Full::Total => "overloaded",
        Full::Client => "too_many_connections",
    };
    let response = complete_response(&Problem::new(code));
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(&response).await?;
        stream.shutdown().await?;
        // Bytes that the client sent are read: otherwise the system resets the connection, and the response is lost.
        stream.take(64 * 1024).read_to_end(&mut Vec::new()).await
    })
    .await;
}
