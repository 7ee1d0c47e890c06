//! Every change that took effect is followed by a notice, even if the result of its commit was lost.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/observed_store.rs"]
mod observed_store;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple::{
    Backend, Error, ErrorKind, Failure, Keyring, RequestContext, Store as _,
    account::AccountChange,
    core::live::{Subscription, Topic},
    pairing::{Couple, PairingChange},
    store::MemoryStore,
    timeline::{Append, TimelineChange},
};
use couple_conformance::World;
use observed_store::{ObservedStore, StoreObserver};
use serde_json::json;
use tokio::time::timeout;

/// Loses the result of a commit that took effect.
#[derive(Default)]
struct Silence(AtomicBool);

#[async_trait]
impl StoreObserver for Silence {
    async fn before(&self, _: &'static str) {}
    async fn after(&self, _: &'static str) {}
    fn commit_fails(&self, took_effect: bool) -> Option<Error> {
        let lost = took_effect && self.0.load(Ordering::SeqCst);
        lost.then(|| Error::new(ErrorKind::TimedOut, "commit"))
    }
}

struct Fixture {
    backend: Backend,
    silence: Arc<Silence>,
    world: World,
    couple: Couple,
    notices: Box<dyn Subscription>,
}

impl Fixture {
    async fn new() -> Self {
        let (world, silence) = (World::default(), Arc::new(Silence::default()));
        let backend = Backend::builder()
            .store(ObservedStore(MemoryStore::new(), silence.clone()))
            .blobs(couple::blobs::Blobs::memory())
            .keys(Keyring::new([7; 32]))
            .clock(world.clock.clone())
            .build()
            .unwrap();
        let people = [world.account("ana"), world.account("ben")];
        let couple = world.couple([people[0].id, people[1].id]);
        let mut changes: Vec<_> = people.map(|one| AccountChange::Insert(one).into()).into();
        changes.push(PairingChange::Pair(couple.clone()).into());
        backend.ports().store.commit(changes).await.unwrap();
        let notices = backend.ports().bus.subscribe(vec![Topic::Couple(couple.id)]).await;
        Self { backend, silence, world, couple, notices }
    }
    async fn append(&self) -> Result<bool, Failure<couple::timeline::TimelineError>> {
        let command =
            Append { couple: None, client_id: "one".into(), kind: "text".into(), body: json!({"text": "1"}) };
        let ana = self.couple.members[0];
        Ok(self.backend.timeline().append(&RequestContext::default(), ana, &command).await?.created)
    }
    async fn is_told(&mut self, within: Duration) -> bool {
        timeout(within, self.notices.next()).await.is_ok()
    }
}

#[tokio::test]
async fn commit_of_unknown_outcome_is_followed_by_notices() {
    let mut fixture = Fixture::new().await;
    fixture.silence.0.store(true, Ordering::SeqCst);
    assert!(fixture.append().await.is_err());
    assert!(fixture.is_told(Duration::from_secs(2)).await, "when the error is returned");
    assert!(fixture.is_told(Duration::from_secs(10)).await, "when the commit must have ended");
}

#[tokio::test]
async fn repeat_that_finds_its_entry_is_followed_by_a_notice() {
    let mut fixture = Fixture::new().await;
    // As if a process had died between its commit and its notice.
    let entry = couple::timeline::NewEntry {
        body: Some(couple::timeline::Body::from_stored(r#"{"text":"1"}"#.to_owned())),
        ..fixture.world.entry("one")
    };
    let append = TimelineChange::Append { couple: fixture.couple.id, entry };
    fixture.backend.ports().store.commit(vec![append.into()]).await.unwrap();
    assert!(!fixture.is_told(Duration::from_millis(50)).await);
    assert!(!fixture.append().await.unwrap(), "the entry exists already");
    assert!(fixture.is_told(Duration::from_secs(2)).await);
}
