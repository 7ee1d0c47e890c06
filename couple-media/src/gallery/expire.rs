//! Renditions that nobody asks for any more.

use std::time::Duration;

use async_trait::async_trait;
use couple_core::job::{Context, Handler, Job, JobError, Schedule};
use serde::{Deserialize, Serialize};

use super::Gallery;

/// Renditions that are read at once.
const PAGE: u32 = 100;
/// Of those, the most in one run: the next goes on.
const PAGES: usize = 1_000;

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
        for _ in 0..PAGES {
            let unused = inner.ports.store.unused_renditions(before, PAGE).await?;
            for (id, rendition) in &unused {
                match inner.ports.store.media(*id).await? {
                    Some(media) if media.source.is_some() => {
                        inner.pictures.forget(&media, vec![rendition.blob.clone()]).await?;
                    }
                    // There is nothing to make it from again: it is all that is left.
                    Some(media) => inner.pictures.touch(&media, rendition).await?,
                    None => {}
                }
            }
            if unused.len() < PAGE as usize {
                break;
            }
        }
        Ok(())
    }
}
