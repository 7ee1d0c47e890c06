//! Bound on the messages of a client over a connection that goes both ways.

use std::time::Duration;

use tokio::time::Instant;

/// Time that one message takes of the allowance: 20 a second.
const INTERVAL: Duration = Duration::from_millis(50);
/// The whole allowance: 500 messages.
const ALLOWANCE: Duration = Duration::from_secs(25);

/// Token bucket for messages: 500 at a time and 20 a second, which is more than the limit on signals lets through.
///
/// A transport bounds the size of each message, so it bounds bytes, too.
#[derive(Debug)]
pub(super) struct MessageRate {
    /// When the whole allowance is available again.
    full_at: Instant,
}

impl MessageRate {
    pub(super) fn new() -> Self {
        Self { full_at: Instant::now() }
    }

    /// Takes messages from the allowance. False: they are more than are left.
    pub(super) fn allows(&mut self, messages: u32) -> bool {
        self.allows_at(messages, Instant::now())
    }

    fn allows_at(&mut self, messages: u32, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + INTERVAL.saturating_mul(messages);
        let allowed = full_at <= now + ALLOWANCE;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_at_a_time_and_in_the_long_run() {
        let mut rate = MessageRate::new();
        let now = rate.full_at;
        assert!(rate.allows_at(499, now) && rate.allows_at(1, now) && !rate.allows_at(1, now));
        let later = now + Duration::from_secs(1);
        assert!(!rate.allows_at(21, later) && rate.allows_at(20, later) && !rate.allows_at(1, later));
        let much_later = now + Duration::from_hours(1);
        assert!(!rate.allows_at(501, much_later) && rate.allows_at(500, much_later));
        assert!(!rate.allows_at(u32::MAX, much_later));
    }
}
