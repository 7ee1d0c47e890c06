//! Registration of a stream in its room.

use std::sync::Arc;

use couple_core::pairing::Side;

use super::room::Room;

/// Membership of a stream in its couple's room.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) room: Arc<Room>,
    pub(super) side: Side,
    announced: bool,
}

impl Registration {
    /// Adds a stream to a room.
    pub(super) fn new(room: Arc<Room>, side: Side) -> Self {
        room.add_stream(side);
        Self { room, side, announced: false }
    }

    /// Announces the member's presence while the stream is open.
    pub(super) fn announce(&mut self) {
        if !std::mem::replace(&mut self.announced, true) {
            self.room.announce(self.side);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.room.remove_stream(self.side, self.announced);
    }
}
