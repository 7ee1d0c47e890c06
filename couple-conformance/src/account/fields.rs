//! Fields of tokens, sessions and tallies, unique links and bearer tokens, and counts of tallies.

use std::{sync::Arc, time::Duration};

use couple_core::{
    Conflict, Digest, DisplayName, Label, Store, Timestamp,
    account::{AccountChange, ProofForm, Session, Tally, TallyId, Token, TokenKind},
    digest,
};

use super::{KINDS, extreme_accounts, insert_session, sessions};
use crate::{
    samples::{MOMENT, after_2038, before_1970, big, longest, similar_digests, special},
    world::{World, accepted, affects, must, race, refused, same},
};

/// Concurrent counts succeed up to the limit; further ones conflict until the tally expires.
pub async fn a16_tally_counts_up_to_its_limit(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let id = |n: u8| TallyId::from_digest(digest(&[b"tally", &[n]]));
    let count = |n, below, at, until| AccountChange::CountTally {
        id: id(n),
        below,
        at,
        expires_at: world.later(until),
    };
    let now = world.now();
    let tally = async |n, at| store.tally(id(n), at).await.unwrap();
    let require = |n, below, at| AccountChange::RequireTally { id: id(n), below, at };
    let full = Conflict::TallyFull;
    same(&tally(1, now).await, &None, "a tally exists before the first count");
    accepted(&store, require(1, 1, now), "a tally that does not exist is full").await;
    same(&tally(1, now).await, &None, "requiring a tally counts");
    refused(&store, count(1, 0, now, 100), full, "a first count succeeds at a limit of zero").await;
    refused(&store, require(1, 0, now), full, "a tally is not full at a limit of zero").await;
    let succeeded = race(&store, (0..50).map(|_| vec![count(1, 20, now, 100).into()]).collect()).await;
    same(&succeeded, &20, "of 50 concurrent counts up to 20 another number succeeded");
    let counted = Some(Tally { count: 20, expires_at: world.later(100) });
    let last = world.later(100).minus(MOMENT);
    same(&tally(1, last).await, &counted, "a tally does not have its count and its first expiry");
    same(&tally(1, world.later(100)).await, &None, "a tally does not end at its expiry");
    refused(&store, count(1, 20, last, 200), full, "a count succeeds beyond the limit").await;
    refused(&store, require(1, 20, last), full, "a full tally is not full").await;
    accepted(&store, require(1, 21, last), "a tally below its limit is full").await;
    accepted(&store, require(1, 20, world.later(100)), "an expired tally is full").await;
    accepted(&store, count(1, 21, last, 200), "a count below the limit conflicts").await;
    let counted = Some(Tally { count: 21, expires_at: world.later(100) });
    same(&tally(1, now).await, &counted, "a later count changes the expiry, or does not count");
    // Other tallies do not change.
    accepted(&store, count(2, 20, now, 101), "the count of another tally conflicts").await;
    same(&tally(1, now).await, &counted, "a count changes another tally");
    // After its expiry the tally starts again, with a new expiry.
    let what = "an expired tally does not start again with one count and a new expiry";
    refused(&store, count(1, 0, world.later(100), 200), full, "an expired tally counts at a limit of zero")
        .await;
    accepted(&store, count(1, 1, world.later(100), 200), what).await;
    same(&tally(1, world.later(100)).await, &Some(Tally { count: 1, expires_at: world.later(200) }), what);
    let what = "setting a tally does not replace count and expiry";
    for tally in [(7, 50), (3, 90), (5, 70), (0, 60), (9, 0)]
        .map(|(count, at)| Tally { count, expires_at: world.later(at) })
    {
        must(&store, AccountChange::PutTally { id: id(3), tally, retires: None }).await;
        let live = Some(tally).filter(|tally| tally.expires_at > now);
        same(&store.tally(id(3), now).await.unwrap(), &live, what);
    }
    for (n, at) in [(4, 103), (5, 102)] {
        let tally = Tally { count: 1, expires_at: world.later(at) };
        must(&store, AccountChange::PutTally { id: id(n), tally, retires: None }).await;
    }
    // Now 3 has expired at 0, 2 expires at 101, 5 at 102, 4 at 103, and 1 at 200.
    let purge = |before, cap| AccountChange::PurgeTallies { before: world.later(before), cap };
    let what = "a purge of tallies does not return the number of removed rows, at most its cap";
    affects(&store, purge(0, 9), 0, what).await;
    let early = now.minus(Duration::from_secs(9));
    let mut expected = vec![1, 2, 3, 4, 5];
    for (before, cap, gone) in
        [(103, 0, vec![]), (103, 2, vec![3, 2]), (103, 2, vec![5]), (103, 9, vec![]), (199, 9, vec![4])]
    {
        affects(&store, purge(before, cap), gone.len() as u64, what).await;
        expected.retain(|n| !gone.contains(n));
        let mut left = Vec::new();
        for n in 1..=5 {
            left.extend(tally(n, early).await.map(|_| n));
        }
        same(
            &left,
            &expected,
            "a purge does not remove the tallies that expired first, or removes another one",
        );
    }
}

/// Every field of tokens, sessions and tallies reads back.
pub async fn a18_token_session_and_tally_fields_read_back(store: impl Store) {
    let world = World::default();
    let account = world.account("owner");
    must(&store, AccountChange::Insert(account.clone())).await;
    let [requester] = sessions(&store, &world, account.id).await;
    let [special_account, long_account] = extreme_accounts(&world);
    let digests = similar_digests();
    let changed = "a token does not read back as it was written";
    let special_token = Token {
        email: special_account.email,
        account: Some(account.id),
        session: Some(requester.id),
        tries: big(1),
        foreign_tries: big(2),
        used_form: Some(ProofForm::Link),
        display_name: Some(DisplayName::from_stored(special("Ana"))),
        locale: special_account.locale,
        created_at: before_1970(1),
        code_expires_at: after_2038(2),
        expires_at: before_1970(3),
        used_at: Some(after_2038(4)),
        ..world.token(TokenKind::SignUp, "ana")
    };
    let long_token = Token {
        email: long_account.email,
        account: Some(world.account_id()),
        tries: 5,
        foreign_tries: 6,
        used_form: Some(ProofForm::Code),
        display_name: Some(DisplayName::from_stored(longest(64))),
        locale: long_account.locale,
        created_at: after_2038(1),
        code_expires_at: before_1970(2),
        expires_at: after_2038(3),
        used_at: Some(before_1970(4)),
        ..world.token(TokenKind::SignIn, "ana")
    };
    let plain = Token { network: None, ..world.token(TokenKind::Password, "ana") };
    let mut tokens = vec![special_token, long_token, plain];
    tokens.extend(KINDS.map(|kind| world.token(kind, "ana")));
    tokens.extend(digests.iter().zip(digests.iter().rev()).map(|(link, network)| Token {
        link: *link,
        network: Some(*network),
        ..world.token(TokenKind::Email, "ana")
    }));
    for token in &tokens {
        accepted(&store, AccountChange::InsertToken(token.clone()), "a token is refused for its values")
            .await;
        same(&store.token(token.id).await.unwrap().as_ref(), &Some(token), changed);
        same(&store.token_by_link(&token.link).await.unwrap().as_ref(), &Some(token), changed);
        let found =
            store.open_tokens(token.kind, token.email.key(), Timestamp::from_micros(0)).await.unwrap();
        let found = found.iter().find(|one| one.id == token.id);
        same(&found, &token.used_at.is_none().then_some(token), changed);
    }
    let plain = world.session(account.id);
    let mut sessions = vec![
        Session {
            device: Some(Label::from_stored(special("Phone"))),
            created_at: before_1970(1),
            authenticated_at: after_2038(2),
            seen_at: before_1970(3),
            expires_at: after_2038(4),
            widget_token: Some(digest(&[b"widget"])),
            ..world.session(account.id)
        },
        Session {
            device: Some(Label::from_stored(longest(200))),
            created_at: after_2038(1),
            authenticated_at: before_1970(2),
            seen_at: after_2038(3),
            expires_at: before_1970(4),
            ..world.session(account.id)
        },
        plain,
    ];
    sessions.extend(digests.map(|token| Session { token, ..world.session(account.id) }));
    let changed = "a session does not read back as it was written";
    for session in &sessions {
        accepted(&store, insert_session(session), "a session is refused for its values").await;
        let found = store.session_by_token(&session.token).await.unwrap();
        same(&found, &Some((session.clone(), account.clone())), changed);
        let found = store.sessions_of(account.id).await.unwrap();
        same(&found.iter().find(|one| one.id == session.id), &Some(session), changed);
    }
    let touch =
        AccountChange::TouchSession { account: account.id, id: sessions[0].id, seen_at: after_2038(9) };
    must(&store, touch).await;
    let found = store.session_by_token(&sessions[0].token).await.unwrap().map(|(session, _)| session);
    let touched = Session { seen_at: after_2038(9), ..sessions[0].clone() };
    same(&found, &Some(touched), "the use of a session does not change exactly its last use");

    let changed = "a tally does not read back as it was written";
    for (n, digest) in (1..).zip(digests) {
        let id = TallyId::from_digest(digest);
        let expires_at = if n % 2 == 0 { before_1970(n) } else { after_2038(n) };
        let tally = Tally { count: big(n), expires_at };
        let at = expires_at.minus(MOMENT);
        same(&store.tally(id, at).await.unwrap(), &None, "a tally is found by a similar id");
        must(&store, AccountChange::PutTally { id, tally, retires: None }).await;
        same(&store.tally(id, at).await.unwrap(), &Some(tally), changed);
        same(&store.tally(id, expires_at).await.unwrap(), &None, changed);
        let count = AccountChange::CountTally { id, below: big(n) + 1, at, expires_at };
        accepted(&store, count.clone(), "a count above 2^32 conflicts below its limit").await;
        refused(&store, count, Conflict::TallyFull, "a count above 2^32 succeeds at its limit").await;
    }
}

/// Ids and links of tokens, and ids and bearer tokens of sessions, are unique; all 32 bytes are compared.
pub async fn a21_link_and_bearer_token_are_unique(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    must(&store, AccountChange::Insert(account.clone())).await;
    let token_with = |link: Digest| Token { link, ..world.token(TokenKind::SignIn, "ana") };
    let session_with = |token: Digest| Session { token, ..world.session(account.id) };
    let (mut tokens, mut sessions) = (Vec::new(), Vec::new());
    for similar in similar_digests() {
        let found = store.token_by_link(&similar).await.unwrap();
        same(&found, &None, "a token is found by a similar link");
        let found = store.session_by_token(&similar).await.unwrap();
        same(&found, &None, "a session is found by a similar bearer token");
        let (token, session) = (token_with(similar), session_with(similar));
        accepted(&store, AccountChange::InsertToken(token.clone()), "a link is taken for a similar one")
            .await;
        accepted(&store, insert_session(&session), "a bearer token is taken for a similar one").await;
        tokens.push(token);
        sessions.push(session);
    }
    let same_id = Token { id: tokens[0].id, ..world.token(TokenKind::SignUp, "ben") };
    let same_link = token_with(tokens[0].link);
    for (second, what) in
        [(same_id, "a token with a used id is added"), (same_link, "a token with a used link is added")]
    {
        let conflict = Conflict::TokenExists(second.id);
        refused(&store, AccountChange::InsertToken(second), conflict, what).await;
    }
    let same_id = Session { id: sessions[0].id, ..world.session(account.id) };
    let same_token = session_with(sessions[0].token);
    for (second, what) in [
        (same_id, "a session with a used id is added"),
        (same_token, "a session with a used bearer token is added"),
    ] {
        let conflict = Conflict::SessionExists(second.id);
        refused(&store, insert_session(&second), conflict, what).await;
    }
    for token in tokens {
        let found = store.token_by_link(&token.link).await.unwrap();
        same(&found, &Some(token), "a token is found by a similar link");
    }
    for session in sessions {
        let found = store.session_by_token(&session.token).await.unwrap().map(|(session, _)| session);
        same(&found, &Some(session), "a session is found by a similar bearer token");
    }
}
