//! Presence within one process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple_conformance::{AlternatingPresence, Breakable};
use couple_core::{AccountId, Error, ErrorKind, live::Presence};
use tokio::time::Instant;

use super::EngineState;
use crate::planted;

/// Number of leases below which expired ones are not removed.
const MIN_LEASES_TO_SWEEP: usize = 1_024;

/// Presence leases in the memory of this process. A restart loses them.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyPresence(Arc<Mutex<Leases>>, EngineState);

#[derive(Debug, Default)]
struct Leases {
    until: HashMap<AccountId, Instant>,
    /// Number of leases after the last removal of expired ones.
    remaining: usize,
}

impl FaultyPresence {
    /// Creates a presence without leases.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Presence of two processes.
    pub(crate) fn of_two_processes() -> AlternatingPresence {
        let one = Self::new();
        let other = if planted("presence-stays-in-its-process") { Self::new() } else { one.clone() };
        AlternatingPresence::new(one, other)
    }

    /// Presence whose storage fails and works again.
    pub(crate) fn breakable() -> Breakable<Self> {
        let presence = Self::new();
        let storage = presence.1.clone();
        Breakable::new(presence, move |fails| storage.set_down(fails))
    }

    async fn check_outage(&self) -> Result<(), Error> {
        if self.1.is_down() && planted("presence-outage-hangs") {
            std::future::pending::<()>().await;
        }
        let lasts = self.1.has_failed() && planted("presence-outage-lasts");
        if !self.1.is_down() && !lasts {
            return Ok(());
        }
        let kind =
            if planted("presence-outage-is-a-bug") { ErrorKind::Internal } else { ErrorKind::Unavailable };
        Err(Error::new(kind, "presence").context("planned outage"))
    }
}

#[async_trait]
impl Presence for FaultyPresence {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        self.check_outage().await?;
        let now = Instant::now();
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.until.len() >= MIN_LEASES_TO_SWEEP.max(leases.remaining * 2) {
            leases.until.retain(|_, until| *until > now);
            leases.remaining = leases.until.len();
        }
        if planted("presence-keys-are-shared") {
            leases.until.values_mut().for_each(|until| *until = now + lease);
        }
        let until = match leases.until.get(&account) {
            Some(before) if planted("presence-renewal-does-not-lengthen") => *before,
            Some(before) if planted("presence-renewal-adds-up") => (*before).max(now) + lease,
            _ if planted("presence-never-expires") => now + lease * 1_000,
            _ if planted("presence-counts-whole-seconds") => now + Duration::from_secs(lease.as_secs()),
            _ => now + lease,
        };
        let before = leases.until.insert(account, until);
        if planted("presence-renewal-is-always-new") {
            return Ok(true);
        }
        if planted("presence-renewal-is-never-new") {
            return Ok(false);
        }
        if planted("presence-expired-lease-was-present") {
            return Ok(before.is_none());
        }
        Ok(before.is_none_or(|until| until <= now))
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        self.check_outage().await?;
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if planted("presence-shortening-is-ignored") {
            return Ok(());
        }
        if planted("presence-shortening-ends-the-lease") {
            leases.until.remove(&account);
        }
        if planted("presence-shortening-makes-present") {
            leases.until.entry(account).or_insert(Instant::now() + lease);
        }
        if planted("presence-shortening-affects-all") {
            leases.until.values_mut().for_each(|until| *until = (*until).min(Instant::now() + lease));
        }
        if let Some(until) = leases.until.get_mut(&account) {
            let latest = Instant::now() + lease;
            *until = if planted("presence-shortening-lengthens") { latest } else { (*until).min(latest) };
        }
        Ok(())
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        if self.1.is_down() && planted("presence-outage-is-absence") {
            return Ok(None);
        }
        self.check_outage().await?;
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = leases.until.get(&account).map(|until| until.saturating_duration_since(Instant::now()));
        if planted("presence-expired-lease-has-zero-left") {
            return Ok(left);
        }
        Ok(left.filter(|left| !left.is_zero()))
    }
}
