//! Firebase Cloud Messaging.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Clock, Error, SystemClock,
    push::{Destination, Push, PushError, Pusher},
};
use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use serde::Deserialize;

use super::{
    access_token::{AccessTokens, ServiceAccount},
    connect::{AllowedAddresses, ConnectionOptions, Server},
    failure::{SendFailure, is_temporary, retry_after},
    fcm_message::message,
    http_client::{Answer, HttpClient},
};

const SERVER: &str = "https://fcm.googleapis.com";
/// Delay after 429 without `Retry-After`, as Google's documentation says.
const QUOTA_DELAY: Duration = Duration::from_mins(1);

/// Sends push messages to apps through Firebase Cloud Messaging (HTTP v1).
///
/// The access token is fetched by one request at a time and replaced five minutes before it expires. Clones share it and the
/// connections.
///
/// An alert is a notification message with data; other messages contain data only, with all values as texts. A reload has the
/// value `reload`, which is `widget` or `control`. Live Activities are refused: Android has none.
#[derive(Clone)]
pub struct Fcm {
    tokens: Arc<AccessTokens>,
    client: Arc<HttpClient>,
    server: Server,
    options: ConnectionOptions,
    path: String,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Fcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fcm").field("server", &self.server).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Fcm {
    /// Creates a sender with the JSON file of a service account key, whose project is the one of the apps.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`](couple_core::ErrorKind::Misconfigured) if the file is not valid.
    pub fn new(service_account: &str, options: &ConnectionOptions) -> Result<Self, Error> {
        let account = ServiceAccount::parse(service_account)?;
        let path = format!("/v1/projects/{}/messages:send", account.project_id);
        let server = Server::parse(SERVER)?;
        let client = Arc::new(HttpClient::new(server.clone(), options, AllowedAddresses::Any));
        let tokens = Arc::new(AccessTokens::new(account, options)?);
        Ok(Self { tokens, client, server, options: options.clone(), path, clock: Arc::new(SystemClock) })
    }

    /// Replaces the server: `https://HOST` or `https://HOST:PORT`. Access tokens still come from the `token_uri` of the account.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`](couple_core::ErrorKind::Misconfigured) for another URL.
    pub fn with_server(mut self, url: &str) -> Result<Self, Error> {
        self.server = Server::parse(url)?;
        let client = HttpClient::new(self.server.clone(), &self.options, AllowedAddresses::Any);
        self.client = Arc::new(client);
        Ok(self)
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn failure(&self, answer: &Answer) -> PushError {
        let Refusal { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = error.details.iter().find_map(|detail| detail.error_code.as_deref());
        let message = format!("FCM answers {} {}", answer.status.as_u16(), code.unwrap_or(&error.status));
        let names_token = || {
            let mut fields = error.details.iter().flat_map(|detail| &detail.field_violations);
            fields.any(|violation| violation.field == "message.token")
        };
        let failure = match answer.status {
            StatusCode::NOT_FOUND if code == Some("UNREGISTERED") => {
                return PushError::Gone { since: None };
            }
            StatusCode::BAD_REQUEST if names_token() => return PushError::Gone { since: None },
            // The app that the client has registered belongs to another project.
            StatusCode::FORBIDDEN if code == Some("SENDER_ID_MISMATCH") => {
                SendFailure::misconfigured(message)
            }
            // The service account or the project.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                SendFailure::credentials(message)
            }
            status if is_temporary(status) => {
                let default = (status == StatusCode::TOO_MANY_REQUESTS).then_some(QUOTA_DELAY);
                let delay = retry_after(&answer.headers, self.clock.now()).or(default);
                SendFailure::unavailable(message).retry_after(delay)
            }
            _ => SendFailure::rejected(message),
        };
        failure.into()
    }
}

/// Body of a response that is not 200 (`google.rpc.Status`).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    details: Vec<Detail>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    error_code: Option<String>,
    field_violations: Vec<FieldViolation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FieldViolation {
    field: String,
}

#[async_trait]
impl Pusher for Fcm {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        let Destination::Fcm { token, .. } = &push.to else {
            return Err(SendFailure::misconfigured("the destination is not of FCM").into());
        };
        let body = Bytes::from(message(push, token.expose(), self.clock.now())?.to_string());
        let mut access = self.tokens.current(None, &*self.clock).await?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        headers.insert(header::AUTHORIZATION, access.header.clone());
        let mut answer = self.client.post(&self.path, &headers, &body).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            access = self.tokens.current(Some(&access), &*self.clock).await?;
            headers.insert(header::AUTHORIZATION, access.header);
            answer = self.client.post(&self.path, &headers, &body).await?;
        }
        if answer.status == StatusCode::OK { Ok(()) } else { Err(self.failure(&answer)) }
    }
}
