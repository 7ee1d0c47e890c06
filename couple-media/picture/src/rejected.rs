//! Reasons for rejecting a picture.

/// Reason for rejecting a picture.
///
/// Every reason is permanent: the same bytes are rejected again, so a job must not retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Not a picture, or of an unsupported type.
    #[error("not a picture of a known type")]
    UnknownType,
    /// A JPEG with arithmetic coding (ITU-T T.81, annex D), which no browser shows either.
    #[error("a JPEG with arithmetic coding cannot be decoded; save it with Huffman coding")]
    ArithmeticJpeg,
    /// A picture of a known type with an unsupported feature: lossless JPEG, JPEG of 12 bits, ….
    #[error("the file uses an unsupported feature: {0}")]
    Unsupported(String),
    /// The file is larger than [`Limits::bytes`](super::Limits::bytes).
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// The limit, in bytes.
        limit: usize,
    },
    /// More pixels than [`Limits`](super::Limits) allow, in total or in width or height.
    #[error("{width} × {height} pixels are too many")]
    TooLarge {
        /// Width in the file's header, in pixels.
        width: u32,
        /// Height in the file's header, in pixels.
        height: u32,
    },
    /// Within the limits of size, but too costly: too many scans, too much memory.
    #[error("too costly to decode: {0}")]
    TooComplex(String),
    /// The file ends before the picture does.
    #[error("the file ends too early")]
    Truncated,
    /// The file contradicts its own format.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// The crop lies outside of the picture.
    #[error("the crop lies outside the picture")]
    CropOutside,
    /// [`Limits::deadline`](super::Limits::deadline) has passed.
    #[error("decoding took too long")]
    TookTooLong,
}

impl Rejected {
    /// Stable code for clients and for the store.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::ArithmeticJpeg => "arithmetic_jpeg",
            Self::Unsupported(_) => "unsupported",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::TooLarge { .. } => "too_large",
            Self::TooComplex(_) => "too_complex",
            Self::Truncated => "truncated",
            Self::Corrupt(_) => "corrupt",
            Self::CropOutside => "crop_outside",
            Self::TookTooLong => "took_too_long",
        }
    }
}
