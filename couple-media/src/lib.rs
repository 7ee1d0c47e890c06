//! Pictures: uploading, rendering, storing and serving them.
//!
//! [`picture`] converts an uploaded file to renditions that contain pixels and nothing else: checked before they are decoded,
//! upright, in sRGB, without metadata. It is synchronous and independent of stores and HTTP; call it on a blocking thread. [`blobs`]
//! stores bytes by name: in memory, as files, in S3. [`gallery`] connects both with [`couple_core::media`].
//! [`fair_permits`] shares permits fairly between accounts or couples.

pub mod blobs;
pub mod fair_permits;
pub mod gallery;

pub use couple_picture as picture;

/// The example in `README.md`, compiled and run as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
