//! Pictures: from what a phone uploads to what the two may see.
//!
//! [`picture`] turns the bytes of an upload into renditions that hold pixels and nothing else: checked before they are
//! decoded, turned upright, in sRGB, without a word about where they were taken. It is synchronous and knows neither
//! stores nor HTTP; call it on a thread that may be busy for a while. [`blobs`] keeps bytes by name: in memory, as files, in S3.
//! [`gallery`] has both work together with [`couple_core::media`].
//! [`fair_permits`] shares permits fairly between accounts or couples.

pub mod blobs;
pub mod fair_permits;
pub mod gallery;
pub mod picture;
