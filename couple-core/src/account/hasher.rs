//! Password hashing on a bounded thread pool, so that it cannot starve other work.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use argon2::Params;
use tokio::sync::oneshot;

use super::password::{HashMemory, HashParameters, Password, PasswordHash};
use crate::{Entropy, Error, ErrorKind};

/// Cost parameters of one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashCost {
    /// Memory in KiB.
    pub memory: u32,
    /// Number of passes over the memory.
    pub passes: u32,
}

impl HashCost {
    /// 19 MiB and two passes: the OWASP password storage cheat sheet's minimum for Argon2id.
    pub const RECOMMENDED: Self = Self { memory: 19_456, passes: 2 };
    /// Lowest cost that Argon2 supports. Only for tests, never for real passwords.
    pub const FOR_TESTS: Self = Self { memory: 8, passes: 1 };
}

type HashTask = Box<dyn FnOnce(&mut HashMemory) + Send>;

#[derive(Default)]
struct QueuedTask {
    /// Verifications for sign-ins: run first.
    urgent: VecDeque<HashTask>,
    /// Hashes of new passwords.
    other: VecDeque<HashTask>,
    closed: bool,
}

struct Pool {
    waiting: Mutex<QueuedTask>,
    filled: Condvar,
    max_queued: usize,
}

/// Hashes and verifies passwords on a fixed number of threads with a bounded queue.
///
/// Each thread keeps its memory, so the number of concurrent hashes, and their memory, never exceeds the
/// number of threads.
pub struct PasswordHasher {
    pool: Arc<Pool>,
    params: Params,
    entropy: Arc<dyn Entropy>,
    /// Hash to verify for an account that does not exist or has no password: same work, never a match.
    decoy: PasswordHash,
}

impl std::fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordHasher").field("params", &self.params).finish_non_exhaustive()
    }
}

impl PasswordHasher {
    /// Starts `threads` threads and a queue for at most `waiting` passwords.
    ///
    /// A suitable size is the number of hashes that are computed in the time that a user is willing to wait.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for cost parameters that Argon2 does not support;
    /// [`ErrorKind::Unavailable`] when a thread cannot be started.
    pub fn new(
        cost: HashCost,
        threads: usize,
        waiting: usize,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let params = Params::new(cost.memory, cost.passes, 1, Some(32))
            .map_err(|e| Error::new(ErrorKind::Misconfigured, "password hasher").context(e.to_string()))?;
        let pool =
            Arc::new(Pool { waiting: Mutex::default(), filled: Condvar::new(), max_queued: waiting.max(1) });
        for n in 0..threads.max(1) {
            let pool = pool.clone();
            thread::Builder::new()
                .name(format!("password-{n}"))
                .spawn(move || {
                    lower_thread_priority();
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

    /// Hashes a new password.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when the queue is full.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Error> {
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt);
        let params = self.params.clone();
        self.run(false, move |memory| memory.hash(&params, &password, &salt))
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "hash password"))
    }

    /// Verifies a password, in the same time whether or not there is a stored hash.
    ///
    /// `Some` if the password matches, with a new hash if the stored hash has a lower cost than the current
    /// settings.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when the queue is full; [`ErrorKind::Corrupt`] when the stored hash is
    /// malformed.
    pub async fn verify(
        &self,
        stored: Option<&PasswordHash>,
        password: Password,
    ) -> Result<Option<Option<PasswordHash>>, Error> {
        let known = stored.is_some();
        let stored = HashParameters::parse(stored.unwrap_or(&self.decoy))
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
        work: impl FnOnce(&mut HashMemory) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let task: HashTask = Box::new(move |memory| {
            // Skip the work of a cancelled request.
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        });
        self.pool.push(urgent, task)?;
        answered.await.map_err(|_| Error::new(ErrorKind::Internal, "hash password"))
    }
}

/// Lowers the priority of the current thread, so that other work runs first.
///
/// With two hashing threads on two cores, every other request would otherwise wait for a time slice of the
/// scheduler at each step.
fn lower_thread_priority() {
    // Only on Linux the nice value belongs to the thread; on other systems it would change the whole process.
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
    fn push(&self, urgent: bool, task: HashTask) -> Result<(), Error> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.urgent.len() + waiting.other.len() >= self.max_queued {
            return Err(Error::new(ErrorKind::Overloaded, "hash password")
                .context("too many passwords wait to be hashed"));
        }
        if urgent { &mut waiting.urgent } else { &mut waiting.other }.push_back(task);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut memory = HashMemory::new();
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
    async fn verification_upgrades_a_weaker_hash() {
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
    async fn hashing_is_refused_when_too_many_wait() {
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
