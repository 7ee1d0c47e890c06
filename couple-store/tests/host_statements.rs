//! Statements of the host in the transaction of a commit.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use couple_conformance::World;
use couple_core::{
    Change, CommitError, Conflict, Error, ErrorKind, Store,
    account::{AccountChange, AccountReads as _},
    job::{JobChange, JobReads as _},
    pairing::PairingChange,
};
use couple_store::{
    MemoryStore,
    sql::{MySqlOptions, MySqlStore, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore},
};
use sqlx::{Connection as _, MySql, MySqlConnection, PgConnection, Postgres, SqliteConnection};

/// Behaviour of a change that runs statements.
#[derive(Clone, Copy)]
enum Host {
    /// Runs the statements.
    Runs,
    /// Runs the statements, and then refuses.
    Refuses,
    /// Runs the statements, and ignores their errors.
    IgnoresErrors,
}

/// Error of the host's own.
#[derive(Debug)]
struct NotToday;

impl std::fmt::Display for NotToday {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not today")
    }
}

impl std::error::Error for NotToday {}

trait Engine {
    /// Location of a new database with the host's table `mood (n INT NOT NULL PRIMARY KEY)`, which has a row 1.
    async fn fresh() -> String;
    async fn open(at: &str) -> Arc<dyn Store>;
    /// Change that runs a statement in the host's way, and counts its runs.
    fn change(sql: &'static str, host: Host, runs: &Arc<AtomicU32>) -> Change;
    async fn moods(at: &str) -> Vec<i64>;
}

macro_rules! engine {
    ($name:ident: $connection:ty, $store:ty, fresh: $fresh:expr, open: $open:expr, url: $url:expr) => {
        struct $name;

        impl Engine for $name {
            async fn fresh() -> String {
                let at: String = $fresh.await;
                let mut connection = <$connection>::connect(&$url(&at)).await.unwrap();
                let create = "CREATE TABLE mood (n INT NOT NULL PRIMARY KEY); INSERT INTO mood VALUES (1)";
                sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
                at
            }
            async fn open(at: &str) -> Arc<dyn Store> {
                Arc::new($open(at).await)
            }
            fn change(sql: &'static str, host: Host, runs: &Arc<AtomicU32>) -> Change {
                let runs = runs.clone();
                <$store>::host_change(move |connection| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    Box::pin(async move {
                        let done = sqlx::raw_sql(sql).execute(connection).await;
                        match host {
                            Host::Runs => Ok(done.map(drop)?),
                            Host::Refuses => Err(NotToday.into()),
                            Host::IgnoresErrors => Ok(()),
                        }
                    })
                })
            }
            async fn moods(at: &str) -> Vec<i64> {
                let mut connection = <$connection>::connect(&$url(at)).await.unwrap();
                let all = sqlx::query_scalar::<_, i32>("SELECT n FROM mood ORDER BY n")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
                all.into_iter().map(i64::from).collect()
            }
        }
    };
}

engine!(
    Sqlite: SqliteConnection, SqliteStore,
    fresh: async {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        folder.join("host.db").display().to_string()
    },
    open: async |at: &str| SqliteOptions::new(at).with_shared_file(true).open().await.unwrap(),
    url: |at: &str| format!("sqlite://{at}?mode=rwc")
);
engine!(
    MariaDb: MySqlConnection, MySqlStore,
    fresh: support::fresh::<MySql>("COUPLE_TEST_MARIADB"),
    open: async |at: &str| MySqlOptions::new(at).with_max_connections(5).connect().await.unwrap(),
    url: str::to_owned
);
engine!(
    PostgreSql: PgConnection, PostgresStore,
    fresh: support::fresh::<Postgres>("COUPLE_TEST_POSTGRES"),
    open: async |at: &str| PostgresOptions::new(at).with_max_connections(5).connect().await.unwrap(),
    url: str::to_owned
);

fn failure(result: Result<couple_core::Committed, CommitError>) -> Error {
    match result {
        Err(CommitError::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn rows_of_host_and_store<E: Engine>() {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::new(AtomicU32::new(0)));
    let account = world.account("ana");
    let insert = || AccountChange::Insert(account.clone()).into();
    let enqueue = || JobChange::Enqueue(world.job("mail")).into();
    let absent = async || {
        assert_eq!(store.account(account.id).await.unwrap(), None);
        assert_eq!(store.next_due("mail").await.unwrap(), None);
        assert_eq!(E::moods(&at).await, [1]);
    };

    // An error of the host, and a constraint of its table, undo the whole commit, and run once.
    let refuse = E::change("INSERT INTO mood VALUES (2)", Host::Refuses, &runs);
    let error = failure(store.commit(vec![insert(), enqueue(), refuse]).await);
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(std::error::Error::source(&error).unwrap().is::<NotToday>(), "{error}");
    absent().await;
    let duplicate = E::change("INSERT INTO mood VALUES (1)", Host::Runs, &runs);
    let error = failure(store.commit(vec![insert(), enqueue(), duplicate]).await);
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(std::error::Error::source(&error).unwrap().is::<sqlx::Error>(), "{error}");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    absent().await;

    // Statements that end the transaction are noticed.
    let rollback = E::change("ROLLBACK", Host::Runs, &runs);
    let error = failure(store.commit(vec![insert(), enqueue(), rollback]).await);
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    absent().await;

    // A conflict before or after the statements undoes them.
    for position in [0, 1] {
        let paired = world.stored_couple(&store).await;
        let mut changes = vec![E::change("INSERT INTO mood VALUES (2)", Host::Runs, &runs)];
        changes.insert(position, PairingChange::ExpectUnpaired { account: paired.members[0] }.into());
        match store.commit(changes).await {
            Err(CommitError::Conflict(Conflict::Paired(account))) => assert_eq!(account, paired.members[0]),
            other => panic!("{other:?}"),
        }
        absent().await;
    }

    // Both are written, and the statements see what the changes before them wrote.
    let copy = E::change("INSERT INTO mood SELECT 1 + COUNT(*) FROM couple_job", Host::Runs, &runs);
    let committed = store.commit(vec![insert(), enqueue(), copy]).await.unwrap();
    assert_eq!(committed.results().len(), 3);
    assert_eq!(store.account(account.id).await.unwrap().as_ref(), Some(&account));
    assert_eq!(E::moods(&at).await, [1, 2]);
    store.close().await.unwrap();
}

/// Commits with statements that update one row run concurrently with other commits, in two processes.
async fn concurrent_statements<E: Engine>(stores: usize) {
    let at = E::fresh().await;
    let (world, runs) = (Arc::new(World::default()), Arc::new(AtomicU32::new(0)));
    let mut work = tokio::task::JoinSet::new();
    for n in 0..stores {
        let store = E::open(&at).await;
        for m in 0..20 {
            let account = AccountChange::Insert(world.account(&format!("p{n}x{m}"))).into();
            let update = E::change("UPDATE mood SET n = n + 1", Host::Runs, &runs);
            let other = AccountChange::Insert(world.account(&format!("other{n}x{m}"))).into();
            let (one, two) = (store.clone(), store.clone());
            work.spawn(async move { one.commit(vec![account, update]).await.map(drop) });
            work.spawn(async move { two.commit(vec![other]).await.map(drop) });
        }
    }
    let results = work.join_all().await;
    for result in results {
        result.unwrap();
    }
    assert_eq!(E::moods(&at).await, [1 + 20 * stores as i64]);
}

macro_rules! engines {
    ($($name:ident: $engine:ty, stores: $stores:literal;)+) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn rows_of_host_and_store_are_written_together_or_not_at_all() {
                rows_of_host_and_store::<$engine>().await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn concurrent_statements_on_one_row_all_succeed() {
                concurrent_statements::<$engine>($stores).await;
            }
        }
    )+};
}

engines! {
    sqlite: Sqlite, stores: 1;
    mariadb: MariaDb, stores: 2;
    postgres: PostgreSql, stores: 2;
}

/// In PostgreSQL an error ends all further work of the transaction, also if the host ignores it.
#[tokio::test]
async fn ignored_error_of_a_statement_undoes_the_commit() {
    let at = PostgreSql::fresh().await;
    let (store, world, runs) = (PostgreSql::open(&at).await, World::default(), Arc::default());
    let account = world.account("ana");
    let ignored = PostgreSql::change("INSERT INTO mood VALUES (1)", Host::IgnoresErrors, &runs);
    let commit = vec![AccountChange::Insert(account.clone()).into(), ignored];
    let error = failure(store.commit(commit).await);
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
    assert_eq!(store.account(account.id).await.unwrap(), None);
}

/// A store refuses statements for another engine, and writes nothing.
#[tokio::test]
async fn statements_for_another_store_are_refused() {
    let (world, runs) = (World::default(), Arc::default());
    let account = world.account("ana");
    let changes = || {
        let change = PostgreSql::change("INSERT INTO mood VALUES (2)", Host::Runs, &runs);
        vec![AccountChange::Insert(account.clone()).into(), change]
    };
    let at = Sqlite::fresh().await;
    for store in [Sqlite::open(&at).await, Arc::new(MemoryStore::new())] {
        let error = failure(store.commit(changes()).await);
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
        assert_eq!(store.account(account.id).await.unwrap(), None);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}
