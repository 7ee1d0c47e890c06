//! Failures of a conversation with an SMTP server: their stage, and what they mean for the mail and for the server.

use couple_core::{Error, ErrorKind};
use lettre::transport::smtp;

use super::circuit_breaker::Outage;

/// Step of the conversation that failed, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// TCP, TLS from the first byte, greeting and `EHLO`.
    Connect,
    /// `STARTTLS` and the handshake.
    StartTls,
    /// `AUTH`.
    SignIn,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`.
    Data,
    /// The message and its end.
    Content,
}

impl Stage {
    /// Advice or meaning for the log.
    const fn context(self) -> &'static str {
        match self {
            Self::Connect => "cannot connect to the SMTP server",
            Self::StartTls => {
                "the SMTP connection cannot be encrypted by STARTTLS; a server without it needs ?tls=none in the URL"
            }
            Self::SignIn => "the SMTP server refuses the sign-in: check user and password",
            Self::Sender => "the SMTP server refuses the sender: check the address that mail is sent from",
            Self::Recipient => "the SMTP server does not accept the recipient",
            Self::Data | Self::Content => "the SMTP server does not accept the message",
        }
    }
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The mail can never be sent.
    Final,
    /// This mail is refused for now.
    Refused {
        /// The cause is probably the configuration, so an operator should know.
        alert: bool,
    },
    /// The server takes no mail.
    Outage(Outage),
}

/// Reason of a failure.
#[derive(Debug)]
pub(super) enum Cause {
    /// A negative reply, or the end of the connection.
    Smtp(smtp::Error),
    /// The server did not answer in time.
    TimedOut,
    /// The recipient's address is not ASCII, and the server does not offer SMTPUTF8 (RFC 6531).
    NeedsSmtpUtf8,
}

/// Failure of one attempt to send a mail.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) cause: Cause,
}

impl Failure {
    /// Whether the server has closed a connection that was idle, before it took anything of the mail.
    pub(super) fn is_closed_idle_connection(&self) -> bool {
        match &self.cause {
            Cause::Smtp(error) => {
                self.stage == Stage::Sender && matches!(error.status().map(u16::from), None | Some(421))
            }
            Cause::TimedOut => self.stage == Stage::Sender,
            Cause::NeedsSmtpUtf8 => false,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match &self.cause {
            Cause::NeedsSmtpUtf8 => Verdict::Final,
            Cause::TimedOut => Verdict::Outage(Outage::Temporary),
            Cause::Smtp(error) => match error.status() {
                Some(code) => verdict(self.stage, code.into(), &error.to_string()),
                // A missing STARTTLS, no common mechanism of the sign-in, or a certificate that is not valid.
                None if error.is_client() || is_refused_by_tls(error) => Verdict::Outage(Outage::Permanent),
                None => Verdict::Outage(Outage::Temporary),
            },
        }
    }

    /// Error for the job of the mail.
    pub(super) fn into_error(self) -> Error {
        let (verdict, context) = (self.verdict(), self.stage.context());
        let kind = match (verdict, &self.cause) {
            (Verdict::Final, _) => ErrorKind::Rejected,
            (_, Cause::TimedOut) => ErrorKind::TimedOut,
            (_, Cause::Smtp(error)) if error.is_timeout() => ErrorKind::TimedOut,
            _ => ErrorKind::Unavailable,
        };
        let error = Error::new(kind, "send mail");
        match self.cause {
            Cause::TimedOut => error.context(format!("{context}: no reply in time")),
            Cause::Smtp(cause) => error.context(context).source(cause),
            Cause::NeedsSmtpUtf8 => error.context(
                "the local part of the recipient's address is not ASCII, and the SMTP server does not offer SMTPUTF8",
            ),
        }
    }
}

/// Meaning of a 4xx or 5xx reply.
///
/// Up to `MAIL FROM` nothing depends on the recipient or the message: 5xx are faults of the configuration. Later ones are about the mail
/// (RFC 5321, 4.2.1), unless they are about the protocol or a missing sign-in (RFC 5321, 4.2.2; RFC 4954, 6).
fn verdict(stage: Stage, code: u16, text: &str) -> Verdict {
    match (stage, code) {
        (Stage::Connect | Stage::StartTls | Stage::SignIn | Stage::Sender, 500..) => {
            Verdict::Outage(Outage::Permanent)
        }
        // "Service not available, closing transmission channel", at any stage (RFC 5321, 3.8).
        (Stage::Connect | Stage::StartTls | Stage::SignIn | Stage::Sender, _) | (_, 421) => {
            Verdict::Outage(Outage::Temporary)
        }
        (_, ..500) => Verdict::Refused { alert: false },
        (_, 500 | 502 | 503 | 530 | 534 | 535 | 538) => Verdict::Outage(Outage::Permanent),
        (Stage::Recipient, _) if is_about_the_client(code, text) => Verdict::Refused { alert: true },
        _ => Verdict::Final,
    }
}

/// Whether a 5xx reply to `RCPT TO` is about the client, its sign-in or the sender.
///
/// Many relays refuse these only here (Postfix's `smtpd_delay_reject`): policy (5.7.x), sender addresses (5.1.7, 5.1.8), and 554 without a
/// status (RFC 3463, 3.2 and 3.8). It may also be a policy of the recipient, so other mails are still sent.
fn is_about_the_client(code: u16, text: &str) -> bool {
    let has_status = |status: &str| text.contains(&format!(" {status}"));
    let unspecific = code == 554 && !has_status("5.1.") && !has_status("5.2.");
    has_status("5.7.") || has_status("5.1.7") || has_status("5.1.8") || unspecific
}

/// Whether the TLS handshake failed, such as at an invalid certificate: `rustls` reports it as invalid data.
fn is_refused_by_tls(error: &smtp::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reply_about_recipient_or_message_is_final() {
        let before = [Stage::Connect, Stage::StartTls, Stage::SignIn, Stage::Sender];
        let after = [Stage::Recipient, Stage::Data, Stage::Content];
        for code in [421, 450, 451, 452, 454, 455] {
            for stage in before {
                assert_eq!(verdict(stage, code, ""), Verdict::Outage(Outage::Temporary), "{stage:?} {code}");
            }
            for stage in after {
                let expected = match code {
                    421 => Verdict::Outage(Outage::Temporary),
                    _ => Verdict::Refused { alert: false },
                };
                assert_eq!(verdict(stage, code, ""), expected, "{stage:?} {code}");
            }
        }
        for code in 500..600 {
            for stage in before {
                assert_eq!(verdict(stage, code, ""), Verdict::Outage(Outage::Permanent), "{stage:?} {code}");
            }
            for stage in after {
                let expected = match (stage, code) {
                    (_, 500 | 502 | 503 | 530 | 534 | 535 | 538) => Verdict::Outage(Outage::Permanent),
                    (Stage::Recipient, 554) => Verdict::Refused { alert: true },
                    _ => Verdict::Final,
                };
                assert_eq!(verdict(stage, code, ""), expected, "{stage:?} {code}");
            }
        }
    }

    #[test]
    fn refusal_of_the_client_at_the_recipient_is_not_final() {
        for (code, text, is_final) in [
            (550, "permanent error (550): 5.1.1 no such user", true),
            (553, "permanent error (553): 5.1.3 invalid mailbox", true),
            (554, "permanent error (554): 5.1.1 no such user", true),
            (552, "permanent error (552): 5.2.2 mailbox full", true),
            (550, "permanent error (550): 5.7.1 not yours", false),
            (553, "permanent error (553): 5.7.1 sender address rejected", false),
            (550, "permanent error (550): 5.1.8 sender address rejected", false),
            (550, "permanent error (550): 5.1.7 sender address rejected", false),
            (554, "permanent error (554): relay access denied", false),
        ] {
            let expected = if is_final { Verdict::Final } else { Verdict::Refused { alert: true } };
            assert_eq!(verdict(Stage::Recipient, code, text), expected, "{text}");
        }
    }
}
