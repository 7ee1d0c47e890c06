//! Repeated requests: the answer is recorded in the commit that made it true.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Digest, Error, Timestamp};

/// A request that may be repeated: whose key, and what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the account (or its absence), the route and the key: another account's key is another scope.
    pub scope: Digest,
    /// Digest of the request's content.
    pub request: Digest,
}

impl Idempotency {
    /// How long an outcome is kept.
    pub const KEPT: Duration = Duration::from_hours(24);
}

/// The key came before with another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyReused;

/// What an answered request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// Whose key.
    pub scope: Digest,
    /// What was asked.
    pub request: Digest,
    /// What the use case answers from, as JSON, without secrets.
    pub outcome: String,
    /// When.
    pub recorded_at: Timestamp,
    /// When it may be forgotten.
    pub expires_at: Timestamp,
}

/// Changes to the record of answered requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdempotencyChange {
    /// Records an outcome. Precondition: the scope is unused, or its record expired before
    /// `recorded_at`; else [`KeyUsed`](crate::Conflict::KeyUsed).
    Record(OutcomeRecord),
    /// Removes up to `cap` records that expired before `before`; counted.
    Purge {
        /// Records that expire earlier go.
        before: Timestamp,
        /// At most so many.
        cap: u32,
    },
}

/// What idempotency asks of a store.
///
/// * **I1** Of two commits that record the same unexpired scope one conflicts, and nothing of it is written.
/// * **I2** An expired record is replaced; a purge removes only expired ones, at most `cap`, and counts them.
#[async_trait]
pub trait IdempotencyReads: Send + Sync {
    /// The record of a scope, expired or not.
    ///
    /// # Errors
    /// The store's.
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error>;
}

#[async_trait]
impl<S: IdempotencyReads + ?Sized> IdempotencyReads for std::sync::Arc<S> {
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error> {
        (**self).outcome(scope).await
    }
}
