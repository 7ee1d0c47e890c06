//! Domain model of a couple: types, rules, ports (traits), services and background jobs.
//!
//! This crate does no I/O and depends on no database driver and no HTTP library. Every use case has three
//! steps:
//!
//! 1. **read** the state it needs through a port ([`account::AccountReads`], [`pairing::PairingReads`], …);
//! 2. **decide** in a pure function of that state, the command, the time and fresh random bytes (the `rules`
//!    module of each area);
//! 3. **commit** a list of [`Change`]s through [`Store::commit`]: all of them or none.
//!
//! An adapter is a type that implements [`Store`]; the tests of `couple-conformance` check it.
//!
//! Areas have the same names in every crate of the workspace: [`account`], [`pairing`], [`timeline`],
//! [`media`], [`device`], [`notification`], [`date`], [`job`]. In the folder of an area, `mod.rs` holds the types, `rules.rs` the pure decisions,
//! `port.rs` the reads and changes that a store must support, and `service.rs` the use cases.

/// Defines an options type: private fields, defaults, and one setter for each field.
///
/// An entry is the doc comment of the setter, then `field: type = default, setter;`.
#[doc(hidden)]
#[macro_export]
macro_rules! options {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$doc:meta])* $vis:vis $field:ident: $type:ty = $default:expr, $setter:ident;)+
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($vis $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $setter(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

/// Converts refusals that are the same in every area into the area's error.
macro_rules! from_common_refusals {
    ($error:ty) => {
        impl From<$crate::KeyReused> for $error {
            fn from(_: $crate::KeyReused) -> Self {
                Self::KeyReused
            }
        }

        impl From<$crate::limits::Limited> for $error {
            fn from(limited: $crate::limits::Limited) -> Self {
                Self::RateLimited(limited.retry_after)
            }
        }
    };
}

pub mod account;
mod clock;
pub mod date;
mod delegate_reads;
pub mod device;
mod email;
mod entropy;
mod error;
pub mod events;
pub mod glance;
mod host_statements;
mod id;
mod idempotency;
pub mod job;
pub mod limits;
pub mod live;
mod locale;
pub mod mail;
pub mod media;
pub mod notification;
pub mod pairing;
mod ports;
mod principal;
pub mod push;
mod request_context;
mod secret;
mod store;
mod text;
pub mod timeline;
mod typed_text;
mod unit_of_work;
pub mod upload;

#[doc(hidden)]
pub use async_trait::async_trait as __async_trait;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use email::{EmailAddress, EmailKey};
pub use entropy::{Entropy, OsEntropy, SeededEntropy};
pub use error::{BoxError, Error, ErrorKind, Failure};
pub use host_statements::HostStatements;
pub use id::{
    AccountId, CoupleId, DateId, DeviceId, IdGenerator, InviteId, JobId, MediaId, SessionId, TokenId,
    UploadId, UuidV7,
};
pub use idempotency::{Idempotency, IdempotencyChange, IdempotencyReads, KeyReused, OutcomeRecord};
pub use ports::Ports;
pub use principal::Principal;
pub use request_context::RequestContext;
pub use secret::{Digest, Keyring, Secret, digest};
pub use store::{Change, ChangeResult, CommitError, Committed, Conflict, Store};
pub use text::{DisplayName, Invalid, Label, Locale, TimeZoneName};
pub use unit_of_work::{Completed, Decision, MAX_ATTEMPTS, UnitOfWork};
