//! Blobs as files: written under a temporary name, synced, and renamed.

use std::{
    collections::BinaryHeap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use couple_core::{Error, ErrorKind, Timestamp};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use object_store::{GetResult, GetResultPayload, local::LocalFileSystem};
use tokio::task::spawn_blocking;

use super::{Blobs, FILE_PART_BYTES, Listed};

impl Blobs {
    /// Stores blobs as files under a folder. A write returns after the blob is on the disk.
    ///
    /// A missing folder is created for its owner only. From an existing folder the access of users other than owner and group is
    /// removed, since its files are private pictures.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`]: the folder cannot be created, entered or closed to other users.
    pub fn files(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let wrong =
            || Error::new(ErrorKind::Misconfigured, "open blobs").context(folder.display().to_string());
        make(folder).and_then(|()| close_to_others(folder)).map_err(|error| wrong().source(error))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| wrong().source(error))?;
        Ok(Self {
            files: Some(folder.to_owned()),
            part: FILE_PART_BYTES,
            ..Self::over(store.with_fsync(true).with_automatic_cleanup(true))
        })
    }
}

/// Creates a folder that only its owner can read, since it holds private pictures.
fn make(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes the permissions of other users from the folder.
///
/// Files in it are created with the process's default permissions.
fn close_to_others(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        const OTHER_USERS_MODE: u32 = 0o007;
        let mut permissions = folder.metadata()?.permissions();
        if permissions.mode() & OTHER_USERS_MODE != 0 {
            permissions.set_mode(permissions.mode() & !OTHER_USERS_MODE);
            std::fs::set_permissions(folder, permissions)?;
        }
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Content of a blob in chunks.
///
/// Chunks of files are larger than the store's 8 KiB, each of which costs a switch to another thread.
pub(super) fn pieces(got: GetResult) -> BoxStream<'static, object_store::Result<Bytes>> {
    let GetResult { payload, range, .. } = got;
    match payload {
        GetResultPayload::Stream(stream) => stream,
        GetResultPayload::File(file, _) => {
            stream::try_unfold((file, range), |(mut file, range)| async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let length = (range.end - range.start).min(FILE_PART_BYTES as u64);
                let read = spawn_blocking(move || {
                    let bytes = read(&mut file, range.start, length)?;
                    Ok::<_, io::Error>((bytes, file))
                });
                let (bytes, file) = read.await?.map_err(|source| object_store::Error::Generic {
                    store: "files",
                    source: Box::new(source),
                })?;
                Ok(Some((bytes, (file, range.start + length..range.end))))
            })
            .boxed()
        }
    }
}

fn read(file: &mut File, start: u64, length: u64) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

/// Removes files that a process was writing when it died.
///
/// Such a file is named like the blob, followed by `#` and a number, as [`LocalFileSystem`] names it, and is not listed as a blob.
pub(super) async fn remove_unfinished(
    folder: PathBuf,
    before: Timestamp,
    ours: impl Fn(&str) -> bool + Send + 'static,
) -> Result<u64, Error> {
    let wrong = |folder: &Path| {
        Error::new(ErrorKind::Unavailable, "remove unfinished blobs").context(folder.display().to_string())
    };
    let at = folder.clone();
    let removed = spawn_blocking(move || {
        let mut removed = 0;
        let root = folder.clone();
        let is_ours = |path: &Path| {
            let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
            name.and_then(unfinished).is_some_and(&ours)
        };
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let entries = match std::fs::read_dir(&folder) {
                // Another process may have emptied and removed the folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if is_ours(&entry.path())
                    && entry.metadata().is_ok_and(|file| file.modified().is_ok_and(|at| at < time(before)))
                    && std::fs::remove_file(entry.path()).is_ok()
                {
                    removed += 1;
                }
            }
        }
        Ok::<u64, io::Error>(removed)
    });
    removed.await.map_err(|error| wrong(&at).source(error))?.map_err(|error| wrong(&at).source(error))
}

/// Maximum number of directory entries that are held in memory: a directory may have any number.
const MAX_NAMES_HELD: usize = 10_000;

/// Returns the next files after `after`, in the order of their paths' components.
pub(super) async fn page(root: PathBuf, after: Option<String>, limit: usize) -> Result<Vec<Listed>, Error> {
    let wrong = || Error::new(ErrorKind::Unavailable, "list blobs").context("a page");
    let listed = spawn_blocking(move || {
        let after: Vec<&str> = after.as_deref().map(|after| after.split('/').collect()).unwrap_or_default();
        let mut page = Vec::new();
        walk(&root, "", &after, limit, &mut page)?;
        Ok::<_, io::Error>(page)
    });
    listed.await.map_err(|error| wrong().source(error))?.map_err(|error| wrong().source(error))
}

/// Adds files below `folder`, whose name is `prefix`, until the page is full.
fn walk(folder: &Path, prefix: &str, after: &[&str], limit: usize, page: &mut Vec<Listed>) -> io::Result<()> {
    // A folder on the path to `after` may have more files; a file of that name has none.
    let mut from = after.first().map(|first| ((*first).to_owned(), after.len() > 1));
    loop {
        let names = next_names(folder, from.as_ref())?;
        for name in &names {
            let path = folder.join(name);
            let whole = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            let file = match std::fs::metadata(&path) {
                // Another process removed the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            if file.is_dir() {
                let rest = if after.first() == Some(&name.as_str()) { &after[1..] } else { &[] };
                walk(&path, &whole, rest, limit, page)?;
            } else if unfinished(name).is_none() && after.first() != Some(&name.as_str()) {
                let modified = file.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let modified = i64::try_from(modified.as_micros()).unwrap_or(i64::MAX);
                page.push(Listed {
                    name: whole,
                    size: file.len(),
                    modified: Timestamp::from_micros(modified),
                });
            }
            if page.len() == limit {
                return Ok(());
            }
        }
        match names.into_iter().next_back() {
            Some(last) => from = Some((last, false)),
            None => return Ok(()),
        }
    }
}

/// Up to [`MAX_NAMES_HELD`] names of a directory in order, from or after a given name.
fn next_names(folder: &Path, from: Option<&(String, bool)>) -> io::Result<Vec<String>> {
    let mut least = BinaryHeap::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        // Blobs have plain names: a file with another name is not a blob of this store.
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let wanted = from.is_none_or(|(from, inclusive)| name > *from || (*inclusive && name == *from));
        if wanted {
            least.push(name);
            if least.len() > MAX_NAMES_HELD {
                least.pop();
            }
        }
    }
    Ok(least.into_sorted_vec())
}

/// Name of the blob for which an unfinished file was written.
///
/// None: `name` is not that of an unfinished file.
fn unfinished(name: &str) -> Option<&str> {
    let (name, number) = name.rsplit_once('#')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

fn time(at: Timestamp) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(at.micros()).unwrap_or(0))
}
