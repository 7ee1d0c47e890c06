//! Mail: texts of messages, and mailers.

mod built_in;
mod catalogue;
#[cfg(feature = "smtp")]
mod circuit_breaker;
mod fakes;
mod file;
mod render;
#[cfg(feature = "smtp")]
mod smtp;
#[cfg(feature = "smtp")]
mod smtp_failure;
#[cfg(feature = "smtp")]
mod smtp_url;
mod templates;

pub use fakes::{FailingMailer, MemoryMailer};
pub use file::FileMailer;
pub use render::Letterhead;
#[cfg(feature = "smtp")]
pub use smtp::SmtpMailer;
pub use templates::{Templates, defused};
