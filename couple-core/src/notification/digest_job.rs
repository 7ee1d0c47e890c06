//! Mail digests of unread entries.
//!
//! A person has at most one digest that is scheduled: [`Preferences::digest_due`] is its time. The first unread entry
//! after that time schedules the next one, and its commit requires the version of the preferences. So two digests of a
//! person are at least one delay apart, with any number of workers.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    NotificationChange, NotificationPolicy, Preferences, UNSUBSCRIBE_PATH,
    job::counts,
    rules::{self, DigestDecision, DigestSituation, PushReason},
    service,
};
use crate::{
    AccountId, Change, Decision, Error, Failure, Label, Ports, Secret, Timestamp, UnitOfWork,
    job::{Context, Handler, Job, JobChange, JobError, NewJob},
    mail::{Mail, Mailer, Message},
    pairing::{Couple, Directory, Side},
    timeline::{Entry, EntryKinds, Page, Timeline},
};

/// Maximum number of texts of entries in a digest.
const MAX_TEXTS: usize = 3;
/// Number of newest entries among which these texts are looked for.
const NEWEST: u32 = 20;

/// Job that mails a digest of a person's unread entries, if it is still to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendDigest {
    /// Recipient.
    pub person: AccountId,
    /// Due time in microseconds since 1970 (UTC). A job for another time than [`Preferences::digest_due`] sends nothing.
    pub due: i64,
    /// Whether an earlier job found a live stream of the person.
    #[serde(default)]
    pub is_second_look: bool,
}

impl Job for SendDigest {
    const NAME: &'static str = "notification.digest";
    // Not that of other mails: many digests are due at the same hour, and nobody waits for one.
    const QUEUE: &'static str = "digest";
    // MAX_AGE limits the retries, so that a digest survives an outage of the mail server.
    const MAX_ATTEMPTS: i64 = 60;
    const MAX_AGE: Duration = Duration::from_hours(24);

    fn dedupe_key(&self) -> Option<String> {
        Some(format!("{} {} {}", Self::NAME, self.person, self.due))
    }
}

/// Changes that schedule a digest at `due`.
fn changes(
    ports: &Ports,
    read: &Preferences,
    due: Timestamp,
    is_second_look: bool,
) -> Result<Vec<Change>, Error> {
    let job = SendDigest { person: read.person, due: due.micros(), is_second_look };
    let put = NotificationChange::Put(Preferences { digest_due: Some(due), ..read.clone() });
    Ok(vec![put.into(), JobChange::Enqueue(NewJob::at(&job, due, ports)?).into()])
}

/// Schedules a digest at `due`, unless one is scheduled already or the person has switched them off meanwhile.
pub(super) async fn schedule(ports: &Ports, person: AccountId, due: Timestamp) -> Result<(), Error> {
    let work = UnitOfWork::new(ports);
    let now = work.now();
    let scheduled: Result<(), Failure<Infallible>> = work
        .run_unkeyed(
            async |_previous| Ok(service::read(ports, person).await?),
            |read| {
                if read.digest.is_none() || read.digest_due.is_some_and(|scheduled| now < scheduled) {
                    return Ok(Decision::Answer(()));
                }
                Ok(Decision::commit(changes(ports, read, due, false)?, ()))
            },
        )
        .await;
    scheduled.map_err(only_error)
}

fn only_error(failure: Failure<Infallible>) -> Error {
    match failure {
        Failure::Failed(error) => error,
        Failure::Refused(never) => match never {},
    }
}

/// Handler that decides about a digest at the moment of sending, and sends it.
pub struct SendDigestHandler {
    ports: Ports,
    directory: Arc<dyn Directory>,
    mailer: Arc<dyn Mailer>,
    timeline: Timeline,
    policy: NotificationPolicy,
}

impl SendDigestHandler {
    /// Creates the handler.
    #[must_use]
    pub fn new(
        ports: Ports,
        directory: Arc<dyn Directory>,
        mailer: Arc<dyn Mailer>,
        kinds: EntryKinds,
        policy: NotificationPolicy,
    ) -> Self {
        let timeline = Timeline::new(ports.clone()).with_kinds(kinds);
        Self { ports, directory, mailer, timeline, policy }
    }

    /// Puts the digest off, if it is still the scheduled one.
    async fn put_off(&self, job: &SendDigest, at: Timestamp, is_second_look: bool) -> Result<(), Error> {
        let put_off: Result<(), Failure<Infallible>> = UnitOfWork::new(&self.ports)
            .run_unkeyed(
                async |_previous| Ok(service::read(&self.ports, job.person).await?),
                |read| {
                    if read.digest_due.map(Timestamp::micros) != Some(job.due) {
                        return Ok(Decision::Answer(()));
                    }
                    Ok(Decision::commit(changes(&self.ports, read, at, is_second_look)?, ()))
                },
            )
            .await;
        put_off.map_err(only_error)
    }

    /// Starts of the newest unread texts, the oldest of them first.
    async fn texts(&self, couple: &Couple, side: Side) -> Result<Vec<Label>, Error> {
        let newest = Page::Before(couple.head_seq.saturating_add(1));
        let entries = self.ports.store.entries(couple.id, newest, NEWEST, None).await?;
        let is_unread = |entry: &&Entry| {
            entry.seq > couple.read[side.index()]
                && entry.author == Some(side.other())
                && entry.deleted_at.is_none()
                && counts(self.timeline.kinds(), entry.client_id.as_ref(), &entry.kind)
        };
        let texts = entries.iter().rev().filter(is_unread);
        let texts = texts.filter_map(|entry| entry.body.as_ref().and_then(rules::preview));
        let mut texts: Vec<_> = texts.take(MAX_TEXTS).map(Label::from_stored).collect();
        texts.reverse();
        Ok(texts)
    }
}

#[async_trait]
impl Handler<SendDigest> for SendDigestHandler {
    async fn run(&self, job: SendDigest, context: &Context) -> Result<(), JobError> {
        let store = &self.ports.store;
        let preferences = service::read(&self.ports, job.person).await?;
        let Some(contact) = self.directory.contact(job.person).await? else { return Ok(()) };
        // The couple of this moment: entries of a former one are reported by nothing.
        let Some(couple) = store.couple_of(job.person).await? else { return Ok(()) };
        let Some(side) = couple.side_of(job.person) else { return Ok(()) };
        let partner = couple.member(side.other());
        let unread = self.timeline.unread(&couple, side).await?;
        let situation = DigestSituation {
            now: self.ports.now(),
            is_scheduled: preferences.digest_due.map(Timestamp::micros) == Some(job.due),
            preferences: &preferences,
            time_zone: contact.time_zone.as_ref(),
            is_couple: couple.ended_at.is_none(),
            is_blocked: store.is_blocked(job.person, partner).await?,
            unread,
            is_present: self.ports.presence.left(job.person).await.is_ok_and(|left| left.is_some()),
            is_second_look: job.is_second_look,
        };
        match rules::decide_digest(&situation, &self.policy) {
            DigestDecision::Nothing(reason) => {
                tracing::debug!(%reason, job = %context.id, "no digest");
                return Ok(());
            }
            DigestDecision::Later(at, reason) => {
                tracing::debug!(%reason, job = %context.id, "digest put off");
                let looked = job.is_second_look || reason == PushReason::Present;
                self.put_off(&job, at, looked).await?;
                return Ok(());
            }
            DigestDecision::Send => {}
        }
        let (from, texts) = match preferences.previews {
            true => {
                let profile = self.directory.profile(partner).await?;
                (profile.map(|profile| profile.display_name), self.texts(&couple, side).await?)
            }
            false => (None, Vec::new()),
        };
        let token = rules::unsubscribe_token(&self.ports.keys, job.person);
        let path = format!("{UNSUBSCRIBE_PATH}{}", token.expose());
        let unsubscribe = Secret::new(self.ports.links.below(&path));
        let message = Message::Digest { unread, from, texts, unsubscribe };
        let (id, at) = (context.id.to_string(), context.enqueued_at);
        self.mailer.send(&Mail { id, to: contact.email, locale: contact.locale, at, message }).await?;
        Ok(())
    }
}
