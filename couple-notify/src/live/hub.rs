//! Live delivery of this process: its rooms, and the streams that join them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use couple_core::{
    AccountId, CoupleId, Error, ErrorKind, Failure, Ports,
    live::SessionChecker,
    pairing::{Couple, Side},
    timeline::{Membership, TimelineError},
};

use super::{
    CloseReason, Cursor, Gate, LiveOptions, ReadPermit, Reset, Stream,
    context::LiveContext,
    registration::Registration,
    room::{OpenRooms, Room},
    session_watch::SessionWatch,
};

/// Live delivery: opens streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Hub>);

#[derive(Debug)]
struct Hub {
    context: Arc<LiveContext>,
    rooms: Mutex<Rooms>,
    session_watch: Arc<SessionWatch>,
}

#[derive(Debug, Default)]
struct Rooms {
    /// Ordered, so that [`Live::drain`] ends the streams in the same order for the same rooms.
    by_couple: BTreeMap<CoupleId, Arc<Room>>,
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
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the open room of the account's couple, if there is one.
    fn join_open_room(&self, account: AccountId) -> Option<Registration> {
        let rooms = self.rooms();
        let room = rooms.by_couple.get(rooms.by_account.get(&account)?)?;
        let side = room.state().couple.side_of(account)?;
        Some(Registration::new(room.clone(), side))
    }

    /// Joins the room of a couple, which is opened if necessary.
    ///
    /// Its tail begins after `after`, if possible.
    fn join_room(self: &Arc<Self>, couple: Couple, side: Side, after: i64) -> Registration {
        let mut rooms = self.rooms();
        let room = rooms.by_couple.get(&couple.id).cloned().unwrap_or_else(|| {
            let (id, members) = (couple.id, couple.members);
            let room = Arc::new(Room::new(self.context.clone(), couple, after));
            rooms.by_account.extend(members.map(|member| (member, id)));
            drop(tokio::spawn(room.clone().run(self.clone())));
            rooms.by_couple.insert(id, room.clone());
            room
        });
        Registration::new(room, side)
    }
}

impl OpenRooms for Hub {
    fn remove(&self, room: &Room) {
        self.rooms().remove(room);
    }

    fn remove_if_empty(&self, room: &Room) -> bool {
        let mut rooms = self.rooms();
        let empty = room.state().is_empty();
        if empty {
            rooms.remove(room);
        }
        empty
    }
}

impl Live {
    /// Creates live delivery over these ports, for streams whose sessions `sessions` checks.
    #[must_use]
    pub fn new(ports: Ports, sessions: Arc<dyn SessionChecker>, options: LiveOptions) -> Self {
        let context = Arc::new(LiveContext::new(ports, sessions, options));
        let session_watch = Arc::new(SessionWatch::new(context.clone()));
        Self(Arc::new(Hub { context, rooms: Mutex::default(), session_watch }))
    }

    /// Options of this instance.
    #[must_use]
    pub fn options(&self) -> &LiveOptions {
        &self.0.context.options
    }

    /// Ends all streams, and all that are opened later.
    pub fn drain(&self) {
        self.0.context.drain();
        for room in self.0.rooms().by_couple.values() {
            room.notify_streams();
        }
    }

    /// Whether this process ends its streams.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.context.is_draining()
    }

    /// Waits for a permit to read, for callers that authenticate a client before [`open`](Self::open).
    ///
    /// Drop it before `open`. If there is more than one permit, this method leaves one for the rooms of open streams.
    pub async fn read_permit(&self) -> ReadPermit<'_> {
        self.0.context.arrival_permit().await
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
        if let Some(registration) = self.0.join_open_room(account)
            && let Ok(couple) = registration.room.request_read().await
        {
            return Ok(self.stream(registration, account, gate, &couple, after));
        }
        let (at, couple) = {
            let _permit = self.0.context.read_permit().await;
            self.0.context.timeline.membership(account).await?
        };
        let from = after.filter(|after| after.fits(&couple)).map_or(couple.head_seq, |after| after.seq);
        let registration = self.0.join_room(couple, at.side, from);
        match registration.room.request_read().await {
            Ok(couple) => Ok(self.stream(registration, account, gate, &couple, after)),
            Err(CloseReason::NotPaired) => Err(Failure::Refused(TimelineError::NotPaired)),
            Err(_) => Err(Failure::Failed(Error::new(ErrorKind::Unavailable, "follow a couple's log"))),
        }
    }

    /// Creates the stream of a registration, which begins at the client's cursor if that is known.
    fn stream(
        &self,
        registration: Registration,
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
        let at = Membership { account, couple: couple.id, epoch: couple.epoch, side: registration.side };
        let watched = gate.principal();
        let watched = watched.map(|principal| self.0.session_watch.follow(principal, &registration.room));
        Stream::new(registration, watched, gate, at, cursor, reset)
    }
}
