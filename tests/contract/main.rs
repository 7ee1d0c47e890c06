//! The HTTP contract, spoken to the router in this process: who may what, what is refused and how, and the stories of
//! accounts, pairing and the timeline. Runs over memory; the same services over SQLite are proven by the kit and by the day.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

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
mod tus;
mod typed;
mod uploads;
mod waiting;
#[path = "../support/watched.rs"]
mod watched;
mod world;
