//! Background jobs: durable queues and the worker that runs them.
//!
//! A job is enqueued only inside a commit, so it exists if and only if its cause does (transactional outbox).
//! A worker claims a batch of jobs under a lease. Each claim has a random token that later changes of the job
//! must show, so a worker whose lease has expired cannot change the job.
//!
//! The store counts an attempt at the claim: a job that crashes its process still uses up its attempts. A
//! crash abandons all jobs that ran in the process. Abandoned jobs are claimed and run one at a time, so that
//! a further crash costs an attempt only to the job that caused it, not to the other abandoned jobs.
//!
//! Delivery is at least once. [`Context::id`] is the same for all attempts; a handler passes it on as an
//! idempotency key.

mod dead;
mod port;
mod registry;
mod retry;
mod schedule;
mod worker;

pub use dead::DeadJobs;
pub use port::{JobChange, JobReads};
pub use registry::{Context, Handler, JobError, Registry};
pub use retry::Backoff;
pub(crate) use schedule::purge_all;
pub use schedule::{PurgeDead, PurgeDeadHandler, PurgeOutcomes, PurgeOutcomesHandler, Schedule};
pub use worker::{Queue, Worker, WorkerHandle, WorkerOptions};

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind, JobId, Ports, Timestamp};

/// Kind of background job: its payload and its constants.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name under which the job is stored; unique, never reused for another payload.
    const NAME: &'static str;
    /// Name of the job's queue.
    const QUEUE: &'static str;
    /// Maximum number of claims; after them the job is dead.
    const MAX_ATTEMPTS: i64 = 12;
    /// Time after the due time at which the job expires.
    const MAX_AGE: Duration = Duration::from_hours(24 * 3);
    /// Deduplication key: enqueuing is a no-op while a live job has the same key.
    fn dedupe_key(&self) -> Option<String> {
        None
    }
}

/// Job to enqueue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Id of the job.
    pub id: JobId,
    /// Name of the queue.
    pub queue: String,
    /// [`Job::NAME`] of the job.
    pub name: String,
    /// Payload as JSON. Holds no secret.
    pub payload: String,
    /// Deduplication key: at most one live job has it.
    pub dedupe_key: Option<String>,
    /// Earliest time at which the job may run.
    pub due_at: Timestamp,
    /// Time after which the job is not run any more, but dead.
    pub expires_at: Timestamp,
    /// Maximum number of claims; after them the job is dead.
    pub max_attempts: i64,
    /// Time of enqueuing.
    pub created_at: Timestamp,
}

impl NewJob {
    /// Creates a job that is due at `due_at`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when the payload cannot be serialized as JSON.
    pub fn at<J: Job>(job: &J, due_at: Timestamp, ports: &Ports) -> Result<Self, Error> {
        Ok(Self {
            id: ports.new_id(),
            queue: J::QUEUE.to_owned(),
            name: J::NAME.to_owned(),
            payload: serde_json::to_string(job)
                .map_err(|e| Error::new(ErrorKind::Internal, "enqueue").context(J::NAME).source(e))?,
            dedupe_key: job.dedupe_key(),
            due_at,
            expires_at: due_at.plus(J::MAX_AGE),
            max_attempts: J::MAX_ATTEMPTS,
            created_at: ports.now(),
        })
    }
}

/// Random token of a claim, required to finish, retry, renew or bury the job.
pub type ClaimToken = i64;

/// Job that a worker has claimed, until its lease expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedJob {
    /// The enqueued job. `due_at` is the end of the lease.
    pub job: NewJob,
    /// Number of the claim, counted from 1.
    pub attempt: i64,
    /// Claim token: random number that identifies the claim.
    pub claim: ClaimToken,
}

/// Job in the dead-letter queue: it runs again only when it is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadJob {
    /// The enqueued job.
    pub job: NewJob,
    /// Number of claims.
    pub attempts: i64,
    /// Error of the last attempt.
    pub error: String,
    /// Time at which the job died.
    pub died_at: Timestamp,
}

/// Number of jobs in a queue by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Due jobs without a lease.
    pub ready: u64,
    /// Jobs that are not due yet or have a lease.
    pub waiting: u64,
    /// Jobs in the dead-letter queue.
    pub dead: u64,
    /// Earliest due time of all live jobs.
    pub next_due: Option<Timestamp>,
}
