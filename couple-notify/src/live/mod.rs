//! Live delivery: every transport is a cursor into the couple's log.
//!
//! A couple that somebody follows has a room in this process: it subscribes, then reads, then tells its [`Stream`]s, then waits.
//! What the bus tells is only that there is something to look at, so it may lose, double or reorder: entries come from
//! the log, in order, each once. A client that lost its connection comes back to any process with its [`Cursor`] and
//! misses nothing.
//!
//! | promise | how |
//! |---|---|
//! | A session or couple that ends closes its streams at once. | Its commit tells of it, and every stream asks its [`Gate`] again. |
//! | Where notices are lost, nothing is told more than 2 s after a session ended, or once its couple has been read to have ended. | No answer of a gate is trusted longer; every reading reads the couple. |
//! | Where notices are lost, the streams of an ended session end within 2 s. | Each process asks the store every [`LiveOptions::session_check`] which of the sessions that it follows have ended. |
//! | Where all are lost, an entry, or the end of a couple, is late by [`LiveOptions::sweep`] at most. | Every room looks by itself. |
//! | What was deleted or edited before a stream opened is not told as it was before. | A stream opens on a reading that began after it came; see `tail.rs`. |

mod cursor;
mod frame;
mod hub;
mod room;
mod session_watch;
mod stream;
mod tail;

pub use cursor::Cursor;
pub use frame::{Bye, Frame, Line, Reset};
pub use hub::{Live, LiveOptions, Turn};
pub use stream::{Gate, Stream};
