//! Recurring jobs, and the purges of recorded outcomes and dead jobs.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Context, Handler, Job, JobChange, JobError, NewJob, retry::fraction};
use crate::{Change, Error, IdempotencyChange, Ports, Timestamp, ports::without_conflict};

type JobFactory = dyn Fn(&Ports, Timestamp) -> Result<NewJob, Error> + Send + Sync;

/// Recurring job. Its deduplication key allows one live job over all processes.
#[derive(Clone)]
pub struct Schedule {
    every: Duration,
    name: &'static str,
    make: Arc<JobFactory>,
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schedule")
            .field("name", &self.name)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl Schedule {
    /// Runs the job that `make` creates at the interval `every`. The job must have a deduplication key.
    #[must_use]
    pub fn every<J: Job>(every: Duration, make: impl Fn() -> J + Send + Sync + 'static) -> Self {
        Self {
            every,
            name: J::NAME,
            make: Arc::new(move |ports, due| NewJob::at(&make(), due, &*ports.clock, &*ports.entropy)),
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    /// First run: at a random time within the interval, so that many processes do not run it together.
    pub(super) fn first(&self, ports: &Ports) -> Result<Change, Error> {
        let due = ports.now().plus(fraction(self.every, &*ports.entropy));
        Ok(JobChange::Enqueue((self.make)(ports, due)?).into())
    }

    /// Run after the one that ends now.
    pub(super) fn next(&self, ports: &Ports) -> Result<Change, Error> {
        Ok(JobChange::Enqueue((self.make)(ports, ports.now().plus(self.every))?).into())
    }
}

/// Number of rows that one purging commit removes.
const MAX_ROWS_PER_COMMIT: u32 = 500;

/// Purges in batches until a batch is incomplete. Returns the number of removed rows.
pub(crate) async fn purge_all(
    ports: &Ports,
    change: impl Fn(u32) -> Change + Send + Sync,
) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let committed = without_conflict(ports.commit(vec![change(MAX_ROWS_PER_COMMIT)]).await)?;
        let purged = committed.rows_affected();
        total += purged;
        if purged < u64::from(MAX_ROWS_PER_COMMIT) {
            return Ok(total);
        }
    }
}

/// Job that purges expired outcomes of idempotency keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeOutcomes {}

impl Job for PurgeOutcomes {
    const NAME: &'static str = "idempotency.purge";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler that removes expired outcomes of idempotency keys.
pub struct PurgeOutcomesHandler(pub Ports);

impl PurgeOutcomesHandler {
    /// Schedule: every 10 minutes.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_mins(10), || PurgeOutcomes {})
    }
}

#[async_trait]
impl Handler<PurgeOutcomes> for PurgeOutcomesHandler {
    async fn run(&self, _: PurgeOutcomes, _: &Context) -> Result<(), JobError> {
        let before = self.0.now();
        purge_all(&self.0, |cap| IdempotencyChange::Purge { before, cap }.into()).await?;
        Ok(())
    }
}

/// Job that purges old dead jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeDead {}

impl Job for PurgeDead {
    const NAME: &'static str = "job.purge_dead";
    const QUEUE: &'static str = "default";
    fn dedupe_key(&self) -> Option<String> {
        Some(Self::NAME.to_owned())
    }
}

/// Handler that removes jobs that have been dead for 30 days.
pub struct PurgeDeadHandler(pub Ports);

impl PurgeDeadHandler {
    const RETENTION: Duration = Duration::from_hours(24 * 30);

    /// Schedule: every 24 hours.
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule::every(Duration::from_hours(24), || PurgeDead {})
    }
}

#[async_trait]
impl Handler<PurgeDead> for PurgeDeadHandler {
    async fn run(&self, _: PurgeDead, _: &Context) -> Result<(), JobError> {
        let before = self.0.now().minus(Self::RETENTION);
        purge_all(&self.0, |cap| JobChange::PurgeDead { before, cap }.into()).await?;
        Ok(())
    }
}
