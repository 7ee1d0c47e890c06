//! A1–A23: accounts, mailed tokens, sessions and tallies.

mod fields;
mod removal;
mod row;
mod session;
mod token;
mod widget;

use std::collections::BTreeSet;

use couple_core::{
    AccountId, DisplayName, EmailAddress, EmailKey, Locale, Store, TimeZoneName, Timestamp, TokenId,
    account::{Account, AccountChange, PasswordHash, SeenToken, Session, Token, TokenKind, Tries},
};

use crate::{
    samples::{after_2038, before_1970, big, longest, longest_ascii, special},
    world::{World, must},
};

pub use self::{
    fields::{
        a16_tally_counts_up_to_its_limit, a18_token_session_and_tally_fields_read_back,
        a21_link_and_bearer_token_are_unique,
    },
    removal::{a10_erasure_removes_tokens_and_sessions, a11_purge_removes_at_most_cap_expired_rows},
    row::{
        a1_address_key_has_one_account, a2_account_fields_read_back, a3_stale_update_conflicts,
        a4_update_to_a_taken_address_conflicts, a12_due_accounts_are_listed_earliest_first,
    },
    session::{
        a9_only_sessions_of_the_account_are_ended, a13_session_requires_an_unchanged_account,
        a14_tokens_end_with_their_session, a19_sessions_are_listed_newest_first,
        a20_session_has_the_present_state_of_its_account,
    },
    token::{
        a5_token_is_redeemed_once, a6_each_wrong_code_is_counted, a7_open_tokens_are_listed_newest_first,
        a8_only_matching_tokens_are_ended, a15_each_form_of_a_token_is_redeemed_once,
        a17_only_tokens_of_present_sessions_are_returned,
    },
    widget::{a22_session_is_found_with_its_couple, a23_widget_tokens_are_limited_and_unique},
};

const KINDS: [TokenKind; 5] =
    [TokenKind::SignUp, TokenKind::SignIn, TokenKind::Password, TokenKind::Email, TokenKind::CancelEmail];

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

/// The token with this id, which must exist.
async fn stored(store: &impl Store, id: TokenId) -> Token {
    store.token(id).await.unwrap().expect("a token is not found by its id in every state")
}

async fn insert_tokens(store: &impl Store, tokens: &[Token]) {
    for token in tokens {
        must(store, AccountChange::InsertToken(token.clone())).await;
    }
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
