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

/// Keeps what was handed over.
#[derive(Debug, Clone, Default)]
pub struct MemoryMailer(Arc<Mutex<Vec<Mail>>>);

impl MemoryMailer {
    /// Nothing sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// What was handed over, in order.
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

/// Fails a number of times, then hands over to another.
#[derive(Debug)]
pub struct FailingMailer<M> {
    left: AtomicUsize,
    kind: ErrorKind,
    then: M,
}

impl<M> FailingMailer<M> {
    /// Fails `times` times with `kind`, then passes on to `then`.
    pub const fn new(times: usize, kind: ErrorKind, then: M) -> Self {
        Self { left: AtomicUsize::new(times), kind, then }
    }
}

#[async_trait]
impl<M: Mailer> Mailer for FailingMailer<M> {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        let failing = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failing {
            Ok(_) => Err(Error::new(self.kind, "send mail").context("told to fail")),
            Err(_) => self.then.send(mail).await,
        }
    }
}
