//! Installations of several hosts in one database, and databases that are refused because of their tables.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use std::sync::Arc;

use couple_conformance::World;
use couple_core::{
    Error, ErrorKind, Store,
    account::{AccountChange, AccountReads as _},
    job::{JobChange, JobReads as _},
    timeline::{Page, TimelineChange, TimelineReads as _},
};
use couple_store::sql::{MySqlOptions, PostgresOptions, SchemaStatus, SqliteOptions};
use sqlx::{
    AssertSqlSafe, Connection as _, MySql, MySqlConnection, PgConnection, Postgres, SqliteConnection,
};

/// Tables of the migrations, without a prefix, and the table of applied migrations.
const TABLES: [&str; 23] = [
    "account",
    "block",
    "couple",
    "date",
    "dead_job",
    "device",
    "digest",
    "entry",
    "erasure",
    "invite",
    "job",
    "media",
    "media_rendition",
    "media_space",
    "member",
    "membership",
    "migration",
    "outcome",
    "preferences",
    "resumable_upload",
    "session",
    "tally",
    "token",
];

type Opened = Result<Arc<dyn Store>, Error>;

/// An engine, and how a host uses a database of it.
trait Engine {
    /// Location of a new, empty database.
    async fn fresh() -> String;
    async fn open(at: &str, prefix: &str) -> Opened;
    async fn open_without_migration(at: &str, prefix: &str) -> Opened;
    async fn migrate(at: &str, prefix: &str) -> Result<(), Error>;
    async fn check(at: &str, prefix: &str) -> Result<SchemaStatus, Error>;
    async fn execute(at: &str, sql: &str);
    /// Texts in the first column of a query.
    async fn texts(at: &str, sql: &str) -> Vec<String>;
    /// Query for the names of all tables.
    const ALL_TABLES: &'static str;
    /// Query for all columns of all tables, in order.
    const ALL_COLUMNS: &'static str;
    /// Cast of a number to text.
    const AS_TEXT: &'static str;

    async fn tables(at: &str) -> Vec<String> {
        Self::texts(at, Self::ALL_TABLES).await
    }
}

struct Sqlite;

impl Engine for Sqlite {
    async fn fresh() -> String {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        folder.join("host.db").display().to_string()
    }
    async fn open(at: &str, prefix: &str) -> Opened {
        Ok(Arc::new(SqliteOptions::new(at).with_table_prefix(prefix).with_shared_file(true).open().await?))
    }
    async fn open_without_migration(at: &str, prefix: &str) -> Opened {
        let options = SqliteOptions::new(at).with_table_prefix(prefix).with_shared_file(true);
        Ok(Arc::new(options.with_migration_on_open(false).open().await?))
    }
    async fn migrate(at: &str, prefix: &str) -> Result<(), Error> {
        SqliteOptions::new(at).with_table_prefix(prefix).with_shared_file(true).migrate().await
    }
    async fn check(at: &str, prefix: &str) -> Result<SchemaStatus, Error> {
        SqliteOptions::new(at).with_table_prefix(prefix).with_shared_file(true).check().await
    }
    async fn execute(at: &str, sql: &str) {
        let mut connection = SqliteConnection::connect(&format!("sqlite://{at}?mode=rwc")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    async fn texts(at: &str, sql: &str) -> Vec<String> {
        let mut connection = SqliteConnection::connect(&format!("sqlite://{at}?mode=rwc")).await.unwrap();
        let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        texts
    }
    const ALL_TABLES: &'static str = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    const ALL_COLUMNS: &'static str = "SELECT COALESCE(sql, name) FROM sqlite_schema ORDER BY name";
    const AS_TEXT: &'static str = "TEXT";
}

struct MariaDb;

impl Engine for MariaDb {
    async fn fresh() -> String {
        support::fresh::<MySql>("COUPLE_TEST_MARIADB").await
    }
    async fn open(at: &str, prefix: &str) -> Opened {
        Ok(Arc::new(MySqlOptions::new(at).with_max_connections(4).with_table_prefix(prefix).connect().await?))
    }
    async fn open_without_migration(at: &str, prefix: &str) -> Opened {
        let options = MySqlOptions::new(at).with_max_connections(4).with_table_prefix(prefix);
        Ok(Arc::new(options.with_migration_on_connect(false).connect().await?))
    }
    async fn migrate(at: &str, prefix: &str) -> Result<(), Error> {
        MySqlOptions::new(at).with_table_prefix(prefix).migrate().await
    }
    async fn check(at: &str, prefix: &str) -> Result<SchemaStatus, Error> {
        MySqlOptions::new(at).with_table_prefix(prefix).check().await
    }
    async fn execute(at: &str, sql: &str) {
        let mut connection = MySqlConnection::connect(at).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    async fn texts(at: &str, sql: &str) -> Vec<String> {
        let mut connection = MySqlConnection::connect(at).await.unwrap();
        let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        texts
    }
    const ALL_TABLES: &'static str = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY table_name";
    const ALL_COLUMNS: &'static str = "SELECT CONCAT_WS(' ', table_name, column_name, data_type, is_nullable) \
        FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position";
    const AS_TEXT: &'static str = "CHAR";
}

struct PostgreSql;

impl Engine for PostgreSql {
    async fn fresh() -> String {
        support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await
    }
    async fn open(at: &str, prefix: &str) -> Opened {
        Ok(Arc::new(
            PostgresOptions::new(at).with_max_connections(4).with_table_prefix(prefix).connect().await?,
        ))
    }
    async fn open_without_migration(at: &str, prefix: &str) -> Opened {
        let options = PostgresOptions::new(at).with_max_connections(4).with_table_prefix(prefix);
        Ok(Arc::new(options.with_migration_on_connect(false).connect().await?))
    }
    async fn migrate(at: &str, prefix: &str) -> Result<(), Error> {
        PostgresOptions::new(at).with_table_prefix(prefix).migrate().await
    }
    async fn check(at: &str, prefix: &str) -> Result<SchemaStatus, Error> {
        PostgresOptions::new(at).with_table_prefix(prefix).check().await
    }
    async fn execute(at: &str, sql: &str) {
        let mut connection = PgConnection::connect(at).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
    async fn texts(at: &str, sql: &str) -> Vec<String> {
        let mut connection = PgConnection::connect(at).await.unwrap();
        let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        texts
    }
    const ALL_TABLES: &'static str = "SELECT CAST(tablename AS TEXT) FROM pg_tables \
        WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";
    const ALL_COLUMNS: &'static str = "SELECT CONCAT_WS(' ', table_schema, table_name, column_name, data_type, is_nullable) \
        FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema') \
        ORDER BY table_schema, table_name, ordinal_position";
    const AS_TEXT: &'static str = "TEXT";
}

/// Message of a refusal.
fn refused<T>(result: Result<T, Error>) -> String {
    let Err(error) = result else { panic!("the database is accepted") };
    let text = support::error_text(&error);
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{text}");
    text
}

fn prefixed(prefix: &str) -> Vec<String> {
    TABLES.iter().map(|table| format!("{prefix}{table}")).collect()
}

/// Checks that every way to open, check or migrate the database refuses it, and that it stays unchanged.
async fn require_refused<E: Engine>(at: &str, prefix: &str, reason: &str) {
    let before = E::texts(at, E::ALL_COLUMNS).await;
    for text in [
        refused(E::open(at, prefix).await),
        refused(E::open_without_migration(at, prefix).await),
        refused(E::migrate(at, prefix).await),
        refused(E::check(at, prefix).await),
    ] {
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(E::texts(at, E::ALL_COLUMNS).await, before);
}

/// A foreign table with a name of ours is refused, whatever the prefix, and keeps its row.
async fn foreign_tables<E: Engine>() {
    for (prefix, table) in
        [("", "account"), ("", "couple"), ("couple_", "couple_job"), ("love_", "love_media_space")]
    {
        let at = E::fresh().await;
        E::execute(&at, &format!("CREATE TABLE {table} (x INT); INSERT INTO {table} VALUES (7)")).await;
        require_refused::<E>(&at, prefix, table).await;
        let rows = E::texts(&at, &format!("SELECT CAST(x AS {}) FROM {table}", E::AS_TEXT)).await;
        assert_eq!(rows, ["7"]);
        assert_eq!(E::tables(&at).await, [table]);
        // With another prefix there is room beside it.
        E::open(&at, "free_").await.unwrap().close().await.unwrap();
        let rows = E::texts(&at, &format!("SELECT CAST(x AS {}) FROM {table}", E::AS_TEXT)).await;
        assert_eq!(rows, ["7"]);
    }
    let at = E::fresh().await;
    E::execute(&at, "CREATE TABLE couple_migration (version BIGINT, name VARCHAR(20))").await;
    require_refused::<E>(&at, "couple_", "couple_migration was not made by this program").await;
}

/// Tables that this program made are refused when the record of them is gone, changed, or incomplete.
async fn changed_installations<E: Engine>() {
    for (change, reason) in [
        ("DROP TABLE couple_migration", "that this program did not make"),
        ("DELETE FROM couple_migration", "that this program did not make"),
        ("DROP TABLE couple_job", "couple_job is missing"),
        ("UPDATE couple_migration SET checksum = 'x'", "differs from this program's"),
        ("UPDATE couple_migration SET name = 'other'", "differs from this program's"),
        ("INSERT INTO couple_migration VALUES (99, 'future', 'x', 1)", "run a newer version"),
    ] {
        let at = E::fresh().await;
        E::migrate(&at, "couple_").await.unwrap();
        E::execute(&at, change).await;
        require_refused::<E>(&at, "couple_", reason).await;
    }
}

/// Checks change nothing, and a store that must not migrate creates no table.
async fn checks_and_migrations<E: Engine>() {
    let at = E::fresh().await;
    let status = E::check(&at, "couple_").await.unwrap();
    assert!(!status.is_current());
    assert_eq!(
        status.pending,
        ["1 initial", "2 devices", "3 preferences", "4 dates", "5 digests", "6 widget_tokens"]
    );
    let text = refused(E::open_without_migration(&at, "couple_").await);
    assert!(
        text.contains(
            "lacks the migration 1 initial, 2 devices, 3 preferences, 4 dates, 5 digests, 6 widget_tokens"
        ),
        "{text}"
    );
    assert_eq!(E::tables(&at).await, Vec::<String>::new());
    E::migrate(&at, "couple_").await.unwrap();
    assert_eq!(E::tables(&at).await, prefixed("couple_"));
    E::migrate(&at, "couple_").await.unwrap();
    assert!(E::check(&at, "couple_").await.unwrap().is_current());
    let store = E::open_without_migration(&at, "couple_").await.unwrap();
    World::default().stored_couple(&store).await;
    for prefix in ["Love_", "_", "a;b", "sqlite_", "a_prefix_that_is_too_long"] {
        refused(E::open(&at, prefix).await);
    }
    store.close().await.unwrap();
    assert_eq!(E::tables(&at).await, prefixed("couple_"));
}

/// Two installations in one database work concurrently and see nothing of each other.
async fn two_installations<E: Engine>() {
    let at = E::fresh().await;
    let (one, other) = tokio::join!(E::open(&at, "one_"), E::open(&at, "other_"));
    let stores = [one.unwrap(), other.unwrap()];
    let mut all = [prefixed("one_"), prefixed("other_")].concat();
    all.sort_unstable();
    assert_eq!(E::tables(&at).await, all);
    // The same ids, addresses, client ids and job keys in both, from the same seed.
    let work = stores.clone().map(|store| {
        tokio::spawn(async move {
            let world = World::default();
            let account = world.account("ana");
            store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
            let couple = world.stored_couple(&store).await.id;
            let mut job = world.job("mail");
            job.dedupe_key = Some("once".to_owned());
            store.commit(vec![JobChange::Enqueue(job.clone()).into()]).await.unwrap();
            for n in 0..50 {
                let entry = world.entry(&format!("entry {n}"));
                store.commit(vec![TimelineChange::Append { couple, entry }.into()]).await.unwrap();
            }
            (account, couple, job)
        })
    });
    let mut made = Vec::new();
    for work in work {
        made.push(work.await.unwrap());
    }
    assert_eq!(made[0].1, made[1].1, "the installations have the same ids");
    let (account, couple, job) = made.remove(0);
    let world = World::new(2);
    // A claim of one installation leaves the job of the other.
    let claim = JobChange::Claim {
        queue: "mail".to_owned(),
        now: world.later(1),
        lease_until: world.later(60),
        claim: 7,
        limit: 10,
    };
    let claimed = stores[0].commit(vec![claim.into()]).await.unwrap().into_claimed_jobs();
    assert_eq!(claimed.len(), 1);
    let finish = JobChange::Finish { id: job.id, claim: 7 };
    stores[0].commit(vec![finish.into()]).await.unwrap();
    assert_eq!(stores[0].next_due("mail").await.unwrap(), None);
    assert_eq!(stores[1].next_due("mail").await.unwrap(), Some(job.due_at));
    let erase = AccountChange::Erase { id: account.id, version: 0 };
    stores[0].commit(vec![erase.into()]).await.unwrap();
    assert_eq!(stores[0].account(account.id).await.unwrap(), None);
    assert_eq!(stores[1].account(account.id).await.unwrap().as_ref(), Some(&account));
    // The end of one installation leaves the other.
    stores[0].close().await.unwrap();
    for table in prefixed("one_") {
        E::execute(&at, &format!("DROP TABLE {table}")).await;
    }
    assert_eq!(stores[1].entries(couple, Page::After(0), 100, None).await.unwrap().len(), 50);
    let entry = world.entry("after");
    stores[1].commit(vec![TimelineChange::Append { couple, entry }.into()]).await.unwrap();
    stores[1].close().await.unwrap();
    assert!(E::check(&at, "other_").await.unwrap().is_current());
    assert_eq!(E::tables(&at).await, prefixed("other_"));
}

/// A store with another prefix beside an installation with the default one.
async fn beside_default<E: Engine>() -> Arc<dyn Store> {
    let at = E::fresh().await;
    E::migrate(&at, "couple_").await.unwrap();
    E::open(&at, "love_").await.unwrap()
}

/// A store in a separate schema, with and without a prefix, beside an installation in the default schema.
async fn in_schema(prefix: &str) -> Arc<dyn Store> {
    let at = PostgreSql::fresh().await;
    PostgreSql::migrate(&at, prefix).await.unwrap();
    let options = PostgresOptions::new(&at).with_max_connections(4).with_table_prefix(prefix);
    Arc::new(options.with_schema("love").connect().await.unwrap())
}

macro_rules! engines {
    ($($name:ident: $engine:ty;)+) => {$(
        mod $name {
            use super::*;

            couple_conformance::store!(beside_default::<$engine>());

            #[tokio::test]
            async fn foreign_table_with_our_name_is_refused_and_unchanged() {
                foreign_tables::<$engine>().await;
            }
            #[tokio::test]
            async fn changed_or_incomplete_installation_is_refused_and_unchanged() {
                changed_installations::<$engine>().await;
            }
            #[tokio::test]
            async fn check_changes_nothing_and_migration_can_be_separate() {
                checks_and_migrations::<$engine>().await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn installations_with_two_prefixes_do_not_touch_each_other() {
                two_installations::<$engine>().await;
            }
        }
    )+};
}

engines! {
    sqlite: Sqlite;
    mariadb: MariaDb;
    postgres: PostgreSql;
}

mod postgres_schema {
    use super::*;

    couple_conformance::store!(in_schema(""));

    #[tokio::test]
    async fn schema_is_created_and_separate_from_the_default_schema() {
        let at = PostgreSql::fresh().await;
        PostgreSql::execute(
            &at,
            "CREATE TABLE account (x INT); CREATE SCHEMA taken; CREATE TABLE taken.account (x INT)",
        )
        .await;
        let options = |schema: &str| PostgresOptions::new(&at).with_table_prefix("").with_schema(schema);
        let text = refused(options("taken").migrate().await);
        assert!(text.contains("account"), "{text}");
        assert_eq!(
            options("love").check().await.unwrap().pending,
            ["1 initial", "2 devices", "3 preferences", "4 dates", "5 digests", "6 widget_tokens"]
        );
        assert_eq!(PostgreSql::tables(&at).await, ["account", "account"]);
        options("love").migrate().await.unwrap();
        options("love").with_migration_on_connect(false).connect().await.unwrap();
        let made = PostgreSql::texts(
            &at,
            "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = 'love' ORDER BY 1",
        );
        assert_eq!(made.await, TABLES);
        for schema in ["", "pg_love", "a.b"] {
            refused(options(schema).connect().await);
        }
    }

    /// Notices of one installation do not reach another one in the same database.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn installations_have_separate_channels() {
        use std::time::Duration;

        use couple_core::live::{Bus as _, Notice, Topic};
        use couple_store::sql::PostgresBus;
        use tokio::time::timeout;

        let at = PostgreSql::fresh().await;
        let start = |prefix: &str| PostgresBus::start(PostgresOptions::new(&at).with_table_prefix(prefix));
        let (here, there, other) = (start("one_").await, start("one_").await, start("other_").await);
        let (here, there, other) = (here.unwrap(), there.unwrap(), other.unwrap());
        let topic = Topic::Queue("mail".to_owned());
        let (mut near, mut far) =
            (there.subscribe(vec![topic.clone()]).await, other.subscribe(vec![topic.clone()]).await);
        here.publish(topic, Notice::Changed).await;
        assert_eq!(timeout(Duration::from_secs(20), near.next()).await.unwrap(), Notice::Changed);
        assert!(timeout(Duration::from_millis(500), far.next()).await.is_err(), "a notice of another host");
    }
}
