//! Changes and reads of dates that a store supports.

use async_trait::async_trait;

use super::CoupleDate;
use crate::{CoupleId, DateId, Error};

/// Changes to the dates of couples, which are identified by couple and id together.
///
/// [Replacing](crate::pairing::PairingChange::Anonymize) an erased member of an ended couple removes its dates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DateChange {
    /// Adds a date, or replaces the one with its couple and id, and increments its version.
    ///
    /// Preconditions, in this order: the couple exists and has not ended
    /// ([`CoupleEnded`](crate::Conflict::CoupleEnded)); the stored version, 0 if there is no such date, is that of the
    /// given date ([`DateChanged`](crate::Conflict::DateChanged)); after the change the couple has at most `most` dates
    /// ([`TooManyDates`](crate::Conflict::TooManyDates)).
    Put {
        /// The date.
        date: CoupleDate,
        /// Maximum number of dates of the couple, this one included.
        most: u32,
    },
    /// Removes a date.
    ///
    /// Preconditions, in this order: the couple exists and has not ended
    /// ([`CoupleEnded`](crate::Conflict::CoupleEnded)); the date has this version
    /// ([`DateChanged`](crate::Conflict::DateChanged)).
    Remove {
        /// Couple of the date.
        couple: CoupleId,
        /// Id of the date.
        id: DateId,
        /// Version as it was read.
        version: i64,
    },
}

impl DateChange {
    /// Couple of the date.
    #[must_use]
    pub const fn couple(&self) -> CoupleId {
        match self {
            Self::Put { date, .. } => date.couple,
            Self::Remove { couple, .. } => *couple,
        }
    }
}

/// Reads of dates, with the guarantees that a store must give.
///
/// * **DA1** Every field of a date reads back as it was written, alone and in the list, and a change replaces every
///   field. The version is one higher than the written one. A title has up to 200 characters; a store keeps each time to
///   the microsecond, before 1970 and after 2038 too.
/// * **DA2** A date changes, and is removed, only if its version is the stored one, or 0 if it is not stored: of 50
///   concurrent changes after the same read one succeeds.
/// * **DA3** A couple never has more dates than `most`: of 50 concurrent additions as many succeed as fit. Dates of other
///   couples do not count, and a change of a stored date succeeds with `most` dates.
/// * **DA4** Dates of an ended couple stay and do not change: of a change and the end of the couple at the same time, the
///   change is either before the end or conflicts.
/// * **DA5** Dates of a couple, and of no other, are listed by the time of their creation, the earliest first, then by
///   id; at most 200.
/// * **DA6** An id belongs to the couple: two couples can have dates of one id, and a change affects only the date of its
///   couple.
/// * **DA7** The commit that replaces an erased member of an ended couple removes all dates of that couple and of no
///   other.
#[async_trait]
pub trait DateReads: Send + Sync {
    /// Date of a couple with this id.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn date(&self, couple: CoupleId, id: DateId) -> Result<Option<CoupleDate>, Error>;
    /// Dates of a couple, ordered by the time of their creation, then by id, at most 200.
    async fn dates_of(&self, couple: CoupleId) -> Result<Vec<CoupleDate>, Error>;
}
