#![doc = include_str!("lib.md")]

mod builder;
#[cfg(feature = "http")]
pub mod http;
mod role;
mod service;

pub use builder::{Backend, BackendBuilder};
#[doc(inline)]
pub use couple_core as core;
#[doc(inline)]
pub use couple_core::{
    AccountId, Clock, CoupleId, Entropy, Error, ErrorKind, Failure, IdGenerator, Keyring, ManualClock,
    OsEntropy, Principal, RequestContext, Secret, Store, SystemClock, Timestamp, UuidV7,
};
#[doc(inline)]
pub use couple_core::{account, events, job, limits, mail, media, pairing, timeline};
#[doc(inline)]
pub use couple_media::{blobs, gallery, picture};
#[doc(inline)]
pub use couple_notify as notify;
#[doc(inline)]
pub use couple_store as store;
pub use role::Role;
pub use service::Service;

/// Examples in Markdown files, compiled and run as documentation tests.
#[cfg(doctest)]
mod examples {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/quickstart.md")]
    struct QuickStart;
    #[doc = include_str!("../docs/adapters.md")]
    struct Adapters;
    #[doc = include_str!("../docs/hosting.md")]
    struct Hosting;
}
