//! Stores the bytes of a resumable upload as they arrive.
//!
//! Bytes are collected in memory. They are stored as a blob when [`CHUNK_BYTES`] have arrived, after [`STORE_AFTER`], and when the request
//! ends. A blob is never changed. A blob that is small compared with the bytes after it is replaced by one with both, so that an upload
//! of many tiny requests has few blobs: each blob below [`CHUNK_BYTES`] is at least twice as large as the next.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use couple_core::{
    CommitError, Conflict, Error, ErrorKind, UploadId,
    media::Purpose,
    upload::{UploadChange, UploadPart},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Gallery, UploadError,
    resume::{Resumable, ResumeError, bytes as signed},
};

/// Number of bytes that are stored as one blob. A blob of this size or more is not replaced.
const CHUNK_BYTES: usize = 512 << 10;
/// Maximum time that bytes wait in memory.
///
/// The client sends these again if the process dies or a newer request takes over.
const STORE_AFTER: Duration = Duration::from_secs(3);
/// Time for which the sum of all unfinished uploads is cached.
const SUM_AGE: Duration = Duration::from_secs(5);

/// Appending requests of this process, by upload.
#[derive(Debug, Default)]
pub(super) struct ActiveAppends {
    newest: Mutex<HashMap<UploadId, (i64, oneshot::Sender<()>)>>,
    stored: Mutex<Option<StoredSum>>,
}

/// Bytes of all unfinished uploads: the sum read from the store, and what this process added since.
#[derive(Debug, Clone, Copy)]
struct StoredSum {
    bytes: i64,
    read_at: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An appending request. When it is dropped, the bytes that have arrived are stored.
#[derive(Debug)]
pub struct Appending {
    send: mpsc::Sender<Bytes>,
    task: JoinHandle<Result<Resumable, ResumeError>>,
    superseded: oneshot::Receiver<()>,
    /// Number of bytes that may still arrive.
    left: u64,
    limit: usize,
    registration: Registration,
}

/// Removes the request from the registry when it ends.
#[derive(Debug)]
struct Registration {
    gallery: Gallery,
    id: UploadId,
    writer: i64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut newest = locked(&self.gallery.0.appends.newest);
        if newest.get(&self.id).is_some_and(|(writer, _)| *writer == self.writer) {
            newest.remove(&self.id);
        }
    }
}

impl Appending {
    /// Starts appending to an upload that this request has claimed.
    ///
    /// An older request of this process for the same upload ends.
    fn start(upload: Resumable) -> Self {
        let (gallery, id, writer) = (upload.gallery.clone(), upload.row.id, upload.row.writer);
        let limit = gallery.0.options.limits.bytes();
        let (newer, superseded) = oneshot::channel();
        // This drops the older request's sender, which its receiver notices.
        locked(&gallery.0.appends.newest).insert(id, (writer, newer));
        let left = upload.length().unwrap_or(limit as u64).saturating_sub(upload.offset());
        let (send, receive) = mpsc::channel(1);
        let task = tokio::spawn(store(upload, receive));
        Self { send, task, superseded, left, limit, registration: Registration { gallery, id, writer } }
    }

    /// Adds bytes, and waits while earlier ones are being stored.
    ///
    /// False: storing failed; [`finish`](Self::finish) returns the error.
    ///
    /// # Errors
    /// [`UploadError::TooManyBytes`]: more than the declared length, or than a picture may have. These bytes are not stored.
    pub async fn write(&mut self, bytes: Bytes) -> Result<bool, UploadError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(UploadError::TooManyBytes { limit: self.limit })?;
        Ok(self.send.send(bytes).await.is_ok())
    }

    /// Waits until a newer request of this process continues the upload.
    pub async fn superseded(&mut self) {
        // Nothing is ever sent: an error means that the sender was dropped.
        let _ = (&mut self.superseded).await;
    }

    /// Stores the bytes that have arrived, and returns the updated upload.
    ///
    /// # Errors
    /// [`ResumeError`]. Bytes that were stored before stay.
    pub async fn finish(self) -> Result<Resumable, ResumeError> {
        let Self { send, task, registration, .. } = self;
        drop(send);
        let panicked = |error| Error::new(ErrorKind::Internal, "store upload").source(error);
        let ended = task.await.unwrap_or_else(|error| Err(panicked(error).into()));
        drop(registration);
        ended
    }
}

/// Stores bytes as they arrive until the sender is dropped.
async fn store(mut upload: Resumable, mut receive: mpsc::Receiver<Bytes>) -> Result<Resumable, ResumeError> {
    let (mut waiting, mut due) = (BytesMut::new(), None);
    loop {
        let next = match due {
            None => Ok(receive.recv().await),
            Some(due) => timeout_at(due, receive.recv()).await,
        };
        match next {
            Ok(Some(mut bytes)) => {
                while !bytes.is_empty() {
                    let room = bytes.len().min(CHUNK_BYTES - waiting.len());
                    waiting.extend_from_slice(&bytes.split_to(room));
                    if waiting.len() == CHUNK_BYTES {
                        upload.store(waiting.split().freeze()).await?;
                        due = None;
                    }
                }
                if due.is_none() && !waiting.is_empty() {
                    due = Some(Instant::now() + STORE_AFTER);
                }
            }
            Ok(None) if waiting.is_empty() => return Ok(upload),
            Ok(None) => {
                upload.store(waiting.split().freeze()).await?;
                return Ok(upload);
            }
            Err(_) => {
                // Its memory is freed: the next bytes may arrive much later.
                upload.store(std::mem::take(&mut waiting).freeze()).await?;
                due = None;
            }
        }
    }
}

impl Resumable {
    /// Claims the upload for the calling request, which appends from offset `from` on.
    ///
    /// `length` is the total length, if the client declares it now.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn append(mut self, from: u64, length: Option<u64>) -> Result<Appending, ResumeError> {
        let offset = self.offset();
        if offset != from || self.row.media.is_some() {
            return Err(ResumeError::Offset { offset });
        }
        if let Some(length) = length {
            let purpose = (!self.is_partial()).then_some(Purpose::Photo);
            self.gallery.check_length(purpose, Some(length))?;
            if length < offset || self.length().is_some_and(|before| before != length) {
                return Err(ResumeError::Length);
            }
        }
        let mut token = [0; 8];
        self.gallery.0.ports.entropy.fill(&mut token);
        let (owner, id) = (self.row.owner, self.row.id);
        self.row.writer = i64::from_be_bytes(token);
        self.row.length = self.row.length.or(length.map(signed));
        let (writer, offset) = (self.row.writer, self.row.offset);
        let claim = UploadChange::Claim { owner, id, offset, writer, length: length.map(signed) };
        match self.gallery.commit(vec![claim]).await {
            Ok(()) => {}
            Err(ResumeError::Superseded) => {
                let offset = self.gallery.resume(owner, id).await?.offset();
                return Err(if offset == from {
                    ResumeError::Length
                } else {
                    ResumeError::Offset { offset }
                });
            }
            Err(other) => return Err(other),
        }
        Ok(Appending::start(self))
    }

    /// Stores bytes at the end of the upload: first a blob, then a commit that names it.
    async fn store(&mut self, new: Bytes) -> Result<(), ResumeError> {
        let gallery = self.gallery.clone();
        let added = signed(new.len() as u64);
        gallery.check_sum(added).await?;
        let mut parts = self.row.parts.clone();
        let (whole, replaced) = self.coalesce(&mut parts, new).await?;
        let blob = gallery.fresh_part(&self.row);
        parts.push(UploadPart { blob: blob.clone(), bytes: signed(whole.len() as u64) });
        gallery.0.blobs.put(&blob, whole).await?;
        let append = UploadChange::Append {
            owner: self.row.owner,
            id: self.row.id,
            writer: self.row.writer,
            offset: self.row.offset,
            bytes: added,
            parts: parts.clone(),
            most: gallery.max_unfinished_bytes_per_account(),
        };
        match gallery.0.ports.commit(vec![append.into()]).await {
            Ok(_) => {
                self.row.offset += added;
                self.row.parts = parts;
                gallery.add_to_sum(added);
                gallery.discard(replaced).await;
                Ok(())
            }
            Err(CommitError::Conflict(conflict)) => {
                gallery.discard(vec![blob]).await;
                Err(match conflict {
                    Conflict::QuotaExceeded => ResumeError::TooMuchUnfinished,
                    _ => ResumeError::Superseded,
                })
            }
            // The commit may have succeeded, so the blob may be named: it is kept.
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
    }

    /// Removes small parts from the end of `parts`.
    ///
    /// Returns the stored bytes joined with the new ones, and the replaced blobs.
    async fn coalesce(
        &self,
        parts: &mut Vec<UploadPart>,
        new: Bytes,
    ) -> Result<(Bytes, Vec<String>), ResumeError> {
        let (chunk, mut size, mut small) = (signed(CHUNK_BYTES as u64), signed(new.len() as u64), Vec::new());
        while let Some(last) = parts.pop_if(|last| last.bytes < chunk && last.bytes < 2 * size) {
            size += last.bytes;
            small.push(last);
        }
        if small.is_empty() {
            return Ok((new, Vec::new()));
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
        for part in small.iter().rev() {
            let read = self.gallery.0.blobs.read(&part.blob, 2 * CHUNK_BYTES as u64).await?;
            // A newer request replaced the blob.
            whole.extend_from_slice(&read.ok_or(ResumeError::Superseded)?);
        }
        whole.extend_from_slice(&new);
        Ok((whole.freeze(), small.into_iter().map(|part| part.blob).collect()))
    }
}

impl Gallery {
    /// Checks that the unfinished uploads of all accounts leave room for `added` more bytes.
    ///
    /// The sum that was read from the store may be 5 s old; bytes of this process are added to it.
    async fn check_sum(&self, added: i64) -> Result<(), ResumeError> {
        let known = *locked(&self.0.appends.stored);
        let sum = match known.filter(|sum| sum.read_at.elapsed() < SUM_AGE) {
            Some(sum) => sum.bytes,
            None => {
                let bytes = self.0.ports.store.unfinished_bytes().await?;
                *locked(&self.0.appends.stored) = Some(StoredSum { bytes, read_at: Instant::now() });
                bytes
            }
        };
        if sum.saturating_add(added) > signed(self.0.options.max_unfinished_bytes) {
            let full = Error::new(ErrorKind::Overloaded, "store upload");
            return Err(full
                .context("the unfinished uploads of all accounts have reached their limit in bytes")
                .into());
        }
        Ok(())
    }

    fn add_to_sum(&self, added: i64) {
        if let Some(sum) = locked(&self.0.appends.stored).as_mut() {
            sum.bytes += added;
        }
    }
}
