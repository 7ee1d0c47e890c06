//! Delivery to users: mail, push messages, and live streams.
//!
//! [`mail`] sends mail:
//!
//! | [`Mailer`](couple_core::mail::Mailer) | for |
//! |---|---|
//! | [`mail::FileMailer`] | development: each mail is an `.eml` file |
//! | [`mail::MemoryMailer`] | tests: `sent()` returns the mails |
//! | [`mail::FailingMailer`] | tests of failures to send |
//! | `mail::SmtpMailer` (feature `smtp`) | production |
//! | `mail::SendmailMailer` (feature `sendmail`) | production, through a mail server on the same machine |
//!
//! With the feature `dkim`, `Letterhead::with_dkim` signs mails for the domain of their sender.
//!
//! [`push`] sends push messages to devices:
//!
//! | [`Pusher`](couple_core::push::Pusher) | for |
//! |---|---|
//! | `push::Pushers` (feature `push`) | production: `push::Apns`, `push::Fcm` and `push::WebPush` |
//! | [`push::MemoryPusher`] | tests: `sent()` returns the messages |
//!
//! [`live`] streams a couple's log from a cursor, over any transport.

pub mod live;
pub mod mail;
pub mod push;
