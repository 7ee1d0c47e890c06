//! What accounts decide: pure functions of what was read, the command, the time and fresh randomness.

use super::{Account, AccountChange, PasswordHash, Policy, Refusal, Session, Token, TokenKind};
use crate::{
    AccountId, Change, DisplayName, EmailAddress, Invalid, Keyring, Locale, Secret, Timestamp, TokenId,
    digest, pairing::PairingChange, typed,
};

/// Which purpose a token's code is derived under.
const CODE: &str = "mailed-code";

/// The 6-digit code of a token.
#[must_use]
pub fn code_of(keys: &Keyring, token: TokenId) -> Secret<String> {
    keys.six_digits(CODE, &[token.as_uuid().as_bytes()])
}

/// A typed code as it is compared, spaces, dashes and digits of other scripts aside.
///
/// # Errors
/// [`Invalid`] for what is no six digits: it is refused before it counts as a try.
pub fn typed_code(code: &Secret<String>) -> Result<Secret<String>, Invalid> {
    typed::digits(code.expose(), 6).map(Secret::new).ok_or(Invalid::new("code", "invalid"))
}

/// The link token of a token: 192 bits, its kind in front.
#[must_use]
pub fn link_of(keys: &Keyring, kind: TokenKind, token: TokenId) -> Secret<String> {
    keys.bearer(kind.as_str(), &[token.as_uuid().as_bytes()])
}

/// What is written of a token when it is mailed.
pub struct Mailing<'a> {
    /// What code and link are derived from.
    pub id: TokenId,
    /// What it proves.
    pub kind: TokenKind,
    /// Where it goes.
    pub email: &'a EmailAddress,
    /// Whose it is.
    pub account: Option<AccountId>,
    /// The name given at sign-up.
    pub display_name: Option<DisplayName>,
    /// The locale given at sign-up.
    pub locale: Option<Locale>,
}

impl Mailing<'_> {
    /// The token's row at `now`.
    #[must_use]
    pub fn token(self, keys: &Keyring, policy: &Policy, now: Timestamp) -> Token {
        let lifetime = if self.kind == TokenKind::Password {
            policy.password_link_lifetime
        } else {
            policy.link_lifetime
        };
        Token {
            id: self.id,
            kind: self.kind,
            email: self.email.clone(),
            account: self.account,
            link: digest(&[link_of(keys, self.kind, self.id).expose().as_bytes()]),
            tries: 0,
            display_name: self.display_name,
            locale: self.locale,
            created_at: now,
            code_expires_at: now.plus(policy.code_lifetime),
            expires_at: now.plus(lifetime),
            used_at: None,
        }
    }
}

/// Whether a token read by its link can still be used for `kind`.
#[must_use]
pub fn is_usable(token: &Token, kind: TokenKind, now: Timestamp) -> bool {
    token.kind == kind && token.used_at.is_none() && now < token.expires_at
}

/// What a typed code comes to.
#[derive(Debug)]
pub enum Guess<'a> {
    /// It is this token's.
    Right(&'a Token),
    /// It is none's; each that could have been meant loses a try.
    Wrong(Vec<Change>),
}

/// Compares a typed code with every open token of an address: a second mail does not break the first.
#[must_use]
pub fn guess<'a>(
    keys: &Keyring,
    open: &'a [Token],
    code: &Secret<String>,
    policy: &Policy,
    now: Timestamp,
) -> Guess<'a> {
    let typed = digest(&[code.expose().trim().as_bytes()]);
    let candidates = || {
        open.iter().filter(|t| t.used_at.is_none() && now < t.code_expires_at && t.tries < policy.code_tries)
    };
    let mut right = None;
    // All are compared, so that the time does not tell which came close.
    for token in candidates() {
        if digest(&[code_of(keys, token.id).expose().as_bytes()]).same_as(&typed) {
            right = right.or(Some(token));
        }
    }
    match right {
        Some(token) => Guess::Right(token),
        None => Guess::Wrong(
            candidates().map(|t| AccountChange::CountTry { id: t.id, tries: t.tries }.into()).collect(),
        ),
    }
}

/// A sign-up's code or link was confirmed: the account comes into being.
///
/// # Errors
/// [`Refusal::InvalidToken`] when the address got an account meanwhile.
pub fn confirm_sign_up(
    token: &Token,
    existing: Option<&Account>,
    password: Option<PasswordHash>,
    session: Session,
    now: Timestamp,
) -> Result<(Account, Vec<Change>), Refusal> {
    let (None, Some(display_name)) = (existing, token.display_name.clone()) else {
        return Err(Refusal::InvalidToken);
    };
    let account = Account {
        id: session.account,
        email: token.email.clone(),
        display_name,
        locale: token.locale.clone(),
        time_zone: None,
        birthday: None,
        password,
        created_at: now,
        deletion_due: None,
        version: 0,
    };
    let changes = vec![
        redeem(token, now),
        end_tokens(TokenKind::SignUp, &token.email, now),
        AccountChange::Insert(account.clone()).into(),
        AccountChange::InsertSession { session, version: account.version }.into(),
    ];
    Ok((account, changes))
}

/// Somebody proved who they are: a session begins, and an asked-for deletion is called off.
///
/// # Errors
/// [`Refusal::InvalidCredentials`] once the deletion is due: what is being purged cannot come back by halves.
pub fn sign_in(
    account: &Account,
    rehashed: Option<PasswordHash>,
    redeemed: Option<&Token>,
    session: Session,
    now: Timestamp,
) -> Result<(Account, Vec<Change>), Refusal> {
    if account.deletion_due.is_some_and(|due| due <= now) {
        return Err(Refusal::InvalidCredentials);
    }
    let mut changes = Vec::new();
    if let Some(token) = redeemed {
        changes.push(redeem(token, now));
        changes.push(end_tokens(token.kind, &token.email, now));
    }
    let mut account = account.clone();
    if rehashed.is_some() || account.deletion_due.is_some() {
        account.password = rehashed.or(account.password);
        account.deletion_due = None;
        changes.push(AccountChange::Update(account.clone()).into());
        account.version += 1;
    }
    changes.push(AccountChange::InsertSession { session, version: account.version }.into());
    Ok((account, changes))
}

/// A password is set: what was signed in is signed out, and mailed ways around it end.
#[must_use]
pub fn set_password(
    account: &Account,
    password: PasswordHash,
    redeemed: Option<&Token>,
    replacement: Option<Session>,
    now: Timestamp,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(token) = redeemed {
        changes.push(redeem(token, now));
    }
    // A change of address that somebody else asked for must not outlive this either.
    changes.push(end_tokens_of(TokenKind::Email, account, now));
    changes.push(end_tokens(TokenKind::Password, &account.email, now));
    changes.push(end_tokens(TokenKind::SignIn, &account.email, now));
    changes.push(AccountChange::Update(Account { password: Some(password), ..account.clone() }).into());
    changes.push(AccountChange::EndSessions { account: account.id, except: None }.into());
    if let Some(session) = replacement {
        changes.push(AccountChange::InsertSession { session, version: account.version + 1 }.into());
    }
    changes
}

/// A new address was confirmed: it replaces the old one, and what was mailed to the old one ends.
#[must_use]
pub fn confirm_email(account: &Account, token: &Token, now: Timestamp) -> Vec<Change> {
    vec![
        redeem(token, now),
        end_tokens_of(TokenKind::Email, account, now),
        // Invites by address say that they come from the old one.
        PairingChange::WithdrawInvitesOf { inviter: account.id }.into(),
        end_tokens(TokenKind::SignIn, &account.email, now),
        end_tokens(TokenKind::Password, &account.email, now),
        AccountChange::Update(Account { email: token.email.clone(), ..account.clone() }).into(),
    ]
}

/// Whether a session's person proved themselves lately enough for what cannot be undone.
///
/// # Errors
/// [`Refusal::RecentSignInRequired`].
pub fn require_recent(session: &Session, policy: &Policy, now: Timestamp) -> Result<(), Refusal> {
    if now < session.authenticated_at.plus(policy.recent) {
        Ok(())
    } else {
        Err(Refusal::RecentSignInRequired)
    }
}

/// An account asks to be deleted: everything that could still change it ends.
#[must_use]
pub fn request_deletion(account: &Account, due: Timestamp, now: Timestamp) -> Vec<Change> {
    vec![
        // Before the account's row, as every commit locks them.
        PairingChange::WithdrawInvitesOf { inviter: account.id }.into(),
        AccountChange::Update(Account { deletion_due: Some(due), ..account.clone() }).into(),
        AccountChange::EndSessions { account: account.id, except: None }.into(),
        end_tokens_of(TokenKind::Email, account, now),
    ]
}

fn redeem(token: &Token, at: Timestamp) -> Change {
    AccountChange::RedeemToken { id: token.id, tries: token.tries, at }.into()
}

fn end_tokens_of(kind: TokenKind, account: &Account, at: Timestamp) -> Change {
    AccountChange::EndTokensOf { account: account.id, kind, at }.into()
}

fn end_tokens(kind: TokenKind, email: &EmailAddress, at: Timestamp) -> Change {
    AccountChange::EndTokens { kind, email: email.key().clone(), at }.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ManualClock, SeededEntropy};

    fn mailed(kind: TokenKind) -> (Keyring, Token) {
        let keys = Keyring::new([3; 32]);
        let clock = ManualClock::default();
        let email = EmailAddress::parse("email", "ana@example.org").unwrap();
        let mailing = Mailing {
            id: TokenId::new(&clock, &SeededEntropy::new(1)),
            kind,
            email: &email,
            account: None,
            display_name: None,
            locale: None,
        };
        (keys.clone(), mailing.token(&keys, &Policy::default(), Timestamp::default()))
    }

    #[test]
    fn a_code_lasts_ten_minutes_and_five_tries() {
        let (keys, mut token) = mailed(TokenKind::SignIn);
        let policy = Policy::default();
        let code = code_of(&keys, token.id);
        let at = |s| Timestamp::default().plus(Duration::from_secs(s));
        let right = |token: &Token, now| {
            matches!(guess(&keys, std::slice::from_ref(token), &code, &policy, now), Guess::Right(_))
        };
        assert!(right(&token, at(599)));
        assert!(!right(&token, at(600)));
        token.tries = 4;
        assert!(right(&token, at(0)));
        token.tries = 5;
        assert!(!right(&token, at(0)));
    }

    #[test]
    fn a_wrong_code_costs_each_open_token_a_try() {
        let (keys, token) = mailed(TokenKind::SignIn);
        let open = [token.clone(), Token { tries: 3, ..token }];
        let Guess::Wrong(changes) =
            guess(&keys, &open, &Secret::new(String::new()), &Policy::default(), Timestamp::default())
        else {
            panic!("an empty code matched");
        };
        assert_eq!(changes.len(), 2);
    }

    #[test]
    fn kinds_are_kept_apart() {
        let (keys, token) = mailed(TokenKind::SignIn);
        assert!(is_usable(&token, TokenKind::SignIn, Timestamp::default()));
        assert!(!is_usable(&token, TokenKind::Password, Timestamp::default()));
        assert_ne!(
            link_of(&keys, TokenKind::SignIn, token.id).expose(),
            link_of(&keys, TokenKind::Password, token.id).expose()
        );
    }
}
