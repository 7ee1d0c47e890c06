//! Taking a picture in, as its bytes come.

use bytes::Bytes;
use couple_core::{
    AccountId, Call, Digest, Error, ErrorKind, Failure,
    media::{Crop, Purpose, Received, Refusal, Source, Stored, Upload},
};
use sha2::{Digest as _, Sha256};

use tokio::time::Instant;

use super::{Gallery, foreign, upload_buffer::UploadBuffer};
use crate::picture::{self, Kind, Rejected};

/// The name of what is uploaded, in its own folder.
const UPLOAD: &str = "upload";
/// What tells a picture's type.
const TYPE: usize = 12;
/// What mostly tells its size: a camera's headers, thumbnail included, have up to two segments of 64 KiB before that.
const HEAD: usize = 160 << 10;

/// What is said of a picture beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What it is for.
    pub purpose: Purpose,
    /// The part of it that is shown, if not the whole.
    pub crop: Option<Crop>,
    /// What is shown in place of it until it was decoded: a `ThumbHash`, of at most
    /// [`PLACEHOLDER_MOST`](couple_core::media::Media::PLACEHOLDER_MOST) bytes.
    pub placeholder: Option<Vec<u8>>,
}

impl From<Purpose> for About {
    fn from(purpose: Purpose) -> Self {
        Self { purpose, crop: None, placeholder: None }
    }
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The rules say no.
    #[error(transparent)]
    Refused(Refusal),
    /// The file is not a picture of an accepted type.
    #[error("not a picture of an accepted type: {found}")]
    UnknownType {
        /// Phrase that names the type of the file.
        found: &'static str,
    },
    /// The headers of the picture declare more pixels than are accepted.
    #[error(
        "the picture has {width} × {height} pixels; at most {side} a side and {megapixels} million are accepted"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// [`Limits::side`](crate::picture::Limits::side).
        side: u32,
        /// [`Limits::megapixels`](crate::picture::Limits::megapixels).
        megapixels: u32,
    },
    /// It is larger than it may be.
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// The limit, in bytes.
        limit: usize,
    },
    /// No memory to join its parts became free in time: worth repeating.
    #[error("too many uploads are joined at the same time")]
    Busy,
    /// Whoever uploads was signed out meanwhile.
    #[error("signed out meanwhile")]
    SignedOut,
    /// Something broke.
    #[error(transparent)]
    Failed(Error),
}

impl From<Error> for NotTaken {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Failure<Refusal>> for NotTaken {
    fn from(failure: Failure<Refusal>) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused(refusal),
            Failure::Failed(error) => Self::Failed(error),
        }
    }
}

/// An upload under way. Dropped before its end, it leaves nothing.
#[derive(Debug)]
pub struct Uploading {
    gallery: Gallery,
    about: About,
    upload: Upload,
    buffer: UploadBuffer,
    digest: Sha256,
    head: Vec<u8>,
    length: usize,
}

impl Gallery {
    /// Lets an upload begin. `length` is how many bytes it says it has, if it does.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn upload(
        &self,
        by: AccountId,
        about: About,
        length: Option<u64>,
    ) -> Result<Uploading, NotTaken> {
        let limit = self.0.options.limits.bytes;
        if length.is_some_and(|length| length > limit as u64) {
            return Err(NotTaken::TooManyBytes { limit });
        }
        let upload = self.0.pictures.begin(by, about.purpose, length).await?;
        Ok(self.uploading(about, upload)?)
    }

    /// Begins to write an upload that was admitted.
    pub(super) fn uploading(&self, about: About, upload: Upload) -> Result<Uploading, Error> {
        let writer = self.0.blobs.write(&(upload.folder() + UPLOAD))?;
        Ok(Uploading {
            gallery: self.clone(),
            about,
            upload,
            buffer: UploadBuffer::new(writer, self.0.parts.clone()),
            digest: Sha256::new(),
            head: Vec::with_capacity(TYPE),
            length: 0,
        })
    }
}

impl Uploading {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`NotTaken`]: the upload cannot be continued.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NotTaken> {
        let limit = self.gallery.0.options.limits.bytes;
        self.length += bytes.len();
        if self.length > limit {
            return Err(NotTaken::TooManyBytes { limit });
        }
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEAD - before)]);
        if before < TYPE && self.head.len() >= TYPE {
            self.kind()?;
        }
        self.digest.update(&bytes);
        Ok(self.buffer.write(bytes).await?)
    }

    /// When [`release`](Self::release) is due unless more bytes arrive. None: this upload holds little memory.
    #[must_use]
    pub fn release_at(&self) -> Option<Instant> {
        self.buffer.release_at()
    }

    /// Writes the bytes in memory to the store, so that a stalled upload holds no memory that others wait for.
    ///
    /// # Errors
    /// [`NotTaken`]: the upload cannot be continued.
    pub async fn release(&mut self) -> Result<(), NotTaken> {
        Ok(self.buffer.release().await?)
    }

    /// Takes the picture. It, its state and the job that looks at it are one commit; the same bytes again are the picture that
    /// is there. In a task of its own: whoever uploads may go, and leaves no blob without a name. `signed_in` is asked when all
    /// bytes are kept, which may be long after they began to come.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn finish(
        self,
        call: impl FnOnce(&Digest) -> Call + Send + 'static,
        signed_in: impl Future<Output = Result<bool, Error>> + Send + 'static,
    ) -> Result<Stored, NotTaken> {
        in_its_own_task(self.end(call, signed_in)).await
    }

    async fn end(
        self,
        call: impl FnOnce(&Digest) -> Call + Send,
        signed_in: impl Future<Output = Result<bool, Error>> + Send,
    ) -> Result<Stored, NotTaken> {
        let (kind, size) = (self.kind()?, self.size()?);
        let Self { gallery, about, upload, buffer, digest, length, .. } = self;
        buffer.finish().await?;
        let digest = Digest::from_bytes(digest.finalize().into());
        let source = Source {
            blob: UPLOAD.to_owned(),
            bytes: i64::try_from(length).unwrap_or(i64::MAX),
            media_type: kind.media_type().to_owned(),
        };
        let (width, height) = size.unwrap_or_default();
        let About { crop, placeholder, .. } = about;
        let call = call(&digest);
        let received = Received { digest, source, crop, width, height, placeholder };
        let added = match signed_in.await {
            Ok(true) => gallery.0.pictures.add(&call, &upload, received).await.map_err(NotTaken::from),
            Ok(false) => Err(NotTaken::SignedOut),
            Err(error) => Err(NotTaken::Failed(error)),
        };
        let unused = match &added {
            Ok(stored) => !stored.created,
            // It may be somebody's: the sweep will tell.
            Err(NotTaken::Failed(_)) => false,
            Err(_) => true,
        };
        if unused && let Err(error) = gallery.0.blobs.delete_folder(&upload.folder()).await {
            tracing::warn!(%error, "an upload that nobody needs waits for the sweep");
        }
        added
    }

    /// Upright, as the headers say.
    fn size(&self) -> Result<Option<(u32, u32)>, NotTaken> {
        let limits = &self.gallery.0.options.limits;
        let size = match picture::inspect(&self.head, limits) {
            Ok(info) if self.length == self.head.len() => Some((info.width, info.height)),
            Err(Rejected::TooLarge { width, height }) => {
                let (side, megapixels) = (limits.side, limits.megapixels);
                return Err(NotTaken::TooLarge { width, height, side, megapixels });
            }
            _ => picture::upright_size(&self.head, limits),
        };
        Ok(size)
    }

    fn kind(&self) -> Result<Kind, NotTaken> {
        Kind::of(&self.head).ok_or_else(|| NotTaken::UnknownType { found: foreign::describe(&self.head) })
    }
}

/// Ends what was begun, also when nobody waits for it any more.
pub(super) async fn in_its_own_task<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let panicked = |error| Error::new(ErrorKind::Internal, "take picture").source(error);
    tokio::spawn(work).await.unwrap_or_else(|error| Err(panicked(error).into()))
}
