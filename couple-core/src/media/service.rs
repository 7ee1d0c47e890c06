//! The use cases of pictures.

use super::{
    Crop, DiscardBlobs, Format, Media, MediaChange, Policy, Purpose, Refusal, Rendition, Source, Space,
    State, folder, identity,
    rules::{self, Rendered},
};
use crate::{
    AccountId, Call, Change, CommitError, CoupleId, Decision, Digest, Error, Failure, MediaId, Ports,
    limits::{LimitKey, rules as limit},
    media::RenderMedia,
    pairing::Couple,
    store::Transaction,
};

/// An upload that was let in: where its bytes go.
#[derive(Debug, Clone)]
pub struct Upload {
    /// What the picture will be called, unless the same bytes are there.
    pub id: MediaId,
    /// Where it will belong.
    pub space: Space,
    /// Who uploads.
    pub owner: AccountId,
    /// For what.
    pub purpose: Purpose,
    key: String,
}

impl Upload {
    /// What the names of its blobs begin with. Nobody else writes there, now or later.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(self.space, self.id, &self.key)
    }
}

/// What came with an upload, and was looked at.
#[derive(Debug, Clone)]
pub struct Received {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Their blob, in the upload's folder.
    pub source: Source,
    /// The part that is to be shown, if not the whole.
    pub crop: Option<Crop>,
    /// Upright, in pixels, as its headers say; 0 where they do not.
    pub width: u32,
    /// Upright, in pixels, likewise.
    pub height: u32,
    /// A blurred stand-in until ours is there, by whoever uploads.
    pub placeholder: Option<Vec<u8>>,
}

/// A picture, and whether this upload made it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The picture.
    pub media: Media,
    /// False: the same bytes were there, and what the upload wrote to its own folder is nobody's.
    pub created: bool,
}

/// Pictures that are read at once.
const PAGE: u32 = 100;

type Answer<T> = Result<T, Failure<Refusal>>;

/// Letting pictures in, showing them, and letting them go.
#[derive(Debug, Clone)]
pub struct Pictures {
    ports: Ports,
    policy: Policy,
}

impl Pictures {
    /// The service over its ports.
    #[must_use]
    pub const fn new(ports: Ports, policy: Policy) -> Self {
        Self { ports, policy }
    }

    /// Its numbers.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Lets an upload begin, before its bytes come. `length` is how many it says it has, if it does.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], [`Refusal::QuotaExceeded`], [`Refusal::RateLimited`].
    pub async fn begin(&self, account: AccountId, purpose: Purpose, length: Option<u64>) -> Answer<Upload> {
        self.allow_upload(account).await?;
        self.prepare(account, purpose, length).await
    }

    /// Counts an upload of an account.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub async fn allow_upload(&self, account: AccountId) -> Answer<()> {
        self.ports.allow(&[(limit::UPLOAD_PER_ACCOUNT, LimitKey::new("account", account))]).await
    }

    /// Counts a request that adds bytes to a resumable upload of an account.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub async fn allow_append(&self, account: AccountId) -> Answer<()> {
        self.ports.allow(&[(limit::APPEND_PER_ACCOUNT, LimitKey::new("account", account))]).await
    }

    /// Chooses where an upload goes, as [`begin`](Self::begin) does, without counting it.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], [`Refusal::QuotaExceeded`].
    pub async fn prepare(&self, account: AccountId, purpose: Purpose, length: Option<u64>) -> Answer<Upload> {
        let space = match purpose {
            Purpose::Avatar => Space::Account(account),
            Purpose::Photo => {
                let couple = self.ports.store.couple_of(account).await?;
                Space::Couple(couple.ok_or(Failure::Refused(Refusal::NotPaired))?.id)
            }
        };
        let bytes = i64::try_from(length.unwrap_or(0)).unwrap_or(i64::MAX);
        let kept = self.ports.store.media_space(space).await?;
        rules::room(space, bytes, &kept, &self.policy).map_err(Failure::Refused)?;
        let mut key = [0; 16];
        self.ports.entropy.fill(&mut key);
        Ok(Upload {
            id: MediaId::new(&*self.ports.clock, &*self.ports.entropy),
            space,
            owner: account,
            purpose,
            key: data_encoding::BASE32_NOPAD.encode(&key).to_ascii_lowercase(),
        })
    }

    /// Takes a picture whose bytes are kept: it, its state and its job are one commit. The same bytes again answer the picture
    /// that is there, and write nothing; only one whose bytes we lost, or never looked at, makes room for them.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`] when the couple ended meanwhile, [`Refusal::QuotaExceeded`], [`Refusal::KeyReused`]. Then, and
    /// when [`Stored::created`] is false, the upload's blobs are nobody's; after the store's own failure they may be
    /// somebody's.
    pub async fn add(&self, call: &Call, upload: &Upload, received: Received) -> Answer<Stored> {
        let now = self.ports.now();
        let store = &self.ports.store;
        let media = Media {
            id: upload.id,
            space: upload.space,
            owner: upload.owner,
            purpose: upload.purpose,
            state: State::Processing,
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
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            if let Some(id) = work.replay::<MediaId, Refusal>().await? {
                let media = store.media(id).await?.ok_or(Failure::Refused(Refusal::MediaNotFound))?;
                return Ok(Stored { created: media.id == upload.id, media });
            }
            let couple = store.couple_of(upload.owner).await?;
            let before = store.media_by_identity(upload.space, &identity).await?;
            let mut changes = Vec::new();
            if let Some(before) = before {
                if !self.is_lost(&before).await? {
                    return Ok(Stored { created: before.id == upload.id, media: before });
                }
                changes = self.removal(&before, couple.as_ref(), now)?;
            }
            let kept = store.media_space(upload.space).await?;
            let insert =
                rules::insert(&media, couple.as_ref(), &kept, &self.policy).map_err(Failure::Refused)?;
            changes.extend([insert.into(), self.ports.enqueue(&RenderMedia { media: media.id })?]);
            if work.commit(Decision { changes, outcome: media.id }).await?.is_some() {
                return Ok(Stored { media, created: true });
            }
        }
    }

    /// Whether nothing can be shown of it for no fault of its own.
    async fn is_lost(&self, media: &Media) -> Result<bool, Error> {
        Ok(match &media.state {
            State::Processing => false,
            State::Rejected(reason) => matches!(reason.as_str(), "lost" | "unavailable"),
            State::Ready if media.source.is_some() => false,
            State::Ready => self.ports.store.renditions(media.space, media.id).await?.is_empty(),
        })
    }

    /// What removes a picture; of an avatar that is shown the partner is told.
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

    /// A picture that a person may see, with its renditions.
    ///
    /// # Errors
    /// [`Refusal::MediaNotFound`] for any other: whether there is one is not told.
    pub async fn view(&self, reader: AccountId, id: MediaId) -> Answer<(Media, Vec<Rendition>)> {
        let none = || Failure::Refused(Refusal::MediaNotFound);
        let media = self.ports.store.media(id).await?.ok_or_else(none)?;
        // Whoever uploaded it sees it anyway.
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

    /// Deletes one's own picture, blobs and all. Entries that name it stay, and name nothing.
    ///
    /// # Errors
    /// [`Refusal::MediaNotFound`] for anybody else's.
    pub async fn delete(&self, account: AccountId, id: MediaId) -> Answer<()> {
        let now = self.ports.now();
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, now);
        loop {
            let media = self.ports.store.media(id).await?.filter(|media| media.owner == account);
            let media = media.ok_or(Failure::Refused(Refusal::MediaNotFound))?;
            let couple = self.ports.store.couple_of(account).await?;
            let changes = self.removal(&media, couple.as_ref(), now)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Sets or, with none, takes back what a person shows of themselves. What they showed before is deleted.
    ///
    /// # Errors
    /// [`Refusal::MediaNotFound`], [`Refusal::MediaRejected`], [`Refusal::WrongPurpose`], [`Refusal::RateLimited`].
    pub async fn set_avatar(&self, account: AccountId, wanted: Option<MediaId>) -> Answer<()> {
        let now = self.ports.now();
        let store = &self.ports.store;
        self.ports.allow(&[(limit::WRITE_PER_ACCOUNT, LimitKey::new("account", account))]).await?;
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, now);
        loop {
            let media = match wanted {
                Some(id) => store.media(id).await?,
                None => None,
            };
            let (before, couple) = (store.avatar_of(account).await?, store.couple_of(account).await?);
            let mut changes =
                rules::set_avatar(account, media.as_ref(), wanted, before.as_ref(), couple.as_ref(), now)
                    .map_err(Failure::Refused)?;
            if changes.is_empty() {
                return Ok(());
            }
            if let Some(before) = before {
                changes.push(self.ports.enqueue(&DiscardBlobs { names: vec![before.folder()] })?);
            }
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Makes a picture ready with what its blobs were made. False: somebody else did, or it is gone, and the new blobs are
    /// nobody's.
    ///
    /// # Errors
    /// The store's.
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

    /// Rejects a picture; its blobs go. False: it is gone, or not processing any more.
    ///
    /// # Errors
    /// The store's.
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
        let now = self.ports.now();
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, now);
        loop {
            let media = self.ports.store.media(id).await?;
            let Some(media) = media.filter(|media| media.state == State::Processing) else {
                return Ok(false);
            };
            let couple = match media.space {
                Space::Couple(couple) => self.ports.store.couple(couple).await?,
                Space::Account(account) => self.ports.store.couple_of(account).await?,
            };
            let (mut changes, discard) = decide(&media, couple.as_ref(), now);
            if !discard.is_empty() {
                changes.push(self.ports.enqueue(&DiscardBlobs { names: discard })?);
            }
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Remembers a rendition whose blob is kept. False: the picture has one meanwhile, or is gone, and the blob is nobody's.
    ///
    /// # Errors
    /// The store's.
    pub async fn remember(&self, media: &Media, rendition: Rendition) -> Result<bool, Error> {
        let add = MediaChange::AddRendition { space: media.space, id: media.id, rendition };
        match self.ports.commit(vec![add.into()]).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    /// Notes that a rendition was asked for; at most one write in [`Policy::used_resolution`].
    ///
    /// # Errors
    /// The store's.
    pub async fn touch(&self, media: &Media, rendition: &Rendition) -> Result<(), Error> {
        let now = self.ports.now();
        let fresh = |used| now.since(used) < self.policy.used_resolution;
        if rendition.used_at.is_none_or(fresh) {
            return Ok(());
        }
        let (name, format): (String, Format) = (rendition.name.clone(), rendition.format);
        let touch = MediaChange::Touch { space: media.space, id: media.id, name, format, at: now };
        crate::ports::settled(self.ports.commit(vec![touch.into()]).await).map(drop)
    }

    /// Deletes a picture, unless it was named since it was read.
    ///
    /// # Errors
    /// The store's.
    pub async fn expire(&self, media: &Media) -> Result<(), Error> {
        let changes = deletion(&self.ports, media)?;
        crate::ports::settled(self.ports.commit(changes).await).map(drop)
    }

    /// Forgets blobs of a picture, and has them removed: those that nobody asks for, and those that are lost.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget(&self, media: &Media, blobs: Vec<String>) -> Result<(), Error> {
        let names = blobs.iter().map(|blob| media.path(blob)).collect();
        let discard = self.ports.enqueue(&DiscardBlobs { names })?;
        let forget = MediaChange::Forget { space: media.space, id: media.id, blobs };
        crate::ports::settled(self.ports.commit(vec![forget.into(), discard]).await).map(drop)
    }
}

/// A page of what a person uploaded to a space, and after what the next one begins; none: it was the last.
///
/// # Errors
/// The store's.
pub async fn uploaded(
    ports: &Ports,
    account: AccountId,
    space: Space,
    after: Option<MediaId>,
) -> Result<(Vec<Media>, Option<MediaId>), Error> {
    let mut page = ports.store.media_in(space, after, PAGE).await?;
    let next = page.last().filter(|_| page.len() == PAGE as usize).map(|media| media.id);
    page.retain(|media| media.owner == account);
    Ok((page, next))
}

/// Where a person may have uploaded something.
pub fn spaces(account: AccountId, couples: impl Iterator<Item = CoupleId>) -> impl Iterator<Item = Space> {
    std::iter::once(Space::Account(account)).chain(couples.map(Space::Couple))
}

/// What removes a picture, and has its blobs removed.
pub(crate) fn deletion(ports: &Ports, media: &Media) -> Result<Vec<Change>, Error> {
    let discard = ports.enqueue(&DiscardBlobs { names: vec![media.folder()] })?;
    Ok(vec![MediaChange::Delete(media.as_read()).into(), discard])
}

/// What follows when an entry does not name a picture any more: the last that does takes it along.
pub(crate) async fn let_go(ports: &Ports, id: MediaId) -> Result<Vec<Change>, Error> {
    match ports.store.media(id).await? {
        None => Ok(Vec::new()),
        Some(media) if media.uses > 1 => Ok(vec![MediaChange::Release(media.as_read()).into()]),
        Some(media) => deletion(ports, &media),
    }
}
