//! S1–S9: guarantees of every commit.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Change, ChangeResult, CommitError, Committed, Conflict, ErrorKind, HostStatements, Store,
    account::AccountChange,
    job::{ClaimedJob, JobChange, NewJob},
    pairing::{Couple, PairingChange, Side},
    timeline::TimelineChange,
};

use crate::world::{World, all, append, concurrently, conflict, conflicts, insert, must, race};

/// After a conflict none of the commit's changes is visible.
pub async fn s1_commit_is_atomic(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let (ana, again) = (world.account("ana"), world.account("ana"));
    let changes = vec![
        insert(&ana),
        append(couple.id, world.entry("one")),
        JobChange::Enqueue(world.job("q")).into(),
        insert(&again),
    ];
    assert_eq!(conflicts(&store, changes).await, Conflict::AccountExists);
    assert_eq!(store.account(ana.id).await.unwrap(), None);
    assert_eq!(store.couple(couple.id).await.unwrap().unwrap().head_seq, 0);
    assert_eq!(store.next_due("q").await.unwrap(), None);
    assert!(store.entry(couple.id, 1).await.unwrap().is_none());
}

/// A change sees the earlier changes of the same commit.
pub async fn s2_changes_apply_in_order(store: impl Store) {
    let world = World::default();
    let people = [world.account_id(), world.account_id()];
    let (first, second) = (world.couple(people), world.couple(people));
    let changes = vec![
        PairingChange::Pair(first.clone()).into(),
        append(first.id, world.entry("one")),
        append(first.id, world.entry("two")),
        PairingChange::End { id: first.id, members: people, at: world.now() }.into(),
        PairingChange::Pair(second.clone()).into(),
    ];
    assert!(all(&store, changes).await.appended_seqs().eq([1, 2]));
    assert_eq!(store.couple_of(people[0]).await.unwrap().unwrap().id, second.id);
}

/// A read after a commit sees the commit.
pub async fn s3_read_after_a_commit_sees_it(store: impl Store) {
    let world = World::default();
    for n in 0..50 {
        let account = world.account(&format!("p{n}"));
        must(&store, AccountChange::Insert(account.clone())).await;
        assert_eq!(store.account(account.id).await.unwrap(), Some(account));
    }
}

/// A commit whose caller was cancelled is atomic: both of its changes are visible, or none.
pub async fn s4_commit_of_a_cancelled_caller_is_atomic(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let mut pairs = Vec::new();
    for n in 0..200_u64 {
        let (one, other) = (world.account(&format!("a{n}")), world.account(&format!("b{n}")));
        let changes = vec![insert(&one), insert(&other)];
        let wait = Duration::from_micros(n * 5);
        let _ = tokio::time::timeout(wait, store.commit(changes)).await;
        pairs.push((one.id, other.id));
    }
    // Commits that are still running end before a later commit does.
    must(&store, AccountChange::Insert(world.account("last"))).await;
    for (one, other) in pairs {
        let there =
            (store.account(one).await.unwrap().is_some(), store.account(other).await.unwrap().is_some());
        assert!(there.0 == there.1, "half a commit is visible");
    }
}

/// Of concurrent commits, those that conflict do not affect the others.
pub async fn s5_conflict_does_not_fail_other_commits(store: impl Store) {
    let world = World::default();
    let taken = world.account("taken");
    must(&store, AccountChange::Insert(taken.clone())).await;
    let store = Arc::new(store);
    let mut commits = Vec::new();
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for n in 0..60 {
        let account = world.account(&format!("p{n}"));
        let changes = match n % 3 {
            0 => vec![insert(&world.account("taken"))],
            1 => vec![insert(&account), insert(&world.account("taken"))],
            _ => vec![insert(&account)],
        };
        if n % 3 == 2 { &mut good } else { &mut bad }.push(account.id);
        commits.push(changes);
    }
    assert_eq!(race(&store, commits).await, 20);
    for id in good {
        assert!(store.account(id).await.unwrap().is_some());
    }
    for id in bad {
        assert!(store.account(id).await.unwrap().is_none());
    }
}

/// An empty commit succeeds and returns nothing.
pub async fn s6_empty_commit_succeeds(store: impl Store) {
    assert!(matches!(store.commit(Vec::new()).await, Ok(out) if out == Committed::default()));
    assert!(matches!(store.ping().await, Ok(())));
}

/// Text is compared byte by byte: no trimming, no case folding, no collation.
pub async fn s7_text_is_stored_exactly(store: impl Store) {
    let world = World::default();
    let couple = world.stored_couple(&store).await;
    let ids = ["a", "A", "a ", "á", "a\u{301}", "ı", "i", "K", "\u{212A}", "👩‍❤️‍👨", "'; --", "%", "_", "\\"];
    for id in ids {
        all(&store, vec![append(couple.id, world.entry(id))]).await;
    }
    for (n, id) in ids.into_iter().enumerate() {
        let found = store.entry_by_client_id(couple.id, Side::First, id).await.unwrap();
        assert_eq!(found.map(|entry| entry.seq), Some(n as i64 + 1), "{id:?}");
        let again = append(couple.id, world.entry(id));
        assert!(matches!(
            store.commit(vec![again]).await,
            Err(CommitError::Conflict(Conflict::ClientIdUsed))
        ));
    }
    let _ = conflict(&store, PairingChange::Pair(couple)).await;
}

/// Each of many concurrent commits returns one result for each of its changes, in their order.
pub async fn s8_commit_returns_one_result_per_change(store: impl Store) {
    let world = World::default();
    must(&store, AccountChange::Insert(world.account("taken"))).await;
    let store = Arc::new(store);
    let (mut commits, mut expected) = (Vec::new(), Vec::new());
    for n in 0..48_i64 {
        let Couple { id: couple, members, .. } = world.stored_couple(&*store).await;
        let job = world.job(&format!("q{n}"));
        let lease_until = world.later(30);
        let claim =
            JobChange::Claim { queue: job.queue.clone(), now: world.now(), lease_until, claim: n, limit: 9 };
        let erase = TimelineChange::Erase { couple, author: Side::First, at: world.now(), after: 0, cap: 9 };
        let mut changes = vec![
            JobChange::Enqueue(job.clone()).into(),
            append(couple, world.entry("one")),
            claim.into(),
            insert(&world.account(&format!("p{n}"))),
            append(couple, world.entry("two")),
            PairingChange::End { id: couple, members, at: world.now() }.into(),
            erase.into(),
        ];
        if n % 3 == 2 {
            changes.push(insert(&world.account("taken")));
            expected.push(Err(Conflict::AccountExists));
        } else {
            let claimed = ClaimedJob { job: NewJob { due_at: lease_until, ..job }, attempt: 1, claim: n };
            let results = [
                ChangeResult::Applied,
                ChangeResult::Appended { seq: 1 },
                ChangeResult::Claimed(vec![claimed]),
                ChangeResult::Applied,
                ChangeResult::Appended { seq: 2 },
                ChangeResult::Applied,
                ChangeResult::RowsAffected(2),
            ];
            expected.push(Ok(results.into_iter().collect()));
        }
        commits.push(changes);
    }
    assert_eq!(concurrently(&store, commits).await, expected);
}

/// A commit with statements of a host that the store did not make fails and writes nothing.
pub async fn s9_unknown_host_statements_are_refused(store: impl Store) {
    let world = World::default();
    let (before, after) = (world.account("before"), world.account("after"));
    let unknown = Change::Host(HostStatements::new("statements of no store"));
    match store.commit(vec![insert(&before), unknown, insert(&after)]).await {
        Err(CommitError::Failed(error)) => assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.account(before.id).await.unwrap(), None);
    assert_eq!(store.account(after.id).await.unwrap(), None);
    must(&store, AccountChange::Insert(before)).await;
}
