//! The store on MariaDB passes the conformance kit and matches the memory store.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use std::time::Duration;

use couple_conformance::Breakable;
use couple_store::{
    MemoryStore,
    sql::{MySqlOptions, MySqlStore},
};
use sqlx::MySql;
use support::proxy::{Proxy, server_of};

/// Store with its own tables in the database of this run.
async fn open(name: String, merge: usize) -> MySqlStore {
    let url = support::shared::<MySql>("COUPLE_TEST_MARIADB").await;
    open_at(&url, &format!("m{merge}_{name}_"), merge).await
}

async fn open_at(url: &str, prefix: &str, merge: usize) -> MySqlStore {
    let options = MySqlOptions::new(url).with_table_prefix(prefix).with_max_merged_commits(merge);
    options.with_max_connections(6).connect().await.unwrap()
}

/// Store whose server cannot be reached any more.
async fn broken(merge: usize) -> MySqlStore {
    let url = support::shared::<MySql>("COUPLE_TEST_MARIADB").await;
    let proxy = Proxy::start(server_of(&url), Duration::ZERO).await;
    open_at(&proxy.url(&url), &format!("m{merge}_broken_"), merge).await
}

/// Store whose server cannot be reached for some time.
async fn breakable(merge: usize) -> Breakable<MySqlStore> {
    let url = support::shared::<MySql>("COUPLE_TEST_MARIADB").await;
    let proxy = Proxy::start(server_of(&url), Duration::ZERO).await;
    let store = open_at(&proxy.url(&url), &format!("m{merge}_outage_"), merge).await;
    Breakable::new(store, move |fails| proxy.refuse(fails))
}

mod merged {
    use super::*;
    couple_conformance::store!(
        named: |name| open(name, 64),
        reference: async { MemoryStore::new() },
        reopen: |name| open(name, 64),
        second_process: |name| open(name, 64),
        broken: broken(64),
        outage: breakable(64),
    );
}

mod one_by_one {
    use super::*;
    couple_conformance::store!(named: |name| open(name, 1), reopen: |name| open(name, 1), broken: broken(1), outage: breakable(1));
}

mod connecting {
    use couple_core::{ErrorKind, Store as _};
    use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};

    use super::*;

    async fn connect_error(url: &str) -> (ErrorKind, String) {
        let error = MySqlOptions::new(url).connect().await.unwrap_err();
        let text = support::error_text(&error);
        assert!(!text.contains("sesame"), "the error contains the password: {text}");
        (error.kind(), text)
    }

    #[tokio::test]
    async fn invalid_url_is_refused() {
        let (kind, text) = connect_error("http://root:sesame@127.0.0.1/couple").await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("begins with mysql://"), "{text}");
        let (kind, text) = connect_error("mysql://root:sesame@127.0.0.1/couple?pool=7").await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("an option `pool`"), "{text}");
        let (kind, text) = connect_error("mysql://root:sesame@127.0.0.1:port/couple").await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{text}");
    }

    #[tokio::test]
    async fn error_hides_the_password() {
        let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        let name = url.rsplit_once('/').unwrap().1;
        let user = format!("CREATE USER u_{name}@'127.0.0.1' IDENTIFIED BY 'other'");
        sqlx::raw_sql(AssertSqlSafe(user)).execute(&mut connection).await.unwrap();
        let location = url.rsplit_once('@').unwrap().1;
        let (kind, text) = connect_error(&format!("mysql://u_{name}:sesame@{location}")).await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{text}");
    }

    #[tokio::test]
    async fn unknown_database_is_named() {
        let url = support::url_of("COUPLE_TEST_MARIADB");
        let (kind, text) = connect_error(&format!("{}/nowhere", url.rsplit_once('/').unwrap().0)).await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{text}");
        assert!(text.contains("/nowhere"), "{text}");
    }

    #[tokio::test]
    async fn unreachable_server_is_reported() {
        let (kind, text) = connect_error("mysql://root:sesame@127.0.0.1:1/couple").await;
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.contains("127.0.0.1:1/couple"), "{text}");
    }

    #[tokio::test]
    async fn server_of_another_engine_is_refused() {
        let url = support::url_of("COUPLE_TEST_POSTGRES");
        let location = url.rsplit_once('@').unwrap().1;
        let (kind, text) = connect_error(&format!("mysql://root@{location}")).await;
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Misconfigured), "{kind:?} {text}");
        assert!(text.contains(location.split('/').next().unwrap()), "{text}");
    }

    #[tokio::test]
    async fn newer_schema_is_refused() {
        let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
        MySqlOptions::new(&url).connect().await.unwrap().close().await.unwrap();
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        let newer = "INSERT INTO couple_migration VALUES (99, 'future', 'x', 1)";
        sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
        let (kind, text) = connect_error(&url).await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("schema 99") && text.contains("newer version"), "{text}");
    }

    #[tokio::test]
    async fn concurrent_migrations_apply_once() {
        let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
        let connect = || tokio::spawn(MySqlOptions::new(&url).with_max_connections(2).connect());
        for one in (0..8).map(|_| connect()).collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
    }

    /// MySQL commits each definition immediately: the next start completes an interrupted migration.
    #[tokio::test]
    async fn half_applied_migration_is_finished() {
        let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
        drop(MySqlOptions::new(&url).connect().await.unwrap());
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        let half = "UPDATE couple_migration SET finished = 0; DROP TABLE couple_job, couple_dead_job, couple_outcome, couple_entry";
        sqlx::raw_sql(half).execute(&mut connection).await.unwrap();
        let store = MySqlOptions::new(&url).connect().await.unwrap();
        let account = couple_conformance::World::default().account("ana");
        let insert = couple_core::account::AccountChange::Insert(account);
        store.commit(vec![insert.into()]).await.unwrap();
        assert_eq!(couple_core::job::JobReads::next_due(&store, "mail").await.unwrap(), None);
    }
}

mod queries {
    use sqlx::{Connection as _, MySqlConnection, Row as _};

    use super::*;

    /// Statements that must not read the jobs that wait.
    const LEASED: [&str; 2] = ["NEXT_LEASE_END", "ABANDONED"];

    /// Every query uses an index, on tables that are large enough for an index to pay off.
    ///
    /// The tables have 30,000 rows, or the number in `COUPLE_PLAN_ROWS`.
    #[tokio::test]
    async fn every_query_uses_an_index() {
        let url = support::fresh::<MySql>("COUPLE_TEST_MARIADB").await;
        drop(MySqlOptions::new(&url).connect().await.unwrap());
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        support::mysql::seed(&mut connection, support::rows(), |_| true).await;
        for (name, sql) in couple_store::sql::statements::<MySql>() {
            let plan = support::mysql::explain(&mut connection, sql).await;
            for row in plan {
                let table = row.get::<Option<String>, _>("table").unwrap_or_default();
                // Skip the target table of an insert, and derived tables.
                if row.get::<String, _>("select_type") == "INSERT" || table.starts_with('<') {
                    continue;
                }
                let (kind, extra): (Option<String>, Option<String>) = (row.get("type"), row.get("Extra"));
                let (kind, extra) = (kind.unwrap_or_default(), extra.unwrap_or_default());
                assert!(kind != "ALL" && kind != "index", "{name} scans {table} ({extra}): {sql}");
                if LEASED.contains(&name) {
                    let key = row.get::<Option<String>, _>("key").unwrap_or_default();
                    assert_eq!(key, "couple_job_claim", "{name} reads the jobs that wait: {sql}");
                }
                // Few rows of one account, or few jobs that run.
                let few = ["SESSIONS_OF", "COUPLES_OF", "BLOCKS_OF", "DEVICES_OF", "DATES_OF", "ABANDONED"]
                    .contains(&name);
                assert!(few || !extra.contains("filesort"), "{name} sorts {table} ({extra}): {sql}");
            }
        }
    }
}
