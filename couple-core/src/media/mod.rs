//! Pictures: their metadata, the rules for seeing them, and their sources and renditions.
//!
//! ```text
//!   upload ──▶ processing ──▶ ready      renditions are made, expire unused, and are made again
//!                  └────────▶ rejected   its bytes are removed, the reason stays
//! ```
//!
//! A photo belongs to a couple, an avatar to an account: each is a [`Space`] with its own quota, in which the
//! same bytes are stored once. This module handles neither pixels nor bytes: the bytes of a picture are blobs
//! in its [folder](Media::folder). The owner of the blob store writes a blob before the commit that names it
//! and removes it after the commit that no longer does. A crash between the two leaves a blob without a row,
//! never a row without its blob.

mod job;
mod port;
pub mod rules;
mod service;
mod signed_access;

pub(crate) use job::RenderPictures;
pub use job::{DiscardBlobs, RenderMedia};
pub use port::{ExpectedMedia, MediaChange, MediaReads, SpaceUsage};
pub use service::{AdmittedUpload, InspectedUpload, Pictures, StoredMedia, spaces, uploaded};
pub(crate) use service::{deletion, release_media};
pub use signed_access::Viewer;

use std::{cmp::Ordering, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AccountId, CoupleId, Digest, Invalid, MediaId, Timestamp, digest};

/// Owner of pictures: the unit of quota, deletion and deduplication. Ordered by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// Space of an account: avatars.
    Account(AccountId),
    /// Space of a couple: photos.
    Couple(CoupleId),
}

impl Space {
    /// Id of the account or couple.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        match self {
            Self::Account(id) => id.as_uuid(),
            Self::Couple(id) => id.as_uuid(),
        }
    }
    /// Kind of the space as stored: 0 for an account, 1 for a couple.
    #[must_use]
    pub const fn kind(self) -> i64 {
        match self {
            Self::Account(_) => 0,
            Self::Couple(_) => 1,
        }
    }
    /// Space of a stored kind and id.
    #[must_use]
    pub const fn from_stored(kind: i64, id: Uuid) -> Option<Self> {
        match kind {
            0 => Some(Self::Account(AccountId::from_uuid(id))),
            1 => Some(Self::Couple(CoupleId::from_uuid(id))),
            _ => None,
        }
    }
    /// Common prefix of the names of all blobs in the space.
    #[must_use]
    pub fn prefix(self) -> String {
        match self {
            Self::Account(id) => format!("a/{id}/"),
            Self::Couple(id) => format!("c/{id}/"),
        }
    }
}

impl Ord for Space {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.as_uuid(), self.kind()).cmp(&(other.as_uuid(), other.kind()))
    }
}

impl PartialOrd for Space {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Use of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Avatar of an account. All renditions are made in advance.
    Avatar,
    /// Photo of a timeline entry. Renditions are made on demand.
    Photo,
}

impl Purpose {
    /// Purpose as in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Avatar => "avatar",
            Self::Photo => "photo",
        }
    }
}

/// Processing state of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaState {
    /// Uploaded, but not decoded yet.
    Processing,
    /// Decoded: renditions can be shown.
    Ready,
    /// Cannot be shown. The text is the reason, as a stable word.
    ///
    /// A colon, a space and a detail follow where the word does not say which limit the picture exceeds.
    Rejected(String),
}

impl MediaState {
    /// State as in responses.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Rejected(_) => "rejected",
        }
    }

    /// The word and the detail of a rejection.
    #[must_use]
    pub fn rejection(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Rejected(reason) => Some(split_reason(reason)),
            Self::Processing | Self::Ready => None,
        }
    }
}

/// The word and the detail of a reason.
pub(crate) fn split_reason(reason: &str) -> (&str, Option<&str>) {
    match reason.split_once(": ") {
        Some((word, detail)) => (word, Some(detail)),
        None => (reason, None),
    }
}

/// Rectangle of the upright picture, in pixels from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Crop {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Stored file from which renditions are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name of the blob within the picture's folder.
    pub blob: String,
    /// Length in bytes.
    pub bytes: i64,
    /// Media type.
    pub media_type: String,
}

/// Metadata of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Id of the picture.
    pub id: MediaId,
    /// Space that the picture belongs to.
    pub space: Space,
    /// Account that uploaded the picture.
    pub owner: AccountId,
    /// Purpose of the picture.
    pub purpose: Purpose,
    /// Processing state.
    pub state: MediaState,
    /// SHA-256 of the uploaded bytes.
    pub digest: Digest,
    /// Part of the picture that is shown; none for all of it.
    pub crop: Option<Crop>,
    /// 128 random bits in base 32, which make the names of the blobs unguessable.
    pub key: String,
    /// Source of renditions; none if it is no longer stored, so that no further renditions can be made.
    pub source: Option<Source>,
    /// Width in pixels, upright.
    ///
    /// Until the picture is ready, the width in the file's header, or 0 if unknown.
    pub width: u32,
    /// Height in pixels, upright; until the picture is ready like `width`.
    pub height: u32,
    /// Whether the uploaded file is an animation, even if it is not shown as one; false until it is ready.
    pub animated: bool,
    /// Whether a part of the picture is transparent; false until it is ready.
    pub alpha: bool,
    /// `ThumbHash` of about 25 bytes, shown while the picture loads.
    ///
    /// Until the picture is ready it is the one from the upload, if any.
    pub placeholder: Option<Vec<u8>>,
    /// Number of entries or avatars that name the picture.
    ///
    /// Changes of the picture require the number that was read.
    pub uses: i64,
    /// Time of upload.
    pub created_at: Timestamp,
}

impl Media {
    /// Maximum length of a placeholder in bytes. A `ThumbHash` has 5 to about 25.
    pub const MAX_PLACEHOLDER_BYTES: usize = 40;

    /// Common prefix of the names of the picture's blobs.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(self.space, self.id, &self.key)
    }
    /// Full name of a blob of the picture.
    #[must_use]
    pub fn path(&self, blob: &str) -> String {
        self.folder() + blob
    }
    /// Digest of owner, purpose, content and crop. Unique within a space.
    #[must_use]
    pub fn identity(&self) -> Digest {
        identity(self.owner, self.purpose, &self.digest, self.crop)
    }
    /// Reference to the picture as it was read: the precondition of a change.
    #[must_use]
    pub const fn as_read(&self) -> ExpectedMedia {
        ExpectedMedia { space: self.space, id: self.id, uses: self.uses }
    }
}

/// Common prefix of the names of a picture's blobs: `{c|a}/{space}/{picture}-{key}/`.
fn folder(space: Space, id: MediaId, key: &str) -> String {
    format!("{}{id}-{key}/", space.prefix())
}

/// Digest of owner, purpose, content and crop; see [`Media::identity`].
#[must_use]
pub fn identity(owner: AccountId, purpose: Purpose, content: &Digest, crop: Option<Crop>) -> Digest {
    let edges = crop.map(|crop| [crop.x, crop.y, crop.width, crop.height].map(u32::to_be_bytes).concat());
    digest(&[
        owner.as_uuid().as_bytes(),
        purpose.as_str().as_bytes(),
        content.as_bytes(),
        edges.as_deref().unwrap_or_default(),
    ])
}

/// Encoding of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JPEG, for all clients.
    Jpeg,
    /// WebP, for clients that accept it.
    WebP,
    /// PNG, for pictures with transparent parts and clients that accept PNG but not WebP.
    Png,
}

impl Format {
    /// Index 0 to 2, as stored.
    #[must_use]
    pub const fn index(self) -> i64 {
        match self {
            Self::Jpeg => 0,
            Self::WebP => 1,
            Self::Png => 2,
        }
    }
    /// Format of a stored index.
    #[must_use]
    pub const fn from_index(index: i64) -> Option<Self> {
        match index {
            0 => Some(Self::Jpeg),
            1 => Some(Self::WebP),
            2 => Some(Self::Png),
            _ => None,
        }
    }
    /// File extension of the blobs, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Png => "png",
        }
    }
    /// Media type (RFC 2046, RFC 2083, RFC 9649).
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
            Self::Png => "image/png",
        }
    }
}

/// Rendition: a picture in one size and encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// Name of the size; name and format are unique within the picture.
    pub name: String,
    /// Encoding.
    pub format: Format,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Length in bytes.
    pub bytes: i64,
    /// Name of the blob within the picture's folder. A rendition that is made again has a new blob name.
    pub blob: String,
    /// Time of creation.
    pub made_at: Timestamp,
    /// Time of the last request, accurate to a day; none for a rendition that never expires.
    pub used_at: Option<Timestamp>,
}

crate::options! {
    /// Quotas of pictures.
    #[derive(Debug, Clone, Copy)]
    pub struct MediaPolicy {
        /// Sets the maximum bytes of a couple's photos, including renditions. Default: 10 GiB.
        couple_quota: i64 = 10 << 30, with_couple_quota;
        /// Sets the maximum bytes of an account's avatars, including renditions. Default: 100 MiB.
        account_quota: i64 = 100 << 20, with_account_quota;
        /// Sets the maximum age of [`Rendition::used_at`] before a request updates it. Saves a write per request.
        /// Default: 24 h.
        used_resolution: Duration = Duration::from_hours(24), with_used_resolution;
    }
}

impl MediaPolicy {
    /// Maximum bytes of a couple's photos, including renditions.
    #[must_use]
    pub const fn couple_quota(&self) -> i64 {
        self.couple_quota
    }
    /// Maximum bytes of an account's avatars, including renditions.
    #[must_use]
    pub const fn account_quota(&self) -> i64 {
        self.account_quota
    }
    /// Maximum bytes in a space.
    #[must_use]
    pub const fn quota(&self, space: Space) -> i64 {
        match space {
            Space::Account(_) => self.account_quota,
            Space::Couple(_) => self.couple_quota,
        }
    }
}

/// Error of a picture use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The account is in no couple, so a photo has no space.
    #[error("you are not in a couple")]
    NotPaired,
    /// There is no picture with this id that the account may see or use in this way.
    #[error("there is no such picture")]
    MediaNotFound,
    /// Decoding rejected the picture; `GET /v1/media/{media}` returns the reason.
    #[error("the picture was rejected; upload another one")]
    MediaRejected,
    /// The picture was uploaded for another purpose: a photo cannot be an avatar, or an avatar a photo.
    #[error("the picture was uploaded for another purpose")]
    WrongPurpose,
    /// The space has no room for the picture.
    #[error("there is no room left for more pictures; delete some")]
    QuotaExceeded,
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many uploads; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
}

impl MediaError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_field",
            Self::NotPaired => "not_paired",
            Self::MediaNotFound => "media_not_found",
            Self::MediaRejected => "media_rejected",
            Self::WrongPurpose => "media_wrong_purpose",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited(_) => "rate_limited",
            Self::KeyReused => "idempotency_key_reused",
        }
    }
}

from_common_refusals!(MediaError);
