//! Notification preferences in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Error, TimeZoneName,
    notification::{NotificationChange, NotificationReads, Preferences, QuietHours},
};

use super::{FaultyStore, column::column, table::Table};
use crate::planted;

#[derive(Clone, Default)]
pub(super) struct NotificationTables {
    preferences: Table<AccountId, Preferences>,
}

/// The preferences as they are written.
fn columns(preferences: Preferences, before: Option<&Preferences>) -> Preferences {
    let Preferences { mut kinds, mut previews, .. } = preferences;
    if planted("preferences-of-entries-are-lost") {
        kinds[0] = true;
    }
    if planted("preferences-of-reactions-are-lost") {
        kinds[1] = true;
    }
    if planted("preferences-of-pairing-are-lost") {
        kinds[2] = true;
    }
    if planted("preferences-have-one-kind") {
        kinds = [kinds[0]; 3];
    }
    if planted("preferences-previews-are-lost") {
        previews = false;
    }
    let mut written = Preferences {
        kinds,
        previews,
        muted_until: preferences.muted_until.map(|at| column("preferences-muted-until").time(at)),
        digest_due: preferences.digest_due.map(|at| column("preferences-digest-due").time(at)),
        time_zone: preferences
            .time_zone
            .map(|zone| TimeZoneName::from_stored(column("preferences-time-zone").text(zone.as_str()))),
        version: preferences.version + 1,
        ..preferences
    };
    if planted("preferences-time-zone-is-lost") {
        written.time_zone = None;
    }
    if planted("preferences-digest-is-lost") {
        written.digest = None;
    }
    if planted("preferences-digest-due-needs-a-delay") {
        written.digest_due = written.digest_due.filter(|_| written.digest.is_some());
    }
    if planted("preferences-quiet-hours-are-lost") {
        written.quiet_hours = None;
    }
    if planted("preferences-quiet-hours-are-ordered")
        && let Some(quiet) = written.quiet_hours
    {
        let (from, to) = (i64::from(quiet.from()), i64::from(quiet.to()));
        written.quiet_hours = QuietHours::from_stored(from.min(to), from.max(to));
    }
    if planted("preferences-version-stays") {
        written.version -= 1;
    }
    let Some(before) = before else { return written };
    if planted("preferences-change-keeps-the-silence") {
        written.muted_until = written.muted_until.or(before.muted_until);
    }
    if planted("preferences-change-keeps-quiet-hours") {
        written.quiet_hours = written.quiet_hours.or(before.quiet_hours);
    }
    if planted("preferences-change-keeps-the-digest") {
        written.digest = written.digest.or(before.digest);
    }
    if planted("preferences-change-keeps-the-time-of-the-digest") {
        written.digest_due = written.digest_due.or(before.digest_due);
    }
    if planted("preferences-change-keeps-the-time-zone") {
        written.time_zone = written.time_zone.or_else(|| before.time_zone.clone());
    }
    written
}

impl NotificationTables {
    pub(super) fn apply(&mut self, change: NotificationChange) -> Result<(), Conflict> {
        match change {
            NotificationChange::Put(preferences) => {
                let person = preferences.person;
                let before = self.preferences.get(&person);
                let stored = before.map_or(0, |stored| stored.version);
                let is_read = stored == preferences.version
                    || planted("preferences-version-is-ignored")
                    || (before.is_none() && planted("preferences-without-a-row-have-any-version"))
                    || (stored > preferences.version
                        && planted("preferences-of-an-older-version-are-written"))
                    || (stored < preferences.version
                        && planted("preferences-of-a-newer-version-are-written"));
                if !is_read {
                    return Err(Conflict::PreferencesChanged(person));
                }
                let written = columns(preferences, before);
                if planted("preferences-of-all-persons-change") {
                    let all: Vec<_> = self.preferences.iter().map(|(person, _)| *person).collect();
                    for other in all {
                        self.preferences.put(other, Preferences { person: other, ..written.clone() });
                    }
                }
                self.preferences.put(person, written);
            }
            NotificationChange::Remove { person } => {
                if planted("preferences-removal-of-none-conflicts") && !self.preferences.has(&person) {
                    return Err(Conflict::PreferencesChanged(person));
                }
                if planted("preferences-removal-is-of-all") {
                    let all: Vec<_> = self.preferences.iter().map(|(person, _)| *person).collect();
                    all.into_iter().for_each(|person| self.remove(person));
                } else if planted("preferences-removal-leaves-the-version") {
                    if let Some(stored) = self.preferences.get(&person) {
                        let cleared =
                            Preferences { version: stored.version, ..Preferences::default_of(person) };
                        self.preferences.put(person, cleared);
                    }
                } else if !planted("preferences-removal-removes-nothing") {
                    self.remove(person);
                }
            }
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
impl NotificationReads for FaultyStore {
    async fn preferences(&self, person: AccountId) -> Result<Option<Preferences>, Error> {
        let found = self.state()?.notification.preferences.get(&person).cloned();
        if found.is_none() && planted("preferences-are-never-absent") {
            return Ok(Some(Preferences::default_of(person)));
        }
        Ok(found)
    }
}
