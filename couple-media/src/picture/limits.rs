//! What a picture may cost.

use std::time::Duration;

use tokio::time::Instant;

use super::Rejected;

/// What is refused, before it costs more than it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest file, in bytes. 20 MiB.
    pub bytes: usize,
    /// The most pixels, in millions. 210: phones take photos of up to 200. A JPEG is decoded at the scale that is needed, PNG and HEIC are
    /// scaled down while they are decoded; [`memory`](Self::memory) also bounds WebP, GIF and interlaced PNG, which are decoded whole.
    pub megapixels: u32,
    /// Maximum pixels in a row or column. Default: 65,535, the maximum of JPEG; the area bounds a picture further.
    pub side: u32,
    /// The most memory that decoding may take, in bytes, beyond the file itself. 256 MiB: a progressive JPEG of 50 megapixels at its
    /// full size, or one of 200 at a scale.
    pub memory: usize,
    /// The most scans of a progressive JPEG. 100; libjpeg's own script for progressive files has 10. Each scan may
    /// cost a pass over the whole picture.
    pub scans: u32,
    /// The most frames of an animation that is kept as one. 1,000. Of one with more, or with more than
    /// [`animation_megapixels`](Self::animation_megapixels) in all its frames, the first is shown.
    pub frames: u32,
    /// The most pixels of all frames of an animation together, in millions. 50: each of them is decoded and encoded.
    pub animation_megapixels: u32,
    /// How long [`render`](super::render) may take. It is looked at between steps and rows, so what is being done ends first.
    /// 10 s, some hundred times what a phone's picture takes.
    pub deadline: Duration,
    /// Whether WebP that is lossy, still and opaque is decoded by libwebp, in half of the time, in C. No: `image-webp` is safe Rust.
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
        if pixels == 0 { Err(Rejected::Corrupt("it has no pixels".into())) } else { Ok(()) }
    }
}

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now))
    }

    pub(super) fn check(self) -> Result<(), Rejected> {
        if Instant::now() > self.0 { Err(Rejected::TookTooLong) } else { Ok(()) }
    }
}
