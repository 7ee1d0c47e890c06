//! The background work of pairing: the mail of an invite, and forgetting old ones.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Directory, PairingChange, rules};
use crate::{
    InviteId, Ports,
    job::{Context, Handler, Job, JobError, Schedule},
    mail::{Mail, Mailer, Message},
};

/// Tells the owner of an address that they are invited.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteMail {
    /// By this.
    pub invite: InviteId,
}

impl Job for InviteMail {
    const NAME: &'static str = "pairing.invite_mail";
    const QUEUE: &'static str = "mail";
    // The mail waits through an outage of the mail server: MAX_AGE ends it, not the number of attempts.
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Sends the mail of an invite, if it is still to be sent.
pub struct InviteMailHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    mailer: Arc<dyn Mailer>,
}

impl InviteMailHandler {
    /// Over its ports.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, mailer: Arc<dyn Mailer>) -> Self {
        Self { ports, directory, mailer }
    }
}

#[async_trait]
impl Handler<InviteMail> for InviteMailHandler {
    async fn run(&self, job: InviteMail, context: &Context) -> Result<(), JobError> {
        let store = &self.ports.store;
        // Looked at again when it is sent: what was withdrawn, answered or blocked since is not mailed.
        let Some(invite) = store.invite(job.invite).await?.filter(|invite| invite.is_open(self.ports.now()))
        else {
            return Ok(());
        };
        let Some(target) = invite.target.clone() else { return Ok(()) };
        if store.is_blocked_by_email(target.key(), invite.inviter).await? {
            return Ok(());
        }
        // Asked for an address without an account too, as if it were the inviter's: the reads must not tell.
        let owner = self.directory.find_by_email(target.key()).await?;
        if store.is_blocked(owner.unwrap_or(invite.inviter), invite.inviter).await? {
            return Ok(());
        }
        if !self.directory.may_pair(invite.inviter, &invite.inviter_email).await? {
            return Ok(());
        }
        let Some(from) = self.directory.profile(invite.inviter).await? else { return Ok(()) };
        let message = Message::Invitation {
            from: from.display_name,
            message: invite.message.clone(),
            code: rules::code_of(&self.ports.keys, invite.id),
            link: self.ports.links.to("invite", &rules::link_of(&self.ports.keys, invite.id)),
        };
        let mail =
            Mail { id: context.id.to_string(), to: target, locale: None, at: context.enqueued_at, message };
        self.mailer.send(&mail).await?;
        Ok(())
    }
}

/// Purges invites that have expired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeInvites {}

impl Job for PurgeInvites {
    const NAME: &'static str = "pairing.purge_invites";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Removes invites a week after they expired: until then their sender may wonder what became of them.
pub struct PurgeInvitesHandler {
    ports: Ports,
}

impl PurgeInvitesHandler {
    const KEPT: Duration = Duration::from_hours(24 * 7);

    /// Over its ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }
    /// How often it runs.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(1), || PurgeInvites {})
    }
}

#[async_trait]
impl Handler<PurgeInvites> for PurgeInvitesHandler {
    async fn run(&self, _: PurgeInvites, _: &Context) -> Result<(), JobError> {
        let before = self.ports.now().minus(Self::KEPT);
        crate::job::purge_all(&self.ports, |cap| PairingChange::PurgeInvites { before, cap }.into()).await?;
        Ok(())
    }
}
