//! A blob whose bytes arrive one after another.

use bytes::{Bytes, BytesMut};
use couple_core::{Error, ErrorKind};
use futures_util::TryStreamExt as _;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload, path::Path};

use super::Blobs;

/// Writes a blob in parts, and holds one part in memory at a time; a blob that fits into one part is written with one request.
///
/// A store may require large parts (S3: 5 MiB). A writer whose bytes arrive slowly need not hold so much: [`stage`](Self::stage) writes
/// what it holds to a blob beside its own, and [`finish`](Self::finish) reads the staged blobs back, joins them and deletes them.
///
/// Dropped without [`finish`](Self::finish), it leaves nothing under its name.
pub struct BlobWriter {
    blobs: Blobs,
    name: String,
    path: Path,
    part: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
    /// Blobs that were staged and not deleted.
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
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Number of bytes that it holds in memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.part.len()
    }
    /// Most bytes that it holds in memory: the size of a part.
    #[must_use]
    pub const fn part_size(&self) -> usize {
        self.blobs.part
    }
    /// Whether [`finish`](Self::finish) has to join staged blobs.
    #[must_use]
    pub const fn is_staged(&self) -> bool {
        self.staged > 0
    }

    /// Frees the memory that the bytes it holds do not need. A writer keeps that of a part for the next one.
    pub fn shrink(&mut self) {
        self.part = BytesMut::from(&self.part[..]);
    }

    /// Stages the bytes that it holds: writes them to a separate blob. Bytes that arrive later are staged, too.
    ///
    /// # Errors
    /// The store's. The blob is lost then.
    pub async fn stage(&mut self) -> Result<(), Error> {
        if self.part.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.part).freeze();
        // Counted first, so that a blob whose answer is lost is deleted, too.
        self.staged += 1;
        self.blobs.put(&staged(&self.name, self.staged - 1), bytes).await
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
            if self.is_staged() {
                self.stage().await?;
            } else if !bytes.is_empty() || self.upload.is_some() {
                self.send_part().await?;
            } else {
                // A blob that ends here is written with one request.
                return Ok(());
            }
        }
    }

    /// Writes the rest. From then on the blob is there.
    ///
    /// # Errors
    /// The store's. The blob is not there then, or, when the answer was lost, may be.
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
        // All parts but the last have the same size, as some stores want it; the room is used again once the store let go.
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
            let patience = self.blobs.patience;
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
                    tracing::warn!(%error, name, "staged blobs wait for the sweep");
                    return;
                }
            }
        });
    }
}
