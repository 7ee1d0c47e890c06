//! Idempotency keys: the outcome of a request is recorded in the commit of its changes.

use std::time::Duration;

use async_trait::async_trait;

use crate::{Digest, Error, Timestamp};

/// Idempotency key and content of a request that a client may repeat, as digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Digest of the account (or its absence), the route and the key. Two accounts never share a scope.
    pub scope: Digest,
    /// Digest of the content of the request.
    pub request: Digest,
}

impl Idempotency {
    /// Retention of an outcome.
    pub const RETENTION: Duration = Duration::from_hours(24);
}

/// Error: the idempotency key was used for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyReused;

/// Recorded outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRecord {
    /// Digest of account, route and key.
    pub scope: Digest,
    /// Digest of the content of the request.
    pub request: Digest,
    /// Data from which the use case builds its response: JSON without secrets.
    pub outcome: String,
    /// Time of the request.
    pub recorded_at: Timestamp,
    /// Time after which a purge may remove the record.
    pub expires_at: Timestamp,
}

/// Changes to the recorded outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdempotencyChange {
    /// Records an outcome.
    ///
    /// Precondition: the scope is unused, or its record expired before `recorded_at`; else
    /// [`KeyUsed`](crate::Conflict::KeyUsed).
    Record(OutcomeRecord),
    /// Removes up to `cap` records that expired before `before`. The commit returns their number.
    Purge {
        /// Records with an earlier expiry are removed.
        before: Timestamp,
        /// Maximum number of records to remove.
        cap: u32,
    },
}

/// Reads of the recorded outcomes, with the guarantees that a store must give.
///
/// * **I1** Of two commits that record the same unexpired scope, one conflicts and writes nothing.
/// * **I2** An expired record is replaced; a purge removes at most `cap` expired records, those that expired
///   earliest, and returns their number.
/// * **I3** Every field of a record reads back as it was written: an outcome of up to 32 KiB, and times to the
///   microsecond, before 1970 and after 2038 too. Scopes are compared by all 32 bytes.
#[async_trait]
pub trait IdempotencyReads: Send + Sync {
    /// Record of a scope, expired or not.
    ///
    /// # Errors
    /// Errors of the store.
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error>;
}
