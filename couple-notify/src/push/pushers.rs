//! Push services of an installation.

use std::fmt;

use async_trait::async_trait;
use couple_core::push::{Destination, Push, PushError, Pusher};

use super::{Apns, Fcm, WebPush, failure::SendFailure};

/// Sends each message through the service of its destination.
///
/// A message for a service that is not set up is refused as misconfigured.
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
