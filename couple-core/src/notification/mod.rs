//! Notifications: which events a person is notified of by push messages and mail digests, and when.
//!
//! A commit that appends an entry, sets a reaction or creates a couple also enqueues a [`SendPush`] job, if a
//! [`Pusher`](crate::push::Pusher) is configured. The job decides at the moment of sending, by the pure function
//! [`rules::decide`]: nothing is sent to a former partner, of an entry that the person has read, or against the person's
//! [`Preferences`].
//!
//! The same job schedules a [`SendDigest`] job if the person has asked for mail digests. It is decided at the moment of
//! sending, too, by [`rules::decide_digest`].
//!
//! An event that changes what a [glance](crate::glance) shows also enqueues a [`ReloadWidgets`] job, which asks the
//! widgets of the members to read it again, at most once a minute for each device.

mod delivery;
mod digest_job;
mod job;
mod left_mail;
mod person_job;
mod port;
mod reload;
mod report;
pub mod rules;
mod service;
mod text;

pub use digest_job::{SendDigest, SendDigestHandler};
pub use job::{About, NotifyByPush, SendPush, SendPushHandler};
pub use left_mail::{MailOnLeave, PartnerLeftMail, PartnerLeftMailHandler};
pub use person_job::{PersonEvent, SendPersonPush, SendPersonPushHandler};
pub use port::{NotificationChange, NotificationReads};
pub use reload::{
    NotifyWidgets, Readers, ReloadWidget, ReloadWidgetHandler, ReloadWidgets, ReloadWidgetsHandler,
    readers_of,
};
pub use report::{PushObserver, PushOutcome, PushReport};
pub use service::Notifications;
pub use text::{EnglishTexts, Preview, PushMessage, PushTexts};

use std::time::Duration;

use crate::{AccountId, Invalid, TimeZoneName, Timestamp};

/// Kind of event that a person can be notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotificationKind {
    /// The partner has appended an entry.
    Entry,
    /// The partner has reacted to an entry of the person.
    Reaction,
    /// The person's invite was accepted.
    Pairing,
    /// The person has got an invite.
    Invite,
    /// The partner has left.
    PartnerLeft,
}

/// Path of the links that switch digests off, before the token.
pub const UNSUBSCRIBE_PATH: &str = "/open/unsubscribe/";

impl NotificationKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Entry, Self::Reaction, Self::Pairing, Self::Invite, Self::PartnerLeft];

    /// Index of the preference that switches the kind off: entries, reactions, and everything about pairing.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Entry => 0,
            Self::Reaction => 1,
            Self::Pairing | Self::Invite | Self::PartnerLeft => 2,
        }
    }
    /// Name as clients get it: `entry`, `reaction`, `pairing`, `invite` or `partner_left`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Reaction => "reaction",
            Self::Pairing => "pairing",
            Self::Invite => "invite",
            Self::PartnerLeft => "partner_left",
        }
    }
}

/// Daily time during which push messages and digests are delayed, in minutes since midnight of the person's time zone.
///
/// Begins at `from`, ends before `to`, and includes midnight if `to` is less than `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuietHours {
    from: u16,
    to: u16,
}

impl QuietHours {
    /// Minutes of a day.
    pub const MINUTES_PER_DAY: u16 = 24 * 60;

    /// Creates quiet hours from their first minute and the minute after their last one.
    ///
    /// # Errors
    /// [`Invalid`] if one is not below [`MINUTES_PER_DAY`](Self::MINUTES_PER_DAY), or both are equal.
    pub const fn new(from: u16, to: u16) -> Result<Self, Invalid> {
        if from >= Self::MINUTES_PER_DAY || to >= Self::MINUTES_PER_DAY {
            return Err(Invalid::new("quiet_hours", "invalid"));
        }
        if from == to {
            return Err(Invalid::new("quiet_hours", "empty"));
        }
        Ok(Self { from, to })
    }
    /// Quiet hours as stored; none if [`new`](Self::new) refuses them.
    #[must_use]
    pub fn from_stored(from: i64, to: i64) -> Option<Self> {
        Self::new(u16::try_from(from).ok()?, u16::try_from(to).ok()?).ok()
    }
    /// First minute.
    #[must_use]
    pub const fn from(self) -> u16 {
        self.from
    }
    /// Minute after the last one.
    #[must_use]
    pub const fn to(self) -> u16 {
        self.to
    }
    /// Whether a minute of the day belongs to them.
    #[must_use]
    pub const fn contains(self, minute: u16) -> bool {
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }
}

/// Time from an unread entry to the mail digest that reports it, in minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestDelay(u16);

impl DigestDelay {
    /// Shortest delay: 5 minutes.
    pub const MIN_MINUTES: u16 = 5;
    /// Longest delay: a week.
    pub const MAX_MINUTES: u16 = 7 * 24 * 60;

    /// Creates a delay from its minutes.
    ///
    /// # Errors
    /// [`Invalid`] below [`MIN_MINUTES`](Self::MIN_MINUTES) or above [`MAX_MINUTES`](Self::MAX_MINUTES).
    pub const fn new(minutes: u16) -> Result<Self, Invalid> {
        if minutes < Self::MIN_MINUTES || Self::MAX_MINUTES < minutes {
            return Err(Invalid::new("digest_minutes", "out_of_range"));
        }
        Ok(Self(minutes))
    }
    /// Delay as stored; none if [`new`](Self::new) refuses it.
    #[must_use]
    pub fn from_stored(minutes: i64) -> Option<Self> {
        Self::new(u16::try_from(minutes).ok()?).ok()
    }
    /// Minutes.
    #[must_use]
    pub const fn minutes(self) -> u16 {
        self.0
    }
    /// The delay as a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_mins(self.0 as u64)
    }
}

/// Preferences of a person for notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferences {
    /// The person.
    pub person: AccountId,
    /// Number of changes, also of those that schedule a digest; 0 for the defaults, which are not stored.
    pub version: i64,
    /// Whether the person is notified of entries, reactions and pairing, by [index](NotificationKind::index).
    pub kinds: [bool; 3],
    /// Whether push messages and digests show the name and the text of the partner.
    pub previews: bool,
    /// Time until which nothing is sent.
    pub muted_until: Option<Timestamp>,
    /// Daily time during which push messages and digests are delayed.
    pub quiet_hours: Option<QuietHours>,
    /// Time zone of the quiet hours; none for that of the person's profile or device.
    pub time_zone: Option<TimeZoneName>,
    /// Delay of mail digests of unread entries; none without digests.
    pub digest: Option<DigestDelay>,
    /// Time of the digest that is scheduled, or was scheduled last.
    pub digest_due: Option<Timestamp>,
}

impl Preferences {
    /// Preferences of a person who has changed none: every kind, at any time, without the text of the partner, and no
    /// digests.
    #[must_use]
    pub const fn default_of(person: AccountId) -> Self {
        Self {
            person,
            version: 0,
            kinds: [true; 3],
            previews: false,
            muted_until: None,
            quiet_hours: None,
            time_zone: None,
            digest: None,
            digest_due: None,
        }
    }
}

/// Change of preferences as a client sends it: absent fields stay as they are.
#[derive(Debug, Clone, Default)]
pub struct PreferencesPatch {
    /// Whether the person is notified of entries, reactions and pairing, by [index](NotificationKind::index); none keeps
    /// the value.
    pub kinds: [Option<bool>; 3],
    /// Whether push messages show the name and the text of the partner.
    pub previews: Option<bool>,
    /// Time until which nothing is sent; `Some(None)` ends the silence.
    pub muted_until: Option<Option<Timestamp>>,
    /// Quiet hours; `Some(None)` removes them.
    pub quiet_hours: Option<Option<QuietHours>>,
    /// IANA name of a time zone; `Some(None)` uses that of the profile or device.
    pub time_zone: Option<Option<String>>,
    /// Delay of mail digests; `Some(None)` switches them off.
    pub digest: Option<Option<DigestDelay>>,
}

crate::options! {
    /// Delays and lifetimes of push messages, and the events and channels that the host permits.
    #[derive(Debug, Clone)]
    pub struct NotificationPolicy {
        /// Sets the delay of the second look at a person who has a live stream. Default: 60 s.
        ///
        /// A connection that was lost without notice counts as a live stream until it times out. So an entry that such a
        /// person has not read is looked at again after this delay, and pushed if the stream has ended meanwhile.
        pub(crate) second_look: Duration = Duration::from_mins(1), with_second_look;
        /// Sets the time for which a push service keeps a message for a device that it cannot reach. Default: 7 days.
        pub(crate) lifetime: Duration = Duration::from_hours(24 * 7), with_lifetime;
        /// Sets whether persons can ask for mail digests of unread entries. Default: no.
        ///
        /// Every process needs the same value. With digests, the commit that appends an entry enqueues a job in the queue
        /// `push`, also without a pusher.
        pub(crate) digests: bool = false, with_digests;
        /// Sets whether a push message tells a person that the partner has left. Default: no, leaving sends nothing.
        pub(crate) push_on_leave: bool = false, with_push_on_leave;
        /// Sets whether a mail tells a person that the partner has left. Default: no, leaving sends nothing.
        pub(crate) mail_on_leave: bool = false, with_mail_on_leave;
    }
}

impl NotificationPolicy {
    /// Whether persons can ask for mail digests.
    #[must_use]
    pub const fn permits_digests(&self) -> bool {
        self.digests
    }
}

/// Error of a notification use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotificationError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The token of a link that switches digests off is not one of this installation.
    #[error("this link does not work")]
    InvalidToken,
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many changes; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
}

impl NotificationError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_field",
            Self::InvalidToken => "invalid_token",
            Self::RateLimited(_) => "rate_limited",
        }
    }
}

impl From<crate::limits::Limited> for NotificationError {
    fn from(limited: crate::limits::Limited) -> Self {
        Self::RateLimited(limited.retry_after)
    }
}
