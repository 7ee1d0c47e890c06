//! Background job that sends push messages about events outside of the log of a couple.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    NotificationKind, NotificationPolicy, Preview, PushMessage, PushObserver, PushOutcome, PushTexts,
    delivery::{Condition, Content, Delivery, NextStep, Run, push_id, put_off_key},
    rules::{self, PushDecision, PushReason, Situation, Subject},
    service,
};
use crate::{
    AccountId, CoupleId, DeviceId, Error, InviteId, Ports, Timestamp,
    account::AccountPolicy,
    job::{Context, Handler, Job, JobChange, JobError, NewJob},
    pairing::Directory,
    ports::without_conflict,
    push::Pusher,
};

/// Event outside of the log of a couple.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonEvent {
    /// An invite to the address of a person.
    Invite(InviteId),
    /// The partner has left.
    PartnerLeft {
        /// Couple that has ended.
        couple: CoupleId,
        /// Recipient.
        person: AccountId,
        /// Member who left.
        partner: AccountId,
    },
}

/// Job that sends a push message about a [`PersonEvent`], if it is still to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendPersonPush {
    /// The event.
    pub event: PersonEvent,
    /// Due time in microseconds since 1970 (UTC), if an earlier job has put it off.
    #[serde(default)]
    pub put_off_to: Option<i64>,
    /// Whether an earlier job found a live stream of the person.
    #[serde(default)]
    pub is_second_look: bool,
    /// Devices that an earlier job did not reach; none for all devices.
    #[serde(default)]
    pub only: Option<Vec<DeviceId>>,
}

impl SendPersonPush {
    pub(super) const fn new(event: PersonEvent) -> Self {
        Self { event, put_off_to: None, is_second_look: false, only: None }
    }
}

impl Job for SendPersonPush {
    const NAME: &'static str = "notification.push_person";
    const QUEUE: &'static str = "push";
    // The same as for messages about entries.
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);

    fn dedupe_key(&self) -> Option<String> {
        self.put_off_to?;
        put_off_key(Self::NAME, self)
    }
}

/// Handler that decides about a [`SendPersonPush`] at the moment of sending, and sends it.
pub struct SendPersonPushHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    delivery: Delivery,
    policy: NotificationPolicy,
}

/// Persons of an event that is still to be reported.
struct Parties {
    recipient: AccountId,
    other: AccountId,
}

/// Whether a member is still to be told that the partner has left: they are no couple again, and the member does not
/// block the partner.
pub(super) async fn is_left(
    ports: &Ports,
    couple: CoupleId,
    person: AccountId,
    partner: AccountId,
) -> Result<bool, Error> {
    let store = &ports.store;
    if store.couple(couple).await?.is_some_and(|couple| couple.ended_at.is_none()) {
        return Ok(false);
    }
    let current = store.couple_of(person).await?;
    if current.is_some_and(|current| current.side_of(partner).is_some()) {
        return Ok(false);
    }
    Ok(!store.is_blocked(person, partner).await?)
}

impl SendPersonPushHandler {
    /// Creates the handler. `sessions` has the lifetimes of the built-in sessions; none with a host's own users.
    #[must_use]
    pub fn new(
        ports: Ports,
        directory: Arc<dyn Directory>,
        (pusher, texts): (Arc<dyn Pusher>, Arc<dyn PushTexts>),
        policy: NotificationPolicy,
        sessions: Option<AccountPolicy>,
    ) -> Self {
        let delivery = Delivery::new(ports.clone(), Some(pusher), texts, policy.clone(), sessions);
        Self { ports, directory, delivery, policy }
    }

    /// Sets a function that is told each decision and each result. Default: none.
    #[must_use]
    pub fn with_observer(mut self, observer: Option<PushObserver>) -> Self {
        self.delivery.observe(observer);
        self
    }

    /// Recipient of an event, and the other person; none if nothing is to be reported any more.
    async fn parties(&self, event: &PersonEvent) -> Result<Option<Parties>, Error> {
        let store = &self.ports.store;
        match *event {
            PersonEvent::Invite(id) => {
                let invite = store.invite(id).await?.filter(|invite| invite.is_open(self.ports.now()));
                let Some(invite) = invite else { return Ok(None) };
                let Some(target) = &invite.target else { return Ok(None) };
                let Some(recipient) = self.directory.find_by_email(target.key()).await? else {
                    return Ok(None);
                };
                let other = invite.inviter;
                // A member of a couple cannot accept.
                let is_told = recipient != other
                    && !store.is_blocked_by_email(target.key(), other).await?
                    && self.directory.may_pair(other, &invite.inviter_email).await?
                    && store.couple_of(recipient).await?.is_none();
                Ok(is_told.then_some(Parties { recipient, other }))
            }
            PersonEvent::PartnerLeft { couple, person, partner } => {
                let is_left = is_left(&self.ports, couple, person, partner).await?;
                Ok(is_left.then_some(Parties { recipient: person, other: partner }))
            }
        }
    }

    /// Enqueues the job again for `at`.
    async fn put_off(
        &self,
        job: &SendPersonPush,
        at: Timestamp,
        change: impl FnOnce(&mut SendPersonPush),
    ) -> Result<(), Error> {
        let mut job = SendPersonPush { put_off_to: Some(at.micros()), ..job.clone() };
        change(&mut job);
        let job = NewJob::at(&job, at, &self.ports)?;
        without_conflict(self.ports.commit(vec![JobChange::Enqueue(job).into()]).await)?;
        Ok(())
    }
}

#[async_trait]
impl Handler<SendPersonPush> for SendPersonPushHandler {
    async fn run(&self, job: SendPersonPush, context: &Context) -> Result<(), JobError> {
        let Some(Parties { recipient, other }) = self.parties(&job.event).await? else { return Ok(()) };
        let kind = match job.event {
            PersonEvent::Invite(_) => NotificationKind::Invite,
            PersonEvent::PartnerLeft { .. } => NotificationKind::PartnerLeft,
        };
        let devices = self.delivery.alert_devices(recipient, job.only.as_deref()).await?;
        let preferences = service::read(&self.ports, recipient).await?;
        let contact = self.directory.contact(recipient).await?;
        let device_zone = devices.iter().rev().find_map(|device| device.time_zone.as_ref());
        let situation = Situation {
            now: self.ports.now(),
            kind,
            subject: Subject::Entry(1),
            is_couple: true,
            is_blocked: self.ports.store.is_blocked(recipient, other).await?,
            read: 0,
            preferences: &preferences,
            time_zone: contact.as_ref().and_then(|contact| contact.time_zone.as_ref()).or(device_zone),
            is_present: self.ports.presence.left(recipient).await.is_ok_and(|left| left.is_some()),
            is_second_look: job.is_second_look,
            devices: devices.len(),
        };
        let couple = match job.event {
            PersonEvent::Invite(_) => None,
            PersonEvent::PartnerLeft { couple, .. } => Some(couple),
        };
        let run = Run { job: context.id, couple, to: recipient, kind };
        match rules::decide(&situation, &self.policy) {
            PushDecision::Nothing(reason) => {
                tracing::debug!(%reason, job = %context.id, "no push message");
                self.delivery.report(&run, PushOutcome::Nothing(reason));
                return Ok(());
            }
            PushDecision::Later(at, reason) => {
                tracing::debug!(%reason, job = %context.id, "push message put off");
                self.delivery.report(&run, PushOutcome::Later(at, reason));
                let looked = reason == PushReason::Present;
                self.put_off(&job, at, |job| job.is_second_look |= looked).await?;
                return Ok(());
            }
            PushDecision::Push => {}
        }
        let (condition, preview, data, event, id) = match job.event {
            PersonEvent::Invite(id) => {
                let profile = match preferences.previews {
                    true => self.directory.profile(other).await?,
                    false => None,
                };
                let preview = profile.map(|profile| Preview { partner: profile.display_name, text: None });
                let data = vec![("invite_id", id.to_string().into())];
                (Condition::IsOpen(id), preview, data, "invite", id.as_uuid())
            }
            PersonEvent::PartnerLeft { couple, .. } => {
                let data = vec![("couple_id", couple.to_string().into())];
                (Condition::None, None, data, "partner left", couple.as_uuid())
            }
        };
        let message = PushMessage { kind, preview };
        let content = Content {
            message: &message,
            locale: contact.as_ref().and_then(|contact| contact.locale.as_ref()),
            badge: None,
            thread: None,
            collapse: id.to_string(),
            data,
        };
        let recipient = recipient.as_uuid();
        let parts: [&[u8]; 3] = [event.as_bytes(), id.as_bytes(), recipient.as_bytes()];
        let unreached =
            self.delivery.send(&run, devices, condition, &content, |device| push_id(&parts, device)).await;
        match unreached.next_step(self.ports.now())? {
            NextStep::Finish => {}
            NextStep::PutOff(at, failed) => self.put_off(&job, at, |job| job.only = Some(failed)).await?,
        }
        Ok(())
    }
}
