//! The store on PostgreSQL passes the conformance kit and matches the memory store.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use std::time::Duration;

use couple_conformance::Breakable;
use couple_store::{
    MemoryStore,
    sql::{PostgresOptions, PostgresStore},
};
use sqlx::Postgres;
use support::proxy::{Proxy, server_of};

/// Store with its own tables in the database of this run.
async fn open(name: String, merge: usize) -> PostgresStore {
    let url = support::shared::<Postgres>("COUPLE_TEST_POSTGRES").await;
    open_at(&url, &format!("m{merge}_{name}_"), merge).await
}

async fn open_at(url: &str, prefix: &str, merge: usize) -> PostgresStore {
    let options = PostgresOptions::new(url).with_table_prefix(prefix).with_max_merged_commits(merge);
    options.with_max_connections(6).connect().await.unwrap()
}

/// Store whose server cannot be reached any more.
async fn broken(merge: usize) -> PostgresStore {
    let url = support::shared::<Postgres>("COUPLE_TEST_POSTGRES").await;
    let proxy = Proxy::start(server_of(&url), Duration::ZERO).await;
    open_at(&proxy.url(&url), &format!("m{merge}_broken_"), merge).await
}

/// Store whose server cannot be reached for some time.
async fn breakable(merge: usize) -> Breakable<PostgresStore> {
    let url = support::shared::<Postgres>("COUPLE_TEST_POSTGRES").await;
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
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    async fn connect_error(url: &str) -> (ErrorKind, String) {
        let error = PostgresOptions::new(url).connect().await.unwrap_err();
        let text = support::error_text(&error);
        assert!(!text.contains("sesame"), "the error contains the password: {text}");
        (error.kind(), text)
    }

    #[tokio::test]
    async fn invalid_url_is_refused() {
        let (kind, text) = connect_error("http://root:sesame@127.0.0.1/couple").await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("begins with postgres://"), "{text}");
        let (kind, text) = connect_error("postgres://root:sesame@127.0.0.1/couple?pool=7").await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("an option `pool`"), "{text}");
        let (kind, text) = connect_error("postgres://root:sesame@127.0.0.1:port/couple").await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{text}");
    }

    #[tokio::test]
    async fn unknown_database_is_named() {
        let url = support::url_of("COUPLE_TEST_POSTGRES");
        let (kind, text) = connect_error(&format!("{}/nowhere", url.rsplit_once('/').unwrap().0)).await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{text}");
        assert!(text.contains("/nowhere"), "{text}");
    }

    #[tokio::test]
    async fn unreachable_server_is_reported() {
        let (kind, text) = connect_error("postgres://root:sesame@127.0.0.1:1/couple").await;
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.contains("127.0.0.1:1/couple"), "{text}");
    }

    #[tokio::test]
    async fn server_of_another_engine_is_refused() {
        let url = support::url_of("COUPLE_TEST_MARIADB");
        let location = url.rsplit_once('@').unwrap().1;
        let (kind, text) = connect_error(&format!("postgres://root@{location}")).await;
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::Misconfigured), "{kind:?} {text}");
        assert!(text.contains(location.split('/').next().unwrap()), "{text}");
    }

    #[tokio::test]
    async fn newer_schema_is_refused() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        PostgresOptions::new(&url).connect().await.unwrap().close().await.unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let newer = "INSERT INTO couple_migration VALUES (99, 'future', 'x', 1)";
        sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
        let (kind, text) = connect_error(&url).await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("schema 99") && text.contains("newer version"), "{text}");
    }

    #[tokio::test]
    async fn concurrent_migrations_apply_once() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        let connect = || tokio::spawn(PostgresOptions::new(&url).with_max_connections(2).connect());
        for one in (0..8).map(|_| connect()).collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
    }

    /// Migrations are part of a transaction in PostgreSQL: an interrupted migration leaves nothing.
    #[tokio::test]
    async fn migration_is_atomic() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        // Make one of the last statements fail: each table has a type of its name.
        sqlx::raw_sql("CREATE TYPE couple_resumable_upload AS ENUM ('x')")
            .execute(&mut connection)
            .await
            .unwrap();
        let (_, text) = connect_error(&url).await;
        assert!(text.contains("migration 1 initial"), "{text}");
        let left = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.unwrap();
        assert_eq!(left, 0, "half a schema is left");
        sqlx::raw_sql("DROP TYPE couple_resumable_upload").execute(&mut connection).await.unwrap();
        PostgresOptions::new(&url).connect().await.unwrap();
    }
}

mod queries {
    use sqlx::{Connection as _, PgConnection};

    use super::*;

    /// Every query uses an index, on tables that are large enough for an index to pay off.
    ///
    /// The tables have 30,000 rows, or the number in `COUPLE_PLAN_ROWS`.
    #[tokio::test]
    async fn every_query_uses_an_index() {
        let url = support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await;
        drop(PostgresOptions::new(&url).connect().await.unwrap());
        let mut connection = PgConnection::connect(&url).await.unwrap();
        support::postgres::seed(&mut connection, support::rows(), |_| true).await;
        for (name, sql) in couple_store::sql::statements::<Postgres>() {
            let plan = support::postgres::explain(&mut connection, sql).await;
            // Scans are disabled: a plan contains one only if there is no alternative.
            assert!(!plan.contains("Seq Scan on"), "{name} scans: {sql}\n{plan}");
            let leased = ["NEXT_LEASE_END", "ABANDONED"].contains(&name);
            assert!(!leased || plan.contains("job_leased"), "{name} reads the jobs that wait: {sql}\n{plan}");
            let few = ["SESSIONS_OF", "COUPLES_OF", "BLOCKS_OF", "DEVICES_OF", "DATES_OF"].contains(&name);
            assert!(few || !plan.contains("Sort Key"), "{name} sorts: {sql}\n{plan}");
        }
    }
}

/// Event bus over `LISTEN` and `NOTIFY`.
mod bus {
    use std::{
        collections::HashMap,
        sync::{LazyLock, Mutex},
        time::Duration,
    };

    use couple_conformance::{AlternatingBus, Breakable};
    use couple_core::{
        ErrorKind,
        live::{Bus as _, Notice, Subscription, Topic},
        pairing::Side,
        timeline::Body,
    };
    use couple_store::sql::PostgresBus;
    use sqlx::{Connection as _, PgConnection};
    use support::proxy::{Proxy, server_of};
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    /// Time limit of every wait, also on a busy machine.
    const NOTICE_TIMEOUT: Duration = Duration::from_secs(20);

    async fn fresh() -> String {
        support::fresh::<Postgres>("COUPLE_TEST_POSTGRES").await
    }
    async fn start(url: &str) -> PostgresBus {
        PostgresBus::start(url).await.unwrap()
    }

    /// Databases by the name of their check, for its second process.
    static DATABASES: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);

    async fn open(name: String) -> PostgresBus {
        let url = fresh().await;
        DATABASES.lock().unwrap().insert(name, url.clone());
        start(&url).await
    }

    async fn open_second(name: String) -> PostgresBus {
        let url = DATABASES.lock().unwrap()[&name].clone();
        start(&url).await
    }

    /// Buses of two processes, whose server cannot be reached for some time.
    async fn breakable() -> Breakable<AlternatingBus> {
        let url = fresh().await;
        let proxy = Proxy::start(server_of(&url), Duration::ZERO).await;
        let url = proxy.url(&url);
        let buses = AlternatingBus::new(start(&url).await, start(&url).await);
        Breakable::new(buses, move |fails| proxy.refuse(fails))
    }

    mod conformance {
        use super::*;
        couple_conformance::bus!(named: open, second_process: open_second, outage: breakable());
    }

    fn topic(name: &str) -> Topic {
        Topic::Queue(name.to_owned())
    }

    async fn next_notice(subscription: &mut Box<dyn Subscription>) -> Notice {
        timeout(NOTICE_TIMEOUT, subscription.next()).await.expect("a notice arrives")
    }

    /// Publishes until a notice arrives; returns the time, or fails after `NOTICE_TIMEOUT`.
    async fn delivery_time(here: &PostgresBus, far: &mut Box<dyn Subscription>, on: &Topic) -> Duration {
        let started = Instant::now();
        loop {
            here.publish(on.clone(), Notice::Changed).await;
            if timeout(Duration::from_millis(100), far.next()).await.is_ok() {
                return started.elapsed();
            }
            assert!(started.elapsed() < NOTICE_TIMEOUT, "no notice is delivered");
        }
    }

    /// Closes all connections of the buses; returns their number.
    async fn cut(server: &mut PgConnection) -> i64 {
        let cut = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'couple bus'";
        sqlx::query_scalar(cut).fetch_one(server).await.unwrap()
    }

    /// A notice that is published while connections are cut arrives without another publish.
    ///
    /// In its place the subscriber may get a notice to read the store.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cut_connections_lose_no_notice() {
        let url = fresh().await;
        let (here, there) = (start(&url).await, start(&url).await);
        let mut server = PgConnection::connect(&url).await.unwrap();
        let (talk, quiet) = (topic("talk"), topic("quiet"));
        let (mut far, mut aside) =
            (there.subscribe(vec![talk.clone()]).await, there.subscribe(vec![quiet]).await);
        let mut slowest = Duration::ZERO;
        for n in 0..20 {
            delivery_time(&here, &mut far, &talk).await;
            while timeout(Duration::from_millis(50), far.next()).await.is_ok() {}
            assert!(cut(&mut server).await >= 2, "listeners at least");
            let started = Instant::now();
            // Before, during or after the buses notice the loss of their connections.
            sleep(Duration::from_millis(n % 4)).await;
            here.publish(talk.clone(), Notice::Changed).await;
            assert_eq!(next_notice(&mut far).await, Notice::Changed);
            slowest = slowest.max(started.elapsed());
            // A subscriber of another topic also gets a notice to read the store.
            assert_eq!(next_notice(&mut aside).await, Notice::Changed);
            while timeout(Duration::from_millis(50), aside.next()).await.is_ok() {}
        }
        println!("cut 20 times: heard after at most {} ms", slowest.as_millis());
    }

    /// Only the sending connection is cut: the lost batch is replaced by a notice to read the store.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sender_reconnects_after_a_cut() {
        let url = fresh().await;
        let (here, there) = (start(&url).await, start(&url).await);
        let mut server = PgConnection::connect(&url).await.unwrap();
        let talk = topic("talk");
        let mut far = there.subscribe(vec![talk.clone()]).await;
        for _ in 0..20 {
            delivery_time(&here, &mut far, &talk).await;
            while timeout(Duration::from_millis(50), far.next()).await.is_ok() {}
            let cut = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE datname = current_database() AND query ILIKE '%pg_notify%' AND pid <> pg_backend_pid()";
            let cut: i64 = sqlx::query_scalar(cut).fetch_one(&mut server).await.unwrap();
            assert_eq!(cut, 1);
            here.publish(talk.clone(), Notice::Changed).await;
            assert_eq!(next_notice(&mut far).await, Notice::Changed);
        }
    }

    /// Behind a proxy that stops forwarding, a publisher does not wait.
    ///
    /// Notices resume when the server responds again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn publisher_does_not_wait_for_a_silent_server() {
        let url = fresh().await;
        let proxy = Proxy::start(server_of(&url), Duration::ZERO).await;
        let (here, there) = (start(&proxy.url(&url)).await, start(&proxy.url(&url)).await);
        let talk = topic("talk");
        let (mut near, mut far) =
            (here.subscribe(vec![talk.clone()]).await, there.subscribe(vec![talk.clone()]).await);
        delivery_time(&here, &mut far, &talk).await;
        while timeout(Duration::from_millis(50), near.next()).await.is_ok() {}
        proxy.silence(true);
        let started = Instant::now();
        for _ in 0..10_000 {
            here.publish(talk.clone(), Notice::Changed).await;
        }
        assert!(started.elapsed() < NOTICE_TIMEOUT, "{:?}", started.elapsed());
        assert_eq!(next_notice(&mut near).await, Notice::Changed);
        // Wait until both buses have noticed.
        sleep(Duration::from_secs(4)).await;
        proxy.silence(false);
        println!("carried again after {} ms", delivery_time(&here, &mut far, &talk).await.as_millis());
    }

    /// A signal that exceeds a notification becomes a notice to read the store; a shorter one is complete.
    #[tokio::test]
    async fn oversized_signals_become_changed() {
        let url = fresh().await;
        let (here, there) = (start(&url).await, start(&url).await);
        let talk = topic("talk");
        let mut far = there.subscribe(vec![talk.clone()]).await;
        for (length, whole) in [(7_500, true), (16_000, false)] {
            let body = Body::from_stored("{}".to_owned() + &" ".repeat(length));
            let signal = Notice::Signal { from: Side::First, kind: "x-long".to_owned(), body: Some(body) };
            here.publish(talk.clone(), signal.clone()).await;
            assert_eq!(next_notice(&mut far).await, if whole { signal } else { Notice::Changed });
        }
    }

    #[tokio::test]
    async fn unreachable_bus_hides_the_password() {
        let error = PostgresBus::start("postgres://root:sesame@127.0.0.1:1/couple").await.unwrap_err();
        let text = support::error_text(&error);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
        assert!(text.contains("127.0.0.1:1/couple") && !text.contains("sesame"), "{text}");
        let error = PostgresBus::start("mysql://root:sesame@127.0.0.1/couple").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    }
}
