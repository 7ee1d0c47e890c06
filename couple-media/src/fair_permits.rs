//! A semaphore whose permits are shared fairly between keys, such as accounts or couples.
//!
//! Each key has its own FIFO queue. A permit that becomes free goes to the next key in turn (round robin), so a key that asks
//! for many permits delays only its own requests.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// Limits of [`FairPermits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FairLimits {
    /// Total number of permits.
    pub total: usize,
    /// Maximum number of permits of one key.
    pub per_key: usize,
    /// Permits that are reserved for keys without one.
    ///
    /// While no more than these are free, a key holds at most one.
    pub reserved: usize,
    /// Maximum number of waiting requests in total.
    pub waiting: usize,
    /// Maximum number of waiting requests of one key.
    pub waiting_per_key: usize,
}

/// Reason for a denied permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The key itself holds permits, or has as many requests in its queue as are allowed.
    #[error("too many concurrent requests of the same key")]
    OwnLimit,
    /// Other keys hold all permits, or the queue is full in total.
    #[error("too many concurrent requests in total")]
    Full,
}

/// Permits that are shared fairly between keys. Cheap to clone.
pub struct FairPermits<K: Eq + Hash + Clone>(Arc<Shared<K>>);

impl<K: Eq + Hash + Clone> Clone for FairPermits<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<K: Eq + Hash + Clone> {
    limits: FairLimits,
    state: Mutex<State<K>>,
}

struct State<K: Eq + Hash + Clone> {
    held: usize,
    hold_times: HoldTimes,
    waiting: usize,
    next_waiter: u64,
    keys: HashMap<K, KeyState<K>>,
    /// Keys with waiting requests, in round-robin order.
    turns: VecDeque<K>,
}

/// Durations for which permits are held: averages of returned and of held ones.
struct HoldTimes {
    began: Instant,
    /// Sum of the times since `began` at which the held permits were taken.
    taken: Duration,
    /// Exponential moving average of the durations of returned permits.
    average: Option<Duration>,
}

impl HoldTimes {
    /// Inverse of the newest permit's weight in the average.
    const WEIGHT: u32 = 8;

    fn take(&mut self) -> Instant {
        let now = Instant::now();
        self.taken += now - self.began;
        now
    }

    fn put_back(&mut self, taken: Instant) {
        self.taken = self.taken.saturating_sub(taken - self.began);
        let held = taken.elapsed();
        self.average = Some(match self.average {
            Some(average) => average - average / Self::WEIGHT + held / Self::WEIGHT,
            None => held,
        });
    }

    /// Expected duration for which a permit is held. `held`: number of permits that are held now.
    fn expected(&self, held: usize) -> Duration {
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        let so_far = match held {
            0 => Duration::ZERO,
            _ => self.began.elapsed().saturating_sub(self.taken / held),
        };
        self.average.unwrap_or_default().max(so_far)
    }
}

struct KeyState<K: Eq + Hash + Clone> {
    held: usize,
    queue: VecDeque<Waiter<K>>,
}

struct Waiter<K: Eq + Hash + Clone> {
    number: u64,
    grant: oneshot::Sender<FairPermit<K>>,
}

/// A permit; returned when dropped.
pub struct FairPermit<K: Eq + Hash + Clone> {
    shared: Arc<Shared<K>>,
    key: K,
    taken: Instant,
}

impl<K: Eq + Hash + Clone> fmt::Debug for FairPermits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairPermits").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone> fmt::Debug for FairPermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairPermit").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone> FairPermits<K> {
    /// Creates permits with these limits; at least one permit in total and per key.
    #[must_use]
    pub fn new(limits: FairLimits) -> Self {
        let limits = FairLimits { total: limits.total.max(1), per_key: limits.per_key.max(1), ..limits };
        let hold_times = HoldTimes { began: Instant::now(), taken: Duration::ZERO, average: None };
        let state = State {
            held: 0,
            hold_times,
            waiting: 0,
            next_waiter: 0,
            keys: HashMap::new(),
            turns: VecDeque::new(),
        };
        Self(Arc::new(Shared { limits, state: Mutex::new(state) }))
    }

    /// Limits of these permits.
    #[must_use]
    pub fn limits(&self) -> FairLimits {
        self.0.limits
    }

    /// Number of permits that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.lock().held
    }

    /// Estimated time until another request of a key gets a permit.
    ///
    /// It depends on the queues and on the durations for which permits are held.
    #[must_use]
    pub fn expected_wait(&self, key: &K) -> Duration {
        let state = self.0.lock();
        let held_for = state.hold_times.expected(state.held);
        let (own, queued) = state.keys.get(key).map_or((0, 0), |of| (of.held, of.queue.len()));
        // This key gets the permits that it holds itself, or its turns among the waiting keys.
        let turns = state.turns.len() + usize::from(queued == 0);
        let in_turn = ((queued + 1) * turns).div_ceil(self.0.limits.total);
        let behind_own = (queued + 1).checked_div(own).unwrap_or(0);
        held_for.saturating_mul(u32::try_from(in_turn.max(behind_own)).unwrap_or(u32::MAX))
    }

    /// Takes a permit; waits for it at most `deadline`, or without limit if that is none.
    ///
    /// # Errors
    /// [`Denied`]: the queue is full, or the deadline passed.
    pub async fn acquire(&self, key: K, deadline: Option<Duration>) -> Result<FairPermit<K>, Denied> {
        let (number, granted) = {
            let shared = &self.0;
            let mut state = shared.lock();
            if state.may_take(&key, &shared.limits) {
                let taken = state.take(&key);
                return Ok(FairPermit { shared: shared.clone(), key, taken });
            }
            let queued = state.keys.get(&key).map_or(0, |of| of.queue.len());
            if queued >= shared.limits.waiting_per_key {
                return Err(Denied::OwnLimit);
            }
            if state.waiting >= shared.limits.waiting {
                return Err(Denied::Full);
            }
            state.enqueue(&key)
        };
        let queued = Queued { shared: &self.0, key: &key, number };
        let granted = match deadline {
            Some(deadline) => timeout(deadline, granted).await.ok().and_then(Result::ok),
            None => granted.await.ok(),
        };
        drop(queued);
        granted.ok_or_else(|| match self.0.lock().keys.get(&key) {
            Some(of) if of.held > 0 => Denied::OwnLimit,
            _ => Denied::Full,
        })
    }
}

/// A waiting request; leaves the queue when dropped.
struct Queued<'a, K: Eq + Hash + Clone> {
    shared: &'a Shared<K>,
    key: &'a K,
    number: u64,
}

impl<K: Eq + Hash + Clone> Drop for Queued<'_, K> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(of) = state.keys.get_mut(self.key) else { return };
        let before = of.queue.len();
        of.queue.retain(|waiter| waiter.number != self.number);
        let left = before - of.queue.len();
        state.waiting -= left;
        state.remove_if_unused(self.key);
    }
}

impl<K: Eq + Hash + Clone> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> State<K> {
    fn may_take(&self, key: &K, limits: &FairLimits) -> bool {
        let free = limits.total - self.held;
        let held = self.keys.get(key).map_or(0, |of| of.held);
        let most = if free <= limits.reserved { 1 } else { limits.per_key };
        free > 0 && held < most
    }

    fn take(&mut self, key: &K) -> Instant {
        self.held += 1;
        self.keys.entry(key.clone()).or_insert_with(|| KeyState { held: 0, queue: VecDeque::new() }).held +=
            1;
        self.hold_times.take()
    }

    fn enqueue(&mut self, key: &K) -> (u64, oneshot::Receiver<FairPermit<K>>) {
        let (grant, granted) = oneshot::channel();
        let number = self.next_waiter;
        self.next_waiter += 1;
        self.waiting += 1;
        let of = self.keys.entry(key.clone()).or_insert_with(|| KeyState { held: 0, queue: VecDeque::new() });
        if of.queue.is_empty() {
            self.turns.push_back(key.clone());
        }
        of.queue.push_back(Waiter { number, grant });
        (number, granted)
    }

    /// Removes the state of a key that holds nothing and waits for nothing.
    fn remove_if_unused(&mut self, key: &K) {
        let Some(of) = self.keys.get(key).filter(|of| of.queue.is_empty()) else { return };
        if of.held == 0 {
            self.keys.remove(key);
        }
        self.turns.retain(|other| other != key);
    }

    /// Grants free permits to waiting requests, in round-robin order.
    fn grant(&mut self, limits: &FairLimits) -> Vec<(K, Instant, Waiter<K>)> {
        let mut granted = Vec::new();
        let mut skipped = 0;
        while skipped < self.turns.len()
            && let Some(key) = self.turns.pop_front()
        {
            let may = self.may_take(&key, limits);
            let waiter = self.keys.get_mut(&key).filter(|_| may).and_then(|of| of.queue.pop_front());
            if let Some(waiter) = waiter {
                self.waiting -= 1;
                let taken = self.take(&key);
                granted.push((key.clone(), taken, waiter));
                skipped = 0;
            } else {
                skipped += 1;
            }
            if self.keys.get(&key).is_some_and(|of| !of.queue.is_empty()) {
                self.turns.push_back(key);
            }
        }
        granted
    }
}

impl<K: Eq + Hash + Clone> Drop for FairPermit<K> {
    fn drop(&mut self) {
        let Self { shared, key, taken } = self;
        let granted = {
            let mut state = shared.lock();
            state.held -= 1;
            state.hold_times.put_back(*taken);
            if let Some(of) = state.keys.get_mut(key) {
                of.held -= 1;
            }
            state.remove_if_unused(key);
            state.grant(&shared.limits)
        };
        // Sent without the lock: a permit whose request was dropped is dropped here, which takes the lock again.
        for (key, taken, waiter) in granted {
            drop(waiter.grant.send(FairPermit { shared: shared.clone(), key, taken }));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::BoxFuture};

    use super::*;

    const LIMITS: FairLimits =
        FairLimits { total: 4, per_key: 2, reserved: 0, waiting: 8, waiting_per_key: 6 };

    type Request = BoxFuture<'static, Result<FairPermit<u32>, Denied>>;

    /// A request that waits.
    fn wait(permits: &FairPermits<u32>, key: u32) -> Request {
        let permits = permits.clone();
        let mut request = async move { permits.acquire(key, None).await }.boxed();
        assert!((&mut request).now_or_never().is_none(), "the request must wait");
        request
    }

    fn take(permits: &FairPermits<u32>, key: u32) -> FairPermit<u32> {
        permits.acquire(key, None).now_or_never().unwrap().unwrap()
    }

    #[tokio::test]
    async fn freed_permits_go_round_robin_between_keys() {
        let permits = FairPermits::new(FairLimits { total: 2, per_key: 1, ..LIMITS });
        let (first, second) = (take(&permits, 1), take(&permits, 2));
        let mut many: Vec<Request> = (0..3).map(|_| wait(&permits, 1)).collect();
        let mut other = wait(&permits, 3);
        drop(first);
        // Key 1 came first, so its turn is first; the next turn is key 3's, before the rest of key 1.
        let again = (&mut many[0]).now_or_never().unwrap().unwrap();
        assert!((&mut other).now_or_never().is_none());
        drop(second);
        drop((&mut other).now_or_never().unwrap().unwrap());
        assert!((&mut many[1]).now_or_never().is_none(), "one permit per turn");
        drop(again);
        drop((&mut many[1]).now_or_never().unwrap().unwrap());
        drop(many);
        assert_eq!(permits.held(), 0);
        let state = permits.0.lock();
        assert_eq!((state.waiting, state.keys.len()), (0, 0));
    }

    #[tokio::test]
    async fn reserved_permits_are_for_keys_without_one() {
        let permits = FairPermits::new(FairLimits { total: 8, per_key: 4, reserved: 4, ..LIMITS });
        let held: Vec<_> = (0..4).map(|_| take(&permits, 1)).collect();
        let one = take(&permits, 2);
        let mut second = wait(&permits, 2);
        let mut others: Vec<_> = (3..6).map(|key| take(&permits, key)).collect();
        assert_eq!(permits.held(), 8);
        drop(held);
        // The four free permits are reserved.
        assert!((&mut second).now_or_never().is_none());
        others.pop();
        drop((&mut second).now_or_never().unwrap().unwrap());
        drop((one, others));
        assert_eq!(permits.held(), 0);
    }

    #[tokio::test]
    async fn full_queue_of_the_key_and_full_queue_in_total_are_distinguished() {
        let permits = FairPermits::new(FairLimits { total: 1, per_key: 1, ..LIMITS });
        let _held = take(&permits, 1);
        let _own: Vec<Request> = (0..6).map(|_| wait(&permits, 1)).collect();
        assert_eq!(permits.acquire(1, None).await.unwrap_err(), Denied::OwnLimit);
        let _other: Vec<Request> = (0..2).map(|_| wait(&permits, 2)).collect();
        assert_eq!(permits.acquire(2, None).await.unwrap_err(), Denied::Full);
    }

    #[tokio::test(start_paused = true)]
    async fn expected_wait_grows_with_the_queue_and_with_the_duration_of_permits() {
        let permits = FairPermits::new(FairLimits { total: 2, per_key: 2, ..LIMITS });
        let second = Duration::from_secs(1);
        assert_eq!(permits.expected_wait(&1), Duration::ZERO, "nothing is known yet");
        let held = (take(&permits, 1), take(&permits, 1));
        tokio::time::advance(4 * second).await;
        drop(held);
        assert_eq!(permits.expected_wait(&1), 4 * second);
        let held = (take(&permits, 1), take(&permits, 1));
        // One of the key's two permits is returned every two seconds on average, so each further pair of requests waits longer.
        let queue: Vec<Request> = (0..5).map(|_| wait(&permits, 1)).collect();
        assert_eq!(permits.expected_wait(&1), 12 * second);
        // Another key has its turn before the rest of this queue.
        assert_eq!(permits.expected_wait(&2), 4 * second);
        tokio::time::advance(10 * second).await;
        assert_eq!(permits.expected_wait(&2), 10 * second, "held permits take longer");
        drop((queue, held));
        assert_eq!(permits.0.lock().hold_times.taken, Duration::ZERO);
    }

    #[tokio::test]
    async fn denial_at_the_deadline_names_the_limit_that_was_reached() {
        let permits = FairPermits::new(FairLimits { total: 1, per_key: 1, ..LIMITS });
        let held = take(&permits, 1);
        let deadline = Some(Duration::from_millis(5));
        assert_eq!(permits.acquire(1, deadline).await.unwrap_err(), Denied::OwnLimit);
        assert_eq!(permits.acquire(2, deadline).await.unwrap_err(), Denied::Full);
        assert_eq!(permits.0.lock().waiting, 0);
        drop(held);
        assert_eq!(permits.0.lock().keys.len(), 0);
    }

    #[tokio::test]
    async fn permit_granted_to_an_abandoned_request_goes_to_the_next() {
        let permits = FairPermits::new(FairLimits { total: 1, per_key: 1, ..LIMITS });
        let held = take(&permits, 1);
        let (abandoned, mut next) = (wait(&permits, 2), wait(&permits, 3));
        drop(held);
        assert!((&mut next).now_or_never().is_none(), "the permit was granted to the first request");
        drop(abandoned);
        drop((&mut next).now_or_never().unwrap().unwrap());
        assert_eq!((permits.held(), permits.0.lock().keys.len()), (0, 0));
    }
}
