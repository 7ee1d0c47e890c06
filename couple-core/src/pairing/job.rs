//! Background jobs of pairing: invite mails and the purge of old invites.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Directory, PairingChange, rules};
use crate::{
    AccountId, CoupleId, Error, InviteId, Ports,
    events::{Additions, Event, Listener},
    job::{Context, Handler, Job, JobError, Schedule},
    mail::{Mail, Mailer, Message},
};

/// Job that mails an invite to its target address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteMail {
    /// Id of the invite.
    pub invite: InviteId,
}

impl Job for InviteMail {
    const NAME: &'static str = "pairing.invite_mail";
    const QUEUE: &'static str = "mail";
    // MAX_AGE limits the retries, not the number of attempts, so that the mail survives an outage of the mail
    // server.
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Job that tells the inviter that the invite was accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptedMail {
    /// Couple that the acceptance created.
    pub couple: CoupleId,
    /// User who sent the invite.
    pub inviter: AccountId,
}

impl Job for AcceptedMail {
    const NAME: &'static str = "pairing.accepted_mail";
    const QUEUE: &'static str = "mail";
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Handler that tells the inviter, if the couple still exists.
pub struct AcceptedMailHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    mailer: Arc<dyn Mailer>,
}

impl AcceptedMailHandler {
    /// Creates the handler.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, mailer: Arc<dyn Mailer>) -> Self {
        Self { ports, directory, mailer }
    }
}

#[async_trait]
impl Handler<AcceptedMail> for AcceptedMailHandler {
    async fn run(&self, job: AcceptedMail, context: &Context) -> Result<(), JobError> {
        let couple = self.ports.store.couple(job.couple).await?;
        let Some(couple) = couple.filter(|couple| couple.ended_at.is_none()) else { return Ok(()) };
        let Some(side) = couple.side_of(job.inviter) else { return Ok(()) };
        let Some(partner) = self.directory.profile(couple.member(side.other())).await? else { return Ok(()) };
        let Some(contact) = self.directory.contact(job.inviter).await? else { return Ok(()) };
        let message = Message::InviteAccepted { partner: partner.display_name };
        let (id, at) = (context.id.to_string(), context.enqueued_at);
        self.mailer.send(&Mail { id, to: contact.email, locale: contact.locale, at, message }).await?;
        Ok(())
    }
}

/// Listener that enqueues the mail of each invite to an address.
pub(crate) struct MailInvites;

impl Listener for MailInvites {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        match event {
            Event::InviteSent { invite } if invite.target.is_some() => {
                additions.enqueue(&InviteMail { invite: invite.id })
            }
            _ => Ok(()),
        }
    }
}

/// Handler that sends the mail of an invite, if the invite is still open.
pub struct InviteMailHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    mailer: Arc<dyn Mailer>,
}

impl InviteMailHandler {
    /// Creates the handler.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, mailer: Arc<dyn Mailer>) -> Self {
        Self { ports, directory, mailer }
    }
}

#[async_trait]
impl Handler<InviteMail> for InviteMailHandler {
    async fn run(&self, job: InviteMail, context: &Context) -> Result<(), JobError> {
        let store = &self.ports.store;
        // Check again at sending time: an invite that was withdrawn, answered or blocked since is not mailed.
        let Some(invite) = store.invite(job.invite).await?.filter(|invite| invite.is_open(self.ports.now()))
        else {
            return Ok(());
        };
        let Some(target) = invite.target.clone() else { return Ok(()) };
        if store.is_blocked_by_email(target.key(), invite.inviter).await? {
            return Ok(());
        }
        // Do the same reads for an address without an account, with the inviter's id, so that the number of
        // reads does not reveal whether the address has an account.
        let owner = self.directory.find_by_email(target.key()).await?;
        if store.is_blocked(owner.unwrap_or(invite.inviter), invite.inviter).await? {
            return Ok(());
        }
        // The language of the recipient, or of the inviter if the recipient is unknown.
        let contact = self.directory.contact(owner.unwrap_or(invite.inviter)).await?;
        let locale = contact.and_then(|contact| contact.locale);
        if !self.directory.may_pair(invite.inviter, &invite.inviter_email).await? {
            return Ok(());
        }
        let Some(from) = self.directory.profile(invite.inviter).await? else { return Ok(()) };
        let message = Message::Invitation {
            // No text of the inviter to an unconfirmed address.
            from: owner.map(|_| from.display_name),
            message: invite.message.clone().filter(|_| owner.is_some()),
            code: rules::code_of(&self.ports.keys, invite.id),
            link: self.ports.links.to("invite", &rules::link_of(&self.ports.keys, invite.id)),
            expires_at: invite.expires_at,
        };
        let mail = Mail { id: context.id.to_string(), to: target, locale, at: context.enqueued_at, message };
        self.mailer.send(&mail).await?;
        Ok(())
    }
}

/// Job that purges expired invites.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeInvites {}

impl Job for PurgeInvites {
    const NAME: &'static str = "pairing.purge_invites";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler that removes invites a week after their expiry.
///
/// Until then the recipient gets `invite_expired` in place of `invite_not_found`.
pub struct PurgeInvitesHandler {
    ports: Ports,
}

impl PurgeInvitesHandler {
    const RETENTION: Duration = Duration::from_hours(24 * 7);

    /// Creates the handler.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }
    /// Schedule: every hour.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(1), || PurgeInvites {})
    }
}

#[async_trait]
impl Handler<PurgeInvites> for PurgeInvitesHandler {
    async fn run(&self, _: PurgeInvites, _: &Context) -> Result<(), JobError> {
        let before = self.ports.now().minus(Self::RETENTION);
        crate::job::purge_all(&self.ports, |cap| PairingChange::PurgeInvites { before, cap }.into()).await?;
        Ok(())
    }
}
