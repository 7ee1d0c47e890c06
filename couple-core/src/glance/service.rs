//! Use case of glances.

use std::sync::Arc;

use super::{Glance, GlancePhoto, GlanceReader, ShownPicture, rules};
use crate::{
    AccountId, Error, Failure, MediaId, Ports, TimeZoneName,
    media::{Media, MediaState},
    pairing::{Couple, Directory, Side},
    timeline::{Entry, PHOTO, Page, Timeline, TimelineError, rules as timeline_rules},
};

/// Kind of the entries that tell the mood of a member.
const MOOD: &str = "mood";
/// Number of entries of a kind that one read looks at.
const PAGE_SIZE: u32 = 20;
/// Number of such reads: the newest photo and mood are looked for among the newest 200 of their kind.
const MAX_PAGES: usize = 10;

/// Service for glances.
#[derive(Clone)]
pub struct Glances {
    ports: Ports,
    directory: Arc<dyn Directory>,
    timeline: Timeline,
    /// Whether the directory is that of a host, where a name changes without an entry.
    is_host: bool,
}

impl std::fmt::Debug for Glances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Glances").field("is_host", &self.is_host).finish_non_exhaustive()
    }
}

impl Glances {
    /// Creates the service. `is_host`: the directory is that of a host, not the built-in accounts.
    #[must_use]
    pub const fn new(ports: Ports, directory: Arc<dyn Directory>, timeline: Timeline, is_host: bool) -> Self {
        Self { ports, directory, timeline, is_host }
    }

    /// The member of an active couple. `couple` is the current couple of the account.
    ///
    /// # Errors
    /// [`TimelineError::NotPaired`]; errors of the directory of a host.
    pub async fn reader(
        &self,
        account: AccountId,
        couple: Option<Couple>,
        time_zone: Option<TimeZoneName>,
    ) -> Result<GlanceReader, Failure<TimelineError>> {
        let couple = couple.filter(|couple| couple.ended_at.is_none());
        let member = couple.and_then(|couple| couple.side_of(account).map(|side| (couple, side)));
        let (couple, side) = member.ok_or(Failure::Refused(TimelineError::NotPaired))?;
        let mut reader = GlanceReader { couple, side, time_zone, host_name: None };
        if self.is_host {
            let profile = self.directory.profile(reader.partner()).await?;
            reader.host_name = profile.map(|profile| profile.display_name);
        }
        Ok(reader)
    }

    /// What a member sees. It is never older than the [version](rules::version) of the same reader.
    ///
    /// # Errors
    /// Errors of the store and the directory.
    pub async fn read(&self, reader: &GlanceReader) -> Result<Glance, Error> {
        let GlanceReader { couple, side, time_zone, .. } = reader;
        let store = &self.ports.store;
        let partner_name = match &reader.host_name {
            Some(name) => Some(name.clone()),
            None => self.directory.profile(reader.partner()).await?.map(|profile| profile.display_name),
        };
        let avatar = match store.avatar_of(reader.partner()).await? {
            Some(media) => self.shown(media).await?,
            None => None,
        };
        let (photo, mood) = (self.photo(couple).await?, self.mood(couple, side.other()).await?);
        let now = self.ports.now();
        Ok(Glance {
            partner_name,
            avatar,
            photo,
            mood,
            days_together: rules::days_together(
                couple.since,
                couple.anniversary.as_deref(),
                time_zone.as_ref(),
                now,
            ),
            unread: self.timeline.unread(couple, *side).await?,
        })
    }

    /// Whether a picture is one of those that the member sees in a glance now.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn shows(&self, reader: &GlanceReader, picture: MediaId) -> Result<bool, Error> {
        let avatar = self.ports.store.avatar_of(reader.partner()).await?;
        if avatar.is_some_and(|avatar| avatar.id == picture) {
            return Ok(true);
        }
        Ok(self.photo(&reader.couple).await?.is_some_and(|photo| photo.picture.media.id == picture))
    }

    /// A picture with its renditions, if it is ready.
    async fn shown(&self, media: Media) -> Result<Option<ShownPicture>, Error> {
        if media.state != MediaState::Ready {
            return Ok(None);
        }
        let renditions = self.ports.store.renditions(media.space, media.id).await?;
        Ok(Some(ShownPicture { media, renditions }))
    }

    /// Newest photo of a couple that is ready.
    async fn photo(&self, couple: &Couple) -> Result<Option<GlancePhoto>, Error> {
        let mut pages = Pages::new(couple, PHOTO);
        while let Some(entries) = pages.next(&self.ports).await? {
            for entry in entries {
                let Some(id) = timeline_rules::media_of(&entry) else { continue };
                let Some(media) = self.ports.store.media(id).await? else { continue };
                if let Some(picture) = self.shown(media).await? {
                    return Ok(Some(GlancePhoto { entry, picture }));
                }
            }
        }
        Ok(None)
    }

    /// Newest mood of a member.
    async fn mood(&self, couple: &Couple, of: Side) -> Result<Option<Entry>, Error> {
        let mut pages = Pages::new(couple, MOOD);
        while let Some(entries) = pages.next(&self.ports).await? {
            if let Some(entry) = entries.into_iter().find(|entry| entry.author == Some(of)) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Pages of the newest entries of a kind.
struct Pages<'a> {
    couple: &'a Couple,
    kind: &'static str,
    /// `seq` before which the next page ends; none after the last page.
    before: Option<i64>,
    left: usize,
}

impl<'a> Pages<'a> {
    const fn new(couple: &'a Couple, kind: &'static str) -> Self {
        Self { couple, kind, before: Some(couple.head_seq.saturating_add(1)), left: MAX_PAGES }
    }

    /// Entries of the next page without tombstones, the newest first.
    async fn next(&mut self, ports: &Ports) -> Result<Option<Vec<Entry>>, Error> {
        let Some(before) = self.before.filter(|_| self.left > 0) else { return Ok(None) };
        self.left -= 1;
        let page = Page::Before(before);
        let mut entries = ports.store.entries(self.couple.id, page, PAGE_SIZE, Some(self.kind)).await?;
        let is_last = entries.len() < PAGE_SIZE as usize;
        self.before = entries.first().filter(|_| !is_last).map(|entry| entry.seq);
        entries.retain(|entry| entry.deleted_at.is_none());
        entries.reverse();
        Ok(Some(entries))
    }
}
