//! Resumable uploads: the state of an upload that is stored between its requests.
//!
//! A client sends the bytes of one picture in several requests. The row of an upload says how many bytes are stored, in which blobs,
//! and which request may add to them. The row is the only source of the offset: blobs that no row names do not count.

use async_trait::async_trait;

use crate::{AccountId, CoupleId, Error, MediaId, Timestamp, UploadId};

/// A blob that holds a range of an upload's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPart {
    /// Name of the blob, without a space.
    pub blob: String,
    /// Length in bytes.
    pub bytes: i64,
}

/// A resumable upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumableUpload {
    /// Unique id.
    pub id: UploadId,
    /// Account that uploads. No other account may see or continue the upload.
    pub owner: AccountId,
    /// Couple in which the owner was when the upload was created. None: the upload does not depend on a couple.
    pub couple: Option<CoupleId>,
    /// Total length in bytes; none until the client has declared it.
    pub length: Option<i64>,
    /// Stored bytes. Never decreases.
    pub offset: i64,
    /// The blobs with the stored bytes, in order, without a gap.
    pub parts: Vec<UploadPart>,
    /// Fencing token of the latest request that claimed the upload; 0 before the first.
    pub writer: i64,
    /// `Upload-Metadata` as the client sent it.
    pub metadata: String,
    /// `Upload-Concat` as the client sent it.
    pub concatenation: Option<String>,
    /// Picture that the upload became. An upload with a picture is finished: it takes no bytes and has no parts.
    pub media: Option<MediaId>,
    /// End of the upload's life, finished or not.
    pub expires_at: Timestamp,
}

/// Number and size of an account's unfinished uploads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnfinishedUploads {
    /// Number of uploads.
    pub count: i64,
    /// Stored bytes of all of them.
    pub bytes: i64,
}

/// Changes to resumable uploads. An upload is named by its owner and its id; under another owner it does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadChange {
    /// Adds an upload. Precondition: no upload has its id ([`UploadChanged`](crate::Conflict::UploadChanged), here and below).
    Insert(ResumableUpload),
    /// Makes a request the only one that may append: the writer before it is fenced off. Preconditions: the upload is unfinished, has
    /// `offset` bytes, and its length is unknown or the given one.
    Claim {
        /// Account that owns the upload.
        owner: AccountId,
        /// Id of the upload.
        id: UploadId,
        /// Stored bytes, as the client knows them.
        offset: i64,
        /// Fresh random token of the request.
        writer: i64,
        /// Total length that the client declares now.
        length: Option<i64>,
    },
    /// Adds bytes at the end. Preconditions, in this order: the upload is unfinished, has `offset` bytes and this writer; with `bytes`
    /// more the unfinished uploads of its owner have at most `most` bytes ([`QuotaExceeded`](crate::Conflict::QuotaExceeded)).
    Append {
        /// Account that owns the upload.
        owner: AccountId,
        /// Upload.
        id: UploadId,
        /// Token of the request that claimed the upload.
        writer: i64,
        /// Stored bytes before.
        offset: i64,
        /// Added bytes.
        bytes: i64,
        /// All parts from now on.
        parts: Vec<UploadPart>,
        /// Limit for the unfinished bytes of the owner.
        most: i64,
    },
    /// Removes an upload whose parts another upload takes over. Precondition: it is unfinished and has `offset` bytes.
    TakeOver {
        /// Account that owns the upload.
        owner: AccountId,
        /// Upload.
        id: UploadId,
        /// Stored bytes.
        offset: i64,
    },
    /// Records the picture that an upload became, and forgets its parts. Precondition: the upload is unfinished.
    Finish {
        /// Account that owns the upload.
        owner: AccountId,
        /// Upload.
        id: UploadId,
        /// Picture.
        media: MediaId,
    },
    /// Removes an upload, if it exists.
    Remove {
        /// Account that owns the upload.
        owner: AccountId,
        /// Upload.
        id: UploadId,
    },
}

impl UploadChange {
    /// Account that owns the upload.
    #[must_use]
    pub const fn owner(&self) -> AccountId {
        match self {
            Self::Insert(upload) => upload.owner,
            Self::Claim { owner, .. }
            | Self::Append { owner, .. }
            | Self::TakeOver { owner, .. }
            | Self::Finish { owner, .. }
            | Self::Remove { owner, .. } => *owner,
        }
    }
}

/// Reads of resumable uploads.
///
/// * **U1** An upload reads back as it was written, every field.
/// * **U2** Of 50 concurrent appends at the same offset one succeeds; a claim ends the right of the writer before it to append.
/// * **U3** The unfinished uploads of an account never have more than the limit together, also when 50 appends to different uploads are
///   concurrent.
/// * **U4** An upload is finished once. A finished upload takes no bytes and does not count as unfinished.
/// * **U5** A declared length does not change.
/// * **U6** Taking over parts and inserting the upload that has them happen together or not at all.
/// * **U7** Expired uploads are listed with the earliest expiry first, and removing one twice is no conflict.
#[async_trait]
pub trait UploadReads: Send + Sync {
    /// The upload with this id, expired or not.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error>;
    /// Number and size of an account's unfinished uploads.
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error>;
    /// Stored bytes of the unfinished uploads of all accounts.
    async fn unfinished_bytes(&self) -> Result<i64, Error>;
    /// Up to `limit` uploads that expired at or before `now`, the earliest first, then by id.
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error>;
}

#[async_trait]
impl<S: UploadReads + ?Sized> UploadReads for std::sync::Arc<S> {
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error> {
        (**self).upload(id).await
    }
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error> {
        (**self).unfinished_uploads(owner).await
    }
    async fn unfinished_bytes(&self) -> Result<i64, Error> {
        (**self).unfinished_bytes().await
    }
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error> {
        (**self).expired_uploads(now, limit).await
    }
}
