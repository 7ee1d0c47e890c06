//! Calls from browser pages of other origins, over every route of the document.

use axum::{
    body::Body,
    http::{HeaderMap, Request},
};
use couple::{Backend, core::limits::Unlimited, http::HttpOptions};

use crate::{
    input::operations,
    world::{TestResponse, World},
};

const APP: &str = "https://app.example.org";

fn allowing(origins: &[&str]) -> World {
    let cors_origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    let options = HttpOptions::default().with_cors_origins(cors_origins).with_metrics(true);
    World::of(Backend::builder().limits(Unlimited), options)
}

async fn preflight(world: &World, origin: &str, method: &str, path: &str) -> TestResponse {
    let request = Request::options(path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,content-type,idempotency-key");
    world.raw(request.body(Body::empty()).unwrap()).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Routes of the document, and those that are not documented.
async fn routes(world: &World) -> Vec<(String, String)> {
    let documented = operations(world).await.into_iter().map(|(method, path, _)| (method, path));
    let mut all: Vec<_> = documented.map(|(method, path)| (method, path.replace(['{', '}'], ""))).collect();
    for (method, path) in
        [("GET", "/socket.io/"), ("POST", "/socket.io/"), ("GET", "/v1/openapi.json"), ("GET", "/nowhere")]
    {
        all.push((method.to_owned(), path.to_owned()));
    }
    all
}

#[tokio::test]
async fn every_route_answers_a_preflight_request_of_an_allowed_origin() {
    let world = allowing(&[APP, "http://localhost:3000"]);
    for (method, path) in routes(&world).await {
        let answer = preflight(&world, APP, &method, &path).await;
        let details = format!("{method} {path}: {} {:?}", answer.status, answer.headers);
        assert_eq!(answer.status, 200, "{details}");
        assert_eq!(text(&answer.headers, "access-control-allow-origin"), APP, "{details}");
        assert!(text(&answer.headers, "access-control-allow-methods").contains(&method), "{details}");
        let allowed = text(&answer.headers, "access-control-allow-headers");
        assert_eq!(allowed, "authorization,content-type,idempotency-key", "{details}");
        assert_eq!(text(&answer.headers, "access-control-max-age"), "3600", "{details}");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{details}");
        let stranger = preflight(&world, "https://evil.example.org", &method, &path).await;
        assert!(!stranger.headers.contains_key("access-control-allow-origin"), "{details}");
    }
}

#[tokio::test]
async fn every_answer_to_an_allowed_origin_can_be_read_by_its_page() {
    let world = allowing(&[APP]);
    for (method, path) in routes(&world).await {
        let ask = async |origin: &str| {
            let request = Request::builder().method(method.as_str()).uri(&path).header("origin", origin);
            world.raw(request.body(Body::empty()).unwrap()).await
        };
        let answer = ask(APP).await;
        let details = format!("{method} {path}: {} {:?}", answer.status, answer.headers);
        assert_eq!(text(&answer.headers, "access-control-allow-origin"), APP, "{details}");
        let exposed = text(&answer.headers, "access-control-expose-headers");
        for name in [
            "location",
            "upload-offset",
            "upload-length",
            "upload-expires",
            "tus-resumable",
            "etag",
            "retry-after",
            "x-request-id",
        ] {
            assert!(exposed.split(',').any(|exposed| exposed == name), "{name}: {details}");
        }
        let vary = answer.headers.get_all("vary").iter();
        let varies = vary.filter_map(|value| value.to_str().ok()).any(|value| value.contains("origin"));
        assert!(varies, "{details}");
        let stranger = ask("https://app.example.org.evil.example").await;
        assert!(!stranger.headers.contains_key("access-control-allow-origin"), "{details}");
    }
}

/// An `OPTIONS` request without preflight headers is tus's query of the server's features.
#[tokio::test]
async fn options_request_of_tus_is_not_a_preflight_request() {
    let world = allowing(&[APP]);
    let request = Request::options("/v1/uploads").header("origin", APP);
    let answer = world.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, text(&answer.headers, "tus-version")), (204, "1.0.0"));
    assert_eq!(text(&answer.headers, "access-control-allow-origin"), APP);
    assert!(text(&answer.headers, "access-control-expose-headers").contains("tus-version"));
}

#[tokio::test]
async fn no_origin_is_allowed_by_default_and_every_origin_with_a_star() {
    let world = World::new();
    let refused = preflight(&world, APP, "POST", "/v1/sessions").await;
    assert_eq!(refused.said(), (405, "method_not_allowed"));
    assert!(!refused.headers.keys().any(|name| name.as_str().starts_with("access-control")));
    let world = allowing(&["*"]);
    let answer = preflight(&world, "https://anything.example", "POST", "/v1/sessions").await;
    assert_eq!((answer.status, text(&answer.headers, "access-control-allow-origin")), (200, "*"));
}
