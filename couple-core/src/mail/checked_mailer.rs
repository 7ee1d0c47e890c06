//! Mailer of the library: it proves which mails it has sent, and sends none to retired addresses.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use data_encoding::BASE64URL_NOPAD;

use super::{Mail, Mailer, Message};
use crate::{
    AccountId, Change, CommitError, Conflict, Digest, EmailAddress, EmailKey, Error, ErrorKind, Keyring,
    Ports, Timestamp,
    account::{AccountChange, Tally, TallyId},
    pairing::Directory,
};

/// Reason why an address gets no mail any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetireReason {
    /// A mail server has refused a mail to it permanently.
    Bounced,
    /// Its owner has complained about a mail.
    Complained,
}

impl RetireReason {
    /// Name as clients get it: `bounced` or `complained`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounced => "bounced",
            Self::Complained => "complained",
        }
    }
    const fn count(self) -> i64 {
        match self {
            Self::Bounced => 1,
            Self::Complained => 2,
        }
    }
    /// None for an address whose retirement has ended: its tally can be live again if the clock is set back.
    const fn from_count(count: i64) -> Option<Self> {
        match count {
            1 => Some(Self::Bounced),
            2 => Some(Self::Complained),
            _ => None,
        }
    }
}

/// Address that is retired by a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredAddress {
    /// The address.
    pub email: EmailAddress,
    /// User with the address, if there is one.
    pub account: Option<AccountId>,
    /// Reason.
    pub reason: RetireReason,
}

/// Kind of a report about a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportKind {
    /// The mail was refused permanently (status 5.x.x).
    Bounced,
    /// The recipient has complained.
    Complained,
    /// The mail is delayed, was delivered, or failed for a reason that may pass (status 4.x.x).
    Temporary,
}

/// Report about a mail, as it was read from a message that anyone can have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Kind of the report.
    pub kind: ReportKind,
    /// Message-IDs that it names, without angle brackets.
    pub message_ids: Vec<String>,
    /// Addresses that it names as recipients.
    pub recipients: Vec<String>,
}

/// Result of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportOutcome {
    /// The address gets no mail any more.
    Retired(RetiredAddress),
    /// The address was retired before.
    AlreadyRetired,
    /// The report says nothing permanent.
    Temporary,
    /// The message is no report, or names no mail that this installation has sent to the recipient.
    Unknown,
}

/// Time for which an address stays retired if it is not confirmed again: practically without end.
const RETIRED_FOR: Duration = Duration::from_hours(24 * 365 * 100);
/// Bytes of the code in a Message-ID: 120 bits.
const CODE_BYTES: usize = 15;

/// Change that ends the retirement of an address, because its owner has proven it.
pub(crate) fn restore(keys: &Keyring, email: &EmailKey, now: Timestamp) -> Change {
    let tally = Tally { count: 0, expires_at: now };
    AccountChange::PutTally { id: TallyId::retired(keys, email), tally, retires: None }.into()
}

/// Code in the Message-ID of a mail, which only the owner of the key ring can compute.
fn code(keys: &Keyring, id: &str, to: &EmailKey) -> Digest {
    keys.derive("message-id", &[id.as_bytes(), to.as_str().as_bytes()])
}

/// Mail id with its code: the local part of the Message-ID.
fn issued_id(keys: &Keyring, id: &str, to: &EmailKey) -> String {
    format!("{id}.{}", BASE64URL_NOPAD.encode(&code(keys, id, to).as_bytes()[..CODE_BYTES]))
}

/// Whether a Message-ID is that of a mail to `to`.
fn is_issued(keys: &Keyring, message_id: &str, to: &EmailKey) -> bool {
    let local = message_id.rsplit_once('@').map_or(message_id, |(local, _)| local);
    let Some((id, _)) = local.rsplit_once('.') else { return false };
    // Digests of both compare in constant time.
    let digest = |text: &str| crate::digest(&[text.as_bytes()]);
    digest(&issued_id(keys, id, to)).same_as(&digest(local))
}

/// Recipient of a report that was sent a mail which the report names.
fn proven_recipient(keys: &Keyring, report: &DeliveryReport) -> Option<EmailAddress> {
    let recipients = report.recipients.iter().filter_map(|text| EmailAddress::parse("recipient", text).ok());
    recipients.into_iter().find(|email| report.message_ids.iter().any(|id| is_issued(keys, id, email.key())))
}

/// Whether a mail answers a request for a code or a link, which can end the retirement of the address.
///
/// The answer for an address that has an account is one of them: the reads must not tell whether it has one.
const fn answers_a_request(message: &Message) -> bool {
    matches!(
        message,
        Message::ConfirmSignUp { .. }
            | Message::AlreadySignedUp
            | Message::SignInCode { .. }
            | Message::SetPassword { .. }
            | Message::ConfirmEmail { .. }
    )
}

/// Mailer that all jobs of the library use.
///
/// * It adds a code to the id of each mail, so that the Message-ID proves that this installation has sent the mail to its recipient.
/// * A report that names such a Message-ID retires the address ([`retire`](Self::retire)). It then gets only mails with a code or a
///   link that its owner asks for; using one ends the retirement.
#[derive(Clone)]
pub struct CheckedMailer {
    ports: Ports,
    directory: Arc<dyn Directory>,
    mailer: Arc<dyn Mailer>,
}

impl CheckedMailer {
    /// Wraps a mailer.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, mailer: Arc<dyn Mailer>) -> Self {
        Self { ports, directory, mailer }
    }

    /// Reason for which an address is retired; none if it gets mails.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn retired(&self, email: &EmailKey) -> Result<Option<RetireReason>, Error> {
        let id = TallyId::retired(&self.ports.keys, email);
        let tally = self.ports.store.tally(id, self.ports.now()).await?;
        Ok(tally.and_then(|tally| RetireReason::from_count(tally.count)))
    }

    /// Retires the address of a permanent report, in one commit with the event [`AddressRetired`](crate::events::Event::AddressRetired).
    ///
    /// Anyone can write a report. It counts only if it names a Message-ID with the code for the address: nobody can retire the address of
    /// another person without one of that person's mails.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn retire(&self, report: &DeliveryReport) -> Result<ReportOutcome, Error> {
        let reason = match report.kind {
            ReportKind::Bounced => RetireReason::Bounced,
            ReportKind::Complained => RetireReason::Complained,
            ReportKind::Temporary => return Ok(ReportOutcome::Temporary),
        };
        let keys = &self.ports.keys;
        let Some(email) = proven_recipient(keys, report) else { return Ok(ReportOutcome::Unknown) };
        if self.retired(email.key()).await?.is_some() {
            return Ok(ReportOutcome::AlreadyRetired);
        }
        let account = self.directory.find_by_email(email.key()).await?;
        let (id, now) = (TallyId::retired(keys, email.key()), self.ports.now());
        let retired = RetiredAddress { email, account, reason };
        let tally = Tally { count: reason.count(), expires_at: now.plus(RETIRED_FOR) };
        let changes = vec![
            AccountChange::RequireTally { id, below: 1, at: now }.into(),
            AccountChange::PutTally { id, tally, retires: Some(Box::new(retired.clone())) }.into(),
        ];
        match self.ports.commit(changes).await {
            Ok(_) => {
                tracing::warn!(reason = reason.as_str(), account = ?retired.account, "address retired");
                Ok(ReportOutcome::Retired(retired))
            }
            // Another report about the address came first.
            Err(CommitError::Conflict(Conflict::TallyFull)) => Ok(ReportOutcome::AlreadyRetired),
            Err(CommitError::Conflict(conflict)) => {
                Err(Error::new(ErrorKind::Internal, "retire address").source(conflict))
            }
            Err(CommitError::Failed(error)) => Err(error),
        }
    }
}

#[async_trait]
impl Mailer for CheckedMailer {
    async fn send(&self, mail: &Mail) -> Result<(), Error> {
        if !answers_a_request(&mail.message) && self.retired(mail.to.key()).await?.is_some() {
            tracing::debug!(id = %mail.id, "no mail to a retired address");
            return Ok(());
        }
        let id = issued_id(&self.ports.keys, &mail.id, mail.to.key());
        self.mailer.send(&Mail { id, ..mail.clone() }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_id_is_that_of_one_mail_to_one_address() {
        let (keys, others) = (Keyring::new([1; 32]), Keyring::new([2; 32]));
        let email = |text| EmailAddress::parse("email", text).unwrap();
        let (ana, ben) = (email("ana@example.org"), email("ben@example.org"));
        let id = issued_id(&keys, "0190f1a2", ana.key());
        assert_eq!(id.len(), "0190f1a2.".len() + 20);
        for message_id in [id.clone(), format!("{id}@mail.example.org")] {
            assert!(is_issued(&keys, &message_id, ana.key()), "{message_id}");
            assert!(!is_issued(&keys, &message_id, ben.key()));
            assert!(!is_issued(&others, &message_id, ana.key()));
        }
        let of_other = id.replace("0190f1a2", "0190f1a3");
        for forged in
            ["", "@", ".", "0190f1a2", "0190f1a2.@x", &of_other, &id[..id.len() - 1], &id.to_lowercase()]
        {
            assert!(!is_issued(&keys, forged, ana.key()), "{forged}");
        }
    }

    #[test]
    fn report_is_about_the_recipient_of_its_message_id() {
        let keys = Keyring::new([1; 32]);
        let ana = EmailAddress::parse("email", "ana@münchen.example").unwrap();
        let id = format!("{}@app.example", issued_id(&keys, "7", ana.key()));
        let report = |ids: &[&str], recipients: &[&str]| DeliveryReport {
            kind: ReportKind::Bounced,
            message_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            recipients: recipients.iter().map(|email| (*email).to_owned()).collect(),
        };
        let proven = |ids: &[&str], recipients: &[&str]| {
            proven_recipient(&keys, &report(ids, recipients)).map(|email| email.key().as_str().to_owned())
        };
        let key = Some(ana.key().as_str().to_owned());
        assert_eq!(proven(&[&id], &["ANA@xn--mnchen-3ya.example"]), key);
        assert_eq!(
            proven(&["7@x", &id], &["not an address", "forward@example.org", "ana@münchen.example"]),
            key
        );
        assert_eq!(proven(&[&id], &["ben@example.org"]), None);
        assert_eq!(proven(&[], &["ana@münchen.example"]), None);
        assert_eq!(proven(&[&id], &[]), None);
    }
}
