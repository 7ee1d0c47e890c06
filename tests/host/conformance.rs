//! Directories and authenticators of the library and of the test's host pass their checks; each faulty one fails its check.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    extract::ConnectInfo,
    http::{Request, request::Parts},
};
use couple::{
    AccountId, Backend, Error, ErrorKind, Failure, Principal,
    account::{AccountChange, Accounts, Session},
    core::{Change, DisplayName, EmailAddress, EmailKey, SessionId, digest, live::SessionChecker},
    http::{Authenticator, JwtAuthenticator, JwtKeys, TrustedHeader, Unauthenticated},
    pairing::{Contact, Directory, Profile},
};
use couple_conformance::{
    World,
    authenticator::{AuthenticatorSample, EndSession, *},
    directory::{DirectorySample, *},
};
use tokio::task::{LocalSet, spawn_local};

use crate::{
    host_users::HostUsers,
    jwt::{AUDIENCE, ISSUER, IdentityProvider},
};

fn bearer(token: &str) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    head
}

/// Calls a function when a session has to end.
fn by(end: impl FnOnce() + Send + 'static) -> Option<EndSession> {
    Some(Box::new(|| Box::pin(async { end() })))
}

/// Built-in accounts: two with a session, and one that was erased.
async fn accounts() -> (Accounts, DirectorySample, AuthenticatorSample) {
    let world = World::default();
    let backend = Backend::builder().clock(world.clock.clone()).build().unwrap();
    let [ana, ben, cleo] = ["Ana", "ben", "cleo"].map(|name| world.account(name));
    let session =
        |id: AccountId| Session { token: digest(&[id.to_string().as_bytes()]), ..world.session(id) };
    let (first, second) = (session(ana.id), session(ben.id));
    let (first_id, people) = (first.id, [ana.id, ben.id]);
    let deleted = (cleo.id, cleo.email.clone());
    let mut changes: Vec<Change> = [ana, ben, cleo].map(|one| AccountChange::Insert(one).into()).to_vec();
    changes
        .extend([first, second].map(|session| AccountChange::InsertSession { session, version: 0 }.into()));
    changes.push(AccountChange::Erase { id: deleted.0, version: 0 }.into());
    backend.ports().commit(changes).await.unwrap();
    let accounts = backend.accounts().unwrap().clone();
    let ending = accounts.clone();
    let end: EndSession =
        Box::new(move || Box::pin(async move { ending.end_session(people[0], first_id).await.unwrap() }));
    let sample = AuthenticatorSample {
        people: people.map(|id| (id, bearer(&id.to_string()))),
        refused: vec![bearer("nonsense"), bearer("")],
        end: Some(end),
    };
    (accounts, DirectorySample { people, deleted }, sample)
}

/// Users of the test's host: two with a session, and one who was deleted.
fn host_users() -> (HostUsers, DirectorySample, AuthenticatorSample) {
    let users = HostUsers::default();
    let people = ["Ana@example.org", "ben@example.org"].map(|email| users.add(email));
    let deleted = (users.add("cleo@example.org"), EmailAddress::parse("email", "cleo@example.org").unwrap());
    let of_deleted = users.sign_in(deleted.0);
    users.delete(deleted.0);
    let tokens = people.map(|person| users.sign_in(person));
    let (ending, token) = (users.clone(), tokens[0].clone());
    let sample = AuthenticatorSample {
        people: [(people[0], bearer(&tokens[0])), (people[1], bearer(&tokens[1]))],
        refused: vec![bearer("nonsense"), bearer(&of_deleted)],
        end: by(move || ending.sign_out(&token)),
    };
    (users, DirectorySample { people, deleted }, sample)
}

/// A gateway, whose sessions this process cannot end.
fn trusted_header() -> (TrustedHeader, AuthenticatorSample) {
    let from = |peer: &str, person: String| {
        let (mut head, ()) = Request::new(()).into_parts();
        head.headers.insert("x-user-id", person.parse().unwrap());
        head.extensions.insert(ConnectInfo::<SocketAddr>(peer.parse().unwrap()));
        head
    };
    let gateway =
        TrustedHeader::new("x-user-id".parse().unwrap()).from_networks(vec!["10.0.0.0/8".parse().unwrap()]);
    let world = World::default();
    let people = [world.account_id(), world.account_id()].map(|id| (id, from("10.0.0.1:1", id.to_string())));
    let other_peer = from("192.0.2.1:1", people[0].0.to_string());
    let refused = vec![other_peer, from("10.0.0.1:1", "ana".to_owned())];
    (gateway, AuthenticatorSample { people, refused, end: None })
}

/// Sessions that were revoked.
struct Revoked(Arc<Mutex<HashSet<String>>>);

#[async_trait]
impl SessionChecker for Revoked {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        let revoked = self.0.lock().unwrap();
        Ok(principals.iter().map(|one| !revoked.contains(one.session().unwrap())).collect())
    }
}

/// Tokens of an identity provider, whose sessions can be revoked or not.
fn tokens(can_revoke: bool) -> (JwtAuthenticator, AuthenticatorSample) {
    let (provider, world, hour) = (IdentityProvider::new(), World::default(), Duration::from_hours(1));
    let [ana, ben] = [world.account_id(), world.account_id()];
    let keys = JwtKeys::from_json(&provider.jwks()).unwrap();
    let mut authenticator = JwtAuthenticator::new(keys, ISSUER, AUDIENCE).with_clock_skew(Duration::ZERO);
    let revoked = Arc::new(Mutex::new(HashSet::new()));
    if can_revoke {
        authenticator = authenticator.with_sessions(Revoked(revoked.clone()));
    }
    let revoke = by(move || {
        revoked.lock().unwrap().insert("a".to_owned());
    });
    let sample = AuthenticatorSample {
        people: [
            (ana, bearer(&provider.token(ana, "a", hour))),
            (ben, bearer(&provider.token(ben, "b", hour))),
        ],
        refused: vec![
            bearer("nonsense"),
            bearer(&provider.token(ana, "a", Duration::ZERO)),
            bearer(&IdentityProvider::new().token(ana, "a", hour)),
        ],
        end: revoke.filter(|_| can_revoke),
    };
    (authenticator, sample)
}

mod accounts_of_the_library {
    couple_conformance::directory!(async {
        let (accounts, sample, _) = accounts().await;
        (accounts, sample)
    });
    couple_conformance::authenticator!(async {
        let (accounts, _, sample) = accounts().await;
        (accounts, sample)
    });
    use super::accounts;
}

mod users_of_a_host {
    couple_conformance::directory!(async {
        let (users, sample, _) = host_users();
        (users, sample)
    });
    couple_conformance::authenticator!(async {
        let (users, _, sample) = host_users();
        (Arc::new(users), sample)
    });
    use super::{Arc, host_users};
}

mod gateway {
    couple_conformance::authenticator!(async { trusted_header() });
    use super::trusted_header;
}

mod tokens_with_revocation {
    couple_conformance::authenticator!(async { tokens(true) });
    use super::tokens;
}

mod tokens_without_revocation {
    couple_conformance::authenticator!(async { tokens(false) });
    use super::tokens;
}

/// Requires that a check fails with this message.
async fn assert_fails(check: impl Future<Output = ()> + 'static, message: &str) {
    let failure = LocalSet::new().run_until(async { spawn_local(check).await }).await;
    let failure = failure.expect_err(message).into_panic();
    let text = failure.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap();
    assert!(text.contains(message), "{text:?} lacks {message:?}");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    // Of a directory.
    FindsAnyone,
    FindsNobody,
    FindsByAddressAsTyped,
    KeepsProfile,
    KeepsContact,
    KeepsAddress,
    LacksProfiles,
    InventsProfiles,
    InventsContacts,
    AllMayPair,
    NobodyMayPair,
    // Of an authenticator.
    AcceptsEndedSessions,
    FollowsEndedSessions,
    RenamesSessions,
    ConfusesPeople,
    SharesOneSession,
    AcceptsEverything,
    FailsInsteadOfRefusing,
    TakesTimeForEachSession,
    OmitsRepeatedSessions,
    ReversesResults,
    ListsOthers,
    ListsNoSession,
    ListsEndedSessions,
    // Of both.
    Hangs,
    Fails,
}

/// Users of the test's host with one fault.
struct Faulty {
    users: HostUsers,
    fault: Fault,
    people: [AccountId; 2],
    deleted: (AccountId, EmailAddress),
    /// Principals of earlier requests, by their header.
    seen: Mutex<Vec<(String, Principal)>>,
}

impl Faulty {
    fn new(fault: Fault) -> (Self, DirectorySample, AuthenticatorSample) {
        let (users, directory, authenticator) = host_users();
        let DirectorySample { people, deleted } = directory.clone();
        (Self { users, fault, people, deleted, seen: Mutex::default() }, directory, authenticator)
    }

    fn directory(fault: Fault) -> (Self, DirectorySample) {
        let (faulty, sample, _) = Self::new(fault);
        (faulty, sample)
    }

    fn authenticator(fault: Fault) -> (Self, AuthenticatorSample) {
        let (faulty, _, sample) = Self::new(fault);
        (faulty, sample)
    }

    async fn begin(&self) -> Result<(), Error> {
        match self.fault {
            Fault::Hangs => std::future::pending().await,
            Fault::Fails => Err(Error::new(ErrorKind::Unavailable, "look up a user")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Directory for Faulty {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        self.begin().await?;
        let is_invented = match self.fault {
            Fault::LacksProfiles => return Ok(None),
            Fault::KeepsProfile => person == self.deleted.0,
            Fault::InventsProfiles => person != self.deleted.0,
            _ => false,
        };
        let invented = is_invented.then(|| Profile { display_name: DisplayName::from_stored("x") });
        Ok(self.users.profile(person).await?.or(invented))
    }
    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error> {
        self.begin().await?;
        let is_invented = match self.fault {
            Fault::KeepsContact => person == self.deleted.0,
            Fault::InventsContacts => person != self.deleted.0,
            _ => false,
        };
        let email = self.deleted.1.clone();
        let invented = is_invented.then_some(Contact { email, locale: None, time_zone: None });
        Ok(self.users.contact(person).await?.or(invented))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        self.begin().await?;
        match self.fault {
            Fault::FindsAnyone => Ok(Some(self.people[0])),
            Fault::FindsNobody => Ok(None),
            Fault::FindsByAddressAsTyped => {
                for person in self.people {
                    let contact = self.users.contact(person).await?;
                    if contact.is_some_and(|contact| contact.email.as_str() == email.as_str()) {
                        return Ok(Some(person));
                    }
                }
                Ok(None)
            }
            Fault::KeepsAddress if email == self.deleted.1.key() => Ok(Some(self.deleted.0)),
            _ => self.users.find_by_email(email).await,
        }
    }
    async fn may_pair(&self, person: AccountId, email: &EmailKey) -> Result<bool, Error> {
        match self.fault {
            Fault::AllMayPair => Ok(true),
            Fault::NobodyMayPair => Ok(false),
            _ => self.users.may_pair(person, email).await,
        }
    }
}

#[async_trait]
impl Authenticator for Faulty {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        self.begin().await?;
        let answer = self.users.authenticate(request).await;
        let header = format!("{:?}", request.headers.get("authorization"));
        let number = self.seen.lock().unwrap().len();
        if let Ok(principal) = &answer {
            self.seen.lock().unwrap().push((header.clone(), principal.clone()));
        }
        match (self.fault, answer) {
            (Fault::AcceptsEndedSessions, Err(_)) => {
                let seen = self.seen.lock().unwrap();
                let earlier = seen.iter().find(|(other, _)| *other == header);
                earlier.map(|(_, one)| one.clone()).ok_or(Failure::Refused(Unauthenticated))
            }
            (Fault::RenamesSessions, Ok(one)) => Ok(Principal::new(one.person(), number.to_string())),
            (Fault::ConfusesPeople, Ok(one)) => {
                Ok(Principal::new(self.people[0], one.session().unwrap().to_owned()))
            }
            (Fault::SharesOneSession, Ok(one)) => Ok(Principal::of_account(
                one.person(),
                SessionId::from_uuid(self.people[0].as_uuid()),
                digest(&[]),
            )),
            (Fault::AcceptsEverything, Err(_)) => Ok(Principal::new(self.people[0], "anyone")),
            (Fault::FailsInsteadOfRefusing, Err(_)) => {
                Err(Error::new(ErrorKind::Rejected, "look up a session").into())
            }
            (_, answer) => answer,
        }
    }
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        self.begin().await?;
        let mut valid = self.users.still_valid(principals).await?;
        match self.fault {
            Fault::FollowsEndedSessions => valid.fill(true),
            Fault::TakesTimeForEachSession => {
                tokio::time::sleep(Duration::from_millis(10) * u32::try_from(principals.len()).unwrap())
                    .await;
            }
            Fault::OmitsRepeatedSessions => valid.truncate(2),
            Fault::ReversesResults => valid.reverse(),
            _ => {}
        }
        Ok(valid)
    }
    async fn sessions_of(&self, person: AccountId) -> Result<Option<Vec<Principal>>, Error> {
        let seen: Vec<_> = self.seen.lock().unwrap().iter().map(|(_, one)| one.clone()).collect();
        match self.fault {
            Fault::ListsOthers => Ok(Some(seen)),
            Fault::ListsNoSession => Ok(Some(Vec::new())),
            Fault::ListsEndedSessions => {
                Ok(Some(seen.into_iter().filter(|one| one.person() == person).collect()))
            }
            _ => self.users.sessions_of(person).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn faults_of_directories_are_found() {
    let of = Faulty::directory;
    let d1 = d1_person_is_found_by_the_address_of_the_contact;
    assert_fails(d1(of(Fault::FindsAnyone)), "finds another person or none").await;
    assert_fails(d1(of(Fault::FindsNobody)), "finds another person or none").await;
    assert_fails(d1(of(Fault::FindsByAddressAsTyped)), "finds another person or none").await;
    let (mut faulty, mut sample) = of(Fault::FindsByAddressAsTyped);
    faulty.people = ["dora@example.org", "emil@example.org"].map(|email| faulty.users.add(email));
    sample.people = faulty.people;
    assert_fails(d1((faulty, sample)), "give a person one with a capital letter").await;
    assert_fails(d1(of(Fault::Hangs)), "contact does not return within 5s").await;
    assert_fails(d1(of(Fault::Fails)), "contact fails").await;
    let d2 = d2_deleted_person_is_not_found;
    assert_fails(d2(of(Fault::KeepsProfile)), "a deleted person has a profile").await;
    assert_fails(d2(of(Fault::KeepsContact)), "a deleted person has a contact").await;
    assert_fails(d2(of(Fault::KeepsAddress)), "the former address of a deleted person").await;
    assert_fails(d3_person_with_a_contact_has_a_profile(of(Fault::LacksProfiles)), "has no profile").await;
    let d4 = d4_unknown_id_has_no_profile_and_no_contact;
    assert_fails(d4(of(Fault::InventsProfiles)), "an unknown id has a profile").await;
    assert_fails(d4(of(Fault::InventsContacts)), "an unknown id has a contact").await;
    let d5 = d5_person_may_pair_only_under_the_own_address;
    assert_fails(d5(of(Fault::AllMayPair)), "under the address of another person").await;
    assert_fails(d5(of(Fault::NobodyMayPair)), "may not pair under the own address").await;
}

#[tokio::test(start_paused = true)]
async fn faults_of_authenticators_are_found() {
    let of = Faulty::authenticator;
    let au1 = au1_ended_session_is_refused;
    assert_fails(au1(of(Fault::AcceptsEndedSessions)), "a request of an ended session is authenticated")
        .await;
    assert_fails(au1(of(Fault::FollowsEndedSessions)), "only the ended session is invalid").await;
    assert_fails(au1(of(Fault::Fails)), "a valid request is not authenticated").await;
    let (users, _, sample) = host_users();
    let endless = AuthenticatorSample { end: None, ..sample };
    assert_fails(au1_ended_session_is_refused((users, endless)), "cannot be ended has no expiry").await;
    let au2 = au2_request_has_one_person_and_session;
    assert_fails(au2(of(Fault::RenamesSessions)), "a repeated request has another session").await;
    assert_fails(au2(of(Fault::ConfusesPeople)), "authenticated as another person").await;
    assert_fails(au2(of(Fault::SharesOneSession)), "two people have one session").await;
    let au3 = au3_calls_return_in_time;
    assert_fails(au3(of(Fault::Hangs)), "authenticate does not return within 5s").await;
    assert_fails(au3(of(Fault::TakesTimeForEachSession)), "still_valid does not return within 5s").await;
    let au4 = au4_request_without_valid_credentials_is_refused;
    assert_fails(au4(of(Fault::AcceptsEverything)), "a request without credentials is authenticated").await;
    assert_fails(au4(of(Fault::FailsInsteadOfRefusing)), "is a failure instead of a refusal").await;
    let au5 = au5_each_principal_has_one_result;
    assert_fails(au5(of(Fault::OmitsRepeatedSessions)), "results of 3 principals").await;
    assert_fails(au5(of(Fault::ReversesResults)), "results of 2 principals").await;
    let au6 = au6_sessions_of_a_person_are_known_or_not;
    assert_fails(au6(of(Fault::ListsOthers)), "contain one of another person").await;
    assert_fails(au6(of(Fault::ListsNoSession)), "lack a valid one").await;
    assert_fails(au6(of(Fault::ListsEndedSessions)), "contain an ended one").await;
}
