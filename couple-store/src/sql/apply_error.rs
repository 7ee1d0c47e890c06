//! Reasons why a change was not applied.

use couple_core::{Conflict, Error};

/// Reason why a change was not applied.
pub(super) enum ApplyError {
    /// A precondition did not hold. The change has written nothing.
    Conflict(Conflict),
    /// The database failed.
    Failed(sqlx::Error),
    /// The statements of the host failed. The whole transaction must be undone.
    Host(Error),
    /// The statements of the host ended the transaction or took too long: the outcome is unknown.
    Unknown(String),
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

/// Result of a step that returns no data.
pub(super) type Applied = Result<(), ApplyError>;

/// Returns `conflict` unless exactly one row was changed.
pub(super) fn require_one_row(affected: u64, conflict: Conflict) -> Applied {
    if affected == 1 { Ok(()) } else { Err(conflict.into()) }
}
