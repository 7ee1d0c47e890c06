//! Custom storage of pictures: an object store with one flat folder, checked by `couple-conformance`.
//!
//! It implements what `Blobs` uses: writing, reading, deleting and listing. Limits: one process uses the folder, lists read all of its
//! names, and a name has at most 255 bytes. `cargo run --example own_blobs` uses it, `cargo test --example own_blobs` checks it.

#![expect(clippy::print_stdout, reason = "an example prints its results")]

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart, path::Path,
};

const NAME: &str = "FolderBlobs";
/// First characters of the name of a blob that is being written. No encoded name begins with them.
const UNFINISHED: &str = "%part-";

/// Object store with one file for each blob. Cheap to clone.
#[derive(Debug, Clone)]
struct FolderBlobs(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Number of blobs whose writing was started.
    started: AtomicU64,
}

impl fmt::Display for FolderBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.0.path.display())
    }
}

impl FolderBlobs {
    /// Opens a folder, or creates it, and removes blobs that an earlier process did not finish.
    fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        for file in fs::read_dir(&path)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(Self(Arc::new(Folder { path, started: AtomicU64::new(0) })))
    }

    /// File of a blob. A slash is encoded, because the folder is flat.
    fn file(&self, location: &Path) -> PathBuf {
        self.0.path.join(location.as_ref().replace('%', "%25").replace('/', "%2F"))
    }

    /// Blob of a file, or none for a blob that is being written.
    fn blob(&self, file: &fs::DirEntry) -> Result<Option<ObjectMeta>> {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with(UNFINISHED) {
            return Ok(None);
        }
        let name = name.replace("%2F", "/").replace("%25", "%");
        match file.metadata().and_then(|metadata| meta(Path::from(""), &metadata)) {
            // It was deleted since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => {
                let found = found.map_err(|error| failed(&name, error))?;
                Ok(Some(ObjectMeta { location: Path::parse(&name)?, ..found }))
            }
        }
    }

    /// All blobs below a prefix, sorted by name, because [`ObjectStore::list_with_offset`] continues after one.
    fn blobs(&self, prefix: &Path) -> Result<Vec<ObjectMeta>> {
        let mut blobs = Vec::new();
        for file in fs::read_dir(&self.0.path).map_err(|error| failed(NAME, error))? {
            blobs.extend(self.blob(&file.map_err(|error| failed(NAME, error))?)?);
        }
        // A prefix is a whole folder, and is no blob of itself.
        blobs.retain(|blob| blob.location.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some()));
        blobs.sort_by(|one, other| one.location.cmp(&other.location));
        Ok(blobs)
    }

    /// Starts a blob, which is invisible until [`Unfinished::publish`].
    fn start(&self, location: &Path) -> Result<Unfinished> {
        let number = self.0.started.fetch_add(1, Ordering::Relaxed);
        let path = self.0.path.join(format!("{UNFINISHED}{number}"));
        let file = File::create_new(&path).map_err(|error| failed(location, error))?;
        Ok(Unfinished { store: self.clone(), location: location.clone(), path, file })
    }
}

/// A blob that is being written. Dropping it removes its file.
#[derive(Debug)]
struct Unfinished {
    store: FolderBlobs,
    location: Path,
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn publish(&self) -> io::Result<()> {
        self.file.sync_all()?;
        // Replaces a blob of this name in one step: readers see either of them completely (O2, O7).
        fs::rename(&self.path, self.store.file(&self.location))?;
        File::open(&self.store.0.path)?.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After publishing there is no such file.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_at(file: &File, payload: &PutPayload, mut position: u64) -> io::Result<()> {
    for chunk in payload {
        file.write_all_at(chunk, position)?;
        position += chunk.len() as u64;
    }
    Ok(())
}

fn meta(location: Path, file: &fs::Metadata) -> io::Result<ObjectMeta> {
    Ok(ObjectMeta {
        location,
        last_modified: file.modified()?.into(),
        size: file.len(),
        e_tag: None,
        version: None,
    })
}

fn failed(name: impl fmt::Display, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: name.to_string(), source: error.into() },
        _ => Error::Generic { store: NAME, source: error.into() },
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: NAME.to_owned() }
}

fn put_result() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

/// Runs work on files in a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

#[async_trait]
impl ObjectStore for FolderBlobs {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Overwrite {
            return Err(not_implemented("put with a condition"));
        }
        let (store, location) = (self.clone(), location.clone());
        blocking(move || {
            let blob = store.start(&location)?;
            let written = write_at(&blob.file, &payload, 0).and_then(|()| blob.publish());
            written.map(|()| put_result()).map_err(|error| failed(location, error))
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (store, location) = (self.clone(), location.clone());
        let blob = blocking(move || store.start(&location)).await?;
        Ok(Box::new(Parts { blob: Arc::new(blob), length: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (path, location) = (self.file(location), location.clone());
        blocking(move || {
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
            let (metadata, file) = opened.map_err(|error| failed(&location, error))?;
            let meta = meta(location, &metadata).map_err(|error| failed(NAME, error))?;
            options.check_preconditions(&meta)?;
            let range = options.range.map(|range| range.as_range(meta.size)).transpose();
            let range = range.map_err(|error| Error::Generic { store: NAME, source: error.into() })?;
            Ok(GetResult {
                range: range.unwrap_or(0..meta.size),
                payload: GetResultPayload::File(file, path),
                meta,
                attributes: Attributes::new(),
                extensions: Default::default(),
            })
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.and_then(move |location| {
            let path = store.file(&location);
            blocking(move || match fs::remove_file(path) {
                Ok(()) => Ok(location),
                Err(error) => Err(failed(location, error)),
            })
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let blobs = blocking(move || store.blobs(&prefix));
        stream::once(blobs).map_ok(|blobs| stream::iter(blobs.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(not_implemented("list with a delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_implemented("copy"))
    }
}

/// Upload in parts. Each part is written at its position, so parts may be written concurrently.
#[derive(Debug)]
struct Parts {
    blob: Arc<Unfinished>,
    /// Position of the next part.
    length: u64,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (blob, position) = (self.blob.clone(), self.length);
        self.length += data.content_length() as u64;
        Box::pin(blocking(move || {
            write_at(&blob.file, &data, position).map_err(|error| failed(&blob.location, error))
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let blob = self.blob.clone();
        blocking(move || blob.publish().map(|()| put_result()).map_err(|error| failed(&blob.location, error)))
            .await
    }

    async fn abort(&mut self) -> Result<()> {
        let blob = self.blob.clone();
        blocking(move || fs::remove_file(&blob.path).map_err(|error| failed(&blob.location, error))).await
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let blobs = couple::blobs::Blobs::over(FolderBlobs::open(folder.path())?);
    let backend = couple::Backend::builder().blobs(blobs.clone()).build()?;
    let mut file = io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(640, 480, image::Rgb([142, 69, 133]))
        .write_to(&mut file, image::ImageFormat::Png)?;

    let gallery = backend.gallery();
    let ana = backend.ports().new_id();
    let mut upload = gallery.upload(ana, couple::media::Purpose::Avatar.into(), None).await?;
    upload.write(file.into_inner().into()).await?;
    upload.finish(|_| couple::RequestContext::default(), async { Ok(true) }).await?;
    backend.worker().run_until_idle().await?;
    for blob in blobs.page(None, 10).await? {
        println!("{} has {} bytes", blob.name, blob.size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use couple::blobs::Blobs;

    use super::*;

    fn in_new_folder() -> FolderBlobs {
        FolderBlobs::open(tempfile::tempdir().unwrap().keep()).unwrap()
    }

    couple_conformance::blobs!(async { Blobs::over(in_new_folder()) });

    #[tokio::test]
    async fn names_are_kept_and_unfinished_blobs_are_removed_on_opening() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::over(FolderBlobs::open(folder.path()).unwrap());
        let names = ["%part-0", "a%2Fb", "a/b", "a/b/c"].map(|name| Path::from(name).to_string());
        for name in &names {
            blobs.put(name, name.clone().into()).await.unwrap();
        }
        fs::write(folder.path().join("%part-7"), "half").unwrap();
        let reopened = Blobs::over(FolderBlobs::open(folder.path()).unwrap());
        let listed = reopened.page(None, 10).await.unwrap();
        assert_eq!(listed.iter().map(|blob| blob.name.clone()).collect::<Vec<_>>(), names);
        for name in &names {
            assert_eq!(reopened.read(name, 100).await.unwrap().unwrap(), name.as_bytes());
        }
        assert!(!folder.path().join("%part-7").exists());
    }
}
