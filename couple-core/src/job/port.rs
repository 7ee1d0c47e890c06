//! What jobs need of a store.

use async_trait::async_trait;

use super::{ClaimToken, DeadJob, NewJob, QueueStats};
use crate::{Error, JobId, Timestamp};

/// Changes to the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobChange {
    /// Adds a job, unless a live one has its dedupe key: then nothing happens.
    Enqueue(NewJob),
    /// Claims up to `limit` due jobs of a queue that are not abandoned, earliest first.
    ///
    /// Each claim counts an attempt; the job carries `claim` and is not due again before `lease_until`. A job is abandoned when a lease
    /// of it ended without a result.
    Claim {
        /// From where.
        queue: String,
        /// Jobs due by now.
        now: Timestamp,
        /// When the claim ends.
        lease_until: Timestamp,
        /// What finishing must show.
        claim: ClaimToken,
        /// At most so many.
        limit: u32,
    },
    /// Claims the job of a queue that has been abandoned for longest, if any.
    ClaimAbandoned {
        /// Queue of the job.
        queue: String,
        /// Jobs whose lease ended by now.
        now: Timestamp,
        /// End of the new lease.
        lease_until: Timestamp,
        /// Token that finishing must show.
        claim: ClaimToken,
    },
    /// Extends a lease. Precondition, here and below: the job still carries this claim
    /// ([`ClaimLost`](crate::Conflict::ClaimLost)).
    Renew {
        /// Which.
        id: JobId,
        /// Whose.
        claim: ClaimToken,
        /// When the claim ends now.
        lease_until: Timestamp,
    },
    /// Removes a job that is done.
    Finish {
        /// Which.
        id: JobId,
        /// Whose.
        claim: ClaimToken,
    },
    /// Gives a job back, to be due later.
    Retry {
        /// Which.
        id: JobId,
        /// Whose.
        claim: ClaimToken,
        /// When next.
        due_at: Timestamp,
    },
    /// Moves a job to the dead ones.
    Bury {
        /// Which.
        id: JobId,
        /// Whose.
        claim: ClaimToken,
        /// Why.
        error: String,
        /// When.
        at: Timestamp,
    },
    /// Brings a dead job back, due at once, attempts at zero, without its dedupe key. Precondition: it is dead
    /// ([`NoDeadJob`](crate::Conflict::NoDeadJob)).
    Replay {
        /// Which.
        id: JobId,
        /// When.
        at: Timestamp,
        /// When it is no longer worth doing.
        expires_at: Timestamp,
    },
    /// Removes up to `cap` dead jobs that died before `before`; counted.
    PurgeDead {
        /// Jobs that died earlier go.
        before: Timestamp,
        /// At most so many.
        cap: u32,
    },
}

/// What jobs read.
///
/// * **J1** A job is claimed by one: 16 claimers at once share out 200 jobs, none twice.
/// * **J2** Jobs come in order of their due time, and none before it.
/// * **J3** A leased job is not claimed again before its lease ends. Afterwards it is abandoned: it is claimed by itself, one job at a
///   time, with the attempt counted, and ordinary claims pass over it until it was given back with a result.
/// * **J4** A lost claim can neither renew, finish, retry nor bury.
/// * **J5** A live dedupe key makes enqueuing a no-op; once the job is finished or dead the key is free.
/// * **J6** Finishing and enqueuing the same key in one commit leaves one job.
/// * **J7** Retrying makes the job due at the given time.
/// * **J8** Dead jobs are listed, oldest first, replayed with attempts at zero, and purged by age, at most `cap`.
/// * **J9** Queues do not see one another's jobs.
/// * **J10** Jobs read back as they were enqueued, every field.
/// * **J11** Stats count ready, waiting and dead jobs and tell the next due time.
#[async_trait]
pub trait JobReads: Send + Sync {
    /// How a queue stands at `now`.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error>;
    /// The earliest due time of those of a queue's live jobs that carry no claim.
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error>;
    /// The earliest end of a lease of a queue's jobs: when it is over, a job is abandoned.
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error>;
    /// Dead jobs in the order of their ids, after `after`.
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error>;
}

#[async_trait]
impl<S: JobReads + ?Sized> JobReads for std::sync::Arc<S> {
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error> {
        (**self).queue_stats(queue, now).await
    }
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        (**self).next_due(queue).await
    }
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        (**self).next_lease_end(queue).await
    }
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error> {
        (**self).dead_jobs(after, limit).await
    }
}
