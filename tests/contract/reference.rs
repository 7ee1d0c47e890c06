//! The OpenAPI document as a reference: summaries, examples and problems of every operation.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use couple::{Backend, http::CODES};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tower::ServiceExt as _;

use crate::{input::filled, world::World};

const PROBLEM_JSON: &str = "application/problem+json";

static DOCUMENT: OnceCell<Value> = OnceCell::const_new();

async fn document() -> &'static Value {
    DOCUMENT
        .get_or_init(async || {
            let app: Router = couple::http::router(Backend::builder().build().unwrap());
            let request = Request::builder().uri("/v1/openapi.json").body(Body::empty()).unwrap();
            let body = app.oneshot(request).await.unwrap().into_body();
            serde_json::from_slice(&to_bytes(body, 1 << 24).await.unwrap()).unwrap()
        })
        .await
}

/// Every operation with its method and path.
fn operations(document: &Value) -> impl Iterator<Item = (String, &String, &Value)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (method.to_uppercase(), path, operation))
    })
}

/// Operation that answers a request. Literal segments take precedence over parameters.
fn operation_of<'a>(document: &'a Value, method: &str, path: &str) -> Option<&'a Value> {
    let asked: Vec<_> = path.trim_end_matches('/').split('/').collect();
    let matches = |template: &str| {
        let parts: Vec<_> = template.split('/').collect();
        parts.len() == asked.len()
            && parts.iter().zip(&asked).all(|(part, asked)| part.starts_with('{') || part == asked)
    };
    let items = document["paths"].as_object()?.iter().filter(|(template, _)| matches(template));
    let (_, item) = items.min_by_key(|(template, _)| template.matches('{').count())?;
    item.get(method.to_lowercase())
}

/// Fails if the document does not list a code for the operation that answered with it.
pub(crate) async fn assert_documented(method: &str, path: &str, status: u16, code: &str) {
    let Some(operation) = operation_of(document().await, method, path) else { return };
    let response = &operation["responses"][status.to_string()];
    let description = response["description"].as_str().unwrap_or("");
    assert!(
        description.contains(&format!("`{code}`")),
        "{method} {path} answered {status} {code}, which its documentation does not list: {description}"
    );
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Properties of an object, those of its parts (`allOf`) included, and which of them are required.
fn properties<'a>(
    document: &'a Value,
    schema: &'a Value,
) -> (BTreeMap<&'a str, &'a Value>, BTreeSet<&'a str>) {
    let schema = resolve(document, schema);
    let mut all = BTreeMap::new();
    let mut required: BTreeSet<_> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    all.extend(
        schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)),
    );
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, more_required) = properties(document, part);
        all.extend(more);
        required.extend(more_required);
    }
    (all, required)
}

/// Checks a value against a schema, as far as our document uses JSON Schema.
fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolve(document, schema);
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let errors: Vec<_> =
            choices.iter().filter_map(|choice| check(document, choice, value).err()).collect();
        return if errors.len() < choices.len() { Ok(()) } else { Err(errors.join("; ")) };
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{value} is none of {allowed:?}"));
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !kinds.is_empty() && !kinds.into_iter().any(is) {
        return Err(format!("{value} is not of type {}", schema["type"]));
    }
    for item in value.as_array().into_iter().flatten() {
        check(document, &schema["items"], item)?;
    }
    let (properties, required) = properties(document, schema);
    if let (Some(fields), false) = (value.as_object(), properties.is_empty()) {
        if let Some(missing) = required.iter().find(|name| !fields.contains_key(**name)) {
            return Err(format!("{missing} is missing in {value}"));
        }
        for (name, value) in fields {
            let schema = properties.get(name.as_str()).ok_or_else(|| format!("{name} is no property"))?;
            check(document, schema, value).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_operation_has_an_imperative_summary() {
    const VERBS: [&str; 28] = [
        "Accept", "Advance", "Append", "Cancel", "Change", "Check", "Choose", "Confirm", "Create", "Decline",
        "Delete", "End", "Export", "Follow", "Get", "Invite", "List", "Mail", "Preview", "React", "Remove",
        "Replace", "Request", "Send", "Set", "Sign", "Upload", "Withdraw",
    ];
    for (method, path, operation) in operations(document().await) {
        let summary = operation["summary"].as_str().unwrap_or("");
        let verb = summary.split([' ', ':']).next().unwrap_or("");
        assert!(
            VERBS.contains(&verb),
            "{method} {path}: {summary:?} does not begin with a verb of {VERBS:?}"
        );
    }
}

#[tokio::test]
async fn every_operation_lists_its_problems() {
    for (method, path, operation) in operations(document().await) {
        let responses = operation["responses"].as_object().unwrap();
        let mut listed = 0;
        for (status, response) in responses.iter().filter(|(status, _)| status.starts_with(['4', '5'])) {
            let description = response["description"].as_str().unwrap();
            let examples = &response["content"][PROBLEM_JSON]["examples"];
            for (code, ..) in CODES.iter().filter(|(_, known, _)| *status == known.to_string()) {
                let is_described = description.contains(&format!("`{code}`"));
                listed += usize::from(is_described);
                if method != "HEAD" {
                    assert_eq!(is_described, examples[code].is_object(), "{method} {path} {status} {code}");
                }
            }
            for example in examples.as_object().into_iter().flatten().map(|(_, example)| &example["value"]) {
                assert_eq!(example["status"].to_string(), *status, "{method} {path}");
                let schema = json!({ "$ref": "#/components/schemas/Problem" });
                check(document().await, &schema, example)
                    .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            }
        }
        // Each operation has problems of the server, and further ones unless it takes nothing.
        assert!(listed >= 4, "{method} {path} lists {listed} problems");
    }
}

#[tokio::test]
async fn every_json_body_has_an_example_of_its_schema() {
    let document = document().await;
    for (method, path, operation) in operations(document) {
        let responses = operation["responses"].as_object().unwrap().values();
        let bodies = std::iter::once(&operation["requestBody"]).chain(responses);
        for content in bodies.filter_map(|body| body["content"].get("application/json")) {
            let example = content.get("example").unwrap_or_else(|| panic!("{method} {path} has no example"));
            check(document, &content["schema"], example)
                .unwrap_or_else(|error| panic!("the example of {method} {path} does not fit: {error}"));
        }
    }
}

/// Requests with the examples of the document, as a member of a couple sends them.
#[tokio::test]
async fn examples_of_requests_are_accepted() {
    let document = document().await;
    // The ids, codes and tokens of examples are well-formed, but nothing has them.
    let unknown = ["invalid_token", "invite_not_found", "media_not_found", "date_not_found"];
    for (method, path, operation) in operations(document) {
        let Some(content) = operation["requestBody"]["content"].get("application/json") else { continue };
        let world = World::new();
        let password = "mauve kettle orbit";
        let ana = world.join_with_password("ana@example.org", password).await;
        if !path.starts_with("/v1/invites") {
            let ben = world.join("ben@example.org").await;
            world.pair(&ana, &ben).await;
            assert_eq!(world.say(&ana, "hello").await, 2);
        }
        let path = filled(path).replace("/entries/1", "/entries/2");
        let answer = world.call(&method, &path, Some(&ana), Some(content["example"].clone())).await;
        let expected = answer.status < 300
            || unknown.contains(&answer.code())
            || (path.as_str(), answer.code()) == ("/v1/couple/previous", "no_previous");
        assert!(expected, "the example of {method} {path} is answered with {}", answer.body);
    }
}

/// Responses of a server fit the schemas of the document.
#[tokio::test]
async fn responses_fit_their_schemas() {
    let document = document().await;
    let world = World::new();
    let (ana, _) = world.couple("ana@example.org", "ben@example.org").await;
    world.say(&ana, "hello").await;
    let photo = world.photo(&ana, 300).await;
    for (method, path, operation) in operations(document) {
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        if method != "GET" || schema.is_null() || path.ends_with("/live") || path.contains("/previous") {
            continue;
        }
        let path = filled(path).replace("0190aaaa-0000-7000-8000-000000000000", &photo);
        let answer = world.get(&path, &ana).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        check(document, schema, &answer.body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    }
}
