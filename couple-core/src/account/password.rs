//! Passwords and their stored form.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64_NOPAD;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

use crate::{Digest, Invalid, Secret};

/// Password as typed. Never printed and never stored.
#[derive(Debug, Clone)]
pub struct Password(Secret<String>);

impl Password {
    /// Minimum length in characters where a password is the only factor (NIST SP 800-63B-4, 3.1.1.2).
    pub const MIN_CHARS: usize = 15;
    /// Maximum length in bytes, which bounds the cost of hashing. Passwords are never truncated.
    pub const MAX_BYTES: usize = 1024;

    /// Checks a new password: its length and a block list, no composition rules.
    ///
    /// # Errors
    /// [`Invalid`] with `too_short`, `too_long` or `too_common`.
    pub fn choose(field: &'static str, typed: &Secret<String>, context: &[&str]) -> Result<Self, Invalid> {
        let password = Self::typed(typed).ok_or(Invalid::new(field, "too_long"))?;
        let text = password.0.expose();
        if text.chars().count() < Self::MIN_CHARS {
            return Err(Invalid::new(field, "too_short"));
        }
        if is_common(text, context) {
            return Err(Invalid::new(field, "too_common"));
        }
        Ok(password)
    }

    /// Password for comparison with a stored hash; none if it is longer than any valid password.
    #[must_use]
    pub fn typed(typed: &Secret<String>) -> Option<Self> {
        if typed.expose().len() > Self::MAX_BYTES {
            return None;
        }
        // Normalise, because keyboards differ in the normal form of the same password.
        Some(Self(Secret::new(typed.expose().nfc().collect())))
    }
}

/// Whether a password of valid length is easy to guess.
///
/// Common long passwords consist of repetitions, sequences, well-known words, and the words in `context`: the
/// names of the app and the user, and the local part of the address.
fn is_common(text: &str, context: &[&str]) -> bool {
    /// Words and keyboard rows that long common passwords consist of.
    const COMMON_PASSWORDS: [&str; 28] = [
        "password",
        "passwort",
        "contrasena",
        "motdepasse",
        "qwertyuiop",
        "qwertzuiop",
        "azertyuiop",
        "asdfghjkl",
        "zxcvbnm",
        "1234567890",
        "0123456789",
        "9876543210",
        "letmein",
        "iloveyou",
        "ilovemyself",
        "welcome",
        "monkey",
        "dragon",
        "football",
        "baseball",
        "princess",
        "sunshine",
        "superman",
        "trustno1",
        "administrator",
        "correcthorsebatterystaple",
        "couple",
        "abcdefghijklmnopqrstuvwxyz",
    ];
    let mut rest: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    let distinct = rest.chars().collect::<std::collections::HashSet<_>>().len();
    // Remove every common part: at least five characters must be left.
    for word in COMMON_PASSWORDS.iter().copied().chain(context.iter().copied()) {
        let word: String = word.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
        if word.chars().count() >= 4 {
            rest = rest.replace(&word, "");
        }
    }
    for row in ["1234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "9876543210"] {
        for length in (4..row.len()).rev() {
            for start in 0..=row.len() - length {
                rest = rest.replace(&row[start..start + length], "");
            }
        }
    }
    distinct < 5 || rest.chars().count() < 5
}

/// Hash of a password: a PHC string with its parameters. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    /// Wraps a stored PHC string without checking it.
    pub fn from_stored(phc: impl Into<String>) -> Self {
        Self(phc.into())
    }
    /// PHC string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Parsed password hash: parameters, salt and hash.
pub(super) struct HashParameters {
    params: Params,
    salt: Vec<u8>,
    hash: [u8; 32],
}

impl HashParameters {
    /// Parses a PHC string. Refuses parameters that would make a sign-in use too much memory or time.
    pub(super) fn parse(phc: &PasswordHash) -> Option<Self> {
        let mut parts = phc.0.strip_prefix("$argon2id$v=19$")?.split('$');
        let (params, salt, hash, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let mut params = params.split(',');
        let mut number = |key: &str| params.next()?.strip_prefix(key)?.parse::<u32>().ok();
        let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
        if memory > 1 << 20 || passes > 16 || lanes > 16 {
            return None;
        }
        Some(Self {
            params: Params::new(memory, passes, lanes, Some(32)).ok()?,
            salt: BASE64_NOPAD.decode(salt.as_bytes()).ok()?,
            hash: BASE64_NOPAD.decode(hash.as_bytes()).ok()?.try_into().ok()?,
        })
    }

    pub(super) fn weaker_than(&self, params: &Params) -> bool {
        self.params.m_cost() < params.m_cost() || self.params.t_cost() < params.t_cost()
    }
}

/// Working memory of a hashing thread, reused because fresh pages cost up to a third of a hash.
pub(super) struct HashMemory(Vec<Block>);

impl HashMemory {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    fn raw(&mut self, params: &Params, password: &Password, salt: &[u8]) -> Option<[u8; 32]> {
        if self.0.len() < params.block_count() {
            self.0.resize(params.block_count(), Block::new());
        }
        let mut out = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
            .hash_password_into_with_memory(password.0.expose().as_bytes(), salt, &mut *out, &mut self.0)
            .ok()?;
        Some(*out)
    }

    /// Hashes with a salt; none only for parameters that `Params` does not allow.
    pub(super) fn hash(
        &mut self,
        params: &Params,
        password: &Password,
        salt: &[u8; 16],
    ) -> Option<PasswordHash> {
        let hash = self.raw(params, password, salt)?;
        Some(PasswordHash(format!(
            "$argon2id$v=19$m={},t={},p={}${}${}",
            params.m_cost(),
            params.t_cost(),
            params.p_cost(),
            BASE64_NOPAD.encode(salt),
            BASE64_NOPAD.encode(&hash)
        )))
    }

    pub(super) fn verify(&mut self, stored: &HashParameters, password: &Password) -> bool {
        self.raw(&stored.params, password, &stored.salt)
            .is_some_and(|hash| Digest::from_bytes(hash).same_as(&Digest::from_bytes(stored.hash)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> Result<(), &'static str> {
        Password::choose("p", &Secret::new(text.to_owned()), &["ana", "lovelace"])
            .map(drop)
            .map_err(|e| e.code)
    }

    #[test]
    fn short_long_and_common_passwords_are_refused() {
        assert_eq!(choose("mauve kettle orbit"), Ok(()));
        assert_eq!(choose("пароль из пяти слов"), Ok(()));
        assert_eq!(choose("short"), Err("too_short"));
        assert_eq!(choose(&"xy z".repeat(300)), Err("too_long"));
        for common in [
            "aaaaaaaaaaaaaaa",
            "passwordpassword",
            "password12345678",
            "qwertyuiop123456",
            "123456789012345",
            "LovelaceLovelace1",
            "correct horse battery staple",
            "abababababababab",
        ] {
            assert_eq!(choose(common), Err("too_common"), "{common}");
        }
    }

    #[test]
    fn phc_strings_are_read_back_and_bounded() {
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        let password = Password::typed(&Secret::new("x".to_owned())).unwrap();
        let hash = HashMemory::new().hash(&params, &password, &[7; 16]).unwrap();
        let stored = HashParameters::parse(&hash).unwrap();
        assert!(HashMemory::new().verify(&stored, &password));
        assert!(!HashMemory::new().verify(&stored, &Password::typed(&Secret::new("y".to_owned())).unwrap()));
        assert!(stored.weaker_than(&Params::new(128, 1, 1, Some(32)).unwrap()));
        assert!(HashParameters::parse(&PasswordHash(hash.0.replace("m=64", "m=4000000"))).is_none());
        assert!(HashParameters::parse(&PasswordHash("plain".into())).is_none());
        assert_eq!(format!("{hash:?} {password:?}"), "PasswordHash(…) Password(Secret(…))");
    }

    #[test]
    fn password_matches_in_both_normal_forms() {
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        let composed = Password::typed(&Secret::new("caf\u{e9}".to_owned())).unwrap();
        let decomposed = Password::typed(&Secret::new("cafe\u{301}".to_owned())).unwrap();
        let hash = HashMemory::new().hash(&params, &composed, &[7; 16]).unwrap();
        assert!(HashMemory::new().verify(&HashParameters::parse(&hash).unwrap(), &decomposed));
    }
}
