//! Which handler runs which job.

use std::{collections::BTreeMap, marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{ClaimedJob, Job};
use crate::{Error, JobId, Timestamp};

/// What a handler knows of the job it runs.
#[derive(Debug, Clone)]
pub struct Context {
    /// Stable over all attempts: pass it on, so that the other side can tell a repeat.
    pub id: JobId,
    /// Which attempt this is: 1 for the first.
    pub attempt: i64,
    /// When the job was enqueued.
    pub enqueued_at: Timestamp,
}

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Worth trying again.
    #[error("{0}")]
    Retry(Error),
    /// Worth trying again, but not before that time.
    #[error("{0}")]
    RetryAfter(Error, Duration),
    /// Will never succeed.
    #[error("{0}")]
    Dead(Error),
}

impl From<Error> for JobError {
    /// A rejection is for good; anything else may pass.
    fn from(error: Error) -> Self {
        match error.kind() {
            crate::ErrorKind::Rejected | crate::ErrorKind::Corrupt => Self::Dead(error),
            _ => Self::Retry(error),
        }
    }
}

/// Does a kind of job. Runs at least once per job; being run twice must do no harm.
#[async_trait]
pub trait Handler<J: Job>: Send + Sync + 'static {
    /// Does one.
    async fn run(&self, job: J, context: &Context) -> Result<(), JobError>;
}

#[async_trait]
trait Erased: Send + Sync {
    async fn run(&self, payload: &str, context: &Context) -> Result<(), JobError>;
}

struct Typed<J, H>(H, PhantomData<fn() -> J>);

#[async_trait]
impl<J: Job, H: Handler<J>> Erased for Typed<J, H> {
    async fn run(&self, payload: &str, context: &Context) -> Result<(), JobError> {
        let job = serde_json::from_str(payload)
            .map_err(|source| JobError::Dead(Error::corrupt("job", "payload", context.id).source(source)))?;
        self.0.run(job, context).await
    }
}

/// Handlers by the names of their jobs.
#[derive(Default, Clone)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn Erased>>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Registry {
    /// Adds a handler, in place of one for the same name.
    #[must_use]
    pub fn with<J: Job>(mut self, handler: impl Handler<J>) -> Self {
        self.0.insert(J::NAME, Arc::new(Typed(handler, PhantomData)));
        self
    }

    pub(super) async fn run(&self, claimed: &ClaimedJob) -> Result<(), JobError> {
        let job = &claimed.job;
        let context = Context { id: job.id, attempt: claimed.attempt, enqueued_at: job.created_at };
        match self.0.get(job.name.as_str()) {
            Some(handler) => handler.run(&job.payload, &context).await,
            // A process of another version may know it: not dead yet.
            None => Err(JobError::Retry(
                Error::new(crate::ErrorKind::Unavailable, "run job")
                    .context(format!("no handler for {}", job.name)),
            )),
        }
    }
}
