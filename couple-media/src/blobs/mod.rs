//! Storage of pictures' bytes: named blobs in any [`ObjectStore`].
//!
//! A name is a path such as `c/0192…/source`: the part before a `/` is a folder, which can be listed and deleted as a whole. The
//! caller chooses names. They should not be guessable if others can access the store.
//!
//! Requirements on a store, each checked by `couple-conformance`:
//!
//! * **O1** A blob is read back byte for byte, whatever its length: empty, and longer than one part.
//! * **O2** A blob exists completely or not at all: not before its writer finishes, and not if it never finishes.
//! * **O3** A range is read without the rest. A range that begins at or after the end is empty; the size is still returned.
//! * **O4** Reading a missing blob reports that it is missing; deleting a missing blob is not an error.
//! * **O5** A folder is listed with sizes and the times of the last writes, and without blobs outside of it.
//! * **O6** A folder is deleted completely, and no blob outside of it.
//! * **O7** Writes may be concurrent; of concurrent writes to one name one wins completely.
//! * **O8** If the store signs links, a link reads its blob and no other, until it expires.
//! * **O9** Staged bytes of a writer are joined in order, and no staged blob remains.
//! * **O10** Pages list every blob once, even if blobs before them are deleted meanwhile; many blobs are deleted with one call.
//! * **O11** A read of a whole blob beside a write of it returns the former or the new bytes completely, also if it began before the write.

mod error;
mod files;
#[cfg(feature = "s3")]
mod s3;
mod writer;

use std::{fmt, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
#[cfg(feature = "s3")]
use couple_core::media::Format;
use couple_core::{Error, ErrorKind, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
#[cfg(feature = "s3")]
use object_store::Attribute;
use object_store::{
    Attributes, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutOptions, PutPayload,
    memory::InMemory, path::Path,
};
use tokio::time::timeout;

#[cfg(feature = "s3")]
pub use s3::S3Options;
pub use writer::BlobWriter;

use error::{failed, timed_out};

/// Minimum size of a part in S3, except the last one, in bytes.
const MIN_PART_BYTES: usize = 5 << 20;
/// Size of a chunk when reading a file, in bytes.
const FILE_PART_BYTES: usize = 128 << 10;
/// Default time limit of one request to the blob store.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Blob store. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    #[cfg(feature = "s3")]
    signer: Option<Arc<dyn object_store::signer::Signer>>,
    /// Folder, if blobs are files.
    files: Option<PathBuf>,
    prefix: Path,
    part: usize,
    timeout: Duration,
}

impl fmt::Debug for Blobs {
    /// Omits the store, whose `Debug` may contain credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("prefix", &self.prefix.as_ref()).finish_non_exhaustive()
    }
}

/// Content of a blob, or of a range of it.
pub struct Blob {
    /// Size of the whole blob, in bytes.
    pub size: u64,
    /// Range of bytes that is returned.
    pub range: Range<u64>,
    /// The bytes. Each chunk arrives within the store's timeout, or an error does.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("size", &self.size).field("range", &self.range).finish_non_exhaustive()
    }
}

/// Entry of a list of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name of the blob.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, by the store's clock.
    pub modified: Timestamp,
}

impl Default for Blobs {
    fn default() -> Self {
        Self::memory()
    }
}

impl Blobs {
    /// Blobs in memory, which end with the process.
    #[must_use]
    pub fn memory() -> Self {
        Self::over(InMemory::new())
    }
    /// Blobs in any store. [`signed`](Self::signed) returns no links.
    pub fn over(store: impl ObjectStore) -> Self {
        Self {
            store: Arc::new(store),
            #[cfg(feature = "s3")]
            signer: None,
            files: None,
            prefix: Path::default(),
            part: MIN_PART_BYTES,
            timeout: STEP_TIMEOUT,
        }
    }
    /// Puts all blobs under a folder of the store.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`]: the prefix is not a path of plain names.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, Error> {
        self.prefix = Path::parse(prefix).map_err(|error| {
            Error::new(ErrorKind::Misconfigured, "open blobs").context(prefix.to_owned()).source(error)
        })?;
        Ok(self)
    }
    /// Sets the timeout of one step: a response, a part, a chunk. Default: 30 s.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Writes a blob from memory, and replaces an existing one.
    ///
    /// A store that signs links also gets the media type, by the end of the name: `.jpg` or `.webp`.
    ///
    /// # Errors
    /// The error of the store, or an invalid name.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let path = self.path(name)?;
        let options = PutOptions { attributes: self.attributes(name), ..PutOptions::default() };
        self.step("put blob", name, self.store.put_opts(&path, PutPayload::from_bytes(bytes), options))
            .await?;
        Ok(())
    }
    /// Starts to write a blob whose bytes arrive in chunks.
    ///
    /// The blob exists only after [`BlobWriter::finish`].
    ///
    /// # Errors
    /// An invalid name.
    pub fn write(&self, name: &str) -> Result<BlobWriter, Error> {
        Ok(BlobWriter::new(self.clone(), name.to_owned(), self.path(name)?))
    }
    /// Reads a blob, or the part of `range` that exists. None: there is no such blob.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<Blob>, Error> {
        let path = self.path(name)?;
        if let Some(range) = &range {
            // Stores respond differently to a range that they cannot serve.
            let Some(size) = self.size(name).await? else { return Ok(None) };
            let end = range.end.min(size);
            if range.start >= end {
                return Ok(Some(Blob { size, range: end..end, bytes: stream::empty().boxed() }));
            }
        }
        let options = GetOptions::new().with_range(range);
        let Some(got) = found(self.step("get blob", name, self.store.get_opts(&path, options)).await)? else {
            return Ok(None);
        };
        let (size, range) = (got.meta.size, got.range.clone());
        let (step_timeout, name) = (self.timeout, name.to_owned());
        let bytes = stream::unfold(Some(files::pieces(got)), move |pieces| {
            let name = name.clone();
            async move {
                let mut pieces = pieces?;
                match timeout(step_timeout, pieces.next()).await {
                    Ok(None) => None,
                    Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(pieces))),
                    Ok(Some(Err(error))) => Some((Err(failed("get blob", &name, error)), None)),
                    Err(_) => Some((Err(timed_out("get blob", &name)), None)),
                }
            }
        });
        Ok(Some(Blob { size, range, bytes: bytes.boxed() }))
    }
    /// Reads a whole blob of at most `max_bytes` bytes. None: there is no such blob.
    ///
    /// # Errors
    /// The error of the store; [`ErrorKind::Rejected`] if the blob is larger.
    pub async fn read(&self, name: &str, max_bytes: u64) -> Result<Option<Bytes>, Error> {
        let Some(mut blob) = self.get(name, None).await? else { return Ok(None) };
        if blob.size > max_bytes {
            return Err(Error::new(ErrorKind::Rejected, "get blob")
                .context(format!("{name} is larger than {max_bytes}")));
        }
        let mut whole = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        while let Some(piece) = blob.bytes.try_next().await? {
            if whole.is_empty() && piece.len() as u64 == blob.size {
                return Ok(Some(piece));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole.into()))
    }
    /// Returns the size of a blob in bytes. None: there is no such blob.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        let path = self.path(name)?;
        Ok(found(self.step("look for blob", name, self.store.head(&path)).await)?.map(|meta| meta.size))
    }
    /// Deletes a blob, if it exists.
    ///
    /// # Errors
    /// The error of the store.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        found(self.step("delete blob", name, self.store.delete(&path)).await).map(drop)
    }
    /// Lists all blobs below a folder, in no order; all blobs for an empty folder.
    #[must_use]
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let path = if folder.is_empty() { Ok(self.prefix.clone()) } else { self.path(folder) };
        let path = match path {
            Ok(path) => path,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let found = self.store.list(Some(&path));
        let (step_timeout, prefix, folder) = (self.timeout, self.prefix.clone(), folder.to_owned());
        let listed = stream::unfold(Some(found), move |found| {
            let (prefix, folder) = (prefix.clone(), folder.clone());
            async move {
                let mut found = found?;
                match timeout(step_timeout, found.next()).await {
                    Ok(None) => None,
                    Ok(Some(Ok(meta))) => Some((Ok(listed(&prefix, &meta)), Some(found))),
                    Ok(Some(Err(error))) => Some((Err(failed("list blobs", &folder, error)), None)),
                    Err(_) => Some((Err(timed_out("list blobs", &folder)), None)),
                }
            }
        });
        listed.boxed()
    }
    /// Up to `limit` blobs whose names come after `after`; fewer than `limit` on the last page.
    ///
    /// The order depends on the store but never changes.
    ///
    /// # Errors
    /// The error of the store, or an invalid name.
    pub async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<Listed>, Error> {
        if let Some(root) = &self.files {
            let root = root.join(self.prefix.as_ref());
            return files::page(root, after.map(str::to_owned), limit).await;
        }
        let found = match after {
            None => self.store.list(Some(&self.prefix)),
            Some(after) => self.store.list_with_offset(Some(&self.prefix), &self.path(after)?),
        };
        let (mut found, mut page) = (found.take(limit), Vec::new());
        loop {
            match timeout(self.timeout, found.next()).await {
                Ok(None) => return Ok(page),
                Ok(Some(Ok(meta))) => page.push(listed(&self.prefix, &meta)),
                Ok(Some(Err(error))) => return Err(failed("list blobs", "a page", error)),
                Err(_) => return Err(timed_out("list blobs", "a page")),
            }
        }
    }
    /// Deletes blobs, with one request for many if the store supports it. A missing blob is not an error.
    ///
    /// # Errors
    /// The error of the store, or an invalid name. Blobs that were deleted before the error stay deleted.
    pub async fn delete_all(&self, names: Vec<String>) -> Result<(), Error> {
        let paths: Vec<Path> = names.iter().map(|name| self.path(name)).collect::<Result<_, _>>()?;
        let mut deleted = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        loop {
            match timeout(self.timeout, deleted.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(gone)) => {
                    found(gone.map_err(|error| failed("delete blobs", "many", error)))?;
                }
                Err(_) => return Err(timed_out("delete blobs", "many")),
            }
        }
    }
    /// Deletes all blobs below a folder; returns their number.
    ///
    /// # Errors
    /// The error of the store; blobs deleted before it stay deleted. [`ErrorKind::Internal`] for an empty folder, which would be all blobs.
    pub async fn delete_folder(&self, folder: &str) -> Result<u64, Error> {
        if folder.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "delete blobs")
                .context("an empty folder name would delete all blobs"));
        }
        let path = self.path(folder)?;
        let names = self.store.list(Some(&path)).map_ok(|meta| meta.location).boxed();
        let mut deleted = self.store.delete_stream(names);
        let mut count = 0;
        loop {
            match timeout(self.timeout, deleted.next()).await {
                Ok(None) => return Ok(count),
                Ok(Some(gone)) => {
                    count += u64::from(
                        found(gone.map_err(|error| failed("delete blobs", folder, error)))?.is_some(),
                    );
                }
                Err(_) => return Err(timed_out("delete blobs", folder)),
            }
        }
    }
    /// Returns a link that reads a blob without credentials, valid for `lasting`.
    ///
    /// None: the store signs no links.
    ///
    /// # Errors
    /// The error of the store, if it has to fetch credentials.
    pub async fn signed(&self, name: &str, lasting: Duration) -> Result<Option<String>, Error> {
        #[cfg(feature = "s3")]
        if let Some(signer) = &self.signer {
            let path = self.path(name)?;
            let link = signer.signed_url(object_store::signer::Method::GET, &path, lasting);
            return Ok(Some(self.step("sign link", name, link).await?.into()));
        }
        #[cfg(not(feature = "s3"))]
        let _ = (name, lasting);
        Ok(None)
    }
    /// Removes blobs that a process began before `before` and never finished, because it died.
    ///
    /// `ours` selects by name. For files only: S3 has a bucket rule for this (`AbortIncompleteMultipartUpload`).
    ///
    /// # Errors
    /// The error of the file system.
    pub async fn remove_unfinished(
        &self,
        before: Timestamp,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<u64, Error> {
        match self.files.clone() {
            None => Ok(0),
            Some(folder) => files::remove_unfinished(folder, before, ours).await,
        }
    }
    /// Checks that the store responds.
    ///
    /// # Errors
    /// The error of the store; for files, that the folder does not exist.
    pub async fn ping(&self) -> Result<(), Error> {
        if let Some(folder) = &self.files {
            let there = tokio::fs::metadata(folder).await;
            let away =
                || Error::new(ErrorKind::Unavailable, "ping blobs").context(folder.display().to_string());
            there.map_err(|error| away().source(error))?;
            return Ok(());
        }
        // A name without blobs: the response is small, and a missing bucket is reported.
        self.list("ping").try_next().await.map(drop)
    }

    /// Attributes that a store sends to clients that follow a signed link.
    fn attributes(&self, name: &str) -> Attributes {
        let mut attributes = Attributes::new();
        #[cfg(feature = "s3")]
        if self.signer.is_some()
            && let Some(kind) = [Format::Jpeg, Format::WebP]
                .into_iter()
                .find(|kind| name.rsplit_once('.').is_some_and(|(_, end)| end == kind.extension()))
        {
            attributes.insert(Attribute::ContentType, kind.media_type().into());
        }
        #[cfg(not(feature = "s3"))]
        let _ = (name, &mut attributes);
        attributes
    }
    fn path(&self, name: &str) -> Result<Path, Error> {
        let wrong =
            |error| Error::new(ErrorKind::Internal, "name blob").context(name.to_owned()).source(error);
        let path = Path::parse(name).map_err(wrong)?;
        Ok(self.prefix.parts().chain(path.parts()).collect())
    }
    async fn step<T>(
        &self,
        operation: &'static str,
        name: &str,
        step: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Error> {
        match timeout(self.timeout, step).await {
            Ok(done) => done.map_err(|error| failed(operation, name, error)),
            Err(_) => Err(timed_out(operation, name)),
        }
    }
}

fn listed(prefix: &Path, meta: &ObjectMeta) -> Listed {
    let name: Path = meta.location.prefix_match(prefix).into_iter().flatten().collect();
    Listed {
        name: name.into(),
        size: meta.size,
        modified: Timestamp::from_micros(meta.last_modified.timestamp_micros()),
    }
}

/// Converts the error for a missing blob to none.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
