//! Secrets: values that do not print, and the key ring that mailed codes and links are derived from.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

/// A value that neither `Debug` nor `Display` shows and that is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }
    /// The value. Named so that each use can be found and looked at.
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

/// A SHA-256 or HMAC-SHA-256 value: how secrets and scopes are stored and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes a stored value.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// Compares in a time that does not depend on where they differ.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq as _;
        self.0.ct_eq(&other.0).into()
    }
}

/// SHA-256 over `parts`, each prefixed with its length so that no two lists of parts collide.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

/// The server's own secret. Mailed codes, mailed links and invite codes are derived from it and a row's id.
///
/// So the database never holds them, and a job that mails one carries only the row's id: a dump
/// of the database, of its jobs or of a backup holds nothing that could be used. Every process of one
/// installation needs the same key ring; a new one ends what is in the mail, and nothing else.
#[derive(Clone)]
pub struct Keyring(Secret<[u8; 32]>);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl Keyring {
    /// A key ring over 32 bytes from the operating system, the same in every process.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(Secret::new(key))
    }

    /// HMAC-SHA-256 (RFC 2104) over a purpose and parts.
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

    /// A bearer secret of 192 bits in URL-safe characters, with a prefix that tells its kind to a reader.
    #[must_use]
    pub fn bearer(&self, kind: &str, parts: &[&[u8]]) -> Secret<String> {
        let bytes = self.derive(kind, parts);
        Secret::new(format!("{kind}_{}", BASE64URL_NOPAD.encode(&bytes.0[..24])))
    }

    /// Six decimal digits.
    #[must_use]
    pub fn six_digits(&self, purpose: &str, parts: &[&[u8]]) -> Secret<String> {
        let bytes = self.derive(purpose, parts);
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes.0[..8]);
        // 2^64 is so much larger than 10^6 that the remainder's bias is below 10^-13.
        Secret::new(format!("{:06}", u64::from_be_bytes(eight) % 1_000_000))
    }

    /// `letters` characters of an alphabet without look-alikes, 5 bits each (Crockford's base 32).
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
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{:?}", Keyring::new([7; 32])), "Keyring(…)");
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        let keys = Keyring::new([1; 32]);
        assert_ne!(keys.derive("a", &[b"b"]), keys.derive("ab", &[]));
    }

    #[test]
    fn codes_have_their_shape() {
        let keys = Keyring::new([1; 32]);
        for n in 0..100_u32 {
            let code = keys.six_digits("code", &[&n.to_be_bytes()]);
            assert_eq!(code.expose().len(), 6);
            assert!(code.expose().bytes().all(|b| b.is_ascii_digit()));
            assert_eq!(keys.letters("invite", &[&n.to_be_bytes()], 10).expose().len(), 10);
        }
    }
}
