//! Presence within one process.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{AccountId, Error, live::Presence};
use tokio::time::Instant;

/// Number of leases below which expired ones are not removed.
const MIN_LEASES_TO_SWEEP: usize = 1_024;

/// Presence leases in the memory of this process. A restart loses them.
#[derive(Debug, Default)]
pub struct MemoryPresence(Mutex<Leases>);

#[derive(Debug, Default)]
struct Leases {
    until: HashMap<AccountId, Instant>,
    /// Number of leases after the last removal of expired ones.
    remaining: usize,
}

impl MemoryPresence {
    /// Creates a presence without leases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        let now = Instant::now();
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.until.len() >= MIN_LEASES_TO_SWEEP.max(leases.remaining * 2) {
            leases.until.retain(|_, until| *until > now);
            leases.remaining = leases.until.len();
        }
        let before = leases.until.insert(account, now + lease);
        Ok(before.is_none_or(|until| until <= now))
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = leases.until.get_mut(&account) {
            *until = (*until).min(Instant::now() + lease);
        }
        Ok(())
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = leases.until.get(&account).map(|until| until.saturating_duration_since(Instant::now()));
        Ok(left.filter(|left| !left.is_zero()))
    }
}
