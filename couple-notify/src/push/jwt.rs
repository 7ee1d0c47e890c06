//! Signing JSON Web Tokens (RFC 7519) for push services.

use couple_core::{Error, ErrorKind};
use data_encoding::BASE64URL_NOPAD;
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::Value;

use super::failure::SendFailure;

/// Private key that signs tokens.
pub(super) enum SigningKey {
    /// `ES256`: ECDSA on the curve P-256 with SHA-256.
    Es256(EcdsaKeyPair),
    /// `RS256`: RSA, PKCS #1 version 1.5, with SHA-256.
    Rs256(rsa::KeyPair),
}

impl SigningKey {
    /// Reads a key for `ES256` from PKCS #8 in PEM format (`BEGIN PRIVATE KEY`).
    pub(super) fn es256(pem: &str, what: &'static str) -> Result<Self, Error> {
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            pkcs8(pem, what)?.secret_pkcs8_der(),
            &SystemRandom::new(),
        );
        let wrong = || Error::new(ErrorKind::Misconfigured, what);
        key.map(Self::Es256).map_err(|error| {
            wrong().context("it must be a private key on the curve P-256").source(error.to_string())
        })
    }

    /// Reads a key for `ES256` from the private number and the uncompressed point of the public key.
    pub(super) fn es256_from_numbers(
        private: &[u8],
        public: &[u8],
        what: &'static str,
    ) -> Result<Self, Error> {
        let key = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            private,
            public,
            &SystemRandom::new(),
        );
        let wrong = || Error::new(ErrorKind::Misconfigured, what);
        key.map(Self::Es256).map_err(|error| {
            wrong().context("it must be a key pair on the curve P-256").source(error.to_string())
        })
    }

    /// Reads a key for `RS256` from PKCS #8 in PEM format.
    pub(super) fn rs256(pem: &str, what: &'static str) -> Result<Self, Error> {
        let key = rsa::KeyPair::from_pkcs8(pkcs8(pem, what)?.secret_pkcs8_der());
        let wrong = || Error::new(ErrorKind::Misconfigured, what);
        key.map(Self::Rs256)
            .map_err(|error| wrong().context("it must be a private RSA key").source(error.to_string()))
    }

    /// Public key: an uncompressed point for `ES256`.
    pub(super) fn public(&self) -> &[u8] {
        match self {
            Self::Es256(key) => key.public_key().as_ref(),
            Self::Rs256(key) => key.public().as_ref(),
        }
    }

    /// Signs claims. `key_id` is written to the header if there is one.
    pub(super) fn token(&self, key_id: Option<&str>, claims: &Value) -> Result<String, SendFailure> {
        let algorithm = match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
        };
        let mut header = serde_json::json!({ "alg": algorithm, "typ": "JWT" });
        if let Some(key_id) = key_id {
            header["kid"] = key_id.into();
        }
        let encode = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
        let mut token = format!("{}.{}", encode(&header), encode(claims));
        let signature = self
            .sign(token.as_bytes())
            .map_err(|_| SendFailure::new(ErrorKind::Internal, "a token cannot be signed"))?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Ok(token)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        // ring accepts its own source of randomness only.
        let random = SystemRandom::new();
        match self {
            Self::Es256(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

fn pkcs8(pem: &str, what: &'static str) -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    // The cause is left out: it can quote the text.
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        Error::new(ErrorKind::Misconfigured, what)
            .context("it must be a private key in PEM format, with BEGIN PRIVATE KEY")
    })
}
