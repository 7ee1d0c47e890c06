//! Provider tokens of APNs: JSON Web Tokens that are renewed as Apple demands.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use couple_core::{Clock, Error, ErrorKind, Timestamp};
use hyper::header::HeaderValue;
use serde_json::json;

use super::{failure::SendFailure, jwt::SigningKey};

/// Age at which a token is renewed. APNs refuses tokens that are older than an hour.
const MAX_AGE: Duration = Duration::from_mins(40);
/// Minimum time between two tokens: APNs answers 429 `TooManyProviderTokenUpdates` to a provider that renews more often.
const MIN_INTERVAL: Duration = Duration::from_mins(20);

/// Token with the time at which it was made.
pub(super) struct ProviderToken {
    /// Value of the header `authorization`.
    ///
    /// Not marked as sensitive, so that HTTP/2 sends it in full once per connection only, as Apple recommends.
    pub(super) header: HeaderValue,
    made_at: Timestamp,
    made_after: Duration,
}

impl ProviderToken {
    /// Age by the clock that shows more: the monotonic one may stop while the system sleeps. The wall clock before the
    /// time in the token was corrected since, so the token is as good as expired.
    fn age(&self, clock: &dyn Clock) -> Duration {
        let now = clock.now();
        if now < self.made_at {
            return Duration::MAX;
        }
        now.since(self.made_at).max(clock.monotonic().saturating_sub(self.made_after))
    }
}

/// Makes the tokens of one key.
pub(super) struct ProviderTokens {
    key: SigningKey,
    key_id: String,
    team_id: String,
    current: Mutex<Option<Arc<ProviderToken>>>,
}

impl ProviderTokens {
    pub(super) fn new(key: SigningKey, key_id: &str, team_id: &str) -> Result<Self, Error> {
        for (name, id) in [("key id", key_id), ("team id", team_id)] {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(Error::new(ErrorKind::Misconfigured, "APNs key")
                    .context(format!("the {name} must consist of letters and digits")));
            }
        }
        let (key_id, team_id) = (key_id.to_owned(), team_id.to_owned());
        Ok(Self { key, key_id, team_id, current: Mutex::default() })
    }

    /// Current token: the same for all requests until it is renewed.
    pub(super) fn current(&self, clock: &dyn Clock) -> Result<Arc<ProviderToken>, SendFailure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = current.as_ref().filter(|token| token.age(clock) < MAX_AGE) {
            return Ok(token.clone());
        }
        let token = self.make(clock)?;
        Ok(current.insert(token).clone())
    }

    /// Token that replaces one that APNs has called expired.
    ///
    /// # Errors
    /// Unavailable with the remaining time if a new token is not allowed yet.
    pub(super) fn replace(
        &self,
        expired: &Arc<ProviderToken>,
        clock: &dyn Clock,
    ) -> Result<Arc<ProviderToken>, SendFailure> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = current.as_ref().filter(|token| !Arc::ptr_eq(token, expired)) {
            return Ok(token.clone());
        }
        let age = expired.age(clock);
        if age < MIN_INTERVAL {
            let message = "APNs calls a new provider token expired: check the clock of the system";
            return Err(SendFailure::unavailable(message).retry_after(Some(MIN_INTERVAL - age)));
        }
        let token = self.make(clock)?;
        Ok(current.insert(token).clone())
    }

    fn make(&self, clock: &dyn Clock) -> Result<Arc<ProviderToken>, SendFailure> {
        let now = clock.now();
        let claims = json!({ "iss": self.team_id, "iat": now.micros().div_euclid(1_000_000) });
        let token = self.key.token(Some(&self.key_id), &claims)?;
        let header = HeaderValue::try_from(format!("bearer {token}"))
            .map_err(|_| SendFailure::new(ErrorKind::Internal, "a token is not a header value"))?;
        Ok(Arc::new(ProviderToken { header, made_at: now, made_after: clock.monotonic() }))
    }
}

#[cfg(test)]
mod tests {
    use couple_core::ManualClock;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };

    use super::*;

    fn tokens() -> ProviderTokens {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap();
        ProviderTokens::new(SigningKey::Es256(key), "KEY1234567", "TEAM123456").unwrap()
    }

    #[test]
    fn token_is_renewed_after_20_to_60_minutes() {
        let (tokens, clock) = (tokens(), ManualClock::default());
        let first = tokens.current(&clock).unwrap();
        clock.advance(Duration::from_mins(39));
        assert!(Arc::ptr_eq(&first, &tokens.current(&clock).unwrap()));
        clock.advance(Duration::from_mins(1));
        let second = tokens.current(&clock).unwrap();
        assert!(first.header != second.header);
        assert!(Arc::ptr_eq(&second, &tokens.current(&clock).unwrap()));
    }

    #[test]
    fn expired_token_is_replaced_once_and_not_within_20_minutes() {
        let (tokens, clock) = (tokens(), ManualClock::default());
        let first = tokens.current(&clock).unwrap();
        clock.advance(Duration::from_mins(19));
        assert!(tokens.replace(&first, &clock).is_err());
        clock.advance(Duration::from_mins(1));
        let second = tokens.replace(&first, &clock).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        // A request that was sent with the first token meanwhile.
        assert!(Arc::ptr_eq(&second, &tokens.replace(&first, &clock).unwrap()));
    }

    #[test]
    fn token_from_the_future_is_renewed() {
        let (tokens, clock) = (tokens(), ManualClock::default());
        let first = tokens.current(&clock).unwrap();
        clock.set(Timestamp::from_micros(clock.now().micros() - 1));
        assert!(!Arc::ptr_eq(&first, &tokens.current(&clock).unwrap()));
    }

    #[test]
    fn ids_are_letters_and_digits() {
        for (key_id, team_id) in [("", "TEAM"), ("KEY", ""), ("KEY\n", "TEAM"), ("KEY", "T E")] {
            assert!(ProviderTokens::new(tokens().key, key_id, team_id).is_err());
        }
    }
}
