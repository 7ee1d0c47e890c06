//! Rate limits per key and rule (token buckets).

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use async_trait::async_trait;

use crate::{EmailKey, Error};

/// Token bucket: `burst` tokens, refilled at one token per `period / burst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Name of the rule: part of the key and a label in metrics.
    pub name: &'static str,
    /// Capacity of the bucket, in tokens.
    pub burst: u32,
    /// Time in which an empty bucket fills up.
    pub period: Duration,
}

/// Rate limits of all areas except accounts.
///
/// Those of accounts are [`AccountLimits`](crate::account::AccountLimits).
///
/// A limit per code makes guessing one code hopeless. A limit per client stops one host from guessing many
/// codes, and is wide enough for a household or an office behind one address.
pub mod rules {
    use super::Rule;
    use std::time::Duration;

    const fn rule(name: &'static str, burst: u32, period: Duration) -> Rule {
        Rule { name, burst, period }
    }
    /// Invite mails to one address, from all inviters together.
    pub const INVITE_MAIL_PER_ADDRESS: Rule = rule("invite_mail_per_address", 10, Duration::from_hours(1));
    /// Invite mails from one account to one address.
    pub const INVITE_MAIL_PER_ACCOUNT_AND_ADDRESS: Rule =
        rule("invite_mail_per_account_and_address", 3, Duration::from_hours(1));
    /// Invites that one account creates.
    pub const INVITE_PER_ACCOUNT: Rule = rule("invite_per_account", 20, Duration::from_hours(1));
    /// Codes that one account previews, accepts or declines.
    pub const CODE_PER_ACCOUNT: Rule = rule("code_per_account", 20, Duration::from_mins(15));
    /// Codes that one client tries.
    pub const CODE_PER_CLIENT: Rule = rule("code_per_client", 60, Duration::from_mins(15));
    /// Attempts with one code, from all clients together.
    pub const TRY_PER_CODE: Rule = rule("try_per_code", 20, Duration::from_mins(15));
    /// Pictures that one account uploads: a burst for a camera roll, then one every five seconds.
    pub const UPLOAD_PER_ACCOUNT: Rule = rule("upload_per_account", 120, Duration::from_mins(10));
    /// Requests of one account that add bytes to resumable uploads: 10 per second.
    pub const APPEND_PER_ACCOUNT: Rule = rule("append_per_account", 600, Duration::from_mins(1));
    /// Registrations and removals of devices of one account: five surfaces at each start of an app.
    pub const DEVICE_PER_ACCOUNT: Rule = rule("device_per_account", 60, Duration::from_mins(10));
    /// Writes of one account: entries, reactions, signals and read positions.
    pub const WRITE_PER_ACCOUNT: Rule = rule("write_per_account", 300, Duration::from_mins(1));
}

impl Rule {
    /// The same rule with `factor` times the burst, so `factor` times the rate.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        Self { burst: self.burst.saturating_mul(factor), ..self }
    }
}

/// IPv6 prefix lengths in bits by which a client is counted, each with a factor for the allowance.
///
/// A household has a /64 to a /56, a company or a hosting provider a /48; a mobile operator assigns each
/// phone a /64.
pub const IPV6_NETWORKS: [(u32, u32); 3] = [(64, 1), (56, 2), (48, 8)];

/// Token buckets that one request of a client takes from under a per-client rule.
///
/// An IPv4 address has one bucket. An IPv6 address has one for each of [`IPV6_NETWORKS`], narrowest first, so
/// that one subscriber cannot use up the allowance of a wider network. Without an address there is no bucket.
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

/// Key of a token bucket: a client, an account, an e-mail address, a code, ….
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LimitKey(String);

impl LimitKey {
    /// Creates a key. Keys of different `kind` never share a bucket.
    #[must_use]
    pub fn new(kind: &str, key: impl fmt::Display) -> Self {
        Self(format!("{kind}:{key}"))
    }
    /// Key of an e-mail address.
    #[must_use]
    pub fn email(key: &EmailKey) -> Self {
        Self::new("email", key.as_str())
    }
    /// Key of a client: its IPv4 address or its IPv6 /64. IPv4-mapped IPv6 addresses count as IPv4.
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
    /// Key of an e-mail address as used from one client network. Clients without an address share a key.
    #[must_use]
    pub fn client_and_email(ip: Option<IpAddr>, email: &EmailKey) -> Self {
        let client = ip.map(Self::client);
        let client = client.as_ref().map_or("-", Self::as_str);
        Self::new("pair", format_args!("{client} {}", email.as_str()))
    }
    /// Key as an adapter stores it.
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

/// Error: a rate limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// Time until a retry can succeed.
    pub retry_after: Duration,
}

/// Rate limiter: token buckets by key and rule.
///
/// * **L1** A new key has `burst` tokens, and no more.
/// * **L2** A bucket gains one token per `period / burst`, less than 2 ms early and never late, and is full after `period`.
/// * **L3** Different keys and different rules do not share a bucket.
/// * **L4** A refusal states when to retry, and a retry then succeeds.
/// * **L5** 64 concurrent callers get exactly `burst` tokens.
/// * **L6** A wall clock that jumps ahead and is then corrected does not freeze a bucket: L4 still holds.
/// * **L7** An adapter that cannot reach its storage grants less than usual, never more, and nothing to a key that is used up: each call
///   returns within 10 seconds. When the storage works again, a new key has exactly `burst` tokens within 10 seconds.
///
/// A limiter between processes has one bucket for each key and rule: all processes together get its tokens.
#[async_trait]
pub trait RateLimiter: Send + Sync + 'static {
    /// Takes one token from the bucket of `key` under `rule`, or returns when to retry.
    ///
    /// # Errors
    /// Failures of the adapter's storage. Callers refuse the request then: a failure never lifts a limit.
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error>;
}

#[async_trait]
impl<L: RateLimiter + ?Sized> RateLimiter for std::sync::Arc<L> {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        (**self).take(rule, key).await
    }
}

/// Rate limiter without limits, for load tests and for hosts that limit requests in a proxy.
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
    use crate::EmailAddress;

    #[test]
    fn addresses_of_one_client_have_one_key() {
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

    #[test]
    fn keys_name_their_kind_and_are_not_printed() {
        let email = EmailAddress::parse("email", "ana@example.org").unwrap();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(LimitKey::new("account", 7).as_str(), "account:7");
        assert_eq!(LimitKey::email(email.key()).as_str(), "email:ana@example.org");
        assert_eq!(LimitKey::client(ip).as_str(), "ip:192.0.2.1");
        assert_eq!(LimitKey::client("2001:db8:1:2::9".parse().unwrap()).as_str(), "ip:2001:db8:1:2::/64");
        let both = LimitKey::client_and_email(Some(ip), email.key());
        assert_eq!(both.as_str(), "pair:ip:192.0.2.1 ana@example.org");
        assert_eq!(LimitKey::client_and_email(None, email.key()).as_str(), "pair:- ana@example.org");
        assert_eq!(format!("{both:?}"), "LimitKey(…)");
    }
}
