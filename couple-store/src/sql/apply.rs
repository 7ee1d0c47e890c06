//! Applies one change as statements within a transaction.

use couple_core::{Change, ChangeResult};

use super::{
    Dialect, TableConnection, account, apply_error::ApplyError, date, device, host_statements, idempotency,
    job, media, notification, pairing, timeline, upload,
};

/// Applies one change.
///
/// Every precondition is checked before the first write of the change, so that a conflict in the first change
/// of a commit leaves nothing to undo.
pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
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
        Change::Device(change) => {
            device::apply::<D>(connection, change).await.map(|()| ChangeResult::Applied)
        }
        Change::Notification(change) => {
            notification::apply::<D>(connection, change).await.map(|()| ChangeResult::Applied)
        }
        Change::Date(change) => date::apply::<D>(connection, change).await.map(|()| ChangeResult::Applied),
        Change::Job(change) => job::apply::<D>(connection, change).await,
        Change::Idempotency(change) => idempotency::apply::<D>(connection, change).await,
        Change::Host(statements) => host_statements::apply::<D>(connection, statements).await,
    }
}
