//! Bounded thread pool that hashes passwords, so that hashing cannot starve other work.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    thread,
};

use data_encoding::HEXLOWER;
use tokio::sync::oneshot;

use super::{Password, PasswordHash, PasswordHasher};
use crate::{Entropy, Error, ErrorKind, Secret};

type HashTask = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct TaskQueues {
    /// Verifications for sign-ins: run first.
    urgent: VecDeque<HashTask>,
    /// Hashes of new passwords.
    other: VecDeque<HashTask>,
    closed: bool,
}

struct Pool {
    queues: Mutex<TaskQueues>,
    filled: Condvar,
    max_queued: usize,
}

/// Runs a [`PasswordHasher`] on a fixed number of threads with a bounded queue.
///
/// Each thread computes one hash at a time, so the number of threads bounds the memory of all hashes.
pub struct HashingPool {
    pool: Arc<Pool>,
    hasher: Arc<dyn PasswordHasher>,
    entropy: Arc<dyn Entropy>,
    decoy: Arc<OnceLock<PasswordHash>>,
}

impl std::fmt::Debug for HashingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HashingPool").field("max_queued", &self.pool.max_queued).finish_non_exhaustive()
    }
}

impl HashingPool {
    /// Starts `threads` threads and a queue for at most `max_queued` passwords.
    ///
    /// A suitable size is the number of hashes that are computed in the time that a user is willing to wait.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when a thread cannot be started.
    pub fn new(
        hasher: impl PasswordHasher,
        threads: usize,
        max_queued: usize,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let pool = Arc::new(Pool {
            queues: Mutex::default(),
            filled: Condvar::new(),
            max_queued: max_queued.max(1),
        });
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
        Ok(Self { pool, hasher: Arc::new(hasher), entropy, decoy: Arc::default() })
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when the queue is full; errors of the hasher.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Error> {
        let (hasher, salt) = (self.hasher.clone(), self.salt());
        self.run(false, move || hasher.hash(&password, &salt)).await
    }

    /// Verifies a password, in the same time whether or not there is a stored hash.
    ///
    /// `Some` if the password matches, with a new hash if the stored hash needs a rehash. If the rehash fails, that
    /// is logged and there is no new hash. So a hasher that can only verify refuses no right password, but then
    /// takes less time if there is no stored hash.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when the queue is full; [`ErrorKind::Corrupt`] when the stored hash is
    /// malformed; other errors of the hasher.
    pub async fn verify(
        &self,
        stored: Option<&PasswordHash>,
        password: Password,
    ) -> Result<Option<Option<PasswordHash>>, Error> {
        let (hasher, salt, decoy, stored) = (self.hasher.clone(), self.salt(), self.decoy(), stored.cloned());
        self.run(true, move || {
            // For a known account too: otherwise the first sign-in to an unknown account would take longer.
            let decoy = logged("make the hash for unknown accounts", || decoy(&*hasher));
            let Some(hash) = stored.as_ref().or(decoy.as_ref()) else { return Ok(None) };
            let matches = hasher.verify(hash, &password)?;
            match stored {
                Some(stored) if matches => Ok(Some(rehash(&*hasher, &stored, &password, &salt))),
                _ => Ok(None),
            }
        })
        .await
    }

    /// Hash to verify for an account that does not exist or has no password: same work, never a match.
    ///
    /// The first verification computes it, so that the start of the process does not wait for a hash.
    fn decoy(&self) -> impl FnOnce(&dyn PasswordHasher) -> Result<PasswordHash, Error> + use<> {
        let (decoy, salt) = (self.decoy.clone(), self.salt());
        let mut password = [0; 32];
        self.entropy.fill(&mut password);
        move |hasher| {
            if let Some(made) = decoy.get() {
                return Ok(made.clone());
            }
            let password = Password::typed(&Secret::new(HEXLOWER.encode(&password)))
                .ok_or_else(|| Error::new(ErrorKind::Internal, "hash password"))?;
            let made = hasher.hash(&password, &salt)?;
            Ok(decoy.get_or_init(|| made).clone())
        }
    }

    fn salt(&self) -> [u8; 16] {
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt);
        salt
    }

    async fn run<T: Send + 'static>(
        &self,
        urgent: bool,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let task: HashTask = Box::new(move || {
            // Skip the work of a cancelled request.
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        });
        self.pool.push(urgent, task)?;
        answered.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "hash password").context("the password hasher panicked"))
        })
    }
}

/// New hash of a password that matches `stored`, if it needs one.
///
/// After a failure the stored hash stays, and the sign-in succeeds, because the password is right. The next sign-in tries again.
fn rehash(
    hasher: &dyn PasswordHasher,
    stored: &PasswordHash,
    password: &Password,
    salt: &[u8; 16],
) -> Option<PasswordHash> {
    let replace = || hasher.needs_rehash(stored).then(|| hasher.hash(password, salt)).transpose();
    logged("replace a password hash", replace).flatten()
}

/// Result of a call of the hasher whose failure must not refuse a right password. A failure or a panic is logged.
fn logged<T>(task: &'static str, call: impl FnOnce() -> Result<T, Error>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(result)) => Some(result),
        Ok(Err(error)) => {
            tracing::error!(%error, task, "the password hasher failed");
            None
        }
        Err(_) => {
            tracing::error!(task, "the password hasher panicked");
            None
        }
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

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.pool.queues.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.pool.filled.notify_all();
    }
}

impl Pool {
    fn push(&self, urgent: bool, task: HashTask) -> Result<(), Error> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.urgent.len() + queues.other.len() >= self.max_queued {
            return Err(Error::new(ErrorKind::Overloaded, "hash password")
                .context("too many passwords wait to be hashed"));
        }
        if urgent { &mut queues.urgent } else { &mut queues.other }.push_back(task);
        drop(queues);
        self.filled.notify_one();
        Ok(())
    }

    fn work(&self) {
        loop {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            let task = loop {
                if let Some(task) = queues.urgent.pop_front() {
                    break task;
                }
                if let Some(task) = queues.other.pop_front() {
                    break task;
                }
                if queues.closed {
                    return;
                }
                queues = self.filled.wait(queues).unwrap_or_else(PoisonError::into_inner);
            };
            drop(queues);
            // The caller gets an error, and the thread serves the next task.
            if catch_unwind(AssertUnwindSafe(task)).is_err() {
                tracing::error!("the password hasher panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        OsEntropy,
        account::{Argon2id, HashCost},
    };

    fn typed(text: &str) -> Password {
        Password::typed(&Secret::new(text.to_owned())).unwrap()
    }

    fn pool(hasher: impl PasswordHasher, max_queued: usize) -> HashingPool {
        HashingPool::new(hasher, 1, max_queued, Arc::new(OsEntropy)).unwrap()
    }

    fn argon2id(memory: u32, passes: u32) -> Argon2id {
        Argon2id::new(HashCost { memory, passes }).unwrap()
    }

    #[tokio::test]
    async fn verification_upgrades_a_weaker_hash() {
        let (weak, strong) = (pool(argon2id(8, 1), 8), pool(argon2id(64, 2), 8));
        let hash = weak.hash(typed("one")).await.unwrap();
        assert_eq!(weak.verify(Some(&hash), typed("one")).await.unwrap(), Some(None));
        assert_eq!(weak.verify(Some(&hash), typed("two")).await.unwrap(), None);
        assert_eq!(weak.verify(None, typed("one")).await.unwrap(), None);
        let upgraded = strong.verify(Some(&hash), typed("one")).await.unwrap().unwrap().unwrap();
        assert_eq!(strong.verify(Some(&upgraded), typed("one")).await.unwrap(), Some(None));
        assert_eq!(strong.verify(Some(&hash), typed("two")).await.unwrap(), None);
    }

    /// Hasher for which every stored hash is old, and which cannot hash passwords above `longest` bytes.
    struct Limited {
        inner: Argon2id,
        longest: usize,
        panics: bool,
    }

    impl PasswordHasher for Limited {
        fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
            let length = password.expose().len();
            assert!(!self.panics || length <= self.longest);
            if length > self.longest {
                return Err(Error::new(ErrorKind::Internal, "hash password"));
            }
            self.inner.hash(password, salt)
        }
        fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
            self.inner.verify(hash, password)
        }
        fn needs_rehash(&self, _: &PasswordHash) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn failed_rehash_accepts_the_right_password() {
        let long = "x".repeat(100);
        let hash = |text| argon2id(8, 1).hash(&typed(text), &[7; 16]).unwrap();
        let (of_long, of_short) = (hash(&long), hash("one"));
        for panics in [false, true] {
            let pool = pool(Limited { inner: argon2id(8, 1), longest: 72, panics }, 8);
            assert_eq!(pool.verify(Some(&of_long), typed(&long)).await.unwrap(), Some(None), "{panics}");
            assert_eq!(pool.verify(Some(&of_long), typed("two")).await.unwrap(), None, "{panics}");
            let replaced = pool.verify(Some(&of_short), typed("one")).await.unwrap();
            assert!(matches!(replaced, Some(Some(_))), "{panics}: {replaced:?}");
        }
    }

    #[tokio::test]
    async fn hasher_that_only_verifies_accepts_the_right_password() {
        let hash = argon2id(8, 1).hash(&typed("one"), &[7; 16]).unwrap();
        for panics in [false, true] {
            let pool = pool(Limited { inner: argon2id(8, 1), longest: 0, panics }, 8);
            assert_eq!(pool.verify(None, typed("one")).await.unwrap(), None, "{panics}");
            assert_eq!(pool.verify(Some(&hash), typed("one")).await.unwrap(), Some(None), "{panics}");
            assert_eq!(pool.verify(Some(&hash), typed("two")).await.unwrap(), None, "{panics}");
            assert_eq!(pool.hash(typed("one")).await.unwrap_err().kind(), ErrorKind::Internal, "{panics}");
        }
    }

    #[tokio::test]
    async fn hashing_is_refused_when_too_many_wait() {
        let pool = Arc::new(pool(Argon2id::new(HashCost::RECOMMENDED).unwrap(), 2));
        let all = (0..20).map(|n| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.hash(typed(&n.to_string())).await.map_err(|e| e.kind()) })
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

    /// Hasher that counts its work, and panics for the password `panic`.
    struct Counting(Argon2id, Mutex<Vec<&'static str>>);

    impl PasswordHasher for Counting {
        fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
            self.1.lock().unwrap().push("hash");
            self.0.hash(password, salt)
        }
        fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
            self.1.lock().unwrap().push("verify");
            assert_ne!(password.expose(), "panic");
            self.0.verify(hash, password)
        }
        fn needs_rehash(&self, hash: &PasswordHash) -> bool {
            self.0.needs_rehash(hash)
        }
    }

    #[tokio::test]
    async fn unknown_account_takes_the_work_of_a_known_one() {
        let hasher = Arc::new(Counting(argon2id(8, 1), Mutex::default()));
        let work = || std::mem::take(&mut *hasher.1.lock().unwrap());
        let hash = hasher.hash(&typed("one"), &[7; 16]).unwrap();
        for (first, second) in [(Some(&hash), None), (None, Some(&hash))] {
            let pool = pool(hasher.clone(), 8);
            work();
            pool.verify(first, typed("two")).await.unwrap();
            assert_eq!(work(), ["hash", "verify"], "the first verification makes the decoy");
            pool.verify(second, typed("two")).await.unwrap();
            assert_eq!(work(), ["verify"]);
        }
    }

    #[tokio::test]
    async fn panic_of_a_hasher_fails_one_verification() {
        let pool = pool(Counting(argon2id(8, 1), Mutex::default()), 8);
        let hash = pool.hash(typed("one")).await.unwrap();
        let error = pool.verify(Some(&hash), typed("panic")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(pool.verify(Some(&hash), typed("one")).await.unwrap(), Some(None));
    }
}
