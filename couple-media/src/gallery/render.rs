//! Decoding, within a process's memory: permits in megapixels, threads that may be busy.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use couple_core::{Error, ErrorKind};
use tokio::sync::Semaphore;

use super::GalleryOptions;
use crate::picture::{self, Limits, Recipe, Rejected, Rendered};

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

    /// Waits for room, and renders on a thread of its own.
    pub(super) async fn render(
        &self,
        bytes: Bytes,
        recipe: Recipe,
    ) -> Result<Result<Rendered, Rejected>, Error> {
        let done = self.try_render(bytes, recipe).await?;
        let count = if done.is_ok() { &self.rendered } else { &self.rejected };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    async fn try_render(&self, bytes: Bytes, recipe: Recipe) -> Result<Result<Rendered, Rejected>, Error> {
        let wrong = || Error::new(ErrorKind::Internal, "render picture");
        let needed = match picture::inspect(&bytes, &self.limits) {
            Ok(info) => info.megapixels().clamp(1, self.most),
            Err(rejected) => return Ok(Err(rejected)),
        };
        let permit = self.permits.clone().acquire_many_owned(needed).await;
        let permit = permit.map_err(|closed| wrong().source(closed))?;
        let limits = self.limits.clone();
        let work = tokio::task::spawn_blocking(move || {
            // Held by the thread: whoever waits for it may go, its memory does not.
            let _permit = permit;
            picture::render(&bytes, &recipe, &limits)
        });
        work.await.map_err(|panicked| wrong().source(panicked))
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
