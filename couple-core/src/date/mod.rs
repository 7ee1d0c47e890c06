//! Dates of a couple: anniversaries, birthdays and other days of the calendar, once or every year.
//!
//! A date is a day without a time zone. [`rules`] compute when it begins for a person, from the zone of the person.

mod calendar_day;
mod port;
pub mod rules;
mod service;

pub use calendar_day::CalendarDay;
pub use port::{DateChange, DateReads};
pub use rules::Occurrence;
pub use service::{Birthday, CoupleDates, DateView, Dates};

use std::time::Duration;

use crate::{CoupleId, DateId, Invalid, Label, Timestamp};

/// Kind of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DateKind {
    /// Day on which the couple celebrates an event of their own, for example a wedding.
    Anniversary,
    /// Day on which the members met.
    FirstDate,
    /// Birthday of a person who is no member, for example a child. Members have theirs in their accounts.
    Birthday,
    /// Any other day. It has a title.
    Other,
}

impl DateKind {
    /// All kinds, by [`index`](Self::index).
    pub const ALL: [Self; 4] = [Self::Anniversary, Self::FirstDate, Self::Birthday, Self::Other];

    /// Name as clients get it: `anniversary`, `first_date`, `birthday` or `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anniversary => "anniversary",
            Self::FirstDate => "first_date",
            Self::Birthday => "birthday",
            Self::Other => "other",
        }
    }
    /// Parses the result of [`as_str`](Self::as_str).
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
    /// Number as stored.
    #[must_use]
    pub const fn index(self) -> i64 {
        match self {
            Self::Anniversary => 0,
            Self::FirstDate => 1,
            Self::Birthday => 2,
            Self::Other => 3,
        }
    }
    /// Parses the result of [`index`](Self::index).
    #[must_use]
    pub fn from_index(index: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.index() == index)
    }
}

/// Date of a couple.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoupleDate {
    /// Couple that the date belongs to.
    pub couple: CoupleId,
    /// Id of the date.
    pub id: DateId,
    /// Number of changes, counted from 1; 0 for a date that is not stored yet.
    pub version: i64,
    /// Kind of the date.
    pub kind: DateKind,
    /// Title that a member chose; a date of the kind [`Other`](DateKind::Other) has one.
    pub title: Option<Label>,
    /// Day of the calendar. A date that does not repeat has a year.
    pub day: CalendarDay,
    /// Whether the date repeats every year.
    pub is_yearly: bool,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// Date as a client sends it, not yet checked.
#[derive(Debug, Clone)]
pub struct NewDate {
    /// Name of the [kind](DateKind::as_str).
    pub kind: String,
    /// Title.
    pub title: Option<String>,
    /// Day, `YYYY-MM-DD`, or `--MM-DD` without a year.
    pub day: String,
    /// Whether the date repeats every year.
    pub is_yearly: bool,
}

/// Change of a date as a client sends it: absent fields stay as they are.
#[derive(Debug, Clone, Default)]
pub struct DatePatch {
    /// Version that the client has read; none changes any version.
    pub version: Option<i64>,
    /// Name of the [kind](DateKind::as_str).
    pub kind: Option<String>,
    /// Title; `Some(None)` removes it.
    pub title: Option<Option<String>>,
    /// Day, `YYYY-MM-DD`, or `--MM-DD` without a year.
    pub day: Option<String>,
    /// Whether the date repeats every year.
    pub is_yearly: Option<bool>,
}

crate::options! {
    /// Limits of dates.
    #[derive(Debug, Clone)]
    pub struct DatePolicy {
        /// Sets the maximum number of dates of a couple, at most 200. Default: 100.
        pub(crate) max_dates: u32 = 100, with_max_dates;
    }
}

impl DatePolicy {
    /// Maximum number of dates of a couple.
    #[must_use]
    pub const fn max_dates(&self) -> u32 {
        if self.max_dates < MAX_LISTED { self.max_dates } else { MAX_LISTED }
    }
}

/// Maximum number of dates that a store lists.
const MAX_LISTED: u32 = 200;

/// Error of a date use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DateError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The account is in no couple, or not in the expected one.
    #[error("you are not in a couple")]
    NotPaired,
    /// The couple has no date with this id.
    #[error("there is no such date")]
    NotFound,
    /// The date has another version than the one that the client has read.
    #[error("the date was changed meanwhile; read it again")]
    Changed,
    /// The couple has the maximum number of dates.
    #[error("the couple has {0} dates already; remove one first")]
    TooManyDates(u32),
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many changes; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
}

impl DateError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_field",
            Self::NotPaired => "not_paired",
            Self::NotFound => "date_not_found",
            Self::Changed => "date_changed",
            Self::TooManyDates(_) => "too_many_dates",
            Self::RateLimited(_) => "rate_limited",
            Self::KeyReused => "idempotency_key_reused",
        }
    }
}

from_common_refusals!(DateError);
