//! Types of picture files, recognised by content.

/// A supported type of picture, recognised by the first bytes.
///
/// File names and `Content-Type` are ignored.
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
    /// HEIC: HEVC intra pictures, single or in tiles. Requires the feature `heic`.
    #[cfg(feature = "heic")]
    Heic,
}

impl Kind {
    /// All supported types.
    pub const ALL: &[Self] = &[
        Self::Jpeg,
        Self::Png,
        Self::WebP,
        Self::Gif,
        #[cfg(feature = "heic")]
        Self::Heic,
    ];

    /// Recognises a type by the first twelve bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            // `mif1` is the brand of HEIF in general, whatever its codec.
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

    /// Media type (RFC 2046, RFC 9649).
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
