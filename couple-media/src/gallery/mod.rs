//! Gallery: uploading, rendering and serving pictures, and consistency of their blobs.
//!
//! ```text
//!  upload ──▶ blob ──▶ one commit: picture, state, job ──▶ response
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
mod expire_renditions;
mod expire_uploads;
mod foreign;
mod job;
mod options;
mod renderer;
mod renditions;
mod resume;
mod sweep;
mod upload;
mod upload_buffer;

use std::sync::Arc;

use couple_core::{
    Ports,
    media::{MediaPolicy, Pictures},
    upload::ResumableUpload,
};

pub use append::Appending;
pub use bounded_renderer::Stats;
pub use expire_renditions::{ExpireRenditions, ExpireRenditionsHandler};
pub use expire_uploads::{ExpireUploads, ExpireUploadsHandler};
pub use job::{DiscardBlobsHandler, RenderMediaHandler};
pub use options::GalleryOptions;
pub use renderer::{PictureHeader, PictureRenderer, RenderPlan, Renderer};
pub use renditions::{Accepts, RenditionError, Shown};
pub use resume::{NewUpload, PARTIAL_FOLDER, Resumable, ResumeError};
pub use sweep::{Sweep, SweepBlobs, SweepBlobsHandler, SweepReport};
pub use upload::{UploadError, UploadMetadata, Uploading};

use crate::{
    blobs::Blobs,
    fair_permits::{FairLimits, FairPermits},
};

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
    flights: renditions::SingleFlight,
    /// Permits to hold a part of an upload in memory.
    parts: FairPermits<()>,
    appends: append::ActiveAppends,
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
            flights: renditions::SingleFlight::new(&options),
            parts: FairPermits::new(FairLimits {
                total: options.max_upload_parts,
                per_key: options.max_upload_parts,
                reserved: 0,
                waiting: usize::MAX,
                waiting_per_key: usize::MAX,
            }),
            appends: append::ActiveAppends::default(),
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
