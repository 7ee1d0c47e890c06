//! Object store in memory with faults.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use couple_media::blobs::Blobs;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    memory::InMemory, path::Path,
};

use crate::planted;

/// Length of the pieces that a fault reads one by one.
const PIECE: u32 = 1 << 20;

/// Creates an empty store.
pub(crate) struct FaultyBlobs;

impl FaultyBlobs {
    pub(crate) fn open() -> Blobs {
        Blobs::over(Objects::default())
    }
}

#[derive(Debug, Clone, Default)]
struct Objects {
    objects: Arc<InMemory>,
    /// First listed state of each object, for a fault.
    listed: Arc<Mutex<HashMap<Path, ObjectMeta>>>,
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty objects in memory")
    }
}

impl Objects {
    fn listed(&self, meta: ObjectMeta) -> ObjectMeta {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let first = listed.entry(meta.location.clone()).or_insert_with(|| meta.clone()).last_modified;
        if planted("blobs-list-has-the-time-of-the-first-write") {
            return ObjectMeta { last_modified: first, ..meta };
        }
        if planted("blobs-list-has-the-time-of-the-list") {
            let now = UNIX_EPOCH + UNIX_EPOCH.elapsed().unwrap_or_default();
            return ObjectMeta { last_modified: now.into(), ..meta };
        }
        meta
    }
}

#[async_trait]
impl ObjectStore for Objects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mut bytes = Vec::from(bytes::Bytes::from(payload));
        if planted("blobs-put-keeps-a-tail")
            && let Ok(before) = self.objects.get(location).await
        {
            let before = before.bytes().await?;
            bytes.extend_from_slice(before.get(bytes.len()..).unwrap_or_default());
        }
        self.objects.put_opts(location, bytes.into(), options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_whole = options.range.is_none() && !options.head;
        let mut got = self.objects.get_opts(location, options).await?;
        if is_whole && planted("blobs-read-follows-writes") {
            // Each piece is read when it is needed.
            let (objects, location, size) = (self.objects.clone(), location.clone(), got.meta.size);
            let pieces = stream::iter((0..size).step_by(PIECE as usize)).then(move |at| {
                let (objects, location) = (objects.clone(), location.clone());
                async move { objects.get_range(&location, at..size.min(at + u64::from(PIECE))).await }
            });
            got.payload = GetResultPayload::Stream(pieces.boxed());
        }
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        self.objects.list(prefix).map(move |meta| meta.map(|meta| this.listed(meta))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
