//! The logs of couples in memory.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, CoupleId, Error,
    pairing::Side,
    timeline::{Entry, Page, TimelineChange, TimelineReads},
};

use super::{FaultyStore, pairing, table::Table};

#[derive(Default)]
pub(super) struct TimelineTables {
    entries: Table<(CoupleId, i64), Entry>,
    by_client_id: Table<(CoupleId, Side, String), i64>,
}

impl TimelineTables {
    pub(super) fn apply(
        &mut self,
        couples: &mut pairing::PairingTables,
        change: TimelineChange,
    ) -> Result<ChangeResult, Conflict> {
        match change {
            TimelineChange::Append { couple: id, entry } => {
                let mut couple = couples.active_couple(id)?;
                if let (Some(author), Some(client_id)) = (entry.author, &entry.client_id) {
                    let key = (id, author, client_id.clone());
                    if self.by_client_id.has(&key) {
                        return Err(Conflict::ClientIdUsed);
                    }
                    self.by_client_id.put(key, couple.head_seq + 1);
                }
                couple.head_seq += 1;
                let seq = couple.head_seq;
                couples.put_couple(couple);
                self.entries.put((id, seq), entry.at_seq(seq));
                return Ok(ChangeResult::Appended { seq });
            }
            TimelineChange::Edit { couple, seq, author, body, at } => {
                couples.active_couple(couple)?;
                let entry = self.own_entry(couple, seq, author)?;
                self.entries.put((couple, seq), Entry { body: Some(body), edited_at: Some(at), ..entry });
            }
            TimelineChange::Delete { couple, seq, author, at } => {
                couples.active_couple(couple)?;
                let mut entry = self.own_entry(couple, seq, author)?;
                (entry.body, entry.reactions, entry.deleted_at) = (None, [None, None], Some(at));
                self.entries.put((couple, seq), entry);
            }
            TimelineChange::React { couple, seq, side, emoji } => {
                couples.active_couple(couple)?;
                let entry = self.entries.get(&(couple, seq)).filter(|entry| entry.deleted_at.is_none());
                let mut entry = entry.cloned().ok_or(Conflict::EntryClosed(seq))?;
                entry.reactions[side.index()] = emoji;
                self.entries.put((couple, seq), entry);
            }
            TimelineChange::MarkRead { couple: id, side, seq } => {
                let mut couple = couples.active_couple(id)?;
                let read = &mut couple.read[side.index()];
                *read = (*read).max(seq.min(couple.head_seq));
                couples.put_couple(couple);
            }
            TimelineChange::Erase { couple: id, author, at, after, cap } => {
                if couples.couple(id).is_some_and(|couple| couple.ended_at.is_none()) {
                    return Err(Conflict::CoupleLives(id));
                }
                let end = after.saturating_add(i64::from(cap));
                let range = self.log(id).skip_while(|entry| entry.seq <= after);
                let range = range.take_while(|entry| entry.seq <= end);
                let own = |entry: &Entry| entry.author == Some(author) && entry.deleted_at.is_none();
                let reacted = |entry: &Entry| entry.reactions[author.index()].is_some();
                let affected: Vec<Entry> =
                    range.filter(|entry| own(entry) || reacted(entry)).cloned().collect();
                let rows = affected.len() as u64;
                for mut entry in affected {
                    if own(&entry) {
                        if let Some(client_id) = entry.client_id.take() {
                            self.by_client_id.remove(&(id, author, client_id));
                        }
                        (entry.body, entry.reactions, entry.deleted_at) = (None, [None, None], Some(at));
                    } else {
                        entry.reactions[author.index()] = None;
                    }
                    self.entries.put((id, entry.seq), entry);
                }
                return Ok(ChangeResult::RowsAffected(rows));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn own_entry(&self, couple: CoupleId, seq: i64, author: Side) -> Result<Entry, Conflict> {
        let entry = self.entries.get(&(couple, seq));
        let own = entry.filter(|entry| entry.author == Some(author) && entry.deleted_at.is_none());
        own.cloned().ok_or(Conflict::EntryClosed(seq))
    }

    fn log(&self, couple: CoupleId) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.range((couple, i64::MIN)..=(couple, i64::MAX)).map(|(_, entry)| entry)
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.entries.end(keep);
        self.by_client_id.end(keep);
    }
}

#[async_trait]
impl TimelineReads for FaultyStore {
    async fn entries(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<Entry>, Error> {
        let state = self.state()?;
        let wanted = |entry: &&Entry| kind.is_none_or(|kind| entry.kind == kind);
        let limit = limit as usize;
        Ok(match page {
            Page::After(seq) => {
                let log = state.timeline.entries.range((couple, seq.saturating_add(1))..=(couple, i64::MAX));
                log.map(|(_, entry)| entry).filter(wanted).take(limit).cloned().collect()
            }
            Page::Before(seq) => {
                let log = state.timeline.entries.range((couple, i64::MIN)..(couple, seq));
                let mut page: Vec<Entry> =
                    log.rev().map(|(_, entry)| entry).filter(wanted).take(limit).cloned().collect();
                page.reverse();
                page
            }
        })
    }
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error> {
        Ok(self.state()?.timeline.entries.get(&(couple, seq)).cloned())
    }
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error> {
        let tables = &self.state()?.timeline;
        let seq = tables.by_client_id.get(&(couple, author, client_id.to_owned()));
        Ok(seq.and_then(|seq| tables.entries.get(&(couple, *seq))).cloned())
    }
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        let state = self.state()?;
        let by = state.timeline.log(couple).filter(|e| e.author == Some(author) && e.seq > after);
        Ok(by.take(limit as usize).cloned().collect())
    }
    async fn unread(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        except: &[String],
    ) -> Result<u32, Error> {
        let state = self.state()?;
        let log = state.timeline.entries.range((couple, after.saturating_add(1))..=(couple, i64::MAX));
        let unread = log.filter(|(_, entry)| {
            entry.author == Some(author)
                && entry.client_id.is_some()
                && entry.deleted_at.is_none()
                && !except.contains(&entry.kind)
        });
        Ok(u32::try_from(unread.count()).unwrap_or(u32::MAX))
    }
}
