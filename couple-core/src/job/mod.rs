//! Jobs: the durable outbox and its worker.
//!
//! A job is enqueued only inside a commit, so it exists exactly when what caused it does. A worker claims a batch under
//! a lease; a claim has a random token that finishing must show, so a worker that was thought dead and comes back
//! changes nothing. Attempts are counted at the claim: a job that kills its process still runs out of them. Such a job leaves all jobs
//! abandoned that ran beside it. Abandoned jobs are claimed and run one at a time, so that from then on a crash costs an attempt of
//! the job that causes it and of no other abandoned one.
//! Delivery is at least once; [`Context::id`] is stable over all attempts and is what a handler passes on to be told apart.

mod port;
mod registry;
mod retry;
mod schedule;
mod worker;

pub use port::{JobChange, JobReads};
pub use registry::{Context, Handler, JobError, Registry};
pub use retry::Backoff;
pub(crate) use schedule::purge_all;
pub use schedule::{PurgeDead, PurgeDeadHandler, PurgeOutcomes, PurgeOutcomesHandler, Schedule};
pub use worker::{Queue, Worker, WorkerHandle, WorkerOptions};

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Change, Clock, Entropy, Error, ErrorKind, JobId, Timestamp};

/// A kind of work: its payload and its constants.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name it is stored under; unique, never reused for another payload.
    const NAME: &'static str;
    /// The queue it waits in.
    const QUEUE: &'static str;
    /// Claims before it is dead.
    const MAX_ATTEMPTS: i64 = 12;
    /// How long after its due time it is still worth doing.
    const MAX_AGE: Duration = Duration::from_hours(24 * 3);
    /// At most one live job has this key; enqueuing another is then a no-op.
    fn dedupe_key(&self) -> Option<String> {
        None
    }
}

/// A job as it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Which.
    pub id: JobId,
    /// Its queue.
    pub queue: String,
    /// Its kind.
    pub name: String,
    /// Its payload, JSON. Holds no secret.
    pub payload: String,
    /// At most one live job has this key.
    pub dedupe_key: Option<String>,
    /// When it may first run.
    pub due_at: Timestamp,
    /// When it is no longer worth doing.
    pub expires_at: Timestamp,
    /// Claims before it is dead.
    pub max_attempts: i64,
    /// When it was enqueued.
    pub created_at: Timestamp,
}

impl NewJob {
    /// A job due at `due_at`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the payload has no JSON form.
    pub fn at<J: Job>(
        job: &J,
        due_at: Timestamp,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Self, Error> {
        Ok(Self {
            id: JobId::new(clock, entropy),
            queue: J::QUEUE.to_owned(),
            name: J::NAME.to_owned(),
            payload: serde_json::to_string(job)
                .map_err(|e| Error::new(ErrorKind::Internal, "enqueue").context(J::NAME).source(e))?,
            dedupe_key: job.dedupe_key(),
            due_at,
            expires_at: due_at.plus(J::MAX_AGE),
            max_attempts: J::MAX_ATTEMPTS,
            created_at: clock.now(),
        })
    }
    /// The change that enqueues a job due now.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the payload has no JSON form.
    pub fn now<J: Job>(job: &J, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<Change, Error> {
        Ok(JobChange::Enqueue(Self::at(job, clock.now(), clock, entropy)?).into())
    }
}

/// A random token that finishing a job must show.
pub type ClaimToken = i64;

/// A job that a worker holds until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedJob {
    /// What was enqueued; `due_at` is the end of the lease.
    pub job: NewJob,
    /// Which claim this is: 1 for the first.
    pub attempt: i64,
    /// What finishing must show.
    pub claim: ClaimToken,
}

/// A job that will not run again by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadJob {
    /// What was enqueued.
    pub job: NewJob,
    /// How often it was claimed.
    pub attempts: i64,
    /// Why it is dead.
    pub error: String,
    /// Since when.
    pub died_at: Timestamp,
}

/// How a queue stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Jobs whose time has come and that nobody holds.
    pub ready: u64,
    /// Jobs that wait for their time or for a lease to end.
    pub waiting: u64,
    /// Jobs that will not run again by themselves.
    pub dead: u64,
    /// The earliest due time of all live jobs.
    pub next_due: Option<Timestamp>,
}
