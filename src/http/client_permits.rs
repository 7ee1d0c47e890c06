//! Permits that are counted in total and per client network.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use couple_core::limits::LimitKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Answer, Problem};

/// Bounds the resources of clients that have not authenticated, in total and per client network.
#[derive(Debug)]
pub(super) struct ClientPermits {
    total: Arc<Semaphore>,
    per_client: usize,
    held: Mutex<HashMap<LimitKey, usize>>,
}

impl ClientPermits {
    pub(super) fn new(total: usize, per_client: usize) -> Arc<Self> {
        let total = Arc::new(Semaphore::new(total.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { total, per_client, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<LimitKey, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit. A client whose address is unknown counts in total only.
    pub(super) fn take(self: &Arc<Self>, client: Option<IpAddr>) -> Answer<ClientPermit> {
        let client = client.map(LimitKey::client);
        if let Some(client) = &client {
            let mut held = self.held();
            let count = held.get(client).copied().unwrap_or(0);
            if count >= self.per_client {
                return Err(Problem::new("too_many_streams"));
            }
            held.insert(client.clone(), count + 1);
        }
        // Created first, so that an error below decrements the client's count.
        let mut permit = ClientPermit { permits: self.clone(), client, total: None };
        permit.total = self.total.clone().try_acquire_owned().ok();
        if permit.total.is_none() {
            return Err(Problem::new("overloaded"));
        }
        Ok(permit)
    }
}

/// One permit; returned when dropped.
#[derive(Debug)]
pub(super) struct ClientPermit {
    permits: Arc<ClientPermits>,
    client: Option<LimitKey>,
    total: Option<OwnedSemaphorePermit>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let mut held = self.permits.held();
        if let Some(count) = held.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_per_network_and_in_total() {
        let permits = ClientPermits::new(5, 2);
        let take = |ip: &str| permits.take(Some(ip.parse().unwrap()));
        let first = take("192.0.2.1").unwrap();
        let second = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.1").unwrap_err().code(), "too_many_streams");
        let household = (take("2001:db8::1").unwrap(), take("2001:db8::ffff:2").unwrap());
        assert_eq!(take("2001:db8::3").unwrap_err().code(), "too_many_streams");
        let unknown = permits.take(None).unwrap();
        assert_eq!(take("192.0.2.2").unwrap_err().code(), "overloaded");
        drop((first, second));
        let again = (take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap());
        drop((household, unknown, again));
        assert!(permits.held().is_empty());
        assert_eq!(permits.total.available_permits(), 5);
    }
}
