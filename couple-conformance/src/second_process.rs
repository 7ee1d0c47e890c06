//! Second process: checks of two stores over the same data.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use couple_core::{Change, CommitError, Committed, Error, Store};

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
        // Mixes the bits of the number, so that neither store has every second commit of a check. The order is the same in each run.
        let number = self.commits.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let index = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9).count_ones() as usize % 2;
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
