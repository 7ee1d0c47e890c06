//! Timeline changes and reads that a store supports.

use async_trait::async_trait;

use super::{Body, Entry, NewEntry};
use crate::{CoupleId, Error, Timestamp, pairing::Side};

/// Changes to the log and the read positions of a couple.
///
/// Each has the precondition that the couple has not ended ([`CoupleEnded`](crate::Conflict::CoupleEnded)),
/// except [`Erase`](Self::Erase), which requires that it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineChange {
    /// Appends an entry with the next `seq`.
    ///
    /// Precondition: its author has not used its client id ([`ClientIdUsed`](crate::Conflict::ClientIdUsed)).
    Append {
        /// Couple of the log.
        couple: CoupleId,
        /// Entry to append.
        entry: NewEntry,
    },
    /// Replaces the body of an entry. Of two concurrent edits the later one wins.
    ///
    /// Precondition, here and below: the entry exists, is no tombstone and has this author
    /// ([`EntryClosed`](crate::Conflict::EntryClosed)).
    Edit {
        /// Couple of the log.
        couple: CoupleId,
        /// `seq` of the entry.
        seq: i64,
        /// Author that the entry must have.
        author: Side,
        /// New body.
        body: Body,
        /// Time of the edit.
        at: Timestamp,
    },
    /// Makes an entry a tombstone: removes its body and reactions.
    Delete {
        /// Couple of the log.
        couple: CoupleId,
        /// `seq` of the entry.
        seq: i64,
        /// Author that the entry must have.
        author: Side,
        /// Time of the deletion.
        at: Timestamp,
    },
    /// Sets or removes the reaction of one member. Precondition: the entry exists and is no tombstone.
    React {
        /// Couple of the log.
        couple: CoupleId,
        /// `seq` of the entry.
        seq: i64,
        /// Member who reacts.
        side: Side,
        /// New reaction; none removes it.
        emoji: Option<String>,
    },
    /// Moves a read position forward, at most to the newest entry. Never moves it back.
    MarkRead {
        /// Couple of the log.
        couple: CoupleId,
        /// Member who has read.
        side: Side,
        /// `seq` of the last entry that was read.
        seq: i64,
    },
    /// Erases the entries and reactions of one member in a range of the log.
    ///
    /// The commit returns the number of changed entries.
    ///
    /// The member's entries become tombstones without client ids, and the member's reactions to the partner's
    /// entries are removed. Entries outside the range are not read, so `cap` bounds the cost however long the
    /// log is. Precondition: the couple has ended ([`CoupleLives`](crate::Conflict::CoupleLives)).
    Erase {
        /// Couple of the log.
        couple: CoupleId,
        /// Member whose entries and reactions are erased.
        author: Side,
        /// Deletion time of the tombstones.
        at: Timestamp,
        /// The range starts after this `seq`; 0 for the beginning of the log.
        after: i64,
        /// Length of the range: it ends with the `seq` `after + cap`.
        cap: u32,
    },
}

/// Range of a log to read. Entries are in `seq` order in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The first `limit` entries with a greater `seq`.
    After(i64),
    /// The last `limit` entries with a smaller `seq`.
    Before(i64),
}

/// Reads of the timeline, with the guarantees that a store must give.
///
/// * **T1** The `seq` of each log starts at 1 and has no gaps, also with concurrent writers of one couple. It
///   grows beyond 32 bits.
/// * **T2** A reader that follows with [`Page::After`] sees every entry once, in order, while others append.
/// * **T3** An author uses a client id once: of 50 concurrent appends one succeeds. The other author may use
///   the same id, and ids that differ in case, accents or a blank are different.
/// * **T4** A commit that fails leaves no gap, and its client ids stay unused.
/// * **T5** Every field of an entry reads back as it was written, with any Unicode text: client ids, kinds and
///   reactions of up to 64 bytes, and bodies of up to 17 KiB (16 KiB from a client, and the state of a picture
///   that the system adds). A store keeps each time to the microsecond, before 1970 and after 2038 too.
/// * **T6** Pages in both directions keep `seq` order, whatever the times of the entries, respect `limit` and
///   filter by exactly one kind. Tombstones are part of them.
/// * **T7** An edit replaces the body and the time of edit of the author's own entry, and nothing else; never
///   those of the partner's entry or of a tombstone.
/// * **T8** A deletion leaves a tombstone without body and reactions at the same `seq`. Its other fields,
///   including the client id, stay.
/// * **T9** Each member has one reaction per entry; a new one replaces it, and setting none removes it. A
///   tombstone takes none.
/// * **T10** A read position never moves back, nor past the newest entry.
/// * **T11** Nothing is written to the log of an ended couple; its entries can be read.
/// * **T12** Erasing changes and counts only one member's entries and reactions, only in the given range of
///   an ended couple's log. Consecutive ranges up to the head of the log erase everything. The log of an
///   active couple does not change.
/// * **T13** Reads of a couple never return entries of another couple.
/// * **T14** Unread entries are those that the author appended with a client id after a position, that are no
///   tombstones, and whose kind is not excluded.
#[async_trait]
pub trait TimelineReads: Send + Sync {
    /// Up to `limit` entries in `seq` order, of one kind if `kind` is given.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn entries(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<Entry>, Error>;
    /// Entry with this `seq`.
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error>;
    /// Entry of an author with this client id.
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error>;
    /// Up to `limit` entries of one author after the `seq` `after`, for an export.
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error>;
    /// Number of an author's entries with a client id after the `seq` `after`, without tombstones and kinds in `except`.
    ///
    /// The caller keeps `after` close to the newest entry, because the adapter reads all entries in between.
    async fn unread(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        except: &[String],
    ) -> Result<u32, Error>;
}
