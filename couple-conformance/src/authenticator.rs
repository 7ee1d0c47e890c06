//! Checks AU1 to AU6 of `Authenticator`.

use std::{fmt, time::Duration};

use axum::http::{Request, request::Parts};
use couple::http::{Authenticator, Unauthenticated};
use couple_core::{AccountId, Failure, Principal};
use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;

/// Maximum time of one call of the authenticator.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of sessions that are checked together.
const MAX_BATCH: usize = 512;

/// Function that ends a session.
pub type EndSession = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Requests that an authenticator accepts or refuses.
pub struct AuthenticatorSample {
    /// Two people, and the head of a request that authenticates each of them.
    pub people: [(AccountId, Parts); 2],
    /// Heads of at least one request with wrong credentials.
    pub refused: Vec<Parts>,
    /// Function that ends the session of the first person. None: sessions end only by their expiry.
    pub end: Option<EndSession>,
}

impl fmt::Debug for AuthenticatorSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticatorSample").finish_non_exhaustive()
    }
}

async fn within<T>(call: &str, future: impl Future<Output = T>) -> T {
    timeout(CALL_TIMEOUT, future)
        .await
        .unwrap_or_else(|_| panic!("{call} does not return within {CALL_TIMEOUT:?}"))
}

async fn authenticate(
    authenticator: &impl Authenticator,
    request: &Parts,
) -> Result<Principal, Failure<Unauthenticated>> {
    within("authenticate", authenticator.authenticate(request)).await
}

async fn principal(authenticator: &impl Authenticator, request: &Parts) -> Principal {
    let answer = authenticate(authenticator, request).await;
    answer.unwrap_or_else(|failure| panic!("a valid request is not authenticated: {failure}"))
}

async fn principals(authenticator: &impl Authenticator, sample: &AuthenticatorSample) -> [Principal; 2] {
    let [(_, first), (_, second)] = &sample.people;
    [principal(authenticator, first).await, principal(authenticator, second).await]
}

async fn valid(authenticator: &impl Authenticator, principals: &[Principal]) -> Vec<bool> {
    let valid = within("still_valid", authenticator.still_valid(principals)).await;
    valid.unwrap_or_else(|error| panic!("still_valid fails: {error}"))
}

async fn assert_refused(authenticator: &impl Authenticator, request: &Parts, what: &str) {
    match authenticate(authenticator, request).await {
        Err(Failure::Refused(Unauthenticated)) => {}
        Err(Failure::Failed(error)) => panic!("{what} is a failure instead of a refusal: {error}"),
        Ok(_) => panic!("{what} is authenticated"),
    }
}

/// A session that has ended is refused by every later call; one that cannot be ended has an expiry.
pub async fn au1_ended_session_is_refused(
    (authenticator, mut sample): (impl Authenticator, AuthenticatorSample),
) {
    let end = sample.end.take();
    let both = principals(&authenticator, &sample).await;
    assert_eq!(valid(&authenticator, &both).await, [true, true], "a session is invalid before it ends");
    let Some(end) = end else {
        let has_expiry = both.iter().all(|principal| principal.expires_at().is_some());
        assert!(has_expiry, "a session that cannot be ended has no expiry");
        return;
    };
    end().await;
    let [(_, ended), (_, other)] = &sample.people;
    for _ in 0..3 {
        assert_eq!(valid(&authenticator, &both).await, [false, true], "only the ended session is invalid");
        assert_refused(&authenticator, ended, "a request of an ended session").await;
        principal(&authenticator, other).await;
    }
}

/// A request always has the same person and the same session, and two people have different ones.
pub async fn au2_request_has_one_person_and_session(
    (authenticator, sample): (impl Authenticator, AuthenticatorSample),
) {
    let both = principals(&authenticator, &sample).await;
    for ((person, request), first) in sample.people.iter().zip(&both) {
        assert_eq!(first.person(), *person, "a request is authenticated as another person");
        for again in join_all((0..16).map(|_| principal(&authenticator, request))).await {
            assert_eq!(again.person(), *person, "a request is authenticated as another person");
            assert_eq!(again.session_id(), first.session_id(), "a repeated request has another session");
        }
    }
    assert_ne!(both[0].session_id(), both[1].session_id(), "two people have one session");
}

/// Each call returns within 5 s, also if calls run concurrently or check 512 sessions.
pub async fn au3_calls_return_in_time((authenticator, sample): (impl Authenticator, AuthenticatorSample)) {
    let both = principals(&authenticator, &sample).await;
    let requests = sample.people.iter().cycle().take(64);
    join_all(requests.map(|(_, request)| principal(&authenticator, request))).await;
    let many: Vec<_> = both.iter().cycle().take(MAX_BATCH).cloned().collect();
    valid(&authenticator, &many).await;
}

/// A request without credentials, or with wrong ones, is a refusal and not an error.
pub async fn au4_request_without_valid_credentials_is_refused(
    (authenticator, sample): (impl Authenticator, AuthenticatorSample),
) {
    let (empty, ()) = Request::new(()).into_parts();
    assert_refused(&authenticator, &empty, "a request without credentials").await;
    assert!(!sample.refused.is_empty(), "the sample has no request with wrong credentials");
    for wrong in &sample.refused {
        assert_refused(&authenticator, wrong, "a request with wrong credentials").await;
    }
}

/// The result of `still_valid` has one value for each principal, in the same order.
pub async fn au5_each_principal_has_one_result(
    (authenticator, mut sample): (impl Authenticator, AuthenticatorSample),
) {
    let end = sample.end.take();
    let both = principals(&authenticator, &sample).await;
    let first_is_valid = end.is_none();
    if let Some(end) = end {
        end().await;
    }
    for length in [0, 1, 2, 3, MAX_BATCH] {
        let many: Vec<_> = both.iter().cycle().take(length).cloned().collect();
        let expected: Vec<_> = [first_is_valid, true].into_iter().cycle().take(length).collect();
        assert_eq!(valid(&authenticator, &many).await, expected, "results of {length} principals");
    }
}

/// `sessions_of` returns all valid sessions of the person and no other, or none for every person.
pub async fn au6_sessions_of_a_person_are_known_or_not(
    (authenticator, mut sample): (impl Authenticator, AuthenticatorSample),
) {
    let end = sample.end.take();
    let both = principals(&authenticator, &sample).await;
    let sessions_of = async |person| {
        let sessions = within("sessions_of", authenticator.sessions_of(person)).await;
        sessions.unwrap_or_else(|error| panic!("sessions_of fails: {error}"))
    };
    for own in &both {
        // An authenticator may not know sessions, but then of no person.
        let Some(sessions) = sessions_of(own.person()).await else {
            assert!(sessions_of(both[1].person()).await.is_none(), "sessions are known of one person only");
            return;
        };
        let is_own = |one: &Principal| one.person() == own.person();
        assert!(sessions.iter().all(is_own), "sessions of a person contain one of another person");
        let is_listed = sessions.iter().any(|one| one.session_id() == own.session_id());
        assert!(is_listed, "sessions of a person lack a valid one");
    }
    if let Some(end) = end {
        end().await;
        let left =
            sessions_of(both[0].person()).await.expect("sessions of a person are unknown after one ended");
        let is_listed = left.iter().any(|one| one.session_id() == both[0].session_id());
        assert!(!is_listed, "sessions of a person contain an ended one");
    }
}
