//! Conversion of driver errors.

use couple_core::{Error, ErrorKind};

use super::Dialect;

/// Converts a driver error and keeps it as the source.
pub(super) fn classify<D: Dialect>(operation: &'static str, error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::PoolTimedOut => ErrorKind::Overloaded,
        // A connection that is closed within a message, by the server or a proxy before it, is reported as `Protocol`.
        sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => ErrorKind::Unavailable,
        sqlx::Error::Configuration(_) => ErrorKind::Misconfigured,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => ErrorKind::Corrupt,
        sqlx::Error::Database(database) => D::kind_of(database.as_ref()),
        _ => ErrorKind::Internal,
    };
    Error::new(kind, operation).context(D::NAME).source(error)
}
