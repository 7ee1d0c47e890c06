//! Mailers for tests.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind,
    mail::{Mail, Mailer},
};

/// Mailer that keeps mails in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryMailer(Arc<Mutex<Vec<Mail>>>);

impl MemoryMailer {
    /// Creates a mailer without mails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// All mails so far, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<Mail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The newest mail to an address.
    #[must_use]
    pub fn last_to(&self, address: &str) -> Option<Mail> {
        self.sent().into_iter().rev().find(|mail| mail.to.as_str() == address)
    }
}

#[async_trait]
impl Mailer for MemoryMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mail.clone());
        Ok(())
    }
}

/// Mailer that fails a number of times, then uses another mailer.
#[derive(Debug)]
pub struct FailingMailer<M> {
    left: AtomicUsize,
    kind: ErrorKind,
    then: M,
}

impl<M> FailingMailer<M> {
    /// Fails `times` times with `kind`, then uses `then`.
    pub const fn new(times: usize, kind: ErrorKind, then: M) -> Self {
        Self { left: AtomicUsize::new(times), kind, then }
    }
}

#[async_trait]
impl<M: Mailer> Mailer for FailingMailer<M> {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        let failing = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failing {
            Ok(_) => Err(Error::new(self.kind, "send mail").context("configured to fail")),
            Err(_) => self.then.send(mail).await,
        }
    }
}
