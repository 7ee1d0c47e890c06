//! Engines of a host: a password hasher that knows the hashes of imported users, and a generator of ids.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use couple::{
    Backend, Entropy as _, Error, Failure, IdGenerator, OsEntropy, RequestContext, Secret, Timestamp,
    account::{
        Account, AccountChange, AccountError, Argon2id, HashCost, Password, PasswordHash, PasswordHasher,
        Proof, SignIn, SignUp, Verification,
    },
    core::{digest, limits::Unlimited, mail::Message},
    notify::mail::MemoryMailer,
    pairing::{InviteOutcome, NewInvite, Person},
};
use couple_conformance::World;
use uuid::Uuid;

const PASSWORD: &str = "mauve kettle orbit";

/// Argon2id for new hashes, and salted SHA-256 for those of the old system: `$sha256$SALT$HASH`.
struct WithImported(Argon2id);

impl WithImported {
    fn new() -> Self {
        Self(Argon2id::new(HashCost::FOR_TESTS).unwrap())
    }

    fn imported(salt: &str, password: &str) -> String {
        let hash = digest(&[salt.as_bytes(), password.as_bytes()]);
        let hex: String = hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("$sha256${salt}${hex}")
    }
}

impl PasswordHasher for WithImported {
    fn hash(&self, password: &Password, salt: &[u8; 16]) -> Result<PasswordHash, Error> {
        self.0.hash(password, salt)
    }
    fn verify(&self, hash: &PasswordHash, password: &Password) -> Result<bool, Error> {
        match hash.as_str().strip_prefix("$sha256$").and_then(|rest| rest.split_once('$')) {
            Some((salt, _)) => Ok(Self::imported(salt, password.expose()) == hash.as_str()),
            None => self.0.verify(hash, password),
        }
    }
    fn needs_rehash(&self, hash: &PasswordHash) -> bool {
        self.0.needs_rehash(hash)
    }
}

fn imported_hash() -> PasswordHash {
    PasswordHash::from_stored(WithImported::imported("salt", PASSWORD))
}

mod kit {
    use super::*;
    couple_conformance::password_hasher!(
        async { WithImported::new() },
        imported: async { (WithImported::new(), imported_hash(), PASSWORD) }
    );
}

#[tokio::test]
async fn hash_of_an_imported_user_is_replaced_at_the_first_sign_in() {
    let backend = Backend::builder().password_hasher(WithImported::new()).limits(Unlimited).build().unwrap();
    let store = &backend.ports().store;
    let ana = Account { password: Some(imported_hash()), ..World::default().account("ana") };
    backend.ports().commit(vec![AccountChange::Insert(ana.clone()).into()]).await.unwrap();
    let stored = async || store.account(ana.id).await.unwrap().unwrap().password.unwrap();
    let sign_in = async |password: &str| {
        let (email, password) = (ana.email.to_string(), Secret::new(password.to_owned()));
        let command = SignIn::Password { email, password };
        backend.accounts().unwrap().sign_in(&RequestContext::default(), &command).await
    };
    let refused = sign_in("another password").await.unwrap_err();
    assert!(matches!(refused, Failure::Refused(AccountError::InvalidCredentials)), "{refused:?}");
    assert_eq!(stored().await, imported_hash());
    sign_in(PASSWORD).await.unwrap();
    let replaced = stored().await;
    assert!(replaced.as_str().starts_with("$argon2id$"));
    sign_in(PASSWORD).await.unwrap();
    assert_eq!(stored().await, replaced, "a current hash is kept");
}

/// Generator whose ids are random after the time and the number of a region, as UUIDs of version 8.
#[derive(Default)]
struct RegionIds(Mutex<HashSet<Uuid>>);

impl IdGenerator for RegionIds {
    fn generate(&self, now: Timestamp) -> Uuid {
        let mut bytes = [0; 16];
        OsEntropy.fill(&mut bytes);
        bytes[..6].copy_from_slice(&(now.micros() / 1_000).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&[0, 42]);
        let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
        self.0.lock().unwrap().insert(id);
        id
    }
}

mod region_ids {
    use super::*;
    couple_conformance::id_generator!(async { RegionIds::default() });
}

#[tokio::test]
async fn all_ids_are_made_by_the_generator_of_the_host() {
    let (ids, mailer) = (Arc::new(RegionIds::default()), MemoryMailer::new());
    let made = |id: Uuid| ids.0.lock().unwrap().contains(&id);
    let builder = Backend::builder().ids(ids.clone()).mailer(mailer.clone()).hash_cost(HashCost::FOR_TESTS);
    let backend = builder.build().unwrap();
    let (context, accounts) = (RequestContext::default(), backend.accounts().unwrap());
    let email = "ana@example.org".to_owned();
    let sign_up = SignUp { email: email.clone(), display_name: "Ana".into(), locale: None };
    accounts.sign_up(&context, &sign_up).await.unwrap();
    backend.worker().run_until_idle().await.unwrap();
    let mail = mailer.last_to(&email).unwrap();
    let Message::ConfirmSignUp { code, .. } = mail.message else { panic!("no code") };
    let proof = Proof::Code { email, code };
    let verification = Verification { proof, password: None, display_name: None, locale: None };
    let signed_in = accounts.verify(&context, &verification).await.unwrap();
    let (account, session) = (&signed_in.account, &signed_in.session);
    assert!(made(account.id.as_uuid()) && made(session.id.as_uuid()));
    let person = Person { id: account.id, email: Some(account.email.clone()) };
    let invite = NewInvite { email: None, message: None };
    let InviteOutcome::Pending(sent) = backend.pairings().invite(&context, &person, &invite).await.unwrap()
    else {
        panic!("paired")
    };
    assert!(made(sent.invite.id.as_uuid()));
}
