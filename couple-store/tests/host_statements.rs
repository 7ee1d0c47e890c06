//! Statements of the host in the transaction of a commit.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod support;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
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
use sqlx::{
    AssertSqlSafe, Connection as _, MySql, MySqlConnection, PgConnection, Postgres, SqliteConnection,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Behaviour of a change that runs statements.
#[derive(Clone, Copy)]
enum Host {
    /// Runs the statements.
    Runs,
    /// Runs the statements, and then refuses.
    Refuses,
    /// Runs the statements, and ignores their errors.
    IgnoresErrors,
    /// Runs the statements in a transaction that `begin()` of sqlx returns.
    Begins(End),
    /// Runs the statements, and never returns.
    Hangs,
    /// Runs the statements, and panics.
    Panics,
    /// Panics before it returns a future.
    PanicsInCall,
    /// Runs the statements, and waits for 1.7 s.
    IsSlow,
    /// Runs the statements, and waits for 2 ms.
    IsFast,
    /// Takes the first row of `mood` that is not locked, and adds 100 to it.
    TakesFreeRow,
}

/// End of a transaction that the host has begun.
#[derive(Clone, Copy)]
enum End {
    Commit,
    Rollback,
    Drop,
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
    /// Holds the locks of a query in a separate transaction, for a time.
    async fn hold(at: &str, query: &'static str, time: Duration) -> JoinHandle<()>;
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
                    assert!(!matches!(host, Host::PanicsInCall), "the function of the host panics");
                    Box::pin(async move {
                        if let Host::Begins(end) = host {
                            let mut inner = connection.begin().await?;
                            sqlx::raw_sql(sql).execute(&mut *inner).await?;
                            match end {
                                End::Commit => inner.commit().await?,
                                End::Rollback => inner.rollback().await?,
                                End::Drop => drop(inner),
                            }
                            return Ok(());
                        }
                        if let Host::TakesFreeRow = host {
                            let first = "SELECT n FROM mood ORDER BY n LIMIT 1 FOR UPDATE SKIP LOCKED";
                            let n: i32 = sqlx::query_scalar(first).fetch_one(&mut *connection).await?;
                            let update = format!("UPDATE mood SET n = n + 100 WHERE n = {n}");
                            sqlx::raw_sql(AssertSqlSafe(update)).execute(connection).await?;
                            return Ok(());
                        }
                        let done = sqlx::raw_sql(sql).execute(connection).await;
                        match host {
                            Host::Refuses => Err(NotToday.into()),
                            Host::IgnoresErrors => Ok(()),
                            Host::Hangs => pending().await,
                            Host::IsSlow => {
                                sleep(Duration::from_millis(1_700)).await;
                                Ok(done.map(drop)?)
                            }
                            Host::IsFast => {
                                sleep(Duration::from_millis(2)).await;
                                Ok(done.map(drop)?)
                            }
                            Host::Panics => panic!("the statements of the host panic"),
                            _ => Ok(done.map(drop)?),
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
            async fn hold(at: &str, query: &'static str, time: Duration) -> JoinHandle<()> {
                let mut connection = <$connection>::connect(&$url(at)).await.unwrap();
                sqlx::raw_sql("BEGIN").execute(&mut connection).await.unwrap();
                let rows = sqlx::raw_sql(query).fetch_all(&mut connection).await.unwrap();
                assert!(!rows.is_empty(), "{query}");
                tokio::spawn(async move {
                    sleep(time).await;
                    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                })
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

    // A conflict before or after the statements undoes them, and does not run them again.
    let before = runs.load(Ordering::SeqCst);
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
    assert_eq!(runs.load(Ordering::SeqCst) - before, 1, "not at all after a conflict");

    // Both are written, and the statements see what the changes before them wrote.
    let copy = E::change("INSERT INTO mood SELECT 1 + COUNT(*) FROM couple_job", Host::Runs, &runs);
    let committed = store.commit(vec![insert(), enqueue(), copy]).await.unwrap();
    assert_eq!(committed.results().len(), 3);
    assert_eq!(store.account(account.id).await.unwrap().as_ref(), Some(&account));
    assert_eq!(E::moods(&at).await, [1, 2]);
    store.close().await.unwrap();
}

/// A transaction that the host begins is a savepoint in that of the commit.
async fn begin_of_the_host<E: Engine>() {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
    let mut moods = vec![1];
    for (n, end) in [End::Commit, End::Rollback, End::Drop].into_iter().enumerate() {
        let insert =
            ["INSERT INTO mood VALUES (2)", "INSERT INTO mood VALUES (3)", "INSERT INTO mood VALUES (4)"];
        let begins = || E::change(insert[n], Host::Begins(end), &runs);
        // Nothing of the commit is written before its end.
        let account = world.account(&format!("refused{n}"));
        let stored = AccountChange::Insert(account.clone()).into();
        let refuses = E::change("SELECT 1", Host::Refuses, &runs);
        let error = failure(store.commit(vec![stored, begins(), refuses]).await);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert_eq!(store.account(account.id).await.unwrap(), None);
        assert_eq!(E::moods(&at).await, moods);

        let account = world.account(&format!("stored{n}"));
        let stored = AccountChange::Insert(account.clone()).into();
        store.commit(vec![stored, begins()]).await.unwrap();
        assert_eq!(store.account(account.id).await.unwrap(), Some(account));
        if matches!(end, End::Commit) {
            moods.push(2);
        }
        assert_eq!(E::moods(&at).await, moods);
    }
    store.close().await.unwrap();
}

/// Statements that end the transaction may have written what they and the changes before them wrote.
async fn ended_transaction<E: Engine>() {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
    for (n, sql) in ["ROLLBACK", "COMMIT", "COMMIT; BEGIN"].into_iter().enumerate() {
        for host in [Host::Runs, Host::Refuses] {
            let account = world.account(&format!("p{n}{}", matches!(host, Host::Runs)));
            let commit = vec![AccountChange::Insert(account.clone()).into(), E::change(sql, host, &runs)];
            let error = failure(store.commit(commit).await);
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{sql}: {error}");
            assert!(error.to_string().contains("ended the transaction"), "{sql}: {error}");
            let is_stored = store.account(account.id).await.unwrap().is_some();
            assert_eq!(is_stored, sql != "ROLLBACK", "{sql}");
        }
    }
    // The connection was not used again.
    let insert = E::change("INSERT INTO mood VALUES (2)", Host::Runs, &runs);
    store.commit(vec![AccountChange::Insert(world.account("ana")).into(), insert]).await.unwrap();
    assert_eq!(E::moods(&at).await, [1, 2]);
    store.close().await.unwrap();
}

/// Statements that never return fail after their time limit, and stop no other commit.
async fn hanging_statements<E: Engine>() {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
    let hangs = E::change("INSERT INTO mood VALUES (2)", Host::Hangs, &runs);
    let account = world.account("ana");
    let hanging = vec![AccountChange::Insert(account.clone()).into(), hangs];
    let hanging = tokio::spawn({
        let store = store.clone();
        async move { store.commit(hanging).await }
    });
    while runs.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    for n in 0..5 {
        let insert = AccountChange::Insert(world.account(&format!("other{n}"))).into();
        timeout(Duration::from_secs(4), store.commit(vec![insert])).await.expect("commits go on").unwrap();
    }
    let error = failure(timeout(Duration::from_secs(4), hanging).await.expect("a time limit").unwrap());
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let insert = E::change("INSERT INTO mood VALUES (3)", Host::Runs, &runs);
    timeout(Duration::from_secs(4), store.commit(vec![insert])).await.expect("statements go on").unwrap();
    assert_eq!(store.account(account.id).await.unwrap(), None);
    assert_eq!(E::moods(&at).await, [1, 3]);
    store.close().await.unwrap();
}

/// A panic of the host's function fails its own commit, and none that waits behind it.
async fn panicking_statements<E: Engine>() {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
    for (n, host) in [Host::Panics, Host::PanicsInCall].into_iter().enumerate() {
        let account = world.account(&format!("p{n}"));
        let panics = E::change("INSERT INTO mood VALUES (2)", host, &runs);
        let insert = E::change("UPDATE mood SET n = n + 10", Host::Runs, &runs);
        let (panicked, inserted) = tokio::join!(
            store.commit(vec![AccountChange::Insert(account.clone()).into(), panics]),
            store.commit(vec![insert]),
        );
        let error = failure(panicked);
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(error.to_string().contains("panicked"), "{error}");
        inserted.unwrap();
        assert_eq!(store.account(account.id).await.unwrap(), None);
    }
    assert_eq!(store.writer_restarts(), 0);
    assert_eq!(E::moods(&at).await, [21]);
    store.close().await.unwrap();
}

/// Of commits with slow statements that are made together, one runs, and the others are refused before they begin.
async fn queued_statements<E: Engine>(host: Host) {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
    let mut commits = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (store, slow) = (store.clone(), E::change("UPDATE mood SET n = n + 1", host, &runs));
        commits.spawn(async move { store.commit(vec![slow]).await });
    }
    while runs.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    store.commit(vec![AccountChange::Insert(world.account("ana")).into()]).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(2_600), "{:?}", started.elapsed());
    let (mut ran, mut refused) = (0, 0);
    for result in commits.join_all().await {
        match result {
            Ok(_) if matches!(host, Host::IsSlow) => ran += 1,
            Err(CommitError::Failed(error)) if error.kind() == ErrorKind::Overloaded => refused += 1,
            Err(CommitError::Failed(error)) if matches!(host, Host::Hangs) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                ran += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ran, refused, runs.load(Ordering::SeqCst)), (1, 4, 1));
    let again = E::change("UPDATE mood SET n = n + 1", Host::Runs, &runs);
    timeout(Duration::from_secs(4), store.commit(vec![again])).await.expect("statements go on").unwrap();
    let moods = if matches!(host, Host::IsSlow) { [3] } else { [2] };
    assert_eq!(E::moods(&at).await, moods);
    store.close().await.unwrap();
}

/// Slow statements do not delay a commit that waits for a locked row.
async fn slow_statements<E: Engine>() {
    let at = E::fresh().await;
    let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
    let account = world.account("ana");
    store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
    let hangs = E::change("UPDATE mood SET n = n", Host::Hangs, &runs);
    let hanging = tokio::spawn({
        let store = store.clone();
        async move { store.commit(vec![hangs]).await.map(drop) }
    });
    while runs.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let query = "SELECT version FROM couple_account FOR UPDATE";
    let held = E::hold(&at, query, Duration::from_millis(300)).await;
    let started = Instant::now();
    store.commit(vec![AccountChange::Update(account).into()]).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1_200), "{:?}", started.elapsed());
    held.await.unwrap();
    assert!(hanging.await.unwrap().is_err());
    store.close().await.unwrap();
}

/// Statements skip locked rows, and wait for them, as on a connection of the host.
async fn statements_and_locks<E: Engine>() {
    let at = E::fresh().await;
    let (store, runs) = (E::open(&at).await, Arc::default());
    store.commit(vec![E::change("INSERT INTO mood VALUES (2)", Host::Runs, &runs)]).await.unwrap();
    let query = "SELECT n FROM mood WHERE n = 1 FOR UPDATE";
    let held = E::hold(&at, query, Duration::from_millis(700)).await;
    let started = Instant::now();
    store.commit(vec![E::change("", Host::TakesFreeRow, &runs)]).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(E::moods(&at).await, [1, 102]);
    let update = E::change("UPDATE mood SET n = 5 WHERE n = 1", Host::Runs, &runs);
    store.commit(vec![update]).await.unwrap();
    assert!(started.elapsed() > Duration::from_millis(600), "{:?}", started.elapsed());
    held.await.unwrap();
    assert_eq!(E::moods(&at).await, [5, 102]);
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
            #[tokio::test]
            async fn begin_of_the_host_makes_a_savepoint() {
                begin_of_the_host::<$engine>().await;
            }
            #[tokio::test]
            async fn statements_that_end_the_transaction_have_an_unknown_outcome() {
                ended_transaction::<$engine>().await;
            }
            #[tokio::test]
            async fn statements_that_never_return_stop_no_other_commit() {
                hanging_statements::<$engine>().await;
            }
            #[tokio::test]
            async fn statements_that_panic_fail_their_own_commit() {
                panicking_statements::<$engine>().await;
            }
            #[tokio::test]
            async fn late_statements_are_refused_and_delay_no_other_commit() {
                queued_statements::<$engine>(Host::IsSlow).await;
                queued_statements::<$engine>(Host::Hangs).await;
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

#[tokio::test]
async fn slow_statements_do_not_delay_blocked_commits() {
    slow_statements::<MariaDb>().await;
    slow_statements::<PostgreSql>().await;
}

#[tokio::test]
async fn statements_skip_locked_rows_or_wait_for_them() {
    statements_and_locks::<MariaDb>().await;
    statements_and_locks::<PostgreSql>().await;
}

/// The next commits have a new connection, without settings and temporary tables of the host.
#[tokio::test]
async fn settings_of_the_host_in_sqlite_affect_no_other_commit() {
    let at = Sqlite::fresh().await;
    let (store, world, runs) = (Sqlite::open(&at).await, World::default(), Arc::default());
    let settings = ["PRAGMA query_only = 1", "CREATE TEMP TABLE couple_account (id)"];
    for (n, sql) in settings.into_iter().enumerate() {
        for host in [Host::Runs, Host::Refuses] {
            let result = store.commit(vec![Sqlite::change(sql, host, &runs)]).await;
            assert_eq!(result.is_ok(), matches!(host, Host::Runs), "{sql}: {result:?}");
            let account = world.account(&format!("p{n}{}", matches!(host, Host::Runs)));
            store.commit(vec![AccountChange::Insert(account.clone()).into()]).await.unwrap();
            assert_eq!(store.account(account.id).await.unwrap(), Some(account), "{sql}");
        }
    }
    store.close().await.unwrap();
}

/// Fast statements that are queued together all run, and let other commits pass.
#[tokio::test]
async fn burst_of_fast_statements_in_sqlite_succeeds() {
    let at = Sqlite::fresh().await;
    let (store, world, runs) = (Sqlite::open(&at).await, World::default(), Arc::default());
    let mut commits = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (store, update) =
            (store.clone(), Sqlite::change("UPDATE mood SET n = n + 1", Host::IsFast, &runs));
        commits.spawn(async move { store.commit(vec![update]).await.map(drop) });
    }
    while runs.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    // All are queued. At most 50 of them run in the 100 ms for which another commit waits.
    let before = runs.load(Ordering::SeqCst);
    store.commit(vec![AccountChange::Insert(world.account("ana")).into()]).await.unwrap();
    let ran = runs.load(Ordering::SeqCst) - before;
    assert!(ran <= 60, "{ran}");
    for result in commits.join_all().await {
        result.unwrap();
    }
    assert_eq!(Sqlite::moods(&at).await, [101]);
    store.close().await.unwrap();
}

/// When `close` returns, SQLite has closed the file and removed its log, also after statements of the host.
#[tokio::test]
async fn close_waits_for_the_connection_of_statements_in_sqlite() {
    // The second ends the transaction, so its connection is not in a known state.
    for (sql, is_written) in [("UPDATE mood SET n = n + 1", true), ("COMMIT", false)] {
        let at = Sqlite::fresh().await;
        for _ in 0..10 {
            let (store, runs) = (Sqlite::open(&at).await, Arc::default());
            let commit = tokio::spawn({
                let (store, change) = (store.clone(), Sqlite::change(sql, Host::Runs, &runs));
                async move { store.commit(vec![change]).await }
            });
            while runs.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            store.close().await.unwrap();
            assert!(!std::fs::exists(format!("{at}-wal")).unwrap(), "{sql}");
            assert_eq!(commit.await.unwrap().is_ok(), is_written, "{sql}");
        }
    }
}

/// The thread of SQLite stops a statement that would run for ever, and with it the lock of the file.
#[tokio::test]
async fn endless_statement_of_sqlite_is_interrupted() {
    let at = Sqlite::fresh().await;
    let (store, world, runs) = (Sqlite::open(&at).await, World::default(), Arc::default());
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n";
    let commit = vec![Sqlite::change(endless, Host::Runs, &runs)];
    let error = timeout(Duration::from_secs(4), store.commit(commit)).await.expect("a time limit");
    assert_eq!(failure(error).kind(), ErrorKind::TimedOut);
    for n in 0..3 {
        let insert = AccountChange::Insert(world.account(&format!("p{n}"))).into();
        store.commit(vec![insert]).await.unwrap();
    }
    store.close().await.unwrap();
}

/// A deferred constraint of the host, which is checked by COMMIT, counts as its error.
#[tokio::test]
async fn deferred_constraint_of_the_host_refuses_the_commit() {
    let child = "CREATE TABLE child (n INT REFERENCES mood (n) DEFERRABLE INITIALLY DEFERRED)";
    let orphan = "INSERT INTO child VALUES (7)";
    async fn refused<E: Engine>(child: &'static str, orphan: &'static str) {
        let at = E::fresh().await;
        let (store, world, runs) = (E::open(&at).await, World::default(), Arc::default());
        store.commit(vec![E::change(child, Host::Runs, &runs)]).await.unwrap();
        let account = world.account("ana");
        let insert = AccountChange::Insert(account.clone()).into();
        let error = failure(store.commit(vec![insert, E::change(orphan, Host::Runs, &runs)]).await);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert_eq!(store.account(account.id).await.unwrap(), None);
        store.commit(vec![AccountChange::Insert(account).into()]).await.unwrap();
        store.close().await.unwrap();
    }
    refused::<Sqlite>(child, orphan).await;
    refused::<PostgreSql>(child, orphan).await;
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
