//! Protection of hosts whose credentials a browser sends by itself, such as cookies, against pages of other origins.
//!
//! The built-in sessions need none: a page can only send a bearer token that it was given. A host may authenticate by a cookie, or a gateway
//! in front of it may, so writes and web sockets of its callers are checked as browsers declare them (`Sec-Fetch-Site`, `Origin`). A request
//! without both is not from a browser page.

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts};

use crate::http::App;

/// Whether a request may use credentials that a browser sends by itself.
pub(super) fn is_allowed(app: &App, request: &Parts) -> bool {
    let changes_nothing = matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
    // A browser sends a WebSocket, also that of Socket.IO, to any origin with its cookies.
    let is_socket = request.headers.contains_key(header::SEC_WEBSOCKET_KEY)
        || request.uri.path().ends_with("/socket.io/");
    if app.authentication.is_built_in() || (changes_nothing && !is_socket) {
        return true;
    }
    let allowed = |origin: &HeaderValue| app.options.cors_origins.iter().any(|one| one.is(origin));
    is_same_origin(&request.headers, &request.uri, allowed, || app.backend.ports().links.below(""))
}

fn is_same_origin(
    headers: &HeaderMap,
    uri: &Uri,
    is_listed: impl FnOnce(&HeaderValue) -> bool,
    public_url: impl FnOnce() -> String,
) -> bool {
    // A page of another origin can send this header only after a preflight request that allows it.
    let is_bearer = |value: &HeaderValue| {
        value.as_bytes().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
    };
    if headers.get(header::AUTHORIZATION).is_some_and(is_bearer) {
        return true;
    }
    let origin = headers.get(header::ORIGIN);
    if origin.is_some_and(is_listed) {
        return true;
    }
    match (headers.get("sec-fetch-site"), origin) {
        (Some(site), _) => site == "same-origin" || site == "none",
        (None, None) => true,
        (None, Some(origin)) => {
            let Ok(origin) = origin.to_str() else { return false };
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let host = host.or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
            let is_host = origin
                .split_once("://")
                .is_some_and(|(_, authority)| host.is_some_and(|host| host.eq_ignore_ascii_case(authority)));
            // A proxy may have replaced `Host`.
            is_host || {
                let url = public_url();
                let end = url.find("://").map_or(0, |at| at + 3);
                let end = url[end..].find('/').map_or(url.len(), |at| end + at);
                url[..end].eq_ignore_ascii_case(origin)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<header::HeaderName>().unwrap(), HeaderValue::from_static(value))
        });
        let listed = |origin: &HeaderValue| origin == "https://listed.example.org";
        is_same_origin(&headers.collect(), &Uri::from_static("/v1/invites"), listed, || {
            "https://my.app/love".to_owned()
        })
    }

    #[test]
    fn pages_of_other_origins_cannot_use_cookies() {
        for refused in [
            [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
            [("sec-fetch-site", "same-site"), ("origin", "https://other.my.app")],
            [("host", "my.app"), ("origin", "https://evil.example")],
            [("host", "my.app"), ("origin", "null")],
            [("host", "my.app"), ("origin", "https://my.app.evil.example")],
            [("authorization", "Basic eDp5"), ("origin", "https://evil.example")],
        ] {
            assert!(!allowed(&refused), "{refused:?}");
        }
        for sent in [
            [("sec-fetch-site", "same-origin"), ("origin", "https://my.app")],
            [("sec-fetch-site", "cross-site"), ("origin", "https://listed.example.org")],
            [("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")],
            [("host", "backend:3000"), ("origin", "https://my.app")],
            [("authorization", "Bearer x"), ("origin", "https://evil.example")],
            [("host", "my.app"), ("cookie", "session=x")],
        ] {
            assert!(allowed(&sent), "{sent:?}");
        }
    }
}
