//! Registry of job handlers.

use std::{collections::BTreeMap, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{ClaimedJob, Job, Queue, Schedule};
use crate::{Error, ErrorKind, JobId, Timestamp};

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
    /// Outage that does not depend on the job: the worker runs the job again after the given time, and the run does not count as an
    /// attempt. A job that is too old then is dead.
    #[error("{0}")]
    Deferred(Error, Duration),
    /// Permanent failure: the job is dead.
    #[error("{0}")]
    Dead(Error),
}

impl From<Error> for JobError {
    /// Rejections and corrupt data are permanent failures, errors with a [`deferral`](Error::deferral) outages; all other errors are
    /// transient.
    fn from(error: Error) -> Self {
        match (error.kind(), error.deferral()) {
            (ErrorKind::Rejected | ErrorKind::Corrupt, _) => Self::Dead(error),
            (_, Some(delay)) => Self::Deferred(error, delay),
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

/// Handler that is a function.
struct FnHandler<F>(F);

#[async_trait]
impl<J, F, Fut> Handler<J> for FnHandler<F>
where
    J: Job,
    F: Fn(J, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), JobError>> + Send,
{
    async fn run(&self, job: J, context: &Context) -> Result<(), JobError> {
        (self.0)(job, context.clone()).await
    }
}

/// Handlers by the names of their jobs.
#[derive(Default, Clone)]
pub struct Registry {
    handlers: BTreeMap<&'static str, Registered>,
    /// Names of jobs for which a second handler was added.
    duplicates: Vec<&'static str>,
}

#[derive(Clone)]
struct Registered {
    queue: &'static str,
    handler: Arc<dyn ErasedHandler>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

impl Registry {
    /// Adds a handler. A job name can have one; `BackendBuilder::build` of the facade refuses a second.
    #[must_use]
    pub fn with<J: Job>(mut self, handler: impl Handler<J>) -> Self {
        let handler = Arc::new(TypedHandler(handler, PhantomData));
        if self.handlers.insert(J::NAME, Registered { queue: J::QUEUE, handler }).is_some() {
            self.duplicates.push(J::NAME);
        }
        self
    }

    /// Adds a function as a handler, with the same rule.
    #[must_use]
    pub fn with_fn<J, F, Fut>(self, run: F) -> Self
    where
        J: Job,
        F: Fn(J, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        self.with::<J>(FnHandler(run))
    }

    /// Checks the names of queues, and that each handler has a queue, each schedule has a handler, and no job name has two handlers.
    pub(super) fn check(&self, queues: &[Queue], schedules: &[Schedule]) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::new(ErrorKind::Misconfigured, "register jobs").context(text));
        if let Some(name) = self.duplicates.first() {
            return wrong(format!("{name} has two handlers"));
        }
        // The text of a role has a list of queues, separated by commas.
        if let Some(Queue { name, .. }) = queues.iter().find(|queue| {
            queue.name.is_empty() || queue.name.contains(|c: char| c == ',' || c.is_whitespace())
        }) {
            return wrong(format!("the queue name {name:?} is empty, or has a comma or white space"));
        }
        for (name, Registered { queue, .. }) in &self.handlers {
            if !queues.iter().any(|known| known.name == *queue) {
                return wrong(format!("{name} is in the queue {queue}, which no worker runs: add .queue(…)"));
            }
        }
        for (at, schedule) in schedules.iter().enumerate() {
            let name = schedule.name();
            if !self.handlers.contains_key(name) {
                return wrong(format!("{name} has a schedule and no handler"));
            }
            if schedules[..at].iter().any(|other| other.name() == name) {
                return wrong(format!("{name} has two schedules"));
            }
        }
        Ok(())
    }

    /// Run of a claimed job; none if its name has no handler.
    pub(super) fn run(
        &self,
        claimed: &ClaimedJob,
    ) -> Option<impl Future<Output = Result<(), JobError>> + Send + use<>> {
        let job = &claimed.job;
        let handler = self.handlers.get(job.name.as_str())?.handler.clone();
        let context = Context { id: job.id, attempt: claimed.attempt, enqueued_at: job.created_at };
        let payload = job.payload.clone();
        Some(async move { handler.run(&payload, &context).await })
    }
}
