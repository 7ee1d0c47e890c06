//! Networks to which a client's address belongs, and counts of resources per network.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

/// A network: its prefix, and the length of the prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr, u8);

impl Network {
    /// Networks in which a client is counted, with their multiples of the limit per client.
    ///
    /// An IPv4 client is counted by its address. An IPv6 client has at least a /64, and often a /56 or a /48.
    pub(super) fn all(client: IpAddr) -> impl Iterator<Item = (Self, usize)> + Clone {
        let client = client.to_canonical();
        let prefixes: &[(u8, usize)] = match client {
            IpAddr::V4(_) => &[(32, 1)],
            IpAddr::V6(_) => &[(64, 1), (56, 2), (48, 4)],
        };
        prefixes.iter().map(move |&(bits, shares)| (Self::of(client, bits), shares))
    }

    /// Whether an address belongs to the network.
    pub(super) fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_ipv4() == self.0.is_ipv4() && Self::of(client, self.1) == *self
    }

    fn of(client: IpAddr, bits: u8) -> Self {
        let prefix = match client {
            // Counted by its whole address.
            IpAddr::V4(_) => client,
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Ipv6Addr::from(u128::from(address) & mask).into()
            }
        };
        Self(prefix, bits)
    }
}

/// Number of resources held by the clients of each network. Networks without any have no entry.
#[derive(Debug, Default)]
pub(super) struct NetworkCounts(HashMap<Network, (usize, usize)>);

impl NetworkCounts {
    /// Adds one resource of a client.
    pub(super) fn add(&mut self, client: IpAddr) {
        for (network, shares) in Network::all(client) {
            self.0.entry(network).or_insert((0, shares)).0 += 1;
        }
    }

    /// Removes one resource of a client.
    pub(super) fn remove(&mut self, client: IpAddr) {
        for (network, _) in Network::all(client) {
            if let Some((count, _)) = self.0.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&network);
                }
            }
        }
    }

    /// The first network of a client that has reached its limit, and its number of resources.
    pub(super) fn full(&self, client: IpAddr, per_client: usize) -> Option<(Network, usize)> {
        Network::all(client).find_map(|(network, shares)| {
            let max = per_client.saturating_mul(shares);
            (self.count(&network) >= max).then_some((network, max))
        })
    }

    /// Maximum number of resources per share in a client's networks.
    pub(super) fn shares_of(&self, client: IpAddr) -> usize {
        Network::all(client).map(|(network, shares)| self.count(&network) / shares).max().unwrap_or(0)
    }

    fn count(&self, network: &Network) -> usize {
        self.0.get(network).map_or(0, |(count, _)| *count)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_clients_count_for_each_of_their_networks() {
        let mut counts = NetworkCounts::default();
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        for client in ["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:100::1", "192.0.2.1"] {
            counts.add(at(client));
        }
        let bits = |counts: &NetworkCounts, client: &str, per_client| {
            counts.full(at(client), per_client).map(|(network, _)| network.1)
        };
        assert_eq!(bits(&counts, "2001:db8:1:0:ffff::", 1), Some(64));
        assert_eq!(bits(&counts, "2001:db8:1:2::1", 1), Some(56));
        assert_eq!((bits(&counts, "2001:db8:1:200::1", 1), bits(&counts, "2001:db8:2::1", 1)), (None, None));
        assert_eq!((bits(&counts, "::ffff:192.0.2.1", 1), bits(&counts, "192.0.2.2", 1)), (Some(32), None));
        counts.add(at("2001:db8:1:200::1"));
        assert_eq!(
            (bits(&counts, "2001:db8:1:300::1", 1), bits(&counts, "2001:db8:1:300::1", 2)),
            (Some(48), None)
        );
        assert_eq!(counts.shares_of(at("2001:db8:1::9")), 1);
        assert_eq!(counts.shares_of(at("192.0.2.1")), 1);
        for client in ["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:100::1", "2001:db8:1:200::1"] {
            counts.remove(at(client));
        }
        counts.remove(at("::ffff:192.0.2.1"));
        assert!(counts.is_empty());
    }

    #[test]
    fn network_contains_the_addresses_with_its_prefix() {
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let contains = |client: &str, other: &str| -> Vec<bool> {
            Network::all(at(client)).map(|(network, _)| network.contains(at(other))).collect()
        };
        assert_eq!(contains("192.0.2.1", "::ffff:192.0.2.1"), [true]);
        assert_eq!(contains("192.0.2.1", "192.0.2.0"), [false]);
        assert_eq!(contains("192.0.2.1", "2001:db8::1"), [false]);
        assert_eq!(contains("::", "0.0.0.0"), [false, false, false]);
        assert_eq!(contains("2001:db8:1:2::1", "2001:db8:1:2:3::1"), [true, true, true]);
        assert_eq!(contains("2001:db8:1:2::1", "2001:db8:1:3::1"), [false, true, true]);
        assert_eq!(contains("2001:db8:1:2::1", "2001:db8:1:102::1"), [false, false, true]);
        assert_eq!(contains("2001:db8:1:2::1", "2001:db8:2:2::1"), [false, false, false]);
    }
}
