//! Glance: what a widget or a watch face shows of a couple, in one small answer with a version.
//!
//! Everything that a glance shows of the couple changes together with an entry of the couple's log, in the same
//! commit: entries and their changes, pictures that become ready, names and avatars of built-in accounts, the
//! anniversary. So the row of the couple, with `head_seq` and the read position, is a version of all of it, and one
//! read of the store is enough to tell that nothing has changed. See [`rules::version`] for what else counts.

pub mod rules;
mod service;

pub use service::Glances;

use crate::{
    AccountId, DisplayName, TimeZoneName,
    media::{Media, Rendition},
    pairing::{Couple, Side},
    timeline::Entry,
};

/// Member of an active couple who looks at a glance.
#[derive(Debug, Clone)]
pub struct GlanceReader {
    /// Current couple of the member.
    pub couple: Couple,
    /// Side of the member.
    pub side: Side,
    /// Time zone of the member's calendar days; UTC if it is not known.
    pub time_zone: Option<TimeZoneName>,
    /// Name of the partner in the directory of a host; none with built-in accounts, whose names change with an entry.
    pub host_name: Option<DisplayName>,
}

impl GlanceReader {
    /// Account of the member.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.couple.member(self.side)
    }

    /// Account of the partner.
    #[must_use]
    pub const fn partner(&self) -> AccountId {
        self.couple.member(self.side.other())
    }
}

/// Content of a glance.
#[derive(Debug, Clone)]
pub struct Glance {
    /// Name of the partner; none if the account was deleted.
    pub partner_name: Option<DisplayName>,
    /// Avatar of the partner, if it is ready to be shown.
    pub avatar: Option<ShownPicture>,
    /// Newest photo of the couple that is ready to be shown, by either member.
    pub photo: Option<GlancePhoto>,
    /// Newest entry of the kind `mood` by the partner.
    pub mood: Option<Entry>,
    /// Number of days since the anniversary or the pairing: see [`rules::days_together`].
    pub days_together: i64,
    /// Number of unread entries of the partner that count.
    pub unread: u32,
}

/// Picture that is ready, with its renditions.
#[derive(Debug, Clone)]
pub struct ShownPicture {
    /// The picture.
    pub media: Media,
    /// Renditions that have been made.
    pub renditions: Vec<Rendition>,
}

/// Photo of a glance.
#[derive(Debug, Clone)]
pub struct GlancePhoto {
    /// Entry that names the photo.
    pub entry: Entry,
    /// The photo.
    pub picture: ShownPicture,
}
