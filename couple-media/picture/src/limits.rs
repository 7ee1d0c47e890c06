//! Limits of a picture.

use std::time::{Duration, Instant};

use super::Rejected;

/// Maximum bytes of an ICC profile.
///
/// Profiles of cameras and screens have 500 to 4,000, those of printing presses up to 2 MB.
pub(crate) const MAX_PROFILE_BYTES: usize = 4 << 20;

/// Limits of a picture, checked before it costs more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum size of the file, in bytes. Default: 20 MiB.
    pub bytes: usize,
    /// Maximum number of pixels, in millions. Default: 210, since phones take photos of up to 200.
    ///
    /// A JPEG is decoded at the needed scale, and PNG and HEIC are scaled down while they are decoded. WebP, GIF and interlaced PNG are
    /// decoded at full size, so [`memory`](Self::memory) limits them further.
    pub megapixels: u32,
    /// Maximum width and height, in pixels. Default: 65,535, the maximum of JPEG.
    pub side: u32,
    /// Maximum memory for decoding, in bytes, beside the file itself. Default: 256 MiB.
    ///
    /// That is enough for a progressive JPEG of 50 megapixels at full size, or one of 200 at a reduced size.
    pub memory: usize,
    /// Maximum number of scans of a progressive JPEG. Default: 100.
    ///
    /// libjpeg's script for progressive files has 10. Each scan may cost a pass over the whole picture.
    pub scans: u32,
    /// Maximum number of frames of an animation. Default: 1,000.
    ///
    /// Of an animation with more, or with more than [`animation_megapixels`](Self::animation_megapixels) in all frames, only the first
    /// frame is shown.
    pub frames: u32,
    /// Maximum number of pixels in all frames of an animation, in millions.
    ///
    /// Default: 50, since each is decoded and encoded.
    pub animation_megapixels: u32,
    /// Maximum duration of [`render`](super::render).
    ///
    /// Default: 10 s, some hundred times the time for a phone's photo.
    ///
    /// It is checked between steps and rows, so the current step completes first.
    pub deadline: Duration,
    /// Whether libwebp, in C, decodes lossy, still, opaque WebP, in half of the time.
    ///
    /// Default: no, the safe `image-webp` does.
    pub libwebp: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 20 << 20,
            megapixels: 210,
            side: 65_535,
            memory: 256 << 20,
            scans: 100,
            frames: 1_000,
            animation_megapixels: 50,
            deadline: Duration::from_secs(10),
            libwebp: false,
        }
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
