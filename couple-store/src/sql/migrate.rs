//! Schema migrations, under the migration lock of the database.

use std::time::Duration;

use couple_core::{Error, ErrorKind};
use tokio::time::{Instant, sleep};

use super::{Dialect, Row, Statement, dialect_text::Sql, error::classify};

/// Migration of the schema; its SQL is never changed after a release.
#[allow(unreachable_pub, reason = "named by a public trait, where one of its features is built")]
pub struct Migration {
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// Maximum time to wait for another process that migrates.
const MIGRATION_LOCK_TIMEOUT: Duration = Duration::from_secs(60);
const RECORD: &str =
    "CREATE TABLE IF NOT EXISTS couple_migration (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL)";
const APPLIED: Sql = sql!("SELECT MAX(version) FROM couple_migration");
const NOTE: Sql = sql!("INSERT INTO couple_migration (version, name) VALUES ($1, $2)");

/// Applies the missing migrations in one transaction.
///
/// A concurrent process waits, and then finds none missing.
pub(super) async fn migrate<D: Dialect>(
    connection: &mut D::Connection,
    migrations: &[Migration],
) -> Result<(), Error> {
    let fail = |error| classify::<D>("migrate", error);
    D::run(connection, D::BEGIN).await.map_err(fail)?;
    if let Some(sql) = D::LOCK {
        lock::<D>(connection, sql).await?;
    }
    let migrated = missing::<D>(connection, migrations).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    D::run(connection, end).await.map_err(fail)?;
    if let Some(sql) = D::UNLOCK {
        Statement::<D>::new(sql).rows(connection).await.map_err(fail)?;
    }
    migrated
}

async fn lock<D: Dialect>(connection: &mut D::Connection, sql: Sql) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let rows = Statement::<D>::new(sql)
            .rows(connection)
            .await
            .map_err(|error| classify::<D>("migrate", error))?;
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

async fn missing<D: Dialect>(connection: &mut D::Connection, migrations: &[Migration]) -> Result<(), Error> {
    let fail = |error| classify::<D>("migrate", error);
    D::run(connection, RECORD).await.map_err(fail)?;
    let rows = Statement::<D>::new(APPLIED).rows(connection).await.map_err(fail)?;
    let applied: i64 = match rows.first() {
        Some(row) => Row::<D>::new(row).take::<Option<i64>>()?.unwrap_or(0),
        None => 0,
    };
    let newest = migrations.last().map_or(0, |migration| migration.version);
    if applied > newest {
        return Err(Error::new(ErrorKind::Misconfigured, "migrate").context(format!(
            "the database has schema {applied}, this program knows {newest}: run a newer version of the program"
        )));
    }
    if applied < newest && applied > 0 {
        tracing::info!(applied, newest, "migrating the schema");
    }
    for migration in migrations.iter().filter(|migration| migration.version > applied) {
        D::run(connection, migration.sql).await.map_err(|error| {
            classify::<D>("migrate", error)
                .context(format!("migration {} {}", migration.version, migration.name))
        })?;
        Statement::<D>::new(NOTE)
            .bind(migration.version)
            .bind(migration.name)
            .execute(connection)
            .await
            .map_err(fail)?;
        tracing::info!(version = migration.version, name = migration.name, "migrated");
    }
    Ok(())
}
