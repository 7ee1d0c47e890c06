//! Job queues in SQL.

use std::sync::Arc;

use async_trait::async_trait;
use couple_core::{
    Change, ChangeResult, Conflict, Error, JobId, Timestamp,
    job::{ClaimToken, ClaimedJob, DeadJob, JobChange, JobReads, NewJob, QueueStats},
};

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection,
    apply_error::{Applied, ApplyError, require_one_row},
    job_batch::{StatementsBySize, job_columns},
};

statements! {
    DUE = "SELECT ", job_columns!(), " FROM couple_job WHERE queue = $1 AND due_at <= $2 AND claim IS NULL \
     ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED"
        => sqlite: "SELECT ", job_columns!(), " FROM couple_job WHERE queue = $1 AND due_at <= $2 AND claim IS NULL ORDER BY due_at, id LIMIT $3";
    ABANDONED = "SELECT ", job_columns!(), " FROM couple_job WHERE queue = $1 AND due_at <= $2 AND claim IS NOT NULL \
     ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED"
        => sqlite: "SELECT ", job_columns!(), " FROM couple_job WHERE queue = $1 AND due_at <= $2 AND claim IS NOT NULL ORDER BY due_at, id LIMIT $3"
        => mysql: "SELECT ", job_columns!(), " FROM couple_job FORCE INDEX (couple_job_claim) WHERE queue = $1 AND due_at <= $2 AND claim IS NOT NULL \
     ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED";
    HOLD = "SELECT 1 FROM couple_job WHERE id = $1 AND claim = $2 FOR UPDATE"
        => sqlite: "SELECT 1 FROM couple_job WHERE id = $1 AND claim = $2";
    RENEW = "UPDATE couple_job SET due_at = $1 WHERE id = $2 AND claim = $3";
    FINISH = "DELETE FROM couple_job WHERE id = $1 AND claim = $2";
    RETRY = "UPDATE couple_job SET due_at = $1, claim = NULL WHERE id = $2 AND claim = $3";
    DEFER = "UPDATE couple_job SET due_at = $1, claim = NULL, attempts = attempts - 1 WHERE id = $2 AND claim = $3";
    BURY = "INSERT INTO couple_dead_job (", job_columns!(), ", error, died_at) \
     SELECT ", job_columns!(), ", $1, $2 FROM couple_job WHERE id = $3 AND claim = $4";
    REPLAY = "INSERT INTO couple_job (", job_columns!(), ") \
     SELECT id, queue, name, payload, NULL, $1, $2, max_attempts, created_at, 0 FROM couple_dead_job WHERE id = $3";
    FORGET_DEAD = "DELETE FROM couple_dead_job WHERE id = $1";
    PURGE_DEAD = "DELETE FROM couple_dead_job WHERE id IN (SELECT id FROM couple_dead_job WHERE died_at < $1 ORDER BY died_at, id LIMIT $2)"
        => mysql: "DELETE FROM couple_dead_job WHERE died_at < $1 ORDER BY died_at, id LIMIT $2";
    NEXT_DUE = "SELECT due_at FROM couple_job WHERE queue = $1 AND claim IS NULL ORDER BY due_at, id LIMIT 1";
    NEXT_LEASE_END = "SELECT MIN(due_at) FROM couple_job WHERE queue = $1 AND claim IS NOT NULL"
        => mysql: "SELECT MIN(due_at) FROM couple_job FORCE INDEX (couple_job_claim) WHERE queue = $1 AND claim IS NOT NULL";
    STATS = "SELECT (SELECT COUNT(*) FROM couple_job WHERE queue = $1 AND due_at <= $2), \
     (SELECT COUNT(*) FROM couple_job WHERE queue = $3 AND due_at > $4), \
     (SELECT COUNT(*) FROM couple_dead_job WHERE queue = $5), (SELECT MIN(due_at) FROM couple_job WHERE queue = $6)";
    DEAD = "SELECT ", job_columns!(), ", error, died_at FROM couple_dead_job WHERE id > $1 ORDER BY id LIMIT $2";
}

/// New jobs of all commits in a transaction, inserted together: a round trip costs far more than a row.
#[derive(Default)]
pub(super) struct Enqueues<'a>(Vec<&'a NewJob>);

/// Splits `rows` into the available statement sizes and runs a statement for each part.
async fn in_pieces<'r, D: Dialect, T>(
    connection: &mut TableConnection<'_, D>,
    sizes: &StatementsBySize,
    rows: &'r [T],
    bind: impl Fn(&Arc<str>, &'r [T]) -> Statement<D>,
) -> sqlx::Result<()> {
    let mut left = rows;
    for (size, sql) in sizes {
        while left.len() >= *size {
            let (now, later) = left.split_at(*size);
            left = later;
            bind(sql, now).execute(connection).await?;
        }
    }
    Ok(())
}

impl<'a> Enqueues<'a> {
    /// Collects a change that enqueues a job; returns false for any other change.
    pub(super) fn take(&mut self, change: &'a Change) -> bool {
        if let Change::Job(JobChange::Enqueue(job)) = change {
            self.0.push(job);
            return true;
        }
        false
    }
    pub(super) const fn mark(&self) -> usize {
        self.0.len()
    }
    pub(super) fn back_to(&mut self, mark: usize) {
        self.0.truncate(mark);
    }
    /// Inserts the jobs collected since a mark.
    pub(super) async fn write_since<D: Dialect>(
        &mut self,
        mark: usize,
        connection: &mut TableConnection<'_, D>,
    ) -> sqlx::Result<()> {
        let new_jobs = self.0.split_off(mark);
        let names = connection.names;
        in_pieces::<D, _>(connection, &names.batch.inserts, &new_jobs, |sql, jobs| {
            jobs.iter().fold(Statement::built(sql.clone()), |statement, job| {
                statement
                    .bind(job.id.as_uuid())
                    .bind(job.queue.as_str())
                    .bind(job.name.as_str())
                    .bind(job.payload.as_str())
                    .bind(job.dedupe_key.as_deref())
                    .time(job.due_at)
                    .time(job.expires_at)
                    .bind(job.max_attempts)
                    .time(job.created_at)
                    .bind(0_i64)
            })
        })
        .await
    }
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &JobChange,
) -> Result<ChangeResult, ApplyError> {
    match change {
        JobChange::Enqueue(job) => {
            let change = Change::Job(JobChange::Enqueue(job.clone()));
            let mut enqueues = Enqueues::default();
            enqueues.take(&change);
            enqueues.write_since::<D>(0, connection).await?;
        }
        JobChange::Claim { queue, now, lease_until, claim, limit } => {
            let due = Statement::<D>::new(DUE).bind(queue.as_str()).time(*now).bind(i64::from(*limit));
            let claimed = claim_due::<D>(connection, due, *lease_until, *claim).await?;
            return Ok(ChangeResult::Claimed(claimed));
        }
        JobChange::ClaimAbandoned { queue, now, lease_until, claim } => {
            let due = Statement::<D>::new(ABANDONED).bind(queue.as_str()).time(*now).bind(1_i64);
            let claimed = claim_due::<D>(connection, due, *lease_until, *claim).await?;
            return Ok(ChangeResult::Claimed(claimed));
        }
        JobChange::Renew { id, claim, lease_until } => {
            let statement = Statement::<D>::new(RENEW).time(*lease_until).bind(id.as_uuid()).bind(*claim);
            require_one_row(statement.execute(connection).await?, Conflict::ClaimLost(*id))?;
        }
        JobChange::Finish { id, claim } => finish::<D>(connection, *id, *claim).await?,
        JobChange::Retry { id, claim, due_at } => {
            let statement = Statement::<D>::new(RETRY).time(*due_at).bind(id.as_uuid()).bind(*claim);
            require_one_row(statement.execute(connection).await?, Conflict::ClaimLost(*id))?;
        }
        JobChange::Defer { id, claim, due_at } => {
            let statement = Statement::<D>::new(DEFER).time(*due_at).bind(id.as_uuid()).bind(*claim);
            require_one_row(statement.execute(connection).await?, Conflict::ClaimLost(*id))?;
        }
        JobChange::Bury { id, claim, error, at } => {
            let rows = Statement::<D>::new(HOLD).bind(id.as_uuid()).bind(*claim).rows(connection).await?;
            if rows.is_empty() {
                return Err(Conflict::ClaimLost(*id).into());
            }
            let statement =
                Statement::<D>::new(BURY).bind(error.as_str()).time(*at).bind(id.as_uuid()).bind(*claim);
            statement.execute(connection).await?;
            finish::<D>(connection, *id, *claim).await?;
        }
        JobChange::Replay { id, at, expires_at } => {
            let statement = Statement::<D>::new(REPLAY).time(*at).time(*expires_at).bind(id.as_uuid());
            require_one_row(statement.execute(connection).await?, Conflict::NoDeadJob(*id))?;
            Statement::<D>::new(FORGET_DEAD).bind(id.as_uuid()).execute(connection).await?;
        }
        JobChange::PurgeDead { before, cap } => {
            let purged = Statement::<D>::new(PURGE_DEAD)
                .time(*before)
                .bind(i64::from(*cap))
                .execute(connection)
                .await?;
            return Ok(ChangeResult::RowsAffected(purged));
        }
    }
    Ok(ChangeResult::Applied)
}

/// Claims the jobs that a query returns.
async fn claim_due<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    due: Statement<D>,
    lease_until: Timestamp,
    claim: ClaimToken,
) -> sqlx::Result<Vec<ClaimedJob>> {
    let due = due.rows(connection).await?;
    let mut claimed = Vec::with_capacity(due.len());
    for row in due {
        let (mut job, attempts) =
            decode::<D>(&mut Row::new(&row)).map_err(|e| sqlx::Error::Decode(e.into()))?;
        job.due_at = lease_until;
        claimed.push(ClaimedJob { job, attempt: attempts + 1, claim });
    }
    let names = connection.names;
    in_pieces::<D, _>(connection, &names.batch.claims, &claimed, |sql, jobs| {
        let statement = Statement::built(sql.clone()).time(lease_until).bind(claim);
        jobs.iter().fold(statement, |statement, one| statement.bind(one.job.id.as_uuid()))
    })
    .await?;
    Ok(claimed)
}

async fn finish<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    id: JobId,
    claim: ClaimToken,
) -> Applied {
    let finished = Statement::<D>::new(FINISH).bind(id.as_uuid()).bind(claim).execute(connection).await?;
    require_one_row(finished, Conflict::ClaimLost(id))
}

/// Decodes a job and its number of attempts.
fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<(NewJob, i64), Error> {
    let job = NewJob {
        id: JobId::from_uuid(row.take()?),
        queue: row.take()?,
        name: row.take()?,
        payload: row.take()?,
        dedupe_key: row.take()?,
        due_at: row.time()?,
        expires_at: row.time()?,
        max_attempts: row.take()?,
        created_at: row.time()?,
    };
    Ok((job, row.take()?))
}

fn decode_dead<D: Dialect>(row: &mut Row<'_, D>) -> Result<DeadJob, Error> {
    let (job, attempts) = decode(row)?;
    Ok(DeadJob { job, attempts, error: row.take()?, died_at: row.time()? })
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[async_trait]
impl<D: Dialect> JobReads for SqlStore<D> {
    async fn queue_stats(&self, queue: &str, now: Timestamp) -> Result<QueueStats, Error> {
        let statement =
            Statement::new(STATS).bind(queue).time(now).bind(queue).time(now).bind(queue).bind(queue);
        let stats = self
            .read_one(statement, |row| {
                Ok(QueueStats {
                    ready: count(row.take()?),
                    waiting: count(row.take()?),
                    dead: count(row.take()?),
                    next_due: row.opt_time()?,
                })
            })
            .await?;
        Ok(stats.unwrap_or_default())
    }
    async fn next_due(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        self.read_one(Statement::new(NEXT_DUE).bind(queue), |row| Row::time(row)).await
    }
    async fn next_lease_end(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let end = self.read_one(Statement::new(NEXT_LEASE_END).bind(queue), |row| Row::opt_time(row)).await;
        Ok(end?.flatten())
    }
    async fn dead_jobs(&self, after: Option<JobId>, limit: u32) -> Result<Vec<DeadJob>, Error> {
        let after = after.map_or(uuid::Uuid::nil(), JobId::as_uuid);
        self.read(Statement::new(DEAD).bind(after).bind(i64::from(limit)), decode_dead).await
    }
}
