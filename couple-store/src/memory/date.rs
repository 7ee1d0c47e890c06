//! Dates of couples in memory.

use async_trait::async_trait;
use couple_core::{
    Conflict, CoupleId, DateId, Error,
    date::{CoupleDate, DateChange, DateReads},
};

use super::{MAX, MemoryStore, NIL, pairing::PairingTables, table::Table};

#[derive(Default)]
pub(super) struct DateTables {
    dates: Table<(CoupleId, DateId), CoupleDate>,
}

impl DateTables {
    pub(super) fn apply(&mut self, couples: &PairingTables, change: DateChange) -> Result<(), Conflict> {
        couples.active_couple(change.couple())?;
        match change {
            DateChange::Put { date, most } => {
                let key = (date.couple, date.id);
                let stored = self.dates.get(&key).map_or(0, |stored| stored.version);
                if stored != date.version {
                    return Err(Conflict::DateChanged(date.id));
                }
                if self.of(date.couple).filter(|other| other.id != date.id).count() >= most as usize {
                    return Err(Conflict::TooManyDates(date.couple));
                }
                self.dates.put(key, CoupleDate { version: stored + 1, ..date });
            }
            DateChange::Remove { couple, id, version } => {
                if self.dates.get(&(couple, id)).map(|stored| stored.version) != Some(version) {
                    return Err(Conflict::DateChanged(id));
                }
                self.dates.remove(&(couple, id));
            }
        }
        Ok(())
    }

    /// Removes all dates of a couple.
    pub(super) fn remove_of(&mut self, couple: CoupleId) {
        let ids: Vec<DateId> = self.of(couple).map(|date| date.id).collect();
        for id in ids {
            self.dates.remove(&(couple, id));
        }
    }

    fn of(&self, couple: CoupleId) -> impl Iterator<Item = &CoupleDate> {
        let range = (couple, DateId::from_uuid(NIL))..=(couple, DateId::from_uuid(MAX));
        self.dates.range(range).map(|(_, date)| date)
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.dates.end(keep);
    }
}

#[async_trait]
impl DateReads for MemoryStore {
    async fn date(&self, couple: CoupleId, id: DateId) -> Result<Option<CoupleDate>, Error> {
        Ok(self.state().date.dates.get(&(couple, id)).cloned())
    }
    async fn dates_of(&self, couple: CoupleId) -> Result<Vec<CoupleDate>, Error> {
        let mut dates: Vec<CoupleDate> = self.state().date.of(couple).cloned().collect();
        dates.sort_by_key(|date| (date.created_at, date.id));
        dates.truncate(200);
        Ok(dates)
    }
}
