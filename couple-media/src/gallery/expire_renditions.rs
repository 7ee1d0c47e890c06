//! Job that removes unused renditions.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Error, MediaId,
    job::{Context, Handler, Job, JobError, Schedule},
    media::Rendition,
};
use serde::{Deserialize, Serialize};

use super::Gallery;

/// Renditions per page.
const MAX_ROWS_PER_READ: u32 = 100;
/// Maximum number of pages per run; the next run continues.
const MAX_READS_PER_RUN: usize = 1_000;
/// Number of failed removals after which a run ends: so many point to a failing blob store.
const MAX_FAILED: usize = 100;

/// Removes renditions that were not requested for a long time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireRenditions {}

impl Job for ExpireRenditions {
    const NAME: &'static str = "media.expire";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler of [`ExpireRenditions`]: deletes renditions of photos that were not requested for long.
///
/// [`GalleryOptions::with_unused_rendition_lifetime`](super::GalleryOptions::with_unused_rendition_lifetime) sets the time.
#[derive(Debug, Clone)]
pub struct ExpireRenditionsHandler(pub Gallery);

impl ExpireRenditionsHandler {
    /// Schedule of the job: every 6 hours.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(6), || ExpireRenditions {})
    }
}

#[async_trait]
impl Handler<ExpireRenditions> for ExpireRenditionsHandler {
    async fn run(&self, _: ExpireRenditions, _: &Context) -> Result<(), JobError> {
        let inner = &self.0.0;
        let before = inner.ports.now().minus(inner.options.unused_rendition_lifetime);
        // Renditions that could not be removed stay first in the list, so each page is read longer by their number.
        let mut failed: BTreeSet<(MediaId, String, i64)> = BTreeSet::new();
        let mut last_error = None;
        for _ in 0..MAX_READS_PER_RUN {
            let limit = MAX_ROWS_PER_READ + u32::try_from(failed.len()).unwrap_or(MAX_ROWS_PER_READ);
            let unused = inner.ports.store.unused_renditions(before, limit).await?;
            for (id, rendition) in &unused {
                let key = (*id, rendition.name.clone(), rendition.format.index());
                if failed.contains(&key) {
                    continue;
                }
                if let Err(error) = self.expire(*id, rendition).await {
                    tracing::warn!(%error, media = %id, "cannot remove an unused rendition");
                    failed.insert(key);
                    last_error = Some(error);
                }
            }
            if unused.len() < limit as usize || failed.len() >= MAX_FAILED {
                break;
            }
        }
        let Some(error) = last_error else { return Ok(()) };
        let message = format!("cannot remove {} unused renditions", failed.len());
        Err(JobError::Retry(Error::new(error.kind(), "expire renditions").context(message).source(error)))
    }
}

impl ExpireRenditionsHandler {
    async fn expire(&self, id: MediaId, rendition: &Rendition) -> Result<(), Error> {
        let inner = &self.0.0;
        match inner.ports.store.media(id).await? {
            Some(media) if media.source.is_some() => {
                inner.pictures.forget(&media, vec![rendition.blob.clone()]).await
            }
            // It cannot be made again, because the photo has no stored copy.
            Some(media) => inner.pictures.touch(&media, rendition).await,
            None => Ok(()),
        }
    }
}
