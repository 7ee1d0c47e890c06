//! Live delivery: every transport is a cursor into the couple's log.
//!
//! Each couple with a stream has a room in this process: it subscribes, reads, notifies its [`Stream`]s, and waits. A notice from
//! the event bus only reports that there is something to read, so the bus may lose, duplicate or reorder notices: entries come from
//! the log, in order, each once. A client that lost its connection reconnects to any process with its [`Cursor`] and misses
//! nothing.
//!
//! | guarantee | mechanism |
//! |---|---|
//! | The end of a session or couple closes its streams immediately. | Its commit publishes a notice, and every stream asks its [`Gate`] again. |
//! | If notices are lost, no frame is sent later than 2 s after a session ended, or after its couple was read to have ended. | A gate's result is valid for 2 s; every read includes the couple. |
//! | If notices are lost, the streams of an ended session end within 2 s. | Each process asks the store every [`LiveOptions::with_session_check_interval`] which of the followed sessions have ended. |
//! | If all notices are lost, an entry, or the end of a couple, is delayed by at most [`LiveOptions::with_sweep_interval`]. | Every room reads without a notice at that interval. |
//! | A stream never sends an entry in a state from before the stream opened, if the entry was deleted or edited since. | A stream opens with a read that began after it joined; see `tail.rs`. |

mod context;
mod cursor;
mod frame;
mod hub;
mod presence_calls;
mod registration;
mod room;
mod session_watch;
mod stream;
mod tail;

pub use context::{LiveOptions, ReadPermit};
pub use cursor::Cursor;
pub use frame::{CloseReason, EncodedEntry, Frame, Reset};
pub use hub::Live;
pub use stream::{Gate, Stream};
