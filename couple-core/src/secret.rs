//! Secrets: values that are never printed, and the key ring that codes and links are derived from.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

/// Value that neither `Debug` nor `Display` shows and that is zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
    /// The wrapped value. The name makes each use easy to find in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<'de> serde::Deserialize<'de> for Secret<String> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// SHA-256 or HMAC-SHA-256 value, the form in which secrets and scopes are stored and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps a stored value.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Compares in constant time.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.ct_eq(&other.0).into()
    }
}

/// SHA-256 of `parts`, each prefixed with its length so that different lists of parts cannot collide.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

/// Secret key of the installation, from which mailed codes, mailed links and invite codes are derived.
///
/// Each derivation also uses the id of a row. So the database never holds a code or a link, and the job that
/// mails one holds only the row's id: a leaked dump or backup contains no usable code or link. Every process
/// of an installation needs the same key ring. Replacing it invalidates mailed codes, mailed links and open
/// invites, and restarts the counts of guesses and known networks, which are stored under keyed digests.
/// Sessions continue.
#[derive(Clone)]
pub struct Keyring(Secret<[u8; 32]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl Keyring {
    /// Creates a key ring from 32 random bytes, which every process of an installation must share.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(Secret::new(key))
    }

    /// HMAC-SHA-256 (RFC 2104) of a purpose and parts.
    #[must_use]
    pub fn derive(&self, purpose: &str, parts: &[&[u8]]) -> Digest {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.expose()).expect("HMAC takes a key of any length");
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Digest(mac.finalize().into_bytes().into())
    }

    /// Bearer token of 192 bits in URL-safe characters, with its kind as a readable prefix.
    #[must_use]
    pub fn bearer(&self, kind: &str, parts: &[&[u8]]) -> Secret<String> {
        let bytes = self.derive(kind, parts);
        Secret::new(format!("{kind}_{}", BASE64URL_NOPAD.encode(&bytes.0[..24])))
    }

    /// Code of six decimal digits.
    #[must_use]
    pub fn six_digits(&self, purpose: &str, parts: &[&[u8]]) -> Secret<String> {
        let bytes = self.derive(purpose, parts);
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes.0[..8]);
        // 2^64 is so much larger than 10^6 that the modulo bias is below 10^-13.
        Secret::new(format!("{:06}", u64::from_be_bytes(eight) % 1_000_000))
    }

    /// Code of `letters` characters of Crockford's base 32 (5 bits each, without look-alikes).
    #[must_use]
    pub fn letters(&self, purpose: &str, parts: &[&[u8]], letters: usize) -> Secret<String> {
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let bytes = self.derive(purpose, parts);
        Secret::new(
            bytes.0.iter().take(letters).map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{:?}", Keyring::new([7; 32])), "Keyring(…)");
    }

    #[test]
    fn digest_depends_on_the_boundaries_of_its_parts() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        let keys = Keyring::new([1; 32]);
        assert_ne!(keys.derive("a", &[b"b"]), keys.derive("ab", &[]));
    }

    #[test]
    fn codes_have_the_declared_length() {
        let keys = Keyring::new([1; 32]);
        for n in 0..100_u32 {
            let code = keys.six_digits("code", &[&n.to_be_bytes()]);
            assert_eq!(code.expose().len(), 6);
            assert!(code.expose().bytes().all(|b| b.is_ascii_digit()));
            assert_eq!(keys.letters("invite", &[&n.to_be_bytes()], 10).expose().len(), 10);
        }
    }
}
