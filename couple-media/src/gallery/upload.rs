//! Taking a picture in, as its bytes come.

use bytes::Bytes;
use couple_core::{
    AccountId, Call, Digest, Error, Failure,
    media::{Crop, Purpose, Received, Refusal, Source, Stored, Upload},
};
use sha2::{Digest as _, Sha256};

use super::Gallery;
use crate::{blobs::BlobWriter, picture::Kind};

/// The name of what is uploaded, in its own folder.
const UPLOAD: &str = "upload";
/// What tells a picture's type.
const HEAD: usize = 12;

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The rules say no.
    #[error(transparent)]
    Refused(Refusal),
    /// It is no picture of a type that is known.
    #[error("not a picture of a known type")]
    UnknownType,
    /// It is larger than it may be.
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// The limit, in bytes.
        limit: usize,
    },
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
    upload: Upload,
    writer: BlobWriter,
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
        purpose: Purpose,
        length: Option<u64>,
    ) -> Result<Uploading, NotTaken> {
        let limit = self.0.options.limits.bytes;
        if length.is_some_and(|length| length > limit as u64) {
            return Err(NotTaken::TooManyBytes { limit });
        }
        let upload = self.0.pictures.begin(by, purpose, length).await?;
        let writer = self.0.blobs.write(&(upload.folder() + UPLOAD))?;
        Ok(Uploading {
            gallery: self.clone(),
            upload,
            writer,
            digest: Sha256::new(),
            head: Vec::with_capacity(HEAD),
            length: 0,
        })
    }
}

impl Uploading {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`NotTaken`]: there is nothing to go on with.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), NotTaken> {
        let limit = self.gallery.0.options.limits.bytes;
        self.length += bytes.len();
        if self.length > limit {
            return Err(NotTaken::TooManyBytes { limit });
        }
        if self.head.len() < HEAD {
            self.head.extend(bytes.iter().take(HEAD - self.head.len()));
            if self.head.len() == HEAD {
                self.kind()?;
            }
        }
        self.digest.update(&bytes);
        Ok(self.writer.write(bytes).await?)
    }

    /// Takes the picture. It, its state and the job that looks at it are one commit; the same bytes again are the picture that
    /// is there.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn finish(
        self,
        call: impl FnOnce(&Digest) -> Call + Send,
        crop: Option<Crop>,
    ) -> Result<Stored, NotTaken> {
        let kind = self.kind()?;
        let Self { gallery, upload, writer, digest, length, .. } = self;
        writer.finish().await?;
        let digest = Digest::from_bytes(digest.finalize().into());
        let source = Source {
            blob: UPLOAD.to_owned(),
            bytes: i64::try_from(length).unwrap_or(i64::MAX),
            media_type: kind.media_type().to_owned(),
        };
        let call = call(&digest);
        // How large it is, is told once it was decoded.
        let received = Received { digest, source, crop, width: 0, height: 0 };
        let added = gallery.0.pictures.add(&call, &upload, received).await;
        let unused = match &added {
            Ok(stored) => !stored.created,
            Err(Failure::Refused(_)) => true,
            // It may be somebody's: the sweep will tell.
            Err(Failure::Failed(_)) => false,
        };
        if unused && let Err(error) = gallery.0.blobs.delete_folder(&upload.folder()).await {
            tracing::warn!(%error, "an upload that nobody needs waits for the sweep");
        }
        Ok(added?)
    }

    fn kind(&self) -> Result<Kind, NotTaken> {
        Kind::of(&self.head).ok_or(NotTaken::UnknownType)
    }
}
