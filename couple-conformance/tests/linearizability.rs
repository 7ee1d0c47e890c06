//! The test with two concurrent clients finds planted faults and names the guarantee that they break.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use couple_conformance::differential::find_violation;
use couple_core::{Change, ChangeResult, CommitError, Committed, Conflict, Error, Store};
use couple_store::MemoryStore;
use tokio::sync::{Mutex, mpsc, oneshot};

type Answer = Result<Committed, CommitError>;

const MILLISECOND: Duration = Duration::from_millis(1);

fn find<S: Store>(store: &impl Fn() -> S, seeds: std::ops::Range<u64>) -> Option<String> {
    let store = || {
        let store = store();
        async { Arc::new(store) as Arc<dyn Store> }
    };
    find_violation(store, || async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }, seeds)
}

/// Finds a violation whose description contains each of the words.
///
/// Searches on after other descriptions: a history in which the store failed twice is described without the cause of either failure.
fn finds<S: Store>(store: impl Fn() -> S, words: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..300 {
        let Some(text) = find(&store, seed..seed + 1) else { continue };
        if words.iter().all(|words| text.contains(words)) {
            return;
        }
        others.push(text);
    }
    panic!("no {words:?} in {} violations:\n{}", others.len(), others.join("\n"));
}

#[test]
fn store_without_a_fault_is_linearizable() {
    assert_eq!(find(&MemoryStore::new, 0..24), None);
}

/// Delays commits, without a fault.
struct SlowStore(MemoryStore);
couple_core::delegate_reads!(SlowStore, |store| store.0);
#[async_trait]
impl Store for SlowStore {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        tokio::time::sleep(MILLISECOND).await;
        let answer = self.0.commit(changes).await;
        tokio::time::sleep(MILLISECOND).await;
        answer
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn slow_store_is_linearizable() {
    assert_eq!(find(&|| SlowStore(MemoryStore::new()), 0..24), None);
}

/// Merges two commits into one transaction, and swaps their results.
#[derive(Default)]
struct SwappedAnswers {
    store: MemoryStore,
    waiting: StdMutex<Option<(Vec<Change>, oneshot::Sender<Answer>)>>,
}
couple_core::delegate_reads!(SwappedAnswers, |store| store.store);
#[async_trait]
impl Store for SwappedAnswers {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        let partner = self.waiting.lock().unwrap().take();
        if let Some((theirs, partner)) = partner {
            let count = theirs.len() == changes.len();
            let answers = (self.store.commit(theirs).await, self.store.commit(changes).await);
            let (theirs, own) = if count { (answers.1, answers.0) } else { answers };
            drop(partner.send(theirs));
            return own;
        }
        let (send, mut answer) = oneshot::channel();
        *self.waiting.lock().unwrap() = Some((changes, send));
        if let Ok(answer) = tokio::time::timeout(2 * MILLISECOND, &mut answer).await {
            return answer.unwrap();
        }
        let alone = self.waiting.lock().unwrap().take();
        match alone {
            Some((changes, _)) => self.store.commit(changes).await,
            None => answer.await.unwrap(),
        }
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn swapped_answers_of_merged_commits_are_found() {
    finds(SwappedAnswers::default, &["each caller gets the result of its own commit (S8); the results of "]);
}

/// Applies the changes of a commit one after another, where readers see them.
#[derive(Default)]
struct HalfCommits {
    /// Decides the results.
    whole: MemoryStore,
    store: MemoryStore,
    writer: Mutex<()>,
}
couple_core::delegate_reads!(HalfCommits, |store| store.store);
#[async_trait]
impl Store for HalfCommits {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        let _writer = self.writer.lock().await;
        let answer = self.whole.commit(changes.clone()).await;
        if answer.is_ok() {
            for change in changes {
                self.store.commit(vec![change]).await?;
                tokio::time::sleep(5 * MILLISECOND).await;
            }
        }
        answer
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn reader_that_sees_half_a_commit_is_found() {
    finds(HalfCommits::default, &["a commit is visible completely or not at all (S1, S11); a half of "]);
}

/// Reads from a replica that receives commits a little later.
struct StaleReads {
    store: MemoryStore,
    replica: Arc<MemoryStore>,
    commits: mpsc::UnboundedSender<Vec<Change>>,
}
impl StaleReads {
    fn new() -> Self {
        let (commits, mut received) = mpsc::unbounded_channel::<Vec<Change>>();
        let replica = Arc::new(MemoryStore::new());
        let copy = replica.clone();
        tokio::spawn(async move {
            while let Some(changes) = received.recv().await {
                tokio::time::sleep(2 * MILLISECOND).await;
                drop(copy.commit(changes).await);
            }
        });
        Self { store: MemoryStore::new(), replica, commits }
    }
}
couple_core::delegate_reads!(StaleReads, |store| store.replica);
#[async_trait]
impl Store for StaleReads {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        let answer = self.store.commit(changes.clone()).await;
        if answer.is_ok() {
            drop(self.commits.send(changes));
        }
        answer
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn stale_read_after_an_acknowledged_commit_is_found() {
    let words = "a read that starts after a commit returned sees the commit (S3); ";
    finds(StaleReads::new, &[words, " returned an older state"]);
}

/// Loses the effect of a commit that begins while another one runs.
#[derive(Default)]
struct LostUpdates {
    /// Decides the results.
    whole: MemoryStore,
    store: MemoryStore,
    running: AtomicUsize,
}
couple_core::delegate_reads!(LostUpdates, |store| store.store);
#[async_trait]
impl Store for LostUpdates {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        let alone = self.running.fetch_add(1, Ordering::SeqCst) == 0;
        let answer = self.whole.commit(changes.clone()).await;
        if answer.is_ok() && alone {
            drop(self.store.commit(changes).await);
        }
        tokio::time::sleep(MILLISECOND).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        answer
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn lost_update_is_found() {
    finds(LostUpdates::default, &["a commit that was acknowledged stays (S3); the effect of ", " was lost"]);
}

/// Returns a `seq` that it read before it appended.
#[derive(Default)]
struct EarlySeq(MemoryStore);
couple_core::delegate_reads!(EarlySeq, |store| store.0);
#[async_trait]
impl Store for EarlySeq {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        use couple_core::pairing::PairingReads as _;
        let mut heads = Vec::new();
        for change in &changes {
            let couple = change.appended().map(|(couple, _)| couple);
            heads.push(match couple {
                Some(couple) => self.0.couple(couple).await?.map(|couple| couple.head_seq),
                None => None,
            });
        }
        tokio::time::sleep(MILLISECOND).await;
        let single = changes.len() == 1;
        let committed = self.0.commit(changes).await?;
        Ok(committed
            .results()
            .iter()
            .zip(heads)
            .map(|(result, head)| match (result, head) {
                (ChangeResult::Appended { .. }, Some(head)) if single => {
                    ChangeResult::Appended { seq: head + 1 }
                }
                (result, _) => result.clone(),
            })
            .collect())
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn result_that_was_computed_before_a_concurrent_commit_is_found() {
    finds(EarlySeq::default, &["; got: appended seq ", " returned what no order gives"]);
}

/// Decides the second of two concurrent commits by what the first one has not written yet.
#[derive(Default)]
struct RefusedConcurrentCommits {
    store: MemoryStore,
    running: AtomicUsize,
}
couple_core::delegate_reads!(RefusedConcurrentCommits, |store| store.store);
#[async_trait]
impl Store for RefusedConcurrentCommits {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        let alone = self.running.fetch_add(1, Ordering::SeqCst) == 0;
        tokio::time::sleep(MILLISECOND).await;
        let answer = if alone { self.store.commit(changes).await } else { Err(Conflict::KeyUsed.into()) };
        self.running.fetch_sub(1, Ordering::SeqCst);
        answer
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn conflict_without_a_reason_is_found() {
    finds(RefusedConcurrentCommits::default, &["result: conflict KeyUsed", " conflicted without a reason"]);
}

/// Does not return from the second of two concurrent commits.
#[derive(Default)]
struct Deadlock {
    store: MemoryStore,
    running: AtomicBool,
}
couple_core::delegate_reads!(Deadlock, |store| store.store);
#[async_trait]
impl Store for Deadlock {
    async fn commit(&self, changes: Vec<Change>) -> Answer {
        if self.running.swap(true, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(MILLISECOND).await;
        let answer = self.store.commit(changes).await;
        self.running.store(false, Ordering::SeqCst);
        answer
    }
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn deadlock_fails_in_time() {
    finds(
        Deadlock::default,
        &["the store returns nothing within 20 s", "broken: a store returns a result, or a conflict"],
    );
}
