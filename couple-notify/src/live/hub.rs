//! Who follows what in this process.

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
    timeline::{Membership, Refusal, Timeline},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Bye, Cursor, Gate, Reset, Stream, room::Room, session_watch::SessionWatch};

/// Numbers a host may change.
#[derive(Debug, Clone, Copy)]
pub struct LiveOptions {
    /// How long a stream waits at most before it looks without having been told: what a lost notice costs. Default: 30 s.
    pub sweep: Duration,
    /// How many read at once at most, so that those who come back at once, each with something to read, leave connections to
    /// the store for others. Fewer than the store reads with. Default: 3.
    pub reads: usize,
    /// For how long what the streams of a couple share is kept after the last of them left: who polls comes back. Default: 5 s.
    pub linger: Duration,
    /// Over how long those who are told to go should come back. Default: 10 s.
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

/// Opens streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Hub>);

/// What a reading takes one of, so that there are only so many at once.
#[derive(Debug)]
#[expect(dead_code, reason = "given back when dropped")]
pub struct Turn<'a> {
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
    /// What strangers queue for before they queue for a turn: fewer, so that a crowd of them holds up nobody who is followed.
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
        // Another one may have taken its place.
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

    /// The next of so many that may read.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn { turn: self.turns.acquire().await.ok(), arrival: None }
    }

    /// How long until a room looks by itself: a bit less than it may, so that not all do so at once.
    pub(super) fn sweep(&self) -> Duration {
        let mut random = [0];
        self.ports.entropy.fill(&mut random);
        self.options.sweep.mul_f64(0.75 + f64::from(random[0]) / 1_024.0)
    }

    /// Takes a room that is over off the list.
    pub(super) fn forget(&self, room: &Room) {
        self.rooms().remove(room);
    }

    /// Takes a room off the list, unless somebody has come.
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

    /// For how long a room stays in which nobody is.
    pub(super) const fn linger(&self) -> Duration {
        self.options.linger
    }

    /// A seat in the room that this person's couple already has.
    fn seat_of(self: &Arc<Self>, account: AccountId) -> Option<Seat> {
        let rooms = self.rooms();
        let room = rooms.by_couple.get(rooms.by_account.get(&account)?)?;
        let side = room.state().couple.side_of(account)?;
        room.enter(side);
        Some(Seat { room: room.clone(), side, announced: false })
    }

    /// A seat in a couple's room, which is made if it is not there. The log is wanted from `after` on.
    fn seat(self: &Arc<Self>, couple: Couple, side: Side, after: i64) -> Seat {
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
        Seat { room, side, announced: false }
    }
}

/// A stream's place in its couple's room.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) room: Arc<Room>,
    pub(super) side: Side,
    announced: bool,
}

impl Seat {
    pub(super) fn announce(&mut self) {
        if !std::mem::replace(&mut self.announced, true) {
            self.room.announce(self.side);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.leave(self.side, self.announced);
    }
}

impl Live {
    /// Over its ports.
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

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &LiveOptions {
        &self.0.options
    }

    /// Says goodbye to every stream, also to those that come from now on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
        for room in self.0.rooms().by_couple.values() {
            room.told.notify_waiters();
        }
    }

    /// Whether this process says goodbye.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    /// Waits until one more may read: for whoever has to look who wants to follow before they [`open`](Self::open). To be let go
    /// of before that. Where more than one may read, one turn is never given here: what is followed already goes on.
    pub async fn turn(&self) -> Turn<'_> {
        let arrival = self.0.arrivals.acquire().await.ok();
        Turn { arrival, ..self.0.turn().await }
    }

    /// Follows the log of a person's couple from `after` on; without it, from its end.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], or the store's.
    pub async fn open(
        &self,
        account: AccountId,
        gate: Arc<dyn Gate>,
        after: Option<Cursor>,
    ) -> Result<Stream, Failure<Refusal>> {
        // The partner, or another device, may be here already: then one reading answers both.
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
            Err(Bye::NotPaired) => Err(Failure::Refused(Refusal::NotPaired)),
            Err(_) => Err(Failure::Failed(Error::new(ErrorKind::Unavailable, "follow a couple's log"))),
        }
    }

    fn sit(
        &self,
        seat: Seat,
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
