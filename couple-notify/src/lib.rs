//! Delivery to users: mail, and live streams.
//!
//! [`mail`] sends mail:
//!
//! | [`Mailer`](couple_core::mail::Mailer) | for |
//! |---|---|
//! | [`mail::FileMailer`] | development: each mail is an `.eml` file |
//! | [`mail::MemoryMailer`] | tests: `sent()` returns the mails |
//! | [`mail::FailingMailer`] | tests of failures to send |
//! | `mail::SmtpMailer` (feature `smtp`) | production |
//!
//! [`live`] streams a couple's log from a cursor, over any transport.

pub mod live;
pub mod mail;
