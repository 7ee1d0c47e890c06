//! Renders pictures within a memory limit per process: permits count bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use couple_core::{
    Error, ErrorKind, Failure,
    media::{Media, Source},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    Gallery, GalleryOptions, Inner,
    renderer::{PictureHeader, RenderPlan, Renderer},
};
use crate::{
    blobs::Blobs,
    picture::{Limits, Recipe, Rejected, Rendered},
};

/// Counts of pictures rendered by this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of decoded pictures.
    pub rendered: u64,
    /// Number of pictures that could not be decoded.
    pub rejected: u64,
    /// Bytes in use by pictures that are being decoded, at most [`GalleryOptions::with_memory_bytes`].
    pub memory: u64,
}

/// Assumed number of pixels of a picture of unknown size: that of a phone's photo.
const ASSUMED_PIXELS: u64 = 12_000_000;
/// Bytes per pixel that are reserved before the header of a picture is read.
///
/// 1.5 for the planes of the picture, 1.5 for those of the stored copy, and 3 for encoding.
const ASSUMED_BYTES_PER_PIXEL: u64 = 6;
/// Multiple of [`Limits::deadline`] after which a caller stops waiting for an engine that does not keep it.
const CALLER_DEADLINES: u32 = 2;
/// Bytes per permit.
const PERMIT_BYTES: usize = 1 << 10;

/// An engine with permits for memory.
#[derive(Debug)]
pub(super) struct BoundedRenderer {
    engine: Arc<dyn Renderer>,
    permits: Arc<Semaphore>,
    /// Total number of permits.
    total: u32,
    limits: Limits,
    rendered: AtomicU64,
    rejected: AtomicU64,
}

impl BoundedRenderer {
    pub(super) fn new(engine: Arc<dyn Renderer>, options: &GalleryOptions) -> Self {
        let total = u32::try_from(options.memory_bytes / PERMIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self {
            engine,
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
            limits: options.limits.clone(),
            rendered: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    /// Number of permits for `bytes` bytes; at most the total.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total)
    }

    async fn room(&self, permits: u32) -> Result<OwnedSemaphorePermit, Error> {
        let permit = self.permits.clone().acquire_many_owned(permits).await;
        permit.map_err(|closed| internal_error().source(closed))
    }

    /// Calls the engine on a blocking thread, and waits for it at most twice the deadline.
    ///
    /// A blocking thread cannot be cancelled: only the caller stops waiting. The permits that `call` holds are in use until it returns.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Renderer, &Limits) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (engine, limits) = (self.engine.clone(), self.limits.clone());
        let work = tokio::task::spawn_blocking(move || call(&*engine, &limits));
        let deadline = self.limits.deadline().saturating_mul(CALLER_DEADLINES);
        let returned = timeout(deadline, work).await.map_err(|_| {
            Error::new(ErrorKind::TimedOut, "render picture")
                .context("the engine exceeded its deadline; its memory stays reserved until it returns")
        })?;
        returned.map_err(|panicked| internal_error().source(panicked))
    }

    /// Waits for memory, reads the file, and renders it. None: there is no file.
    async fn render(
        &self,
        expected: usize,
        file: (&Blobs, &str),
        recipe: impl Fn(PictureHeader) -> Recipe + Send + 'static,
    ) -> Result<Option<Result<Rendered, Rejected>>, Error> {
        let read = || file.0.read(file.1, self.limits.bytes() as u64);
        let permit = self.room(self.permits(expected)).await?;
        let Some(bytes) = read().await? else { return Ok(None) };
        let planned = self.call(move |engine, limits| {
            let plan = engine.plan(&bytes, &recipe, limits);
            (plan, bytes, permit)
        });
        let (plan, mut bytes, mut permit) = planned.await?;
        let RenderPlan { recipe, memory } = match plan {
            Ok(plan) => plan,
            Err(rejected) => return Ok(Some(Err(rejected))),
        };
        let needed = self.permits(memory.saturating_add(bytes.len()));
        let held = permit.num_permits();
        match held.checked_sub(needed as usize) {
            Some(surplus) => drop(permit.split(surplus)),
            None => {
                // Permit and file are released first: two pictures that hold permits and wait for more would deadlock.
                drop((permit, bytes));
                permit = self.room(needed).await?;
                let Some(again) = read().await? else { return Ok(None) };
                bytes = again;
            }
        }
        let rendered = self.call(move |engine, limits| {
            let _permit = permit;
            let rendered = engine.render(&bytes, &recipe, limits)?;
            // A picture without its images would become ready, and its upload would be deleted.
            let wanted = recipe.renditions.iter().map(|rendition| &rendition.name);
            if wanted.eq(rendered.images.iter().map(|image| &image.name)) {
                Ok(rendered)
            } else {
                Err(Failure::Failed(
                    internal_error().context("the engine returned other images than the recipe names"),
                ))
            }
        });
        match rendered.await? {
            Ok(rendered) => Ok(Some(Ok(rendered))),
            Err(Failure::Refused(rejected)) => Ok(Some(Err(rejected))),
            Err(Failure::Failed(error)) => Err(error),
        }
    }

    pub(super) fn engine(&self) -> &dyn Renderer {
        &*self.engine
    }

    pub(super) fn stats(&self) -> Stats {
        let held = (self.total as usize).saturating_sub(self.permits.available_permits());
        Stats {
            rendered: self.rendered.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            memory: u64::try_from(held.saturating_mul(PERMIT_BYTES)).unwrap_or(u64::MAX),
        }
    }
}

fn internal_error() -> Error {
    Error::new(ErrorKind::Internal, "render picture")
}

impl Gallery {
    /// Reads a blob of a picture and renders it once its memory is available. None: there is no such blob.
    ///
    /// The memory is estimated from the length in bytes and `size` in pixels (0 × 0 if unknown), and then from the header.
    pub(super) async fn render(
        &self,
        media: &Media,
        blob: &Source,
        size: (u32, u32),
        recipe: impl Fn(PictureHeader) -> Recipe + Send + 'static,
    ) -> Result<Option<Result<Rendered, Rejected>>, Error> {
        let Inner { renderer, blobs, .. } = &*self.0;
        let pixels = match u64::from(size.0) * u64::from(size.1) {
            0 => ASSUMED_PIXELS,
            pixels => pixels,
        };
        let expected = pixels
            .saturating_mul(ASSUMED_BYTES_PER_PIXEL)
            .saturating_add(u64::try_from(blob.bytes).unwrap_or(0));
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        let done = renderer.render(expected, (blobs, &media.path(&blob.blob)), recipe).await?;
        let count = match &done {
            None => return Ok(None),
            Some(Ok(_)) => &renderer.rendered,
            Some(Err(_)) => &renderer.rejected,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use couple_core::Error;
    use futures_util::future::try_join_all;
    use peak_alloc::PeakAlloc;

    use super::*;
    use crate::{
        gallery::PictureRenderer,
        picture::{Encoding, Fit, Rendition},
    };

    /// A grey progressive JPEG with one scan, six bits per 16 × 16 pixels.
    ///
    /// Its coefficients take as much memory as those of any progressive JPEG of this size.
    fn progressive(width: u16, height: u16) -> Bytes {
        let ([w1, w0], [h1, h0]) = (width.to_be_bytes(), height.to_be_bytes());
        let mut file = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
        file.extend([1; 64]);
        file.extend([0xFF, 0xC2, 0, 17, 8, h1, h0, w1, w0, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]);
        file.extend([0xFF, 0xC4, 0, 20, 0, 1]);
        file.extend([0; 16]);
        file.extend([0xFF, 0xDA, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 0, 0]);
        let units = usize::from(width).div_ceil(16) * usize::from(height).div_ceil(16);
        file.resize(file.len() + (6 * units).div_ceil(8), 0);
        file.extend([0xFF, 0xD9]);
        file.into()
    }

    /// Counts allocated bytes, which unlike the resident memory exclude memory that the allocator keeps for reuse.
    #[global_allocator]
    static ALLOCATOR: PeakAlloc = PeakAlloc;

    /// Eight concurrent renditions would take 400 MiB.
    ///
    /// A picture that needs more than the total is decoded alone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn concurrent_progressive_pictures_stay_within_the_memory_limit() {
        let blobs = Blobs::memory();
        blobs.put("large", progressive(4000, 3000)).await.unwrap();
        for memory in [64 << 20, 256 << 20] {
            let engine = Arc::new(PictureRenderer);
            let renderer = BoundedRenderer::new(engine, &GalleryOptions::default().with_memory_bytes(memory));
            let recipe = |_| Recipe {
                renditions: vec![Rendition::new("copy", Fit::Readable, 4096, 4096)],
                crop: None,
                encoding: Encoding::JPEG,
            };
            ALLOCATOR.reset_peak_usage();
            let before = ALLOCATOR.current_usage();
            let eight = (0..8).map(|_| async {
                let rendered = renderer.render(1 << 20, (&blobs, "large"), recipe).await?;
                assert!(rendered.unwrap().is_ok());
                Ok::<_, Error>(())
            });
            try_join_all(eight).await.unwrap();
            let taken = ALLOCATOR.peak_usage() - before;
            assert!(taken < memory, "{taken} bytes, more than {memory}");
            assert_eq!(renderer.stats().memory, 0);
        }
    }
}
