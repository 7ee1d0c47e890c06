//! Identifiers: `UUIDv7` newtypes (RFC 9562, section 5.7) created from an injected clock and entropy.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Entropy};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        ///
        /// A UUIDv7: sorts by the millisecond of its creation. Opaque to clients.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Creates an identifier.
            pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                let mut random = [0; 10];
                entropy.fill(&mut random);
                let millis = u64::try_from(clock.now().micros() / 1000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }
            /// Wraps an identifier that was stored or created elsewhere, for example by a host.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self { Self(id) }
            /// Identifier as stored.
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
    /// Id of an account.
    AccountId;
    /// Id of a session: one device that is signed in.
    SessionId;
    /// Id of a mailed token. Its code and its link are equivalent.
    TokenId;
    /// Id of an invite to pair.
    InviteId;
    /// Id of a couple: two accounts from pairing until one of them leaves.
    CoupleId;
    /// Id of a picture.
    MediaId;
    /// Id of a resumable upload.
    UploadId;
    /// Id of a background job.
    JobId;
}
