//! Mail to a member whose partner has left, if the host wants it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{NotificationPolicy, person_job::is_left};
use crate::{
    AccountId, CoupleId, Error, Ports,
    events::{Additions, Event, Listener},
    job::{Context, Handler, Job, JobError},
    mail::{Mail, Mailer, Message},
    pairing::Directory,
};

/// Job that mails a member that the partner has left.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartnerLeftMail {
    /// Couple that has ended.
    pub couple: CoupleId,
    /// Recipient.
    pub person: AccountId,
    /// Member who left.
    pub partner: AccountId,
}

impl Job for PartnerLeftMail {
    const NAME: &'static str = "notification.partner_left_mail";
    const QUEUE: &'static str = "mail";
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Listener that enqueues a [`PartnerLeftMail`] when a member leaves or is deleted, if the policy permits it.
#[derive(Debug, Clone, Copy)]
pub struct MailOnLeave {
    is_permitted: bool,
}

impl MailOnLeave {
    /// Creates the listener.
    #[must_use]
    pub const fn new(policy: &NotificationPolicy) -> Self {
        Self { is_permitted: policy.mail_on_leave }
    }
}

impl Listener for MailOnLeave {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        let Event::CoupleEnded { couple, members, by: Some(by), .. } = event else { return Ok(()) };
        if !self.is_permitted {
            return Ok(());
        }
        members.iter().filter(|member| *member != by).try_for_each(|person| {
            additions.enqueue(&PartnerLeftMail { couple: *couple, person: *person, partner: *by })
        })
    }
}

/// Handler that sends the mail, unless the two are a couple again or the recipient blocks the partner.
pub struct PartnerLeftMailHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    mailer: Arc<dyn Mailer>,
}

impl PartnerLeftMailHandler {
    /// Creates the handler.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, mailer: Arc<dyn Mailer>) -> Self {
        Self { ports, directory, mailer }
    }
}

#[async_trait]
impl Handler<PartnerLeftMail> for PartnerLeftMailHandler {
    async fn run(&self, job: PartnerLeftMail, context: &Context) -> Result<(), JobError> {
        if !is_left(&self.ports, job.couple, job.person, job.partner).await? {
            return Ok(());
        }
        let Some(contact) = self.directory.contact(job.person).await? else { return Ok(()) };
        let (id, at) = (context.id.to_string(), context.enqueued_at);
        let message = Message::PartnerLeft;
        self.mailer.send(&Mail { id, to: contact.email, locale: contact.locale, at, message }).await?;
        Ok(())
    }
}
