//! Many concurrent sign-ins do not delay other requests: hashing has its own threads and queue.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use couple::{
    Backend, Error,
    account::{Argon2id, HashCost, Password, PasswordHash, PasswordHasher},
    core::limits::Unlimited,
    http::ServeOptions,
    notify::mail::MemoryMailer,
};
use serde_json::{Value, json};
use support::{Client, Server, code_in, free_address, mails_to};
use tokio::{task::JoinHandle, time::Instant};

const SIGN_INS: usize = 300;
/// Maximum p99 of the timeline during the sign-ins, as a multiple of that without them.
const MAX_RATIO: f64 = 3.0;
/// Maximum number of rounds in which other programs on the machine may disturb a measurement.
const MAX_ROUNDS: usize = 5;
/// Variable with the server's address, for the process that signs in.
const ADDRESS: &str = "COUPLE_FLOOD_ADDRESS";

/// 99th percentile of consecutive reads of a page of the timeline, until `enough` returns true.
async fn p99(client: &mut Client, token: &str, mut enough: impl FnMut(usize) -> bool) -> Duration {
    let mut took = Vec::new();
    while !enough(took.len()) {
        let started = Instant::now();
        let page = client.once("GET", "/v1/couple/entries?limit=20", Some(token), None, &[]).await.unwrap();
        assert_eq!(page.status, 200, "{}", page.body);
        took.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Signs up and in; returns the token of the session. `mailed` finds the code of an address.
async fn join(
    client: &mut Client,
    email: &str,
    mut mailed: impl AsyncFnMut(&str) -> Option<String>,
) -> String {
    let body = json!({ "email": email, "display_name": "A" });
    assert_eq!(client.call("POST", "/v1/accounts", None, Some(&body), None).await.status, 202);
    let code = loop {
        if let Some(code) = mailed(email).await {
            break code;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let body = json!({ "email": email, "code": code });
    let answer = client.call("POST", "/v1/accounts/verify", None, Some(&body), None).await;
    answer.body["session"]["token"].as_str().unwrap().to_owned()
}

/// Pairs two accounts and fills a page of their timeline.
async fn pair(client: &mut Client, one: &str, other: &str) {
    let invite = client.call("POST", "/v1/invites", Some(one), Some(&json!({})), None).await.body;
    let accept = json!({ "code": invite["code"] });
    assert_eq!(client.call("POST", "/v1/invites/accept", Some(other), Some(&accept), None).await.status, 201);
    for n in 0..20 {
        let body = json!({ "client_id": n.to_string(), "kind": "text", "body": { "text": "hello" } });
        assert_eq!(client.call("POST", "/v1/couple/entries", Some(one), Some(&body), None).await.status, 201);
    }
}

fn wrong_password(n: usize) -> Value {
    json!({ "email": format!("p{n}@example.org"), "password": "wrong password here" })
}

/// Hasher that blocks its threads while its gate is closed, and counts the blocked ones.
struct Gated {
    inner: Argon2id,
    /// Whether the gate is closed, and the number of blocked threads.
    gate: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gated {
    fn wait(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.1 += 1;
        while gate.0 {
            gate = self.changed.wait(gate).unwrap();
        }
        gate.1 -= 1;
    }
    fn close(&self, closed: bool) {
        self.gate.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }
    fn blocked(&self) -> usize {
        self.gate.lock().unwrap().1
    }
}

impl PasswordHasher for Gated {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        self.wait();
        self.inner.hash(password, salt)
    }
    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        self.wait();
        self.inner.verify(hash, password)
    }
    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        self.inner.needs_rehash(hash)
    }
}

/// Hashes that never end take nothing from other requests: no thread of the runtime, no permit, no lock.
///
/// They use no processor time, so the comparison does not depend on the machine's load, which both measurements share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_sign_ins_do_not_delay_the_timeline() {
    // A separate runtime, which is never dropped: if a hash blocked its threads, a client of this one would still time out.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server: &'static tokio::runtime::Runtime = Box::leak(Box::new(runtime));
    let hasher = Arc::new(Gated {
        inner: Argon2id::new(HashCost::FOR_TESTS).unwrap(),
        gate: Mutex::default(),
        changed: Condvar::new(),
    });
    let mailer = MemoryMailer::new();
    let builder = Backend::builder().mailer(mailer.clone()).password_hasher(hasher.clone()).hash_threads(2);
    let backend = builder.limits(Unlimited).build().unwrap();
    let listener = {
        let _inside = server.enter();
        couple::http::listen(([127, 0, 0, 1], 0).into()).unwrap()
    };
    let address = listener.local_addr().unwrap();
    let options = ServeOptions::default().with_max_connections_per_client(Some(10_000));
    let router = couple::http::router(backend.clone());
    server.spawn(couple::http::serve(listener, router, options, std::future::pending()));
    let mut client = Client::new(address);
    let mut tokens = Vec::new();
    for email in ["ana@example.org", "ben@example.org"] {
        let token = join(&mut client, email, async |email: &str| {
            backend.worker().run_until_idle().await.unwrap();
            mailer.last_to(email).and_then(|mail| match mail.message {
                couple::core::mail::Message::ConfirmSignUp { code, .. } => Some(code.expose().clone()),
                _ => None,
            })
        });
        tokens.push(token.await);
    }
    pair(&mut client, &tokens[0], &tokens[1]).await;

    let mut ratios = Vec::new();
    while !ratios.iter().any(|ratio| *ratio < MAX_RATIO) {
        assert!(
            ratios.len() < MAX_ROUNDS,
            "p99 with waiting sign-ins, as multiples of that without: {ratios:?}"
        );
        let quiet = p99(&mut client, &tokens[0], |n| n >= 400).await;
        hasher.close(true);
        let sign_ins: Vec<_> = (0..SIGN_INS)
            .map(|n| {
                tokio::spawn(async move {
                    let body = wrong_password(n);
                    Client::new(address)
                        .once("POST", "/v1/sessions", None, Some(&body), &[])
                        .await
                        .unwrap()
                        .status
                })
            })
            .collect();
        // All threads are blocked, the queue is full, and further sign-ins are refused.
        while hasher.blocked() < 2 || !sign_ins.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let waiting = p99(&mut client, &tokens[0], |n| n >= 400).await;
        assert_eq!(hasher.blocked(), 2, "the sign-ins wait");
        hasher.close(false);
        let (mut refused, mut busy) = (0, 0);
        for sign_in in sign_ins {
            match sign_in.await.unwrap() {
                401 => refused += 1,
                503 => busy += 1,
                other => panic!("{other}"),
            }
        }
        assert!(refused > 2 && busy > 0, "the queue is bounded: {refused} waited, {busy} were refused");
        println!("p99 quiet {quiet:?}, with {refused} waiting sign-ins {waiting:?}");
        ratios.push(waiting.as_secs_f64() / quiet.as_secs_f64());
    }
}

/// Signs in from [`SIGN_INS`] clients, twice each, in a separate process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is the process of the clients of another test"]
async fn flood() {
    let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let clients: Vec<_> = (0..SIGN_INS)
        .map(|n| {
            tokio::spawn(async move {
                let mut client = Client::new(address);
                let mut answers = [0, 0];
                for _ in 0..2 {
                    let body = wrong_password(n);
                    match client.once("POST", "/v1/sessions", None, Some(&body), &[]).await.unwrap().status {
                        401 => answers[0] += 1,
                        503 => answers[1] += 1,
                        other => panic!("{other}"),
                    }
                }
                answers
            })
        })
        .collect();
    let mut sum = [0, 0];
    for client in clients {
        let [refused, busy] = client.await.unwrap();
        sum = [sum[0] + refused, sum[1] + busy];
    }
    assert!(sum[0] > 0 && sum[1] > 0, "the queue is bounded: {sum:?}");
}

/// With real hashes. The clients that sign in have the lowest priority, since they would run on other machines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_sign_ins_do_not_starve_other_requests() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::spawn(
        &support::binary(),
        folder.path(),
        address,
        &[("COUPLE_LIMITS", "off"), ("RUST_LOG", "error")],
    );
    server.until_ready().await;
    let mut client = Client::new(address);
    let mut tokens = Vec::new();
    for email in ["ana@example.org", "ben@example.org"] {
        let mailed = async |email: &str| mails_to(folder.path(), email).iter().find_map(|mail| code_in(mail));
        tokens.push(join(&mut client, email, mailed).await);
    }
    pair(&mut client, &tokens[0], &tokens[1]).await;

    let mut seen = Vec::new();
    loop {
        let quiet = p99(&mut client, &tokens[0], |n| n >= 500).await;
        let mut clients = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "flood", "--ignored"])
            .env(ADDRESS, address.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From the first sign-in to the last.
        let flooded = p99(&mut client, &tokens[0], |_| clients.try_wait().unwrap().is_some()).await;
        assert!(clients.wait().unwrap().success());
        println!("p99 quiet {quiet:?}, flooded {flooded:?}");
        seen.push((quiet, flooded));
        if flooded.as_secs_f64() < MAX_RATIO * quiet.as_secs_f64() {
            break;
        }
        assert!(
            seen.len() < MAX_ROUNDS,
            "other requests are delayed: p99 without and with sign-ins {seen:?}"
        );
    }
}
