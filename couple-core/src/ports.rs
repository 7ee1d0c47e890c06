//! Ports that every service uses, and the only function through which services commit.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tracing::Instrument as _;

use crate::{
    Change, Clock, CommitError, Committed, CoupleId, Entropy, Error, ErrorKind, Failure, IdGenerator,
    Keyring, Store, Timestamp,
    events::Listeners,
    job::{Job, JobChange, NewJob},
    limits::{LimitKey, Limited, RateLimiter, Rule},
    live::{Bus, Notice, Presence, Topic},
    mail::Links,
    timeline::NewEntry,
};

/// Ports that services use. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// Storage of all data.
    pub store: Arc<dyn Store>,
    /// Event bus that notifies live streams and workers of committed changes.
    pub bus: Arc<dyn Bus>,
    /// Presence leases of accounts.
    pub presence: Arc<dyn Presence>,
    /// Rate limiter that services ask before expensive or abusable operations.
    pub limits: Arc<dyn RateLimiter>,
    /// Source of time.
    pub clock: Arc<dyn Clock>,
    /// Source of random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Generator of the ids of new rows.
    pub ids: Arc<dyn IdGenerator>,
    /// Key ring from which mailed codes and links are derived.
    pub keys: Keyring,
    /// Builder of the links in mails.
    pub links: Links,
    /// Listeners that add jobs and entries to commits.
    pub listeners: Listeners,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Time after which a commit of unknown outcome has ended. Stores limit a transaction to two seconds.
const MAX_COMMIT_TIME: Duration = Duration::from_secs(3);

impl Ports {
    /// Current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Creates the id of a new row, for example a [`CoupleId`], at the current time.
    #[must_use]
    pub fn new_id<I: From<uuid::Uuid>>(&self) -> I {
        self.ids.generate(self.now()).into()
    }

    /// Commits the changes with what the [listeners](crate::events) add, and publishes notices of them.
    ///
    /// Commit and notices run in a separate task, so that a cancelled caller cancels neither. After a commit of unknown
    /// outcome ([`ErrorKind::TimedOut`]) the notices are published immediately and again when the commit must
    /// have ended: a notice only makes its receivers read the store. When a process dies between the commit
    /// and its notices, the receivers read the store at their next fallback interval.
    ///
    /// Returns one result for each of `changes`, and none for what listeners added.
    ///
    /// # Errors
    /// Conflicts and errors of the store; errors of listeners, after which nothing was written.
    pub async fn commit(&self, mut changes: Vec<Change>) -> Result<Committed, CommitError> {
        let given = changes.len();
        changes.extend(self.listeners.additions(self, &changes)?);
        let topics = topics(&changes);
        let appended = only_appended(&changes);
        let (ports, mut changed) = (self.clone(), topics.clone());
        // Child of the caller's span, so that what the store logs names the request or job.
        let span = tracing::info_span!("commit", changes = changes.len());
        let work = async move {
            let result = ports.store.commit(changes).await;
            match &result {
                Ok(committed) => {
                    if let Some(((couple, entry), seq)) = appended.zip(committed.appended_seqs().next()) {
                        changed.retain(|topic| *topic != Topic::Couple(couple));
                        let notice = Notice::Appended(Arc::new(entry.at_seq(seq)));
                        ports.bus.publish(Topic::Couple(couple), notice).await;
                    }
                    ports.publish_changed(&changed).await;
                }
                Err(CommitError::Failed(error)) if error.kind() == ErrorKind::TimedOut => {
                    ports.publish_twice(changed).await;
                }
                Err(_) => {}
            }
            result.map(|committed| committed.first(given))
        };
        match tokio::spawn(work.instrument(span)).await {
            Ok(result) => result,
            // The task may have panicked after the database committed.
            Err(panicked) => {
                self.publish_twice(topics).await;
                Err(Error::new(ErrorKind::TimedOut, "commit")
                    .context("the commit task panicked")
                    .source(panicked)
                    .into())
            }
        }
    }

    /// Publishes the notices of a commit of unknown outcome: immediately, and when it must have ended.
    async fn publish_twice(&self, topics: Vec<Topic>) {
        self.publish_changed(&topics).await;
        let ports = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(MAX_COMMIT_TIME).await;
            ports.publish_changed(&topics).await;
        });
    }

    async fn publish_changed(&self, topics: &[Topic]) {
        for topic in topics {
            self.bus.publish(topic.clone(), Notice::Changed).await;
        }
    }

    /// Creates the change that enqueues a job which is due now.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the payload cannot be serialized as JSON.
    pub fn enqueue<J: Job>(&self, job: &J) -> Result<Change, Error> {
        Ok(JobChange::Enqueue(NewJob::at(job, self.now(), self)?).into())
    }

    /// Takes one token from each bucket, in order. Refuses at the first empty one.
    ///
    /// # Errors
    /// A failure of the rate limiter also refuses: a failure never lifts a limit.
    pub async fn allow<R: From<Limited>>(&self, wanted: &[(Rule, LimitKey)]) -> Result<(), Failure<R>> {
        for (rule, key) in wanted {
            if let Err(limited) = self.limits.take(rule, key).await? {
                return Err(Failure::Refused(limited.into()));
            }
        }
        Ok(())
    }
}

/// Turns a conflict that the caller does not expect into an error.
pub(crate) fn without_conflict(result: Result<Committed, CommitError>) -> Result<Committed, Error> {
    result.map_err(|error| match error {
        CommitError::Failed(error) => error,
        CommitError::Conflict(conflict) => Error::new(ErrorKind::Overloaded, "commit").source(conflict),
    })
}

/// Topics of the changes, each once, in the order of the changes.
fn topics(changes: &[Change]) -> Vec<Topic> {
    let mut seen = HashSet::new();
    changes.iter().flat_map(Change::topics).filter(|topic| seen.insert(topic.clone())).collect()
}

/// Appended entry of a commit that makes no other change of a couple.
///
/// None if the entry targets another entry, because the notice would not carry the target's new state.
fn only_appended(changes: &[Change]) -> Option<(CoupleId, NewEntry)> {
    let mut of_couples =
        changes.iter().filter(|change| matches!(change, Change::Timeline(_) | Change::Pairing(_)));
    let (couple, entry) = of_couples.next()?.appended()?;
    (entry.target.is_none() && of_couples.next().is_none()).then(|| (couple, entry.clone()))
}
