//! Push messages: to Apple's systems, through Firebase Cloud Messaging, and to browsers.
//!
//! | [`Pusher`](couple_core::push::Pusher) | for |
//! |---|---|
//! | `Pushers` (feature `push`) | production: `Apns`, `Fcm` and `WebPush`, by the destination of a message |
//! | [`MemoryPusher`] | tests: `sent()` returns the messages |

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
