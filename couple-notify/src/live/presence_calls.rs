//! Calls of the presence port for the members of a couple.
//!
//! They run beside the room's task, one at a time, because entries must not wait for them: the server of an adapter may not respond.

use std::{sync::Arc, time::Duration};

use couple_core::{
    live::{Notice, Topic},
    pairing::Side,
};
use tokio::time::{Instant, sleep, timeout};

use super::room::Room;

/// Lease of a member's presence, renewed while a connection is open.
///
/// It expires only if the process stops; otherwise the process shortens it after [`RELEASE_DELAY`].
const PRESENCE_LEASE: Duration = Duration::from_secs(60);
/// Time from the end of a member's last connection in this process until its lease is shortened to [`RELEASED_LEASE`].
///
/// Longer than the time between two polls, and than a reconnect takes.
pub(super) const RELEASE_DELAY: Duration = Duration::from_secs(3);
/// Time in which another process where the member is connected renews the lease.
const RELEASED_LEASE: Duration = Duration::from_secs(2);
/// Interval at which a lease is renewed.
pub(super) const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(25);
/// Time limit of a call, after which it counts as failed.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Call of the presence port.
#[derive(Debug, Clone, Copy)]
pub(super) enum PresenceCall {
    Renew,
    Release,
    Query,
}

/// Call in progress, even if it panics; its end wakes the room's task.
struct CallInProgress(Arc<Room>);

impl Drop for CallInProgress {
    fn drop(&mut self) {
        self.0.state().calling_presence = false;
        self.0.task_wakeup.notify_one();
    }
}

impl Room {
    /// Starts a call. The room's state has `calling_presence` set, which the end of the call resets.
    pub(super) fn start_presence_call(self: &Arc<Self>, call: PresenceCall, side: Side) {
        let call_in_progress = CallInProgress(self.clone());
        drop(tokio::spawn(async move {
            let room = &call_in_progress.0;
            match call {
                PresenceCall::Renew => room.renew_presence(side).await,
                PresenceCall::Release => room.release_presence(side).await,
                PresenceCall::Query => room.query_presence(side).await,
            }
        }));
    }

    /// Shortens the leases of members whose streams ended because the room could not read, as after the end of a last stream.
    ///
    /// A member who reconnects meanwhile joins a new room, which renews the lease at the notice.
    pub(super) async fn release_presence_after_failure(&self) {
        let mut announced = vec![Side::First, Side::Second];
        {
            let state = self.state();
            announced.retain(|side| {
                let presence = &state.sides[side.index()];
                presence.announcing > 0 || presence.release_at.is_some()
            });
        }
        if announced.is_empty() {
            return;
        }
        sleep(RELEASE_DELAY).await;
        while self.state().calling_presence {
            self.task_wakeup.notified().await;
        }
        for side in announced {
            self.release_presence(side).await;
        }
    }

    /// Renews a member's presence. Failures are ignored: presence is not essential.
    async fn renew_presence(&self, side: Side) {
        let (ports, account) = (&self.context.ports, self.state().couple.member(side));
        let renewed = timeout(CALL_TIMEOUT, ports.presence.renew(account, PRESENCE_LEASE)).await;
        if matches!(renewed, Ok(Ok(true))) {
            ports.bus.publish(Topic::Couple(self.id), Notice::Here(side)).await;
        }
    }

    /// Shortens a member's lease: the member has no connection in this process any more, but may have one in another.
    async fn release_presence(&self, side: Side) {
        let (ports, account) = (&self.context.ports, self.state().couple.member(side));
        let shortened = timeout(CALL_TIMEOUT, ports.presence.shorten(account, RELEASED_LEASE)).await;
        if matches!(shortened, Ok(Ok(()))) {
            ports.bus.publish(Topic::Couple(self.id), Notice::Left(side)).await;
        }
    }

    /// Queries a member's presence, and schedules the next query for when it may have changed.
    async fn query_presence(&self, side: Side) {
        let account = self.state().couple.member(side);
        let left = timeout(CALL_TIMEOUT, self.context.ports.presence.left(account)).await;
        let mut state = self.state();
        let presence = &mut state.sides[side.index()];
        let now = Instant::now();
        let left = match left {
            Ok(Ok(left)) => {
                presence.left_at = left.map(|left| now + left);
                left
            }
            // On failure the last known lease stays valid.
            Ok(Err(_)) | Err(_) => presence.left_at.and_then(|at| at.checked_duration_since(now)),
        };
        let again = left.map_or(LEASE_RENEW_INTERVAL, |left| {
            (left + Duration::from_millis(50)).min(LEASE_RENEW_INTERVAL)
        });
        // A notice that arrived meanwhile has scheduled an earlier query.
        presence.query_at = presence.query_at.or(Some(now + again));
        if presence.here.replace(left.is_some()) != Some(left.is_some()) {
            drop(state);
            self.notify_streams();
        }
    }
}
