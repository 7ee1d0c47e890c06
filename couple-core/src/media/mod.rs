//! Pictures: what is known of them, who may see them, and how much of them is kept.
//!
//! ```text
//!   upload ──▶ processing ──▶ ready      renditions come, go unused, and come again
//!                  └────────▶ rejected   its bytes go, the reason stays
//! ```
//!
//! A photo belongs to a couple, an avatar to a person: each is a [`Space`], with a quota of its own, in which the same bytes are
//! kept once. Nothing here knows pixels or holds bytes: a picture's bytes are blobs in its [folder](Media::folder), which whoever
//! keeps blobs writes before the commit that names them and removes after the commit that forgets them. What dies between
//! the two leaves a blob that nobody names, never a name without a blob.

mod job;
mod port;
pub mod rules;
mod service;
mod signed_access;

pub use job::{DiscardBlobs, RenderMedia};
pub use port::{AsRead, Kept, MediaChange, MediaReads};
pub use service::{Pictures, Received, Stored, Upload, spaces, uploaded};
pub(crate) use service::{deletion, let_go};
pub use signed_access::Viewer;

use std::{borrow::Cow, cmp::Ordering, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AccountId, CoupleId, Digest, Invalid, MediaId, Timestamp, digest, idempotency::KeyReused};

/// Whose pictures: the unit of quota, of deletion, and of keeping the same bytes once. Put in order by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// A person's: avatars.
    Account(AccountId),
    /// A couple's: photos.
    Couple(CoupleId),
}

impl Space {
    /// The id, whichever it is of.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        match self {
            Self::Account(id) => id.as_uuid(),
            Self::Couple(id) => id.as_uuid(),
        }
    }
    /// 0 or 1: which of the two it is, as stored.
    #[must_use]
    pub const fn kind(self) -> i64 {
        match self {
            Self::Account(_) => 0,
            Self::Couple(_) => 1,
        }
    }
    /// Reads a stored kind and id.
    #[must_use]
    pub const fn from_stored(kind: i64, id: Uuid) -> Option<Self> {
        match kind {
            0 => Some(Self::Account(AccountId::from_uuid(id))),
            1 => Some(Self::Couple(CoupleId::from_uuid(id))),
            _ => None,
        }
    }
    /// What the names of all its blobs begin with.
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

/// What a picture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A person's face: all its renditions are made at once.
    Avatar,
    /// An entry of the timeline: its renditions are made when they are asked for.
    Photo,
}

impl Purpose {
    /// The purpose in a request.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Avatar => "avatar",
            Self::Photo => "photo",
        }
    }
}

/// How far a picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its bytes are there; nobody has decoded them.
    Processing,
    /// It can be shown.
    Ready,
    /// It never will be: a word that says why.
    Rejected(String),
}

impl State {
    /// The state in an answer.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Rejected(_) => "rejected",
        }
    }
}

/// A rectangle of the upright picture, in its pixels, from the top left.
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

/// What renditions are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its blob, within the picture's folder.
    pub blob: String,
    /// Its length.
    pub bytes: i64,
    /// Its media type.
    pub media_type: String,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Which.
    pub id: MediaId,
    /// Where it belongs.
    pub space: Space,
    /// Who uploaded it.
    pub owner: AccountId,
    /// What it is for.
    pub purpose: Purpose,
    /// How far it is.
    pub state: State,
    /// SHA-256 of the bytes that were uploaded.
    pub digest: Digest,
    /// The part of it that is shown, if not the whole.
    pub crop: Option<Crop>,
    /// 128 random bits, in base 32: what makes the names of its blobs unguessable.
    pub key: String,
    /// None once it is not kept any more: what renditions there are then are all.
    pub source: Option<Source>,
    /// Upright, in pixels: until it is ready as its headers say, 0 where they do not.
    pub width: u32,
    /// Upright, in pixels, likewise.
    pub height: u32,
    /// Whether the uploaded file is an animation, shown as one or not; false until it is ready.
    pub animated: bool,
    /// Whether a part of the picture is transparent; false until it is ready.
    pub alpha: bool,
    /// A `ThumbHash`, a blurred stand-in of some 25 bytes: until it is ready the one that came with the upload, if one did.
    pub placeholder: Option<Vec<u8>>,
    /// How many entries, or avatars, name it. Whatever changes it says how many it read.
    pub uses: i64,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

impl Media {
    /// The most bytes of a placeholder. A `ThumbHash` has some 25, and five at least.
    pub const PLACEHOLDER_MOST: usize = 40;

    /// What the names of all its blobs begin with.
    #[must_use]
    pub fn folder(&self) -> String {
        folder(self.space, self.id, &self.key)
    }
    /// The whole name of one of its blobs.
    #[must_use]
    pub fn path(&self, blob: &str) -> String {
        self.folder() + blob
    }
    /// What only one picture of a space may have: who uploaded which bytes to be shown as what.
    #[must_use]
    pub fn identity(&self) -> Digest {
        identity(self.owner, self.purpose, &self.digest, self.crop)
    }
    /// It, as it was read: what a change of it names.
    #[must_use]
    pub const fn as_read(&self) -> AsRead {
        AsRead { space: self.space, id: self.id, uses: self.uses }
    }
}

/// What the names of a picture's blobs begin with: `{c|a}/{space}/{picture}-{key}/`.
fn folder(space: Space, id: MediaId, key: &str) -> String {
    format!("{}{id}-{key}/", space.prefix())
}

/// See [`Media::identity`].
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

/// How a rendition is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For everybody.
    Jpeg,
    /// For clients that accept it.
    WebP,
    /// For clients that accept it and no WebP, if a part of the picture is transparent.
    Png,
}

impl Format {
    /// 0 to 2, as stored.
    #[must_use]
    pub const fn index(self) -> i64 {
        match self {
            Self::Jpeg => 0,
            Self::WebP => 1,
            Self::Png => 2,
        }
    }
    /// Reads a stored index.
    #[must_use]
    pub const fn from_index(index: i64) -> Option<Self> {
        match index {
            0 => Some(Self::Jpeg),
            1 => Some(Self::WebP),
            2 => Some(Self::Png),
            _ => None,
        }
    }
    /// How its blobs' names end, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Png => "png",
        }
    }
    /// Its media type (RFC 2046, RFC 2083, RFC 9649).
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
            Self::Png => "image/png",
        }
    }
}

/// A picture in one size and encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// Which size: unique, with its format, within the picture.
    pub name: String,
    /// How it is encoded.
    pub format: Format,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Its length.
    pub bytes: i64,
    /// Its blob, within the picture's folder. A name is not used again when the rendition is made again.
    pub blob: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it was last asked for, to the day; none for one that is kept however long nobody asks.
    pub used_at: Option<Timestamp>,
}

/// Numbers a host may change.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Bytes of a couple's photos, renditions included.
    pub couple_quota: i64,
    /// Bytes of a person's avatars, renditions included.
    pub account_quota: i64,
    /// How stale [`Rendition::used_at`] may be, so that a request does not cost a write.
    pub used_resolution: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { couple_quota: 10 << 30, account_quota: 100 << 20, used_resolution: Duration::from_hours(24) }
    }
}

impl Policy {
    /// The most bytes that a space may hold.
    #[must_use]
    pub const fn quota(&self, space: Space) -> i64 {
        match space {
            Space::Account(_) => self.account_quota,
            Space::Couple(_) => self.couple_quota,
        }
    }
}

/// What a person may be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A field is not as it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// They are in no couple, so there is nowhere for a photo.
    #[error("you are not in a couple")]
    NotPaired,
    /// There is none that they may see, or none that can be what they want it to be.
    #[error("there is no such picture")]
    MediaNotFound,
    /// The picture was rejected when it was decoded; `GET /v1/media/{media}` has the reason.
    #[error("the picture was rejected; upload another one")]
    MediaRejected,
    /// The picture was uploaded for another purpose: a photo is no avatar, and an avatar no photo.
    #[error("the picture was uploaded for another purpose")]
    WrongPurpose,
    /// There is no room for it.
    #[error("there is no room left for more pictures; delete some")]
    QuotaExceeded,
    /// Too often.
    #[error("too many uploads; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The key came before with another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
}

impl Refusal {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Invalid(_) => "invalid_field",
            Self::NotPaired => "not_paired",
            Self::MediaNotFound => "media_not_found",
            Self::MediaRejected => "media_rejected",
            Self::WrongPurpose => "media_wrong_purpose",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RateLimited(_) => "rate_limited",
            Self::KeyReused => "idempotency_key_reused",
        })
    }
}

impl From<KeyReused> for Refusal {
    fn from(_: KeyReused) -> Self {
        Self::KeyReused
    }
}

impl From<crate::limits::Limited> for Refusal {
    fn from(limited: crate::limits::Limited) -> Self {
        Self::RateLimited(limited.retry_after)
    }
}
