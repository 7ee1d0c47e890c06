//! The HTTP contract, through the router in this process, over the memory store.
//!
//! Authorization, validation, accounts, pairing, timeline, live delivery and pictures. `couple-conformance` and `tests/crash_recovery.rs` test the
//! same services over SQLite.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod account;
mod animated;
mod concurrent_pictures;
mod conflicts;
mod connections;
mod cors;
mod entry_kinds;
mod enumeration;
mod frames;
mod guessing;
#[path = "../support/host_users.rs"]
mod host_users;
mod input;
mod live;
mod matrix;
mod media;
#[path = "../support/observed_store.rs"]
mod observed_store;
mod pairing;
mod picture_access;
mod prefix;
mod races;
mod reference;
mod renderer;
mod secrets;
mod sizes;
mod socket;
mod socketio;
mod streaming;
mod sweep;
mod timeline;
mod tracing;
mod tus;
mod typed_text;
mod uploads;
mod world;
