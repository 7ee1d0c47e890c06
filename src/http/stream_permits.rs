//! Permits of live connections, in total and per account.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use couple_core::{AccountId, SessionId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{ApiResult, Problem};

/// Identifies a poll: its session, and the name of its tab or device.
type PollKey = (SessionId, Option<String>);

/// Limits of live connections, in total and per account.
#[derive(Debug)]
pub(super) struct StreamPermits {
    open: Mutex<OpenStreams>,
    all: Arc<Semaphore>,
    max: usize,
    per_account: usize,
}

#[derive(Debug, Default)]
struct OpenStreams {
    by_account: HashMap<AccountId, usize>,
    polls: HashMap<PollKey, Arc<Notify>>,
}

impl StreamPermits {
    pub(super) fn new(max: usize, per_account: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(max));
        Arc::new(Self { open: Mutex::default(), all, max, per_account })
    }

    /// Number of live connections.
    pub(super) fn count(&self) -> usize {
        self.max - self.all.available_permits()
    }

    fn open(&self) -> MutexGuard<'_, OpenStreams> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(self: &Arc<Self>, account: AccountId) -> ApiResult<StreamPermit> {
        self.take_with_ending(account, 0)
    }

    /// Takes a permit for an account that has `ending` connections about to end.
    fn take_with_ending(self: &Arc<Self>, account: AccountId, ending: usize) -> ApiResult<StreamPermit> {
        let Ok(permit) = self.all.clone().try_acquire_owned() else {
            return Err(Problem::new("overloaded"));
        };
        let mut open = self.open();
        let count = open.by_account.entry(account).or_default();
        if *count >= ending + self.per_account {
            return Err(Problem::new("too_many_streams"));
        }
        *count += 1;
        drop(open);
        Ok(StreamPermit { streams: self.clone(), account, _permit: permit })
    }

    /// Takes a permit for a poll, which supersedes an older poll of the same device.
    pub(super) fn take_poll(
        self: &Arc<Self>,
        account: AccountId,
        session: SessionId,
        device: Option<String>,
    ) -> ApiResult<Poll> {
        let (poller, newer) = ((session, device), Arc::new(Notify::new()));
        let older = self.open().polls.insert(poller.clone(), newer.clone());
        if let Some(older) = &older {
            older.notify_one();
        }
        let ticket = Ticket { streams: self.clone(), poller, newer };
        let permit = self.take_with_ending(account, usize::from(older.is_some()))?;
        Ok(Poll { ticket, _permit: permit })
    }
}

/// Permit of one live connection; returned when dropped.
#[derive(Debug)]
pub(super) struct StreamPermit {
    streams: Arc<StreamPermits>,
    account: AccountId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if let Some(count) = open.by_account.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                open.by_account.remove(&self.account);
            }
        }
    }
}

/// Permit of a poll.
#[derive(Debug)]
pub(super) struct Poll {
    ticket: Ticket,
    _permit: StreamPermit,
}

impl Poll {
    /// Completes when a newer poll of the same device supersedes this one.
    pub(super) async fn superseded(&self) {
        self.ticket.newer.notified().await;
    }
}

#[derive(Debug)]
struct Ticket {
    streams: Arc<StreamPermits>,
    poller: PollKey,
    newer: Arc<Notify>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        if open.polls.get(&self.poller).is_some_and(|newest| Arc::ptr_eq(newest, &self.newer)) {
            open.polls.remove(&self.poller);
        }
    }
}

#[cfg(test)]
mod tests {
    use couple_core::{ManualClock, SeededEntropy};

    use super::*;

    fn accounts() -> [AccountId; 3] {
        let (clock, entropy) = (ManualClock::default(), SeededEntropy::new(1));
        [(); 3].map(|()| AccountId::new(&clock, &entropy))
    }

    fn code<T>(taken: ApiResult<T>) -> String {
        taken.map(drop).unwrap_err().code().to_owned()
    }

    #[test]
    fn permits_are_counted_per_account_and_in_total_and_returned() {
        let ([ana, ben, cleo], permits) = (accounts(), StreamPermits::new(3, 2));
        let (first, second) = (permits.take(ana).unwrap(), permits.take(ana).unwrap());
        assert_eq!(code(permits.take(ana)), "too_many_streams");
        assert_eq!(permits.count(), 2, "a refusal takes no permit");
        let other = permits.take(ben).unwrap();
        assert_eq!((code(permits.take(cleo)), permits.count()), ("overloaded".to_owned(), 3));
        drop(first);
        let again = permits.take(ana).unwrap();
        drop(again);
        let third = permits.take(cleo).unwrap();
        drop((second, other, third));
        assert!(permits.open().by_account.is_empty(), "an account without a connection takes no memory");
        assert_eq!(permits.count(), 0);
    }

    #[tokio::test]
    async fn newer_poll_of_a_device_supersedes_the_older_and_needs_no_second_permit() {
        let ([ana, ..], permits) = (accounts(), StreamPermits::new(9, 1));
        let session = SessionId::new(&ManualClock::default(), &SeededEntropy::new(2));
        let poll = |device: &str| permits.take_poll(ana, session, Some(device.to_owned()));
        let older = poll("phone").unwrap();
        assert_eq!(code(poll("tablet")), "too_many_streams");
        let newer = poll("phone").unwrap();
        assert_eq!(permits.count(), 2);
        older.superseded().await;
        drop(older);
        assert!(permits.open().polls.contains_key(&(session, Some("phone".to_owned()))), "the newer one");
        let is_superseded = tokio::time::timeout(std::time::Duration::from_millis(20), newer.superseded());
        assert!(is_superseded.await.is_err(), "nothing is newer");
        drop(newer);
        let left = permits.open();
        assert!(left.polls.is_empty() && left.by_account.is_empty());
    }
}
