//! Mail through a real relay, Exim, with STARTTLS and sign-in, while the process that sends it is killed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
mod engine;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use couple::{Clock as _, SystemClock, job::JobReads as _, store::sql::SqliteOptions};
use engine::Engine;
use serde_json::json;
use support::{Client, Server, code_in, free_address};
use tokio::time::{Instant, sleep};

/// Concurrent clients that sign up.
const CLIENTS: usize = 8;
/// Mails that a process sends at the same time: the concurrency of the queue `mail` (`Backend::builder`).
const CONCURRENT_MAILS: usize = 8;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// A relay, and the server process that sends through it.
struct Fixture {
    relay: Engine,
    folder: tempfile::TempDir,
    binary: PathBuf,
    settings: Vec<(&'static str, String)>,
    server: Server,
}

/// A mail in the queue of the relay.
struct Accepted {
    to: String,
    message_id: String,
    text: String,
}

impl Fixture {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Exim drops the rights of the administrator before it reads the key.
        #[cfg(unix)]
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let relay = Engine::start_with("smtp", &[certificate.to_str().unwrap(), key.to_str().unwrap()]).await;
        let settings = vec![
            ("COUPLE_MAIL", format!("smtp://app:a%20secret@127.0.0.1:{}?tls=required", relay.port)),
            ("COUPLE_MAIL_FROM", "app@sender.example".to_owned()),
            ("COUPLE_MAIL_ROOT_CERTIFICATES", certificate.to_str().unwrap().to_owned()),
            ("COUPLE_LIMITS", "off".to_owned()),
            ("RUST_LOG", "warn".to_owned()),
        ];
        let binary = support::binary();
        let server = spawn(&binary, folder.path(), &settings);
        server.until_ready().await;
        Self { relay, folder, binary, settings, server }
    }

    /// Kills the server process and starts the next one.
    async fn restart(&mut self) {
        self.server.kill();
        self.server = spawn(&self.binary, self.folder.path(), &self.settings);
        self.server.until_ready().await;
    }

    /// All mails that the relay has accepted.
    fn accepted(&self) -> Vec<Accepted> {
        let queue = self.relay.folder().join("spool/input");
        let files = std::fs::read_dir(&queue).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().to_str()?.strip_suffix("-H").map(str::to_owned));
        names.map(|name| Accepted::read(&queue, &name)).collect()
    }

    /// Waits until the relay has accepted a mail to each of `expected`.
    async fn until_accepted(&self, expected: &BTreeSet<String>, limit: Duration) {
        let started = Instant::now();
        loop {
            let accepted: BTreeSet<_> = self.accepted().into_iter().map(|mail| mail.to).collect();
            let missing = expected.difference(&accepted).count();
            if missing == 0 {
                return;
            }
            assert!(
                started.elapsed() < limit,
                "{missing} of {} mails did not arrive in {limit:?}; the server's log ends with: {}",
                expected.len(),
                self.end_of_log()
            );
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Last lines of the server's log.
    fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        log[log.floor_char_boundary(log.len().saturating_sub(2_000))..].to_owned()
    }

    /// Waits until no job of the queue `mail` is left; returns the errors of the dead jobs.
    async fn until_finished(&self) -> Vec<String> {
        let started = Instant::now();
        let store =
            SqliteOptions::new(self.folder.path().join("couple-data/couple.db")).open().await.unwrap();
        loop {
            let queue = store.queue_stats("mail", SystemClock.now()).await.unwrap();
            if queue.ready == 0 && queue.waiting == 0 {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "jobs that never end: {queue:?}");
            sleep(Duration::from_millis(100)).await;
        }
        store.dead_jobs(None, 1_000).await.unwrap().into_iter().map(|dead| dead.error).collect()
    }
}

fn spawn(binary: &Path, folder: &Path, settings: &[(&'static str, String)]) -> Server {
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, &**value)).collect();
    Server::spawn(binary, folder, free_address(), &settings)
}

impl Accepted {
    fn read(queue: &Path, name: &str) -> Self {
        let envelope = std::fs::read_to_string(queue.join(format!("{name}-H"))).unwrap();
        let text = std::fs::read_to_string(queue.join(format!("{name}-D"))).unwrap();
        // The list of recipients ends with an empty line, before the header.
        let to = envelope.split("\n\n").next().and_then(|top| top.lines().last()).unwrap().to_owned();
        let message_id =
            envelope.lines().find_map(|line| line.split_once("Message-ID: ")).unwrap().1.to_owned();
        Self { to, message_id, text }
    }
}

async fn sign_up(client: &mut Client, email: &str) {
    let body = json!({ "email": email, "display_name": "Ana" });
    let answer = client.call("POST", "/v1/accounts", None, Some(&body), Some(email)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// Numbers of copies of each mail; checks that copies have the same `Message-ID` and no two mails have one.
fn copies(accepted: &[Accepted]) -> BTreeMap<&str, usize> {
    let (mut of_id, mut of_address) = (BTreeMap::new(), BTreeMap::new());
    for mail in accepted {
        let known = of_id.entry(&*mail.message_id).or_insert(&*mail.to);
        assert_eq!(*known, mail.to, "two mails with the Message-ID {}", mail.message_id);
        let first = of_address.entry(&*mail.to).or_insert((&*mail.message_id, 0));
        assert_eq!(first.0, mail.message_id, "copies to {} with different Message-IDs", mail.to);
        first.1 += 1;
    }
    of_address.into_iter().map(|(to, (_, count))| (to, count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mail_arrives_once_or_is_dead_with_a_reason() {
    let fixture = Fixture::start().await;
    let mut client = Client::new(fixture.server.address);
    let expected: BTreeSet<_> = (0..100).map(|n| format!("p{n}@example.org")).collect();
    for email in &expected {
        sign_up(&mut client, email).await;
    }
    sign_up(&mut client, "nobody@refused.example").await;
    fixture.until_accepted(&expected, Duration::from_secs(60)).await;
    let refused = fixture.until_finished().await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("no such mailbox"), "{refused:?}");
    let accepted = fixture.accepted();
    assert!(copies(&accepted).values().all(|copies| *copies == 1), "more than one copy without a fault");
    assert_eq!(accepted.len(), expected.len());
    for mail in accepted.iter().take(5) {
        let body = json!({ "email": mail.to, "code": code_in(&mail.text).unwrap() });
        let answer = client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A worker that dies after the relay has accepted a mail, and before the end of the job is stored, sends the mail again: at most one
/// copy for each mail that is being sent at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_worker_loses_no_mail_and_repeats_few() {
    let kills = number("COUPLE_RELAY_KILLS", 10);
    let mut fixture = Fixture::start().await;
    let (mut expected, mut unsent) = (BTreeSet::new(), Vec::new());
    for kill in 0..kills {
        let address = fixture.server.address;
        let clients = (0..CLIENTS).map(|client| {
            let emails: Vec<_> = (0..24).map(|n| format!("k{kill}c{client}n{n}@example.org")).collect();
            expected.extend(emails.iter().cloned());
            tokio::spawn(async move {
                let mut client = Client::new(address);
                for email in emails {
                    sign_up(&mut client, &email).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        // All are acknowledged. Mails that the relay has not accepted yet are queued or being sent when the process dies.
        let accepted: BTreeSet<_> = fixture.accepted().into_iter().map(|mail| mail.to).collect();
        unsent.push(expected.difference(&accepted).count());
        fixture.restart().await;
    }
    // A job that a killed process had claimed runs again when its lease ends.
    fixture.until_accepted(&expected, Duration::from_secs(180)).await;
    let dead = fixture.until_finished().await;
    assert_eq!(dead, Vec::<String>::new());
    let accepted = fixture.accepted();
    let copies = copies(&accepted);
    assert_eq!(copies.len(), expected.len());
    assert!(unsent.iter().any(|mails| *mails > 0), "no kill interrupted mails: {unsent:?}");
    let ratio = accepted.len() as f64 / expected.len() as f64;
    println!(
        "{} mails, {kills} kills: {ratio:.4} copies per mail; not accepted at the kills: {unsent:?}",
        expected.len()
    );
    let most = expected.len() + CONCURRENT_MAILS * kills;
    assert!(accepted.len() <= most, "{} copies of {} mails, {kills} kills", accepted.len(), expected.len());
}
