//! Apple Push Notification service.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use couple_core::{
    Clock, Error, SystemClock, Timestamp,
    push::{Destination, Push, PushError, Pusher},
};
use hyper::{StatusCode, header};
use serde::Deserialize;

use super::{
    apns_request::request,
    connect::{AllowedAddresses, ConnectionOptions, Server},
    failure::{SendFailure, is_temporary, retry_after},
    http_client::{Answer, HttpClient},
    jwt::SigningKey,
    provider_token::ProviderTokens,
};

const PRODUCTION: &str = "https://api.push.apple.com";
const SANDBOX: &str = "https://api.sandbox.push.apple.com";

/// Sends push messages to apps on Apple's systems.
///
/// One provider token serves all apps of a team and is renewed every 40 minutes. Clones share it and the connections.
///
/// | [`Payload`](couple_core::push::Payload) | `apns-push-type` | suffix of the topic |
/// |---|---|---|
/// | `Alert` | `alert` | |
/// | `Background` | `background` | |
/// | `Reload` of widgets | `widgets` | `.push-type.widgets` |
/// | `Reload` of controls | `controls` | `.push-type.controls` |
/// | `LiveActivity` | `liveactivity` | `.push-type.liveactivity` |
///
/// A payload has at most 4096 bytes. The app finds its own values beside `aps`.
#[derive(Clone)]
pub struct Apns {
    tokens: Arc<ProviderTokens>,
    production: Arc<HttpClient>,
    sandbox: Arc<HttpClient>,
    servers: [Server; 2],
    options: ConnectionOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Apns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apns").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Apns {
    /// Creates a sender with a key for APNs from Apple's developer account.
    ///
    /// `key_id` and `team_id` have ten characters each. `pem` is the content of the file `AuthKey_….p8`.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`](couple_core::ErrorKind::Misconfigured) if an id or the key is not valid.
    pub fn new(key_id: &str, team_id: &str, pem: &str, options: &ConnectionOptions) -> Result<Self, Error> {
        let key = SigningKey::es256(pem, "APNs key")?;
        let servers = [Server::parse(PRODUCTION)?, Server::parse(SANDBOX)?];
        let [production, sandbox] = clients(&servers, options);
        let tokens = Arc::new(ProviderTokens::new(key, key_id, team_id)?);
        Ok(Self {
            tokens,
            production,
            sandbox,
            servers,
            options: options.clone(),
            clock: Arc::new(SystemClock),
        })
    }

    /// Replaces the servers for released apps and for development builds.
    ///
    /// Each is `https://HOST` or `https://HOST:PORT`; Apple's also listen on port 2197.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`](couple_core::ErrorKind::Misconfigured) for another URL.
    pub fn with_servers(mut self, production: &str, sandbox: &str) -> Result<Self, Error> {
        self.servers = [Server::parse(production)?, Server::parse(sandbox)?];
        [self.production, self.sandbox] = clients(&self.servers, &self.options);
        Ok(self)
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn failure(&self, answer: &Answer) -> PushError {
        let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = format!("APNs answers {} {}", answer.status.as_u16(), refusal.reason);
        let failure = match (answer.status, &*refusal.reason) {
            (StatusCode::GONE, _) => {
                let since =
                    refusal.timestamp.map(|millis| Timestamp::from_micros(millis.saturating_mul(1000)));
                return PushError::Gone { since };
            }
            (StatusCode::BAD_REQUEST, "BadDeviceToken" | "DeviceTokenNotForTopic") => {
                return PushError::Gone { since: None };
            }
            (StatusCode::BAD_REQUEST, "IdleTimeout") => SendFailure::unavailable(message),
            // The key or the team.
            (StatusCode::FORBIDDEN, _) => SendFailure::credentials(message),
            // The app that the client has registered.
            (StatusCode::BAD_REQUEST, "BadTopic" | "MissingTopic" | "TopicDisallowed") => {
                SendFailure::misconfigured(message)
            }
            (status, _) if is_temporary(status) => {
                SendFailure::unavailable(message).retry_after(retry_after(&answer.headers, self.clock.now()))
            }
            _ => SendFailure::rejected(message),
        };
        failure.into()
    }
}

/// Body of a response that is not 200.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    reason: String,
    /// Time since which the token is not valid, Unix time in milliseconds.
    timestamp: Option<i64>,
}

fn clients(servers: &[Server; 2], options: &ConnectionOptions) -> [Arc<HttpClient>; 2] {
    servers.clone().map(|server| Arc::new(HttpClient::new(server, options, AllowedAddresses::Any)))
}

#[async_trait]
impl Pusher for Apns {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        let Destination::Apns { token, app, sandbox } = &push.to else {
            return Err(SendFailure::misconfigured("the destination is not of APNs").into());
        };
        let device = token.expose();
        if device.is_empty() || !device.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PushError::Gone { since: None });
        }
        let path = format!("/3/device/{device}");
        let (mut headers, payload) = request(push, app)?;
        let client = if *sandbox { &self.sandbox } else { &self.production };
        let mut provider = self.tokens.current(&*self.clock)?;
        headers.insert(header::AUTHORIZATION, provider.header.clone());
        let mut answer = client.post(&path, &headers, &payload).await?;
        if is_expired(&answer) {
            provider = self.tokens.replace(&provider, &*self.clock)?;
            headers.insert(header::AUTHORIZATION, provider.header.clone());
            answer = client.post(&path, &headers, &payload).await?;
        }
        if answer.status == StatusCode::OK { Ok(()) } else { Err(self.failure(&answer)) }
    }
}

/// Whether the provider token is too old.
fn is_expired(answer: &Answer) -> bool {
    answer.status == StatusCode::FORBIDDEN
        && serde_json::from_slice::<Refusal>(&answer.body)
            .is_ok_and(|refusal| refusal.reason == "ExpiredProviderToken")
}
