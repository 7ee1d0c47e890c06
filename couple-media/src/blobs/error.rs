//! Conversion of a store's errors.

use std::{error::Error as _, io};

use couple_core::{Error, ErrorKind};

/// Converts a store's error to the kind that says what a caller can do about it.
pub(super) fn failed(operation: &'static str, name: &str, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let kind = match &error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } | E::UnknownConfigurationKey { .. } => {
            ErrorKind::Misconfigured
        }
        E::NotSupported { .. } | E::NotImplemented { .. } | E::InvalidPath { .. } | E::JoinError { .. } => {
            ErrorKind::Internal
        }
        _ => match io_kind(&error) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
                ErrorKind::Full
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                ErrorKind::Misconfigured
            }
            Some(io::ErrorKind::TimedOut) => ErrorKind::TimedOut,
            _ => ErrorKind::Unavailable,
        },
    };
    Error::new(kind, operation).context(name.to_owned()).source(error)
}

pub(super) fn timed_out(operation: &'static str, name: &str) -> Error {
    Error::new(ErrorKind::TimedOut, operation).context(name.to_owned())
}

/// Whether the store reported that the blob does not exist.
pub(super) fn is_missing(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<object_store::Error>());
    matches!(source, Some(object_store::Error::NotFound { .. }))
}

fn io_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}
