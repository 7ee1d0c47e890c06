//! Responses that wait, such as polls and event streams, without hyper.
//!
//! hyper writes the head of such a response and then returns the connection, since it would keep a read buffer of at least 8 KiB for
//! as long as the response lasts. This module writes the body; then hyper continues with the connection.

use std::{
    convert::Infallible,
    future::poll_fn,
    io::Write as _,
    mem,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, Method, Request, StatusCode, Version, header},
    response::Response,
};
use tokio::io::AsyncWrite as _;

use super::connection::Connection;

/// Maximum bytes that are gathered before a write, unless a single frame is larger.
const MAX_BUFFERED_BYTES: usize = 8 * 1024;

/// Extension that marks a response that waits.
///
/// A server that does not know it writes the response like any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamingResponse;

/// Whether this module can write the response: chunked, and the connection stays open.
pub(super) fn may_wait<B: axum::body::HttpBody>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && !headers.contains_key(header::UPGRADE)
        && !closes(headers)
}

fn closes(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::CONNECTION).iter();
    let mut words = all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("close"))
}

/// Holds the body of a waiting response while hyper writes its head.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    /// hyper has not written the head yet.
    Head(Body),
    /// The head is written; the body can be written.
    Ready(Body),
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the body of a waiting response, and replaces it by one that never produces a frame.
    pub(super) fn keep(&self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::CONNECTION];
        let plain = parts.extensions.get::<StreamingResponse>().is_some()
            && parts.status == StatusCode::OK
            && parts.version == Version::HTTP_11
            && body.size_hint().exact().is_none()
            && !framed.iter().any(|name| parts.headers.contains_key(name));
        if !plain {
            return Response::from_parts(parts, body);
        }
        *self.state() = State::Head(body);
        let never = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        Response::from_parts(parts, Body::from_stream(never))
    }

    /// Called when all bytes that hyper has buffered are written.
    ///
    /// hyper buffers the head after its service has returned and before it writes anything, so the head is among them.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        *state = match mem::take(&mut *state) {
            State::Head(body) => State::Ready(body),
            other => other,
        };
    }

    /// Takes the body if the head is written.
    pub(super) fn take(&self) -> Option<Body> {
        let mut state = self.state();
        match mem::take(&mut *state) {
            State::Ready(body) => Some(body),
            other => {
                *state = other;
                None
            }
        }
    }
}

/// Writes a body in chunks (RFC 9112, 7.1) until it ends.
///
/// None: the client has disconnected, or the body failed.
pub(super) async fn write(connection: &mut Connection, mut body: Body) -> Option<()> {
    let mut chunks = Chunks::default();
    poll_fn(|context| {
        if connection.poll_gone(context).is_ready() {
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
