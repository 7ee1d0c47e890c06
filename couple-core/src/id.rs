//! Identifiers: a UUID newtype for each kind of row, and the port that creates them.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Entropy, Timestamp};

/// Port that creates the ids of all rows. An `Arc` of an implementation is an implementation.
///
/// Stores compare ids byte by byte, from the first of 16 to the last, and use them as keys of clustered indexes.
///
/// # Guarantees
/// 1. **G1** Ids are unique: among all threads and processes, also for equal times and after the clock was set back.
/// 2. **G2** Ids are ordered by the millisecond of their time, so that new rows are written at the end of an index.
/// 3. **G3** An id shows no more than its time: its last 62 bits are random, neither a counter nor the id of a process.
pub trait IdGenerator: Send + Sync + 'static {
    /// Creates an id at the time `now`.
    fn generate(&self, now: Timestamp) -> Uuid;
}

impl<G: IdGenerator + ?Sized> IdGenerator for Arc<G> {
    fn generate(&self, now: Timestamp) -> Uuid {
        (**self).generate(now)
    }
}

/// Default [`IdGenerator`]: UUIDs of version 7 (RFC 9562, section 5.7).
///
/// They consist of the time in milliseconds and 74 random bits.
#[derive(Debug, Clone, Copy)]
pub struct UuidV7<E>(E);

impl<E: Entropy> UuidV7<E> {
    /// Creates a generator that takes the random bits from `entropy`.
    pub const fn new(entropy: E) -> Self {
        Self(entropy)
    }
}

impl<E: Entropy> IdGenerator for UuidV7<E> {
    fn generate(&self, now: Timestamp) -> Uuid {
        uuid_v7(now, &self.0)
    }
}

fn uuid_v7(now: Timestamp, entropy: &dyn Entropy) -> Uuid {
    let mut random = [0; 10];
    entropy.fill(&mut random);
    let millis = u64::try_from(now.micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Creates a UUID of version 7, as [`UuidV7`] does.
            ///
            /// Does not use the generator of [`Ports`](crate::Ports).
            pub fn new(clock: &dyn Clock, entropy: &dyn Entropy) -> Self {
                Self(uuid_v7(clock.now(), entropy))
            }
            /// Wraps an identifier that was stored or created elsewhere, for example by a host.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self { Self(id) }
            /// Identifier as stored.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid { self.0 }
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self { Self(id) }
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
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    AccountId;
    /// Id of a session: one device that is signed in.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    SessionId;
    /// Id of a mailed token. Its code and its link are equivalent.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    TokenId;
    /// Id of an invite to pair.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    InviteId;
    /// Id of a couple: two accounts from pairing until one of them leaves.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    CoupleId;
    /// Id of a picture.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    MediaId;
    /// Id of a resumable upload.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    UploadId;
    /// Id of a device of an account, chosen by the installation of the app.
    ///
    /// Unique within the account.
    DeviceId;
    /// Id of a date of a couple, unique within the couple.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    DateId;
    /// Id of a background job.
    ///
    /// Opaque to clients. Services create ids by [`Ports::new_id`](crate::Ports::new_id).
    JobId;
}
