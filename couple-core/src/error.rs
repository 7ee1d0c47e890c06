//! One concrete error for every port, and the shape of a use case's failure.

use std::fmt;

/// A source of an [`Error`], kept for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What kind of failure, as a caller may want to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The other side cannot be reached or is going away. Worth trying again.
    Unavailable,
    /// There is no room for more work now. Worth trying again later.
    Overloaded,
    /// No answer in time; whether the work was done is unknown.
    TimedOut,
    /// What was asked can never work (a mail address refused for good).
    Rejected,
    /// Stored data contradicts itself. The context names table, column and key.
    Corrupt,
    /// The disk or quota is full.
    Full,
    /// The settings are wrong. The context says what to do.
    Misconfigured,
    /// A fault of ours.
    Internal,
}

/// What went wrong in a port: kind, operation, context and source.
///
/// Never shown to a person; a refusal (what a person may be told) is an enum of its own per area.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    context: String,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind` in `operation`.
    #[must_use]
    pub const fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, context: String::new(), source: None }
    }
    /// Adds what was at hand: a path, a key, what to do.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = context.into();
        self
    }
    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// Stored data that contradicts itself, by table, column and key.
    #[must_use]
    pub fn corrupt(table: &'static str, column: &'static str, key: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Corrupt, "decode").context(format!("{table}.{column} of {key}"))
    }
    /// What kind of failure this is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
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

/// Why a use case did not happen.
#[derive(Debug)]
pub enum Failure<R> {
    /// The rules say no; `R` may be told to the person.
    Refused(R),
    /// Something broke; the person is told only that.
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
