//! What a file is, by its content.

/// A type of picture that is known, by its first bytes. What a client calls it (a name's ending, a `Content-Type`) is
/// never asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// JPEG: sequential and progressive, grey, YCbCr, RGB, CMYK and YCCK, 8 bits.
    Jpeg,
    /// PNG: every colour type and depth, interlaced or not.
    Png,
    /// WebP: lossy, lossless, animated.
    WebP,
    /// GIF, animated or not.
    Gif,
    /// HEIC: HEVC's intra pictures, in one piece or in tiles. Only with the feature `heic`.
    #[cfg(feature = "heic")]
    Heic,
}

impl Kind {
    /// All types that are read.
    pub const ALL: &[Self] = &[
        Self::Jpeg,
        Self::Png,
        Self::WebP,
        Self::Gif,
        #[cfg(feature = "heic")]
        Self::Heic,
    ];

    /// Looks at the first twelve bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            // `mif1` says that it is HEIF, and not of which kind.
            #[cfg(feature = "heic")]
            [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..]
                if [b"heic", b"heix", b"heim", b"heis", b"mif1"]
                    .iter()
                    .any(|known| brand.starts_with(*known)) =>
            {
                Some(Self::Heic)
            }
            _ => None,
        }
    }

    /// Its media type (RFC 2046, RFC 9649).
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
            #[cfg(feature = "heic")]
            Self::Heic => "image/heic",
        }
    }
}
