//! Sweep: compares rows and blobs, and repairs differences that a crash left.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind, MediaId, Timestamp,
    job::{Context, Handler, Job, JobError, Schedule},
    media::{Media, MediaState, Purpose, Space},
};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Gallery;

/// Spaces and pictures per page.
const MAX_ROWS_PER_READ: u32 = 100;
/// Number of pictures that are checked before a round repairs rows.
///
/// It is large enough to distinguish an unmounted or wrong blob store from one that lost some blobs.
const MAX_BLOBS_PER_ROUND: usize = 1_000;
/// Blob that holds the position of the last sweep of rows.
///
/// If it does not exist, the sweep starts at the beginning.
const CURSOR_NAME: &str = "sweep";
/// Blob that holds the name of the last checked blob.
///
/// If it does not exist, the sweep starts at the beginning.
const BLOB_CURSOR: &str = "sweep-blobs";
/// Blobs that are listed, and deleted, together.
const BLOB_PAGE: usize = 1_000;

/// Options of a sweep.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// Minimum age: younger rows and blobs may still be in progress.
    ///
    /// More than a day, for which a picture may wait to be decoded.
    pub grace: Duration,
    /// Maximum number of repairs of each kind, so that a fault does not delete everything.
    ///
    /// Up to 100 times as many blobs without a row are deleted, as long as at least half of the checked pictures have a row.
    pub cap: usize,
    /// Time for checking rows, from the position of the last sweep.
    ///
    /// Default: 5 min, which leaves the job time for repairs.
    ///
    /// Blobs are checked before that, for half as long.
    pub time: Duration,
    /// Only checks: from the beginning, as far as the time allows.
    pub dry_run: bool,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { grace: Duration::from_hours(48), cap: 1_000, time: Duration::from_mins(5), dry_run: false }
    }
}

/// Findings of a sweep, repaired unless it was a dry run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs of pictures that no row names: deleted.
    pub orphans: Vec<String>,
    /// Number of blobs of resumable uploads that ended long ago: deleted.
    pub upload_parts: u64,
    /// Pictures, and those of their blobs that are missing: removed from the row.
    ///
    /// A rendition is made again at the next request.
    pub lost: Vec<(MediaId, Vec<String>)>,
    /// Pictures that are still not decoded after [`Sweep::grace`]: rejected.
    pub stuck: Vec<MediaId>,
    /// Photos that no entry has named for a long time: deleted.
    ///
    /// See [`GalleryOptions::with_unposted_photo_lifetime`](super::GalleryOptions::with_unposted_photo_lifetime).
    pub unposted: Vec<MediaId>,
    /// Number of unfinished blobs: removed. A dry run does not look for them.
    pub unfinished: u64,
}

/// Position of a sweep of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    space: Space,
    /// Last checked picture of the space, if there may be more.
    picture: Option<MediaId>,
}

/// Limits of a sweep of rows.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    before: Timestamp,
    unposted: Option<Timestamp>,
    cap: usize,
    until: Instant,
}

/// Findings that are repaired together.
#[derive(Debug, Default)]
struct Round {
    found: SweepReport,
    /// Number of pictures whose blobs were checked.
    looked: usize,
}

impl Round {
    /// Removes lost blobs from the findings if most pictures lost some.
    ///
    /// The store is then probably unmounted, or the wrong one.
    fn take_suspicious(&mut self) -> Option<Error> {
        let (lost, looked) = (self.found.lost.len(), self.looked);
        if lost < 2 || lost * 2 <= looked {
            return None;
        }
        self.found.lost.clear();
        let message = format!(
            "{lost} of {looked} checked pictures miss blobs; check that the blob store is mounted and is the right one"
        );
        Some(Error::new(ErrorKind::Unavailable, "sweep blobs").context(message))
    }
}

/// Folders of pictures whose blobs were checked. Blobs of one folder are mostly listed in sequence.
#[derive(Debug, Default)]
struct Folders {
    last: String,
    /// Blobs that the row of the picture with the folder `last` names.
    named: BTreeSet<String>,
    looked_at: usize,
    /// Number of folders without a row, or whose row names no blob.
    unnamed: usize,
}

impl Folders {
    /// Whether the number of blobs without a row is so high that an operator must check the database first.
    ///
    /// An old database, or that of another installation, names few blobs.
    const fn are_suspicious(&self, orphans: usize, cap: usize) -> bool {
        orphans >= cap && (self.unnamed * 2 > self.looked_at || orphans >= cap.saturating_mul(100))
    }
}

impl SweepReport {
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
    /// Compares rows and blobs, and repairs differences.
    ///
    /// # Errors
    /// The errors of store and blobs; repairs before the error stay. [`ErrorKind::Unavailable`] if most of many pictures miss blobs: the
    /// blob store is probably the wrong one, so their rows are not changed; everything else was swept.
    pub async fn sweep(&self, how: Sweep) -> Result<SweepReport, Error> {
        let before = self.0.ports.now().minus(how.grace);
        let mut report = SweepReport::default();
        self.sweep_blobs(how, before, &mut report).await?;
        let suspicious = self.sweep_rows(how, before, &mut report).await?;
        if !how.dry_run {
            let of_picture =
                |name: &str| name.rsplit_once('/').is_some_and(|(folder, _)| is_media_folder(folder));
            let ours = move |name: &str| is_upload_part(name) || of_picture(name);
            report.unfinished = self.0.blobs.remove_unfinished(before, ours).await?;
        }
        suspicious.map_or(Ok(report), Err)
    }

    /// Deletes blobs from before `before` that no row names, page by page.
    ///
    /// It continues from the position of the last sweep. A dry run only checks, from the beginning.
    async fn sweep_blobs(
        &self,
        how: Sweep,
        before: Timestamp,
        report: &mut SweepReport,
    ) -> Result<(), Error> {
        let until = Instant::now() + how.time / 2;
        let blobs = &self.0.blobs;
        let from = if how.dry_run { None } else { blobs.read(BLOB_CURSOR, 1_000).await? };
        let mut cursor_stored = from.is_some();
        let mut after = from.and_then(|name| String::from_utf8(name.into()).ok());
        let mut folders = Folders::default();
        loop {
            let page = blobs.page(after.as_deref(), BLOB_PAGE).await?;
            let (mut remove, mut full) = (Vec::new(), false);
            for blob in &page {
                if folders.are_suspicious(report.orphans.len(), how.cap) {
                    full = true;
                    break;
                }
                if is_upload_part(&blob.name) {
                    // Rows are not read: an upload has ended long before that age.
                    if blob.modified < before.min(self.0.ports.now().minus(Self::UPLOAD_LIFETIME * 2)) {
                        report.upload_parts += 1;
                        remove.push(blob.name.clone());
                    }
                } else if blob.modified < before && self.is_orphan(&blob.name, &mut folders).await? {
                    report.orphans.push(blob.name.clone());
                    remove.push(blob.name.clone());
                }
                after = Some(blob.name.clone());
            }
            let ended = !full && page.len() < BLOB_PAGE;
            if !how.dry_run {
                // Deleted before rows are checked, since the job may time out while it checks many rows.
                blobs.delete_all(remove).await?;
                match &after {
                    Some(name) if !ended => {
                        blobs.put(BLOB_CURSOR, name.clone().into()).await?;
                        cursor_stored = true;
                    }
                    _ if cursor_stored => blobs.delete(BLOB_CURSOR).await?,
                    _ => {}
                }
            }
            if ended || full || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Whether a blob's name is in the format of this library but its picture's row does not name it.
    ///
    /// Other files are never deleted.
    async fn is_orphan(&self, name: &str, folders: &mut Folders) -> Result<bool, Error> {
        let Some((folder, name)) = name.rsplit_once('/').filter(|(folder, _)| is_media_folder(folder)) else {
            return Ok(false);
        };
        if folders.last != folder {
            folders.named = self.named_in(folder).await?;
            folder.clone_into(&mut folders.last);
            folders.looked_at += 1;
            folders.unnamed += usize::from(folders.named.is_empty());
        }
        Ok(!folders.named.contains(name))
    }

    /// Blobs of a folder that its picture names.
    async fn named_in(&self, folder: &str) -> Result<BTreeSet<String>, Error> {
        let id = folder.rsplit('/').next().and_then(|name| name.get(..36)?.parse::<MediaId>().ok());
        let store = &self.0.ports.store;
        match id {
            Some(id) => {
                match store.media(id).await?.filter(|media| media.folder().trim_end_matches('/') == folder) {
                    Some(media) => self.named_blobs(&media).await,
                    None => Ok(BTreeSet::new()),
                }
            }
            None => Ok(BTreeSet::new()),
        }
    }

    async fn named_blobs(&self, media: &Media) -> Result<BTreeSet<String>, Error> {
        let renditions = self.0.ports.store.renditions(media.space, media.id).await?;
        let source = media.source.as_ref().map(|source| source.blob.clone());
        Ok(renditions.into_iter().map(|rendition| rendition.blob).chain(source).collect())
    }

    /// Checks the rows of each space, from the position of the last sweep, and repairs them in rounds.
    ///
    /// Returns an error if the lost blobs may be in another store: their rows are not changed.
    async fn sweep_rows(
        &self,
        how: Sweep,
        before: Timestamp,
        report: &mut SweepReport,
    ) -> Result<Option<Error>, Error> {
        let unposted = self.0.options.unposted_photo_lifetime.map(|age| self.0.ports.now().minus(age));
        let bounds = Bounds { before, unposted, cap: how.cap, until: Instant::now() + how.time };
        let mut at = if how.dry_run { None } else { self.cursor().await? };
        let (mut cursor_stored, mut ended, mut suspicious) = (at.is_some(), false, None);
        while !ended && !report.is_full(how.cap) && Instant::now() < bounds.until {
            let mut round = Round::default();
            (at, ended) = self.check_round(at, bounds, &mut round).await?;
            if !how.dry_run {
                if let Some(error) = round.take_suspicious() {
                    suspicious = Some(error);
                }
                self.repair(&round.found).await?;
                // After the last row, the next sweep starts at the beginning.
                let next = at.filter(|_| !ended);
                if cursor_stored || next.is_some() {
                    self.store_cursor(next).await?;
                    cursor_stored = next.is_some();
                }
            }
            report.take(round.found);
        }
        Ok(suspicious)
    }

    /// Checks rows from a position; returns the position reached, and whether it is the end.
    async fn check_round(
        &self,
        mut at: Option<At>,
        bounds: Bounds,
        round: &mut Round,
    ) -> Result<(Option<At>, bool), Error> {
        while round.looked < MAX_BLOBS_PER_ROUND && Instant::now() < bounds.until {
            let (spaces, last) = match at {
                Some(At { space, picture: Some(_) }) => (vec![space], false),
                _ => {
                    let spaces =
                        self.0.ports.store.media_spaces(at.map(|at| at.space), MAX_ROWS_PER_READ).await?;
                    let last = spaces.len() < MAX_ROWS_PER_READ as usize;
                    (spaces, last)
                }
            };
            for space in spaces {
                let after = at.filter(|at| at.space == space).and_then(|at| at.picture);
                let picture = self.check_space(space, after, bounds, round).await?;
                at = Some(At { space, picture });
                if picture.is_some() {
                    return Ok((at, false));
                }
            }
            if last {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    async fn repair(&self, found: &SweepReport) -> Result<(), Error> {
        for (id, blobs) in &found.lost {
            if let Some(media) = self.0.ports.store.media(*id).await? {
                self.0.pictures.forget(&media, blobs.clone()).await?;
            }
        }
        for id in &found.stuck {
            self.0.pictures.reject(*id, "unavailable").await?;
        }
        for id in &found.unposted {
            if let Some(media) = self.0.ports.store.media(*id).await?.filter(|media| media.uses == 0) {
                self.0.pictures.expire(&media).await?;
            }
        }
        Ok(())
    }

    /// Position of the last sweep, stored as a blob, where every process finds it.
    async fn cursor(&self) -> Result<Option<At>, Error> {
        let Some(text) = self.0.blobs.read(CURSOR_NAME, 100).await? else { return Ok(None) };
        Ok(std::str::from_utf8(&text).ok().and_then(|text| {
            let mut parts = text.split(' ');
            let (kind, id) = (parts.next()?.parse().ok()?, parts.next()?.parse::<MediaId>().ok()?);
            let space = Space::from_stored(kind, id.as_uuid())?;
            Some(At { space, picture: parts.next().and_then(|id| id.parse().ok()) })
        }))
    }

    async fn store_cursor(&self, at: Option<At>) -> Result<(), Error> {
        match at {
            None => self.0.blobs.delete(CURSOR_NAME).await,
            Some(At { space, picture }) => {
                let picture = picture.map_or_else(String::new, |id| format!(" {id}"));
                let text = format!("{} {}{picture}", space.kind(), MediaId::from_uuid(space.as_uuid()));
                self.0.blobs.put(CURSOR_NAME, text.into()).await
            }
        }
    }

    /// Checks at least one picture of a space after `after`.
    ///
    /// Returns the last one checked, or none if all were.
    async fn check_space(
        &self,
        space: Space,
        mut after: Option<MediaId>,
        bounds: Bounds,
        round: &mut Round,
    ) -> Result<Option<MediaId>, Error> {
        loop {
            let page = self.0.ports.store.media_in(space, after, MAX_ROWS_PER_READ).await?;
            for media in &page {
                self.check_media(media, bounds, round).await?;
                after = Some(media.id);
                if round.found.is_full(bounds.cap) || Instant::now() >= bounds.until {
                    return Ok(after);
                }
            }
            if page.len() < MAX_ROWS_PER_READ as usize {
                return Ok(None);
            }
        }
    }

    async fn check_media(&self, media: &Media, bounds: Bounds, round: &mut Round) -> Result<(), Error> {
        let found = &mut round.found;
        if media.created_at >= bounds.before {
            return Ok(());
        }
        if media.state == MediaState::Processing {
            found.stuck.push(media.id);
            return Ok(());
        }
        if media.purpose == Purpose::Photo
            && media.uses == 0
            && bounds.unposted.is_some_and(|before| media.created_at < before)
        {
            found.unposted.push(media.id);
            return Ok(());
        }
        // Rows are read before blobs: a blob is written before its row, so a missing blob was lost and is not merely new.
        let named = self.named_blobs(media).await?;
        if named.is_empty() {
            return Ok(());
        }
        round.looked += 1;
        let folder = media.folder();
        let listed = self.0.blobs.list(folder.trim_end_matches('/'));
        let there: BTreeSet<String> =
            listed.map_ok(|blob| blob.name.trim_start_matches(&folder).to_owned()).try_collect().await?;
        let lost: Vec<String> = named.difference(&there).cloned().collect();
        if !lost.is_empty() {
            found.lost.push((media.id, lost));
        }
        Ok(())
    }
}

/// Whether a folder's name is in the format of [`Media::folder`]: `{c|a}/{space}/{picture}-{key}`.
fn is_media_folder(folder: &str) -> bool {
    let parts: Vec<_> = folder.split('/').collect();
    match parts[..] {
        ["a" | "c", space, picture] => {
            let (id, key) = picture.split_at_checked(36).unwrap_or_default();
            is_id(space) && is_id(id) && key.strip_prefix('-').is_some_and(is_key)
        }
        _ => false,
    }
}

/// Whether a blob's name is that of a resumable upload's part: `t/{account}/{key}`.
///
/// Earlier versions used names below that.
fn is_upload_part(name: &str) -> bool {
    let mut parts = name.split('/');
    parts.next() == Some("t") && parts.next().is_some_and(is_id) && parts.next().is_some_and(is_key)
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

fn is_id(text: &str) -> bool {
    text.parse::<MediaId>().is_ok()
}

/// Compares rows and blobs, and repairs differences.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SweepBlobs {}

impl Job for SweepBlobs {
    const NAME: &'static str = "media.sweep";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Runs a sweep with the default options of [`Sweep`].
#[derive(Debug, Clone)]
pub struct SweepBlobsHandler(pub Gallery);

impl SweepBlobsHandler {
    /// Schedule of the job: daily.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(24), || SweepBlobs {})
    }
}

#[async_trait]
impl Handler<SweepBlobs> for SweepBlobsHandler {
    async fn run(&self, _: SweepBlobs, _: &Context) -> Result<(), JobError> {
        let report = self.0.sweep(Sweep::default()).await?;
        if report != SweepReport::default() {
            let (orphans, lost, stuck) = (report.orphans.len(), report.lost.len(), report.stuck.len());
            let unposted = report.unposted.len();
            let (upload_parts, unfinished) = (report.upload_parts, report.unfinished);
            tracing::info!(
                orphans,
                upload_parts,
                stuck,
                unposted,
                unfinished,
                "swept blobs and rows of pictures"
            );
            if lost > 0 {
                tracing::error!(lost, "blobs of pictures are missing");
            }
        }
        Ok(())
    }
}
