//! Tallies in SQL.

use couple_core::{
    Conflict, Error, Timestamp,
    account::{Tally, TallyId},
};

use super::{Dialect, Row, SqlStore, Statement, TableConnection, apply_error::Applied};

statements! {
    TALLY = "SELECT counted, expires_at FROM couple_tally WHERE id = $1 AND expires_at > $2";
    COUNT = "UPDATE couple_tally SET counted = CASE WHEN expires_at <= $1 THEN 1 ELSE counted + 1 END, \
     expires_at = CASE WHEN expires_at <= $2 THEN $3 ELSE expires_at END \
     WHERE id = $4 AND (counted < $5 OR expires_at <= $6)";
    SET = "UPDATE couple_tally SET counted = $1, expires_at = $2 WHERE id = $3";
    INSERT = "INSERT INTO couple_tally (id, counted, expires_at) SELECT $1, $2, $3 FROM (SELECT 1 AS one) AS one \
     WHERE NOT EXISTS (SELECT 1 FROM couple_tally WHERE id = $4)";
    PURGE = "DELETE FROM couple_tally WHERE id IN (SELECT id FROM couple_tally WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2)"
        => mysql: "DELETE FROM couple_tally WHERE expires_at < $1 ORDER BY expires_at, id LIMIT $2";
}

/// Adds one to a tally if its count is below `below`.
pub(super) async fn count<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    id: TallyId,
    below: i64,
    at: Timestamp,
    expires_at: Timestamp,
) -> Applied {
    if below <= 0 {
        return Err(Conflict::TallyFull.into());
    }
    let counted = Statement::<D>::new(COUNT)
        .time(at)
        .time(at)
        .time(expires_at)
        .digest(id.as_digest())
        .bind(below)
        .time(at)
        .execute(connection)
        .await?;
    if counted == 1 || insert::<D>(connection, id, Tally { count: 1, expires_at }).await? {
        return Ok(());
    }
    Err(Conflict::TallyFull.into())
}

/// Checks that the count of a tally is below `below`.
pub(super) async fn require<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    id: TallyId,
    below: i64,
    at: Timestamp,
) -> Applied {
    let rows = Statement::<D>::new(TALLY).digest(id.as_digest()).time(at).rows(connection).await?;
    let counted = rows.first().map(|row| <D as super::dialect::ReadColumn<i64>>::read(row, 0)).transpose()?;
    if counted.unwrap_or(0) < below { Ok(()) } else { Err(Conflict::TallyFull.into()) }
}

/// Sets a tally, whatever its value.
pub(super) async fn put<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    id: TallyId,
    tally: Tally,
) -> Applied {
    let statement = Statement::<D>::new(SET).bind(tally.count).time(tally.expires_at).digest(id.as_digest());
    if statement.execute(connection).await? == 0 {
        insert::<D>(connection, id, tally).await?;
    }
    Ok(())
}

/// Removes up to `cap` expired tallies; returns their number.
pub(super) async fn purge<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    before: Timestamp,
    cap: u32,
) -> sqlx::Result<u64> {
    let statement = Statement::<D>::new(PURGE).time(before).bind(i64::from(cap));
    statement.execute(connection).await
}

/// Inserts a tally; returns whether it did not exist.
async fn insert<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    id: TallyId,
    tally: Tally,
) -> Result<bool, sqlx::Error> {
    let statement = Statement::<D>::new(INSERT)
        .digest(id.as_digest())
        .bind(tally.count)
        .time(tally.expires_at)
        .digest(id.as_digest());
    Ok(statement.execute(connection).await? == 1)
}

impl<D: Dialect> SqlStore<D> {
    pub(super) async fn read_tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error> {
        let statement = Statement::new(TALLY).digest(id.as_digest()).time(now);
        let decode = |row: &mut Row<'_, D>| Ok(Tally { count: row.take()?, expires_at: row.time()? });
        self.read_one(statement, decode).await
    }
}
