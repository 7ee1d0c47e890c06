//! Sessions: of an unchanged account, ended and listed.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Conflict, Store,
    account::{Account, AccountChange, PasswordHash, Session, Token, TokenKind},
};

use super::{insert_session, insert_tokens, session_ids, sessions};
use crate::{
    change_races,
    samples::before_1970,
    world::{World, accepted, all, insert, must, race, refused, same},
};

/// A session is added only if its account still has the version that was read.
pub async fn a13_session_requires_an_unchanged_account(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    let session = world.session(account.id);
    let changed = Conflict::AccountChanged(account.id);
    let add = |version| AccountChange::InsertSession { session: session.clone(), version };
    refused(&store, add(0), changed, "a session of a missing account is added").await;
    must(&store, AccountChange::Insert(account.clone())).await;
    must(&store, AccountChange::Update(account.clone())).await;
    for version in [0, 2, 1 << 32, (1 << 32) + 1] {
        refused(&store, add(version), changed, "a session is added with another version of its account")
            .await;
    }
    same(&store.sessions_of(account.id).await.unwrap(), &Vec::new(), "a conflict added a session");
    accepted(&store, add(1), "a session is refused with the version of its account").await;
    let other = world.session(account.id);
    let what = "a second session of an account is refused";
    accepted(&store, AccountChange::InsertSession { session: other, version: 1 }, what).await;
    let count = store.sessions_of(account.id).await.unwrap().len();
    same(&count, &2, "a session does not stay beside another one of its account");
    // In the same commit as the account.
    let ben = world.account("ben");
    all(&store, vec![insert(&ben), insert_session(&world.session(ben.id)).into()]).await;
}

/// Ending sessions ends those of the account except the given one, and no others.
pub async fn a9_only_sessions_of_the_account_are_ended(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let [keep, end, also, single] = sessions(&store, &world, ana.id).await;
    let [other] = sessions(&store, &world, ben.id).await;
    let touch = |account, id| AccountChange::TouchSession { account, id, seen_at: world.later(9) };
    must(&store, touch(ana.id, keep.id)).await;
    // The session of another account is neither touched nor ended.
    must(&store, touch(ana.id, other.id)).await;
    must(&store, AccountChange::EndSession { account: ana.id, id: other.id }).await;
    let what = "a change of one account's session changes that of another account";
    same(&store.sessions_of(ben.id).await.unwrap().as_slice(), &std::slice::from_ref(&other), what);
    must(&store, AccountChange::EndSession { account: ana.id, id: single.id }).await;
    let rest = [keep.id, end.id, also.id].into_iter().collect();
    same(&session_ids(&store, ana.id).await, &rest, "ending a session does not end exactly this one");
    let untouched = store.session_by_token(&end.token).await.unwrap().map(|(session, _)| session);
    same(&untouched.as_ref(), &Some(&end), "the use of a session changes another one");
    must(&store, AccountChange::EndSessions { account: ana.id, except: Some(keep.id) }).await;
    let kept = Session { seen_at: world.later(9), ..keep.clone() };
    let what = "ending the sessions of an account does not leave exactly the excepted one, with its last use";
    same(&store.sessions_of(ana.id).await.unwrap().as_slice(), &std::slice::from_ref(&kept), what);
    same(&store.session_by_token(&keep.token).await.unwrap(), &Some((kept, ana.clone())), what);
    for ended in [&end, &also, &single] {
        let found = store.session_by_token(&ended.token).await.unwrap();
        same(&found, &None, "an ended session is found by its bearer token");
    }
    must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    let what = "ending all sessions of an account does not end all, or ends those of another one";
    same(&store.sessions_of(ana.id).await.unwrap(), &Vec::new(), what);
    same(&store.sessions_of(ben.id).await.unwrap().as_slice(), &std::slice::from_ref(&other), what);
    // A late use does not restore an ended session.
    must(&store, touch(ana.id, end.id)).await;
    same(&store.sessions_of(ana.id).await.unwrap(), &Vec::new(), "a late use restores an ended session");
    change_races::no_session_survives_an_update_that_ends_sessions(&Arc::new(store)).await;
}

/// Tokens end with the session that requested them, and no token is added afterwards.
///
/// Holds for either order of the two commits.
pub async fn a14_tokens_end_with_their_session(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let [one, two, kept] = sessions(&store, &world, ana.id).await;
    let requested = |session: Option<&Session>| Token {
        account: Some(ana.id),
        session: session.map(|session| session.id),
        ..world.token(TokenKind::Email, "new")
    };
    let tokens = [Some(&one), Some(&two), Some(&kept), None].map(requested);
    insert_tokens(&store, &tokens).await;
    let left = async || {
        let mut left = Vec::new();
        for token in &tokens {
            left.push(store.token(token.id).await.unwrap().is_some());
        }
        left
    };
    let what = "the end of a session does not remove exactly the tokens that it requested";
    must(&store, AccountChange::EndSession { account: ana.id, id: one.id }).await;
    same(&left().await, &vec![false, true, true, true], what);
    must(&store, AccountChange::EndSessions { account: ana.id, except: Some(kept.id) }).await;
    same(&left().await, &vec![false, false, true, true], what);
    must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    same(&left().await, &vec![false, false, false, true], what);
    let [other] = sessions(&store, &world, ben.id).await;
    for (session, what) in [
        (&one, "a token of an ended session is added"),
        (&other, "a token of another account's session is added"),
    ] {
        let late = AccountChange::InsertToken(requested(Some(session)));
        refused(&store, late, Conflict::SessionEnded(session.id), what).await;
    }
    // Concurrent commits add tokens of a session and end it: no token is left.
    let store = Arc::new(store);
    for _ in 0..20 {
        let session = world.session(ana.id);
        must(&store, insert_session(&session)).await;
        let tokens: Vec<Token> = (0..8).map(|_| requested(Some(&session))).collect();
        let mut commits: Vec<_> =
            tokens.iter().map(|token| vec![AccountChange::InsertToken(token.clone()).into()]).collect();
        commits.insert(4, vec![AccountChange::EndSession { account: ana.id, id: session.id }.into()]);
        race(&store, commits).await;
        for token in tokens {
            let found = store.token(token.id).await.unwrap();
            same(&found, &None, "a token is left of a session that ended concurrently");
        }
    }
}

/// Sessions of an account are listed newest first, those of the same time by id, at most 200, and expired ones too.
pub async fn a19_sessions_are_listed_newest_first(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let _: [Session; 2] = sessions(&store, &world, ben.id).await;
    // Neither ids nor last uses are in the order of creation; each 4 sessions have the same time.
    let mut expected: Vec<_> = (0..203_u64)
        .map(|n| Session {
            created_at: world.now().minus(Duration::from_secs(n / 4)),
            seen_at: world.later(n * 7919 % 211),
            expires_at: if n % 3 == 0 { before_1970(0) } else { world.later(n) },
            ..world.session(ana.id)
        })
        .collect();
    for sessions in expected.chunks(50) {
        all(&store, sessions.iter().map(|session| insert_session(session).into()).collect()).await;
    }
    expected.sort_by_key(|session| std::cmp::Reverse((session.created_at, session.id)));
    let ids = |sessions: &[Session]| sessions.iter().map(|session| session.id).collect::<Vec<_>>();
    for count in [203, 201, 200, 199] {
        while expected.len() > count {
            let id = expected.remove(100).id;
            must(&store, AccountChange::EndSession { account: ana.id, id }).await;
        }
        let found = store.sessions_of(ana.id).await.unwrap();
        let newest = &expected[..count.min(200)];
        let what = format!("of {count} sessions not the newest 200 are listed, newest first and then by id");
        same(&ids(&found), &ids(newest), &what);
        same(&found.as_slice(), &newest, "a session has other values in a list");
    }
}

/// A session is found by its bearer token with the present state of its account.
pub async fn a20_session_has_the_present_state_of_its_account(store: impl Store) {
    let world = World::default();
    let mut ana = world.account("ana");
    must(&store, AccountChange::Insert(ana.clone())).await;
    let [session, other] = sessions(&store, &world, ana.id).await;
    for n in 0..3 {
        for session in [&session, &other] {
            let found = store.session_by_token(&session.token).await.unwrap();
            let expected = Some((session.clone(), ana.clone()));
            same(&found, &expected, "a session does not have the present state of its account");
        }
        ana = Account {
            email: world.email(&format!("ana{n}")),
            password: (n == 1).then(|| PasswordHash::from_stored("new")),
            deletion_due: (n != 1).then(|| world.later(9)),
            ..ana
        };
        must(&store, AccountChange::Update(ana.clone())).await;
        ana.version += 1;
    }
}
