//! The OpenAPI document, completed by data that the types do not contain: codes of problems, examples, unique ids of operations.

mod examples;
mod problems;

use serde_json::{Value, json};
use utoipa::openapi::{
    Content, ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder, Schema, example::ExampleBuilder,
    path::Operation,
};

use super::CODES;

/// Completes the document of all routes.
pub(super) fn complete(api: &mut OpenApi) {
    if let Some(components) = &mut api.components
        && let Some(RefOr::T(Schema::Object(problem))) = components.schemas.get_mut("Problem")
        && let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code")
    {
        code.enum_values = Some(CODES.iter().map(|(code, ..)| (*code).into()).collect());
    }
    for (path, item) in &mut api.paths.paths {
        let reading = [(&mut item.get, true), (&mut item.head, false), (&mut item.options, true)];
        let writing = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        let writing = writing.into_iter().map(|operation| (operation, true));
        for (operation, has_body) in reading.into_iter().chain(writing) {
            let Some(operation) = operation else { continue };
            if let Some(summary) = &mut operation.summary {
                *summary = summary.replace('\n', " ");
            }
            // The name of a handler is unique within its area only.
            if let (Some(name), Some([area, ..])) = (&mut operation.operation_id, operation.tags.as_deref()) {
                *name = format!("{area}_{name}");
            }
            add_examples(operation);
            add_problems(path, operation, has_body);
        }
    }
}

/// The value of a part that the document has in place. Our documents have references to schemas only.
fn inline<T>(part: &mut RefOr<T>) -> Option<&mut T> {
    match part {
        RefOr::T(value) => Some(value),
        RefOr::Ref(_) => None,
    }
}

/// Name of the schema of a body, if it has a name.
fn schema_name(content: &Content) -> Option<&str> {
    match content.schema.as_ref()? {
        RefOr::Ref(reference) => reference.ref_location.rsplit('/').next(),
        RefOr::T(_) => None,
    }
}

fn add_examples(operation: &mut Operation) {
    const JSON: &str = "application/json";
    let body = operation.request_body.as_mut().and_then(inline);
    if let Some(content) = body.and_then(|body| body.content.get_mut(JSON)).and_then(inline) {
        content.example = schema_name(content).and_then(examples::request);
    }
    let id = operation.operation_id.clone().unwrap_or_default();
    for response in operation.responses.responses.values_mut().filter_map(inline) {
        if let Some(content) = response.content.get_mut(JSON).and_then(inline) {
            content.example = examples::response(&id, schema_name(content));
        }
    }
}

/// A problem as it is sent, without the description of its occurrence.
fn problem(code: &str, status: u16, title: &str) -> Value {
    let mut problem = json!({
        "type": format!("urn:couple:problem:{code}"), "title": title, "status": status, "code": code
    });
    if code == "invalid_field" {
        problem["errors"] = json!([{ "field": "email", "code": "invalid" }]);
    }
    problem
}

/// Adds a response for each status of the operation's problems, with an example for each code, and a default response.
///
/// A response that the operation describes itself keeps its description.
fn add_problems(path: &str, operation: &mut Operation, has_body: bool) {
    const PROBLEM_JSON: &str = "application/problem+json";
    let content = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    let codes = problems::codes(path, operation);
    let mut known: Vec<_> = CODES.iter().filter(|(code, ..)| codes.contains(code)).collect();
    known.sort_by_key(|(_, status, _)| *status);
    let responses = &mut operation.responses.responses;
    for group in known.chunk_by(|(_, one, _), (_, other, _)| one == other) {
        let status = group[0].1;
        let response = responses
            .entry(status.to_string())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description("").build()));
        let Some(response) = inline(response) else { continue };
        for (code, _, title) in group {
            if !response.description.contains(&format!("`{code}`")) {
                let separator = if response.description.is_empty() { "" } else { "; " };
                response.description.push_str(&format!("{separator}`{code}`: {title}"));
            }
        }
        if has_body {
            let examples = group.iter().map(|&&(code, status, title)| {
                (code, ExampleBuilder::new().value(Some(problem(code, status, title))))
            });
            let content = content().examples_from_iter(examples).build();
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(content));
        }
    }
    let default = ResponseBuilder::new()
        .description("Another problem; `code` is its kind")
        .content(PROBLEM_JSON, content().build())
        .build();
    responses.insert("default".to_owned(), RefOr::T(default));
}
