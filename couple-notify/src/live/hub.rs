//! Rooms of this process, and permits to read for them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use couple_core::{
    AccountId, CoupleId, Error, ErrorKind, Failure, Ports,
    pairing::{Couple, Side},
    timeline::{Membership, Timeline, TimelineError},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{CloseReason, Cursor, Gate, Reset, Stream, room::Room, session_watch::SessionWatch};

/// Intervals and limits of live delivery.
#[derive(Debug, Clone, Copy)]
pub struct LiveOptions {
    /// Maximum time between two reads of a followed couple. Default: 30 s.
    ///
    /// It bounds the delay of an entry whose notice is lost.
    pub sweep: Duration,
    /// Maximum concurrent reads. Default: 3.
    ///
    /// Fewer than the read connections of the store, so that clients that reconnect together leave some for other requests.
    pub reads: usize,
    /// Time for which a room is kept after its last stream ended: a client that polls returns.
    ///
    /// Default: 5 s.
    pub linger: Duration,
    /// Time over which clients spread their reconnects when the process stops. Default: 10 s.
    pub drain: Duration,
    /// Interval at which the store is asked which followed sessions have ended. Default: 1 s.
    ///
    /// It bounds the delay of a sign-out whose notice is lost.
    pub session_check: Duration,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            sweep: Duration::from_secs(30),
            reads: 3,
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            session_check: Duration::from_secs(1),
        }
    }
}

/// Live delivery: opens streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Hub>);

/// Permit to read; bounds concurrent reads.
#[derive(Debug)]
#[expect(dead_code, reason = "returned when dropped")]
pub struct ReadPermit<'a> {
    turn: Option<SemaphorePermit<'a>>,
    arrival: Option<SemaphorePermit<'a>>,
}

#[derive(Debug)]
pub(super) struct Hub {
    pub(super) ports: Ports,
    pub(super) timeline: Timeline,
    options: LiveOptions,
    rooms: Mutex<Rooms>,
    pub(super) session_watch: SessionWatch,
    turns: Semaphore,
    /// Permits that new clients need before they wait for a turn.
    ///
    /// There are fewer of them, so that many new clients do not delay the rooms of open streams.
    arrivals: Semaphore,
    draining: AtomicBool,
}

#[derive(Debug, Default)]
struct Rooms {
    by_couple: HashMap<CoupleId, Arc<Room>>,
    by_account: HashMap<AccountId, CoupleId>,
}

impl Rooms {
    fn remove(&mut self, room: &Room) {
        // Another room may have replaced it.
        if self.by_couple.get(&room.id).is_some_and(|there| std::ptr::eq(&raw const **there, room)) {
            self.by_couple.remove(&room.id);
            for member in room.state().couple.members {
                if self.by_account.get(&member) == Some(&room.id) {
                    self.by_account.remove(&member);
                }
            }
        }
    }
}

impl Hub {
    fn rooms(&self) -> std::sync::MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Waits for a permit to read.
    pub(super) async fn turn(&self) -> ReadPermit<'_> {
        ReadPermit { turn: self.turns.acquire().await.ok(), arrival: None }
    }

    /// Time until a room sweeps: up to a quarter less than the maximum, at random.
    ///
    /// So rooms do not sweep together.
    pub(super) fn sweep(&self) -> Duration {
        let mut random = [0];
        self.ports.entropy.fill(&mut random);
        self.options.sweep.mul_f64(0.75 + f64::from(random[0]) / 1_024.0)
    }

    /// Removes a room that has ended.
    pub(super) fn forget(&self, room: &Room) {
        self.rooms().remove(room);
    }

    /// Removes a room, unless a stream has joined it. Returns whether it was removed.
    pub(super) fn close(&self, room: &Room) -> bool {
        let mut rooms = self.rooms();
        let empty = room.state().is_empty();
        if empty {
            rooms.remove(room);
        }
        empty
    }

    /// Interval between two checks for ended sessions.
    pub(super) fn session_check(&self) -> Duration {
        self.options.session_check.max(Duration::from_millis(10))
    }

    /// Time for which an empty room is kept.
    pub(super) const fn linger(&self) -> Duration {
        self.options.linger
    }

    /// Joins the open room of the account's couple, if there is one.
    fn seat_of(self: &Arc<Self>, account: AccountId) -> Option<Registration> {
        let rooms = self.rooms();
        let room = rooms.by_couple.get(rooms.by_account.get(&account)?)?;
        let side = room.state().couple.side_of(account)?;
        room.enter(side);
        Some(Registration { room: room.clone(), side, announced: false })
    }

    /// Joins the room of a couple, which is opened if necessary.
    ///
    /// Its tail begins after `after`, if possible.
    fn seat(self: &Arc<Self>, couple: Couple, side: Side, after: i64) -> Registration {
        let mut rooms = self.rooms();
        let room = rooms.by_couple.get(&couple.id).cloned().unwrap_or_else(|| {
            let (id, members) = (couple.id, couple.members);
            let room = Arc::new(Room::new(self.clone(), couple, after));
            rooms.by_account.extend(members.map(|member| (member, id)));
            drop(tokio::spawn(room.clone().run()));
            rooms.by_couple.insert(id, room.clone());
            room
        });
        room.enter(side);
        Registration { room, side, announced: false }
    }
}

/// Membership of a stream in its couple's room.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) room: Arc<Room>,
    pub(super) side: Side,
    announced: bool,
}

impl Registration {
    pub(super) fn announce(&mut self) {
        if !std::mem::replace(&mut self.announced, true) {
            self.room.announce(self.side);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.room.leave(self.side, self.announced);
    }
}

impl Live {
    /// Creates live delivery over these ports.
    #[must_use]
    pub fn new(ports: Ports, options: LiveOptions) -> Self {
        let reads = options.reads.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Hub {
            timeline: Timeline::new(ports.clone()),
            ports,
            options,
            rooms: Mutex::default(),
            session_watch: SessionWatch::default(),
            turns: Semaphore::new(reads),
            arrivals: Semaphore::new((reads - 1).max(1)),
            draining: AtomicBool::new(false),
        }))
    }

    /// Options of this instance.
    #[must_use]
    pub fn options(&self) -> &LiveOptions {
        &self.0.options
    }

    /// Ends all streams, and all that are opened later.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        for room in self.0.rooms().by_couple.values() {
            room.told.notify_waiters();
        }
    }

    /// Whether this process ends its streams.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    /// Waits for a permit to read, for callers that authenticate a client before [`open`](Self::open).
    ///
    /// Drop it before `open`. If there is more than one permit, this method leaves one for the rooms of open streams.
    pub async fn turn(&self) -> ReadPermit<'_> {
        let arrival = self.0.arrivals.acquire().await.ok();
        ReadPermit { arrival, ..self.0.turn().await }
    }

    /// Opens a stream of an account's couple that continues after `after`.
    ///
    /// Without `after` it starts at the end of the log.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`], or the error of the store.
    pub async fn open(
        &self,
        account: AccountId,
        gate: Arc<dyn Gate>,
        after: Option<Cursor>,
    ) -> Result<Stream, Failure<TimelineError>> {
        // The partner or another device may have a stream here: then one read serves both.
        if let Some(seat) = self.0.seat_of(account)
            && let Ok(couple) = seat.room.ask().await
        {
            return Ok(self.sit(seat, account, gate, &couple, after));
        }
        let (at, couple) = {
            let _turn = self.0.turn().await;
            self.0.timeline.membership(account).await?
        };
        let from = after.filter(|after| after.fits(&couple)).map_or(couple.head_seq, |after| after.seq);
        let seat = self.0.seat(couple, at.side, from);
        match seat.room.ask().await {
            Ok(couple) => Ok(self.sit(seat, account, gate, &couple, after)),
            Err(CloseReason::NotPaired) => Err(Failure::Refused(TimelineError::NotPaired)),
            Err(_) => Err(Failure::Failed(Error::new(ErrorKind::Unavailable, "follow a couple's log"))),
        }
    }

    fn sit(
        &self,
        seat: Registration,
        account: AccountId,
        gate: Arc<dyn Gate>,
        couple: &Couple,
        after: Option<Cursor>,
    ) -> Stream {
        let end = Cursor::of(couple, couple.head_seq, couple.read);
        let (cursor, reset) = match after {
            None => (end, None),
            Some(after) if after.fits(couple) => {
                (Cursor::of(couple, after.seq, after.read.unwrap_or(couple.read)), None)
            }
            Some(_) => (end, Some(Reset::CursorUnknown)),
        };
        let at = Membership { account, couple: couple.id, epoch: couple.epoch, side: seat.side };
        Stream::new(seat, gate, at, cursor, reset)
    }
}
