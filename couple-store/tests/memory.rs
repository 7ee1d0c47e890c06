//! Adapters in memory pass the conformance kit.

use std::sync::Arc;

use couple_store::{MemoryBus, MemoryLimits, MemoryPresence, MemoryStore};

mod direct {
    use super::*;
    couple_conformance::store!(async { MemoryStore::new() });
}

mod shared {
    use super::*;
    couple_conformance::store!(async { Arc::new(MemoryStore::new()) as Arc<dyn couple_core::Store> });
}

couple_conformance::limits!(|clock| async { MemoryLimits::new(clock) });

mod people {
    use super::*;
    couple_conformance::presence!(async { MemoryPresence::new() });
}

mod notices {
    use super::*;
    couple_conformance::bus!(async { MemoryBus::new() });
}

/// Changes are refused in their order: an earlier conflict comes before statements of a host (S2, S9).
#[tokio::test]
async fn conflict_comes_before_later_statements_of_a_host() {
    use couple_core::{
        Change, CommitError, Conflict, ErrorKind, HostStatements, Store as _, account::AccountChange,
    };
    let (store, world) = (MemoryStore::new(), couple_conformance::World::default());
    let account = AccountChange::Insert(world.account("ana"));
    store.commit(vec![account.clone().into()]).await.expect("the account is new");
    let unknown = Change::Host(HostStatements::new(()));
    let first = store.commit(vec![account.clone().into(), unknown.clone()]).await;
    assert!(matches!(first, Err(CommitError::Conflict(Conflict::AccountExists))), "{first:?}");
    let last = store.commit(vec![unknown, account.into()]).await;
    assert!(
        matches!(&last, Err(CommitError::Failed(error)) if error.kind() == ErrorKind::Misconfigured),
        "{last:?}"
    );
}
