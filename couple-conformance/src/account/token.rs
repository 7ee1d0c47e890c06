//! Mailed tokens: redeemed once, wrong codes, ended and listed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use couple_core::{
    CommitError, Conflict, Store, Timestamp,
    account::{AccountChange, ProofForm, SeenToken, Token, TokenKind, Tries},
    digest,
};

use super::{KINDS, address, fresh, insert_session, insert_tokens, redeem, stored};
use crate::{
    change_races,
    samples::{MOMENT, near},
    world::{World, accepted, all, commit, must, race, refused, same},
};

/// Time of the use of each token.
async fn uses(store: &impl Store, tokens: &[Token]) -> Vec<Option<Timestamp>> {
    let mut uses = Vec::new();
    for token in tokens {
        uses.push(stored(store, token.id).await.used_at);
    }
    uses
}

/// Unused tokens of a kind for addresses that are similar to that of `name`.
fn tokens_of_similar_addresses(world: &World, kind: TokenKind, name: &str) -> Vec<Token> {
    let keys = near(world.email(name).key().as_str());
    keys.iter().map(|key| Token { email: address(key), ..world.token(kind, name) }).collect()
}

/// A token of any kind is redeemed once by concurrent commits.
pub async fn a5_token_is_redeemed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    for kind in KINDS {
        let (token, other) = (world.token(kind, "ana"), world.token(kind, "ana"));
        insert_tokens(&store, &[token.clone(), other.clone()]).await;
        let at = world.later(7);
        let require = AccountChange::RequireToken { id: token.id, seen: fresh() };
        accepted(&store, require.clone(), "an unused token is refused").await;
        same(&stored(&store, token.id).await, &token, "requiring a token changed it");
        let redeem = redeem(token.id, None, at);
        let succeeded = race(&store, (0..50).map(|_| vec![redeem.clone().into()]).collect()).await;
        same(&succeeded, &1, "of 50 concurrent uses of a token other than one succeeded");
        let used = Token { used_at: Some(at), ..token.clone() };
        same(&stored(&store, token.id).await, &used, "a used token has other values than its time of use");
        let found = store.token_by_link(&token.link).await.unwrap();
        same(&found, &Some(used), "a used token is not found by its link");
        let changed = Conflict::TokenChanged(token.id);
        refused(&store, require, changed, "a used token is accepted").await;
        same(&stored(&store, other.id).await, &other, "redeeming a token changed another one");
    }
    let unknown = world.token(TokenKind::SignIn, "ana").id;
    let changed = Conflict::TokenChanged(unknown);
    refused(&store, redeem(unknown, None, world.now()), changed, "a missing token is redeemed").await;
    let require = AccountChange::RequireToken { id: unknown, seen: fresh() };
    refused(&store, require, changed, "a missing token is accepted").await;
}

/// Every concurrent wrong code is counted, on every unused token of the kind and address.
///
/// A code is not redeemed if the count has changed since it was read.
pub async fn a6_each_wrong_code_is_counted(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (own, other) = (digest(&[b"network"]), digest(&[b"other"]));
    let sign_in = || world.token(TokenKind::SignIn, "ana");
    let mut tokens = vec![
        sign_in(),
        Token { network: Some(other), ..sign_in() },
        Token { network: None, ..sign_in() },
        Token { code_expires_at: world.now().plus(MOMENT), ..sign_in() },
        Token { used_at: Some(world.now()), ..sign_in() },
        Token { code_expires_at: world.now(), ..sign_in() },
        world.token(TokenKind::SignUp, "ana"),
        world.token(TokenKind::SignIn, "ben"),
    ];
    tokens.extend(tokens_of_similar_addresses(&world, TokenKind::SignIn, "ana"));
    insert_tokens(&store, &tokens).await;
    let count = |network| AccountChange::CountTries {
        kind: TokenKind::SignIn,
        email: world.email("ana").key().clone(),
        network,
        at: world.now(),
    };
    let succeeded = race(&store, (0..50).map(|_| vec![count(own).into()]).collect()).await;
    same(&succeeded, &50, "a wrong code is not counted");
    must(&store, count(other)).await;
    for similar in &tokens[8..] {
        let email = similar.email.key().clone();
        let (kind, network, at) = (TokenKind::SignIn, own, world.now());
        must(&store, AccountChange::CountTries { kind, email, network, at }).await;
    }
    let expected = [(50, 1), (1, 50), (0, 51), (50, 1), (0, 0), (0, 0), (0, 0), (0, 0)];
    for (n, token) in tokens.iter().enumerate() {
        let found = stored(&store, token.id).await;
        let (tries, foreign_tries) = expected.get(n).copied().unwrap_or((1, 0));
        let expected = Token { tries, foreign_tries, ..token.clone() };
        same(&found, &expected, &format!("wrong codes are not counted as they must be on token {n}"));
    }
    // A correct code requires that the count of its network group is as it was read; a link has no such
    // precondition.
    let [token, second, third, ..] = &tokens[..] else { unreachable!("there are more than three tokens") };
    let changed = Conflict::TokenChanged(token.id);
    let what = "a token is redeemed by a code although wrong codes were counted since it was read";
    // 51 is the sum of both counts.
    for tries in [
        Tries::Own(49),
        Tries::Own(51),
        Tries::Own(1),
        Tries::Foreign(0),
        Tries::Foreign(50),
        Tries::Foreign(51),
    ] {
        let (id, seen) = (token.id, SeenToken { tries: Some(tries), used_form: None });
        refused(&store, AccountChange::RedeemToken { id, seen, at: world.now() }, changed, what).await;
        refused(&store, AccountChange::RequireToken { id, seen }, changed, what).await;
        let form = AccountChange::RedeemForm { id, seen, form: ProofForm::Code, account: world.account_id() };
        refused(&store, form, changed, what).await;
    }
    same(&stored(&store, token.id).await.used_form, &None, "a conflict changed a token");
    let foreign = SeenToken { tries: Some(Tries::Foreign(1)), used_form: None };
    let require = AccountChange::RequireToken { id: token.id, seen: foreign };
    accepted(&store, require, "a token with the count that was read is refused").await;
    accepted(
        &store,
        redeem(token.id, Some(50), world.now()),
        "a token with the count that was read is refused",
    )
    .await;
    refused(&store, redeem(token.id, None, world.now()), changed, "a used token is redeemed").await;
    accepted(&store, redeem(second.id, None, world.now()), "a link is refused because of wrong codes").await;
    let by_code = AccountChange::RedeemToken {
        id: third.id,
        seen: SeenToken { tries: Some(Tries::Foreign(51)), used_form: None },
        at: world.now(),
    };
    accepted(&store, by_code, "a token with the count that was read is refused").await;
    // Both in one commit: the later change sees the earlier one.
    let counted = sign_in();
    insert_tokens(&store, std::slice::from_ref(&counted)).await;
    let changed = Conflict::TokenChanged(counted.id);
    let redeemed =
        commit(&store, vec![count(own).into(), redeem(counted.id, Some(0), world.now()).into()]).await;
    assert!(
        matches!(&redeemed, Err(CommitError::Conflict(conflict)) if *conflict == changed),
        "a code is redeemed although its commit has counted a wrong one before: {redeemed:?}"
    );
    same(&stored(&store, counted.id).await, &counted, "a commit that conflicted has counted a wrong code");
    all(&store, vec![redeem(counted.id, Some(0), world.now()).into(), count(own).into()]).await;
    let used = Token { used_at: Some(world.now()), ..counted };
    let what = "a wrong code is counted on a token that its commit has redeemed before";
    same(&stored(&store, used.id).await, &used, what);
    change_races::token_is_redeemed_before_a_wrong_code_or_not(&store).await;
}

/// Open tokens are unused and unexpired tokens of the kind and address, listed newest first, at most 32.
pub async fn a7_open_tokens_are_listed_newest_first(store: impl Store) {
    let world = World::default();
    let (now, ana) = (world.now(), world.email("ana"));
    let open = async || store.open_tokens(TokenKind::SignIn, ana.key(), now).await.unwrap();
    // Later ids, and later expiries, have earlier times of creation; five tokens have the same.
    let mut expected: Vec<_> = (0..35_u64)
        .map(|n| Token {
            created_at: now.minus(Duration::from_secs(60 * (n / 5))),
            code_expires_at: now.minus(Duration::from_secs(n)),
            expires_at: now.plus(Duration::from_secs(60 * n) + MOMENT),
            ..world.token(TokenKind::SignIn, "ana")
        })
        .collect();
    insert_tokens(&store, &expected).await;
    insert_tokens(&store, &KINDS.map(|kind| world.token(kind, "ben"))).await;
    insert_tokens(&store, &[world.token(TokenKind::SignUp, "ana"), world.token(TokenKind::Password, "ana")])
        .await;
    let similar = tokens_of_similar_addresses(&world, TokenKind::SignIn, "ana");
    insert_tokens(&store, &similar).await;
    for token in similar {
        let found = store.open_tokens(TokenKind::SignIn, token.email.key(), now).await.unwrap();
        same(&found, &vec![token], "of a similar address not the newest 32 are listed, and no others");
    }
    let used = Token { used_at: Some(now), ..world.token(TokenKind::SignIn, "ana") };
    let expired = Token { expires_at: now, ..world.token(TokenKind::SignIn, "ana") };
    insert_tokens(&store, &[used, expired]).await;
    expected.sort_by_key(|token| std::cmp::Reverse((token.created_at, token.id)));
    let ids = |tokens: &[Token]| tokens.iter().map(|token| token.id).collect::<Vec<_>>();
    for count in [35, 33, 32, 31, 1, 0] {
        while expected.len() > count {
            must(&store, redeem(expected.remove(expected.len() / 2).id, Some(0), now)).await;
        }
        let open = open().await;
        let newest = &expected[..count.min(32)];
        let what =
            format!("of {count} open tokens not the newest 32 are listed, newest first and then by id");
        same(&ids(&open), &ids(newest), &what);
        same(&open.as_slice(), &newest, "an open token has other values in a list");
    }
}

/// Ending tokens ends only those of the kind and address, or of the kind and account.
pub async fn a8_only_matching_tokens_are_ended(store: impl Store) {
    let world = World::default();
    let (before, at) = (world.later(1), world.later(2));
    let sign_in = || world.token(TokenKind::SignIn, "ana");
    let mut tokens = vec![
        sign_in(),
        sign_in(),
        Token { expires_at: world.now(), ..sign_in() },
        Token { used_at: Some(before), ..sign_in() },
        sign_in(),
        world.token(TokenKind::SignUp, "ana"),
        world.token(TokenKind::SignIn, "ben"),
    ];
    tokens.extend(tokens_of_similar_addresses(&world, TokenKind::SignIn, "ana"));
    insert_tokens(&store, &tokens).await;
    let mut expected = vec![None; tokens.len()];
    expected[..4].copy_from_slice(&[Some(at), Some(at), Some(at), Some(before)]);
    let kept = tokens[4].id;
    let email = world.email("ana").key().clone();
    let end =
        |except, at| AccountChange::EndTokens { kind: TokenKind::SignIn, email: email.clone(), except, at };
    let what = "ending tokens of an address does not end exactly the unused ones of the kind, except one";
    for (n, token) in tokens.iter().enumerate().skip(7) {
        let (kind, email) = (TokenKind::SignIn, token.email.key().clone());
        must(&store, AccountChange::EndTokens { kind, email, except: None, at: before }).await;
        expected[n] = Some(before);
        let unused = [None, None, None, Some(before), None, None, None];
        same(&uses(&store, &tokens[..7]).await.as_slice(), &unused.as_slice(), what);
    }
    must(&store, end(Some(kept), at)).await;
    same(&uses(&store, &tokens).await, &expected, what);
    must(&store, end(None, world.later(3))).await;
    expected[4] = Some(world.later(3));
    same(&uses(&store, &tokens).await, &expected, what);
    // By account, for any address.
    let (ana, ben) = (world.account_id(), world.account_id());
    let of = |kind, account, name| Token { account, ..world.token(kind, name) };
    let tokens = [
        of(TokenKind::Email, Some(ana), "x"),
        of(TokenKind::Email, Some(ana), "y"),
        Token { used_at: Some(before), ..of(TokenKind::Email, Some(ana), "x") },
        of(TokenKind::Email, Some(ana), "z"),
        of(TokenKind::CancelEmail, Some(ana), "x"),
        of(TokenKind::Email, Some(ben), "x"),
        of(TokenKind::Email, None, "x"),
    ];
    insert_tokens(&store, &tokens).await;
    let end = |except, at| AccountChange::EndTokensOf { account: ana, kind: TokenKind::Email, except, at };
    must(&store, end(Some(tokens[3].id), at)).await;
    let mut expected = [Some(at), Some(at), Some(before), None, None, None, None];
    let what = "ending tokens of an account does not end exactly the unused ones of the kind, except one";
    same(&uses(&store, &tokens).await.as_slice(), &expected.as_slice(), what);
    must(&store, end(None, world.later(3))).await;
    expected[3] = Some(world.later(3));
    same(&uses(&store, &tokens).await.as_slice(), &expected.as_slice(), what);
}

/// Present sessions are found for more tokens than one statement can take, in any order.
pub async fn a17_only_tokens_of_present_sessions_are_returned(store: impl Store) {
    let world = World::default();
    let ana = world.account("ana");
    must(&store, AccountChange::Insert(ana.clone())).await;
    let sessions: Vec<_> = (0..150).map(|_| world.session(ana.id)).collect();
    for session in &sessions {
        must(&store, insert_session(session)).await;
    }
    let ended = |n: usize| n.is_multiple_of(7) || n == 149;
    for (_, session) in sessions.iter().enumerate().filter(|(n, _)| ended(*n)) {
        must(&store, AccountChange::EndSession { account: ana.id, id: session.id }).await;
    }
    let mut asked: Vec<_> = sessions.iter().map(|session| session.token).collect();
    asked.extend(["never", "begun"].map(|token| digest(&[token.as_bytes()])));
    let wanted = sessions.iter().enumerate().filter(|(n, _)| !ended(*n)).map(|(_, session)| session.token);
    let wanted = wanted.collect::<BTreeSet<_>>();
    let what = "of the given bearer tokens not exactly those of present sessions are returned";
    for count in [asked.len(), 128, 65, 64, 63, 1] {
        let found = store.present_sessions(&asked[..count]).await.unwrap();
        let asked: BTreeSet<_> = asked[..count].iter().copied().collect();
        let mut present = found.clone();
        present.sort_unstable();
        same(&present, &wanted.intersection(&asked).copied().collect(), what);
    }
    same(&store.present_sessions(&[]).await.unwrap(), &Vec::new(), "no bearer token has a present session");
    must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    same(&store.present_sessions(&asked).await.unwrap(), &Vec::new(), what);
}

/// Code and link of a token are each redeemed once; ending the token ends the unused form.
pub async fn a15_each_form_of_a_token_is_redeemed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let ana = world.account_id();
    for (first, second) in [(ProofForm::Code, ProofForm::Link), (ProofForm::Link, ProofForm::Code)] {
        let token = world.token(TokenKind::SignUp, "ana");
        must(&store, AccountChange::InsertToken(token.clone())).await;
        let form = |form| AccountChange::RedeemForm { id: token.id, seen: fresh(), form, account: ana };
        let commits = (0..50).map(|n| vec![form(if n % 2 == 0 { first } else { second }).into()]).collect();
        same(&race(&store, commits).await, &1, "of 50 concurrent uses of a form other than one succeeded");
        let half = stored(&store, token.id).await;
        let used_form = half.used_form;
        let what = "the use of one form changes another field than the form and the account";
        same(&half, &Token { used_form, account: Some(ana), ..token.clone() }, what);
        let open = store.open_tokens(TokenKind::SignUp, token.email.key(), world.now()).await.unwrap();
        assert!(open.contains(&half), "a token with one unused form is not open");
        let changed = Conflict::TokenChanged(token.id);
        let again = AccountChange::RedeemForm { id: token.id, seen: fresh(), form: second, account: ana };
        refused(
            &store,
            again,
            changed,
            "a form is used although the other one was used since the token was read",
        )
        .await;
        let what = "a token is redeemed although a form was used since it was read";
        refused(&store, redeem(token.id, None, world.now()), changed, what).await;
        let require = AccountChange::RequireToken { id: token.id, seen: fresh() };
        refused(&store, require, changed, what).await;
        let seen = SeenToken { tries: None, used_form };
        let rest = AccountChange::RedeemToken { id: token.id, seen, at: world.now() };
        let succeeded = race(&store, (0..50).map(|_| vec![rest.clone().into()]).collect()).await;
        same(&succeeded, &1, "of 50 concurrent uses of the other form other than one succeeded");
        let used = Token { used_at: Some(world.now()), ..half };
        same(&stored(&store, token.id).await, &used, "the use of both forms does not end the token");
        // Ending a token ends its unused form.
        let token = world.token(TokenKind::SignUp, "ben");
        must(&store, AccountChange::InsertToken(token.clone())).await;
        let form = AccountChange::RedeemForm { id: token.id, seen: fresh(), form: first, account: ana };
        accepted(&store, form, "a form of an unused token is refused").await;
        let found = stored(&store, token.id).await.used_form;
        same(&found, &Some(first), "a token does not store the form that was used");
        let end = AccountChange::EndTokens {
            kind: TokenKind::SignUp,
            email: token.email.key().clone(),
            except: None,
            at: world.now(),
        };
        must(&store, end).await;
        let seen = SeenToken { tries: None, used_form: Some(first) };
        let late = AccountChange::RedeemToken { id: token.id, seen, at: world.now() };
        refused(
            &store,
            late,
            Conflict::TokenChanged(token.id),
            "the unused form of an ended token is redeemed",
        )
        .await;
    }
}
