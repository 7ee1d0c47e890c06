//! Delivery of push messages to the devices of a person.

use std::{sync::Arc, time::Duration};

use super::{
    NotificationKind, NotificationPolicy, PushMessage, PushObserver, PushOutcome, PushReport, PushTexts,
    rules::PushReason, service::devices_on,
};
use crate::{
    AccountId, CoupleId, DeviceId, Error, ErrorKind, InviteId, JobId, Locale, Ports, Timestamp,
    account::AccountPolicy,
    device::{Device, DevicePolicy, Devices},
    job::JobError,
    push::{Alert, Payload, Push, PushError, Pusher, Surface, Urgency},
};
use serde_json::{Map, Value};
use tokio::time::timeout;
use uuid::Uuid;

/// Delay after which devices are tried again whose push service named none, while other devices were reached.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// Time after which a job sends to no further device: slow push services hold the job, and with it one place of the queue.
const SEND_TIME: Duration = Duration::from_secs(15);
/// Maximum time for the answer to one message.
const PUSH_TIMEOUT: Duration = Duration::from_secs(20);

/// Condition that is read again before each message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition {
    /// The couple has not ended.
    IsCouple(CoupleId),
    /// The invite can still be answered.
    IsOpen(InviteId),
    /// Nothing.
    None,
}

/// Run of a job, which reports are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) job: JobId,
    pub(super) couple: Option<CoupleId>,
    pub(super) to: AccountId,
    pub(super) kind: NotificationKind,
}

/// Content of a message that is the same on all devices of a person.
pub(super) struct Content<'a> {
    pub(super) message: &'a PushMessage,
    /// Language of the person's profile.
    pub(super) locale: Option<&'a Locale>,
    pub(super) badge: Option<u32>,
    pub(super) thread: Option<String>,
    pub(super) collapse: String,
    /// Fields for the app, beside the kind.
    pub(super) data: Vec<(&'static str, Value)>,
}

/// Result of sending the message to one device.
enum Sent {
    /// The push service has accepted it, or never will.
    Done,
    /// The device does not belong to the recipient any more.
    NotOwned,
    /// The condition does not hold any more: no device gets it.
    Ended,
}

/// Devices that a message did not reach.
#[derive(Default)]
pub(super) struct Unreached {
    devices: Vec<DeviceId>,
    /// The last failure, and the shortest delay that a push service asks for, if all of them ask for one.
    failure: Option<(Error, Option<Duration>)>,
    /// Number of devices that the message reached, or that can never be reached.
    done: usize,
}

/// Next step of a job after it has sent its message.
pub(super) enum NextStep {
    /// The job is done.
    Finish,
    /// Send to these devices at the given time.
    PutOff(Timestamp, Vec<DeviceId>),
}

impl Unreached {
    fn add(&mut self, device: DeviceId, (error, delay): (Error, Option<Duration>)) {
        self.devices.push(device);
        let delay = match &self.failure {
            None => delay,
            Some((_, shortest)) => shortest.zip(delay).map(|(one, other)| one.min(other)),
        };
        self.failure = Some((error, delay));
    }

    /// Next step of the job at `now`.
    ///
    /// # Errors
    /// The failure if the message reached no device: the job as it is has nothing that a retry would repeat.
    pub(super) fn next_step(self, now: Timestamp) -> Result<NextStep, JobError> {
        match self.failure {
            None => Ok(NextStep::Finish),
            Some((error, delay)) if self.done == 0 => Err(match delay {
                Some(delay) => JobError::RetryAfter(error, delay),
                None => JobError::Retry(error),
            }),
            Some((error, delay)) => {
                tracing::warn!(%error, devices = self.devices.len(), "push messages put off");
                Ok(NextStep::PutOff(now.plus(delay.unwrap_or(RETRY_DELAY)), self.devices))
            }
        }
    }
}

/// Sends push messages to the devices of a person.
pub(super) struct Delivery {
    ports: Ports,
    /// None: the host pushes nothing.
    pusher: Option<Arc<dyn Pusher>>,
    texts: Arc<dyn PushTexts>,
    devices: Devices,
    policy: NotificationPolicy,
    /// Lifetimes of built-in sessions; none with a host's own users.
    sessions: Option<AccountPolicy>,
    observer: Option<PushObserver>,
}

impl Delivery {
    pub(super) fn new(
        ports: Ports,
        pusher: Option<Arc<dyn Pusher>>,
        texts: Arc<dyn PushTexts>,
        policy: NotificationPolicy,
        sessions: Option<AccountPolicy>,
    ) -> Self {
        let devices = Devices::new(ports.clone(), DevicePolicy::default());
        Self { ports, pusher, texts, devices, policy, sessions, observer: None }
    }

    pub(super) fn observe(&mut self, observer: Option<PushObserver>) {
        self.observer = observer;
    }

    /// Tells the observer what becomes of the notification of a job.
    pub(super) fn report(&self, run: &Run, outcome: PushOutcome<'_>) {
        let Some(observer) = &self.observer else { return };
        let Run { job, couple, to, kind } = *run;
        observer(&PushReport { job, couple, to, kind, outcome });
    }

    /// Devices of a person that show notifications and whose session has not expired.
    ///
    /// `only` restricts them to those that an earlier job did not reach.
    pub(super) async fn alert_devices(
        &self,
        person: AccountId,
        only: Option<&[DeviceId]>,
    ) -> Result<Vec<Device>, Error> {
        if self.pusher.is_none() {
            return Ok(Vec::new());
        }
        let mut devices = devices_on(&self.ports, self.sessions.as_ref(), person, Surface::Alert).await?;
        devices.retain(|device| only.is_none_or(|ids| ids.contains(&device.id)));
        Ok(devices)
    }

    /// Sends to each device that still belongs to the recipient, while the condition holds.
    pub(super) async fn send(
        &self,
        run: &Run,
        devices: Vec<Device>,
        condition: Condition,
        content: &Content<'_>,
        id: impl Fn(DeviceId) -> Uuid + Send + Sync,
    ) -> Unreached {
        let mut unreached = Unreached::default();
        let Some(pusher) = &self.pusher else { return unreached };
        let begun = self.ports.clock.monotonic();
        for device in devices {
            if self.ports.clock.monotonic().saturating_sub(begun) >= SEND_TIME {
                let error = Error::new(ErrorKind::TimedOut, "send push messages")
                    .context("other devices took too long");
                unreached.add(device.id, (error, Some(Duration::ZERO)));
                continue;
            }
            let id = id(device.id);
            match self.send_to(run, pusher, &device, condition, content, id).await {
                Ok(Sent::Done) => unreached.done += 1,
                Ok(Sent::NotOwned) => {}
                Ok(Sent::Ended) => return Unreached::default(),
                Err(failure) => unreached.add(device.id, failure),
            }
        }
        unreached
    }

    async fn send_to(
        &self,
        run: &Run,
        pusher: &Arc<dyn Pusher>,
        device: &Device,
        condition: Condition,
        content: &Content<'_>,
        id: Uuid,
    ) -> Result<Sent, (Error, Option<Duration>)> {
        let failed = |error: Error| (error, None);
        // Since the list was read, an earlier device may have taken its time: the phone can have another owner, or the
        // couple be over. The condition is read last.
        let current = self.ports.store.device(device.account, device.id).await.map_err(failed)?;
        let Some(device) = current.filter(|device| device.surface == Surface::Alert) else {
            self.report(run, PushOutcome::NotOwned(device.id));
            return Ok(Sent::NotOwned);
        };
        if !self.holds(condition).await.map_err(failed)? {
            let reason = match condition {
                Condition::IsCouple(_) => PushReason::CoupleEnded,
                Condition::IsOpen(_) | Condition::None => PushReason::Gone,
            };
            self.report(run, PushOutcome::Nothing(reason));
            return Ok(Sent::Ended);
        }
        let push = self.push(&device, content, id);
        let sent = timeout(PUSH_TIMEOUT, pusher.push(&push)).await.unwrap_or_else(|_| {
            let error = Error::new(ErrorKind::TimedOut, "send push message");
            Err(PushError::Unavailable { retry_after: None, error })
        });
        match sent {
            Ok(()) => self.report(run, PushOutcome::Accepted(&push)),
            Err(PushError::Gone { since }) => {
                self.report(run, PushOutcome::Gone(&push));
                self.devices.retire(&device, since).await.map_err(failed)?;
            }
            Err(PushError::Refused(error)) => {
                let kind = content.message.kind.as_str();
                tracing::error!(%error, device = %device.id, kind, "push message refused");
                self.report(run, PushOutcome::Refused(&push, &error));
            }
            Err(PushError::Unavailable { retry_after, error }) => {
                self.report(run, PushOutcome::Unavailable(&push, &error));
                return Err((error, retry_after));
            }
        }
        Ok(Sent::Done)
    }

    async fn holds(&self, condition: Condition) -> Result<bool, Error> {
        let store = &self.ports.store;
        Ok(match condition {
            Condition::IsCouple(id) => {
                store.couple(id).await?.is_some_and(|couple| couple.ended_at.is_none())
            }
            Condition::IsOpen(id) => {
                store.invite(id).await?.is_some_and(|invite| invite.is_open(self.ports.now()))
            }
            Condition::None => true,
        })
    }

    /// Message for a device.
    fn push(&self, device: &Device, content: &Content<'_>, id: Uuid) -> Push {
        let (title, body) =
            self.texts.title_and_body(content.message, device.locale.as_ref().or(content.locale));
        let kind = ("kind".to_owned(), content.message.kind.as_str().into());
        let fields = content.data.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let data: Map<String, Value> = std::iter::once(kind).chain(fields).collect();
        let alert =
            Alert { title, body, badge: content.badge, sound: true, thread: content.thread.clone(), data };
        Push {
            id,
            to: device.destination.clone(),
            payload: Payload::Alert(alert),
            collapse: Some(content.collapse.clone()),
            urgency: Urgency::High,
            expires_at: Some(self.ports.now().plus(self.policy.lifetime)),
        }
    }
}

/// Id of the message of an event for a device, the same for all attempts.
pub(super) fn push_id(event: &[&[u8]], device: DeviceId) -> Uuid {
    let device = device.as_uuid();
    let mut parts = vec![&b"push"[..]];
    parts.extend(event);
    parts.push(device.as_bytes());
    let digest = crate::digest(&parts);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Deduplication key of a job that was put off, from its name and payload: a job that runs twice puts off once.
pub(super) fn put_off_key(name: &str, job: &impl serde::Serialize) -> Option<String> {
    let payload = serde_json::to_vec(job).ok()?;
    let key = crate::digest(&[&payload]);
    let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{name} {hex}"))
}
