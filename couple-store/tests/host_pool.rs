//! Stores that use a pool of the host.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use couple_conformance::World;
use couple_core::{Error, ErrorKind, Store as _, account::AccountChange};
use couple_store::sql::{
    MySqlOptions, MySqlStore, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore,
};
use sqlx::{
    MySql, Postgres, SqlitePool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

fn refused<S>(opened: Result<S, Error>) -> String {
    let Err(error) = opened else { panic!("the pool is accepted") };
    let text = support::error_text(&error);
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{text}");
    text
}

fn folder() -> std::path::PathBuf {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep()
}

/// Options of a pool that a host shares with the store.
fn sqlite_options() -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(folder().join("host.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
}

async fn sqlite_pool(options: SqliteConnectOptions) -> SqlitePool {
    SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap()
}

async fn on_sqlite() -> SqliteStore {
    let pool = sqlite_pool(sqlite_options()).await;
    sqlx::raw_sql("CREATE TABLE account (x INT)").execute(&pool).await.unwrap();
    SqliteOptions::of_pool(&pool).open().await.unwrap()
}

async fn on_mariadb() -> MySqlStore {
    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    let pool = MySqlPoolOptions::new().max_connections(5).connect(&url).await.unwrap();
    MySqlOptions::of_pool(pool).connect().await.unwrap()
}

async fn on_postgres() -> PostgresStore {
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let pool = PgPoolOptions::new().max_connections(5).connect(&url).await.unwrap();
    PostgresOptions::of_pool(pool).connect().await.unwrap()
}

mod sqlite {
    use super::*;
    couple_conformance::store!(on_sqlite());
}
mod mariadb {
    use super::*;
    couple_conformance::store!(on_mariadb());
}
mod postgres {
    use super::*;
    couple_conformance::store!(on_postgres());
}

/// Commits 20 accounts.
async fn commits(store: &impl couple_core::Store, world: &World) {
    for n in 0..20 {
        let insert = AccountChange::Insert(world.account(&format!("p{n}")));
        store.commit(vec![insert.into()]).await.unwrap();
    }
}

/// Settings of the host's connections stay, and its pool stays open after the store is closed.
#[tokio::test]
async fn connections_of_the_host_keep_their_settings() {
    let settings = "SELECT CONCAT_WS(' ', @@session.sql_mode, @@session.innodb_lock_wait_timeout, @@session.tx_isolation)";
    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    let pool = MySqlPoolOptions::new().max_connections(3).connect(&url).await.unwrap();
    let before: String = sqlx::query_scalar(settings).fetch_one(&pool).await.unwrap();
    let store = MySqlOptions::of_pool(pool.clone()).connect().await.unwrap();
    let world = World::default();
    for _ in 0..3 {
        store.ping().await.unwrap();
        let now: String = sqlx::query_scalar(settings).fetch_one(&pool).await.unwrap();
        assert_eq!(now, before);
    }
    commits(&store, &world).await;
    store.close().await.unwrap();
    let now: String = sqlx::query_scalar(settings).fetch_one(&pool).await.unwrap();
    assert_eq!(now, before);
    pool.close().await;

    let settings = "SELECT current_setting('lock_timeout') || ' ' || current_setting('statement_timeout') \
                    || ' ' || current_setting('search_path')";
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    // The tables are made where the host's connections look for them.
    let path = "CREATE SCHEMA IF NOT EXISTS app; SET search_path = app";
    let pool = PgPoolOptions::new()
        .max_connections(3)
        .after_connect(move |connection, _| {
            Box::pin(async move { sqlx::raw_sql(path).execute(connection).await.map(drop) })
        })
        .connect(&url)
        .await
        .unwrap();
    let before: String = sqlx::query_scalar(settings).fetch_one(&pool).await.unwrap();
    let store = PostgresOptions::of_pool(pool.clone()).connect().await.unwrap();
    commits(&store, &World::default()).await;
    store.close().await.unwrap();
    let now: String = sqlx::query_scalar(settings).fetch_one(&pool).await.unwrap();
    assert_eq!(now, before);
    let stored: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM app.couple_account").fetch_one(&pool).await.unwrap();
    assert_eq!(stored, 20);
    pool.close().await;
}

#[tokio::test]
async fn pool_that_does_not_meet_the_requirements_is_refused() {
    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    let pool = MySqlPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    let text = refused(MySqlOptions::of_pool(pool).connect().await);
    assert!(text.contains("allow at least 3"), "{text}");
    let latin = url.parse::<MySqlConnectOptions>().unwrap().charset("latin1").collation("latin1_bin");
    let pool = MySqlPoolOptions::new().connect_with(latin).await.unwrap();
    let text = refused(MySqlOptions::of_pool(pool).connect().await);
    assert!(text.contains("utf8mb4"), "{text}");

    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
    let text = refused(PostgresOptions::of_pool(pool).connect().await);
    assert!(text.contains("allow at least 3"), "{text}");
    let read_only =
        url.parse::<PgConnectOptions>().unwrap().options([("default_transaction_read_only", "on")]);
    let pool = PgPoolOptions::new().connect_with(read_only).await.unwrap();
    let text = refused(PostgresOptions::of_pool(pool).connect().await);
    assert!(text.contains("read-only"), "{text}");

    let in_memory = sqlite_pool("sqlite::memory:".parse().unwrap()).await;
    let text = refused(SqliteOptions::of_pool(&in_memory).open().await);
    assert!(text.contains("in memory"), "{text}");
    let rollback = sqlite_pool(sqlite_options().journal_mode(SqliteJournalMode::Delete)).await;
    let text = refused(SqliteOptions::of_pool(&rollback).open().await);
    assert!(text.contains("journal mode WAL"), "{text}");
    let impatient = sqlite_pool(sqlite_options().busy_timeout(std::time::Duration::ZERO)).await;
    let text = refused(SqliteOptions::of_pool(&impatient).open().await);
    assert!(text.contains("busy time-out"), "{text}");
}

/// Host and store write to one SQLite file concurrently.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_and_store_write_to_one_file() {
    let pool = sqlite_pool(sqlite_options()).await;
    sqlx::raw_sql("CREATE TABLE mood (n INT)").execute(&pool).await.unwrap();
    let store = SqliteOptions::of_pool(&pool).open().await.unwrap();
    let host = tokio::spawn({
        let pool = pool.clone();
        async move {
            for n in 0..100 {
                sqlx::query("INSERT INTO mood VALUES ($1)").bind(n).execute(&pool).await.unwrap();
            }
        }
    });
    let world = World::default();
    for n in 0..5 {
        for m in 0..20 {
            let insert = AccountChange::Insert(world.account(&format!("p{n}x{m}")));
            store.commit(vec![insert.into()]).await.unwrap();
        }
    }
    host.await.unwrap();
    store.close().await.unwrap();
    for (table, rows) in [("mood", 100), ("couple_account", 100)] {
        let count = format!("SELECT COUNT(*) FROM {table}");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&pool).await.unwrap();
        assert_eq!(count, rows, "{table}");
    }
}
