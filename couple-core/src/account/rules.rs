//! Decisions of accounts: pure functions of the state, the command, the time and random bytes.

use std::time::Duration;

use super::{
    Account, AccountChange, AccountError, AccountPolicy, PasswordHash, ProofForm, SeenToken, Session, Token,
    TokenKind, Tries,
};
use crate::{
    AccountId, Change, Digest, DisplayName, EmailAddress, Invalid, Keyring, Locale, Secret, SessionId,
    Timestamp, TokenId, digest, pairing::PairingChange, typed_text,
};

/// Purpose under which codes are derived from the key ring.
const CODE_PURPOSE: &str = "mailed-code";

/// 6-digit code of a token.
#[must_use]
pub fn code_of(keys: &Keyring, token: TokenId) -> Secret<String> {
    keys.six_digits(CODE_PURPOSE, &[token.as_uuid().as_bytes()])
}

/// Normalises a typed code: removes spaces and dashes, and folds digits of other scripts to ASCII.
///
/// # Errors
/// [`Invalid`] for a text other than six digits, which does not count as an attempt.
pub fn typed_code(code: &Secret<String>) -> Result<Secret<String>, Invalid> {
    typed_text::digits(code.expose(), 6).map(Secret::new).ok_or(Invalid::new("code", "invalid"))
}

/// Link token of a token: its kind as a prefix, and 192 bits.
#[must_use]
pub fn link_of(keys: &Keyring, kind: TokenKind, token: TokenId) -> Secret<String> {
    keys.bearer(kind.as_str(), &[token.as_uuid().as_bytes()])
}

/// Lifetime of the mailed link of a token.
#[must_use]
pub const fn link_lifetime(kind: TokenKind, policy: &AccountPolicy) -> Duration {
    match kind {
        TokenKind::SignUp | TokenKind::Email => policy.link_lifetime,
        TokenKind::SignIn | TokenKind::Password => policy.password_link_lifetime,
        // Longest lifetime of the tokens of the change, including one that its job creates late.
        TokenKind::CancelEmail => policy.link_lifetime.saturating_mul(2),
    }
}

/// Data for a new token.
pub struct NewToken<'a> {
    /// Id from which code and link are derived.
    pub id: TokenId,
    /// Purpose of the token.
    pub kind: TokenKind,
    /// Recipient.
    pub email: &'a EmailAddress,
    /// Account of the token, if any.
    pub account: Option<AccountId>,
    /// Display name of the sign-up.
    pub display_name: Option<DisplayName>,
    /// Locale of the sign-up.
    pub locale: Option<Locale>,
    /// Session that requested the mail.
    pub session: Option<SessionId>,
    /// Client network that requested the mail, as a keyed digest.
    pub network: Option<Digest>,
}

impl NewToken<'_> {
    /// Row of the token at `now`.
    #[must_use]
    pub fn token(self, keys: &Keyring, policy: &AccountPolicy, now: Timestamp) -> Token {
        Token {
            id: self.id,
            kind: self.kind,
            email: self.email.clone(),
            account: self.account,
            link: digest(&[link_of(keys, self.kind, self.id).expose().as_bytes()]),
            session: self.session,
            network: self.network,
            tries: 0,
            foreign_tries: 0,
            used_form: None,
            display_name: self.display_name,
            locale: self.locale,
            created_at: now,
            code_expires_at: now.plus(policy.code_lifetime),
            expires_at: now.plus(link_lifetime(self.kind, policy)),
            used_at: None,
        }
    }
}

/// Whether a form of a token can be used now.
///
/// After one form was used, the other can be used until the code expires: both are in the same mail, so a
/// client that has one has both.
fn is_form_open(token: &Token, form: ProofForm, now: Timestamp) -> bool {
    let end = match (form, token.used_form) {
        (ProofForm::Link, None) => token.expires_at,
        (ProofForm::Code, _) | (ProofForm::Link, Some(_)) => token.code_expires_at,
    };
    token.used_at.is_none() && token.used_form != Some(form) && now < end
}

/// Checks that a token which was found by its link can still be used for `kind`.
///
/// # Errors
/// [`AccountError::UsedToken`] if the link was used, else `otherwise`.
pub fn require_link(
    token: Option<Token>,
    kind: TokenKind,
    now: Timestamp,
    otherwise: &AccountError,
) -> Result<Token, AccountError> {
    match token.filter(|token| token.kind == kind) {
        Some(token) if is_form_open(&token, ProofForm::Link, now) => Ok(token),
        Some(token) if token.used_at.is_some() || token.used_form.is_some() => Err(AccountError::UsedToken),
        _ => Err(otherwise.clone()),
    }
}

/// Token that a client presented, and the form that it presented.
#[derive(Debug, Clone)]
pub struct PresentedToken {
    /// Token as it was read.
    pub token: Token,
    /// Form that the client presented.
    pub form: ProofForm,
    /// Number of wrong codes as it was read, of the group that the client belongs to; none for a link.
    pub tries: Option<Tries>,
}

impl PresentedToken {
    /// Token that was presented by its link.
    #[must_use]
    pub const fn link(token: Token) -> Self {
        Self { token, form: ProofForm::Link, tries: None }
    }
    /// State that the token must still have when it is used.
    const fn seen(&self) -> SeenToken {
        SeenToken { tries: self.tries, used_form: self.token.used_form }
    }
    /// Whether the other form of the token was used before.
    #[must_use]
    pub const fn is_second(&self) -> bool {
        self.token.used_form.is_some()
    }
    /// Change that marks the whole token as used.
    fn redeem(&self, at: Timestamp) -> Change {
        AccountChange::RedeemToken { id: self.token.id, seen: self.seen(), at }.into()
    }
    /// Change that marks the presented form as used. The other form, if unused, can then sign in `account`.
    fn redeem_form(&self, account: AccountId, at: Timestamp) -> Change {
        if self.is_second() {
            return self.redeem(at);
        }
        AccountChange::RedeemForm { id: self.token.id, seen: self.seen(), form: self.form, account }.into()
    }
    /// Change that ends the other tokens of the same kind and address.
    ///
    /// It also ends this token if both of its forms are used.
    fn end_others(&self, at: Timestamp) -> Change {
        let except = (!self.is_second()).then_some(self.token.id);
        AccountChange::EndTokens { kind: self.token.kind, email: self.token.email.key().clone(), except, at }
            .into()
    }
}

/// Compares a typed code with every open token of an address.
///
/// A second mail thus keeps the first one valid.
///
/// Wrong codes from the network that requested a token and from all other networks have separate limits:
/// strangers cannot use up the attempts of the client that requested the mail.
#[must_use]
pub fn match_code(
    keys: &Keyring,
    open: &[Token],
    code: &Secret<String>,
    network: &Digest,
    policy: &AccountPolicy,
    now: Timestamp,
) -> Option<PresentedToken> {
    let typed = digest(&[code.expose().as_bytes()]);
    let mut right = None;
    // Compare all tokens, so that the time does not reveal which one matched.
    for token in open.iter().filter(|token| is_form_open(token, ProofForm::Code, now)) {
        let (tries, count) = if token.network.as_ref() == Some(network) {
            (Tries::Own(token.tries), token.tries)
        } else {
            (Tries::Foreign(token.foreign_tries), token.foreign_tries)
        };
        let same = digest(&[code_of(keys, token.id).expose().as_bytes()]).same_as(&typed);
        if same && count < policy.code_tries && right.is_none() {
            right = Some(PresentedToken { token: token.clone(), form: ProofForm::Code, tries: Some(tries) });
        }
    }
    right
}

/// Fields given at verification by the owner of the address; they override those of the sign-up.
#[derive(Debug, Clone, Default)]
pub struct VerifiedFields {
    /// Display name, if given.
    pub display_name: Option<DisplayName>,
    /// Locale, if given.
    pub locale: Option<Locale>,
}

/// Creates the account after a code or link of a sign-up was confirmed.
///
/// # Errors
/// [`AccountError::InvalidToken`] if the address has an account by now.
pub fn confirm_sign_up(
    presented: &PresentedToken,
    existing: Option<&Account>,
    fields: VerifiedFields,
    password: Option<PasswordHash>,
    session: Session,
    now: Timestamp,
) -> Result<(Account, Vec<Change>), AccountError> {
    let token = &presented.token;
    let (None, false, Some(signed_up)) = (existing, presented.is_second(), token.display_name.clone()) else {
        return Err(AccountError::InvalidToken);
    };
    let display_name = fields.display_name.unwrap_or(signed_up);
    let account = Account {
        id: session.account,
        email: token.email.clone(),
        display_name,
        locale: fields.locale.or_else(|| token.locale.clone()),
        time_zone: None,
        birthday: None,
        password,
        created_at: now,
        deletion_due: None,
        version: 0,
    };
    let changes = vec![
        presented.redeem_form(account.id, now),
        presented.end_others(now),
        AccountChange::Insert(account.clone()).into(),
        AccountChange::InsertSession { session, version: account.version }.into(),
    ];
    Ok((account, changes))
}

/// Adds a session after a proof of identity, and withdraws a deletion request.
///
/// # Errors
/// [`AccountError::InvalidCredentials`] if the deletion is due: an account that is being purged cannot be
/// restored.
pub fn sign_in(
    account: &Account,
    rehashed: Option<PasswordHash>,
    presented: Option<&PresentedToken>,
    session: Session,
    now: Timestamp,
) -> Result<(Account, Vec<Change>), AccountError> {
    if account.deletion_due.is_some_and(|due| due <= now) {
        return Err(AccountError::InvalidCredentials);
    }
    let mut changes = Vec::new();
    if let Some(presented) = presented {
        changes.push(presented.redeem_form(account.id, now));
        changes.push(presented.end_others(now));
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

/// Sets a password; ends all sessions, open sign-in and password tokens, and pending address changes.
#[must_use]
pub fn set_password(
    account: &Account,
    password: PasswordHash,
    presented: Option<&PresentedToken>,
    replacement: Option<Session>,
    now: Timestamp,
) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(presented.map(|presented| presented.redeem(now)));
    // Also end changes of address, which an attacker may have requested.
    changes.extend(end_email_changes(account, now));
    // Also ends the unused form of the token that confirmed the sign-up.
    changes.push(end_tokens(TokenKind::SignUp, &account.email, now));
    changes.push(end_tokens(TokenKind::Password, &account.email, now));
    changes.push(end_tokens(TokenKind::SignIn, &account.email, now));
    changes.push(AccountChange::Update(Account { password: Some(password), ..account.clone() }).into());
    changes.push(AccountChange::EndSessions { account: account.id, except: None }.into());
    if let Some(session) = replacement {
        changes.push(AccountChange::InsertSession { session, version: account.version + 1 }.into());
    }
    changes
}

/// Replaces the address after confirmation, and ends tokens that were mailed to the old address.
#[must_use]
pub fn confirm_email(account: &Account, presented: &PresentedToken, now: Timestamp) -> Vec<Change> {
    vec![
        presented.redeem_form(account.id, now),
        AccountChange::EndTokensOf {
            account: account.id,
            kind: TokenKind::Email,
            except: Some(presented.token.id),
            at: now,
        }
        .into(),
        end_tokens_of(TokenKind::CancelEmail, account, now),
        // Withdraw invites, because they name the old address as the sender's.
        PairingChange::WithdrawInvitesOf { inviter: account.id }.into(),
        end_tokens(TokenKind::SignUp, &account.email, now),
        end_tokens(TokenKind::SignIn, &account.email, now),
        end_tokens(TokenKind::Password, &account.email, now),
        AccountChange::Update(Account { email: presented.token.email.clone(), ..account.clone() }).into(),
    ]
}

/// Redeems the second form of a token that has confirmed a new address. Changes nothing else.
#[must_use]
pub fn confirm_email_again(presented: &PresentedToken, now: Timestamp) -> Vec<Change> {
    vec![presented.redeem(now)]
}

/// Cancels all pending changes of address, for the owner of the old address.
#[must_use]
pub fn cancel_email(account: &Account, presented: &PresentedToken, now: Timestamp) -> Vec<Change> {
    let redeem = std::iter::once(presented.redeem(now));
    redeem.chain(end_email_changes(account, now)).collect()
}

/// Checks that the session's last proof of identity is recent enough for what cannot be undone.
///
/// # Errors
/// [`AccountError::RecentSignInRequired`].
pub fn require_recent(session: &Session, policy: &AccountPolicy, now: Timestamp) -> Result<(), AccountError> {
    if now < session.authenticated_at.plus(policy.recent_sign_in_time) {
        Ok(())
    } else {
        Err(AccountError::RecentSignInRequired)
    }
}

/// Schedules the deletion of an account; ends sessions, sign-up tokens, invites and address changes.
#[must_use]
pub fn request_deletion(account: &Account, due: Timestamp, now: Timestamp) -> Vec<Change> {
    let mut changes = vec![
        // Lock the rows of invites before the row of the account: every commit uses this order.
        PairingChange::WithdrawInvitesOf { inviter: account.id }.into(),
        AccountChange::Update(Account { deletion_due: Some(due), ..account.clone() }).into(),
        AccountChange::EndSessions { account: account.id, except: None }.into(),
        end_tokens(TokenKind::SignUp, &account.email, now),
    ];
    changes.extend(end_email_changes(account, now));
    changes
}

/// Changes that end pending changes of address and the links that cancel them.
fn end_email_changes(account: &Account, at: Timestamp) -> [Change; 2] {
    [TokenKind::Email, TokenKind::CancelEmail].map(|kind| end_tokens_of(kind, account, at))
}

fn end_tokens_of(kind: TokenKind, account: &Account, at: Timestamp) -> Change {
    AccountChange::EndTokensOf { account: account.id, kind, except: None, at }.into()
}

fn end_tokens(kind: TokenKind, email: &EmailAddress, at: Timestamp) -> Change {
    AccountChange::EndTokens { kind, email: email.key().clone(), except: None, at }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, SeededEntropy};

    fn mailed(kind: TokenKind) -> (Keyring, Token) {
        let keys = Keyring::new([3; 32]);
        let clock = ManualClock::default();
        let email = EmailAddress::parse("email", "ana@example.org").unwrap();
        let new_token = NewToken {
            id: TokenId::new(&clock, &SeededEntropy::new(1)),
            kind,
            email: &email,
            account: None,
            display_name: None,
            locale: None,
            session: None,
            network: Some(digest(&[b"own"])),
        };
        (keys.clone(), new_token.token(&keys, &AccountPolicy::default(), Timestamp::default()))
    }

    #[test]
    fn code_expires_after_ten_minutes_and_five_attempts() {
        let (keys, mut token) = mailed(TokenKind::SignIn);
        let policy = AccountPolicy::default();
        let code = code_of(&keys, token.id);
        let at = |s| Timestamp::default().plus(Duration::from_secs(s));
        let own = digest(&[b"own"]);
        let right = |token: &Token, now| {
            match_code(&keys, std::slice::from_ref(token), &code, &own, &policy, now).is_some()
        };
        assert!(right(&token, at(599)));
        assert!(!right(&token, at(600)));
        token.tries = 4;
        assert!(right(&token, at(0)));
        token.tries = 5;
        assert!(!right(&token, at(0)));
    }

    #[test]
    fn attempts_of_other_networks_are_counted_separately() {
        let (keys, mut token) = mailed(TokenKind::SignIn);
        let code = code_of(&keys, token.id);
        let right = |token: &Token, network: &[u8]| {
            let open = std::slice::from_ref(token);
            let network = digest(&[network]);
            match_code(&keys, open, &code, &network, &AccountPolicy::default(), Timestamp::default())
                .is_some()
        };
        token.foreign_tries = 5;
        assert!(right(&token, b"own"));
        assert!(!right(&token, b"foreign"));
        (token.tries, token.foreign_tries) = (5, 4);
        assert!(!right(&token, b"own"));
        assert!(right(&token, b"foreign"));
    }

    #[test]
    fn second_form_is_usable_while_the_code_lasts() {
        let (keys, token) = mailed(TokenKind::SignIn);
        let (code, own) = (code_of(&keys, token.id), digest(&[b"own"]));
        let at = |s| Timestamp::default().plus(Duration::from_secs(s));
        let by_link = Token { used_form: Some(ProofForm::Link), ..token.clone() };
        let by_code = Token { used_form: Some(ProofForm::Code), ..token };
        let code_works = |token: &Token, now| {
            match_code(&keys, std::slice::from_ref(token), &code, &own, &AccountPolicy::default(), now)
                .is_some()
        };
        let link_works = |token: &Token, now| {
            require_link(Some(token.clone()), TokenKind::SignIn, now, &AccountError::InvalidToken).is_ok()
        };
        assert!(code_works(&by_link, at(599)) && !code_works(&by_link, at(600)));
        assert!(link_works(&by_code, at(599)) && !link_works(&by_code, at(600)));
        assert!(!code_works(&by_code, at(0)) && !link_works(&by_link, at(0)));
    }

    #[test]
    fn token_of_one_kind_is_refused_as_another_kind() {
        let (keys, token) = mailed(TokenKind::SignIn);
        let link =
            |kind| require_link(Some(token.clone()), kind, Timestamp::default(), &AccountError::InvalidToken);
        assert!(link(TokenKind::SignIn).is_ok());
        assert!(matches!(link(TokenKind::Password), Err(AccountError::InvalidToken)));
        assert_ne!(
            link_of(&keys, TokenKind::SignIn, token.id).expose(),
            link_of(&keys, TokenKind::Password, token.id).expose()
        );
    }

    fn account() -> Account {
        Account {
            id: AccountId::new(&ManualClock::default(), &SeededEntropy::new(2)),
            email: EmailAddress::parse("email", "ana@example.org").unwrap(),
            display_name: DisplayName::parse("display_name", "Ana").unwrap(),
            locale: None,
            time_zone: None,
            birthday: None,
            password: None,
            created_at: at(0),
            deletion_due: None,
            version: 3,
        }
    }

    fn session(account: AccountId) -> Session {
        Session {
            id: SessionId::new(&ManualClock::default(), &SeededEntropy::new(3)),
            account,
            token: digest(&[b"token"]),
            device: None,
            created_at: at(0),
            authenticated_at: at(0),
            seen_at: at(0),
            expires_at: at(999_999),
            widget_token: None,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(seconds))
    }

    fn hash(text: &str) -> PasswordHash {
        PasswordHash::from_stored(text)
    }

    #[test]
    fn codes_and_links_are_derived_from_the_id_of_the_token() {
        let (keys, token) = mailed(TokenKind::Password);
        let other = TokenId::new(&ManualClock::default(), &SeededEntropy::new(9));
        let (code, link) = (code_of(&keys, token.id), link_of(&keys, token.kind, token.id));
        assert!(code.expose().len() == 6 && code.expose().bytes().all(|b| b.is_ascii_digit()));
        // 24 bytes in Base64.
        assert!(link.expose().starts_with("reset_") && link.expose().len() == "reset_".len() + 32);
        assert_ne!(code.expose(), code_of(&keys, other).expose());
        assert_ne!(link.expose(), link_of(&keys, token.kind, other).expose());
        assert_ne!(link.expose(), link_of(&Keyring::new([4; 32]), token.kind, token.id).expose());
        assert_eq!(token.link, digest(&[link.expose().as_bytes()]));
        let typed = |text: &str| typed_code(&Secret::new(text.to_owned())).map(|code| code.expose().clone());
        assert_eq!(typed(" 012-345 "), Ok("012345".to_owned()));
        assert_eq!(typed("01234"), Err(Invalid::new("code", "invalid")));
    }

    #[test]
    fn links_of_each_kind_last_as_long_as_the_policy_says() {
        for (kind, seconds) in [
            (TokenKind::SignUp, 24 * 3_600),
            (TokenKind::Email, 24 * 3_600),
            (TokenKind::SignIn, 3_600),
            (TokenKind::Password, 3_600),
            (TokenKind::CancelEmail, 48 * 3_600),
        ] {
            let (_, token) = mailed(kind);
            assert_eq!((token.code_expires_at, token.expires_at), (at(600), at(seconds)), "{kind:?}");
            let link = |now| require_link(Some(token.clone()), kind, now, &AccountError::InvalidToken);
            assert!(link(at(seconds - 1)).is_ok(), "{kind:?}");
            assert!(matches!(link(at(seconds)), Err(AccountError::InvalidToken)), "{kind:?}");
        }
    }

    #[test]
    fn used_link_is_distinguished_from_an_unknown_and_from_an_expired_one() {
        let (keys, token) = mailed(TokenKind::SignIn);
        let link = |token: Option<Token>, now| {
            require_link(token, TokenKind::SignIn, now, &AccountError::InvalidCredentials).map(drop)
        };
        let is_used =
            |token: &Token, now| matches!(link(Some(token.clone()), now), Err(AccountError::UsedToken));
        let used = Token { used_at: Some(at(1)), ..token.clone() };
        let by_link = Token { used_form: Some(ProofForm::Link), ..token.clone() };
        assert!(is_used(&used, at(2)) && is_used(&by_link, at(2)));
        assert!(is_used(&used, at(9_999)) && is_used(&by_link, at(9_999)));
        assert!(matches!(link(None, at(2)), Err(AccountError::InvalidCredentials)));
        assert!(matches!(link(Some(token), at(9_999)), Err(AccountError::InvalidCredentials)));
        let (code, own) = (code_of(&keys, used.id), digest(&[b"own"]));
        let matched = match_code(&keys, &[used], &code, &own, &AccountPolicy::default(), at(2));
        assert!(matched.is_none(), "the code of a used token");
    }

    #[test]
    fn right_code_proves_the_token_that_it_was_mailed_with() {
        let (keys, one) = mailed(TokenKind::SignIn);
        let id = TokenId::new(&ManualClock::default(), &SeededEntropy::new(9));
        let two = Token { id, tries: 2, foreign_tries: 1, ..one.clone() };
        let open = [one.clone(), two.clone()];
        let prove = |code: &Secret<String>, network: &[u8]| {
            match_code(&keys, &open, code, &digest(&[network]), &AccountPolicy::default(), at(0))
        };
        let own = prove(&code_of(&keys, two.id), b"own").unwrap();
        assert_eq!((own.token.id, own.form, own.tries), (two.id, ProofForm::Code, Some(Tries::Own(2))));
        let foreign = prove(&code_of(&keys, two.id), b"foreign").unwrap();
        assert_eq!((foreign.token.id, foreign.tries), (two.id, Some(Tries::Foreign(1))));
        assert_eq!(prove(&code_of(&keys, one.id), b"own").unwrap().token.id, one.id);
        assert!(prove(&Secret::new("nonsense".to_owned()), b"own").is_none());
    }

    #[test]
    fn confirmed_sign_up_adds_the_account_and_keeps_the_other_form_of_its_token() {
        let (_, token) = mailed(TokenKind::SignUp);
        let named = Token {
            display_name: Some(DisplayName::parse("display_name", "Typed").unwrap()),
            locale: Some(Locale::matched("de").unwrap()),
            ..token
        };
        let session = session(account().id);
        let confirm = |presented: &PresentedToken, existing: Option<&Account>, fields: VerifiedFields| {
            confirm_sign_up(presented, existing, fields, Some(hash("h")), session.clone(), at(5))
        };
        let presented = PresentedToken::link(named.clone());
        let (added, changes) = confirm(&presented, None, VerifiedFields::default()).unwrap();
        let expected = Account {
            display_name: named.display_name.clone().unwrap(),
            locale: named.locale.clone(),
            password: Some(hash("h")),
            created_at: at(5),
            version: 0,
            ..account()
        };
        assert_eq!(added, expected);
        let seen = SeenToken { tries: None, used_form: None };
        let (id, email) = (named.id, named.email.key().clone());
        let redeem = AccountChange::RedeemForm { id, seen, form: ProofForm::Link, account: added.id };
        let end = AccountChange::EndTokens { kind: TokenKind::SignUp, email, except: Some(id), at: at(5) };
        let insert = AccountChange::InsertSession { session: session.clone(), version: 0 };
        assert_eq!(
            changes,
            [redeem.into(), end.into(), AccountChange::Insert(expected).into(), insert.into()]
        );
        let fields = VerifiedFields {
            display_name: Some(DisplayName::parse("display_name", "Chosen").unwrap()),
            locale: Some(Locale::matched("fr").unwrap()),
        };
        let (added, _) = confirm(&presented, None, fields.clone()).unwrap();
        assert_eq!((Some(added.display_name), added.locale), (fields.display_name, fields.locale));
        let refused = |presented: &PresentedToken, existing: Option<&Account>| {
            matches!(confirm(presented, existing, VerifiedFields::default()), Err(AccountError::InvalidToken))
        };
        assert!(refused(&presented, Some(&account())), "the address has an account by now");
        let second = Token { used_form: Some(ProofForm::Code), ..named };
        assert!(refused(&PresentedToken::link(second), None), "the second form signs in");
    }

    #[test]
    fn sign_in_withdraws_a_deletion_that_is_not_due() {
        let plain = account();
        let new = session(plain.id);
        let inserted = |version| AccountChange::InsertSession { session: new.clone(), version }.into();
        let (after, changes) = sign_in(&plain, None, None, new.clone(), at(9)).unwrap();
        assert_eq!((after, changes), (plain.clone(), vec![inserted(3)]), "nothing else changes");
        let leaving = Account { deletion_due: Some(at(10)), password: Some(hash("old")), ..plain.clone() };
        let (after, changes) = sign_in(&leaving, None, None, new.clone(), at(9)).unwrap();
        let stays = Account { deletion_due: None, ..leaving.clone() };
        assert_eq!(after, Account { version: 4, ..stays.clone() });
        assert_eq!(changes, [AccountChange::Update(stays).into(), inserted(4)]);
        let late = sign_in(&leaving, None, None, new.clone(), at(10));
        assert!(matches!(late, Err(AccountError::InvalidCredentials)), "the deletion is due");
        let (after, changes) = sign_in(&plain, Some(hash("new")), None, new.clone(), at(9)).unwrap();
        let rehashed = Account { password: Some(hash("new")), ..plain };
        assert_eq!(after, Account { version: 4, ..rehashed.clone() });
        assert_eq!(changes, [AccountChange::Update(rehashed).into(), inserted(4)]);
    }

    #[test]
    fn sign_in_by_the_second_form_uses_up_the_token() {
        let (_, token) = mailed(TokenKind::SignIn);
        let (id, email) = (token.id, token.email.key().clone());
        let changes = |presented: &PresentedToken| {
            let mut changes =
                sign_in(&account(), None, Some(presented), session(account().id), at(9)).unwrap().1;
            changes.truncate(2);
            changes
        };
        let end =
            |except| AccountChange::EndTokens { kind: token.kind, email: email.clone(), except, at: at(9) };
        let first =
            PresentedToken { token: token.clone(), form: ProofForm::Code, tries: Some(Tries::Foreign(2)) };
        let seen = SeenToken { tries: Some(Tries::Foreign(2)), used_form: None };
        let redeem = AccountChange::RedeemForm { id, seen, form: ProofForm::Code, account: account().id };
        assert!(!first.is_second());
        assert_eq!(changes(&first), [redeem.into(), end(Some(id)).into()]);
        let used = Token { used_form: Some(ProofForm::Code), ..token.clone() };
        let second = PresentedToken::link(used);
        let seen = SeenToken { tries: None, used_form: Some(ProofForm::Code) };
        let redeem = AccountChange::RedeemToken { id, seen, at: at(9) };
        assert!(second.is_second());
        assert_eq!(changes(&second), [redeem.into(), end(None).into()]);
    }

    fn ended(kind: TokenKind) -> Change {
        AccountChange::EndTokens { kind, email: account().email.key().clone(), except: None, at: at(9) }
            .into()
    }

    fn ended_of(kind: TokenKind) -> Change {
        AccountChange::EndTokensOf { account: account().id, kind, except: None, at: at(9) }.into()
    }

    fn redeemed(token: &Token) -> Change {
        let seen = SeenToken { tries: None, used_form: token.used_form };
        AccountChange::RedeemToken { id: token.id, seen, at: at(9) }.into()
    }

    fn all_sessions_end() -> Change {
        AccountChange::EndSessions { account: account().id, except: None }.into()
    }

    #[test]
    fn new_password_ends_sessions_tokens_and_changes_of_address() {
        let (_, token) = mailed(TokenKind::Password);
        let new = session(account().id);
        let common = [
            ended_of(TokenKind::Email),
            ended_of(TokenKind::CancelEmail),
            ended(TokenKind::SignUp),
            ended(TokenKind::Password),
            ended(TokenKind::SignIn),
            AccountChange::Update(Account { password: Some(hash("p")), ..account() }).into(),
            all_sessions_end(),
        ];
        assert_eq!(set_password(&account(), hash("p"), None, None, at(9)), common);
        let presented = PresentedToken::link(token.clone());
        let changes = set_password(&account(), hash("p"), Some(&presented), Some(new.clone()), at(9));
        let mut expected = vec![redeemed(&token)];
        expected.extend(common);
        expected.push(AccountChange::InsertSession { session: new, version: 4 }.into());
        assert_eq!(changes, expected);
    }

    #[test]
    fn confirmed_address_replaces_the_old_one_and_ends_what_was_mailed_to_it() {
        let (_, token) = mailed(TokenKind::Email);
        let email = EmailAddress::parse("email", "new@example.org").unwrap();
        let token = Token { email: email.clone(), ..token };
        let presented = PresentedToken::link(token.clone());
        let (account_id, seen) = (account().id, SeenToken { tries: None, used_form: None });
        let redeem =
            AccountChange::RedeemForm { id: token.id, seen, form: ProofForm::Link, account: account_id };
        let others = AccountChange::EndTokensOf {
            account: account_id,
            kind: TokenKind::Email,
            except: Some(token.id),
            at: at(9),
        };
        assert_eq!(
            confirm_email(&account(), &presented, at(9)),
            [
                redeem.into(),
                others.into(),
                ended_of(TokenKind::CancelEmail),
                PairingChange::WithdrawInvitesOf { inviter: account_id }.into(),
                ended(TokenKind::SignUp),
                ended(TokenKind::SignIn),
                ended(TokenKind::Password),
                AccountChange::Update(Account { email, ..account() }).into(),
            ]
        );
        assert_eq!(confirm_email_again(&presented, at(9)), [redeemed(&token)]);
    }

    #[test]
    fn owner_of_the_old_address_cancels_all_pending_changes() {
        let (_, token) = mailed(TokenKind::CancelEmail);
        assert_eq!(
            cancel_email(&account(), &PresentedToken::link(token.clone()), at(9)),
            [redeemed(&token), ended_of(TokenKind::Email), ended_of(TokenKind::CancelEmail)]
        );
    }

    #[test]
    fn requested_deletion_ends_sessions_invites_and_pending_tokens() {
        assert_eq!(
            request_deletion(&account(), at(99), at(9)),
            [
                PairingChange::WithdrawInvitesOf { inviter: account().id }.into(),
                AccountChange::Update(Account { deletion_due: Some(at(99)), ..account() }).into(),
                all_sessions_end(),
                ended(TokenKind::SignUp),
                ended_of(TokenKind::Email),
                ended_of(TokenKind::CancelEmail),
            ]
        );
    }

    #[test]
    fn proof_of_identity_is_recent_for_ten_minutes() {
        let session = Session { authenticated_at: at(100), ..session(account().id) };
        let recent = |now| require_recent(&session, &AccountPolicy::default(), now);
        assert!(recent(at(100)).is_ok() && recent(at(699)).is_ok());
        assert!(matches!(recent(at(700)), Err(AccountError::RecentSignInRequired)));
    }
}
