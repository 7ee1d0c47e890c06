//! Notification preferences in SQL.
//!
//! A change locks the row of the person in `member`, because default preferences have no row to lock.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Error, TimeZoneName,
    notification::{NotificationChange, NotificationReads, Preferences, QuietHours},
};

use super::{
    Dialect, Row, SqlStore, Statement, TableConnection, apply_error::Applied, dialect::ReadColumn, pairing,
};

macro_rules! preferences {
    () => {
        "account_id, version, entries, reactions, pairing, previews, muted_until, quiet_from, quiet_to, time_zone"
    };
}

statements! {
    FIND = "SELECT ", preferences!(), " FROM couple_preferences WHERE account_id = $1";
    VERSION = "SELECT version FROM couple_preferences WHERE account_id = $1";
    INSERT = "INSERT INTO couple_preferences (", preferences!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    REMOVE = "DELETE FROM couple_preferences WHERE account_id = $1";
}

pub(super) async fn apply<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    change: &NotificationChange,
) -> Applied {
    match change {
        NotificationChange::Put(preferences) => put::<D>(connection, preferences).await,
        NotificationChange::Remove { person } => remove::<D>(connection, *person).await,
    }
}

async fn put<D: Dialect>(connection: &mut TableConnection<'_, D>, preferences: &Preferences) -> Applied {
    let person = preferences.person;
    pairing::is_member::<D>(connection, person).await?;
    let stored = Statement::<D>::new(VERSION).bind(person.as_uuid()).rows(connection).await?;
    let stored = stored.first().map(|row| <D as ReadColumn<i64>>::read(row, 0)).transpose()?;
    if stored.unwrap_or(0) != preferences.version {
        return Err(Conflict::PreferencesChanged(person).into());
    }
    remove::<D>(connection, person).await?;
    let [entries, reactions, pairing] = preferences.kinds.map(i64::from);
    Statement::<D>::new(INSERT)
        .bind(person.as_uuid())
        .bind(preferences.version + 1)
        .bind(entries)
        .bind(reactions)
        .bind(pairing)
        .bind(i64::from(preferences.previews))
        .opt_time(preferences.muted_until)
        .bind(preferences.quiet_hours.map(|quiet| i64::from(quiet.from())))
        .bind(preferences.quiet_hours.map(|quiet| i64::from(quiet.to())))
        .bind(preferences.time_zone.as_ref().map(TimeZoneName::as_str))
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the preferences of a person.
pub(super) async fn remove<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    person: AccountId,
) -> Applied {
    Statement::<D>::new(REMOVE).bind(person.as_uuid()).execute(connection).await?;
    Ok(())
}

fn decode<D: Dialect>(row: &mut Row<'_, D>) -> Result<Preferences, Error> {
    let person = AccountId::from_uuid(row.take()?);
    let version = row.take()?;
    let kinds: [i64; 3] = [row.take()?, row.take()?, row.take()?];
    let previews: i64 = row.take()?;
    let muted_until = row.opt_time()?;
    let (from, to): (Option<i64>, Option<i64>) = (row.take()?, row.take()?);
    let quiet_hours = match from.zip(to) {
        None => None,
        Some((from, to)) => Some(
            QuietHours::from_stored(from, to)
                .ok_or_else(|| Error::corrupt("preferences", "quiet_from", person))?,
        ),
    };
    Ok(Preferences {
        person,
        version,
        kinds: kinds.map(|on| on != 0),
        previews: previews != 0,
        muted_until,
        quiet_hours,
        time_zone: row.take::<Option<String>>()?.map(TimeZoneName::from_stored),
    })
}

#[async_trait]
impl<D: Dialect> NotificationReads for SqlStore<D> {
    async fn preferences(&self, person: AccountId) -> Result<Option<Preferences>, Error> {
        self.read_one(Statement::new(FIND).bind(person.as_uuid()), decode).await
    }
}
