//! PostgreSQL, proven by the kit and held against memory.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use couple_store::{
    MemoryStore,
    sql::{PostgresOptions, PostgresStore},
};
use sqlx::Postgres;

async fn open(merge: usize) -> PostgresStore {
    let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
    PostgresOptions::new(url).connections(6).merge(merge).connect().await.unwrap()
}

mod merged {
    use super::*;
    couple_conformance::store!(open(64), reference: async { MemoryStore::new() });
}

mod one_by_one {
    use super::*;
    couple_conformance::store!(open(1));
}

mod connecting {
    use couple_core::{ErrorKind, Store as _};
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    async fn refused(url: &str) -> (ErrorKind, String) {
        let error = PostgresOptions::new(url).connect().await.unwrap_err();
        let said = support::told(&error);
        assert!(!said.contains("sesame"), "the password is told: {said}");
        (error.kind(), said)
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_meant() {
        let (kind, said) = refused("http://root:sesame@127.0.0.1/couple").await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(said.contains("begins with postgres://"), "{said}");
        let (kind, said) = refused("postgres://root:sesame@127.0.0.1/couple?pool=7").await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(said.contains("an option `pool`"), "{said}");
        let (kind, said) = refused("postgres://root:sesame@127.0.0.1:port/couple").await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{said}");
    }

    #[tokio::test]
    async fn an_unknown_database_is_named() {
        let url = support::url_of("COUPLE_TEST_POSTGRES");
        let (kind, said) = refused(&format!("{}/nowhere", url.rsplit_once('/').unwrap().0)).await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{said}");
        assert!(said.contains("/nowhere"), "{said}");
    }

    #[tokio::test]
    async fn nobody_there() {
        let (kind, said) = refused("postgres://root:sesame@127.0.0.1:1/couple").await;
        assert_eq!(kind, ErrorKind::Unavailable, "{said}");
        assert!(said.contains("127.0.0.1:1/couple"), "{said}");
    }

    #[tokio::test]
    async fn another_kind_of_server() {
        let url = support::url_of("COUPLE_TEST_MARIADB");
        let place = url.rsplit_once('@').unwrap().1;
        let (kind, said) = refused(&format!("postgres://root@{place}")).await;
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Misconfigured), "{kind:?} {said}");
        assert!(said.contains(place.split('/').next().unwrap()), "{said}");
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        PostgresOptions::new(&url).connect().await.unwrap().close().await.unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let newer = "INSERT INTO couple_migration VALUES (99, 'future')";
        sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
        let (kind, said) = refused(&url).await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(said.contains("schema 99") && said.contains("newer version"), "{said}");
    }

    #[tokio::test]
    async fn many_may_migrate_at_once() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        let connect = || tokio::spawn(PostgresOptions::new(&url).connections(2).connect());
        for one in (0..8).map(|_| connect()).collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
    }

    /// PostgreSQL's definitions are part of the transaction: what a kill cut short left nothing.
    #[tokio::test]
    async fn a_migration_is_all_or_nothing() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        // In the way of the last steps.
        sqlx::raw_sql("CREATE TABLE outcome (x INT)").execute(&mut connection).await.unwrap();
        let (_, said) = refused(&url).await;
        assert!(said.contains("migration 1 initial"), "{said}");
        let left = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.unwrap();
        assert_eq!(left, 1, "half a schema is left");
        sqlx::raw_sql("DROP TABLE outcome").execute(&mut connection).await.unwrap();
        PostgresOptions::new(&url).connect().await.unwrap();
    }
}

mod queries {
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    /// Every statement that finds rows is served by an index, over tables large enough that a scan would not pay: 100,000 rows,
    /// or those of `COUPLE_PLAN_ROWS`.
    #[tokio::test]
    async fn none_scans_a_table() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        drop(PostgresOptions::new(&url).connect().await.unwrap());
        let mut connection = PgConnection::connect(&url).await.unwrap();
        support::postgres::seed(&mut connection, support::rows()).await;
        for (name, sql) in couple_store::sql::statements::<Postgres>() {
            let plan = support::postgres::explain(&mut connection, sql).await;
            // With scans made dear, a plan that has one has no other way.
            assert!(!plan.contains("Seq Scan on"), "{name} scans: {sql}\n{plan}");
            let few = ["SESSIONS_OF", "COUPLES_OF", "BLOCKS_OF"].contains(&name);
            assert!(few || !plan.contains("Sort Key"), "{name} sorts: {sql}\n{plan}");
        }
    }
}
