//! Mail over SMTP.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use couple_core::{
    Error, ErrorKind,
    mail::{Mail, Mailer},
};
use lettre::{
    message::Message,
    transport::smtp::{
        self,
        client::AsyncSmtpConnection,
        commands::{Data, Mail as MailFrom, Rcpt},
    },
};
use tokio::time::{Instant, timeout};

use super::{
    Letterhead,
    smtp_url::{SmtpServer, retryable_error},
};

/// Maximum time to connect: TCP, TLS, greeting, EHLO and sign-in together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to send one mail on an open connection.
///
/// Below the five minutes of RFC 5321, 4.5.3.2: a mail that times out is sent again.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum connections that are kept open for the next mail.
const MAX_IDLE_CONNECTIONS: usize = 4;
/// Maximum time that an idle connection is kept. Servers close theirs after some minutes.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// Mailer that sends to an SMTP server.
///
/// An error is [`ErrorKind::Rejected`], which is final, only when the server refuses the recipient or the content permanently: a 5xx
/// reply to `RCPT TO`, `DATA` or the message itself (RFC 5321, 4.2.1). Every other failure is retried, even a 5xx reply to the
/// connection, to the sign-in or to the sender: those are faults of the configuration, and no mail is lost until an operator
/// corrects it.
#[derive(Clone)]
pub struct SmtpMailer {
    server: Arc<SmtpServer>,
    letterhead: Letterhead,
    idle: Arc<Mutex<Vec<(AsyncSmtpConnection, Instant)>>>,
}

impl fmt::Debug for SmtpMailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpMailer").field("server", &self.server).finish_non_exhaustive()
    }
}

impl SmtpMailer {
    /// Creates a mailer from a URL.
    ///
    /// It is `smtp://` or `smtps://`, with `USER:PASSWORD@` (percent-encoded) if the server requires it.
    ///
    /// | URL | connection | default port |
    /// |---|---|---|
    /// | `smtps://user:password@host` | TLS from the first byte (RFC 8314) | 465 |
    /// | `smtp://user:password@host`, `smtp://host?tls=required` | STARTTLS, required | 587 |
    /// | `smtp://host?tls=opportunistic` | STARTTLS when the server offers it | 587 |
    /// | `smtp://host`, `smtp://user:password@host?tls=none` | clear text | 25 |
    ///
    /// A password in clear text to a host other than loopback is logged as a warning. With TLS the server's certificate must be
    /// valid, name the host of the URL and be signed by a public authority, or by one of
    /// [`with_root_certificates`](Self::with_root_certificates); this also holds for `?tls=opportunistic` once the server has offered it.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for an invalid URL. The message does not contain the URL, which may hold a password.
    pub fn new(url: &str, letterhead: Letterhead) -> Result<Self, Error> {
        let server = SmtpServer::parse(url)?;
        if server.sends_password_in_clear_text() {
            tracing::warn!(
                "the SMTP password is sent in clear text: use smtps:// or leave out ?tls=none in the URL"
            );
        }
        Ok(Self { server: Arc::new(server), letterhead, idle: Arc::default() })
    }

    /// Also trusts server certificates that these root certificates have signed, for a relay with a private authority.
    ///
    /// `pem` contains one or more certificates in PEM format. Several calls add up. Without TLS the certificates have no effect.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if `pem` contains no certificate or an invalid one.
    pub fn with_root_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        Arc::make_mut(&mut self.server).trust(pem)?;
        // Connections of the mailer that this one was cloned from had other roots.
        self.idle = Arc::default();
        Ok(self)
    }

    /// Returns an idle connection that still responds, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Error> {
        let connected = timeout(CONNECT_TIMEOUT, async {
            while let Some(mut connection) = self.take_idle() {
                if connection.test_connected().await {
                    return Ok(connection);
                }
            }
            self.server.connect().await
        });
        connected.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::TimedOut, "send mail").context("the SMTP server does not respond"))
        })
    }

    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < MAX_IDLE_TIME);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep_idle(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE_CONNECTIONS {
            idle.push((connection, Instant::now()));
        }
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        let message = self.letterhead.render(mail)?;
        let mut connection = self.connection().await?;
        let sent =
            timeout(SEND_TIMEOUT, send_message(&mut connection, &message)).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::TimedOut, "send mail")
                    .context("the SMTP server stopped responding"))
            });
        // After a refusal the connection is in the middle of a mail transaction, so it is closed instead of reset.
        if sent.is_ok() {
            self.keep_idle(connection);
        }
        sent
    }
}

/// Sends one mail over an open connection: sender, recipients, content.
async fn send_message(connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), Error> {
    let envelope = message.envelope();
    let sender = MailFrom::new(envelope.from().cloned(), Vec::new());
    connection.command(sender).await.map_err(|error| {
        retryable_error(error)
            .context("the SMTP server refuses the sender: check the address that mail is sent from")
    })?;
    for recipient in envelope.to() {
        connection.command(Rcpt::new(recipient.clone(), Vec::new())).await.map_err(recipient_error)?;
    }
    connection.command(Data).await.map_err(message_error)?;
    connection.message(&message.formatted()).await.map_err(message_error)?;
    Ok(())
}

/// A failure at `RCPT TO`.
///
/// Many relays refuse the client, the sign-in or the sender only here (Postfix's `smtpd_delay_reject`): policy
/// (5.7.x), sender addresses (5.1.7, 5.1.8) and a 554 without a status are retried (RFC 3463, 3.2 and 3.8).
fn recipient_error(error: smtp::Error) -> Error {
    let text = error.to_string();
    let has_status = |status: &str| text.contains(&format!(" {status}"));
    let unspecific = error.status().map(u16::from) == Some(554) && !has_status("5.1.") && !has_status("5.2.");
    if has_status("5.7.") || has_status("5.1.7") || has_status("5.1.8") || unspecific {
        retryable_error(error)
    } else {
        message_error(error)
    }
}

/// A failure after the sender was accepted.
///
/// A 5xx is final, unless it is about the protocol or a missing sign-in (RFC 5321, 4.2.2 and RFC 4954, 6).
fn message_error(error: smtp::Error) -> Error {
    match error.status().map(u16::from) {
        Some(500 | 502 | 503 | 530 | 534 | 535 | 538) => retryable_error(error),
        Some(_) if error.is_permanent() => Error::new(ErrorKind::Rejected, "send mail").source(error),
        _ => retryable_error(error),
    }
}
