//! Stores that use a pool of the host.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use couple_conformance::World;
use couple_core::{
    CommitError, Error, ErrorKind, Store as _,
    account::{AccountChange, AccountReads as _},
};
use couple_store::sql::{
    MySqlOptions, MySqlStore, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore,
};
use sqlx::{
    AssertSqlSafe, Connection as _, MySql, PgConnection, Postgres, SqlitePool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};
use support::proxy::{Proxy, server_of};
use tokio::time::{Instant, sleep, timeout};

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
    let pool = MySqlPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
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
        .max_connections(4)
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
    let pool = MySqlPoolOptions::new().max_connections(3).connect(&url).await.unwrap();
    let text = refused(MySqlOptions::of_pool(pool).connect().await);
    assert!(text.contains("allow at least 4"), "{text}");
    let latin = url.parse::<MySqlConnectOptions>().unwrap().charset("latin1").collation("latin1_bin");
    let pool = MySqlPoolOptions::new().connect_with(latin).await.unwrap();
    let text = refused(MySqlOptions::of_pool(pool).connect().await);
    assert!(text.contains("utf8mb4"), "{text}");

    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let pool = PgPoolOptions::new().max_connections(3).connect(&url).await.unwrap();
    let text = refused(PostgresOptions::of_pool(pool).connect().await);
    assert!(text.contains("allow at least 4"), "{text}");
    let read_only =
        url.parse::<PgConnectOptions>().unwrap().options([("default_transaction_read_only", "on")]);
    let pool = PgPoolOptions::new().connect_with(read_only).await.unwrap();
    let text = refused(PostgresOptions::of_pool(pool).connect().await);
    assert!(text.contains("read-only"), "{text}");

    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    let pool = MySqlPoolOptions::new()
        .after_connect(|connection, _| {
            let read_only = "SET SESSION TRANSACTION READ ONLY";
            Box::pin(async move { sqlx::raw_sql(read_only).execute(connection).await.map(drop) })
        })
        .connect(&url)
        .await
        .unwrap();
    let text = refused(MySqlOptions::of_pool(pool).connect().await);
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

/// Application id and permissions of the host's file stay.
#[tokio::test]
async fn file_of_the_host_keeps_its_header_and_permissions() {
    let options = sqlite_options();
    let pool = sqlite_pool(options.clone()).await;
    let file = options.get_filename();
    let mode = || file.metadata().unwrap().permissions().mode() & 0o777;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o666)).unwrap();
    // The file has no table of the host yet.
    let store = SqliteOptions::of_pool(&pool).open().await.unwrap();
    commits(&store, &World::default()).await;
    store.close().await.unwrap();
    let shared = SqliteOptions::new(file).with_shared_file(true).open().await.unwrap();
    shared.close().await.unwrap();
    assert_eq!(mode(), 0o666);
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&pool).await.unwrap();
    assert_eq!(id, 0);
    pool.close().await;
    // A file of the store's own has both.
    let own = SqliteOptions::new(file).open().await.unwrap();
    own.close().await.unwrap();
    assert_eq!(mode(), 0o660);
}

/// Changes the settings of idle connections of a pool, as a host might do by mistake.
macro_rules! change_connections {
    ($pool:expr, $statement:expr) => {{
        let mut taken = Vec::new();
        while let Some(connection) = $pool.try_acquire() {
            taken.push(connection);
        }
        // New ones are connected as reads need them.
        while taken.len() < 3 {
            taken.push($pool.acquire().await.unwrap());
        }
        for connection in &mut taken {
            sqlx::raw_sql($statement).execute(&mut **connection).await.unwrap();
        }
    }};
}

/// Statements of the store find its tables although connections of the host look for tables elsewhere.
macro_rules! redirected {
    ($store:ty, $pool:expr, $statement:literal) => {{
        let (pool, world) = ($pool, World::default());
        let store = couple_store::sql::ServerOptions::of_pool(pool.clone()).connect().await.unwrap();
        change_connections!(pool, $statement);
        let account = world.account("ana");
        store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
        for _ in 0..5 {
            assert_eq!(store.account(account.id).await.unwrap().as_ref(), Some(&account));
        }
        // Statements of the host change the connection of the next ones.
        for n in 0..2 {
            let account = world.account(&format!("p{n}"));
            let redirects = <$store>::host_change(|connection| {
                Box::pin(async move { Ok(sqlx::raw_sql($statement).execute(connection).await.map(drop)?) })
            });
            store.commit(vec![AccountChange::Insert(account.clone()).into(), redirects]).await.unwrap();
            assert_eq!(store.account(account.id).await.unwrap(), Some(account));
        }
        store.close().await.unwrap();
    }};
}

#[tokio::test]
async fn connections_that_look_for_tables_elsewhere_do_not_redirect_the_store() {
    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    redirected!(
        MySqlStore,
        MySqlPoolOptions::new().max_connections(5).connect(&url).await.unwrap(),
        "USE information_schema"
    );
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    redirected!(
        PostgresStore,
        PgPoolOptions::new().max_connections(5).connect(&url).await.unwrap(),
        "SET search_path = pg_catalog"
    );
}

/// The store takes a connection for statements of the host only while there are any.
macro_rules! returned {
    ($store:ty, $pool:expr) => {{
        let pool = $pool;
        let store = couple_store::sql::ServerOptions::of_pool(pool.clone()).connect().await.unwrap();
        commits(&store, &World::default()).await;
        let select = <$store>::host_change(|connection| {
            Box::pin(async move { Ok(sqlx::raw_sql("SELECT 1").execute(connection).await.map(drop)?) })
        });
        store.commit(vec![select]).await.unwrap();
        let started = Instant::now();
        // One of five writes; the one for blocked commits was not needed yet.
        let mut taken = Vec::new();
        while taken.len() < 4 {
            match pool.try_acquire() {
                Some(connection) => taken.push(connection),
                None if pool.size() < 5 => taken.push(pool.acquire().await.unwrap()),
                None => sleep(Duration::from_millis(20)).await,
            }
            assert!(started.elapsed() < Duration::from_secs(5), "{} connections", taken.len());
        }
        drop(taken);
        store.close().await.unwrap();
    }};
}

#[tokio::test]
async fn connection_for_statements_of_the_host_is_closed_when_idle() {
    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    returned!(MySqlStore, MySqlPoolOptions::new().max_connections(5).connect(&url).await.unwrap());
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    returned!(PostgresStore, PgPoolOptions::new().max_connections(5).connect(&url).await.unwrap());
}

fn failed(result: Result<couple_core::Committed, CommitError>) -> ErrorKind {
    match result {
        Err(CommitError::Failed(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

/// A pool can be closed before the store, whose commits and reads then fail immediately.
macro_rules! closed_first {
    ($store:ty, $pool:expr) => {{
        let (pool, world) = ($pool, World::default());
        let store = couple_store::sql::ServerOptions::of_pool(pool.clone()).connect().await.unwrap();
        commits(&store, &world).await;
        let select = <$store>::host_change(|connection| {
            Box::pin(async move { Ok(sqlx::raw_sql("SELECT 1").execute(connection).await.map(drop)?) })
        });
        store.commit(vec![select]).await.unwrap();
        timeout(Duration::from_secs(5), pool.close()).await.expect("the pool closes");
        let insert = AccountChange::Insert(world.account("late")).into();
        assert_eq!(failed(store.commit(vec![insert]).await), ErrorKind::Unavailable);
        assert_eq!(store.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
        timeout(Duration::from_secs(5), store.close()).await.expect("the store closes").unwrap();
    }};
}

#[tokio::test]
async fn pool_can_be_closed_before_the_store() {
    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    closed_first!(MySqlStore, MySqlPoolOptions::new().max_connections(5).connect(&url).await.unwrap());
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    closed_first!(PostgresStore, PgPoolOptions::new().max_connections(5).connect(&url).await.unwrap());
}

/// The setup of a connection that gets no response is given up, and the store can be closed.
macro_rules! silent {
    ($pool:ident, $variable:literal, $db:ident) => {{
        let url = support::fresh::<$db>($variable).await;
        let proxy = Proxy::start(server_of(&url), Duration::ZERO).await;
        let pool = $pool::new().max_connections(5).test_before_acquire(false);
        let pool = pool.connect(&proxy.url(&url)).await.unwrap();
        let store = couple_store::sql::ServerOptions::of_pool(pool.clone()).connect().await.unwrap();
        // Connections for the setup of which no response comes.
        drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
        proxy.silence(true);
        let insert = AccountChange::Insert(World::default().account("ana")).into();
        let started = Instant::now();
        let kind = failed(store.commit(vec![insert]).await);
        assert!(matches!(kind, ErrorKind::Overloaded | ErrorKind::TimedOut), "{kind:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        timeout(Duration::from_secs(5), store.close()).await.expect("the store closes").unwrap();
    }};
}

#[tokio::test]
async fn setup_of_a_connection_has_a_time_limit() {
    silent!(MySqlPoolOptions, "COUPLE_TEST_MARIADB", MySql);
    silent!(PgPoolOptions, "COUPLE_TEST_POSTGRES", Postgres);
}

/// The isolation level that new sessions have does not matter: not for concurrent first starts, commits or reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_isolation_of_the_server_does_not_matter() {
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let name = url.rsplit_once('/').unwrap().1;
    let serializable = format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'");
    sqlx::raw_sql(AssertSqlSafe(serializable)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let pool = PgPoolOptions::new().max_connections(30).connect(&url).await.unwrap();
    let world = Arc::new(World::default());
    let starts = (0..4).flat_map(|_| {
        [PostgresOptions::of_pool(pool.clone()), PostgresOptions::new(&url).with_max_connections(4)]
    });
    let mut work = tokio::task::JoinSet::new();
    for (n, options) in starts.enumerate() {
        let world = world.clone();
        work.spawn(async move {
            let store = options.connect().await.unwrap();
            for m in 0..10 {
                let account = world.account(&format!("p{n}x{m}"));
                store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
                assert_eq!(store.account(account.id).await.unwrap(), Some(account));
            }
            store.close().await.unwrap();
        });
    }
    work.join_all().await;

    let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    let pool = MySqlPoolOptions::new()
        .max_connections(30)
        .after_connect(|connection, _| {
            let serializable = "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE";
            Box::pin(async move { sqlx::raw_sql(serializable).execute(connection).await.map(drop) })
        })
        .connect(&url)
        .await
        .unwrap();
    let mut work = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (options, world) = (MySqlOptions::of_pool(pool.clone()), world.clone());
        work.spawn(async move {
            let store = options.connect().await.unwrap();
            for m in 0..10 {
                let account = world.account(&format!("p{n}x{m}"));
                store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
                assert_eq!(store.account(account.id).await.unwrap(), Some(account));
            }
            store.close().await.unwrap();
        });
    }
    work.join_all().await;
}

/// A pool without a free connection is an error after seconds.
#[tokio::test]
async fn exhausted_pool_is_an_error_when_the_store_is_opened() {
    macro_rules! exhausted {
        ($pool:expr, $open:expr) => {
            async {
                let pool = $pool;
                let mut taken = Vec::new();
                while taken.len() < pool.options().get_max_connections() as usize {
                    taken.push(pool.acquire().await.unwrap());
                }
                let started = Instant::now();
                let Err(error) = $open(pool.clone()).await else { panic!("opened") };
                assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
                error.kind()
            }
        };
    }
    let mysql = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
    let postgres = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let kinds = tokio::join!(
        exhausted!(sqlite_pool(sqlite_options()).await, async |pool| SqliteOptions::of_pool(&pool)
            .open()
            .await),
        exhausted!(MySqlPoolOptions::new().max_connections(4).connect(&mysql).await.unwrap(), async |pool| {
            MySqlOptions::of_pool(pool).connect().await
        }),
        exhausted!(PgPoolOptions::new().max_connections(4).connect(&postgres).await.unwrap(), async |pool| {
            PostgresOptions::of_pool(pool).connect().await
        })
    );
    assert_eq!(kinds, (ErrorKind::Overloaded, ErrorKind::Unavailable, ErrorKind::Unavailable));
}

/// A database whose sessions are read-only, for example during maintenance, is unavailable and stays read-only.
#[tokio::test]
async fn read_only_database_is_unavailable() {
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let (_, name) = url.rsplit_once('/').unwrap();
    let set = async |value: &str| {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let writable = "SET default_transaction_read_only = off";
        sqlx::raw_sql(writable).execute(&mut connection).await.unwrap();
        let alter = format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    };
    set("on").await;
    let Err(error) = PostgresOptions::new(&url).connect().await else { panic!("migrated") };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    set("off").await;
    PostgresOptions::new(&url).connect().await.unwrap().close().await.unwrap();
    set("on").await;
    let store = PostgresOptions::new(&url).connect().await.unwrap();
    let account = World::default().account("ana");
    let insert = AccountChange::Insert(account.clone()).into();
    assert_eq!(failed(store.commit(vec![insert]).await), ErrorKind::Unavailable);
    assert_eq!(store.account(account.id).await.unwrap(), None);
    store.close().await.unwrap();
}
