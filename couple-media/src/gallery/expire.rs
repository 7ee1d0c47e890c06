//! Renditions that nobody asks for any more.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Error, MediaId,
    job::{Context, Handler, Job, JobError, Schedule},
    media::Rendition,
};
use serde::{Deserialize, Serialize};

use super::Gallery;

/// Renditions that are read at once.
const PAGE: u32 = 100;
/// Of those, the most in one run: the next goes on.
const PAGES: usize = 1_000;
/// Renditions that failed after which a run ends: the cause is then hardly in the renditions.
const MAX_FAILED: usize = 100;

/// Removes renditions that nobody asked for, for long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireRenditions {}

impl Job for ExpireRenditions {
    const NAME: &'static str = "media.expire";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Removes renditions that nobody asked for in [`GalleryOptions::unused`](super::GalleryOptions::unused).
#[derive(Debug, Clone)]
pub struct ExpireRenditionsHandler(pub Gallery);

impl ExpireRenditionsHandler {
    /// How often it runs.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(6), || ExpireRenditions {})
    }
}

#[async_trait]
impl Handler<ExpireRenditions> for ExpireRenditionsHandler {
    async fn run(&self, _: ExpireRenditions, _: &Context) -> Result<(), JobError> {
        let inner = &self.0.0;
        let before = inner.ports.now().minus(inner.options.unused);
        // Renditions that could not be removed stay first in the list, so each page is read so much longer.
        let mut failed: BTreeSet<(MediaId, String, i64)> = BTreeSet::new();
        let mut last_error = None;
        for _ in 0..PAGES {
            let limit = PAGE + u32::try_from(failed.len()).unwrap_or(PAGE);
            let unused = inner.ports.store.unused_renditions(before, limit).await?;
            for (id, rendition) in &unused {
                let key = (*id, rendition.name.clone(), rendition.format.index());
                if failed.contains(&key) {
                    continue;
                }
                if let Err(error) = self.expire(*id, rendition).await {
                    tracing::warn!(%error, media = %id, "could not remove an unused rendition");
                    failed.insert(key);
                    last_error = Some(error);
                }
            }
            if unused.len() < limit as usize || failed.len() >= MAX_FAILED {
                break;
            }
        }
        let Some(error) = last_error else { return Ok(()) };
        let said = format!("{} could not be removed", failed.len());
        Err(JobError::Retry(Error::new(error.kind(), "expire renditions").context(said).source(error)))
    }
}

impl ExpireRenditionsHandler {
    async fn expire(&self, id: MediaId, rendition: &Rendition) -> Result<(), Error> {
        let inner = &self.0.0;
        match inner.ports.store.media(id).await? {
            Some(media) if media.source.is_some() => {
                inner.pictures.forget(&media, vec![rendition.blob.clone()]).await
            }
            // It cannot be made again, because the photo has no kept copy.
            Some(media) => inner.pictures.touch(&media, rendition).await,
            None => Ok(()),
        }
    }
}
