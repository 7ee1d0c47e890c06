//! Schema migrations, under the migration lock of the database.
//!
//! The table `couple_migration` records which migrations this program made, with a checksum of each. A table or
//! index with one of our names that is not explained by this record belongs to another program: the database
//! is refused, and stays unchanged.

use std::{collections::HashSet, time::Duration};

use couple_core::{Error, ErrorKind, digest};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};
use tokio::time::{Instant, sleep};

use super::{
    Dialect, Row, Statement, TableConnection, dialect_text::Sql, error::classify, table_names::created_by,
};

/// Migration of the schema; its SQL is never changed after a release.
#[allow(unreachable_pub, reason = "named by a public trait, where one of its features is built")]
pub struct Migration {
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

impl Migration {
    /// SHA-256 of the SQL in hexadecimal, independent of the line ends of a checkout.
    fn checksum(&self) -> String {
        let digest = digest(&[self.sql.replace('\r', "").as_bytes()]);
        digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// State of the schema in a database that this program can use.
///
/// A database that it cannot use, because of foreign tables, a missing table, a changed migration or a newer
/// schema, is an error of kind [`ErrorKind::Misconfigured`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaStatus {
    /// Migrations that the database lacks, in their order, each as its number and name: `1 initial`.
    pub pending: Vec<String>,
}

impl SchemaStatus {
    /// Whether the database lacks no migration.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn of<'m>(pending: impl IntoIterator<Item = &'m Migration>) -> Self {
        let named = |migration: &Migration| format!("{} {}", migration.version, migration.name);
        Self { pending: pending.into_iter().map(named).collect() }
    }

    /// Refuses a database that lacks migrations.
    pub(super) fn require_current(&self) -> Result<(), Error> {
        if self.is_current() {
            return Ok(());
        }
        Err(refuse(format!(
            "the database lacks the migration {}: call `migrate` on its options first",
            self.pending.join(", ")
        )))
    }
}

/// Maximum time to wait for another process that migrates.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Table of the applied migrations.
pub(super) const RECORD_TABLE: &str = "couple_migration";
// `finished` is 0 while a migration runs. Only MySQL, which commits each definition immediately, can show it.
const CREATE_RECORD: &str = "CREATE TABLE couple_migration (version BIGINT NOT NULL PRIMARY KEY, \
     name VARCHAR(255) NOT NULL, checksum VARCHAR(64) NOT NULL, finished BIGINT NOT NULL)";
const APPLIED: Sql = sql!("SELECT version, name, checksum, finished FROM couple_migration ORDER BY version");
const START: Sql =
    sql!("INSERT INTO couple_migration (version, name, checksum, finished) VALUES ($1, $2, $3, 0)");
const FINISH: Sql = sql!("UPDATE couple_migration SET finished = 1 WHERE version = $1");

fn refuse(reason: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "migrate").context(reason)
}

fn fail<D: Dialect>(error: sqlx::Error) -> Error {
    classify::<D>("migrate", error)
}

/// Applies the missing migrations in one transaction.
///
/// A concurrent process waits, and then finds none missing.
pub(super) async fn migrate<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    migrations: &[Migration],
) -> Result<(), Error> {
    begin::<D>(connection, D::BEGIN).await?;
    let migrated = apply_missing::<D>(connection, migrations).await;
    let ended = end::<D>(connection, if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" }).await;
    // Report the first error: it explains the second.
    migrated.and(ended)
}

/// Finds the missing migrations and changes nothing.
pub(super) async fn check<'m, D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    migrations: &'m [Migration],
) -> Result<Found<'m>, Error> {
    begin::<D>(connection, D::BEGIN_READ).await?;
    let found = inspect::<D>(connection, migrations).await;
    let ended = end::<D>(connection, "ROLLBACK").await;
    let found = found?;
    ended.map(|()| found)
}

async fn begin<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    begin: &'static str,
) -> Result<(), Error> {
    D::run(connection.inner, begin).await.map_err(fail::<D>)?;
    match D::LOCK {
        Some(sql) => lock::<D>(connection, sql).await,
        None => Ok(()),
    }
}

async fn end<D: Dialect>(connection: &mut TableConnection<'_, D>, end: &'static str) -> Result<(), Error> {
    D::run(connection.inner, end).await.map_err(fail::<D>)?;
    if let Some(sql) = D::UNLOCK {
        Statement::<D>::new(sql).rows(connection).await.map_err(fail::<D>)?;
    }
    Ok(())
}

async fn lock<D: Dialect>(connection: &mut TableConnection<'_, D>, sql: Sql) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let rows = Statement::<D>::new(sql).rows(connection).await.map_err(fail::<D>)?;
        if let Some(row) = rows.first()
            && Row::<D>::new(row).take::<Option<i64>>()? == Some(1)
        {
            return Ok(());
        }
        if started.elapsed() > MIGRATION_LOCK_TIMEOUT {
            return Err(Error::new(ErrorKind::Unavailable, "migrate")
                .context("another process has been migrating this database for a minute"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Content of a database, as far as it concerns the schema.
pub(super) struct Found<'m> {
    /// Whether the table of applied migrations exists.
    pub(super) has_record: bool,
    /// Migrations that are missing or were interrupted.
    pending: Vec<&'m Migration>,
    /// Versions of interrupted migrations.
    interrupted: HashSet<i64>,
}

impl Found<'_> {
    pub(super) fn status(&self) -> SchemaStatus {
        SchemaStatus::of(self.pending.iter().copied())
    }
}

/// Finds the missing migrations.
///
/// Refuses a newer schema, a changed migration, tables of another program, and an incomplete database.
async fn inspect<'m, D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    migrations: &'m [Migration],
) -> Result<Found<'m>, Error> {
    let names = connection.names;
    let existing = existing::<D>(connection, migrations).await?;
    let has_record = existing.contains(&names.bare(RECORD_TABLE));
    let rows = if has_record { recorded::<D>(connection).await? } else { Vec::new() };
    let newest = migrations.last().map_or(0, |migration| migration.version);
    if let Some(newer) = rows.iter().map(|row| row.version).max().filter(|version| *version > newest) {
        return Err(refuse(format!(
            "the database has schema {newer}, this program knows {newest}: run a newer version of the program"
        )));
    }
    let mut found = Found { has_record, pending: Vec::new(), interrupted: HashSet::new() };
    for migration in migrations {
        let row = rows.iter().find(|row| row.version == migration.version);
        let finished = match row {
            None => false,
            Some(row) if row.name != migration.name || row.checksum != migration.checksum() => {
                return Err(refuse(format!(
                    "migration {} {} of the database differs from this program's {}: the table {} or the program was changed",
                    row.version,
                    row.name,
                    migration.name,
                    names.bare(RECORD_TABLE)
                )));
            }
            Some(row) if row.finished => true,
            Some(row) => {
                found.interrupted.insert(row.version);
                false
            }
        };
        if finished && !found.pending.is_empty() {
            return Err(refuse(format!(
                "migration {} {} was applied without an earlier one: restore the table {} from a backup",
                migration.version,
                migration.name,
                names.bare(RECORD_TABLE)
            )));
        }
        let created = |with_indexes| {
            created_by(migration.sql, with_indexes).into_iter().map(move |name| names.bare(name))
        };
        if finished {
            if let Some(lost) = created(false).find(|table| !existing.contains(table)) {
                return Err(refuse(format!(
                    "the table {lost} is missing: restore the database from a backup"
                )));
            }
            continue;
        }
        found.pending.push(migration);
        if row.is_none()
            && let Some(foreign) = created(true).find(|name| existing.contains(name))
        {
            return Err(refuse(format!(
                "the database has a table or index {foreign} that this program did not make: choose another table \
                 prefix, or another database"
            )));
        }
    }
    Ok(found)
}

/// Names of tables and indexes of the migrations that exist in the database, in lower case.
async fn existing<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    migrations: &[Migration],
) -> Result<HashSet<String>, Error> {
    let created = migrations.iter().flat_map(|migration| created_by(migration.sql, true));
    // Names are checked when the store is opened: they need no escape.
    let wanted: Vec<String> =
        created.chain([RECORD_TABLE]).map(|name| format!("'{}'", connection.names.bare(name))).collect();
    let query = D::existing_relations(connection.names.schema(), &wanted.join(", "));
    let rows = D::fetch_all(connection.inner, AssertSqlSafe(query).into_sql_str(), D::Arguments::default())
        .await
        .map_err(fail::<D>)?;
    rows.iter().map(|row| Row::<D>::new(row).take::<String>().map(|name| name.to_lowercase())).collect()
}

/// Row of the table of applied migrations.
struct RecordedMigration {
    version: i64,
    name: String,
    checksum: String,
    finished: bool,
}

async fn recorded<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
) -> Result<Vec<RecordedMigration>, Error> {
    let name = connection.names.bare(RECORD_TABLE);
    let foreign = || {
        refuse(format!(
            "the table {name} was not made by this program, or by an unreleased version of it: choose another table \
             prefix, or another database"
        ))
    };
    let rows = match Statement::<D>::new(APPLIED).rows(connection).await {
        Ok(rows) => rows,
        // The database answered and gives no other reason: a column is missing.
        Err(sqlx::Error::Database(error)) if D::kind_of(error.as_ref()) == ErrorKind::Internal => {
            return Err(foreign().source(error));
        }
        Err(error) => return Err(fail::<D>(error)),
    };
    let decode = |row: &D::Row| {
        let mut row = Row::<D>::new(row);
        let (version, name, checksum) = (row.take()?, row.take()?, row.take()?);
        Ok(RecordedMigration { version, name, checksum, finished: row.take::<i64>()? == 1 })
    };
    rows.iter().map(decode).collect::<Result<_, Error>>().map_err(|error| foreign().source(error))
}

async fn apply_missing<D: Dialect>(
    connection: &mut TableConnection<'_, D>,
    migrations: &[Migration],
) -> Result<(), Error> {
    let found = inspect::<D>(connection, migrations).await?;
    if found.pending.is_empty() {
        return Ok(());
    }
    if !found.has_record {
        make_schema::<D>(connection).await?;
        run::<D>(connection, CREATE_RECORD).await.map_err(fail::<D>)?;
    }
    for migration in found.pending {
        let about =
            |error| fail::<D>(error).context(format!("migration {} {}", migration.version, migration.name));
        if !found.interrupted.contains(&migration.version) {
            Statement::<D>::new(START)
                .bind(migration.version)
                .bind(migration.name)
                .bind(migration.checksum().as_str())
                .execute(connection)
                .await
                .map_err(about)?;
        }
        run::<D>(connection, migration.sql).await.map_err(about)?;
        Statement::<D>::new(FINISH).bind(migration.version).execute(connection).await.map_err(about)?;
        tracing::info!(version = migration.version, name = migration.name, "migrated");
    }
    Ok(())
}

/// Runs the statements of a constant text, with the names of the installation.
async fn run<D: Dialect>(connection: &mut TableConnection<'_, D>, sql: &'static str) -> sqlx::Result<()> {
    D::fetch_raw(connection.inner, connection.names.rewrite(sql)).await.map(drop)
}

/// Creates the schema of the tables if the host chose one that does not exist.
async fn make_schema<D: Dialect>(connection: &mut TableConnection<'_, D>) -> Result<(), Error> {
    // Not IF NOT EXISTS, which requires the privilege to create a schema even if it exists.
    const EXISTS: Sql = sql!("SELECT CAST(COUNT(*) AS BIGINT) FROM pg_namespace WHERE nspname = $1");
    let Some(schema) = connection.names.chosen_schema() else { return Ok(()) };
    let rows = Statement::<D>::new(EXISTS).bind(schema).rows(connection).await.map_err(fail::<D>)?;
    let exists = match rows.first() {
        Some(row) => Row::<D>::new(row).take::<i64>()? > 0,
        None => false,
    };
    if !exists {
        let create = format!("CREATE SCHEMA \"{schema}\"");
        D::fetch_raw(connection.inner, create).await.map_err(fail::<D>)?;
    }
    Ok(())
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use sqlx::{Connection as _, Sqlite, SqliteConnection};

    use super::*;
    use crate::sql::table_names::{NameOptions, TableNames};

    /// The rollback fails, because the migration has ended the transaction.
    #[tokio::test]
    async fn reason_of_a_failed_migration_is_reported_if_the_rollback_fails_too() {
        let migration =
            Migration { version: 1, name: "broken", sql: "ROLLBACK; INSERT INTO no_such_table VALUES (1)" };
        let names = TableNames::new::<Sqlite>(NameOptions::default(), None).expect("valid");
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.expect("a connection");
        let mut named = TableConnection { inner: &mut connection, names: &names };
        let error = migrate::<Sqlite>(&mut named, &[migration]).await.expect_err("it fails");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(error.to_string().contains("migration 1 broken"), "{error}");
        assert!(source.contains("no_such_table"), "{error}: {source}");
    }
}
