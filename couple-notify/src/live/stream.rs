//! A live stream: frames from a cursor on.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Failure, Principal,
    timeline::{Membership, Page, TimelineError},
};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::{
    CloseReason, Cursor, EncodedEntry, Frame, Reset, context::GATE_TRUST_TIME, registration::Registration,
    session_watch::WatchedSession, tail::Next,
};

/// Maximum number of entries per page that a stream reads for itself.
///
/// They are older than its room's tail.
const MAX_ENTRIES_PER_READ: u32 = 20;

/// Checks whether a stream may continue, by the same policy as for a request.
#[async_trait]
pub trait Gate: Send + Sync + 'static {
    /// Returns for how long the stream may stay open, as far as is known.
    ///
    /// # Errors
    /// The reason for which it must end, or any failure of the check.
    async fn open_for(&self) -> Result<Duration, Failure<CloseReason>>;

    /// Principal whose session the gate depends on.
    ///
    /// With it the process notices the session's end even if its notice is lost. None: only notices and sweeps are used.
    fn principal(&self) -> Option<Principal> {
        None
    }

    /// Whether a check reads the store. Default: true.
    ///
    /// Such a check counts as one of the concurrent reads that live delivery limits.
    fn reads_store(&self) -> bool {
        true
    }
}

/// Client's knowledge of the partner's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownPresence {
    Not,
    /// The first result counts as known, because the client has just asked.
    First,
    Here(bool),
}

/// A live stream of frames from a cursor on, which ends with a [`Frame::Bye`].
pub struct Stream {
    registration: Registration,
    gate: Arc<dyn Gate>,
    at: Membership,
    cursor: Cursor,
    reset: Option<Reset>,
    /// Entries read for this stream only.
    page: VecDeque<Arc<EncodedEntry>>,
    /// Number of the last check for which the gate permitted frames, and its time.
    checked: Option<(u64, Instant)>,
    /// Whether the gate has just permitted frames, so that one frame may be sent.
    ///
    /// It may be sent even if the gate took longer than the maximum age of its result: otherwise a slow store would stall the stream.
    just_checked: bool,
    _watched: Option<WatchedSession>,
    /// Number of signals that were handled.
    signals: u64,
    partner: KnownPresence,
    sent_caught_up: bool,
    over: bool,
    /// Span of the stream's reads.
    span: Span,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("at", &self.at).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// Next action of a stream.
enum NextAction {
    Send(Frame),
    Check,
    Page,
    Wait,
}

impl Stream {
    pub(super) fn new(
        registration: Registration,
        watched: Option<WatchedSession>,
        gate: Arc<dyn Gate>,
        at: Membership,
        cursor: Cursor,
        reset: Option<Reset>,
    ) -> Self {
        let signals = registration.room.state().signalled;
        Self {
            just_checked: false,
            _watched: watched,
            registration,
            gate,
            at,
            cursor,
            reset,
            page: VecDeque::new(),
            checked: None,
            signals,
            partner: KnownPresence::Not,
            sent_caught_up: false,
            over: false,
            span: Span::none(),
        }
    }

    /// Membership of the stream's account.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.at
    }
    /// Cursor of the client once it has received all returned frames.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Sets the span in which the stream reads the store and asks its gate.
    pub fn set_span(&mut self, span: Span) {
        self.span = span;
    }

    /// Announces the account's presence to the partner, while the stream is open and for some time after.
    ///
    /// Without it the partner cannot tell the account from an absent one.
    pub fn announce(&mut self) {
        self.registration.announce();
    }
    /// Assumes that the client knows the partner's presence: only changes are sent.
    pub const fn knows_presence(&mut self) {
        self.partner = KnownPresence::First;
    }

    /// Sends a signal to the partner's connected devices. It is not stored.
    ///
    /// The store is read at most every two seconds for it, to check that the account may still send.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`] once the stream has ended, otherwise as [`Timeline::signal`](couple_core::timeline::Timeline::signal).
    pub async fn signal(
        &mut self,
        kind: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<(), Failure<TimelineError>> {
        let room = self.registration.room.clone();
        let sure = |stream: &Self| {
            let state = room.state();
            state.over.is_none() && stream.trusted(state.checks, state.read_at)
        };
        if !sure(self) && (self.over || Box::pin(self.check()).await.is_err()) {
            return Err(Failure::Refused(TimelineError::NotPaired));
        }
        room.context.timeline.signal_from(&self.at, kind, body).await
    }

    /// Whether the gate's last result and the room's last read are recent enough to send a frame.
    fn trusted(&self, checks: u64, read_at: Instant) -> bool {
        self.checked.is_some_and(|(answered, at)| {
            answered == checks && (self.just_checked || at.min(read_at).elapsed() < GATE_TRUST_TIME)
        })
    }

    /// Returns the next frame; none after [`Frame::Bye`]. Cancel safe.
    pub async fn next(&mut self) -> Option<Frame> {
        if self.over {
            return None;
        }
        loop {
            let done = {
                // Registered before the state is read, so that a later notification is not missed.
                let room = self.registration.room.clone();
                let mut wakeup = pin!(room.stream_wakeup.notified());
                wakeup.as_mut().enable();
                match self.next_action() {
                    NextAction::Send(frame) => {
                        self.just_checked = false;
                        return Some(frame);
                    }
                    NextAction::Wait => {
                        self.just_checked = false;
                        wakeup.await;
                        continue;
                    }
                    // Boxed: a waiting stream must not reserve memory for reads.
                    NextAction::Check => {
                        let span = self.span.clone();
                        let checked = Box::pin(self.check().instrument(span)).await;
                        self.just_checked = checked.is_ok();
                        checked
                    }
                    NextAction::Page => {
                        self.just_checked = false;
                        let span = self.span.clone();
                        Box::pin(self.read().instrument(span)).await
                    }
                }
            };
            if let Err(why) = done {
                self.over = true;
                return Some(Frame::Bye(why));
            }
        }
    }

    fn next_action(&mut self) -> NextAction {
        let room = self.registration.room.clone();
        let state = room.state();
        let over = if room.context.is_draining() { Some(CloseReason::Draining) } else { state.over };
        if let Some(why) = over {
            self.over = true;
            return NextAction::Send(Frame::Bye(why));
        }
        if self.checked.is_none_or(|(answered, _)| answered != state.checks) {
            return NextAction::Check;
        }
        if let Some(reason) = self.reset.take() {
            return NextAction::Send(Frame::Reset { reason, cursor: self.cursor });
        }
        let trusted = self.trusted(state.checks, state.read_at);
        let next = match self.page.front() {
            Some(line) => Next::Entry(line.clone()),
            None => state.tail.after(self.cursor.seq),
        };
        match next {
            Next::Entry(line) => {
                if !trusted {
                    return NextAction::Check;
                }
                if self.page.pop_front().is_none_or(|_| self.page.is_empty()) {
                    self.page = VecDeque::new();
                }
                self.cursor.seq = line.view.entry.seq;
                return NextAction::Send(Frame::Entry { line, cursor: self.cursor });
            }
            Next::Older if trusted => return NextAction::Page,
            Next::Older => return NextAction::Check,
            Next::Nothing => {}
        }
        if self.cursor.read != Some(state.couple.read) {
            if !trusted {
                return NextAction::Check;
            }
            self.cursor.read = Some(state.couple.read);
            return NextAction::Send(Frame::Read { read: state.couple.read, cursor: self.cursor });
        }
        if !std::mem::replace(&mut self.sent_caught_up, true) {
            return NextAction::Send(Frame::CaughtUp { cursor: self.cursor });
        }
        while let Some((number, signal)) = state.signal(self.signals) {
            if signal.from == Some(self.at.side) {
                self.signals = number + 1;
                continue;
            }
            if !trusted {
                return NextAction::Check;
            }
            self.signals = number + 1;
            let (from, kind, body) = (signal.from, signal.kind.clone(), signal.body.clone());
            return NextAction::Send(Frame::Signal { from, kind, body });
        }
        match (self.partner, state.sides[self.at.side.other().index()].here) {
            (KnownPresence::First, Some(here)) => self.partner = KnownPresence::Here(here),
            (known, Some(here)) if known != KnownPresence::Here(here) => {
                if !trusted {
                    return NextAction::Check;
                }
                self.partner = KnownPresence::Here(here);
                return NextAction::Send(Frame::Presence { here });
            }
            _ => {}
        }
        NextAction::Wait
    }

    /// Checks that the client may still follow.
    async fn check(&mut self) -> Result<(), CloseReason> {
        let room = &self.registration.room;
        // Read before asking the gate: a notice that arrives meanwhile causes another check.
        let (checks, read_at) = {
            let state = room.state();
            (state.checks, state.read_at)
        };
        if read_at.elapsed() >= GATE_TRUST_TIME {
            room.request_read().await?;
        }
        let (left, began) = {
            // A check by the host has no permit, so that a slow one does not delay reads of the store.
            let _permit = match self.gate.reads_store() {
                true => Some(room.context.read_permit().await),
                false => None,
            };
            // Taken before the query: the result may be as old as that.
            let began = Instant::now();
            let left = self.gate.open_for().await.map_err(|failure| match failure {
                Failure::Refused(why) => why,
                Failure::Failed(_) => CloseReason::Unavailable,
            })?;
            (left, began)
        };
        self.checked = Some((checks, began));
        room.sweep_by(Instant::now() + left.min(Duration::from_hours(1)));
        Ok(())
    }

    /// Reads a page of entries that are older than the room's tail.
    async fn read(&mut self) -> Result<(), CloseReason> {
        let room = &self.registration.room;
        let _permit = room.context.read_permit().await;
        let page = Page::After(self.cursor.seq);
        let views = room
            .context
            .timeline
            .read(room.id, page, MAX_ENTRIES_PER_READ, None)
            .await
            .map_err(|_| CloseReason::Unavailable)?;
        if views.is_empty() {
            // The log is shorter than the couple's `head_seq`.
            return Err(CloseReason::Unavailable);
        }
        self.page = views.into_iter().map(|view| Arc::new(EncodedEntry::new(view))).collect();
        Ok(())
    }
}
