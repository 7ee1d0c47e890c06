//! Second process: checks of two stores over the same data.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use couple_core::{Change, CommitError, Committed, Error, Store};

/// Two stores over the same data; each call goes to the store that the previous call did not use.
pub struct AlternatingStore {
    stores: [Arc<dyn Store>; 2],
    calls: AtomicUsize,
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
        Self { stores: [one, Arc::new(other(name).await)], calls: AtomicUsize::new(0) }
    }

    fn next(&self) -> &Arc<dyn Store> {
        &self.stores[self.calls.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

couple_core::delegate_reads!(AlternatingStore, |store| store.next());

#[async_trait]
impl Store for AlternatingStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.next().commit(changes).await
    }
    async fn ping(&self) -> Result<(), Error> {
        self.next().ping().await
    }
    async fn close(&self) -> Result<(), Error> {
        let [one, other] = &self.stores;
        let (one, other) = tokio::join!(one.close(), other.close());
        one.and(other)
    }
}
