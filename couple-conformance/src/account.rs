//! A1–A21: accounts, mailed tokens, sessions and tallies.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use couple_core::{
    AccountId, Conflict, Digest, DisplayName, EmailAddress, EmailKey, Label, Locale, Store, TimeZoneName,
    Timestamp, TokenId,
    account::{
        Account, AccountChange, PasswordHash, ProofForm, SeenToken, Session, Tally, TallyId, Token,
        TokenKind, Tries,
    },
    digest,
};

use crate::{
    samples::{after_2038, before_1970, big, longest, longest_ascii, near, similar_digests, special},
    world::{World, accepted, affects, all, insert, must, race, refused, same},
};

const KINDS: [TokenKind; 5] =
    [TokenKind::SignUp, TokenKind::SignIn, TokenKind::Password, TokenKind::Email, TokenKind::CancelEmail];

/// Smallest difference between two stored times.
const MOMENT: Duration = Duration::from_micros(1);

/// Address that equals its key.
fn address(key: &str) -> EmailAddress {
    EmailAddress::from_stored(key, EmailKey::from_stored(key))
}

/// Longest key of an address, which ends with `n`.
fn longest_key(n: u8) -> String {
    format!("{}@{}.{n}", longest_ascii(64), longest_ascii(187))
}

/// Accounts in which every field has a value that is different from all others and that a column may cut or change.
fn extreme_accounts(world: &World) -> [Account; 2] {
    let typed = EmailAddress::parse("email", "Zoe.B+Tag@Bücher.Example").expect("this is an address");
    [
        Account {
            email: typed,
            display_name: DisplayName::from_stored(special("Zoë")),
            locale: Some(Locale::from_stored("pt-BR")),
            time_zone: Some(TimeZoneName::from_stored("Europe/Berlin")),
            birthday: Some("1804-02-29".to_owned()),
            password: Some(PasswordHash::from_stored("$argon2id$v=19$Ab/+%_\\ ")),
            created_at: before_1970(1),
            deletion_due: Some(after_2038(2)),
            version: 3,
            ..world.account("special")
        },
        Account {
            email: EmailAddress::from_stored(
                format!("{}@{}", longest_ascii(64), longest(110)),
                EmailKey::from_stored(longest_key(1)),
            ),
            display_name: DisplayName::from_stored(longest(64)),
            locale: Some(Locale::from_stored(longest_ascii(Locale::MAX_LENGTH))),
            time_zone: Some(TimeZoneName::from_stored(longest_ascii(64))),
            birthday: Some("9999-12-31".to_owned()),
            password: Some(PasswordHash::from_stored(longest_ascii(1024))),
            created_at: after_2038(4),
            deletion_due: Some(before_1970(5)),
            version: big(6),
            ..world.account("longest")
        },
    ]
}

/// An address key has one account; keys that differ in any byte are different addresses.
pub async fn a1_address_key_has_one_account(store: impl Store) {
    let world = World::default();
    let store = Arc::new(store);
    let commits = (0..50).map(|_| vec![insert(&world.account("ana"))]).collect();
    same(
        &race(&store, commits).await,
        &1,
        "of 50 concurrent inserts with one address other than one succeeded",
    );
    let ana = store.account_by_email(world.email("ana").key()).await.unwrap();
    let ana = ana.expect("an account is not found by its address key");
    let again = Account { id: ana.id, ..world.account("other") };
    refused(&store, insert(&again), Conflict::AccountExists, "an insert with a used id does not conflict")
        .await;
    let found = store.account(ana.id).await.unwrap();
    same(&found, &Some(ana), "an insert with a used id replaced the account");
    let long = [1, 2].map(longest_key);
    for key in near("ana@example.org").into_iter().chain(long) {
        let account = Account { email: address(&key), ..world.account("x") };
        let found = store.account_by_email(account.email.key()).await.unwrap();
        same(&found, &None, "an address finds the account of a similar address");
        accepted(&store, insert(&account), &format!("the address {key:?} is taken for a similar one")).await;
        let found = store.account_by_email(account.email.key()).await.unwrap();
        same(&found, &Some(account), "an address finds the account of a similar address");
    }
}

/// Every field of an account reads back, and an update replaces every field and increments the version.
pub async fn a2_account_fields_read_back(store: impl Store) {
    let world = World::default();
    let check = async |account: &Account, what: &str| {
        same(&store.account(account.id).await.unwrap().as_ref(), &Some(account), what);
        let found = store.account_by_email(account.email.key()).await.unwrap();
        same(&found.as_ref(), &Some(account), what);
    };
    let [special, long] = extreme_accounts(&world);
    for account in [&special, &long] {
        accepted(&store, insert(account), "an account is refused for its values").await;
        check(account, "a field of an account does not read back as it was written").await;
    }
    for (account, other) in [(&special, &long), (&long, &special)] {
        // Every field changes.
        let key = EmailKey::from_stored(format!("{}@new.org", account.display_name.as_str().len()));
        let mut expected = account.clone();
        let changed = Account {
            id: account.id,
            email: EmailAddress::from_stored(other.email.as_str(), key),
            version: account.version,
            ..other.clone()
        };
        let none = Account {
            locale: None,
            time_zone: None,
            birthday: None,
            password: None,
            deletion_due: None,
            ..changed.clone()
        };
        for next in [changed, none] {
            let update = Account { version: expected.version, ..next.clone() };
            expected = Account { version: update.version + 1, ..next };
            accepted(&store, AccountChange::Update(update), "an update of an account is refused").await;
            check(&expected, "an update does not replace every field of an account").await;
        }
        let back = Account { version: expected.version, ..account.clone() };
        accepted(&store, AccountChange::Update(back), "an update of an account is refused").await;
        let expected = Account { version: expected.version + 1, ..account.clone() };
        check(&expected, "an update does not replace every field of an account").await;
    }
}

/// An account that was changed since it was read cannot be overwritten.
pub async fn a3_stale_update_conflicts(store: impl Store) {
    let world = World::default();
    let account = world.account("ana");
    must(&store, AccountChange::Insert(account.clone())).await;
    let store = Arc::new(store);
    let update = AccountChange::Update(account.clone());
    let succeeded = race(&store, (0..50).map(|_| vec![update.clone().into()]).collect()).await;
    same(&succeeded, &1, "of 50 concurrent updates after one read other than one succeeded");
    let changed = Conflict::AccountChanged(account.id);
    for version in [-1, 0, 2, 1 << 32, (1 << 32) + 1] {
        let stale = Account { version, display_name: DisplayName::from_stored("stale"), ..account.clone() };
        refused(&store, AccountChange::Update(stale), changed, "an update with another version succeeds")
            .await;
    }
    let found = store.account(account.id).await.unwrap();
    same(&found, &Some(Account { version: 1, ..account }), "a stale update changed the account");
    let gone = world.account("ben");
    let update = AccountChange::Update(gone.clone());
    refused(&store, update, Conflict::AccountChanged(gone.id), "an update of a missing account succeeds")
        .await;
    same(&store.account(gone.id).await.unwrap(), &None, "an update added a missing account");
}

/// An update cannot take the address of another account. It frees the account's old address.
pub async fn a4_update_to_a_taken_address_conflicts(store: impl Store) {
    let world = World::default();
    let (ana, ben) = (world.account("ana"), world.account("ben"));
    all(&store, vec![insert(&ana), insert(&ben)]).await;
    let taken = Account { email: ben.email.clone(), ..ana.clone() };
    let what = "an update takes the address of another account";
    refused(&store, AccountChange::Update(taken), Conflict::AccountExists, what).await;
    same(&store.account(ana.id).await.unwrap().as_ref(), &Some(&ana), what);
    // The same key, typed in another way.
    let typed = EmailAddress::from_stored("Ana@Example.org", ana.email.key().clone());
    let mut now = Account { email: typed, ..ana.clone() };
    accepted(&store, AccountChange::Update(now.clone()), "an update that keeps the address key conflicts")
        .await;
    now.version += 1;
    let found = store.account_by_email(ana.email.key()).await.unwrap();
    same(
        &found.as_ref(),
        &Some(&now),
        "an account is not found by its address after an update that keeps the key",
    );
    let new = ["new@example.org".to_owned()].into_iter().chain(near("ben@example.org"));
    for key in new {
        let moved = Account { email: address(&key), ..now.clone() };
        let what = format!("an update to the free address {key:?} conflicts");
        accepted(&store, AccountChange::Update(moved.clone()), &what).await;
        let old = store.account_by_email(now.email.key()).await.unwrap();
        same(&old, &None, "an account is found by an address that it had before");
        now = Account { version: moved.version + 1, ..moved };
        let found = store.account_by_email(now.email.key()).await.unwrap();
        same(&found.as_ref(), &Some(&now), "an account is not found by its new address");
    }
    accepted(&store, insert(&world.account("ana")), "an update does not free the old address").await;
    let found = store.account_by_email(ben.email.key()).await.unwrap();
    same(&found, &Some(ben), "an update changed another account");
}

/// The token with this id, which must exist.
async fn stored(store: &impl Store, id: TokenId) -> Token {
    store.token(id).await.unwrap().expect("a token is not found by its id in every state")
}

/// Time of the use of each token.
async fn uses(store: &impl Store, tokens: &[Token]) -> Vec<Option<Timestamp>> {
    let mut uses = Vec::new();
    for token in tokens {
        uses.push(stored(store, token.id).await.used_at);
    }
    uses
}

async fn insert_tokens(store: &impl Store, tokens: &[Token]) {
    for token in tokens {
        must(store, AccountChange::InsertToken(token.clone())).await;
    }
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

/// State of a token that has not been used, whatever its number of wrong codes.
fn fresh() -> SeenToken {
    SeenToken { tries: None, used_form: None }
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

/// Change that adds a session of an account with version 0.
fn insert_session(session: &Session) -> AccountChange {
    AccountChange::InsertSession { session: session.clone(), version: 0 }
}

/// Commits `count` sessions of an account with version 0.
async fn sessions<const COUNT: usize>(
    store: &impl Store,
    world: &World,
    account: AccountId,
) -> [Session; COUNT] {
    let sessions = [(); COUNT].map(|()| world.session(account));
    for session in &sessions {
        must(store, insert_session(session)).await;
    }
    sessions
}

/// Ids of the sessions of an account, in order.
async fn session_ids(store: &impl Store, account: AccountId) -> BTreeSet<couple_core::SessionId> {
    store.sessions_of(account).await.unwrap().iter().map(|session| session.id).collect()
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

/// Accounts whose grace period has ended are listed page by page, earliest first and then by id.
pub async fn a12_due_accounts_are_listed_earliest_first(store: impl Store) {
    let world = World::default();
    let mut expected = Vec::new();
    for (n, at) in
        [(0, Some(30)), (1, Some(10)), (2, None), (3, Some(20)), (4, Some(99)), (5, Some(20)), (6, Some(20))]
    {
        let name = format!("p{n}");
        let account = Account { deletion_due: at.map(|at| world.later(at)), ..world.account(&name) };
        must(&store, AccountChange::Insert(account.clone())).await;
        expected.extend(at.is_some_and(|at| at <= 30).then_some(account));
    }
    // Accounts with the same due time are ordered by id; ids of the same millisecond are random.
    expected.sort_by_key(|account| (account.deletion_due, account.id));
    let what = "not exactly the accounts that are due are listed, earliest first and then by id";
    let list = async |at, after, limit| store.accounts_to_delete(at, after, limit).await.unwrap();
    same(&list(world.later(30), None, 9).await, &expected, what);
    let before = world.later(30).minus(MOMENT);
    same(&list(before, None, 9).await.as_slice(), &&expected[..4], what);
    same(&list(world.later(9), None, 9).await, &Vec::new(), what);
    let what = "a page of due accounts does not have its limit of rows";
    for limit in 1..=5 {
        let page = list(world.later(30), None, u32::try_from(limit).unwrap()).await;
        same(&page.as_slice(), &&expected[..limit], what);
    }
    // Each page starts after an account; accounts with the same due time are ordered by id.
    let what = "a page of due accounts does not start after the given account";
    for n in 0..expected.len() {
        let after = expected[n].deletion_due.map(|at| (at, expected[n].id));
        same(&list(world.later(30), after, 9).await.as_slice(), &&expected[n + 1..], what);
    }
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
        must(&store, AccountChange::PutTally { id: id(3), tally }).await;
        let live = Some(tally).filter(|tally| tally.expires_at > now);
        same(&store.tally(id(3), now).await.unwrap(), &live, what);
    }
    for (n, at) in [(4, 103), (5, 102)] {
        let tally = Tally { count: 1, expires_at: world.later(at) };
        must(&store, AccountChange::PutTally { id: id(n), tally }).await;
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
        must(&store, AccountChange::PutTally { id, tally }).await;
        same(&store.tally(id, at).await.unwrap(), &Some(tally), changed);
        same(&store.tally(id, expires_at).await.unwrap(), &None, changed);
        let count = AccountChange::CountTally { id, below: big(n) + 1, at, expires_at };
        accepted(&store, count.clone(), "a count above 2^32 conflicts below its limit").await;
        refused(&store, count, Conflict::TallyFull, "a count above 2^32 succeeds at its limit").await;
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
