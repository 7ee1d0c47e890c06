//! A blob whose bytes come one after another.

use bytes::{Bytes, BytesMut};
use couple_core::Error;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload, path::Path};

use super::Blobs;

/// Writes a blob in parts, of which it holds one at a time; a blob that fits into one is written at once.
///
/// Dropped without [`finish`](Self::finish), it leaves nothing under its name.
pub struct BlobWriter {
    blobs: Blobs,
    name: String,
    path: Path,
    part: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl BlobWriter {
    pub(super) fn new(blobs: Blobs, name: String, path: Path) -> Self {
        Self { blobs, name, path, part: BytesMut::new(), upload: None }
    }
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the next bytes, and waits for the store whenever a part is full.
    ///
    /// # Errors
    /// The store's. The blob is lost then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        loop {
            let room = self.blobs.part - self.part.len();
            let taken = bytes.split_to(room.min(bytes.len()));
            self.part.extend_from_slice(&taken);
            if self.part.len() < self.blobs.part {
                return Ok(());
            }
            // One that ends here is written at once.
            if !bytes.is_empty() || self.upload.is_some() {
                self.send_part().await?;
            } else {
                return Ok(());
            }
        }
    }

    /// Writes the rest. From then on the blob is there.
    ///
    /// # Errors
    /// The store's. The blob is not there then, or, when the answer was lost, may be.
    pub async fn finish(mut self) -> Result<(), Error> {
        if self.upload.is_none() {
            let bytes = PutPayload::from_bytes(std::mem::take(&mut self.part).freeze());
            self.blobs.step("put blob", &self.name, self.blobs.store.put(&self.path, bytes)).await?;
            return Ok(());
        }
        if !self.part.is_empty() {
            self.send_part().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.blobs.step("end blob", &self.name, upload.complete()).await?;
            self.upload = None;
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), Error> {
        let blobs = &self.blobs;
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none
                .insert(blobs.step("begin blob", &self.name, blobs.store.put_multipart(&self.path)).await?),
        };
        // All parts but the last have the same size, as some stores want it; the room is used again once the store let go.
        let part = PutPayload::from_bytes(self.part.split().freeze());
        blobs.step("write blob", &self.name, upload.put_part(part)).await
    }
}

impl Drop for BlobWriter {
    /// Lets go of what was begun, in a task of its own: whoever wrote may be gone.
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let (patience, name) = (self.blobs.patience, std::mem::take(&mut self.name));
            runtime.spawn(async move {
                match tokio::time::timeout(patience, upload.abort()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, name, "an unfinished blob stays behind"),
                    Err(_) => tracing::warn!(name, "an unfinished blob may stay behind"),
                }
            });
        }
    }
}
