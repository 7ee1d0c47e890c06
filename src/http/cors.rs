//! Cross-origin resource sharing (CORS): browser pages of other origins that may call this server.
//!
//! No response allows credentials: a session is a bearer token, not a cookie, so a page can only use a token that it was given. For the
//! same reason the `Origin` of a WebSocket is not checked: the page that opens it must send the token. With an authenticator of the host, which
//! may accept cookies, `authentication::cross_origin` checks it.

use std::{convert::Infallible, fmt, str::FromStr, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, Uri, header, uri::PathAndQuery},
    middleware::Next,
    response::Response,
};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// Time for which a browser may cache the response to a preflight request.
///
/// Chromium caches none for more than two hours.
const MAX_AGE: Duration = Duration::from_hours(1);

/// Response headers that a page may read beside those of the Fetch standard's safe list.
const EXPOSED_HEADERS: [&str; 21] = [
    "accept-ranges",
    "content-disposition",
    "content-location",
    "content-range",
    "etag",
    "location",
    "retry-after",
    "tus-checksum-algorithm",
    "tus-extension",
    "tus-max-size",
    "tus-resumable",
    "tus-version",
    "upload-checksum",
    "upload-concat",
    "upload-defer-length",
    "upload-expires",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "www-authenticate",
    "x-request-id",
];

/// Origin (RFC 6454) whose pages may call this server; `*` allows every origin.
///
/// Written as in `https://app.example.org`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// The text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnOrigin;

impl fmt::Display for NotAnOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an origin: write scheme and host, and the port if it is not the default, as in https://app.example.org")
    }
}

impl std::error::Error for NotAnOrigin {}

impl Origin {
    /// Whether this is the origin of a request's `Origin` header. `*` is none.
    pub(super) fn is(&self, header: &HeaderValue) -> bool {
        self.0 != "*" && self.0 == header
    }
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Ok(Self(HeaderValue::from_static("*")));
        }
        let uri: Uri = text.parse().map_err(|_| NotAnOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(NotAnOrigin);
        };
        let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
        // The URI parser adds a path. A written path never equals an `Origin` header.
        if !matches!(path, "" | "/")
            || text.ends_with('/')
            || authority.as_str().contains('@')
            || authority.host().is_empty()
            || authority.host().contains('*')
        {
            return Err(NotAnOrigin);
        }
        let default = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let origin = match authority.port_u16() {
            Some(port) if Some(port) != default => format!("{scheme}://{}:{port}", authority.host()),
            _ => format!("{scheme}://{}", authority.host()),
        };
        HeaderValue::try_from(origin).map(Self).map_err(|_| NotAnOrigin)
    }
}

/// Layer that adds CORS headers for these origins. None if no origin is allowed.
pub(super) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let any = origins.iter().any(|origin| origin.0 == "*");
    let allowed = if any {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|origin| origin.0.clone()))
    };
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
                Method::OPTIONS,
            ])
            // Any header is allowed: no request header proves who sends the request.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED_HEADERS.map(HeaderName::from_static))
            .max_age(MAX_AGE),
    )
}

/// Answers preflight requests, and adds CORS headers to all other responses.
pub(super) async fn share(layer: &CorsLayer, request: Request, next: Next) -> Response {
    let options = request.method() == Method::OPTIONS;
    let preflight = options && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if preflight || !options {
        return layer.layer(next).oneshot(request).await.unwrap_or_else(|never| match never {});
    }
    // The layer takes every OPTIONS request for a preflight request. An OPTIONS request that is none goes to its route (tus), and its
    // response gets the headers of an ordinary request.
    let mut plain = Request::new(Body::empty());
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        plain.headers_mut().insert(header::ORIGIN, origin.clone());
    }
    let mut answer = Some(next.run(request).await);
    let answered = service_fn(move |_: Request| {
        let answer = answer.take().unwrap_or_default();
        async move { Ok::<_, Infallible>(answer) }
    });
    layer.layer(answered).oneshot(plain).await.unwrap_or_else(|never| match never {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        let read = |text: &str| text.parse::<Origin>().map(|origin| origin.0.to_str().unwrap().to_owned());
        for (text, origin) in [
            ("https://app.example.org", "https://app.example.org"),
            (" HTTPS://App.Example.org:443 ", "https://app.example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("*", "*"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(origin));
        }
        for text in [
            "",
            "app.example.org",
            "https://app.example.org/",
            "https://app.example.org/path",
            "https://user@app.example.org",
            "https://*.example.org",
            "null",
            "https://",
        ] {
            assert_eq!(read(text), Err(NotAnOrigin), "{text}");
        }
    }
}
