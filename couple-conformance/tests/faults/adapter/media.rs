//! Pictures and their renditions in the in-memory store.

use async_trait::async_trait;
use couple_core::{
    AccountId, Change, Conflict, CoupleId, Digest, Error, MediaId, Timestamp,
    media::{
        Crop, ExpectedMedia, Format, Media, MediaChange, MediaReads, MediaState, Purpose, Rendition, Source,
        Space, SpaceUsage,
    },
};

use super::{
    FaultyStore, MAX, NIL,
    column::{Column, column},
    pairing,
    table::Table,
};
use crate::planted;

type RenditionKey = (MediaId, String, Format);

#[derive(Clone, Default)]
pub(super) struct MediaTables {
    media: Table<(Space, MediaId), Media>,
    by_id: Table<MediaId, Space>,
    by_identity: Table<(Space, Digest), MediaId>,
    renditions: Table<RenditionKey, Rendition>,
    spaces: Table<Space, SpaceUsage>,
}

fn source(column_of: [Column; 3], source: &Source) -> Source {
    let [blob, bytes, media_type] = column_of;
    let mut source = Source {
        blob: blob.text(&source.blob),
        bytes: bytes.number(source.bytes),
        media_type: media_type.text(&source.media_type),
    };
    if planted("media-blob-and-type-are-swapped") {
        std::mem::swap(&mut source.blob, &mut source.media_type);
    }
    source
}

/// The picture as it is written.
fn columns(media: Media) -> Media {
    let mut media = Media {
        digest: digest_of(&column("media-digest").bytes(media.digest.as_bytes())),
        state: match media.state {
            MediaState::Rejected(reason) => MediaState::Rejected(column("media-reason").text(&reason)),
            other => other,
        },
        crop: media.crop.map(|crop| Crop {
            x: column("media-crop-x").pixels(crop.x),
            y: column("media-crop-y").pixels(crop.y),
            width: column("media-crop-width").pixels(crop.width),
            height: column("media-crop-height").pixels(crop.height),
        }),
        key: column("media-key").text(&media.key),
        source: media.source.as_ref().map(|of| {
            source([column("media-source"), column("media-source-bytes"), column("media-source-type")], of)
        }),
        width: column("media-width").pixels(media.width),
        height: column("media-height").pixels(media.height),
        placeholder: media.placeholder.map(|bytes| column("media-placeholder").bytes(&bytes)),
        uses: column("media-uses").number(media.uses),
        created_at: column("media-created-at").time(media.created_at),
        ..media
    };
    if planted("media-width-and-height-are-swapped") {
        std::mem::swap(&mut media.width, &mut media.height);
    }
    if planted("media-crop-is-turned")
        && let Some(crop) = &mut media.crop
    {
        std::mem::swap(&mut crop.x, &mut crop.y);
    }
    if planted("media-crop-has-its-sides-swapped")
        && let Some(crop) = &mut media.crop
    {
        std::mem::swap(&mut crop.width, &mut crop.height);
    }
    if planted("media-crop-is-lost") {
        media.crop = None;
    }
    if planted("media-flags-are-swapped") {
        std::mem::swap(&mut media.animated, &mut media.alpha);
    }
    if planted("media-starts-as-processing") {
        media.state = MediaState::Processing;
    }
    if planted("media-starts-unused") {
        media.uses = 0;
    }
    if planted("media-absent-placeholder-is-empty") {
        media.placeholder = Some(media.placeholder.unwrap_or_default());
    }
    if planted("media-owner-is-its-space")
        && let Space::Account(id) = media.space
    {
        media.owner = id;
    }
    media
}

fn rendition_columns(rendition: &Rendition) -> Rendition {
    let mut rendition = Rendition {
        name: column("media-rendition-name").text(&rendition.name),
        format: rendition.format,
        width: column("media-rendition-width").pixels(rendition.width),
        height: column("media-rendition-height").pixels(rendition.height),
        bytes: column("media-rendition-bytes").number(rendition.bytes),
        blob: column("media-rendition-blob").text(&rendition.blob),
        made_at: column("media-rendition-made-at").time(rendition.made_at),
        used_at: rendition.used_at.map(|used| column("media-rendition-used-at").time(used)),
    };
    if planted("media-rendition-width-and-height-are-swapped") {
        std::mem::swap(&mut rendition.width, &mut rendition.height);
    }
    if planted("media-rendition-name-and-blob-are-swapped") {
        std::mem::swap(&mut rendition.name, &mut rendition.blob);
    }
    if planted("media-rendition-is-used-when-made") {
        rendition.used_at = Some(rendition.made_at);
    }
    if planted("media-rendition-format-png-is-webp") && rendition.format == Format::Png {
        rendition.format = Format::WebP;
    }
    rendition
}

/// A digest of these bytes; absent ones are zero.
fn digest_of(bytes: &[u8]) -> Digest {
    let mut all = [0; 32];
    let length = bytes.len().min(32);
    all[..length].copy_from_slice(&bytes[..length]);
    Digest::from_bytes(all)
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
                    Space::Couple(id)
                        if planted("media-ended-couple-takes-pictures") && couples.couple(id).is_some() => {}
                    Space::Couple(id)
                        if planted("media-unknown-couple-takes-pictures") && couples.couple(id).is_none() => {
                    }
                    Space::Couple(id) => drop(couples.active_couple(id)?),
                    Space::Account(id)
                        if self.usage(media.space).closed
                            && !planted("media-closed-space-takes-pictures") =>
                    {
                        return Err(Conflict::SpaceClosed(id));
                    }
                    Space::Account(_) => {}
                }
                let id_exists = match self.by_id.get(&media.id) {
                    Some(space) => *space == media.space || !planted("media-ids-are-of-one-space"),
                    None => false,
                };
                let exists = id_exists && !planted("media-ids-are-not-unique")
                    || self.by_identity.has(&identity(&media)) && !planted("media-identities-are-not-unique");
                if exists && !planted("media-quota-comes-before-identity") {
                    return Err(Conflict::MediaExists);
                }
                let usage = self.usage(media.space);
                let before = if planted("media-quota-is-of-all-spaces") {
                    self.spaces.values().map(|usage| usage.bytes).sum()
                } else if planted("media-quota-is-of-uploads") {
                    self.of(media.space).map(length).sum()
                } else {
                    usage.bytes
                };
                let bytes =
                    before + if planted("media-quota-lacks-the-new-picture") { 0 } else { length(&media) };
                let bytes = column("media-quota").number(bytes);
                let exceeded = if planted("media-quota-is-one-less") { bytes >= most } else { bytes > most };
                if exceeded && !planted("media-quota-is-ignored") {
                    return Err(Conflict::QuotaExceeded);
                }
                if exists {
                    return Err(Conflict::MediaExists);
                }
                let added = if planted("media-insert-counts-no-bytes") { 0 } else { length(&media) };
                self.count(media.space, added);
                self.by_id.put(media.id, media.space);
                self.by_identity.put(identity(&media), media.id);
                self.media.put((media.space, media.id), columns(media));
            }
            MediaChange::Finish {
                of,
                width,
                height,
                animated,
                alpha,
                placeholder,
                source: new,
                renditions,
            } => {
                let media = self.processing(of, "finish")?;
                let ended = matches!(of.space, Space::Couple(id) if couples.active_couple(id).is_err());
                if let Space::Couple(id) = of.space
                    && ended
                    && planted("media-ended-couple-finishes-no-picture")
                {
                    return Err(Conflict::CoupleEnded(id));
                }
                let made: i64 = renditions.iter().map(|rendition| rendition.bytes).sum();
                let made = if planted("media-finish-counts-no-renditions") { 0 } else { made };
                let made = if planted("media-finish-counts-the-first-rendition") {
                    renditions.first().map_or(0, |rendition| rendition.bytes)
                } else {
                    made
                };
                let before = length(&media);
                let columns_of = [
                    column("media-finished-source"),
                    column("media-finished-bytes"),
                    column("media-finished-type"),
                ];
                let mut finished = Media {
                    state: MediaState::Ready,
                    width: column("media-finished-width").pixels(width),
                    height: column("media-finished-height").pixels(height),
                    animated,
                    alpha,
                    placeholder: Some(column("media-finished-placeholder").bytes(&placeholder)),
                    source: new.as_ref().map(|new| source(columns_of, new)),
                    ..media.clone()
                };
                if planted("media-finish-keeps-the-size") {
                    (finished.width, finished.height) = (media.width, media.height);
                }
                if planted("media-finish-keeps-the-flags") {
                    (finished.animated, finished.alpha) = (media.animated, media.alpha);
                }
                if planted("media-finish-swaps-the-flags") {
                    std::mem::swap(&mut finished.animated, &mut finished.alpha);
                }
                if planted("media-finish-keeps-a-placeholder") {
                    finished.placeholder = media.placeholder.clone().or(finished.placeholder);
                }
                if planted("media-finish-keeps-the-source") {
                    finished.source.clone_from(&media.source);
                }
                if planted("media-finish-without-source-keeps-it") {
                    finished.source = finished.source.or_else(|| media.source.clone());
                }
                if planted("media-finish-counts-as-a-use") {
                    finished.uses += 1;
                }
                let after =
                    if planted("media-finish-counts-the-old-source") { before } else { length(&finished) };
                self.count(of.space, after - before + made);
                self.media.put((of.space, of.id), finished);
                let count = if planted("media-finish-adds-the-first-rendition") { 1 } else { usize::MAX };
                for rendition in renditions.into_iter().take(count) {
                    self.put_rendition(of.id, rendition_columns(&rendition));
                }
            }
            MediaChange::Reject { of, reason } => {
                let media = self.processing(of, "reject")?;
                if !planted("media-reject-keeps-the-bytes") {
                    self.count(of.space, -length(&media));
                }
                let mut rejected = Media {
                    state: MediaState::Rejected(column("media-rejected-reason").text(&reason)),
                    source: media.source.clone().filter(|_| planted("media-reject-keeps-the-source")),
                    ..media.clone()
                };
                if planted("media-reject-removes-the-placeholder") {
                    rejected.placeholder = None;
                }
                if planted("media-reject-removes-the-crop") {
                    rejected.crop = None;
                }
                if planted("media-reject-frees-the-identity") {
                    self.by_identity.remove(&identity(&media));
                }
                self.media.put((of.space, of.id), rejected);
            }
            MediaChange::Use { couple, id, owner, ready } => {
                if !planted("media-ended-couple-uses-pictures") {
                    couples.active_couple(couple)?;
                }
                let any_space = self.by_id.get(&id).copied().filter(|_| planted("media-use-of-any-space"));
                let space = any_space.unwrap_or(Space::Couple(couple));
                let named = self.get(space, id).filter(|media| {
                    let state = match media.state {
                        MediaState::Ready => ready || planted("media-use-of-a-ready-picture-as-processing"),
                        MediaState::Processing => {
                            !ready || planted("media-use-of-a-processing-picture-as-ready")
                        }
                        MediaState::Rejected(_) => planted("media-use-of-a-rejected-picture"),
                    };
                    (media.owner == owner || planted("media-use-of-another-owner"))
                        && (media.purpose == Purpose::Photo || planted("media-use-of-an-avatar"))
                        && state
                });
                let media = named.cloned().ok_or(Conflict::MediaChanged(id))?;
                let more = if planted("media-use-is-not-counted") { 0 } else { 1 };
                let more =
                    if planted("media-use-is-counted-once") { i64::from(media.uses == 0) } else { more };
                self.uses(&media, more);
            }
            MediaChange::Release(of) => {
                let media = self.as_read(of, "release")?;
                if media.uses == 0 && !planted("media-release-below-zero") {
                    return Err(Conflict::MediaChanged(of.id));
                }
                if planted("media-release-ends-all-uses") {
                    self.uses(&media, -media.uses);
                } else if !planted("media-release-is-not-counted") {
                    self.uses(&media, -1);
                }
            }
            MediaChange::Delete(of) => {
                let media = self.as_read(of, "delete")?;
                if let Space::Couple(id) = of.space
                    && couples.active_couple(id).is_err()
                    && planted("media-ended-couple-deletes-no-picture")
                {
                    return Err(Conflict::CoupleEnded(id));
                }
                let mut bytes = length(&media);
                let all = planted("media-delete-removes-all-renditions");
                let keys = self.renditions.iter().filter(|((id, _, _), _)| *id == of.id || all);
                let keys: Vec<_> = keys.map(|(key, rendition)| (key.clone(), rendition.bytes)).collect();
                for (key, of_rendition) in keys {
                    if !planted("media-delete-keeps-bytes-of-renditions") {
                        bytes += of_rendition;
                    }
                    if !planted("media-delete-keeps-renditions") {
                        self.renditions.remove(&key);
                    }
                }
                if !planted("media-delete-keeps-the-bytes") {
                    self.count(of.space, -bytes);
                }
                let usage = self.usage(of.space);
                let shown = usage.avatar == Some(of.id) && !planted("media-delete-keeps-the-avatar")
                    || planted("media-delete-hides-another-avatar");
                if shown {
                    self.spaces.put(of.space, SpaceUsage { avatar: None, ..usage });
                }
                if !planted("media-delete-keeps-the-identity") {
                    self.by_identity.remove(&identity(&media));
                }
                if planted("media-delete-marks-it-rejected") {
                    let gone =
                        Media { state: MediaState::Rejected("deleted".to_owned()), source: None, ..media };
                    self.media.put((of.space, of.id), gone);
                    return Ok(());
                }
                if !planted("media-delete-keeps-the-id") {
                    self.by_id.remove(&of.id);
                }
                self.media.remove(&(of.space, of.id));
            }
            MediaChange::AddRendition { space, id, rendition } => {
                let key = rendition_key(id, &rendition.name, rendition.format);
                let ready = self.get(space, id).is_some_and(|media| match media.state {
                    MediaState::Ready => true,
                    MediaState::Processing => planted("media-rendition-of-a-processing-picture"),
                    MediaState::Rejected(_) => planted("media-rendition-of-a-rejected-picture"),
                });
                let ready = ready
                    || planted("media-rendition-of-an-unknown-picture") && self.get(space, id).is_none();
                if let Space::Couple(couple) = space
                    && couples.active_couple(couple).is_err()
                    && planted("media-ended-couple-takes-no-rendition")
                {
                    return Err(Conflict::CoupleEnded(couple));
                }
                if self.renditions.has(&key) && planted("media-repeated-rendition-is-ignored") {
                    return Ok(());
                }
                let exists = self.renditions.has(&key) && !planted("media-rendition-is-replaced");
                let other_format = planted("media-rendition-has-one-format")
                    && self.renditions_of(id).any(|one| one.name == rendition.name);
                if !ready || exists || other_format {
                    return Err(Conflict::MediaChanged(id));
                }
                if !planted("media-rendition-counts-no-bytes") {
                    self.count(space, rendition.bytes);
                }
                self.renditions.put(key, rendition_columns(&rendition));
            }
            MediaChange::Touch { space, id, name, format, at } => {
                let at = column("media-touched-at").time(at);
                let wanted = rendition_key(id, &name, format);
                let touched = |key: &RenditionKey| {
                    *key == wanted
                        || planted("media-touch-of-all-formats") && key.0 == id && key.1 == name
                        || planted("media-touch-of-all-renditions") && key.0 == id
                        || planted("media-touch-of-all-pictures") && key.1 == name && key.2 == format
                        || key.0 == id && key.2 == format && column("media-touch").finds(&key.1, &name)
                };
                let found = self.renditions.iter().filter(|(key, _)| touched(key));
                let found: Vec<_> = found.map(|(key, rendition)| (key.clone(), rendition.clone())).collect();
                for (key, rendition) in found {
                    let forward = match rendition.used_at {
                        Some(used) => used < at || planted("media-touch-moves-back"),
                        None => planted("media-touch-starts-the-expiry"),
                    };
                    let there = self.get(space, id).is_some() || planted("media-touch-of-any-space");
                    if forward && there && !planted("media-touch-does-nothing") {
                        let mut rendition = Rendition { used_at: Some(at), ..rendition };
                        if planted("media-touch-makes-it-again") {
                            rendition.made_at = at;
                        }
                        self.renditions.put(key, rendition);
                    }
                }
            }
            MediaChange::Forget { space, id, blobs } => {
                let Some(media) = self.get(space, id).cloned() else { return Ok(()) };
                let count = if planted("media-forget-takes-the-first-blob") { 1 } else { usize::MAX };
                let blobs_named = |blob: &str| {
                    blobs.iter().take(count).any(|one| column("media-forgotten-blob").finds(blob, one))
                };
                let with_source = media.source.as_ref().is_some_and(|source| blobs_named(&source.blob))
                    && !planted("media-forget-keeps-the-source")
                    || planted("media-forget-always-takes-the-source");
                if with_source {
                    self.count(
                        space,
                        if planted("media-forget-keeps-the-bytes") { 0 } else { -length(&media) },
                    );
                    let state = if planted("media-forget-of-the-source-rejects") {
                        MediaState::Rejected("gone".to_owned())
                    } else {
                        media.state.clone()
                    };
                    self.media.put((space, id), Media { source: None, state, ..media });
                }
                let everywhere = planted("media-forget-takes-blobs-of-all-pictures");
                let all = planted("media-forget-takes-all-renditions");
                let found = self.renditions.iter().filter(|((of, _, _), rendition)| {
                    (*of == id || everywhere) && (blobs_named(&rendition.blob) || all)
                });
                let found: Vec<_> = found.map(|(key, rendition)| (key.clone(), rendition.bytes)).collect();
                for (key, bytes) in found {
                    self.count(space, if planted("media-forget-keeps-the-bytes") { 0 } else { -bytes });
                    if !planted("media-forget-keeps-renditions") {
                        self.renditions.remove(&key);
                    }
                }
                if planted("media-forget-counts-absent-blobs") {
                    self.count(space, -1);
                }
            }
            MediaChange::SetAvatar { account, media, before } => {
                let space = Space::Account(account);
                let usage = self.usage(space);
                let check = |of: &Self, id| {
                    let of_space =
                        of.by_id.get(&id).copied().filter(|_| planted("media-avatar-of-any-space"));
                    let avatar = of.get(of_space.unwrap_or(space), id).filter(|media| {
                        (media.purpose == Purpose::Avatar || planted("media-avatar-of-any-purpose"))
                            && (!matches!(media.state, MediaState::Rejected(_))
                                || planted("media-avatar-may-be-rejected"))
                            && (media.state == MediaState::Ready || !planted("media-avatar-must-be-ready"))
                    });
                    avatar.cloned().ok_or(Conflict::MediaChanged(id))
                };
                if planted("media-avatar-needs-a-row") && !self.spaces.has(&space) {
                    return Err(Conflict::AvatarChanged(account));
                }
                if planted("media-avatar-is-checked-before-the-old-one")
                    && let Some(id) = media
                {
                    check(self, id)?;
                }
                if usage.avatar != before && !planted("media-avatar-ignores-the-old-one") {
                    return Err(Conflict::AvatarChanged(account));
                }
                if usage.avatar == media && !planted("media-same-avatar-counts-again") {
                    return Ok(());
                }
                if let Some(id) = media {
                    let media = check(self, id)?;
                    self.uses(&media, if planted("media-avatar-counts-no-use") { 0 } else { 1 });
                }
                if let Some(before) = usage.avatar.and_then(|id| self.get(space, id)).cloned()
                    && !planted("media-old-avatar-keeps-its-use")
                    && usage.avatar != media
                {
                    self.uses(&before, -1);
                }
                if planted("media-avatar-is-never-removed") && media.is_none() {
                    return Ok(());
                }
                self.spaces.put(space, SpaceUsage { avatar: media, ..usage });
            }
            MediaChange::Close { account } => {
                let space = Space::Account(account);
                if self.of(space).next().is_some() && !planted("media-space-with-pictures-is-closed") {
                    return Err(Conflict::SpaceNotEmpty(account));
                }
                if planted("media-closed-space-cannot-be-closed-again") && self.usage(space).closed {
                    return Err(Conflict::SpaceClosed(account));
                }
                if planted("media-space-without-row-is-not-closed") && !self.spaces.has(&space) {
                    return Ok(());
                }
                if planted("media-close-removes-the-row") {
                    self.spaces.remove(&space);
                    return Ok(());
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
        let bytes = column("media-usage").number(usage.bytes + bytes);
        self.spaces.put(space, SpaceUsage { bytes, ..usage });
    }

    fn get(&self, space: Space, id: MediaId) -> Option<&Media> {
        self.media.get(&(space, id))
    }

    fn as_read(&self, of: ExpectedMedia, change: &str) -> Result<Media, Conflict> {
        let stale = match change {
            "finish" => planted("media-finish-ignores-the-uses"),
            "reject" => planted("media-reject-ignores-the-uses"),
            "release" => planted("media-release-ignores-the-uses"),
            _ => planted("media-delete-ignores-the-uses"),
        };
        let media = self.get(of.space, of.id).filter(|media| media.uses == of.uses || stale);
        media.cloned().ok_or(Conflict::MediaChanged(of.id))
    }

    fn processing(&self, of: ExpectedMedia, change: &str) -> Result<Media, Conflict> {
        let media = self.as_read(of, change)?;
        let open = match media.state {
            MediaState::Processing => true,
            MediaState::Ready if change == "reject" => planted("media-ready-picture-is-rejected"),
            MediaState::Ready => planted("media-ready-picture-is-finished-again"),
            MediaState::Rejected(_) if change == "reject" => {
                planted("media-rejected-picture-is-rejected-again")
            }
            MediaState::Rejected(_) => planted("media-rejected-picture-is-finished"),
        };
        if open { Ok(media) } else { Err(Conflict::MediaChanged(of.id)) }
    }

    /// Pictures that a commit finishes or rejects, as they are now.
    pub(super) fn ended_in(&self, changes: &[Change]) -> Vec<Media> {
        let ended = changes.iter().filter_map(|change| match change {
            Change::Media(MediaChange::Finish { of, .. } | MediaChange::Reject { of, .. }) => Some(of),
            _ => None,
        });
        ended.filter_map(|of| self.get(of.space, of.id)).cloned().collect()
    }

    /// Writes pictures without a check.
    pub(super) fn overwrite(&mut self, pictures: Vec<Media>) {
        for media in pictures {
            self.media.put((media.space, media.id), media);
        }
        self.media.end(true);
    }

    fn uses(&mut self, media: &Media, more: i64) {
        self.media.put((media.space, media.id), Media { uses: media.uses + more, ..media.clone() });
    }

    fn put_rendition(&mut self, id: MediaId, rendition: Rendition) {
        self.renditions.put(rendition_key(id, &rendition.name, rendition.format), rendition);
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

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        match kind {
            "-pictures" => self.media = Table::default(),
            "-renditions" => self.renditions = Table::default(),
            "-usage" => self.spaces = Table::default(),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.media.end(keep || planted("media-conflict-keeps-changes-of-pictures"));
        self.by_id.end(keep || planted("media-conflict-keeps-ids"));
        self.by_identity.end(keep || planted("media-conflict-keeps-identities"));
        self.renditions.end(keep || planted("media-conflict-keeps-renditions"));
        self.spaces.end(keep || planted("media-conflict-keeps-the-usage"));
    }
}

fn rendition_key(id: MediaId, name: &str, format: Format) -> RenditionKey {
    (id, column("media-rendition-name").key(name), format)
}

/// Unique key of a picture's content.
fn identity(media: &Media) -> (Space, Digest) {
    let mut of = media.clone();
    if planted("media-identity-lacks-the-owner") {
        of.owner = AccountId::from_uuid(NIL);
    }
    if planted("media-identity-lacks-the-crop") {
        of.crop = None;
    }
    if planted("media-identity-lacks-half-of-the-crop") {
        of.crop = of.crop.map(|crop| Crop { width: 0, height: 0, ..crop });
    }
    if planted("media-identity-lacks-the-content") {
        of.digest = digest_of(&[]);
    }
    let space = if planted("media-identity-is-of-all-spaces") {
        of.purpose = Purpose::Photo;
        Space::Couple(CoupleId::from_uuid(NIL))
    } else {
        media.space
    };
    (space, of.identity())
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
        if planted("media-identity-is-found-in-any-space") {
            return Ok(tables.media.values().find(|media| media.identity() == *identity).cloned());
        }
        if planted("media-identity-is-found-by-content") {
            let found = tables.of(space).find(|media| media.identity() == *identity);
            let same = |media: &&Media| found.is_some_and(|found| found.digest == media.digest);
            return Ok(tables.of(space).find(same).cloned());
        }
        let found = tables.of(space).find(|media| media.identity() == *identity).cloned();
        let lost = |media: &Media| {
            planted("media-rejected-picture-has-no-identity") && media.state.rejection().is_some()
        };
        Ok(found.filter(|media| !lost(media)))
    }
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error> {
        let tables = &self.state()?.media;
        let there = tables.get(space, id).is_some() || planted("media-renditions-of-any-space");
        let mut all: Vec<Rendition> = tables.renditions_of(id).filter(|_| there).cloned().collect();
        if planted("media-renditions-of-all-pictures") {
            all = tables.renditions.values().cloned().collect();
        }
        if planted("media-renditions-are-ordered-by-size") {
            all.sort_by_key(|rendition| (rendition.width, rendition.format));
        }
        if planted("media-renditions-are-ordered-by-format") {
            all.sort_by_key(|rendition| (rendition.format, rendition.name.clone()));
        }
        if planted("media-renditions-are-ordered-by-time") {
            all.sort_by_key(|rendition| rendition.made_at);
        }
        if planted("media-renditions-are-ordered-without-case") {
            all.sort_by_key(|rendition| (rendition.name.to_lowercase(), rendition.format));
        }
        if planted("media-renditions-are-ordered-by-name-only") {
            all.sort_by_key(|rendition| (rendition.name.clone(), std::cmp::Reverse(rendition.format)));
        }
        if planted("media-renditions-lack-those-that-never-expire") {
            all.retain(|rendition| rendition.used_at.is_some());
        }
        Ok(all)
    }
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error> {
        let tables = &self.state()?.media;
        let space = Space::Account(account);
        if planted("media-avatar-is-the-latest-picture") {
            return Ok(tables.of(space).last().cloned());
        }
        if planted("media-avatar-is-of-another-account") {
            let any = tables.spaces.values().find_map(|usage| usage.avatar);
            return Ok(any.and_then(|id| tables.media.values().find(|media| media.id == id)).cloned());
        }
        let avatar = tables.usage(space).avatar.and_then(|id| tables.get(space, id)).cloned();
        Ok(avatar
            .filter(|media| media.state == MediaState::Ready || !planted("media-avatar-is-shown-when-ready")))
    }
    async fn media_space(&self, space: Space) -> Result<SpaceUsage, Error> {
        let state = self.state()?;
        let mut usage = state.media.usage(space);
        if planted("media-usage-is-of-all-spaces") {
            usage.bytes = state.media.spaces.values().map(|usage| usage.bytes).sum();
        }
        if planted("media-usage-lacks-renditions") {
            usage.bytes = state.media.of(space).map(length).sum();
        }
        Ok(usage)
    }
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error> {
        let state = self.state()?;
        let everywhere = planted("media-list-has-all-spaces");
        let mut page: Vec<Media> =
            state.media.media.values().filter(|media| media.space == space || everywhere).cloned().collect();
        if planted("media-list-is-ordered-by-time") {
            page.sort_by_key(|media| media.created_at);
        }
        if planted("media-list-has-the-latest-first") {
            page.reverse();
        }
        page.retain(|media| {
            after.is_none_or(|after| {
                media.id > after
                    || media.id == after && planted("media-list-includes-its-cursor")
                    || planted("media-list-ignores-its-cursor")
            })
        });
        page.retain(|media| {
            !(planted("media-list-lacks-rejected-pictures") && media.state.rejection().is_some())
                && !(planted("media-list-lacks-processing-pictures") && media.state == MediaState::Processing)
        });
        page.truncate(if planted("media-list-ignores-its-limit") { usize::MAX } else { limit as usize });
        Ok(page)
    }
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error> {
        let state = self.state()?;
        let spaces = state.media.spaces.iter().filter(|(_, usage)| {
            !(planted("media-spaces-lack-closed-ones") && usage.closed)
                && !(planted("media-spaces-lack-empty-ones") && usage.bytes == 0)
        });
        let mut spaces: Vec<Space> = spaces.map(|(space, _)| *space).collect();
        if planted("media-spaces-are-ordered-by-kind") {
            spaces.sort_by_key(|space| (space.kind(), space.as_uuid()));
        }
        if planted("media-spaces-are-of-couples") {
            spaces.retain(|space| matches!(space, Space::Couple(_)));
        }
        spaces.retain(|space| {
            after.is_none_or(|after| {
                *space > after || *space == after && planted("media-spaces-include-the-cursor")
            })
        });
        spaces.truncate(if planted("media-spaces-ignore-the-limit") { usize::MAX } else { limit as usize });
        Ok(spaces)
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
            .filter(|(_, rendition)| match rendition.used_at {
                Some(used) => used < before || used == before && planted("media-unused-include-their-time"),
                None => planted("media-unused-include-those-that-never-expire") && rendition.made_at < before,
            })
            .map(|((id, _, _), rendition)| (*id, rendition.clone()))
            .collect();
        unused.sort_by(|(a, x), (b, y)| {
            (x.used_at, a, &x.name, x.format).cmp(&(y.used_at, b, &y.name, y.format))
        });
        if planted("media-unused-are-ordered-by-picture") {
            unused.sort_by_key(|(id, rendition)| (*id, rendition.used_at));
        }
        if planted("media-unused-have-the-latest-first") {
            unused.sort_by_key(|(_, rendition)| std::cmp::Reverse(rendition.used_at));
        }
        if planted("media-unused-are-ordered-by-making") {
            unused.sort_by_key(|(_, rendition)| rendition.made_at);
        }
        if planted("media-unused-of-equal-time-are-ordered-by-name") {
            unused.sort_by_key(|(_, rendition)| (rendition.used_at, rendition.name.clone()));
        }
        if planted("media-unused-of-equal-time-have-the-latest-picture-first") {
            unused.sort_by_key(|(id, rendition)| (rendition.used_at, std::cmp::Reverse(*id)));
        }
        let limit = if planted("media-unused-ignore-the-limit") { usize::MAX } else { limit as usize };
        unused.truncate(limit);
        if planted("media-unused-are-of-one-picture")
            && let Some((first, _)) = unused.first()
        {
            let first = *first;
            unused.retain(|(id, _)| *id == first);
        }
        Ok(unused)
    }
}
