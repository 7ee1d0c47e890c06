//! Applies one change as statements within a transaction.

use couple_core::{Change, ChangeResult, Conflict};

use super::{Dialect, account, idempotency, job, media, pairing, timeline, upload};

/// Reason why a change was not applied.
pub(super) enum ApplyError {
    /// A precondition did not hold. The change has written nothing.
    Conflict(Conflict),
    /// The database failed.
    Failed(sqlx::Error),
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Conflict> for ApplyError {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

pub(super) type Applied = Result<(), ApplyError>;

/// Returns `conflict` unless exactly one row was changed.
pub(super) fn one(affected: u64, conflict: Conflict) -> Applied {
    if affected == 1 { Ok(()) } else { Err(conflict.into()) }
}

/// Applies one change.
///
/// Every precondition is checked before the first write of the change, so that a conflict in the first change
/// of a commit leaves nothing to undo.
pub(super) async fn apply<D: Dialect>(
    connection: &mut D::Connection,
    change: &Change,
) -> Result<ChangeResult, ApplyError> {
    match change {
        Change::Account(change) => account::apply::<D>(connection, change).await,
        Change::Pairing(change) => pairing::apply::<D>(connection, change).await,
        Change::Timeline(change) => timeline::apply::<D>(connection, change).await,
        Change::Media(change) => media::apply::<D>(connection, change).await.map(|()| ChangeResult::Applied),
        Change::Upload(change) => {
            upload::apply::<D>(connection, change).await.map(|()| ChangeResult::Applied)
        }
        Change::Job(change) => job::apply::<D>(connection, change).await,
        Change::Idempotency(change) => idempotency::apply::<D>(connection, change).await,
    }
}
