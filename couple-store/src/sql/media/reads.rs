//! Reads of pictures.

use async_trait::async_trait;
use couple_core::{
    AccountId, Digest, Error, MediaId, Timestamp,
    media::{Crop, Format, Media, MediaReads, MediaState, Purpose, Rendition, Source, Space, SpaceUsage},
};
use uuid::Uuid;

use super::{
    super::{Dialect, Row, SqlStore, Statement},
    AVATAR, AVATAR_OF, MEDIA, MEDIA_BY_IDENTITY, MEDIA_IN, PHOTO, PROCESSING, READY, REJECTED, RENDITIONS,
    SPACE, SPACES, UNUSED_RENDITIONS,
};

fn pixels<D: Dialect>(row: &mut Row<'_, D>, column: &'static str) -> Result<u32, Error> {
    u32::try_from(row.take::<i64>()?).map_err(|_| Error::corrupt("media", column, "a row"))
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<Media, Error> {
    let (kind, space): (i64, Uuid) = (row.take()?, row.take()?);
    let id = MediaId::from_uuid(row.take()?);
    let corrupt = |column| Error::corrupt("media", column, id);
    let space = Space::from_stored(kind, space).ok_or_else(|| corrupt("space_kind"))?;
    let owner = AccountId::from_uuid(row.take()?);
    let purpose = match row.take::<i64>()? {
        AVATAR => Purpose::Avatar,
        PHOTO => Purpose::Photo,
        _ => return Err(corrupt("purpose")),
    };
    let state = match (row.take::<i64>()?, row.take::<Option<String>>()?) {
        (PROCESSING, _) => MediaState::Processing,
        (READY, _) => MediaState::Ready,
        (REJECTED, Some(reason)) => MediaState::Rejected(reason),
        _ => return Err(corrupt("state")),
    };
    let digest = row.digest("media", "digest")?;
    let edges: [Option<i64>; 4] = [row.take()?, row.take()?, row.take()?, row.take()?];
    let crop = match edges.map(|edge| edge.map(u32::try_from)) {
        [None, None, None, None] => None,
        [Some(Ok(x)), Some(Ok(y)), Some(Ok(width)), Some(Ok(height))] => Some(Crop { x, y, width, height }),
        _ => return Err(corrupt("crop_x")),
    };
    let key = row.take()?;
    let source: (Option<String>, Option<i64>, Option<String>) = (row.take()?, row.take()?, row.take()?);
    let source = match source {
        (None, None, None) => None,
        (Some(blob), Some(bytes), Some(media_type)) => Some(Source { blob, bytes, media_type }),
        _ => return Err(corrupt("source")),
    };
    Ok(Media {
        id,
        space,
        owner,
        purpose,
        state,
        digest,
        crop,
        key,
        source,
        width: pixels(row, "width")?,
        height: pixels(row, "height")?,
        placeholder: row.take()?,
        uses: row.take()?,
        created_at: row.time()?,
        animated: flag(row, "animated")?,
        alpha: flag(row, "alpha")?,
    })
}

fn flag<D: Dialect>(row: &mut Row<'_, D>, column: &'static str) -> Result<bool, Error> {
    match row.take::<i64>()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::corrupt("media", column, "a row")),
    }
}

fn decode_rendition<D: Dialect>(row: &mut Row<'_, D>) -> Result<(MediaId, Rendition), Error> {
    let id = MediaId::from_uuid(row.take()?);
    let name = row.take()?;
    let format = Format::from_index(row.take()?);
    let rendition = Rendition {
        name,
        format: format.ok_or_else(|| Error::corrupt("media_rendition", "format", id))?,
        width: pixels(row, "width")?,
        height: pixels(row, "height")?,
        bytes: row.take()?,
        blob: row.take()?,
        made_at: row.time()?,
        used_at: row.opt_time()?,
    };
    Ok((id, rendition))
}

#[async_trait]
impl<D: Dialect> MediaReads for SqlStore<D> {
    async fn media(&self, id: MediaId) -> Result<Option<Media>, Error> {
        self.read_one(Statement::new(MEDIA).bind(id.as_uuid()), decode).await
    }
    async fn media_by_identity(&self, space: Space, identity: &Digest) -> Result<Option<Media>, Error> {
        let statement = Statement::new(MEDIA_BY_IDENTITY).bind(space.as_uuid()).digest(identity);
        self.read_one(statement, decode).await
    }
    async fn renditions(&self, space: Space, id: MediaId) -> Result<Vec<Rendition>, Error> {
        let rows = self.read(Statement::new(RENDITIONS).of(space, id), decode_rendition).await?;
        Ok(rows.into_iter().map(|(_, rendition)| rendition).collect())
    }
    async fn avatar_of(&self, account: AccountId) -> Result<Option<Media>, Error> {
        self.read_one(Statement::new(AVATAR_OF).bind(account.as_uuid()), decode).await
    }
    async fn media_space(&self, space: Space) -> Result<SpaceUsage, Error> {
        let decode = |row: &mut Row<'_, D>| {
            Ok(SpaceUsage {
                bytes: row.take()?,
                avatar: row.take::<Option<Uuid>>()?.map(MediaId::from_uuid),
                closed: row.take::<i64>()? != 0,
            })
        };
        Ok(self.read_one(Statement::new(SPACE).bind(space.as_uuid()), decode).await?.unwrap_or_default())
    }
    async fn media_in(&self, space: Space, after: Option<MediaId>, limit: u32) -> Result<Vec<Media>, Error> {
        let after = after.map_or(Uuid::nil(), MediaId::as_uuid);
        let statement = Statement::new(MEDIA_IN).bind(space.as_uuid()).bind(after).bind(i64::from(limit));
        self.read(statement, decode).await
    }
    async fn media_spaces(&self, after: Option<Space>, limit: u32) -> Result<Vec<Space>, Error> {
        let decode = |row: &mut Row<'_, D>| {
            let (kind, id): (i64, Uuid) = (row.take()?, row.take()?);
            Space::from_stored(kind, id).ok_or_else(|| Error::corrupt("media_space", "kind", id))
        };
        let after = after.map_or(Uuid::nil(), Space::as_uuid);
        self.read(Statement::new(SPACES).bind(after).bind(i64::from(limit)), decode).await
    }
    async fn unused_renditions(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(MediaId, Rendition)>, Error> {
        let statement = Statement::new(UNUSED_RENDITIONS).time(before).bind(i64::from(limit));
        self.read(statement, decode_rendition).await
    }
}
