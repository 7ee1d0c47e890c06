//! Order between rows and blobs: what died between the two is found here.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Error, MediaId, Timestamp,
    job::{Context, Handler, Job, JobError, Schedule},
    media::{Media, Space, State},
};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::Gallery;

/// Spaces and pictures that are read at once.
const PAGE: u32 = 100;

/// How a sweep is made.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// What is younger is left alone: it may be under way. More than a day, for which a picture may wait to be decoded.
    pub grace: Duration,
    /// The most things of each kind that are mended: a mistake must not take everything.
    pub cap: usize,
    /// Only looks.
    pub dry_run: bool,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { grace: Duration::from_hours(48), cap: 1_000, dry_run: false }
    }
}

/// What a sweep found and, unless it only looked, mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that no row names, uploads that were begun and expired among them: deleted.
    pub orphans: Vec<String>,
    /// Pictures and those of their blobs that are not there: forgotten. A rendition is made again when it is asked for.
    pub lost: Vec<(MediaId, Vec<String>)>,
    /// Pictures that nobody decodes any more: rejected.
    pub stuck: Vec<MediaId>,
    /// Blobs that were begun and came to no end: removed. Not looked for by a dry run.
    pub unfinished: u64,
}

impl Gallery {
    /// Compares rows and blobs, and mends what does not fit.
    ///
    /// # Errors
    /// Those of store and blobs. What was mended until then stays so.
    pub async fn sweep(&self, how: Sweep) -> Result<Swept, Error> {
        let before = self.0.ports.now().minus(how.grace);
        let mut swept = Swept { orphans: self.orphans(before, how.cap).await?, ..Swept::default() };
        self.look_at_rows(before, how.cap, &mut swept).await?;
        if how.dry_run {
            return Ok(swept);
        }
        for name in &swept.orphans {
            self.0.blobs.delete(name).await?;
        }
        for (id, blobs) in &swept.lost {
            if let Some(media) = self.0.ports.store.media(*id).await? {
                self.0.pictures.forget(&media, blobs.clone()).await?;
            }
        }
        for id in &swept.stuck {
            self.0.pictures.reject(*id, "unavailable").await?;
        }
        swept.unfinished = self.0.blobs.remove_unfinished(before).await?;
        Ok(swept)
    }

    /// Up to `cap` blobs from before `before` that no row names.
    async fn orphans(&self, before: Timestamp, cap: usize) -> Result<Vec<String>, Error> {
        let mut orphans = Vec::new();
        let mut listed = self.0.blobs.list("");
        // Blobs of a folder mostly come one after another.
        let mut known: (String, BTreeSet<String>) = Default::default();
        while orphans.len() < cap
            && let Some(blob) = listed.try_next().await?
        {
            if blob.modified >= before || !is_ours(&blob.name) {
                continue;
            }
            let Some((folder, name)) = blob.name.rsplit_once('/') else { continue };
            if known.0 != folder {
                known = (folder.to_owned(), self.named_in(folder).await?);
            }
            if !known.1.contains(name) {
                orphans.push(blob.name);
            }
        }
        Ok(orphans)
    }

    /// The blobs of a folder that its picture names.
    async fn named_in(&self, folder: &str) -> Result<BTreeSet<String>, Error> {
        let id = folder.rsplit('/').next().and_then(|name| name.get(..36)?.parse::<MediaId>().ok());
        let store = &self.0.ports.store;
        match id {
            Some(id) => {
                match store.media(id).await?.filter(|media| media.folder().trim_end_matches('/') == folder) {
                    Some(media) => self.named(&media).await,
                    None => Ok(BTreeSet::new()),
                }
            }
            None => Ok(BTreeSet::new()),
        }
    }

    async fn named(&self, media: &Media) -> Result<BTreeSet<String>, Error> {
        let renditions = self.0.ports.store.renditions(media.space, media.id).await?;
        let source = media.source.as_ref().map(|source| source.blob.clone());
        Ok(renditions.into_iter().map(|rendition| rendition.blob).chain(source).collect())
    }

    /// Finds rows from before `before` whose blobs are lost, and pictures that nobody decodes any more.
    async fn look_at_rows(&self, before: Timestamp, cap: usize, swept: &mut Swept) -> Result<(), Error> {
        let store = &self.0.ports.store;
        let mut space = None;
        loop {
            let spaces = store.media_spaces(space, PAGE).await?;
            for one in &spaces {
                self.look_at_space(*one, before, cap, swept).await?;
                if swept.lost.len() >= cap || swept.stuck.len() >= cap {
                    return Ok(());
                }
            }
            space = spaces.last().copied();
            if spaces.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    async fn look_at_space(
        &self,
        space: Space,
        before: Timestamp,
        cap: usize,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.0.ports.store.media_in(space, after, PAGE).await?;
            for media in &page {
                if media.created_at >= before || swept.lost.len() >= cap || swept.stuck.len() >= cap {
                    continue;
                }
                if media.state == State::Processing {
                    swept.stuck.push(media.id);
                    continue;
                }
                // Rows first: a blob is there before its row, so one without was lost, not made meanwhile.
                let named = self.named(media).await?;
                if named.is_empty() {
                    continue;
                }
                let folder = media.folder();
                let listed = self.0.blobs.list(folder.trim_end_matches('/'));
                let there: BTreeSet<String> = listed
                    .map_ok(|blob| blob.name.trim_start_matches(&folder).to_owned())
                    .try_collect()
                    .await?;
                let lost: Vec<String> = named.difference(&there).cloned().collect();
                if !lost.is_empty() {
                    swept.lost.push((media.id, lost));
                }
            }
            after = page.last().map(|media| media.id);
            if page.len() < PAGE as usize {
                return Ok(());
            }
        }
    }
}

/// Whether it lies in the folder of a space: a letter and an id. What a host keeps beside our blobs is not touched.
fn is_ours(name: &str) -> bool {
    let mut folders = name.split('/');
    folders.next().is_some_and(|kind| kind.len() == 1)
        && folders.next().is_some_and(|space| space.len() == 36 && space.parse::<MediaId>().is_ok())
}

/// Compares rows and blobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepBlobs {}

impl Job for SweepBlobs {
    const NAME: &'static str = "media.sweep";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Sweeps as [`Sweep`] has it by default.
#[derive(Debug, Clone)]
pub struct SweepBlobsHandler(pub Gallery);

impl SweepBlobsHandler {
    /// How often it runs.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(24), || SweepBlobs {})
    }
}

#[async_trait]
impl Handler<SweepBlobs> for SweepBlobsHandler {
    async fn run(&self, _: SweepBlobs, _: &Context) -> Result<(), JobError> {
        let swept = self.0.sweep(Sweep::default()).await?;
        if swept != Swept::default() {
            let (orphans, lost, stuck) = (swept.orphans.len(), swept.lost.len(), swept.stuck.len());
            tracing::info!(orphans, stuck, unfinished = swept.unfinished, "swept");
            if lost > 0 {
                tracing::error!(lost, "blobs of pictures are not there");
            }
        }
        Ok(())
    }
}
