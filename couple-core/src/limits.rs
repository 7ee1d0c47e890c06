//! Rate limits: how often one key may do one thing.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use async_trait::async_trait;

use crate::{EmailKey, Error};

/// How often: `burst` at once, and one more every `period / burst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The rule's name: part of the key, and what metrics show.
    pub name: &'static str,
    /// So many at once.
    pub burst: u32,
    /// The time in which a used-up allowance is whole again.
    pub period: Duration,
}

/// The rules of this workspace but those of accounts, which are [`AccountLimits`](crate::account::AccountLimits). Per
/// code they keep guessing hopeless; per client they keep one host from doing it for many, and are wide enough for a
/// household or an office behind one address.
pub mod rules {
    use super::Rule;
    use std::time::Duration;

    const fn rule(name: &'static str, burst: u32, period: Duration) -> Rule {
        Rule { name, burst, period }
    }
    /// Mails with an invite to one address, of all inviters.
    pub const INVITE_MAIL_PER_ADDRESS: Rule = rule("invite_mail_per_address", 10, Duration::from_hours(1));
    /// Mails with an invite of one account to one address.
    pub const INVITE_MAIL_PER_ACCOUNT_AND_ADDRESS: Rule =
        rule("invite_mail_per_account_and_address", 3, Duration::from_hours(1));
    /// Invites that one person makes.
    pub const INVITE_PER_ACCOUNT: Rule = rule("invite_per_account", 20, Duration::from_hours(1));
    /// Codes that one person tries on previewing, accepting and declining.
    pub const CODE_PER_ACCOUNT: Rule = rule("code_per_account", 20, Duration::from_mins(15));
    /// Codes that one client tries.
    pub const CODE_PER_CLIENT: Rule = rule("code_per_client", 60, Duration::from_mins(15));
    /// Tries of one code, by whomever.
    pub const TRY_PER_CODE: Rule = rule("try_per_code", 20, Duration::from_mins(15));
    /// Pictures that one person uploads: a camera roll at once, then one every five seconds.
    pub const UPLOAD_PER_ACCOUNT: Rule = rule("upload_per_account", 120, Duration::from_mins(10));
    /// Requests of one account that add bytes to resumable uploads: 10 per second.
    pub const APPEND_PER_ACCOUNT: Rule = rule("append_per_account", 600, Duration::from_mins(1));
    /// Writes of one person: entries, reactions, signals.
    pub const WRITE_PER_ACCOUNT: Rule = rule("write_per_account", 300, Duration::from_mins(1));
}

impl Rule {
    /// The same rule with an allowance that is `factor` times as wide.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        Self { burst: self.burst.saturating_mul(factor), ..self }
    }
}

/// IPv6 networks that a client is counted by: prefix length in bits, and factor of the allowance.
///
/// A household has a /64 to a /56, a company or hoster a /48; a mobile operator gives each phone a /64.
pub const IPV6_NETWORKS: [(u32, u32); 3] = [(64, 1), (56, 2), (48, 8)];

/// The allowances that a client takes from under a rule per client.
///
/// An IPv4 address counts by itself, an IPv6 address by each of [`IPV6_NETWORKS`], narrowest first, so that one subscriber does not use
/// up the allowance of a wider network.
#[must_use]
pub fn per_client(rule: Rule, ip: Option<IpAddr>) -> Vec<(Rule, LimitKey)> {
    match ip.map(|ip| ip.to_canonical()) {
        None => Vec::new(),
        Some(ip @ IpAddr::V4(_)) => vec![(rule, LimitKey::client(ip))],
        Some(IpAddr::V6(ip)) => IPV6_NETWORKS
            .into_iter()
            .map(|(prefix, factor)| (rule.times(factor), LimitKey::ipv6_network(ip, prefix)))
            .collect(),
    }
}

/// Who or what a rule counts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LimitKey(String);

impl LimitKey {
    /// A key of any kind; `kind` keeps kinds apart.
    #[must_use]
    pub fn new(kind: &str, key: impl fmt::Display) -> Self {
        Self(format!("{kind}:{key}"))
    }
    /// An e-mail address.
    #[must_use]
    pub fn email(key: &EmailKey) -> Self {
        Self::new("email", key.as_str())
    }
    /// A client: IPv4 as it is, IPv6 by its /64 (what one household gets), mapped addresses folded.
    #[must_use]
    pub fn client(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::new("ip", ip),
            IpAddr::V6(ip) => Self::ipv6_network(ip, 64),
        }
    }
    fn ipv6_network(ip: Ipv6Addr, prefix: u32) -> Self {
        let network = ip.to_bits() & u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        Self::new("ip", format_args!("{}/{prefix}", Ipv6Addr::from_bits(network)))
    }
    /// An e-mail address as one client network uses it. Clients of unknown address count as one network.
    #[must_use]
    pub fn client_and_email(ip: Option<IpAddr>, email: &EmailKey) -> Self {
        let client = ip.map(Self::client);
        let client = client.as_ref().map_or("-", Self::as_str);
        Self::new("pair", format_args!("{client} {}", email.as_str()))
    }
    /// The key as an adapter stores it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LimitKey(…)")
    }
}

/// Not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// When it is worth trying again.
    pub retry_after: Duration,
}

/// Counts.
///
/// * **L1** A key gets `burst` at once and no more.
/// * **L2** After `period / burst` it gets one more, after `period` all.
/// * **L3** Keys and rules do not share an allowance.
/// * **L4** A refusal tells when to try again, and trying then succeeds.
/// * **L5** 64 takers at once get exactly `burst`.
/// * **L6** A wall clock that jumps ahead and is corrected freezes no allowance: L4 still holds.
///
/// An adapter that cannot reach what it counts in grants less than otherwise, never more.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Takes one from the allowance of `key` under `rule`, or says when to come back.
    ///
    /// # Errors
    /// Whatever keeps the adapter from counting. Callers refuse then: a limit never lapses.
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error>;
}

#[async_trait]
impl<L: RateLimiter + ?Sized> RateLimiter for std::sync::Arc<L> {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        (**self).take(rule, key).await
    }
}

/// No limits at all: for load tests, and for hosts that limit in front.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

#[async_trait]
impl RateLimiter for Unlimited {
    async fn take(&self, _: &Rule, _: &LimitKey) -> Result<Result<(), Limited>, Error> {
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_fold() {
        let key = |ip: &str| LimitKey::client(ip.parse().unwrap()).0;
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn ipv6_clients_are_counted_by_each_of_their_networks() {
        let rule = Rule { name: "r", burst: 10, period: Duration::from_secs(1) };
        let counted = |ip: &str| per_client(rule, Some(ip.parse().unwrap()));
        let bursts = |ip: &str| counted(ip).iter().map(|(rule, _)| rule.burst).collect::<Vec<_>>();
        assert_eq!(bursts("192.0.2.1"), [10]);
        assert_eq!(bursts("2001:db8:1:2::1"), [10, 20, 80]);
        let shared = |one: &str, other: &str| {
            let (one, other) = (counted(one), counted(other));
            one.iter().zip(&other).map(|(one, other)| one.1 == other.1).collect::<Vec<_>>()
        };
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:1:2:8::1"), [true, true, true]);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:1:3::1"), [false, true, true]);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:1:102::1"), [false, false, true]);
        assert_eq!(shared("2001:db8:1:2::1", "2001:db8:2:2::1"), [false, false, false]);
        assert_eq!(per_client(rule, None), []);
    }
}
