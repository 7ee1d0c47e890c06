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
use lettre::transport::smtp::{
    client::AsyncSmtpConnection,
    commands::{Data, Mail as MailFrom, Rcpt},
    extension::{Extension, MailBodyParameter, MailParameter},
};
use tokio::time::Instant;

use super::{
    Letterhead,
    circuit_breaker::{CircuitBreaker, Outage, Permit},
    render::RenderedMail,
    smtp_failure::{Cause, Failure, Stage, Verdict},
    smtp_url::{SmtpServer, until},
};

/// Maximum time until the reply to `MAIL FROM`, `RCPT TO` and `DATA` each.
const ENVELOPE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time until the reply to `MAIL FROM` on a connection that was idle: without one it is replaced by a new connection.
const IDLE_REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time to send the message, and until the reply to its end.
///
/// Longer than the others, because the server may have accepted a mail whose reply is missing: it is sent again, and its recipient gets
/// two copies (RFC 5321, 4.5.3.2.6).
const CONTENT_TIMEOUT: Duration = Duration::from_mins(2);
/// Shortest time after which a mail that waits for the end of an outage is tried again.
const MIN_DEFERRAL: Duration = Duration::from_millis(100);
/// Maximum connections that are kept open for the next mail.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// Maximum time that an idle connection is kept. Servers close theirs after some minutes.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// Mailer that sends to an SMTP server.
///
/// | failure | error | the job |
/// |---|---|---|
/// | 5xx reply to `RCPT TO`, `DATA` or the message, about the recipient or the message | [`ErrorKind::Rejected`] | is dead, with the reply |
/// | 4xx reply to these | [`ErrorKind::Unavailable`] | is retried after a back-off |
/// | 5xx reply to these about the client or the sender (status 5.7.x) | [`ErrorKind::Unavailable`], logged at `error` | is retried after a back-off |
/// | 5xx reply to the connection, `EHLO`, `STARTTLS`, `AUTH` or `MAIL FROM`; an invalid certificate | the same, with a [`deferral`](Error::deferral) | waits for an operator, without using up attempts |
/// | 4xx reply to these; no connection; no reply | the same or [`ErrorKind::TimedOut`] | waits for the server, without using up attempts |
///
/// The last two are outages. During an outage a circuit breaker, which clones of the mailer share, keeps mails from the server. One mail at a time
/// probes it: after 1 s, then after twice as long each time up to a minute; after a 5xx reply from 30 s up to 5 minutes. Ten
/// temporary refusals in a row are an outage as well. A mail whose content was sent and not confirmed uses up an attempt even in an
/// outage, because each attempt can be a copy for its recipient.
#[derive(Clone)]
pub struct SmtpMailer {
    server: Arc<SmtpServer>,
    letterhead: Letterhead,
    idle: Arc<Mutex<Vec<(AsyncSmtpConnection, Instant)>>>,
    breaker: Arc<CircuitBreaker>,
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
    /// | `smtp://user:password@host`, `smtp://host` | STARTTLS, required | 587 |
    /// | `smtp://host?tls=opportunistic` | STARTTLS when the server offers it | 587 |
    /// | `smtp://host?tls=none` | clear text | 25 |
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
        Ok(Self { server: Arc::new(server), letterhead, idle: Arc::default(), breaker: Arc::default() })
    }

    /// Also trusts server certificates that these root certificates have signed, for a relay with a private authority.
    ///
    /// `pem` contains one or more certificates in PEM format. Several calls add up. Without TLS the certificates have no effect.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] if `pem` contains no certificate or an invalid one.
    pub fn with_root_certificates(mut self, pem: &[u8]) -> Result<Self, Error> {
        Arc::make_mut(&mut self.server).trust(pem)?;
        // Connections and outages of the mailer that this one was cloned from were those of other roots.
        self.idle = Arc::default();
        self.breaker = Arc::default();
        Ok(self)
    }

    /// Sends a message over an idle connection if there is one, otherwise over a new one.
    async fn deliver(&self, mail: &RenderedMail) -> Result<(), Failure> {
        if let Some(connection) = self.take_idle() {
            match self.deliver_over(connection, mail, IDLE_REPLY_TIMEOUT).await {
                // Nothing of the mail was accepted, so a new connection cannot repeat it.
                Err(failure) if failure.is_closed_idle_connection() => {}
                delivered => return delivered,
            }
        }
        self.deliver_over(self.server.connect().await?, mail, ENVELOPE_TIMEOUT).await
    }

    async fn deliver_over(
        &self,
        mut connection: AsyncSmtpConnection,
        mail: &RenderedMail,
        first_reply_timeout: Duration,
    ) -> Result<(), Failure> {
        // After a failure the connection is in the middle of a mail transaction, so it is closed instead of reset.
        send_mail(&mut connection, mail, first_reply_timeout).await?;
        self.keep_idle(connection);
        Ok(())
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
        let mail = self.letterhead.render(mail)?;
        let permit = self.breaker.permit().await.map_err(|delay| {
            Error::new(ErrorKind::Unavailable, "send mail")
                .context("the mail waits for the end of an outage of the SMTP server")
                .deferred(delay.max(MIN_DEFERRAL))
        })?;
        match self.deliver(&mail).await {
            Ok(()) => {
                permit.worked();
                Ok(())
            }
            Err(failure) => Err(report(failure, permit)),
        }
    }
}

/// Reports a failure to the circuit breaker and the log; returns the error for the job.
fn report(failure: Failure, permit: Permit<'_>) -> Error {
    let (verdict, stage) = (failure.verdict(), failure.stage);
    let error = failure.into_error();
    match verdict {
        Verdict::Final => permit.worked(),
        Verdict::Refused { alert } => {
            if alert {
                tracing::error!(%error, "the SMTP server refuses a mail because of its client or sender");
            }
            permit.refused();
        }
        Verdict::Outage(outage) => {
            let (delay, is_new) = permit.failed(outage);
            match outage {
                _ if !is_new => {}
                Outage::Permanent => {
                    tracing::error!(%error, ?delay, "the SMTP server takes no mail until this is corrected: mails wait");
                }
                Outage::Temporary => {
                    tracing::warn!(%error, ?delay, "the SMTP server has an outage: mails wait");
                }
            }
            // A later failure can depend on the mail, and after the content it can be a copy.
            if stage <= Stage::Sender {
                return error.deferred(delay.max(MIN_DEFERRAL));
            }
        }
    }
    error
}

/// Sends one mail over an open connection: sender, recipients, content.
async fn send_mail(
    connection: &mut AsyncSmtpConnection,
    mail: &RenderedMail,
    first_reply_timeout: Duration,
) -> Result<(), Failure> {
    let envelope = &mail.envelope;
    let mut parameters = Vec::new();
    if !envelope.to().iter().all(|address| address.user().is_ascii()) {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(Failure { stage: Stage::Recipient, cause: Cause::NeedsSmtpUtf8 });
        }
        // The address is in a header as well. A server with SMTPUTF8 has 8BITMIME (RFC 6531, 3.1).
        parameters = vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)];
    }
    let limit = || Instant::now() + ENVELOPE_TIMEOUT;
    let sender = MailFrom::new(envelope.from().cloned(), parameters);
    let first_reply = Instant::now() + first_reply_timeout;
    until(first_reply, Stage::Sender, connection.command(sender)).await?;
    for recipient in envelope.to() {
        let recipient = Rcpt::new(recipient.clone(), Vec::new());
        until(limit(), Stage::Recipient, connection.command(recipient)).await?;
    }
    until(limit(), Stage::Data, connection.command(Data)).await?;
    let content = connection.command(content(&mail.text));
    until(Instant::now() + CONTENT_TIMEOUT, Stage::Content, content).await?;
    Ok(())
}

/// Text of a message as it follows `DATA`, with its end (RFC 5321, 4.5.2).
///
/// It is sent in one piece: its last bytes in a piece of their own could wait for an acknowledgement of the server's system (RFC 896).
fn content(message: &str) -> String {
    let mut text = message.replace("\r\n.", "\r\n..");
    if text.starts_with('.') {
        text.insert(0, '.');
    }
    if !text.ends_with("\r\n") {
        text.push_str("\r\n");
    }
    text.push_str(".\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_begin_with_a_dot_do_not_end_the_message() {
        for (message, sent) in [
            ("", "\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("a\r\n.\r\nb.\r\n", "a\r\n..\r\nb.\r\n.\r\n"),
            ("a\r\n.\r\n.\r\n..b", "a\r\n..\r\n..\r\n...b\r\n.\r\n"),
        ] {
            assert_eq!(content(message), sent, "{message:?}");
        }
    }
}
