//! Faults in reads, commits and blobs, injected at a chosen step.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use couple::{Error, ErrorKind};
use futures_util::{StreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};
use tokio::sync::Notify;

use crate::observed_store::StoreObserver;

/// Fault of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No fault.
    Well,
    /// The process dies at this step, before or after the operation took effect.
    Dies(u64),
    /// Blobs are unavailable for some steps from this one on.
    Away(u64),
    /// The disk of the blobs is full for some steps from this one on.
    Full(u64),
    /// The disk of the store is full at this commit.
    Refused(u64),
    /// This commit takes effect, but its result is lost.
    Unheard(u64),
}

/// Number of steps that an outage lasts.
const LASTS: u64 = 4;

/// Counts steps, and injects the fault.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    kind: Kind,
    /// Steps of store and blobs, each before and after the operation.
    all: AtomicU64,
    /// Steps of blobs.
    blobs: AtomicU64,
    commits: AtomicU64,
    pub(crate) died: Notify,
}

impl FaultPlan {
    pub(crate) fn new(kind: Kind) -> Arc<Self> {
        let [all, blobs, commits] = [0; 3].map(AtomicU64::new);
        Arc::new(Self { kind, all, blobs, commits, died: Notify::new() })
    }
    /// Number of steps so far: in total, of blobs, and commits.
    pub(crate) fn steps(&self) -> [u64; 3] {
        [&self.all, &self.blobs, &self.commits].map(|steps| steps.load(Ordering::SeqCst))
    }

    async fn step(&self) {
        let step = self.all.fetch_add(1, Ordering::SeqCst);
        if let Kind::Dies(at) = self.kind
            && step >= at
        {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Checks whether blobs are available at this step.
    fn blobs_answer(&self) -> Result<()> {
        let step = self.blobs.fetch_add(1, Ordering::SeqCst);
        let (from, kind) = match self.kind {
            Kind::Away(from) => (from, std::io::ErrorKind::ConnectionRefused),
            Kind::Full(from) => (from, std::io::ErrorKind::StorageFull),
            Kind::Well | Kind::Dies(_) | Kind::Refused(_) | Kind::Unheard(_) => return Ok(()),
        };
        if (from..from + LASTS).contains(&step) {
            return Err(object_store::Error::Generic {
                store: "step faults",
                source: std::io::Error::from(kind).into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl StoreObserver for FaultPlan {
    async fn before(&self, _: &'static str) {
        self.step().await;
    }
    async fn after(&self, _: &'static str) {
        self.step().await;
    }
    fn commit_fails(&self, took_effect: bool) -> Option<Error> {
        let commit = match took_effect {
            false => self.commits.fetch_add(1, Ordering::SeqCst),
            true => self.commits.load(Ordering::SeqCst) - 1,
        };
        match self.kind {
            Kind::Refused(at) if at == commit && !took_effect => Some(Error::new(ErrorKind::Full, "commit")),
            Kind::Unheard(at) if at == commit && took_effect => {
                Some(Error::new(ErrorKind::TimedOut, "commit"))
            }
            _ => None,
        }
    }
}

/// Blobs in memory, with injected faults.
#[derive(Debug, Clone)]
pub(crate) struct FaultyBlobs(pub(crate) Arc<InMemory>, pub(crate) Arc<FaultPlan>);

impl fmt::Display for FaultyBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blobs with injected faults")
    }
}

impl FaultyBlobs {
    async fn through<T>(&self, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.1.step().await;
        self.1.blobs_answer()?;
        let done = work.await;
        self.1.step().await;
        done
    }
}

#[async_trait]
impl ObjectStore for FaultyBlobs {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.through(self.0.put_opts(to, bytes, options)).await
    }
    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.through(self.0.put_multipart_opts(to, options)).await
    }
    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.through(self.0.get_opts(from, options)).await
    }
    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.through(self.0.get_ranges(from, ranges)).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let all = self.clone();
        let delete = move |path: Result<Path>| {
            let all = all.clone();
            async move {
                let path = path?;
                all.through(all.0.delete(&path)).await?;
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }
    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (all, listed) = (self.clone(), self.0.list(folder));
        let begun = futures_util::stream::once(async move { all.through(async { Ok(()) }).await });
        let mut listed = Some(listed);
        begun
            .flat_map(move |begun| match begun {
                Ok(()) => listed.take().unwrap_or_else(|| futures_util::stream::empty().boxed()),
                Err(error) => futures_util::stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }
    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        self.through(self.0.list_with_delimiter(folder)).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.through(self.0.copy_opts(from, to, options)).await
    }
}
