//! Registry of job handlers.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{ClaimedJob, Job};
use crate::{Error, JobId, Timestamp};

/// Information about the job that a handler runs.
#[derive(Debug, Clone)]
pub struct Context {
    /// Id of the job, the same for all attempts. Pass it to remote services as an idempotency key.
    pub id: JobId,
    /// Number of the attempt, counted from 1.
    pub attempt: i64,
    /// Time of enqueuing.
    pub enqueued_at: Timestamp,
}

/// Failure of a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Transient failure: the worker retries after a back-off.
    #[error("{0}")]
    Retry(Error),
    /// Transient failure: the worker retries after the given time.
    #[error("{0}")]
    RetryAfter(Error, Duration),
    /// Permanent failure: the job is dead.
    #[error("{0}")]
    Dead(Error),
}

impl From<Error> for JobError {
    /// Rejections and corrupt data are permanent failures; all other errors are transient.
    fn from(error: Error) -> Self {
        match error.kind() {
            crate::ErrorKind::Rejected | crate::ErrorKind::Corrupt => Self::Dead(error),
            _ => Self::Retry(error),
        }
    }
}

/// Handler of one kind of job. Runs at least once per job, so it must be idempotent.
#[async_trait]
pub trait Handler<J: Job>: Send + Sync + 'static {
    /// Runs one job.
    async fn run(&self, job: J, context: &Context) -> Result<(), JobError>;
}

#[async_trait]
trait ErasedHandler: Send + Sync {
    async fn run(&self, payload: &str, context: &Context) -> Result<(), JobError>;
}

struct TypedHandler<J, H>(H, PhantomData<fn() -> J>);

#[async_trait]
impl<J: Job, H: Handler<J>> ErasedHandler for TypedHandler<J, H> {
    async fn run(&self, payload: &str, context: &Context) -> Result<(), JobError> {
        let job = serde_json::from_str(payload)
            .map_err(|source| JobError::Dead(Error::corrupt("job", "payload", context.id).source(source)))?;
        self.0.run(job, context).await
    }
}

/// Handlers by the names of their jobs.
#[derive(Default, Clone)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn ErasedHandler>>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Registry {
    /// Adds a handler; replaces a handler for the same job name.
    #[must_use]
    pub fn with<J: Job>(mut self, handler: impl Handler<J>) -> Self {
        self.0.insert(J::NAME, Arc::new(TypedHandler(handler, PhantomData)));
        self
    }

    pub(super) async fn run(&self, claimed: &ClaimedJob) -> Result<(), JobError> {
        let job = &claimed.job;
        let context = Context { id: job.id, attempt: claimed.attempt, enqueued_at: job.created_at };
        match self.0.get(job.name.as_str()) {
            Some(handler) => handler.run(&job.payload, &context).await,
            // Retry, because a process of another version may have a handler.
            None => Err(JobError::Retry(
                Error::new(crate::ErrorKind::Unavailable, "run job")
                    .context(format!("no handler for {}", job.name)),
            )),
        }
    }
}
