//! Mail over SMTP.

use std::time::Duration;

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind,
    mail::{Mail, Mailer},
};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::Letterhead;

/// Hands mail to an SMTP server. A 4xx answer is worth another try, a 5xx is for good (RFC 5321, 4.2.1).
#[derive(Debug, Clone)]
pub struct SmtpMailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    letterhead: Letterhead,
}

impl SmtpMailer {
    /// A server by URL: `smtps://user:password@host`, `smtp://host:25`, `smtp://…?tls=required` for STARTTLS.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a URL that is none.
    pub fn new(url: &str, letterhead: Letterhead) -> Result<Self, Error> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            // The URL may hold a password: only the reason is told.
            .map_err(|source| Error::new(ErrorKind::Misconfigured, "SMTP URL").source(source))?
            .timeout(Some(Duration::from_secs(10)))
            .build();
        Ok(Self { transport, letterhead })
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        let message = self.letterhead.render(mail)?;
        self.transport.send(message).await.map(drop).map_err(|error| {
            let kind = if error.is_permanent() {
                ErrorKind::Rejected
            } else if error.is_timeout() {
                ErrorKind::TimedOut
            } else {
                ErrorKind::Unavailable
            };
            Error::new(kind, "send mail").source(error)
        })
    }
}
