//! Mail: texts of messages, and mailers.

mod built_in;
mod catalogue;
#[cfg(any(feature = "sendmail", feature = "smtp"))]
mod circuit_breaker;
#[cfg(feature = "dkim")]
mod dkim;
mod fakes;
#[cfg(feature = "feedback")]
mod feedback;
mod file;
mod render;
#[cfg(feature = "sendmail")]
mod sendmail;
#[cfg(feature = "smtp")]
mod smtp;
#[cfg(feature = "smtp")]
mod smtp_failure;
#[cfg(feature = "smtp")]
mod smtp_url;
mod stop_page;
mod templates;

#[cfg(feature = "dkim")]
pub use dkim::DkimKey;
pub use fakes::{FailingMailer, MemoryMailer};
#[cfg(feature = "feedback")]
pub use feedback::read_report;
pub use file::FileMailer;
pub use render::Letterhead;
#[cfg(feature = "sendmail")]
pub use sendmail::SendmailMailer;
#[cfg(feature = "smtp")]
pub use smtp::SmtpMailer;
pub use stop_page::StopPage;
pub use templates::{Templates, defused};
