//! Activity of a connection: whether it waits for its client, and since when.
//!
//! It is one atomic word, so that a request updates it without a lock.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

/// Activity of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The connection waits for its client: for a request or the rest of a head.
    Request,
    /// A request is being answered.
    Busy,
    /// The connection waits for its client: for the rest of a body.
    Body,
    /// A response was passed to hyper for writing.
    Answered,
    /// The last response is written; bytes that the client still sends are discarded.
    Lingering,
    /// The connection was upgraded to another protocol.
    Upgraded,
    /// The connection is being closed.
    Evicted,
}

const PHASES: [Phase; 7] = [
    Phase::Request,
    Phase::Busy,
    Phase::Body,
    Phase::Answered,
    Phase::Lingering,
    Phase::Upgraded,
    Phase::Evicted,
];

/// Value of [`Activity::blocked`] while the client accepts bytes.
const NOT_BLOCKED: u64 = u64::MAX;

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Packs a phase and its start in milliseconds.
const fn pack(phase: Phase, since: u64) -> u64 {
    (since << 8) | phase as u64
}

const fn unpack(state: u64) -> (u64, u64) {
    (state & 0xff, state >> 8)
}

/// Activity of one connection, updated by the tasks that read and write it.
#[derive(Debug)]
pub(super) struct Activity {
    /// Address by which the connection is counted; none for a proxy.
    client: Option<IpAddr>,
    began: Instant,
    state: AtomicU64,
    /// Time since which the client has accepted no bytes, in milliseconds.
    blocked: AtomicU64,
    unread: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

impl Activity {
    /// Activity of a connection that begins to wait for a request at `now`, in milliseconds since `began`.
    pub(super) fn new(client: Option<IpAddr>, began: Instant, now: u64) -> Arc<Self> {
        Arc::new(Self {
            client,
            began,
            state: AtomicU64::new(pack(Phase::Request, now)),
            blocked: AtomicU64::new(NOT_BLOCKED),
            unread: AtomicBool::new(false),
            task: Mutex::default(),
        })
    }

    /// Address by which the connection is counted; none for a proxy.
    pub(super) const fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Moves to a phase from one of `from`. Returns whether it was in one of them.
    fn advance(&self, from: &[Phase], to: Phase) -> bool {
        let since = match to {
            Phase::Request | Phase::Lingering => self.now(),
            _ => 0,
        };
        self.advance_since(from, to, since)
    }

    fn advance_since(&self, from: &[Phase], to: Phase, since: u64) -> bool {
        let allowed = |state: u64| from.iter().any(|phase| *phase as u64 == unpack(state).0);
        let moved = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            allowed(state).then(|| pack(to, since))
        });
        moved.is_ok()
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// State, phase and start of a wait for the client; none if the connection does not wait for it.
    pub(super) fn waits(&self) -> Option<(u64, Phase, u64)> {
        let state = self.state.load(Ordering::Acquire);
        let (phase, since) = unpack(state);
        let phase = PHASES.into_iter().find(|known| *known as u64 == phase)?;
        match phase {
            Phase::Request | Phase::Body | Phase::Lingering => Some((state, phase, since)),
            Phase::Busy | Phase::Answered => {
                let since = self.blocked.load(Ordering::Acquire);
                (since != NOT_BLOCKED).then_some((state, phase, since))
            }
            Phase::Upgraded | Phase::Evicted => None,
        }
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        unpack(self.state.load(Ordering::Acquire)).0 == phase as u64
    }

    /// Records that a request arrived. False: the connection is being closed, and must not respond to it.
    pub(super) fn begin(&self) -> bool {
        self.advance(&[Phase::Request, Phase::Busy, Phase::Body, Phase::Answered], Phase::Busy)
    }

    /// Records that the connection waits for the rest of a body.
    ///
    /// The client is `late` already if it has sent fewer bytes than the minimum rate allows.
    pub(super) fn awaits_body(&self, late: Duration) {
        let since = self.now().saturating_sub(millis(late));
        self.advance_since(&[Phase::Busy], Phase::Body, since);
    }

    /// Records that the client accepts no bytes.
    ///
    /// It is `late` already if it has accepted fewer bytes than the minimum rate allows.
    pub(super) fn blocked(&self, late: Duration) {
        self.blocked.store(self.now().saturating_sub(millis(late)), Ordering::Release);
    }

    /// Records that the client accepts bytes.
    pub(super) fn unblocked(&self) {
        self.blocked.store(NOT_BLOCKED, Ordering::Release);
    }

    /// Records that the last response is written, and that further bytes of the client are discarded.
    ///
    /// False: the connection is being closed.
    pub(super) fn lingers(&self) -> bool {
        self.advance(&[Phase::Request, Phase::Busy, Phase::Body, Phase::Answered], Phase::Lingering)
    }

    /// Records that a part of a body arrived.
    pub(super) fn body_arrived(&self) {
        self.advance(&[Phase::Body], Phase::Busy);
    }

    /// Records that a response was passed to hyper for writing.
    pub(super) fn answered(&self) {
        self.advance(&[Phase::Busy, Phase::Body], Phase::Answered);
    }

    /// Records that the connection was upgraded to another protocol, which has its own limits.
    pub(super) fn upgraded(&self) {
        self.advance(&[Phase::Busy, Phase::Body], Phase::Upgraded);
        self.task().take();
    }

    /// Records that everything is written, and that the client has sent nothing that is not read.
    pub(super) fn idle(&self) {
        if self.is(Phase::Answered) {
            self.advance(&[Phase::Answered], Phase::Request);
        }
    }

    /// Records that the client may be sending bytes that will not be read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may be sending bytes that will not be read.
    pub(super) fn leaves_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether no request is being handled, and no response written.
    pub(super) fn has_no_request(&self) -> bool {
        self.is(Phase::Request)
    }

    /// Sets the task that serves the connection, so that it can be closed while it waits.
    pub(super) fn served_by(&self, task: AbortHandle) {
        let mut served_by = self.task();
        if self.is(Phase::Evicted) {
            task.abort();
        } else if !self.is(Phase::Upgraded) {
            *served_by = Some(task);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection, unless its activity has changed.
    pub(super) fn evict(&self, seen: u64) -> bool {
        let evicted = pack(Phase::Evicted, 0);
        if self.state.compare_exchange(seen, evicted, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        if let Some(task) = self.task().take() {
            task.abort();
        }
        true
    }
}
