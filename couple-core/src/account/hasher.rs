//! Port that hashes passwords.

use std::sync::Arc;

use super::{Password, PasswordHash};
use crate::Error;

/// Port that hashes and verifies passwords. An `Arc` of an implementation is an implementation.
///
/// The methods block. A [`HashingPool`](super::HashingPool) calls them on its threads, and bounds the number of concurrent calls and of
/// waiting passwords. A panic fails only the call in which it happens.
///
/// # Guarantees
/// 1. **H1** A hash matches the password that it was computed from, and no other: the text is never truncated.
/// 2. **H2** The hash depends on the salt: equal passwords of two accounts have different hashes.
/// 3. **H3** A hash begins with `$`, has at most 255 printable ASCII characters without spaces, and does not contain the password.
/// 4. **H4** A new hash needs no rehash.
/// 5. **H5** A stored text that is no hash of a known algorithm is an error of kind [`Corrupt`](crate::ErrorKind::Corrupt).
/// 6. **H6** A wrong password takes as long as the right one: the whole hash is computed for both.
/// 7. **H7** A hash that was imported from another system matches its password and needs a rehash.
///
/// A sign-in to an address without an account verifies a hash made by [`hash`](Self::hash), so it takes as long as one to an
/// account whose hash needs no rehash. Until an imported hash is replaced, the time of a wrong password can show that the account was
/// imported: choose parameters of [`hash`](Self::hash) with which both algorithms take about the same time.
pub trait PasswordHasher: Send + Sync + 'static {
    /// Hashes a password with a salt of random bytes that is used once.
    ///
    /// # Errors
    /// Any failure of the algorithm. The text of an error must not contain the password: it may be logged.
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error>;

    /// Whether the password matches a stored hash.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for a text that is no hash of a known algorithm, or whose parameters would
    /// take too much memory or time.
    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error>;

    /// Whether a sign-in must replace a stored hash, because its algorithm or its parameters are outdated.
    ///
    /// Called after each match, on a hashing thread, so it must be fast compared with a hash.
    fn needs_rehash(&self, hash: &PasswordHash) -> bool;
}

impl<H: PasswordHasher + ?Sized> PasswordHasher for Arc<H> {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        (**self).hash(password, salt)
    }
    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        (**self).verify(hash, password)
    }
    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        (**self).needs_rehash(hash)
    }
}
