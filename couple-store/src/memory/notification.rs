//! Notification preferences in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Error,
    notification::{NotificationChange, NotificationReads, Preferences},
};

use super::{MemoryStore, table::Table};

#[derive(Default)]
pub(super) struct NotificationTables {
    preferences: Table<AccountId, Preferences>,
}

impl NotificationTables {
    pub(super) fn apply(&mut self, change: NotificationChange) -> Result<(), Conflict> {
        match change {
            NotificationChange::Put(preferences) => {
                let person = preferences.person;
                let stored = self.preferences.get(&person).map_or(0, |stored| stored.version);
                if stored != preferences.version {
                    return Err(Conflict::PreferencesChanged(person));
                }
                self.preferences.put(person, Preferences { version: stored + 1, ..preferences });
            }
            NotificationChange::Remove { person } => self.remove(person),
        }
        Ok(())
    }

    /// Removes the preferences of a person.
    pub(super) fn remove(&mut self, person: AccountId) {
        self.preferences.remove(&person);
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.preferences.end(keep);
    }
}

#[async_trait]
impl NotificationReads for MemoryStore {
    async fn preferences(&self, person: AccountId) -> Result<Option<Preferences>, Error> {
        Ok(self.state().notification.preferences.get(&person).cloned())
    }
}
