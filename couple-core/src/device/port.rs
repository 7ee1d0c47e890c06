//! Device changes and reads that a store supports.

use async_trait::async_trait;

use super::Device;
use crate::{AccountId, DeviceId, Digest, Error, Timestamp};

/// Changes to devices, which are identified by account and id together.
///
/// Changes of sessions remove devices too: see [`AccountChange`](crate::account::AccountChange).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "`Change` has variants of this size")]
pub enum DeviceChange {
    /// Adds a device, or replaces the one with its account and id.
    ///
    /// Removes every other device that has its destination, of whichever account.
    ///
    /// Preconditions, in this order: the session that it names exists
    /// ([`SessionEnded`](crate::Conflict::SessionEnded)); after the change its account has at most `most` devices
    /// ([`TooManyDevices`](crate::Conflict::TooManyDevices)).
    Put {
        /// The device.
        device: Device,
        /// Maximum number of devices of the account, this one included.
        most: u32,
    },
    /// Removes a device, if it exists.
    Remove {
        /// Account of the device.
        account: AccountId,
        /// Id of the device.
        id: DeviceId,
    },
    /// Removes all devices of an account.
    RemoveOf {
        /// Account of the devices.
        account: AccountId,
    },
    /// Removes the device that has a destination, unless it was registered after `not_after`.
    Retire {
        /// [Digest](crate::push::Destination::digest) of the destination.
        destination: Digest,
        /// Time from which the push service knows that the destination is gone.
        not_after: Timestamp,
    },
}

/// Reads of devices, with the guarantees that a store must give.
///
/// * **DV1** Every field of a device reads back as it was written, alone and in the list, and registering it again
///   replaces every field. A token has up to 4,096 bytes, an endpoint 2,048, the id of an app 255 bytes, a version
///   of the app 64 characters; a store keeps each time to the microsecond, before 1970 and after 2038 too.
/// * **DV2** A destination belongs to one device: registering it removes it from every other device. Of 50
///   concurrent registrations of one destination, one is left. Tokens that differ in any byte do not affect each
///   other.
/// * **DV3** An account never has more devices than `most`: of 50 concurrent registrations as many succeed as fit.
///   Devices of other accounts do not count, nor does one that is replaced or loses its destination.
/// * **DV4** A device is registered only for a session that exists, if it names one. The commit that ends, purges or
///   erases a session removes the devices that it registered, and no others; erasing an account removes all of its
///   devices.
/// * **DV5** Devices of an account, and of no other, are listed by the time of their registration, the earliest
///   first, then by id; at most 200.
/// * **DV6** Retiring a destination removes its device if it was registered at or before the given time, and no
///   other device.
/// * **DV7** An id belongs to the account: two accounts can have devices of one id. Removing affects only devices of
///   the given account, and is no conflict if there is none.
#[async_trait]
pub trait DeviceReads: Send + Sync {
    /// Device of an account with this id.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn device(&self, account: AccountId, id: DeviceId) -> Result<Option<Device>, Error>;
    /// Devices of an account, ordered by the time of their registration, then by id, at most 200.
    async fn devices_of(&self, account: AccountId) -> Result<Vec<Device>, Error>;
}
