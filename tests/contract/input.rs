//! Invalid input: every route of the document answers it with the right status and a stable code.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use couple::http::CODES;
use serde_json::{Value, json};

use crate::world::{TestResponse, World};

/// Method and path of every operation, and whether it accepts JSON.
pub(crate) async fn operations(world: &World) -> Vec<(String, String, bool)> {
    let document = world.call("GET", "/v1/openapi.json", None, None).await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let codes =
        document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    assert_eq!(codes.len(), couple::http::CODES.len());
    for operation in
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        assert!(operation["summary"].as_str().is_none_or(|summary| !summary.contains('\n')), "{operation}");
    }
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let body = operation["requestBody"]["content"].get("application/json").is_some();
            all.push((method.to_uppercase(), path.clone(), body));
        }
    }
    all
}

/// The document suits client generators: references resolve, and operations have unique ids.
#[tokio::test]
async fn openapi_document_is_complete() {
    let document = World::new().call("GET", "/v1/openapi.json", None, None).await.body;
    let mut names = BTreeSet::new();
    for (_, operation) in
        document["paths"].as_object().unwrap().values().filter_map(Value::as_object).flatten()
    {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "two operations have the id {name}");
    }
    let mut unread = vec![&document];
    while let Some(value) = unread.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                    let there = to.strip_prefix('#').and_then(|to| document.pointer(to));
                    assert!(there.is_some(), "the reference {to} does not resolve");
                }
                unread.extend(fields.values());
            }
            Value::Array(values) => unread.extend(values),
            _ => {}
        }
    }
}

pub(crate) fn filled(path: &str) -> String {
    path.replace("{seq}", "1")
        .replace("{rendition}", "320")
        .replace("{id}", "0190aaaa-0000-7000-8000-000000000000")
}

async fn sent(
    world: &World,
    method: &str,
    path: &str,
    token: &str,
    kind: &str,
    body: Vec<u8>,
) -> TestResponse {
    let request = Request::builder()
        .method(method)
        .uri(filled(path))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", kind)
        .body(Body::from(body))
        .unwrap();
    let answer = world.raw(request).await;
    if answer.status >= 400 {
        let known = CODES.iter().find(|(code, _, _)| *code == answer.code());
        let (_, status, _) = known.unwrap_or_else(|| panic!("{method} {path}: code {:?}", answer.body));
        assert_eq!(*status, answer.status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["status"], answer.status);
    }
    assert!(answer.headers.contains_key("x-request-id"));
    answer
}

#[tokio::test]
async fn every_body_is_checked() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    const JSON: &str = "application/json";
    for (method, path, takes_body) in operations(&world).await {
        if !takes_body {
            continue;
        }
        let send = async |kind: &str, body: &[u8]| {
            let answer = sent(&world, &method, &path, &ana, kind, body.to_vec()).await;
            (answer.status, answer.code().to_owned())
        };
        let is = |said: (u16, String), status: u16, code: &str| {
            assert_eq!(said, (status, code.to_owned()), "{method} {path}");
        };
        for broken in ["", "{", "nul", "\u{feff}{}"] {
            is(send(JSON, broken.as_bytes()).await, 400, "malformed_json");
        }
        is(send(JSON, b"\xff").await, 400, "malformed_json");
        is(send(JSON, "[".repeat(5_000).as_bytes()).await, 422, "invalid_field");
        for wrong in [
            "[]",
            "[\"ana@example.org\",\"Ana\"]",
            "1",
            "\"x\"",
            "null",
            "{\"no_such_field\":1}",
            "{\"account_id\":\"x\",\"verified\":true}",
        ] {
            is(send(JSON, wrong.as_bytes()).await, 422, "invalid_field");
        }
        is(send("text/plain", b"{}").await, 415, "unsupported_media_type");
        is(send("application/x-www-form-urlencoded", b"a=b").await, 415, "unsupported_media_type");
        let huge = format!("{{\"x\":\"{}\"}}", "a".repeat(65 * 1024));
        is(send(JSON, huge.as_bytes()).await, 413, "body_too_large");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::new();
    for path in ["/", "/v1", "/v1/nothing", "/v2/me", "/v1/couple/entries/1/2/3", "/%00", "/open/x"] {
        let answer = world.call("GET", path, None, None).await;
        assert_eq!(answer.said(), (404, "not_found"), "{path}");
    }
    let operations = operations(&world).await;
    for (_, path, _) in &operations {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            if operations.iter().any(|(m, p, _)| m == method && p == path) {
                continue;
            }
            let answer = sent(&world, method, path, "x", "application/json", b"{}".to_vec()).await;
            // Another template may match the path: `current` can be a session's id as well.
            if answer.status != 401 {
                assert_eq!(answer.said(), (405, "method_not_allowed"), "{method} {path}");
                assert!(answer.headers.contains_key("allow"), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    let long = "x".repeat(2_000);
    let cases: Vec<(&str, &str, Value, &str, &str)> = vec![
        ("POST", "/v1/accounts", json!({"email": "a@b.de"}), "display_name", "required"),
        ("POST", "/v1/accounts", json!({"email": "", "display_name": "A"}), "email", "required"),
        ("POST", "/v1/accounts", json!({"email": "no", "display_name": "A"}), "email", "invalid"),
        ("POST", "/v1/accounts", json!({"email": long, "display_name": "A"}), "email", "too_long"),
        ("POST", "/v1/accounts", json!({"email": "a@b.de", "display_name": ""}), "display_name", "required"),
        (
            "POST",
            "/v1/accounts",
            json!({"email": "a@b.de", "display_name": long}),
            "display_name",
            "too_long",
        ),
        (
            "POST",
            "/v1/accounts",
            json!({"email": "a@b.de", "display_name": "a\u{0}b"}),
            "display_name",
            "control_character",
        ),
        ("POST", "/v1/accounts", json!({"email": 1, "display_name": "A"}), "email", "wrong_type"),
        ("POST", "/v1/accounts/verify", json!({"email": "a@b.de"}), "code", "required"),
        ("POST", "/v1/sessions", json!({"email": "a@b.de"}), "password", "either_password_or_code"),
        ("PATCH", "/v1/me", json!({"display_name": "\u{202e}"}), "display_name", "control_character"),
        ("PATCH", "/v1/me", json!({"time_zone": "Mars/Base"}), "time_zone", "unknown_time_zone"),
        ("PATCH", "/v1/me", json!({"birthday": "2001-02-29"}), "birthday", "invalid_date"),
        ("PATCH", "/v1/couple", json!({"title": ""}), "title", "required"),
        ("PATCH", "/v1/couple", json!({"anniversary": "yesterday"}), "anniversary", "invalid_date"),
        ("POST", "/v1/invites/accept", json!({}), "code", "exactly_one_of_code_token_id"),
        (
            "POST",
            "/v1/couple/entries",
            json!({"client_id": "", "kind": "text", "body": {"text": "x"}}),
            "client_id",
            "invalid",
        ),
        (
            "POST",
            "/v1/couple/entries",
            json!({"client_id": "é", "kind": "text", "body": {"text": "x"}}),
            "client_id",
            "invalid",
        ),
        (
            "POST",
            "/v1/couple/entries",
            json!({"client_id": "a", "kind": "paired", "body": {}}),
            "kind",
            "unknown_kind",
        ),
        (
            "POST",
            "/v1/couple/entries",
            json!({"client_id": "a", "kind": "text", "body": {"text": " "}}),
            "body.text",
            "required",
        ),
        (
            "POST",
            "/v1/couple/entries",
            json!({"client_id": "a", "kind": "hug", "body": []}),
            "body",
            "not_an_object",
        ),
        (
            "POST",
            "/v1/couple/entries",
            json!({"client_id": "a", "kind": "hug", "body": {"x": "y".repeat(17_000)}}),
            "body",
            "too_long",
        ),
        ("POST", "/v1/couple/signals", json!({"kind": "shout"}), "kind", "unknown_kind"),
        ("PUT", "/v1/couple/entries/1/reaction", json!({"emoji": "abc"}), "emoji", "invalid"),
        ("PUT", "/v1/couple/read", json!({"seq": "1"}), "seq", "wrong_type"),
    ];
    for (method, path, body, field, code) in cases {
        let answer = world.call(method, path, Some(&ana), Some(body)).await;
        let first = &answer.body["errors"][0];
        assert_eq!(answer.said(), (422, "invalid_field"), "{method} {path} {}", answer.body);
        assert_eq!(
            (first["field"].as_str(), first["code"].as_str()),
            (Some(field), Some(code)),
            "{method} {path}"
        );
    }
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "after=-1",
        "before=-1",
        "after=1&before=2",
        "after=99999999999999999999",
        "after=%FF",
    ] {
        let answer = world.get(&format!("/v1/couple/entries?{query}"), &ana).await;
        assert_eq!(answer.said(), (422, "invalid_field"), "{query} {}", answer.body);
    }
    for path in [
        "/v1/couple/entries/0",
        "/v1/couple/entries/-1",
        "/v1/couple/entries/x",
        "/v1/couple/entries/99999999999999999999",
    ] {
        assert_eq!(world.get(path, &ana).await.said(), (404, "entry_not_found"), "{path}");
    }
    for query in ["after=x", "wait=51", "wait=-1", "after=1.2.3", "after=-1"] {
        let answer = world.get(&format!("/v1/couple/live?{query}"), &ana).await;
        assert_eq!(answer.said(), (422, "invalid_field"), "{query}");
    }
}

#[tokio::test]
async fn errors_do_not_contain_secrets() {
    let world = World::new();
    let body = r#"{"email":"a@b.de","password":12345678901234567,"code":"#;
    let answer = sent(&world, "POST", "/v1/sessions", "x", "application/json", body.into()).await;
    assert!(!answer.body.to_string().contains("1234567"), "{}", answer.body);
    let body = r#"{"email":"a@b.de","password":12345678901234567}"#;
    let answer = sent(&world, "POST", "/v1/sessions", "x", "application/json", body.into()).await;
    assert!(!answer.body.to_string().contains("1234567"), "{}", answer.body);
}

#[tokio::test]
async fn router_can_be_mounted_under_any_prefix() {
    use tower::ServiceExt as _;
    let world = World::new();
    let host = axum::Router::new()
        .route("/", axum::routing::get(async || "the host's own"))
        .nest("/api/couple", world.app.clone());
    for (path, status) in [
        ("/", 200),
        ("/api/couple/healthz", 200),
        ("/api/couple/v1/me", 401),
        ("/api/couple/x", 404),
        ("/v1/me", 404),
    ] {
        let answer = host.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
}
