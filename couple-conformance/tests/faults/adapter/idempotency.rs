//! Recorded outcomes in memory.

use async_trait::async_trait;
use couple_core::{
    ChangeResult, Conflict, Digest, Error, IdempotencyChange, IdempotencyReads, OutcomeRecord,
};

use super::{FaultyStore, account, column::column, system_time, table::Table};
use crate::{plant::planted_kind, planted};

#[derive(Clone, Default)]
pub(super) struct IdempotencyTables {
    outcomes: Table<Digest, OutcomeRecord>,
}

impl IdempotencyTables {
    pub(super) fn apply(&mut self, change: IdempotencyChange) -> Result<ChangeResult, Conflict> {
        match change {
            IdempotencyChange::Record(record) => {
                let used = self.outcomes.get(&record.scope);
                let is_live = |used: &OutcomeRecord| match planted_kind("record") {
                    Some("-conflicts-at-the-expiry") => used.expires_at >= record.recorded_at,
                    Some("-conflicts-with-an-expired-one") => true,
                    Some("-replaces-a-live-one") => false,
                    Some("-replaces-one-of-the-same-request") => {
                        used.expires_at > record.recorded_at && used.request != record.request
                    }
                    Some("-replaces-one-that-was-recorded-before") => used.recorded_at >= record.recorded_at,
                    _ if planted("store-outcomes-expire-by-its-clock") => used.expires_at > system_time(),
                    _ => used.expires_at > record.recorded_at,
                };
                if used.is_some_and(is_live) {
                    return Err(Conflict::KeyUsed);
                }
                match used.cloned() {
                    Some(old) if planted("record-keeps-an-expired-outcome") => self.put(&old),
                    Some(old) if planted("record-keeps-an-expired-request") => {
                        self.put(&OutcomeRecord { request: old.request, ..record });
                    }
                    Some(old) if planted("record-keeps-the-first-time") => {
                        self.put(&OutcomeRecord { recorded_at: old.recorded_at, ..record });
                    }
                    Some(old) if planted("record-keeps-the-first-expiry") => {
                        self.put(&OutcomeRecord { expires_at: old.expires_at, ..record });
                    }
                    _ => self.put(&record),
                }
            }
            IdempotencyChange::Purge { before, cap } => {
                let cap = if planted("purge-outcomes-ignores-the-cap") { u32::MAX } else { cap };
                let newest = if planted("purge-outcomes-newest-first") { -1 } else { 1 };
                let age = |record: &OutcomeRecord| {
                    if planted("purge-outcomes-by-the-time-of-the-request") {
                        record.recorded_at
                    } else {
                        record.expires_at
                    }
                };
                let purged = self.outcomes.purge(
                    cap,
                    |record| column("purge-outcomes").is_before(age(record), before),
                    |record| newest * age(record).micros(),
                );
                return Ok(account::rows("purge-outcomes", purged.len()));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn put(&mut self, record: &OutcomeRecord) {
        let mut record = OutcomeRecord {
            scope: column("outcome-scope").digest(record.scope),
            request: column("outcome-request").digest(record.request),
            outcome: column("outcome-text").text(&record.outcome),
            recorded_at: column("outcome-recorded-at").time(record.recorded_at),
            expires_at: column("outcome-expires-at").time(record.expires_at),
        };
        if planted("outcome-times-are-swapped") {
            std::mem::swap(&mut record.recorded_at, &mut record.expires_at);
        }
        if planted("outcome-digests-are-swapped") {
            std::mem::swap(&mut record.scope, &mut record.request);
        }
        if planted("outcome-blanks-are-removed") {
            record.outcome.retain(|c| c != ' ');
        }
        self.outcomes.put(record.scope, record);
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        if kind == "-outcomes" {
            self.outcomes = Table::default();
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.outcomes.end(keep);
    }
}

#[async_trait]
impl IdempotencyReads for FaultyStore {
    async fn outcome(&self, scope: &Digest) -> Result<Option<OutcomeRecord>, Error> {
        let state = self.state()?;
        let outcomes = &state.idempotency.outcomes;
        let found = outcomes.get(scope).cloned();
        let found =
            found.or_else(|| account::similar("outcome-by-scope", scope, outcomes.values(), |one| one.scope));
        let hidden = |record: &OutcomeRecord| {
            planted("expired-outcomes-are-not-found") && record.expires_at <= record.recorded_at
        };
        Ok(found.filter(|record| !hidden(record)))
    }
}
