//! What the streams of one couple share in this process.
//!
//! A room is one task. It subscribes, then reads, then tells its streams, then waits: what the bus says while it reads waits for
//! the next round, so nothing that happened is ever waited for. It is the only one that reads the end of the log, once for
//! all who follow; presence is asked for and said once for all devices of a person. It stays for a moment after the last one
//! left: who polls comes back.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use couple_core::{
    CoupleId,
    live::{Notice, Topic},
    pairing::{Couple, Side},
    timeline::{
        Body, Page, View,
        rules::{self, Place},
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Bye,
    hub::Hub,
    stream,
    tail::{self, Tail},
};

/// A person with a live connection is here for so long after it was last renewed: the grace of those whose connection broke is
/// what is left of it, 35 to 60 seconds.
const LEASE: Duration = Duration::from_secs(60);
/// How often a lease is renewed.
const RENEW: Duration = Duration::from_secs(25);
/// Signals that are kept for streams that are still busy with others; who is slower than that misses some.
const SIGNALS: usize = 16;

/// Something for now, and for whom.
#[derive(Debug, Clone)]
pub(super) struct Signal {
    /// None: both get it.
    pub(super) from: Option<Side>,
    pub(super) kind: String,
    pub(super) body: Option<Body>,
}

#[derive(Debug)]
pub(super) struct Room {
    pub(super) hub: Arc<Hub>,
    pub(super) id: CoupleId,
    state: Mutex<State>,
    /// For the streams: something is new.
    pub(super) told: Notify,
    /// For the task: something was asked for.
    nudge: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    /// As the newest reading found it.
    pub(super) couple: Arc<Couple>,
    pub(super) tail: Tail,
    /// Readings that were asked for, and how many of them the newest one answers.
    asked: u64,
    read: u64,
    /// When that was.
    pub(super) read_at: Instant,
    /// Rises when every stream must make sure that it may go on.
    pub(super) checks: u64,
    /// When everything is looked at without having been told, and whether anything was read since it last was.
    sweep_at: Instant,
    quiet: bool,
    /// When a room in which nobody is goes.
    close_at: Instant,
    /// Why there is nothing more to come.
    pub(super) over: Option<Bye>,
    signals: VecDeque<Signal>,
    /// How many there ever were.
    pub(super) signalled: u64,
    pub(super) sides: [Presence; 2],
}

/// One of the two, as far as this process knows.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Streams.
    streams: usize,
    /// Those of them that say so.
    announcing: usize,
    /// When the others are told next that this person is here.
    renew_at: Option<Instant>,
    /// Whether they are here, and when to look again.
    pub(super) here: Option<bool>,
    look_at: Option<Instant>,
    /// When their lease ends, as far as was told.
    left_at: Option<Instant>,
    /// Where their thumb is, and since when.
    thumb: Option<(Place, Instant)>,
}

impl State {
    fn push(&mut self, from: Option<Side>, kind: String, body: Option<Body>) {
        if self.signals.len() == SIGNALS {
            self.signals.pop_front();
        }
        self.signals.push_back(Signal { from, kind, body });
        self.signalled += 1;
        self.quiet = false;
    }

    /// Both press the same place within a moment: both are told. Whoever hears of the two finds out for themselves, so it is
    /// the same in every process.
    fn press(&mut self, side: Side, place: Place) {
        let now = Instant::now();
        self.sides[side.index()].thumb = Some((place, now));
        let other = self.sides[side.other().index()].thumb;
        let Some((there, _)) = other.filter(|(_, at)| now.duration_since(*at) <= rules::THUMBS_WITHIN) else {
            return;
        };
        if let Some(place) = rules::thumbs_meet(place, there) {
            for side in &mut self.sides {
                side.thumb = None;
            }
            let body = serde_json::json!({ "x": place.x, "y": place.y });
            self.push(None, rules::THUMB_KISS.to_owned(), Body::new("body", &body).ok());
        }
    }

    /// The signal with this number, if it is still there, and else the oldest.
    pub(super) fn signal(&self, number: u64) -> Option<(u64, &Signal)> {
        let first = self.signalled - self.signals.len() as u64;
        let number = number.max(first);
        let at = usize::try_from(number - first).unwrap_or(usize::MAX);
        self.signals.get(at).map(|signal| (number, signal))
    }

    /// Whether nobody follows.
    pub(super) fn is_empty(&self) -> bool {
        self.sides[0].streams + self.sides[1].streams == 0
    }
}

/// What the task does next.
enum Step {
    Read(u64),
    Renew(Side),
    Look(Side),
    Wait(Instant),
    Close,
}

impl Room {
    /// For a couple that was just read; its log is wanted from `after` on.
    pub(super) fn new(hub: Arc<Hub>, couple: Couple, after: i64) -> Self {
        let (id, sweep_at) = (couple.id, Instant::now() + hub.sweep());
        let start = after.clamp((couple.head_seq - i64::from(tail::ENTRIES)).max(0), couple.head_seq);
        let state = State {
            couple: Arc::new(couple),
            tail: Tail::new(start),
            asked: 0,
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
        };
        Self { hub, id, state: Mutex::new(state), told: Notify::new(), nudge: Notify::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stream. The hub's lock is held.
    pub(super) fn enter(&self, side: Side) {
        let mut state = self.state();
        state.sides[side.index()].streams += 1;
        if state.sides[side.index()].streams == 1 {
            // Nobody wanted to know until now.
            let partner = &mut state.sides[side.other().index()];
            (partner.here, partner.look_at) = (None, Some(Instant::now()));
        }
    }

    /// One stream less.
    pub(super) fn leave(&self, side: Side, announced: bool) {
        let mut state = self.state();
        let own = &mut state.sides[side.index()];
        own.streams -= 1;
        own.announcing -= usize::from(announced);
        if own.announcing == 0 {
            own.renew_at = None;
        }
        if state.is_empty() {
            state.close_at = Instant::now() + self.hub.linger();
            drop(state);
            self.nudge.notify_one();
        }
    }

    /// Says that this person is here, for as long as they have such a stream.
    pub(super) fn announce(&self, side: Side) {
        let mut state = self.state();
        let own = &mut state.sides[side.index()];
        own.announcing += 1;
        if own.renew_at.is_none() {
            own.renew_at = Some(Instant::now());
            drop(state);
            self.nudge.notify_one();
        }
    }

    /// Looks again no later than then: a session ends by itself.
    pub(super) fn look_by(&self, at: Instant) {
        let mut state = self.state();
        if at < state.sweep_at {
            state.sweep_at = at;
            drop(state);
            self.nudge.notify_one();
        }
    }

    /// Waits for a reading that begins from now on.
    pub(super) async fn ask(&self) -> Result<Arc<Couple>, Bye> {
        let asked = {
            let mut state = self.state();
            state.asked += 1;
            state.asked
        };
        self.nudge.notify_one();
        loop {
            let mut told = pin!(self.told.notified());
            told.as_mut().enable();
            {
                let state = self.state();
                if let Some(over) = state.over {
                    return Err(over);
                }
                if state.read >= asked {
                    return Ok(state.couple.clone());
                }
            }
            told.await;
        }
    }

    /// Makes every stream ask its gate again.
    pub(super) fn check_all(&self) {
        self.state().checks += 1;
        self.told.notify_waiters();
    }

    /// Tells all streams that there is nothing more to come.
    pub(super) fn end(&self, why: Bye) {
        self.state().over.get_or_insert(why);
        self.told.notify_waiters();
    }

    fn step(&self) -> Step {
        let mut state = self.state();
        let now = Instant::now();
        if state.is_empty() {
            // Whoever comes asks for a reading.
            return if state.close_at <= now { Step::Close } else { Step::Wait(state.close_at) };
        }
        if state.sweep_at <= now {
            state.sweep_at = now + self.hub.sweep();
            if std::mem::replace(&mut state.quiet, true) {
                state.tail.rest();
                state.signals = VecDeque::new();
            }
            state.checks += 1;
            state.asked += 1;
        }
        if state.asked > state.read {
            return Step::Read(state.asked);
        }
        let mut until = state.sweep_at;
        for side in [Side::First, Side::Second] {
            let followed = state.sides[side.other().index()].streams > 0;
            let presence = &mut state.sides[side.index()];
            match presence.renew_at {
                Some(at) if at <= now => {
                    presence.renew_at = Some(now + RENEW);
                    return Step::Renew(side);
                }
                Some(at) => until = until.min(at),
                None => {}
            }
            match presence.look_at.filter(|_| followed) {
                Some(at) if at <= now => {
                    presence.look_at = None;
                    return Step::Look(side);
                }
                Some(at) => until = until.min(at),
                None => {}
            }
        }
        Step::Wait(until)
    }

    /// Until nobody follows, or nothing is left to follow.
    pub(super) async fn run(self: Arc<Self>) {
        let ending = Ending(&self);
        let members = self.state().couple.members.map(Topic::Account).to_vec();
        let bus = self.hub.ports.bus.clone();
        // Subscribe, then read: what is written in between is both told of and read, never neither.
        let mut log = bus.subscribe(vec![Topic::Couple(self.id)]).await;
        let mut sessions = bus.subscribe(members).await;
        let mut alarm = pin!(sleep_until(self.state().sweep_at));
        loop {
            match self.step() {
                // Boxed: what waits must not keep room for what reads.
                Step::Read(asked) => match Box::pin(self.read(asked)).await {
                    Ok(()) => {}
                    Err(why) => {
                        // Who comes from now on begins anew.
                        self.hub.forget(&self);
                        self.end(why);
                        break;
                    }
                },
                Step::Close if self.hub.close(&self) => break,
                Step::Close => {}
                Step::Renew(side) => Box::pin(self.renew(side)).await,
                Step::Look(side) => Box::pin(self.look(side)).await,
                Step::Wait(until) => {
                    if alarm.deadline() != until {
                        alarm.as_mut().reset(until);
                    }
                    tokio::select! {
                        // Who may not be told any more is found out before anything is told.
                        biased;
                        _ = sessions.next() => self.check_all(),
                        () = self.nudge.notified() => {}
                        () = alarm.as_mut() => {}
                        notice = log.next() => self.hear(notice),
                    }
                }
            }
        }
        drop(ending);
    }

    fn hear(&self, notice: Notice) {
        let mut state = self.state();
        match notice {
            Notice::Changed => {
                state.asked += 1;
                return;
            }
            // Told of a second time, or read meanwhile.
            Notice::Appended(entry) if state.tail.has(entry.seq) => return,
            // On an older reading nothing is told: it would be asked for at once.
            Notice::Appended(entry)
                if state.tail.awaits(entry.seq) && state.read_at.elapsed() < stream::TRUST =>
            {
                let entry = Arc::unwrap_or_clone(entry);
                state.tail.extend(vec![View { entry, target: None }]);
                state.quiet = false;
            }
            Notice::Appended(_) => {
                state.asked += 1;
                return;
            }
            Notice::Here(side) => {
                state.sides[side.index()].look_at = Some(Instant::now());
                return;
            }
            Notice::Signal { from, kind, body } => {
                let thumb =
                    (kind == rules::THUMB).then(|| rules::thumb(body.as_ref().map(Body::value).as_ref()));
                state.push(Some(from), kind, body);
                if let Some(Ok(place)) = thumb {
                    state.press(from, place);
                }
            }
        }
        drop(state);
        self.told.notify_waiters();
    }

    /// Reads the couple, and its log where that has grown.
    async fn read(&self, asked: u64) -> Result<(), Bye> {
        let unavailable = |error: couple_core::Error| {
            tracing::warn!(%error, "a couple's log cannot be followed");
            Bye::Unavailable
        };
        let _turn = self.hub.turn().await;
        // Before asking: the answer is no newer than that.
        let began = Instant::now();
        let couple = self.hub.ports.store.couple(self.id).await.map_err(unavailable)?;
        let couple = couple.filter(|couple| couple.ended_at.is_none()).ok_or(Bye::NotPaired)?;
        let from = self.state().tail.missing(couple.head_seq);
        let views = match from {
            Some(from) => self
                .hub
                .timeline
                .read(self.id, Page::After(from), tail::ENTRIES, None)
                .await
                .map_err(unavailable)?,
            None => Vec::new(),
        };
        let mut state = self.state();
        state.quiet &= views.is_empty();
        state.tail.extend(views);
        state.couple = Arc::new(couple);
        (state.read, state.read_at) = (asked, began);
        drop(state);
        self.told.notify_waiters();
        Ok(())
    }

    /// Says that a person is here. That it cannot be said is no reason to end anything.
    async fn renew(&self, side: Side) {
        let (ports, who) = (&self.hub.ports, self.state().couple.member(side));
        if ports.presence.renew(who, LEASE).await.unwrap_or(false) {
            ports.bus.publish(Topic::Couple(self.id), Notice::Here(side)).await;
        }
    }

    /// Looks whether a person is here, and again when that may have changed.
    async fn look(&self, side: Side) {
        let who = self.state().couple.member(side);
        let left = self.hub.ports.presence.left(who).await;
        let mut state = self.state();
        let presence = &mut state.sides[side.index()];
        let now = Instant::now();
        let left = match left {
            Ok(left) => {
                presence.left_at = left.map(|left| now + left);
                left
            }
            // What was known holds for as long as it would have.
            Err(_) => presence.left_at.and_then(|at| at.checked_duration_since(now)),
        };
        let again = left.map_or(RENEW, |left| (left + Duration::from_millis(50)).min(RENEW));
        // Whoever said something meanwhile is looked at sooner.
        presence.look_at = presence.look_at.or(Some(now + again));
        if presence.here.replace(left.is_some()) != Some(left.is_some()) {
            drop(state);
            self.told.notify_waiters();
        }
    }
}

/// However the task ends, nobody goes on waiting for it.
struct Ending<'a>(&'a Room);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.hub.forget(self.0);
        self.0.end(Bye::Unavailable);
    }
}
