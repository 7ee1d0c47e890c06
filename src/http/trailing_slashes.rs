//! Paths with slashes at their end, which their routes do not have.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Request},
    http::{Uri, request::Parts},
};

/// Number of slashes at the end of the requested path, which its route does not have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrailingSlashes(usize);

impl TrailingSlashes {
    /// Reference, relative to the requested URL, to a path in the folder of the route.
    pub(super) fn sibling(self, path: &str) -> String {
        "../".repeat(self.0) + path
    }
}

impl<S: Sync> FromRequestParts<S> for TrailingSlashes {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Removes slashes at the end of the path, so that it matches the route without them.
pub(super) fn without_last_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path().trim_end_matches('/');
    let slashes = uri.path().len() - path.len();
    if path.is_empty() || slashes == 0 {
        return request;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{path}{query}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(TrailingSlashes(slashes));
    }
    request
}
