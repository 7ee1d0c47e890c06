//! Erasure and purge.

use std::{collections::BTreeSet, time::Duration};

use couple_core::{
    Conflict, Store,
    account::{AccountChange, Session, Token, TokenKind},
};

use super::{insert_session, insert_tokens, session_ids, sessions};
use crate::world::{World, accepted, affects, all, insert, must, refused, same};

/// Erasing an account removes its tokens and sessions and frees its address.
pub async fn a10_erasure_removes_tokens_and_sessions(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let [session, second] = sessions(&store, &world, ana.id).await;
    let [other] = sessions(&store, &world, ben.id).await;
    let of = |account| Token { account, ..world.token(TokenKind::SignIn, "ana") };
    let tokens = [
        of(Some(ana.id)),
        Token { session: Some(session.id), ..of(Some(ana.id)) },
        Token { used_at: Some(world.now()), ..of(Some(ana.id)) },
        of(None),
        of(Some(ben.id)),
    ];
    insert_tokens(&store, &tokens).await;
    let changed = Conflict::AccountChanged(ana.id);
    let erase = |version| AccountChange::Erase { id: ana.id, version };
    refused(&store, erase(7), changed, "an account is erased with another version").await;
    let found = store.account(ana.id).await.unwrap();
    same(&found.as_ref(), &Some(&ana), "a conflict erased an account");
    must(&store, erase(0)).await;
    same(&store.account(ana.id).await.unwrap(), &None, "an erased account is found");
    same(
        &store.account_by_email(ana.email.key()).await.unwrap(),
        &None,
        "an erased account is found by its address",
    );
    let bearers = [session.token, second.token, other.token];
    for token in &bearers[..2] {
        let found = store.session_by_token(token).await.unwrap();
        same(&found, &None, "a session survives the erasure of its account");
    }
    same(
        &store.sessions_of(ana.id).await.unwrap(),
        &Vec::new(),
        "a session survives the erasure of its account",
    );
    let present = store.present_sessions(&bearers).await.unwrap();
    let what = "the erasure of an account does not end exactly its sessions";
    same(&present.as_slice(), &&bearers[2..], what);
    let mut left = Vec::new();
    for token in &tokens {
        let by_link = store.token_by_link(&token.link).await.unwrap().is_some();
        left.push((store.token(token.id).await.unwrap().is_some(), by_link));
    }
    let (gone, there) = ((false, false), (true, true));
    let what = "the erasure of an account does not remove exactly its tokens";
    same(&left.as_slice(), &[gone, gone, gone, there, there].as_slice(), what);
    refused(&store, erase(0), changed, "a missing account is erased").await;
    accepted(&store, insert(&world.account("ana")), "an erasure does not free the address").await;
}

/// Purges remove only expired rows, the earliest first, at most the given number, and return their number.
pub async fn a11_purge_removes_at_most_cap_expired_rows(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    must(&store, AccountChange::Insert(account.clone())).await;
    // Expiries are not in the order of ids. Each second token is used. All codes have expired.
    let order = [5, 1, 4, 0, 3, 2];
    let tokens = order.map(|n| Token {
        code_expires_at: world.now().minus(Duration::from_secs(99)),
        expires_at: world.later(n),
        used_at: n.is_multiple_of(2).then(|| world.now()),
        ..world.token(TokenKind::SignIn, "ana")
    });
    insert_tokens(&store, &tokens).await;
    let left = async || {
        let mut left = BTreeSet::new();
        for (n, token) in order.into_iter().zip(&tokens) {
            let found = store.token(token.id).await.unwrap();
            let by_link = store.token_by_link(&token.link).await.unwrap();
            same(&found, &by_link, "a purged token is found by its link");
            left.extend(found.map(|_| n));
        }
        left
    };
    let purge = |before, cap| AccountChange::PurgeTokens { before, cap };
    let steps = [(0, 9, 0), (3, 0, 0), (5, 2, 2), (5, 2, 2), (5, 2, 1), (5, 2, 0)];
    let mut removed = 0;
    for (before, cap, count) in steps {
        let what = "a purge of tokens does not return the number of removed rows, at most its cap";
        affects(&store, purge(world.later(before), cap), count, what).await;
        removed += count;
        let what =
            "a purge does not remove the tokens that expired first, or removes one that has not expired";
        same(&left().await, &(removed..6).collect(), what);
    }
    let again = Token { link: tokens[1].link, ..world.token(TokenKind::SignUp, "ana") };
    accepted(&store, AccountChange::InsertToken(again), "the link of a purged token is taken").await;

    // Sessions 0 to 5 expire in this order; sessions 6 to 11 were last used in this order.
    let order = [7, 0, 11, 3, 9, 5, 1, 8, 2, 10, 4, 6_u64];
    let sessions = order.map(|n| Session {
        expires_at: if n < 6 { world.later(n) } else { world.later(9999 - n) },
        seen_at: if n < 6 { world.later(999 - n) } else { world.later(n) },
        ..world.session(account.id)
    });
    for session in &sessions {
        must(&store, insert_session(session)).await;
    }
    let left = async || {
        let present = session_ids(&store, account.id).await;
        let mut left = BTreeSet::new();
        for (n, session) in order.into_iter().zip(&sessions) {
            let found = store.session_by_token(&session.token).await.unwrap().is_some();
            same(&found, &present.contains(&session.id), "a purged session is found by its bearer token");
            left.extend(found.then_some(n));
        }
        left
    };
    let purge = |before, idle, cap| AccountChange::PurgeSessions { before, idle, cap };
    let early = world.now().minus(Duration::from_secs(1));
    let steps: [(_, _, _, &[u64]); 7] = [
        (world.now(), world.later(6), 99, &[]),
        (world.later(5), early, 0, &[]),
        (world.later(5), early, 2, &[0, 1]),
        // Both kinds together are at most two.
        (world.later(3), world.later(11), 2, &[2, 6]),
        (early, world.later(11), 2, &[7, 8]),
        (world.later(5), world.later(10), 3, &[3, 4, 9]),
        (world.later(5), world.later(10), 99, &[]),
    ];
    let mut expected: BTreeSet<u64> = (0..12).collect();
    for (before, idle, cap, removed) in steps {
        let what = "a purge of sessions does not return the number of removed rows, at most its cap";
        affects(&store, purge(before, idle, cap), removed.len() as u64, what).await;
        expected.retain(|n| !removed.contains(n));
        let what =
            "a purge does not remove the sessions that expired or were used first, or removes another one";
        same(&left().await, &expected, what);
    }
}
