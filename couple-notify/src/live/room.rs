//! Room: the state that all streams of one couple share in this process.
//!
//! A room is one task. It subscribes, reads, notifies its streams, and waits. Notices that arrive while it reads are handled after
//! the read, so none is missed. Only the room reads the end of the log, once for all streams, and it queries and renews
//! presence once for all devices of a member, beside its other work (`presence_calls.rs`). It stays open for a moment after its last
//! stream ended, since a client that polls returns.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use couple_core::{
    CoupleId,
    live::{Notice, Topic},
    pairing::{Couple, Side},
    timeline::{
        Body, EntryView, Page,
        rules::{self, ThumbPosition},
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    CloseReason,
    context::{GATE_TRUST_TIME, LiveContext},
    presence_calls::{CALL_TIMEOUT, LEASE_RENEW_INTERVAL, PresenceCall, RELEASE_DELAY},
    tail::{self, Tail},
};

/// Signals that are kept for streams that are busy. A stream that falls further behind misses some.
const MAX_KEPT_SIGNALS: usize = 16;

/// A signal.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    /// Sender. None: both members, and both receive it.
    pub(super) from: Option<Side>,
    pub(super) kind: String,
    pub(super) body: Option<Body>,
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) context: Arc<LiveContext>,
    pub(super) id: CoupleId,
    state: Mutex<RoomState>,
    /// Wakes the streams, which then check for frames to send.
    pub(super) stream_wakeup: Notify,
    /// Wakes the room's task, which then determines its next step.
    pub(super) task_wakeup: Notify,
}

#[derive(Debug)]
pub(super) struct RoomState {
    /// The couple, as of the last read.
    pub(super) couple: Arc<Couple>,
    pub(super) tail: Tail,
    /// Number of requested reads.
    requested: u64,
    /// Number of requests that a finished read has served.
    read: u64,
    /// Start of the last read.
    pub(super) read_at: Instant,
    /// Incremented when every stream must ask its gate again.
    pub(super) checks: u64,
    /// Time of the next sweep: a read without a notice.
    sweep_at: Instant,
    /// Whether no entry and no signal arrived since the last sweep.
    quiet: bool,
    /// Time at which an empty room closes.
    close_at: Instant,
    /// Reason for the end of the room.
    pub(super) over: Option<CloseReason>,
    signals: VecDeque<Signal>,
    /// Number of signals so far.
    pub(super) signalled: u64,
    pub(super) sides: [Presence; 2],
    /// Whether a call of the presence port is in progress. There is at most one at a time.
    pub(super) calling_presence: bool,
}

/// Presence of a member, as known to this process.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Number of the member's streams.
    streams: usize,
    /// Number of the member's streams that announce presence.
    pub(super) announcing: usize,
    /// Next renewal of the lease.
    renew_at: Option<Instant>,
    /// Time at which the lease is shortened, because the last stream that announced presence has ended.
    pub(super) release_at: Option<Instant>,
    /// Whether the member is present; none before the first query.
    pub(super) here: Option<bool>,
    /// Time of the next query.
    pub(super) query_at: Option<Instant>,
    /// Expiry of the lease, as of the last query.
    pub(super) left_at: Option<Instant>,
    /// Last point that the member touched, and the time of the touch.
    thumb: Option<(ThumbPosition, Instant)>,
}

impl RoomState {
    fn push(&mut self, from: Option<Side>, kind: String, body: Option<Body>) {
        if self.signals.len() == MAX_KEPT_SIGNALS {
            self.signals.pop_front();
        }
        self.signals.push_back(Signal { from, kind, body });
        self.signalled += 1;
        self.quiet = false;
    }

    /// Records a `thumb`.
    ///
    /// If both members touch about the same point within a short time, both receive a signal `thumb_kiss`. Each process derives it from the
    /// two signals, so the result is the same in every process.
    fn record_thumb(&mut self, side: Side, position: ThumbPosition) {
        let now = Instant::now();
        self.sides[side.index()].thumb = Some((position, now));
        let other = self.sides[side.other().index()].thumb;
        let Some((there, _)) = other.filter(|(_, at)| now.duration_since(*at) <= rules::MAX_THUMB_INTERVAL)
        else {
            return;
        };
        if let Some(middle) = rules::thumbs_meet(position, there) {
            for side in &mut self.sides {
                side.thumb = None;
            }
            let body = serde_json::json!({ "x": middle.x, "y": middle.y });
            self.push(None, rules::THUMB_KISS.to_owned(), Body::new("body", &body).ok());
        }
    }

    /// The signal with this number or, if it was dropped, the oldest one.
    pub(super) fn signal(&self, number: u64) -> Option<(u64, &Signal)> {
        let first = self.signalled - self.signals.len() as u64;
        let number = number.max(first);
        let at = usize::try_from(number - first).unwrap_or(usize::MAX);
        self.signals.get(at).map(|signal| (number, signal))
    }

    /// Whether the room has no streams.
    pub(super) fn is_empty(&self) -> bool {
        self.sides[0].streams + self.sides[1].streams == 0
    }
}

/// Next step of the task.
enum Step {
    Read(u64),
    CallPresence(PresenceCall, Side),
    Wait(Instant),
    Close,
}

/// Open rooms of the process, from which a room removes itself at its end.
pub(super) trait OpenRooms: Send + Sync + 'static {
    /// Removes a room that has ended.
    fn remove(&self, room: &Room);
    /// Removes a room, unless a stream has joined it. Returns whether it was removed.
    fn remove_if_empty(&self, room: &Room) -> bool;
}

impl Room {
    /// Creates the room of a couple that was just read; its tail begins after `after`, if possible.
    pub(super) fn new(context: Arc<LiveContext>, couple: Couple, after: i64) -> Self {
        let (id, sweep_at) = (couple.id, Instant::now() + context.sweep_interval());
        let start = after.clamp((couple.head_seq - i64::from(tail::MAX_ENTRIES)).max(0), couple.head_seq);
        let state = RoomState {
            couple: Arc::new(couple),
            tail: Tail::new(start),
            requested: 0,
            read: 0,
            read_at: Instant::now(),
            checks: 0,
            sweep_at,
            quiet: false,
            close_at: sweep_at,
            over: None,
            signals: VecDeque::new(),
            signalled: 0,
            sides: Default::default(),
            calling_presence: false,
        };
        Self {
            context,
            id,
            state: Mutex::new(state),
            stream_wakeup: Notify::new(),
            task_wakeup: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream. The caller holds the hub's lock.
    pub(super) fn add_stream(&self, side: Side) {
        let mut state = self.state();
        state.sides[side.index()].streams += 1;
        if state.sides[side.index()].streams == 1 {
            // The partner's presence was not queried before.
            let partner = &mut state.sides[side.other().index()];
            (partner.here, partner.query_at) = (None, Some(Instant::now()));
        }
    }

    /// Removes a stream.
    pub(super) fn remove_stream(&self, side: Side, announced: bool) {
        let mut state = self.state();
        let own = &mut state.sides[side.index()];
        own.streams -= 1;
        own.announcing -= usize::from(announced);
        let released = announced && own.announcing == 0;
        if released {
            own.renew_at = None;
            own.release_at = Some(Instant::now() + RELEASE_DELAY);
        }
        let empty = state.is_empty();
        if empty {
            state.close_at = Instant::now() + self.context.options.room_linger;
        }
        drop(state);
        if released || empty {
            self.task_wakeup.notify_one();
        }
    }

    /// Announces the member's presence, for as long as the member has such a stream.
    pub(super) fn announce(&self, side: Side) {
        let mut state = self.state();
        let own = &mut state.sides[side.index()];
        own.announcing += 1;
        own.release_at = None;
        if own.renew_at.is_none() {
            own.renew_at = Some(Instant::now());
            drop(state);
            self.task_wakeup.notify_one();
        }
    }

    /// Makes the room sweep at `at` at the latest, because a session expires without a notice.
    pub(super) fn sweep_by(&self, at: Instant) {
        let mut state = self.state();
        if at < state.sweep_at {
            state.sweep_at = at;
            drop(state);
            self.task_wakeup.notify_one();
        }
    }

    /// Waits for a read that begins after this call.
    pub(super) async fn request_read(&self) -> Result<Arc<Couple>, CloseReason> {
        let requested = {
            let mut state = self.state();
            state.requested += 1;
            state.requested
        };
        self.task_wakeup.notify_one();
        loop {
            let mut wakeup = pin!(self.stream_wakeup.notified());
            wakeup.as_mut().enable();
            {
                let state = self.state();
                if let Some(over) = state.over {
                    return Err(over);
                }
                if state.read >= requested {
                    return Ok(state.couple.clone());
                }
            }
            wakeup.await;
        }
    }

    /// Wakes all streams.
    pub(super) fn notify_streams(&self) {
        self.stream_wakeup.notify_waiters();
    }

    /// Makes every stream ask its gate again.
    pub(super) fn check_all(&self) {
        self.state().checks += 1;
        self.notify_streams();
    }

    /// Ends the room and its streams.
    pub(super) fn end(&self, why: CloseReason) {
        self.state().over.get_or_insert(why);
        self.notify_streams();
    }

    fn step(&self) -> Step {
        let mut state = self.state();
        let now = Instant::now();
        // The end of a call wakes the task.
        let may_call = !state.calling_presence;
        for side in [Side::First, Side::Second] {
            if may_call && state.sides[side.index()].release_at.take_if(|at| *at <= now).is_some() {
                state.calling_presence = true;
                return Step::CallPresence(PresenceCall::Release, side);
            }
        }
        let next_release = state.sides.iter().filter_map(|presence| presence.release_at).min();
        if state.is_empty() {
            // A new stream requests a read.
            return match next_release {
                _ if !may_call => Step::Wait(now + CALL_TIMEOUT),
                Some(at) => Step::Wait(at),
                None if state.close_at <= now => Step::Close,
                None => Step::Wait(state.close_at),
            };
        }
        if state.sweep_at <= now {
            state.sweep_at = now + self.context.sweep_interval();
            if std::mem::replace(&mut state.quiet, true) {
                state.tail.clear();
                state.signals = VecDeque::new();
            }
            state.checks += 1;
            state.requested += 1;
        }
        if state.requested > state.read {
            return Step::Read(state.requested);
        }
        if !may_call {
            return Step::Wait(state.sweep_at);
        }
        let mut until = next_release.map_or(state.sweep_at, |at| at.min(state.sweep_at));
        for side in [Side::First, Side::Second] {
            let followed = state.sides[side.other().index()].streams > 0;
            let presence = &mut state.sides[side.index()];
            match presence.renew_at {
                Some(at) if at <= now => {
                    presence.renew_at = Some(now + LEASE_RENEW_INTERVAL);
                    state.calling_presence = true;
                    return Step::CallPresence(PresenceCall::Renew, side);
                }
                Some(at) => until = until.min(at),
                None => {}
            }
            match presence.query_at.filter(|_| followed) {
                Some(at) if at <= now => {
                    presence.query_at = None;
                    state.calling_presence = true;
                    return Step::CallPresence(PresenceCall::Query, side);
                }
                Some(at) => until = until.min(at),
                None => {}
            }
        }
        Step::Wait(until)
    }

    /// Runs until the room is empty, or has ended.
    pub(super) async fn run(self: Arc<Self>, rooms: Arc<impl OpenRooms>) {
        let ending = Ending { room: &self, rooms: &*rooms };
        let members = self.state().couple.members.map(Topic::Account).to_vec();
        let bus = self.context.ports.bus.clone();
        // Subscribe before the first read: a change between the two is read and notified, so it cannot be missed.
        let mut log = bus.subscribe(vec![Topic::Couple(self.id)]).await;
        let mut sessions = bus.subscribe(members).await;
        let mut alarm = pin!(sleep_until(self.state().sweep_at));
        loop {
            match self.step() {
                // Boxed: a waiting task must not reserve memory for reads.
                Step::Read(requested) => match Box::pin(self.read(requested)).await {
                    Ok(()) => {}
                    Err(why) => {
                        // A client that comes later opens a new room.
                        rooms.remove(&self);
                        self.end(why);
                        break;
                    }
                },
                Step::Close if rooms.remove_if_empty(&self) => break,
                Step::Close => {}
                Step::CallPresence(call, side) => self.start_presence_call(call, side),
                Step::Wait(until) => {
                    if alarm.deadline() != until {
                        alarm.as_mut().reset(until);
                    }
                    tokio::select! {
                        // Biased: ended sessions are handled before any frame is sent.
                        biased;
                        _ = sessions.next() => self.check_all(),
                        () = self.task_wakeup.notified() => {}
                        () = alarm.as_mut() => {}
                        notice = log.next() => self.handle_notice(notice),
                    }
                }
            }
        }
        drop((log, sessions));
        // The end of the couple releases no leases: its members may have paired again, and their new rooms would not get the notice.
        if self.state().over == Some(CloseReason::Unavailable) {
            Box::pin(self.release_presence_after_failure()).await;
        }
        drop(ending);
    }

    fn handle_notice(&self, notice: Notice) {
        let mut state = self.state();
        match notice {
            Notice::Changed => {
                state.requested += 1;
                return;
            }
            // A repeated notice, or the entry was read meanwhile.
            Notice::Appended(entry) if state.tail.contains(entry.seq) => return,
            // If the last read is too old, the streams would not trust it and request a read immediately.
            Notice::Appended(entry)
                if state.tail.is_next(entry.seq) && state.read_at.elapsed() < GATE_TRUST_TIME =>
            {
                let entry = Arc::unwrap_or_clone(entry);
                state.tail.extend(vec![EntryView { entry, target: None }]);
                state.quiet = false;
            }
            Notice::Appended(_) => {
                state.requested += 1;
                return;
            }
            Notice::Here(side) => {
                state.sides[side.index()].query_at = Some(Instant::now());
                return;
            }
            Notice::Left(side) => {
                let presence = &mut state.sides[side.index()];
                presence.query_at = Some(Instant::now());
                // The connection that ended was at another process.
                if presence.announcing > 0 {
                    presence.renew_at = presence.query_at;
                }
                return;
            }
            Notice::Signal { from, kind, body } => {
                let thumb =
                    (kind == rules::THUMB).then(|| rules::thumb(body.as_ref().map(Body::value).as_ref()));
                state.push(Some(from), kind, body);
                if let Some(Ok(position)) = thumb {
                    state.record_thumb(from, position);
                }
            }
        }
        drop(state);
        self.notify_streams();
    }

    /// Reads the couple, and the log if it has grown.
    async fn read(&self, requested: u64) -> Result<(), CloseReason> {
        let unavailable = |error: couple_core::Error| {
            tracing::warn!(%error, "cannot read a couple's log for its live streams");
            CloseReason::Unavailable
        };
        let _permit = self.context.read_permit().await;
        // Taken before the query: the result may be as old as that.
        let began = Instant::now();
        let couple = self.context.ports.store.couple(self.id).await.map_err(unavailable)?;
        let couple = couple.filter(|couple| couple.ended_at.is_none()).ok_or(CloseReason::NotPaired)?;
        let from = self.state().tail.missing(couple.head_seq);
        let views = match from {
            Some(from) => self
                .context
                .timeline
                .read(self.id, Page::After(from), tail::MAX_ENTRIES, None)
                .await
                .map_err(unavailable)?,
            None => Vec::new(),
        };
        let mut state = self.state();
        state.quiet &= views.is_empty();
        state.tail.extend(views);
        state.couple = Arc::new(couple);
        (state.read, state.read_at) = (requested, began);
        drop(state);
        self.notify_streams();
        Ok(())
    }
}

/// Ends the room when its task ends for whatever reason, even a panic, so that no stream waits for it.
struct Ending<'a, R: OpenRooms> {
    room: &'a Room,
    rooms: &'a R,
}

impl<R: OpenRooms> Drop for Ending<'_, R> {
    fn drop(&mut self) {
        self.rooms.remove(self.room);
        self.room.end(CloseReason::Unavailable);
    }
}
