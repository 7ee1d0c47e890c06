//! Databases for tests, each test with its own, on the servers that `./test` starts.
#![allow(dead_code, reason = "each test file uses its part")]

#[path = "../../../tests/support/engine.rs"]
pub(crate) mod engine;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub(crate) mod proxy;

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, Database, Executor};

/// URL of a server, as set by `./test`.
pub(crate) fn url_of(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: ./test starts the servers and sets it"))
}

/// URL of a new, empty database on the server of the environment variable `variable`.
pub(crate) async fn fresh<D: Database>(variable: &str) -> String
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let server = url_of(variable);
    // Process ids come again, and databases of earlier runs are not removed.
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let name = format!("couple_{}_{since}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (base, _) = server.rsplit_once('/').unwrap();
    let mut connection = D::Connection::connect(&server).await.unwrap();
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    connection.close().await.unwrap();
    format!("{base}/{name}")
}

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
    std::env::var("COUPLE_PLAN_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(100_000)
}
