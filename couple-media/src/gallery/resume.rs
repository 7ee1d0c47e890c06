//! Uploads that come in several requests, over days and networks.
//!
//! Nothing of them is in the store. Their name says what they are and is sealed with the key ring; what came is blobs in a folder of
//! the person's, each named by where it begins, so how far one is is what lies there without a gap. What expires is nobody's, and the
//! [sweep](super::Sweep) takes it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use couple_core::{
    AccountId, Call, Digest, Error, ErrorKind, MediaId, Timestamp,
    media::{Crop, Purpose, Refusal, Stored},
};
use data_encoding::BASE32_NOPAD;
use futures_util::TryStreamExt as _;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{About, Gallery, NotTaken, upload::in_its_own_task};

/// The blob that names the picture that an upload became; none, if it was ended.
const DONE: &str = "done";
/// Unfinished bytes of one person, in uploads of the largest size.
const UNFINISHED: u64 = 5;

/// An upload under its name.
#[derive(Debug, Clone)]
pub struct Resumable {
    gallery: Gallery,
    by: AccountId,
    about: About,
    length: u64,
    begun: Timestamp,
    key: String,
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that came.
    pub offset: u64,
    /// The picture that it became.
    pub done: Option<MediaId>,
}

impl Gallery {
    /// How long an upload may take, from its beginning.
    pub const RESUMABLE: Duration = Duration::from_hours(24);

    /// Begins an upload of `length` bytes.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn begin(&self, by: AccountId, about: About, length: u64) -> Result<Resumable, NotTaken> {
        let limit = self.0.options.limits.bytes;
        if length > limit as u64 {
            return Err(NotTaken::TooManyBytes { limit });
        }
        self.0.pictures.begin(by, about.purpose, Some(length)).await?;
        let unfinished = self.0.blobs.list(&format!("t/{by}"));
        let unfinished: u64 = unfinished.try_fold(0, async |sum, blob| Ok(sum + blob.size)).await?;
        if unfinished.saturating_add(length) > UNFINISHED * limit as u64 {
            return Err(NotTaken::Refused(Refusal::QuotaExceeded));
        }
        let mut key = [0; 10];
        self.0.ports.entropy.fill(&mut key);
        Ok(Resumable {
            gallery: self.clone(),
            by,
            about,
            length,
            begun: self.0.ports.now(),
            key: base32(&key),
        })
    }

    /// The upload of a person with this name, expired or not. None: there is none of that name, or it is another's.
    #[must_use]
    pub fn resume(&self, by: AccountId, name: &str) -> Option<Resumable> {
        let mut words = name.split('-');
        let purpose = match words.next()? {
            "avatar" => Purpose::Avatar,
            "photo" => Purpose::Photo,
            _ => return None,
        };
        let length = words.next()?.parse().ok()?;
        let begun = Timestamp::from_micros(words.next()?.parse().ok()?);
        let crop = words.next()?;
        let crop = if crop.is_empty() { None } else { Some(parse_crop(crop)?) };
        let hash = words.next()?;
        let placeholder = match hash.is_empty() {
            true => None,
            false => Some(BASE32_NOPAD.decode(hash.to_ascii_uppercase().as_bytes()).ok()?),
        };
        let key = words.next()?.to_owned();
        let about = About { purpose, crop, placeholder };
        let upload = Resumable { gallery: self.clone(), by, about, length, begun, key };
        // The whole of it: whatever else says the same is another name.
        (upload.name() == name).then_some(upload)
    }
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn parse_crop(text: &str) -> Option<Crop> {
    let edges: Option<Vec<u32>> = text.split('.').map(|edge| edge.parse().ok()).collect();
    match edges.as_deref() {
        Some(&[x, y, width, height]) => Some(Crop { x, y, width, height }),
        _ => None,
    }
}

impl Resumable {
    /// Its name, which only this server can make, for this person.
    #[must_use]
    pub fn name(&self) -> String {
        let About { purpose, crop, placeholder } = &self.about;
        let (purpose, length, begun) = (purpose.as_str(), self.length, self.begun.micros());
        let crop = crop.map_or_else(String::new, |c| format!("{}.{}.{}.{}", c.x, c.y, c.width, c.height));
        let placeholder = base32(placeholder.as_deref().unwrap_or_default());
        let name = format!("{purpose}-{length}-{begun}-{crop}-{placeholder}-{}", self.key);
        let keys = &self.gallery.0.ports.keys;
        let seal = keys.derive("resumable-upload", &[self.by.as_uuid().as_bytes(), name.as_bytes()]);
        format!("{name}-{}", base32(&seal.as_bytes()[..15]))
    }
    /// How many bytes it will have.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
    /// When it ends, complete or not.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.begun.plus(Gallery::RESUMABLE)
    }
    /// Whether that is over.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.gallery.0.ports.now() >= self.expires_at()
    }

    fn folder(&self) -> String {
        format!("t/{}/{}", self.by, self.key)
    }
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder())
    }

    /// How far it is. None: it was ended.
    ///
    /// # Errors
    /// The store's.
    pub async fn progress(&self) -> Result<Option<Progress>, Error> {
        // Parts first: they go after it is said what became of them.
        let offset = self.parts().await?.last().map_or(0, |(start, size)| start + size);
        let done = self.gallery.0.blobs.read(&self.path(DONE), 64).await?;
        if let Some(done) = done {
            let id = std::str::from_utf8(&done).ok().and_then(|id| id.parse().ok());
            return Ok(id.map(|id| Progress { offset: self.length, done: Some(id) }));
        }
        Ok(Some(Progress { offset, done: None }))
    }

    /// What came: where each part begins and how long it is, without a gap.
    async fn parts(&self) -> Result<Vec<(u64, u64)>, Error> {
        let folder = self.folder();
        let all: BTreeMap<u64, u64> = self
            .gallery
            .0
            .blobs
            .list(&folder)
            .try_filter_map(async |blob| {
                let start = blob.name.rsplit('/').next().and_then(|name| name.parse().ok());
                Ok(start.map(|start: u64| (start, blob.size)))
            })
            .try_collect()
            .await?;
        let (mut parts, mut offset) = (Vec::new(), 0);
        while let Some(&size) = all.get(&offset)
            && size > 0
        {
            parts.push((offset, size));
            offset += size;
        }
        Ok(parts)
    }

    /// Takes what comes from `offset` on, in a task of its own: what had come when the sender is dropped is kept, also when whoever
    /// sends is cut off. The task tells how many bytes that were.
    ///
    /// # Errors
    /// The task's are the store's.
    #[must_use]
    pub fn write(&self, offset: u64) -> (mpsc::Sender<Bytes>, JoinHandle<Result<u64, Error>>) {
        let (send, mut receive) = mpsc::channel::<Bytes>(1);
        let (blobs, path) = (self.gallery.0.blobs.clone(), self.path(&format!("{offset:010}")));
        let task = tokio::spawn(async move {
            let mut writer = blobs.write(&path)?;
            let mut written = 0;
            while let Some(bytes) = receive.recv().await {
                written += bytes.len() as u64;
                writer.write(bytes).await?;
            }
            if written > 0 {
                writer.finish().await?;
            }
            Ok(written)
        });
        (send, task)
    }

    /// Takes the picture of an upload of which all came, in a task of its own. `signed_in` is asked when all bytes are kept. Of several
    /// at once each answers the same picture.
    ///
    /// # Errors
    /// [`NotTaken`]. What is no picture is gone then; anything else may be tried again.
    pub async fn complete(
        &self,
        call: impl FnOnce(&Digest) -> Call + Send + 'static,
        signed_in: impl Future<Output = Result<bool, Error>> + Send + 'static,
    ) -> Result<Stored, NotTaken> {
        let upload = self.clone();
        in_its_own_task(async move {
            match upload.try_complete(call, signed_in).await {
                Ok(Some(stored)) => {
                    upload.became(stored.media.id).await?;
                    Ok(stored)
                }
                Ok(None) => Ok(upload.already().await?),
                Err(error @ (NotTaken::UnknownType { .. } | NotTaken::TooLarge { .. })) => {
                    upload.end().await?;
                    Err(error)
                }
                Err(other) => Err(other),
            }
        })
        .await
    }

    async fn became(&self, id: MediaId) -> Result<(), Error> {
        let blobs = &self.gallery.0.blobs;
        blobs.put(&self.path(DONE), id.to_string().into()).await?;
        for (start, _) in self.parts().await? {
            blobs.delete(&self.path(&format!("{start:010}"))).await?;
        }
        Ok(())
    }

    /// What another task made of it, which took the parts away.
    async fn already(&self) -> Result<Stored, Error> {
        let done = self.progress().await?.and_then(|progress| progress.done);
        let media = match done {
            Some(id) => self.gallery.0.ports.store.media(id).await?,
            None => None,
        };
        let away = || Error::new(ErrorKind::Unavailable, "complete upload").context("not all of it is there");
        media.map(|media| Stored { media, created: false }).ok_or_else(away)
    }

    /// None: not all of it is there any more.
    async fn try_complete(
        &self,
        call: impl FnOnce(&Digest) -> Call + Send + 'static,
        signed_in: impl Future<Output = Result<bool, Error>> + Send + 'static,
    ) -> Result<Option<Stored>, NotTaken> {
        let length = Some(self.length);
        let mut uploading = self.gallery.upload(self.by, self.about.clone(), length).await?;
        let mut read = 0;
        for (start, _) in self.parts().await? {
            let part = self.gallery.0.blobs.get(&self.path(&format!("{start:010}")), None).await?;
            let Some(mut part) = part else { break };
            while let Some(bytes) = part.bytes.try_next().await? {
                read += bytes.len() as u64;
                uploading.write(bytes).await?;
            }
        }
        if read != self.length {
            return Ok(None);
        }
        uploading.finish(call, signed_in).await.map(Some)
    }

    /// Ends it, and forgets what came.
    ///
    /// # Errors
    /// The store's.
    pub async fn end(&self) -> Result<(), Error> {
        self.gallery.0.blobs.delete_folder(&self.folder()).await?;
        self.gallery.0.blobs.put(&self.path(DONE), Bytes::new()).await
    }
}
