//! Any path, headers and body: the response status is below 500.
#![no_main]

use std::cell::RefCell;

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
};
use couple::{Backend, core::limits::Unlimited};
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt as _;

thread_local! {
    static WORLD: RefCell<Option<(tokio::runtime::Runtime, Router)>> = const { RefCell::new(None) };
}

const PATHS: [&str; 12] = [
    "/v1/accounts",
    "/v1/accounts/verify",
    "/v1/sessions",
    "/v1/password/forgotten",
    "/v1/me",
    "/v1/invites",
    "/v1/invites/preview",
    "/v1/invites/accept",
    "/v1/couple/entries",
    "/v1/couple/live",
    "/v1/couple/signals",
    "/v1/openapi.json",
];

fuzz_target!(|input: (u8, u8, &str, &str, &[u8])| {
    let (method, path, query, header, body) = input;
    WORLD.with_borrow_mut(|world| {
        let (runtime, app) = world.get_or_insert_with(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let app = runtime.block_on(async {
                let backend = Backend::builder().limits(Unlimited).build().expect("a backend");
                couple::http::router(backend)
            });
            (runtime, app)
        });
        let method =
            [Method::GET, Method::POST, Method::PATCH, Method::DELETE][usize::from(method) % 4].clone();
        let path = PATHS[usize::from(path) % PATHS.len()];
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?{query}"))
            .header("content-type", "application/json")
            .header("idempotency-key", header)
            .header("authorization", header)
            .body(Body::from(body.to_vec()));
        // A request that is invalid HTTP does not reach the router.
        let Ok(request) = request else { return };
        let answer = runtime.block_on(app.clone().oneshot(request)).expect("infallible");
        assert!(answer.status().as_u16() < 500, "{} at {path}", answer.status());
    });
});
