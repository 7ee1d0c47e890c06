//! Keys that verify tokens.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use couple_core::{Error, ErrorKind, Secret};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::remote_keys::RemoteKeys;

/// Maximum number of keys that are read from a JWKS.
const MAX_KEYS: usize = 64;
/// Length of an RSA modulus in bytes: at least that of RFC 7518, section 3.3, and at most that of `ring`.
const RSA_BYTES: RangeInclusive<usize> = 256..=1024;
/// Minimum length of a shared secret in bytes (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Algorithms of the keys of a JWKS.
const PUBLIC_KEY_ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// Keys by which a [`JwtAuthenticator`](super::JwtAuthenticator) verifies tokens.
///
/// A key of a JWKS (RFC 7517) decides which algorithms its tokens may have, never the token alone:
///
/// | key | algorithms |
/// |---|---|
/// | `RSA` of 2048 to 8192 bits | `RS256` and `PS256`, or the one in its `alg` |
/// | `EC` on `P-256`, `P-384` | `ES256`, `ES384` |
/// | `OKP` on `Ed25519` | `EdDSA` |
///
/// Other keys are ignored: other types, curves, algorithms and lengths, symmetric keys, and keys that are not for signatures (`use`,
/// `key_ops`).
///
/// A token is verified by the keys with its `kid`; if there are none, by those without an id. A token without `kid` is verified by each key.
pub struct JwtKeys(Source);

enum Source {
    Fixed(KeySet),
    Remote(RemoteKeys),
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Fixed(_) => "JwtKeys(fixed)",
            Source::Remote(_) => "JwtKeys(fetched)",
        })
    }
}

impl JwtKeys {
    /// Fetches the keys from a URL with a JWKS: the `jwks_uri` of an `OpenID` Connect provider.
    ///
    /// The set is fetched by the first request, and refreshed [periodically](Self::with_refresh_interval) without delaying requests: a request
    /// waits only if there was none for a minute after a refresh was due. A token that no key verifies fetches the set too, and is verified
    /// once more. At most one fetch begins in ten seconds. At most 64 requests with such tokens wait for it, and 512 others.
    ///
    /// The answer is 503 while there is no set that is recent [enough](Self::with_max_stale_age), and for a token that no key verifies but
    /// which may be newer than the set, by its `iat`. A fetch takes at most 5 s and 256 KiB and follows no redirect.
    ///
    /// Certificates are verified by the root certificates of Mozilla.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if the URL is neither `https` nor `http` to a loopback address.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        RemoteKeys::new(url).map(|keys| Self(Source::Remote(keys)))
    }

    /// Reads the keys from the text of a JWKS.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if the text is no JWKS, or none of its keys can verify tokens.
    pub fn from_json(jwks: &str) -> Result<Self, Error> {
        let keys = parse(jwks.as_bytes())
            .map_err(|reason| Error::new(ErrorKind::Misconfigured, "read the JWKS").context(reason))?;
        Ok(Self(Source::Fixed(KeySet::fixed(keys))))
    }

    /// Uses a secret that the issuer shares with this host: tokens have the algorithm `HS256`.
    ///
    /// A program that has the secret can also create tokens. Prefer public keys.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if the secret has less than 32 bytes.
    pub fn from_secret(secret: &Secret<String>) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misconfigured, "read the secret of tokens");
        let secret = secret.expose().as_bytes();
        if secret.len() < MIN_SECRET_BYTES {
            return Err(wrong().context(format!("the secret must have at least {MIN_SECRET_BYTES} bytes")));
        }
        let key = DecodingKey::from_secret(secret).map_err(|error| wrong().source(error))?;
        let key = Key { id: None, algorithms: vec![Algorithm::HS256], key };
        Ok(Self(Source::Fixed(KeySet::fixed(Arc::new([key])))))
    }

    /// Sets the time after which fetched keys are fetched again: at least 10 s, and at most half of the [maximum
    /// age](Self::with_max_stale_age). Default: 10 min.
    ///
    /// A key that the issuer removes is used for up to a minute more than this time, and for up to the [maximum
    /// age](Self::with_max_stale_age) while the keys cannot be fetched.
    #[must_use]
    pub const fn with_refresh_interval(mut self, interval: Duration) -> Self {
        if let Source::Remote(keys) = &mut self.0 {
            keys.refresh_interval = interval;
        }
        self
    }

    /// Sets the time for which the last fetched keys are used while they cannot be fetched again, at least 10 s. Default: 1 h.
    ///
    /// Afterwards requests are answered with 503, until a fetch succeeds.
    #[must_use]
    pub const fn with_max_stale_age(mut self, age: Duration) -> Self {
        if let Source::Remote(keys) = &mut self.0 {
            keys.max_stale_age = age;
        }
        self
    }

    /// Whether a key could have the algorithm.
    pub(super) fn allow(&self, algorithm: Algorithm) -> bool {
        match &self.0 {
            Source::Fixed(set) => set.keys.iter().any(|key| key.algorithms.contains(&algorithm)),
            Source::Remote(_) => PUBLIC_KEY_ALGORITHMS.contains(&algorithm),
        }
    }

    /// Keys that are recent enough.
    pub(super) async fn current(&self) -> Result<KeySet, Error> {
        match &self.0 {
            Source::Fixed(set) => Ok(set.clone()),
            Source::Remote(keys) => keys.current().await,
        }
    }

    /// Keys after a fetch, unless none is allowed now. None if the keys never change.
    pub(super) async fn fetched(&self) -> Option<KeySet> {
        match &self.0 {
            Source::Fixed(_) => None,
            Source::Remote(keys) => keys.fetched().await,
        }
    }
}

/// A key, with the algorithms that its tokens may have.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Keys that were read together.
#[derive(Clone)]
pub(super) struct KeySet {
    keys: Arc<[Key]>,
    /// Begin of the fetch. None if the keys never change.
    fetched: Option<Instant>,
}

impl KeySet {
    const fn fixed(keys: Arc<[Key]>) -> Self {
        Self { keys, fetched: None }
    }

    pub(super) const fn fetched(keys: Arc<[Key]>, at: Instant) -> Self {
        Self { keys, fetched: Some(at) }
    }

    pub(super) fn age(&self) -> Duration {
        self.fetched.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Whether the set has all keys that existed so long before `arrived`.
    pub(super) fn is_newer_than(&self, arrived: Instant, age: Duration) -> bool {
        self.fetched.is_none_or(|at| at + age >= arrived)
    }

    /// Keys that a token with this id may have been signed with.
    pub(super) fn with_id(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let same = id.filter(|id| self.keys.iter().any(|key| key.id.as_deref() == Some(id)));
        self.keys.iter().filter(move |key| id.is_none() || key.id.as_deref() == same)
    }
}

/// Reads the usable keys of a JWKS.
pub(super) fn parse(jwks: &[u8]) -> Result<Arc<[Key]>, &'static str> {
    // Each key is read for itself, so that one of an unknown form does not hide the others.
    #[derive(Deserialize)]
    struct Jwks {
        keys: Vec<serde_json::Value>,
    }
    let Jwks { keys } = serde_json::from_slice(jwks).map_err(|_| "the document is no JWKS")?;
    let keys = keys.into_iter().filter_map(|key| usable(&serde_json::from_value(key).ok()?));
    let keys: Arc<[Key]> = keys.take(MAX_KEYS).collect();
    if keys.is_empty() { Err("the JWKS has no key that can verify tokens") } else { Ok(keys) }
}

/// A key that verifies signatures by one of our algorithms.
///
/// Providers treat a key of a wrong length differently: one refuses the signature, another one panics.
fn usable(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|one| *one == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let have_bytes = |length: usize, coordinates: &[&String]| {
        coordinates.iter().all(|text| text.len() == BASE64URL_NOPAD.encode_len(length))
    };
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 if have_bytes(32, &[&key.x, &key.y]) => vec![Algorithm::ES256],
            EllipticCurve::P384 if have_bytes(48, &[&key.x, &key.y]) => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519 && have_bytes(32, &[&key.x]) =>
        {
            vec![Algorithm::EdDSA]
        }
        _ => return None,
    };
    algorithms.retain(|one| common.key_algorithm.is_none_or(|only| only == KeyAlgorithm::from(*one)));
    let mut key = DecodingKey::from_jwk(jwk).ok()?;
    if let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() {
        key = rsa(n, e)?;
    }
    let is_usable = is_for_signatures && !algorithms.is_empty();
    is_usable.then(|| Key { id: common.key_id.clone(), algorithms, key })
}

/// An RSA key, if `ring` can verify by it.
fn rsa(n: &[u8], e: &[u8]) -> Option<DecodingKey> {
    // Some issuers write a sign byte, which `ring` refuses.
    let trim = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (n, e) = (trim(n), trim(e));
    let exponent = (e.len() <= 5).then(|| e.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))?;
    let is_valid = RSA_BYTES.contains(&n.len())
        && n.last().is_some_and(|byte| byte % 2 == 1)
        && (3..1 << 33).contains(&exponent)
        && exponent % 2 == 1;
    is_valid.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
}
