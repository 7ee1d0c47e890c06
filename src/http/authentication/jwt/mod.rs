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
use jsonwebtoken::{
    Header, Validation, dangerous::insecure_decode_claims, decode, decode_header,
    errors::ErrorKind as TokenError,
};
pub use keys::JwtKeys;
use keys::KeySet;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Authenticator, Unauthenticated};
use crate::http::extract::bearer;

/// Maximum length of a token in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Default of the tolerated difference of clocks.
const DEFAULT_CLOCK_SKEW: Duration = Duration::from_mins(1);
/// Default of the maximum duration of a stream: the longest lifetime that providers give access tokens by default.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(24);

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
/// * A token that is refused is answered with 401; the reason is logged at level `debug`, nothing of the token is. While it is unknown
///   whether the issuer has a key that verifies the token, the answer is 503: see [`JwtKeys::from_url`].
/// * The audience must name this API. With the client's id as audience, ID tokens are accepted too, unless [`with_type`](Self::with_type)
///   refuses them.
/// * Live streams end when their token does, or after [a time](Self::with_lifetime). The client connects again and resumes.
/// * The session is named by the claim `sid`, which all tokens of a session share; without it by `jti` or by a digest of what the token's
///   signature covers, so that each token is a separate session.
/// * A token cannot be revoked before it ends, unless [`with_sessions`](Self::with_sessions) asks for it.
///
/// The signature is verified by the `CryptoProvider` of `jsonwebtoken`. If the process has none, the first authenticator installs one that
/// only verifies, for the whole process. A host that also uses `jsonwebtoken` 12 itself enables exactly one of its features `aws_lc_rs` and
/// `rust_crypto`, or installs its provider before.
pub struct JwtAuthenticator {
    keys: JwtKeys,
    issuer: String,
    audiences: Vec<String>,
    token_type: Option<String>,
    clock_skew: Duration,
    lifetime: Duration,
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
            token_type: None,
            clock_skew: DEFAULT_CLOCK_SKEW,
            lifetime: DEFAULT_LIFETIME,
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

    /// Requires a type in the header `typ`, such as `at+jwt` of access tokens (RFC 9068). Default: any.
    ///
    /// Types are compared without case, and without the prefix `application/`.
    #[must_use]
    pub fn with_type(mut self, name: impl Into<String>) -> Self {
        self.token_type = Some(name.into());
        self
    }

    /// Sets the maximum duration of a live stream or an upload, after which the client must authenticate again. Default: 24 h.
    ///
    /// The client of a stream reconnects with the same token, if that has not ended.
    #[must_use]
    pub const fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
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
    ///
    /// A token whose claim is neither text nor null is refused.
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
        let (arrived, now) = (Instant::now(), self.clock.now());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Failure::Refused("it is too long"));
        }
        let header =
            decode_header(token).map_err(|_| Failure::Refused("it is no JWT of a known algorithm"))?;
        if !self.keys.allow(header.alg) {
            return Err(Failure::Refused("its algorithm is not allowed"));
        }
        if let Some(required) = &self.token_type
            && !header.typ.as_deref().is_some_and(|typ| subtype(typ).eq_ignore_ascii_case(subtype(required)))
        {
            return Err(Failure::Refused("its type is another one"));
        }
        let mut set = self.keys.current().await?;
        let mut claims = self.claims(token, &header, &set);
        if matches!(claims, Err(Rejection::Unverified(_)))
            && let Some(fetched) = self.keys.fetched().await
        {
            set = fetched;
            claims = self.claims(token, &header, &set);
        }
        match claims {
            Ok(claims) => self.principal(token, &claims).map_err(Failure::Refused),
            // A client forgets its session after 401.
            Err(Rejection::Unverified(_)) if !set.is_newer_than(arrived, self.age(token, now)) => {
                Err(Failure::Failed(
                    Error::new(ErrorKind::Overloaded, "find the key of a token")
                        .context("it may be newer than the JWKS, which cannot be fetched now"),
                ))
            }
            Err(Rejection::Unverified(reason) | Rejection::Invalid(reason)) => Err(Failure::Refused(reason)),
        }
    }

    /// Claims of a token that a key of the set verifies.
    fn claims(&self, token: &str, header: &Header, set: &KeySet) -> Result<Claims, Rejection> {
        let mut validation = Validation::new(header.alg);
        // Times are checked by our clock. An issuer may be an array for `jsonwebtoken`.
        validation.validate_exp = false;
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let mut rejection = Rejection::Unverified("no key has its id and algorithm");
        for key in set.with_id(header.kid.as_deref()).filter(|key| key.algorithms.contains(&header.alg)) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(token_data) => return Ok(token_data.claims),
                Err(error) => rejection = Rejection::of(error.kind()),
            }
            if let Rejection::Invalid(_) = rejection {
                break;
            }
        }
        Err(rejection)
    }

    /// Time from when the token was made, at the latest, until `now`.
    ///
    /// `iat` is not verified: it only decides between 401 and 503.
    fn age(&self, token: &str, now: Timestamp) -> Duration {
        let issued = insecure_decode_claims::<Claims>(token).ok().and_then(|claims| time(claims.get("iat")?));
        issued.map_or(Duration::ZERO, |at| now.since(at.plus(self.clock_skew)))
    }

    fn principal(&self, token: &str, claims: &Claims) -> Result<Principal, &'static str> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("its issuer is another one");
        }
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
        let name = |claim: &str| match claims.get(claim) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if !name.is_empty() => Ok(Some(name.clone())),
            Some(_) => Err("the name of its session is no text"),
        };
        let session = match name(&self.session_claim)? {
            Some(name) => name,
            None => name("jti")?.unwrap_or_else(|| {
                // An ECDSA signature can be changed into another valid one.
                let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
                BASE64URL_NOPAD.encode(digest(&[signed.as_bytes()]).as_bytes())
            }),
        };
        Ok(Principal::new(person, session).with_expiry(end.min(now.plus(self.lifetime))))
    }
}

/// A media type without the prefix that `typ` may omit (RFC 7515, section 4.1.9).
fn subtype(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => typ,
    }
}

/// Time of a `NumericDate` (RFC 7519, section 2): seconds since 1970, also with a fraction.
fn time(value: &Value) -> Option<Timestamp> {
    let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    Some(Timestamp::from_micros(0).plus(seconds))
}

/// Reason why a token is not accepted. It has nothing of the token, as the text of an error may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rejection {
    /// No key verifies the token; another one may.
    Unverified(&'static str),
    /// The token is refused, whatever the key.
    Invalid(&'static str),
}

impl Rejection {
    const fn of(error: &TokenError) -> Self {
        match error {
            TokenError::InvalidAudience => Self::Invalid("its audience is another one"),
            TokenError::MissingRequiredClaim(_) => Self::Invalid("it lacks `exp`, `iss` or `aud`"),
            TokenError::InvalidToken
            | TokenError::InvalidClaimFormat(_)
            | TokenError::Base64(_)
            | TokenError::Json(_)
            | TokenError::Utf8(_) => Self::Invalid("it is malformed"),
            // Other errors are of the signature, or of the key for a provider.
            _ => Self::Unverified("its signature is wrong"),
        }
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
