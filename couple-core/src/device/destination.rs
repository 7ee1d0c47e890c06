//! Stored forms of destinations and surfaces, and the digest by which a destination is unique.

use crate::{
    Digest, digest,
    push::{Destination, Surface},
};

impl Destination {
    /// Name of the push service as clients send it: `apns`, `fcm` or `web_push`.
    #[must_use]
    pub const fn platform(&self) -> &'static str {
        match self {
            Self::Apns { .. } => "apns",
            Self::Fcm { .. } => "fcm",
            Self::WebPush { .. } => "web_push",
        }
    }

    /// SHA-256 of the push service and the token or endpoint: equal for the same receiver, whatever the other fields.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let address = match self {
            Self::Apns { token, .. } | Self::Fcm { token, .. } => token.expose(),
            Self::WebPush { endpoint, .. } => endpoint.expose(),
        };
        digest(&[self.platform().as_bytes(), address.as_bytes()])
    }
}

impl Surface {
    /// All surfaces, by [`index`](Self::index).
    pub const ALL: [Self; 5] =
        [Self::Alert, Self::Widget, Self::Control, Self::LiveActivityStart, Self::LiveActivityUpdate];

    /// Name as clients send it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Widget => "widget",
            Self::Control => "control",
            Self::LiveActivityStart => "live_activity_start",
            Self::LiveActivityUpdate => "live_activity_update",
        }
    }
    /// Parses the result of [`as_str`](Self::as_str).
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|surface| surface.as_str() == text)
    }
    /// Number as stored.
    #[must_use]
    pub const fn index(self) -> i64 {
        match self {
            Self::Alert => 0,
            Self::Widget => 1,
            Self::Control => 2,
            Self::LiveActivityStart => 3,
            Self::LiveActivityUpdate => 4,
        }
    }
    /// Parses the result of [`index`](Self::index).
    #[must_use]
    pub fn from_index(index: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|surface| surface.index() == index)
    }
}
