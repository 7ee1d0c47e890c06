//! Writer of a blob whose bytes arrive in chunks.

use bytes::{Bytes, BytesMut};
use couple_core::{Error, ErrorKind};
use futures_util::TryStreamExt as _;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload, path::Path};

use super::Blobs;

/// Writes a blob in parts, and holds one part in memory. A blob of one part needs one request.
///
/// A store may require large parts (S3: 5 MiB). For a writer whose bytes arrive slowly, [`stage`](Self::stage) writes the bytes in
/// memory to a separate blob, and [`finish`](Self::finish) reads the staged blobs back, joins them and deletes them.
///
/// If it is dropped without [`finish`](Self::finish), no blob exists under its name.
pub struct BlobWriter {
    blobs: Blobs,
    name: String,
    path: Path,
    part: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
    /// Number of blobs that were staged and not deleted.
    staged: u32,
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl BlobWriter {
    pub(super) fn new(blobs: Blobs, name: String, path: Path) -> Self {
        Self { blobs, name, path, part: BytesMut::new(), upload: None, staged: 0 }
    }
    /// Name of the blob.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Number of bytes in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.part.len()
    }
    /// Maximum number of bytes in memory: the size of a part.
    #[must_use]
    pub const fn part_size(&self) -> usize {
        self.blobs.part
    }
    /// Whether [`finish`](Self::finish) has to join staged blobs.
    #[must_use]
    pub const fn is_staged(&self) -> bool {
        self.staged > 0
    }

    /// Frees memory beyond the bytes in it.
    ///
    /// The writer otherwise keeps the memory of a part for the next one.
    pub fn shrink(&mut self) {
        self.part = BytesMut::from(&self.part[..]);
    }

    /// Stages the bytes in memory: writes them to a separate blob. Bytes that arrive later are staged, too.
    ///
    /// # Errors
    /// The error of the store. The blob is lost then.
    pub async fn stage(&mut self) -> Result<(), Error> {
        if self.part.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.part).freeze();
        // Counted before the write, so that a blob whose response is lost is deleted, too.
        self.staged += 1;
        self.blobs.put(&staged(&self.name, self.staged - 1), bytes).await
    }

    /// Adds bytes, and waits for the store when a part is full.
    ///
    /// # Errors
    /// The error of the store. The blob is lost then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        loop {
            let room = self.blobs.part - self.part.len();
            let taken = bytes.split_to(room.min(bytes.len()));
            self.part.extend_from_slice(&taken);
            if self.part.len() < self.blobs.part {
                return Ok(());
            }
            if self.is_staged() {
                self.stage().await?;
            } else if !bytes.is_empty() || self.upload.is_some() {
                self.send_part().await?;
            } else {
                // Not sent yet: a blob that ends here is written with one request.
                return Ok(());
            }
        }
    }

    /// Writes the rest, after which the blob exists.
    ///
    /// # Errors
    /// The error of the store. The blob does not exist then, or may exist if the response was lost.
    pub async fn finish(mut self) -> Result<(), Error> {
        if self.is_staged() {
            self.stage().await?;
            let (count, name) = (std::mem::take(&mut self.staged), self.name.clone());
            let cleanup = Staged { blobs: self.blobs.clone(), name, count };
            for number in 0..count {
                let name = staged(&self.name, number);
                let lost = || Error::new(ErrorKind::Unavailable, "join blob").context(name.clone());
                let mut blob = self.blobs.get(&name, None).await?.ok_or_else(lost)?;
                while let Some(bytes) = blob.bytes.try_next().await? {
                    self.write(bytes).await?;
                }
            }
            self.complete().await?;
            drop(cleanup);
            return Ok(());
        }
        self.complete().await
    }

    async fn complete(&mut self) -> Result<(), Error> {
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
        // All parts but the last have the same size, as some stores require; the buffer is reused once the store has released it.
        let part = PutPayload::from_bytes(self.part.split().freeze());
        blobs.step("write blob", &self.name, upload.put_part(part)).await
    }
}

impl Drop for BlobWriter {
    /// Aborts an unfinished upload, in a separate task: the writing task may have ended.
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        drop(Staged { blobs: self.blobs.clone(), name: name.clone(), count: self.staged });
        if let (Some(mut upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let step_timeout = self.blobs.timeout;
            runtime.spawn(async move {
                match tokio::time::timeout(step_timeout, upload.abort()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, name, "cannot remove an unfinished blob"),
                    Err(_) => tracing::warn!(name, "timed out removing an unfinished blob"),
                }
            });
        }
    }
}

/// Name of a staged blob.
fn staged(name: &str, number: u32) -> String {
    format!("{name}.{number:05}")
}

/// Staged blobs, deleted in a separate task when dropped. The sweep deletes those that remain.
struct Staged {
    blobs: Blobs,
    name: String,
    count: u32,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (blobs, name, count) = (self.blobs.clone(), std::mem::take(&mut self.name), self.count);
        runtime.spawn(async move {
            for number in 0..count {
                if let Err(error) = blobs.delete(&staged(&name, number)).await {
                    tracing::warn!(%error, name, "cannot delete staged blobs; the sweep will delete them");
                    return;
                }
            }
        });
    }
}
