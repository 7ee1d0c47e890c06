//! Uploads of pictures with one request.

use std::time::Duration;

use bytes::Bytes;
use couple_core::{
    AccountId, CoupleId, Digest, Error, ErrorKind, Failure, RequestContext,
    media::{AdmittedUpload, Crop, InspectedUpload, MediaError, Purpose, Source, StoredMedia},
};
use sha2::{Digest as _, Sha256};

use tokio::time::Instant;

use super::{Gallery, foreign, upload_buffer::UploadBuffer};
use crate::picture::Rejected;

/// Name of the uploaded file in its picture's folder.
const UPLOAD_FOLDER: &str = "upload";
/// Number of bytes that are needed to recognise a picture's type.
const TYPE_BYTES: usize = 12;
/// Number of bytes at the start of a file that usually contain the width and height of the picture.
///
/// In a camera's file two segments of 64 KiB may precede them.
const HEADER_BYTES: usize = 160 << 10;

/// Metadata of an uploaded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadMetadata {
    /// Purpose of the picture.
    pub purpose: Purpose,
    /// Couple that a photo is meant for, if given: a late upload then never reaches another couple.
    pub couple: Option<CoupleId>,
    /// Area of the picture that is shown. None: the whole.
    pub crop: Option<Crop>,
    /// `ThumbHash` shown until the picture is decoded.
    ///
    /// At most [`MAX_PLACEHOLDER_BYTES`](couple_core::media::Media::MAX_PLACEHOLDER_BYTES) bytes.
    pub placeholder: Option<Vec<u8>>,
}

impl From<Purpose> for UploadMetadata {
    fn from(purpose: Purpose) -> Self {
        Self { purpose, couple: None, crop: None, placeholder: None }
    }
}

/// Reason for a refused upload.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The rules of the core refuse it.
    #[error(transparent)]
    Refused(MediaError),
    /// The file is not a picture of an accepted type.
    #[error("not a picture of an accepted type: {found}")]
    UnknownType {
        /// Phrase that names the type of the file.
        found: &'static str,
        /// Accepted media types.
        accepted: &'static [&'static str],
    },
    /// The headers of the picture declare more pixels than are accepted.
    #[error(
        "the picture has {width} × {height} pixels; at most {side} a side and {megapixels} million are accepted"
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// [`Limits::side`](crate::picture::Limits::side).
        side: u32,
        /// [`Limits::megapixels`](crate::picture::Limits::megapixels).
        megapixels: u32,
    },
    /// The file is larger than the limit.
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The memory for joining the parts of the upload was not free in time.
    ///
    /// The client may repeat the request.
    #[error("too many uploads are concatenated at the same time")]
    Busy {
        /// Estimated time until memory is free.
        expected_wait: Duration,
    },
    /// The session ended during the upload.
    #[error("the session ended during the upload")]
    SignedOut,
    /// An internal failure.
    #[error(transparent)]
    Failed(Error),
}

impl From<Error> for UploadError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Failure<MediaError>> for UploadError {
    fn from(failure: Failure<MediaError>) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused(refusal),
            Failure::Failed(error) => Self::Failed(error),
        }
    }
}

/// An upload in progress. If it is dropped before its end, it leaves no blob.
#[derive(Debug)]
pub struct Uploading {
    gallery: Gallery,
    about: UploadMetadata,
    upload: AdmittedUpload,
    buffer: UploadBuffer,
    digest: Sha256,
    head: Vec<u8>,
    length: usize,
}

impl Gallery {
    /// Starts an upload. `length` is the number of bytes that the client declared, if any.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn upload(
        &self,
        by: AccountId,
        about: UploadMetadata,
        length: Option<u64>,
    ) -> Result<Uploading, UploadError> {
        let limit = self.0.options.limits.bytes();
        if length.is_some_and(|length| length > limit as u64) {
            return Err(UploadError::TooManyBytes { limit });
        }
        let upload = self.0.pictures.begin(by, about.couple, about.purpose, length).await?;
        Ok(self.uploading(about, upload)?)
    }

    /// Starts to write an admitted upload.
    pub(super) fn uploading(
        &self,
        about: UploadMetadata,
        upload: AdmittedUpload,
    ) -> Result<Uploading, Error> {
        let writer = self.0.blobs.write(&(upload.folder() + UPLOAD_FOLDER))?;
        Ok(Uploading {
            gallery: self.clone(),
            about,
            upload,
            buffer: UploadBuffer::new(writer, self.0.parts.clone()),
            digest: Sha256::new(),
            head: Vec::with_capacity(TYPE_BYTES),
            length: 0,
        })
    }
}

impl Uploading {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`UploadError`]: the upload cannot be continued.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let limit = self.gallery.0.options.limits.bytes();
        self.length += bytes.len();
        if self.length > limit {
            return Err(UploadError::TooManyBytes { limit });
        }
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(HEADER_BYTES - before)]);
        if before < TYPE_BYTES && self.head.len() >= TYPE_BYTES {
            self.media_type()?;
        }
        self.digest.update(&bytes);
        Ok(self.buffer.write(bytes).await?)
    }

    /// Time at which [`release`](Self::release) is due unless more bytes arrive.
    ///
    /// None: this upload holds little memory.
    #[must_use]
    pub fn release_at(&self) -> Option<Instant> {
        self.buffer.release_at()
    }

    /// Writes the bytes in memory to the store, so that a stalled upload holds no memory.
    ///
    /// # Errors
    /// [`UploadError`]: the upload cannot be continued.
    pub async fn release(&mut self) -> Result<(), UploadError> {
        Ok(self.buffer.release().await?)
    }

    /// Creates the picture, with its state and rendering job in one commit.
    ///
    /// The same bytes again return the existing picture.
    ///
    /// Runs in a separate task, so that a client that disconnects leaves no blob without a row. `signed_in` is called when all bytes
    /// are stored, which may be long after the request began.
    ///
    /// # Errors
    /// [`UploadError`].
    pub async fn finish(
        self,
        context: impl FnOnce(&Digest) -> RequestContext + Send + 'static,
        signed_in: impl Future<Output = Result<bool, Error>> + Send + 'static,
    ) -> Result<StoredMedia, UploadError> {
        in_its_own_task(self.end(context, signed_in)).await
    }

    async fn end(
        self,
        context: impl FnOnce(&Digest) -> RequestContext + Send,
        signed_in: impl Future<Output = Result<bool, Error>> + Send,
    ) -> Result<StoredMedia, UploadError> {
        let (media_type, size) = (self.media_type()?, self.size()?);
        let Self { gallery, about, upload, buffer, digest, length, .. } = self;
        buffer.finish().await?;
        let digest = Digest::from_bytes(digest.finalize().into());
        let source = Source {
            blob: UPLOAD_FOLDER.to_owned(),
            bytes: i64::try_from(length).unwrap_or(i64::MAX),
            media_type: media_type.to_owned(),
        };
        let (width, height) = size.unwrap_or_default();
        let UploadMetadata { crop, placeholder, .. } = about;
        let context = context(&digest);
        let received = InspectedUpload { digest, source, crop, width, height, placeholder };
        let added = match signed_in.await {
            Ok(true) => gallery.0.pictures.add(&context, &upload, received).await.map_err(UploadError::from),
            Ok(false) => Err(UploadError::SignedOut),
            Err(error) => Err(UploadError::Failed(error)),
        };
        let unused = match &added {
            Ok(stored) => !stored.created,
            // A row may name the blob: the sweep decides.
            Err(UploadError::Failed(_)) => false,
            Err(_) => true,
        };
        if unused && let Err(error) = gallery.0.blobs.delete_folder(&upload.folder()).await {
            tracing::warn!(%error, "cannot delete an unneeded upload; the sweep will delete it");
        }
        added
    }

    /// Size of the upright picture, from its headers.
    fn size(&self) -> Result<Option<(u32, u32)>, UploadError> {
        let limits = &self.gallery.0.options.limits;
        match self.gallery.renderer().size(&self.head, self.length == self.head.len(), limits) {
            Ok(size) => Ok(size),
            Err(Rejected::TooLarge { width, height }) => {
                let (side, megapixels) = (limits.side(), limits.megapixels());
                Err(UploadError::TooLarge { width, height, side, megapixels })
            }
            Err(_) => Ok(None),
        }
    }

    fn media_type(&self) -> Result<&'static str, UploadError> {
        let renderer = self.gallery.renderer();
        renderer.media_type(&self.head).ok_or_else(|| UploadError::UnknownType {
            found: foreign::describe(&self.head),
            accepted: renderer.media_types(),
        })
    }
}

/// Runs work in a separate task, which completes even if the caller is cancelled.
pub(super) async fn in_its_own_task<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let panicked = |error| Error::new(ErrorKind::Internal, "take picture").source(error);
    tokio::spawn(work).await.unwrap_or_else(|error| Err(panicked(error).into()))
}
