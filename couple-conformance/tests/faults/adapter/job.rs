//! Job queues in memory.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, Error, JobId, Timestamp,
    job::{ClaimToken, ClaimedJob, DeadJob, JobChange, JobReads, NewJob, QueueStats},
};

use super::{FaultyStore, NIL, system_time, table::Table};
use crate::planted;

#[derive(Clone)]
struct JobRow {
    /// The job; its `due_at` is the end of the lease while it is claimed.
    job: NewJob,
    attempts: i64,
    claim: Option<ClaimToken>,
}

#[derive(Default)]
pub(super) struct JobTables {
    live: Table<JobId, JobRow>,
    by_due: Table<(String, Timestamp, JobId), ()>,
    by_key: Table<String, JobId>,
    dead: Table<JobId, DeadJob>,
}

impl JobTables {
    pub(super) fn apply(&mut self, change: JobChange) -> Result<ChangeResult, Conflict> {
        match change {
            JobChange::Enqueue(job) => {
                let taken = job.dedupe_key.as_ref().is_some_and(|key| self.by_key.has(key));
                if !taken && !self.live.has(&job.id) {
                    self.insert(JobRow { job, attempts: 0, claim: None });
                }
            }
            JobChange::Claim { queue, now, lease_until, claim, limit } => {
                let now = if planted("store-jobs-are-due-by-its-clock") { system_time() } else { now };
                let due = self.due(&queue, now, false, limit);
                return Ok(ChangeResult::Claimed(self.claim(&due, lease_until, claim)));
            }
            JobChange::ClaimAbandoned { queue, now, lease_until, claim } => {
                let now = if planted("store-leases-end-by-its-clock") { system_time() } else { now };
                let abandoned = self.due(&queue, now, true, 1);
                return Ok(ChangeResult::Claimed(self.claim(&abandoned, lease_until, claim)));
            }
            JobChange::Renew { id, claim, lease_until } => {
                let mut row = self.take_claimed(id, claim)?;
                row.job.due_at = lease_until;
                self.insert(row);
            }
            JobChange::Finish { id, claim } => {
                self.take_claimed(id, claim)?;
            }
            JobChange::Retry { id, claim, due_at } => {
                let mut row = self.take_claimed(id, claim)?;
                row.job.due_at = due_at;
                row.claim = None;
                self.insert(row);
            }
            JobChange::Defer { id, claim, due_at } => {
                let mut row = self.take_claimed(id, claim)?;
                row.job.due_at = due_at;
                row.claim = None;
                row.attempts -= 1;
                self.insert(row);
            }
            JobChange::Bury { id, claim, error, at } => {
                let row = self.take_claimed(id, claim)?;
                self.dead.put(id, DeadJob { job: row.job, attempts: row.attempts, error, died_at: at });
            }
            JobChange::Replay { id, at, expires_at } => {
                let dead = self.dead.remove(&id).ok_or(Conflict::NoDeadJob(id))?;
                let job = NewJob { due_at: at, expires_at, dedupe_key: None, ..dead.job };
                self.insert(JobRow { job, attempts: 0, claim: None });
            }
            JobChange::PurgeDead { before, cap } => {
                let purged = self.dead.purge(cap, |dead| dead.died_at < before, |dead| dead.died_at);
                return Ok(ChangeResult::RowsAffected(purged.len() as u64));
            }
        }
        Ok(ChangeResult::Applied)
    }

    /// Up to `limit` due jobs of a queue, earliest due time first; either the abandoned ones or the others.
    fn due(&self, queue: &str, now: Timestamp, abandoned: bool, limit: u32) -> Vec<JobId> {
        let jobs = self.of_queue(queue).take_while(|(due, _)| *due <= now).map(|(_, id)| id);
        jobs.filter(|id| self.is_claimed(*id) == abandoned).take(limit as usize).collect()
    }

    /// Due times and ids of the live jobs of a queue, earliest first.
    fn of_queue<'a>(&'a self, queue: &'a str) -> impl Iterator<Item = (Timestamp, JobId)> + 'a {
        let first = (queue.to_owned(), Timestamp::from_micros(i64::MIN), JobId::from_uuid(NIL));
        let from = self.by_due.range(first..).take_while(move |((q, _, _), ())| q == queue);
        from.map(|((_, due, id), ())| (*due, *id))
    }

    fn is_claimed(&self, id: JobId) -> bool {
        self.live.get(&id).is_some_and(|row| row.claim.is_some())
    }

    fn claim(&mut self, jobs: &[JobId], lease_until: Timestamp, claim: ClaimToken) -> Vec<ClaimedJob> {
        let mut claimed = Vec::with_capacity(jobs.len());
        for id in jobs {
            if let Some(mut row) = self.remove(*id) {
                row.job.due_at = lease_until;
                row.attempts += 1;
                row.claim = Some(claim);
                claimed.push(ClaimedJob { job: row.job.clone(), attempt: row.attempts, claim });
                self.insert(row);
            }
        }
        claimed
    }

    fn insert(&mut self, row: JobRow) {
        self.by_due.put((row.job.queue.clone(), row.job.due_at, row.job.id), ());
        if let Some(key) = &row.job.dedupe_key {
            self.by_key.put(key.clone(), row.job.id);
        }
        self.live.put(row.job.id, row);
    }

    fn remove(&mut self, id: JobId) -> Option<JobRow> {
        let row = self.live.remove(&id)?;
        self.by_due.remove(&(row.job.queue.clone(), row.job.due_at, id));
        if let Some(key) = &row.job.dedupe_key {
            self.by_key.remove(key);
        }
        Some(row)
    }

    /// Removes and returns a job that has this claim.
    fn take_claimed(&mut self, id: JobId, claim: ClaimToken) -> Result<JobRow, Conflict> {
        if self.live.get(&id).is_none_or(|row| row.claim != Some(claim)) {
            return Err(Conflict::ClaimLost(id));
        }
        self.remove(id).ok_or(Conflict::ClaimLost(id))
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.live.end(keep);
        self.by_due.end(keep);
        self.by_key.end(keep);
        self.dead.end(keep);
    }
}

#[async_trait]
impl JobReads for FaultyStore {
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error> {
        let state = self.state()?;
        let mut stats = QueueStats::default();
        for row in state.job.live.values().filter(|row| row.job.queue == queue) {
            *if row.job.due_at <= now { &mut stats.ready } else { &mut stats.waiting } += 1;
            stats.next_due = Some(stats.next_due.map_or(row.job.due_at, |due| due.min(row.job.due_at)));
        }
        stats.dead = state.job.dead.values().filter(|dead| dead.job.queue == queue).count() as u64;
        Ok(stats)
    }
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let tables = &self.state()?.job;
        Ok(tables.of_queue(queue).find(|(_, id)| !tables.is_claimed(*id)).map(|(due, _)| due))
    }
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let tables = &self.state()?.job;
        Ok(tables.of_queue(queue).find(|(_, id)| tables.is_claimed(*id)).map(|(due, _)| due))
    }
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error> {
        let state = self.state()?;
        let rows = state.job.dead.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
        Ok(rows.take(limit as usize).map(|(_, dead)| dead.clone()).collect())
    }
}
