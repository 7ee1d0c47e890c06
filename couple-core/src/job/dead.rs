//! List and replay of dead jobs, for operators.

use std::time::Duration;

use super::{DeadJob, JobChange};
use crate::{CommitError, Conflict, Error, JobId, Ports};

/// Service that lists dead jobs and makes them live again.
#[derive(Clone, Debug)]
pub struct DeadJobs {
    ports: Ports,
}

impl DeadJobs {
    /// Creates the service.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Up to `limit` dead jobs of all queues after the id `after`, in the order of their ids, which is that of their enqueuing.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn list(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error> {
        self.ports.store.dead_jobs(after, limit).await
    }

    /// Makes a dead job live and due now, with zero attempts and the lifetime that it had when it was enqueued.
    ///
    /// Returns `false` if it is not dead any more: it was replayed or purged meanwhile.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn replay(&self, dead: &DeadJob) -> Result<bool, Error> {
        let (id, at) = (dead.job.id, self.ports.now());
        let lifetime = dead.job.expires_at.micros().saturating_sub(dead.job.created_at.micros());
        let expires_at = at.plus(Duration::from_micros(u64::try_from(lifetime).unwrap_or(0)));
        match self.ports.commit(vec![JobChange::Replay { id, at, expires_at }.into()]).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(Conflict::NoDeadJob(_))) => Ok(false),
            Err(CommitError::Failed(error)) => Err(error),
            Err(CommitError::Conflict(conflict)) => {
                Err(Error::new(crate::ErrorKind::Internal, "replay a job").source(conflict))
            }
        }
    }
}
