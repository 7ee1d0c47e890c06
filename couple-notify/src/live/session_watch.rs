//! Watch for ended sessions, in case a notice is lost.
//!
//! A notice tells a process that a session has ended, and may be lost. So while a session is followed here, one task asks the store every
//! [`LiveOptions::session_check`](super::LiveOptions::session_check) which of the followed sessions have ended. However many streams
//! there are, it runs one statement at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use couple_core::Digest;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{hub::Hub, room::Room};

/// Sessions that the store is asked about in one read, so that other reads have their turn between.
const SESSIONS_AT_ONCE: usize = 512;

/// Sessions that are followed in this process, by the digests of their bearer tokens.
#[derive(Debug, Default)]
pub(super) struct SessionWatch(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Digest, Followed>,
    running: bool,
}

#[derive(Debug)]
struct Followed {
    streams: usize,
    room: Arc<Room>,
    /// Whether its room was notified of the end.
    ended: bool,
}

impl SessionWatch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a stream, and starts the task if it does not run.
    pub(super) fn follow(hub: &Arc<Hub>, token: Digest, room: &Arc<Room>) -> Watched {
        let mut state = hub.session_watch.state();
        let followed = state.sessions.entry(token).or_insert_with(|| Followed {
            streams: 0,
            room: room.clone(),
            ended: false,
        });
        followed.streams += 1;
        // Keep the newer of two rooms: the account has left the other one.
        followed.room = room.clone();
        if !std::mem::replace(&mut state.running, true) {
            drop(tokio::spawn(run(hub.clone())));
        }
        Watched { hub: hub.clone(), token }
    }

    /// The sessions to check. None: no session is followed, and the task ends.
    fn open(&self) -> Option<Vec<Digest>> {
        let mut state = self.state();
        state.running = !state.sessions.is_empty();
        let open = state.sessions.iter().filter(|(_, followed)| !followed.ended);
        let open = open.map(|(token, _)| *token).collect();
        state.running.then_some(open)
    }

    /// The rooms of sessions that were checked and are not `present`.
    fn end_others(&self, asked: &[Digest], present: &[Digest]) -> Vec<Arc<Room>> {
        let present: std::collections::HashSet<_> = present.iter().collect();
        let mut state = self.state();
        let mut rooms = Vec::new();
        for token in asked.iter().filter(|token| !present.contains(token)) {
            if let Some(followed) = state.sessions.get_mut(token) {
                followed.ended = true;
                rooms.push(followed.room.clone());
            }
        }
        rooms
    }
}

/// A stream of a watched session; removed when dropped.
#[derive(Debug)]
pub(super) struct Watched {
    hub: Arc<Hub>,
    token: Digest,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut state = self.hub.session_watch.state();
        if let Some(followed) = state.sessions.get_mut(&self.token) {
            followed.streams -= 1;
            if followed.streams == 0 {
                state.sessions.remove(&self.token);
            }
        }
    }
}

async fn run(hub: Arc<Hub>) {
    let every = hub.session_check();
    let mut round = interval_at(Instant::now() + every, every);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        let Some(open) = hub.session_watch.open() else { return };
        for asked in open.chunks(SESSIONS_AT_ONCE) {
            let present = {
                let _turn = hub.turn().await;
                hub.ports.store.present_sessions(asked).await
            };
            match present {
                Ok(present) => {
                    for room in hub.session_watch.end_others(asked, &present) {
                        room.check_all();
                    }
                }
                // Asked again at the next round.
                Err(error) => tracing::warn!(%error, "cannot tell which followed sessions have ended"),
            }
        }
    }
}
