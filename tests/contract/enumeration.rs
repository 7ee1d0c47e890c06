//! No response reveals whether an address has an account.
//!
//! Every request without a proof gets the same response, and causes the same reads and writes of the store and the same password hashes,
//! by the request and by the jobs that it enqueues. `benches/response_times.rs` measures the times.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use couple::{
    Backend, Error, Keyring,
    account::{Argon2id, HashCost, Password, PasswordHash, PasswordHasher},
    blobs::Blobs,
    core::Change,
    core::limits::Unlimited,
    http::HttpOptions,
    store::MemoryStore,
};
use serde_json::{Value, json};

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    world::World,
};

const TARGET: &str = "ana@example.org";
const PASSWORD: &str = "mauve kettle orbit";

/// Records every read by name, every commit by the kinds of its changes, and every password hash.
#[derive(Default)]
struct Trace(Mutex<Vec<String>>);

impl Trace {
    fn add(&self, step: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl StoreObserver for Trace {
    async fn before(&self, what: &'static str) {
        self.add(what.to_owned());
    }
    fn committing(&self, changes: &[Change]) {
        for change in changes {
            let shown = format!("{change:?}");
            self.add(format!("  {}", shown.split(" {").next().unwrap_or_default()));
        }
    }
    async fn after(&self, _: &'static str) {}
}

/// Hasher that records its work.
struct TracedHasher(Argon2id, Arc<Trace>);

impl PasswordHasher for TracedHasher {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        self.1.add("hash password".to_owned());
        self.0.hash(password, salt)
    }
    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        self.1.add("verify password".to_owned());
        self.0.verify(hash, password)
    }
    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        self.0.needs_rehash(hash)
    }
}

/// State of the address.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Unknown,
    Known,
    WithoutPassword,
    Paired,
    Unverified,
    Deleted,
}

const STATES: [State; 6] =
    [State::Unknown, State::Known, State::WithoutPassword, State::Paired, State::Unverified, State::Deleted];

/// Requests for the address before the test.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    /// A sign-in code, and the repetition of the sign-up mail, were each requested four times.
    Mails,
    /// The daily limit of wrong passwords is reached.
    Locked,
}

const REQUESTS: [(&str, &str); 8] = [
    ("/v1/accounts", r#"{"display_name":"A"}"#),
    ("/v1/accounts/verify/resend", "{}"),
    ("/v1/accounts/verify", r#"{"code":"000000"}"#),
    ("/v1/sessions", r#"{"password":"wrong password here"}"#),
    ("/v1/sessions", r#"{"code":"000000"}"#),
    ("/v1/sessions/code", "{}"),
    ("/v1/password/forgot", "{}"),
    ("/v1/invites", "{}"),
];

/// A world whose address has a state, and another account that is signed in.
async fn world(state: State, before: Before) -> (World, Arc<Trace>, String) {
    let trace = Arc::new(Trace::default());
    let builder = Backend::builder()
        .store(ObservedStore(MemoryStore::new(), trace.clone()))
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .limits(Unlimited)
        .password_hasher(TracedHasher(Argon2id::new(HashCost::FOR_TESTS).unwrap(), trace.clone()));
    let world = World::at(Arc::default(), builder, HttpOptions::default());
    let inviter = world.join("ben@example.org").await;
    match state {
        State::Unknown => {}
        State::Known => drop(world.join_with_password(TARGET, PASSWORD).await),
        State::WithoutPassword => drop(world.join(TARGET).await),
        State::Paired => {
            let session = world.join_with_password(TARGET, PASSWORD).await;
            let partner = world.join("cleo@example.org").await;
            world.pair(&session, &partner).await;
        }
        State::Unverified => world.sign_up(TARGET).await,
        State::Deleted => {
            let session = world.join_with_password(TARGET, PASSWORD).await;
            assert_eq!(world.call("DELETE", "/v1/me", Some(&session), None).await.status, 202);
        }
    }
    world.work().await;
    match before {
        Before::Nothing => {}
        Before::Mails => {
            for _ in 0..4 {
                for path in ["/v1/sessions/code", "/v1/accounts/verify/resend"] {
                    world.open(path, json!({ "email": TARGET })).await;
                }
                world.work().await;
            }
        }
        Before::Locked => {
            for _ in 0..100 {
                world
                    .open("/v1/sessions", json!({ "email": TARGET, "password": "wrong password here" }))
                    .await;
            }
        }
    }
    trace.take();
    (world, trace, inviter)
}

/// Reads and writes of jobs, sorted and without the worker's own claims: queues run concurrently.
fn work_of(mut trace: Vec<String>) -> Vec<String> {
    trace.retain(|step| step != "commit" && step != "next_due" && !step.contains("Job("));
    trace.sort();
    trace
}

async fn ask(world: &World, inviter: &str, path: &str, body: &str) -> crate::world::TestResponse {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body["email"] = TARGET.into();
    let token = (path == "/v1/invites").then_some(inviter);
    world.call("POST", path, token, Some(body)).await
}

#[tokio::test]
async fn every_address_costs_the_same_reads_writes_and_hashes() {
    for before in [Before::Nothing, Before::Mails, Before::Locked] {
        for (path, body) in REQUESTS {
            let mut expected = None;
            for state in STATES {
                let (world, trace, inviter) = world(state, before).await;
                let answer = ask(&world, &inviter, path, body).await;
                let reads = trace.take();
                let is_checked = body.contains("password") && before != Before::Locked;
                let verified = reads.iter().filter(|step| *step == "verify password").count();
                assert_eq!(verified, usize::from(is_checked), "{path} {body} {state:?} {before:?}");
                world.work().await;
                let worked = work_of(trace.take());
                let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
                headers.sort();
                // The response to an invite has a new id and a new code.
                let response_body = if path == "/v1/invites" { Value::Null } else { answer.body };
                let seen = (answer.status, response_body, headers, reads, worked);
                let expected = expected.get_or_insert_with(|| seen.clone());
                assert_eq!(*expected, seen, "{path} {body} {state:?} {before:?}");
            }
        }
    }
}

#[tokio::test]
async fn wrong_code_costs_the_same_with_and_without_a_pending_code() {
    for (path, body) in [REQUESTS[2], REQUESTS[4]] {
        let mut traces = Vec::new();
        for before in [Before::Nothing, Before::Mails] {
            let (world, trace, inviter) = world(State::Known, before).await;
            ask(&world, &inviter, path, body).await;
            traces.push(trace.take());
        }
        assert_eq!(traces[0], traces[1], "{path}");
        assert_eq!(traces[0].iter().filter(|step| *step == "commit").count(), 1, "{:?}", traces[0]);
    }
}

#[tokio::test]
async fn resends_leave_as_many_tokens_for_every_address() {
    let mut open = Vec::new();
    for state in [State::Unknown, State::Deleted, State::Known, State::Unverified] {
        let (world, _, _) = world(state, Before::Mails).await;
        let email = couple::core::EmailAddress::parse("email", TARGET).unwrap();
        let now = couple::Clock::now(&*world.clock);
        let kind = couple::core::account::TokenKind::SignUp;
        open.push(world.backend.ports().store.open_tokens(kind, email.key(), now).await.unwrap().len());
    }
    // An address with a sign-up has one more token: that of its sign-up mail.
    assert_eq!(open, [4, 4, 5, 5]);
}
