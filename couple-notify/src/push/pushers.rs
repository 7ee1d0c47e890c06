//! Push services of an installation.

use std::fmt;

use async_trait::async_trait;
use couple_core::push::{Destination, Push, PushError, Pusher};

use super::{Apns, Fcm, WebPush, failure::SendFailure};

/// Sends each message through the service of its destination.
///
/// Every service is optional. A message for one that is not set up is refused as misconfigured.
///
/// ```no_run
/// use couple_notify::push::{Apns, ConnectionOptions, Fcm, Pushers, VapidKey, WebPush};
/// # fn pushers(p8: &str, service_account: &str) -> Result<Pushers, couple_core::Error> {
/// let options = ConnectionOptions::default();
/// let apns = Apns::new("ABC1234567", "DEF1234567", p8, &options)?;
/// let fcm = Fcm::new(service_account, &options)?;
/// let key = VapidKey::new("BP4z9KsN6nGRT…", "yfWPiYE-n46HL…", "mailto:ops@example.org")?;
/// let web_push = WebPush::new(key, &options);
/// # Ok(
/// Pushers::new().with_apns(apns).with_fcm(fcm).with_web_push(web_push)
/// # )
/// # }
/// ```
///
/// There is one HTTP/2 connection per server. It carries as many messages concurrently as the server allows; others wait. A PING
/// without an answer, a missing response or GOAWAY lets later messages use a new connection. A message is repeated only if the
/// server has certainly not processed it; other failures of a connection are [`PushError::Unavailable`].
#[derive(Debug, Clone, Default)]
pub struct Pushers {
    apns: Option<Apns>,
    fcm: Option<Fcm>,
    web_push: Option<WebPush>,
}

impl Pushers {
    /// Creates a router without services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends to Apple's systems.
    #[must_use]
    pub fn with_apns(mut self, apns: Apns) -> Self {
        self.apns = Some(apns);
        self
    }

    /// Sends through Firebase Cloud Messaging.
    #[must_use]
    pub fn with_fcm(mut self, fcm: Fcm) -> Self {
        self.fcm = Some(fcm);
        self
    }

    /// Sends to browsers.
    #[must_use]
    pub fn with_web_push(mut self, web_push: WebPush) -> Self {
        self.web_push = Some(web_push);
        self
    }
}

#[async_trait]
impl Pusher for Pushers {
    async fn push(&self, push: &Push) -> Result<(), PushError> {
        match &push.to {
            Destination::Apns { .. } => send(self.apns.as_ref(), "APNs", push).await,
            Destination::Fcm { .. } => send(self.fcm.as_ref(), "FCM", push).await,
            Destination::WebPush { .. } => send(self.web_push.as_ref(), "Web Push", push).await,
        }
    }
}

async fn send<P: Pusher>(pusher: Option<&P>, name: impl fmt::Display, push: &Push) -> Result<(), PushError> {
    match pusher {
        Some(pusher) => pusher.push(push).await,
        None => Err(SendFailure::misconfigured(format!("{name} is not set up")).into()),
    }
}
