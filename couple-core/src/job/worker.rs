//! Worker: claims jobs, runs them, renews their leases and records their results.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, Semaphore, watch},
    task::{Id, JoinSet},
    time::{sleep, timeout},
};

use tracing::Instrument as _;

use super::{
    ClaimToken, ClaimedJob, JobChange, JobError, Registry, Schedule,
    retry::{Backoff, fraction},
};
use crate::{
    Change, CommitError, Error, ErrorKind, JobId, Ports, Timestamp, live::Topic, ports::without_conflict,
};

/// Queue, with the number of its jobs that one process runs concurrently.
#[derive(Debug, Clone)]
pub struct Queue {
    /// Name of the queue.
    pub name: String,
    /// Maximum number of concurrent jobs in this process.
    pub concurrency: usize,
}

impl Queue {
    /// Creates a queue; a concurrency of 0 counts as 1.
    pub fn new(name: impl Into<String>, concurrency: usize) -> Self {
        Self { name: name.into(), concurrency: concurrency.max(1) }
    }
}

crate::options! {
    /// Settings of a worker.
    #[derive(Debug, Clone, Copy)]
    pub struct WorkerOptions {
        /// Sets the duration of a lease; renewed after a third of it.
        ///
        /// A job of a dead worker runs again after at most one lease and one poll, after the jobs that were
        /// abandoned earlier.
        lease: Duration = Duration::from_secs(30), with_lease;
        /// Sets the maximum time between two reads of the queue without a notice; jittered down to half of it.
        poll_interval: Duration = Duration::from_secs(10), with_poll_interval;
        /// Sets the maximum duration of one run.
        run_timeout: Duration = Duration::from_mins(10), with_run_timeout;
        /// Sets the time for which an abandoned job is the only abandoned one that runs in its process.
        ///
        /// Afterwards abandoned jobs of other queues may run beside it: a job that crashes its process is
        /// assumed to do so earlier.
        abandoned_isolation: Duration = Duration::from_secs(10), with_abandoned_isolation;
        /// Sets the delays between attempts.
        backoff: Backoff = Backoff::default(), with_backoff;
    }
}

impl WorkerOptions {
    /// Duration of a lease.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }
}

/// Worker that runs jobs of chosen queues, in a server or in a separate process.
#[derive(Debug, Clone)]
pub struct Worker {
    ports: Ports,
    registry: Registry,
    schedules: Arc<Vec<Schedule>>,
    queues: Vec<Queue>,
    options: WorkerOptions,
    /// Held while an abandoned job is claimed and begins to run: see [`WorkerOptions::with_abandoned_isolation`].
    isolation: Arc<Mutex<()>>,
}

/// Handle of a running worker.
///
/// Dropping it aborts the worker's tasks and the jobs that they run. Those jobs are abandoned: another worker runs them again when
/// their leases have expired.
#[derive(Debug)]
pub struct WorkerHandle {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Description of each task, for error messages.
    names: HashMap<Id, String>,
}

impl WorkerHandle {
    /// Waits until a task of the worker ends although nothing has stopped it, and returns what ended and why.
    ///
    /// This is a fault of the program: a task claims jobs again after every error. The other tasks continue, so the host decides whether
    /// the process may. Cancel safe.
    pub async fn failed(&mut self) -> Error {
        let error = Error::new(ErrorKind::Internal, "run jobs");
        match self.tasks.join_next_with_id().await {
            None => error.context("the worker has no tasks left"),
            Some(Ok((id, ()))) => error.context(format!("{} ended", self.name(id))),
            Some(Err(panicked)) => {
                error.context(format!("{} failed", self.name(panicked.id()))).source(panicked)
            }
        }
    }

    fn name(&mut self, id: Id) -> String {
        self.names.remove(&id).unwrap_or_default()
    }

    /// Graceful shutdown: claims no more jobs and waits up to `within` for running jobs.
    ///
    /// Jobs that still run then are aborted; another worker runs them again when their leases expire.
    pub async fn stop(mut self, within: Duration) {
        let _ = self.stop.send(true);
        let _ = timeout(within, async { while self.tasks.join_next().await.is_some() {} }).await;
        self.tasks.shutdown().await;
    }
}

/// Claims of the jobs of a queue that this process runs, with the ends of their leases.
#[derive(Debug, Clone, Default)]
struct HeldClaims(Arc<std::sync::Mutex<BTreeMap<JobId, (ClaimToken, Timestamp)>>>);

impl HeldClaims {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<JobId, (ClaimToken, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn insert(&self, id: JobId, claim: ClaimToken, lease_until: Timestamp) {
        self.locked().insert(id, (claim, lease_until));
    }
    /// Records the new end of the lease of a claim, but not of a later claim of the same job.
    fn record_renewal(&self, id: JobId, claim: ClaimToken, until: Timestamp) {
        if let Some((held, lease_until)) = self.locked().get_mut(&id)
            && *held == claim
        {
            *lease_until = until;
        }
    }
    /// Removes a claim, but not a later claim of the same job.
    fn remove(&self, id: JobId, claim: ClaimToken) {
        let mut claims = self.locked();
        if claims.get(&id).is_some_and(|(held, _)| *held == claim) {
            claims.remove(&id);
        }
    }
    /// All claims, those whose leases end first at the beginning.
    ///
    /// In a fixed order, renewals that together take longer than a lease would always miss the same jobs.
    fn by_lease_end(&self) -> Vec<(JobId, ClaimToken)> {
        let mut claims: Vec<_> =
            self.locked().iter().map(|(id, (claim, until))| (*until, *id, *claim)).collect();
        claims.sort_unstable();
        claims.into_iter().map(|(_, id, claim)| (id, claim)).collect()
    }
}

impl Worker {
    /// Creates a worker.
    #[must_use]
    pub fn new(
        ports: Ports,
        registry: Registry,
        schedules: Vec<Schedule>,
        queues: Vec<Queue>,
        options: WorkerOptions,
    ) -> Self {
        Self { ports, registry, schedules: Arc::new(schedules), queues, options, isolation: Arc::default() }
    }

    /// Checks that each handler's queue is among these queues, each schedule has a handler, and no job name has two handlers.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] names the job.
    pub fn check(&self) -> Result<(), Error> {
        self.registry.check(&self.queues, &self.schedules)?;
        self.schedules.iter().try_for_each(|schedule| schedule.check(&self.ports))
    }

    /// Starts the worker's tasks on the current runtime.
    #[must_use]
    pub fn start(self) -> WorkerHandle {
        let (stop, stopped) = watch::channel(false);
        let (mut tasks, mut names) = (JoinSet::new(), HashMap::new());
        for queue in self.queues.clone() {
            let name = format!("the task of the queue {}", queue.name);
            names.insert(tasks.spawn(self.clone().serve(queue, stopped.clone())).id(), name);
        }
        let schedules = tasks.spawn(self.keep_schedules(stopped));
        names.insert(schedules.id(), "the task of the schedules".to_owned());
        WorkerHandle { stop, tasks, names }
    }

    /// Runs due jobs, and jobs that they enqueue, until no job is due.
    ///
    /// For tests. Returns the number of runs.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn run_until_idle(&self) -> Result<u64, Error> {
        let mut runs = 0;
        loop {
            let before = runs;
            for queue in &self.queues {
                for claimed in self.claim(&queue.name, 64).await? {
                    self.run_one(claimed).await;
                    runs += 1;
                }
                while let Some(abandoned) = self.claim_abandoned(&queue.name).await? {
                    self.run_one(abandoned).await;
                    runs += 1;
                }
            }
            if runs == before {
                return Ok(runs);
            }
        }
    }

    async fn serve(self, queue: Queue, mut stopped: watch::Receiver<bool>) {
        let slots = Arc::new(Semaphore::new(queue.concurrency));
        let held = HeldClaims::default();
        let mut running = JoinSet::new();
        let mut renewing = JoinSet::new();
        renewing.spawn(self.clone().renew(held.clone()));
        running.spawn(self.clone().run_abandoned(queue.name.clone(), held.clone(), stopped.clone()));
        let mut wake = self.ports.bus.subscribe(vec![Topic::Queue(queue.name.clone())]).await;
        'serving: while !*stopped.borrow() {
            while running.try_join_next().is_some() {}
            // Wait for a free slot first, so that a claimed job starts immediately.
            tokio::select! {
                biased;
                _ = stopped.changed() => break,
                room = slots.acquire() => drop(room),
            }
            let room = slots.available_permits();
            let claimed = match self.claim(&queue.name, room).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(%error, queue = queue.name, "could not claim jobs");
                    tokio::select! {
                        _ = stopped.changed() => break 'serving,
                        () = sleep(fraction(self.options.poll_interval, &*self.ports.entropy)) => continue,
                    }
                }
            };
            let full = claimed.len() == room;
            for job in claimed {
                let Ok(slot) = slots.clone().acquire_owned().await else { break 'serving };
                held.insert(job.job.id, job.claim, job.job.due_at);
                let (worker, held) = (self.clone(), held.clone());
                running.spawn(async move {
                    let (id, claim) = (job.job.id, job.claim);
                    worker.run_one(job).await;
                    held.remove(id, claim);
                    drop(slot);
                });
            }
            if full {
                continue;
            }
            tokio::select! {
                // Biased: a notice that has arrived is taken, so that it causes no second read.
                biased;
                _ = stopped.changed() => {}
                _ = wake.next() => {}
                () = sleep(self.until_next(&queue.name).await) => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Time until the next job is due, at most one poll interval.
    async fn until_next(&self, queue: &str) -> Duration {
        let poll =
            self.options.poll_interval / 2 + fraction(self.options.poll_interval / 2, &*self.ports.entropy);
        match self.ports.store.next_due(queue).await {
            Ok(Some(due)) => due.since(self.ports.now()).clamp(Duration::from_millis(5), poll),
            Ok(None) | Err(_) => poll,
        }
    }

    /// Runs the abandoned jobs of a queue, one after the other.
    ///
    /// Any of them may have crashed its process, so for [`WorkerOptions::with_abandoned_isolation`] no other abandoned job runs
    /// beside it. Reads the queue once per poll interval, because jobs are abandoned only when a worker dies.
    async fn run_abandoned(self, queue: String, held: HeldClaims, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let poll = self.options.poll_interval / 2
                + fraction(self.options.poll_interval / 2, &*self.ports.entropy);
            tokio::select! {
                _ = stopped.changed() => return,
                () = sleep(poll) => {}
            }
            while !*stopped.borrow() {
                // Lock before claiming: a job that waits for the lock must not lose an attempt.
                let isolation = self.isolation.lock().await;
                if *stopped.borrow() {
                    return;
                }
                match self.claim_abandoned_by_others(&queue, &held).await {
                    Ok(Some(job)) => {
                        let (id, claim) = (job.job.id, job.claim);
                        tracing::warn!(job = %id, name = job.job.name, attempt = job.attempt, "running an abandoned job");
                        held.insert(job.job.id, job.claim, job.job.due_at);
                        let mut run = std::pin::pin!(self.run_one(job));
                        if timeout(self.options.abandoned_isolation, &mut run).await.is_err() {
                            // A long job must not delay the mails that were abandoned with it.
                            drop(isolation);
                            run.await;
                        }
                        held.remove(id, claim);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, queue, "could not claim an abandoned job");
                        break;
                    }
                }
            }
        }
    }

    /// Claims an abandoned job that this process does not run.
    ///
    /// While the store does not respond for longer than a lease, the leases of the jobs that this process runs
    /// expire. They are renewed first: a job that no other worker has claimed must not run a second time.
    async fn claim_abandoned_by_others(
        &self,
        queue: &str,
        held: &HeldClaims,
    ) -> Result<Option<ClaimedJob>, Error> {
        if !self.has_abandoned(queue).await? {
            return Ok(None);
        }
        self.renew_all(held).await?;
        self.claim_abandoned(queue).await
    }

    /// Whether a lease in the queue has expired. A read, so that an idle queue costs no write.
    async fn has_abandoned(&self, queue: &str) -> Result<bool, Error> {
        let now = self.ports.now();
        Ok(self.ports.store.next_lease_end(queue).await?.is_some_and(|end| end <= now))
    }

    async fn claim_abandoned(&self, queue: &str) -> Result<Option<ClaimedJob>, Error> {
        if !self.has_abandoned(queue).await? {
            return Ok(None);
        }
        let now = self.ports.now();
        let change = JobChange::ClaimAbandoned {
            queue: queue.to_owned(),
            now,
            lease_until: now.plus(self.options.lease),
            claim: self.claim_token(),
        };
        Ok(without_conflict(self.ports.commit(vec![change.into()]).await)?.into_claimed_jobs().pop())
    }

    fn claim_token(&self) -> i64 {
        let mut token = [0; 8];
        self.ports.entropy.fill(&mut token);
        i64::from_be_bytes(token)
    }

    async fn claim(&self, queue: &str, limit: usize) -> Result<Vec<ClaimedJob>, Error> {
        let now = self.ports.now();
        // Read first, so that an idle queue costs no write.
        if self.ports.store.next_due(queue).await?.is_none_or(|due| due > now) {
            return Ok(Vec::new());
        }
        let change = JobChange::Claim {
            queue: queue.to_owned(),
            now,
            lease_until: now.plus(self.options.lease),
            claim: self.claim_token(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX).min(256),
        };
        Ok(without_conflict(self.ports.commit(vec![change.into()]).await)?.into_claimed_jobs())
    }

    async fn renew(self, held: HeldClaims) {
        loop {
            sleep(self.options.lease / 3).await;
            // A claim that could not be renewed is logged and renewed in the next round.
            let _ = self.renew_all(&held).await;
        }
    }

    /// Renews the leases of all held claims, also of those that have expired, in the order in which they end; removes
    /// claims that are lost.
    ///
    /// Continues after an error, and returns the last one.
    async fn renew_all(&self, held: &HeldClaims) -> Result<(), Error> {
        let mut renewed = Ok(());
        for (id, claim) in held.by_lease_end() {
            let lease_until = self.ports.now().plus(self.options.lease);
            match self.ports.commit(vec![JobChange::Renew { id, claim, lease_until }.into()]).await {
                Ok(_) => held.record_renewal(id, claim, lease_until),
                // The job has finished, or another worker has claimed it. Finishing the job shows which.
                Err(CommitError::Conflict(_)) => held.remove(id, claim),
                Err(CommitError::Failed(error)) => {
                    tracing::warn!(%error, job = %id, "could not renew a lease");
                    renewed = Err(error);
                }
            }
        }
        renewed
    }

    /// Runs one claimed job and records its result, in a span of the job.
    async fn run_one(&self, claimed: ClaimedJob) {
        let span = tracing::info_span!(
            "job",
            job.id = %claimed.job.id,
            job.name = claimed.job.name,
            job.attempt = claimed.attempt,
            messaging.destination.name = claimed.job.queue,
        );
        self.run_claimed(claimed).instrument(span).await;
    }

    async fn run_claimed(&self, claimed: ClaimedJob) {
        let result = if claimed.attempt > claimed.job.max_attempts {
            // Only a process that died during a run leaves a job in this state.
            Err(JobError::Dead(Error::new(ErrorKind::Internal, "run job").context("attempts used up")))
        } else if self.ports.now() >= claimed.job.expires_at {
            Err(JobError::Dead(Error::new(ErrorKind::TimedOut, "run job").context("too old")))
        } else if let Some(run) = self.registry.run(&claimed) {
            self.guarded(run).await
        } else {
            return self.defer(&claimed).await;
        };
        match self.settle(&claimed, result).await {
            Ok(()) => {}
            Err(CommitError::Conflict(_)) => tracing::warn!("job finished after its lease had ended"),
            // The lease expires and the job runs again: delivery is at least once.
            Err(CommitError::Failed(error)) => {
                tracing::warn!(%error, "could not record the result of a job");
            }
        }
    }

    /// Leaves a job without a handler to processes of another version, without counting an attempt.
    async fn defer(&self, claimed: &ClaimedJob) {
        let (id, claim) = (claimed.job.id, claimed.claim);
        tracing::warn!("no handler for this job: it waits for a process that has one");
        let due_at = self.ports.now().plus(self.options.poll_interval);
        if let Err(error) = self.ports.commit(vec![JobChange::Defer { id, claim, due_at }.into()]).await {
            tracing::warn!(%error, "could not defer a job");
        }
    }

    /// Runs the handler in a separate task, so that a panic fails only this job.
    async fn guarded(
        &self,
        run: impl Future<Output = Result<(), JobError>> + Send + 'static,
    ) -> Result<(), JobError> {
        let mut task = JoinSet::new();
        task.spawn(run.in_current_span());
        match timeout(self.options.run_timeout, task.join_next()).await {
            Ok(Some(Ok(result))) => result,
            Ok(Some(Err(panicked))) => {
                Err(JobError::Retry(Error::new(ErrorKind::Internal, "run job").source(panicked)))
            }
            Ok(None) | Err(_) => Err(JobError::Retry(Error::new(ErrorKind::TimedOut, "run job"))),
        }
    }

    async fn settle(&self, claimed: &ClaimedJob, result: Result<(), JobError>) -> Result<(), CommitError> {
        let (id, claim, now) = (claimed.job.id, claimed.claim, self.ports.now());
        let schedule = self.schedules.iter().find(|schedule| schedule.name() == claimed.job.name);
        let next = schedule.map(|schedule| schedule.next(&self.ports)).transpose()?;
        let mut changes: Vec<Change> = Vec::new();
        let (wait, error) = match result {
            Ok(()) => {
                changes.push(JobChange::Finish { id, claim }.into());
                changes.extend(next);
                self.ports.commit(changes).await?;
                return Ok(());
            }
            Err(JobError::Deferred(error, wait)) if now.plus(wait) < claimed.job.expires_at => {
                tracing::info!(%error, "job is deferred");
                let change = JobChange::Defer { id, claim, due_at: now.plus(wait) };
                self.ports.commit(vec![change.into()]).await?;
                return Ok(());
            }
            Err(JobError::Deferred(error, _)) => (None, error),
            Err(JobError::RetryAfter(error, wait)) => (Some(wait), error),
            Err(JobError::Retry(error)) => {
                (Some(self.options.backoff.wait(claimed.attempt, &*self.ports.entropy)), error)
            }
            Err(JobError::Dead(error)) => (None, error),
        };
        let due_at = wait.map(|wait| now.plus(wait));
        match due_at {
            Some(due_at) if claimed.attempt < claimed.job.max_attempts && due_at < claimed.job.expires_at => {
                tracing::info!(%error, "job failed and will be retried");
                changes.push(JobChange::Retry { id, claim, due_at }.into());
            }
            _ => {
                tracing::error!(%error, "job is dead");
                changes.push(JobChange::Bury { id, claim, error: dead_letter_text(&error), at: now }.into());
                changes.extend(next);
            }
        }
        self.ports.commit(changes).await?;
        Ok(())
    }

    /// Enqueues the first run of each schedule; a no-op for a schedule that has a live job.
    async fn keep_schedules(self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let changes: Result<Vec<Change>, Error> =
                self.schedules.iter().map(|s| s.first(&self.ports)).collect();
            let kept = match changes {
                Ok(changes) => without_conflict(self.ports.commit(changes).await).map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
                tracing::warn!(%error, "could not enqueue the scheduled jobs");
            }
            tokio::select! {
                _ = stopped.changed() => return,
                () = sleep(Duration::from_mins(10)) => {}
            }
        }
    }
}

/// Text of an error in the dead-letter queue.
///
/// A store takes at most 32 KiB, and PostgreSQL no NUL. A job that cannot be buried would be retried without end.
fn dead_letter_text(error: &Error) -> String {
    const MAX_ERROR_BYTES: usize = 32 * 1024;
    let mut text = error.to_string().replace('\0', " ");
    text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, OsEntropy};

    #[test]
    fn end_of_an_old_claim_keeps_the_later_claim_of_the_job() {
        let (held, at) = (HeldClaims::default(), Timestamp::default());
        let id = JobId::new(&ManualClock::default(), &OsEntropy);
        held.insert(id, 1, at);
        held.insert(id, 2, at);
        held.remove(id, 1);
        assert_eq!(held.by_lease_end(), [(id, 2)]);
        held.remove(id, 2);
        assert_eq!(held.by_lease_end(), []);
    }

    #[test]
    fn renewed_claim_follows_those_whose_leases_end_earlier() {
        let (held, clock) = (HeldClaims::default(), ManualClock::default());
        let [one, two, three] = [(); 3].map(|()| JobId::new(&clock, &OsEntropy));
        for (id, until) in [(one, 30), (two, 32), (three, 31)] {
            held.insert(id, 1, Timestamp::from_micros(until));
        }
        assert_eq!(held.by_lease_end(), [(one, 1), (three, 1), (two, 1)]);
        held.record_renewal(one, 1, Timestamp::from_micros(60));
        held.record_renewal(three, 2, Timestamp::from_micros(70));
        assert_eq!(held.by_lease_end(), [(three, 1), (two, 1), (one, 1)], "another claim is not renewed");
    }
}
