//! Tracing: what a store logs names the request, job or live stream that caused it.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    body::Body,
    http::{HeaderValue, Request},
};
use couple::{
    Backend, Keyring, blobs::Blobs, core::limits::Unlimited, http::HttpOptions, store::MemoryStore,
};

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    world::{Log, World},
};

/// Store that logs a warning for every read and commit.
struct Warnings;

#[async_trait]
impl StoreObserver for Warnings {
    async fn before(&self, what: &'static str) {
        tracing::warn!("store: {what}");
    }
    async fn after(&self, _: &'static str) {}
}

fn request(path: &str, token: &str, id: &str, body: &str) -> Request<Body> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("x-request-id", id)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn log_of_the_store_names_the_request_the_job_or_the_stream() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // Tests on other threads may have cached that no subscriber is interested.
    tracing::callsite::rebuild_interest_cache();
    let store = ObservedStore(MemoryStore::new(), Arc::new(Warnings));
    let builder =
        Backend::builder().store(store).keys(Keyring::new([7; 32])).blobs(Blobs::memory()).limits(Unlimited);
    let world = World::of(builder, HttpOptions::default());
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let entry = r#"{"client_id": "a", "kind": "text", "body": {"text": "hello"}}"#;
    assert_eq!(world.raw(request("/v1/couple/entries", &ana, "append-1", entry)).await.status, 201);
    assert_eq!(world.raw(request("/v1/couple/live?after=0&wait=0", &ana, "live-1", "")).await.status, 200);
    let mut without_id = request("/v1/couple/live?after=0&wait=0", &ana, "none", "");
    without_id.headers_mut().remove("x-request-id");
    let own_id = world.raw(without_id).await.headers["x-request-id"].to_str().unwrap().to_owned();
    world.sign_up("cem@example.org").await;
    world.work().await;
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = |what: &str, all: &[&str]| {
        text.lines().filter(|line| line.ends_with(what) && all.iter().all(|part| line.contains(part))).count()
    };
    let append = r#"request{request_id="append-1" http.request.method=POST http.route="/v1/couple/entries"}"#;
    assert_eq!(lines("store: commit", &[append, "commit{changes=1}"]), 1, "{text}");
    assert!(lines("store: couple_of", &[append]) >= 1, "{text}");
    assert!(lines("store: session_by_token", &[r#"live_stream{request_id="live-1"}"#]) >= 1, "{text}");
    let own = format!(r#"live_stream{{request_id="{own_id}"}}"#);
    assert!(lines("store: session_by_token", &[&own]) >= 1, "{text}");
    let job = r#"job.name="account.mail" job.attempt=1 messaging.destination.name="mail"}"#;
    assert!(lines("store: commit", &["job{job.id=", job, "commit{changes="]) >= 1, "{text}");
}

#[tokio::test]
async fn request_id_of_a_client_is_kept_if_it_is_short_and_printable() {
    let world = World::new();
    let answered = async |id: &[u8]| {
        let mut request = Request::get("/v1/capabilities").body(Body::empty()).unwrap();
        request.headers_mut().insert("x-request-id", HeaderValue::from_bytes(id).unwrap());
        world.raw(request).await.headers["x-request-id"].as_bytes().to_vec()
    };
    for id in ["a".to_owned(), "!~".to_owned(), "x".repeat(128)] {
        assert_eq!(answered(id.as_bytes()).await, id.as_bytes());
    }
    for id in [&b""[..], b"a b", b"a\tb", "gr\u{fc}n".as_bytes(), &[b'x'; 129]] {
        let own = answered(id).await;
        assert!(own != id && own.len() == 16, "{own:?}");
        assert_ne!(answered(id).await, own, "each request has another one");
    }
}
