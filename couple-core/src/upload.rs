//! Resumable uploads: the state of an upload that is stored between its requests.
//!
//! A client sends the bytes of one picture in several requests. The row of an upload holds the number of
//! stored bytes, the blobs that hold them, and the request that may append. The row is the only source of the
//! offset: blobs that no row names do not count.

use async_trait::async_trait;

use crate::{AccountId, CoupleId, Error, MediaId, Timestamp, UploadId};

/// Blob that holds a range of the bytes of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPart {
    /// Name of the blob, without its space. Contains no blank.
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
    /// Couple of the owner when the upload was created; none if the upload does not depend on a couple.
    pub couple: Option<CoupleId>,
    /// Total length in bytes; none until the client has declared it.
    pub length: Option<i64>,
    /// Number of stored bytes. Never decreases.
    pub offset: i64,
    /// Blobs that hold the stored bytes, in order and without gaps.
    pub parts: Vec<UploadPart>,
    /// Fencing token of the latest request that claimed the upload; 0 before the first claim.
    pub writer: i64,
    /// `Upload-Metadata` as the client sent it.
    pub metadata: String,
    /// `Upload-Concat` as the client sent it.
    pub concatenation: Option<String>,
    /// Picture that was created from the upload.
    ///
    /// An upload with a picture is finished: it takes no bytes and has no parts.
    pub media: Option<MediaId>,
    /// Expiry of the upload, finished or not.
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

/// Changes to resumable uploads, which are identified by owner and id together.
///
/// Under another owner an upload does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadChange {
    /// Adds an upload.
    ///
    /// Preconditions, in this order: if it is unfinished, its owner has fewer than `most` unfinished uploads
    /// ([`QuotaExceeded`](crate::Conflict::QuotaExceeded)); no upload has its id
    /// ([`UploadChanged`](crate::Conflict::UploadChanged), here and below).
    Insert {
        /// The new upload.
        upload: ResumableUpload,
        /// Maximum number of unfinished uploads of the owner, this one included.
        most: i64,
    },
    /// Gives one request the right to append and fences off the previous writer.
    ///
    /// Preconditions: the upload is unfinished, has `offset` bytes, and its length is unknown or equal to
    /// `length`.
    Claim {
        /// Account that owns the upload.
        owner: AccountId,
        /// Id of the upload.
        id: UploadId,
        /// Number of stored bytes that the client knows of.
        offset: i64,
        /// Fencing token of the request, fresh and random.
        writer: i64,
        /// Total length in bytes that the client declares with this request.
        length: Option<i64>,
    },
    /// Appends bytes.
    ///
    /// Preconditions, in this order: the upload is unfinished and has `offset` bytes and this writer; with
    /// `bytes` more, the unfinished uploads of the owner have at most `most` bytes
    /// ([`QuotaExceeded`](crate::Conflict::QuotaExceeded)).
    Append {
        /// Account that owns the upload.
        owner: AccountId,
        /// Id of the upload.
        id: UploadId,
        /// Fencing token of the request that claimed the upload.
        writer: i64,
        /// Number of stored bytes before the append.
        offset: i64,
        /// Number of appended bytes.
        bytes: i64,
        /// All parts after the append.
        parts: Vec<UploadPart>,
        /// Limit of the owner's unfinished bytes.
        most: i64,
    },
    /// Removes an upload whose parts another upload takes over.
    ///
    /// Precondition: it is unfinished and has `offset` bytes.
    TakeOver {
        /// Account that owns the upload.
        owner: AccountId,
        /// Id of the upload.
        id: UploadId,
        /// Number of stored bytes.
        offset: i64,
    },
    /// Records the picture that was created from an upload, and removes its parts.
    ///
    /// Precondition: the upload is unfinished.
    Finish {
        /// Account that owns the upload.
        owner: AccountId,
        /// Id of the upload.
        id: UploadId,
        /// Id of the picture.
        media: MediaId,
    },
    /// Sets the expiry of all uploads of an account, finished or not, to `at`, unless they expire earlier.
    ExpireOf {
        /// Account that owns the uploads.
        owner: AccountId,
        /// New expiry.
        at: Timestamp,
    },
    /// Removes an upload, if it exists.
    Remove {
        /// Account that owns the upload.
        owner: AccountId,
        /// Id of the upload.
        id: UploadId,
    },
}

impl UploadChange {
    /// Account that owns the upload.
    #[must_use]
    pub const fn owner(&self) -> AccountId {
        match self {
            Self::Insert { upload, .. } => upload.owner,
            Self::Claim { owner, .. }
            | Self::Append { owner, .. }
            | Self::TakeOver { owner, .. }
            | Self::Finish { owner, .. }
            | Self::ExpireOf { owner, .. }
            | Self::Remove { owner, .. } => *owner,
        }
    }
}

/// Reads of resumable uploads, with the guarantees that a store must give.
///
/// * **U1** Every field of an upload reads back as it was written, with any Unicode text: metadata of up to
///   2,048 bytes, concatenations of 8,000, and 200 parts. A store keeps each time to the microsecond, before
///   1970 and after 2038 too.
/// * **U2** Of 50 concurrent appends at the same offset one succeeds; after a claim the previous writer
///   cannot append.
/// * **U3** The unfinished uploads of an account never exceed the limit together, also under 50 concurrent
///   appends to different uploads.
/// * **U4** An upload is finished once. A finished upload takes no bytes and does not count as unfinished.
/// * **U5** A declared length does not change.
/// * **U6** Taking over parts, and inserting the upload that has them, is atomic.
/// * **U7** Expired uploads are listed by expiry, the earliest first, then by id; removing an upload twice is no
///   conflict. The uploads of an account, and of no other, can be made to expire.
/// * **U8** An account never has more unfinished uploads than `most`: 50 concurrent inserts add as many as fit;
///   finished ones do not count.
#[async_trait]
pub trait UploadReads: Send + Sync {
    /// Upload with this id, expired or not.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error>;
    /// Number and size of the unfinished uploads of an account.
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error>;
    /// Number of stored bytes in the unfinished uploads of all accounts.
    async fn unfinished_bytes(&self) -> Result<i64, Error>;
    /// Up to `limit` uploads that expired at or before `now`, ordered by expiry, then by id.
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error>;
}
