//! Pictures and their renditions in the in-memory store.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Digest, Error, MediaId, Timestamp,
    media::{
        ExpectedMedia, Format, Media, MediaChange, MediaReads, MediaState, Purpose, Rendition, Source, Space,
        SpaceUsage,
    },
};

use super::{FaultyStore, MAX, NIL, pairing, table::Table};

type RenditionKey = (MediaId, String, Format);

#[derive(Default)]
pub(super) struct MediaTables {
    media: Table<(Space, MediaId), Media>,
    by_id: Table<MediaId, Space>,
    by_identity: Table<(Space, Digest), MediaId>,
    renditions: Table<RenditionKey, Rendition>,
    spaces: Table<Space, SpaceUsage>,
}

impl MediaTables {
    pub(super) fn apply(
        &mut self,
        couples: &pairing::PairingTables,
        change: MediaChange,
    ) -> Result<(), Conflict> {
        match change {
            MediaChange::Insert { media, most } => {
                match media.space {
                    Space::Couple(id) => drop(couples.active_couple(id)?),
                    Space::Account(id) if self.usage(media.space).closed => {
                        return Err(Conflict::SpaceClosed(id));
                    }
                    Space::Account(_) => {}
                }
                let identity = (media.space, media.identity());
                if self.by_id.has(&media.id) || self.by_identity.has(&identity) {
                    return Err(Conflict::MediaExists);
                }
                let usage = self.usage(media.space);
                let bytes = usage.bytes + length(&media);
                if bytes > most {
                    return Err(Conflict::QuotaExceeded);
                }
                self.spaces.put(media.space, SpaceUsage { bytes, ..usage });
                self.by_id.put(media.id, media.space);
                self.by_identity.put(identity, media.id);
                self.media.put((media.space, media.id), media);
            }
            MediaChange::Finish { of, width, height, animated, alpha, placeholder, source, renditions } => {
                let media = self.processing(of)?;
                let made: i64 = renditions.iter().map(|rendition| rendition.bytes).sum();
                let before = length(&media);
                let (state, placeholder) = (MediaState::Ready, Some(placeholder));
                let media = Media { state, width, height, animated, alpha, placeholder, source, ..media };
                self.count(of.space, length(&media) - before + made);
                self.media.put((of.space, of.id), media);
                for rendition in renditions {
                    self.put_rendition(of.id, rendition);
                }
            }
            MediaChange::Reject { of, reason } => {
                let media = self.processing(of)?;
                self.count(of.space, -length(&media));
                self.media.put(
                    (of.space, of.id),
                    Media { state: MediaState::Rejected(reason), source: None, ..media },
                );
            }
            MediaChange::Use { couple, id, owner, ready } => {
                couples.active_couple(couple)?;
                let state = if ready { MediaState::Ready } else { MediaState::Processing };
                let named = self.get(Space::Couple(couple), id).filter(|media| {
                    media.owner == owner && media.purpose == Purpose::Photo && media.state == state
                });
                let media = named.cloned().ok_or(Conflict::MediaChanged(id))?;
                self.uses(&media, 1);
            }
            MediaChange::Release(of) => {
                let media = self.as_read(of)?;
                if media.uses == 0 {
                    return Err(Conflict::MediaChanged(of.id));
                }
                self.uses(&media, -1);
            }
            MediaChange::Delete(of) => {
                let media = self.as_read(of)?;
                let mut bytes = length(&media);
                for rendition in self.renditions_of(of.id).cloned().collect::<Vec<_>>() {
                    bytes += rendition.bytes;
                    self.renditions.remove(&(of.id, rendition.name, rendition.format));
                }
                self.count(of.space, -bytes);
                let usage = self.usage(of.space);
                if usage.avatar == Some(of.id) {
                    self.spaces.put(of.space, SpaceUsage { avatar: None, ..usage });
                }
                self.by_identity.remove(&(of.space, media.identity()));
                self.by_id.remove(&of.id);
                self.media.remove(&(of.space, of.id));
            }
            MediaChange::AddRendition { space, id, rendition } => {
                let key = (id, rendition.name.clone(), rendition.format);
                let ready = self.get(space, id).is_some_and(|media| media.state == MediaState::Ready);
                if !ready || self.renditions.has(&key) {
                    return Err(Conflict::MediaChanged(id));
                }
                self.count(space, rendition.bytes);
                self.renditions.put(key, rendition);
            }
            MediaChange::Touch { space, id, name, format, at } => {
                let key = (id, name, format);
                if self.get(space, id).is_some()
                    && let Some(rendition) = self.renditions.get(&key).cloned()
                    && rendition.used_at.is_some_and(|used| used < at)
                {
                    self.renditions.put(key, Rendition { used_at: Some(at), ..rendition });
                }
            }
            MediaChange::Forget { space, id, blobs } => {
                let Some(media) = self.get(space, id).cloned() else { return Ok(()) };
                if media.source.as_ref().is_some_and(|source| blobs.contains(&source.blob)) {
                    self.count(space, -length(&media));
                    self.media.put((space, id), Media { source: None, ..media });
                }
                for rendition in self.renditions_of(id).cloned().collect::<Vec<_>>() {
                    if blobs.contains(&rendition.blob) {
                        self.count(space, -rendition.bytes);
                        self.renditions.remove(&(id, rendition.name, rendition.format));
                    }
                }
            }
            MediaChange::SetAvatar { account, media, before } => {
                let space = Space::Account(account);
                let usage = self.usage(space);
                if usage.avatar != before {
                    return Err(Conflict::AvatarChanged(account));
                }
                if usage.avatar == media {
                    return Ok(());
                }
                if let Some(id) = media {
                    let avatar = self.get(space, id).filter(|media| {
                        media.purpose == Purpose::Avatar && !matches!(media.state, MediaState::Rejected(_))
                    });
                    let media = avatar.cloned().ok_or(Conflict::MediaChanged(id))?;
                    self.uses(&media, 1);
                }
                if let Some(before) = usage.avatar.and_then(|id| self.get(space, id)).cloned() {
                    self.uses(&before, -1);
                }
                self.spaces.put(space, SpaceUsage { avatar: media, ..usage });
            }
            MediaChange::Close { account } => {
                let space = Space::Account(account);
                if self.of(space).next().is_some() {
                    return Err(Conflict::SpaceNotEmpty(account));
                }
                self.spaces.put(space, SpaceUsage { closed: true, ..SpaceUsage::default() });
            }
        }
        Ok(())
    }

    fn usage(&self, space: Space) -> SpaceUsage {
        self.spaces.get(&space).copied().unwrap_or_default()
    }

    fn count(&mut self, space: Space, bytes: i64) {
        let usage = self.usage(space);
        self.spaces.put(space, SpaceUsage { bytes: usage.bytes + bytes, ..usage });
    }

    fn get(&self, space: Space, id: MediaId) -> Option<&Media> {
        self.media.get(&(space, id))
    }

    fn as_read(&self, of: ExpectedMedia) -> Result<Media, Conflict> {
        let media = self.get(of.space, of.id).filter(|media| media.uses == of.uses);
        media.cloned().ok_or(Conflict::MediaChanged(of.id))
    }

    fn processing(&self, of: ExpectedMedia) -> Result<Media, Conflict> {
        let media = self.as_read(of)?;
        if media.state == MediaState::Processing { Ok(media) } else { Err(Conflict::MediaChanged(of.id)) }
    }

    fn uses(&mut self, media: &Media, more: i64) {
        self.media.put((media.space, media.id), Media { uses: media.uses + more, ..media.clone() });
    }

    fn put_rendition(&mut self, id: MediaId, rendition: Rendition) {
        self.renditions.put((id, rendition.name.clone(), rendition.format), rendition);
    }

    fn renditions_of(&self, id: MediaId) -> impl Iterator<Item = &Rendition> {
        self.renditions
            .range((id, String::new(), Format::Jpeg)..)
            .take_while(move |((of, _, _), _)| *of == id)
            .map(|(_, rendition)| rendition)
    }

    fn of(&self, space: Space) -> impl Iterator<Item = &Media> {
        let range = (space, MediaId::from_uuid(NIL))..=(space, MediaId::from_uuid(MAX));
        self.media.range(range).map(|(_, media)| media)
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.media.end(keep);
        self.by_id.end(keep);
        self.by_identity.end(keep);
        self.renditions.end(keep);
        self.spaces.end(keep);
    }
}

fn length(media: &Media) -> i64 {
    media.source.as_ref().map_or(0, |source: &Source| source.bytes)
}

#[async_trait]
impl MediaReads for FaultyStore {
    async fn media(&self, id: MediaId) -> Result<Option<Media>, Error> {
        let tables = &self.state()?.media;
        Ok(tables.by_id.get(&id).and_then(|space| tables.get(*space, id)).cloned())
    }
    async fn media_by_identity(&self, space: Space, identity: &Digest) -> Result<Option<Media>, Error> {
        let tables = &self.state()?.media;
        Ok(tables.by_identity.get(&(space, *identity)).and_then(|id| tables.get(space, *id)).cloned())
    }
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error> {
        let tables = &self.state()?.media;
        let there = tables.get(space, id).is_some();
        Ok(tables.renditions_of(id).filter(|_| there).cloned().collect())
    }
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error> {
        let tables = &self.state()?.media;
        let space = Space::Account(account);
        Ok(tables.usage(space).avatar.and_then(|id| tables.get(space, id)).cloned())
    }
    async fn media_space(&self, space: Space) -> Result<SpaceUsage, Error> {
        Ok(self.state()?.media.usage(space))
    }
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error> {
        let state = self.state()?;
        let page = state.media.of(space).filter(|media| after.is_none_or(|after| media.id > after));
        Ok(page.take(limit as usize).cloned().collect())
    }
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error> {
        let state = self.state()?;
        let spaces = state.media.spaces.iter().map(|(space, _)| *space);
        Ok(spaces.filter(|space| after.is_none_or(|after| *space > after)).take(limit as usize).collect())
    }
    async fn unused_renditions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(MediaId, Rendition)>, Error> {
        let state = self.state()?;
        let mut unused: Vec<_> = state
            .media
            .renditions
            .iter()
            .filter(|(_, rendition)| rendition.used_at.is_some_and(|used| used < before))
            .map(|((id, _, _), rendition)| (*id, rendition.clone()))
            .collect();
        unused.sort_by(|(a, x), (b, y)| {
            (x.used_at, a, &x.name, x.format).cmp(&(y.used_at, b, &y.name, y.format))
        });
        unused.truncate(limit as usize);
        Ok(unused)
    }
}
