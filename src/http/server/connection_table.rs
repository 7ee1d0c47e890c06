//! Table of open connections, with their clients and activity.
//!
//! A connection that waits for its client (for a request, for the rest of a head or of a body, or for the client to read its response) can
//! be closed at no cost to the server. When no connection is free, some of these are closed so that a new one can be accepted: first those
//! of the network that has most, and of those first the ones that have waited longest.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::Instant;

use super::activity::{Activity, Phase, millis};
use crate::http::client_network::{Network, NetworkCounts};

/// Minimum time that a connection must have waited for a request before it may be closed.
///
/// The request of a new connection is probably about to arrive.
const MIN_REQUEST_WAIT: Duration = Duration::from_millis(100);
/// The same for the rest of a body, and for a response that the client does not read.
///
/// Mobile networks pause for seconds. The time that bytes take at the minimum rate does not count.
const MIN_BODY_WAIT: Duration = Duration::from_secs(5);
/// Factor between connections of two networks above which the larger one loses young connections, too.
///
/// Young connections have waited less than the minimum time. The smaller network is that of the new client.
const UNFAIR_FACTOR: usize = 2;
/// Minimum time after a search that found no connection to close, since a search reads every connection.
const SEARCH_PAUSE: Duration = Duration::from_millis(20);
/// Number of stored times of such searches, one per network, above which outdated ones are removed.
const MAX_SEARCHED_NETWORKS: usize = 1024;

/// Limits of the table.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Maximum number of connections in total.
    pub(super) total: usize,
    /// Maximum number of connections of one IPv4 address or one IPv6 /64.
    ///
    /// A /56 has twice as many, a /48 four times.
    pub(super) per_client: usize,
    /// Peers that `per_client` does not limit: proxies, whose connections belong to many clients.
    pub(super) exempt: Vec<IpNet>,
}

/// Reason for not accepting a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The maximum number of connections is open, and each is in use.
    Total,
    /// The client or its network has its maximum number of connections, and each is in use.
    Client,
}

/// All open connections.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    bounds: Bounds,
    began: Instant,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    next: u64,
    by_id: HashMap<u64, Arc<Activity>>,
    by_network: NetworkCounts,
    /// Fruitless searches: of all connections, and by network.
    ///
    /// A network at its limit must not prevent searches for other networks.
    fruitless: HashMap<Option<Network>, Fruitless>,
}

/// A search that found no connection to close.
#[derive(Debug)]
struct Fruitless {
    /// Time of the next search of this kind, in milliseconds.
    until: u64,
    /// Number of connections of the client's network. A search for a network with fewer may succeed.
    own: usize,
}

impl ConnectionTable {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, began: Instant::now(), open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// Registers a connection. At a limit, closes connections that wait for their client.
    pub(super) fn register(self: &Arc<Self>, peer: IpAddr) -> Result<Registration, Full> {
        self.register_at(peer, self.now())
    }

    fn register_at(self: &Arc<Self>, peer: IpAddr, now: u64) -> Result<Registration, Full> {
        let peer = peer.to_canonical();
        let exempt = self.bounds.exempt.iter().any(|network| network.contains(&peer));
        let client = (!exempt).then_some(peer);
        let mut open = self.open();
        while let Some((network, max)) =
            client.and_then(|client| open.by_network.full(client, self.bounds.per_client))
        {
            let search = Search { now, max: (max / 64).max(1), network: Some(network), own: 0 };
            if !open.evict(&search) {
                return Err(Full::Client);
            }
        }
        if open.by_id.len() >= self.bounds.total {
            let own = client.map_or(0, |client| open.by_network.shares_of(client));
            if !open.evict(&self.search_in_all(now, own)) {
                return Err(Full::Total);
            }
        }
        let id = open.next;
        open.next += 1;
        let activity = Activity::new(client, self.began, now);
        open.by_id.insert(id, activity.clone());
        if let Some(client) = client {
            open.by_network.add(client);
        }
        Ok(Registration { table: self.clone(), id, activity })
    }

    const fn search_in_all(&self, now: u64, own: usize) -> Search {
        let batch = self.bounds.total / 64;
        Search { now, max: if batch > 0 { batch } else { 1 }, network: None, own }
    }

    /// Closes a connection that waits for its client, if there is one, to free a file descriptor.
    pub(super) fn make_room(&self) -> bool {
        let search = self.search_in_all(self.now(), 0);
        self.open().evict(&search)
    }
}

/// A search for connections that may be closed.
#[derive(Debug)]
struct Search {
    /// Time in milliseconds.
    now: u64,
    /// Maximum number of connections to close.
    max: usize,
    /// Network to search; none is all of them.
    network: Option<Network>,
    /// Number of connections of the new client's network.
    own: usize,
}

/// A connection that waits for its client.
#[derive(Debug)]
struct Waiting {
    id: u64,
    state: u64,
    /// Time in milliseconds.
    since: u64,
    /// Whether it has waited long enough to be closed.
    due: bool,
    /// Whether the connection is in the middle of a request or a response.
    in_use: bool,
    /// Number of connections of the same network.
    network: usize,
}

impl OpenConnections {
    /// Closes connections that wait for their client. Returns whether any was closed.
    ///
    /// Without a network to search, a network loses connections while it has more than the client's own. Connections that wait for a
    /// request are closed first, and those in the middle of a body or a response last.
    fn evict(&mut self, search: &Search) -> bool {
        let &Search { now, max, network, own } = search;
        if self.fruitless.get(&network).is_some_and(|last| now < last.until && own >= last.own) {
            return false;
        }
        let mut waiting = self.waiting(now, network);
        let heaviest = waiting.iter().map(|one| one.network).max().unwrap_or(0);
        let heavy = network.is_none() && heaviest > own + 1;
        let unfair = heavy && heaviest > UNFAIR_FACTOR * (own + 1);
        // The order in which they are closed; none: they are not.
        let rank = |one: &Waiting| match (heavy && one.network == heaviest, one.due, one.in_use) {
            (true, true, false) => Some(0),
            (true, true, true) => Some(1),
            (false, true, false) => Some(2),
            (true, false, _) if unfair => Some(3),
            (false, true, true) => Some(4),
            _ => None,
        };
        let first = waiting.iter().filter_map(rank).min();
        waiting.retain(|one| first.is_some() && rank(one) == first);
        let max = match first {
            // At most as many as make both networks equal.
            Some(0 | 1 | 3) => max.min((heaviest - own) / 2),
            // Closing these interrupts a request of their clients.
            Some(4) => max / 8,
            _ => max,
        };
        let max = max.max(1);
        if waiting.len() > max {
            waiting.select_nth_unstable_by_key(max - 1, |one| (one.since, one.id));
            waiting.truncate(max);
        }
        let mut closed = false;
        for Waiting { id, state, .. } in waiting {
            closed |= self.by_id.get(&id).is_some_and(|activity| activity.evict(state)) && self.remove(id);
        }
        if !closed {
            if self.fruitless.len() > MAX_SEARCHED_NETWORKS {
                self.fruitless.retain(|_, last| now < last.until);
            }
            self.fruitless.insert(network, Fruitless { until: now + millis(SEARCH_PAUSE), own });
        }
        closed
    }

    /// Connections that wait for their client, in total or of a network.
    fn waiting(&self, now: u64, network: Option<Network>) -> Vec<Waiting> {
        let inside = |activity: &Activity| {
            network.is_none_or(|wanted| activity.client().is_some_and(|client| wanted.contains(client)))
        };
        let waiting = self.by_id.iter().filter_map(|(id, activity)| {
            let (state, phase, since) = activity.waits()?;
            let due_after = match phase {
                Phase::Lingering => Duration::ZERO,
                Phase::Request => MIN_REQUEST_WAIT,
                _ => MIN_BODY_WAIT,
            };
            let in_use = !matches!(phase, Phase::Lingering | Phase::Request);
            let due = now.saturating_sub(since) >= millis(due_after);
            inside(activity).then(|| {
                let of = activity.client().filter(|_| network.is_none());
                let network = of.map_or(0, |client| self.by_network.shares_of(client));
                Waiting { id: *id, state, since, due, in_use, network }
            })
        });
        waiting.collect()
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(activity) = self.by_id.remove(&id) else { return false };
        if let Some(client) = activity.client() {
            self.by_network.remove(client);
        }
        true
    }
}
/// A connection's entry in the table; removed when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    table: Arc<ConnectionTable>,
    id: u64,
    activity: Arc<Activity>,
}

impl Registration {
    pub(super) const fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.table.open().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(total: usize, per_client: usize) -> Arc<ConnectionTable> {
        let exempt = vec!["10.0.0.0/8".parse().unwrap()];
        ConnectionTable::new(Bounds { total, per_client, exempt })
    }

    fn busy(table: &Arc<ConnectionTable>, peer: &str) -> Result<Registration, Full> {
        table.register(peer.parse().unwrap()).inspect(|registration| {
            registration.activity().begin();
        })
    }

    #[test]
    fn connections_are_limited_per_address_and_network() {
        let table = table(100, 2);
        let mut held = Vec::new();
        held.extend((0..2).map(|_| busy(&table, "192.0.2.1").unwrap()));
        assert_eq!(busy(&table, "192.0.2.1").unwrap_err(), Full::Client);
        // The same client, with its address as a dual-stack socket reports it.
        assert_eq!(busy(&table, "::ffff:192.0.2.1").unwrap_err(), Full::Client);
        held.push(busy(&table, "192.0.2.2").unwrap());
        held.extend((0..8).map(|_| busy(&table, "10.0.0.1").unwrap()));
        // Two of a /64, four of a /56, eight of a /48.
        let address = |n: u16, m: u16| format!("2001:db8:1:{:x}::{n}", m << 8 | n);
        let mut taken = |n, m| match busy(&table, &address(n, m)) {
            Ok(registration) => {
                held.push(registration);
                true
            }
            Err(full) => {
                assert_eq!(full, Full::Client);
                false
            }
        };
        assert_eq!((0..4).map(|_| usize::from(taken(1, 0))).sum::<usize>(), 2);
        assert_eq!((0..8).map(|n| usize::from(taken(n, 0))).sum::<usize>(), 2);
        assert_eq!((0..64).map(|n| usize::from(taken(0, n))).sum::<usize>(), 4);
        held.clear();
        assert!(table.open().by_id.is_empty() && table.open().by_network.is_empty());
    }

    #[test]
    fn connection_that_waited_longest_is_closed_first() {
        let table = table(3, 3);
        let at = |now, last| {
            table.register_at([192, 0, 2, last].into(), now).inspect(|registration| {
                registration.activity().begin();
            })
        };
        let (used, sending) = (at(0, 1).unwrap(), at(0, 1).unwrap());
        sending.activity().awaits_body(Duration::ZERO);
        let idle = table.register_at([192, 0, 2, 2].into(), 0).unwrap();
        assert_eq!(at(50, 3).unwrap_err(), Full::Total, "it has just been accepted");
        let second = at(1_000, 3).unwrap();
        assert!(idle.activity().is(Phase::Evicted) && !idle.activity().begin());
        assert!(used.activity().is(Phase::Busy) && sending.activity().is(Phase::Body));
        assert_eq!(at(2_000, 4).unwrap_err(), Full::Total, "the body may still arrive");
        let third = at(60_000, 4).unwrap();
        assert!(sending.activity().is(Phase::Evicted) && used.activity().is(Phase::Busy));
        assert_eq!(table.open().by_id.len(), 3);
        drop((idle, sending, used, second, third));
        assert!(table.open().by_id.is_empty() && table.open().by_network.is_empty());
    }

    /// They are closed until no network has more than the others, even if all have just begun to wait.
    #[test]
    fn connections_of_the_largest_network_are_closed_first() {
        let table = table(60, 30);
        let at = |now, client: &str| table.register_at(client.parse().unwrap(), now);
        let mut idle: Vec<_> = (0..4).map(|n| at(0, &format!("198.51.100.{n}")).unwrap()).collect();
        let heavy: Vec<_> = (0..28).map(|_| at(0, "192.0.2.1").unwrap()).collect();
        let network: Vec<_> = (0..28).map(|n| at(0, &format!("2001:db8:1:{n}00::1")).unwrap()).collect();
        let open = |of: &[Registration]| of.iter().filter(|one| !one.activity().is(Phase::Evicted)).count();
        // A /48 has four shares, so its 28 connections count as 7 of an address.
        for n in 0..15 {
            idle.push(at(10, &format!("203.0.113.{n}")).unwrap());
        }
        assert_eq!((open(&idle), open(&heavy), open(&network)), (19, 13, 28));
        let more: Vec<_> = (0..20).map(|n| at(1_000, &format!("203.0.113.{}", 100 + n)).unwrap()).collect();
        assert_eq!((open(&idle), open(&more)), (19, 20));
        assert!(open(&heavy).abs_diff(open(&network) / 4) <= 1, "{} and {}", open(&heavy), open(&network));
    }

    #[test]
    fn fruitless_search_for_a_client_does_not_prevent_others() {
        let table = table(4, 4);
        let at = |client: [u8; 4]| table.register_at(client.into(), 0);
        let heavy: Vec<_> = (0..3).map(|_| at([192, 0, 2, 1]).unwrap()).collect();
        let busy = at([192, 0, 2, 2]).unwrap();
        busy.activity().begin();
        assert_eq!(at([192, 0, 2, 1]).unwrap_err(), Full::Total);
        let other = at([192, 0, 2, 3]).unwrap();
        assert_eq!(heavy.iter().filter(|one| one.activity().is(Phase::Evicted)).count(), 1);
        drop((busy, other));
    }

    #[test]
    fn connections_of_clients_that_read_nothing_are_closed() {
        let table = table(2, 2);
        let answering = |client: [u8; 4]| {
            table.register_at(client.into(), 0).inspect(|registration| {
                registration.activity().begin();
                registration.activity().answered();
            })
        };
        let (slow, quick) = (answering([192, 0, 2, 1]).unwrap(), answering([192, 0, 2, 2]).unwrap());
        slow.activity().blocked(Duration::ZERO);
        let other = |now| table.register_at([192, 0, 2, 3].into(), now);
        assert_eq!(other(1_000).unwrap_err(), Full::Total);
        let another = other(60_000).unwrap();
        assert!(slow.activity().is(Phase::Evicted) && quick.activity().is(Phase::Answered));
        drop(another);
        let again = answering([192, 0, 2, 1]).unwrap();
        again.activity().blocked(Duration::ZERO);
        again.activity().unblocked();
        assert_eq!(other(120_000).unwrap_err(), Full::Total, "the client reads again");
    }
}
