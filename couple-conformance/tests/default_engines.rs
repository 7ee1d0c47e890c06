//! Default password hasher and id generator, and faulty ones: each check fails for the fault that it looks for.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicU64, Ordering};

use couple_conformance::{id_generator, password_hasher};
use couple_core::{
    Error, IdGenerator, OsEntropy, Timestamp, UuidV7,
    account::{Argon2id, HashCost, Password, PasswordHash, PasswordHasher},
};
use uuid::Uuid;

fn argon2id() -> Argon2id {
    Argon2id::new(HashCost::FOR_TESTS).unwrap()
}

mod argon2id {
    use super::*;
    couple_conformance::password_hasher!(async { argon2id() });
}

mod uuid_v7 {
    use super::*;
    couple_conformance::id_generator!(async { UuidV7::new(OsEntropy) });
}

/// Message of a check's failure.
async fn failure(check: impl Future<Output = ()> + Send + 'static) -> String {
    let panic = tokio::spawn(check).await.unwrap_err().into_panic();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

macro_rules! fails {
    ($check:expr, $words:expr) => {
        let text = failure($check).await;
        assert!(text.contains($words), "{text}");
    };
}

#[derive(Clone, Copy, PartialEq)]
enum HasherFault {
    AcceptsAll,
    RefusesAll,
    /// As bcrypt does.
    Truncates,
    Unsalted,
    IgnoresByteOfSalt(usize),
    StoresPassword,
    UnnamedAlgorithm,
    AlwaysOld,
    /// Neither an imported hash nor one of a lower cost is replaced.
    NeverOld,
    AnswersForUnknownHashes,
    ComparesLengthFirst,
}

/// Argon2id with a fault. Imported hashes are the passwords after `$imported$`.
struct FaultyHasher(Argon2id, HasherFault);

impl FaultyHasher {
    fn new(fault: HasherFault) -> Self {
        Self(argon2id(), fault)
    }
}

fn typed(text: &str) -> Password {
    Password::typed(&couple_core::Secret::new(text.to_owned())).unwrap()
}

impl PasswordHasher for FaultyHasher {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        let text = password.expose();
        match self.1 {
            HasherFault::Truncates => self.0.hash(&typed(text.get(..72).unwrap_or(text)), salt),
            HasherFault::Unsalted => self.0.hash(password, &[0; 16]),
            HasherFault::IgnoresByteOfSalt(index) => {
                let mut salt = *salt;
                salt[index] = 0;
                self.0.hash(password, &salt)
            }
            HasherFault::StoresPassword => Ok(PasswordHash::from_stored(format!("$plain${text}"))),
            HasherFault::UnnamedAlgorithm => {
                Ok(PasswordHash::from_stored(self.0.hash(password, salt)?.as_str().replacen('$', "", 1)))
            }
            HasherFault::ComparesLengthFirst => {
                let hash = self.0.hash(password, salt)?;
                Ok(PasswordHash::from_stored(format!("$length${}{}", text.len(), hash.as_str())))
            }
            _ => self.0.hash(password, salt),
        }
    }

    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        let text = password.expose();
        if let Some(imported) = hash.as_str().strip_prefix("$imported$") {
            return Ok(imported == text || self.1 == HasherFault::AcceptsAll);
        }
        match self.1 {
            HasherFault::AcceptsAll => Ok(true),
            HasherFault::RefusesAll => Ok(false),
            HasherFault::Truncates => self.0.verify(hash, &typed(text.get(..72).unwrap_or(text))),
            HasherFault::AnswersForUnknownHashes => Ok(self.0.verify(hash, password).unwrap_or(false)),
            HasherFault::ComparesLengthFirst => {
                let rest = hash.as_str().strip_prefix("$length$").unwrap();
                let (length, hash) = rest.split_once('$').unwrap();
                let hash = PasswordHash::from_stored(format!("${hash}"));
                Ok(length == text.len().to_string() && self.0.verify(&hash, password)?)
            }
            _ => self.0.verify(hash, password),
        }
    }

    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        match self.1 {
            HasherFault::AlwaysOld => true,
            HasherFault::NeverOld => false,
            _ => self.0.needs_rehash(hash),
        }
    }
}

#[tokio::test]
async fn faulty_hashers_fail_their_checks() {
    use HasherFault as Fault;
    use password_hasher::*;
    let new = FaultyHasher::new;
    fails!(h1_hash_matches_only_its_password(new(Fault::AcceptsAll)), "matches the hash of another one");
    fails!(h1_hash_matches_only_its_password(new(Fault::RefusesAll)), "does not match its hash");
    fails!(h1_hash_matches_only_its_password(new(Fault::Truncates)), "a password of 1024 bytes matches");
    fails!(h2_hash_depends_on_its_salt(new(Fault::Unsalted)), "differ in the first byte give the same hash");
    for (index, which) in [(0, "first"), (15, "last")] {
        fails!(
            h2_hash_depends_on_its_salt(new(Fault::IgnoresByteOfSalt(index))),
            &format!("differ in the {which} byte give the same hash")
        );
    }
    let h3 = h3_hash_names_its_algorithm_and_hides_the_password;
    fails!(h3(new(Fault::StoresPassword)), "the hash contains the password");
    fails!(h3(new(Fault::UnnamedAlgorithm)), "does not begin with $");
    fails!(h4_new_hash_needs_no_rehash(new(Fault::AlwaysOld)), "a new hash needs a rehash");
    let h5 = h5_unknown_hash_is_an_error;
    fails!(h5(new(Fault::AnswersForUnknownHashes)), "\"\" is verified as a hash, with the result false");
    fails!(
        h6_wrong_password_takes_as_long(new(Fault::ComparesLengthFirst)),
        "a wrong password of 5 bytes takes"
    );
    let h7 = h7_imported_hash_matches_and_needs_a_rehash;
    let imported = || PasswordHash::from_stored("$imported$mauve kettle orbit");
    h7((new(Fault::Unsalted), imported(), "mauve kettle orbit")).await;
    fails!(h7((new(Fault::Unsalted), imported(), "kettle")), "does not match the imported hash");
    fails!(h7((new(Fault::AcceptsAll), imported(), "mauve kettle orbit")), "a wrong password matches");
    fails!(h7((new(Fault::NeverOld), imported(), "mauve kettle orbit")), "it is never replaced");
}

/// Ids of `time`, which may be wrong, and `tail`, which may be predictable.
struct FaultyIds {
    time: fn(u64) -> u64,
    tail: fn(u64) -> u64,
    made: AtomicU64,
}

impl FaultyIds {
    const fn new(time: fn(u64) -> u64, tail: fn(u64) -> u64) -> Self {
        Self { time, tail, made: AtomicU64::new(0) }
    }
}

impl IdGenerator for FaultyIds {
    fn generate(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.micros() / 1_000).unwrap();
        let made = self.made.fetch_add(1, Ordering::SeqCst);
        Uuid::from_u64_pair((self.time)(millis), (self.tail)(made))
    }
}

#[tokio::test]
async fn faulty_generators_fail_their_checks() {
    use id_generator::*;
    // The odd factor spreads a counter over all bits, but leaves a constant difference.
    let spread: fn(u64) -> u64 = |made| made.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    fails!(g1_ids_are_unique(FaultyIds::new(|millis| millis << 16, |_| 7)), "was created twice");
    fails!(g2_ids_are_ordered_by_time(FaultyIds::new(u64::swap_bytes, spread)), "is not after");
    fails!(g2_ids_are_ordered_by_time(FaultyIds::new(|millis| millis / 1_000, spread)), "is not after");
    fails!(
        g3_last_62_bits_are_random(FaultyIds::new(|millis| millis << 16, |made| made)),
        "it is not random"
    );
    fails!(
        g3_last_62_bits_are_random(FaultyIds::new(|millis| millis << 16, spread)),
        "of the difference between ids"
    );
}
