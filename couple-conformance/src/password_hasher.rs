//! Checks H1 to H7 of `PasswordHasher`.

use std::time::Duration;

use couple_core::{
    Clock as _, ErrorKind, Secret, SystemClock,
    account::{Password, PasswordHash, PasswordHasher},
};

/// Salt of a hash.
const SALT: [u8; 16] = [7; 16];

fn typed(text: &str) -> Password {
    Password::typed(&Secret::new(text.to_owned())).unwrap()
}

fn hashed(hasher: &impl PasswordHasher, text: &str) -> PasswordHash {
    hasher.hash(&typed(text), &SALT).unwrap()
}

/// A hash matches its own password only, even if another password differs just at the end.
pub async fn h1_hash_matches_only_its_password(hasher: impl PasswordHasher) {
    let longest = "x".repeat(Password::MAX_BYTES - 1);
    let pairs = [
        ("mauve kettle orbit".to_owned(), "mauve kettle orbiT".to_owned()),
        ("mauve kettle orbit".to_owned(), "mauve kettle orbi".to_owned()),
        ("пароль из пяти слов".to_owned(), "пароль из пяти слоВ".to_owned()),
        ("a\0b".to_owned(), "a\0c".to_owned()),
        ("x".to_owned(), String::new()),
        (format!("{longest}y"), format!("{longest}z")),
    ];
    for (right, wrong) in pairs {
        let hash = hashed(&hasher, &right);
        let matches = |text: &str| hasher.verify(&hash, &typed(text)).unwrap();
        assert!(matches(&right), "the password of {} bytes does not match its hash", right.len());
        assert!(!matches(&wrong), "a password of {} bytes matches the hash of another one", right.len());
    }
}

/// One password has different hashes with salts that differ in the first or the last byte, and matches each.
pub async fn h2_hash_depends_on_its_salt(hasher: impl PasswordHasher) {
    let password = typed("mauve kettle orbit");
    let hash = hasher.hash(&password, &SALT).unwrap();
    assert!(hasher.verify(&hash, &password).unwrap(), "the password does not match its hash");
    for (index, which) in [(0, "first"), (15, "last")] {
        let mut salt = SALT;
        salt[index] ^= 1;
        let other = hasher.hash(&password, &salt).unwrap();
        let differs = other.as_str() != hash.as_str();
        assert!(differs, "two salts that differ in the {which} byte give the same hash");
        assert!(hasher.verify(&other, &password).unwrap(), "the password does not match its hash");
    }
}

/// A hash is a short printable text that names its algorithm and hides the password.
pub async fn h3_hash_names_its_algorithm_and_hides_the_password(hasher: impl PasswordHasher) {
    for text in ["mauve-kettle-orbit", &"x".repeat(Password::MAX_BYTES)] {
        let hash = hashed(&hasher, text);
        let stored = hash.as_str();
        assert!(stored.starts_with('$'), "the hash does not begin with $");
        assert!(stored.len() <= 255, "the hash has {} bytes", stored.len());
        assert!(stored.bytes().all(|byte| byte.is_ascii_graphic()), "the hash is not printable ASCII");
        assert!(!stored.contains(text), "the hash contains the password");
    }
}

/// A new hash needs no rehash, so the next sign-in does not replace it.
pub async fn h4_new_hash_needs_no_rehash(hasher: impl PasswordHasher) {
    let hash = hashed(&hasher, "mauve kettle orbit");
    assert!(!hasher.needs_rehash(&hash), "a new hash needs a rehash, so each sign-in would hash twice");
}

/// A text that is not a hash is an error of kind `Corrupt`, for any password.
pub async fn h5_unknown_hash_is_an_error(hasher: impl PasswordHasher) {
    let hash = hashed(&hasher, "x");
    let (algorithm, _) = hash.as_str()[1..].split_once('$').unwrap_or_default();
    for text in ["", "x", "$", "$unknown$", &format!("${algorithm}$"), &format!("${algorithm}$x$y$z")] {
        match hasher.verify(&PasswordHash::from_stored(text), &typed("x")) {
            Ok(matches) => panic!("{text:?} is verified as a hash, with the result {matches}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "error of {text:?}: {error}"),
        }
    }
}

/// Verifying a wrong password of any length takes at least half of the time of the right one.
///
/// Compares the shortest of nine runs, because other processes can only make a run longer.
pub async fn h6_wrong_password_takes_as_long(hasher: impl PasswordHasher) {
    let right = "mauve kettle orbit";
    let hash = hashed(&hasher, right);
    let once = |text: &str| {
        let (password, started) = (typed(text), SystemClock.monotonic());
        hasher.verify(&hash, &password).unwrap();
        SystemClock.monotonic() - started
    };
    let texts =
        [right, "mauve kettle orbiT", "Xauve kettle orbit", "short", &"x".repeat(Password::MAX_BYTES)];
    let mut shortest = [Duration::MAX; 5];
    for _ in 0..9 {
        for (shortest, text) in shortest.iter_mut().zip(texts) {
            *shortest = once(text).min(*shortest);
        }
    }
    for (time, text) in shortest.iter().zip(texts) {
        let length = text.len();
        assert!(
            *time * 2 >= shortest[0],
            "a wrong password of {length} bytes takes {time:?}, the right one {:?}",
            shortest[0]
        );
    }
}

/// An imported hash matches its password and needs a rehash; the new hash needs none.
pub async fn h7_imported_hash_matches_and_needs_a_rehash(
    (hasher, hash, password): (impl PasswordHasher, PasswordHash, &str),
) {
    assert!(hasher.verify(&hash, &typed(password)).unwrap(), "the password does not match the imported hash");
    let wrong = typed(&format!("{password}x"));
    assert!(!hasher.verify(&hash, &wrong).unwrap(), "a wrong password matches the imported hash");
    assert!(hasher.needs_rehash(&hash), "the imported hash needs no rehash, so it is never replaced");
    let replaced = hashed(&hasher, password);
    assert!(hasher.verify(&replaced, &typed(password)).unwrap(), "the password does not match its new hash");
    assert!(!hasher.needs_rehash(&replaced), "the new hash needs a rehash");
}
