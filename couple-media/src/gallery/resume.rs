//! Resumable uploads: pictures whose bytes arrive in several requests, over up to a day.
//!
//! The store has a row per upload ([`couple_core::upload`]): its owner, couple, length, offset, and the blobs with its bytes. A request
//! that sends bytes first claims the row, which fences off the request before it, and then appends. So offsets only grow, whichever
//! process serves the requests. [`ExpireUploads`](super::ExpireUploads) removes expired uploads.

use std::{collections::BTreeSet, time::Duration};

use couple_core::{
    AccountId, CommitError, Conflict, CoupleId, Digest, Error, ErrorKind, Failure, MediaId, RequestContext,
    Timestamp, UploadId,
    media::{MediaError, Purpose, Space, StoredMedia},
    upload::{ResumableUpload, UploadChange},
};
use futures_util::TryStreamExt as _;

use super::{Gallery, UploadError, UploadMetadata, upload::in_its_own_task};

/// `Upload-Concat` of an upload that is a part of another.
pub const PARTIAL_FOLDER: &str = "partial";

/// Properties of a resumable upload that the client gives at its creation.
#[derive(Debug, Clone, Default)]
pub struct NewUpload {
    /// Purpose of the picture. None: the upload is a part of another upload.
    pub purpose: Option<Purpose>,
    /// Couple that a photo, or a part of one, is meant for, if given.
    pub couple: Option<CoupleId>,
    /// Total length in bytes, if the client knows it.
    pub length: Option<u64>,
    /// `Upload-Metadata` as received.
    pub metadata: String,
    /// `Upload-Concat` as received.
    pub concatenation: Option<String>,
}

/// Reason for a refused request to a resumable upload.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Refused for the same reasons as an upload with one request.
    #[error(transparent)]
    Upload(UploadError),
    /// The account has no upload with this id.
    #[error("no such upload")]
    NotFound,
    /// The upload has expired.
    #[error("the upload has expired")]
    Expired,
    /// The couple in which the upload was created has ended.
    #[error("the couple in which the upload was created has ended")]
    CoupleEnded,
    /// The upload has another number of bytes than the client assumes.
    #[error("the upload has {offset} bytes")]
    Offset {
        /// Number of stored bytes.
        offset: u64,
    },
    /// A newer request continues the upload.
    #[error("another request continues the upload")]
    Superseded,
    /// The declared length differs from the length declared before, or is less than the stored bytes.
    #[error("the length differs from what was declared or stored before")]
    Length,
    /// The length is 0.
    #[error("an upload has at least one byte")]
    Empty,
    /// An upload to join is not complete, or is not a partial upload.
    #[error("not a complete partial upload")]
    NotJoinable,
    /// The account has reached its limit of unfinished uploads, or of bytes in them.
    #[error("too many unfinished uploads, or too many bytes in them")]
    TooMuchUnfinished,
}

impl From<UploadError> for ResumeError {
    fn from(error: UploadError) -> Self {
        Self::Upload(error)
    }
}

impl From<Error> for ResumeError {
    fn from(error: Error) -> Self {
        Self::Upload(error.into())
    }
}

impl From<Failure<MediaError>> for ResumeError {
    fn from(failure: Failure<MediaError>) -> Self {
        Self::Upload(failure.into())
    }
}

/// A resumable upload, as of the last read.
#[derive(Debug, Clone)]
pub struct Resumable {
    pub(super) gallery: Gallery,
    pub(super) row: ResumableUpload,
    /// Partial uploads, with their lengths, that this upload joins.
    ///
    /// Until it has become a picture, it is not in the store.
    joins: Vec<(UploadId, i64)>,
}

impl Gallery {
    /// Lifetime of an upload, from its creation.
    pub const UPLOAD_LIFETIME: Duration = Duration::from_hours(24);

    /// Creates an upload.
    ///
    /// A photo, or a part of one, belongs to the account's current couple, and to no later one. If [`NewUpload::couple`] is another
    /// couple, the upload is refused.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn begin(&self, by: AccountId, new: NewUpload) -> Result<Resumable, ResumeError> {
        self.0.pictures.allow_upload(by).await?;
        self.check_length(new.purpose, new.length)?;
        let couple = self.couple_for(by, &new, new.length).await?;
        let unfinished = self.0.ports.store.unfinished_uploads(by).await?;
        let declared = new.length.map_or(0, bytes);
        if unfinished.count >= i64::from(self.0.options.max_unfinished_uploads_per_account)
            || unfinished.bytes.saturating_add(declared) > self.max_unfinished_bytes_per_account()
        {
            return Err(ResumeError::TooMuchUnfinished);
        }
        let row = ResumableUpload {
            id: self.0.ports.new_id(),
            owner: by,
            couple,
            length: new.length.map(bytes),
            offset: 0,
            parts: Vec::new(),
            writer: 0,
            metadata: new.metadata,
            concatenation: new.concatenation,
            media: None,
            expires_at: self.0.ports.now().plus(Self::UPLOAD_LIFETIME),
        };
        // Again with the commit: concurrent requests see the same number.
        let most = i64::from(self.0.options.max_unfinished_uploads_per_account);
        self.commit(vec![UploadChange::Insert { upload: row.clone(), most }]).await?;
        Ok(Resumable { gallery: self.clone(), row, joins: Vec::new() })
    }

    /// Joins complete partial uploads, in this order.
    ///
    /// They are unchanged until [`complete`](Resumable::complete) has made a picture of them, so a failed request may be repeated.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn join(
        &self,
        by: AccountId,
        new: NewUpload,
        parts: &[UploadId],
    ) -> Result<Resumable, ResumeError> {
        self.0.pictures.allow_upload(by).await?;
        let once: BTreeSet<_> = parts.iter().collect();
        if parts.is_empty() || once.len() < parts.len() {
            return Err(ResumeError::NotJoinable);
        }
        let (mut joins, mut joined, mut offset, mut couples) = (Vec::new(), Vec::new(), 0, Vec::new());
        for &id in parts {
            let part = self.resume(by, id).await?.row;
            let partial = part.concatenation.as_deref() == Some(PARTIAL_FOLDER);
            if !partial || part.media.is_some() || part.length != Some(part.offset) {
                return Err(ResumeError::NotJoinable);
            }
            joins.push((id, part.offset));
            offset += part.offset;
            joined.extend(part.parts);
            couples.push(part.couple);
        }
        let length = u64::try_from(offset).ok();
        self.check_length(new.purpose, length)?;
        let couple = self.couple_for(by, &new, length).await?;
        if couple.is_some() && couples.iter().any(|part| *part != couple) {
            return Err(ResumeError::CoupleEnded);
        }
        let row = ResumableUpload {
            id: self.0.ports.new_id(),
            owner: by,
            couple,
            length: Some(offset),
            offset,
            parts: joined,
            writer: 0,
            metadata: new.metadata,
            concatenation: new.concatenation,
            media: None,
            expires_at: self.0.ports.now().plus(Self::UPLOAD_LIFETIME),
        };
        Ok(Resumable { gallery: self.clone(), row, joins })
    }

    /// Finds an upload of an account.
    ///
    /// # Errors
    /// [`ResumeError::NotFound`], also for another account's; [`ResumeError::Expired`]; [`ResumeError::CoupleEnded`]; the store's error.
    pub async fn resume(&self, by: AccountId, id: UploadId) -> Result<Resumable, ResumeError> {
        let row = self.row_of(by, id).await?;
        if row.media.is_none()
            && let Some(bound) = row.couple
            && self.0.ports.store.couple_of(by).await?.is_none_or(|couple| couple.id != bound)
        {
            return Err(ResumeError::CoupleEnded);
        }
        Ok(Resumable { gallery: self.clone(), row, joins: Vec::new() })
    }

    /// Removes an upload of an account and its bytes, also after its couple has ended.
    ///
    /// A picture that was made of it stays.
    ///
    /// # Errors
    /// [`ResumeError::NotFound`], [`ResumeError::Expired`]; the error of the store.
    pub async fn cancel(&self, by: AccountId, id: UploadId) -> Result<(), ResumeError> {
        let row = self.row_of(by, id).await?;
        Resumable { gallery: self.clone(), row, joins: Vec::new() }.end().await
    }

    async fn row_of(&self, by: AccountId, id: UploadId) -> Result<ResumableUpload, ResumeError> {
        let row = self.0.ports.store.upload(id).await?.filter(|row| row.owner == by);
        let row = row.ok_or(ResumeError::NotFound)?;
        if self.0.ports.now() >= row.expires_at { Err(ResumeError::Expired) } else { Ok(row) }
    }

    /// Limit of the unfinished bytes of one account: at least the size of the largest picture.
    pub(super) fn max_unfinished_bytes_per_account(&self) -> i64 {
        bytes(self.0.options.max_unfinished_bytes_per_account.max(self.0.options.limits.bytes() as u64))
    }

    pub(super) fn check_length(
        &self,
        purpose: Option<Purpose>,
        length: Option<u64>,
    ) -> Result<(), ResumeError> {
        let limit = self.0.options.limits.bytes();
        match length {
            Some(length) if length > limit as u64 => Err(UploadError::TooManyBytes { limit }.into()),
            Some(0) if purpose.is_some() => Err(ResumeError::Empty),
            _ => Ok(()),
        }
    }

    /// Couple to which an upload is bound; none for an avatar.
    async fn couple_for(
        &self,
        by: AccountId,
        new: &NewUpload,
        length: Option<u64>,
    ) -> Result<Option<CoupleId>, ResumeError> {
        match new.purpose {
            None => {
                let current = self.0.ports.store.couple_of(by).await?.map(|couple| couple.id);
                if new.couple.is_some() && new.couple != current {
                    return Err(UploadError::Refused(MediaError::NotPaired).into());
                }
                Ok(current)
            }
            Some(purpose) => match self.0.pictures.prepare(by, new.couple, purpose, length).await?.space {
                Space::Couple(id) => Ok(Some(id)),
                Space::Account(_) => Ok(None),
            },
        }
    }

    /// Commits changes; [`ResumeError::Superseded`] if another request was faster.
    pub(super) async fn commit(&self, changes: Vec<UploadChange>) -> Result<(), ResumeError> {
        let changes = changes.into_iter().map(Into::into).collect();
        match self.0.ports.commit(changes).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(Conflict::QuotaExceeded)) => Err(ResumeError::TooMuchUnfinished),
            Err(CommitError::Conflict(_)) => Err(ResumeError::Superseded),
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
    }

    /// Deletes blobs that no row names any more. The sweep deletes those that cannot be deleted now.
    pub(super) async fn discard(&self, blobs: Vec<String>) {
        if let Err(error) = self.0.blobs.delete_all(blobs).await {
            tracing::warn!(%error, "cannot delete bytes of resumable uploads; the sweep will delete them");
        }
    }
}

/// Converts a number of bytes to the store's type, a signed integer.
pub(super) fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

impl Resumable {
    /// Id of the upload.
    #[must_use]
    pub const fn id(&self) -> UploadId {
        self.row.id
    }
    /// Total length in bytes, once the client has declared it.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.row.length.map(count)
    }
    /// Number of stored bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        count(self.row.offset)
    }
    /// `Upload-Metadata` as received.
    #[must_use]
    pub fn metadata(&self) -> &str {
        &self.row.metadata
    }
    /// `Upload-Concat` as received.
    #[must_use]
    pub fn concatenation(&self) -> Option<&str> {
        self.row.concatenation.as_deref()
    }
    /// Picture that was made of the upload.
    #[must_use]
    pub const fn media(&self) -> Option<MediaId> {
        self.row.media
    }
    /// Expiry of the upload, complete or not.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.row.expires_at
    }
    /// Sets the picture that was made of the upload.
    #[must_use]
    pub fn became(mut self, media: MediaId) -> Self {
        self.row.media = Some(media);
        self
    }
    /// Whether this is a final upload, which joins other uploads.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.concatenation().is_some_and(|concatenation| concatenation != PARTIAL_FOLDER)
    }
    /// Whether this is a partial upload, of which no picture is made.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.row.concatenation.as_deref() == Some(PARTIAL_FOLDER)
    }
    /// Whether all bytes are stored and a picture is to be made.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.is_partial() && self.row.media.is_none() && self.row.length == Some(self.row.offset)
    }

    /// Makes the picture of a complete upload, in a separate task.
    ///
    /// Concurrent calls return the same picture.
    ///
    /// `signed_in` is called when all bytes are in the picture's blob.
    ///
    /// # Errors
    /// [`ResumeError`]. An upload that is not a picture is removed; after any other error the call may be repeated.
    pub async fn complete(
        &self,
        about: UploadMetadata,
        context: impl FnOnce(&Digest) -> RequestContext + Send + 'static,
        signed_in: impl Future<Output = Result<bool, Error>> + Send + 'static,
    ) -> Result<StoredMedia, ResumeError> {
        let upload = self.clone();
        in_its_own_task(async move {
            match upload.try_complete(about, context, signed_in).await {
                Ok(Some(stored)) => {
                    match upload.gallery.commit(upload.finished(stored.media.id)).await {
                        Ok(()) => {}
                        // A concurrent request joined the same parts: this upload has the picture too.
                        Err(ResumeError::Superseded) if !upload.joins.is_empty() => {
                            upload.gallery.commit(vec![upload.whole(stored.media.id)]).await?;
                        }
                        // Another task made the same picture, or the client removed the upload meanwhile.
                        Err(ResumeError::Superseded) => {}
                        Err(other) => return Err(other),
                    }
                    upload.discard_parts().await;
                    Ok(stored)
                }
                // A concurrent request joined the same parts, and has removed their blobs.
                Ok(None) if upload.is_missing_a_part().await? => Err(ResumeError::Superseded),
                Ok(None) => Ok(upload.completed_by_another().await?),
                Err(ResumeError::Upload(
                    error @ (UploadError::UnknownType { .. } | UploadError::TooLarge { .. }),
                )) => {
                    upload.end().await?;
                    Err(error.into())
                }
                // A photo of an ended couple must never belong to the next couple.
                Err(ResumeError::Upload(UploadError::Refused(MediaError::NotPaired))) => {
                    Err(ResumeError::CoupleEnded)
                }
                Err(other) => Err(other),
            }
        })
        .await
    }

    /// Changes that record the picture.
    fn finished(&self, media: MediaId) -> Vec<UploadChange> {
        let (owner, id) = (self.row.owner, self.row.id);
        if self.joins.is_empty() {
            return vec![UploadChange::Finish { owner, id, media }];
        }
        let joins = self.joins.iter().map(|&(id, offset)| UploadChange::TakeOver { owner, id, offset });
        joins.chain([self.whole(media)]).collect()
    }

    /// Change that inserts a finished upload that concatenates others.
    fn whole(&self, media: MediaId) -> UploadChange {
        let upload = ResumableUpload { media: Some(media), parts: Vec::new(), ..self.row.clone() };
        UploadChange::Insert { upload, most: i64::MAX }
    }

    /// Whether an upload that this one concatenates was removed.
    async fn is_missing_a_part(&self) -> Result<bool, Error> {
        for &(id, _) in &self.joins {
            if self.gallery.0.ports.store.upload(id).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn completed_by_another(&self) -> Result<StoredMedia, Error> {
        let store = &self.gallery.0.ports.store;
        let media = match store.upload(self.row.id).await?.and_then(|row| row.media) {
            Some(id) => store.media(id).await?,
            None => None,
        };
        let away = || Error::new(ErrorKind::Unavailable, "complete upload").context("bytes are missing");
        media.map(|media| StoredMedia { media, created: false }).ok_or_else(away)
    }

    /// Makes the picture. None: a part is missing.
    async fn try_complete(
        &self,
        about: UploadMetadata,
        context: impl FnOnce(&Digest) -> RequestContext + Send + 'static,
        signed_in: impl Future<Output = Result<bool, Error>> + Send + 'static,
    ) -> Result<Option<StoredMedia>, ResumeError> {
        let inner = &self.gallery.0;
        let upload = inner.pictures.prepare(self.row.owner, None, about.purpose, Some(self.offset())).await?;
        let bound = match upload.space {
            Space::Couple(id) => self.row.couple == Some(id),
            Space::Account(_) => true,
        };
        if !bound {
            return Err(ResumeError::CoupleEnded);
        }
        let mut uploading = self.gallery.uploading(about, upload)?;
        let mut read = 0;
        for part in &self.row.parts {
            let Some(mut blob) = inner.blobs.get(&part.blob, None).await? else { return Ok(None) };
            while let Some(bytes) = blob.bytes.try_next().await? {
                read += bytes.len() as u64;
                uploading.write(bytes).await?;
            }
        }
        if read != self.offset() {
            return Ok(None);
        }
        Ok(Some(uploading.finish(context, signed_in).await?))
    }

    /// Removes the upload and its bytes. A picture that was made of it stays.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn end(&self) -> Result<(), ResumeError> {
        let (owner, id) = (self.row.owner, self.row.id);
        // The parts are read again: another request may have appended.
        let row = self.gallery.0.ports.store.upload(id).await?.unwrap_or_else(|| self.row.clone());
        let ids = self.joins.iter().map(|&(id, _)| id).chain([id]);
        self.gallery.commit(ids.map(|id| UploadChange::Remove { owner, id }).collect()).await?;
        Self { row, ..self.clone() }.discard_parts().await;
        Ok(())
    }

    async fn discard_parts(&self) {
        let parts = self.row.parts.iter().map(|part| part.blob.clone()).collect();
        self.gallery.discard(parts).await;
    }
}
