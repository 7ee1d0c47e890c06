//! The differential test finds planted faults, shrinks them to a few steps and describes them in words.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use couple_conformance::differential::find_difference;
use couple_core::{
    Change, CommitError, Committed, Conflict, Error, Store, Timestamp,
    account::AccountChange,
    job::JobChange,
    media::Media,
    pairing::PairingChange,
    timeline::{Entry, TimelineChange},
};
use couple_store::MemoryStore;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    RepeatedClientIdIsAppended,
    EntriesAreNewestFirst,
    DescriptionClearsFieldsThatAreNotGiven,
    UnreadEntriesAreCountedUpToOne,
    PurgeIgnoresItsCap,
    TimesAreCutToSeconds,
    CommitBeforeAConflictStays,
    BlockIsMutual,
    ReplayExpiresImmediately,
    PictureKeepsItsUses,
    ReactionOfNoneFails,
    ReactionOfNonePanics,
    ReadPositionHangs,
}

/// Memory store with a fault.
struct FaultyStore(MemoryStore, Fault);

impl FaultyStore {
    async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        read: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let mut result = read.await?;
        let any: &mut dyn Any = &mut result;
        match (self.1, name) {
            (Fault::EntriesAreNewestFirst, "entries") => any.downcast_mut::<Vec<Entry>>().unwrap().reverse(),
            (Fault::UnreadEntriesAreCountedUpToOne, "unread") => {
                let count = any.downcast_mut::<u32>().unwrap();
                *count = 1.min(*count);
            }
            (Fault::PictureKeepsItsUses, "media") => {
                if let Some(media) = any.downcast_mut::<Option<Media>>().unwrap() {
                    media.uses = 0;
                }
            }
            _ => {}
        }
        Ok(result)
    }
}

couple_core::delegate_reads!(FaultyStore, |store| store.0, around: read);

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, mut changes: Vec<Change>) -> Result<Committed, CommitError> {
        for change in &mut changes {
            match (self.1, change) {
                (
                    Fault::DescriptionClearsFieldsThatAreNotGiven,
                    Change::Pairing(PairingChange::Describe { title, .. }),
                ) => *title = Some(title.take().flatten()),
                (Fault::PurgeIgnoresItsCap, Change::Account(AccountChange::PurgeTallies { cap, .. })) => {
                    *cap = u32::MAX;
                }
                (Fault::TimesAreCutToSeconds, Change::Timeline(TimelineChange::Append { entry, .. })) => {
                    entry.at = Timestamp::from_micros(entry.at.micros() / 1_000_000 * 1_000_000);
                }
                (Fault::ReplayExpiresImmediately, Change::Job(JobChange::Replay { expires_at, at, .. })) => {
                    *expires_at = *at;
                }
                (
                    Fault::ReactionOfNoneFails,
                    Change::Timeline(TimelineChange::React { seq, emoji: None, .. }),
                ) => return Err(Conflict::EntryClosed(*seq).into()),
                (
                    Fault::ReactionOfNonePanics,
                    Change::Timeline(TimelineChange::React { emoji: None, .. }),
                ) => {
                    panic!("no emoji")
                }
                (Fault::ReadPositionHangs, Change::Timeline(TimelineChange::MarkRead { .. })) => {
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
        }
        let mutual = changes.iter().filter_map(|change| match change {
            Change::Pairing(PairingChange::Block(block)) if self.1 == Fault::BlockIsMutual => {
                let (blocker, blocked) = (block.blocked, block.blocker);
                Some(
                    PairingChange::Block(couple_core::pairing::Block { blocker, blocked, ..block.clone() })
                        .into(),
                )
            }
            _ => None,
        });
        let mutual: Vec<Change> = mutual.collect();
        let committed = match (self.0.commit(changes.clone()).await, self.1) {
            (Err(CommitError::Conflict(Conflict::ClientIdUsed)), Fault::RepeatedClientIdIsAppended) => {
                for change in &mut changes {
                    if let Change::Timeline(TimelineChange::Append { entry, .. }) = change {
                        entry.client_id = None;
                    }
                }
                self.0.commit(changes).await
            }
            (Err(conflict), Fault::CommitBeforeAConflictStays) => {
                for change in changes {
                    if self.0.commit(vec![change]).await.is_err() {
                        break;
                    }
                }
                Err(conflict)
            }
            (committed, _) => committed,
        };
        if committed.is_ok() && !mutual.is_empty() {
            self.0.commit(mutual).await?;
        }
        committed
    }
    async fn ping(&self) -> Result<(), Error> {
        self.0.ping().await
    }
}

fn find(fault: Fault, seeds: std::ops::Range<u64>) -> Option<String> {
    find_difference(
        || async move { Arc::new(FaultyStore(MemoryStore::new(), fault)) as Arc<dyn Store> },
        || async { Arc::new(MemoryStore::new()) as Arc<dyn Store> },
        seeds,
    )
}

/// Number of steps in a description.
fn steps(text: &str) -> usize {
    text.lines()
        .filter(|line| line.trim_start().split_once(". ").is_some_and(|(n, _)| n.parse::<u32>().is_ok()))
        .count()
}

#[test]
fn store_without_a_fault_does_not_differ() {
    assert_eq!(find(Fault::None, 0..32), None);
}

/// A fault is found, shrunk to at most six steps, and described in words.
fn is_described(fault: Fault, words: &str) {
    let text = find(fault, 0..256).unwrap_or_else(|| panic!("{fault:?} is not found"));
    assert!(text.contains(words), "it is not described as {words:?}:\n{text}");
    assert!((1..=6).contains(&steps(&text)), "it is not shrunk:\n{text}");
}

macro_rules! faults {
    ($($name:ident: $fault:ident, $words:literal;)+) => {$(
        #[test]
        fn $name() {
            is_described(Fault::$fault, $words);
        }
    )+};
}
faults! {
    repeated_client_id_that_is_appended_is_found: RepeatedClientIdIsAppended,
        "expected: conflict ClientIdUsed; got: appended seq 2";
    wrong_order_of_entries_is_found: EntriesAreNewestFirst,
        "expected the order: entry 1, entry 2; got: entry 2, entry 1";
    field_that_is_cleared_is_found: DescriptionClearsFieldsThatAreNotGiven,
        "field `title`: expected: \"Us\"; got: none";
    wrong_count_is_found: UnreadEntriesAreCountedUpToOne, "expected: 2; got: 1";
    purge_without_a_cap_is_found: PurgeIgnoresItsCap, "rows affected; got: ";
    times_without_a_fraction_are_found: TimesAreCutToSeconds,
        "entry 1, field `created_at`: expected: 1 s; got: 1000000 µs";
    changes_before_a_conflict_that_stay_are_found: CommitBeforeAConflictStays,
        "exactly what the successful commits before it wrote (S1, S3)";
    row_too_many_is_found: BlockIsMutual, "expected: no such row; got: block of ";
    wrong_expiry_of_a_replayed_job_is_found: ReplayExpiresImmediately, "field `expires_at`: expected: ";
    wrong_field_of_one_read_is_found: PictureKeepsItsUses, "field `uses`: expected: 1; got: 0";
    wrong_conflict_is_found: ReactionOfNoneFails,
        "expected: conflict CoupleEnded (couple 1); got: conflict EntryClosed (entry 1)";
    panic_is_found: ReactionOfNonePanics, "got: the store panics: no emoji";
}

#[test]
fn seed_of_a_failure_gives_the_same_failure() {
    let text = find(Fault::RepeatedClientIdIsAppended, 0..64).unwrap();
    let seed: u64 = text.rsplit_once('=').unwrap().1.parse().unwrap();
    assert_eq!(find(Fault::RepeatedClientIdIsAppended, seed..seed + 1), Some(text));
}

#[test]
fn store_that_does_not_return_fails_the_test_in_time() {
    let text = find(Fault::ReadPositionHangs, 0..64).unwrap();
    assert!(text.contains("got: the store returns nothing within 20 s"), "{text}");
    let broken = text.lines().find(|line| line.starts_with("broken: the preconditions and effects of "));
    assert!(broken.is_some_and(|line| line.contains("TimelineChange::MarkRead")), "{text}");
}
