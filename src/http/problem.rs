//! Errors as problem details (RFC 9457). [`CODES`] lists every code that a client can act on.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use couple_core::{
    Error, ErrorKind, Failure, Invalid, account::AccountError, date::DateError, device::DeviceError,
    media::MediaError, notification::NotificationError, pairing::PairingError, timeline::TimelineError,
};
use serde::Serialize;
use utoipa::ToSchema;

/// Every code, with its status and title.
pub const CODES: &[(&str, u16, &str)] = &[
    ("malformed_request", 400, "The request cannot be read"),
    ("malformed_json", 400, "The body is not JSON"),
    ("invalid_idempotency_key", 400, "The Idempotency-Key is not valid"),
    ("unauthenticated", 401, "Sign in first"),
    ("invalid_credentials", 401, "Wrong credentials"),
    ("recent_sign_in_required", 403, "Sign in again"),
    ("unverified", 403, "Confirm your address first"),
    ("not_author", 403, "Only the author can change this entry"),
    ("entry_fixed", 403, "Entries of this kind cannot be changed"),
    (
        "access_invalid",
        403,
        "The signed URL has expired or is not valid; get the picture again for a new one",
    ),
    ("upload_is_final", 403, "A final upload takes no bytes"),
    ("not_found", 404, "There is no such route or resource"),
    ("session_not_found", 404, "No such session"),
    ("not_paired", 404, "You are not in a couple"),
    ("invite_not_found", 404, "No such invite"),
    ("block_not_found", 404, "No such block"),
    ("date_not_found", 404, "No such date"),
    ("entry_not_found", 404, "No such entry"),
    ("media_not_found", 404, "No such picture"),
    ("upload_not_found", 404, "No such upload"),
    ("no_previous", 404, "No earlier timeline"),
    ("method_not_allowed", 405, "The method is not allowed here"),
    ("body_timed_out", 408, "The body took too long to arrive"),
    ("already_paired", 409, "You are already in a couple"),
    ("own_invite", 409, "This is your own invite"),
    ("too_many_invites", 409, "Too many pending invites"),
    ("too_many_dates", 409, "Too many dates: remove one first"),
    ("date_changed", 409, "The date was changed meanwhile: read it again"),
    ("too_many_widget_tokens", 409, "Too many widget tokens: sign out on another device first"),
    ("too_many_devices", 409, "Too many devices: remove one first"),
    ("quota_exceeded", 409, "The quota of pictures is used up"),
    ("media_rejected", 409, "The picture was rejected"),
    ("media_wrong_purpose", 409, "The picture was uploaded for another purpose"),
    ("media_processing", 409, "The picture is being processed"),
    ("upload_conflict", 409, "The upload has another offset"),
    ("upload_incomplete", 409, "A partial upload is not complete"),
    ("invite_expired", 410, "The invite has expired"),
    ("entry_deleted", 410, "The entry was deleted"),
    ("media_gone", 410, "The picture cannot be shown"),
    ("upload_expired", 410, "The upload has expired"),
    ("upload_couple_ended", 410, "The couple of this upload has ended"),
    ("unsupported_tus_version", 412, "Use tus 1.0.0"),
    ("body_too_large", 413, "The body is too large"),
    ("picture_too_large", 413, "The picture has too many pixels"),
    ("unfinished_uploads_full", 413, "Too many unfinished uploads: finish or cancel some"),
    ("uri_too_long", 414, "The address is too long"),
    ("unsupported_media_type", 415, "Unsupported content type"),
    ("unsupported_encoding", 415, "Send the body uncompressed"),
    ("unknown_type", 415, "Not a picture of a known type"),
    ("range_not_satisfiable", 416, "No such range"),
    ("invalid_field", 422, "A field is invalid"),
    ("invalid_token", 422, "The code or link does not work"),
    ("idempotency_key_reused", 422, "The key was used with another request"),
    ("upload_locked", 423, "Another request continues the upload"),
    ("upgrade_required", 426, "Use WebSocket version 13"),
    ("rate_limited", 429, "Too many requests"),
    ("too_many_connections", 429, "Too many connections from your network"),
    ("too_many_streams", 429, "Too many live connections of this account"),
    ("too_many_uploads", 429, "Too many concurrent uploads of this account"),
    ("too_many_renditions", 429, "Too many concurrent requests for this couple's pictures"),
    ("head_too_large", 431, "The request's head is too large"),
    ("internal_error", 500, "Internal server error"),
    ("uploads_busy", 503, "Too many concurrent uploads"),
    ("rendition_pending", 503, "The rendition is being made"),
    ("overloaded", 503, "The server is overloaded"),
    ("upload_interrupted", 503, "The upload was interrupted: continue it"),
    ("unavailable", 503, "Temporarily unavailable"),
    ("timed_out", 503, "The request took too long"),
];

/// An invalid field of the request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field in the body.
    pub field: String,
    /// Reason, as a stable code.
    pub code: String,
}

/// A problem (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// URI of the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// Short description of the kind.
    title: Cow<'static, str>,
    /// HTTP status.
    status: u16,
    /// Description of this occurrence, for developers.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Box<str>>,
    /// Kind of problem as a stable code for programs.
    code: Cow<'static, str>,
    /// Invalid fields of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip)]
    retry_after: Option<Duration>,
    #[serde(skip)]
    accept: Option<Box<str>>,
}

impl Problem {
    /// Creates a problem by its code. A code that is not in [`CODES`] becomes `internal_error`.
    #[must_use]
    pub fn new(code: &str) -> Self {
        let known = CODES.iter().find(|(known, _, _)| *known == code);
        let (code, status, title) = *known.unwrap_or(&("internal_error", 500, "Internal server error"));
        let retry_after = (status == 503 || status == 429).then_some(Duration::from_secs(1));
        Self {
            kind: format!("urn:couple:problem:{code}"),
            title: title.into(),
            status,
            detail: None,
            code: code.into(),
            errors: Vec::new(),
            retry_after,
            accept: None,
        }
    }
    /// Creates a problem of a host's own route, with its own stable code. Its type is `urn:problem:` and the code.
    #[must_use]
    pub fn custom(status: StatusCode, code: impl Into<String>, title: impl Into<String>) -> Self {
        let code = code.into();
        Self {
            kind: format!("urn:problem:{code}"),
            title: title.into().into(),
            status: status.as_u16(),
            code: code.into(),
            ..Self::new("internal_error")
        }
    }
    /// Sets the description of this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into_boxed_str());
        self
    }
    /// Adds an invalid field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>, code: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), code: code.into() });
        self
    }
    /// Sets `Retry-After`, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
    /// Sets `Retry-After` to an estimated time, at most a minute, since the estimate may be wrong.
    pub(super) fn retry_within_reason(self, expected: Duration) -> Self {
        self.retry_after(expected.min(Duration::from_mins(1)))
    }
    /// The same problem under another code.
    pub(super) fn with_code(self, code: &str) -> Self {
        Self { retry_after: self.retry_after, ..Self::new(code) }
    }
    /// Whether the same request may succeed later.
    pub(super) const fn is_temporary(&self) -> bool {
        matches!(self.status, 429 | 503)
    }
    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
    /// Whole seconds until a retry may succeed, rounded up.
    pub(super) fn retry_seconds(&self) -> Option<u64> {
        let wait = self.retry_after?;
        Some(u64::try_from(wait.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX))
    }
    /// Sets `Accept`: the media types that are accepted instead (RFC 9110, 15.5.16).
    #[must_use]
    pub fn accept(mut self, media_types: impl Into<String>) -> Self {
        self.accept = Some(media_types.into().into_boxed_str());
        self
    }
    /// Stable code of the problem.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status(), self.retry_seconds());
        let accept = self.accept.as_deref().and_then(|types| HeaderValue::try_from(types).ok());
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455, 4.4, and RFC 9110, 15.5.22.
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, accept);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Invalid> for Problem {
    /// Creates a 422 `invalid_field` with the name of the field, and the reason as a code.
    fn from(invalid: Invalid) -> Self {
        Self::new("invalid_field").detail(invalid.to_string()).field(invalid.field, invalid.code)
    }
}

impl From<Error> for Problem {
    /// Reports an internal failure without its cause, which is only logged.
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Overloaded => {
                tracing::warn!(%error, "overloaded");
                Self::new("overloaded")
            }
            ErrorKind::TimedOut => {
                tracing::warn!(%error, "timed out");
                Self::new("timed_out")
            }
            ErrorKind::Unavailable | ErrorKind::Full => {
                tracing::error!(%error, "unavailable");
                Self::new("unavailable")
            }
            _ => {
                tracing::error!(%error, "internal error");
                Self::new("internal_error")
            }
        }
    }
}

macro_rules! from_area_errors {
    ($($error:ident { $($arm:pat => $problem:expr,)* })+) => {$(
        impl From<$error> for Problem {
            fn from(refusal: $error) -> Self {
                match refusal {
                    $($arm => $problem,)*
                    $error::Invalid(invalid) => invalid.into(),
                    $error::RateLimited(wait) => {
                        Self::new("rate_limited").detail(refusal.to_string()).retry_after(wait)
                    }
                    _ => Self::new(refusal.code()).detail(refusal.to_string()),
                }
            }
        }
        impl From<Failure<$error>> for Problem {
            fn from(failure: Failure<$error>) -> Self {
                match failure {
                    Failure::Refused(refusal) => refusal.into(),
                    Failure::Failed(error) => error.into(),
                }
            }
        }
    )+};
}
from_area_errors! {
    AccountError {}
    DateError {}
    DeviceError {}
    MediaError {}
    NotificationError {}
    PairingError {}
    TimelineError {
        TimelineError::InvalidBody(invalid) => {
            Problem::new("invalid_field").detail(invalid.to_string()).field(invalid.path(), invalid.code())
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_value_is_reported_with_its_field() {
        let invalid = couple_core::EmailAddress::parse("email", "ana").unwrap_err();
        let problem = serde_json::to_value(Problem::from(invalid)).unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&422.into(), &"invalid_field".into()));
        assert_eq!(problem["errors"][0]["field"], "email");
        assert_eq!(problem["errors"][0]["code"], invalid.code);
    }

    #[test]
    fn every_refusal_has_its_code() {
        use AccountError as A;
        use DateError as Da;
        use DeviceError as D;
        use MediaError as M;
        use NotificationError as N;
        use PairingError as P;
        use TimelineError as T;
        let wait = Duration::ZERO;
        let codes = [
            A::InvalidCredentials.code(),
            A::InvalidToken.code(),
            A::Unauthenticated.code(),
            A::RecentSignInRequired.code(),
            A::SessionNotFound.code(),
            A::TooManyWidgetTokens(5).code(),
            A::RateLimited(wait).code(),
            A::KeyReused.code(),
            N::RateLimited(wait).code(),
            Da::NotPaired.code(),
            Da::NotFound.code(),
            Da::Changed.code(),
            Da::TooManyDates(100).code(),
            Da::RateLimited(wait).code(),
            Da::KeyReused.code(),
            D::TooManyDevices(20).code(),
            D::Unauthenticated.code(),
            D::RateLimited(wait).code(),
            M::MediaNotFound.code(),
            M::MediaRejected.code(),
            M::WrongPurpose.code(),
            M::QuotaExceeded.code(),
            M::NotPaired.code(),
            P::AlreadyPaired.code(),
            P::NotPaired.code(),
            P::InviteNotFound.code(),
            P::InviteExpired.code(),
            P::OwnInvite.code(),
            P::TooManyInvites.code(),
            P::Unverified.code(),
            P::NoPrevious.code(),
            P::BlockNotFound.code(),
            T::EntryNotFound.code(),
            T::NotAuthor.code(),
            T::EntryFixed.code(),
            T::EntryDeleted.code(),
            T::NoPrevious.code(),
            T::NotPaired.code(),
            T::MediaNotFound.code(),
            T::MediaRejected.code(),
            T::MediaWrongPurpose.code(),
        ];
        for code in codes {
            assert_eq!(Problem::new(code).code(), code);
        }
        assert_eq!(Problem::new("no such code").code(), "internal_error");
    }
}
