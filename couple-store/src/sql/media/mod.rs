//! Pictures in SQL.
//!
//! Every change first locks the row of the couple or, for an avatar, of the account's space. So no other
//! transaction changes the space until the end of this one, and the space's usage can be updated without
//! reading it again.

mod reads;

use couple_core::{
    Conflict, CoupleId, MediaId,
    media::{
        ExpectedMedia, Format, Media, MediaChange, MediaState, Purpose, Rendition, Source, Space, SpaceUsage,
    },
};
use uuid::Uuid;

use super::{
    Dialect, Statement, TableConnection,
    apply_error::{Applied, ApplyError, require_one_row},
    dialect::ReadColumn,
};

macro_rules! media {
    () => {
        "space_kind, space_id, id, owner, purpose, state, reason, digest, crop_x, crop_y, crop_width, crop_height, blob_key, \
         source, source_bytes, source_type, width, height, placeholder, uses, created_at, animated, alpha"
    };
}
macro_rules! rendition {
    () => {
        "media_id, name, format, width, height, bytes, blob_name, made_at, used_at"
    };
}

const PROCESSING: i64 = 0;
const READY: i64 = 1;
const REJECTED: i64 = 2;
const AVATAR: i64 = 0;
const PHOTO: i64 = 1;

statements! {
    MEDIA = "SELECT ", media!(), " FROM couple_media WHERE id = $1";
    MEDIA_BY_IDENTITY = "SELECT ", media!(), " FROM couple_media WHERE space_id = $1 AND identity = $2";
    MEDIA_IN = "SELECT ", media!(), " FROM couple_media WHERE space_id = $1 AND id > $2 ORDER BY id LIMIT $3";
    AVATAR_OF = "SELECT ", media!(), " FROM couple_media WHERE id = (SELECT avatar FROM couple_media_space WHERE space_id = $1)";
    RENDITIONS = "SELECT ", rendition!(), " FROM couple_media_rendition WHERE space_id = $1 AND media_id = $2 ORDER BY name, format";
    UNUSED_RENDITIONS = "SELECT ", rendition!(), " FROM couple_media_rendition WHERE used_at < $1 \
     ORDER BY used_at, media_id, name, format LIMIT $2";
    SPACE = "SELECT bytes, avatar, closed FROM couple_media_space WHERE space_id = $1";
    SPACES = "SELECT kind, space_id FROM couple_media_space WHERE space_id > $1 ORDER BY space_id LIMIT $2";
    LOCK_COUPLE = "SELECT ended_at FROM couple_couple WHERE id = $1 FOR UPDATE"
        => sqlite: "SELECT ended_at FROM couple_couple WHERE id = $1";
    LOCK_SPACE = "SELECT bytes, avatar, closed FROM couple_media_space WHERE space_id = $1 FOR UPDATE"
        => sqlite: "SELECT bytes, avatar, closed FROM couple_media_space WHERE space_id = $1";
    TAKEN = "SELECT 1 FROM couple_media WHERE id = $1 UNION ALL SELECT 1 FROM couple_media WHERE space_id = $2 AND identity = $3";
    INSERT_SPACE = "INSERT INTO couple_media_space (kind, space_id, bytes, closed) VALUES ($1, $2, $3, $4)";
    COUNT = "UPDATE couple_media_space SET bytes = bytes + $1 WHERE space_id = $2";
    SHOW = "UPDATE couple_media_space SET avatar = $1 WHERE space_id = $2";
    HIDE = "UPDATE couple_media_space SET avatar = NULL WHERE space_id = $1 AND avatar = $2";
    CLOSE = "UPDATE couple_media_space SET closed = 1, bytes = 0, avatar = NULL WHERE space_id = $1";
    INSERT = "INSERT INTO couple_media (identity, ", media!(), ") \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)";
    STATE = "SELECT state, uses, source, source_bytes FROM couple_media WHERE space_id = $1 AND id = $2";
    FINISH = "UPDATE couple_media SET state = 1, width = $1, height = $2, placeholder = $3, source = $4, source_bytes = $5, source_type = $6, \
     animated = $7, alpha = $8 WHERE space_id = $9 AND id = $10";
    REJECT = "UPDATE couple_media SET state = 2, reason = $1, source = NULL, source_bytes = NULL, source_type = NULL \
     WHERE space_id = $2 AND id = $3";
    FORGET_SOURCE = "UPDATE couple_media SET source = NULL, source_bytes = NULL, source_type = NULL WHERE space_id = $1 AND id = $2";
    USE = "UPDATE couple_media SET uses = uses + 1 WHERE space_id = $1 AND id = $2 AND owner = $3 AND purpose = $4 AND state IN ($5, $6)";
    RELEASE = "UPDATE couple_media SET uses = uses - 1 WHERE space_id = $1 AND id = $2";
    DELETE = "DELETE FROM couple_media WHERE space_id = $1 AND id = $2";
    INSERT_RENDITION = "INSERT INTO couple_media_rendition (space_id, ", rendition!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    RENDITION = "SELECT 1 FROM couple_media_rendition WHERE space_id = $1 AND media_id = $2 AND name = $3 AND format = $4";
    FORGET_RENDITION = "DELETE FROM couple_media_rendition WHERE space_id = $1 AND media_id = $2 AND name = $3 AND format = $4";
    DELETE_RENDITIONS = "DELETE FROM couple_media_rendition WHERE space_id = $1 AND media_id = $2";
    TOUCH = "UPDATE couple_media_rendition SET used_at = $1 \
     WHERE space_id = $2 AND media_id = $3 AND name = $4 AND format = $5 AND used_at < $6";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &MediaChange,
) -> Applied {
    let space = change.space();
    let locked = LockedSpace::take::<D>(connection, space).await?;
    match change {
        MediaChange::Insert { media, most } => insert::<D>(connection, &locked, media, *most).await,
        MediaChange::Finish { of, width, height, animated, alpha, placeholder, source, renditions } => {
            let before = processing::<D>(connection, *of).await?;
            Statement::<D>::new(FINISH)
                .bind(i64::from(*width))
                .bind(i64::from(*height))
                .bind(placeholder.as_slice())
                .source(source.as_ref())
                .bind(i64::from(*animated))
                .bind(i64::from(*alpha))
                .of(space, of.id)
                .execute(connection)
                .await?;
            for rendition in renditions {
                insert_rendition::<D>(connection, space, of.id, rendition).await?;
            }
            let made: i64 = renditions.iter().map(|rendition| rendition.bytes).sum();
            let kept = source.as_ref().map_or(0, |source| source.bytes);
            count::<D>(connection, space, kept - before.bytes + made).await
        }
        MediaChange::Reject { of, reason } => {
            let before = processing::<D>(connection, *of).await?;
            let reject = Statement::<D>::new(REJECT).bind(reason.as_str()).of(space, of.id);
            reject.execute(connection).await?;
            count::<D>(connection, space, -before.bytes).await
        }
        MediaChange::Use { couple, id, owner, ready } => {
            locked.require_active(*couple)?;
            let state = if *ready { READY } else { PROCESSING };
            let statement = Statement::<D>::new(USE).of(space, *id).bind(owner.as_uuid()).bind(PHOTO);
            let statement = statement.bind(state).bind(state);
            require_one_row(statement.execute(connection).await?, Conflict::MediaChanged(*id))
        }
        MediaChange::Release(of) => {
            if as_read::<D>(connection, *of).await?.uses == 0 {
                return Err(Conflict::MediaChanged(of.id).into());
            }
            Statement::<D>::new(RELEASE).of(space, of.id).execute(connection).await?;
            Ok(())
        }
        MediaChange::Delete(of) => {
            let mut bytes = as_read::<D>(connection, *of).await?.bytes;
            for rendition in renditions_of::<D>(connection, space, of.id).await? {
                bytes += rendition.bytes;
            }
            for sql in [DELETE_RENDITIONS, DELETE] {
                Statement::<D>::new(sql).of(space, of.id).execute(connection).await?;
            }
            Statement::<D>::new(HIDE).of(space, of.id).execute(connection).await?;
            count::<D>(connection, space, -bytes).await
        }
        MediaChange::AddRendition { space, id, rendition } => {
            let ready = state::<D>(connection, *space, *id).await?.is_some_and(|row| row.state == READY);
            let key =
                Statement::<D>::new(RENDITION).rendition(*space, *id, &rendition.name, rendition.format);
            if !ready || !key.rows(connection).await?.is_empty() {
                return Err(Conflict::MediaChanged(*id).into());
            }
            insert_rendition::<D>(connection, *space, *id, rendition).await?;
            count::<D>(connection, *space, rendition.bytes).await
        }
        MediaChange::Touch { space, id, name, format, at } => {
            let touch = Statement::<D>::new(TOUCH).time(*at).rendition(*space, *id, name, *format).time(*at);
            touch.execute(connection).await?;
            Ok(())
        }
        MediaChange::Forget { space, id, blobs } => forget::<D>(connection, *space, *id, blobs).await,
        MediaChange::SetAvatar { account, media, before: read } => {
            let before = locked.usage.and_then(|usage| usage.avatar);
            if before != *read {
                return Err(Conflict::AvatarChanged(*account).into());
            }
            if before == *media {
                return Ok(());
            }
            if let Some(id) = media {
                let Space::Account(owner) = space else { return Err(Conflict::MediaChanged(*id).into()) };
                let statement = Statement::<D>::new(USE).of(space, *id).bind(owner.as_uuid()).bind(AVATAR);
                let statement = statement.bind(PROCESSING).bind(READY);
                require_one_row(statement.execute(connection).await?, Conflict::MediaChanged(*id))?;
            }
            if let Some(before) = before {
                Statement::<D>::new(RELEASE).of(space, before).execute(connection).await?;
            }
            let show = Statement::<D>::new(SHOW).bind(media.map(MediaId::as_uuid)).bind(space.as_uuid());
            show.execute(connection).await?;
            Ok(())
        }
        MediaChange::Close { account } => {
            let page = Statement::<D>::new(MEDIA_IN).bind(space.as_uuid()).bind(Uuid::nil()).bind(1_i64);
            if !page.rows(connection).await?.is_empty() {
                return Err(Conflict::SpaceNotEmpty(*account).into());
            }
            if locked.usage.is_none() {
                return insert_space::<D>(connection, space, 0, true).await;
            }
            Statement::<D>::new(CLOSE).bind(space.as_uuid()).execute(connection).await?;
            Ok(())
        }
    }
}

/// State that a change depends on, locked until the end of the transaction.
struct LockedSpace {
    space: Space,
    /// Whether the space's couple exists and has not ended.
    couple_is_active: bool,
    /// Usage of the space; none before the first picture.
    usage: Option<SpaceUsage>,
}

impl LockedSpace {
    async fn take<D: Dialect>(
        connection: &mut TableConnection<'_, D>,
        space: Space,
    ) -> Result<Self, ApplyError> {
        let mut couple_is_active = false;
        if let Space::Couple(couple) = space {
            let rows = Statement::<D>::new(LOCK_COUPLE).bind(couple.as_uuid()).rows(connection).await?;
            if let Some(row) = rows.first() {
                couple_is_active = <D as ReadColumn<Option<i64>>>::read(row, 0)?.is_none();
            }
        }
        let rows = Statement::<D>::new(LOCK_SPACE).bind(space.as_uuid()).rows(connection).await?;
        let usage = match rows.first() {
            Some(row) => Some(SpaceUsage {
                bytes: <D as ReadColumn<i64>>::read(row, 0)?,
                avatar: <D as ReadColumn<Option<Uuid>>>::read(row, 1)?.map(MediaId::from_uuid),
                closed: <D as ReadColumn<i64>>::read(row, 2)? != 0,
            }),
            None => None,
        };
        Ok(Self { space, couple_is_active, usage })
    }

    fn require_active(&self, couple: CoupleId) -> Applied {
        if self.couple_is_active { Ok(()) } else { Err(Conflict::CoupleEnded(couple).into()) }
    }

    fn open(&self) -> Applied {
        match self.space {
            Space::Couple(couple) => self.require_active(couple),
            Space::Account(account) if self.usage.is_some_and(|usage| usage.closed) => {
                Err(Conflict::SpaceClosed(account).into())
            }
            Space::Account(_) => Ok(()),
        }
    }
}

async fn insert<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    locked: &LockedSpace,
    media: &Media,
    most: i64,
) -> Applied {
    locked.open()?;
    let (space, identity) = (media.space.as_uuid(), media.identity());
    let existing = Statement::<D>::new(TAKEN).bind(media.id.as_uuid()).bind(space).digest(&identity);
    if !existing.rows(connection).await?.is_empty() {
        return Err(Conflict::MediaExists.into());
    }
    let bytes = media.source.as_ref().map_or(0, |source| source.bytes);
    if locked.usage.map_or(0, |usage| usage.bytes) + bytes > most {
        return Err(Conflict::QuotaExceeded.into());
    }
    match locked.usage {
        // When two transactions insert the space's first picture concurrently, the second fails and finds the
        // row in its next run.
        None => insert_space::<D>(connection, media.space, bytes, false).await?,
        Some(_) => count::<D>(connection, media.space, bytes).await?,
    }
    let (state, reason) = match &media.state {
        MediaState::Processing => (PROCESSING, None),
        MediaState::Ready => (READY, None),
        MediaState::Rejected(reason) => (REJECTED, Some(reason.as_str())),
    };
    let crop = media.crop.map(|crop| [crop.x, crop.y, crop.width, crop.height].map(i64::from));
    let edge = |n: usize| crop.map(|crop| crop[n]);
    Statement::<D>::new(INSERT)
        .digest(&identity)
        .bind(media.space.kind())
        .bind(space)
        .bind(media.id.as_uuid())
        .bind(media.owner.as_uuid())
        .bind(match media.purpose {
            Purpose::Avatar => AVATAR,
            Purpose::Photo => PHOTO,
        })
        .bind(state)
        .bind(reason)
        .digest(&media.digest)
        .bind(edge(0))
        .bind(edge(1))
        .bind(edge(2))
        .bind(edge(3))
        .bind(media.key.as_str())
        .source(media.source.as_ref())
        .bind(i64::from(media.width))
        .bind(i64::from(media.height))
        .bind(media.placeholder.as_deref())
        .bind(media.uses)
        .time(media.created_at)
        .bind(i64::from(media.animated))
        .bind(i64::from(media.alpha))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_space<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    space: Space,
    bytes: i64,
    closed: bool,
) -> Applied {
    Statement::<D>::new(INSERT_SPACE)
        .bind(space.kind())
        .bind(space.as_uuid())
        .bind(bytes)
        .bind(i64::from(closed))
        .execute(connection)
        .await?;
    Ok(())
}

async fn insert_rendition<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    space: Space,
    id: MediaId,
    rendition: &Rendition,
) -> Applied {
    Statement::<D>::new(INSERT_RENDITION)
        .rendition(space, id, &rendition.name, rendition.format)
        .bind(i64::from(rendition.width))
        .bind(i64::from(rendition.height))
        .bind(rendition.bytes)
        .bind(rendition.blob.as_str())
        .time(rendition.made_at)
        .opt_time(rendition.used_at)
        .execute(connection)
        .await?;
    Ok(())
}

async fn forget<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    space: Space,
    id: MediaId,
    blobs: &[String],
) -> Applied {
    let Some(row) = state::<D>(connection, space, id).await? else { return Ok(()) };
    let mut bytes = 0;
    if row.source.is_some_and(|source| blobs.contains(&source)) {
        Statement::<D>::new(FORGET_SOURCE).of(space, id).execute(connection).await?;
        bytes += row.bytes;
    }
    for rendition in renditions_of::<D>(connection, space, id).await? {
        if blobs.contains(&rendition.blob) {
            let (name, format) = (&rendition.name, rendition.format);
            let forget = Statement::<D>::new(FORGET_RENDITION).rendition(space, id, name, format);
            forget.execute(connection).await?;
            bytes += rendition.bytes;
        }
    }
    if bytes == 0 { Ok(()) } else { count::<D>(connection, space, -bytes).await }
}

async fn count<D: Dialect>(connection: &mut TableConnection<'_, D>, space: Space, bytes: i64) -> Applied {
    Statement::<D>::new(COUNT).bind(bytes).bind(space.as_uuid()).execute(connection).await?;
    Ok(())
}

/// State of a picture that a change checks before it writes.
struct StateRow {
    state: i64,
    uses: i64,
    source: Option<String>,
    bytes: i64,
}

async fn state<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    space: Space,
    id: MediaId,
) -> sqlx::Result<Option<StateRow>> {
    let rows = Statement::<D>::new(STATE).of(space, id).rows(connection).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(StateRow {
        state: <D as ReadColumn<i64>>::read(row, 0)?,
        uses: <D as ReadColumn<i64>>::read(row, 1)?,
        source: <D as ReadColumn<Option<String>>>::read(row, 2)?,
        bytes: <D as ReadColumn<Option<i64>>>::read(row, 3)?.unwrap_or(0),
    }))
}

async fn as_read<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    of: ExpectedMedia,
) -> Result<StateRow, ApplyError> {
    let row = state::<D>(connection, of.space, of.id).await?.filter(|row| row.uses == of.uses);
    row.ok_or_else(|| Conflict::MediaChanged(of.id).into())
}

async fn processing<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    of: ExpectedMedia,
) -> Result<StateRow, ApplyError> {
    let row = as_read::<D>(connection, of).await?;
    if row.state == PROCESSING { Ok(row) } else { Err(Conflict::MediaChanged(of.id).into()) }
}

/// Columns of a rendition that a change checks.
struct RenditionRow {
    name: String,
    format: Format,
    bytes: i64,
    blob: String,
}

async fn renditions_of<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    space: Space,
    id: MediaId,
) -> sqlx::Result<Vec<RenditionRow>> {
    let rows = Statement::<D>::new(RENDITIONS).of(space, id).rows(connection).await?;
    rows.iter()
        .map(|row| {
            Ok(RenditionRow {
                name: <D as ReadColumn<String>>::read(row, 1)?,
                format: Format::from_index(<D as ReadColumn<i64>>::read(row, 2)?).unwrap_or(Format::Jpeg),
                bytes: <D as ReadColumn<i64>>::read(row, 5)?,
                blob: <D as ReadColumn<String>>::read(row, 6)?,
            })
        })
        .collect()
}

impl<D: Dialect> Statement<D> {
    fn of(self, space: Space, id: MediaId) -> Self {
        self.bind(space.as_uuid()).bind(id.as_uuid())
    }
    fn rendition(self, space: Space, id: MediaId, name: &str, format: Format) -> Self {
        self.of(space, id).bind(name).bind(format.index())
    }
    fn source(self, source: Option<&Source>) -> Self {
        self.bind(source.map(|source| source.blob.as_str()))
            .bind(source.map(|source| source.bytes))
            .bind(source.map(|source| source.media_type.as_str()))
    }
}
