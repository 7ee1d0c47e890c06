//! Background job that sends push messages, and the listener that enqueues it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    NotificationKind, NotificationPolicy, Preferences, Preview, PushMessage, PushObserver, PushOutcome,
    PushTexts,
    delivery::{Condition, Content, Delivery, NextStep, Run, push_id, put_off_key},
    digest_job,
    person_job::{PersonEvent, SendPersonPush},
    rules::{self, PushDecision, PushReason, Situation, Subject},
    service,
};
use crate::{
    CoupleId, DeviceId, Error, Ports, Timestamp,
    account::AccountPolicy,
    events::{Additions, Event, Listener},
    job::{Context, Handler, Job, JobChange, JobError, NewJob},
    pairing::{Contact, Couple, Directory, Side},
    ports::without_conflict,
    push::Pusher,
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
        put_off_key(Self::NAME, self)
    }
}

/// Listener that enqueues a [`SendPush`] or [`SendPersonPush`] for each event of which a person can be notified.
#[derive(Debug, Clone)]
pub struct NotifyByPush {
    kinds: EntryKinds,
    policy: NotificationPolicy,
    has_pusher: bool,
}

impl NotifyByPush {
    /// Creates the listener. Entries of kinds that do not count as unread are not reported.
    ///
    /// Without a pusher, only entries have a job, which schedules [digests](NotificationPolicy::with_digests).
    #[must_use]
    pub const fn new(kinds: EntryKinds, policy: NotificationPolicy, has_pusher: bool) -> Self {
        Self { kinds, policy, has_pusher }
    }
}

/// Whether an entry is one of a member that counts as unread.
pub(super) fn counts(kinds: &EntryKinds, client_id: Option<&String>, kind: &str) -> bool {
    client_id.is_some() && !kinds.not_unread().iter().any(|name| name == kind)
}

impl Listener for NotifyByPush {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        match event {
            Event::InviteSent { invite } if self.has_pusher && invite.target.is_some() => {
                additions.enqueue(&SendPersonPush::new(PersonEvent::Invite(invite.id)))
            }
            Event::CoupleEnded { couple, members, by: Some(by), .. }
                if self.has_pusher && self.policy.push_on_leave =>
            {
                members.iter().filter(|member| *member != by).try_for_each(|person| {
                    let event = PersonEvent::PartnerLeft { couple: *couple, person: *person, partner: *by };
                    additions.enqueue(&SendPersonPush::new(event))
                })
            }
            Event::CoupleFounded { couple } if self.has_pusher => {
                additions.enqueue(&SendPush::new(couple.id, Side::First, About::Pairing))
            }
            Event::EntryAppended { couple, entry } => {
                let Some(author) = entry.author else { return Ok(()) };
                let about = match (&entry.client_id, entry.target) {
                    (Some(id), _) if counts(&self.kinds, entry.client_id.as_ref(), &entry.kind) => {
                        About::Entry(id.clone())
                    }
                    (None, Some(target)) if self.has_pusher && entry.kind == system::REACTED => {
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

/// Handler that decides about a push message at the moment of sending, and sends it.
pub struct SendPushHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    delivery: Delivery,
    timeline: Timeline,
    policy: NotificationPolicy,
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

impl SendPushHandler {
    /// Creates the handler.
    ///
    /// Without a pusher it only schedules [digests](NotificationPolicy::with_digests). `sessions` has the lifetimes of the
    /// built-in sessions; none with a host's own users.
    #[must_use]
    pub fn new(
        ports: Ports,
        directory: Arc<dyn Directory>,
        (pusher, texts): (Option<Arc<dyn Pusher>>, Arc<dyn PushTexts>),
        kinds: EntryKinds,
        policy: NotificationPolicy,
        sessions: Option<AccountPolicy>,
    ) -> Self {
        let timeline = Timeline::new(ports.clone()).with_kinds(kinds);
        let delivery = Delivery::new(ports.clone(), pusher, texts, policy.clone(), sessions);
        Self { ports, directory, delivery, timeline, policy }
    }

    /// Sets a function that is told each decision and each result. Default: none.
    #[must_use]
    pub fn with_observer(mut self, observer: Option<PushObserver>) -> Self {
        self.delivery.observe(observer);
        self
    }

    /// Finds what the job is about, and whether a later event supersedes it.
    async fn find(&self, job: &SendPush, couple: &Couple) -> Result<Found, Error> {
        let (store, by) = (&self.ports.store, job.to.other());
        let newest = Page::Before(couple.head_seq.saturating_add(1));
        match &job.about {
            About::Pairing => Ok(Found::without_text(Subject::Entry(1))),
            About::Entry(client_id) => {
                let Some(entry) = store.entry_by_client_id(couple.id, by, client_id).await? else {
                    return Ok(Found::without_text(Subject::Gone));
                };
                let counted = |other: &Entry| {
                    other.author == Some(by)
                        && other.deleted_at.is_none()
                        && counts(self.timeline.kinds(), other.client_id.as_ref(), &other.kind)
                };
                let mut newest = store.entries(couple.id, newest, NEWEST, None).await?;
                newest.retain(counted);
                if newest.iter().any(|other| other.seq > entry.seq) {
                    return Ok(Found::without_text(Subject::Superseded));
                }
                let entry = match entry.deleted_at {
                    None => Some(entry),
                    // While this job was put off, that of an earlier entry may have left the report to this one.
                    Some(_) if job.put_off_to.is_some() => newest.pop(),
                    Some(_) => None,
                };
                let Some(entry) = entry else { return Ok(Found::without_text(Subject::Gone)) };
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

    /// Enqueues the job again for `at`.
    async fn put_off(
        &self,
        job: &SendPush,
        at: Timestamp,
        change: impl FnOnce(&mut SendPush),
    ) -> Result<(), Error> {
        // A clock that was set back can give the time of this job again, whose deduplication key is taken until it ends.
        let again = job.put_off_to == Some(at.micros());
        let at = if again { at.plus(Duration::from_micros(1)) } else { at };
        let mut job = SendPush { put_off_to: Some(at.micros()), ..job.clone() };
        change(&mut job);
        let job = NewJob::at(&job, at, &self.ports)?;
        without_conflict(self.ports.commit(vec![JobChange::Enqueue(job).into()]).await)?;
        Ok(())
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

/// Event of a job, for the id of its messages.
fn event_of(job: &SendPush) -> String {
    match &job.about {
        About::Entry(id) => format!("entry {id}"),
        About::Reaction { entry, at } => format!("reaction {entry} {at}"),
        About::Pairing => "pairing".to_owned(),
    }
}

#[async_trait]
impl Handler<SendPush> for SendPushHandler {
    async fn run(&self, job: SendPush, context: &Context) -> Result<(), JobError> {
        let store = &self.ports.store;
        let Some(couple) = store.couple(job.couple).await? else { return Ok(()) };
        let (recipient, partner) = (couple.member(job.to), couple.member(job.to.other()));
        let devices = self.delivery.alert_devices(recipient, job.only.as_deref()).await?;
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
        // A job that was put off has scheduled the digest before.
        if self.policy.digests
            && job.put_off_to.is_none()
            && let Some(due) = rules::digest_to_schedule(&situation)
        {
            digest_job::schedule(&self.ports, recipient, due).await?;
        }
        let run = Run { job: context.id, couple: Some(couple.id), to: recipient, kind: job.about.kind() };
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
        let seq = match found.subject {
            Subject::Entry(seq) => seq,
            Subject::Gone | Subject::OfPartner | Subject::Superseded => return Ok(()),
        };
        let preview = self.preview(&preferences, &couple, job.to.other(), found.text).await?;
        let message = PushMessage { kind: job.about.kind(), preview };
        let badge = self.timeline.unread(&couple, job.to).await?;
        let locale = contact.and_then(|contact| contact.locale);
        let id = couple.id.to_string();
        // A reaction does not replace the notification of an unread message.
        let collapse = match job.about {
            About::Entry(_) | About::Pairing => id.clone(),
            About::Reaction { .. } => format!("{id}.reaction"),
        };
        let content = Content {
            message: &message,
            locale: locale.as_ref(),
            badge: Some(badge),
            thread: Some(id.clone()),
            collapse,
            data: vec![("couple_id", id.into()), ("seq", seq.into())],
        };
        let (event, side) = (event_of(&job), [u8::from(job.to == Side::Second)]);
        let couple_id = couple.id.as_uuid();
        let parts: [&[u8]; 3] = [couple_id.as_bytes(), &side, event.as_bytes()];
        let condition = Condition::IsCouple(couple.id);
        let unreached =
            self.delivery.send(&run, devices, condition, &content, |device| push_id(&parts, device)).await;
        match unreached.next_step(self.ports.now())? {
            NextStep::Finish => {}
            NextStep::PutOff(at, failed) => self.put_off(&job, at, |job| job.only = Some(failed)).await?,
        }
        Ok(())
    }
}
