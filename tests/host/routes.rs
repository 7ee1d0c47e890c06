//! Routes that a host mounts one by one, with its own routes beside them.

use std::collections::BTreeSet;

use axum::{
    Extension, Json, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode},
    routing::{get, post},
};
use couple::{
    Backend, Principal,
    http::{Api, Caller, HttpOptions, JsonBody, Problem, RequestMeta, RoutePart, routes},
    notify::live::{Cursor, Frame},
    pairing::Side,
    timeline::Append,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use utoipa::OpenApi;

use crate::host_users::HostUsers;

type Answer = (u16, HeaderMap, Value);

async fn send(app: &Router, request: Request<Body>) -> Answer {
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = to_bytes(body, 1 << 24).await.unwrap();
    let body = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(_) => Value::String(String::from_utf8_lossy(&bytes).into_owned()),
    };
    (head.status.as_u16(), head.headers, body)
}

async fn call(app: &Router, method: &str, path: &str, token: &str, body: &Value) -> Answer {
    let request =
        Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", "application/json").header("idempotency-key", path);
    send(app, request.body(Body::from(body.to_string())).unwrap()).await
}

/// A host with its own users, two of them signed in.
fn host(options: HttpOptions) -> (Api, String, String) {
    let users = HostUsers::default();
    let builder = Backend::builder().directory(users.clone()).authenticator(users.clone());
    let [ana, ben] = ["ana@example.org", "ben@example.org"].map(|email| users.sign_in(users.add(email)));
    (Api::new(builder.build().unwrap(), options), ana, ben)
}

/// Method, path and operation of every operation of a document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    all
}

fn filled(path: &str) -> String {
    let id = "0190aaaa-0000-7000-8000-000000000000";
    ["{id}", "{upload}", "{seq}", "{rendition}"]
        .iter()
        .fold(path.to_owned(), |path, name| path.replace(name, id))
}

/// Tag of an area, and its part.
type Part = (&'static str, fn(&Api) -> RoutePart);

const PARTS: [Part; 8] = [
    ("accounts", routes::accounts),
    ("pairing", routes::pairing),
    ("timeline", routes::timeline),
    ("media", routes::media),
    ("devices", routes::devices),
    ("glance", routes::glance),
    ("live", routes::live),
    ("operations", routes::operations),
];

#[tokio::test]
async fn each_part_serves_and_documents_its_area_and_nothing_else() {
    let api = Api::new(Backend::builder().build().unwrap(), HttpOptions::default());
    let request = Request::get("/v1/openapi.json").body(Body::empty()).unwrap();
    let (_, _, whole) = send(&api.router(), request).await;
    let all = operations(&whole);
    for (area, part) in PARTS {
        let (router, document) = part(&api).into_parts::<()>();
        let document = serde_json::to_value(&document).unwrap();
        assert_eq!(document["tags"].as_array().unwrap().len(), 1);
        let own: Vec<_> =
            all.iter().filter(|(_, _, operation)| operation["tags"][0] == area).cloned().collect();
        assert_eq!(operations(&document), own, "{area}");
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert_eq!(*schema, whole["components"]["schemas"][name], "{area}: {name}");
        }
        for (method, path, operation) in &all {
            let (status, headers, body) = call(&router, method, &filled(path), "unknown", &Value::Null).await;
            // The host's own router answers what the part does not have.
            let is_absent = status == 404 && body == "" && !headers.contains_key("x-request-id");
            assert_eq!(is_absent, operation["tags"][0] != area, "{area}: {method} {path}: {status} {body}");
        }
    }
}

#[tokio::test]
async fn host_that_mounts_pairing_exposes_nothing_else() {
    let (api, ana, ben) = host(HttpOptions::default().with_metrics(true));
    let app: Router = Router::new().nest("/love", routes::pairing(&api).into());
    let request = Request::get("/v1/openapi.json").body(Body::empty()).unwrap();
    let (_, _, whole) = send(&api.router(), request).await;
    let mut served = BTreeSet::new();
    for (method, path, operation) in operations(&whole) {
        let (status, _, body) =
            call(&app, &method, &format!("/love{}", filled(&path)), &ana, &Value::Null).await;
        if status != 404 || body != "" {
            served.insert(operation["tags"][0].as_str().unwrap().to_owned());
        }
        assert_eq!(
            call(&app, &method, &filled(&path), &ana, &Value::Null).await.0,
            404,
            "outside of the prefix"
        );
    }
    assert_eq!(served, BTreeSet::from(["pairing".to_owned()]));
    for path in
        ["/v1/openapi.json", "/metrics", "/healthz", "/socket.io/?EIO=4&transport=polling", "/open/invite"]
    {
        let (status, _, body) = call(&app, "GET", &format!("/love{path}"), &ana, &Value::Null).await;
        assert_eq!((status, body), (404, json!("")), "{path}");
    }
    let (status, _, invite) = call(&app, "POST", "/love/v1/invites", &ana, &json!({})).await;
    assert_eq!(status, 201, "{invite}");
    let accepted =
        call(&app, "POST", "/love/v1/invites/accept", &ben, &json!({"code": invite["code"]})).await;
    assert_eq!(accepted.0, 201, "{}", accepted.2);
    let (status, headers, problem) = call(&app, "PUT", "/love/v1/invites", &ana, &Value::Null).await;
    assert_eq!((status, &problem["code"]), (405, &json!("method_not_allowed")));
    assert!(headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn parts_share_the_metrics_and_limits_of_their_api() {
    let options = HttpOptions::default().with_metrics(true).with_max_json_bytes(64);
    let options = options.with_cors_origins(vec!["https://my.app".parse().unwrap()]);
    let (api, ana, ben) = host(options);
    let all = PARTS.into_iter().map(|(_, part)| part(&api)).reduce(RoutePart::merge).unwrap();
    let app: Router = all.merge(routes::pages(&api)).into();
    let (_, _, invite) = call(&app, "POST", "/v1/invites", &ana, &json!({})).await;
    assert_eq!(call(&app, "POST", "/v1/invites/accept", &ben, &json!({"code": invite["code"]})).await.0, 201);
    let long = json!({"client_id": "m", "kind": "text", "body": {"text": "a".repeat(64)}});
    assert_eq!(call(&app, "POST", "/v1/couple/entries", &ana, &long).await.2["code"], "body_too_large");
    assert_eq!(call(&app, "GET", "/v1/couple/live?wait=0", &ana, &Value::Null).await.0, 200);
    assert_eq!(call(&app, "GET", "/open/invite", "", &Value::Null).await.0, 200);
    let (_, _, metrics) = call(&app, "GET", "/metrics", "", &Value::Null).await;
    for route in ["/v1/invites/accept", "/v1/couple/entries", "/v1/couple/live", "/open/{page}"] {
        assert!(metrics.as_str().unwrap().contains(&format!("route=\"{route}\"")), "{route}: {metrics}");
    }
    let preflight =
        Request::builder().method("OPTIONS").uri("/v1/invites").header("origin", "https://my.app");
    let preflight = preflight.header("access-control-request-method", "POST").body(Body::empty()).unwrap();
    assert_eq!(send(&app, preflight).await.1["access-control-allow-origin"], "https://my.app");
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    id: String,
    text: String,
}

/// Route of the host that answers like the routes of the contract.
async fn note(
    State(api): State<Api>,
    caller: Caller,
    meta: RequestMeta,
    body: JsonBody<Note>,
) -> Result<Json<Value>, Problem> {
    if body.value.text == "teapot" {
        return Err(Problem::custom(StatusCode::IM_A_TEAPOT, "short_and_stout", "Use another pot")
            .detail("tip me over"));
    }
    let context = meta.context(caller.id(), &body);
    let Note { id, text } = body.value;
    let entry =
        Append { couple: None, client_id: id, kind: "x-note".to_owned(), body: json!({ "text": text }) };
    let done = api.backend().timeline().append(&context, caller.id(), &entry).await?;
    Ok(Json(json!({ "seq": done.entry.seq, "created": done.created })))
}

#[tokio::test]
async fn own_route_of_a_host_answers_like_the_contract() {
    let (api, ana, ben) = host(HttpOptions::default());
    let who = async |Extension(principal): Extension<Principal>| principal.person().to_string();
    let own = Router::new().route("/notes", post(note)).with_state(api.clone());
    let own = own.merge(api.authenticated(Router::new().route("/who", get(who))));
    let app: Router = own.nest("/love", api.router());
    let (_, _, invite) = call(&app, "POST", "/love/v1/invites", &ana, &json!({})).await;
    let code = json!({"code": invite["code"]});
    let (_, _, accepted) = call(&app, "POST", "/love/v1/invites/accept", &ben, &code).await;

    let (status, _, who) = call(&app, "GET", "/who", &ana, &Value::Null).await;
    assert_eq!((status, who), (200, accepted["couple"]["partner"]["id"].clone()));
    let (status, headers, problem) = call(&app, "GET", "/who", "unknown", &Value::Null).await;
    assert_eq!((status, &problem["code"]), (401, &json!("unauthenticated")));
    assert_eq!(headers["content-type"], "application/problem+json");

    let said = json!({"id": "n", "text": "hello"});
    let (status, _, first) = call(&app, "POST", "/notes", &ana, &said).await;
    assert_eq!((status, &first), (200, &json!({"seq": 2, "created": true})));
    assert_eq!(call(&app, "POST", "/notes", &ana, &said).await.2["seq"], 2, "a repeat with the same key");
    let (status, _, reused) = call(&app, "POST", "/notes", &ana, &json!({"id": "o", "text": "bye"})).await;
    assert_eq!((status, &reused["code"]), (422, &json!("idempotency_key_reused")));
    let (status, _, problem) = call(&app, "POST", "/notes", &ana, &json!({"id": 7, "text": "x"})).await;
    assert_eq!((status, &problem["errors"]), (422, &json!([{"field": "id", "code": "wrong_type"}])));
    let (status, _, problem) =
        call(&app, "POST", "/notes", &ana, &json!({"id": "t", "text": "teapot"})).await;
    assert_eq!(
        (status, problem),
        (
            418,
            json!({
                "type": "urn:problem:short_and_stout", "title": "Use another pot", "status": 418,
                "detail": "tip me over", "code": "short_and_stout",
            })
        )
    );
    assert_eq!(call(&app, "POST", "/notes", "unknown", &said).await.0, 401);
    let frame: Value = serde_json::from_str(
        &api.frame_json(&Frame::CaughtUp { cursor: "7".parse::<Cursor>().unwrap() }, Side::First),
    )
    .unwrap();
    assert_eq!(frame["type"], "caught_up");
}

#[derive(OpenApi)]
#[openapi(info(title = "My app"))]
struct HostDocument;

#[tokio::test]
async fn part_of_the_document_is_merged_into_the_hosts() {
    let (api, ..) = host(HttpOptions::default());
    let (_, part) =
        routes::pairing(&api).merge(routes::timeline(&api)).merge(routes::accounts(&api)).into_parts::<()>();
    let document = serde_json::to_value(HostDocument::openapi().nest("/love", part)).unwrap();
    assert_eq!(document["info"]["title"], "My app");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.keys().all(|path| path.starts_with("/love/v1/")) && paths.contains_key("/love/v1/invites"));
    assert!(!document.to_string().contains("/me/email"), "the host has its own users");
}
