//! Outgoing mails, and reports about them.

use async_trait::async_trait;
use couple_core::{
    EmailKey, Error,
    mail::{CheckedMailer, Mail, Mailer, RetireReason},
};

use crate::Backend;

/// Outgoing mails of a [`Backend`], and reports about them.
///
/// It is a [`Mailer`] for the host's own jobs: its mails get a Message-ID by which reports are recognized, and retired addresses get none.
#[derive(Clone)]
pub struct Mails(pub(crate) CheckedMailer);

impl std::fmt::Debug for Mails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mails").finish_non_exhaustive()
    }
}

impl Backend {
    /// Outgoing mails, and reports about them.
    #[must_use]
    pub fn mail(&self) -> &Mails {
        &self.0.mails
    }
}

impl Mails {
    /// Takes a message that a mail server or a mailbox provider has sent to the sender's address or to the address for complaints.
    ///
    /// A permanent failure (RFC 3464, status 5.x.x) or a complaint (RFC 5965) retires the address in one commit, with the event
    /// [`AddressRetired`](crate::events::Event::AddressRetired): it gets only mails with a code or a link that its owner asks for, until one
    /// of them is used. The account stays. Anything else changes nothing.
    ///
    /// Anyone can send such a message. It counts only if it names the Message-ID of a mail that this installation has sent to the recipient,
    /// which contains a code that only the key ring can compute.
    ///
    /// # Errors
    /// Errors of the store.
    #[cfg(feature = "feedback")]
    pub async fn feedback(&self, raw: &[u8]) -> Result<couple_core::mail::ReportOutcome, Error> {
        match couple_notify::mail::read_report(raw) {
            Some(report) => self.0.retire(&report).await,
            None => Ok(couple_core::mail::ReportOutcome::Unknown),
        }
    }

    /// Reason for which an address gets no mails; none if it gets them.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn retired(&self, email: &EmailKey) -> Result<Option<RetireReason>, Error> {
        self.0.retired(email).await
    }
}

#[async_trait]
impl Mailer for Mails {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        self.0.send(mail).await
    }
}
