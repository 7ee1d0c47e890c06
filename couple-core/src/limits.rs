//! Rate limits: how often one key may do one thing.

use std::{fmt, net::IpAddr, time::Duration};

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

/// The rules of this workspace. Per address and per code they keep guessing hopeless; per client address they
/// keep one host from doing it for many, and are wide enough for a household or an office behind one address.
pub mod rules {
    use super::Rule;
    use std::time::Duration;

    const fn rule(name: &'static str, burst: u32, period: Duration) -> Rule {
        Rule { name, burst, period }
    }
    /// Mails to one address that its owner did not ask for while signed in.
    pub const MAIL_PER_ADDRESS: Rule = rule("mail_per_address", 5, Duration::from_mins(30));
    /// Requests of one client that send a mail.
    pub const MAIL_PER_CLIENT: Rule = rule("mail_per_client", 30, Duration::from_mins(30));
    /// Proofs of one address that are tried: passwords and codes.
    pub const PROOF_PER_ADDRESS: Rule = rule("proof_per_address", 10, Duration::from_mins(15));
    /// Proofs that one client tries, whether they succeed or not.
    pub const PROOF_PER_CLIENT: Rule = rule("proof_per_client", 60, Duration::from_mins(15));
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
    /// Writes of one person: entries, reactions, signals.
    pub const WRITE_PER_ACCOUNT: Rule = rule("write_per_account", 300, Duration::from_mins(1));
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
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::new("ip", format_args!("{a:x}:{b:x}:{c:x}:{d:x}"))
            }
        }
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
}
