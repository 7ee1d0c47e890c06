//! I1–I2: recorded outcomes.

use std::sync::Arc;

use couple_core::{Conflict, IdempotencyChange, OutcomeRecord, Store, digest};

use crate::world::{World, conflict, conflicts, insert, must, race};

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
    assert_eq!(race(&store, commits).await, 1);
    let account = world.account("ana");
    let changes = vec![insert(&account), IdempotencyChange::Record(record(&world, "a", 99)).into()];
    assert_eq!(conflicts(&store, changes).await, Conflict::KeyUsed);
    assert_eq!(store.account(account.id).await.unwrap(), None);
    let other = record(&world, "b", 1);
    must(&store, IdempotencyChange::Record(other.clone())).await;
    assert_eq!(store.outcome(&other.scope).await.unwrap(), Some(other));
    assert_eq!(store.outcome(&digest(&[b"c"])).await.unwrap(), None);
}

/// An expired record is replaced; purges remove only expired records.
pub async fn i2_expired_record_is_replaced_or_purged(store: impl Store) {
    let world = World::default();
    let first = record(&world, "a", 1);
    must(&store, IdempotencyChange::Record(first.clone())).await;
    let early = OutcomeRecord { recorded_at: world.later(59), ..record(&world, "a", 2) };
    assert_eq!(conflict(&store, IdempotencyChange::Record(early)).await, Conflict::KeyUsed);
    let second = OutcomeRecord {
        recorded_at: first.expires_at,
        expires_at: world.later(120),
        ..record(&world, "a", 2)
    };
    must(&store, IdempotencyChange::Record(second.clone())).await;
    assert_eq!(store.outcome(&first.scope).await.unwrap(), Some(second));
    for (n, scope) in ["b", "c", "d"].into_iter().enumerate() {
        must(&store, IdempotencyChange::Record(record(&world, scope, n as u64))).await;
    }
    let purge = |before, cap| IdempotencyChange::Purge { before, cap };
    assert_eq!(must(&store, purge(world.later(60), 9)).await.rows_affected(), 0);
    assert_eq!(must(&store, purge(world.later(61), 2)).await.rows_affected(), 2);
    assert_eq!(must(&store, purge(world.later(61), 2)).await.rows_affected(), 1);
    assert!(store.outcome(&first.scope).await.unwrap().is_some());
}
