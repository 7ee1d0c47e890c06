//! Mail: texts of messages, and mailers.

mod fakes;
mod file;
mod render;
#[cfg(feature = "smtp")]
mod smtp;
#[cfg(feature = "smtp")]
mod smtp_url;

pub use fakes::{FailingMailer, MemoryMailer};
pub use file::FileMailer;
pub use render::Letterhead;
#[cfg(feature = "smtp")]
pub use smtp::SmtpMailer;
