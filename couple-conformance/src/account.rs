//! A1–A17: accounts, mailed tokens, sessions and tallies.

use std::{collections::BTreeSet, sync::Arc};

use couple_core::{
    Conflict, EmailAddress, EmailKey, Label, Locale, Store, TimeZoneName, Timestamp, TokenId,
    account::{
        Account, AccountChange, PasswordHash, ProofForm, SeenToken, Session, Tally, TallyId, Token,
        TokenKind, Tries,
    },
    digest,
};

use crate::world::{World, all, conflict, insert, must, race};

/// An address key has one account; keys that differ in any byte are different addresses.
pub async fn a1_address_key_has_one_account(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let commits = (0..50).map(|_| vec![insert(&world.account("ana"))]).collect();
    assert_eq!(race(&store, commits).await, 1);
    for key in
        ["ana@example.org ", " ana@example.org", "Ana@example.org", "aná@example.org", "ana@example.org."]
    {
        let email = EmailAddress::from_stored(key, EmailKey::from_stored(key));
        let account = Account { email: email.clone(), ..world.account("x") };
        must(&store, AccountChange::Insert(account.clone())).await;
        assert_eq!(store.account_by_email(email.key()).await.unwrap(), Some(account));
    }
}

/// Every field of an account reads back, and each update increments its version.
pub async fn a2_account_fields_read_back(store: impl Store) {
    let world = World::default();
    let plain = world.account("ana");
    let full = Account {
        locale: Some(Locale::from_stored("pt-BR")),
        time_zone: Some(TimeZoneName::from_stored("Europe/Berlin")),
        birthday: Some("2000-02-29".to_owned()),
        password: Some(PasswordHash::from_stored("$argon2id$…")),
        deletion_due: Some(world.later(5)),
        display_name: couple_core::DisplayName::from_stored("Zoë 👩‍❤️‍👨"),
        ..world.account("zoe")
    };
    for account in [plain, full] {
        must(&store, AccountChange::Insert(account.clone())).await;
        assert_eq!(store.account(account.id).await.unwrap().as_ref(), Some(&account));
        assert_eq!(store.account_by_email(account.email.key()).await.unwrap().as_ref(), Some(&account));
        let renamed = Account { display_name: couple_core::DisplayName::from_stored("N"), ..account };
        must(&store, AccountChange::Update(renamed.clone())).await;
        let stored = store.account(renamed.id).await.unwrap();
        assert_eq!(stored, Some(Account { version: 1, ..renamed }));
    }
    let owner = world.account("owner");
    must(&store, AccountChange::Insert(owner.clone())).await;
    let session = Session { device: Some(Label::from_stored("Phone")), ..world.session(owner.id) };
    must(&store, insert_session(&session)).await;
    assert_eq!(store.sessions_of(session.account).await.unwrap(), [session]);
    let token = Token {
        account: Some(world.account_id()),
        display_name: Some(couple_core::DisplayName::from_stored("Ana")),
        locale: Some(Locale::from_stored("en")),
        network: None,
        foreign_tries: 3,
        used_form: Some(ProofForm::Link),
        ..world.token(TokenKind::SignUp, "ana")
    };
    must(&store, AccountChange::InsertToken(token.clone())).await;
    assert_eq!(store.token(token.id).await.unwrap().as_ref(), Some(&token));
    assert_eq!(store.token_by_link(&token.link).await.unwrap().as_ref(), Some(&token));
    assert_eq!(
        conflict(&store, AccountChange::InsertToken(token.clone())).await,
        Conflict::TokenExists(token.id)
    );
}

/// An account that was changed since it was read cannot be overwritten.
pub async fn a3_stale_update_conflicts(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    must(&store, AccountChange::Insert(account.clone())).await;
    let store = Arc::new(store);
    let update = AccountChange::Update(account.clone());
    assert_eq!(race(&store, (0..50).map(|_| vec![update.clone().into()]).collect()).await, 1);
    assert_eq!(conflict(&store, update).await, Conflict::AccountChanged(account.id));
    let gone = AccountChange::Update(world.account("ben"));
    assert!(matches!(conflict(&store, gone).await, Conflict::AccountChanged(_)));
    assert_eq!(store.account(account.id).await.unwrap().unwrap().version, 1);
}

/// An update cannot take the address of another account. It frees the account's old address.
pub async fn a4_update_to_a_taken_address_conflicts(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let taken = Account { email: ben.email.clone(), ..ana.clone() };
    assert_eq!(conflict(&store, AccountChange::Update(taken)).await, Conflict::AccountExists);
    let moved = Account { email: world.email("new"), ..ana.clone() };
    must(&store, AccountChange::Update(moved.clone())).await;
    assert_eq!(store.account_by_email(ana.email.key()).await.unwrap(), None);
    assert_eq!(store.account_by_email(moved.email.key()).await.unwrap().unwrap().id, ana.id);
    must(&store, AccountChange::Insert(world.account("ana"))).await;
}

/// A token of any kind is redeemed once by concurrent commits.
pub async fn a5_token_is_redeemed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    for kind in
        [TokenKind::SignUp, TokenKind::SignIn, TokenKind::Password, TokenKind::Email, TokenKind::CancelEmail]
    {
        let token = world.token(kind, "ana");
        must(&store, AccountChange::InsertToken(token.clone())).await;
        let redeem = redeem(token.id, None, world.now());
        assert_eq!(race(&store, (0..50).map(|_| vec![redeem.clone().into()]).collect()).await, 1);
        assert_eq!(store.token(token.id).await.unwrap().unwrap().used_at, Some(world.now()));
    }
}

/// Change that redeems a token by its code, given its number of `tries`, else by its link.
fn redeem(id: TokenId, tries: Option<i64>, at: Timestamp) -> AccountChange {
    let seen = SeenToken { tries: tries.map(Tries::Own), used_form: None };
    AccountChange::RedeemToken { id, seen, at }
}

/// Every concurrent wrong code is counted, on every unused token of the kind and address.
///
/// A code is not redeemed if the count has changed since it was read.
pub async fn a6_each_wrong_code_is_counted(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let (own, other) = (digest(&[b"network"]), digest(&[b"other"]));
    let tokens = [
        world.token(TokenKind::SignIn, "ana"),
        Token { network: Some(other), ..world.token(TokenKind::SignIn, "ana") },
        Token { network: None, ..world.token(TokenKind::SignIn, "ana") },
        world.token(TokenKind::SignUp, "ana"),
        world.token(TokenKind::SignIn, "ben"),
        Token { used_at: Some(world.now()), ..world.token(TokenKind::SignIn, "ana") },
        Token { code_expires_at: world.now(), ..world.token(TokenKind::SignIn, "ana") },
    ];
    for token in &tokens {
        must(&store, AccountChange::InsertToken(token.clone())).await;
    }
    let count = |network| AccountChange::CountTries {
        kind: TokenKind::SignIn,
        email: world.email("ana").key().clone(),
        network,
        at: world.now(),
    };
    assert_eq!(race(&store, (0..50).map(|_| vec![count(own).into()]).collect()).await, 50);
    must(&store, count(other)).await;
    let mut tries = Vec::new();
    for token in &tokens {
        let token = store.token(token.id).await.unwrap().unwrap();
        tries.push((token.tries, token.foreign_tries));
    }
    assert_eq!(tries, [(50, 1), (1, 50), (0, 51), (0, 0), (0, 0), (0, 0), (0, 0)]);
    // A correct code requires that the count of its network group is as it was read; a link has no such
    // precondition.
    let [token, second, ..] = &tokens;
    let changed = Conflict::TokenChanged(token.id);
    assert_eq!(conflict(&store, redeem(token.id, Some(49), world.now())).await, changed);
    let foreign = SeenToken { tries: Some(Tries::Foreign(0)), used_form: None };
    let stale = AccountChange::RedeemToken { id: token.id, seen: foreign, at: world.now() };
    assert_eq!(conflict(&store, stale).await, changed);
    assert_eq!(conflict(&store, AccountChange::RequireToken { id: token.id, seen: foreign }).await, changed);
    must(&store, redeem(token.id, Some(50), world.now())).await;
    assert_eq!(conflict(&store, redeem(token.id, None, world.now())).await, changed);
    must(&store, redeem(second.id, None, world.now())).await;
}

/// Open tokens are unused and unexpired tokens of the kind and address, listed newest first.
pub async fn a7_open_tokens_are_listed_newest_first(store: impl Store) {
    let world = World::default();
    let mut expected = Vec::new();
    for n in 0..3 {
        let token = world.token(TokenKind::SignIn, "ana");
        expected.insert(0, token.clone());
        must(&store, AccountChange::InsertToken(token)).await;
        if n == 1 {
            must(&store, AccountChange::InsertToken(world.token(TokenKind::SignUp, "ana"))).await;
            must(&store, AccountChange::InsertToken(world.token(TokenKind::SignIn, "ben"))).await;
        }
        world.clock.advance(std::time::Duration::from_secs(10));
    }
    let ana = world.email("ana");
    let open = store.open_tokens(TokenKind::SignIn, ana.key(), world.now()).await.unwrap();
    assert_eq!(open, expected);
    must(&store, redeem(expected[0].id, Some(0), world.now())).await;
    // The oldest token expires first; it is no longer open at the time of its expiry.
    let open = store.open_tokens(TokenKind::SignIn, ana.key(), expected[2].expires_at).await.unwrap();
    assert_eq!(open, expected[1..2]);
}

/// Ending tokens ends only those of the kind and address, or of the kind and account.
pub async fn a8_only_matching_tokens_are_ended(store: impl Store) {
    let world = World::default();
    let tokens = [
        (TokenKind::SignIn, "ana"),
        (TokenKind::SignIn, "ana"),
        (TokenKind::SignUp, "ana"),
        (TokenKind::SignIn, "ben"),
        (TokenKind::SignIn, "ana"),
    ]
    .map(|(kind, name)| world.token(kind, name));
    for token in &tokens {
        must(&store, AccountChange::InsertToken(token.clone())).await;
    }
    let email = world.email("ana").key().clone();
    let except = Some(tokens[4].id);
    must(&store, AccountChange::EndTokens { kind: TokenKind::SignIn, email, except, at: world.later(1) })
        .await;
    let mut ended = Vec::new();
    for token in &tokens {
        ended.push(store.token(token.id).await.unwrap().unwrap().used_at.is_some());
    }
    assert_eq!(ended, [true, true, false, false, false]);
    // By account, for any address.
    let (ana, ben) = (world.account_id(), world.account_id());
    let tokens = [
        (TokenKind::Email, ana, "x"),
        (TokenKind::Email, ana, "y"),
        (TokenKind::SignIn, ana, "x"),
        (TokenKind::Email, ben, "x"),
        (TokenKind::Email, ana, "z"),
    ]
    .map(|(kind, account, name)| Token { account: Some(account), ..world.token(kind, name) });
    for token in &tokens {
        must(&store, AccountChange::InsertToken(token.clone())).await;
    }
    let except = Some(tokens[4].id);
    let end = AccountChange::EndTokensOf { account: ana, kind: TokenKind::Email, except, at: world.later(1) };
    must(&store, end).await;
    let mut ended = Vec::new();
    for token in &tokens {
        ended.push(store.token(token.id).await.unwrap().unwrap().used_at.is_some());
    }
    assert_eq!(ended, [true, true, false, false, false]);
}

/// A session is added only if its account still has the version that was read.
pub async fn a13_session_requires_an_unchanged_account(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    let session = world.session(account.id);
    let changed = Conflict::AccountChanged(account.id);
    assert_eq!(conflict(&store, insert_session(&session)).await, changed);
    must(&store, AccountChange::Insert(account.clone())).await;
    must(&store, AccountChange::Update(account.clone())).await;
    assert_eq!(conflict(&store, insert_session(&session)).await, changed);
    let later = AccountChange::InsertSession { session: session.clone(), version: 1 };
    must(&store, later).await;
    assert_eq!(store.sessions_of(account.id).await.unwrap(), [session]);
    // In the same commit as the account.
    let ben = world.account("ben");
    all(&store, vec![insert(&ben), insert_session(&world.session(ben.id)).into()]).await;
}

/// Change that adds a session of an account with version 0.
fn insert_session(session: &Session) -> AccountChange {
    AccountChange::InsertSession { session: session.clone(), version: 0 }
}

/// Ending sessions ends those of the account except the given one, and no others.
pub async fn a9_only_sessions_of_the_account_are_ended(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let [keep, end, single, other] = [ana.id, ana.id, ana.id, ben.id].map(|account| world.session(account));
    for session in [&keep, &end, &single, &other] {
        must(&store, insert_session(session)).await;
    }
    let touch = AccountChange::TouchSession { account: ana.id, id: keep.id, seen_at: world.later(9) };
    must(&store, touch).await;
    must(&store, AccountChange::EndSession { account: ana.id, id: single.id }).await;
    // The session of another account is not ended.
    must(&store, AccountChange::EndSession { account: ana.id, id: other.id }).await;
    assert_eq!(store.sessions_of(ana.id).await.unwrap().len(), 2);
    must(&store, AccountChange::EndSessions { account: ana.id, except: Some(keep.id) }).await;
    let kept = Session { seen_at: world.later(9), ..keep.clone() };
    assert_eq!(store.sessions_of(ana.id).await.unwrap(), std::slice::from_ref(&kept));
    assert_eq!(store.session_by_token(&keep.token).await.unwrap().unwrap(), (kept, ana.clone()));
    assert_eq!(store.session_by_token(&end.token).await.unwrap(), None);
    must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    assert_eq!(store.sessions_of(ana.id).await.unwrap(), []);
    assert_eq!(store.sessions_of(ben.id).await.unwrap(), [other]);
    // A late use does not restore an ended session.
    must(&store, AccountChange::TouchSession { account: ana.id, id: end.id, seen_at: world.later(9) }).await;
    assert_eq!(store.sessions_of(ana.id).await.unwrap(), []);
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
    asked.extend(["never", "begun"].map(|token| couple_core::digest(&[token.as_bytes()])));
    let present: BTreeSet<_> = store.present_sessions(&asked).await.unwrap().into_iter().collect();
    let wanted = sessions.iter().enumerate().filter(|(n, _)| !ended(*n)).map(|(_, session)| session.token);
    assert_eq!(present, wanted.collect());
    assert_eq!(store.present_sessions(&[]).await.unwrap(), []);
    must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    assert_eq!(store.present_sessions(&asked).await.unwrap(), []);
}

/// Erasing an account removes its tokens and sessions and frees its address.
pub async fn a10_erasure_removes_tokens_and_sessions(store: impl Store) {
    let world = World::default();
    let ana = world.account("ana");
    let session = world.session(ana.id);
    let token = Token { account: Some(ana.id), ..world.token(TokenKind::SignIn, "ana") };
    let changes =
        vec![insert(&ana), insert_session(&session).into(), AccountChange::InsertToken(token.clone()).into()];
    all(&store, changes).await;
    let stale = AccountChange::Erase { id: ana.id, version: 7 };
    assert_eq!(conflict(&store, stale).await, Conflict::AccountChanged(ana.id));
    must(&store, AccountChange::Erase { id: ana.id, version: 0 }).await;
    assert_eq!(store.account(ana.id).await.unwrap(), None);
    assert_eq!(store.session_by_token(&session.token).await.unwrap(), None);
    assert_eq!(store.token(token.id).await.unwrap(), None);
    must(&store, AccountChange::Insert(world.account("ana"))).await;
}

/// Purges remove only expired rows, at most the given number, and return their number.
pub async fn a11_purge_removes_at_most_cap_expired_rows(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    must(&store, AccountChange::Insert(account.clone())).await;
    for _ in 0..5 {
        must(&store, AccountChange::InsertToken(world.token(TokenKind::SignIn, "ana"))).await;
        must(&store, insert_session(&world.session(account.id))).await;
    }
    let end = world.later(3600);
    let nobody = world.now().minus(std::time::Duration::from_secs(1));
    let tokens = |before, cap| AccountChange::PurgeTokens { before, cap };
    assert_eq!(must(&store, tokens(end, 9)).await.rows_affected(), 0);
    let later = world.later(3601);
    assert_eq!(must(&store, tokens(later, 3)).await.rows_affected(), 3);
    assert_eq!(must(&store, tokens(later, 3)).await.rows_affected(), 2);
    let sessions = |before, idle, cap| AccountChange::PurgeSessions { before, idle, cap };
    assert_eq!(must(&store, sessions(end, nobody, 9)).await.rows_affected(), 0);
    assert_eq!(must(&store, sessions(later, nobody, 2)).await.rows_affected(), 2);
    assert_eq!(must(&store, sessions(end, world.later(1), 9)).await.rows_affected(), 3);
}

/// Accounts whose grace period has ended are listed, earliest first.
pub async fn a12_due_accounts_are_listed_earliest_first(store: impl Store) {
    let world = World::default();
    let names = |page: Vec<Account>| page.iter().map(|a| a.display_name.to_string()).collect::<Vec<_>>();
    for (name, at) in [
        ("c", Some(30)),
        ("a", Some(10)),
        ("never", None),
        ("b", Some(20)),
        ("d", Some(99)),
        ("b2", Some(20)),
    ] {
        let account = Account { deletion_due: at.map(|at| world.later(at)), ..world.account(name) };
        must(&store, AccountChange::Insert(account)).await;
    }
    let due = store.accounts_to_delete(world.later(30), None, 9).await.unwrap();
    let found = names(due.clone());
    // Accounts with the same due time are ordered by id; ids of the same millisecond are random.
    assert!(due.is_sorted_by_key(|account| (account.deletion_due, account.id)));
    assert_eq!((found.len(), found[0].as_str(), found[3].as_str()), (4, "a", "c"));
    assert_eq!(store.accounts_to_delete(world.later(30), None, 2).await.unwrap(), due[..2]);
    assert_eq!(store.accounts_to_delete(world.later(9), None, 9).await.unwrap(), []);
    // Each page starts after an account; accounts with the same due time are ordered by id.
    for n in 0..due.len() {
        let after = due[n].deletion_due.map(|at| (at, due[n].id));
        assert_eq!(store.accounts_to_delete(world.later(30), after, 9).await.unwrap(), due[n + 1..]);
    }
}

/// Tokens end with the session that requested them, and no token is added afterwards.
///
/// Holds for either order of the two commits.
pub async fn a14_tokens_end_with_their_session(store: impl Store) {
    let world = World::default();
    let ana = world.account("ana");
    must(&store, AccountChange::Insert(ana.clone())).await;
    let [one, two, kept] = [(); 3].map(|()| world.session(ana.id));
    for session in [&one, &two, &kept] {
        must(&store, insert_session(session)).await;
    }
    let requested = |session: Option<&Session>| Token {
        account: Some(ana.id),
        session: session.map(|session| session.id),
        ..world.token(TokenKind::Email, "new")
    };
    let tokens = [Some(&one), Some(&two), Some(&kept), None].map(requested);
    for token in &tokens {
        must(&store, AccountChange::InsertToken(token.clone())).await;
        assert_eq!(store.token(token.id).await.unwrap().as_ref(), Some(token));
    }
    let left = async || {
        let mut left = Vec::new();
        for token in &tokens {
            left.push(store.token(token.id).await.unwrap().is_some());
        }
        left
    };
    must(&store, AccountChange::EndSession { account: ana.id, id: one.id }).await;
    assert_eq!(left().await, [false, true, true, true]);
    must(&store, AccountChange::EndSessions { account: ana.id, except: Some(kept.id) }).await;
    assert_eq!(left().await, [false, false, true, true]);
    must(&store, AccountChange::EndSessions { account: ana.id, except: None }).await;
    assert_eq!(left().await, [false, false, false, true]);
    let late = conflict(&store, AccountChange::InsertToken(requested(Some(&one)))).await;
    assert_eq!(late, Conflict::SessionEnded(one.id));
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
            assert_eq!(store.token(token.id).await.unwrap(), None);
        }
    }
}

/// Code and link of a token are each redeemed once; ending the token ends the unused form.
pub async fn a15_each_form_of_a_token_is_redeemed_once(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let ana = world.account_id();
    for (first, second) in [(ProofForm::Code, ProofForm::Link), (ProofForm::Link, ProofForm::Code)] {
        let token = world.token(TokenKind::SignUp, "ana");
        must(&store, AccountChange::InsertToken(token.clone())).await;
        let fresh = SeenToken { tries: None, used_form: None };
        let form = |form| AccountChange::RedeemForm { id: token.id, seen: fresh, form, account: ana };
        let commits = (0..50).map(|n| vec![form(if n % 2 == 0 { first } else { second }).into()]).collect();
        assert_eq!(race(&store, commits).await, 1);
        let half = store.token(token.id).await.unwrap().unwrap();
        assert_eq!((half.used_at, half.account), (None, Some(ana)));
        let open = store.open_tokens(TokenKind::SignUp, token.email.key(), world.now()).await.unwrap();
        assert!(open.contains(&half), "a token with one unused form is open");
        let seen = SeenToken { tries: None, used_form: half.used_form };
        let rest = AccountChange::RedeemToken { id: token.id, seen, at: world.now() };
        assert_eq!(race(&store, (0..50).map(|_| vec![rest.clone().into()]).collect()).await, 1);
        assert_eq!(store.token(token.id).await.unwrap().unwrap().used_at, Some(world.now()));
        // Ending a token ends its unused form.
        let token = world.token(TokenKind::SignUp, "ben");
        must(&store, AccountChange::InsertToken(token.clone())).await;
        must(&store, AccountChange::RedeemForm { id: token.id, seen: fresh, form: first, account: ana })
            .await;
        let end = AccountChange::EndTokens {
            kind: TokenKind::SignUp,
            email: token.email.key().clone(),
            except: None,
            at: world.now(),
        };
        must(&store, end).await;
        let seen = SeenToken { tries: None, used_form: Some(first) };
        let late = AccountChange::RedeemToken { id: token.id, seen, at: world.now() };
        assert_eq!(conflict(&store, late).await, Conflict::TokenChanged(token.id));
    }
}

/// Concurrent counts succeed up to the limit; further ones conflict until the tally expires.
pub async fn a16_tally_counts_up_to_its_limit(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let id = |n: u8| TallyId::from_digest(digest(&[b"tally", &[n]]));
    let count = |n, at| AccountChange::CountTally { id: id(n), below: 20, at, expires_at: world.later(100) };
    let now = world.now();
    assert_eq!(store.tally(id(1), now).await.unwrap(), None);
    must(&store, AccountChange::RequireTally { id: id(1), below: 1, at: now }).await;
    assert_eq!(race(&store, (0..50).map(|_| vec![count(1, now).into()]).collect()).await, 20);
    let full = Tally { count: 20, expires_at: world.later(100) };
    assert_eq!(store.tally(id(1), world.later(99)).await.unwrap(), Some(full));
    assert_eq!(store.tally(id(1), world.later(100)).await.unwrap(), None);
    assert_eq!(conflict(&store, count(1, world.later(99))).await, Conflict::TallyFull);
    let require = |below, at| AccountChange::RequireTally { id: id(1), below, at };
    assert_eq!(conflict(&store, require(20, world.later(99))).await, Conflict::TallyFull);
    must(&store, require(21, world.later(99))).await;
    must(&store, require(20, world.later(100))).await;
    // Other tallies do not change.
    must(&store, count(2, now)).await;
    // After its expiry the tally starts again, with a new expiry.
    let anew = AccountChange::CountTally {
        id: id(1),
        below: 20,
        at: world.later(100),
        expires_at: world.later(200),
    };
    must(&store, anew).await;
    let tally = store.tally(id(1), world.later(100)).await.unwrap();
    assert_eq!(tally, Some(Tally { count: 1, expires_at: world.later(200) }));
    for tally in [Tally { count: 7, expires_at: world.later(50) }, Tally { count: 0, expires_at: now }] {
        must(&store, AccountChange::PutTally { id: id(3), tally }).await;
        let live = Some(tally).filter(|tally| tally.expires_at > now);
        assert_eq!(store.tally(id(3), now).await.unwrap(), live);
    }
    let purge = |before, cap| AccountChange::PurgeTallies { before, cap };
    assert_eq!(must(&store, purge(now, 9)).await.rows_affected(), 0);
    assert_eq!(must(&store, purge(world.later(101), 1)).await.rows_affected(), 1);
    assert_eq!(must(&store, purge(world.later(101), 9)).await.rows_affected(), 1);
    assert_eq!(store.tally(id(1), now).await.unwrap().map(|tally| tally.count), Some(1));
}
