//! Responses that are written without a router, after which the connection is closed.

use super::options::READ_AHEAD_BYTES;
use crate::http::Problem;

/// A complete response with a problem, after which the connection is closed.
pub(super) fn complete_response(problem: &Problem) -> Vec<u8> {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let retry =
        problem.retry_seconds().map_or_else(String::new, |seconds| format!("retry-after: {seconds}\r\n"));
    let status = problem.status();
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n{retry}\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
    .into_bytes()
}

/// Response in place of one of hyper's own to an invalid head, which have no body.
///
/// None: `bytes` are not one of these.
pub(super) fn replacement(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(bytes).ok()?.strip_prefix("HTTP/1.1 ")?.strip_suffix("\r\n\r\n")?;
    if !head.to_ascii_lowercase().contains("\r\ncontent-length: 0") || head.contains("\r\n\r\n") {
        return None;
    }
    let problem = match head.get(..3)? {
        "400" => Problem::new("malformed_request").detail("the head is not HTTP/1.1"),
        "414" => Problem::new("uri_too_long"),
        "431" => Problem::new("head_too_large").detail(format!("at most {READ_AHEAD_BYTES} bytes")),
        _ => return None,
    };
    Some(complete_response(&problem))
}
