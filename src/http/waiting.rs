//! An answer that waits: hyper writes its head, and is then let go, since it would keep a read buffer of 8 KiB and more for as long as
//! the answer takes. What is left of the connection is the answer's body, which is written from here; then hyper goes on.

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

/// What of an answer is written at once, but for a single frame.
const AT_ONCE: usize = 8 * 1024;

/// Marks an answer that waits, as an extension of it. Whoever does not know it writes the answer like any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits;

/// Whether an answer to this request can be written from here: one that hyper would send in chunks, and keep the connection after.
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

/// Where an answer that waits is while hyper writes its head.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    /// Its head is to be written yet.
    Head(Body),
    /// It is this body's turn.
    Ready(Body),
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the body of an answer that waits, and leaves one in its place that never comes.
    pub(super) fn keep(&self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::CONNECTION];
        let plain = parts.extensions.get::<Waits>().is_some()
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

    /// Everything is written that hyper has. It puts the head after its answer came and before it writes anything, so
    /// that this means the head too.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        *state = match mem::take(&mut *state) {
            State::Head(body) => State::Ready(body),
            other => other,
        };
    }

    /// The body whose turn it is.
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

/// Writes a body in chunks (RFC 9112, 7.1) as it comes, to its end. None: the client, or what makes the body, is gone.
pub(super) async fn write(connection: &mut Connection, mut body: Body) -> Option<()> {
    let mut chunks = Chunks::default();
    poll_fn(|context| {
        if connection.poll_gone(context).is_ready() {
            return Poll::Ready(None);
        }
        let mut waits = false;
        loop {
            // Also while the client takes nothing, for as long as there is room: a body may be in the middle of something that
            // others wait for, and only stands still where it has just given something.
            if !waits {
                match chunks.gather(&mut body, context) {
                    Poll::Ready(Some(())) => {}
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => waits = true,
                }
            }
            if chunks.bytes.is_empty() {
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

/// What is to be written yet.
#[derive(Default)]
struct Chunks {
    bytes: Vec<u8>,
    end: bool,
}

impl Chunks {
    /// Takes what there is of a body, as far as there is room. None: it broke off.
    fn gather(&mut self, body: &mut Body, context: &mut Context<'_>) -> Poll<Option<()>> {
        while !self.end && self.bytes.len() < AT_ONCE {
            match ready!(Pin::new(&mut *body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // One that is empty would be the last. There are no trailers: nobody announced them.
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
            // Who waits keeps no room for what it has written.
            self.bytes = Vec::new();
        }
    }
}
