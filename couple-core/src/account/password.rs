//! Passwords and their stored form.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

use crate::{Invalid, Secret};

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
    /// Text to hash: the typed password in the Unicode normal form NFC.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
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

/// Hash of a password: a string that begins with `$` and the name of its algorithm, with parameters and salt. `Debug` hides it.
///
/// [`Argon2id`](super::Argon2id) writes PHC strings.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    /// Wraps a stored or imported hash without checking it.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    /// The hash as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
}
