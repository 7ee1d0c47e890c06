//! Rooms of live streams, on a clock that the tests advance: checks of gates, frames of streams, presence, and clean-up.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod frames;
mod gates;
#[path = "../support/observed_store.rs"]
mod observed_store;
#[path = "../../benches/people/mod.rs"]
mod people;
mod presence;
mod rooms;
mod sessions;
mod signals;
mod support;
