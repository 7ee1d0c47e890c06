//! Recorded outcomes in SQL.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, Digest, Error, IdempotencyChange, IdempotencyReads, OutcomeRecord,
};

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection,
    apply_error::{ApplyError, require_one_row},
};

statements! {
    FIND = "SELECT scope, request, outcome, recorded_at, expires_at FROM couple_outcome WHERE scope = $1";
    FORGET_EXPIRED = "DELETE FROM couple_outcome WHERE scope = $1 AND expires_at <= $2";
    RECORD = "INSERT INTO couple_outcome (scope, request, outcome, recorded_at, expires_at) \
     SELECT $1, $2, $3, $4, $5 FROM (SELECT 1 AS one) AS one WHERE NOT EXISTS (SELECT 1 FROM couple_outcome WHERE scope = $6)";
    PURGE = "DELETE FROM couple_outcome WHERE scope IN \
     (SELECT scope FROM couple_outcome WHERE expires_at < $1 ORDER BY expires_at, scope LIMIT $2)"
        => mysql: "DELETE FROM couple_outcome WHERE expires_at < $1 ORDER BY expires_at, scope LIMIT $2";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &IdempotencyChange,
) -> Result<ChangeResult, ApplyError> {
    match change {
        IdempotencyChange::Record(record) => {
            Statement::<D>::new(FORGET_EXPIRED)
                .digest(&record.scope)
                .time(record.recorded_at)
                .execute(connection)
                .await?;
            let written = Statement::<D>::new(RECORD)
                .digest(&record.scope)
                .digest(&record.request)
                .bind(record.outcome.as_str())
                .time(record.recorded_at)
                .time(record.expires_at)
                .digest(&record.scope)
                .execute(connection)
                .await?;
            require_one_row(written, Conflict::KeyUsed)?;
        }
        IdempotencyChange::Purge { before, cap } => {
            let purged =
                Statement::<D>::new(PURGE).time(*before).bind(i64::from(*cap)).execute(connection).await?;
            return Ok(ChangeResult::RowsAffected(purged));
        }
    }
    Ok(ChangeResult::Applied)
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<OutcomeRecord, Error> {
    Ok(OutcomeRecord {
        scope: row.digest("outcome", "scope")?,
        request: row.digest("outcome", "request")?,
        outcome: row.take()?,
        recorded_at: row.time()?,
        expires_at: row.time()?,
    })
}

#[async_trait]
impl<D: Dialect> IdempotencyReads for SqlStore<D> {
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error> {
        self.read_one(Statement::new(FIND).digest(scope), decode).await
    }
}
