//! Identification of the sender to Web Push services (RFC 8292).

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use couple_core::{Clock, Error, ErrorKind, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use hyper::header::HeaderValue;
use serde_json::json;

use super::{failure::SendFailure, jwt::SigningKey};

/// Validity of a token. RFC 8292, 2 allows a day.
const LIFETIME: Duration = Duration::from_hours(12);
/// Age at which a token is replaced.
const MAX_AGE: Duration = Duration::from_hours(6);

/// Key pair that identifies the sender, and an address for the operators of push services.
///
/// Browsers bind a subscription to the public key: with another key, all subscriptions must be made again. Clones share the key.
#[derive(Clone)]
pub struct VapidKey {
    key: Arc<SigningKey>,
    contact: String,
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VapidKey").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

impl VapidKey {
    /// Creates a key from base64url texts, the form in which tools for Web Push print key pairs.
    ///
    /// `contact` is a `mailto:` or `https:` URL.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if an argument is not valid.
    pub fn new(public: &str, private: &str, contact: &str) -> Result<Self, Error> {
        let decode = |name: &str, text: &str| {
            BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).map_err(|_| {
                Error::new(ErrorKind::Misconfigured, "VAPID key")
                    .context(format!("the {name} key must be base64url"))
            })
        };
        let (public, private) = (decode("public", public)?, decode("private", private)?);
        Self::with_key(SigningKey::es256_from_numbers(&private, &public, "VAPID key")?, contact)
    }

    /// Creates a key from PKCS #8 in PEM format. `contact` is a `mailto:` or `https:` URL.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if an argument is not valid.
    pub fn from_pem(pem: &str, contact: &str) -> Result<Self, Error> {
        Self::with_key(SigningKey::es256(pem, "VAPID key")?, contact)
    }

    fn with_key(key: SigningKey, contact: &str) -> Result<Self, Error> {
        if !contact.starts_with("mailto:") && !contact.starts_with("https:") {
            return Err(Error::new(ErrorKind::Misconfigured, "VAPID contact")
                .context("it must be a mailto: or https: URL"));
        }
        Ok(Self { key: Arc::new(key), contact: contact.to_owned() })
    }

    /// Public key as base64url, which a page passes as `applicationServerKey` when it subscribes.
    #[must_use]
    pub fn public_key(&self) -> String {
        BASE64URL_NOPAD.encode(self.key.public())
    }

    /// Value of the header `authorization` for one origin.
    fn authorization(&self, origin: &str, now: Timestamp) -> Result<HeaderValue, SendFailure> {
        let claims = json!({
            "aud": origin,
            "exp": now.plus(LIFETIME).micros().div_euclid(1_000_000),
            "sub": self.contact,
        });
        let token = self.key.token(None, &claims)?;
        HeaderValue::try_from(format!("vapid t={token}, k={}", self.public_key()))
            .map_err(|_| SendFailure::new(ErrorKind::Internal, "a token is not a header value"))
    }
}

/// Token for one origin, which is used for several requests.
#[derive(Default)]
pub(super) struct VapidToken(Mutex<Option<(HeaderValue, Timestamp)>>);

impl VapidToken {
    /// Value of the header `authorization`.
    pub(super) fn current(
        &self,
        key: &VapidKey,
        origin: &str,
        clock: &dyn Clock,
    ) -> Result<HeaderValue, SendFailure> {
        let mut token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        if let Some((header, made_at)) = &*token
            // The wall clock, because the push service compares with it; before the creation, it was corrected since.
            && (*made_at..made_at.plus(MAX_AGE)).contains(&now)
        {
            return Ok(header.clone());
        }
        let header = key.authorization(origin, now)?;
        *token = Some((header.clone(), now));
        Ok(header)
    }
}
