//! Identifiers: newtypes over `UUIDv7` (RFC 9562, section 5.7), made from an injected clock and entropy.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Entropy};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        ///
        /// A UUIDv7: sorts by the millisecond it was made in. Opaque to clients.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a fresh identifier.
            pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                let mut random = [0; 10];
                entropy.fill(&mut random);
                let millis = u64::try_from(clock.now().micros() / 1000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }
            /// Takes an identifier that was stored or made elsewhere (a host's own users).
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self { Self(id) }
            /// The identifier as stored.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid { self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> { text.parse().map(Self) }
        }
    )+};
}

ids! {
    /// A person.
    AccountId;
    /// A signed-in device.
    SessionId;
    /// A mailed proof: a code and a link that stand for one another.
    TokenId;
    /// An invitation to pair.
    InviteId;
    /// Two people, from the moment they pair until one leaves.
    CoupleId;
    /// A picture.
    MediaId;
    /// A resumable upload.
    UploadId;
    /// A unit of background work.
    JobId;
}
