//! Databases for tests, each test with its own, on the servers that `./test` starts.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

#[path = "../../../tests/support/engine.rs"]
pub(crate) mod engine;
#[path = "../../../tests/support/fresh_database.rs"]
mod fresh_database;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod proxy;

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use fresh_database::{fresh, shared, url_of};

/// Message of an error with its causes, as a program prints it.
pub(crate) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Number of rows per table for tests of query plans.
pub(crate) fn rows() -> u32 {
    std::env::var("COUPLE_PLAN_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(30_000)
}
