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
pub(crate) use fresh_database::{fresh, url_of};
use sqlx::{AssertSqlSafe, Connection, Database, Executor};

/// URL of a database on the server of the environment variable `variable` that the tests of this run share, each with its own tables.
pub(crate) async fn shared<D: Database>(variable: &str) -> String
where
    for<'c> &'c mut D::Connection: Executor<'c, Database = D>,
{
    // nextest starts a process for each test; `cargo test` runs all in one.
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    let name = format!("couple_run_{}", run.replace('-', "_"));
    let server = url_of(variable);
    let (base, _) = server.rsplit_once('/').unwrap();
    let url = format!("{base}/{name}");
    let mut connection = D::Connection::connect(&server).await.unwrap();
    // Fails if another test was first.
    let created = connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.map(drop);
    connection.close().await.unwrap();
    match D::Connection::connect(&url).await {
        Ok(connection) => connection.close().await.unwrap(),
        Err(error) => panic!("{error}; the database was not created: {created:?}"),
    }
    url
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
    std::env::var("COUPLE_PLAN_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(30_000)
}
