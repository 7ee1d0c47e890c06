//! A store with an observer that is called before and after every read and commit.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use couple::{
    Error, Store,
    core::{Change, CommitError, Committed, Conflict},
    timeline::Entry,
};

/// Observer of a store.
#[async_trait]
pub(crate) trait StoreObserver: Send + Sync + 'static {
    /// Called before a read of this name, or a `commit`.
    async fn before(&self, what: &'static str);
    /// Called before a commit, with its changes.
    fn committing(&self, _: &[Change]) {}
    /// Called after a read or commit.
    async fn after(&self, what: &'static str);
    /// May change the entries that were read.
    fn entries(&self, _: &mut Vec<Entry>) {}
    /// May make a read of this name fail.
    fn read_fails(&self, _what: &'static str) -> Option<Error> {
        None
    }
    /// May refuse a commit by its changes; it then has no effect.
    fn refuse(&self, _changes: &[Change]) -> Option<Error> {
        None
    }
    /// May make a commit conflict by its changes; it then has no effect.
    fn conflict(&self, _changes: &[Change]) -> Option<Conflict> {
        None
    }
    /// May make a commit fail, before or after it took effect.
    fn commit_fails(&self, _took_effect: bool) -> Option<Error> {
        None
    }
}

pub(crate) struct ObservedStore<S, W>(pub(crate) S, pub(crate) Arc<W>);

#[async_trait]
impl<S: Store, W: StoreObserver> Store for ObservedStore<S, W> {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.1.before("commit").await;
        self.1.committing(&changes);
        if let Some(error) = self.1.refuse(&changes).or_else(|| self.1.commit_fails(false)) {
            return Err(error.into());
        }
        if let Some(conflict) = self.1.conflict(&changes) {
            return Err(conflict.into());
        }
        let out = self.0.commit(changes).await;
        self.1.after("commit").await;
        match self.1.commit_fails(true) {
            Some(error) => Err(error.into()),
            None => out,
        }
    }
    async fn ping(&self) -> Result<(), Error> {
        self.0.ping().await
    }
    fn writer_restarts(&self) -> u64 {
        self.0.writer_restarts()
    }
    async fn close(&self) -> Result<(), Error> {
        self.0.close().await
    }
}

impl<S: Store, W: StoreObserver> ObservedStore<S, W> {
    async fn observe<T: Send + 'static>(
        &self,
        name: &'static str,
        read: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.1.before(name).await;
        let mut result = match self.1.read_fails(name) {
            Some(error) => Err(error),
            None => read.await,
        };
        if name == "entries"
            && let Ok(entries) = &mut result
            && let Some(entries) = (entries as &mut dyn Any).downcast_mut()
        {
            self.1.entries(entries);
        }
        self.1.after(name).await;
        result
    }
}

couple::core::delegate_reads!(
    [S: Store, W: StoreObserver] ObservedStore<S, W>, |store| store.0, around: observe
);
