//! Middleware of every request: request id, limits, timeout, panic handler, log, metrics.

use std::{
    any::Any,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use super::{App, HttpOptions, Problem, cors, extract::is_trusted, server::body_problem};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum time for a body to arrive.
///
/// The largest body over the slowest network that `serve` allows takes as long.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_mins(5);

/// Answers 503 when too many requests are being handled, or when one takes too long.
///
/// The body is read first, so that a client that sends slowly holds no permit.
pub(super) async fn bounded(State(app): State<App>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let mut body = pin!(to_bytes(body, app.options.max_json_bytes));
    // hyper delivers a body on the connection's next turn after it was requested. Only a body that has not arrived by then gets a timer.
    let taken = match poll_fn(|context| Poll::Ready(body.as_mut().poll(context))).await {
        Poll::Ready(taken) => Ok(taken),
        Poll::Pending => {
            yield_now().await;
            timeout(BODY_TIMEOUT, body).await
        }
    };
    let request = match taken {
        Ok(Ok(bytes)) => Request::from_parts(head, Body::from(bytes)),
        Ok(Err(error)) => return body_problem(&error).into_response(),
        Err(_) => return Problem::new("body_timed_out").into_response(),
    };
    let Ok(_permit) = app.requests.clone().try_acquire_owned() else {
        return Problem::new("overloaded").into_response();
    };
    match timeout(app.options.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new("timed_out").into_response(),
    }
}

/// Whether a warning about forwarding headers from untrusted peers was logged.
///
/// There is one warning for peers in private networks, which are mostly reverse proxies, and one for others.
#[derive(Debug, Default)]
pub(super) struct ProxyWarnings {
    private: AtomicBool,
    public: AtomicBool,
}

impl ProxyWarnings {
    /// Warns of an untrusted proxy; returns whether it warned now.
    ///
    /// Behind such a proxy all clients have the proxy's address and share every limit per client.
    fn check(&self, peer: Option<IpAddr>, headers: &HeaderMap, options: &HttpOptions) -> bool {
        let Some(peer) = peer.map(|peer| peer.to_canonical()) else { return false };
        let name = ["x-forwarded-for", "forwarded"].into_iter().find(|name| headers.contains_key(*name));
        let Some(header) = name.filter(|_| !is_trusted(peer, options)) else { return false };
        let private = match peer {
            IpAddr::V4(peer) => peer.is_loopback() || peer.is_private() || peer.is_link_local(),
            IpAddr::V6(peer) => peer.is_loopback() || peer.is_unique_local() || peer.is_unicast_link_local(),
        };
        let warned = if private { &self.private } else { &self.public };
        if warned.swap(true, Ordering::Relaxed) {
            return false;
        }
        tracing::warn!(
            %peer,
            header,
            "a forwarded address is ignored, since its sender is not a trusted proxy; if it is your reverse proxy, add it to the trusted \
             proxies (COUPLE_TRUSTED_PROXIES): until then all its clients count as one"
        );
        true
    }
}

/// Sets the request id and common headers, counts the request and logs it.
pub(super) async fn observed(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    let id = given.cloned().unwrap_or_else(|| fresh_id(&app));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    app.proxy_warnings.check(peer, request.headers(), &app.options);
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let started = Instant::now();
    let request_id = id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", request_id, http.request.method = %method, http.route = route);
    let mut response = match &app.cors {
        Some(layer) => Box::pin(cors::share(layer, request, next)).instrument(span.clone()).await,
        None => next.run(request).instrument(span.clone()).await,
    };
    let took = started.elapsed();
    let status = response.status();
    app.metrics.count(&method, &route, status, took);
    let _entered = span.enter();
    tracing::debug!(
        http.response.status_code = status.as_u16(),
        duration_us = took.as_micros(),
        "request answered"
    );
    if is_slow(&route, took) {
        tracing::warn!(duration_ms = took.as_millis(), "slow request");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Responses contain private data: shared caches must not store them.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the server, and not the client, made a request of this route slow.
fn is_slow(route: &str, took: Duration) -> bool {
    // The duration of these depends on the client.
    let waits = route.ends_with("/live") || route == "/v1/media" || route.starts_with("/v1/uploads/");
    took > Duration::from_secs(1) && !waits
}

fn fresh_id(app: &App) -> HeaderValue {
    let mut random = [0; 12];
    app.backend.ports().entropy.fill(&mut random);
    let text = data_encoding::BASE64URL_NOPAD.encode(&random);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-"))
}

/// Layer that responds with 500 when a handler panics; other requests continue.
pub(super) fn panics() -> CatchPanicLayer<fn(Box<dyn Any + Send>) -> Response> {
    CatchPanicLayer::custom(|_| {
        tracing::error!("a handler panicked");
        Problem::new("internal_error").into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_headers_from_an_untrusted_peer_are_warned_of_once() {
        let options = HttpOptions::default().with_trusted_proxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let mut forwarded = HeaderMap::new();
        forwarded.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.7"));
        let warnings = ProxyWarnings::default();
        let warns =
            |peer: &str, headers: &HeaderMap| warnings.check(Some(peer.parse().unwrap()), headers, &options);
        assert!(!warns("10.0.0.1", &forwarded), "the peer is trusted");
        assert!(!warns("127.0.0.1", &HeaderMap::new()), "there is no forwarding header");
        assert!(warns("203.0.113.1", &forwarded));
        // A forwarding header that a client sent before does not suppress the warning about the proxy.
        assert!(warns("::ffff:127.0.0.1", &forwarded));
        assert!(!warns("127.0.0.1", &forwarded) && !warns("203.0.113.2", &forwarded));
    }

    #[test]
    fn proxies_in_private_networks_share_one_warning_and_all_others_another() {
        let options = HttpOptions::default();
        let mut forwarded = HeaderMap::new();
        forwarded.insert("forwarded", HeaderValue::from_static("for=198.51.100.7"));
        let warns = |warnings: &ProxyWarnings, peer: &str| {
            warnings.check(Some(peer.parse().unwrap()), &forwarded, &options)
        };
        for private in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"] {
            let warnings = ProxyWarnings::default();
            assert!(warns(&warnings, "203.0.113.1"), "{private}");
            assert!(warns(&warnings, private) && !warns(&warnings, private), "{private}");
        }
        for public in ["203.0.113.2", "2001:db8::1"] {
            let warnings = ProxyWarnings::default();
            assert!(warns(&warnings, public) && !warns(&warnings, "203.0.113.1"), "{public}");
        }
        assert!(!ProxyWarnings::default().check(None, &forwarded, &options), "the peer is unknown");
    }

    #[test]
    fn requests_whose_duration_depends_on_the_client_are_not_slow() {
        let (second, more) = (Duration::from_secs(1), Duration::from_millis(1_001));
        for route in ["/v1/couple", "/v1/media/{id}", "/v1/uploads", "unmatched"] {
            assert!(is_slow(route, more) && !is_slow(route, second), "{route}");
        }
        for route in ["/v1/couple/live", "/v1/media", "/v1/uploads/{id}"] {
            assert!(!is_slow(route, more), "{route}");
        }
    }
}
