//! The logs of couples in memory.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, CoupleId, Error, Timestamp,
    pairing::Side,
    timeline::{Body, Entry, NewEntry, Page, TimelineChange, TimelineReads},
};

use super::{FaultyStore, NIL, column::column, pairing, table::Table};
use crate::planted;

#[derive(Clone, Default)]
pub(super) struct TimelineTables {
    entries: Table<(CoupleId, i64), Entry>,
    by_client_id: Table<(CoupleId, Side, String), i64>,
    /// Positions that conflicts used up, and entries of all logs: for faults.
    wasted: i64,
    appended: i64,
}

/// The same body, as an adapter writes it.
fn written(name: &'static str, body: &Body) -> Body {
    Body::from_stored(column(name).text(body.as_str()))
}

fn other(side: Side) -> Side {
    match side {
        Side::First => Side::Second,
        Side::Second => Side::First,
    }
}

/// The entry as it is written.
fn columns(entry: NewEntry) -> NewEntry {
    let mut entry = NewEntry {
        author: entry.author,
        client_id: entry.client_id.map(|id| column("timeline-client-id").text(&id)),
        kind: column("timeline-kind").text(&entry.kind),
        body: entry.body.map(|body| written("timeline-body", &body)),
        target: entry.target.map(|target| column("timeline-target").number(target)),
        at: column("timeline-created-at").time(entry.at),
    };
    if planted("timeline-author-is-the-other") {
        entry.author = entry.author.map(other);
    }
    if planted("timeline-author-of-system-entries-is-lost") && entry.client_id.is_none() {
        entry.author = None;
    }
    if planted("timeline-entries-without-author-are-of-the-first") {
        entry.author = entry.author.or(Some(Side::First));
    }
    if planted("timeline-kind-and-client-id-are-swapped")
        && let Some(id) = &mut entry.client_id
    {
        std::mem::swap(id, &mut entry.kind);
    }
    if planted("timeline-client-id-of-absence-is-empty") {
        entry.client_id = Some(entry.client_id.unwrap_or_default());
    }
    if planted("timeline-absent-body-is-null") {
        entry.body = Some(entry.body.unwrap_or_else(|| Body::from_stored("null")));
    }
    if planted("timeline-target-is-lost") {
        entry.target = None;
    }
    entry
}

impl TimelineTables {
    pub(super) fn apply(
        &mut self,
        couples: &mut pairing::PairingTables,
        change: TimelineChange,
    ) -> Result<ChangeResult, Conflict> {
        match change {
            TimelineChange::Append { couple: id, entry } => {
                let mut couple = if planted("timeline-ended-log-takes-appends") {
                    couples.couple(id).cloned().ok_or(Conflict::CoupleEnded(id))?
                } else if planted("timeline-log-without-couple-takes-appends") && couples.couple(id).is_none()
                {
                    self.entries.put((id, 1), entry.at_seq(1));
                    return Ok(ChangeResult::Appended { seq: 1 });
                } else {
                    couples.active_couple(id)?
                };
                if let (Some(author), Some(client_id)) = (entry.author, &entry.client_id) {
                    let key = self.key(id, author, client_id);
                    if self.by_client_id.has(&key) && !planted("timeline-client-ids-are-not-unique") {
                        if planted("timeline-conflict-leaves-a-gap") {
                            self.wasted += 1;
                        }
                        return Err(Conflict::ClientIdUsed);
                    }
                    self.by_client_id.put(key, couple.head_seq + 1);
                }
                if planted("timeline-system-entries-share-a-client-id") && entry.client_id.is_none() {
                    let key = (id, Side::First, String::new());
                    if self.by_client_id.has(&key) {
                        return Err(Conflict::ClientIdUsed);
                    }
                    self.by_client_id.put(key, couple.head_seq + 1);
                }
                couple.head_seq += 1;
                self.appended += 1;
                let mut seq = couple.head_seq + self.wasted;
                if planted("timeline-seq-is-of-all-logs") {
                    seq = self.appended;
                }
                if planted("timeline-seq-starts-at-0") {
                    seq -= 1;
                }
                if planted("timeline-seq-skips-every-hundredth") {
                    seq += seq / 100;
                }
                seq = column("timeline-seq").number(seq);
                couple.head_seq = seq;
                if !planted("timeline-head-lags-behind") || seq % 100 != 0 {
                    couples.put_couple(couple);
                }
                self.entries.put((id, seq), columns(entry).at_seq(seq));
                if planted("timeline-append-returns-the-seq-before") {
                    seq -= 1;
                }
                return Ok(ChangeResult::Appended { seq });
            }
            TimelineChange::Edit { couple, seq, author, body, at } => {
                if !planted("timeline-ended-log-takes-edits") {
                    couples.active_couple(couple)?;
                }
                let any =
                    planted("timeline-edit-of-another-author").then(|| self.entries.get(&(couple, seq)));
                let entry = match any.flatten() {
                    Some(entry) => entry.clone(),
                    None => self.own_entry(couple, seq, author, "edit")?,
                };
                let body = written("timeline-edited-body", &body);
                let at = column("timeline-edited-at").time(at);
                let mut edited = Entry { body: Some(body), edited_at: Some(at), ..entry.clone() };
                if entry.edited_at.is_some() {
                    if planted("timeline-second-edit-keeps-the-body") {
                        edited.body = entry.body;
                    }
                    if planted("timeline-second-edit-keeps-the-time") {
                        edited.edited_at = entry.edited_at;
                    }
                }
                if planted("timeline-edit-without-time") {
                    edited.edited_at = entry.edited_at;
                }
                if planted("timeline-edit-moves-the-time-of-append") {
                    edited.created_at = at;
                }
                if planted("timeline-edit-removes-reactions") {
                    edited.reactions = [None, None];
                }
                if planted("timeline-edit-removes-the-target") {
                    edited.target = None;
                }
                self.put_also(&edited, couple, "edit", |entry| Entry { body: edited.body.clone(), ..entry });
                self.entries.put((couple, seq), edited);
            }
            TimelineChange::Delete { couple, seq, author, at } => {
                if !planted("timeline-ended-log-takes-deletions") {
                    couples.active_couple(couple)?;
                }
                let any = planted("timeline-delete-of-another-author")
                    || planted("timeline-second-delete-moves-the-time")
                    || planted("timeline-delete-of-a-missing-entry-succeeds");
                let any = any.then(|| self.entries.get(&(couple, seq)));
                if any == Some(None) && planted("timeline-delete-of-a-missing-entry-succeeds") {
                    return Ok(ChangeResult::Applied);
                }
                let any = any.flatten().filter(|entry| {
                    planted("timeline-delete-of-another-author")
                        || planted("timeline-second-delete-moves-the-time") && entry.author == Some(author)
                });
                let mut entry = match any {
                    Some(entry) => entry.clone(),
                    None => self.own_entry(couple, seq, author, "delete")?,
                };
                let at = column("timeline-deleted-at").time(at);
                self.tombstone(&mut entry, at);
                if planted("timeline-delete-frees-the-client-id")
                    && let Some(client_id) = &entry.client_id
                {
                    let key = self.key(couple, author, client_id);
                    self.by_client_id.remove(&key);
                }
                self.put_also(&entry, couple, "delete", |other| Entry { body: None, ..other });
                self.entries.put((couple, seq), entry);
                if planted("timeline-delete-removes-the-row") {
                    self.entries.remove(&(couple, seq));
                }
            }
            TimelineChange::React { couple, seq, side, emoji } => {
                if !planted("timeline-ended-log-takes-reactions") {
                    couples.active_couple(couple)?;
                }
                let entry = self.entries.get(&(couple, seq)).filter(|entry| {
                    entry.deleted_at.is_none() || planted("timeline-tombstone-takes-reactions")
                });
                let Some(entry) = entry else {
                    if planted("timeline-reaction-to-a-missing-entry-succeeds") {
                        return Ok(ChangeResult::Applied);
                    }
                    return Err(Conflict::EntryClosed(seq));
                };
                let mut entry = entry.clone();
                let index = if planted("timeline-reactions-are-of-the-other-member") {
                    1 - side.index()
                } else if planted("timeline-entry-has-one-reaction") {
                    0
                } else {
                    side.index()
                };
                let emoji = emoji.map(|emoji| column("timeline-reaction").text(&emoji));
                if planted("timeline-first-reaction-stays")
                    && entry.reactions[index].is_some()
                    && emoji.is_some()
                {
                    return Ok(ChangeResult::Applied);
                }
                if planted("timeline-removed-reaction-stays") && emoji.is_none() {
                    return Ok(ChangeResult::Applied);
                }
                if planted("timeline-removed-reaction-removes-both") && emoji.is_none() {
                    entry.reactions = [None, None];
                }
                if planted("timeline-removed-reaction-is-empty") {
                    entry.reactions[index] = Some(emoji.unwrap_or_default());
                } else {
                    entry.reactions[index] = emoji;
                }
                if planted("timeline-reaction-counts-as-an-edit") {
                    entry.edited_at = Some(entry.created_at);
                }
                self.put_also(&entry, couple, "reaction", |other| Entry {
                    reactions: entry.reactions.clone(),
                    ..other
                });
                self.entries.put((couple, seq), entry);
            }
            TimelineChange::MarkRead { couple: id, side, seq } => {
                let mut couple = if planted("timeline-ended-log-takes-read-positions") {
                    couples.couple(id).cloned().ok_or(Conflict::CoupleEnded(id))?
                } else {
                    couples.active_couple(id)?
                };
                let head = couple.head_seq;
                let index = side.index();
                let read = couple.read[index];
                couple.read[index] = if planted("timeline-read-position-moves-back") {
                    seq.min(head).max(0)
                } else if planted("timeline-read-position-passes-the-head") {
                    read.max(seq)
                } else if planted("timeline-read-position-beyond-the-head-is-ignored") {
                    if seq > head { read } else { read.max(seq) }
                } else if planted("timeline-read-position-stays-before-the-head") {
                    read.max(seq.min(head - 1))
                } else if planted("timeline-read-position-moves-by-one") {
                    if seq > read { (read + 1).min(head) } else { read }
                } else {
                    read.max(column("timeline-read-position").number(seq.min(head)))
                };
                if planted("timeline-read-position-is-of-the-other-member") {
                    couple.read.reverse();
                }
                if planted("timeline-read-position-is-of-both-members") {
                    couple.read = [couple.read[index]; 2];
                }
                couples.put_couple(couple);
            }
            TimelineChange::Erase { couple: id, author, at, after, cap } => {
                let active = couples.couple(id).is_some_and(|couple| couple.ended_at.is_none());
                if active && !planted("timeline-erases-active-couples") {
                    return Err(Conflict::CoupleLives(id));
                }
                let mut end = after.saturating_add(i64::from(cap));
                if planted("timeline-erase-ignores-the-cap") {
                    end = i64::MAX;
                }
                if planted("timeline-erase-ends-one-early") {
                    end -= 1;
                }
                if planted("timeline-erase-ends-one-late") {
                    end += 1;
                }
                let start = if planted("timeline-erase-starts-one-early") { after - 1 } else { after };
                let at = column("timeline-erased-at").time(at);
                let range = self.log(id).skip_while(|entry| entry.seq <= start);
                let range = range.take_while(|entry| entry.seq <= end);
                let own = |entry: &Entry| {
                    let by_author = entry.author == Some(author)
                        || planted("timeline-erase-takes-both-members") && entry.author.is_some()
                        || planted("timeline-erase-takes-system-entries") && entry.author.is_none();
                    by_author && (entry.deleted_at.is_none() || planted("timeline-erase-changes-tombstones"))
                };
                let reacted = |entry: &Entry| {
                    entry.reactions[author.index()].is_some() && !planted("timeline-erase-leaves-reactions")
                };
                let mut affected: Vec<Entry> =
                    range.filter(|entry| own(entry) || reacted(entry)).cloned().collect();
                if planted("timeline-erase-takes-the-first-matches") {
                    let log =
                        self.log(id).filter(|entry| entry.seq > after && (own(entry) || reacted(entry)));
                    affected = log.take(cap as usize).cloned().collect();
                }
                let mut rows = affected.len() as u64;
                for mut entry in affected {
                    if own(&entry) {
                        if planted("timeline-erase-counts-reactions-twice") && reacted(&entry) {
                            rows += 1;
                        }
                        if !planted("timeline-erase-leaves-client-ids")
                            && let Some(client_id) = entry.client_id.take()
                        {
                            self.by_client_id.remove(&self.key(id, author, &client_id));
                        }
                        self.tombstone(&mut entry, at);
                    } else {
                        entry.reactions[author.index()] = None;
                        if planted("timeline-erase-takes-the-partners-reactions") {
                            entry.reactions = [None, None];
                        }
                    }
                    self.entries.put((id, entry.seq), entry);
                }
                if planted("timeline-erase-counts-nothing") {
                    rows = 0;
                }
                return Ok(ChangeResult::RowsAffected(rows));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn tombstone(&self, entry: &mut Entry, at: Timestamp) {
        entry.deleted_at = Some(at);
        if !planted("timeline-tombstone-keeps-its-body") {
            entry.body = None;
        }
        if !planted("timeline-tombstone-keeps-reactions") {
            entry.reactions = [None, None];
        }
        if planted("timeline-tombstone-loses-the-time-of-its-edit") {
            entry.edited_at = None;
        }
        if planted("timeline-tombstone-counts-as-edited") {
            entry.edited_at = Some(at);
        }
        if planted("timeline-tombstone-loses-its-kind") {
            entry.kind = "entry_deleted".to_owned();
        }
        if planted("timeline-tombstone-loses-its-author") {
            entry.author = None;
        }
    }

    /// Puts other entries too, as an update without a part of its condition.
    fn put_also(&mut self, entry: &Entry, couple: CoupleId, change: &str, apply: impl Fn(Entry) -> Entry) {
        let others: Vec<_> = match change {
            "edit" if planted("timeline-edit-changes-all-entries-of-the-author") => self
                .log(couple)
                .filter(|one| one.author == entry.author)
                .map(|one| (couple, one.seq))
                .collect(),
            "delete" if planted("timeline-delete-changes-all-entries-of-the-author") => self
                .log(couple)
                .filter(|one| one.author == entry.author)
                .map(|one| (couple, one.seq))
                .collect(),
            "reaction" if planted("timeline-reaction-changes-all-entries") => {
                self.log(couple).map(|one| (couple, one.seq)).collect()
            }
            "edit" if planted("timeline-edit-changes-all-couples") => self.with_seq(entry.seq),
            "delete" if planted("timeline-delete-changes-all-couples") => self.with_seq(entry.seq),
            "reaction" if planted("timeline-reaction-changes-all-couples") => self.with_seq(entry.seq),
            _ => Vec::new(),
        };
        for key in others {
            if let Some(one) = self.entries.get(&key).cloned() {
                self.entries.put(key, apply(one));
            }
        }
    }

    fn with_seq(&self, seq: i64) -> Vec<(CoupleId, i64)> {
        self.entries.iter().map(|(key, _)| *key).filter(|key| key.1 == seq).collect()
    }

    fn key(&self, couple: CoupleId, author: Side, client_id: &str) -> (CoupleId, Side, String) {
        let couple =
            if planted("timeline-client-ids-are-of-all-couples") { CoupleId::from_uuid(NIL) } else { couple };
        let author = if planted("timeline-client-ids-are-of-both-authors") { Side::First } else { author };
        (couple, author, column("timeline-client-id").key(client_id))
    }

    fn own_entry(&self, couple: CoupleId, seq: i64, author: Side, change: &str) -> Result<Entry, Conflict> {
        let entry = self.entries.get(&(couple, seq));
        let own = entry.filter(|entry| {
            let by_author = entry.author == Some(author)
                || change == "edit" && planted("timeline-edit-of-a-system-entry") && entry.author.is_none();
            let open =
                entry.deleted_at.is_none() || change == "edit" && planted("timeline-edit-of-a-tombstone");
            by_author && open
        });
        own.cloned().ok_or(Conflict::EntryClosed(seq))
    }

    /// The couple of a read, or another one for a read without that condition.
    fn of(&self, couple: CoupleId, lost: bool) -> CoupleId {
        let first = self.entries.iter().next().map(|((first, _), _)| *first);
        first.filter(|_| lost).unwrap_or(couple)
    }

    fn log(&self, couple: CoupleId) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.range((couple, i64::MIN)..=(couple, i64::MAX)).map(|(_, entry)| entry)
    }

    fn rewrite(&mut self, change: impl Fn(&mut Entry)) {
        let entries: Vec<_> = self.entries.iter().map(|(key, entry)| (*key, entry.clone())).collect();
        for (key, mut entry) in entries {
            change(&mut entry);
            self.entries.put(key, entry);
        }
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        match kind {
            "-entries" => self.entries = Table::default(),
            "-bodies" => self.rewrite(|entry| entry.body = None),
            "-reactions" => self.rewrite(|entry| entry.reactions = [None, None]),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.entries.end(keep);
        self.by_client_id.end(keep || planted("timeline-conflict-keeps-the-client-id"));
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
        let tables = &state.timeline;
        let couple = tables.of(couple, planted("timeline-pages-are-of-all-couples"));
        let ended = state.pairing.couple(couple).is_some_and(|couple| couple.ended_at.is_some());
        if ended && planted("timeline-ended-log-is-unreadable") {
            return Ok(Vec::new());
        }
        let backwards = matches!(page, Page::Before(_));
        let unfiltered = planted("timeline-page-before-ignores-the-kind") && backwards
            || planted("timeline-page-after-ignores-the-kind") && !backwards;
        let of_kind = |entry: &&Entry| {
            unfiltered || kind.is_none_or(|kind| column("timeline-kind").finds(&entry.kind, kind))
        };
        let late = planted("timeline-kind-is-filtered-after-the-limit");
        let wanted = |entry: &&Entry| {
            (late || of_kind(entry))
                && !(planted("timeline-pages-lack-tombstones") && entry.deleted_at.is_some())
        };
        let mut limit = limit as usize;
        if planted("timeline-page-has-one-more") {
            limit += 1;
        }
        if planted("timeline-page-ignores-its-limit") {
            limit = usize::MAX;
        }
        if planted("timeline-page-has-at-most-100") {
            limit = limit.min(100);
        }
        let log = tables.entries.range((couple, i64::MIN)..=(couple, i64::MAX)).map(|(_, entry)| entry);
        let mut log: Vec<&Entry> = match page {
            Page::After(seq) if planted("timeline-page-after-includes-its-cursor") => {
                log.filter(|entry| entry.seq >= seq).collect()
            }
            Page::After(seq) if planted("timeline-page-after-skips-one") => {
                log.filter(|entry| entry.seq > seq.saturating_add(i64::from(seq > 0))).collect()
            }
            Page::After(seq) => log.filter(|entry| entry.seq > seq).collect(),
            Page::Before(seq) if planted("timeline-page-before-includes-its-cursor") => {
                log.filter(|entry| entry.seq <= seq).collect()
            }
            Page::Before(seq) => log.filter(|entry| entry.seq < seq).collect(),
        };
        if planted("timeline-pages-are-ordered-by-time") {
            log.sort_by_key(|entry| entry.created_at);
        }
        if planted("timeline-page-after-is-ordered-by-time") && !backwards {
            log.sort_by_key(|entry| entry.created_at);
        }
        if backwards && !planted("timeline-page-before-has-the-oldest") {
            log.reverse();
        }
        let mut page: Vec<Entry> = log.into_iter().filter(wanted).take(limit).cloned().collect();
        if late {
            page.retain(|entry| of_kind(&entry));
        }
        if backwards
            && !planted("timeline-page-before-has-the-oldest")
            && !planted("timeline-page-before-starts-with-the-newest")
        {
            page.reverse();
        }
        Ok(page)
    }
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error> {
        let tables = &self.state()?.timeline;
        let couple = tables.of(couple, planted("timeline-entry-is-of-any-couple"));
        let entry = tables.entries.get(&(couple, seq)).cloned();
        Ok(entry.filter(|entry| entry.deleted_at.is_none() || !planted("timeline-entry-hides-tombstones")))
    }
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error> {
        let tables = &self.state()?.timeline;
        let lost = planted("timeline-client-id-is-found-in-any-couple");
        let of_author = |side: Side| side == author || planted("timeline-client-id-is-found-of-any-author");
        let mut found = tables.entries.iter().filter(|((of, _), entry)| {
            (*of == couple || lost)
                && entry.author.is_some_and(of_author)
                && entry
                    .client_id
                    .as_deref()
                    .is_some_and(|id| column("timeline-client-id").finds(id, client_id))
        });
        let entry = found.next().map(|(_, entry)| entry.clone());
        let hidden = planted("timeline-client-id-of-a-tombstone-is-not-found");
        Ok(entry.filter(|entry| entry.deleted_at.is_none() || !hidden))
    }
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        let state = self.state()?;
        let couple = state.timeline.of(couple, planted("timeline-export-is-of-any-couple"));
        let after = if planted("timeline-export-includes-its-cursor") { after - 1 } else { after };
        let mut by: Vec<Entry> = state
            .timeline
            .log(couple)
            .filter(|entry| {
                let by_author = entry.author == Some(author)
                    || planted("timeline-export-is-of-both-authors") && entry.author.is_some()
                    || planted("timeline-export-has-system-entries") && entry.author.is_none();
                by_author
                    && (entry.seq > after || planted("timeline-export-ignores-its-cursor"))
                    && !(planted("timeline-export-lacks-entries-of-the-system-for-the-author")
                        && entry.client_id.is_none())
                    && !(planted("timeline-export-lacks-tombstones") && entry.deleted_at.is_some())
            })
            .cloned()
            .collect();
        if planted("timeline-export-is-ordered-by-time") {
            by.sort_by_key(|entry| entry.created_at);
        }
        if planted("timeline-export-starts-with-the-newest") {
            by.reverse();
        }
        let limit = if planted("timeline-export-ignores-its-limit") { usize::MAX } else { limit as usize };
        by.truncate(limit);
        Ok(by)
    }
    async fn unread(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        except: &[String],
    ) -> Result<u32, Error> {
        let state = self.state()?;
        let couple = state.timeline.of(couple, planted("timeline-unread-are-of-any-couple"));
        let after = if planted("timeline-unread-include-the-position") { after - 1 } else { after };
        let after = if planted("timeline-unread-ignore-the-position") { i64::MIN } else { after };
        let except = if planted("timeline-unread-except-only-one-kind") {
            &except[..except.len().min(1)]
        } else {
            except
        };
        let excepted = |kind: &String| {
            except.iter().any(|except| column("timeline-unread-except").finds(kind, except))
                && !planted("timeline-unread-except-nothing")
        };
        let unread = state.timeline.log(couple).filter(|entry| {
            entry.seq > after
                && (entry.author == Some(author) || planted("timeline-unread-are-of-both-authors"))
                && (entry.client_id.is_some() || planted("timeline-unread-count-system-entries"))
                && (entry.deleted_at.is_none() || planted("timeline-unread-count-tombstones"))
                && (!planted("timeline-unread-lack-edited-entries") || entry.edited_at.is_none())
                && !excepted(&entry.kind)
        });
        let count =
            if planted("timeline-unread-count-to-99") { unread.take(99).count() } else { unread.count() };
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}
