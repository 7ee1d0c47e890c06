//! Options of the gallery.

use std::time::Duration;

use crate::picture::{AVATARS, Limits, PHOTOS, Rendition};

couple_core::options! {
    /// Options of the gallery.
    #[derive(Debug, Clone)]
    pub struct GalleryOptions {
        /// Sets the limits of a picture.
        pub(super) limits: Limits = Limits::default(), with_limits;
        /// Sets the renditions of avatars, made after the upload, in JPEG. Default: [`AVATARS`].
        ///
        /// With transparent parts they are also made at the first request, in WebP or PNG.
        pub(super) avatars: Vec<Rendition> = AVATARS.to_vec(), with_avatars;
        /// Sets the renditions of photos, made at the first request, in JPEG, WebP or PNG. Default: [`PHOTOS`].
        pub(super) photos: Vec<Rendition> = PHOTOS.to_vec(), with_photos;
        /// Sets the side in pixels of the stored copy of a photo, from which renditions are made.
        ///
        /// Default: 4096, which fits 12 megapixels.
        ///
        /// The copy is upright, in sRGB and without metadata, in JPEG, or in WebP if a part of the photo is transparent. It fits into a
        /// square of this side, or is larger as for [`Fit::Readable`](crate::picture::Fit::Readable). None: no copy is stored, and all
        /// renditions are made after the upload, in JPEG.
        pub(super) copy_side: Option<u32> = Some(4096), with_copy_side;
        /// Sets whether an animated photo (GIF, WebP) stays animated for clients that accept WebP. Default: false.
        ///
        /// In JPEG, as an avatar, without a stored copy, and beyond [`Limits::frames`], only the first frame is shown.
        pub(super) animated: bool = false, with_animated;
        /// Sets the maximum memory in bytes for pictures that are being decoded in this process. Default: 256 MiB.
        ///
        /// The memory of a picture is estimated from its header, the file included. Further pictures wait; a larger one is decoded alone.
        pub(super) memory_bytes: usize = 256 << 20, with_memory_bytes;
        /// Sets the maximum number of uploads that hold a part in memory. Default: 32.
        ///
        /// Relevant for a store with parts of more than 128 KiB (S3: 5 MiB). Other uploads hold 128 KiB.
        pub(super) max_upload_parts: usize = 32, with_max_upload_parts;
        /// Sets the maximum time that a request waits for its rendition. Default: 8 s.
        ///
        /// It must be less than the request timeout of the HTTP layer (10 s by default).
        pub(super) max_rendition_wait: Duration = Duration::from_secs(8), with_max_rendition_wait;
        /// Sets the maximum number of renditions in progress, and of requests that wait for them. Default: 512.
        ///
        /// It counts queued renditions and those being made in this process. A request beyond that is refused and may be repeated later.
        pub(super) max_pending_renditions: usize = 512, with_max_pending_renditions;
        /// Sets the maximum number of renditions in progress of one couple. Default: 128.
        ///
        /// Twice as many requests may wait for them.
        ///
        /// Couples take turns, so a client that opens a whole gallery delays only its own couple's pictures.
        pub(super) max_pending_renditions_per_couple: usize = 128, with_max_pending_renditions_per_couple;
        /// Sets the time without a request after which a rendition is removed. Default: 30 days.
        ///
        /// The next request makes it again.
        pub(super) unused_rendition_lifetime: Duration = Duration::from_hours(24 * 30), with_unused_rendition_lifetime;
        /// Sets the time after which a photo that no entry names is deleted. Default: none, it is kept.
        ///
        /// The time is at least [`Sweep::grace`](super::Sweep::grace).
        ///
        /// Set it only if photos are used by entries of the kind `photo` alone: an entry of another kind, such as an app's own, does not
        /// count as a use of the photos that it names, so they would be deleted.
        pub(super) unposted_photo_lifetime: Option<Duration> = None, with_unposted_photo_lifetime;
        /// Sets the maximum stored bytes of one account's unfinished resumable uploads. Default: 100 MiB.
        ///
        /// A value below the maximum size of a picture is raised to it.
        pub(super) max_unfinished_bytes_per_account: u64 = 100 << 20, with_max_unfinished_bytes_per_account;
        /// Sets the maximum number of one account's unfinished resumable uploads. Default: 100.
        pub(super) max_unfinished_uploads_per_account: u32 = 100, with_max_unfinished_uploads_per_account;
        /// Sets the maximum stored bytes of all unfinished resumable uploads. Default: 10 GiB.
        ///
        /// Several processes may together exceed it for 5 s.
        pub(super) max_unfinished_bytes: u64 = 10 << 30, with_max_unfinished_bytes;
    }
}

impl GalleryOptions {
    /// Limits of a picture.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }
    /// Maximum stored bytes of one account's unfinished resumable uploads.
    #[must_use]
    pub const fn max_unfinished_bytes_per_account(&self) -> u64 {
        self.max_unfinished_bytes_per_account
    }
    /// Maximum number of one account's unfinished resumable uploads.
    #[must_use]
    pub const fn max_unfinished_uploads_per_account(&self) -> u32 {
        self.max_unfinished_uploads_per_account
    }
}
