//! Serves renditions of a picture, and makes a missing one.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use couple_core::{
    Error, MediaId,
    media::{Format, Media, MediaState, Purpose, Rendition, Source, Space},
};
use tokio::{sync::watch, time::timeout};

use super::{Gallery, GalleryOptions, job::copy};
use crate::{
    blobs::Blob,
    fair_permits::{FairLimits, FairPermits},
    picture::{self, Encoding, Fit, Recipe},
};

/// A rendition with its bytes, or a range of them.
#[derive(Debug)]
pub struct Shown {
    /// The rendition.
    pub rendition: Rendition,
    /// Bytes of the rendition.
    pub blob: Blob,
}

/// Formats that a client can show in addition to JPEG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accepts {
    /// WebP, with alpha, and animated if the picture is.
    pub webp: bool,
    /// PNG, with alpha.
    pub png: bool,
}

/// Reason why a rendition cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RenditionError {
    /// The picture has no rendition of this name.
    #[error("there is no such rendition")]
    Unknown,
    /// The picture is not decoded yet.
    #[error("the picture is being processed")]
    Processing,
    /// The file is not a picture, or is lost.
    #[error("the picture cannot be shown")]
    Gone,
    /// The rendition is being made or is queued; a later request finds it.
    #[error("the rendition is being made")]
    Later {
        /// Estimated time until the rendition is made.
        expected_wait: Duration,
    },
    /// The maximum number of requests waits for renditions of the same couple.
    #[error("too many concurrent requests for renditions of the same couple")]
    TooMany {
        /// Estimated time until another request of the couple is accepted.
        expected_wait: Duration,
    },
    /// An internal failure.
    #[error(transparent)]
    Failed(#[from] Error),
}

type RenditionKey = (MediaId, String, Format);
/// Outcome of making a rendition, for all waiting requests; none while it is made.
type RenderResult = Option<Result<Rendition, Gone>>;

/// Reason why a rendition could not be made, for all waiting requests.
#[derive(Debug, Clone, Copy)]
enum Gone {
    ForGood,
    ThisTime,
}

/// Maximum number of a couple's renditions made concurrently in this process.
///
/// Other couples take turns with it.
const MAX_CONCURRENT_PER_COUPLE: usize = 4;
/// Maximum number of renditions made concurrently in this process.
///
/// [`GalleryOptions::with_memory_bytes`] also limits them.
const MAX_CONCURRENT: usize = 16;

/// Renditions that are queued or being made in this process, each once for all requests (single flight).
#[derive(Debug)]
pub(super) struct SingleFlight {
    table: Mutex<FlightTable>,
    permits: FairPermits<Space>,
    max_pending: usize,
    max_pending_per_space: usize,
}

#[derive(Debug, Default)]
struct FlightTable {
    pending: HashMap<RenditionKey, watch::Receiver<RenderResult>>,
    /// Counts by space; a space without counts has no entry.
    by_space: HashMap<Space, Count>,
    /// Number of waiting requests.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Count {
    pending: usize,
    waiting: usize,
}

impl FlightTable {
    /// Changes the counts of a space.
    fn count(&mut self, space: Space, change: impl FnOnce(&mut Count)) {
        let count = self.by_space.entry(space).or_default();
        change(count);
        if count.pending == 0 && count.waiting == 0 {
            self.by_space.remove(&space);
        }
    }
}

impl SingleFlight {
    pub(super) fn new(options: &GalleryOptions) -> Self {
        let (max_pending, max_pending_per_space) =
            (options.max_pending_renditions, options.max_pending_renditions_per_couple);
        let permits = FairPermits::new(FairLimits {
            total: MAX_CONCURRENT,
            per_key: MAX_CONCURRENT_PER_COUPLE,
            reserved: 0,
            // The table limits waiting requests.
            waiting: usize::MAX,
            waiting_per_key: usize::MAX,
        });
        Self { table: Mutex::default(), permits, max_pending, max_pending_per_space }
    }
    fn table(&self) -> MutexGuard<'_, FlightTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Error for a rendition that is not made in time.
    fn later(&self, space: Space) -> RenditionError {
        RenditionError::Later { expected_wait: self.permits.expected_wait(&space) }
    }
    /// Error for too many requests for renditions of a space.
    fn too_many(&self, space: Space) -> RenditionError {
        RenditionError::TooMany { expected_wait: self.permits.expected_wait(&space) }
    }
}

/// Removes a rendition from the table when making it ends, even by a panic.
struct FlightGuard(Gallery, Space, RenditionKey);

impl Drop for FlightGuard {
    fn drop(&mut self) {
        let mut table = self.0.0.flights.table();
        table.pending.remove(&self.2);
        table.count(self.1, |count| count.pending -= 1);
    }
}

/// A waiting request; removed from the count when dropped.
struct WaitingRequest<'a>(&'a SingleFlight, Space);

impl<'a> WaitingRequest<'a> {
    fn of(flights: &'a SingleFlight, space: Space) -> Result<Self, RenditionError> {
        let mut table = flights.table();
        if table.by_space.get(&space).is_some_and(|count| count.waiting >= 2 * flights.max_pending_per_space)
        {
            return Err(flights.too_many(space));
        }
        if table.waiting >= flights.max_pending {
            return Err(flights.later(space));
        }
        table.waiting += 1;
        table.count(space, |count| count.waiting += 1);
        Ok(Self(flights, space))
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.waiting -= 1;
        table.count(self.1, |count| count.waiting -= 1);
    }
}

impl Gallery {
    /// Renditions in which a picture can be shown.
    #[must_use]
    pub fn sizes(&self, purpose: Purpose) -> &[picture::Rendition] {
        match purpose {
            Purpose::Avatar => &self.0.options.avatars,
            Purpose::Photo => &self.0.options.photos,
        }
    }

    /// Finds a rendition of a picture by name, or makes it. The caller must be allowed to see the picture.
    ///
    /// Its format is WebP for clients that accept it; PNG for clients that accept it, if a part of the picture is transparent; otherwise
    /// JPEG. WebP and PNG are used only if the rendition exists or can be made. `renditions` are the existing ones.
    ///
    /// # Errors
    /// [`RenditionError`].
    pub async fn find(
        &self,
        media: &Media,
        renditions: &[Rendition],
        name: &str,
        accepts: Accepts,
    ) -> Result<Rendition, RenditionError> {
        match media.state {
            MediaState::Processing => return Err(RenditionError::Processing),
            MediaState::Rejected(_) => return Err(RenditionError::Gone),
            MediaState::Ready => {}
        }
        let there = |format| renditions.iter().find(|one| one.name == name && one.format == format);
        // JPEG of avatars is made after the upload. Photos, and WebP and PNG of avatars with transparent parts, at the first request.
        let can_make = media.source.is_some() && (media.purpose == Purpose::Photo || media.alpha);
        let format = match accepts {
            Accepts { webp: true, .. } if can_make => Format::WebP,
            Accepts { png: true, .. } if can_make && media.alpha => Format::Png,
            _ => Format::Jpeg,
        };
        if let Some(rendition) = there(format) {
            return Ok(rendition.clone());
        }
        if !self.sizes(media.purpose).iter().any(|size| size.name == name) {
            return Err(RenditionError::Unknown);
        }
        self.make(media, name, format).await
    }

    /// Opens the bytes of a rendition, or a range of them. A rendition whose bytes are lost is made again.
    ///
    /// # Errors
    /// [`RenditionError`].
    pub async fn open(
        &self,
        media: &Media,
        rendition: Rendition,
        range: Option<Range<u64>>,
    ) -> Result<Shown, RenditionError> {
        if let Some(blob) = self.0.blobs.get(&media.path(&rendition.blob), range.clone()).await? {
            self.0.pictures.touch(media, &rendition).await?;
            return Ok(Shown { rendition, blob });
        }
        tracing::error!(media = %media.id, blob = rendition.blob, "the blob of a rendition is lost");
        self.0.pictures.forget(media, vec![rendition.blob.clone()]).await?;
        let rendition = self.make(media, &rendition.name, rendition.format).await?;
        let blob = self.0.blobs.get(&media.path(&rendition.blob), range).await?;
        blob.map(|blob| Shown { rendition, blob }).ok_or_else(|| self.0.flights.later(media.space))
    }

    /// Makes a rendition, once for all concurrent requests (single flight), and waits for a limited time.
    async fn make(&self, media: &Media, name: &str, format: Format) -> Result<Rendition, RenditionError> {
        let Some(source) = media.source.clone() else { return Err(RenditionError::Gone) };
        let flight = (media.id, name.to_owned(), format);
        let _waiting = WaitingRequest::of(&self.0.flights, media.space)?;
        let mut outcome = {
            let mut table = self.0.flights.table();
            // Includes renditions whose requests were cancelled: they are made nevertheless.
            let by_space = table.by_space.get(&media.space).map_or(0, |count| count.pending);
            match table.pending.get(&flight) {
                Some(outcome) => outcome.clone(),
                None if by_space >= self.0.flights.max_pending_per_space => {
                    return Err(self.0.flights.too_many(media.space));
                }
                None if table.pending.len() >= self.0.flights.max_pending => {
                    return Err(self.0.flights.later(media.space));
                }
                None => {
                    let (sender, outcome) = watch::channel(None);
                    table.pending.insert(flight.clone(), outcome.clone());
                    table.count(media.space, |count| count.pending += 1);
                    let (gallery, media) = (self.clone(), media.clone());
                    // A separate task: the first request may be cancelled while others wait.
                    tokio::spawn(async move {
                        let guard = FlightGuard(gallery.clone(), media.space, flight.clone());
                        let permit = gallery.0.flights.permits.acquire(media.space, None).await;
                        let made = gallery.try_make(&media, &source, &flight.1, format).await;
                        drop((permit, guard));
                        sender.send_replace(Some(made.map_err(|error| match error {
                            RenditionError::Failed(error) => {
                                tracing::warn!(%error, media = %media.id, "cannot make a rendition");
                                Gone::ThisTime
                            }
                            RenditionError::Later { .. }
                            | RenditionError::TooMany { .. }
                            | RenditionError::Processing => Gone::ThisTime,
                            RenditionError::Unknown | RenditionError::Gone => Gone::ForGood,
                        })));
                    });
                    outcome
                }
            }
        };
        let done = timeout(self.0.options.max_rendition_wait, outcome.wait_for(Option::is_some)).await;
        match done.ok().and_then(Result::ok).and_then(|outcome| outcome.clone()) {
            Some(Ok(rendition)) => Ok(rendition),
            Some(Err(Gone::ForGood)) => Err(RenditionError::Gone),
            Some(Err(Gone::ThisTime)) | None => Err(self.0.flights.later(media.space)),
        }
    }

    async fn try_make(
        &self,
        media: &Media,
        source: &Source,
        name: &str,
        format: Format,
    ) -> Result<Rendition, RenditionError> {
        let inner = &self.0;
        let there = async || {
            let all = inner.ports.store.renditions(media.space, media.id).await?;
            Ok::<_, Error>(all.into_iter().find(|one| one.name == name && one.format == format))
        };
        // Another task may have made it since the caller read the row.
        if let Some(rendition) = there().await? {
            return Ok(rendition);
        }
        let size =
            self.sizes(media.purpose).iter().find(|size| size.name == name).ok_or(RenditionError::Unknown)?;
        let encoding = match format {
            Format::Jpeg => Encoding::JPEG,
            Format::WebP if inner.options.animated => Encoding::ANIMATED_WEBP,
            Format::WebP => Encoding::WEBP,
            Format::Png => Encoding::Png,
        };
        // The copy shows the crop, if there is one. The size is computed from the uploaded picture, because that of the copy is rounded.
        let (size, copied) = match media.purpose {
            Purpose::Photo => {
                let (width, height) = self.size_of(media, size);
                let copy = copy(inner.options.copy_side.unwrap_or(u32::MAX));
                let size = picture::Rendition { name: size.name.clone(), fit: Fit::Fill, width, height };
                (size, copy.size_of(media.width, media.height))
            }
            Purpose::Avatar => (size.clone(), (2 * size.width, 2 * size.height)),
        };
        let recipe = Recipe { renditions: vec![size], crop: None, encoding };
        let rendered = self.render(media, source, copied, move |_| recipe.clone()).await?;
        let rendered = rendered.ok_or_else(|| {
            tracing::error!(media = %media.id, "the stored copy for renditions is lost");
            RenditionError::Gone
        })?;
        let rendered = rendered.map_err(|rejected| {
            tracing::error!(media = %media.id, %rejected, "the stored copy for renditions is damaged");
            RenditionError::Gone
        })?;
        let image = rendered.images.into_iter().next().ok_or(RenditionError::Gone)?;
        let now = inner.ports.now();
        let (rendition, _) = self.store_rendition(media, image, Some(now), now).await?;
        if inner.pictures.remember(media, rendition.clone()).await? {
            return Ok(rendition);
        }
        // Another process was faster, or the picture was deleted.
        inner.blobs.delete(&media.path(&rendition.blob)).await?;
        there().await?.ok_or(RenditionError::Gone)
    }
}
