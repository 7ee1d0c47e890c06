//! Tallies: persistent counts of wrong proofs, and of networks from which an address was proven.

use crate::{Digest, EmailKey, Keyring, Timestamp};

/// Id of a tally. A keyed digest: a leaked database reveals neither e-mail nor client addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TallyId(Digest);

impl TallyId {
    /// Wraps a stored id.
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }
    /// Id as stored.
    #[must_use]
    pub const fn as_digest(&self) -> &Digest {
        &self.0
    }
    /// Tally of wrong passwords for an address from known networks, or from unknown ones.
    #[must_use]
    pub fn passwords(keys: &Keyring, email: &EmailKey, known: bool) -> Self {
        Self::of(keys, if known { "passwords-known" } else { "passwords" }, email, &[])
    }
    /// Tally of wrong passwords of signed-in clients, which repeat the password to confirm an operation.
    #[must_use]
    pub fn repeated_passwords(keys: &Keyring, email: &EmailKey) -> Self {
        Self::of(keys, "passwords-repeated", email, &[])
    }
    /// Tally of wrong mailed codes for an address from known networks, or from unknown ones.
    #[must_use]
    pub fn codes(keys: &Keyring, email: &EmailKey, known: bool) -> Self {
        Self::of(keys, if known { "codes-known" } else { "codes" }, email, &[])
    }
    /// Tally of proofs of an address from one client network.
    #[must_use]
    pub fn client(keys: &Keyring, email: &EmailKey, network: &Digest) -> Self {
        Self::of(keys, "client", email, network.as_bytes())
    }
    /// Tally of an address that is retired: its count is the reason.
    #[must_use]
    pub fn retired(keys: &Keyring, email: &EmailKey) -> Self {
        Self::of(keys, "retired", email, &[])
    }
    fn of(keys: &Keyring, what: &str, email: &EmailKey, more: &[u8]) -> Self {
        Self(keys.derive("tally", &[what.as_bytes(), email.as_str().as_bytes(), more]))
    }
}

/// Count with an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Number of counts since the tally started.
    pub count: i64,
    /// Expiry; afterwards the tally is treated as absent.
    pub expires_at: Timestamp,
}
