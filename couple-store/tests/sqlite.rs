//! The store on SQLite passes the conformance kit and matches the memory store.
#![expect(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use couple_conformance::World;
use couple_core::{
    Change, CommitError, ErrorKind, Store, account::AccountChange, media::MediaChange, pairing::Couple,
};
use couple_store::{
    MemoryStore,
    sql::{SqliteOptions, SqliteStore},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::sleep,
};

/// New folder in the build directory; `./test` removes old ones.
fn folder() -> PathBuf {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep()
}

async fn open(merge: usize) -> SqliteStore {
    open_at(folder().join("couple.db"), merge).await
}

async fn open_at(path: PathBuf, merge: usize) -> SqliteStore {
    SqliteOptions::new(path).with_max_merged_commits(merge).open().await.unwrap()
}

/// Files of this process, each with the name of a check.
static FILES: LazyLock<PathBuf> = LazyLock::new(folder);

mod merged {
    use super::*;
    couple_conformance::store!(
        named: |name| open_at(FILES.join(name), 64),
        reference: async { MemoryStore::new() },
        reopen: |name| open_at(FILES.join(name), 64),
    );
}

mod one_by_one {
    use super::*;
    couple_conformance::store!(
        named: |name| open_at(FILES.join(format!("{name}-1")), 1),
        reopen: |name| open_at(FILES.join(format!("{name}-1")), 1),
    );
}

mod shared {
    use super::*;
    couple_conformance::store!(async { Arc::new(open(64).await) as Arc<dyn Store> });
}

/// Change that inserts a picture of the couple. With `i64::MAX` bytes it panics if the couple has another: the sum overflows in debug builds.
fn photo(world: &World, couple: &Couple, content: &str, bytes: i64) -> Change {
    let mut media = world.photo(couple.id, couple.members[0], content);
    if let Some(source) = &mut media.source {
        source.bytes = bytes;
    }
    MediaChange::Insert { media, most: i64::MAX }.into()
}

/// Keeps statements of a host running until the test opens it.
struct Gate {
    running: Arc<Semaphore>,
    opened: Arc<Semaphore>,
}

impl Gate {
    fn closed() -> Self {
        Self { running: Arc::new(Semaphore::new(0)), opened: Arc::new(Semaphore::new(0)) }
    }

    /// Change of a host whose statements wait until the gate is open.
    fn change(&self) -> Change {
        let (running, opened) = (self.running.clone(), self.opened.clone());
        SqliteStore::host_change(move |_| {
            let (running, opened) = (running.clone(), opened.clone());
            Box::pin(async move {
                running.add_permits(1);
                opened.acquire().await.unwrap().forget();
                Ok(())
            })
        })
    }

    /// Waits until the statements run.
    async fn until_running(&self) {
        self.running.acquire().await.unwrap().forget();
    }

    /// Lets the statements end, after more than the 100 ms of a turn: the next commits are then taken from the queue.
    async fn open_after_a_turn(&self) {
        sleep(Duration::from_millis(110)).await;
        self.opened.add_permits(1);
    }
}

/// Change of a host that does nothing.
fn host_change() -> Change {
    SqliteStore::host_change(|_| Box::pin(async { Ok(()) }))
}

/// Starts a commit of one change. Returns when it is in the queue, or waits for room in it.
async fn enqueue(store: &Arc<SqliteStore>, change: Change) -> JoinHandle<Result<(), CommitError>> {
    let (store, (polled, is_polled)) = (store.clone(), oneshot::channel());
    let task = tokio::spawn(async move {
        let mut commit = store.commit(vec![change]);
        // The first poll enqueues it.
        tokio::select! {
            biased;
            result = &mut commit => return result.map(drop),
            () = std::future::ready(()) => polled.send(()).unwrap(),
        }
        commit.await.map(drop)
    });
    is_polled.await.unwrap();
    task
}

/// A panic in the writer fails only the commits of its transaction; the writer is restarted.
#[tokio::test]
async fn writer_restarts_after_a_panic() {
    let (store, world) = (open(64).await, World::default());
    let couple = world.stored_couple(&store).await;
    let insert = |content: &str, bytes| vec![photo(&world, &couple, content, bytes)];
    store.commit(insert("first", 1)).await.unwrap();
    for n in 0..3 {
        match store.commit(insert("overflow", i64::MAX)).await {
            Err(CommitError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            other => panic!("{other:?}"),
        }
        store.ping().await.unwrap();
        // Nothing was written, and no lock is held.
        store.commit(insert(&n.to_string(), 1)).await.unwrap();
        assert_eq!(store.writer_restarts(), n + 1);
    }
    store.close().await.unwrap();
}

/// After a panic of the writer, a commit in its queue that has not begun was certainly not written.
#[tokio::test]
async fn panic_of_the_writer_refuses_commits_that_have_not_begun() {
    let (store, world) = (Arc::new(open(64).await), World::default());
    let couple = world.stored_couple(&*store).await;
    store.commit(vec![photo(&world, &couple, "first", 1)]).await.unwrap();
    let gate = Gate::closed();
    let first = enqueue(&store, gate.change()).await;
    gate.until_running().await;
    // It takes the whole turn, so the ordinary commit is next.
    let queued = enqueue(&store, host_change()).await;
    let panicked = enqueue(&store, photo(&world, &couple, "overflow", i64::MAX)).await;
    gate.open_after_a_turn().await;
    first.await.unwrap().unwrap();
    let (queued, panicked) = (queued.await.unwrap(), panicked.await.unwrap());
    for (result, expected) in [(queued, ErrorKind::Overloaded), (panicked, ErrorKind::TimedOut)] {
        match result {
            Err(CommitError::Failed(error)) => assert_eq!(error.kind(), expected, "{error}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.writer_restarts(), 1);
    store.commit(vec![host_change()]).await.unwrap();
    store.close().await.unwrap();
}

/// A panic fails the commits of its transaction, which shows how many commits it had.
#[tokio::test]
async fn as_many_commits_as_the_host_permits_share_a_transaction() {
    let (store, world) = (Arc::new(open(3).await), World::default());
    let couple = world.stored_couple(&*store).await;
    store.commit(vec![photo(&world, &couple, "first", 1)]).await.unwrap();
    let gate = Gate::closed();
    let first = enqueue(&store, gate.change()).await;
    gate.until_running().await;
    let mut queued = Vec::new();
    for n in 0..5 {
        let insert = AccountChange::Insert(world.account(&format!("p{n}")));
        queued.push(enqueue(&store, insert.into()).await);
    }
    queued.push(enqueue(&store, photo(&world, &couple, "overflow", i64::MAX)).await);
    gate.open_after_a_turn().await;
    first.await.unwrap().unwrap();
    let mut failed = Vec::new();
    for (n, commit) in queued.into_iter().enumerate() {
        match commit.await.unwrap() {
            Ok(()) => {}
            Err(CommitError::Failed(error)) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                failed.push(n);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed, [3, 4, 5], "the first three were in a transaction of their own");
    store.close().await.unwrap();
}

/// The queue holds 1,024 commits, and the writer keeps 1,024 more with statements; further ones are refused.
#[tokio::test]
async fn number_of_commits_that_wait_for_slow_statements_is_limited() {
    let store = Arc::new(open(64).await);
    let gates = [Gate::closed(), Gate::closed()];
    let first = enqueue(&store, gates[0].change()).await;
    gates[0].until_running().await;
    // The second and 1,023 others fill the queue; the rest waits for room in it.
    let second = enqueue(&store, gates[1].change()).await;
    let mut others = Vec::new();
    for _ in 0..1_023 + 1_024 {
        others.push(enqueue(&store, host_change()).await);
    }
    gates[0].open_after_a_turn().await;
    first.await.unwrap().unwrap();
    // The writer has taken the queue, which the rest fills while the second runs.
    gates[1].until_running().await;
    gates[1].open_after_a_turn().await;
    second.await.unwrap().unwrap();
    let mut refused = 0;
    for other in others {
        match other.await.unwrap() {
            Err(CommitError::Failed(error)) if error.to_string().contains("too many commits") => {
                assert_eq!(error.kind(), ErrorKind::Overloaded);
                refused += 1;
            }
            // Others have waited for too long.
            Err(CommitError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
            result => result.unwrap(),
        }
    }
    assert_eq!(refused, 1_023, "the writer had 1,023 when it took 1,024 more");
    store.close().await.unwrap();
}

mod opening {
    use super::*;

    async fn open_error(path: &std::path::Path) -> (ErrorKind, String) {
        let error = SqliteOptions::new(path).open().await.unwrap_err();
        (error.kind(), error.to_string())
    }

    #[tokio::test]
    async fn commits_survive_a_reopen() {
        let path = folder().join("couple.db");
        let account = couple_conformance::World::default().account("ana");
        let store = SqliteOptions::new(&path).open().await.unwrap();
        let insert = couple_core::account::AccountChange::Insert(account.clone());
        store.commit(vec![insert.into()]).await.unwrap();
        // As after a crash: the first store is not closed.
        let again = SqliteOptions::new(&path).open().await.unwrap();
        use couple_core::account::AccountReads as _;
        assert_eq!(again.account(account.id).await.unwrap(), Some(account));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn database_files_are_closed_to_other_users() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.join("couple.db");
        let account = couple_conformance::World::default().account("ana");
        let store = SqliteOptions::new(&path).open().await.unwrap();
        store.commit(vec![couple_core::account::AccountChange::Insert(account).into()]).await.unwrap();
        let files = ["couple.db", "couple.db-wal", "couple.db-shm"].map(|name| folder.join(name));
        let mode = |file: &PathBuf| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
        for file in &files {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
        // Files of an earlier version, readable by every user.
        for file in &files {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o664)).unwrap();
        }
        let _again = SqliteOptions::new(&path).open().await.unwrap();
        for file in &files {
            assert_eq!(mode(file), 0o660, "{}", file.display());
        }
    }

    #[tokio::test]
    async fn damaged_file_is_named_and_unchanged() {
        let path = folder().join("couple.db");
        std::fs::write(&path, "this is a shopping list, not a database at all").unwrap();
        let (kind, text) = open_error(&path).await;
        assert_eq!(kind, ErrorKind::Corrupt, "{text}");
        assert!(text.contains("couple.db is damaged or not a SQLite database"), "{text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "this is a shopping list, not a database at all");
    }

    #[tokio::test]
    async fn foreign_database_is_unchanged() {
        use sqlx::{ConnectOptions as _, Connection as _};
        let path = folder().join("other.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE account (x)").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let before = std::fs::read(&path).unwrap();
        let (kind, text) = open_error(&path).await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("another program's database"), "{text}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[tokio::test]
    async fn newer_schema_is_refused() {
        use sqlx::{ConnectOptions as _, Connection as _};
        let path = folder().join("couple.db");
        drop(SqliteOptions::new(&path).open().await.unwrap());
        let mut connection =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let newer = "INSERT INTO couple_migration VALUES (99, 'future', 'x', 1)";
        sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let (kind, text) = open_error(&path).await;
        assert_eq!(kind, ErrorKind::Misconfigured);
        assert!(text.contains("schema 99") && text.contains("newer version"), "{text}");
    }

    #[tokio::test]
    async fn full_disk_is_an_error_and_loses_nothing() {
        use couple_core::account::AccountReads as _;
        let path = folder().join("couple.db");
        let world = couple_conformance::World::default();
        let store = SqliteOptions::new(&path).with_max_pages(80).open().await.unwrap();
        let mut stored = Vec::new();
        let refused = loop {
            let account = world.account(&format!("p{}", stored.len()));
            match store.commit(vec![AccountChange::Insert(account.clone()).into()]).await {
                Ok(_) => stored.push(account),
                Err(couple_core::CommitError::Failed(error)) => break error,
                Err(conflict) => panic!("{conflict}"),
            }
        };
        assert_eq!(refused.kind(), ErrorKind::Full);
        assert!(refused.is_retryable() && stored.len() > 50, "{refused} after {}", stored.len());
        // Reads still work; with free space writes work again.
        assert_eq!(store.account(stored[0].id).await.unwrap().as_ref(), Some(&stored[0]));
        store.close().await.unwrap();
        let store = SqliteOptions::new(&path).open().await.unwrap();
        for account in stored {
            assert_eq!(store.account(account.id).await.unwrap(), Some(account));
        }
        store.commit(vec![AccountChange::Insert(world.account("more")).into()]).await.unwrap();
    }

    #[tokio::test]
    async fn missing_folder_is_named() {
        let (kind, text) = open_error(&folder().join("nowhere/couple.db")).await;
        assert_eq!(kind, ErrorKind::Misconfigured, "{text}");
        assert!(text.contains("nowhere/couple.db"), "{text}");
        assert!(text.contains("create the folder"), "{text}");
    }

    #[tokio::test]
    async fn concurrent_opens_and_migrations_succeed() {
        let path = folder().join("couple.db");
        let opens: Vec<_> = (0..8).map(|_| tokio::spawn(SqliteOptions::new(&path).open())).collect();
        for open in opens {
            open.await.unwrap().unwrap();
        }
    }
}

mod queries {
    use super::*;

    /// Every query uses an index.
    #[tokio::test]
    async fn every_query_uses_an_index() {
        use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _};
        let path = folder().join("couple.db");
        drop(SqliteOptions::new(&path).open().await.unwrap());
        let mut connection =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let mut looked_at = 0;
        for (name, sql) in couple_store::sql::statements::<sqlx::Sqlite>() {
            if sql.starts_with("INSERT") && !sql.contains("SELECT") {
                continue;
            }
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            let plan = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
            for row in plan {
                let step: String = row.get("detail");
                // Skip constant rows and the results of subqueries.
                let made = ["CONSTANT ROW", "SUBQUERY", "SCAN one"].iter().any(|made| step.contains(made));
                let scans = step.starts_with("SCAN") && !made;
                assert!(!scans, "{name} scans: {step}\n{sql}");
                let leased = ["NEXT_LEASE_END", "ABANDONED"].contains(&name);
                assert!(
                    !leased || step.contains("job_leased"),
                    "{name} reads the jobs that wait: {step}\n{sql}"
                );
                // Sorting the few rows of one account or one address is allowed.
                let sorts = step.contains("USE TEMP B-TREE FOR ORDER BY");
                let few = ["SESSIONS_OF", "COUPLES_OF", "BLOCKS_OF", "DEVICES_OF", "DATES_OF"];
                assert!(!sorts || few.contains(&name), "{name} sorts: {step}\n{sql}");
            }
            looked_at += 1;
        }
        assert!(looked_at > 50, "{looked_at}");
    }
}

/// A connection that replaces a failed one has the same settings.
#[tokio::test]
async fn replaced_connection_has_the_same_settings() {
    let options = SqliteOptions::new(folder().join("couple.db")).with_max_pages(5_000);
    let store = options.open().await.unwrap();
    let found = Arc::new(std::sync::Mutex::new(Vec::new()));
    let settings = || {
        let found = found.clone();
        let look = SqliteStore::host_change(move |connection| {
            let found = found.clone();
            Box::pin(async move {
                for name in
                    ["busy_timeout", "wal_autocheckpoint", "max_page_count", "synchronous", "foreign_keys"]
                {
                    let pragma = sqlx::AssertSqlSafe(format!("PRAGMA {name}"));
                    let value: i64 = sqlx::query_scalar(pragma).fetch_one(&mut *connection).await?;
                    found.lock().unwrap().push(value);
                }
                Ok(())
            })
        });
        vec![look]
    };
    store.commit(settings()).await.unwrap();
    // The connection is closed, because the transaction was ended.
    let ends = SqliteStore::host_change(|connection| {
        Box::pin(async move { Ok(sqlx::raw_sql("COMMIT").execute(connection).await.map(drop)?) })
    });
    store.commit(vec![ends]).await.unwrap_err();
    store.commit(settings()).await.unwrap();
    let expected = [2_000, 16_384, 5_000, 2, 1];
    assert_eq!(*found.lock().unwrap(), [expected, expected].concat());
    store.close().await.unwrap();
}
