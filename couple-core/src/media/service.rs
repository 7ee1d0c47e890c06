//! Use cases of pictures.

use super::{
    Crop, DiscardBlobs, Format, Media, MediaChange, MediaError, MediaPolicy, MediaState, Purpose, Rendition,
    Source, Space, SpaceUsage, folder, identity,
    rules::{self, Rendered},
};
use crate::{
    AccountId, Change, CommitError, Completed, CoupleId, Decision, Digest, Error, Failure, MediaId, Ports,
    RequestContext, UnitOfWork,
    limits::{LimitKey, rules as limit},
    pairing::Couple,
};

/// Upload that the rate limit and the quota admit, before its bytes arrive.
#[derive(Debug, Clone)]
pub struct AdmittedUpload {
    /// Id for the picture, unless a picture with the same bytes exists.
    pub id: MediaId,
    /// Space for the picture.
    pub space: Space,
    /// Account that uploads.
    pub owner: AccountId,
    /// Purpose of the picture.
    pub purpose: Purpose,
    key: String,
}

impl AdmittedUpload {
    /// Common prefix for the names of the upload's blobs. No other upload ever writes there.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(self.space, self.id, &self.key)
    }
}

/// Uploaded file after inspection of its header.
#[derive(Debug, Clone)]
pub struct InspectedUpload {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Blob with the bytes, in the folder of the upload.
    pub source: Source,
    /// Part of the picture to show; none for all of it.
    pub crop: Option<Crop>,
    /// Width in pixels, upright, from the file's header; 0 if unknown.
    pub width: u32,
    /// Height in pixels, upright, from the file's header; 0 if unknown.
    pub height: u32,
    /// `ThumbHash` from the client, used until the picture is decoded.
    pub placeholder: Option<Vec<u8>>,
}

/// Picture of an upload, and whether the upload created it.
#[derive(Debug, Clone)]
pub struct StoredMedia {
    /// The picture.
    pub media: Media,
    /// False if a picture with the same bytes exists. No row then names the blobs of the upload.
    pub created: bool,
}

/// Facts from which it is decided whether an upload adds a picture.
struct AddFacts {
    couple: Option<Couple>,
    /// Picture with the same bytes.
    before: Option<Media>,
    /// Whether that picture cannot be shown.
    is_lost: bool,
    kept: SpaceUsage,
}

/// Number of pictures per read.
const MAX_ROWS_PER_READ: u32 = 100;

type MediaResult<T> = Result<T, Failure<MediaError>>;

/// Service for pictures: uploading, viewing, deleting, and avatars.
#[derive(Debug, Clone)]
pub struct Pictures {
    ports: Ports,
    policy: MediaPolicy,
}

impl Pictures {
    /// Creates the service.
    #[must_use]
    pub const fn new(ports: Ports, policy: MediaPolicy) -> Self {
        Self { ports, policy }
    }

    /// Settings.
    #[must_use]
    pub const fn policy(&self) -> &MediaPolicy {
        &self.policy
    }

    /// Admits an upload before its bytes are received. `length` is the declared number of bytes, if known.
    ///
    /// With `couple`, a photo is for that couple only: a late upload never reaches another couple. An avatar belongs to no couple.
    ///
    /// # Errors
    /// [`MediaError::NotPaired`], [`MediaError::QuotaExceeded`], [`MediaError::RateLimited`].
    pub async fn begin(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        purpose: Purpose,
        length: Option<u64>,
    ) -> MediaResult<AdmittedUpload> {
        self.allow_upload(account).await?;
        self.prepare(account, couple, purpose, length).await
    }

    /// Takes a token from the upload rate limit of an account.
    ///
    /// # Errors
    /// [`MediaError::RateLimited`].
    pub async fn allow_upload(&self, account: AccountId) -> MediaResult<()> {
        self.ports.allow(&[(limit::UPLOAD_PER_ACCOUNT, LimitKey::new("account", account))]).await
    }

    /// Takes a token from the rate limit of requests that append to resumable uploads of an account.
    ///
    /// # Errors
    /// [`MediaError::RateLimited`].
    pub async fn allow_append(&self, account: AccountId) -> MediaResult<()> {
        self.ports.allow(&[(limit::APPEND_PER_ACCOUNT, LimitKey::new("account", account))]).await
    }

    /// Chooses id and space of an upload and checks the quota.
    ///
    /// As [`begin`](Self::begin), but without the rate limit.
    ///
    /// # Errors
    /// [`MediaError::NotPaired`], [`MediaError::QuotaExceeded`].
    pub async fn prepare(
        &self,
        account: AccountId,
        couple: Option<CoupleId>,
        purpose: Purpose,
        length: Option<u64>,
    ) -> MediaResult<AdmittedUpload> {
        let space = match purpose {
            Purpose::Avatar => Space::Account(account),
            Purpose::Photo => {
                let current = self.ports.store.couple_of(account).await?.map(|couple| couple.id);
                let current = current.filter(|current| couple.is_none_or(|expected| expected == *current));
                Space::Couple(current.ok_or(Failure::Refused(MediaError::NotPaired))?)
            }
        };
        let bytes = i64::try_from(length.unwrap_or(0)).unwrap_or(i64::MAX);
        let kept = self.ports.store.media_space(space).await?;
        rules::room(space, bytes, &kept, &self.policy).map_err(Failure::Refused)?;
        let mut key = [0; 16];
        self.ports.entropy.fill(&mut key);
        Ok(AdmittedUpload {
            id: self.ports.new_id(),
            space,
            owner: account,
            purpose,
            key: data_encoding::BASE32_NOPAD.encode(&key).to_ascii_lowercase(),
        })
    }

    /// Adds a picture whose blob is stored: one commit inserts its row and its job.
    ///
    /// If a picture with the same bytes exists, that one is returned and nothing is written, unless its bytes
    /// were lost or never decoded: then the new picture replaces it.
    ///
    /// # Errors
    /// [`MediaError::NotPaired`] when the couple has ended, [`MediaError::QuotaExceeded`], [`MediaError::KeyReused`].
    /// After these, and if [`StoredMedia::created`] is false, no row names the upload's blobs; after an error of
    /// the store a row may name them.
    pub async fn add(
        &self,
        context: &RequestContext,
        upload: &AdmittedUpload,
        received: InspectedUpload,
    ) -> MediaResult<StoredMedia> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let store = &self.ports.store;
        let media = Media {
            id: upload.id,
            space: upload.space,
            owner: upload.owner,
            purpose: upload.purpose,
            state: MediaState::Processing,
            digest: received.digest,
            crop: received.crop,
            key: upload.key.clone(),
            source: Some(received.source),
            width: received.width,
            height: received.height,
            animated: false,
            alpha: false,
            placeholder: received.placeholder,
            uses: 0,
            created_at: now,
        };
        let identity = identity(media.owner, media.purpose, &media.digest, media.crop);
        let completed = work
            .run(
                context,
                async { Ok(()) },
                async |(), _previous| {
                    let couple = store.couple_of(upload.owner).await?;
                    let before = store.media_by_identity(upload.space, &identity).await?;
                    let is_lost = match &before {
                        Some(before) => self.is_lost(before).await?,
                        None => false,
                    };
                    let kept = store.media_space(upload.space).await?;
                    Ok(AddFacts { couple, before, is_lost, kept })
                },
                |(), AddFacts { couple, before, is_lost, kept }| {
                    let mut changes = match before {
                        None => Vec::new(),
                        Some(before) if *is_lost => self.removal(before, couple.as_ref(), now)?,
                        Some(before) => return Ok(Decision::Answer(before.clone())),
                    };
                    let insert = rules::insert(&media, couple.as_ref(), kept, &self.policy)
                        .map_err(Failure::Refused)?;
                    changes.push(insert.into());
                    Ok(Decision::Commit { changes, outcome: media.id, answer: media.clone() })
                },
            )
            .await?;
        let media = match completed {
            Completed::Committed(media, _) | Completed::Unchanged(media) => media,
            Completed::Replayed(id) => {
                store.media(id).await?.ok_or(Failure::Refused(MediaError::MediaNotFound))?
            }
        };
        Ok(StoredMedia { created: media.id == upload.id, media })
    }

    /// Whether the picture cannot be shown because its bytes were lost or could not be processed.
    async fn is_lost(&self, media: &Media) -> Result<bool, Error> {
        Ok(match &media.state {
            MediaState::Processing => false,
            MediaState::Rejected(reason) => matches!(reason.as_str(), "lost" | "unavailable"),
            MediaState::Ready if media.source.is_some() => false,
            MediaState::Ready => self.ports.store.renditions(media.space, media.id).await?.is_empty(),
        })
    }

    /// Changes that delete a picture. If it is an avatar in use, one of them notifies the partner.
    fn removal(
        &self,
        media: &Media,
        couple: Option<&Couple>,
        now: crate::Timestamp,
    ) -> Result<Vec<Change>, Error> {
        let mut changes = deletion(&self.ports, media)?;
        if media.purpose == Purpose::Avatar && media.uses > 0 {
            changes.insert(0, crate::timeline::rules::profile_changed(couple, media.owner, now));
        }
        Ok(changes)
    }

    /// Picture that an account may see, with its renditions.
    ///
    /// # Errors
    /// [`MediaError::MediaNotFound`] for any other picture, whether or not it exists.
    pub async fn view(&self, reader: AccountId, id: MediaId) -> MediaResult<(Media, Vec<Rendition>)> {
        let none = || Failure::Refused(MediaError::MediaNotFound);
        let media = self.ports.store.media(id).await?.ok_or_else(none)?;
        // The uploader may always see it, so the couple is not needed.
        let couple = match media.owner == reader {
            true => None,
            false => self.ports.store.couple_of(reader).await?,
        };
        if !rules::may_see(&media, reader, couple.as_ref()) {
            return Err(none());
        }
        let renditions = self.ports.store.renditions(media.space, id).await?;
        Ok((media, renditions))
    }

    /// Deletes a picture of the account, with its blobs. Entries that name it stay and show no picture.
    ///
    /// # Errors
    /// [`MediaError::MediaNotFound`] for a picture of another account.
    pub async fn delete(&self, account: AccountId, id: MediaId) -> MediaResult<()> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |_previous| {
                let media = self.ports.store.media(id).await?.filter(|media| media.owner == account);
                let media = media.ok_or(Failure::Refused(MediaError::MediaNotFound))?;
                Ok((media, self.ports.store.couple_of(account).await?))
            },
            |(media, couple)| Ok(Decision::commit(self.removal(media, couple.as_ref(), now)?, ())),
        )
        .await
    }

    /// Sets or removes the avatar of an account, and deletes the previous one.
    ///
    /// # Errors
    /// [`MediaError::MediaNotFound`], [`MediaError::MediaRejected`], [`MediaError::WrongPurpose`], [`MediaError::RateLimited`].
    pub async fn set_avatar(&self, account: AccountId, wanted: Option<MediaId>) -> MediaResult<()> {
        self.ports.allow(&[(limit::WRITE_PER_ACCOUNT, LimitKey::new("account", account))]).await?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let store = &self.ports.store;
        work.run_unkeyed(
            async |_previous| {
                let media = match wanted {
                    Some(id) => store.media(id).await?,
                    None => None,
                };
                Ok((media, store.avatar_of(account).await?, store.couple_of(account).await?))
            },
            |(media, before, couple)| {
                let mut changes =
                    rules::set_avatar(account, media.as_ref(), wanted, before.as_ref(), couple.as_ref(), now)
                        .map_err(Failure::Refused)?;
                if changes.is_empty() {
                    return Ok(Decision::Answer(()));
                }
                if let Some(before) = before {
                    changes.push(self.ports.enqueue(&DiscardBlobs { names: vec![before.folder()] })?);
                }
                Ok(Decision::commit(changes, ()))
            },
        )
        .await
    }

    /// Makes a picture ready with its decoded renditions.
    ///
    /// False if it is no longer processing or does not exist: no row then names the new blobs.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn finish(&self, id: MediaId, rendered: Rendered) -> Result<bool, Error> {
        self.settle(id, |media, couple, now| {
            let mut discard = Vec::new();
            if let Some(before) = &media.source
                && rendered.source.as_ref().is_none_or(|source| source.blob != before.blob)
            {
                discard.push(media.path(&before.blob));
            }
            (rules::finish(media, couple, rendered.clone(), now), discard)
        })
        .await
    }

    /// Rejects a picture and removes its blobs. False if it is no longer processing or does not exist.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reject(&self, id: MediaId, reason: &str) -> Result<bool, Error> {
        self.settle(id, |media, couple, now| {
            (rules::reject(media, couple, reason, now), vec![media.folder()])
        })
        .await
    }

    async fn settle(
        &self,
        id: MediaId,
        decide: impl Fn(&Media, Option<&Couple>, crate::Timestamp) -> (Vec<Change>, Vec<String>) + Send + Sync,
    ) -> Result<bool, Error> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |_previous| {
                let media = self.ports.store.media(id).await?;
                let Some(media) = media.filter(|media| media.state == MediaState::Processing) else {
                    return Ok(None);
                };
                let couple = match media.space {
                    Space::Couple(couple) => self.ports.store.couple(couple).await?,
                    Space::Account(account) => self.ports.store.couple_of(account).await?,
                };
                Ok(Some((media, couple)))
            },
            |processing| {
                let Some((media, couple)) = processing else { return Ok(Decision::Answer(false)) };
                let (mut changes, discard) = decide(media, couple.as_ref(), now);
                if !discard.is_empty() {
                    changes.push(self.ports.enqueue(&DiscardBlobs { names: discard })?);
                }
                Ok(Decision::commit(changes, true))
            },
        )
        .await
    }

    /// Adds a rendition whose blob is stored.
    ///
    /// False if the picture has the rendition already or does not exist: no row then names the blob.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn remember(&self, media: &Media, rendition: Rendition) -> Result<bool, Error> {
        let add = MediaChange::AddRendition { space: media.space, id: media.id, rendition };
        match self.ports.commit(vec![add.into()]).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    /// Records a request for a rendition, with at most one write per [`MediaPolicy::with_used_resolution`].
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn touch(&self, media: &Media, rendition: &Rendition) -> Result<(), Error> {
        let now = self.ports.now();
        let fresh = |used| now.since(used) < self.policy.used_resolution;
        if rendition.used_at.is_none_or(fresh) {
            return Ok(());
        }
        let (name, format): (String, Format) = (rendition.name.clone(), rendition.format);
        let touch = MediaChange::Touch { space: media.space, id: media.id, name, format, at: now };
        crate::ports::without_conflict(self.ports.commit(vec![touch.into()]).await).map(drop)
    }

    /// Deletes a picture, unless an entry or avatar has started to use it since it was read.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn expire(&self, media: &Media) -> Result<(), Error> {
        let changes = deletion(&self.ports, media)?;
        crate::ports::without_conflict(self.ports.commit(changes).await).map(drop)
    }

    /// Removes blobs of a picture that are unused or lost, first from its row and then from the blob store.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn forget(&self, media: &Media, blobs: Vec<String>) -> Result<(), Error> {
        let names = blobs.iter().map(|blob| media.path(blob)).collect();
        let discard = self.ports.enqueue(&DiscardBlobs { names })?;
        let forget = MediaChange::Forget { space: media.space, id: media.id, blobs };
        crate::ports::without_conflict(self.ports.commit(vec![forget.into(), discard]).await).map(drop)
    }
}

/// Page of an account's uploads in a space, and the id after which the next page starts.
///
/// The id is none for the last page.
///
/// # Errors
/// Errors of the store.
pub async fn uploaded(
    ports: &Ports,
    account: AccountId,
    space: Space,
    after: Option<MediaId>,
) -> Result<(Vec<Media>, Option<MediaId>), Error> {
    let mut page = ports.store.media_in(space, after, MAX_ROWS_PER_READ).await?;
    let next = page.last().filter(|_| page.len() == MAX_ROWS_PER_READ as usize).map(|media| media.id);
    page.retain(|media| media.owner == account);
    Ok((page, next))
}

/// Spaces in which an account may have uploaded pictures.
pub fn spaces(account: AccountId, couples: impl Iterator<Item = CoupleId>) -> impl Iterator<Item = Space> {
    std::iter::once(Space::Account(account)).chain(couples.map(Space::Couple))
}

/// Changes that delete a picture and enqueue the removal of its blobs.
pub(crate) fn deletion(ports: &Ports, media: &Media) -> Result<Vec<Change>, Error> {
    let discard = ports.enqueue(&DiscardBlobs { names: vec![media.folder()] })?;
    Ok(vec![MediaChange::Delete(media.as_read()).into(), discard])
}

/// Changes after an entry has stopped naming a picture: the last use deletes the picture.
pub(crate) async fn release_media(ports: &Ports, id: MediaId) -> Result<Vec<Change>, Error> {
    match ports.store.media(id).await? {
        None => Ok(Vec::new()),
        Some(media) if media.uses > 1 => Ok(vec![MediaChange::Release(media.as_read()).into()]),
        Some(media) => deletion(ports, &media),
    }
}
