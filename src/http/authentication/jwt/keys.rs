//! Keys that verify tokens.

use std::{fmt, sync::Arc, time::Duration};

use couple_core::{Error, ErrorKind, Secret};
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use super::remote_keys::RemoteKeys;

/// Maximum number of keys that are read from a JWKS.
const MAX_KEYS: usize = 64;
/// Minimum length of an RSA modulus in bytes (RFC 7518, section 3.3).
const MIN_RSA_BYTES: usize = 256;
/// Minimum length of a shared secret in bytes (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

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
/// Other keys are ignored: other types, curves and algorithms, symmetric keys, and keys that are not for signatures (`use`, `key_ops`).
pub struct JwtKeys(Source);

enum Source {
    Fixed(Arc<[Key]>),
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
    /// The set is fetched by the first request, and refreshed [periodically](Self::with_refresh_interval) without delaying requests. A token
    /// with an unknown `kid` fetches it too, but not within ten seconds of another attempt. The last set is kept while it cannot be
    /// fetched; until there is one, requests fail with 503. A fetch takes at most 5 s and 256 KiB and follows no redirect.
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
        Ok(Self(Source::Fixed(keys)))
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
        Ok(Self(Source::Fixed(Arc::new([Key { id: None, algorithms: vec![Algorithm::HS256], key }]))))
    }

    /// Sets the time after which fetched keys are fetched again, at least 10 s. Default: 10 min.
    ///
    /// A key that the issuer removes is used for up to this time.
    #[must_use]
    pub const fn with_refresh_interval(mut self, interval: Duration) -> Self {
        if let Source::Remote(keys) = &mut self.0 {
            keys.refresh_interval = interval;
        }
        self
    }

    /// Whether a key could have the algorithm.
    pub(super) fn allow(&self, algorithm: Algorithm) -> bool {
        match &self.0 {
            Source::Fixed(keys) => keys.iter().any(|key| key.algorithms.contains(&algorithm)),
            Source::Remote(_) => algorithm != Algorithm::HS256,
        }
    }

    /// Keys with this id; empty if there are none.
    ///
    /// A key without an id matches each id, and a token without an id matches each key.
    pub(super) async fn with_id(&self, id: Option<&str>) -> Result<Matches, Error> {
        match &self.0 {
            Source::Fixed(keys) => Ok(Matches::of(keys.clone(), id)),
            Source::Remote(keys) => keys.with_id(id).await,
        }
    }
}

/// A key, with the algorithms that its tokens may have.
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Keys of a set that a token may have been signed with.
pub(super) struct Matches {
    set: Arc<[Key]>,
    indexes: Vec<usize>,
}

impl Matches {
    pub(super) fn of(set: Arc<[Key]>, id: Option<&str>) -> Self {
        let matches = |key: &Key| id.zip(key.id.as_deref()).is_none_or(|(one, other)| one == other);
        let indexes =
            set.iter().enumerate().filter(|(_, key)| matches(key)).map(|(index, _)| index).collect();
        Self { set, indexes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.indexes.iter().map(|index| &self.set[*index])
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
fn usable(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let is_for_signatures = common.public_key_use.as_ref().is_none_or(|one| *one == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![Algorithm::RS256, Algorithm::PS256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => vec![Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => vec![Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        _ => return None,
    };
    algorithms.retain(|one| common.key_algorithm.is_none_or(|only| only == KeyAlgorithm::from(*one)));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let is_long_enough = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().skip_while(|byte| **byte == 0).count() >= MIN_RSA_BYTES
        }
        DecodingKeyKind::SecretOrDer(_) => true,
    };
    let is_usable = is_for_signatures && is_long_enough && !algorithms.is_empty();
    is_usable.then(|| Key { id: common.key_id.clone(), algorithms, key })
}
