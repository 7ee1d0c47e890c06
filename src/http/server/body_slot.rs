//! Slot for the body of a streaming response, which the server writes after hyper has written the head.
//!
//! hyper gets a body that never produces a frame. The real body waits in a [`BodySlot`] until the head is written.

use std::{
    convert::Infallible,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, Method, Request, StatusCode, Version, header},
    response::Response,
};

/// Extension that marks a response that waits for events, such as a long poll or an event stream.
///
/// A server that does not know it writes the response like any other.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct StreamingResponse;

/// Whether the response to a request can be written without hyper: chunked, and the connection stays open.
pub(super) fn may_stream<B: axum::body::HttpBody>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && !headers.contains_key(header::UPGRADE)
        && !closes(headers)
}

fn closes(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::CONNECTION).iter();
    let mut options = all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// Holds the body of a streaming response while hyper writes its head.
#[derive(Debug, Default)]
pub(super) struct BodySlot(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    /// hyper has not written the head yet.
    Head(Body),
    /// The head is written; the body can be written.
    Ready(Body),
}

impl BodySlot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the body of a streaming response, and replaces it by one that never produces a frame.
    pub(super) fn hold(&self, response: Response) -> Response {
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
