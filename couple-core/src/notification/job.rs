//! Background job that sends push messages, and the listener that enqueues it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    NotificationKind, NotificationPolicy, Preferences, Preview, PushMessage, PushObserver, PushOutcome,
    PushReport, PushTexts,
    rules::{self, PushDecision, PushReason, Situation, Subject},
    service,
};
use crate::{
    CoupleId, DeviceId, Error, JobId, Locale, Ports, Timestamp,
    account::AccountPolicy,
    device::{Device, DevicePolicy, Devices},
    digest,
    events::{Additions, Event, Listener},
    job::{Context, Handler, Job, JobChange, JobError, NewJob},
    pairing::{Contact, Couple, Directory, Side},
    ports::without_conflict,
    push::{Alert, Payload, Push, PushError, Pusher, Surface, Urgency},
    timeline::{Entry, EntryKinds, Page, Timeline, system},
};

/// Event that a push message reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Entry of the partner with this client id.
    Entry(String),
    /// Reaction of the partner.
    Reaction {
        /// `seq` of the entry.
        entry: i64,
        /// Time of the reaction in microseconds since 1970 (UTC).
        at: i64,
    },
    /// The couple was created.
    Pairing,
}

impl About {
    const fn kind(&self) -> NotificationKind {
        match self {
            Self::Entry(_) => NotificationKind::Entry,
            Self::Reaction { .. } => NotificationKind::Reaction,
            Self::Pairing => NotificationKind::Pairing,
        }
    }
}

/// Job that sends a push message to the devices of one member, if it is still to be sent.
///
/// There is a job for each event: a deduplication key would be taken while the job runs, and an entry that is appended
/// then would be reported by no job. Of a burst of entries only the newest is reported.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendPush {
    /// Couple of the event.
    pub couple: CoupleId,
    /// Member who is notified.
    pub to: Side,
    /// Event.
    pub about: About,
    /// Due time in microseconds since 1970 (UTC), if an earlier job has put it off.
    #[serde(default)]
    pub put_off_to: Option<i64>,
    /// Whether an earlier job found a live stream of the member.
    #[serde(default)]
    pub is_second_look: bool,
    /// Devices that an earlier job did not reach; none for all devices.
    #[serde(default)]
    pub only: Option<Vec<DeviceId>>,
}

impl SendPush {
    const fn new(couple: CoupleId, to: Side, about: About) -> Self {
        Self { couple, to, about, put_off_to: None, is_second_look: false, only: None }
    }
}

impl Job for SendPush {
    const NAME: &'static str = "notification.push";
    const QUEUE: &'static str = "push";
    // MAX_AGE limits the retries, so that a message survives an outage of a push service.
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);

    /// A job that runs twice puts its message off once.
    fn dedupe_key(&self) -> Option<String> {
        self.put_off_to?;
        let payload = serde_json::to_vec(self).ok()?;
        let key = digest(&[&payload]);
        let hex: String = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{} {hex}", Self::NAME))
    }
}

/// Listener that enqueues a [`SendPush`] for each event of which a person can be notified.
#[derive(Debug, Clone)]
pub struct NotifyByPush {
    kinds: EntryKinds,
}

impl NotifyByPush {
    /// Creates the listener. Entries of kinds that do not count as unread are not reported.
    #[must_use]
    pub const fn new(kinds: EntryKinds) -> Self {
        Self { kinds }
    }
}

/// Whether an entry is one of a member that counts as unread.
fn counts(kinds: &EntryKinds, client_id: Option<&String>, kind: &str) -> bool {
    client_id.is_some() && !kinds.not_unread().iter().any(|name| name == kind)
}

impl Listener for NotifyByPush {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        match event {
            Event::CoupleFounded { couple } => {
                additions.enqueue(&SendPush::new(couple.id, Side::First, About::Pairing))
            }
            Event::EntryAppended { couple, entry } => {
                let Some(author) = entry.author else { return Ok(()) };
                let about = match (&entry.client_id, entry.target) {
                    (Some(id), _) if counts(&self.kinds, entry.client_id.as_ref(), &entry.kind) => {
                        About::Entry(id.clone())
                    }
                    (None, Some(target)) if entry.kind == system::REACTED => {
                        About::Reaction { entry: target, at: entry.at.micros() }
                    }
                    _ => return Ok(()),
                };
                additions.enqueue(&SendPush::new(*couple, author.other(), about))
            }
            _ => Ok(()),
        }
    }
}

/// Number of newest entries among which a newer event of the same kind is looked for.
const NEWEST: u32 = 20;
/// Delay after which devices are tried again whose push service named none, while other devices were reached.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// Handler that decides about a push message at the moment of sending, and sends it.
pub struct SendPushHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    pusher: Arc<dyn Pusher>,
    texts: Arc<dyn PushTexts>,
    timeline: Timeline,
    devices: Devices,
    policy: NotificationPolicy,
    /// Lifetimes of built-in sessions; none with a host's own users.
    sessions: Option<AccountPolicy>,
    observer: Option<PushObserver>,
}

/// Subject of a message, as read at the moment of sending.
struct Found {
    subject: Subject,
    /// Text of a preview.
    text: Option<String>,
}

impl Found {
    const fn without_text(subject: Subject) -> Self {
        Self { subject, text: None }
    }
}

/// Run of a job, which reports are about.
struct Run<'a> {
    id: JobId,
    job: &'a SendPush,
    couple: &'a Couple,
}

/// Result of sending the message to one device.
enum Sent {
    /// The push service has accepted it, or never will.
    Done,
    /// The device does not belong to the recipient any more.
    NotOwned,
    /// The couple has ended: no device gets it.
    CoupleEnded,
}

/// Devices that a message did not reach, and the failure of the last one.
#[derive(Default)]
struct Unreached {
    devices: Vec<DeviceId>,
    failure: Option<(Error, Option<Duration>)>,
    /// Number of devices that the message reached, or that can never be reached.
    done: usize,
}

impl SendPushHandler {
    /// Creates the handler. `sessions` has the lifetimes of the built-in sessions; none with a host's own users.
    #[must_use]
    pub fn new(
        ports: Ports,
        directory: Arc<dyn Directory>,
        (pusher, texts): (Arc<dyn Pusher>, Arc<dyn PushTexts>),
        kinds: EntryKinds,
        policy: NotificationPolicy,
        sessions: Option<AccountPolicy>,
    ) -> Self {
        let timeline = Timeline::new(ports.clone()).with_kinds(kinds);
        let devices = Devices::new(ports.clone(), DevicePolicy::default());
        Self { ports, directory, pusher, texts, timeline, devices, policy, sessions, observer: None }
    }
    /// Sets a function that is told each decision and each result. Default: none.
    #[must_use]
    pub fn with_observer(mut self, observer: Option<PushObserver>) -> Self {
        self.observer = observer;
        self
    }

    fn report(&self, run: &Run<'_>, outcome: PushOutcome<'_>) {
        let Some(observer) = &self.observer else { return };
        let Run { id, job, couple } = *run;
        let (to, kind) = (couple.member(job.to), job.about.kind());
        observer(&PushReport { job: id, couple: couple.id, to, kind, outcome });
    }

    /// Finds what the job is about, and whether a later event supersedes it.
    async fn find(&self, job: &SendPush, couple: &Couple) -> Result<Found, Error> {
        let (store, by) = (&self.ports.store, job.to.other());
        let newest = Page::Before(couple.head_seq.saturating_add(1));
        match &job.about {
            About::Pairing => Ok(Found::without_text(Subject::Entry(1))),
            About::Entry(client_id) => {
                let found = store.entry_by_client_id(couple.id, by, client_id).await?;
                let Some(entry) = found.filter(|entry| entry.deleted_at.is_none()) else {
                    return Ok(Found::without_text(Subject::Gone));
                };
                let newer = |other: &Entry| {
                    other.seq > entry.seq
                        && other.author == Some(by)
                        && other.deleted_at.is_none()
                        && counts(self.timeline.kinds(), other.client_id.as_ref(), &other.kind)
                };
                if store.entries(couple.id, newest, NEWEST, None).await?.iter().any(newer) {
                    return Ok(Found::without_text(Subject::Superseded));
                }
                let text = entry.body.as_ref().and_then(rules::preview);
                Ok(Found { subject: Subject::Entry(entry.seq), text })
            }
            About::Reaction { entry, at } => {
                let target = store.entry(couple.id, *entry).await?;
                let emoji = target.as_ref().and_then(|target| target.reactions[by.index()].clone());
                let (Some(target), Some(emoji)) = (target, emoji) else {
                    return Ok(Found::without_text(Subject::Gone));
                };
                if target.author != Some(job.to) {
                    return Ok(Found::without_text(Subject::OfPartner));
                }
                let reports = store.entries(couple.id, newest, NEWEST, Some(system::REACTED)).await?;
                let of_target = |report: &&Entry| report.author == Some(by) && report.target == Some(*entry);
                let subject = match reports.iter().rfind(of_target) {
                    Some(report) if report.created_at.micros() <= *at => Subject::Entry(report.seq),
                    // Changed since, or followed by many others.
                    _ => Subject::Superseded,
                };
                Ok(Found { subject, text: Some(emoji) })
            }
        }
    }

    /// Devices of the recipient that show notifications and whose session has not expired.
    async fn alert_devices(&self, job: &SendPush, couple: &Couple) -> Result<Vec<Device>, Error> {
        let recipient = couple.member(job.to);
        let mut devices = self.ports.store.devices_of(recipient).await?;
        devices.retain(|device| {
            device.surface == Surface::Alert && job.only.as_ref().is_none_or(|ids| ids.contains(&device.id))
        });
        let Some(policy) = self.sessions.as_ref().filter(|_| !devices.is_empty()) else { return Ok(devices) };
        // The commit that ends a session removes its devices; one that has expired is removed by the next purge.
        let (now, sessions) = (self.ports.now(), self.ports.store.sessions_of(recipient).await?);
        devices.retain(|device| {
            device.session.is_none_or(|id| {
                sessions.iter().any(|session| session.id == id && session.is_live(policy, now))
            })
        });
        Ok(devices)
    }

    /// Enqueues the job again for `at`.
    async fn put_off(
        &self,
        job: &SendPush,
        at: Timestamp,
        change: impl FnOnce(&mut SendPush),
    ) -> Result<(), Error> {
        let mut job = SendPush { put_off_to: Some(at.micros()), ..job.clone() };
        change(&mut job);
        let job = NewJob::at(&job, at, &self.ports)?;
        without_conflict(self.ports.commit(vec![JobChange::Enqueue(job).into()]).await)?;
        Ok(())
    }

    /// Message for a device.
    fn message(
        &self,
        job: &SendPush,
        device: &Device,
        content: &PushMessage,
        locale: Option<&Locale>,
        (seq, badge): (i64, u32),
    ) -> Push {
        let couple = job.couple.to_string();
        let (title, body) = self.texts.title_and_body(content, device.locale.as_ref().or(locale));
        let kind = content.kind;
        let data: Map<String, Value> = [
            ("kind".to_owned(), kind.as_str().into()),
            ("couple_id".to_owned(), couple.clone().into()),
            ("seq".to_owned(), seq.into()),
        ]
        .into_iter()
        .collect();
        // A reaction does not replace the notification of an unread message.
        let collapse = match kind {
            NotificationKind::Entry | NotificationKind::Pairing => couple.clone(),
            NotificationKind::Reaction => format!("{couple}.reaction"),
        };
        let alert = Alert { title, body, badge: Some(badge), sound: true, thread: Some(couple), data };
        Push {
            id: push_id(job, device.id),
            to: device.destination.clone(),
            payload: Payload::Alert(alert),
            collapse: Some(collapse),
            urgency: Urgency::High,
            expires_at: Some(self.ports.now().plus(self.policy.lifetime)),
        }
    }

    /// Sends to each device that still belongs to the recipient, while the couple is the current one.
    async fn send(
        &self,
        run: &Run<'_>,
        devices: Vec<Device>,
        message: impl Fn(&Device) -> Push + Send + Sync,
    ) -> Unreached {
        let mut unreached = Unreached::default();
        for device in devices {
            match self.send_to(run, &device, &message).await {
                Ok(Sent::Done) => unreached.done += 1,
                Ok(Sent::NotOwned) => {}
                Ok(Sent::CoupleEnded) => return Unreached::default(),
                Err(failure) => {
                    unreached.devices.push(device.id);
                    unreached.failure = Some(failure);
                }
            }
        }
        unreached
    }

    async fn send_to(
        &self,
        run: &Run<'_>,
        device: &Device,
        message: &(impl Fn(&Device) -> Push + Send + Sync),
    ) -> Result<Sent, (Error, Option<Duration>)> {
        let store = &self.ports.store;
        let failed = |error: Error| (error, None);
        // Since the list was read, an earlier device may have taken its time: the phone can have another owner, or the
        // couple be over. The couple is read last.
        let current = store.device(device.account, device.id).await.map_err(failed)?;
        let Some(device) = current else {
            self.report(run, PushOutcome::NotOwned(device.id));
            return Ok(Sent::NotOwned);
        };
        let current = store.couple(run.couple.id).await.map_err(failed)?;
        if current.is_none_or(|couple| couple.ended_at.is_some()) {
            self.report(run, PushOutcome::Nothing(PushReason::CoupleEnded));
            return Ok(Sent::CoupleEnded);
        }
        let push = message(&device);
        match self.pusher.push(&push).await {
            Ok(()) => self.report(run, PushOutcome::Accepted(&push)),
            Err(PushError::Gone { since }) => {
                self.report(run, PushOutcome::Gone(&push));
                self.devices.retire(&device, since).await.map_err(failed)?;
            }
            Err(PushError::Refused(error)) => {
                let kind = run.job.about.kind().as_str();
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

    /// Time zone and language of the recipient.
    async fn contact(&self, couple: &Couple, to: Side) -> Result<Option<Contact>, Error> {
        self.directory.contact(couple.member(to)).await
    }

    async fn preview(
        &self,
        preferences: &Preferences,
        couple: &Couple,
        by: Side,
        text: Option<String>,
    ) -> Result<Option<Preview>, Error> {
        if !preferences.previews {
            return Ok(None);
        }
        let profile = self.directory.profile(couple.member(by)).await?;
        Ok(profile.map(|profile| Preview { partner: profile.display_name, text }))
    }
}

/// Id of the message of an event for a device, the same for all attempts.
fn push_id(job: &SendPush, device: DeviceId) -> Uuid {
    let about = match &job.about {
        About::Entry(id) => format!("entry {id}"),
        About::Reaction { entry, at } => format!("reaction {entry} {at}"),
        About::Pairing => "pairing".to_owned(),
    };
    let couple = job.couple.as_uuid();
    let digest = digest(&[
        b"push",
        couple.as_bytes(),
        &[u8::from(job.to == Side::Second)],
        about.as_bytes(),
        device.as_uuid().as_bytes(),
    ]);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[async_trait]
impl Handler<SendPush> for SendPushHandler {
    async fn run(&self, job: SendPush, context: &Context) -> Result<(), JobError> {
        let store = &self.ports.store;
        let Some(couple) = store.couple(job.couple).await? else { return Ok(()) };
        let (recipient, partner) = (couple.member(job.to), couple.member(job.to.other()));
        let devices = self.alert_devices(&job, &couple).await?;
        let preferences = service::read(&self.ports, recipient).await?;
        let contact = self.contact(&couple, job.to).await?;
        let device_zone = devices.iter().rev().find_map(|device| device.time_zone.as_ref());
        let found = self.find(&job, &couple).await?;
        // If presence is unknown, a message too many is better than none.
        let is_present = self.ports.presence.left(recipient).await.is_ok_and(|left| left.is_some());
        let situation = Situation {
            now: self.ports.now(),
            kind: job.about.kind(),
            subject: found.subject,
            is_couple: couple.ended_at.is_none(),
            is_blocked: store.is_blocked(recipient, partner).await?,
            read: couple.read[job.to.index()],
            preferences: &preferences,
            time_zone: contact.as_ref().and_then(|contact| contact.time_zone.as_ref()).or(device_zone),
            is_present,
            is_second_look: job.is_second_look,
            devices: devices.len(),
        };
        let run = Run { id: context.id, job: &job, couple: &couple };
        match rules::decide(&situation, &self.policy) {
            PushDecision::Nothing(reason) => {
                tracing::debug!(%reason, job = %context.id, "no push message");
                self.report(&run, PushOutcome::Nothing(reason));
                return Ok(());
            }
            PushDecision::Later(at, reason) => {
                tracing::debug!(%reason, job = %context.id, "push message put off");
                self.report(&run, PushOutcome::Later(at, reason));
                let looked = reason == PushReason::Present;
                self.put_off(&job, at, |job| job.is_second_look |= looked).await?;
                return Ok(());
            }
            PushDecision::Push => {}
        }
        let seq = match found.subject {
            Subject::Entry(seq) => seq,
            Subject::Gone | Subject::OfPartner | Subject::Superseded => return Ok(()),
        };
        let preview = self.preview(&preferences, &couple, job.to.other(), found.text).await?;
        let content = PushMessage { kind: job.about.kind(), preview };
        let badge = self.timeline.unread(&couple, job.to).await?;
        let locale = contact.and_then(|contact| contact.locale);
        let message = |device: &Device| self.message(&job, device, &content, locale.as_ref(), (seq, badge));
        let Unreached { devices: failed, failure, done } = self.send(&run, devices, message).await;
        match failure {
            None => Ok(()),
            // The job as it is has reached nothing that a retry would repeat.
            Some((error, delay)) if done == 0 => Err(match delay {
                Some(delay) => JobError::RetryAfter(error, delay),
                None => JobError::Retry(error),
            }),
            Some((error, delay)) => {
                tracing::warn!(%error, devices = failed.len(), "push messages put off");
                let at = self.ports.now().plus(delay.unwrap_or(RETRY_DELAY));
                self.put_off(&job, at, |job| job.only = Some(failed)).await?;
                Ok(())
            }
        }
    }
}
