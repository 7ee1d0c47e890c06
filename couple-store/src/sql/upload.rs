//! Resumable uploads in SQL.
//!
//! Every change of an upload first locks all unfinished uploads of its owner, in the order of their ids. So
//! the changes of one account are serialized: concurrent appends cannot exceed the limit together, and
//! transactions do not deadlock.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, CoupleId, Error, MediaId, Timestamp, UploadId,
    upload::{ResumableUpload, UnfinishedUploads, UploadChange, UploadPart, UploadReads},
};
use uuid::Uuid;

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection,
    apply_error::{Applied, require_one_row},
    dialect::ReadColumn,
    pairing,
};

macro_rules! upload {
    () => {
        "id, owner, couple_id, total_length, received, parts, writer, metadata, concatenation, media_id, expires_at"
    };
}

statements! {
    FIND = "SELECT ", upload!(), " FROM couple_resumable_upload WHERE id = $1";
    UNFINISHED_OF = "SELECT COUNT(*), CAST(COALESCE(SUM(received), 0) AS BIGINT) FROM couple_resumable_upload \
     WHERE owner = $1 AND media_id IS NULL"
        => mysql: "SELECT COUNT(*), CAST(COALESCE(SUM(received), 0) AS SIGNED) FROM couple_resumable_upload \
     WHERE owner = $1 AND media_id IS NULL";
    UNFINISHED_BYTES = "SELECT CAST(COALESCE(SUM(received), 0) AS BIGINT) FROM couple_resumable_upload WHERE media_id IS NULL"
        => mysql: "SELECT CAST(COALESCE(SUM(received), 0) AS SIGNED) FROM couple_resumable_upload WHERE media_id IS NULL";
    EXPIRED = "SELECT ", upload!(), " FROM couple_resumable_upload WHERE expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
    // FORCE INDEX: for a small table MariaDB would scan the primary key and wait for locked rows of other
    // accounts.
    LOCK_OF = "SELECT id, received, writer FROM couple_resumable_upload WHERE owner = $1 AND media_id IS NULL ORDER BY id FOR UPDATE"
        => mysql: "SELECT id, received, writer FROM couple_resumable_upload FORCE INDEX (couple_resumable_upload_owner) \
     WHERE owner = $1 AND media_id IS NULL ORDER BY id FOR UPDATE"
        => sqlite: "SELECT id, received, writer FROM couple_resumable_upload WHERE owner = $1 AND media_id IS NULL ORDER BY id";
    INSERT = "INSERT INTO couple_resumable_upload (", upload!(), ") \
     SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM (SELECT 1 AS one) AS one \
     WHERE NOT EXISTS (SELECT 1 FROM couple_resumable_upload WHERE id = $12)";
    CLAIM = "UPDATE couple_resumable_upload SET writer = $1, total_length = COALESCE(total_length, $2) \
     WHERE id = $3 AND COALESCE(total_length, $4, -1) = COALESCE($5, total_length, -1)";
    APPEND = "UPDATE couple_resumable_upload SET received = $1, parts = $2 WHERE id = $3";
    TAKE_OVER = "DELETE FROM couple_resumable_upload WHERE id = $1";
    FINISH = "UPDATE couple_resumable_upload SET media_id = $1, parts = '' WHERE id = $2";
    EXPIRE_OF = "UPDATE couple_resumable_upload SET expires_at = $1 WHERE owner = $2 AND expires_at > $3";
    REMOVE = "DELETE FROM couple_resumable_upload WHERE id = $1 AND owner = $2";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &UploadChange,
) -> Applied {
    let unfinished = match change {
        UploadChange::Insert { upload, most } => return insert::<D>(connection, upload, *most).await,
        other => lock::<D>(connection, other.owner()).await?,
    };
    match change {
        UploadChange::Insert { .. } => Ok(()),
        UploadChange::Claim { id, offset, writer, length, .. } => {
            unfinished.at(*id, *offset)?;
            let statement = Statement::<D>::new(CLAIM).bind(*writer).bind(*length).bind(id.as_uuid());
            let statement = statement.bind(*length).bind(*length);
            require_one_row(statement.execute(connection).await?, Conflict::UploadChanged(*id))
        }
        UploadChange::Append { id, writer, offset, bytes, parts, most, .. } => {
            if unfinished.at(*id, *offset)? != *writer {
                return Err(Conflict::UploadChanged(*id).into());
            }
            if unfinished.bytes() + bytes > *most {
                return Err(Conflict::QuotaExceeded.into());
            }
            let parts = write_parts(parts);
            let statement = Statement::<D>::new(APPEND).bind(offset + bytes).bind(parts.as_str());
            statement.bind(id.as_uuid()).execute(connection).await?;
            Ok(())
        }
        UploadChange::TakeOver { id, offset, .. } => {
            unfinished.at(*id, *offset)?;
            Statement::<D>::new(TAKE_OVER).bind(id.as_uuid()).execute(connection).await?;
            Ok(())
        }
        UploadChange::Finish { id, media, .. } => {
            unfinished.get(*id)?;
            let statement = Statement::<D>::new(FINISH).bind(media.as_uuid()).bind(id.as_uuid());
            statement.execute(connection).await?;
            Ok(())
        }
        UploadChange::ExpireOf { owner, at } => {
            let statement = Statement::<D>::new(EXPIRE_OF).time(*at).bind(owner.as_uuid()).time(*at);
            statement.execute(connection).await?;
            Ok(())
        }
        UploadChange::Remove { owner, id } => {
            let statement = Statement::<D>::new(REMOVE).bind(id.as_uuid()).bind(owner.as_uuid());
            statement.execute(connection).await?;
            Ok(())
        }
    }
}

/// Unfinished uploads of an account, locked until the transaction ends: id, stored bytes and writer.
struct Unfinished(Vec<(UploadId, i64, i64)>);

impl Unfinished {
    fn get(&self, id: UploadId) -> Result<&(UploadId, i64, i64), Conflict> {
        self.0.iter().find(|upload| upload.0 == id).ok_or(Conflict::UploadChanged(id))
    }
    /// Number of the current writer of an upload.
    ///
    /// A conflict unless the stored bytes of the upload end at `offset`.
    fn at(&self, id: UploadId, offset: i64) -> Result<i64, Conflict> {
        let &(_, stored, writer) = self.get(id)?;
        if stored == offset { Ok(writer) } else { Err(Conflict::UploadChanged(id)) }
    }
    fn bytes(&self) -> i64 {
        self.0.iter().map(|(_, bytes, _)| bytes).sum()
    }
}

async fn lock<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    owner: AccountId,
) -> sqlx::Result<Unfinished> {
    let rows = Statement::<D>::new(LOCK_OF).bind(owner.as_uuid()).rows(connection).await?;
    let read = |row| {
        let id = UploadId::from_uuid(<D as ReadColumn<Uuid>>::read(row, 0)?);
        Ok((id, <D as ReadColumn<i64>>::read(row, 1)?, <D as ReadColumn<i64>>::read(row, 2)?))
    };
    rows.iter().map(read).collect::<sqlx::Result<_>>().map(Unfinished)
}

async fn insert<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    upload: &ResumableUpload,
    most: i64,
) -> Applied {
    if upload.media.is_none() {
        // The rows of concurrent inserts cannot be locked yet: the owner's row in `member` is locked instead.
        pairing::is_member::<D>(connection, upload.owner).await?;
        let rows = Statement::<D>::new(UNFINISHED_OF).bind(upload.owner.as_uuid()).rows(connection).await?;
        let count = rows.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()?;
        if count.unwrap_or(0) >= most {
            return Err(Conflict::QuotaExceeded.into());
        }
    }
    let parts = write_parts(&upload.parts);
    let inserted = Statement::<D>::new(INSERT)
        .bind(upload.id.as_uuid())
        .bind(upload.owner.as_uuid())
        .bind(upload.couple.map(CoupleId::as_uuid))
        .bind(upload.length)
        .bind(upload.offset)
        .bind(parts.as_str())
        .bind(upload.writer)
        .bind(upload.metadata.as_str())
        .bind(upload.concatenation.as_deref())
        .bind(upload.media.map(MediaId::as_uuid))
        .time(upload.expires_at)
        .bind(upload.id.as_uuid())
        .execute(connection)
        .await?;
    require_one_row(inserted, Conflict::UploadChanged(upload.id))
}

/// Serializes parts as `{bytes}:{blob}`, separated by spaces.
fn write_parts(parts: &[UploadPart]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| format!("{}:{}", part.bytes, part.blob)).collect();
    parts.join(" ")
}

fn read_parts(text: &str) -> Option<Vec<UploadPart>> {
    let part = |text: &str| {
        let (bytes, blob) = text.split_once(':')?;
        Some(UploadPart { bytes: bytes.parse().ok()?, blob: blob.to_owned() })
    };
    text.split(' ').filter(|text| !text.is_empty()).map(part).collect()
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<ResumableUpload, Error> {
    let id = UploadId::from_uuid(row.take()?);
    Ok(ResumableUpload {
        id,
        owner: AccountId::from_uuid(row.take()?),
        couple: row.take::<Option<Uuid>>()?.map(CoupleId::from_uuid),
        length: row.take()?,
        offset: row.take()?,
        parts: read_parts(&row.take::<String>()?)
            .ok_or_else(|| Error::corrupt("resumable_upload", "parts", id))?,
        writer: row.take()?,
        metadata: row.take()?,
        concatenation: row.take()?,
        media: row.take::<Option<Uuid>>()?.map(MediaId::from_uuid),
        expires_at: row.time()?,
    })
}

#[async_trait]
impl<D: Dialect> UploadReads for SqlStore<D> {
    async fn upload(&self, id: UploadId) -> Result<Option<ResumableUpload>, Error> {
        self.read_one(Statement::new(FIND).bind(id.as_uuid()), decode).await
    }
    async fn unfinished_uploads(&self, owner: AccountId) -> Result<UnfinishedUploads, Error> {
        let decode = |row: &mut Row<'_, D>| Ok(UnfinishedUploads { count: row.take()?, bytes: row.take()? });
        let statement = Statement::new(UNFINISHED_OF).bind(owner.as_uuid());
        Ok(self.read_one(statement, decode).await?.unwrap_or_default())
    }
    async fn unfinished_bytes(&self) -> Result<i64, Error> {
        let decode = |row: &mut Row<'_, D>| row.take();
        Ok(self.read_one(Statement::new(UNFINISHED_BYTES), decode).await?.unwrap_or_default())
    }
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<ResumableUpload>, Error> {
        self.read(Statement::new(EXPIRED).time(now).bind(i64::from(limit)), decode).await
    }
}
