//! Counts the prefix codes of a lossless WebP (RFC 9649, section 3) before tables are built for them.
//!
//! `image-webp` builds five tables for every group of prefix codes up to the highest that the entropy image names, used or not: 65,536
//! groups, and 1.3 GB, for a file that declares a few pixels. This module reads up to the entropy image, as `image-webp` does, and
//! keeps only that.

mod prefix_codes;
mod streams;
#[cfg(test)]
mod tests;

use super::{Limits, Rejected};
use prefix_codes::groups;
use streams::streams;

/// Maximum memory of a group of five prefix codes, in bytes: tables of 4 KiB.
const GROUP_BYTES: u64 = 5 * 4096;

/// Rejects a WebP whose prefix codes would take more than half of the memory.
///
/// Encoders write about 2,600 groups at most.
///
/// It reads the streams that `image-webp` would decode, wherever it would find them: even beyond the end of the enclosing chunk, and
/// after a frame of odd size without its padding byte. [`inspect`](super::inspect()) has limited the file's size, and so the time that
/// this takes.
///
/// Returns the memory for the prefix codes, in bytes.
pub(super) fn check(file: &[u8], limits: &Limits) -> Result<usize, Rejected> {
    let mut most = 0;
    // None: the file ends there, or the decoder would stop.
    let _ = streams(file, limits, &mut |stream, size, headed| {
        most = most.max(groups(stream, size, headed).unwrap_or(0));
    });
    let bytes = usize::try_from(u64::from(most) * GROUP_BYTES).unwrap_or(usize::MAX);
    if bytes > limits.memory / 2 {
        return Err(Rejected::TooComplex("the file has too many prefix codes".into()));
    }
    Ok(bytes)
}
