//! A conflict of a commit repeats the reads and the decision of a use case, and nothing else.
//!
//! Each request is made twice in equal worlds: once undisturbed, once with a first commit that conflicts. Both
//! get the same response, take the same tokens from the rate limiter and hash as many passwords.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use couple::{
    Backend, Entropy, Error, Keyring,
    blobs::Blobs,
    core::{
        Change, Conflict, SeededEntropy,
        limits::{LimitKey, Limited, RateLimiter, Rule},
    },
    http::HttpOptions,
    store::MemoryStore,
};
use serde_json::{Value, json};

use crate::{
    observed_store::{ObservedStore, StoreObserver},
    world::World,
};

const ANA: &str = "ana@example.org";
const BEN: &str = "ben@example.org";
const PASSWORD: &str = "mauve kettle orbit";
const NEW_PASSWORD: &str = "copper violin harbour";

/// Makes the next commit conflict once it is armed.
#[derive(Default)]
struct ConflictOnce {
    armed: AtomicBool,
    commits: AtomicUsize,
}

#[async_trait]
impl StoreObserver for ConflictOnce {
    async fn before(&self, _: &'static str) {}
    async fn after(&self, _: &'static str) {}
    fn conflict(&self, _: &[Change]) -> Option<Conflict> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.armed.swap(false, Ordering::SeqCst).then_some(Conflict::ClientIdUsed)
    }
}

/// Grants every token and records the rules.
#[derive(Default)]
struct CountedTokens(Mutex<Vec<&'static str>>);

impl CountedTokens {
    fn take_all(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Limits(Arc<CountedTokens>);

#[async_trait]
impl RateLimiter for Limits {
    async fn take(&self, rule: &Rule, _: &LimitKey) -> Result<Result<(), Limited>, Error> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push(rule.name);
        Ok(Ok(()))
    }
}

/// Counts the salts of password hashes: they are the only 16 random bytes of the requests below.
struct CountedSalts {
    inner: SeededEntropy,
    salts: AtomicUsize,
}

impl Entropy for CountedSalts {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() == 16 {
            self.salts.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.fill(bytes);
    }
}

/// Accounts and state before the request.
enum Before {
    /// `ana` has requested a sign-up.
    SignUp,
    /// `ana` has an account with a password, and requested a code to sign in.
    SignInCode,
    /// `ana` requested a link to set a password.
    PasswordLink,
    /// `ana` requested to change her address to `ben`'s.
    NewEmail,
    /// Both have an account, and `ben` invited `ana`.
    Invited,
    /// The two are a couple, and `ana` wrote the entry 2.
    Couple,
}

/// A request of `ana`: name, state before, method, path and body. `CODE` and `LINK` stand for those of the
/// newest mail.
type Case = (&'static str, Before, &'static str, &'static str, Value);

fn cases() -> Vec<Case> {
    use Before::{Couple, Invited, NewEmail, PasswordLink, SignInCode, SignUp};
    let email_and_code = || json!({ "email": ANA, "code": "CODE" });
    vec![
        (
            "sign up",
            SignInCode,
            "POST",
            "/v1/accounts",
            json!({ "email": "c@example.org", "display_name": "C" }),
        ),
        ("resend", SignUp, "POST", "/v1/accounts/verify/resend", json!({ "email": ANA })),
        (
            "verify",
            SignUp,
            "POST",
            "/v1/accounts/verify",
            json!({ "email": ANA, "code": "CODE", "password": PASSWORD }),
        ),
        (
            "sign in by password",
            SignInCode,
            "POST",
            "/v1/sessions",
            json!({ "email": ANA, "password": PASSWORD }),
        ),
        ("sign in by code", SignInCode, "POST", "/v1/sessions", email_and_code()),
        ("request code", SignInCode, "POST", "/v1/sessions/code", json!({ "email": ANA })),
        ("forgot password", SignInCode, "POST", "/v1/password/forgot", json!({ "email": ANA })),
        (
            "reset password",
            PasswordLink,
            "PUT",
            "/v1/password",
            json!({ "token": "LINK", "new_password": NEW_PASSWORD }),
        ),
        (
            "change password",
            SignInCode,
            "PUT",
            "/v1/password",
            json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD }),
        ),
        ("update profile", SignInCode, "PATCH", "/v1/me", json!({ "display_name": "Ana Two" })),
        (
            "change email",
            SignInCode,
            "POST",
            "/v1/me/email",
            json!({ "new_email": BEN, "current_password": PASSWORD }),
        ),
        ("confirm email", NewEmail, "POST", "/v1/me/email/verify", json!({ "email": BEN, "code": "CODE" })),
        ("delete account", SignInCode, "DELETE", "/v1/me", Value::Null),
        ("invite", Invited, "POST", "/v1/invites", json!({ "email": "c@example.org" })),
        ("crossing invite", Invited, "POST", "/v1/invites", json!({ "email": BEN })),
        ("accept", Invited, "POST", "/v1/invites/accept", json!({ "code": "CODE" })),
        ("decline", Invited, "POST", "/v1/invites/decline", json!({ "code": "CODE" })),
        ("describe", Couple, "PATCH", "/v1/couple", json!({ "title": "Us" })),
        ("leave", Couple, "DELETE", "/v1/couple", Value::Null),
        (
            "append",
            Couple,
            "POST",
            "/v1/couple/entries",
            json!({ "client_id": "another", "kind": "text", "body": { "text": "hello" } }),
        ),
        ("edit", Couple, "PATCH", "/v1/couple/entries/2", json!({ "body": { "text": "edited" } })),
        ("delete", Couple, "DELETE", "/v1/couple/entries/2", Value::Null),
        ("react", Couple, "PUT", "/v1/couple/entries/2/reaction", json!({ "emoji": "\u{2764}" })),
        ("mark read", Couple, "PUT", "/v1/couple/read", json!({ "seq": 2 })),
    ]
}

/// Cost of a request, and its response.
#[derive(Debug, PartialEq)]
struct Cost {
    status: u16,
    code: String,
    tokens: Vec<&'static str>,
    hashes: usize,
}

fn world(store: &Arc<ConflictOnce>, tokens: &Arc<CountedTokens>, entropy: impl Entropy) -> World {
    let builder = Backend::builder()
        .store(ObservedStore(MemoryStore::new(), store.clone()))
        .keys(Keyring::new([7; 32]))
        .blobs(Blobs::memory())
        .entropy(entropy)
        .limits(Limits(tokens.clone()));
    World::of(builder, HttpOptions::default())
}

async fn cost(case: &Case, key: Option<&str>, conflict: bool) -> Cost {
    let (name, before, method, path, body) = case;
    let (store, tokens) = (Arc::new(ConflictOnce::default()), Arc::new(CountedTokens::default()));
    let entropy = Arc::new(CountedSalts { inner: SeededEntropy::new(7), salts: AtomicUsize::new(0) });
    let world = world(&store, &tokens, entropy.clone());
    let mut mail = ANA;
    let token = match before {
        Before::SignUp => {
            world.sign_up(ANA).await;
            None
        }
        Before::SignInCode | Before::PasswordLink | Before::NewEmail => {
            let token = world.join_with_password(ANA, PASSWORD).await;
            match before {
                Before::PasswordLink => {
                    drop(world.open("/v1/password/forgot", json!({ "email": ANA })).await);
                }
                Before::NewEmail => {
                    let body = json!({ "new_email": BEN, "current_password": PASSWORD });
                    world.post("/v1/me/email", &token, body).await;
                    mail = BEN;
                }
                _ => drop(world.open("/v1/sessions/code", json!({ "email": ANA })).await),
            }
            Some(token)
        }
        Before::Invited => {
            let (token, ben) = (world.join(ANA).await, world.join(BEN).await);
            world.post("/v1/invites", &ben, json!({ "email": ANA })).await;
            Some(token)
        }
        Before::Couple => {
            let (token, _) = world.couple(ANA, BEN).await;
            let entry = json!({ "client_id": "first", "kind": "text", "body": { "text": "hi" } });
            assert_eq!(world.post("/v1/couple/entries", &token, entry).await.status, 201);
            Some(token)
        }
    };
    world.work().await;
    let mut text = body.to_string();
    if text.contains("CODE") || text.contains("LINK") {
        let (code, link) = world.mailed(mail);
        text = text.replace("CODE", &code).replace("LINK", &link);
    }
    let body = serde_json::from_str(&text).unwrap();
    let token = token.as_deref().filter(|_| !text.contains("token"));
    tokens.take_all();
    let (salts, commits) = (entropy.salts.load(Ordering::SeqCst), store.commits.load(Ordering::SeqCst));
    store.armed.store(conflict, Ordering::SeqCst);
    let response =
        world.keyed(method, path, token, Some(body).filter(|body| *body != Value::Null), key).await;
    assert!((200..300).contains(&response.status), "{name}: {} {}", response.status, response.body);
    assert!(!store.armed.load(Ordering::SeqCst), "{name}: the request commits");
    let commits = store.commits.load(Ordering::SeqCst) - commits;
    assert!(!conflict || commits > 1, "{name}: the commit is repeated");
    Cost {
        status: response.status,
        code: response.code().to_owned(),
        tokens: tokens.take_all(),
        hashes: entropy.salts.load(Ordering::SeqCst) - salts,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflict_costs_no_second_token_and_no_second_hash() {
    let mut hashing = 0;
    for case in cases() {
        for key in [None, Some("key")] {
            let (plain, retried) = (cost(&case, key, false).await, cost(&case, key, true).await);
            assert_eq!(plain, retried, "{} {key:?}", case.0);
            hashing += usize::from(plain.hashes > 0);
        }
    }
    assert_eq!(hashing, 2 * 5, "verify, sign-in, reset, change of password and of address hash");
}

#[tokio::test]
async fn repeated_append_takes_a_token_and_unchanged_values_take_none() {
    let tokens = Arc::new(CountedTokens::default());
    let world = world(&Arc::default(), &tokens, SeededEntropy::new(7));
    let (ana, _) = world.couple(ANA, BEN).await;
    let entry = json!({ "client_id": "first", "kind": "text", "body": { "text": "hi" } });
    let append = async || {
        let entry = Some(entry.clone());
        world.keyed("POST", "/v1/couple/entries", Some(&ana), entry, Some("key")).await.status
    };
    assert_eq!(append().await, 201);
    tokens.take_all();
    // A repeat publishes a notice, so it must not be free.
    assert_eq!(append().await, 200);
    assert_eq!(tokens.take_all(), ["write_per_account"]);
    for (path, body) in
        [("/v1/me", json!({ "display_name": "Ana" })), ("/v1/couple", json!({ "title": "Us" }))]
    {
        for expected in [&["write_per_account"][..], &[]] {
            let response = world.call("PATCH", path, Some(&ana), Some(body.clone())).await;
            assert_eq!(response.status, 200, "{path} {}", response.body);
            assert_eq!(tokens.take_all(), expected, "{path}");
        }
    }
}
