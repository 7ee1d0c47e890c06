//! Dates of couples in SQL.
//!
//! Dates are changed only while the row of their couple is locked.

use async_trait::async_trait;
use couple_core::{
    Conflict, CoupleId, DateId, Error, Label,
    date::{CalendarDay, CoupleDate, DateChange, DateKind, DateReads},
};

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection, apply_error::Applied, dialect::ReadColumn, timeline,
};

macro_rules! date {
    () => {
        "couple_id, id, version, kind, title, day, yearly, created_at"
    };
}

statements! {
    FIND = "SELECT ", date!(), " FROM couple_date WHERE couple_id = $1 AND id = $2";
    DATES_OF = "SELECT ", date!(), " FROM couple_date WHERE couple_id = $1 ORDER BY created_at, id LIMIT 200";
    VERSION = "SELECT version FROM couple_date WHERE couple_id = $1 AND id = $2";
    COUNT_OTHERS = "SELECT COUNT(*) FROM couple_date WHERE couple_id = $1 AND id <> $2";
    INSERT = "INSERT INTO couple_date (", date!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    REMOVE = "DELETE FROM couple_date WHERE couple_id = $1 AND id = $2";
    REMOVE_OF = "DELETE FROM couple_date WHERE couple_id = $1";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &DateChange,
) -> Applied {
    timeline::require_active::<D>(connection, change.couple()).await?;
    match change {
        DateChange::Put { date, most } => put::<D>(connection, date, *most).await,
        DateChange::Remove { couple, id, version } => {
            let stored = number::<D>(connection, VERSION, *couple, *id).await?;
            if stored != Some(*version) {
                return Err(Conflict::DateChanged(*id).into());
            }
            remove::<D>(connection, *couple, *id).await
        }
    }
}

/// First column of the first row that a statement with couple and id returns.
async fn number<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    sql: super::Sql,
    couple: CoupleId,
    id: DateId,
) -> sqlx::Result<Option<i64>> {
    let rows = Statement::<D>::new(sql).bind(couple.as_uuid()).bind(id.as_uuid()).rows(connection).await?;
    rows.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()
}

async fn put<D: Dialect>(connection: &mut TableConnection<'_, D>, date: &CoupleDate, most: u32) -> Applied {
    let (couple, id) = (date.couple, date.id);
    let stored = number::<D>(connection, VERSION, couple, id).await?;
    if stored.unwrap_or(0) != date.version {
        return Err(Conflict::DateChanged(id).into());
    }
    let others = number::<D>(connection, COUNT_OTHERS, couple, id).await?;
    if others.unwrap_or(0) >= i64::from(most) {
        return Err(Conflict::TooManyDates(couple).into());
    }
    remove::<D>(connection, couple, id).await?;
    let day = date.day.to_string();
    Statement::<D>::new(INSERT)
        .bind(couple.as_uuid())
        .bind(id.as_uuid())
        .bind(date.version + 1)
        .bind(date.kind.index())
        .bind(date.title.as_ref().map(Label::as_str))
        .bind(day.as_str())
        .bind(i64::from(date.is_yearly))
        .time(date.created_at)
        .execute(connection)
        .await?;
    Ok(())
}

async fn remove<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    couple: CoupleId,
    id: DateId,
) -> Applied {
    let statement = Statement::<D>::new(REMOVE).bind(couple.as_uuid()).bind(id.as_uuid());
    statement.execute(connection).await?;
    Ok(())
}

/// Removes all dates of a couple, whose row the caller has locked.
pub(super) async fn remove_of<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    couple: CoupleId,
) -> Applied {
    Statement::<D>::new(REMOVE_OF).bind(couple.as_uuid()).execute(connection).await?;
    Ok(())
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<CoupleDate, Error> {
    let (couple, id) = (CoupleId::from_uuid(row.take()?), DateId::from_uuid(row.take()?));
    let corrupt = |column| Error::corrupt("date", column, id);
    Ok(CoupleDate {
        couple,
        id,
        version: row.take()?,
        kind: DateKind::from_index(row.take()?).ok_or_else(|| corrupt("kind"))?,
        title: row.take::<Option<String>>()?.map(Label::from_stored),
        day: CalendarDay::from_stored(&row.take::<String>()?).ok_or_else(|| corrupt("day"))?,
        is_yearly: row.take::<i64>()? != 0,
        created_at: row.time()?,
    })
}

#[async_trait]
impl<D: Dialect> DateReads for SqlStore<D> {
    async fn date(&self, couple: CoupleId, id: DateId) -> Result<Option<CoupleDate>, Error> {
        self.read_one(Statement::new(FIND).bind(couple.as_uuid()).bind(id.as_uuid()), decode).await
    }
    async fn dates_of(&self, couple: CoupleId) -> Result<Vec<CoupleDate>, Error> {
        self.read(Statement::new(DATES_OF).bind(couple.as_uuid()), decode).await
    }
}
