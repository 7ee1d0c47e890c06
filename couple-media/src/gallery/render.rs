//! Decoding, within a process's memory: permits in megapixels, threads that may be busy.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use couple_core::{Error, ErrorKind, media::Media};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Gallery, GalleryOptions, Inner};
use crate::picture::{self, Encoding, Info, Limits, Recipe, Rejected, Rendered};

/// What a process made so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pictures that were decoded.
    pub rendered: u64,
    /// Pictures that could not be.
    pub rejected: u64,
    /// Millions of pixels that are being decoded, or for which the memory is set aside.
    pub megapixels: u64,
}

/// Megapixels of a picture whose headers did not say: what phones take.
const UNKNOWN: u32 = 12;

#[derive(Debug)]
pub(super) struct Renderer {
    permits: Arc<Semaphore>,
    most: u32,
    limits: Limits,
    rendered: AtomicU64,
    rejected: AtomicU64,
}

impl Renderer {
    pub(super) fn new(options: &GalleryOptions) -> Self {
        let most = options.megapixels.max(1);
        Self {
            permits: Arc::new(Semaphore::new(most as usize)),
            most,
            limits: options.limits.clone(),
            rendered: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        }
    }

    async fn room(&self, megapixels: u32) -> Result<OwnedSemaphorePermit, Error> {
        let permit = self.permits.clone().acquire_many_owned(megapixels.clamp(1, self.most)).await;
        permit.map_err(|closed| wrong().source(closed))
    }

    /// Waits for room, reads, and renders on a thread of its own. None: there is nothing to read.
    async fn render(
        &self,
        expected: u32,
        read: impl Future<Output = Result<Option<Bytes>, Error>>,
        recipe: impl FnOnce(&Info) -> Recipe,
    ) -> Result<Option<Result<Rendered, Rejected>>, Error> {
        let mut permit = self.room(expected).await?;
        let Some(bytes) = read.await? else { return Ok(None) };
        let info = match picture::inspect(&bytes, &self.limits) {
            Ok(info) => info,
            Err(rejected) => return Ok(Some(Err(rejected))),
        };
        let recipe = recipe(&info);
        // An animation holds its canvas, a frame and the frame before beside what one picture takes.
        let pictures =
            if matches!(recipe.encoding, Encoding::AnimatedWebP { .. }) && info.frames > 1 { 2 } else { 1 };
        let needed = (pictures * info.megapixels()).clamp(1, self.most);
        if usize::try_from(needed).is_ok_and(|needed| needed > permit.num_permits()) {
            // Let go of first: two that hold some and wait for more would wait for ever.
            drop(permit);
            permit = self.room(needed).await?;
        }
        let limits = self.limits.clone();
        let work = tokio::task::spawn_blocking(move || {
            // Held by the thread: whoever waits for it may go, its memory does not.
            let _permit = permit;
            picture::render(&bytes, &recipe, &limits)
        });
        Ok(Some(work.await.map_err(|panicked| wrong().source(panicked))?))
    }

    pub(super) fn stats(&self) -> Stats {
        let free = u64::try_from(self.permits.available_permits()).unwrap_or(0);
        Stats {
            rendered: self.rendered.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            megapixels: u64::from(self.most).saturating_sub(free),
        }
    }
}

fn wrong() -> Error {
    Error::new(ErrorKind::Internal, "render picture")
}

impl Gallery {
    /// Reads one of a picture's blobs and renders it, once there is room for as many pixels as it has by `size`; 0 × 0 where that is
    /// not known. None: it is not there.
    pub(super) async fn render(
        &self,
        media: &Media,
        blob: &str,
        size: (u32, u32),
        recipe: impl FnOnce(&Info) -> Recipe,
    ) -> Result<Option<Result<Rendered, Rejected>>, Error> {
        let Inner { renderer, blobs, options, .. } = &*self.0;
        let expected = match u64::from(size.0) * u64::from(size.1) {
            0 => UNKNOWN,
            pixels => u32::try_from(pixels.div_ceil(1_000_000)).unwrap_or(u32::MAX),
        };
        let path = media.path(blob);
        let done = renderer.render(expected, blobs.read(&path, options.limits.bytes as u64), recipe).await?;
        let count = match &done {
            None => return Ok(None),
            Some(Ok(_)) => &renderer.rendered,
            Some(Err(_)) => &renderer.rejected,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }
}
