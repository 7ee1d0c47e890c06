//! The error type of every port, and the error type of use cases.

use std::{fmt, time::Duration};

/// Cause of an [`Error`], kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Class of a failure, by which a caller decides how to react.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The remote side is unreachable or shuts down. Worth a retry.
    Unavailable,
    /// There is no capacity for more work now. Worth a retry later.
    Overloaded,
    /// No response in time. The operation may or may not have taken effect.
    TimedOut,
    /// The operation can never succeed (for example a mail address that was refused permanently).
    Rejected,
    /// Stored data is inconsistent. The context names table, column and key.
    Corrupt,
    /// The disk or a quota is full.
    Full,
    /// A setting is wrong. The context states how to correct it.
    Misconfigured,
    /// A bug in this software.
    Internal,
}

/// Error of a port: kind, operation, context and source.
///
/// Never shown to clients. Each area has its own enum of errors that a client may see, for example
/// [`AccountError`](crate::account::AccountError).
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    context: String,
    source: Option<BoxError>,
    deferral: Option<Duration>,
}

impl Error {
    /// Creates an error of `kind` in `operation`.
    #[must_use]
    pub const fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, context: String::new(), source: None, deferral: None }
    }
    /// Sets the details: a path, a key, how to correct the failure.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = context.into();
        self
    }
    /// Sets the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// Marks the error as an outage of the remote side that does not depend on the operation: `delay` is the time until a repeat can succeed.
    ///
    /// A job that fails with it runs again after that time, and the run does not count as an attempt
    /// ([`JobError::Deferred`](crate::job::JobError::Deferred)).
    #[must_use]
    pub const fn deferred(mut self, delay: Duration) -> Self {
        self.deferral = Some(delay);
        self
    }
    /// Creates an error for inconsistent stored data, located by table, column and key.
    #[must_use]
    pub fn corrupt(table: &'static str, column: &'static str, key: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, "decode").context(format!("{table}.{column} of {key}"))
    }
    /// Class of the failure.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// Time until a repeat can succeed, if the error is an outage that does not depend on the operation.
    #[must_use]
    pub const fn deferral(&self) -> Option<Duration> {
        self.deferral
    }
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::TimedOut | ErrorKind::Full
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::Rejected => "rejected",
            ErrorKind::Corrupt => "corrupt data",
            ErrorKind::Full => "out of space",
            ErrorKind::Misconfigured => "misconfigured",
            ErrorKind::Internal => "internal error",
        };
        write!(f, "{}: {kind}", self.operation)?;
        if !self.context.is_empty() {
            write!(f, ": {}", self.context)?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Failure of a use case.
#[derive(Debug)]
pub enum Failure<R> {
    /// The rules refuse the request. A client may see `R`.
    Refused(R),
    /// A port failed. A client only sees that the server failed.
    Failed(Error),
}

impl<R> From<Error> for Failure<R> {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<R: fmt::Display> fmt::Display for Failure<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<R: fmt::Debug + fmt::Display> std::error::Error for Failure<R> {}
