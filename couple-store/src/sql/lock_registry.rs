//! Locks because of which commits are not merged with others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::locks::Lock;

/// Time for which a lock is quarantined after a commit that needs it has timed out.
///
/// Some held locks are noticed by a lock time-out only, so a merged transaction would wait for the same lock again and again.
const QUARANTINE_TIME: Duration = Duration::from_secs(10);
/// Number of locks above which all locks that no longer block are removed.
const MAX_REGISTERED_LOCKS: usize = 4_096;

/// Reasons why commits with a lock must not be merged with others.
#[derive(Default)]
pub(super) struct LockUse {
    /// Number of blocked commits that need the lock.
    commits: usize,
    /// Number of running transactions of this process that may wait for the lock.
    transactions: usize,
    /// End of the quarantine after a commit that timed out. Never set for a row.
    ///
    /// None if no commit timed out, or if one has succeeded since.
    quarantined_until: Option<Instant>,
}

impl LockUse {
    pub(super) fn blocks(&self, now: Instant) -> bool {
        self.commits > 0 || self.transactions > 0 || self.quarantined_until.is_some_and(|until| now < until)
    }
}

/// Locks that blocked commits and running transactions need.
#[derive(Clone, Default)]
pub(super) struct LockRegistry(Arc<Mutex<HashMap<Lock, LockUse>>>);

impl LockRegistry {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Lock, LockUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a blocked commit.
    pub(super) fn register_commit(&self, locks: Vec<Lock>) -> CommitRegistration {
        let mut uses = self.lock();
        for lock in &locks {
            uses.entry(*lock).or_default().commits += 1;
        }
        CommitRegistration { locks, registry: self.clone(), end: CommitEnd::Unknown }
    }

    /// Registers a transaction that may wait for `locks`. `uses` is this registry, locked.
    pub(super) fn register_transaction(
        &self,
        uses: &mut HashMap<Lock, LockUse>,
        locks: Vec<Lock>,
    ) -> TransactionRegistration {
        for lock in &locks {
            uses.entry(*lock).or_default().transactions += 1;
        }
        TransactionRegistration { locks, registry: self.clone() }
    }
}

/// Registration of a blocked commit.
///
/// Until it is dropped, commits that share a lock with it are queued as blocked, too.
pub(super) struct CommitRegistration {
    locks: Vec<Lock>,
    registry: LockRegistry,
    end: CommitEnd,
}

/// End of a blocked commit, which starts or ends the quarantine of its locks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CommitEnd {
    /// The commit conflicted, failed for another reason, or was abandoned by its caller.
    Unknown,
    /// The commit timed out: its locks are quarantined.
    TimedOut,
    /// The commit had all its locks: they are free.
    Committed,
}

impl CommitRegistration {
    /// Records that the commit timed out.
    pub(super) const fn timed_out(&mut self) {
        self.end = CommitEnd::TimedOut;
    }
    /// Records that the commit succeeded.
    pub(super) const fn committed(&mut self) {
        self.end = CommitEnd::Committed;
    }
}

impl Drop for CommitRegistration {
    fn drop(&mut self) {
        let now = Instant::now();
        release(&mut self.registry.lock(), &self.locks, now, |lock, lock_use| {
            lock_use.commits -= 1;
            match self.end {
                // The next transaction sees whether a row is held, without waiting for it.
                CommitEnd::TimedOut if !lock.is_row() => {
                    lock_use.quarantined_until = Some(now + QUARANTINE_TIME);
                }
                CommitEnd::Committed => lock_use.quarantined_until = None,
                CommitEnd::TimedOut | CommitEnd::Unknown => {}
            }
        });
    }
}

/// Registration of a transaction that may wait for locks, until it is dropped.
pub(super) struct TransactionRegistration {
    locks: Vec<Lock>,
    registry: LockRegistry,
}

impl Drop for TransactionRegistration {
    fn drop(&mut self) {
        release(&mut self.registry.lock(), &self.locks, Instant::now(), |_, lock_use| {
            lock_use.transactions -= 1;
        });
    }
}

/// Updates locks, and removes those that no longer block.
fn release(
    uses: &mut HashMap<Lock, LockUse>,
    locks: &[Lock],
    now: Instant,
    mut update: impl FnMut(&Lock, &mut LockUse),
) {
    for lock in locks {
        if let Entry::Occupied(mut entry) = uses.entry(*lock) {
            update(lock, entry.get_mut());
            if !entry.get().blocks(now) {
                entry.remove();
            }
        }
    }
    if uses.len() > MAX_REGISTERED_LOCKS {
        uses.retain(|_, lock_use| lock_use.blocks(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::locks::Table;

    const ROW: Lock = Lock::Row(Table::Couple, [1; 32]);
    const ADDRESS: Lock = Lock::Address([2; 32]);

    fn register(locks: &LockRegistry) -> CommitRegistration {
        locks.register_commit(vec![ROW, ADDRESS])
    }

    fn blocks(locks: &LockRegistry, lock: Lock) -> bool {
        locks.lock().get(&lock).is_some_and(|lock_use| lock_use.blocks(Instant::now()))
    }

    #[test]
    fn commit_that_times_out_quarantines_its_locks_but_not_its_rows() {
        let locks = LockRegistry::default();
        let mut timed_out = register(&locks);
        assert!(blocks(&locks, ROW) && blocks(&locks, ADDRESS), "while the commit waits");
        timed_out.timed_out();
        drop(timed_out);
        assert!(blocks(&locks, ADDRESS));
        assert!(!blocks(&locks, ROW), "whether a row is held is seen without waiting");
    }

    #[test]
    fn only_a_successful_commit_ends_a_quarantine() {
        let locks = LockRegistry::default();
        let (mut timed_out, mut committed) = (register(&locks), register(&locks));
        let abandoned = register(&locks);
        timed_out.timed_out();
        drop(timed_out);
        drop(abandoned);
        committed.committed();
        assert_eq!(locks.lock()[&ADDRESS].commits, 1);
        assert!(locks.lock()[&ADDRESS].quarantined_until.is_some(), "an abandoned commit shows nothing");
        drop(committed);
        assert!(!blocks(&locks, ADDRESS));
        assert!(locks.lock().is_empty());
    }
}
