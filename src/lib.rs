#![doc = include_str!("lib.md")]

mod builder;
#[cfg(feature = "http")]
pub mod http;
mod outgoing_mail;
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
pub use couple_core::{
    account, date, device, events, glance, job, limits, mail, media, notification, pairing, push, timeline,
};
#[doc(inline)]
pub use couple_media::{blobs, gallery, picture};
#[doc(inline)]
pub use couple_notify as notify;
#[doc(inline)]
pub use couple_store as store;
pub use outgoing_mail::Mails;
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
    #[doc = include_str!("../docs/hosting/users.md")]
    struct HostUsers;
    #[doc = include_str!("../docs/hosting/entry-kinds.md")]
    struct EntryKinds;
    #[doc = include_str!("../docs/hosting/events-and-jobs.md")]
    struct EventsAndJobs;
    #[doc = include_str!("../docs/hosting/routes.md")]
    struct Routes;
    #[doc = include_str!("../docs/hosting/mail.md")]
    struct Mail;
    #[doc = include_str!("../docs/hosting/push.md")]
    struct Push;
    #[doc = include_str!("../docs/hosting/database.md")]
    struct Database;
    #[doc = include_str!("../docs/hosting/process.md")]
    struct Process;
}
