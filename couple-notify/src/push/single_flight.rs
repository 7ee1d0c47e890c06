//! Value that is made by one task at a time and shared by all that wait for it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Mutex as AsyncMutex;

use super::failure::SendFailure;

/// Cached value, made by one caller while the others wait for the result: the value or the failure.
///
/// A caller that is cancelled while it makes the value leaves that to the next one.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
    value: Mutex<Option<T>>,
    /// Number of attempts that have ended.
    ended: AtomicU64,
    /// Held by the caller that makes the value; contains the failure of the last attempt.
    turn: AsyncMutex<Option<SendFailure>>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { value: Mutex::default(), ended: AtomicU64::new(0), turn: AsyncMutex::default() }
    }
}

impl<T: Clone> SingleFlight<T> {
    fn cached(&self, is_usable: impl Fn(&T) -> bool) -> Option<T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(is_usable)
    }

    /// Returns the cached value if it is usable. Otherwise returns the result of an attempt of another caller that ended
    /// during the wait, or makes an attempt.
    pub(super) async fn get<F: Future<Output = Result<T, SendFailure>>>(
        &self,
        is_usable: impl Fn(&T) -> bool,
        make: impl FnOnce() -> F,
    ) -> Result<T, SendFailure> {
        if let Some(value) = self.cached(&is_usable) {
            return Ok(value);
        }
        let ended = self.ended.load(Ordering::SeqCst);
        let mut last_failure = self.turn.lock().await;
        if let Some(value) = self.cached(&is_usable) {
            return Ok(value);
        }
        // So that an outage costs all waiting callers one time-out together and not one each.
        if let Some(failure) = &*last_failure
            && self.ended.load(Ordering::SeqCst) != ended
        {
            return Err(failure.clone());
        }
        let made = make().await;
        self.ended.fetch_add(1, Ordering::SeqCst);
        *last_failure = made.as_ref().err().cloned();
        if let Ok(value) = &made {
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{sync::Notify, task::JoinSet};

    use super::*;

    #[tokio::test]
    async fn waiting_callers_share_one_attempt() {
        for succeeds in [true, false] {
            let (flight, attempts) = (Arc::new(SingleFlight::default()), Arc::new(AtomicU64::new(0)));
            let finish = Arc::new(Notify::new());
            let mut callers = JoinSet::new();
            for _ in 0..8 {
                let (flight, attempts, finish) = (flight.clone(), attempts.clone(), finish.clone());
                callers.spawn(async move {
                    let make = || async {
                        attempts.fetch_add(1, Ordering::SeqCst);
                        finish.notified().await;
                        if succeeds { Ok(7) } else { Err(SendFailure::unavailable("test")) }
                    };
                    flight.get(|_| true, make).await.is_ok()
                });
            }
            // On one thread all callers run until they wait before this task continues.
            tokio::task::yield_now().await;
            finish.notify_one();
            let results = callers.join_all().await;
            assert_eq!(results, [succeeds; 8]);
            assert_eq!(attempts.load(Ordering::SeqCst), 1);
        }
    }

    #[tokio::test]
    async fn cancelled_attempt_is_repeated_by_the_next_caller() {
        let flight = Arc::new(SingleFlight::<u32>::default());
        let first = flight.clone();
        let first = tokio::spawn(async move { first.get(|_| true, std::future::pending).await });
        tokio::task::yield_now().await;
        first.abort();
        assert!(matches!(flight.get(|_| true, || async { Ok(7) }).await, Ok(7)));
    }
}
