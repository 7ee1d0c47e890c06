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
