//! The server example as a process: errors at its start, and shutdown.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "server-tests")]
#[path = "support/fresh_database.rs"]
mod fresh_database;
mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use couple::{
    Clock as _, OsEntropy, Store as _, SystemClock,
    core::{ChangeResult, JobId},
    job::{JobChange, NewJob},
    store::sql::SqliteOptions,
};
use serde_json::json;
use support::{Client, Server, code_in, free_address, mails_to};

static BINARY: LazyLock<PathBuf> = LazyLock::new(support::binary);

/// All files below a folder, with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_symlink() {
            continue;
        }
        if entry.path().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    all
}

/// Starts a server that must not start: it prints one line that contains `why`, and changes nothing.
fn assert_start_fails(folder: &Path, settings: &[(&str, &str)], why: &str) {
    assert_command_fails(Command::new(&*BINARY), folder, settings, why);
}

fn assert_command_fails(mut start: Command, folder: &Path, settings: &[(&str, &str)], why: &str) {
    let before = files(folder);
    let address = free_address().to_string();
    let out = start
        .current_dir(folder)
        .env_clear()
        .env("COUPLE_LISTEN", &address)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success(), "it started");
    assert_eq!(errors.trim_end().lines().count(), 1, "{errors}");
    assert!(errors.starts_with("couple: ") && errors.contains(why), "{why:?} is not in {errors}");
    assert!(out.stdout.is_empty());
    assert_eq!(files(folder), before, "a file was changed");
}

#[tokio::test]
async fn failed_start_prints_one_line_and_changes_nothing() {
    let empty = tempfile::tempdir().unwrap();
    assert_start_fails(empty.path(), &[("COUPLE_PORT", "8080")], "COUPLE_PORT is not a setting");
    assert_start_fails(empty.path(), &[("COUPLE_DATABASE_URL", "oracle://u:hidden@h/d")], "sqlite://PATH");
    assert_start_fails(empty.path(), &[("RUST_LOG", "couple=loud")], "RUST_LOG");
    assert_start_fails(empty.path(), &[("COUPLE_TABLE_PREFIX", "a-b")], "COUPLE_TABLE_PREFIX=a-b must begin");
    let bucket = [("COUPLE_BLOBS", "s3://bucket"), ("AWS_ENDPOINT_URL", "s3.example.org")];
    assert_start_fails(empty.path(), &bucket, "COUPLE_BLOBS: ");
    assert_start_fails(
        empty.path(),
        &[("COUPLE_MAIL", "smtp://h"), ("COUPLE_MAIL_FROM", "nobody")],
        "mail sender",
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let listener = std::net::TcpListener::bind(&taken);
    assert_start_fails(empty.path(), &[("COUPLE_LISTEN", taken.as_str())], "set COUPLE_LISTEN");
    assert_start_fails(empty.path(), &[("COUPLE_ADMIN_LISTEN", taken.as_str())], "set COUPLE_ADMIN_LISTEN");
    drop(listener);

    // Invalid key file, database and mail folder.
    let broken = |name: &str, content: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("couple-data/mail")).unwrap();
        std::fs::write(folder.path().join("couple-data").join(name), content).unwrap();
        folder
    };
    let key = broken("couple.key", b"short");
    assert_start_fails(key.path(), &[], "run chmod 600 on it");
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(key.path().join("couple-data/couple.key"), owner_only).unwrap();
    assert_start_fails(key.path(), &[], "is not a key file");
    let damaged =
        broken("couple.db", b"not a database, whatever its name says, but long enough to look like one");
    assert_start_fails(damaged.path(), &[], "is damaged or not a SQLite database");
    let file = tempfile::tempdir().unwrap();
    std::fs::write(file.path().join("couple-data"), "a file").unwrap();
    assert_start_fails(file.path(), &[], "couple-data");
    let blocked = tempfile::tempdir().unwrap();
    std::fs::create_dir(blocked.path().join("couple-data")).unwrap();
    std::fs::write(blocked.path().join("couple-data/mail"), "a file").unwrap();
    assert_start_fails(blocked.path(), &[], "cannot write to");
}

/// Runs the server with an argument; returns its exit code and its output.
fn run(folder: &Path, argument: &str, settings: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(&*BINARY);
    command.arg(argument).current_dir(folder).env_clear().envs(settings.iter().copied());
    let out = command.output().unwrap();
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (out.status.code().unwrap(), text)
}

/// Exit codes of `--check`: 3 before the migration, 0 after it, 1 for a database of another program.
#[test]
fn check_tells_by_its_exit_code_whether_a_migration_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |argument: &str| run(folder.path(), argument, &[]);
    let (code, text) = run("--check");
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("lacks the migration 1 initial"), "{text}");
    assert_eq!(files(folder.path()), BTreeMap::new(), "a file was created");
    let (code, text) = run("--migrate-only");
    assert_eq!(code, 0, "{text}");
    let (code, text) = run("--check");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("up to date"), "{text}");
    std::fs::write(folder.path().join("couple-data/couple.db"), "not a database, but long enough for one")
        .unwrap();
    let (code, text) = run("--check");
    assert_eq!(code, 1, "{text}");
    let (code, text) = run("--dry-run");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("--migrate-only, --check, --dead-jobs"), "{text}");
}

/// A job that has failed for good, in the database of a folder.
async fn bury_a_job(folder: &Path) -> JobId {
    let store = SqliteOptions::new(folder.join("couple-data/couple.db")).open().await.unwrap();
    let (id, at) = (JobId::new(&SystemClock, &OsEntropy), SystemClock.now());
    let lease_until = at.plus(Duration::from_secs(60));
    let job = NewJob {
        id,
        queue: "host".to_owned(),
        name: "host.write_to_crm".to_owned(),
        payload: "{\"person\":\"ana\"}".to_owned(),
        dedupe_key: None,
        due_at: at,
        expires_at: at.plus(Duration::from_hours(1)),
        max_attempts: 1,
        created_at: at,
    };
    let claim = JobChange::Claim { queue: "host".to_owned(), now: at, lease_until, claim: 7, limit: 1 };
    let bury = JobChange::Bury { id, claim: 7, error: "no route to the CRM".to_owned(), at };
    store.commit(vec![JobChange::Enqueue(job).into(), claim.into()]).await.unwrap();
    store.commit(vec![bury.into()]).await.unwrap();
    store.close().await.unwrap();
    id
}

#[tokio::test]
async fn operator_lists_and_replays_dead_jobs_beside_a_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::spawn(&BINARY, folder.path(), free_address(), &[]);
    server.until_ready().await;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&*BINARY);
        let out = command.args(arguments).current_dir(folder.path()).env_clear().output().unwrap();
        let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (out.status.code().unwrap(), text)
    };
    assert_eq!(run(&["--dead-jobs"]), (0, "dead jobs: 0\n".to_owned()));
    let ids = [bury_a_job(folder.path()).await, bury_a_job(folder.path()).await].map(|id| id.to_string());
    let (code, text) = run(&["--dead-jobs"]);
    assert_eq!((code, text.lines().count()), (0, 3), "{text}");
    let first = format!("{} host host.write_to_crm, attempts: 1, died ", ids[0]);
    assert!(text.starts_with(&first) && text.contains(": no route to the CRM\n"), "{text}");
    assert!(!text.contains("ana"), "the payload is printed: {text}");

    let (code, text) = run(&["--replay", &ids[1], "0190f1a2-6c1d-7e8f-b3a7-9d2c5e7f1a08"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("live again: 1") && text.contains("no dead job has the id 0190f1a2"), "{text}");
    assert_eq!(run(&["--replay", "all"]), (0, "jobs that are live again: 1\n".to_owned()));
    assert_eq!(run(&["--dead-jobs"]), (0, "dead jobs: 0\n".to_owned()));
    for wrong in [&["--replay"][..], &["--replay", "7"], &["--dead-jobs", "all"]] {
        assert_eq!(run(wrong).0, 1, "{wrong:?}");
    }
    // The replayed jobs are due, and have the lifetime that they had.
    let store = SqliteOptions::new(folder.path().join("couple-data/couple.db")).open().await.unwrap();
    let (queue, now) = ("host".to_owned(), SystemClock.now());
    let claim =
        JobChange::Claim { queue, now, lease_until: now.plus(Duration::from_secs(9)), claim: 8, limit: 9 };
    let committed = store.commit(vec![claim.into()]).await.unwrap();
    let [ChangeResult::Claimed(claimed)] = committed.results() else { panic!("no claim") };
    assert_eq!(claimed.len(), 2);
    for job in claimed {
        let left = job.job.expires_at.micros() - now.micros();
        assert!(left > 3_500_000_000 && left <= 3_600_000_000 && job.attempt == 1, "{job:?}");
    }
}

#[test]
fn installations_with_different_table_prefixes_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let assert_code = |argument: &str, settings: &[(&str, &str)], expected: i32| {
        let (code, text) = run(folder.path(), argument, settings);
        assert_eq!(code, expected, "{text}");
    };
    let other = [("COUPLE_TABLE_PREFIX", "love_")];
    assert_code("--migrate-only", &[], 0);
    // The tables of the other prefix are missing.
    assert_code("--check", &other, 3);
    assert_code("--migrate-only", &other, 0);
    assert_code("--check", &other, 0);
    assert_code("--check", &[], 0);
}

#[cfg(feature = "server-tests")]
#[tokio::test]
async fn tables_are_created_in_the_chosen_schema() {
    use sqlx::Connection as _;
    let folder = tempfile::tempdir().unwrap();
    let url = fresh_database::fresh::<sqlx::Postgres>("COUPLE_TEST_POSTGRES").await;
    let settings = [
        ("COUPLE_DATABASE_URL", url.as_str()),
        ("COUPLE_KEY_FILE", "couple.key"),
        ("COUPLE_DATABASE_SCHEMA", "love"),
        ("COUPLE_TABLE_PREFIX", "app_"),
    ];
    let (code, text) = run(folder.path(), "--migrate-only", &settings);
    assert_eq!(code, 0, "{text}");
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let tables = "SELECT COUNT(*) FROM love.app_account";
    let accounts: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await.unwrap();
    assert_eq!(accounts, 0);
    connection.close().await.unwrap();
}

#[tokio::test]
async fn full_disk_is_an_error_and_loses_nothing() {
    // A file size limit of 0 bytes simulates a full disk; its signal is ignored.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("couple-data")).unwrap();
    let mut start = Command::new("/bin/sh");
    start.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\""]).arg(&*BINARY);
    assert_command_fails(start, folder.path(), &[], "couple.key cannot be written");
}

#[tokio::test]
async fn graceful_shutdown_leaves_one_complete_file() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut server = Server::spawn(&BINARY, folder.path(), address, &[]);
    server.until_ready().await;
    let mut client = Client::new(address);
    let body = json!({ "email": "ana@example.org", "display_name": "Ana" });
    assert_eq!(client.call("POST", "/v1/accounts", None, Some(&body), None).await.status, 202);
    let code = loop {
        if let Some(code) = mails_to(folder.path(), "ana@example.org").iter().find_map(|mail| code_in(mail)) {
            break code;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let body = json!({ "email": "ana@example.org", "code": code });
    let answer = client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
    let token = answer.body["session"]["token"].as_str().unwrap().to_owned();

    let status = Command::new("kill").arg(server.pid().to_string()).status().unwrap();
    assert!(status.success() && server.wait().success());
    let names: Vec<String> = std::fs::read_dir(folder.path().join("couple-data"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("couple.db"))
        .collect();
    assert_eq!(names, ["couple.db"], "the backup is one complete file");

    let server = Server::spawn(&BINARY, folder.path(), address, &[]);
    server.until_ready().await;
    assert_eq!(client.call("GET", "/v1/me", Some(&token), None, None).await.status, 200);
    drop(server);
    // Without its key the database is not treated as a new one.
    std::fs::remove_file(folder.path().join("couple-data/couple.key")).unwrap();
    for name in ["couple.db-wal", "couple.db-shm"] {
        drop(std::fs::remove_file(folder.path().join("couple-data").join(name)));
    }
    let data = folder.path().join("couple-data");
    let before = std::fs::read(data.join("couple.db")).unwrap();
    let out = Command::new(&*BINARY)
        .current_dir(folder.path())
        .env_clear()
        .env("RUST_LOG", "warn")
        .env("COUPLE_LISTEN", address.to_string())
        .output()
        .unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert!(errors.contains("couple.key is missing beside"), "{errors}");
    assert_eq!(std::fs::read(data.join("couple.db")).unwrap(), before);
}

#[tokio::test]
async fn stopping_server_is_not_ready_but_accepts_requests_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut server = Server::spawn(&BINARY, folder.path(), address, &[("COUPLE_STOP_DELAY", "4")]);
    server.until_ready().await;
    let status = async |path: &str| {
        // A new connection for each request.
        Client::new(address)
            .once("GET", path, None, None, &[])
            .await
            .expect("the connection is accepted")
            .status
    };
    assert_eq!(status("/metrics").await, 404, "metrics are not enabled here");
    assert!(Command::new("kill").arg(server.pid().to_string()).status().unwrap().success());
    while status("/readyz").await != 503 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(status("/healthz").await, 200);
    assert!(server.wait().success());
}
