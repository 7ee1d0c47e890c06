//! Failures of requests to push services.

use std::{error::Error as StdError, fmt::Write as _, time::Duration};

use couple_core::{Error, ErrorKind, Timestamp, push::PushError};
use hyper::{HeaderMap, StatusCode, header};

/// Longest delay that a service can ask for: some attempts are left within the lifetime of a message.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(6);
/// Delay after a refusal of the host's credentials, which an operator can mend.
const CREDENTIALS_DELAY: Duration = Duration::from_mins(5);

/// Failure that several waiting requests can share.
#[derive(Debug, Clone)]
pub(super) struct SendFailure {
    kind: ErrorKind,
    context: String,
    retry_after: Option<Duration>,
}

impl SendFailure {
    pub(super) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), retry_after: None }
    }

    pub(super) fn unavailable(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, context)
    }

    pub(super) fn rejected(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, context)
    }

    pub(super) fn misconfigured(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Misconfigured, context)
    }

    /// The service refuses the credentials of the host, for whatever message: an outage that an operator ends.
    pub(super) fn credentials(context: impl Into<String>) -> Self {
        let context = context.into();
        tracing::error!(context, "a push service refuses the credentials of this host");
        Self::unavailable(context).retry_after(Some(CREDENTIALS_DELAY))
    }

    pub(super) fn retry_after(mut self, delay: Option<Duration>) -> Self {
        self.retry_after = delay.map(|delay| delay.min(MAX_RETRY_AFTER));
        self
    }
}

impl From<SendFailure> for PushError {
    fn from(failure: SendFailure) -> Self {
        let error = Error::new(failure.kind, "send push message").context(failure.context);
        if error.is_retryable() {
            Self::Unavailable { retry_after: failure.retry_after, error }
        } else {
            Self::Refused(error)
        }
    }
}

/// Message of an error and of its causes.
pub(super) fn describe(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Whether a status means that the same request can succeed later: 429, 408 and 5xx.
pub(super) fn is_temporary(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Delay of a `Retry-After` header (RFC 9110, 10.2.3): seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let date = i64::try_from(date.as_micros()).ok()?;
    Some(Timestamp::from_micros(date).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date() {
        // 1994-11-06 08:49:00 UTC.
        let now = Timestamp::from_micros(784_111_740_000_000);
        for (value, expected) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn delay_of_a_service_is_bounded() {
        let failure = SendFailure::unavailable("busy").retry_after(Some(Duration::MAX));
        let PushError::Unavailable { retry_after, .. } = failure.into() else { panic!("not retryable") };
        assert_eq!(retry_after, Some(MAX_RETRY_AFTER));
    }
}
