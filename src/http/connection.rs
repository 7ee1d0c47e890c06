//! A client's connection, as the server loop keeps it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, Sleep},
};

use super::waiting::Slot;

/// What is read of a client at most before it has its answer.
pub(super) const AHEAD: usize = 16 * 1024;

/// What a connection holds of its server: its place, and that it is not over yet.
pub(super) type Held = (OwnedSemaphorePermit, watch::Receiver<bool>);

/// A client's connection, which ends when the client takes nothing for too long. Its place is given back when it is gone, also
/// after it became a WebSocket.
pub(super) struct Connection {
    stream: TcpStream,
    /// What was read and not asked for yet.
    ahead: Vec<u8>,
    patience: Duration,
    /// Runs while the client takes nothing.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Told whenever everything is written.
    slot: Option<Arc<Slot>>,
    held: Held,
}

impl Connection {
    pub(super) const fn new(stream: TcpStream, patience: Duration, held: Held) -> Self {
        Self { stream, ahead: Vec::new(), patience, stuck: None, slot: None, held }
    }

    /// Whether its server is told to stop.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.held.1.clone()
    }

    /// Has a slot told whenever everything is written.
    pub(super) fn tell(&mut self, slot: Arc<Slot>) {
        self.slot = Some(slot);
    }

    /// Takes it back from who read `read` of it and did not ask for that.
    pub(super) fn back(&mut self, read: &[u8]) {
        self.slot = None;
        if !read.is_empty() {
            self.ahead.splice(..0, read.iter().copied());
        }
    }

    /// Ready once the client is gone. What it sends meanwhile is kept until it is asked for; one that sends too much is not read
    /// any more, and gone when it takes nothing.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.ahead.len() < AHEAD {
            let mut space = [0; 1024];
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.ahead.extend_from_slice(buffer.filled()),
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

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
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
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
        if let Some(slot) = &self.slot {
            slot.flushed();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
