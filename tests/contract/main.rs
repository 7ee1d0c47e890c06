//! The HTTP contract, through the router in this process, over the memory store.
//!
//! Authorization, validation, accounts, pairing, timeline, live delivery and pictures. `couple-conformance` and `tests/day.rs` test the
//! same services over SQLite.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod account;
mod animated;
mod concurrent_pictures;
mod connections;
mod cors;
mod enumeration;
mod frames;
mod guessing;
mod input;
mod live;
mod matrix;
mod media;
mod pairing;
mod picture_access;
mod races;
mod secrets;
mod sizes;
mod socket;
mod socketio;
mod sweep;
mod timeline;
mod tracing;
mod tus;
mod typed;
mod uploads;
mod waiting;
#[path = "../support/watched.rs"]
mod watched;
mod world;
