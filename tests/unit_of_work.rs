//! The read–decide–commit loop of the use cases: its attempts, and the outcomes that it records under idempotency keys.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/observed_store.rs"]
mod observed_store;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Backend, ErrorKind, Keyring, ManualClock, RequestContext,
    blobs::Blobs,
    core::{
        Change, Completed, Conflict, Decision, Failure, Idempotency, KeyReused, MAX_ATTEMPTS, UnitOfWork,
        digest,
    },
    store::MemoryStore,
};
use observed_store::{ObservedStore, StoreObserver};

/// Makes the next commits conflict, and counts all commits.
#[derive(Default)]
struct Conflicts {
    left: AtomicU32,
    commits: AtomicU32,
}

#[async_trait]
impl StoreObserver for Conflicts {
    async fn before(&self, _: &'static str) {}
    async fn after(&self, _: &'static str) {}
    fn conflict(&self, _: &[Change]) -> Option<Conflict> {
        self.commits.fetch_add(1, SeqCst);
        let taken = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        taken.is_ok().then_some(Conflict::ClientIdUsed)
    }
}

struct World {
    backend: Backend,
    clock: Arc<ManualClock>,
    conflicts: Arc<Conflicts>,
    /// Number of requests that took their rate limits.
    admitted: AtomicU32,
}

impl World {
    fn new() -> Self {
        let (clock, conflicts) = (Arc::new(ManualClock::default()), Arc::<Conflicts>::default());
        let builder = Backend::builder().store(ObservedStore(MemoryStore::new(), conflicts.clone()));
        let builder = builder.keys(Keyring::new([7; 32])).clock(clock.clone()).blobs(Blobs::memory());
        Self { backend: builder.build().unwrap(), clock, conflicts, admitted: AtomicU32::new(0) }
    }
    /// Runs a use case that counts its attempts. Returns the attempt that was committed, or the recorded outcome.
    async fn run(&self, key: &str, request: &str, outcome: &str) -> Result<String, Failure<KeyReused>> {
        self.run_with(key, request, outcome, async {}).await
    }
    /// The same; `meanwhile` runs between the look-up of a recorded outcome and the first commit.
    async fn run_with(
        &self,
        key: &str,
        request: &str,
        outcome: &str,
        meanwhile: impl Future<Output = ()>,
    ) -> Result<String, Failure<KeyReused>> {
        let idempotency =
            Idempotency { scope: digest(&[key.as_bytes()]), request: digest(&[request.as_bytes()]) };
        let context = RequestContext { idempotency: Some(idempotency), ..RequestContext::default() };
        let limits = async {
            self.admitted.fetch_add(1, SeqCst);
            meanwhile.await;
            Ok(())
        };
        let completed = UnitOfWork::new(self.backend.ports())
            .run(
                &context,
                limits,
                |(), previous: Option<u32>| async move { Ok(previous.map_or(1, |attempt| attempt + 1)) },
                |(), attempt| {
                    let outcome = outcome.to_owned();
                    Ok(Decision::Commit { changes: Vec::new(), outcome, answer: *attempt })
                },
            )
            .await?;
        Ok(match completed {
            Completed::Committed(attempt, _) => format!("attempt {attempt}"),
            Completed::Unchanged(_) => panic!("the decision was to commit"),
            Completed::Replayed(outcome) => format!("recorded {outcome}"),
        })
    }
    /// The same without an idempotency key.
    async fn run_unkeyed(&self) -> Result<u32, Failure<KeyReused>> {
        UnitOfWork::new(self.backend.ports())
            .run_unkeyed(
                |previous: Option<u32>| async move { Ok(previous.map_or(1, |attempt| attempt + 1)) },
                |attempt| Ok(Decision::commit(Vec::new(), *attempt)),
            )
            .await
    }
}

#[tokio::test]
async fn use_case_is_repeated_after_a_conflict_up_to_the_given_number_of_attempts() {
    let world = World::new();
    world.conflicts.left.store(MAX_ATTEMPTS - 1, SeqCst);
    assert_eq!(world.run("key", "request", "").await.unwrap(), format!("attempt {MAX_ATTEMPTS}"));
    assert_eq!(world.admitted.load(SeqCst), 1, "conflicts cost no further token");
    world.conflicts.left.store(MAX_ATTEMPTS - 1, SeqCst);
    assert_eq!(world.run_unkeyed().await.unwrap(), MAX_ATTEMPTS);

    world.conflicts.left.store(3 * MAX_ATTEMPTS, SeqCst);
    world.conflicts.commits.store(0, SeqCst);
    for keyed in [true, false] {
        let result = if keyed {
            world.run("other", "request", "").await.map(drop)
        } else {
            world.run_unkeyed().await.map(drop)
        };
        match result {
            Err(Failure::Failed(error)) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.conflicts.commits.swap(0, SeqCst), MAX_ATTEMPTS);
    }
}

#[tokio::test]
async fn repeated_request_gets_the_recorded_outcome_for_a_day() {
    let world = World::new();
    assert_eq!(world.run("key", "request", "one").await.unwrap(), "attempt 1");
    assert_eq!(world.run("key", "request", "two").await.unwrap(), "recorded one");
    assert!(matches!(world.run("key", "other request", "two").await, Err(Failure::Refused(KeyReused))));
    assert_eq!(world.admitted.load(SeqCst), 1, "repeats take no tokens");
    assert_eq!(world.run("other key", "other request", "two").await.unwrap(), "attempt 1");

    let moment = Duration::from_micros(1);
    world.clock.advance(Idempotency::RETENTION - moment);
    assert_eq!(world.run("key", "request", "three").await.unwrap(), "recorded one");
    world.clock.advance(moment);
    // The purge has not removed the record yet.
    assert_eq!(world.run("key", "other request", "three").await.unwrap(), "attempt 1");
    assert_eq!(world.run("key", "other request", "four").await.unwrap(), "recorded three");
}

#[tokio::test]
async fn concurrent_request_with_the_same_key_gets_the_outcome_of_the_first_commit() {
    let world = World::new();
    let first = async {
        assert_eq!(world.run("key", "request", "one").await.unwrap(), "attempt 1");
    };
    assert_eq!(world.run_with("key", "request", "two", first).await.unwrap(), "recorded one");
    assert_eq!(world.conflicts.commits.load(SeqCst), 2, "the outcome is looked up after the conflict");
}

#[tokio::test]
async fn time_of_a_use_case_is_the_time_of_its_start() {
    let world = World::new();
    let started = world.backend.ports().now();
    let work = UnitOfWork::new(world.backend.ports());
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(work.now(), started);
    assert_ne!(world.backend.ports().now(), started);
}
