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

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn matched(uri: &str) -> (String, Option<usize>) {
        let request = without_last_slash(Request::get(uri).body(Body::empty()).unwrap());
        let slashes = request.extensions().get::<TrailingSlashes>().map(|slashes| slashes.0);
        (request.uri().to_string(), slashes)
    }

    #[test]
    fn slashes_at_the_end_of_a_path_are_removed_and_counted() {
        assert_eq!(matched("/v1/couple"), ("/v1/couple".to_owned(), None));
        assert_eq!(matched("/v1/couple/"), ("/v1/couple".to_owned(), Some(1)));
        assert_eq!(matched("/v1//couple///?a=/b/"), ("/v1//couple?a=/b/".to_owned(), Some(3)));
        assert_eq!(matched("https://h.example/a/"), ("https://h.example/a".to_owned(), Some(1)));
        // The root has no path without its slash.
        assert_eq!(matched("/"), ("/".to_owned(), None));
        assert_eq!(matched("//"), ("//".to_owned(), None));
    }

    #[tokio::test]
    async fn reference_to_a_sibling_leaves_a_folder_for_each_slash() {
        let sibling = async |uri: &str| {
            let request = without_last_slash(Request::get(uri).body(Body::empty()).unwrap());
            let (mut parts, _) = request.into_parts();
            let Ok(slashes) = TrailingSlashes::from_request_parts(&mut parts, &()).await;
            slashes.sibling("openapi.json")
        };
        assert_eq!(sibling("/docs").await, "openapi.json");
        assert_eq!(sibling("/docs//").await, "../../openapi.json");
    }
}
