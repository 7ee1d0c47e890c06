//! Service accounts of Google, and their access tokens.

use std::time::Duration;

use couple_core::{Clock, Error, ErrorKind, Secret};
use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{self, HeaderValue},
};
use serde::Deserialize;
use serde_json::json;
use url::{Url, form_urlencoded};

use super::{
    connect::{AllowedAddresses, ConnectionOptions, Server},
    failure::{SendFailure, is_temporary, retry_after},
    http_client::HttpClient,
    jwt::SigningKey,
    single_flight::SingleFlight,
};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Validity of the signed request for a token; Google takes an hour at most.
const ASSERTION_LIFETIME: Duration = Duration::from_hours(1);
/// Time before its expiry at which a token is replaced.
const EXPIRY_MARGIN: Duration = Duration::from_mins(5);

/// Credentials of a service account, as Google's console exports them.
#[derive(Deserialize)]
pub(super) struct ServiceAccount {
    pub(super) project_id: String,
    private_key_id: String,
    private_key: Secret<String>,
    client_email: String,
    token_uri: String,
}

impl ServiceAccount {
    pub(super) fn parse(json: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "FCM service account");
        // The cause is left out: it can quote the text.
        let account: Self = serde_json::from_str(json).map_err(|_| {
            wrong().context("it must be the JSON file of a service account key from Google's console")
        })?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if account.project_id.is_empty() || !account.project_id.bytes().all(is_name) {
            return Err(wrong().context("project_id is not valid"));
        }
        Ok(account)
    }
}

/// Access token that was granted to the service account.
#[derive(Clone)]
pub(super) struct AccessToken {
    /// Value of the header `authorization`.
    pub(super) header: HeaderValue,
    /// Time by the monotonic clock from which it is not used any more.
    expires_after: Duration,
}

/// Access tokens of one service account (RFC 7523, 2.1).
pub(super) struct AccessTokens {
    account: ServiceAccount,
    key: SigningKey,
    path: String,
    client: HttpClient,
    cache: SingleFlight<AccessToken>,
}

impl AccessTokens {
    pub(super) fn new(account: ServiceAccount, options: &ConnectionOptions) -> Result<Self, Error> {
        let key = SigningKey::rs256(account.private_key.expose(), "FCM service account")?;
        let url = Url::parse(&account.token_uri).ok();
        let server = url.as_ref().and_then(|url| Some((Server::of(url)?, url.path().to_owned())));
        let (server, path) = server.ok_or_else(|| {
            Error::new(ErrorKind::Misconfigured, "FCM service account")
                .context("token_uri must be an https URL")
        })?;
        let client = HttpClient::new(server, options, AllowedAddresses::Any);
        Ok(Self { account, key, path, client, cache: SingleFlight::default() })
    }

    /// Current token, other than one that FCM has refused.
    pub(super) async fn current(
        &self,
        refused: Option<&AccessToken>,
        clock: &dyn Clock,
    ) -> Result<AccessToken, SendFailure> {
        let is_usable = |token: &AccessToken| {
            clock.monotonic() < token.expires_after
                && refused.is_none_or(|refused| refused.header != token.header)
        };
        self.cache.get(is_usable, || self.fetch(clock)).await
    }

    async fn fetch(&self, clock: &dyn Clock) -> Result<AccessToken, SendFailure> {
        let issued_at = clock.now().micros().div_euclid(1_000_000);
        let claims = json!({
            "iss": self.account.client_email,
            "scope": SCOPE,
            "aud": self.account.token_uri,
            "iat": issued_at,
            "exp": issued_at + i64::try_from(ASSERTION_LIFETIME.as_secs()).unwrap_or(i64::MAX),
        });
        let assertion = self.key.token(Some(&self.account.private_key_id), &claims)?;
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", &assertion)
            .finish();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, form)]);
        let began = clock.monotonic();
        let answer = self.client.post(&self.path, &headers, &Bytes::from(body)).await?;
        let unexpected = || SendFailure::unavailable("Google's answer to the service account is not valid");
        match answer.status {
            StatusCode::OK => {}
            status if is_temporary(status) => {
                let message = format!("Google answers {} to the service account", status.as_u16());
                let delay = retry_after(&answer.headers, clock.now());
                return Err(SendFailure::unavailable(message).retry_after(delay));
            }
            status => {
                let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
                return Err(SendFailure::credentials(format!(
                    "Google refuses the service account: {} {} {}",
                    status.as_u16(),
                    refusal.error,
                    refusal.error_description
                )));
            }
        }
        let grant: Grant = serde_json::from_slice(&answer.body).map_err(|_| unexpected())?;
        let header = HeaderValue::try_from(format!("Bearer {}", grant.access_token.expose()))
            .map_err(|_| unexpected())?;
        let lifetime = Duration::from_secs(grant.expires_in);
        // A short token is used for half of its time.
        let usable = lifetime.saturating_sub(EXPIRY_MARGIN).max(lifetime / 2);
        Ok(AccessToken { header, expires_after: began.saturating_add(usable) })
    }
}

/// Successful response (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Grant {
    access_token: Secret<String>,
    /// Seconds.
    expires_in: u64,
}

/// Error response (RFC 6749, 5.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}
