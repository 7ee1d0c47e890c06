//! A custom store: one `commit` and some reads, checked by `couple-conformance`.
//!
//! It counts commits and passes them to the memory store; a store over another database has the same structure. `cargo run --example
//! own_store` uses it, `cargo test --example own_store` checks it.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use couple::{
    Error, Store,
    core::{Change, CommitError, Committed},
    store::MemoryStore,
};

#[derive(Debug, Default)]
struct CountingStore {
    inner: MemoryStore,
    commits: AtomicU64,
}

#[async_trait]
impl Store for CountingStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.inner.commit(changes).await
    }
    async fn ping(&self) -> Result<(), Error> {
        self.inner.ping().await
    }
}

// A store over a database implements the seven traits of reads itself.
couple::core::delegate_reads!(CountingStore, |store| store.inner);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = std::sync::Arc::new(CountingStore::default());
    let backend = couple::Backend::builder()
        .blobs(couple::blobs::Blobs::memory())
        .store(store.clone())
        .keys(couple::Keyring::new([0; 32]))
        .build()?;
    let sign_up =
        couple::account::SignUp { email: "ana@example.org".into(), display_name: "Ana".into(), locale: None };
    backend.accounts()?.sign_up(&couple::RequestContext::default(), &sign_up).await?;
    backend.worker().run_until_idle().await?;
    println!("a sign-up and its mail took {} commits", store.commits.load(Ordering::Relaxed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    couple_conformance::store!(async { CountingStore::default() }, reference: async { MemoryStore::new() });
}
