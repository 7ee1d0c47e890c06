//! Dates of couples in memory.

use async_trait::async_trait;
use couple_core::{
    Conflict, CoupleId, DateId, Error, Label,
    date::{CalendarDay, CoupleDate, DateChange, DateKind, DateReads},
};

use super::{FaultyStore, MAX, NIL, column::column, pairing::PairingTables, table::Table};
use crate::{plant::planted_kind, planted};

#[derive(Clone, Default)]
pub(super) struct DateTables {
    dates: Table<(CoupleId, DateId), CoupleDate>,
}

/// The date as it is written.
fn columns(date: CoupleDate, before: Option<&CoupleDate>) -> CoupleDate {
    let mut written = CoupleDate {
        version: date.version + 1,
        title: date.title.map(|title| Label::from_stored(column("date-title").text(title.as_str()))),
        created_at: column("date-created-at").time(date.created_at),
        ..date
    };
    if planted("date-version-stays") {
        written.version -= 1;
    }
    if planted("date-kind-is-lost") {
        written.kind = DateKind::Other;
    }
    if planted("date-absent-title-is-empty") {
        written.title = Some(written.title.unwrap_or_else(|| Label::from_stored("")));
    }
    if planted("date-year-is-lost") {
        let text = written.day.to_string();
        let without = format!("-{}", &text[text.len() - 6..]);
        written.day = CalendarDay::from_stored(&without).unwrap_or(written.day);
    }
    if planted("date-leap-day-is-moved") && (written.day.month(), written.day.day()) == (2, 29) {
        let text = written.day.to_string().replace("-29", "-28");
        written.day = CalendarDay::from_stored(&text).unwrap_or(written.day);
    }
    if planted("date-repetition-is-lost") {
        written.is_yearly = false;
    }
    let Some(before) = before else { return written };
    if planted("date-change-keeps-the-kind") {
        written.kind = before.kind;
    }
    if planted("date-change-keeps-the-title") {
        written.title = written.title.or_else(|| before.title.clone());
    }
    if planted("date-change-keeps-the-day") {
        written.day = before.day;
    }
    if planted("date-change-keeps-the-repetition") {
        written.is_yearly = before.is_yearly;
    }
    if planted("date-change-keeps-the-time") {
        written.created_at = before.created_at;
    }
    written
}

impl DateTables {
    pub(super) fn apply(&mut self, couples: &PairingTables, change: DateChange) -> Result<(), Conflict> {
        let adds = matches!(&change, DateChange::Put { date, .. } if date.version == 0);
        let unchecked = match &change {
            DateChange::Put { .. } if adds => planted("date-addition-ignores-the-end"),
            DateChange::Put { .. } => planted("date-change-ignores-the-end"),
            DateChange::Remove { .. } => planted("date-removal-ignores-the-end"),
        };
        let missing_is_accepted =
            planted("date-of-a-missing-couple-is-added") && couples.couple(change.couple()).is_none();
        let version_first = planted("date-version-is-checked-before-the-end");
        if !unchecked && !missing_is_accepted && !version_first {
            couples.active_couple(change.couple())?;
        }
        match change {
            DateChange::Put { date, most } => {
                let key = (date.couple, date.id);
                let before = self.dates.get(&key).cloned();
                let stored = before.as_ref().map_or(0, |stored| stored.version);
                let is_read = stored == date.version
                    || planted("date-version-is-ignored")
                    || (before.is_none() && planted("date-without-a-row-has-any-version"))
                    || (stored > date.version && planted("date-of-an-older-version-is-written"))
                    || (stored < date.version && planted("date-of-a-newer-version-is-written"));
                if !is_read {
                    return Err(Conflict::DateChanged(date.id));
                }
                if version_first {
                    couples.active_couple(date.couple)?;
                }
                let counts = |other: &CoupleDate| {
                    (other.couple == date.couple || planted("date-limit-is-of-all-couples"))
                        && (other.id != date.id || planted("date-limit-counts-the-changed-one"))
                };
                let mut others = self.dates.values().filter(|other| counts(other)).count();
                if planted("date-limit-is-one-more") {
                    others = others.saturating_sub(1);
                }
                if others >= most as usize && !planted("date-limit-is-ignored") {
                    return Err(Conflict::TooManyDates(date.couple));
                }
                if planted("date-id-has-one-couple") {
                    let id = date.id;
                    self.remove_matching(|other| other.id == id);
                }
                self.dates.put(key, columns(date, before.as_ref()));
            }
            DateChange::Remove { couple, id, version } => {
                let stored = self.dates.get(&(couple, id)).map(|stored| stored.version);
                let is_read = stored == Some(version)
                    || planted("date-removal-ignores-the-version")
                    || (stored.is_none() && planted("date-removal-of-a-missing-one-succeeds"));
                if !is_read {
                    return Err(Conflict::DateChanged(id));
                }
                if planted("date-removal-ignores-the-couple") {
                    self.remove_matching(|date| date.id == id);
                } else if !planted("date-removal-removes-nothing") {
                    self.dates.remove(&(couple, id));
                }
            }
        }
        Ok(())
    }

    /// Removes all dates of a couple whose member is replaced.
    pub(super) fn remove_of(&mut self, couple: CoupleId) {
        if planted("anonymize-keeps-dates") {
            return;
        }
        let all = planted("anonymize-removes-all-dates");
        let kept = self.of(couple).next().map(|date| date.id).filter(|_| planted("anonymize-keeps-one-date"));
        self.remove_matching(|date| all || (date.couple == couple && Some(date.id) != kept));
    }

    /// Removes the dates of a couple that ends.
    pub(super) fn couple_ended(&mut self, couple: CoupleId) {
        if planted("date-ends-with-its-couple") {
            self.remove_matching(|date| date.couple == couple);
        }
    }

    fn remove_matching(&mut self, matches: impl Fn(&CoupleDate) -> bool) {
        let keys: Vec<_> = self.dates.iter().filter(|(_, date)| matches(date)).map(|(key, _)| *key).collect();
        for key in keys {
            self.dates.remove(&key);
        }
    }

    fn of(&self, couple: CoupleId) -> impl Iterator<Item = &CoupleDate> {
        let range = (couple, DateId::from_uuid(NIL))..=(couple, DateId::from_uuid(MAX));
        self.dates.range(range).map(|(_, date)| date)
    }

    /// Forgets rows of one kind.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        if kind == "-dates" {
            self.remove_matching(|_| true);
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.dates.end(keep);
    }
}

#[async_trait]
impl DateReads for FaultyStore {
    async fn date(&self, couple: CoupleId, id: DateId) -> Result<Option<CoupleDate>, Error> {
        let state = self.state()?;
        if planted("date-is-found-by-id-alone") {
            return Ok(state.date.dates.values().find(|date| date.id == id).cloned());
        }
        Ok(state.date.dates.get(&(couple, id)).cloned())
    }
    async fn dates_of(&self, couple: CoupleId) -> Result<Vec<CoupleDate>, Error> {
        let state = self.state()?;
        let all = planted("date-list-has-all-couples");
        let mut dates: Vec<CoupleDate> =
            state.date.dates.values().filter(|date| all || date.couple == couple).cloned().collect();
        if planted("date-list-is-by-id") {
            dates.sort_by_key(|date| date.id);
        } else if planted("date-list-is-newest-first") {
            dates.sort_by_key(|date| (std::cmp::Reverse(date.created_at), date.id));
        } else if planted("date-list-of-one-time-is-unordered") {
            dates.sort_by_key(|date| (date.created_at, std::cmp::Reverse(date.id)));
        } else {
            dates.sort_by_key(|date| (date.created_at, date.id));
        }
        if planted_kind("date-list") == Some("-has-the-last") && dates.len() > 200 {
            dates = dates.split_off(dates.len() - 200);
        }
        dates.truncate(column("date-list").limit(200));
        Ok(dates)
    }
}
