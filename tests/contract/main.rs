//! The HTTP contract, through the router in this process, over the memory store.
//!
//! Authorization, validation, accounts, pairing, timeline, live delivery and pictures. `couple-conformance` and `tests/crash_recovery.rs` test the
//! same services over SQLite.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod account;
mod animated;
mod clock_set_back;
mod concurrent_pictures;
mod conflicts;
mod connections;
mod cors;
mod dates;
mod deletion;
mod devices;
mod entry_kinds;
mod enumeration;
mod feedback;
mod forged_hosts;
mod frames;
#[cfg(feature = "server-tests")]
#[path = "../support/fresh_database.rs"]
mod fresh_database;
mod glance;
mod guessing;
#[path = "../support/host_users.rs"]
mod host_users;
mod input;
mod invite_codes;
mod live;
mod matrix;
mod media;
mod notifications;
#[path = "../support/observed_store.rs"]
mod observed_store;
mod pairing;
mod panics;
mod password_hashing;
mod picture_access;
mod prefix;
mod races;
mod rate_limits;
mod reference;
mod renderer;
mod request_limits;
#[path = "../support/secret_search.rs"]
mod secret_search;
mod secrets;
mod single_use;
mod sizes;
mod socket;
mod socketio;
#[path = "../support/sql_database.rs"]
mod sql_database;
mod stored_secrets;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod timeline;
mod tracing;
mod tus;
mod typed_text;
mod uploads;
mod world;
