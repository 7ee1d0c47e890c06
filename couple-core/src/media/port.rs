//! What pictures need of a store.

use async_trait::async_trait;

use super::{Format, Media, Rendition, Source, Space};
use crate::{AccountId, CoupleId, Digest, Error, MediaId, Timestamp};

/// A picture as it was read. The precondition of what names it so: it is there and named by as many as then
/// ([`MediaChanged`](crate::Conflict::MediaChanged)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsRead {
    /// Where it belongs.
    pub space: Space,
    /// Which.
    pub id: MediaId,
    /// How many named it.
    pub uses: i64,
}

/// Changes to pictures and to what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaChange {
    /// Adds a picture. Preconditions, in this order: its couple lives ([`CoupleEnded`](crate::Conflict::CoupleEnded)), or its
    /// account's space is not closed ([`SpaceClosed`](crate::Conflict::SpaceClosed)); neither its id nor, in its space, its
    /// [identity](Media::identity) is there ([`MediaExists`](crate::Conflict::MediaExists)); with its source the space holds at
    /// most `most` bytes ([`QuotaExceeded`](crate::Conflict::QuotaExceeded)).
    Insert {
        /// What.
        media: Media,
        /// The space's quota.
        most: i64,
    },
    /// Makes a picture ready. Precondition, here and for rejecting: it is processing, beside what [`AsRead`] says.
    Finish {
        /// Which.
        of: AsRead,
        /// Upright, in pixels.
        width: u32,
        /// Upright, in pixels.
        height: u32,
        /// Whether the uploaded file is an animation.
        animated: bool,
        /// Whether a part of it is transparent.
        alpha: bool,
        /// Its blurred stand-in.
        placeholder: Vec<u8>,
        /// What is kept to make renditions from, in place of what was uploaded.
        source: Option<Source>,
        /// Those that were made at once. Counted, never refused: the picture was let in.
        renditions: Vec<Rendition>,
    },
    /// Rejects a picture: its source goes.
    Reject {
        /// Which.
        of: AsRead,
        /// A word that says why.
        reason: String,
    },
    /// Notes that an entry names a photo. Preconditions: the couple lives; it is a photo of that owner, of that couple, and ready or
    /// not as it was read ([`MediaChanged`](crate::Conflict::MediaChanged)): whoever names one that is processing is told later.
    Use {
        /// Whose photo.
        couple: CoupleId,
        /// Which.
        id: MediaId,
        /// Who must have uploaded it.
        owner: AccountId,
        /// Whether it was ready, or processing.
        ready: bool,
    },
    /// Notes that one that named it does so no longer. Precondition beside what [`AsRead`] says: one does.
    Release(AsRead),
    /// Removes a picture and its renditions. An avatar is then none.
    Delete(AsRead),
    /// Adds a rendition; counted, never refused. Preconditions: the picture is ready, and has none of that name and format
    /// ([`MediaChanged`](crate::Conflict::MediaChanged)).
    AddRendition {
        /// Where the picture belongs.
        space: Space,
        /// Of which picture.
        id: MediaId,
        /// What.
        rendition: Rendition,
    },
    /// Moves the time at which a rendition was last asked for forward; one that is not there, or is kept anyway, stays as it is.
    Touch {
        /// Where the picture belongs.
        space: Space,
        /// Of which picture.
        id: MediaId,
        /// Which.
        name: String,
        /// Which.
        format: Format,
        /// When.
        at: Timestamp,
    },
    /// Forgets blobs of a picture: its source, if that is among them, and renditions. One that is not there is no conflict. No
    /// precondition: a rendition that was asked for meanwhile is made again.
    Forget {
        /// Where the picture belongs.
        space: Space,
        /// Of which picture.
        id: MediaId,
        /// Their names, within its folder.
        blobs: Vec<String>,
    },
    /// Sets or, with none, removes the avatar of an account. Preconditions, in this order: the avatar is `before`
    /// ([`AvatarChanged`](crate::Conflict::AvatarChanged)), because the caller deletes that one; the new one is an avatar in
    /// the account's own space and not rejected ([`MediaChanged`](crate::Conflict::MediaChanged)).
    SetAvatar {
        /// Account that shows the avatar.
        account: AccountId,
        /// The new avatar.
        media: Option<MediaId>,
        /// The avatar as it was read.
        before: Option<MediaId>,
    },
    /// Closes a person's space for good, for their deletion. Precondition: no picture is in it
    /// ([`SpaceNotEmpty`](crate::Conflict::SpaceNotEmpty)).
    Close {
        /// Whose.
        account: AccountId,
    },
}

impl MediaChange {
    /// Whose pictures it changes.
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

/// What is kept in a space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The bytes of all sources and renditions.
    pub bytes: i64,
    /// What the person shows of themselves.
    pub avatar: Option<MediaId>,
    /// Whether nothing may come in any more.
    pub closed: bool,
}

/// What pictures read.
///
/// * **M1** Of 50 uploads at once of the same bytes, by the same person for the same purpose and crop, one is added; what
///   differs in any of them, or in its space, is another picture.
/// * **M2** A picture and its renditions read back as they were written, every field.
/// * **M3** A space never holds more than the quota by uploads: of 50 at once as many are added as fit.
/// * **M4** What a space holds is at every moment the sum of its pictures' sources and renditions.
/// * **M5** A picture becomes ready or rejected once; a rejected one has no source.
/// * **M6** Nothing is added to, nor named in, a couple that has ended; what is under way there still becomes ready.
/// * **M7** An entry names only its author's photo of the same couple that is not rejected, and still as far as it was read; names
///   are counted one by one.
/// * **M8** A change that read another number of names changes nothing.
/// * **M9** A rendition is added once, only to a ready picture: of 50 at once one.
/// * **M10** Renditions that nobody asked for since are listed, longest first; asking moves the time forward only; those without a
///   time are never listed.
/// * **M11** Forgetting takes exactly the named blobs, and counts them off.
/// * **M12** An account's avatar is its own picture; setting another replaces it, and deleting the picture removes it; it is set only
///   while the avatar is the one that was read.
/// * **M13** Deleting takes the picture, its renditions and its bytes; the same bytes may then come again.
/// * **M14** A closed space takes nothing, and only an empty one is closed.
/// * **M15** Spaces and pictures are listed in the order of their ids, page by page.
#[async_trait]
pub trait MediaReads: Send + Sync {
    /// The picture with this id.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn media(&self, id: MediaId) -> Result<Option<Media>, Error>;
    /// The picture of a space with this [identity](Media::identity).
    async fn media_by_identity(&self, space: Space, identity: &Digest) -> Result<Option<Media>, Error>;
    /// A picture's renditions, by name and format.
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error>;
    /// What a person shows of themselves.
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error>;
    /// What is kept in a space.
    async fn media_space(&self, space: Space) -> Result<Kept, Error>;
    /// Up to `limit` pictures of a space in the order of their ids, after `after`.
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error>;
    /// Up to `limit` spaces that are known, in the order of their ids, after `after`.
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error>;
    /// Up to `limit` renditions that were last asked for before `before`, and of which picture, longest ago first.
    async fn unused_renditions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(MediaId, Rendition)>, Error>;
}

#[async_trait]
impl<S: MediaReads + ?Sized> MediaReads for std::sync::Arc<S> {
    async fn media(&self, id: MediaId) -> Result<Option<Media>, Error> {
        (**self).media(id).await
    }
    async fn media_by_identity(&self, space: Space, identity: &Digest) -> Result<Option<Media>, Error> {
        (**self).media_by_identity(space, identity).await
    }
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error> {
        (**self).renditions(space, id).await
    }
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error> {
        (**self).avatar_of(account).await
    }
    async fn media_space(&self, space: Space) -> Result<Kept, Error> {
        (**self).media_space(space).await
    }
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error> {
        (**self).media_in(space, after, limit).await
    }
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error> {
        (**self).media_spaces(after, limit).await
    }
    async fn unused_renditions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(MediaId, Rendition)>, Error> {
        (**self).unused_renditions(before, limit).await
    }
}
