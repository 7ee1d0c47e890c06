//! Push messages: to Apple's systems, through Firebase Cloud Messaging, and to browsers.
//!
//! [`Pushers`] sends each message through the service of its destination. Every service is optional:
//!
//! ```no_run
//! use couple_notify::push::{Apns, ConnectionOptions, Fcm, Pushers, VapidKey, WebPush};
//! # fn pushers(p8: &str, service_account: &str) -> Result<Pushers, couple_core::Error> {
//! let options = ConnectionOptions::default();
//! let apns = Apns::new("ABC1234567", "DEF1234567", p8, &options)?;
//! let fcm = Fcm::new(service_account, &options)?;
//! let key = VapidKey::new("BP4z9KsN6nGRT…", "yfWPiYE-n46HL…", "mailto:ops@example.org")?;
//! let web_push = WebPush::new(key, &options);
//! # Ok(
//! Pushers::new().with_apns(apns).with_fcm(fcm).with_web_push(web_push)
//! # )
//! # }
//! ```
//!
//! There is one HTTP/2 connection per server. It carries as many messages concurrently as the server allows; others wait. A PING
//! without an answer, a missing response or GOAWAY lets later messages use a new connection. A message is repeated only if the
//! server has certainly not processed it; every other failure is [`PushError::Unavailable`](couple_core::push::PushError).

#[cfg(feature = "push")]
mod access_token;
#[cfg(feature = "push")]
mod addresses;
#[cfg(feature = "push")]
mod apns;
#[cfg(feature = "push")]
mod apns_request;
#[cfg(feature = "push")]
mod connect;
#[cfg(feature = "push")]
mod encryption;
#[cfg(feature = "push")]
mod failure;
mod fakes;
#[cfg(feature = "push")]
mod fcm;
#[cfg(feature = "push")]
mod fcm_message;
#[cfg(feature = "push")]
mod http_client;
#[cfg(feature = "push")]
mod jwt;
#[cfg(feature = "push")]
mod provider_token;
#[cfg(feature = "push")]
mod pushers;
#[cfg(feature = "push")]
mod single_flight;
#[cfg(feature = "push")]
mod vapid;
#[cfg(feature = "push")]
mod web_push;

#[cfg(feature = "push")]
pub use apns::Apns;
#[cfg(feature = "push")]
pub use connect::ConnectionOptions;
pub use fakes::MemoryPusher;
#[cfg(feature = "push")]
pub use fcm::Fcm;
#[cfg(feature = "push")]
pub use pushers::Pushers;
#[cfg(feature = "push")]
pub use vapid::VapidKey;
#[cfg(feature = "push")]
pub use web_push::WebPush;
