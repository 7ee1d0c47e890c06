//! The table of open connections: how many there are, of which clients, and which of them only wait for their client.
//!
//! A connection that waits for its client (for a request, for the rest of a head or of a body) costs the server nothing to close. When no
//! connection is free, the one that has waited longest is closed, so that a new request is accepted.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use tokio::{task::AbortHandle, time::Instant};

/// How long a connection must have waited for a request before it may be closed: one that was just accepted is about to send it.
const YOUNG: Duration = Duration::from_millis(100);
/// The same for the rest of a body: mobile networks pause for seconds.
const PAUSED: Duration = Duration::from_secs(5);
/// How long no further search is made after one that found nothing: it looks at every connection.
const FRUITLESS: Duration = Duration::from_millis(20);
/// Networks whose last fruitless search is remembered before those of the past are forgotten.
const MAX_SEARCHED_NETWORKS: usize = 1024;

/// Bounds of the table.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Connections in total.
    pub(super) total: usize,
    /// Connections of one IPv4 address or one IPv6 /64. A /56 has twice as many, a /48 four times.
    pub(super) per_client: usize,
    /// Peers that are not bounded by `per_client`: proxies, whose connections are of many clients.
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

/// An address, or the network that it is in: the prefix, its length in bits, and how many shares of `per_client` it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr, u8);

impl Network {
    /// The networks that a client counts for, with their shares: an IPv6 client has a /64 at least, and often a /56 or a /48.
    fn all(client: IpAddr) -> impl Iterator<Item = (Self, usize)> + Clone {
        let prefixes: &[(u8, usize)] = match client {
            IpAddr::V4(_) => &[(32, 1)],
            IpAddr::V6(_) => &[(64, 1), (56, 2), (48, 4)],
        };
        prefixes.iter().map(move |&(bits, shares)| (Self::of(client, bits), shares))
    }

    fn of(client: IpAddr, bits: u8) -> Self {
        let prefix = match client {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Ipv4Addr::from(u32::from(address) & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        };
        Self(prefix, bits)
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    bounds: Bounds,
    began: Instant,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_id: HashMap<u64, Arc<Activity>>,
    by_network: HashMap<Network, usize>,
    /// No search before this time, in milliseconds: in all, and in a network. A network at its bound must not keep others from a search.
    search_after: HashMap<Option<Network>, u64>,
}

impl ConnectionTable {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, began: Instant::now(), open: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Registers a connection; at the limit, closes those that have waited longest for their client.
    pub(super) fn register(self: &Arc<Self>, peer: IpAddr) -> Result<Registration, Full> {
        self.register_at(peer, self.now())
    }

    fn register_at(self: &Arc<Self>, peer: IpAddr, now: u64) -> Result<Registration, Full> {
        let peer = peer.to_canonical();
        let exempt = self.bounds.exempt.iter().any(|network| network.contains(&peer));
        let client = (!exempt).then_some(peer);
        let mut open = self.open();
        for (network, shares) in client.into_iter().flat_map(Network::all) {
            let most = self.bounds.per_client.saturating_mul(shares);
            if open.by_network.get(&network).is_some_and(|count| *count >= most)
                && !open.evict(now, (most / 64).max(1), Some(network))
            {
                return Err(Full::Client);
            }
        }
        if open.by_id.len() >= self.bounds.total && !open.evict(now, (self.bounds.total / 64).max(1), None) {
            return Err(Full::Total);
        }
        let id = open.next;
        open.next += 1;
        let state = AtomicU64::new(pack(Phase::Request, now));
        let activity = Arc::new(Activity {
            client,
            began: self.began,
            state,
            unread: AtomicBool::new(false),
            task: Mutex::default(),
        });
        open.by_id.insert(id, activity.clone());
        for (network, _) in client.into_iter().flat_map(Network::all) {
            *open.by_network.entry(network).or_default() += 1;
        }
        Ok(Registration { table: self.clone(), id, activity })
    }

    /// Closes a connection that waits for its client, if there is one: the system has no descriptor left.
    pub(super) fn make_room(&self) -> bool {
        let now = self.now();
        self.open().evict(now, (self.bounds.total / 64).max(1), None)
    }
}

impl Open {
    /// Closes up to `most` of the connections that have waited longest, in all or in a network. False: none.
    ///
    /// Connections that wait for a request come first, then one that waits for the rest of a body.
    fn evict(&mut self, now: u64, most: usize, network: Option<Network>) -> bool {
        if self.search_after.get(&network).is_some_and(|after| now < *after) {
            return false;
        }
        let inside = |activity: &Activity| {
            network.is_none_or(|wanted| {
                activity.client.is_some_and(|client| Network::of(client, wanted.1) == wanted)
            })
        };
        let waiting = |phase: Phase, at_least: Duration| {
            let at_least = u64::try_from(at_least.as_millis()).unwrap_or(u64::MAX);
            self.by_id.iter().filter_map(move |(id, activity)| {
                let state = activity.state.load(Ordering::Acquire);
                let (of, since) = unpack(state);
                (of == phase as u64 && now.saturating_sub(since) >= at_least && inside(activity))
                    .then_some((since, *id, state))
            })
        };
        let mut oldest: Vec<_> = waiting(Phase::Request, YOUNG).collect();
        if oldest.len() > most {
            oldest.select_nth_unstable(most - 1);
            oldest.truncate(most);
        }
        if oldest.is_empty() {
            oldest.extend(waiting(Phase::Body, PAUSED).min());
        }
        let mut closed = false;
        for (_, id, state) in oldest {
            closed |= self.by_id.get(&id).is_some_and(|activity| activity.evict(state)) && self.remove(id);
        }
        if !closed {
            if self.search_after.len() > MAX_SEARCHED_NETWORKS {
                self.search_after.retain(|_, after| now < *after);
            }
            self.search_after.insert(network, now + u64::try_from(FRUITLESS.as_millis()).unwrap_or(0));
        }
        closed
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(activity) = self.by_id.remove(&id) else { return false };
        for (network, _) in activity.client.into_iter().flat_map(Network::all) {
            if let Some(count) = self.by_network.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.by_network.remove(&network);
                }
            }
        }
        true
    }
}

/// Activity of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// The connection waits for its client: for a request or the rest of a head.
    Request,
    /// A request is being answered.
    Busy,
    /// The connection waits for its client: for the rest of a body.
    Body,
    /// An answer was handed over to be written.
    Answered,
    /// The connection was upgraded to another protocol.
    Upgraded,
    /// The connection is being closed.
    Evicted,
}

/// A phase, and since when in milliseconds.
const fn pack(phase: Phase, since: u64) -> u64 {
    (since << 8) | phase as u64
}

const fn unpack(state: u64) -> (u64, u64) {
    (state & 0xff, state >> 8)
}

/// Activity of one connection; the tasks that read and write it update it.
#[derive(Debug)]
pub(super) struct Activity {
    /// Client networks that the connection counts for; none for a proxy.
    client: Option<IpAddr>,
    began: Instant,
    state: AtomicU64,
    unread: AtomicBool,
    task: Mutex<Option<AbortHandle>>,
}

impl Activity {
    /// Moves to a phase from one of `from`. False: it was in none of them.
    fn advance(&self, from: &[Phase], to: Phase) -> bool {
        let since = match to {
            Phase::Request | Phase::Body => u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0),
            _ => 0,
        };
        let allowed = |state: u64| from.iter().any(|phase| *phase as u64 == unpack(state).0);
        let moved = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            allowed(state).then(|| pack(to, since))
        });
        moved.is_ok()
    }

    fn is(&self, phase: Phase) -> bool {
        unpack(self.state.load(Ordering::Acquire)).0 == phase as u64
    }

    /// A request arrived. False: the connection is being closed, and must not answer it.
    pub(super) fn begin(&self) -> bool {
        self.advance(&[Phase::Request, Phase::Busy, Phase::Body, Phase::Answered], Phase::Busy)
    }

    /// The rest of a body is waited for.
    pub(super) fn awaits_body(&self) {
        if !self.is(Phase::Body) {
            self.advance(&[Phase::Busy], Phase::Body);
        }
    }

    /// A part of a body arrived.
    pub(super) fn body_came(&self) {
        self.advance(&[Phase::Body], Phase::Busy);
    }

    /// An answer was handed over.
    pub(super) fn answered(&self) {
        self.advance(&[Phase::Busy, Phase::Body], Phase::Answered);
    }

    /// The connection becomes one of another protocol, which has its own bounds.
    pub(super) fn upgraded(&self) {
        self.advance(&[Phase::Busy, Phase::Body], Phase::Upgraded);
        self.task().take();
    }

    /// The client sends nothing that is left unread.
    pub(super) fn idle(&self) {
        if self.is(Phase::Answered) {
            self.advance(&[Phase::Answered], Phase::Request);
        }
    }

    /// The client may be sending bytes that will not be read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may be sending bytes that will not be read.
    pub(super) fn leaves_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether no request is being answered, nor an answer written.
    pub(super) fn has_no_request(&self) -> bool {
        self.is(Phase::Request)
    }

    /// Names the task that serves the connection, so that it can be closed while it waits.
    pub(super) fn served_by(&self, task: AbortHandle) {
        let mut served_by = self.task();
        if self.is(Phase::Evicted) {
            task.abort();
        } else if !self.is(Phase::Upgraded) {
            *served_by = Some(task);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connection, unless its activity has changed.
    fn evict(&self, seen: u64) -> bool {
        let evicted = pack(Phase::Evicted, 0);
        if self.state.compare_exchange(seen, evicted, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        if let Some(task) = self.task().take() {
            task.abort();
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
    fn connections_are_bounded_per_address_and_network() {
        let table = table(100, 2);
        let mut held = Vec::new();
        held.extend((0..2).map(|_| busy(&table, "192.0.2.1").unwrap()));
        assert_eq!(busy(&table, "192.0.2.1").unwrap_err(), Full::Client);
        // The same client, as a dual-stack socket shows its address.
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
    fn the_connection_that_waited_longest_gives_way() {
        let table = table(3, 3);
        let at = |now, last| {
            table.register_at([192, 0, 2, last].into(), now).inspect(|registration| {
                registration.activity().begin();
            })
        };
        let (used, sending) = (at(0, 1).unwrap(), at(0, 1).unwrap());
        sending.activity().awaits_body();
        let idle = table.register_at([192, 0, 2, 2].into(), 0).unwrap();
        assert_eq!(at(50, 3).unwrap_err(), Full::Total, "it was accepted just now");
        let second = at(1_000, 3).unwrap();
        assert!(idle.activity().is(Phase::Evicted) && !idle.activity().begin());
        assert!(used.activity().is(Phase::Busy) && sending.activity().is(Phase::Body));
        assert_eq!(at(2_000, 4).unwrap_err(), Full::Total, "the body may still come");
        let third = at(60_000, 4).unwrap();
        assert!(sending.activity().is(Phase::Evicted) && used.activity().is(Phase::Busy));
        assert_eq!(table.open().by_id.len(), 3);
        drop((idle, sending, used, second, third));
        assert!(table.open().by_id.is_empty() && table.open().by_network.is_empty());
    }
}
