//! Circuit breaker of one mail server: after an outage mails wait, and one at a time probes whether the server is back.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Maximum time that a mail waits for the server in its job.
///
/// Short, so that a worker can end during an outage; afterwards the job returns to its queue.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Time until a job runs again that waited for the result of a probe.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// Consecutive temporary refusals of single mails that count as an outage: the server is overloaded rather than the mails unwanted.
const MAX_REFUSALS: u32 = 10;

/// Kind of an outage, which decides how often the server is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    /// The server is unreachable or asks to come back later.
    Temporary,
    /// The server refuses the client until an operator corrects something. Many servers block a client with many failed sign-ins.
    Permanent,
}

impl Outage {
    /// Time until the next probe after `outages` consecutive failures: doubled each time, up to a limit.
    fn delay(self, outages: u32) -> Duration {
        let (first, most) = match self {
            Self::Temporary => (Duration::from_secs(1), Duration::from_mins(1)),
            Self::Permanent => (Duration::from_secs(30), Duration::from_mins(5)),
        };
        first.saturating_mul(1 << outages.clamp(1, 16).saturating_sub(1)).min(most)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Consecutive outages. 0 means that the circuit is closed: every mail may be sent.
    outages: u32,
    /// Consecutive temporary refusals of single mails.
    refusals: u32,
    /// Time of the next probe while the circuit is open.
    next_probe: Option<Instant>,
    is_probing: bool,
}

impl State {
    /// Time until the next probe; zero while the circuit is closed.
    fn remaining(&self) -> Duration {
        self.next_probe.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }
}

/// Circuit breaker that senders ask before they use a connection, and to which they report.
///
/// It opens at the first outage, and closes with the next mail or refusal of a single mail, because both show that the server works.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker(watch::Sender<State>);

/// Permission to use the server once. Dropped without a report, it leaves a probe to the next sender.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    /// Number of outages when the permit was given: an outage that others have reported since then is the same one.
    outages: u32,
    is_probe: bool,
}

impl CircuitBreaker {
    /// Waits up to [`MAX_WAIT`] for a permit. The error is the time after which the sender should ask again.
    pub(super) async fn permit(&self) -> Result<Permit<'_>, Duration> {
        let deadline = Instant::now() + MAX_WAIT;
        let mut changes = self.0.subscribe();
        loop {
            let mut permit = None;
            let mut wake_at = deadline;
            self.0.send_if_modified(|state| {
                match state.next_probe {
                    None => permit = Some((state.outages, false)),
                    Some(at) if at <= Instant::now() && !state.is_probing => {
                        state.is_probing = true;
                        permit = Some((state.outages, true));
                    }
                    Some(at) if !state.is_probing => wake_at = at.min(deadline),
                    Some(_) => {}
                }
                false
            });
            if let Some((outages, is_probe)) = permit {
                return Ok(Permit { breaker: self, outages, is_probe });
            }
            if Instant::now() >= deadline {
                let state = self.0.borrow();
                return Err(if state.is_probing { PROBE_WAIT } else { state.remaining() });
            }
            // An error means that the time has come; the sender of changes is `self`.
            let _ = timeout_at(wake_at, changes.changed()).await;
        }
    }
}

impl Permit<'_> {
    /// Reports that the server has accepted the mail or refused it finally.
    pub(super) fn worked(mut self) {
        self.close(0);
    }

    /// Reports that the server has temporarily refused the mail, as it does with a mailbox that is full.
    pub(super) fn refused(mut self) {
        let refusals = self.breaker.0.borrow().refusals + 1;
        if refusals < MAX_REFUSALS {
            self.close(refusals);
        } else {
            self.failed(Outage::Temporary);
        }
    }

    /// Reports an outage. Returns the time until the next probe, and whether this is a new outage and not one that others have reported.
    pub(super) fn failed(mut self, outage: Outage) -> (Duration, bool) {
        let (mut remaining, mut is_new) = (Duration::ZERO, false);
        let (known, is_probe) = (self.outages, std::mem::take(&mut self.is_probe));
        self.breaker.0.send_modify(|state| {
            is_new = state.outages == known;
            if is_new {
                state.outages = state.outages.saturating_add(1);
                state.refusals = 0;
                state.next_probe = Some(Instant::now() + outage.delay(state.outages));
            }
            if is_probe {
                state.is_probing = false;
            }
            remaining = state.remaining();
        });
        (remaining, is_new)
    }

    fn close(&mut self, refusals: u32) {
        self.is_probe = false;
        self.breaker.0.send_modify(|state| {
            if state.next_probe.is_some() {
                tracing::info!("the mail server works again");
            }
            *state = State { refusals, ..State::default() };
        });
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.0.send_modify(|state| state.is_probing = false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{task::JoinSet, time::advance};

    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn delay_doubles_up_to_the_limit_of_the_outage() {
        let delays = |outage: Outage| [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|n| outage.delay(n).as_secs());
        assert_eq!(delays(Outage::Temporary), [1, 1, 2, 4, 32, 60, 60, 60]);
        assert_eq!(delays(Outage::Permanent), [30, 30, 60, 120, 300, 300, 300, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn outage_is_reported_once_and_lasts_until_the_next_probe() {
        let breaker = CircuitBreaker::default();
        let (one, two) = (breaker.permit().await.unwrap(), breaker.permit().await.unwrap());
        assert_eq!(one.failed(Outage::Permanent), (seconds(30), true));
        assert_eq!(two.failed(Outage::Permanent), (seconds(30), false), "the same outage");
        let started = Instant::now();
        assert_eq!(breaker.permit().await.err(), Some(seconds(25)));
        assert_eq!(started.elapsed(), MAX_WAIT);
        advance(seconds(21)).await;
        assert_eq!(breaker.permit().await.unwrap().failed(Outage::Permanent), (seconds(60), true));
        assert_eq!(started.elapsed(), seconds(30));
    }

    #[tokio::test(start_paused = true)]
    async fn one_mail_at_a_time_probes_and_success_releases_all_that_wait() {
        let (breaker, together) = (Arc::new(CircuitBreaker::default()), Arc::new(AtomicUsize::new(0)));
        breaker.permit().await.unwrap().failed(Outage::Temporary);
        let probe = {
            let permit = breaker.permit().await.unwrap();
            assert!(permit.is_probe);
            permit
        };
        let mut waiting = JoinSet::new();
        for _ in 0..8 {
            let (breaker, together) = (breaker.clone(), together.clone());
            waiting.spawn(async move {
                let permit = breaker.permit().await.unwrap();
                together.fetch_add(1, Ordering::SeqCst);
                permit.worked();
            });
        }
        tokio::time::sleep(seconds(4)).await;
        assert_eq!(together.load(Ordering::SeqCst), 0, "a second mail is sent beside the probe");
        probe.worked();
        waiting.join_all().await;
        assert_eq!(together.load(Ordering::SeqCst), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_probe_is_left_to_the_next_mail() {
        let breaker = CircuitBreaker::default();
        breaker.permit().await.unwrap().failed(Outage::Temporary);
        drop(breaker.permit().await.unwrap());
        let probe = breaker.permit().await.unwrap();
        assert_eq!(breaker.permit().await.err(), Some(PROBE_WAIT));
        assert_eq!(probe.failed(Outage::Temporary), (seconds(2), true), "the second outage in a row");
    }

    #[tokio::test(start_paused = true)]
    async fn many_temporary_refusals_in_a_row_are_an_outage() {
        let breaker = CircuitBreaker::default();
        for _ in 1..MAX_REFUSALS {
            breaker.permit().await.unwrap().refused();
        }
        breaker.permit().await.unwrap().worked();
        let started = Instant::now();
        for _ in 0..MAX_REFUSALS {
            breaker.permit().await.unwrap().refused();
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "an accepted mail did not end the row");
        breaker.permit().await.unwrap().worked();
        assert_eq!(started.elapsed(), seconds(1));
    }
}
