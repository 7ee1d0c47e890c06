//! Background jobs that ask widgets to read their glance again, and the listener that enqueues them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::service;
use crate::{
    AccountId, CommitError, Conflict, CoupleId, DeviceId, Error, Ports, Timestamp,
    account::{AccountChange, AccountPolicy, TallyId},
    device::{DevicePolicy, Devices},
    digest,
    events::{Additions, Event, Listener},
    job::{Context, Handler, Job, JobChange, JobError, NewJob},
    pairing::Side,
    ports::without_conflict,
    push::{Payload, Push, PushError, Pusher, Surface, Urgency},
    timeline::{EntryKinds, NewEntry, PHOTO, system},
};

/// Shortest time between two messages to the widgets of a device.
const RELOAD_INTERVAL: Duration = Duration::from_mins(1);
/// Time after the first failure for which a message is tried again.
const RETRY_TIME: Duration = Duration::from_hours(24);

/// Members whose glance an event changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readers {
    /// Members of a couple, by side.
    Of {
        /// The couple.
        couple: CoupleId,
        /// Whether the glance of each member changes, by [`Side`].
        sides: [bool; 2],
    },
    /// Both members of a couple that was created or has ended.
    Both([AccountId; 2]),
}

/// Members whose glance an event changes; none for other events.
#[must_use]
pub fn readers_of(event: &Event<'_>, kinds: &EntryKinds) -> Option<Readers> {
    match event {
        Event::CoupleFounded { couple } => Some(Readers::Both(couple.members)),
        Event::CoupleEnded { members, .. } => Some(Readers::Both(*members)),
        Event::ReadPositionMoved { couple, side, .. } => {
            Some(Readers::Of { couple: *couple, sides: only(*side) })
        }
        Event::EntryAppended { couple, entry } => {
            let sides = sides_of(entry, kinds);
            (sides != [false; 2]).then_some(Readers::Of { couple: *couple, sides })
        }
        _ => None,
    }
}

const fn only(side: Side) -> [bool; 2] {
    match side {
        Side::First => [true, false],
        Side::Second => [false, true],
    }
}

/// Members whose glance an entry changes. The kind of an edited or deleted entry is not known, so it counts for both.
fn sides_of(entry: &NewEntry, kinds: &EntryKinds) -> [bool; 2] {
    let of_partner = entry.author.map_or([true; 2], |author| only(author.other()));
    match entry.kind.as_str() {
        PHOTO | system::MEDIA_READY | system::COUPLE_CHANGED | system::EDITED | system::DELETED => [true; 2],
        "mood" | system::PROFILE_CHANGED => of_partner,
        kind if entry.client_id.is_some() && !kinds.not_unread().iter().any(|name| name == kind) => {
            of_partner
        }
        _ => [false; 2],
    }
}

/// Job that finds the widgets of the members whose glance has changed, and enqueues a [`ReloadWidget`] for each.
///
/// There is a job for each event, as of [`SendPush`](super::SendPush): its read of the last message to a device comes
/// after the change, so that a message that is not sent yet then shows the change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadWidgets {
    /// Members whose glance has changed.
    pub readers: Readers,
}

impl Job for ReloadWidgets {
    const NAME: &'static str = "notification.reload_widgets";
    const QUEUE: &'static str = "push";
    const MAX_AGE: Duration = Duration::from_hours(24);
}

/// Job that asks the widgets of a device to read their glance again.
///
/// The deduplication key has the end of the last message's minute. So all changes of a minute share one job, which is
/// due at its end, and a change after the job has begun the next minute gets a job of that minute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReloadWidget {
    /// Person of the device.
    pub account: AccountId,
    /// Id of the device.
    pub device: DeviceId,
    /// End of the minute of the last message, in microseconds since 1970 (UTC); 0 without one.
    pub after: i64,
    /// Time in microseconds since 1970 (UTC) after which a failure is not repeated; none before the first failure.
    #[serde(default)]
    pub give_up_at: Option<i64>,
}

impl Job for ReloadWidget {
    const NAME: &'static str = "notification.reload_widget";
    const QUEUE: &'static str = "push";
    const MAX_AGE: Duration = Duration::from_hours(24);

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("{} {} {} {}", Self::NAME, self.account, self.device, self.after))
    }
}

/// Tally that counts the messages to a device: one a minute.
fn tally(account: AccountId, device: DeviceId) -> TallyId {
    let (account, device) = (account.as_uuid(), device.as_uuid());
    TallyId::from_digest(digest(&[b"widget reload", account.as_bytes(), device.as_bytes()]))
}

/// Listener that enqueues a [`ReloadWidgets`] for each event that changes what a glance shows.
#[derive(Debug, Clone)]
pub struct NotifyWidgets {
    kinds: EntryKinds,
}

impl NotifyWidgets {
    /// Creates the listener. `kinds` are those that the host defines.
    #[must_use]
    pub const fn new(kinds: EntryKinds) -> Self {
        Self { kinds }
    }
}

impl Listener for NotifyWidgets {
    fn on(&self, event: &Event<'_>, additions: &mut Additions<'_>) -> Result<(), Error> {
        match readers_of(event, &self.kinds) {
            Some(readers) => additions.enqueue(&ReloadWidgets { readers }),
            None => Ok(()),
        }
    }
}

/// Handler that enqueues the messages to the widgets of each member.
pub struct ReloadWidgetsHandler {
    ports: Ports,
    /// Lifetimes of built-in sessions; none with a host's own users.
    sessions: Option<AccountPolicy>,
}

impl ReloadWidgetsHandler {
    /// Creates the handler. `sessions` has the lifetimes of the built-in sessions; none with a host's own users.
    #[must_use]
    pub const fn new(ports: Ports, sessions: Option<AccountPolicy>) -> Self {
        Self { ports, sessions }
    }
}

/// Creates a job after the last message to a device, due at the end of that message's minute.
async fn next_reload(
    ports: &Ports,
    account: AccountId,
    device: DeviceId,
) -> Result<(ReloadWidget, Timestamp), Error> {
    // Also a tally that has expired.
    let last = ports.store.tally(tally(account, device), Timestamp::from_micros(i64::MIN)).await?;
    let after = last.map_or(0, |tally| tally.expires_at.micros());
    let due = ports.now().max(Timestamp::from_micros(after));
    Ok((ReloadWidget { account, device, after, give_up_at: None }, due))
}

#[async_trait]
impl Handler<ReloadWidgets> for ReloadWidgetsHandler {
    async fn run(&self, job: ReloadWidgets, _: &Context) -> Result<(), JobError> {
        let readers = match job.readers {
            Readers::Both(members) => members.to_vec(),
            Readers::Of { couple, sides } => {
                let Some(couple) = self.ports.store.couple(couple).await? else { return Ok(()) };
                let of = |(member, reads): (AccountId, bool)| reads.then_some(member);
                couple.members.into_iter().zip(sides).filter_map(of).collect()
            }
        };
        let mut changes = Vec::new();
        for person in readers {
            let sessions = self.sessions.as_ref();
            for device in service::devices_on(&self.ports, sessions, person, Surface::Widget).await? {
                let (job, due) = next_reload(&self.ports, person, device.id).await?;
                changes.push(JobChange::Enqueue(NewJob::at(&job, due, &self.ports)?).into());
            }
        }
        if !changes.is_empty() {
            without_conflict(self.ports.commit(changes).await)?;
        }
        Ok(())
    }
}

/// Handler that sends the message to the widgets of a device.
pub struct ReloadWidgetHandler {
    ports: Ports,
    pusher: Arc<dyn Pusher>,
    devices: Devices,
    sessions: Option<AccountPolicy>,
}

impl ReloadWidgetHandler {
    /// Creates the handler. `sessions` has the lifetimes of the built-in sessions; none with a host's own users.
    #[must_use]
    pub fn new(ports: Ports, pusher: Arc<dyn Pusher>, sessions: Option<AccountPolicy>) -> Self {
        let devices = Devices::new(ports.clone(), DevicePolicy::default());
        Self { ports, pusher, devices, sessions }
    }

    /// Begins the minute of a message, unless another one has not ended.
    async fn begin_minute(&self, job: &ReloadWidget) -> Result<bool, Error> {
        let at = self.ports.now();
        let count = AccountChange::CountTally {
            id: tally(job.account, job.device),
            below: 1,
            at,
            expires_at: at.plus(RELOAD_INTERVAL),
        };
        match self.ports.commit(vec![count.into()]).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(Conflict::TallyFull)) => Ok(false),
            Err(other) => without_conflict(Err(other)).map(|_| false),
        }
    }

    /// Enqueues the message again, after the minute that has begun and `delay`.
    async fn put_off(&self, job: &ReloadWidget, delay: Duration) -> Result<(), Error> {
        let (next, due) = next_reload(&self.ports, job.account, job.device).await?;
        let now = self.ports.now();
        let give_up_at = job.give_up_at.unwrap_or_else(|| now.plus(RETRY_TIME).micros());
        if now.micros() >= give_up_at {
            return Ok(());
        }
        let next = ReloadWidget { give_up_at: Some(give_up_at), ..next };
        let next = NewJob::at(&next, due.max(now.plus(delay)), &self.ports)?;
        without_conflict(self.ports.commit(vec![JobChange::Enqueue(next).into()]).await)?;
        Ok(())
    }
}

#[async_trait]
impl Handler<ReloadWidget> for ReloadWidgetHandler {
    async fn run(&self, job: ReloadWidget, context: &Context) -> Result<(), JobError> {
        let devices =
            service::devices_on(&self.ports, self.sessions.as_ref(), job.account, Surface::Widget).await?;
        let Some(device) = devices.into_iter().find(|device| device.id == job.device) else { return Ok(()) };
        if !self.begin_minute(&job).await? {
            // On the first attempt, another job has begun a minute since this one was enqueued, so its message shows the
            // change. On a later one, this job may have begun it and failed before its message.
            if context.attempt > 1 {
                self.put_off(&job, Duration::ZERO).await?;
            }
            return Ok(());
        }
        let push = Push {
            id: context.id.as_uuid(),
            to: device.destination.clone(),
            payload: Payload::Reload { surface: Surface::Widget },
            collapse: Some("glance".to_owned()),
            urgency: Urgency::Normal,
            expires_at: Some(self.ports.now().plus(RETRY_TIME)),
        };
        match self.pusher.push(&push).await {
            Ok(()) => {}
            Err(PushError::Gone { since }) => self.devices.retire(&device, since).await?,
            Err(PushError::Refused(error)) => {
                tracing::error!(%error, device = %device.id, "reload of widgets refused");
            }
            Err(PushError::Unavailable { retry_after, error }) => {
                tracing::warn!(%error, device = %device.id, "reload of widgets put off");
                self.put_off(&job, retry_after.unwrap_or_default()).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::timeline::EntryKind;

    const AT: Timestamp = Timestamp::from_micros(0);

    fn kinds() -> EntryKinds {
        let kinds = vec![EntryKind::new("x-quiet").with_unread(false), EntryKind::new("x-loud")];
        EntryKinds::new(kinds, false).unwrap()
    }

    fn entry(kind: &str) -> NewEntry {
        NewEntry { client_id: Some("a".to_owned()), ..NewEntry::system(kind, Some(Side::First), None, AT) }
    }

    #[test]
    fn entry_reloads_the_glances_that_it_changes() {
        let sides = |entry: &NewEntry| sides_of(entry, &kinds());
        for kind in ["text", "hug", "mood", "x-loud", "x-undefined"] {
            assert_eq!(sides(&entry(kind)), [false, true], "{kind}");
        }
        assert_eq!(sides(&entry(PHOTO)), [true, true]);
        assert_eq!(sides(&entry("x-quiet")), [false, false]);
        assert_eq!(sides(&NewEntry { author: Some(Side::Second), ..entry("text") }), [true, false]);
        let system = |kind| NewEntry::system(kind, Some(Side::First), None, AT);
        for kind in [system::MEDIA_READY, system::COUPLE_CHANGED, system::EDITED, system::DELETED] {
            assert_eq!(sides(&system(kind)), [true, true], "{kind}");
        }
        assert_eq!(sides(&system(system::PROFILE_CHANGED)), [false, true]);
        for kind in [system::REACTED, system::PAIRED, system::RESTORED, system::MEDIA_REJECTED] {
            assert_eq!(sides(&system(kind)), [false, false], "{kind}");
        }
    }

    #[test]
    fn read_position_reloads_the_glance_of_its_member() {
        let couple = CoupleId::from_uuid(Uuid::from_u128(1));
        let event = Event::ReadPositionMoved { couple, side: Side::Second, seq: 1 };
        let expected = Readers::Of { couple, sides: [false, true] };
        assert_eq!(readers_of(&event, &kinds()), Some(expected));
        let members = [2, 3].map(|n| AccountId::from_uuid(Uuid::from_u128(n)));
        let event = Event::CoupleEnded { couple, members, at: AT, by: None };
        assert_eq!(readers_of(&event, &kinds()), Some(Readers::Both(members)));
        let event = Event::EntryAppended { couple, entry: &entry("x-quiet") };
        assert_eq!(readers_of(&event, &kinds()), None);
    }
}
