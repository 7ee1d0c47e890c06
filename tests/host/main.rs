//! A host builds on the back end: its own users, routes, jobs, listeners and processes.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and prints its figures")]

mod conformance;
mod engines;
mod forget;
#[cfg(feature = "server-tests")]
#[path = "../support/fresh_database.rs"]
mod fresh_database;
mod hooks;
#[path = "../support/host_users.rs"]
mod host_users;
mod jobs;
mod jwt;
mod killed_hooks;
mod killed_process;
mod killed_statements;
mod lifecycle;
#[path = "../support/observed_store.rs"]
mod observed_store;
mod routes;
#[path = "../support/sql_database.rs"]
mod sql_database;
mod statements;
mod stores;
mod users;
