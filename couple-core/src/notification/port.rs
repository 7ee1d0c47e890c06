//! Changes and reads of notification preferences that a store supports.

use async_trait::async_trait;

use super::Preferences;
use crate::{AccountId, Error};

/// Changes to notification preferences.
///
/// [Erasing](crate::account::AccountChange::Erase) an account removes its preferences too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotificationChange {
    /// Replaces the preferences of a person, and increments their version.
    ///
    /// Precondition: the stored version, 0 if nothing is stored, is that of the given preferences
    /// ([`PreferencesChanged`](crate::Conflict::PreferencesChanged)).
    Put(Preferences),
    /// Removes the preferences of a person, if there are any.
    Remove {
        /// The person.
        person: AccountId,
    },
}

/// Reads of notification preferences, with the guarantees that a store must give.
///
/// * **N1** Every field reads back as it was written, alone and together with all others, and a change replaces every
///   field. A store keeps each time to the microsecond, before 1970 and after 2038 too, and a time zone has up to 64
///   bytes. The version is one higher than the written one.
/// * **N2** Preferences change only if their version is the stored one, or 0 if nothing is stored: of 50 concurrent
///   changes after the same read one succeeds.
/// * **N3** Removing preferences, or erasing the account, removes those of the person and no others. Afterwards the
///   version is 0 again. Removing none is no conflict.
#[async_trait]
pub trait NotificationReads: Send + Sync {
    /// Preferences of a person; none if nothing is stored.
    ///
    /// # Errors
    /// Errors of the store.
    async fn preferences(&self, person: AccountId) -> Result<Option<Preferences>, Error>;
}
