//! Second process: checks of two adapters of one deployment.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    AccountId, Change, CommitError, Committed, Error, Store,
    limits::{LimitKey, Limited, RateLimiter, Rule},
    live::{Bus, Notice, Presence, Subscription, Topic},
};

/// Index of the adapter that a call uses. It mixes the bits of the call's number, so that neither adapter has every second call of a
/// check. The order is the same in each run.
fn irregular_index(number: u64) -> usize {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9).count_ones() as usize % 2
}

/// Two event buses of one deployment, in different processes. Publishing and subscribing use either.
pub struct AlternatingBus {
    buses: [Arc<dyn Bus>; 2],
    published: AtomicU64,
    subscribed: AtomicUsize,
}

impl AlternatingBus {
    /// Joins two buses, each of another process.
    pub fn new(one: impl Bus, other: impl Bus) -> Self {
        let buses: [Arc<dyn Bus>; 2] = [Arc::new(one), Arc::new(other)];
        Self { buses, published: AtomicU64::new(0), subscribed: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Bus for AlternatingBus {
    async fn publish(&self, topic: Topic, notice: Notice) {
        let index = irregular_index(self.published.fetch_add(1, Ordering::Relaxed));
        self.buses[index].publish(topic, notice).await;
    }
    async fn subscribe(&self, topics: Vec<Topic>) -> Box<dyn Subscription> {
        let index = self.subscribed.fetch_add(1, Ordering::Relaxed) % 2;
        self.buses[index].subscribe(topics).await
    }
}

/// Presence of two processes of one deployment. Calls use either.
pub struct AlternatingPresence {
    adapters: [Arc<dyn Presence>; 2],
    calls: AtomicU64,
}

impl AlternatingPresence {
    /// Joins the presence of two processes.
    pub fn new(one: impl Presence, other: impl Presence) -> Self {
        Self { adapters: [Arc::new(one), Arc::new(other)], calls: AtomicU64::new(0) }
    }

    fn next(&self) -> &Arc<dyn Presence> {
        &self.adapters[irregular_index(self.calls.fetch_add(1, Ordering::Relaxed))]
    }
}

#[async_trait]
impl Presence for AlternatingPresence {
    async fn renew(&self, account: AccountId, lease: Duration) -> Result<bool, Error> {
        self.next().renew(account, lease).await
    }
    async fn shorten(&self, account: AccountId, lease: Duration) -> Result<(), Error> {
        self.next().shorten(account, lease).await
    }
    async fn left(&self, account: AccountId) -> Result<Option<Duration>, Error> {
        self.next().left(account).await
    }
}

/// Rate limiters of two processes of one deployment. Calls use either.
pub struct AlternatingLimiter {
    limiters: [Arc<dyn RateLimiter>; 2],
    calls: AtomicU64,
}

impl AlternatingLimiter {
    /// Joins two rate limiters with the same clock, each of another process.
    pub fn new(one: impl RateLimiter, other: impl RateLimiter) -> Self {
        Self { limiters: [Arc::new(one), Arc::new(other)], calls: AtomicU64::new(0) }
    }
}

#[async_trait]
impl RateLimiter for AlternatingLimiter {
    async fn take(&self, rule: &Rule, key: &LimitKey) -> Result<Result<(), Limited>, Error> {
        let index = irregular_index(self.calls.fetch_add(1, Ordering::Relaxed));
        self.limiters[index].take(rule, key).await
    }
}

/// Two stores over the same data. Commits go to both in an irregular order, reads to the store without the latest commit.
///
/// With strict alternation, each store would commit before it reads again, which hides rows that it has cached.
pub struct AlternatingStore {
    stores: [Arc<dyn Store>; 2],
    commits: AtomicU64,
    /// Index of the store that made the latest commit.
    latest: AtomicUsize,
}

impl AlternatingStore {
    /// Opens a store, and then another one over its data.
    pub async fn open<One: Store, Other: Store, OneOpened, OtherOpened>(
        name: String,
        one: impl FnOnce(String) -> OneOpened,
        other: impl FnOnce(String) -> OtherOpened,
    ) -> Self
    where
        OneOpened: Future<Output = One>,
        OtherOpened: Future<Output = Other>,
    {
        // Not the name of the check's own store.
        let name = format!("b{name}");
        let one = Arc::new(one(name.clone()).await);
        let stores: [Arc<dyn Store>; 2] = [one, Arc::new(other(name).await)];
        Self { stores, commits: AtomicU64::new(0), latest: AtomicUsize::new(0) }
    }

    /// Store that did not make the latest commit.
    fn reader(&self) -> &Arc<dyn Store> {
        &self.stores[1 - self.latest.load(Ordering::SeqCst)]
    }
}

couple_core::delegate_reads!(AlternatingStore, |store| store.reader());

#[async_trait]
impl Store for AlternatingStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        let index = irregular_index(self.commits.fetch_add(1, Ordering::Relaxed));
        let result = self.stores[index].commit(changes).await;
        self.latest.store(index, Ordering::SeqCst);
        result
    }
    async fn ping(&self) -> Result<(), Error> {
        self.reader().ping().await
    }
    async fn close(&self) -> Result<(), Error> {
        let [one, other] = &self.stores;
        let (one, other) = tokio::join!(one.close(), other.close());
        one.and(other)
    }
}
