//! Order between rows and blobs: what died between the two is found here.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind, MediaId, Timestamp,
    job::{Context, Handler, Job, JobError, Schedule},
    media::{Media, Purpose, Space, State},
};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Gallery;

/// Spaces and pictures that are read at once.
const PAGE: u32 = 100;
/// Pictures that are looked at before they are mended: enough to tell a place that is away from one that lost something.
const ROUND: usize = 1_000;
/// The blob that says where the next sweep goes on; not there: at the beginning.
const CURSOR: &str = "sweep";

/// How a sweep is made.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// What is younger is left alone: it may be under way. More than a day, for which a picture may wait to be decoded.
    pub grace: Duration,
    /// The most things of each kind that are mended: a mistake must not take everything.
    pub cap: usize,
    /// How long rows are looked at. The next sweep goes on from there. Default: 5 min, half of a job's time.
    pub time: Duration,
    /// Only looks: at all rows, or as many as the time allows.
    pub dry_run: bool,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { grace: Duration::from_hours(48), cap: 1_000, time: Duration::from_mins(5), dry_run: false }
    }
}

/// What a sweep found and, unless it only looked, mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that are called as ours are and that no row names, uploads that were begun and expired among them: deleted.
    pub orphans: Vec<String>,
    /// Pictures and those of their blobs that are not there: forgotten. A rendition is made again when it is asked for.
    pub lost: Vec<(MediaId, Vec<String>)>,
    /// Pictures that nobody decodes any more: rejected.
    pub stuck: Vec<MediaId>,
    /// Photos that no entry names for [`GalleryOptions::unposted`](super::GalleryOptions::unposted): deleted.
    pub unposted: Vec<MediaId>,
    /// Blobs that were begun and came to no end: removed. Not looked for by a dry run.
    pub unfinished: u64,
}

impl Swept {
    fn is_full(&self, cap: usize) -> bool {
        [self.lost.len(), self.stuck.len(), self.unposted.len()].iter().any(|&found| found >= cap)
    }
    fn take(&mut self, round: Self) {
        self.lost.extend(round.lost);
        self.stuck.extend(round.stuck);
        self.unposted.extend(round.unposted);
    }
}

impl Gallery {
    /// Compares rows and blobs, and mends what does not fit.
    ///
    /// # Errors
    /// Those of store and blobs; what was mended until then stays so. [`ErrorKind::Unavailable`] when most pictures miss blobs: then
    /// they are not where they should be, and no row is touched.
    pub async fn sweep(&self, how: Sweep) -> Result<Swept, Error> {
        let before = self.0.ports.now().minus(how.grace);
        let mut swept = Swept { orphans: self.orphans(before, how.cap).await?, ..Swept::default() };
        if !how.dry_run {
            // At once: the rows may be so many that the job's time is over before they are all looked at.
            for name in &swept.orphans {
                self.0.blobs.delete(name).await?;
            }
        }
        self.sweep_rows(how, before, &mut swept).await?;
        if !how.dry_run {
            let ours = |name: &str| name.rsplit_once('/').is_some_and(|(folder, _)| is_ours(folder));
            swept.unfinished = self.0.blobs.remove_unfinished(before, ours).await?;
        }
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
            if blob.modified >= before {
                continue;
            }
            // What others keep beside them is theirs.
            let Some((folder, name)) = blob.name.rsplit_once('/').filter(|(folder, _)| is_ours(folder))
            else {
                continue;
            };
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

    /// Looks at the rows of one space after the other, from where the last sweep ended, and mends them in rounds.
    async fn sweep_rows(&self, how: Sweep, before: Timestamp, swept: &mut Swept) -> Result<(), Error> {
        let began = if how.dry_run { None } else { self.cursor().await? };
        let (mut space, until) = (began, Instant::now() + how.time);
        let mut ended = false;
        while !ended && !swept.is_full(how.cap) && Instant::now() < until {
            let (mut round, mut looked) = (Swept::default(), 0);
            'round: while looked < ROUND && Instant::now() < until {
                let spaces = self.0.ports.store.media_spaces(space, PAGE).await?;
                for one in &spaces {
                    looked += self.look_at_space(*one, before, how.cap, &mut round).await?;
                    if round.is_full(how.cap) {
                        // The next sweep begins with what is left of it.
                        break 'round;
                    }
                    space = Some(*one);
                }
                if spaces.len() < PAGE as usize {
                    ended = true;
                    break;
                }
            }
            if !how.dry_run {
                self.mend(&round, looked).await?;
                // Where there is no more, the next begins anew.
                let next = space.filter(|_| !ended);
                if began.is_some() || next.is_some() {
                    self.keep_cursor(next).await?;
                }
            }
            swept.take(round);
        }
        Ok(())
    }

    async fn mend(&self, round: &Swept, looked: usize) -> Result<(), Error> {
        // A place that is not mounted, or another one's, looks like one that lost everything.
        if round.lost.len() > 1 && round.lost.len() * 2 > looked {
            let what =
                format!("{} of {looked} pictures miss blobs: is this where they are kept?", round.lost.len());
            return Err(Error::new(ErrorKind::Unavailable, "sweep blobs").context(what));
        }
        for (id, blobs) in &round.lost {
            if let Some(media) = self.0.ports.store.media(*id).await? {
                self.0.pictures.forget(&media, blobs.clone()).await?;
            }
        }
        for id in &round.stuck {
            self.0.pictures.reject(*id, "unavailable").await?;
        }
        for id in &round.unposted {
            if let Some(media) = self.0.ports.store.media(*id).await?.filter(|media| media.uses == 0) {
                self.0.pictures.expire(&media).await?;
            }
        }
        Ok(())
    }

    /// The last space that was looked at. Kept beside the pictures, where every process finds it.
    async fn cursor(&self) -> Result<Option<Space>, Error> {
        let Some(text) = self.0.blobs.read(CURSOR, 100).await? else { return Ok(None) };
        let text = std::str::from_utf8(&text).ok().and_then(|text| text.split_once(' '));
        Ok(text.and_then(|(kind, id)| {
            Space::from_stored(kind.parse().ok()?, id.parse::<MediaId>().ok()?.as_uuid())
        }))
    }

    async fn keep_cursor(&self, space: Option<Space>) -> Result<(), Error> {
        match space {
            None => self.0.blobs.delete(CURSOR).await,
            Some(space) => {
                let text = format!("{} {}", space.kind(), MediaId::from_uuid(space.as_uuid()));
                self.0.blobs.put(CURSOR, text.into()).await
            }
        }
    }

    async fn look_at_space(
        &self,
        space: Space,
        before: Timestamp,
        cap: usize,
        swept: &mut Swept,
    ) -> Result<usize, Error> {
        let unposted = self.0.options.unposted.map(|age| self.0.ports.now().minus(age));
        let (mut after, mut looked) = (None, 0);
        loop {
            let page = self.0.ports.store.media_in(space, after, PAGE).await?;
            for media in &page {
                if media.created_at >= before || swept.is_full(cap) {
                    continue;
                }
                if media.state == State::Processing {
                    swept.stuck.push(media.id);
                    continue;
                }
                if media.purpose == Purpose::Photo
                    && media.uses == 0
                    && unposted.is_some_and(|before| media.created_at < before)
                {
                    swept.unposted.push(media.id);
                    continue;
                }
                // Rows first: a blob is there before its row, so one without was lost, not made meanwhile.
                let named = self.named(media).await?;
                if named.is_empty() {
                    continue;
                }
                looked += 1;
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
                return Ok(looked);
            }
        }
    }
}

/// Whether it is called as [`Media::folder`] calls folders, `{c|a}/{space}/{picture}-{key}`, or as those of uploads that resume are,
/// `t/{account}/{key}`.
fn is_ours(folder: &str) -> bool {
    let parts: Vec<_> = folder.split('/').collect();
    match parts[..] {
        ["a" | "c", space, picture] => {
            let (id, key) = picture.split_at_checked(36).unwrap_or_default();
            is_id(space) && is_id(id) && key.strip_prefix('-').is_some_and(is_key)
        }
        ["t", account, key] => is_id(account) && is_key(key),
        _ => false,
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

fn is_id(text: &str) -> bool {
    text.parse::<MediaId>().is_ok()
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
            let unposted = swept.unposted.len();
            tracing::info!(orphans, stuck, unposted, unfinished = swept.unfinished, "swept");
            if lost > 0 {
                tracing::error!(lost, "blobs of pictures are not there");
            }
        }
        Ok(())
    }
}
