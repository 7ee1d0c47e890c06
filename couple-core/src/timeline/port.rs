//! What the timeline needs of a store.

use async_trait::async_trait;

use super::{Body, Entry, NewEntry};
use crate::{CoupleId, Error, Timestamp, pairing::Side};

/// Changes to a couple's log and read positions. Each has the precondition that the couple lives
/// ([`CoupleEnded`](crate::Conflict::CoupleEnded)), but for erasing, which has its opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineChange {
    /// Appends an entry and gives it the next `seq`. Precondition: its author has not used its client id
    /// ([`ClientIdUsed`](crate::Conflict::ClientIdUsed)).
    Append {
        /// Whose log.
        couple: CoupleId,
        /// What.
        entry: NewEntry,
    },
    /// Replaces a body. Precondition, here and below: the entry exists, is no tombstone and is `author`'s
    /// ([`EntryClosed`](crate::Conflict::EntryClosed)). Of two concurrent edits the later one stays: each replaces the whole body.
    Edit {
        /// Whose log.
        couple: CoupleId,
        /// Which entry.
        seq: i64,
        /// Whose it must be.
        author: Side,
        /// What it says now.
        body: Body,
        /// When.
        at: Timestamp,
    },
    /// Makes an entry a tombstone: body and reactions go.
    Delete {
        /// Whose log.
        couple: CoupleId,
        /// Which entry.
        seq: i64,
        /// Whose it must be.
        author: Side,
        /// When.
        at: Timestamp,
    },
    /// Sets or removes the reaction of one member. Precondition: the entry exists and is no tombstone.
    React {
        /// Whose log.
        couple: CoupleId,
        /// Which entry.
        seq: i64,
        /// Who reacts.
        side: Side,
        /// None takes it back.
        emoji: Option<String>,
    },
    /// Moves a read position forward, up to the newest entry; never back, whatever was read before.
    MarkRead {
        /// Whose log.
        couple: CoupleId,
        /// Who read.
        side: Side,
        /// Up to here.
        seq: i64,
    },
    /// Erases the entries and reactions of one member in a range of the log, and counts the changed entries.
    ///
    /// The member's entries become tombstones without client ids, and the member's reactions to the partner's entries are removed. It
    /// touches no entry outside the range, so its cost is bounded by `cap` however long the log is. Precondition: the couple has ended
    /// ([`CoupleLives`](crate::Conflict::CoupleLives)).
    Erase {
        /// Couple whose log is erased.
        couple: CoupleId,
        /// Member whose entries and reactions are erased.
        author: Side,
        /// Deletion time of the tombstones.
        at: Timestamp,
        /// The range begins after this `seq`; 0 for the beginning of the log.
        after: i64,
        /// Length of the range: it ends with the `seq` `after + cap`.
        cap: u32,
    },
}

/// Which part of a log to read, in `seq` order either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The first `limit` entries with a greater `seq`.
    After(i64),
    /// The last `limit` entries with a smaller `seq`.
    Before(i64),
}

/// What the timeline reads.
///
/// * **T1** `seq` starts at 1 and rises by one, gapless, under concurrent writers of one couple.
/// * **T2** A reader that follows with [`Page::After`] sees every entry once, in order, while writers append.
/// * **T3** A client id is used once per author: of 50 appends at once one succeeds; the other author may use the same.
/// * **T4** An aborted commit leaves no gap.
/// * **T5** Entries read back as they were written, every field, any Unicode.
/// * **T6** Pages go both ways, keep `seq` order, respect `limit` and filter by kind.
/// * **T7** Editing replaces the author's own body, never another's, never a tombstone's.
/// * **T8** Deleting leaves a tombstone without body and reactions at the same `seq`.
/// * **T9** A reaction is per side; a second replaces the first; none takes it back.
/// * **T10** A read position never moves back nor past the newest entry.
/// * **T11** Nothing can be written to an ended couple; what it holds can be read.
/// * **T12** Erasing changes only one member's entries and reactions, only in the given range of an ended couple's log, and
///   counts them; consecutive ranges up to the head of the log erase everything. A living couple's log is not changed.
/// * **T13** Couples do not see one another's entries.
/// * **T14** Unread entries are those that the author appended under a client id after a position and did not delete.
#[async_trait]
pub trait TimelineReads: Send + Sync {
    /// Up to `limit` entries in `seq` order, of one kind if `kind` is given.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn entries(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<Entry>, Error>;
    /// One entry.
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error>;
    /// The entry that an author named so.
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error>;
    /// Up to `limit` entries of one author after `seq`, for an export.
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error>;
    /// How many entries with a greater `seq` than `after` the author appended under a client id, tombstones aside. The caller keeps
    /// `after` near the newest entry: the adapter reads what lies between.
    async fn unread(&self, couple: CoupleId, author: Side, after: i64) -> Result<u32, Error>;
}

#[async_trait]
impl<S: TimelineReads + ?Sized> TimelineReads for std::sync::Arc<S> {
    async fn entries(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<Entry>, Error> {
        (**self).entries(couple, page, limit, kind).await
    }
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error> {
        (**self).entry(couple, seq).await
    }
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error> {
        (**self).entry_by_client_id(couple, author, client_id).await
    }
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        (**self).entries_by(couple, author, after, limit).await
    }
    async fn unread(&self, couple: CoupleId, author: Side, after: i64) -> Result<u32, Error> {
        (**self).unread(couple, author, after).await
    }
}
