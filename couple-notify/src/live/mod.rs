//! Live delivery: every transport is a cursor into the couple's log.
//!
//! A [`Stream`] subscribes, then reads, then waits. What the bus tells is only that there is something to look at, so it
//! may lose, double or reorder: entries come from the log, in order, each once. A client that lost its connection
//! comes back to any process with its [`Cursor`] and misses nothing.

mod cursor;
mod stream;

pub use cursor::Cursor;
pub use stream::{Bye, Frame, Gate, Live, LiveOptions, Reset, Stream};
