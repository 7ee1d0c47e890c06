//! What stands around every request: a name, a bound, a clock, a net.

use std::{any::Any, future::poll_fn, pin::pin, task::Poll, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::LengthLimitError;
use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};
use tower_http::catch_panic::CatchPanicLayer;

use super::{App, Problem, cors};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(5);

/// Answers 503 at once when too many are being answered, and when one takes too long. The body is taken in first: who sends
/// theirs slowly must not hold a place.
pub(super) async fn bounded(State(app): State<App>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let mut body = pin!(to_bytes(body, app.options.body_limit));
    // hyper hands a body over once it was asked for, which is the next time that the connection has its turn: only who has not sent it
    // by then is put among the timers.
    let taken = match poll_fn(|context| Poll::Ready(body.as_mut().poll(context))).await {
        Poll::Ready(taken) => Ok(taken),
        Poll::Pending => {
            yield_now().await;
            timeout(BODY, body).await
        }
    };
    let request = match taken {
        Ok(Ok(bytes)) => Request::from_parts(head, Body::from(bytes)),
        Ok(Err(error)) => {
            let too_large = std::error::Error::source(&error)
                .is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
            let code = if too_large { "body_too_large" } else { "malformed_request" };
            return Problem::new(code).into_response();
        }
        Err(_) => return Problem::new("body_timed_out").into_response(),
    };
    let Ok(_place) = app.requests.clone().try_acquire_owned() else {
        return Problem::new("overloaded").into_response();
    };
    match timeout(app.options.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new("timed_out").into_response(),
    }
}

/// Names the request, counts it, logs it, and sets the headers that every answer has.
pub(super) async fn observed(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    let id = given.cloned().unwrap_or_else(|| fresh_id(&app));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let begun = Instant::now();
    let mut response = match &app.cors {
        Some(layer) => Box::pin(cors::share(layer, request, next)).await,
        None => next.run(request).await,
    };
    let took = begun.elapsed();
    let status = response.status();
    app.metrics.count(&method, &route, status, took);
    let request_id = id.to_str().unwrap_or_default();
    tracing::debug!(request_id, %method, route, status = status.as_u16(), took_us = took.as_micros(), "answered");
    // How long these take is their client's doing.
    let waits = route.ends_with("/live") || route == "/v1/media" || route.starts_with("/v1/uploads/");
    if took > Duration::from_secs(1) && !waits {
        tracing::warn!(request_id, %method, route, took_ms = took.as_millis(), "slow");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What is answered is one person's: no cache may keep it.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn fresh_id(app: &App) -> HeaderValue {
    let mut random = [0; 12];
    app.backend.ports().entropy.fill(&mut random);
    let text = data_encoding::BASE64URL_NOPAD.encode(&random);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-"))
}

/// A panic ends its own request with a 500, and nothing else.
pub(super) fn panics() -> CatchPanicLayer<fn(Box<dyn Any + Send>) -> Response> {
    CatchPanicLayer::custom(|_| {
        tracing::error!("a handler panicked");
        Problem::new("internal_error").into_response()
    })
}
