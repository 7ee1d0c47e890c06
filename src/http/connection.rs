//! A client's connection in the server loop.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep, timeout_at},
};

use super::{Problem, connection_table::Registration, streaming_response::Slot};

/// Maximum bytes that are read ahead of a client's pending response.
pub(super) const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Maximum bytes that are discarded before a connection is closed: more than the largest picture.
const MAX_DISCARDED_BYTES: usize = 32 << 20;
/// Maximum pause of the client while its bytes are discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum pause of the client while its bytes are discarded and the server is stopping.
const PAUSE_STOPPING: Duration = Duration::from_millis(500);

/// State that a connection shares with its server: entry in the table, and stop signal.
pub(super) type ConnectionState = (Registration, watch::Receiver<bool>);

/// A write that the client does not accept.
struct Stuck {
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

/// A client's connection, which ends when the client accepts no bytes for too long.
///
/// It is removed from the table of connections when dropped, even after it was upgraded to a WebSocket.
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes that were read from the client but not requested yet.
    ahead: Vec<u8>,
    patience: Duration,
    /// Set while the client accepts no bytes.
    stuck: Option<Stuck>,
    /// Delay of the client in accepting bytes, compared with the minimum rate.
    late: Duration,
    /// Time since which everything is written. It reduces the delay.
    written_at: Option<Instant>,
    /// Minimum rate at which the client must accept bytes, in bytes per second.
    ///
    /// A connection with a slower client may be closed.
    rate: u32,
    /// Whether hyper has bytes to write.
    writing: bool,
    /// Whether the last read found no bytes.
    quiet: bool,
    /// Notified whenever everything is written.
    slot: Option<Arc<Slot>>,
    /// Response in place of one of hyper's own, which have no body.
    instead: Vec<u8>,
    held: ConnectionState,
}

impl Connection {
    /// Creates a connection whose client must accept bytes within `patience`.
    ///
    /// While connections are scarce, it must accept `rate` bytes per second.
    pub(super) const fn new(stream: TcpStream, patience: Duration, rate: u32, held: ConnectionState) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            patience,
            stuck: None,
            late: Duration::ZERO,
            written_at: None,
            rate: if rate == 0 { 1 } else { rate },
            writing: false,
            quiet: false,
            slot: None,
            instead: Vec::new(),
            held,
        }
    }

    /// Entry of the connection in the table of connections.
    pub(super) const fn registration(&self) -> &Registration {
        &self.held.0
    }

    /// Signal that the server is stopping.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.held.1.clone()
    }

    /// Sets a slot that is notified whenever everything is written.
    pub(super) fn tell(&mut self, slot: Arc<Slot>) {
        self.slot = Some(slot);
    }

    /// Takes the connection back from hyper, with bytes that hyper has read but not used.
    pub(super) fn back(&mut self, read: &[u8]) {
        self.slot = None;
        if !read.is_empty() {
            self.ahead.splice(..0, read.iter().copied());
        }
    }

    /// Completes when the client has disconnected.
    ///
    /// Up to [`READ_AHEAD_BYTES`] bytes that it sends meanwhile are kept. Beyond that nothing is read, and a disconnect is noticed by
    /// writes only.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.ahead.len() < READ_AHEAD_BYTES {
            let mut space = [0; 1024];
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.ahead.extend_from_slice(buffer.filled()),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Closes the connection with a lingering read of at most `patience`.
    ///
    /// Bytes that the client still sends are discarded.
    ///
    /// A socket that is closed with unread bytes is reset, and the client would lose the response (RFC 9112, 9.6).
    pub(super) async fn close(mut self: Box<Self>, patience: Duration) {
        let activity = self.registration().activity();
        if !activity.leaves_unread() || !activity.lingers() {
            return;
        }
        let mut stopping = self.stopping();
        let until = Instant::now() + patience;
        let _ = timeout_at(until, self.stream.shutdown()).await;
        let mut space = vec![0; 16 * 1024];
        let mut left = MAX_DISCARDED_BYTES;
        while left > 0 {
            let pause = if *stopping.borrow_and_update() { PAUSE_STOPPING } else { DISCARD_TIMEOUT };
            let read = timeout_at(until.min(Instant::now() + pause), self.stream.read(&mut space));
            tokio::select! {
                read = read => match read {
                    Ok(Ok(bytes)) if bytes > 0 => left = left.saturating_sub(bytes),
                    _ => return,
                },
                changed = stopping.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Replaces one of hyper's own responses to an invalid head, which have no body, by a problem.
    fn replaced(&mut self, bytes: &[u8]) -> bool {
        if !self.registration().activity().has_no_request() || !self.instead.is_empty() {
            return false;
        }
        let Some(answer) = own_words(bytes) else { return false };
        self.instead = answer;
        self.registration().activity().leave_unread();
        true
    }

    /// Writes the problem in place of hyper's response.
    fn poll_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let wrote = Pin::new(&mut self.stream).poll_write(context, &self.instead);
            match ready!(self.patiently(context, wrote))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.instead.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Records that everything is written.
    ///
    /// The time until the next write reduces the client's delay: a client that catches up with a stream of rare events is not late.
    pub(super) fn all_written(&mut self) {
        if self.written_at.is_none() {
            self.written_at = Some(Instant::now());
        }
    }

    /// Result of a write, or an error if it has waited too long.
    fn patiently(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(written_at) = self.written_at.take() {
            self.late = self.late.saturating_sub(written_at.elapsed());
        }
        let Poll::Ready(wrote) = wrote else {
            if self.stuck.is_none() {
                let since = Instant::now();
                let timer = Box::pin(tokio::time::sleep_until(since + self.patience));
                self.stuck = Some(Stuck { since, timer });
                self.registration().activity().blocked(self.late);
            }
            if let Some(stuck) = &mut self.stuck {
                ready!(stuck.timer.as_mut().poll(context));
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        if let Some(stuck) = self.stuck.take() {
            self.late += stuck.since.elapsed();
            self.registration().activity().unblocked();
        }
        if !self.late.is_zero()
            && let Ok(bytes) = &wrote
        {
            self.late = self.late.saturating_sub(Duration::from_secs(*bytes as u64) / self.rate);
        }
        Poll::Ready(wrote)
    }

    /// Records that the connection is idle, if everything is written and no bytes are left to read.
    fn tell_idle(&self) {
        if self.quiet && !self.writing {
            self.registration().activity().idle();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let read = Pin::new(&mut self.stream).poll_read(context, buffer);
            self.quiet = read.is_pending();
            self.tell_idle();
            return read;
        }
        self.quiet = false;
        let taken = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..taken]);
        self.ahead.drain(..taken);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.replaced(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.writing = true;
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.patiently(context, wrote)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = slices
            && self.replaced(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.writing = true;
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.patiently(context, wrote)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        // hyper flushes once it has written everything.
        self.writing = false;
        self.all_written();
        self.tell_idle();
        if let Some(slot) = &self.slot {
            slot.flushed();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A complete response with a problem, after which the connection is closed.
pub(super) fn last_answer(problem: &Problem) -> Vec<u8> {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let retry =
        problem.retry_seconds().map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let status = problem.status();
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n{retry}\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes()
}

/// Response in place of one of hyper's own. None: `bytes` are not one of these.
fn own_words(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes).ok()?.strip_prefix("HTTP/1.1 ")?.strip_suffix("\r\n\r\n")?;
    if !head.to_ascii_lowercase().contains("\r\ncontent-length: 0") || head.contains("\r\n\r\n") {
        return None;
    }
    let problem = match head.get(..3)? {
        "400" => Problem::new("malformed_request").detail("the head is not HTTP/1.1"),
        "414" => Problem::new("uri_too_long"),
        "431" => Problem::new("head_too_large").detail(format!("at most {READ_AHEAD_BYTES} bytes")),
        _ => return None,
    };
    Some(last_answer(&problem))
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use tokio::{net::TcpListener, time::advance};

    use super::*;
    use crate::http::connection_table::{Bounds, ConnectionTable};

    async fn connection(rate: u32) -> (Connection, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let table = ConnectionTable::new(Bounds { total: 1, per_client: 1, exempt: Vec::new() });
        let held = (table.register(peer.ip()).unwrap(), watch::channel(false).1);
        (Connection::new(stream, Duration::from_secs(30), rate, held), client)
    }

    /// The client accepts no bytes for a time, and then one byte.
    async fn stall(connection: &mut Connection, time: Duration) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(connection.patiently(&mut context, Poll::Pending).is_pending());
        advance(time).await;
        assert!(connection.patiently(&mut context, Poll::Ready(Ok(1))).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_catches_up_is_not_late() {
        let (mut connection, _client) = connection(1_000).await;
        for _ in 0..100 {
            stall(&mut connection, Duration::from_secs(3)).await;
            poll_fn(|context| Pin::new(&mut connection).poll_flush(context)).await.unwrap();
            advance(Duration::from_secs(60)).await;
        }
        assert!(connection.late <= Duration::from_secs(3), "{:?}", connection.late);
    }

    /// A download has more bytes to write immediately.
    #[tokio::test(start_paused = true)]
    async fn client_that_reads_slowly_is_late() {
        let (mut connection, _client) = connection(1_000).await;
        for _ in 0..100 {
            stall(&mut connection, Duration::from_secs(3)).await;
            poll_fn(|context| Pin::new(&mut connection).poll_flush(context)).await.unwrap();
        }
        assert!(connection.late > Duration::from_secs(290), "{:?}", connection.late);
    }
}
