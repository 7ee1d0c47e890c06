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

use super::{body_slot::BodySlot, connection_table::Registration, options::READ_AHEAD_BYTES, refusal};

/// Maximum bytes that are discarded before a connection is closed: more than the largest picture.
const MAX_DISCARDED_BYTES: usize = 32 << 20;
/// Maximum pause of the client while its bytes are discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum pause of the client while its bytes are discarded and the server is stopping.
const STOPPING_DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// State that a connection shares with its server: entry in the table, and stop signal.
pub(super) type ConnectionState = (Registration, watch::Receiver<bool>);

/// Start and time-out of a write that waits because the client accepts no bytes.
struct BlockedWrite {
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
    /// Maximum time for which the client may accept no bytes.
    write_timeout: Duration,
    /// Set while the client accepts no bytes.
    blocked_write: Option<BlockedWrite>,
    /// Delay of the client in accepting bytes, compared with the minimum rate.
    delay: Duration,
    /// Time since which everything is written. It reduces the delay.
    written_at: Option<Instant>,
    /// Minimum rate at which the client must accept bytes, in bytes per second.
    ///
    /// A connection with a slower client may be closed.
    rate: u32,
    /// Whether hyper has bytes to write.
    writing: bool,
    /// Whether the last read found no bytes.
    read_blocked: bool,
    /// Notified whenever everything is written.
    slot: Option<Arc<BodySlot>>,
    /// Response in place of one of hyper's own, which have no body.
    replacement: Vec<u8>,
    state: ConnectionState,
}

impl Connection {
    /// Creates a connection whose client must accept bytes within `write_timeout`.
    ///
    /// While connections are scarce, it must accept `rate` bytes per second.
    pub(super) const fn new(
        stream: TcpStream,
        write_timeout: Duration,
        rate: u32,
        state: ConnectionState,
    ) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            write_timeout,
            blocked_write: None,
            delay: Duration::ZERO,
            written_at: None,
            rate: if rate == 0 { 1 } else { rate },
            writing: false,
            read_blocked: false,
            slot: None,
            replacement: Vec::new(),
            state,
        }
    }

    /// Entry of the connection in the table of connections.
    pub(super) const fn registration(&self) -> &Registration {
        &self.state.0
    }

    /// Signal that the server is stopping.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.state.1.clone()
    }

    /// Sets a slot that is notified whenever everything is written.
    pub(super) fn notify_of_flushes(&mut self, slot: Arc<BodySlot>) {
        self.slot = Some(slot);
    }

    /// Takes the connection back from hyper, with bytes that hyper has read but not used.
    pub(super) fn take_back(&mut self, read: &[u8]) {
        self.slot = None;
        if !read.is_empty() {
            self.ahead.splice(..0, read.iter().copied());
        }
    }

    /// Completes when the client has disconnected.
    ///
    /// Up to [`READ_AHEAD_BYTES`] bytes that it sends meanwhile are kept. Beyond that nothing is read, and a disconnect is noticed by
    /// writes only.
    pub(super) fn poll_disconnect(&mut self, context: &mut Context<'_>) -> Poll<()> {
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

    /// Closes the connection with a lingering read of at most `linger`.
    ///
    /// Bytes that the client still sends are discarded.
    ///
    /// A socket that is closed with unread bytes is reset, and the client would lose the response (RFC 9112, 9.6).
    pub(super) async fn close(mut self: Box<Self>, linger: Duration) {
        let activity = self.registration().activity();
        if !activity.leaves_unread() || !activity.lingers() {
            return;
        }
        let mut stopping = self.stopping();
        let until = Instant::now() + linger;
        let _ = timeout_at(until, self.stream.shutdown()).await;
        let mut space = vec![0; 16 * 1024];
        let mut left = MAX_DISCARDED_BYTES;
        while left > 0 {
            let pause =
                if *stopping.borrow_and_update() { STOPPING_DISCARD_TIMEOUT } else { DISCARD_TIMEOUT };
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
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if !self.registration().activity().has_no_request() || !self.replacement.is_empty() {
            return false;
        }
        let Some(answer) = refusal::replacement(bytes) else { return false };
        self.replacement = answer;
        self.registration().activity().leave_unread();
        true
    }

    /// Writes the problem in place of hyper's response.
    fn poll_replacement(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let wrote = Pin::new(&mut self.stream).poll_write(context, &self.replacement);
            match ready!(self.limit_write(context, wrote))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.replacement.drain(..written)),
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
    fn limit_write(
        &mut self,
        context: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some(written_at) = self.written_at.take() {
            self.delay = self.delay.saturating_sub(written_at.elapsed());
        }
        let Poll::Ready(wrote) = wrote else {
            if self.blocked_write.is_none() {
                let since = Instant::now();
                let timer = Box::pin(tokio::time::sleep_until(since + self.write_timeout));
                self.blocked_write = Some(BlockedWrite { since, timer });
                self.registration().activity().blocked(self.delay);
            }
            if let Some(blocked) = &mut self.blocked_write {
                ready!(blocked.timer.as_mut().poll(context));
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        if let Some(blocked) = self.blocked_write.take() {
            self.delay += blocked.since.elapsed();
            self.registration().activity().unblocked();
        }
        if !self.delay.is_zero()
            && let Ok(bytes) = &wrote
        {
            self.delay = self.delay.saturating_sub(Duration::from_secs(*bytes as u64) / self.rate);
        }
        Poll::Ready(wrote)
    }

    /// Records that the connection is idle, if everything is written and no bytes are left to read.
    fn record_idle(&self) {
        if self.read_blocked && !self.writing {
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
            self.read_blocked = read.is_pending();
            self.record_idle();
            return read;
        }
        self.read_blocked = false;
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
        if self.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.writing = true;
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit_write(context, wrote)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [bytes] = slices
            && self.replaces(bytes)
        {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.writing = true;
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.limit_write(context, wrote)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(context))?;
        // hyper flushes once it has written everything.
        self.writing = false;
        self.all_written();
        self.record_idle();
        if let Some(slot) = &self.slot {
            slot.flushed();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use tokio::{net::TcpListener, time::advance};

    use super::super::connection_table::{Bounds, ConnectionTable};
    use super::*;

    async fn connection(rate: u32) -> (Connection, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let table = ConnectionTable::new(Bounds { total: 1, per_client: 1, exempt: Vec::new() });
        let state = (table.register(peer.ip()).unwrap(), watch::channel(false).1);
        (Connection::new(stream, Duration::from_secs(30), rate, state), client)
    }

    /// The client accepts no bytes for a time, and then one byte.
    async fn stall(connection: &mut Connection, time: Duration) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(connection.limit_write(&mut context, Poll::Pending).is_pending());
        advance(time).await;
        assert!(connection.limit_write(&mut context, Poll::Ready(Ok(1))).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_catches_up_is_not_late() {
        let (mut connection, _client) = connection(1_000).await;
        for _ in 0..100 {
            stall(&mut connection, Duration::from_secs(3)).await;
            poll_fn(|context| Pin::new(&mut connection).poll_flush(context)).await.unwrap();
            advance(Duration::from_secs(60)).await;
        }
        assert!(connection.delay <= Duration::from_secs(3), "{:?}", connection.delay);
    }

    /// A download has more bytes to write immediately.
    #[tokio::test(start_paused = true)]
    async fn client_that_reads_slowly_is_late() {
        let (mut connection, _client) = connection(1_000).await;
        for _ in 0..100 {
            stall(&mut connection, Duration::from_secs(3)).await;
            poll_fn(|context| Pin::new(&mut connection).poll_flush(context)).await.unwrap();
        }
        assert!(connection.delay > Duration::from_secs(290), "{:?}", connection.delay);
    }
}
