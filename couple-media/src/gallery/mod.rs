//! Gallery: uploading, rendering and serving pictures, and consistency of their blobs.
//!
//! ```text
//!  upload ──▶ blob ──▶ one commit: picture, state, job ──▶ answer
//!                                          │
//!                      queue `media`       ▼
//!                      decode once ──▶ avatars: all sizes · photos: a copy to make sizes from ──▶ ready
//!  request ──▶ blob exists? ──▶ bytes
//!                 └ no ──▶ decode the copy, once for all requests ──▶ blob, row ──▶ bytes
//! ```
//!
//! A blob is written before the commit that names it and deleted after the commit that no longer names it. So a crash in between
//! leaves a blob that no row names, which the [sweep](Sweep) deletes.

mod append;
mod bounded_renderer;
mod expire;
mod expire_uploads;
mod foreign;
mod job;
mod renderer;
mod resume;
mod show;
mod sweep;
mod upload;
mod upload_buffer;

use std::{sync::Arc, time::Duration};

use couple_core::{
    Ports,
    media::{MediaPolicy, Pictures},
    upload::ResumableUpload,
};

pub use append::Appending;
pub use bounded_renderer::Stats;
pub use expire::{ExpireRenditions, ExpireRenditionsHandler};
pub use expire_uploads::{ExpireUploads, ExpireUploadsHandler};
pub use job::{DiscardBlobsHandler, RenderMediaHandler};
pub use renderer::{PictureHeader, PictureRenderer, RenderPlan, Renderer};
pub use resume::{NewUpload, PARTIAL_FOLDER, Resumable, ResumeError};
pub use show::{Accepts, RenditionError, Shown};
pub use sweep::{Sweep, SweepBlobs, SweepBlobsHandler, SweepReport};
pub use upload::{UploadError, UploadMetadata, Uploading};

use crate::{
    blobs::Blobs,
    fair_permits::{FairLimits, FairPermits},
    picture::{AVATARS, Limits, PHOTOS, Rendition},
};

/// Options of the gallery.
#[derive(Debug, Clone)]
pub struct GalleryOptions {
    /// Limits of a picture.
    pub limits: Limits,
    /// Renditions of avatars, made after the upload, in JPEG.
    ///
    /// With transparent parts they are also made at the first request, in WebP or PNG.
    pub avatars: Vec<Rendition>,
    /// Renditions of photos, made at the first request, in JPEG, WebP or PNG.
    pub photos: Vec<Rendition>,
    /// Side in pixels of the stored copy of a photo, from which renditions are made.
    ///
    /// Default: 4096, which fits 12 megapixels.
    ///
    /// The copy is upright, in sRGB and without metadata, in JPEG, or in WebP if a part of the photo is transparent. It fits into a
    /// square of this side, or is larger as for [`Fit::Readable`](crate::picture::Fit::Readable). None: no copy is stored, and all
    /// renditions are made after the upload, in JPEG.
    pub copy: Option<u32>,
    /// Whether an animated photo (GIF, WebP) stays animated for clients that accept WebP. Default: false.
    ///
    /// In JPEG, as an avatar, without a stored copy, and beyond [`Limits::frames`], only the first frame is shown.
    pub animated: bool,
    /// Maximum memory in bytes for pictures that are being decoded in this process. Default: 256 MiB.
    ///
    /// The memory of a picture is estimated from its header, the file included. Further pictures wait; a larger one is decoded alone.
    pub memory: usize,
    /// Maximum number of uploads that hold a part in memory. Default: 32.
    ///
    /// Relevant for a store with parts of more than 128 KiB (S3: 5 MiB). Other uploads hold 128 KiB.
    pub upload_parts: usize,
    /// Maximum time that a request waits for its rendition; less than the timeout of a request.
    ///
    /// Default: 8 s.
    pub wait: Duration,
    /// Maximum number of renditions in progress, and of requests that wait for them. Default: 512.
    ///
    /// It counts queued renditions and those being made in this process.
    ///
    /// A request beyond that is refused and may be repeated later.
    pub waiting: usize,
    /// Maximum number of these renditions of one couple; twice as many requests may wait for them.
    ///
    /// Default: 128.
    ///
    /// Couples take turns, so a client that opens a whole gallery delays only its own couple's pictures.
    pub waiting_of_one: usize,
    /// Time without a request after which a rendition is removed; the next request makes it again.
    ///
    /// Default: 30 days.
    pub unused: Duration,
    /// Time after which a photo that no entry names is deleted, at least [`Sweep::grace`].
    ///
    /// Default: none, it stays.
    ///
    /// Set it only if photos are used by entries of the kind `photo` alone: an entry of another kind, such as an app's own, does not
    /// count as a use of the photos that it names, so they would be deleted.
    pub unposted: Option<Duration>,
    /// Maximum stored bytes of one account's unfinished resumable uploads; at least the largest picture.
    ///
    /// Default: 100 MiB.
    pub unfinished_bytes_per_account: u64,
    /// Maximum number of one account's unfinished resumable uploads.
    ///
    /// Default: 100.
    pub unfinished_uploads: u32,
    /// Maximum stored bytes of all unfinished resumable uploads; other processes may exceed it for 5 s.
    ///
    /// Default: 10 GiB.
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

/// Gallery: pictures with their bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gallery(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ports: Ports,
    pictures: Pictures,
    blobs: Blobs,
    options: GalleryOptions,
    renderer: bounded_renderer::BoundedRenderer,
    flights: show::SingleFlight,
    /// Permits to hold a part of an upload in memory.
    parts: FairPermits<()>,
    appends: append::Appends,
}

impl Gallery {
    /// Creates a gallery over ports and blobs, with an engine for pictures: [`PictureRenderer`] or a host's own.
    #[must_use]
    pub fn new(
        ports: Ports,
        policy: MediaPolicy,
        blobs: Blobs,
        renderer: Arc<dyn Renderer>,
        options: GalleryOptions,
    ) -> Self {
        Self(Arc::new(Inner {
            pictures: Pictures::new(ports.clone(), policy),
            renderer: bounded_renderer::BoundedRenderer::new(renderer, &options),
            flights: show::SingleFlight::new(&options),
            parts: FairPermits::new(FairLimits {
                total: options.upload_parts,
                per_key: options.upload_parts,
                reserved: 0,
                waiting: usize::MAX,
                waiting_per_key: usize::MAX,
            }),
            appends: append::Appends::default(),
            ports,
            blobs,
            options,
        }))
    }
    /// Service of the pictures' rows: access, deletion, avatars.
    #[must_use]
    pub fn pictures(&self) -> &Pictures {
        &self.0.pictures
    }
    /// Store of the pictures' bytes.
    #[must_use]
    pub fn blobs(&self) -> &Blobs {
        &self.0.blobs
    }
    /// Engine that reads and renders pictures.
    #[must_use]
    pub fn renderer(&self) -> &dyn Renderer {
        self.0.renderer.engine()
    }
    /// Options of this gallery.
    #[must_use]
    pub fn options(&self) -> &GalleryOptions {
        &self.0.options
    }
    /// Counts of pictures rendered by this process.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.renderer.stats()
    }

    /// Name for a new blob with bytes of a resumable upload.
    fn fresh_part(&self, upload: &ResumableUpload) -> String {
        let mut random = [0; 10];
        self.0.ports.entropy.fill(&mut random);
        let tail = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
        format!("t/{}/{tail}", upload.owner)
    }

    /// Unique name for a new blob, so that a late deletion of an older one does not affect it.
    fn fresh(&self, name: &str, extension: &str) -> String {
        let mut random = [0; 5];
        self.0.ports.entropy.fill(&mut random);
        let tail = data_encoding::BASE32_NOPAD.encode(&random).to_ascii_lowercase();
        format!("{name}-{tail}.{extension}")
    }
}
