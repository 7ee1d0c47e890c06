//! Rate limit of a client's messages over a bidirectional connection.

use std::time::Duration;

use tokio::time::Instant;

/// Time in which one message is added to the allowance: 20 per second.
const INTERVAL: Duration = Duration::from_millis(50);
/// Time in which the full allowance of 500 messages is added.
const ALLOWANCE: Duration = Duration::from_secs(25);

/// Token bucket for messages: a burst of 500, and 20 per second.
///
/// That is more than the rate limit on signals allows.
///
/// A transport limits the size of each message, so bytes are limited, too.
#[derive(Debug)]
pub(super) struct MessageRate {
    /// Time at which the full allowance is available again.
    full_at: Instant,
}

impl MessageRate {
    pub(super) fn new() -> Self {
        Self { full_at: Instant::now() }
    }

    /// Takes messages from the allowance. False: the allowance is too small.
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
    fn messages_are_limited_in_bursts_and_over_time() {
        let mut rate = MessageRate::new();
        let now = rate.full_at;
        assert!(rate.allows_at(499, now) && rate.allows_at(1, now) && !rate.allows_at(1, now));
        let later = now + Duration::from_secs(1);
        assert!(!rate.allows_at(21, later) && rate.allows_at(20, later) && !rate.allows_at(1, later));
        let much_later = now + Duration::from_hours(1);
        assert!(!rate.allows_at(501, much_later) && rate.allows_at(500, much_later));
        assert!(!rate.allows_at(u32::MAX, much_later));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_allowed_by_the_time_that_has_passed() {
        let mut rate = MessageRate::new();
        assert!(rate.allows(500) && !rate.allows(1));
        tokio::time::advance(INTERVAL).await;
        assert!(rate.allows(1) && !rate.allows(1));
    }
}
