//! Counts that outlive a process: wrong proofs of an address, and networks from which it was proven.

use crate::{Digest, EmailKey, Keyring, Timestamp, account::TokenKind};

/// Key of a count. Derived with the key ring: a leaked database reveals neither e-mail addresses nor client addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TallyId(Digest);

impl TallyId {
    /// Takes a stored key.
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }
    /// The key as stored.
    #[must_use]
    pub const fn as_digest(&self) -> &Digest {
        &self.0
    }
    /// Wrong passwords for an address by clients from known networks, or from others.
    #[must_use]
    pub fn passwords(keys: &Keyring, email: &EmailKey, known: bool) -> Self {
        Self::of(keys, if known { "passwords-known" } else { "passwords" }, email, &[])
    }
    /// Wrong mailed codes of one kind for an address.
    #[must_use]
    pub fn codes(keys: &Keyring, email: &EmailKey, kind: TokenKind) -> Self {
        Self::of(keys, "codes", email, kind.as_str().as_bytes())
    }
    /// Proofs of an address from one client network.
    #[must_use]
    pub fn client(keys: &Keyring, email: &EmailKey, network: &Digest) -> Self {
        Self::of(keys, "client", email, network.as_bytes())
    }
    fn of(keys: &Keyring, what: &str, email: &EmailKey, more: &[u8]) -> Self {
        Self(keys.derive("tally", &[what.as_bytes(), email.as_str().as_bytes(), more]))
    }
}

/// A count with an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Number of counts since it began.
    pub count: i64,
    /// End; afterwards the count is treated as absent.
    pub expires_at: Timestamp,
}
