//! Authentication by tokens that an issuer of the host signs.

mod keys;
mod remote_keys;
mod ring_provider;
#[cfg(test)]
mod tests;

use std::{fmt, slice, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::http::{header, request::Parts};
use couple_core::{
    AccountId, Clock, Error, ErrorKind, Failure, Principal, SystemClock, Timestamp, digest,
    live::SessionChecker,
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind as TokenError};
pub use keys::JwtKeys;
use serde_json::{Map, Value};

use super::{Authenticator, Unauthenticated};
use crate::http::extract::bearer;

/// Maximum length of a token in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Default of the tolerated difference of clocks.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_mins(1);

type Claims = Map<String, Value>;
/// Maps the text of a claim to a person.
type PersonOf = dyn Fn(&str) -> Option<AccountId> + Send + Sync;
/// Accepts or refuses the claims of a verified token.
type Check = dyn Fn(&Claims) -> bool + Send + Sync;

/// Authenticator by JSON Web Tokens (RFC 7519) of an identity provider, or of the host itself. Feature `jwt`.
///
/// The token is in `Authorization: Bearer`. It must have a signature of one of the [keys](JwtKeys), the issuer in `iss`, the audience in
/// `aud`, an end in `exp`, and a person in `sub`; `nbf` counts if it is there.
///
/// ```
/// use couple::http::{JwtAuthenticator, JwtKeys};
///
/// let keys = JwtKeys::from_url("https://id.example.org/.well-known/jwks.json")?;
/// let authenticator = JwtAuthenticator::new(keys, "https://id.example.org/", "love-api");
/// # Ok::<(), couple::Error>(())
/// ```
///
/// * A token that is refused is answered with 401; the reason is logged at level `debug`, nothing of the token is. While the key of a
///   token is not known because the keys cannot be fetched, the answer is 503.
/// * Live streams end when their token does. The client connects again with a new token and resumes.
/// * The session is named by the claim `sid`, which all tokens of a session share; without it by `jti` or by a digest of the token, so that
///   each token is a session of its own.
/// * A token cannot be revoked before it ends, unless [`with_sessions`](Self::with_sessions) asks for it.
///
/// The signature is verified by the `CryptoProvider` of `jsonwebtoken`. If the process has none, the first authenticator installs one that
/// only verifies, for the whole process. A host that also uses `jsonwebtoken` 12 itself enables exactly one of its features `aws_lc_rs` and
/// `rust_crypto`, or installs its provider before.
pub struct JwtAuthenticator {
    keys: JwtKeys,
    issuer: String,
    audiences: Vec<String>,
    clock_skew: Duration,
    person_claim: String,
    person_of: Box<PersonOf>,
    session_claim: String,
    check: Box<Check>,
    sessions: Option<Box<dyn SessionChecker>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuthenticator")
            .field("keys", &self.keys)
            .field("issuer", &self.issuer)
            .field("audiences", &self.audiences)
            .finish_non_exhaustive()
    }
}

impl JwtAuthenticator {
    /// Creates an authenticator of the tokens that `issuer` issues for `audience`.
    ///
    /// Both are compared exactly with the claims `iss` and `aud`, including a slash at the end. One of several audiences in `aud` suffices.
    #[must_use]
    pub fn new(keys: JwtKeys, issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        ring_provider::install();
        Self {
            keys,
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            clock_skew: DEFAULT_CLOCK_SKEW,
            person_claim: "sub".to_owned(),
            person_of: Box::new(|text| text.parse().ok()),
            session_claim: "sid".to_owned(),
            check: Box::new(|_| true),
            sessions: None,
            clock: Arc::new(SystemClock),
        }
    }

    /// Accepts tokens for another audience too.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Sets the tolerated difference between the clocks of the issuer and of this host. Default: 1 min.
    ///
    /// A token, and its streams, end this much after `exp`.
    #[must_use]
    pub const fn with_clock_skew(mut self, skew: Duration) -> Self {
        self.clock_skew = skew;
        self
    }

    /// Sets the name of the claim with the person's id. Default: `sub`.
    #[must_use]
    pub fn with_person_claim(mut self, name: impl Into<String>) -> Self {
        self.person_claim = name.into();
        self
    }

    /// Sets the function that maps the text of the person claim to a person. Default: the text is a UUID.
    ///
    /// A token for which it returns none is refused.
    #[must_use]
    pub fn with_person_of(
        mut self,
        person_of: impl Fn(&str) -> Option<AccountId> + Send + Sync + 'static,
    ) -> Self {
        self.person_of = Box::new(person_of);
        self
    }

    /// Sets the name of the claim that names the session. Default: `sid`.
    #[must_use]
    pub fn with_session_claim(mut self, name: impl Into<String>) -> Self {
        self.session_claim = name.into();
        self
    }

    /// Sets a check of further claims of a verified token, such as a scope. Returning false refuses the token.
    #[must_use]
    pub fn with_check(mut self, check: impl Fn(&Map<String, Value>) -> bool + Send + Sync + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// Sets a check of sessions that can be revoked: it is asked for each request, and every second for live streams.
    ///
    /// [`Principal::session`] is the name of the session.
    #[must_use]
    pub fn with_sessions(mut self, sessions: impl SessionChecker) -> Self {
        self.sessions = Some(Box::new(sessions));
        self
    }

    /// Sets the clock. Default: the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Principal of a token, or the reason why it is refused.
    async fn verify(&self, token: &str) -> Result<Principal, Failure<&'static str>> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Failure::Refused("it is too long"));
        }
        let header =
            decode_header(token).map_err(|_| Failure::Refused("it is no JWT of a known algorithm"))?;
        if !self.keys.allow(header.alg) {
            return Err(Failure::Refused("its algorithm is not allowed"));
        }
        let keys = self.keys.with_id(header.kid.as_deref()).await?;
        let validation = self.validation(header.alg);
        let mut refused = "no key has its id and algorithm";
        for key in keys.iter().filter(|key| key.algorithms.contains(&header.alg)) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(token_data) => return self.principal(token, &token_data.claims).map_err(Failure::Refused),
                // The signature is of this key.
                Err(error) if !matches!(error.kind(), TokenError::InvalidSignature) => {
                    return Err(Failure::Refused(reason(error.kind())));
                }
                Err(error) => refused = reason(error.kind()),
            }
        }
        Err(Failure::Refused(refused))
    }

    /// Checks of `jsonwebtoken`. Times are checked by our clock.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.set_issuer(slice::from_ref(&self.issuer));
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation
    }

    fn principal(&self, token: &str, claims: &Claims) -> Result<Principal, &'static str> {
        let now = self.clock.now();
        let end = claims.get("exp").and_then(time).ok_or("its `exp` is no time")?.plus(self.clock_skew);
        if end <= now {
            return Err("it has expired");
        }
        if let Some(start) = claims.get("nbf")
            && time(start).ok_or("its `nbf` is no time")? > now.plus(self.clock_skew)
        {
            return Err("it is not valid yet");
        }
        let person = claims.get(&self.person_claim).and_then(Value::as_str);
        let person = person.and_then(|text| (self.person_of)(text)).ok_or("it names no person")?;
        if !(self.check)(claims) {
            return Err("the host refuses its claims");
        }
        let name = |claim: &str| claims.get(claim).and_then(Value::as_str).filter(|name| !name.is_empty());
        let session = match name(&self.session_claim).or_else(|| name("jti")) {
            Some(name) => name.to_owned(),
            None => BASE64URL_NOPAD.encode(digest(&[token.as_bytes()]).as_bytes()),
        };
        Ok(Principal::new(person, session).with_expiry(end))
    }
}

/// Time of a `NumericDate` (RFC 7519, section 2): seconds since 1970, also with a fraction.
fn time(value: &Value) -> Option<Timestamp> {
    let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    Some(Timestamp::from_micros(0).plus(seconds))
}

/// Reason of an error. Its own text may contain parts of the token.
const fn reason(error: &TokenError) -> &'static str {
    match error {
        TokenError::InvalidSignature => "its signature is wrong",
        TokenError::InvalidIssuer => "its issuer is another one",
        TokenError::InvalidAudience => "its audience is another one",
        TokenError::MissingRequiredClaim(_) => "it lacks `exp`, `iss` or `aud`",
        _ => "it is malformed",
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        let refused = |reason: &'static str| {
            tracing::debug!(reason, "a token is refused");
            Failure::Refused(Unauthenticated)
        };
        if request.headers.get_all(header::AUTHORIZATION).iter().count() != 1 {
            return Err(refused("the request does not have one `Authorization`"));
        }
        let token = bearer(&request.headers).map_err(|_| refused("the request has no bearer token"))?;
        let principal = self.verify(token.expose()).await.map_err(|failure| match failure {
            Failure::Refused(reason) => refused(reason),
            Failure::Failed(error) => Failure::Failed(error),
        })?;
        match &*self.still_valid(slice::from_ref(&principal)).await? {
            [true] => Ok(principal),
            [false] => Err(refused("its session has ended")),
            _ => Err(Failure::Failed(
                Error::new(ErrorKind::Internal, "check a session")
                    .context("still_valid must return one value for each principal"),
            )),
        }
    }

    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        let mut valid = match &self.sessions {
            Some(sessions) => sessions.still_valid(principals).await?,
            None => vec![true; principals.len()],
        };
        let now = self.clock.now();
        for (valid, principal) in valid.iter_mut().zip(principals) {
            *valid &= !principal.has_expired(now);
        }
        Ok(valid)
    }
}
