//! Pictures with their bytes: taking them in, showing them, and keeping order among their blobs.
//!
//! ```text
//!  upload ──▶ blob ──▶ one commit: picture, state, job ──▶ answer
//!                                          │
//!                      queue `media`       ▼
//!                      decode once ──▶ avatars: all sizes · photos: a copy to make sizes from ──▶ ready
//!  request ──▶ blob there? ──▶ bytes
//!                 └ no ──▶ decode the copy, once for all who wait ──▶ blob, row ──▶ bytes
//! ```
//!
//! Blobs are written before the commit that names them and removed after the commit that forgets them, so what dies in between
//! leaves a blob that nobody names: the [sweep](Sweep) finds it.

mod append;
mod expire;
mod expire_uploads;
mod foreign;
mod job;
mod render;
mod resume;
mod show;
mod sweep;
mod upload;
mod upload_buffer;

use std::{sync::Arc, time::Duration};

use couple_core::{
    Ports,
    media::{Pictures, Policy},
    upload::ResumableUpload,
};
use tokio::sync::Semaphore;

pub use append::Appending;
pub use expire::{ExpireRenditions, ExpireRenditionsHandler};
pub use expire_uploads::{ExpireUploads, ExpireUploadsHandler};
pub use job::{DiscardBlobsHandler, RenderMediaHandler};
pub use render::Stats;
pub use resume::{NewUpload, PARTIAL, Resumable, ResumeError};
pub use show::{Accepts, NotShown, Shown};
pub use sweep::{Sweep, SweepBlobs, SweepBlobsHandler, Swept};
pub use upload::{About, NotTaken, Uploading};

use crate::{
    blobs::Blobs,
    picture::{AVATARS, Limits, PHOTOS, Rendition},
};

/// What a host may change.
#[derive(Debug, Clone)]
pub struct GalleryOptions {
    /// What a picture may cost.
    pub limits: Limits,
    /// The sizes of avatars: made at once, in JPEG.
    pub avatars: Vec<Rendition>,
    /// The sizes of photos: made when they are asked for, in JPEG or WebP.
    pub photos: Vec<Rendition>,
    /// Side in pixels of the kept copy of a photo, from which its sizes are made. Default: 4096, the whole of 12 megapixels.
    ///
    /// The copy is upright, in sRGB and without metadata, in JPEG, or WebP where a part of the photo is transparent. It fits into a
    /// square of this side, or is larger as [`Fit::Readable`](crate::picture::Fit::Readable) is. None: no copy is kept, and all sizes
    /// are made immediately, in JPEG.
    pub copy: Option<u32>,
    /// Whether a photo that is an animation (GIF, WebP) stays one, for those who take WebP: its copy and the sizes made of it do.
    /// In JPEG, as an avatar, without a copy, and beyond [`Limits::frames`] its first frame is shown. Default: false.
    pub animated: bool,
    /// Bytes that pictures may take while they are decoded in this process. Default: 256 MiB.
    ///
    /// Estimated from their headers, files included. Further pictures wait; a picture that takes more is decoded alone.
    pub memory: usize,
    /// Uploads that may hold a part in memory at the same time. Default: 32.
    ///
    /// Only for a store that takes blobs in parts of more than 128 KiB (S3: 5 MiB). Other uploads hold 128 KiB.
    pub upload_parts: usize,
    /// How long a request waits for its rendition to be made; less than the time-out of a request. Default: 8 s.
    pub wait: Duration,
    /// Renditions that are queued or being made, and requests that wait for them, in this process. A request beyond that is refused
    /// and may be repeated later. Default: 512.
    pub waiting: usize,
    /// Of these, the renditions of one couple, for which twice as many requests may wait. Couples take turns, so one that opens a
    /// whole gallery delays its own pictures only. Default: 128.
    pub waiting_of_one: usize,
    /// How long nobody asked for a rendition before it is removed, to be made again when somebody does. Default: 30 days.
    pub unused: Duration,
    /// How long a photo may wait to be named by an entry before it is deleted, at least [`Sweep::grace`]. To be set only where photos
    /// are shown by entries of the kind `photo` alone: other kinds, those of apps among them, count as no use of the photos they name,
    /// which would be deleted. Default: none, it stays.
    pub unposted: Option<Duration>,
    /// Stored bytes of the unfinished resumable uploads of one account; the largest picture at least. Default: 100 MiB.
    pub unfinished_bytes_per_account: u64,
    /// Number of unfinished resumable uploads of one account; more by as many as are created concurrently. Default: 100.
    pub unfinished_uploads: u32,
    /// Stored bytes of the unfinished resumable uploads of all accounts; more by what other processes store within 5 s. Default: 10 GiB.
    pub unfinished_bytes: u64,
}

impl Default for GalleryOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            avatars: AVATARS.to_vec(),
            photos: PHOTOS.to_vec(),
            copy: Some(4096),
            animated: false,
            memory: 256 << 20,
            upload_parts: 32,
            wait: Duration::from_secs(8),
            waiting: 512,
            waiting_of_one: 128,
            unused: Duration::from_hours(24 * 30),
            unposted: None,
            unfinished_bytes_per_account: 100 << 20,
            unfinished_uploads: 100,
            unfinished_bytes: 10 << 30,
        }
    }
}

/// Pictures with their bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gallery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ports: Ports,
    pictures: Pictures,
    blobs: Blobs,
    options: GalleryOptions,
    renderer: render::Renderer,
    flights: show::Flights,
    /// Permits to hold a part of an upload in memory.
    parts: Arc<Semaphore>,
    appends: append::Appends,
}

impl Gallery {
    /// Pictures over their ports and blobs.
    #[must_use]
    pub fn new(ports: Ports, policy: Policy, blobs: Blobs, options: GalleryOptions) -> Self {
        Self(Arc::new(Inner {
            pictures: Pictures::new(ports.clone(), policy),
            renderer: render::Renderer::new(&options),
            flights: show::Flights::new(&options),
            parts: Arc::new(Semaphore::new(options.upload_parts.clamp(1, Semaphore::MAX_PERMITS))),
            appends: append::Appends::default(),
            ports,
            blobs,
            options,
        }))
    }
    /// What is known of them: views, deletion, avatars.
    #[must_use]
    pub fn pictures(&self) -> &Pictures {
        &self.0.pictures
    }
    /// Where their bytes are.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }
    /// What the host chose.
    #[must_use]
    pub fn options(&self) -> &GalleryOptions {
        &self.0.options
    }
    /// What this process made so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.renderer.stats()
    }

    /// A name for a blob with bytes of a resumable upload.
    fn fresh_part(&self, upload: &ResumableUpload) -> String {
        let mut random = [0; 10];
        self.0.ports.entropy.fill(&mut random);
        let tail = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
        format!("t/{}/{tail}", upload.owner)
    }

    /// A name for a blob that no other has, so that removing an older one late does not hit it.
    fn fresh(&self, name: &str, extension: &str) -> String {
        let mut random = [0; 5];
        self.0.ports.entropy.fill(&mut random);
        let tail = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
        format!("{name}-{tail}.{extension}")
    }
}
