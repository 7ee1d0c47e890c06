//! Job queues in memory.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, Error, JobId, Timestamp,
    job::{ClaimToken, ClaimedJob, DeadJob, JobChange, JobReads, NewJob, QueueStats},
};

use super::{FaultyStore, column::column, system_time, table::Table};
use crate::planted;

#[derive(Clone)]
struct JobRow {
    /// The job; its `due_at` is the end of the lease while it is claimed.
    job: NewJob,
    attempts: i64,
    claim: Option<ClaimToken>,
}

#[derive(Clone, Default)]
pub(super) struct JobTables {
    live: Table<JobId, JobRow>,
    by_due: Table<(String, Timestamp, JobId), ()>,
    by_key: Table<String, JobId>,
    dead: Table<JobId, DeadJob>,
    /// Jobs of the running commit, for a fault.
    fresh: Vec<JobId>,
}

/// The job as it is written.
fn columns(job: NewJob) -> NewJob {
    let mut job = NewJob {
        id: job.id,
        queue: column("job-queue").text(&job.queue),
        name: column("job-name").text(&job.name),
        payload: column("job-payload").text(&job.payload),
        dedupe_key: job.dedupe_key.map(|key| column("job-dedupe-key").text(&key)),
        due_at: column("job-due-at").time(job.due_at),
        expires_at: column("job-expires-at").time(job.expires_at),
        max_attempts: column("job-max-attempts").number(job.max_attempts),
        created_at: column("job-created-at").time(job.created_at),
    };
    if planted("job-queue-and-name-are-swapped") {
        std::mem::swap(&mut job.queue, &mut job.name);
    }
    if planted("job-expiry-and-creation-are-swapped") {
        std::mem::swap(&mut job.expires_at, &mut job.created_at);
    }
    if planted("job-created-when-it-is-due") {
        job.created_at = job.due_at;
    }
    job
}

impl JobTables {
    pub(super) fn apply(&mut self, change: JobChange) -> Result<ChangeResult, Conflict> {
        match change {
            JobChange::Enqueue(job) => {
                let taken = job.dedupe_key.is_some() && self.by_key.has(&key(&job))
                    || job.dedupe_key.is_none()
                        && planted("job-absent-keys-are-equal")
                        && self.live.values().any(|row| row.job.dedupe_key.is_none());
                let unclaimed = || self.by_key.get(&key(&job)).is_some_and(|id| !self.is_claimed(*id));
                let taken = taken
                    && !planted("job-keys-are-not-unique")
                    && (!planted("job-claim-frees-the-key") || unclaimed());
                if taken && planted("job-with-a-taken-key-conflicts") {
                    return Err(Conflict::NoDeadJob(job.id));
                }
                if taken && planted("job-with-a-taken-key-replaces-the-job") {
                    let id = self.by_key.get(&key(&job)).copied();
                    id.and_then(|id| self.remove(id));
                }
                let taken = taken && !planted("job-with-a-taken-key-replaces-the-job");
                if !taken && !self.live.has(&job.id) {
                    self.fresh.push(job.id);
                    let mut job = columns(job);
                    if planted("job-key-is-lost") {
                        job.dedupe_key = None;
                    }
                    self.insert(JobRow { job, attempts: 0, claim: None });
                }
            }
            JobChange::Claim { queue, now, lease_until, claim, limit } => {
                let now = if planted("store-jobs-are-due-by-its-clock") { system_time() } else { now };
                let due = self.due(&queue, now, false, limit);
                return Ok(ChangeResult::Claimed(self.claim(&due, lease_until, claim, false)));
            }
            JobChange::ClaimAbandoned { queue, now, lease_until, claim } => {
                let now = if planted("store-leases-end-by-its-clock") { system_time() } else { now };
                let limit = if planted("job-abandoned-ones-are-claimed-together") { 9 } else { 1 };
                let abandoned = self.due(&queue, now, true, limit);
                return Ok(ChangeResult::Claimed(self.claim(&abandoned, lease_until, claim, true)));
            }
            JobChange::Renew { id, claim, lease_until } => {
                let mut row = self.take_claimed(id, claim, planted("job-is-renewed-without-its-claim"))?;
                let lease_until = column("job-renewed-until").time(lease_until);
                if !planted("job-renewal-does-nothing") {
                    row.job.due_at = lease_until;
                }
                if planted("job-renewal-counts-an-attempt") {
                    row.attempts += 1;
                }
                if planted("job-renewal-ends-the-claim") {
                    row.claim = None;
                }
                self.insert(row);
            }
            JobChange::Finish { id, claim } => {
                if planted("job-is-finished-without-a-claim") && !self.is_claimed(id) && self.live.has(&id) {
                    self.remove(id);
                    return Ok(ChangeResult::Applied);
                }
                let row = self.take_claimed(id, claim, planted("job-is-finished-with-another-claim"))?;
                if planted("job-finished-stays") {
                    self.insert(row);
                } else if planted("job-finished-keeps-its-key") && row.job.dedupe_key.is_some() {
                    self.by_key.put(key(&row.job), id);
                }
            }
            JobChange::Retry { id, claim, due_at } => {
                let mut row = self.take_claimed(id, claim, planted("job-is-retried-without-its-claim"))?;
                row.job.due_at = column("job-retried-at").time(due_at);
                if !planted("job-retry-keeps-the-claim") {
                    row.claim = None;
                }
                if planted("job-retry-resets-the-attempts") {
                    row.attempts = 0;
                }
                if planted("job-retry-counts-an-attempt") {
                    row.attempts += 1;
                }
                if planted("job-retry-makes-a-new-job") {
                    row.job.created_at = due_at;
                }
                self.insert(row);
            }
            JobChange::Defer { id, claim, due_at } => {
                let mut row = self.take_claimed(id, claim, planted("job-is-deferred-without-its-claim"))?;
                row.job.due_at = column("job-deferred-until").time(due_at);
                if !planted("job-defer-keeps-the-claim") {
                    row.claim = None;
                }
                if !planted("job-defer-counts-an-attempt") {
                    row.attempts -= 1;
                }
                if planted("job-defer-resets-the-attempts") {
                    row.attempts = 0;
                }
                self.insert(row);
            }
            JobChange::Bury { id, claim, error, at } => {
                let row = self.take_claimed(id, claim, planted("job-is-buried-without-its-claim"))?;
                if planted("job-buried-stays-alive") {
                    self.insert(row.clone());
                }
                if planted("job-buried-keeps-its-key") && row.job.dedupe_key.is_some() {
                    self.by_key.put(key(&row.job), id);
                }
                let mut dead = DeadJob {
                    job: row.job,
                    attempts: row.attempts,
                    error: column("job-error").text(&error),
                    died_at: column("job-died-at").time(at),
                };
                if planted("job-buried-loses-its-key") {
                    dead.job.dedupe_key = None;
                }
                if planted("job-buried-loses-its-attempts") {
                    dead.attempts = 0;
                }
                if planted("job-buried-is-due-when-it-died") {
                    dead.job.due_at = at;
                }
                if planted("job-error-and-payload-are-swapped") {
                    std::mem::swap(&mut dead.error, &mut dead.job.payload);
                }
                self.dead.put(id, dead);
            }
            JobChange::Replay { id, at, expires_at } => {
                let dead = self.dead.get(&id).cloned();
                let Some(dead) = dead else {
                    if planted("job-replay-of-a-missing-job-succeeds") {
                        return Ok(ChangeResult::Applied);
                    }
                    return Err(Conflict::NoDeadJob(id));
                };
                if !planted("job-replay-leaves-the-dead-job") {
                    self.dead.remove(&id);
                }
                let mut job = NewJob {
                    due_at: column("job-replayed-at").time(at),
                    expires_at: column("job-replayed-until").time(expires_at),
                    dedupe_key: dead.job.dedupe_key.clone().filter(|_| planted("job-replay-keeps-the-key")),
                    ..dead.job
                };
                if planted("job-replay-keeps-the-due-time") {
                    job.due_at = dead.job.due_at;
                }
                if planted("job-replay-keeps-the-expiry") {
                    job.expires_at = dead.job.expires_at;
                }
                if planted("job-replay-is-a-new-job") {
                    job.created_at = at;
                }
                let attempts = if planted("job-replay-keeps-the-attempts") { dead.attempts } else { 0 };
                self.insert(JobRow { job, attempts, claim: None });
            }
            JobChange::PurgeDead { before, cap } => {
                let cap = if planted("job-purge-ignores-the-cap") { u32::MAX } else { cap };
                let cap = if planted("job-purge-exceeds-the-cap") { cap + 1 } else { cap };
                let old = |dead: &DeadJob| {
                    let time =
                        if planted("job-purge-is-by-creation") { dead.job.created_at } else { dead.died_at };
                    time < before
                        || planted("job-purge-includes-its-time") && time == before
                        || planted("job-purge-ignores-its-time")
                };
                let age = |dead: &DeadJob| {
                    if planted("job-purge-removes-the-newest-first") {
                        -dead.died_at.micros()
                    } else if planted("job-purge-is-in-the-order-of-ids") {
                        0
                    } else {
                        dead.died_at.micros()
                    }
                };
                let purged = self.dead.purge(cap, old, age);
                let count = if planted("job-purge-counts-nothing") { 0 } else { purged.len() };
                return Ok(ChangeResult::RowsAffected(count as u64));
            }
        }
        Ok(ChangeResult::Applied)
    }

    /// Up to `limit` due jobs of a queue, earliest due time first; either the abandoned ones or the others.
    fn due(&self, queue: &str, now: Timestamp, abandoned: bool, limit: u32) -> Vec<JobId> {
        let early =
            if abandoned { "job-abandoned-before-the-lease-ends" } else { "job-is-claimed-before-it-is-due" };
        let mut due = if abandoned {
            self.of_queue(queue, planted("job-abandoned-ones-are-of-all-queues"))
        } else {
            self.of_queue(queue, planted("job-claims-are-of-all-queues"))
        };
        due.retain(|(due, _)| {
            *due <= now && !(planted("job-is-claimed-after-its-due-time") && *due == now) || planted(early)
        });
        if planted("job-claim-has-the-latest-first") && !abandoned
            || planted("job-abandoned-latest-first") && abandoned
        {
            due.reverse();
        }
        if planted("job-claim-is-in-the-order-of-ids") {
            due.sort_by_key(|(_, id)| *id);
        }
        if planted("job-claim-is-in-the-order-of-creation") {
            due.sort_by_key(|(_, id)| self.live.get(id).map(|row| row.job.created_at));
        }
        if planted("job-claim-has-the-latest-of-equal-times-first") {
            due.sort_by_key(|(due, id)| (*due, std::cmp::Reverse(*id)));
        }
        let jobs = due.into_iter().map(|(_, id)| id);
        let wanted = |id: &JobId| {
            self.is_claimed(*id) == abandoned
                || !abandoned && planted("job-claim-takes-abandoned-ones")
                || abandoned && planted("job-abandoned-include-new-ones")
        };
        let fresh = |id: &JobId| planted("job-claim-misses-jobs-of-its-commit") && self.fresh.contains(id);
        let limit = match limit {
            _ if abandoned => limit,
            _ if planted("job-claim-ignores-its-limit") => u32::MAX,
            _ if planted("job-claim-has-one-more") => limit + 1,
            _ if planted("job-claim-has-at-most-one") => limit.min(1),
            _ if planted("job-claim-has-at-most-100") => limit.min(100),
            limit => limit,
        };
        jobs.filter(wanted).filter(|id| !fresh(id)).take(limit as usize).collect()
    }

    /// Due times and ids of the live jobs of a queue, earliest first.
    fn of_queue(&self, queue: &str, lost: bool) -> Vec<(Timestamp, JobId)> {
        let of = self.by_due.iter().map(|(key, ())| key);
        let of = of.filter(|(one, _, _)| lost || column("job-queue").finds(one, queue));
        let mut of: Vec<_> = of.map(|(_, due, id)| (*due, *id)).collect();
        of.sort_unstable();
        of
    }

    fn is_claimed(&self, id: JobId) -> bool {
        self.live.get(&id).is_some_and(|row| row.claim.is_some())
    }

    fn claim(
        &mut self,
        jobs: &[JobId],
        lease_until: Timestamp,
        claim: ClaimToken,
        abandoned: bool,
    ) -> Vec<ClaimedJob> {
        let mut claimed = Vec::with_capacity(jobs.len());
        for id in jobs {
            if let Some(mut row) = self.remove(*id) {
                let due = row.job.due_at;
                row.job.due_at = column("job-leased-until").time(lease_until);
                if !(abandoned && planted("job-abandoned-counts-no-attempt")
                    || planted("job-claim-counts-no-attempt"))
                {
                    row.attempts += 1;
                }
                let stored = column("job-claim-token").number(claim);
                row.claim = Some(stored);
                let mut one = ClaimedJob { job: row.job.clone(), attempt: row.attempts, claim: stored };
                if planted("job-claim-returns-the-due-time-before") {
                    one.job.due_at = due;
                }
                if planted("job-claim-returns-the-attempts-before") {
                    one.attempt -= 1;
                }
                if planted("job-claim-returns-no-key") {
                    one.job.dedupe_key = None;
                }
                claimed.push(one);
                if planted("job-claim-is-not-written")
                    || planted("job-last-claim-is-not-written") && *id == jobs[jobs.len() - 1]
                {
                    row.job.due_at = due;
                    row.claim = None;
                }
                self.insert(row);
            }
        }
        if planted("job-claim-returns-another-order") {
            claimed.sort_by_key(|one| std::cmp::Reverse(one.job.id));
        }
        claimed
    }

    fn insert(&mut self, row: JobRow) {
        self.by_due.put((row.job.queue.clone(), row.job.due_at, row.job.id), ());
        if row.job.dedupe_key.is_some() {
            self.by_key.put(key(&row.job), row.job.id);
        }
        self.live.put(row.job.id, row);
    }

    fn remove(&mut self, id: JobId) -> Option<JobRow> {
        let row = self.live.remove(&id)?;
        self.by_due.remove(&(row.job.queue.clone(), row.job.due_at, id));
        if row.job.dedupe_key.is_some() {
            self.by_key.remove(&key(&row.job));
        }
        Some(row)
    }

    /// Removes and returns a job that has this claim.
    fn take_claimed(&mut self, id: JobId, claim: ClaimToken, lost: bool) -> Result<JobRow, Conflict> {
        let claim = column("job-claim-token").number(claim);
        if self.live.get(&id).is_none_or(|row| row.claim != Some(claim) && !(lost && row.claim.is_some())) {
            return Err(Conflict::ClaimLost(id));
        }
        self.remove(id).ok_or(Conflict::ClaimLost(id))
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        match kind {
            "-jobs" => self.live = Table::default(),
            "-dead-jobs" => self.dead = Table::default(),
            "-claims" => {
                let rows: Vec<_> = self.live.values().cloned().collect();
                rows.into_iter().for_each(|row| self.live.put(row.job.id, JobRow { claim: None, ..row }));
            }
            _ => {}
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.live.end(keep);
        self.by_due.end(keep);
        self.by_key.end(keep || planted("job-conflict-keeps-the-key"));
        self.dead.end(keep);
        self.fresh.clear();
    }
}

/// Deduplication key as it is compared.
fn key(job: &NewJob) -> String {
    let key = column("job-dedupe-key").key(job.dedupe_key.as_deref().unwrap_or_default());
    if planted("job-keys-are-of-one-queue") {
        return format!("{} {key}", job.queue);
    }
    if planted("job-keys-are-of-one-name") {
        return format!("{} {key}", job.name);
    }
    key
}

#[async_trait]
impl JobReads for FaultyStore {
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error> {
        let state = self.state()?;
        let tables = &state.job;
        let mut stats = QueueStats::default();
        let of = |lost: bool| tables.of_queue(queue, lost).into_iter();
        let ready = |(due, id): &(Timestamp, JobId)| {
            if planted("job-ready-lacks-abandoned-ones") && tables.is_claimed(*id) {
                return false;
            }
            *due < now
                || *due == now && !planted("job-due-now-is-waiting")
                || planted("job-leased-is-ready") && tables.is_claimed(*id)
        };
        stats.ready = of(planted("job-ready-are-of-all-queues")).filter(ready).count() as u64;
        stats.waiting = of(planted("job-waiting-are-of-all-queues")).filter(|one| !ready(one)).count() as u64;
        if planted("job-waiting-lacks-leased-ones") {
            stats.waiting = of(false).filter(|one| !ready(one) && !tables.is_claimed(one.1)).count() as u64;
        }
        let unleased = |one: &(Timestamp, JobId)| {
            !planted("job-next-due-of-statistics-ignores-leases") || !tables.is_claimed(one.1)
        };
        stats.next_due =
            of(planted("job-next-due-of-statistics-is-of-all-queues")).find(unleased).map(|one| one.0);
        if planted("job-next-due-of-statistics-is-the-latest") {
            stats.next_due = of(false).last().map(|one| one.0);
        }
        if planted("job-next-due-of-statistics-is-in-the-future") {
            stats.next_due = of(false).map(|one| one.0).find(|due| *due > now);
        }
        let dead = tables.dead.values().filter(|dead| {
            column("job-queue").finds(&dead.job.queue, queue) || planted("job-dead-are-of-all-queues")
        });
        stats.dead = dead.count() as u64;
        if planted("job-ready-and-waiting-are-swapped") {
            std::mem::swap(&mut stats.ready, &mut stats.waiting);
        }
        Ok(stats)
    }
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let tables = &self.state()?.job;
        let of = tables.of_queue(queue, planted("job-next-due-is-of-all-queues"));
        let mut due = of
            .into_iter()
            .filter(|(_, id)| !tables.is_claimed(*id) || planted("job-next-due-is-of-leased-ones"));
        let first = if planted("job-next-due-is-the-latest") { due.next_back() } else { due.next() };
        Ok(first.map(|(due, _)| due))
    }
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        if self.engine.is_down() && planted("store-outage-has-no-leases") {
            return Ok(None);
        }
        let tables = &self.state()?.job;
        let of = tables.of_queue(queue, planted("job-next-lease-end-is-of-all-queues"));
        let mut ends = of
            .into_iter()
            .filter(|(_, id)| tables.is_claimed(*id) || planted("job-next-lease-end-is-of-waiting-ones"));
        let first = if planted("job-next-lease-end-is-the-latest") { ends.next_back() } else { ends.next() };
        Ok(first.map(|(due, _)| due))
    }
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error> {
        let state = self.state()?;
        let mut dead: Vec<DeadJob> = state.job.dead.values().cloned().collect();
        if planted("job-dead-are-ordered-by-death") {
            dead.sort_by_key(|dead| dead.died_at);
        }
        if planted("job-dead-are-ordered-by-creation") {
            dead.sort_by_key(|dead| dead.job.created_at);
        }
        dead.retain(|dead| {
            after.is_none_or(|after| {
                dead.job.id > after
                    || dead.job.id == after && planted("job-dead-include-the-cursor")
                    || planted("job-dead-ignore-the-cursor")
            })
        });
        if planted("job-dead-latest-first") {
            dead.reverse();
        }
        let limit = if planted("job-dead-ignore-the-limit") { usize::MAX } else { limit as usize };
        dead.truncate(limit);
        Ok(dead)
    }
}
