//! Password hashing in a bounded pool of its own, so that it cannot starve the rest.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use argon2::Params;
use tokio::sync::oneshot;

use super::password::{Memory, Password, PasswordHash, Stored};
use crate::{Entropy, Error, ErrorKind};

/// What one hash costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl HashCost {
    /// 19 MiB and two passes: the least that the OWASP password storage cheat sheet recommends for Argon2id.
    pub const RECOMMENDED: Self = Self { memory: 19_456, passes: 2 };
    /// As cheap as Argon2 gets: for tests, never for passwords that guard something.
    pub const FOR_TESTS: Self = Self { memory: 8, passes: 1 };
}

type Task = Box<dyn FnOnce(&mut Memory) + Send>;

#[derive(Default)]
struct Waiting {
    /// Sign-ins: served first.
    urgent: VecDeque<Task>,
    /// Passwords that are being set.
    other: VecDeque<Task>,
    closed: bool,
}

struct Pool {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    most: usize,
}

/// Hashes and verifies passwords on a fixed number of threads with a bounded queue before them.
///
/// Each thread keeps its memory, so hashes in flight, and their memory, never exceed the threads.
pub struct PasswordHasher {
    pool: Arc<Pool>,
    params: Params,
    entropy: Arc<dyn Entropy>,
    /// What an unknown or password-less account is verified against: the same work, never a match.
    decoy: PasswordHash,
}

impl std::fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordHasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl PasswordHasher {
    /// Starts `threads` threads, before which at most `waiting` passwords wait: as many as are done in the time that a
    /// person waits.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for a cost that Argon2 does not know; [`ErrorKind::Unavailable`] when no
    /// thread can be started.
    pub fn new(
        cost: HashCost,
        threads: usize,
        waiting: usize,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let params = Params::new(cost.memory, cost.passes, 1, Some(32))
            .map_err(|e| Error::new(ErrorKind::Misconfigured, "password hasher").context(e.to_string()))?;
        let pool = Arc::new(Pool { waiting: Mutex::default(), filled: Condvar::new(), most: waiting.max(1) });
        for n in 0..threads.max(1) {
            let pool = pool.clone();
            thread::Builder::new()
                .name(format!("password-{n}"))
                .spawn(move || {
                    yield_to_others();
                    pool.work();
                })
                .map_err(|e| Error::new(ErrorKind::Unavailable, "password hasher").source(e))?;
        }
        let mut random = [0; 48];
        entropy.fill(&mut random);
        let encode = |bytes: &[u8]| data_encoding::BASE64_NOPAD.encode(bytes);
        let decoy = PasswordHash::from_stored(format!(
            "$argon2id$v=19$m={},t={},p=1${}${}",
            cost.memory,
            cost.passes,
            encode(&random[..16]),
            encode(&random[16..])
        ));
        Ok(Self { pool, params, entropy, decoy })
    }

    /// Hashes a password that is being set.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when too many wait.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Error> {
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt);
        let params = self.params.clone();
        self.run(false, move |memory| memory.hash(&params, &password, &salt))
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "hash password"))
    }

    /// Verifies a password, in the same time whether or not there is one to compare with.
    ///
    /// `Some` when it matches: with the hash that should replace the stored one, if that is weaker than today's.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when too many wait; [`ErrorKind::Corrupt`] when the stored hash is none.
    pub async fn verify(
        &self,
        stored: Option<&PasswordHash>,
        password: Password,
    ) -> Result<Option<Option<PasswordHash>>, Error> {
        let known = stored.is_some();
        let stored = Stored::parse(stored.unwrap_or(&self.decoy))
            .ok_or_else(|| Error::corrupt("account", "password", "an account"))?;
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt);
        let params = self.params.clone();
        self.run(true, move |memory| {
            let matches = memory.verify(&stored, &password) && known;
            matches.then(|| {
                stored.weaker_than(&params).then(|| memory.hash(&params, &password, &salt)).flatten()
            })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        urgent: bool,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |memory| {
            // Nobody waits any more: the request was given up.
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        });
        self.pool.push(urgent, task)?;
        answered.await.map_err(|_| Error::new(ErrorKind::Internal, "hash password"))
    }
}

/// Lowers this thread's priority: hashing takes what the rest leaves. Two hashing threads on two cores otherwise
/// hold every other request back by a scheduler's slice at each step.
fn yield_to_others() {
    // Only here is a niceness a thread's own; elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::debug!(%error, "could not lower the priority of a password hashing thread");
    }
}

impl Drop for PasswordHasher {
    fn drop(&mut self) {
        self.pool.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.pool.filled.notify_all();
    }
}

impl Pool {
    fn push(&self, urgent: bool, task: Task) -> Result<(), Error> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.urgent.len() + waiting.other.len() >= self.most {
            return Err(Error::new(ErrorKind::Overloaded, "hash password")
                .context("too many passwords wait to be hashed"));
        }
        if urgent { &mut waiting.urgent } else { &mut waiting.other }.push_back(task);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut memory = Memory::new();
        loop {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let task = loop {
                if let Some(task) = waiting.urgent.pop_front() {
                    break task;
                }
                if let Some(task) = waiting.other.pop_front() {
                    break task;
                }
                if waiting.closed {
                    return;
                }
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            };
            drop(waiting);
            task(&mut memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OsEntropy, Secret};

    fn typed(text: &str) -> Password {
        Password::typed(&Secret::new(text.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn verifies_and_upgrades() {
        let weak = PasswordHasher::new(HashCost::FOR_TESTS, 1, 8, Arc::new(OsEntropy)).unwrap();
        let strong =
            PasswordHasher::new(HashCost { memory: 64, passes: 2 }, 1, 8, Arc::new(OsEntropy)).unwrap();
        let hash = weak.hash(typed("one")).await.unwrap();
        assert_eq!(weak.verify(Some(&hash), typed("one")).await.unwrap(), Some(None));
        assert_eq!(weak.verify(Some(&hash), typed("two")).await.unwrap(), None);
        assert_eq!(weak.verify(None, typed("one")).await.unwrap(), None);
        let upgraded = strong.verify(Some(&hash), typed("one")).await.unwrap().unwrap().unwrap();
        assert_eq!(strong.verify(Some(&upgraded), typed("one")).await.unwrap(), Some(None));
    }

    #[tokio::test]
    async fn refuses_when_too_many_wait() {
        let hasher = Arc::new(PasswordHasher::new(HashCost::RECOMMENDED, 1, 2, Arc::new(OsEntropy)).unwrap());
        let all = (0..20).map(|n| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.hash(typed(&n.to_string())).await.map_err(|e| e.kind()) })
        });
        let mut refused = 0;
        for one in all.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Ok(_) => {}
                Err(kind) => {
                    assert_eq!(kind, ErrorKind::Overloaded);
                    refused += 1;
                }
            }
        }
        assert!(refused >= 10, "{refused}");
    }
}
