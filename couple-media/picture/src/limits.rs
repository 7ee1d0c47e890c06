//! Limits of a picture.

use std::time::{Duration, Instant};

use super::Rejected;

/// Maximum bytes of an ICC profile.
///
/// Profiles of cameras and screens have 500 to 4,000, those of printing presses up to 2 MB.
pub(crate) const MAX_PROFILE_BYTES: usize = 4 << 20;

/// Declares limits with private fields: of each its default, its getter and its setter.
macro_rules! limits {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr, $setter:ident;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $(pub(crate) $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            $(
                $(#[$doc])*
                #[must_use]
                pub const fn $field(&self) -> $type {
                    self.$field
                }
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub const fn $setter(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

limits! {
    /// Limits of a picture, checked before it costs more.
    pub struct Limits {
        /// Maximum size of the file, in bytes. Default: 20 MiB.
        bytes: usize = 20 << 20, with_bytes;
        /// Maximum number of pixels, in millions. Default: 210, since phones take photos of up to 200.
        ///
        /// A JPEG is decoded at the needed scale, and PNG and HEIC are scaled down while they are decoded. WebP, GIF and interlaced PNG are
        /// decoded at full size, so [`memory`](Self::memory) limits them further.
        megapixels: u32 = 210, with_megapixels;
        /// Maximum width and height, in pixels. Default: 65,535, the maximum of JPEG.
        side: u32 = 65_535, with_side;
        /// Maximum memory for decoding, in bytes, beside the file itself. Default: 256 MiB.
        ///
        /// That is enough for a progressive JPEG of 50 megapixels at full size, or one of 200 at a reduced size.
        memory: usize = 256 << 20, with_memory;
        /// Maximum number of scans of a progressive JPEG. Default: 100.
        ///
        /// libjpeg's script for progressive files has 10. Each scan may cost a pass over the whole picture.
        scans: u32 = 100, with_scans;
        /// Maximum number of frames of an animation. Default: 1,000.
        ///
        /// Of an animation with more, or with more than [`animation_megapixels`](Self::animation_megapixels) in all frames, only the first
        /// frame is shown.
        frames: u32 = 1_000, with_frames;
        /// Maximum number of pixels in all frames of an animation, in millions.
        ///
        /// Default: 50, since each is decoded and encoded.
        animation_megapixels: u32 = 50, with_animation_megapixels;
        /// Maximum duration of [`render`](super::render).
        ///
        /// Default: 10 s, some hundred times the time for a phone's photo.
        ///
        /// It is checked between steps and rows, so the current step completes first.
        deadline: Duration = Duration::from_secs(10), with_deadline;
        /// Whether libwebp (C) decodes lossy WebP without animation and transparency. Default: false.
        ///
        /// It takes half of the time of `image-webp` (safe Rust), which decodes such files otherwise.
        libwebp: bool = false, with_libwebp;
    }
}

impl Limits {
    pub(super) fn check_bytes(&self, bytes: &[u8]) -> Result<(), Rejected> {
        if bytes.len() > self.bytes { Err(Rejected::TooManyBytes { limit: self.bytes }) } else { Ok(()) }
    }

    pub(super) fn check_size(&self, width: u32, height: u32) -> Result<(), Rejected> {
        let pixels = u64::from(width) * u64::from(height);
        if width > self.side || height > self.side || pixels > u64::from(self.megapixels) * 1_000_000 {
            return Err(Rejected::TooLarge { width, height });
        }
        if pixels == 0 { Err(Rejected::Corrupt("the picture has no pixels".into())) } else { Ok(()) }
    }
}

/// Time at which rendering stops.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

#[expect(
    clippy::disallowed_methods,
    reason = "limits the time that a decoder computes: it has no clock to pass in"
)]
impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now))
    }

    pub(super) fn check(self) -> Result<(), Rejected> {
        if Instant::now() > self.0 { Err(Rejected::TookTooLong) } else { Ok(()) }
    }
}
