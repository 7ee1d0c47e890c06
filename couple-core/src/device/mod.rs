//! Devices: the destinations to which push messages for a person are sent.
//!
//! A device is one surface of one installation of an app, or one browser: the app's notifications, its widgets or a
//! Live Activity each have a token, and each is a device with an id that the installation chooses. A destination
//! belongs to one account at a time, so a phone that changes hands shows nothing of its former owner. A device that
//! was registered by a built-in session is removed by the commit that ends the session.

mod destination;
mod port;
pub mod rules;
mod service;

pub use port::{DeviceChange, DeviceReads};
pub use service::{Devices, Registration};

use std::time::Duration;

use crate::{
    AccountId, DeviceId, Digest, Invalid, Locale, Secret, SessionId, TimeZoneName, Timestamp,
    push::{Destination, Surface},
};

/// Device to which push messages for an account are sent.
///
/// `Debug` shows no token, endpoint or secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Account that receives the messages.
    pub account: AccountId,
    /// Id that the installation of the app has chosen, unique within the account.
    pub id: DeviceId,
    /// Built-in session that registered the device, and with whose end it is removed; none with a host's own users.
    pub session: Option<SessionId>,
    /// Destination of the messages. It belongs to no other device.
    pub destination: Destination,
    /// Surface that the destination updates.
    pub surface: Surface,
    /// Language of the device.
    pub locale: Option<Locale>,
    /// Time zone of the device.
    pub time_zone: Option<TimeZoneName>,
    /// Version of the app.
    pub app_version: Option<String>,
    /// Time of the last registration. A notice of the push service that the destination is gone applies only if it is not older.
    pub registered_at: Timestamp,
}

/// Registration of a device as a client sends it, not yet checked.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// Destination of the messages.
    pub destination: NewDestination,
    /// Surface that the destination updates.
    pub surface: Surface,
    /// Language of the device, parsed by [`Locale::matched`]; an unknown one is ignored.
    pub locale: Option<String>,
    /// Time zone of the device, an IANA name; an unknown one is ignored.
    pub time_zone: Option<String>,
    /// Version of the app.
    pub app_version: Option<String>,
}

/// Destination as a client sends it, not yet checked.
///
/// `Debug` shows no token, endpoint or key.
#[derive(Debug, Clone)]
pub enum NewDestination {
    /// Apple Push Notification service.
    Apns {
        /// Device token in hexadecimal digits.
        token: Secret<String>,
        /// Bundle id of the app.
        app: String,
        /// Whether the token was made by a development build.
        sandbox: bool,
    },
    /// Firebase Cloud Messaging.
    Fcm {
        /// Registration token.
        token: Secret<String>,
        /// Application id or package name of the app.
        app: String,
    },
    /// Push service of a browser: the fields of `PushSubscription.toJSON()`.
    WebPush {
        /// URL of the subscription.
        endpoint: Secret<String>,
        /// Public key of the browser in base64url (`keys.p256dh`).
        key: Secret<String>,
        /// Authentication secret in base64url (`keys.auth`).
        auth: Secret<String>,
    },
}

/// Fields of a registration after the checks of [`rules::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedDevice {
    /// Destination of the messages.
    pub destination: Destination,
    /// Surface that the destination updates.
    pub surface: Surface,
    /// Language of the device, if it is known.
    pub locale: Option<Locale>,
    /// Time zone of the device, if it is known.
    pub time_zone: Option<TimeZoneName>,
    /// Version of the app.
    pub app_version: Option<String>,
}

impl Device {
    /// Digest of the destination, by which it is unique.
    #[must_use]
    pub fn destination_digest(&self) -> Digest {
        self.destination.digest()
    }
}

crate::options! {
    /// Limits of devices.
    #[derive(Debug, Clone)]
    pub struct DevicePolicy {
        /// Sets the maximum number of devices of an account. Default: 20.
        ///
        /// Each surface of an installation counts as a device.
        pub(crate) max_devices: u32 = 20, with_max_devices;
        /// Sets whether the endpoint of a browser may be an IP address or a name without a dot, such as `localhost`.
        ///
        /// Default: `false`. The sender of Web Push also checks the address to which a name resolves. For tests.
        pub(crate) local_endpoints: bool = false, with_local_endpoints;
    }
}

impl DevicePolicy {
    /// Maximum number of devices of an account.
    #[must_use]
    pub const fn max_devices(&self) -> u32 {
        self.max_devices
    }
}

/// Error of a device use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The account has the maximum number of devices.
    #[error("the account has {0} devices already; remove one first")]
    TooManyDevices(u32),
    /// The session of the request has ended.
    #[error("sign in first")]
    Unauthenticated,
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many registrations; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
}

impl DeviceError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_field",
            Self::TooManyDevices(_) => "too_many_devices",
            Self::Unauthenticated => "unauthenticated",
            Self::RateLimited(_) => "rate_limited",
        }
    }
}

impl From<crate::limits::Limited> for DeviceError {
    fn from(limited: crate::limits::Limited) -> Self {
        Self::RateLimited(limited.retry_after)
    }
}
