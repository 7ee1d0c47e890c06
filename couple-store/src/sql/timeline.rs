//! Logs of couples in SQL.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, CoupleId, Error,
    pairing::Side,
    timeline::{Body, Entry, NewEntry, Page, TimelineChange, TimelineReads},
};

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection,
    apply_error::{Applied, ApplyError, require_one_row},
};

macro_rules! entry {
    () => {
        "seq, author, client_id, kind, body, target, created_at, edited_at, deleted_at, reaction_first, reaction_second"
    };
}

statements! {
    TAKE_SEQ = "UPDATE couple_couple SET head_seq = head_seq + 1 WHERE id = $1 AND ended_at IS NULL AND NOT EXISTS \
     (SELECT 1 FROM couple_entry WHERE couple_id = $2 AND author = $3 AND client_id = $4) RETURNING head_seq"
        => mysql: "UPDATE couple_couple SET head_seq = LAST_INSERT_ID(head_seq + 1) WHERE id = $1 AND ended_at IS NULL AND NOT EXISTS \
     (SELECT 1 FROM couple_entry WHERE couple_id = $2 AND author = $3 AND client_id = $4)";
    LIVING = "SELECT 1 FROM couple_couple WHERE id = $1 AND ended_at IS NULL FOR UPDATE"
        => sqlite: "SELECT 1 FROM couple_couple WHERE id = $1 AND ended_at IS NULL";
    INSERT = "INSERT INTO couple_entry (couple_id, seq, author, client_id, kind, body, target, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    EDIT = "UPDATE couple_entry SET body = $1, edited_at = $2 \
     WHERE couple_id = $3 AND seq = $4 AND author = $5 AND deleted_at IS NULL";
    DELETE = "UPDATE couple_entry SET body = NULL, reaction_first = NULL, reaction_second = NULL, deleted_at = $1 \
     WHERE couple_id = $2 AND seq = $3 AND author = $4 AND deleted_at IS NULL";
    REACT_FIRST = "UPDATE couple_entry SET reaction_first = $1 WHERE couple_id = $2 AND seq = $3 AND deleted_at IS NULL";
    REACT_SECOND = "UPDATE couple_entry SET reaction_second = $1 WHERE couple_id = $2 AND seq = $3 AND deleted_at IS NULL";
    READ_FIRST = "UPDATE couple_couple SET read_first = CASE WHEN head_seq < $1 THEN head_seq ELSE $2 END \
     WHERE id = $3 AND read_first < $4 AND read_first < head_seq";
    READ_SECOND = "UPDATE couple_couple SET read_second = CASE WHEN head_seq < $1 THEN head_seq ELSE $2 END \
     WHERE id = $3 AND read_second < $4 AND read_second < head_seq";
    ERASE = "UPDATE couple_entry SET body = NULL, client_id = NULL, reaction_first = NULL, reaction_second = NULL, deleted_at = $1 \
     WHERE couple_id = $2 AND seq > $3 AND seq <= $4 AND author = $5 AND deleted_at IS NULL"
        => mysql: "UPDATE couple_entry FORCE INDEX (PRIMARY) SET body = NULL, client_id = NULL, reaction_first = NULL, reaction_second = NULL, \
     deleted_at = $1 WHERE couple_id = $2 AND seq > $3 AND seq <= $4 AND author = $5 AND deleted_at IS NULL";
    UNREACT_FIRST = "UPDATE couple_entry SET reaction_first = NULL \
     WHERE couple_id = $1 AND seq > $2 AND seq <= $3 AND reaction_first IS NOT NULL";
    UNREACT_SECOND = "UPDATE couple_entry SET reaction_second = NULL \
     WHERE couple_id = $1 AND seq > $2 AND seq <= $3 AND reaction_second IS NOT NULL";
    AFTER = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    BEFORE = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3";
    AFTER_OF_KIND = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND kind = $2 AND seq > $3 ORDER BY seq LIMIT $4";
    BEFORE_OF_KIND = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND kind = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";
    UNREAD = "SELECT COUNT(*) FROM couple_entry WHERE couple_id = $1 AND seq > $2 AND +author = $3 AND client_id IS NOT NULL \
     AND deleted_at IS NULL"
        => mysql: "SELECT COUNT(*) FROM couple_entry FORCE INDEX (PRIMARY) WHERE couple_id = $1 AND seq > $2 AND author = $3 \
     AND client_id IS NOT NULL AND deleted_at IS NULL";
    UNREAD_KINDS = "SELECT kind FROM couple_entry WHERE couple_id = $1 AND seq > $2 AND +author = $3 AND client_id IS NOT NULL \
     AND deleted_at IS NULL"
        => mysql: "SELECT kind FROM couple_entry FORCE INDEX (PRIMARY) WHERE couple_id = $1 AND seq > $2 AND author = $3 \
     AND client_id IS NOT NULL AND deleted_at IS NULL";
    ENTRY = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND seq = $2";
    BY_CLIENT_ID = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND author = $2 AND client_id = $3";
    BY_AUTHOR = "SELECT ", entry!(), " FROM couple_entry WHERE couple_id = $1 AND author = $2 AND seq > $3 ORDER BY seq LIMIT $4"
        => mysql: "SELECT ", entry!(), " FROM couple_entry FORCE INDEX (PRIMARY) WHERE couple_id = $1 AND author = $2 AND seq > $3 \
     ORDER BY seq LIMIT $4";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &TimelineChange,
) -> Result<ChangeResult, ApplyError> {
    match change {
        TimelineChange::Append { couple, entry } => {
            return Ok(ChangeResult::Appended { seq: append::<D>(connection, *couple, entry).await? });
        }
        TimelineChange::Edit { couple, seq, author, body, at } => {
            require_active::<D>(connection, *couple).await?;
            let statement = Statement::<D>::new(EDIT)
                .bind(body.as_str())
                .time(*at)
                .bind(couple.as_uuid())
                .bind(*seq)
                .bind(stored(*author));
            require_one_row(statement.execute(connection).await?, Conflict::EntryClosed(*seq))?;
        }
        TimelineChange::Delete { couple, seq, author, at } => {
            require_active::<D>(connection, *couple).await?;
            let statement =
                Statement::<D>::new(DELETE).time(*at).bind(couple.as_uuid()).bind(*seq).bind(stored(*author));
            require_one_row(statement.execute(connection).await?, Conflict::EntryClosed(*seq))?;
        }
        TimelineChange::React { couple, seq, side, emoji } => {
            require_active::<D>(connection, *couple).await?;
            let sql = match side {
                Side::First => REACT_FIRST,
                Side::Second => REACT_SECOND,
            };
            let statement = Statement::<D>::new(sql).bind(emoji.as_deref()).bind(couple.as_uuid()).bind(*seq);
            require_one_row(statement.execute(connection).await?, Conflict::EntryClosed(*seq))?;
        }
        TimelineChange::MarkRead { couple, side, seq } => {
            require_active::<D>(connection, *couple).await?;
            let sql = match side {
                Side::First => READ_FIRST,
                Side::Second => READ_SECOND,
            };
            let statement = Statement::<D>::new(sql).bind(*seq).bind(*seq).bind(couple.as_uuid()).bind(*seq);
            statement.execute(connection).await?;
        }
        TimelineChange::Erase { couple, author, at, after, cap } => {
            let rows = Statement::<D>::new(LIVING).bind(couple.as_uuid()).rows(connection).await?;
            if !rows.is_empty() {
                return Err(Conflict::CoupleLives(*couple).into());
            }
            let end = after.saturating_add(i64::from(*cap));
            let mut erased = Statement::<D>::new(ERASE)
                .time(*at)
                .bind(couple.as_uuid())
                .bind(*after)
                .bind(end)
                .bind(stored(*author))
                .execute(connection)
                .await?;
            let unreact = match author {
                Side::First => UNREACT_FIRST,
                Side::Second => UNREACT_SECOND,
            };
            let statement = Statement::<D>::new(unreact).bind(couple.as_uuid()).bind(*after).bind(end);
            erased += statement.execute(connection).await?;
            return Ok(ChangeResult::RowsAffected(erased));
        }
    }
    Ok(ChangeResult::Applied)
}

/// Appends an entry with the next `seq`, under the lock of the couple's row.
///
/// Uses as few statements as possible, because each is a round trip.
async fn append<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    couple: CoupleId,
    entry: &NewEntry,
) -> Result<i64, ApplyError> {
    let author = entry.author.map(stored);
    // Without an author or a client id the comparison with NULL matches no row.
    let taken = Statement::<D>::new(TAKE_SEQ)
        .bind(couple.as_uuid())
        .bind(couple.as_uuid())
        .bind(author)
        .bind(entry.client_id.as_deref())
        .count_up(connection)
        .await?;
    let Some(seq) = taken else {
        require_active::<D>(connection, couple).await?;
        return Err(Conflict::ClientIdUsed.into());
    };
    Statement::<D>::new(INSERT)
        .bind(couple.as_uuid())
        .bind(seq)
        .bind(author)
        .bind(entry.client_id.as_deref())
        .bind(entry.kind.as_str())
        .bind(entry.body.as_ref().map(Body::as_str))
        .bind(entry.target)
        .time(entry.at)
        .execute(connection)
        .await?;
    Ok(seq)
}

/// Locks the row of a couple; a conflict if it has ended.
pub(super) async fn require_active<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    couple: CoupleId,
) -> Applied {
    let rows = Statement::<D>::new(LIVING).bind(couple.as_uuid()).rows(connection).await?;
    if rows.is_empty() { Err(Conflict::CoupleEnded(couple).into()) } else { Ok(()) }
}

const fn stored(side: Side) -> i64 {
    match side {
        Side::First => 0,
        Side::Second => 1,
    }
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<Entry, Error> {
    let seq = row.take()?;
    let author = match row.take::<Option<i64>>()? {
        Some(index) => Some(Side::from_index(index).ok_or_else(|| Error::corrupt("entry", "author", seq))?),
        None => None,
    };
    Ok(Entry {
        seq,
        author,
        client_id: row.take()?,
        kind: row.take()?,
        body: row.take::<Option<String>>()?.map(Body::from_stored),
        target: row.take()?,
        created_at: row.time()?,
        edited_at: row.opt_time()?,
        deleted_at: row.opt_time()?,
        reactions: [row.take()?, row.take()?],
    })
}

#[async_trait]
impl<D: Dialect> TimelineReads for SqlStore<D> {
    async fn entries(
        &self,
        couple: CoupleId,
        page: Page,
        limit: u32,
        kind: Option<&str>,
    ) -> Result<Vec<Entry>, Error> {
        let (sql, seq, backwards) = match (page, kind) {
            (Page::After(seq), None) => (AFTER, seq, false),
            (Page::Before(seq), None) => (BEFORE, seq, true),
            (Page::After(seq), Some(_)) => (AFTER_OF_KIND, seq, false),
            (Page::Before(seq), Some(_)) => (BEFORE_OF_KIND, seq, true),
        };
        let mut statement = Statement::new(sql).bind(couple.as_uuid());
        if let Some(kind) = kind {
            statement = statement.bind(kind);
        }
        let mut entries = self.read(statement.bind(seq).bind(i64::from(limit)), decode).await?;
        if backwards {
            entries.reverse();
        }
        Ok(entries)
    }
    async fn entry(&self, couple: CoupleId, seq: i64) -> Result<Option<Entry>, Error> {
        self.read_one(Statement::new(ENTRY).bind(couple.as_uuid()).bind(seq), decode).await
    }
    async fn entry_by_client_id(
        &self,
        couple: CoupleId,
        author: Side,
        client_id: &str,
    ) -> Result<Option<Entry>, Error> {
        let statement =
            Statement::new(BY_CLIENT_ID).bind(couple.as_uuid()).bind(stored(author)).bind(client_id);
        self.read_one(statement, decode).await
    }
    async fn entries_by(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, Error> {
        let statement = Statement::new(BY_AUTHOR)
            .bind(couple.as_uuid())
            .bind(stored(author))
            .bind(after)
            .bind(i64::from(limit));
        self.read(statement, decode).await
    }
    async fn unread(
        &self,
        couple: CoupleId,
        author: Side,
        after: i64,
        except: &[String],
    ) -> Result<u32, Error> {
        let bind =
            |statement| Statement::new(statement).bind(couple.as_uuid()).bind(after).bind(stored(author));
        if !except.is_empty() {
            let kind = |row: &mut Row<'_, D>| -> Result<String, Error> { row.take() };
            let kinds = self.read(bind(UNREAD_KINDS), kind).await?;
            let unread = kinds.iter().filter(|kind| !except.contains(kind)).count();
            return Ok(u32::try_from(unread).unwrap_or(u32::MAX));
        }
        let statement = bind(UNREAD);
        let count = self.read_one(statement, |row| Ok(u32::try_from(row.take::<i64>()?).unwrap_or(u32::MAX)));
        Ok(count.await?.unwrap_or(0))
    }
}
