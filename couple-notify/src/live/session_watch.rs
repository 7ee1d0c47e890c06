//! Watch for ended sessions whose notice was lost.
//!
//! A notice tells a process that a session has ended, but may be lost. So while sessions are followed here, one task asks their
//! [`SessionChecker`](couple_core::live::SessionChecker) every
//! [`LiveOptions::with_session_check_interval`](super::LiveOptions::with_session_check_interval) which of
//! them have ended. It runs one check at a time, however many streams there are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use couple_core::{Digest, Error, ErrorKind, Principal, SessionId};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{context::LiveContext, room::Room};

/// Maximum number of sessions per check, so that other reads can run in between.
const MAX_SESSIONS_PER_CHECK: usize = 512;

/// Minimum interval between two checks.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Session of a principal. Its expiry does not count: it may differ by request.
type SessionKey = (SessionId, Option<Digest>);

fn key(principal: &Principal) -> SessionKey {
    (principal.session_id(), principal.token().copied())
}

/// Sessions that are followed in this process.
#[derive(Debug)]
pub(super) struct SessionWatch {
    context: Arc<LiveContext>,
    state: Mutex<WatchState>,
}

#[derive(Debug, Default)]
struct WatchState {
    sessions: HashMap<SessionKey, Followed>,
    running: bool,
}

#[derive(Debug)]
struct Followed {
    streams: usize,
    /// Principal with the latest expiry.
    principal: Principal,
    room: Arc<Room>,
    /// Whether its room was notified of the end.
    ended: bool,
}

impl SessionWatch {
    pub(super) fn new(context: Arc<LiveContext>) -> Self {
        Self { context, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a stream of a session, and starts the task if it is not running.
    pub(super) fn follow(self: &Arc<Self>, principal: Principal, room: &Arc<Room>) -> WatchedSession {
        let mut state = self.state();
        let key = key(&principal);
        let followed = state.sessions.entry(key).or_insert_with(|| Followed {
            streams: 0,
            principal: principal.clone(),
            room: room.clone(),
            ended: false,
        });
        followed.streams += 1;
        if principal.expires_at().is_none_or(|at| followed.principal.has_expired(at)) {
            followed.principal = principal;
        }
        // The session was valid for the new stream.
        followed.ended = false;
        // Keep the newer of two rooms: the account has left the other one.
        followed.room = room.clone();
        if !std::mem::replace(&mut state.running, true) {
            drop(tokio::spawn(supervise(self.clone())));
        }
        WatchedSession { watch: self.clone(), key }
    }

    /// Sessions to check. None: no session is followed, and the task ends.
    fn open(&self) -> Option<Vec<Principal>> {
        let mut state = self.state();
        state.running = !state.sessions.is_empty();
        let open = state.sessions.values().filter(|followed| !followed.ended);
        let open = open.map(|followed| followed.principal.clone()).collect();
        state.running.then_some(open)
    }

    /// Rooms of checked sessions that are not valid.
    fn end_others(&self, checked: &[Principal], valid: &[bool]) -> Vec<Arc<Room>> {
        let mut state = self.state();
        let mut rooms = Vec::new();
        for (principal, _) in checked.iter().zip(valid).filter(|(_, valid)| !**valid) {
            if let Some(followed) = state.sessions.get_mut(&key(principal)) {
                followed.ended = true;
                rooms.push(followed.room.clone());
            }
        }
        rooms
    }
}

/// Registration of a stream whose session is watched; removed when dropped.
#[derive(Debug)]
pub(super) struct WatchedSession {
    watch: Arc<SessionWatch>,
    key: SessionKey,
}

impl Drop for WatchedSession {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        if let Some(followed) = state.sessions.get_mut(&self.key) {
            followed.streams -= 1;
            if followed.streams == 0 {
                state.sessions.remove(&self.key);
            }
        }
    }
}

/// Runs the task, and starts it again when it panics: else no later stream would start it.
async fn supervise(watch: Arc<SessionWatch>) {
    loop {
        // A `JoinSet` aborts its task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(run(watch.clone()));
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(%error, "the watch for ended sessions panicked and is started again");
            }
            _ => return,
        }
    }
}

async fn run(watch: Arc<SessionWatch>) {
    let interval = watch.context.options.session_check_interval.max(MIN_CHECK_INTERVAL);
    let mut round = interval_at(Instant::now() + interval, interval);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let Some(open) = watch.open() else { return };
        for checked in open.chunks(MAX_SESSIONS_PER_CHECK) {
            let valid = {
                let sessions = &watch.context.sessions;
                // A check by the host has no permit, so that a slow one does not delay reads of the store.
                let _permit = match sessions.reads_store() {
                    true => Some(watch.context.read_permit().await),
                    false => None,
                };
                sessions.still_valid(checked).await
            };
            let valid = valid.and_then(|valid| match valid.len() == checked.len() {
                true => Ok(valid),
                false => Err(Error::new(ErrorKind::Internal, "check sessions")
                    .context("the result must have one value for each session")),
            });
            match valid {
                Ok(valid) => {
                    for room in watch.end_others(checked, &valid) {
                        room.check_all();
                    }
                }
                // The next round asks again.
                Err(error) => tracing::warn!(%error, "cannot check which followed sessions have ended"),
            }
        }
    }
}
