//! I1–I3: recorded outcomes.

use std::{sync::Arc, time::Duration};

use couple_core::{Conflict, IdempotencyChange, OutcomeRecord, Store, digest};

use crate::{
    change_races,
    samples::{MOMENT, after_2038, before_1970, longest, similar_digests, special},
    world::{World, accepted, affects, conflicts, insert, must, race, refused, same},
};

fn record(world: &World, scope: &str, n: u64) -> OutcomeRecord {
    OutcomeRecord {
        scope: digest(&[scope.as_bytes()]),
        request: digest(&[&n.to_be_bytes()]),
        outcome: format!("{{\"n\":{n}}}"),
        recorded_at: world.now(),
        expires_at: world.later(60),
    }
}

/// An outcome is recorded once; a commit that conflicts writes nothing.
pub async fn i1_outcome_is_recorded_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let commits = (0..50).map(|n| vec![IdempotencyChange::Record(record(&world, "a", n)).into()]).collect();
    let succeeded = race(&store, commits).await;
    same(&succeeded, &1, "of 50 concurrent outcomes of one scope other than one was recorded");
    let scope = record(&world, "a", 0).scope;
    let first = store.outcome(&scope).await.unwrap().expect("a recorded outcome is not found");
    // Also the outcome of the same request, and one that is recorded shortly before the expiry.
    let last = first.expires_at.minus(MOMENT);
    for at in [world.now(), last] {
        for again in [first.clone(), record(&world, "a", 99)] {
            let account = world.account("ana");
            let again = OutcomeRecord { recorded_at: at, expires_at: world.later(999), ..again };
            let changes = vec![insert(&account), IdempotencyChange::Record(again.clone()).into()];
            let what = "an outcome is recorded although its scope has one that has not expired";
            refused(&*store, IdempotencyChange::Record(again), Conflict::KeyUsed, what).await;
            same(&conflicts(&*store, changes).await, &Conflict::KeyUsed, what);
            let found = store.account(account.id).await.unwrap();
            same(&found, &None, "a commit whose outcome conflicts has written a change");
            let found = store.outcome(&scope).await.unwrap();
            same(&found.as_ref(), &Some(&first), "an outcome is replaced before its expiry");
        }
    }
    // The outcome of a commit that conflicts is not recorded.
    let lost = record(&world, "b", 1);
    must(&*store, couple_core::account::AccountChange::Insert(world.account("taken"))).await;
    let changes = vec![IdempotencyChange::Record(lost.clone()).into(), insert(&world.account("taken"))];
    same(&conflicts(&*store, changes).await, &Conflict::AccountExists, "an address is used twice");
    let found = store.outcome(&lost.scope).await.unwrap();
    same(&found, &None, "the outcome of a commit that conflicted is recorded");
    accepted(&*store, IdempotencyChange::Record(lost.clone()), "an unused scope has an outcome").await;
    same(&store.outcome(&lost.scope).await.unwrap(), &Some(lost), "a recorded outcome is not found");
    same(&store.outcome(&digest(&[b"c"])).await.unwrap(), &None, "an unused scope has an outcome");
}

/// An expired record is replaced; purges remove only expired records, the earliest first.
pub async fn i2_expired_record_is_replaced_or_purged(store: impl Store) {
    let world = World::default();
    let first = record(&world, "a", 1);
    must(&store, IdempotencyChange::Record(first.clone())).await;
    let second = OutcomeRecord {
        recorded_at: first.expires_at,
        expires_at: world.later(99_999),
        ..record(&world, "a", 2)
    };
    accepted(&store, IdempotencyChange::Record(second.clone()), "an expired outcome is not replaced").await;
    let found = store.outcome(&first.scope).await.unwrap();
    same(&found, &Some(second), "an expired outcome is not replaced by all fields of the new one");
    // Expiries are in the order of neither scopes nor times of the request.
    let order = [4, 1, 3, 0, 5, 2_u64];
    let records = order.map(|n| OutcomeRecord {
        recorded_at: world.now().minus(Duration::from_secs(n)),
        expires_at: world.later(n),
        ..record(&world, &format!("p{n}"), n)
    });
    for record in &records {
        must(&store, IdempotencyChange::Record(record.clone())).await;
    }
    let mut removed = 0;
    for (before, cap, count) in [(0, 9, 0), (3, 0, 0), (5, 2, 2), (5, 2, 2), (5, 2, 1), (5, 2, 0)] {
        let purge = IdempotencyChange::Purge { before: world.later(before), cap };
        let what = "a purge of outcomes does not return the number of removed rows, at most its cap";
        affects(&store, purge, count, what).await;
        removed += count;
        for (n, record) in order.into_iter().zip(&records) {
            let found = store.outcome(&record.scope).await.unwrap();
            let what = "a purge does not remove the outcomes that expired first, or removes another one";
            same(&found.as_ref(), &(n >= removed).then_some(record), what);
        }
    }
    let found = store.outcome(&first.scope).await.unwrap();
    assert!(found.is_some(), "a purge removes an outcome that has not expired");
    change_races::expired_outcome_is_replaced_once(&Arc::new(store)).await;
}

/// Every field of a record reads back; scopes are compared by all bytes.
pub async fn i3_outcome_fields_read_back(store: impl Store) {
    let digests = similar_digests();
    // The longest outcome has 32 KiB.
    let texts = [
        special("{\"title\": \""),
        format!("{{\"text\":\"{}\"}}", longest(8 * 1024 - 3)),
        String::new(),
        "{ \"a\" : [ 1 , 2 ] }".to_owned(),
        "  ".to_owned(),
        "null".to_owned(),
    ];
    let mut records = Vec::new();
    for (n, ((scope, request), outcome)) in
        (0..).zip(digests.into_iter().zip(digests.into_iter().rev()).zip(texts))
    {
        let times = [before_1970(n), after_2038(n)];
        let [recorded_at, expires_at] = if n % 2 == 0 { times } else { [times[1], times[0]] };
        let record = OutcomeRecord { scope, request, outcome, recorded_at, expires_at };
        let found = store.outcome(&scope).await.unwrap();
        same(&found, &None, "an outcome is found by a similar scope");
        let what = "a scope is taken for a similar one";
        accepted(&store, IdempotencyChange::Record(record.clone()), what).await;
        records.push(record);
    }
    for record in records {
        let found = store.outcome(&record.scope).await.unwrap();
        same(&found, &Some(record), "an outcome does not read back as it was written");
    }
}
