//! A stream of frames from a cursor on.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Digest, Error, Failure,
    timeline::{Membership, Page, Refusal},
};
use tokio::time::Instant;

use super::{
    Bye, Cursor, Frame, Line, Reset,
    hub::Seat,
    session_watch::{SessionWatch, Watched},
    tail::Next,
};

/// Entries that a stream reads for itself at once, where they are older than what its room keeps.
const PAGE: u32 = 20;

/// Nothing is told on an answer of the gate, or on a reading of the couple, that is older than this.
pub(super) const TRUST: Duration = Duration::from_secs(2);

/// Whether a stream's owner may still have it. The same policy as for a request.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Looks again: for how long it stays open as far as can be said now, or that it is closed.
    ///
    /// # Errors
    /// Whatever keeps it from looking.
    async fn open_for(&self) -> Result<Option<Duration>, Error>;

    /// The digest of the bearer token whose session's end closes the gate. A process finds that a watched session has ended although
    /// its notice was lost. None: only notices and sweeps do.
    fn session(&self) -> Option<Digest> {
        None
    }
}

/// Whether the client knows that the partner is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Not,
    /// Whatever is found first: it has just asked.
    First,
    Here(bool),
}

/// Frames from a cursor on, without end until a [`Frame::Bye`].
pub struct Stream {
    seat: Seat,
    gate: Arc<dyn Gate>,
    at: Membership,
    cursor: Cursor,
    reset: Option<Reset>,
    /// Read for this stream alone.
    page: VecDeque<Arc<Line>>,
    /// Which of the room's checks the gate answered, and when.
    checked: Option<(u64, Instant)>,
    /// The gate has just answered: one frame may be sent however long that took, so that a slow store does not stop a stream.
    just_checked: bool,
    _watched: Option<Watched>,
    /// Signals that were looked at.
    signals: u64,
    partner: Known,
    told_caught_up: bool,
    over: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("at", &self.at).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// What there is to do.
enum Look {
    Tell(Frame),
    Check,
    Page,
    Wait,
}

impl Stream {
    pub(super) fn new(
        seat: Seat,
        gate: Arc<dyn Gate>,
        at: Membership,
        cursor: Cursor,
        reset: Option<Reset>,
    ) -> Self {
        let signals = seat.room.state().signalled;
        let hub = &seat.room.hub;
        let watched = gate.session().map(|token| SessionWatch::follow(hub, token, &seat.room));
        Self {
            just_checked: false,
            _watched: watched,
            seat,
            gate,
            at,
            cursor,
            reset,
            page: VecDeque::new(),
            checked: None,
            signals,
            partner: Known::Not,
            told_caught_up: false,
            over: false,
        }
    }

    /// Who follows, and where they are.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.at
    }
    /// Where the client is once it has every frame that was returned.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Lets the partner know that this person is here, for as long as the stream is followed and the grace after it. Without it
    /// the partner cannot tell them from somebody who is away.
    pub fn announce(&mut self) {
        self.seat.announce();
    }
    /// Takes it that the client has just asked whether the partner is here: it is told of changes only.
    pub const fn knows_presence(&mut self) {
        self.partner = Known::First;
    }

    /// Sends something to the partner's connected devices, now or never. Nothing is read for it but what makes sure, every two
    /// seconds at most, that this person may still do so.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`] once the stream is over, else as [`Timeline::signal`](couple_core::timeline::Timeline::signal).
    pub async fn signal(
        &mut self,
        kind: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<(), Failure<Refusal>> {
        let room = self.seat.room.clone();
        let sure = |stream: &Self| {
            let state = room.state();
            state.over.is_none() && stream.trusted(state.checks, state.read_at)
        };
        if !sure(self) && (self.over || Box::pin(self.check()).await.is_err()) {
            return Err(Failure::Refused(Refusal::NotPaired));
        }
        room.hub.timeline.signal_from(&self.at, kind, body).await
    }

    /// Whether the gate's last word, and the room's last reading, are good enough to tell something now.
    fn trusted(&self, checks: u64, read_at: Instant) -> bool {
        self.checked.is_some_and(|(answered, at)| {
            answered == checks && (self.just_checked || at.min(read_at).elapsed() < TRUST)
        })
    }

    /// The next frame; none after [`Frame::Bye`]. Can be given up while it waits: nothing is lost.
    pub async fn next(&mut self) -> Option<Frame> {
        if self.over {
            return None;
        }
        loop {
            let done = {
                // Before looking: what is told from here on wakes us.
                let room = self.seat.room.clone();
                let mut told = pin!(room.told.notified());
                told.as_mut().enable();
                match self.look() {
                    Look::Tell(frame) => {
                        self.just_checked = false;
                        return Some(frame);
                    }
                    Look::Wait => {
                        self.just_checked = false;
                        told.await;
                        continue;
                    }
                    // Boxed: what waits must not keep room for what reads.
                    Look::Check => {
                        let checked = Box::pin(self.check()).await;
                        self.just_checked = checked.is_ok();
                        checked
                    }
                    Look::Page => {
                        self.just_checked = false;
                        Box::pin(self.read()).await
                    }
                }
            };
            if let Err(why) = done {
                self.over = true;
                return Some(Frame::Bye(why));
            }
        }
    }

    fn look(&mut self) -> Look {
        let room = self.seat.room.clone();
        let state = room.state();
        let over = if room.hub.is_draining() { Some(Bye::Draining) } else { state.over };
        if let Some(why) = over {
            self.over = true;
            return Look::Tell(Frame::Bye(why));
        }
        if self.checked.is_none_or(|(answered, _)| answered != state.checks) {
            return Look::Check;
        }
        if let Some(reason) = self.reset.take() {
            return Look::Tell(Frame::Reset { reason, cursor: self.cursor });
        }
        let trusted = self.trusted(state.checks, state.read_at);
        let next = match self.page.front() {
            Some(line) => Next::Line(line.clone()),
            None => state.tail.after(self.cursor.seq),
        };
        match next {
            Next::Line(line) => {
                if !trusted {
                    return Look::Check;
                }
                if self.page.pop_front().is_none_or(|_| self.page.is_empty()) {
                    self.page = VecDeque::new();
                }
                self.cursor.seq = line.view.entry.seq;
                return Look::Tell(Frame::Entry { line, cursor: self.cursor });
            }
            Next::Older if trusted => return Look::Page,
            Next::Older => return Look::Check,
            Next::Nothing => {}
        }
        if self.cursor.read != Some(state.couple.read) {
            if !trusted {
                return Look::Check;
            }
            self.cursor.read = Some(state.couple.read);
            return Look::Tell(Frame::Read { read: state.couple.read, cursor: self.cursor });
        }
        if !std::mem::replace(&mut self.told_caught_up, true) {
            return Look::Tell(Frame::CaughtUp { cursor: self.cursor });
        }
        while let Some((number, signal)) = state.signal(self.signals) {
            if signal.from == Some(self.at.side) {
                self.signals = number + 1;
                continue;
            }
            if !trusted {
                return Look::Check;
            }
            self.signals = number + 1;
            let (from, kind, body) = (signal.from, signal.kind.clone(), signal.body.clone());
            return Look::Tell(Frame::Signal { from, kind, body });
        }
        match (self.partner, state.sides[self.at.side.other().index()].here) {
            (Known::First, Some(here)) => self.partner = Known::Here(here),
            (known, Some(here)) if known != Known::Here(here) => {
                if !trusted {
                    return Look::Check;
                }
                self.partner = Known::Here(here);
                return Look::Tell(Frame::Presence { here });
            }
            _ => {}
        }
        Look::Wait
    }

    /// Makes sure that the client may go on.
    async fn check(&mut self) -> Result<(), Bye> {
        let room = &self.seat.room;
        // Before asking: what is told meanwhile has us ask again.
        let (checks, read_at) = {
            let state = room.state();
            (state.checks, state.read_at)
        };
        if read_at.elapsed() >= TRUST {
            room.ask().await?;
        }
        let (open, began) = {
            let _turn = room.hub.turn().await;
            // Before asking: the answer is no newer than that.
            let began = Instant::now();
            (self.gate.open_for().await.map_err(|_| Bye::Unavailable)?, began)
        };
        let left = open.ok_or(Bye::SignedOut)?;
        self.checked = Some((checks, began));
        room.look_by(Instant::now() + left.min(Duration::from_hours(1)));
        Ok(())
    }

    /// Reads entries that the room does not keep.
    async fn read(&mut self) -> Result<(), Bye> {
        let room = &self.seat.room;
        let _turn = room.hub.turn().await;
        let page = Page::After(self.cursor.seq);
        let views = room.hub.timeline.read(room.id, page, PAGE, None).await.map_err(|_| Bye::Unavailable)?;
        if views.is_empty() {
            // The log is shorter than its couple says.
            return Err(Bye::Unavailable);
        }
        self.page = views.into_iter().map(|view| Arc::new(Line::new(view))).collect();
        Ok(())
    }
}
