//! Devices in SQL.
//!
//! A registration locks the row of its account in `member`, so that concurrent ones cannot exceed the limit
//! together, and the row of its session, so that the session does not end in between.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, DeviceId, Error, Locale, Secret, SessionId, TimeZoneName,
    device::{Device, DeviceChange, DeviceReads},
    push::{Destination, Surface},
};
use uuid::Uuid;

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection, account, apply_error::Applied, dialect::ReadColumn,
    pairing,
};

macro_rules! device {
    () => {
        "account_id, id, session_id, service, token, app, sandbox, p256dh, auth, surface, locale, time_zone, \
         app_version, registered_at"
    };
}

/// Number of sessions whose devices one [`END_LISTED`] removes.
pub(super) const SESSIONS_PER_STATEMENT: usize = 16;

statements! {
    FIND = "SELECT ", device!(), " FROM couple_device WHERE account_id = $1 AND id = $2";
    DEVICES_OF = "SELECT ", device!(), " FROM couple_device WHERE account_id = $1 ORDER BY registered_at, id LIMIT 200";
    COUNT_OTHERS = "SELECT COUNT(*) FROM couple_device WHERE account_id = $1 AND id <> $2 AND destination <> $3";
    INSERT = "INSERT INTO couple_device (", device!(), ", destination) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    REMOVE = "DELETE FROM couple_device WHERE account_id = $1 AND id = $2";
    REMOVE_OF = "DELETE FROM couple_device WHERE account_id = $1";
    REMOVE_DESTINATION = "DELETE FROM couple_device WHERE destination = $1";
    RETIRE = "DELETE FROM couple_device WHERE destination = $1 AND registered_at <= $2";
    END_SESSION = "DELETE FROM couple_device WHERE account_id = $1 AND session_id = $2";
    END_SESSIONS = "DELETE FROM couple_device WHERE account_id = $1 AND session_id <> $2";
    END_LISTED = "DELETE FROM couple_device WHERE ", one_of_sessions!("session_id");
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &DeviceChange,
) -> Applied {
    match change {
        DeviceChange::Put { device, most } => put::<D>(connection, device, *most).await,
        DeviceChange::Remove { account, id } => {
            let statement = Statement::<D>::new(REMOVE).bind(account.as_uuid()).bind(id.as_uuid());
            statement.execute(connection).await?;
            Ok(())
        }
        DeviceChange::RemoveOf { account } => remove_of::<D>(connection, *account).await,
        DeviceChange::Retire { destination, not_after } => {
            Statement::<D>::new(RETIRE).digest(destination).time(*not_after).execute(connection).await?;
            Ok(())
        }
    }
}

async fn put<D: Dialect>(connection: &mut TableConnection<'_, D>, device: &Device, most: u32) -> Applied {
    let (account, id, destination) = (device.account, device.id, device.destination_digest());
    pairing::is_member::<D>(connection, account).await?;
    if let Some(session) = device.session {
        account::require_session::<D>(connection, account, session).await?;
    }
    let others = Statement::<D>::new(COUNT_OTHERS)
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .digest(&destination)
        .rows(connection)
        .await?;
    let others = others.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()?;
    if others.unwrap_or(0) >= i64::from(most) {
        return Err(Conflict::TooManyDevices(account).into());
    }
    Statement::<D>::new(REMOVE_DESTINATION).digest(&destination).execute(connection).await?;
    let remove = Statement::<D>::new(REMOVE).bind(account.as_uuid()).bind(id.as_uuid());
    remove.execute(connection).await?;
    let (token, app, sandbox) = match &device.destination {
        Destination::Apns { token, app, sandbox } => {
            (token.expose(), Some(app.as_str()), Some(i64::from(*sandbox)))
        }
        Destination::Fcm { token, app } => (token.expose(), Some(app.as_str()), None),
        Destination::WebPush { endpoint, .. } => (endpoint.expose(), None, None),
    };
    let (service, key, auth): (i64, Option<&[u8]>, Option<&[u8]>) = match &device.destination {
        Destination::Apns { .. } => (0, None, None),
        Destination::Fcm { .. } => (1, None, None),
        Destination::WebPush { key, auth, .. } => (2, Some(key.as_slice()), Some(auth.expose().as_slice())),
    };
    Statement::<D>::new(INSERT)
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .bind(device.session.map(SessionId::as_uuid))
        .bind(service)
        .bind(token.as_str())
        .bind(app)
        .bind(sandbox)
        .bind(key)
        .bind(auth)
        .bind(device.surface.index())
        .bind(device.locale.as_ref().map(Locale::as_str))
        .bind(device.time_zone.as_ref().map(TimeZoneName::as_str))
        .bind(device.app_version.as_deref())
        .time(device.registered_at)
        .digest(&destination)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes all devices of an account.
pub(super) async fn remove_of<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    account: AccountId,
) -> Applied {
    Statement::<D>::new(REMOVE_OF).bind(account.as_uuid()).execute(connection).await?;
    Ok(())
}

/// Removes the devices that a session registered. The caller has removed the session's row, which a registration
/// locks.
pub(super) async fn end_session<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    account: AccountId,
    session: SessionId,
) -> Applied {
    let statement = Statement::<D>::new(END_SESSION).bind(account.as_uuid()).bind(session.as_uuid());
    statement.execute(connection).await?;
    Ok(())
}

/// As [`end_session`], for all sessions of an account except one. No session has the nil id.
pub(super) async fn end_sessions<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    account: AccountId,
    except: Uuid,
) -> Applied {
    Statement::<D>::new(END_SESSIONS).bind(account.as_uuid()).bind(except).execute(connection).await?;
    Ok(())
}

/// As [`end_session`], for [`SESSIONS_PER_STATEMENT`] sessions, which are bound to the statement by account and id.
pub(super) async fn end_listed<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    bound: impl Fn(Statement<D>) -> Statement<D>,
) -> Applied {
    bound(Statement::<D>::new(END_LISTED)).execute(connection).await?;
    Ok(())
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<Device, Error> {
    let (account, id) = (AccountId::from_uuid(row.take()?), DeviceId::from_uuid(row.take()?));
    let corrupt = |column| Error::corrupt("device", column, id);
    let session = row.take::<Option<Uuid>>()?.map(SessionId::from_uuid);
    let (service, token): (i64, String) = (row.take()?, row.take()?);
    let (app, sandbox): (Option<String>, Option<i64>) = (row.take()?, row.take()?);
    let (key, auth): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.take()?, row.take()?);
    let token = Secret::new(token);
    let destination = match service {
        0 => Destination::Apns {
            token,
            app: app.ok_or_else(|| corrupt("app"))?,
            sandbox: sandbox.ok_or_else(|| corrupt("sandbox"))? != 0,
        },
        1 => Destination::Fcm { token, app: app.ok_or_else(|| corrupt("app"))? },
        2 => Destination::WebPush {
            endpoint: token,
            key: key.and_then(|key| key.try_into().ok()).ok_or_else(|| corrupt("p256dh"))?,
            auth: Secret::new(auth.and_then(|auth| auth.try_into().ok()).ok_or_else(|| corrupt("auth"))?),
        },
        _ => return Err(corrupt("service")),
    };
    Ok(Device {
        account,
        id,
        session,
        destination,
        surface: Surface::from_index(row.take()?).ok_or_else(|| corrupt("surface"))?,
        locale: row.take::<Option<String>>()?.map(Locale::from_stored),
        time_zone: row.take::<Option<String>>()?.map(TimeZoneName::from_stored),
        app_version: row.take()?,
        registered_at: row.time()?,
    })
}

#[async_trait]
impl<D: Dialect> DeviceReads for SqlStore<D> {
    async fn device(&self, account: AccountId, id: DeviceId) -> Result<Option<Device>, Error> {
        let statement = Statement::new(FIND).bind(account.as_uuid()).bind(id.as_uuid());
        self.read_one(statement, decode).await
    }
    async fn devices_of(&self, account: AccountId) -> Result<Vec<Device>, Error> {
        self.read(Statement::new(DEVICES_OF).bind(account.as_uuid()), decode).await
    }
}
