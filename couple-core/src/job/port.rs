//! Job changes and reads that a store supports.

use async_trait::async_trait;

use super::{ClaimToken, DeadJob, NewJob, QueueStats};
use crate::{Error, JobId, Timestamp};

/// Changes to the job queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobChange {
    /// Adds a job. A no-op if a live job of any queue has the same deduplication key.
    Enqueue(NewJob),
    /// Claims up to `limit` due jobs of a queue that are not abandoned, earliest due time first.
    ///
    /// Each claim counts an attempt. The job then carries `claim` and is not due again before `lease_until`.
    /// A job is abandoned when its lease expired without a result.
    Claim {
        /// Name of the queue.
        queue: String,
        /// Current time: jobs that are due at or before it are claimed.
        now: Timestamp,
        /// End of the lease.
        lease_until: Timestamp,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
        /// Maximum number of jobs.
        limit: u32,
    },
    /// Claims the job of a queue that has been abandoned for the longest time, if any.
    ClaimAbandoned {
        /// Name of the queue.
        queue: String,
        /// Current time: a job is abandoned if its lease ended at or before it.
        now: Timestamp,
        /// End of the new lease.
        lease_until: Timestamp,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
    },
    /// Extends a lease.
    ///
    /// Precondition, here and below: the job still has this claim
    /// ([`ClaimLost`](crate::Conflict::ClaimLost)).
    Renew {
        /// Id of the job.
        id: JobId,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
        /// New end of the lease.
        lease_until: Timestamp,
    },
    /// Removes a job that succeeded.
    Finish {
        /// Id of the job.
        id: JobId,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
    },
    /// Ends the claim and makes the job due again later.
    Retry {
        /// Id of the job.
        id: JobId,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
        /// Time of the next attempt.
        due_at: Timestamp,
    },
    /// Ends the claim, takes its attempt back and makes the job due again later.
    ///
    /// For a run that says nothing about the job: the worker has no handler for it, such as one of an older version during a deployment, or a
    /// remote service had an outage.
    Defer {
        /// Id of the job.
        id: JobId,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
        /// Time at which the job is due again.
        due_at: Timestamp,
    },
    /// Moves a job to the dead-letter queue.
    Bury {
        /// Id of the job.
        id: JobId,
        /// Claim token: random number that identifies the claim.
        claim: ClaimToken,
        /// Error of the last attempt.
        error: String,
        /// Current time.
        at: Timestamp,
    },
    /// Makes a dead job live and due immediately, with zero attempts and without its deduplication key.
    ///
    /// Precondition: it is dead ([`NoDeadJob`](crate::Conflict::NoDeadJob)).
    Replay {
        /// Id of the job.
        id: JobId,
        /// Current time: the new due time.
        at: Timestamp,
        /// New expiry of the job.
        expires_at: Timestamp,
    },
    /// Removes up to `cap` dead jobs that died before `before`. The commit returns their number.
    PurgeDead {
        /// Jobs that died earlier are removed.
        before: Timestamp,
        /// Maximum number of jobs to remove.
        cap: u32,
    },
}

/// Reads of the job queues, with the guarantees that a store must give.
///
/// * **J1** A job is claimed once: 16 concurrent claimers share out 200 jobs, each job to one of them.
/// * **J2** Jobs are claimed in the order of their due times, then of their ids, and never before they are due.
///   A claim sees the jobs that earlier changes of its commit enqueue.
/// * **J3** A leased job is not claimed again before its lease ends. Afterwards it is abandoned: it is
///   claimed alone, one job at a time, the longest abandoned first, then by id, and the claim counts an
///   attempt. Ordinary claims skip it until a worker gives it back with a result.
/// * **J4** A worker that has lost its claim can neither renew, finish, retry, defer nor bury the job.
/// * **J5** While a live job has a deduplication key, enqueuing the key again is a no-op, also for another
///   queue or name. Once the job is finished or dead, the key is free, and a replayed job does not take it
///   again. Keys that differ in case, accents or a blank are different.
/// * **J6** Finishing a job and enqueuing its key again in one commit leaves one job.
/// * **J7** A retry makes the job due at the given time.
/// * **J8** Dead jobs are listed in the order of their ids and replayed with zero attempts. A purge removes at
///   most `cap` dead jobs, those that died earliest.
/// * **J9** Claims and reads of a queue never return jobs of another queue, however similar its name.
/// * **J10** Every field of a job reads back as it was enqueued, with any Unicode text: names of queues and jobs
///   of up to 255 bytes, deduplication keys of 512, payloads and errors of 32 KiB. A store keeps each time to
///   the microsecond, before 1970 and after 2038 too.
/// * **J11** Queue statistics count ready, waiting and dead jobs and contain the next due time. A job with a
///   lease is waiting until the lease ends, then ready.
/// * **J12** A deferred job is due at the given time, and its claim counts no attempt.
#[async_trait]
pub trait JobReads: Send + Sync {
    /// Number of jobs of a queue by state at `now`.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error>;
    /// Earliest due time of the live jobs of a queue that have no claim.
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error>;
    /// Earliest end of a lease in a queue; a job whose lease has ended is abandoned.
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error>;
    /// Up to `limit` dead jobs after the id `after`, in the order of their ids.
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error>;
}
