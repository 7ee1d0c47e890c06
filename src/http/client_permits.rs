//! Permits that are counted in total and per client network.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{ApiResult, Problem, client_network::NetworkCounts};

/// Limits resources of clients that have not authenticated, in total and per client network.
///
/// Once half of the permits are in use, the limit per network decreases with the number of free permits, so that an attacker with many
/// networks leaves permits for other clients.
#[derive(Debug)]
pub(super) struct ClientPermits {
    total: usize,
    per_client: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_network: NetworkCounts,
}

impl ClientPermits {
    pub(super) fn new(total: usize, per_client: usize) -> Arc<Self> {
        Arc::new(Self { total, per_client, held: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a permit. A client whose address is unknown counts in total only.
    pub(super) fn take(self: &Arc<Self>, client: Option<IpAddr>) -> ApiResult<ClientPermit> {
        let mut held = self.held();
        let free = self.total.saturating_sub(held.total);
        if free == 0 {
            return Err(Problem::new("overloaded"));
        }
        if let Some(client) = client {
            let shrunk = self.per_client.saturating_mul(2).saturating_mul(free).div_ceil(self.total);
            if held.by_network.full(client, self.per_client.min(shrunk)).is_some() {
                return Err(Problem::new("too_many_streams"));
            }
            held.by_network.add(client);
        }
        held.total += 1;
        drop(held);
        Ok(ClientPermit { permits: self.clone(), client })
    }
}

/// A permit; returned when dropped.
#[derive(Debug)]
pub(super) struct ClientPermit {
    permits: Arc<ClientPermits>,
    client: Option<IpAddr>,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut held = self.permits.held();
        held.total -= 1;
        if let Some(client) = self.client {
            held.by_network.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(permits: &Arc<ClientPermits>, client: &str) -> ApiResult<ClientPermit> {
        permits.take(Some(client.parse().unwrap()))
    }

    fn code(taken: ApiResult<ClientPermit>) -> String {
        taken.unwrap_err().code().to_owned()
    }

    #[test]
    fn permits_are_counted_per_network_and_in_total() {
        let permits = ClientPermits::new(5, 2);
        let first = take(&permits, "192.0.2.1").unwrap();
        let second = take(&permits, "::ffff:192.0.2.1").unwrap();
        assert_eq!(code(take(&permits, "192.0.2.1")), "too_many_streams");
        let household = (take(&permits, "2001:db8::1").unwrap(), take(&permits, "2001:db8::ffff:2").unwrap());
        assert_eq!(code(take(&permits, "2001:db8::3")), "too_many_streams");
        let unknown = permits.take(None).unwrap();
        assert_eq!(code(take(&permits, "192.0.2.2")), "overloaded");
        drop((household, unknown));
        let again = take(&permits, "192.0.2.2").unwrap();
        drop((first, second, again));
        assert!(permits.held().by_network.is_empty() && permits.held().total == 0);
    }

    #[test]
    fn ipv6_clients_are_limited_per_56_and_48_bit_prefix() {
        let permits = ClientPermits::new(10_000, 256);
        // Takes permits for networks of a /48: for each /64 until one is refused.
        let fill = |prefixes: &mut dyn Iterator<Item = u16>| {
            let mut held = Vec::new();
            for prefix in prefixes {
                while let Ok(permit) = take(&permits, &format!("2001:db8:1:{prefix:x}::1")) {
                    held.push(permit);
                }
            }
            held
        };
        assert_eq!(fill(&mut (0..1)).len(), 256);
        assert_eq!(fill(&mut (0..256)).len(), 512, "the limit of a /56");
        assert_eq!(fill(&mut (0..=0xFFFF).step_by(64)).len(), 1_024, "the limit of a /48");
        assert!(permits.held().by_network.is_empty());
    }

    /// With a constant limit, 40 addresses could take all permits.
    #[test]
    fn many_networks_leave_permits_to_others() {
        let permits = ClientPermits::new(10_000, 256);
        let mut held = Vec::new();
        for address in 0..100 {
            while let Ok(permit) = take(&permits, &format!("198.51.100.{address}")) {
                held.push(permit);
            }
        }
        let other: Vec<_> = (0..3).map(|_| take(&permits, "192.0.2.1").unwrap()).collect();
        // Permits return at the latest when the time to authenticate ends. A network that takes them again gets fewer.
        for _ in 0..20 {
            let half = held.len() / 2;
            held.rotate_left(half);
            held.truncate(half);
            for address in 0..100 {
                while let Ok(permit) = take(&permits, &format!("198.51.100.{address}")) {
                    held.push(permit);
                }
            }
        }
        let free = 10_000 - permits.held().total;
        assert!(free > 300, "{free} permits are free");
        drop((held, other));
    }
}
