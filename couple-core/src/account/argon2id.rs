//! Password hashing by Argon2id (RFC 9106).

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use data_encoding::BASE64_NOPAD;
use zeroize::Zeroizing;

use super::{Password, PasswordHash, PasswordHasher};
use crate::{Digest, Error, ErrorKind};

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

/// Default [`PasswordHasher`]: Argon2id, with hashes as PHC strings.
///
/// A hash of a lower cost, and a hash of another algorithm, needs a rehash.
pub struct Argon2id {
    params: Params,
    /// Working memory, one buffer for each concurrent hash.
    ///
    /// Reused, because allocating it takes up to a third of the time of a hash.
    memory: Mutex<Vec<Vec<Block>>>,
}

impl fmt::Debug for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argon2id").field("params", &self.params).finish_non_exhaustive()
    }
}

impl Argon2id {
    /// Creates the hasher for a cost.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] for cost parameters that Argon2 does not support.
    pub fn new(cost: HashCost) -> Result<Self, Error> {
        let params = Params::new(cost.memory, cost.passes, 1, Some(32))
            .map_err(|e| Error::new(ErrorKind::Misconfigured, "password hasher").context(e.to_string()))?;
        Ok(Self { params, memory: Mutex::default() })
    }

    fn raw(&self, params: &Params, password: &Password, salt: &[u8]) -> Result<[u8; 32], Error> {
        let mut memory = self.lock().pop().unwrap_or_default();
        if memory.len() < params.block_count() {
            memory.resize(params.block_count(), Block::new());
        }
        let mut out = Zeroizing::new([0; 32]);
        let hashed = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
            .hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut *out, &mut memory);
        self.lock().push(memory);
        hashed.map_err(|e| Error::new(ErrorKind::Internal, "hash password").context(e.to_string()))?;
        Ok(*out)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Block>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PasswordHasher for Argon2id {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        let hash = self.raw(&self.params, password, salt)?;
        Ok(PasswordHash::from_stored(format!(
            "$argon2id$v=19$m={},t={},p={}${}${}",
            self.params.m_cost(),
            self.params.t_cost(),
            self.params.p_cost(),
            BASE64_NOPAD.encode(salt),
            BASE64_NOPAD.encode(&hash)
        )))
    }

    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        let stored = StoredHash::parse(hash.as_str())
            .ok_or_else(|| Error::corrupt("account", "password", "an account"))?;
        let computed = self.raw(&stored.params, password, &stored.salt)?;
        Ok(Digest::from_bytes(computed).same_as(&Digest::from_bytes(stored.hash)))
    }

    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        StoredHash::parse(hash.as_str()).is_none_or(|stored| stored.weaker_than(&self.params))
    }
}

/// Parsed hash: parameters, salt and hash.
struct StoredHash {
    params: Params,
    salt: Vec<u8>,
    hash: [u8; 32],
}

impl StoredHash {
    /// Parses a PHC string. Refuses parameters that would make a sign-in use too much memory or time.
    fn parse(phc: &str) -> Option<Self> {
        let mut parts = phc.strip_prefix("$argon2id$v=19$")?.split('$');
        let (params, salt, hash, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let mut params = params.split(',');
        let mut number = |key: &str| params.next()?.strip_prefix(key)?.parse::<u32>().ok();
        let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
        if memory > 1 << 20 || passes > 16 || lanes > 16 {
            return None;
        }
        Some(Self {
            params: Params::new(memory, passes, lanes, Some(32)).ok()?,
            salt: BASE64_NOPAD.decode(salt.as_bytes()).ok()?,
            hash: BASE64_NOPAD.decode(hash.as_bytes()).ok()?.try_into().ok()?,
        })
    }

    fn weaker_than(&self, params: &Params) -> bool {
        self.params.m_cost() < params.m_cost() || self.params.t_cost() < params.t_cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn typed(text: &str) -> Password {
        Password::typed(&Secret::new(text.to_owned())).unwrap()
    }

    fn hasher(memory: u32) -> Argon2id {
        Argon2id::new(HashCost { memory, passes: 1 }).unwrap()
    }

    /// Hashes that were stored remain valid.
    #[test]
    fn stored_hash_is_verified() {
        // Computed with the reference implementation: `printf %s x | argon2 somesaltsomesalt -id -t 1 -k 64 -p 1 -l 32`.
        let stored = PasswordHash::from_stored(
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$cHsrazR4YLJzq48K+JASJZxvgz1QWZnsvxThDumjAnU",
        );
        assert!(hasher(64).verify(&stored, &typed("x")).unwrap());
        assert_eq!(hasher(64).hash(&typed("x"), b"somesaltsomesalt").unwrap(), stored);
    }

    #[test]
    fn phc_strings_are_read_back_and_bounded() {
        let hasher = hasher(64);
        let (password, salt) = (typed("x"), [7; 16]);
        let hash = hasher.hash(&password, &salt).unwrap();
        assert!(hasher.verify(&hash, &password).unwrap());
        assert!(!hasher.verify(&hash, &typed("y")).unwrap());
        for corrupt in [hash.as_str().replace("m=64", "m=4000000"), "plain".into()] {
            let error = hasher.verify(&PasswordHash::from_stored(corrupt), &password).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        assert_eq!(format!("{hash:?} {password:?}"), "PasswordHash(…) Password(Secret(…))");
    }

    #[test]
    fn weaker_and_foreign_hashes_need_a_rehash() {
        let hash = hasher(64).hash(&typed("x"), &[7; 16]).unwrap();
        assert!(!hasher(64).needs_rehash(&hash));
        assert!(!hasher(32).needs_rehash(&hash), "a stronger hash is kept");
        assert!(hasher(128).needs_rehash(&hash));
        assert!(Argon2id::new(HashCost { memory: 64, passes: 2 }).unwrap().needs_rehash(&hash));
        assert!(hasher(64).needs_rehash(&PasswordHash::from_stored("$2b$12$abc")));
    }

    #[test]
    fn password_matches_in_both_normal_forms() {
        let hash = hasher(64).hash(&typed("caf\u{e9}"), &[7; 16]).unwrap();
        assert!(hasher(64).verify(&hash, &typed("cafe\u{301}")).unwrap());
    }
}
