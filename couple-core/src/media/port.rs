//! Picture changes and reads that a store supports.

use async_trait::async_trait;

use super::{Format, Media, Rendition, Source, Space};
use crate::{AccountId, CoupleId, Digest, Error, MediaId, Timestamp};

/// Reference to a picture as it was read.
///
/// Precondition of every change that contains one: the picture exists and has the same number of uses
/// ([`MediaChanged`](crate::Conflict::MediaChanged)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedMedia {
    /// Space of the picture.
    pub space: Space,
    /// Id of the picture.
    pub id: MediaId,
    /// Number of uses as it was read.
    pub uses: i64,
}

/// Changes to pictures, their sources and their renditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaChange {
    /// Adds a picture.
    ///
    /// Preconditions, in this order: its couple has not ended
    /// ([`CoupleEnded`](crate::Conflict::CoupleEnded)), or its account's space is not closed
    /// ([`SpaceClosed`](crate::Conflict::SpaceClosed)); neither its id nor, in its space, its
    /// [identity](Media::identity) exists ([`MediaExists`](crate::Conflict::MediaExists)); with its source
    /// the space has at most `most` bytes ([`QuotaExceeded`](crate::Conflict::QuotaExceeded)).
    Insert {
        /// Picture to add.
        media: Media,
        /// Quota of the space in bytes.
        most: i64,
    },
    /// Makes a picture ready.
    ///
    /// Precondition, here and for rejecting, besides [`ExpectedMedia`]: it is processing.
    Finish {
        /// Picture as it was read.
        of: ExpectedMedia,
        /// Width in pixels, upright.
        width: u32,
        /// Height in pixels, upright.
        height: u32,
        /// Whether the uploaded file is an animation.
        animated: bool,
        /// Whether a part of the picture is transparent.
        alpha: bool,
        /// `ThumbHash` of the picture.
        placeholder: Vec<u8>,
        /// New source of renditions, in place of the uploaded file; none if no source is kept.
        source: Option<Source>,
        /// Renditions made in advance. They count towards the quota but are never refused.
        renditions: Vec<Rendition>,
    },
    /// Rejects a picture and removes its source.
    Reject {
        /// Picture as it was read.
        of: ExpectedMedia,
        /// Reason, a stable word.
        reason: String,
    },
    /// Counts a use of a photo by an entry.
    ///
    /// Preconditions: the couple has not ended; the picture is a photo of that owner and couple, and its
    /// readiness is as it was read ([`MediaChanged`](crate::Conflict::MediaChanged)), because an entry
    /// `media_ready` follows only for a picture that was still processing.
    Use {
        /// Couple of the photo.
        couple: CoupleId,
        /// Id of the picture.
        id: MediaId,
        /// Account that must have uploaded it.
        owner: AccountId,
        /// State as it was read: true for ready, false for processing.
        ready: bool,
    },
    /// Decrements the number of uses of a picture. Precondition besides [`ExpectedMedia`]: it has a use.
    Release(ExpectedMedia),
    /// Removes a picture and its renditions. If it is the account's avatar, the account then has none.
    Delete(ExpectedMedia),
    /// Adds a rendition. It counts towards the quota but is never refused.
    ///
    /// Preconditions: the picture is ready and has no rendition with this name and format
    /// ([`MediaChanged`](crate::Conflict::MediaChanged)).
    AddRendition {
        /// Space of the picture.
        space: Space,
        /// Id of the picture.
        id: MediaId,
        /// Rendition to add.
        rendition: Rendition,
    },
    /// Moves the time of a rendition's last request forward. A no-op if it does not exist or never expires.
    Touch {
        /// Space of the picture.
        space: Space,
        /// Id of the picture.
        id: MediaId,
        /// Name of the rendition.
        name: String,
        /// Format of the rendition.
        format: Format,
        /// Time of the request.
        at: Timestamp,
    },
    /// Removes blobs from a picture's row: renditions, and the source if it is among them.
    ///
    /// No precondition: an absent blob is skipped, and a rendition that is requested again is made again.
    Forget {
        /// Space of the picture.
        space: Space,
        /// Id of the picture.
        id: MediaId,
        /// Names of the blobs within the picture's folder.
        blobs: Vec<String>,
    },
    /// Sets the avatar of an account, or removes it.
    ///
    /// Preconditions, in this order: the avatar is `before`
    /// ([`AvatarChanged`](crate::Conflict::AvatarChanged)), because the caller deletes that picture; the new
    /// one is an avatar in the account's own space and not rejected
    /// ([`MediaChanged`](crate::Conflict::MediaChanged)).
    SetAvatar {
        /// Id of the account.
        account: AccountId,
        /// New avatar; none removes the avatar.
        media: Option<MediaId>,
        /// Avatar as it was read.
        before: Option<MediaId>,
    },
    /// Closes an account's space permanently, before the account is deleted.
    ///
    /// Precondition: the space holds no picture ([`SpaceNotEmpty`](crate::Conflict::SpaceNotEmpty)).
    Close {
        /// Account that owns the space.
        account: AccountId,
    },
}

impl MediaChange {
    /// Space that the change affects.
    #[must_use]
    pub const fn space(&self) -> Space {
        match self {
            Self::Insert { media, .. } => media.space,
            Self::Finish { of, .. } | Self::Reject { of, .. } | Self::Release(of) | Self::Delete(of) => {
                of.space
            }
            Self::AddRendition { space, .. } | Self::Touch { space, .. } | Self::Forget { space, .. } => {
                *space
            }
            Self::Use { couple, .. } => Space::Couple(*couple),
            Self::SetAvatar { account, .. } | Self::Close { account } => Space::Account(*account),
        }
    }
}

/// Usage of a space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Total bytes of all sources and renditions.
    pub bytes: i64,
    /// Current avatar of the account.
    pub avatar: Option<MediaId>,
    /// Whether the space accepts no more pictures.
    pub closed: bool,
}

/// Reads of pictures, with the guarantees that a store must give.
///
/// * **M1** Of 50 concurrent uploads of the same bytes by the same account for the same purpose and crop, one
///   is added. Uploads that differ in one of these or in the space are different pictures.
/// * **M2** Every field of pictures and renditions reads back as it was written, with any Unicode text: names of
///   renditions of up to 64 bytes, placeholders of 40, other text of 300. A store keeps each time to the
///   microsecond, before 1970 and after 2038 too.
/// * **M3** Uploads never exceed the quota of a space: of 50 concurrent uploads as many are added as fit.
/// * **M4** The usage of a space is always the sum of its pictures' sources and renditions, also after a commit
///   that conflicted.
/// * **M5** A picture becomes ready or rejected once; a rejected picture has no source.
/// * **M6** No picture of an ended couple is added or used; a picture that is being processed still becomes
///   ready.
/// * **M7** An entry uses only a photo of its author and its couple that is not rejected and whose state is
///   as it was read; each use is counted.
/// * **M8** A change that read another number of uses conflicts and changes nothing.
/// * **M9** A rendition is added once and only to a ready picture: of 50 concurrent commits one succeeds.
/// * **M10** Unused renditions are listed, the longest unused first, then by picture, name and format. A request
///   only moves the time forward. Renditions without a time are never listed.
/// * **M11** Forgetting removes exactly the named blobs and subtracts their bytes.
/// * **M12** The avatar of an account is its own picture. Setting another one replaces it, deleting the
///   picture removes it, and it is set only while the avatar is the one that was read.
/// * **M13** Deleting removes the picture, its renditions and its bytes; the same bytes can be uploaded
///   again.
/// * **M14** A closed space accepts no picture, and only an empty space is closed.
/// * **M15** Spaces and pictures are listed page by page in the order of their ids.
#[async_trait]
pub trait MediaReads: Send + Sync {
    /// Picture with this id.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn media(&self, id: MediaId) -> Result<Option<Media>, Error>;
    /// Picture of a space with this [identity](Media::identity).
    async fn media_by_identity(&self, space: Space, identity: &Digest) -> Result<Option<Media>, Error>;
    /// Renditions of a picture, ordered by name and format.
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error>;
    /// Current avatar of an account.
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error>;
    /// Usage of a space.
    async fn media_space(&self, space: Space) -> Result<SpaceUsage, Error>;
    /// Up to `limit` pictures of a space after the id `after`, in the order of their ids.
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error>;
    /// Up to `limit` spaces that have a row, after `after`, in the order of their ids.
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error>;
    /// Up to `limit` renditions last requested before `before`, with their pictures; longest unused first.
    async fn unused_renditions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(MediaId, Rendition)>, Error>;
}
