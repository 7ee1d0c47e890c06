//! Recorded outcomes in memory.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, Digest, Error, IdempotencyChange, IdempotencyReads, OutcomeRecord,
};

use super::{FaultyStore, system_time, table::Table};
use crate::planted;

#[derive(Default)]
pub(super) struct IdempotencyTables {
    outcomes: Table<Digest, OutcomeRecord>,
}

impl IdempotencyTables {
    pub(super) fn apply(&mut self, change: IdempotencyChange) -> Result<ChangeResult, Conflict> {
        match change {
            IdempotencyChange::Record(record) => {
                let used = self.outcomes.get(&record.scope);
                let at = if planted("store-outcomes-expire-by-its-clock") {
                    system_time()
                } else {
                    record.recorded_at
                };
                if used.is_some_and(|used| used.expires_at > at) {
                    return Err(Conflict::KeyUsed);
                }
                self.outcomes.put(record.scope, record);
            }
            IdempotencyChange::Purge { before, cap } => {
                let purged =
                    self.outcomes.purge(cap, |record| record.expires_at < before, |record| record.expires_at);
                return Ok(ChangeResult::RowsAffected(purged.len() as u64));
            }
        }
        Ok(ChangeResult::Applied)
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.outcomes.end(keep);
    }
}

#[async_trait]
impl IdempotencyReads for FaultyStore {
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error> {
        Ok(self.state()?.idempotency.outcomes.get(scope).cloned())
    }
}
