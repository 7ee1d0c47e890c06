//! How the partner hears of it.
//!
//! [`mail`] hands mail over:
//!
//! | [`Mailer`](couple_core::mail::Mailer) | for |
//! |---|---|
//! | [`mail::FileMailer`] | development: each mail is an `.eml` file |
//! | [`mail::MemoryMailer`] | tests: `sent()` tells what was handed over |
//! | [`mail::FailingMailer`] | tests of what happens when it cannot |
//! | `mail::SmtpMailer` (feature `smtp`) | production |
//!
//! [`live`] follows a couple's log from a cursor, over whatever transport.

pub mod live;
pub mod mail;
