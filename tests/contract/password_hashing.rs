//! Password hashes behind the routes: a weaker one is replaced, and few are computed at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use couple::{
    Backend, Error, Keyring,
    account::{Argon2id, HashCost, Password, PasswordHash, PasswordHasher},
    blobs::Blobs,
    core::{EmailAddress, limits::Unlimited},
    http::HttpOptions,
    store::MemoryStore,
};
use serde_json::json;

use crate::world::World;

const PASSWORD: &str = "mauve kettle orbit";
const WRONG: &str = "seven violet otters";
const ANA: &str = "ana@example.org";
const BEN: &str = "ben@example.org";

/// A process over a store, with its cost of a hash.
fn process(store: &Arc<MemoryStore>, cost: HashCost) -> World {
    let builder = Backend::builder().store(store.clone()).keys(Keyring::new([7; 32])).blobs(Blobs::memory());
    World::at(Arc::default(), builder.limits(Unlimited).hash_cost(cost), HttpOptions::default())
}

async fn stored_hash(world: &World, email: &str) -> String {
    let email = EmailAddress::parse("email", email).unwrap();
    let account = world.backend.ports().store.account_by_email(email.key()).await.unwrap().unwrap();
    account.password.unwrap().as_str().to_owned()
}

async fn sign_in(world: &World, email: &str, password: &str) -> u16 {
    world.open("/v1/sessions", json!({ "email": email, "password": password })).await.status
}

#[tokio::test]
async fn sign_in_replaces_a_weaker_hash_and_no_other() {
    let store = Arc::new(MemoryStore::new());
    let before = process(&store, HashCost::FOR_TESTS);
    for email in [ANA, BEN] {
        before.join_with_password(email, PASSWORD).await;
    }
    let (weak, of_ben) = (stored_hash(&before, ANA).await, stored_hash(&before, BEN).await);
    assert!(weak.starts_with("$argon2id$") && weak.contains("m=8,t=1,"), "{weak}");

    let after = process(&store, HashCost { memory: 64, passes: 2 });
    assert_eq!(sign_in(&after, ANA, WRONG).await, 401);
    after.sign_in(ANA).await;
    assert_eq!(stored_hash(&after, ANA).await, weak, "neither a wrong password nor a code replaces the hash");
    assert_eq!(sign_in(&after, ANA, PASSWORD).await, 201);
    let strong = stored_hash(&after, ANA).await;
    assert!(strong.starts_with("$argon2id$") && strong.contains("m=64,t=2,"), "{strong}");
    assert_eq!(stored_hash(&after, BEN).await, of_ben, "the hash of another account stays");
    assert_eq!((sign_in(&after, ANA, PASSWORD).await, sign_in(&after, ANA, WRONG).await), (201, 401));
    assert_eq!(stored_hash(&after, ANA).await, strong, "a hash with the current cost stays");

    // A process with the former configuration accepts the stronger hash and keeps it.
    assert_eq!((sign_in(&before, ANA, PASSWORD).await, sign_in(&before, ANA, WRONG).await), (201, 401));
    assert_eq!(stored_hash(&before, ANA).await, strong);
}

/// Hasher that counts how many of its calls run at the same time.
struct Counted {
    inner: Argon2id,
    running: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicUsize,
}

impl Counted {
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        // Long enough that calls on other threads would overlap.
        std::thread::sleep(Duration::from_millis(2));
        let result = work();
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl PasswordHasher for Counted {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        self.during(|| self.inner.hash(password, salt))
    }
    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        self.during(|| self.inner.verify(hash, password))
    }
    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        self.inner.needs_rehash(hash)
    }
}

/// Sign-ins, confirmed sign-ups, resets and changes of a password all hash in one pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_hashes_never_exceed_the_pool() {
    const THREADS: usize = 3;
    let hasher = Arc::new(Counted {
        inner: Argon2id::new(HashCost::FOR_TESTS).unwrap(),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        calls: AtomicUsize::new(0),
    });
    let builder = Backend::builder().limits(Unlimited).password_hasher(hasher.clone()).hash_threads(THREADS);
    let world = Arc::new(World::at(Arc::default(), builder, HttpOptions::default()));
    let mut requests = Vec::new();
    for n in 0..8 {
        let (known, new) = (format!("known{n}@example.org"), format!("new{n}@example.org"));
        let session = world.join_with_password(&known, PASSWORD).await;
        world.open("/v1/password/forgot", json!({ "email": known })).await;
        world.work().await;
        let reset = world.mailed(&known).1;
        world.sign_up(&new).await;
        let (code, _) = world.mailed(&new);
        let email = format!("changed{n}@example.org");
        requests.extend([
            ("POST", "/v1/sessions", None, json!({ "email": known, "password": WRONG })),
            (
                "POST",
                "/v1/sessions",
                None,
                json!({ "email": format!("no{n}@example.org"), "password": WRONG }),
            ),
            (
                "POST",
                "/v1/accounts/verify",
                None,
                json!({ "email": new, "code": code, "password": PASSWORD }),
            ),
            ("PUT", "/v1/password", None, json!({ "token": reset, "new_password": WRONG })),
            (
                "POST",
                "/v1/me/email",
                Some(session.clone()),
                json!({ "new_email": email, "current_password": PASSWORD }),
            ),
            (
                "PUT",
                "/v1/password",
                Some(session),
                json!({ "current_password": PASSWORD, "new_password": "another mauve kettle" }),
            ),
        ]);
    }
    hasher.most.store(0, Ordering::SeqCst);
    hasher.calls.store(0, Ordering::SeqCst);
    let tasks: Vec<_> = requests
        .into_iter()
        .map(|(method, path, session, body)| {
            let world = world.clone();
            tokio::spawn(async move { world.call(method, path, session.as_deref(), Some(body)).await.status })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() < 500);
    }
    assert!(hasher.calls.load(Ordering::SeqCst) >= 40, "{}", hasher.calls.load(Ordering::SeqCst));
    assert_eq!(hasher.most.load(Ordering::SeqCst), THREADS, "all threads of the pool hash, and no more");
}
