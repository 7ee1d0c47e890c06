//! Notification preferences in SQL.
//!
//! A change locks the row of the person in `member`, because default preferences have no row to lock. The digest of a
//! person has a table of its own, because MySQL cannot repeat an interrupted migration that adds a column.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, Error, TimeZoneName,
    notification::{DigestDelay, NotificationChange, NotificationReads, Preferences, QuietHours},
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
    FIND = "SELECT p.account_id, version, entries, reactions, pairing, previews, muted_until, quiet_from, quiet_to, \
        time_zone, d.delay, d.due_at FROM couple_preferences p LEFT JOIN couple_digest d ON d.account_id = p.account_id \
        WHERE p.account_id = $1";
    VERSION = "SELECT version FROM couple_preferences WHERE account_id = $1";
    INSERT = "INSERT INTO couple_preferences (", preferences!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    REMOVE = "DELETE FROM couple_preferences WHERE account_id = $1";
    INSERT_DIGEST = "INSERT INTO couple_digest (account_id, delay, due_at) VALUES ($1, $2, $3)";
    REMOVE_DIGEST = "DELETE FROM couple_digest WHERE account_id = $1";
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
    if preferences.digest.is_some() || preferences.digest_due.is_some() {
        Statement::<D>::new(INSERT_DIGEST)
            .bind(person.as_uuid())
            .bind(preferences.digest.map(|delay| i64::from(delay.minutes())))
            .opt_time(preferences.digest_due)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Removes the preferences of a person.
pub(super) async fn remove<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    person: AccountId,
) -> Applied {
    for statement in [REMOVE, REMOVE_DIGEST] {
        Statement::<D>::new(statement).bind(person.as_uuid()).execute(connection).await?;
    }
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
    let time_zone = row.take::<Option<String>>()?.map(TimeZoneName::from_stored);
    let delay: Option<i64> = row.take()?;
    let corrupt = || Error::corrupt("digest", "delay", person);
    let digest = delay.map(|minutes| DigestDelay::from_stored(minutes).ok_or_else(corrupt)).transpose()?;
    Ok(Preferences {
        person,
        version,
        kinds: kinds.map(|on| on != 0),
        previews: previews != 0,
        muted_until,
        quiet_hours,
        time_zone,
        digest,
        digest_due: row.opt_time()?,
    })
}

#[async_trait]
impl<D: Dialect> NotificationReads for SqlStore<D> {
    async fn preferences(&self, person: AccountId) -> Result<Option<Preferences>, Error> {
        self.read_one(Statement::new(FIND).bind(person.as_uuid()), decode).await
    }
}
