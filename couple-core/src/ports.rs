//! What every service is given, and the one door through which services write.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    Change, Clock, CommitError, Committed, CoupleId, Entropy, Error, ErrorKind, Failure, Keyring, Store,
    Timestamp,
    account::AccountChange,
    job::{Job, JobChange, NewJob},
    limits::{LimitKey, Limited, RateLimiter, Rule},
    live::{Bus, Notice, Presence, Topic},
    mail::Links,
    pairing::PairingChange,
    timeline::{NewEntry, TimelineChange},
};

/// The ports that services work through. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Who is told of it.
    pub bus: Arc<dyn Bus>,
    /// Who is here.
    pub presence: Arc<dyn Presence>,
    /// How often is too often.
    pub limits: Arc<dyn RateLimiter>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What codes and links are derived from.
    pub keys: Keyring,
    /// Where links in mails lead.
    pub links: Links,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Time after which a commit of unknown outcome has ended: stores give a transaction two seconds.
const LATE: Duration = Duration::from_secs(3);

impl Ports {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Commits, and publishes what was written, in a separate task, so that neither is cancelled with the caller. After a
    /// commit of unknown outcome ([`ErrorKind::TimedOut`]) it publishes as well, and once more when the commit must have
    /// ended: a notice only makes its receivers read the store. A process that dies between commit and notice costs the receivers their
    /// fallback interval, nothing else.
    ///
    /// # Errors
    /// The store's.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Committed, CommitError> {
        let (topics, appended) = (topics_of(&changes), only_appended(&changes));
        let (ports, mut changed) = (self.clone(), topics.clone());
        let whole = tokio::spawn(async move {
            let result = ports.store.commit(changes).await;
            match &result {
                Ok(committed) => {
                    if let Some(((couple, entry), seq)) = appended.zip(committed.seqs.first()) {
                        changed.remove(&Topic::Couple(couple));
                        let notice = Notice::Appended(Arc::new(entry.at_seq(*seq)));
                        ports.bus.publish(Topic::Couple(couple), notice).await;
                    }
                    ports.publish_changed(&changed).await;
                }
                Err(CommitError::Failed(error)) if error.kind() == ErrorKind::TimedOut => {
                    ports.publish_twice(changed).await;
                }
                Err(_) => {}
            }
            result
        });
        match whole.await {
            Ok(result) => result,
            // The task may have panicked after the database committed.
            Err(panicked) => {
                self.publish_twice(topics).await;
                Err(Error::new(ErrorKind::TimedOut, "commit").context("panicked").source(panicked).into())
            }
        }
    }

    /// Publishes what a commit of unknown outcome may have changed: now, and when it must have ended.
    async fn publish_twice(&self, topics: HashSet<Topic>) {
        self.publish_changed(&topics).await;
        let ports = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LATE).await;
            ports.publish_changed(&topics).await;
        });
    }

    async fn publish_changed(&self, topics: &HashSet<Topic>) {
        for topic in topics {
            self.bus.publish(topic.clone(), Notice::Changed).await;
        }
    }

    /// The change that enqueues a job due now.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the payload has no JSON form.
    pub fn enqueue<J: Job>(&self, job: &J) -> Result<Change, Error> {
        NewJob::now(job, &*self.clock, &*self.entropy)
    }

    /// Takes one from each allowance, and refuses at the first that is used up.
    ///
    /// # Errors
    /// The limiter's own failure refuses too: a limit never lapses.
    pub async fn allow<R: From<Limited>>(&self, wanted: &[(Rule, LimitKey)]) -> Result<(), Failure<R>> {
        for (rule, key) in wanted {
            if let Err(limited) = self.limits.take(rule, key).await? {
                return Err(Failure::Refused(limited.into()));
            }
        }
        Ok(())
    }
}

/// Turns a commit that was not prepared for a conflict into an error.
pub(crate) fn settled(result: Result<Committed, CommitError>) -> Result<Committed, Error> {
    result.map_err(|error| match error {
        CommitError::Failed(error) => error,
        CommitError::Conflict(conflict) => Error::new(ErrorKind::Overloaded, "commit").source(conflict),
    })
}

/// The entry of a commit that writes nothing else of its couple, and of no other entry.
fn only_appended(changes: &[Change]) -> Option<(CoupleId, NewEntry)> {
    let mut of_couples =
        changes.iter().filter(|change| matches!(change, Change::Timeline(_) | Change::Pairing(_)));
    match (of_couples.next(), of_couples.next()) {
        (Some(Change::Timeline(TimelineChange::Append { couple, entry })), None)
            if entry.target.is_none() =>
        {
            Some((*couple, entry.clone()))
        }
        _ => None,
    }
}

fn topics_of(changes: &[Change]) -> HashSet<Topic> {
    let mut topics = HashSet::new();
    for change in changes {
        match change {
            Change::Account(
                AccountChange::EndSession { account, .. }
                | AccountChange::EndSessions { account, .. }
                | AccountChange::Erase { id: account, .. },
            ) => {
                topics.insert(Topic::Account(*account));
            }
            Change::Pairing(PairingChange::Found(couple)) => {
                topics.extend(couple.members.map(Topic::Account));
            }
            Change::Pairing(PairingChange::End { id, .. } | PairingChange::Describe { id, .. }) => {
                topics.insert(Topic::Couple(*id));
            }
            Change::Timeline(
                TimelineChange::Append { couple, .. } | TimelineChange::MarkRead { couple, .. },
            ) => {
                topics.insert(Topic::Couple(*couple));
            }
            Change::Job(JobChange::Enqueue(job)) => {
                topics.insert(Topic::Queue(job.queue.clone()));
            }
            Change::Account(_)
            | Change::Pairing(_)
            | Change::Timeline(_)
            | Change::Media(_)
            | Change::Job(_)
            | Change::Upload(_)
            | Change::Idempotency(_) => {}
        }
    }
    topics
}
