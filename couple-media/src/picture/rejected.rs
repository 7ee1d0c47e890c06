//! Why a picture is not taken.

/// Why a picture is not taken. Every reason is final: the same bytes are refused again, so a job that meets one does not
/// retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Not a picture, or of a type that is not taken.
    #[error("not a picture of a known type")]
    UnknownType,
    /// A JPEG with arithmetic coding (ITU-T T.81, annex D), which no browser shows either.
    #[error("a JPEG with arithmetic coding cannot be decoded; save it with Huffman coding")]
    ArithmeticJpeg,
    /// A picture of a known type that uses a feature which is not decoded: lossless JPEG, twelve bits in a JPEG, ….
    #[error("this kind of picture is not read: {0}")]
    Unsupported(String),
    /// The file is larger than [`Limits::bytes`](super::Limits::bytes).
    #[error("more than {limit} bytes")]
    TooManyBytes {
        /// The limit, in bytes.
        limit: usize,
    },
    /// More pixels than [`Limits::megapixels`](super::Limits::megapixels) or [`Limits::side`](super::Limits::side) let in.
    #[error("{width} × {height} pixels are too many")]
    TooLarge {
        /// As its header says, in pixels.
        width: u32,
        /// As its header says, in pixels.
        height: u32,
    },
    /// Within the limits by its size, and made to cost more than such a picture should: too many scans, too much memory.
    #[error("too costly to decode: {0}")]
    TooComplex(String),
    /// The file ends before the picture does.
    #[error("the file ends too early")]
    Truncated,
    /// The file contradicts its own format.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// The recipe's crop shows nothing of the picture.
    #[error("the crop lies outside the picture")]
    CropOutside,
    /// [`Limits::deadline`](super::Limits::deadline) is over.
    #[error("took too long")]
    TookTooLong,
}

impl Rejected {
    /// A word that stays, for clients and for what is stored.
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
