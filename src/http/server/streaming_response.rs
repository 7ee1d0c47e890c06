//! Writes the bodies of streaming responses, such as long polls and event streams, without hyper.
//!
//! hyper would keep a read buffer of at least 8 KiB for as long as the response lasts.

use std::{
    future::poll_fn,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, HttpBody as _};
use tokio::io::AsyncWrite as _;

use super::connection::Connection;

/// Maximum bytes that are gathered before a write, unless a single frame is larger.
const MAX_BUFFERED_BYTES: usize = 8 * 1024;

/// Writes a body in chunks (RFC 9112, 7.1) until it ends.
///
/// None: the client has disconnected, or the body failed.
pub(super) async fn write(connection: &mut Connection, mut body: Body) -> Option<()> {
    let mut chunks = Chunks::default();
    poll_fn(|context| {
        if connection.poll_disconnect(context).is_ready() {
            return Poll::Ready(None);
        }
        let mut waits = false;
        loop {
            // The body is polled even while the client accepts nothing, as long as there is space: it may hold something that others
            // wait for, and pauses safely only right after it produced a frame.
            if !waits {
                match chunks.gather(&mut body, context) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => waits = true,
                }
            }
            if chunks.bytes.is_empty() {
                connection.all_written();
                return if chunks.end { Poll::Ready(Some(())) } else { Poll::Pending };
            }
            match ready!(Pin::new(&mut *connection).poll_write(context, &chunks.bytes)) {
                Ok(0) | Err(_) => return Poll::Ready(None),
                Ok(written) => chunks.written(written),
            }
        }
    })
    .await
}

/// Bytes that are not written yet.
#[derive(Default)]
struct Chunks {
    bytes: Vec<u8>,
    end: bool,
}

impl Chunks {
    /// Gathers the frames that a body has ready, as far as there is space. None: the body failed.
    fn gather(&mut self, body: &mut Body, context: &mut Context<'_>) -> Poll<Option<()>> {
        while !self.end && self.bytes.len() < MAX_BUFFERED_BYTES {
            match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // An empty chunk would end the body. Trailers are dropped: none were announced.
                    if let Some(data) = frame.into_data().ok().filter(|data| !data.is_empty()) {
                        let _ = write!(self.bytes, "{:X}\r\n", data.len());
                        self.bytes.extend_from_slice(&data);
                        self.bytes.extend_from_slice(b"\r\n");
                    }
                }
                Some(Err(_)) => return Poll::Ready(None),
                None => {
                    self.bytes.extend_from_slice(b"0\r\n\r\n");
                    self.end = true;
                }
            }
        }
        Poll::Ready(Some(()))
    }

    fn written(&mut self, count: usize) {
        if count < self.bytes.len() {
            self.bytes.drain(..count);
        } else {
            // A waiting connection keeps no memory for bytes that are written.
            self.bytes = Vec::new();
        }
    }
}
