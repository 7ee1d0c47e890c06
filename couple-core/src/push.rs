//! Port for push messages: the platform's service shows them on a device that has no connection to the back end.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Error, Secret, Timestamp};

/// Receiver of push messages: one app, widget or Live Activity on one device, or one browser.
///
/// `Debug` hides the token, the endpoint and the authentication secret, which address the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Apple Push Notification service.
    Apns {
        /// Device token: hexadecimal digits in lower case.
        token: Secret<String>,
        /// Bundle id of the app, without the suffix of a widget or Live Activity.
        app: String,
        /// Whether the token was made by a development build, for Apple's test environment.
        sandbox: bool,
    },
    /// Firebase Cloud Messaging.
    Fcm {
        /// Registration token.
        token: Secret<String>,
        /// Application id or package name of the app.
        app: String,
    },
    /// Push service of a browser (RFC 8030).
    WebPush {
        /// URL of the subscription: `https`, without credentials.
        endpoint: Secret<String>,
        /// Public key of the browser on the curve P-256 (`p256dh`): an uncompressed point.
        key: [u8; 65],
        /// Authentication secret of the subscription (`auth`).
        auth: Secret<[u8; 16]>,
    },
}

/// Surface of the device that a destination updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Surface {
    /// Notifications of the app.
    Alert,
    /// Widgets of the app on the home or lock screen.
    Widget,
    /// Controls of the app in the control centre.
    Control,
    /// Live Activities that do not run yet.
    LiveActivityStart,
    /// One running Live Activity.
    LiveActivityUpdate,
}

/// Message for one destination.
#[derive(Debug, Clone)]
pub struct Push {
    /// Id that is the same for all attempts.
    pub id: Uuid,
    /// Receiver.
    pub to: Destination,
    /// Content.
    pub payload: Payload,
    /// Name of what the message replaces: a device that has not shown an earlier message of the same name shows
    /// this one only. At most 64 bytes; a service that takes less receives a digest of it.
    pub collapse: Option<String>,
    /// Whether the device is to be woken.
    pub urgency: Urgency,
    /// Time after which the service discards the message; none if it is delivered at once or never.
    pub expires_at: Option<Timestamp>,
}

/// How soon a device receives a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Urgency {
    /// At once.
    #[default]
    High,
    /// When it saves power.
    Normal,
}

/// Content of a push message.
///
/// `Debug` shows the kind only, because the text can be of a person.
#[derive(Clone, PartialEq)]
pub enum Payload {
    /// Notification that the device shows.
    Alert(Alert),
    /// Data for the app, which shows nothing.
    Background {
        /// Values for the app.
        data: Map<String, Value>,
    },
    /// Asks widgets or controls to read their content again.
    Reload {
        /// [`Surface::Widget`] or [`Surface::Control`].
        surface: Surface,
    },
    /// Starts, updates or ends a Live Activity.
    LiveActivity(LiveActivity),
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alert(_) => "Alert",
            Self::Background { .. } => "Background",
            Self::Reload { .. } => "Reload",
            Self::LiveActivity(_) => "LiveActivity",
        })
    }
}

/// Notification that a device shows.
#[derive(Clone, Default, PartialEq)]
pub struct Alert {
    /// First line.
    pub title: String,
    /// Text below the title; may be empty.
    pub body: String,
    /// Number on the app's icon; none leaves it as it is.
    pub badge: Option<u32>,
    /// Whether the device plays its sound for notifications.
    pub sound: bool,
    /// Name of the group in which the device lists the notification.
    pub thread: Option<String>,
    /// Values for the app when the person opens the notification.
    pub data: Map<String, Value>,
}

/// Start, update or end of a Live Activity.
#[derive(Clone, PartialEq)]
pub struct LiveActivity {
    /// Start, update or end.
    pub event: LiveActivityEvent,
    /// State that it shows, as the app declares it.
    pub content: Map<String, Value>,
    /// Time of the state: the device ignores a state that is older than the one it shows.
    pub at: Timestamp,
    /// Time from which the state is shown as out of date.
    pub stale_at: Option<Timestamp>,
    /// Notification that the device shows with it.
    pub alert: Option<Alert>,
}

/// Change of a Live Activity.
#[derive(Clone, PartialEq)]
pub enum LiveActivityEvent {
    /// Starts one.
    Start {
        /// Name of the type of its attributes in the app.
        attributes_type: String,
        /// Attributes, which do not change while it runs.
        attributes: Map<String, Value>,
    },
    /// Shows a new state.
    Update,
    /// Ends it.
    End {
        /// Time at which it leaves the screen; none leaves that to the device.
        dismissed_at: Option<Timestamp>,
    },
}

/// Failure of a push message.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The destination does not exist any more and must be retired.
    #[error("the destination is gone")]
    Gone {
        /// Time at which the service noticed it. A destination that was registered later stays.
        since: Option<Timestamp>,
    },
    /// The service or the network failed. Worth a retry.
    #[error("the push service is not available")]
    Unavailable {
        /// Delay that the service asks for.
        retry_after: Option<Duration>,
        /// Cause.
        #[source]
        error: Error,
    },
    /// The message can never be sent: the service refuses it, or there is no service for its destination. Refused credentials of the host
    /// are [`Unavailable`](Self::Unavailable): an operator can mend them before the message expires.
    #[error("the push service refuses the message")]
    Refused(#[source] Error),
}

/// Sends push messages.
#[async_trait]
pub trait Pusher: Send + Sync + 'static {
    /// Sends one message. `Ok` means that the push service has accepted it, not that the device has received it.
    ///
    /// # Errors
    /// A destination of a service that is not set up is [`PushError::Refused`] with
    /// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured).
    async fn push(&self, push: &Push) -> Result<(), PushError>;
}

#[async_trait]
impl<P: Pusher + ?Sized> Pusher for std::sync::Arc<P> {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        (**self).push(push).await
    }
}
