//! Where the bytes of pictures are kept: named blobs, over any [`ObjectStore`].
//!
//! A name is a path such as `c/0192…/source`: what stands before a `/` is a folder, and a folder can be listed and deleted as a
//! whole. Names are the caller's, and should not be guessable where the store can be reached by others.
//!
//! What is asked of a store that [`Blobs`] are laid over, each held by a check of `couple-conformance`:
//!
//! * **O1** What was written is read back, byte for byte, however long: nothing, and more than one part.
//! * **O2** A blob is there as a whole or not at all: not before its end, and not if its end never came.
//! * **O3** A range is read without the rest; one that begins behind the end is empty, and the size is told all the same.
//! * **O4** What is not there is told so, and is deleted without complaint.
//! * **O5** A folder is listed with sizes and times, and without what lies beside it.
//! * **O6** A folder is deleted as a whole, and nothing beside it.
//! * **O7** Many may write at once; of those who write the same name one wins, whole.
//! * **O8** Where the store signs links, a link reads its blob and no other, until it expires.
//! * **O9** Bytes that a writer staged are joined in their order, and no staged blob is left.
//! * **O10** Pages list every blob once, also when blobs before them are deleted meanwhile; many blobs are deleted with one call.

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

use error::{failed, late};

/// The least that S3 takes as a part of a larger blob, the last one aside.
const PART: usize = 5 << 20;
/// What of a file is held at once.
const FILE_PART: usize = 128 << 10;
/// How long a store of unknown speed may take for one step.
const PATIENCE: Duration = Duration::from_secs(30);

/// Blobs by name. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    #[cfg(feature = "s3")]
    signer: Option<Arc<dyn object_store::signer::Signer>>,
    /// The folder of files, if it is one.
    files: Option<PathBuf>,
    prefix: Path,
    part: usize,
    patience: Duration,
}

impl fmt::Debug for Blobs {
    /// Without the store, which may print what it signs with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("prefix", &self.prefix.as_ref()).finish_non_exhaustive()
    }
}

/// A blob, or the range of it that was asked for.
pub struct Blob {
    /// Of the whole blob, in bytes.
    pub size: u64,
    /// What of it comes.
    pub range: Range<u64>,
    /// The bytes. Each piece comes within the store's patience, or an error does.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("size", &self.size).field("range", &self.range).finish_non_exhaustive()
    }
}

/// A blob as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

impl Default for Blobs {
    fn default() -> Self {
        Self::memory()
    }
}

impl Blobs {
    /// In memory: gone with the process.
    #[must_use]
    pub fn memory() -> Self {
        Self::over(InMemory::new())
    }
    /// Over any store. Gives [`signed`](Self::signed) no links.
    pub fn over(store: impl ObjectStore) -> Self {
        Self {
            store: Arc::new(store),
            #[cfg(feature = "s3")]
            signer: None,
            files: None,
            prefix: Path::default(),
            part: PART,
            patience: PATIENCE,
        }
    }
    /// Under a folder of the store's.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`]: it is not a path of plain names.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, Error> {
        self.prefix = Path::parse(prefix).map_err(|error| {
            Error::new(ErrorKind::Misconfigured, "open blobs").context(prefix.to_owned()).source(error)
        })?;
        Ok(self)
    }
    /// How long one step may take: an answer, a part, a piece. Default: 30 s.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Writes a blob whose bytes are at hand, in place of one that was there. A store that signs links is told its media type, by how
    /// its name ends: `.jpg` or `.webp`.
    ///
    /// # Errors
    /// The store's, and a name that is none.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let path = self.path(name)?;
        let options = PutOptions { attributes: self.attributes(name), ..PutOptions::default() };
        self.step("put blob", name, self.store.put_opts(&path, PutPayload::from_bytes(bytes), options))
            .await?;
        Ok(())
    }
    /// Begins a blob whose bytes come one after another. Nothing of it is there before [`BlobWriter::finish`].
    ///
    /// # Errors
    /// A name that is none.
    pub fn write(&self, name: &str) -> Result<BlobWriter, Error> {
        Ok(BlobWriter::new(self.clone(), name.to_owned(), self.path(name)?))
    }
    /// Reads a blob, or as much of `range` as there is of it. None: it is not there.
    ///
    /// # Errors
    /// The store's.
    pub async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<Blob>, Error> {
        let path = self.path(name)?;
        if let Some(range) = &range {
            // Stores differ in what they say of a range that they cannot serve.
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
        let (patience, name) = (self.patience, name.to_owned());
        let bytes = stream::unfold(Some(files::pieces(got)), move |pieces| {
            let name = name.clone();
            async move {
                let mut pieces = pieces?;
                match timeout(patience, pieces.next()).await {
                    Ok(None) => None,
                    Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(pieces))),
                    Ok(Some(Err(error))) => Some((Err(failed("get blob", &name, error)), None)),
                    Err(_) => Some((Err(late("get blob", &name)), None)),
                }
            }
        });
        Ok(Some(Blob { size, range, bytes: bytes.boxed() }))
    }
    /// Reads a whole blob of at most `most` bytes. None: it is not there.
    ///
    /// # Errors
    /// The store's; [`ErrorKind::Rejected`]: it is larger.
    pub async fn read(&self, name: &str, most: u64) -> Result<Option<Bytes>, Error> {
        let Some(mut blob) = self.get(name, None).await? else { return Ok(None) };
        if blob.size > most {
            return Err(
                Error::new(ErrorKind::Rejected, "get blob").context(format!("{name} is larger than {most}"))
            );
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
    /// How many bytes a blob has. None: it is not there.
    ///
    /// # Errors
    /// The store's.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, Error> {
        let path = self.path(name)?;
        Ok(found(self.step("look for blob", name, self.store.head(&path)).await)?.map(|meta| meta.size))
    }
    /// Deletes a blob, if it is there.
    ///
    /// # Errors
    /// The store's.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        found(self.step("delete blob", name, self.store.delete(&path)).await).map(drop)
    }
    /// What lies in a folder, however deep, in no order; all of it for an empty one.
    #[must_use]
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let path = if folder.is_empty() { Ok(self.prefix.clone()) } else { self.path(folder) };
        let path = match path {
            Ok(path) => path,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let found = self.store.list(Some(&path));
        let (patience, prefix, folder) = (self.patience, self.prefix.clone(), folder.to_owned());
        let listed = stream::unfold(Some(found), move |found| {
            let (prefix, folder) = (prefix.clone(), folder.clone());
            async move {
                let mut found = found?;
                match timeout(patience, found.next()).await {
                    Ok(None) => None,
                    Ok(Some(Ok(meta))) => Some((Ok(listed(&prefix, &meta)), Some(found))),
                    Ok(Some(Err(error))) => Some((Err(failed("list blobs", &folder, error)), None)),
                    Err(_) => Some((Err(late("list blobs", &folder)), None)),
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
    /// The store's, or an invalid name.
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
            match timeout(self.patience, found.next()).await {
                Ok(None) => return Ok(page),
                Ok(Some(Ok(meta))) => page.push(listed(&self.prefix, &meta)),
                Ok(Some(Err(error))) => return Err(failed("list blobs", "a page", error)),
                Err(_) => return Err(late("list blobs", "a page")),
            }
        }
    }
    /// Deletes blobs, many with one request where the store supports that. An absent blob is no error.
    ///
    /// # Errors
    /// The store's, or an invalid name. Blobs that were deleted before the error stay deleted.
    pub async fn delete_all(&self, names: Vec<String>) -> Result<(), Error> {
        let paths: Vec<Path> = names.iter().map(|name| self.path(name)).collect::<Result<_, _>>()?;
        let mut deleted = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        loop {
            match timeout(self.patience, deleted.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(gone)) => {
                    found(gone.map_err(|error| failed("delete blobs", "many", error)))?;
                }
                Err(_) => return Err(late("delete blobs", "many")),
            }
        }
    }
    /// Deletes what lies in a folder, however deep, and returns how many blobs that were.
    ///
    /// # Errors
    /// The store's. What was deleted until then stays deleted. [`ErrorKind::Internal`] for no folder: that would be all there is.
    pub async fn delete_folder(&self, folder: &str) -> Result<u64, Error> {
        if folder.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "delete blobs").context("of no folder"));
        }
        let path = self.path(folder)?;
        let names = self.store.list(Some(&path)).map_ok(|meta| meta.location).boxed();
        let mut deleted = self.store.delete_stream(names);
        let mut count = 0;
        loop {
            match timeout(self.patience, deleted.next()).await {
                Ok(None) => return Ok(count),
                Ok(Some(gone)) => {
                    count += u64::from(
                        found(gone.map_err(|error| failed("delete blobs", folder, error)))?.is_some(),
                    );
                }
                Err(_) => return Err(late("delete blobs", folder)),
            }
        }
    }
    /// A link by which anybody reads a blob, for so long. None: this store has no such links.
    ///
    /// # Errors
    /// The store's, when it has to ask for what it signs with.
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
    /// Removes what was begun before `before`, by a name that is `ours`, and came to no end, because its process died. Of files only:
    /// S3 does so itself, by a bucket's rule (`AbortIncompleteMultipartUpload`).
    ///
    /// # Errors
    /// The file system's.
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
    /// Asks whether the store answers.
    ///
    /// # Errors
    /// The store's; of files, that the folder is not there.
    pub async fn ping(&self) -> Result<(), Error> {
        if let Some(folder) = &self.files {
            let there = tokio::fs::metadata(folder).await;
            let away =
                || Error::new(ErrorKind::Unavailable, "ping blobs").context(folder.display().to_string());
            there.map_err(|error| away().source(error))?;
            return Ok(());
        }
        // Of a name that nothing has: little to send, and a bucket that is not there is told.
        self.list("ping").try_next().await.map(drop)
    }

    /// What a store that signs links says of a blob to whoever follows one.
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
        match timeout(self.patience, step).await {
            Ok(done) => done.map_err(|error| failed(operation, name, error)),
            Err(_) => Err(late(operation, name)),
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

/// Turns "there is none" into none.
fn found<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error::is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
