//! Accounts, mailed tokens and sessions in memory.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use couple_core::{
    AccountId, ChangeResult, Conflict, Digest, DisplayName, EmailAddress, EmailKey, Error, Label, Locale,
    SessionId, TimeZoneName, Timestamp, TokenId,
    account::{
        Account, AccountChange, AccountReads, PasswordHash, ProofForm, SeenToken, Session, SessionToken,
        Tally, TallyId, Token, TokenKind, Tries,
    },
    pairing::Couple,
};

use super::{
    FaultyStore, MAX, NIL, column::column, device::DeviceTables, notification::NotificationTables,
    system_time, table::Table,
};
use crate::{plant::planted_kind, planted};

#[derive(Clone, Default)]
pub(super) struct AccountTables {
    accounts: Table<AccountId, Account>,
    by_email: Table<EmailKey, AccountId>,
    tokens: Table<TokenId, Token>,
    by_link: Table<Digest, TokenId>,
    sessions: Table<(AccountId, SessionId), Session>,
    by_bearer: Table<Digest, (AccountId, SessionId)>,
    tallies: Table<TallyId, Tally>,
    /// Accounts as they were when their sessions were added, for a fault.
    cached: HashMap<SessionId, Account>,
    /// Every session that was ever added, for a fault.
    ended: HashMap<SessionId, Session>,
}

impl AccountTables {
    pub(super) fn get(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    pub(super) fn has_session(&self, account: AccountId, id: SessionId) -> bool {
        self.sessions.has(&(account, id))
    }

    pub(super) fn has_session_of_any(&self, id: SessionId) -> bool {
        self.sessions.values().any(|session| session.id == id)
    }

    pub(super) fn apply(
        &mut self,
        devices: &mut DeviceTables,
        notifications: &mut NotificationTables,
        change: AccountChange,
    ) -> Result<ChangeResult, Conflict> {
        match change {
            AccountChange::Insert(account) => {
                if self.accounts.has(&account.id) && !planted("account-insert-replaces-the-same-id") {
                    return Err(Conflict::AccountExists);
                }
                if self.owner("account-insert", account.email.key()).is_some()
                    && !planted("account-address-is-not-unique")
                {
                    return Err(Conflict::AccountExists);
                }
                self.put_account(account);
            }
            AccountChange::Update(account) => self.update(account)?,
            AccountChange::Erase { id, version } => {
                self.erase(id, version)?;
                if !planted("erase-keeps-preferences") {
                    notifications.remove(id);
                }
                let without = planted("erase-keeps-devices-without-a-session");
                if !planted("erase-keeps-devices") {
                    devices.remove_of(id, |device| device.session.is_some() || !without);
                }
            }
            AccountChange::InsertToken(token) => self.insert_token(token)?,
            AccountChange::RedeemToken { id, seen, at } => {
                let token = match self.as_seen("redeem", id, seen) {
                    Ok(token) => token,
                    Err(conflict) => match self.tokens.get(&id) {
                        Some(token) if planted("redeem-of-a-used-token-succeeds") => token.clone(),
                        _ => return Err(conflict),
                    },
                };
                if planted("redeem-removes-the-token") {
                    self.tokens.remove(&id);
                } else if !planted("redeem-writes-nothing") {
                    self.put_token(Token { used_at: Some(at), ..token });
                }
            }
            AccountChange::RequireToken { id, seen } => {
                let token = self.as_seen("require-token", id, seen);
                if planted("require-token-always-succeeds") {
                    return Ok(ChangeResult::Applied);
                }
                if planted("require-token-redeems-it") {
                    let created_at = token.clone()?.created_at;
                    self.put_token(Token { used_at: Some(created_at), ..token.clone()? });
                }
                token?;
            }
            AccountChange::RedeemForm { id, seen, form, account } => {
                let token = self.as_seen("redeem-form", id, seen)?;
                let form = match form {
                    ProofForm::Code if planted("redeem-form-stores-the-other-form") => ProofForm::Link,
                    ProofForm::Link if planted("redeem-form-stores-the-other-form") => ProofForm::Code,
                    form => form,
                };
                let used_at = planted("redeem-form-uses-both-forms").then_some(token.created_at);
                let account =
                    if planted("redeem-form-forgets-the-account") { token.account } else { Some(account) };
                self.put_token(Token { used_form: Some(form), account, used_at, ..token });
            }
            AccountChange::CountTries { kind, email, network, at } => {
                let tokens = self.mailed("count-tries", kind, &email);
                let most = if planted("count-tries-of-one-token-only") { 1 } else { usize::MAX };
                for mut token in tokens.into_iter().take(most) {
                    if (token.used_at.is_some() && !planted("count-tries-of-used-tokens"))
                        || !column("count-tries-of-expired-codes").is_before(at, token.code_expires_at)
                    {
                        continue;
                    }
                    let own = match token.network {
                        None => planted("count-tries-without-a-network-as-own"),
                        Some(_) if planted("count-tries-always-as-own") => true,
                        Some(_) if planted("count-tries-always-as-foreign") => false,
                        Some(of) => of == network,
                    };
                    *(if own { &mut token.tries } else { &mut token.foreign_tries }) += 1;
                    if planted("count-tries-in-both-counts") && own {
                        token.foreign_tries += 1;
                    }
                    self.put_token(token);
                }
            }
            AccountChange::EndTokens { kind, email, except, at } => {
                for token in self.mailed("end-tokens", kind, &email) {
                    if (token.used_at.is_none() || planted("end-tokens-changes-used-ones"))
                        && (Some(token.id) != except || planted("end-tokens-ends-the-excepted-one"))
                    {
                        let at = if planted("end-tokens-at-another-time") { token.created_at } else { at };
                        self.put_token(Token { used_at: Some(at), ..token });
                    }
                }
            }
            AccountChange::EndTokensOf { account, kind, except, at } => {
                let of = |token: &&Token| {
                    (token.account == Some(account) || planted("end-tokens-of-every-account"))
                        && (token.kind == kind || planted("end-tokens-of-every-kind"))
                        && (token.used_at.is_none() || planted("end-tokens-of-changes-used-ones"))
                        && (Some(token.id) != except || planted("end-tokens-of-ends-the-excepted-one"))
                };
                let most = if planted("end-tokens-of-ends-one-only") { 1 } else { usize::MAX };
                for token in self.tokens.values().filter(of).take(most).cloned().collect::<Vec<_>>() {
                    self.put_token(Token { used_at: Some(at), ..token });
                }
            }
            AccountChange::CountTally { id, below, at, expires_at } => {
                let live = self.live_tally("count-tally", id, at);
                if planted("count-tally-is-full-with-an-expired-one")
                    && live.is_none()
                    && self.tallies.has(&id)
                {
                    return Err(Conflict::TallyFull);
                }
                let tally = live.unwrap_or(Tally { count: 0, expires_at });
                if tally.count >= below
                    && !planted("count-tally-ignores-the-limit")
                    && !(planted("count-tally-limit-is-one-more") && tally.count == below)
                    && !(planted("count-tally-first-count-is-free") && live.is_none())
                {
                    return Err(Conflict::TallyFull);
                }
                let expires_at =
                    if planted("count-tally-extends-the-expiry") { expires_at } else { tally.expires_at };
                let count = match self.tallies.get(&id) {
                    Some(expired) if planted("count-tally-keeps-an-expired-count") => expired.count,
                    _ => tally.count,
                };
                self.put_tally(id, Tally { count: count + 1, expires_at });
            }
            AccountChange::RequireTally { id, below, at } => {
                let live = self.live_tally("require-tally", id, at);
                let count = live.map_or(0, |tally| tally.count);
                if planted("require-tally-counts") {
                    self.put_tally(
                        id,
                        Tally { count: count + 1, expires_at: at.plus(Duration::from_secs(99)) },
                    );
                }
                let full =
                    if planted("require-tally-limit-is-one-more") { count > below } else { count >= below };
                if full && !planted("require-tally-always-succeeds") {
                    return Err(Conflict::TallyFull);
                }
                if live.is_none() && planted("require-tally-needs-a-tally") {
                    return Err(Conflict::TallyFull);
                }
            }
            AccountChange::PutTally { id, tally, .. } => match self.tallies.get(&id).copied() {
                Some(before) if planted("put-tally-keeps-an-existing-one") => self.put_tally(id, before),
                Some(before) if planted("put-tally-adds-the-counts") => {
                    self.put_tally(id, Tally { count: before.count + tally.count, ..tally });
                }
                Some(before) if planted("put-tally-keeps-the-expiry") => {
                    self.put_tally(id, Tally { count: tally.count, ..before });
                }
                Some(before) if planted("put-tally-keeps-the-greater-count") => {
                    self.put_tally(id, Tally { count: tally.count.max(before.count), ..tally });
                }
                _ => self.put_tally(id, tally),
            },
            AccountChange::PurgeTallies { before, cap } => {
                let cap = if planted("purge-tallies-ignores-the-cap") { u32::MAX } else { cap };
                let newest = if planted("purge-tallies-newest-first") { -1 } else { 1 };
                let purged = self.tallies.purge(
                    cap,
                    |tally| column("purge-tallies").is_before(tally.expires_at, before),
                    |tally| newest * tally.expires_at.micros(),
                );
                return Ok(rows("purge-tallies", purged.len()));
            }
            AccountChange::InsertSession { session, version } => {
                if !self.accounts.has(&session.account) && planted("session-of-no-account") {
                    self.put_session(session);
                    return Ok(ChangeResult::Applied);
                }
                if planted("session-ignores-the-version") {
                    self.accounts.get(&session.account).ok_or(Conflict::AccountChanged(session.account))?;
                } else {
                    self.current(session.account, version)?;
                }
                if planted("session-replaces-others") {
                    self.end_sessions(session.account, None);
                }
                let exists = self.sessions.has(&(session.account, session.id))
                    && !planted("session-replaces-the-same-id");
                let taken = self.by_bearer.has(&session.token) && !planted("session-bearer-is-not-unique");
                let is_taken = |token: &Digest| self.by_widget(token).is_some();
                let taken = taken
                    || session.widget_token.as_ref().is_some_and(is_taken)
                        && !planted("session-widget-token-is-not-unique");
                if exists || taken {
                    return Err(Conflict::SessionExists(session.id));
                }
                self.put_session(session);
            }
            AccountChange::TouchSession { account, id, seen_at } => {
                let touched: Vec<Session> = match self.sessions.get(&(account, id)) {
                    _ if planted("touch-every-session") => self.sessions_of(account).cloned().collect(),
                    Some(session) => vec![session.clone()],
                    None if planted("touch-restores-an-ended-session") => self
                        .ended
                        .get(&id)
                        .filter(|ended| ended.account == account)
                        .cloned()
                        .into_iter()
                        .collect(),
                    None if planted("touch-ignores-the-account") => {
                        self.sessions.values().filter(|session| session.id == id).cloned().collect()
                    }
                    None => Vec::new(),
                };
                for session in touched {
                    let longer = seen_at.since(session.seen_at);
                    let authenticated_at =
                        if planted("touch-authenticates") { seen_at } else { session.authenticated_at };
                    let expires_at = if planted("touch-extends-the-expiry") {
                        session.expires_at.plus(longer)
                    } else {
                        session.expires_at
                    };
                    let seen_at = if planted("touch-writes-nothing") { session.seen_at } else { seen_at };
                    self.put_session(Session { seen_at, authenticated_at, expires_at, ..session });
                }
            }
            AccountChange::SetWidgetToken { account, id, token, most } => {
                self.set_widget_token(account, id, token, most)?;
            }
            AccountChange::EndSession { account, id } => {
                if !planted("end-session-keeps-its-devices") {
                    devices.end_sessions(account, |session| session == id);
                }
                let of = self.sessions.values().find(|one| one.id == id).map(|one| one.account);
                match of {
                    Some(of) if planted("end-session-ignores-the-account") => self.end_session(of, id),
                    _ if planted("end-session-ends-all") => self.end_sessions(account, None),
                    _ if planted("end-session-writes-nothing") => {}
                    _ => self.end_session(account, id),
                }
                if planted("end-session-removes-tokens-of-all") {
                    self.remove_tokens(account, |_| true);
                } else if !planted("end-session-keeps-its-tokens") {
                    self.remove_tokens(account, |session| session == id);
                }
            }
            AccountChange::EndSessions { account, except } => {
                if !planted("end-sessions-keeps-devices") {
                    let all = planted("end-sessions-removes-devices-of-the-excepted");
                    devices.end_sessions(account, |session| all || Some(session) != except);
                }
                let except = if planted("end-sessions-ends-the-excepted-one") { None } else { except };
                if planted("end-sessions-of-every-account") {
                    let all: Vec<_> = self.sessions.values().map(|one| (one.account, one.id)).collect();
                    for (of, id) in all {
                        if Some(id) != except {
                            self.end_session(of, id);
                        }
                    }
                } else if planted("end-sessions-ends-one-only") {
                    let other = self.sessions_of(account).map(|one| one.id).find(|id| Some(*id) != except);
                    if let Some(id) = other {
                        self.end_session(account, id);
                    }
                } else if !(planted("end-sessions-needs-an-exception") && except.is_none()) {
                    self.end_sessions(account, except);
                }
                if planted("end-sessions-removes-all-tokens") {
                    for token in self.tokens.purge(u32::MAX, |token| token.account == Some(account), |_| ()) {
                        self.unindex(&token);
                    }
                } else if !planted("end-sessions-keeps-tokens") {
                    self.remove_tokens(account, |session| Some(session) != except);
                }
            }
            AccountChange::PurgeTokens { before, cap } => {
                let cap = if planted("purge-tokens-ignores-the-cap") { u32::MAX } else { cap };
                let newest = if planted("purge-tokens-newest-first") { -1 } else { 1 };
                let expiry = |token: &Token| {
                    if planted("purge-tokens-by-the-expiry-of-the-code") {
                        token.code_expires_at
                    } else {
                        token.expires_at
                    }
                };
                let purged = self.tokens.purge(
                    cap,
                    |token| {
                        column("purge-tokens").is_before(expiry(token), before)
                            && !(planted("purge-tokens-keeps-unused-ones") && token.used_at.is_none())
                    },
                    |token| newest * expiry(token).micros(),
                );
                for token in &purged {
                    self.unindex(token);
                }
                return Ok(rows("purge-tokens", purged.len()));
            }
            AccountChange::PurgeSessions { before, idle, cap } => {
                let most = if planted("purge-sessions-ignores-the-cap") { u32::MAX } else { cap };
                let newest = if planted("purge-sessions-newest-first") { -1 } else { 1 };
                let mut purged = self.sessions.purge(
                    most,
                    |session| column("purge-sessions").is_before(session.expires_at, before),
                    |session| newest * session.expires_at.micros(),
                );
                let left = most.saturating_sub(u32::try_from(purged.len()).unwrap_or(cap));
                let left = if planted("purge-sessions-caps-each-kind") { cap } else { left };
                let expired = purged.len();
                if !planted("purge-sessions-keeps-unused-ones") {
                    purged.extend(self.sessions.purge(
                        left,
                        |session| column("purge-unused-sessions").is_before(session.seen_at, idle),
                        |session| newest * session.seen_at.micros(),
                    ));
                }
                if !planted("purge-sessions-keeps-bearers") {
                    for session in &purged {
                        self.by_bearer.remove(&session.token);
                    }
                }
                let most = match () {
                    () if planted("purge-sessions-keeps-devices") => 0,
                    () if planted("purge-sessions-keeps-devices-of-unused-ones") => expired,
                    () if planted("purge-sessions-removes-16-devices") => 16,
                    () => usize::MAX,
                };
                for session in purged.iter().take(most) {
                    devices.end_sessions(session.account, |id| id == session.id);
                }
                return Ok(rows("purge-sessions", purged.len()));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn put_account(&mut self, account: Account) {
        let key = EmailKey::from_stored(column("account-address-key").text(account.email.key().as_str()));
        let mut account = Account {
            email: EmailAddress::from_stored(
                column("account-address").text(account.email.as_str()),
                key.clone(),
            ),
            display_name: DisplayName::from_stored(
                column("account-display-name").text(account.display_name.as_str()),
            ),
            locale: account
                .locale
                .map(|locale| Locale::from_stored(column("account-locale").text(locale.as_str()))),
            time_zone: account
                .time_zone
                .map(|zone| TimeZoneName::from_stored(column("account-time-zone").text(zone.as_str()))),
            birthday: account
                .birthday
                .filter(|day| !planted("account-birthday-before-1970-is-lost") || day.as_str() > "1970"),
            password: account
                .password
                .map(|hash| PasswordHash::from_stored(column("account-password").text(hash.as_str()))),
            created_at: column("account-created-at").time(account.created_at),
            deletion_due: account.deletion_due.map(|at| column("account-deletion-due").time(at)),
            version: column("account-version").number(account.version),
            ..account
        };
        if planted("account-times-are-swapped")
            && let Some(due) = account.deletion_due
        {
            account.deletion_due = Some(std::mem::replace(&mut account.created_at, due));
        }
        if planted("account-locale-and-time-zone-are-swapped")
            && let (Some(locale), Some(zone)) = (&account.locale, &account.time_zone)
        {
            let swapped = (zone.as_str().to_owned(), locale.as_str().to_owned());
            account.locale = Some(Locale::from_stored(swapped.0));
            account.time_zone = Some(TimeZoneName::from_stored(swapped.1));
        }
        if planted("account-address-is-stored-as-its-key") {
            account.email = EmailAddress::from_stored(key.as_str(), key.clone());
        }
        self.by_email.put(key, account.id);
        self.accounts.put(account.id, account);
    }

    fn update(&mut self, account: Account) -> Result<(), Conflict> {
        let stored = self.accounts.get(&account.id).cloned();
        let before = match stored {
            None if planted("account-update-inserts-a-missing-one") => {
                self.put_account(account);
                return Ok(());
            }
            Some(stored) if planted("account-update-ignores-the-version") => stored,
            Some(stored)
                if planted("account-update-accepts-newer-versions") && stored.version <= account.version =>
            {
                stored
            }
            _ => self.current(account.id, account.version)?,
        };
        match self.owner("account-update", account.email.key()) {
            Some(owner) if owner != account.id && !planted("account-update-takes-a-taken-address") => {
                return Err(Conflict::AccountExists);
            }
            Some(_) if planted("account-update-to-its-own-address-conflicts") => {
                return Err(Conflict::AccountExists);
            }
            _ => {}
        }
        if !planted("account-update-keeps-the-old-address") {
            self.by_email.remove(before.email.key());
        }
        let mut next = account;
        macro_rules! stays {
            ($($skips:literal, $coalesces:literal: $field:ident;)+) => {$(
                if planted($skips) || (planted($coalesces) && next.$field.is_none()) {
                    next.$field.clone_from(&before.$field);
                }
            )+};
        }
        stays! {
            "account-update-skips-the-locale", "account-update-keeps-the-locale": locale;
            "account-update-skips-the-time-zone", "account-update-keeps-the-time-zone": time_zone;
            "account-update-skips-the-birthday", "account-update-keeps-the-birthday": birthday;
            "account-update-skips-the-password", "account-update-keeps-the-password": password;
            "account-update-skips-the-deletion", "account-update-keeps-the-deletion": deletion_due;
        }
        if planted("account-update-skips-the-display-name") {
            next.display_name = before.display_name.clone();
        }
        if planted("account-update-skips-the-time-of-creation") {
            next.created_at = before.created_at;
        }
        if planted("account-update-skips-the-address-as-typed") {
            next.email = EmailAddress::from_stored(before.email.as_str(), next.email.key().clone());
        }
        if planted("account-update-skips-the-address") {
            next.email = before.email.clone();
        }
        let version =
            if planted("account-update-keeps-the-version") { before.version } else { before.version + 1 };
        self.put_account(Account { version, ..next });
        Ok(())
    }

    fn erase(&mut self, id: AccountId, version: i64) -> Result<(), Conflict> {
        let account = match self.accounts.get(&id) {
            None if planted("erase-of-a-missing-account-succeeds") => return Ok(()),
            Some(stored) if planted("erase-ignores-the-version") => stored.clone(),
            _ => self.current(id, version)?,
        };
        if !planted("erase-keeps-the-address") {
            self.by_email.remove(account.email.key());
        }
        self.accounts.remove(&id);
        if !planted("erase-keeps-sessions") {
            self.end_sessions(id, None);
        }
        if planted("erase-ends-all-sessions") {
            for (of, session) in self.sessions.iter().map(|(key, _)| *key).collect::<Vec<_>>() {
                self.end_session(of, session);
            }
        }
        let matches = |token: &Token| {
            token.account == Some(id)
                && !planted("erase-keeps-tokens")
                && !(planted("erase-keeps-tokens-without-a-session") && token.session.is_none())
                && !(planted("erase-keeps-used-tokens") && token.used_at.is_some())
                || (planted("erase-removes-tokens-of-the-address")
                    && token.email.key() == account.email.key())
                || planted("erase-removes-all-tokens")
        };
        for token in self.tokens.purge(u32::MAX, matches, |_| ()) {
            self.unindex(&token);
        }
        Ok(())
    }

    /// Redeems a token without its preconditions.
    pub(super) fn redeem(&mut self, id: TokenId, at: Timestamp) {
        if let Some(token) = self.tokens.get(&id).cloned() {
            self.put_token(Token { used_at: Some(at), ..token });
        }
    }

    fn insert_token(&mut self, token: Token) -> Result<(), Conflict> {
        if let (Some(account), Some(session)) = (token.account, token.session) {
            let ended = match self.sessions.has(&(account, session)) {
                true => false,
                false if planted("token-of-an-ended-session") => false,
                false if planted("token-of-a-session-of-another-account") => {
                    !self.sessions.values().any(|one| one.id == session)
                }
                false => true,
            };
            if ended {
                return Err(Conflict::SessionEnded(session));
            }
        }
        if self.tokens.has(&token.id) && !planted("token-replaces-the-same-id") {
            return Err(Conflict::TokenExists(token.id));
        }
        if self.by_link.has(&token.link) && !planted("token-link-is-not-unique") {
            return Err(Conflict::TokenExists(token.id));
        }
        self.put_token(token);
        Ok(())
    }

    fn put_token(&mut self, token: Token) {
        let key = EmailKey::from_stored(column("token-address-key").text(token.email.key().as_str()));
        let mut token = Token {
            email: EmailAddress::from_stored(column("token-address").text(token.email.as_str()), key.clone()),
            link: column("token-link").digest(token.link),
            network: token.network.map(|network| column("token-network").digest(network)),
            tries: column("token-tries").number(token.tries),
            foreign_tries: column("token-foreign-tries").number(token.foreign_tries),
            display_name: token
                .display_name
                .map(|name| DisplayName::from_stored(column("token-display-name").text(name.as_str()))),
            locale: token
                .locale
                .map(|locale| Locale::from_stored(column("token-locale").text(locale.as_str()))),
            created_at: column("token-created-at").time(token.created_at),
            code_expires_at: column("token-code-expires-at").time(token.code_expires_at),
            expires_at: column("token-expires-at").time(token.expires_at),
            used_at: token.used_at.map(|at| column("token-used-at").time(at)),
            ..token
        };
        if planted("token-expiries-are-swapped") {
            std::mem::swap(&mut token.code_expires_at, &mut token.expires_at);
        }
        if planted("token-tries-are-swapped") {
            std::mem::swap(&mut token.tries, &mut token.foreign_tries);
        }
        if planted("token-digests-are-swapped")
            && let Some(network) = &mut token.network
        {
            std::mem::swap(network, &mut token.link);
        }
        if planted("token-form-is-lost") {
            token.used_form = None;
        }
        if planted("token-session-is-lost") {
            token.session = None;
        }
        if planted("token-network-is-lost") {
            token.network = None;
        }
        self.by_link.put(token.link, token.id);
        self.tokens.put(token.id, token);
    }

    fn put_session(&mut self, session: Session) {
        let mut session = Session {
            token: column("session-token").digest(session.token),
            device: session
                .device
                .map(|device| Label::from_stored(column("session-device").text(device.as_str()))),
            created_at: column("session-created-at").time(session.created_at),
            authenticated_at: column("session-authenticated-at").time(session.authenticated_at),
            seen_at: column("session-seen-at").time(session.seen_at),
            expires_at: column("session-expires-at").time(session.expires_at),
            widget_token: session.widget_token.filter(|_| !planted("session-widget-token-is-lost")),
            ..session
        };
        if planted("session-times-are-swapped") {
            std::mem::swap(&mut session.seen_at, &mut session.authenticated_at);
        }
        self.by_bearer.put(session.token, (session.account, session.id));
        if let Some(account) = self.accounts.get(&session.account) {
            self.cached.insert(session.id, account.clone());
        }
        self.ended.insert(session.id, session.clone());
        self.sessions.put((session.account, session.id), session);
    }

    fn set_widget_token(
        &mut self,
        account: AccountId,
        id: SessionId,
        token: Option<Digest>,
        most: u32,
    ) -> Result<(), Conflict> {
        let Some(session) = self.sessions.get(&(account, id)).cloned() else {
            if planted("widget-token-of-an-ended-session") {
                return Ok(());
            }
            return Err(Conflict::SessionEnded(id));
        };
        if let Some(token) = token {
            let owner = self.by_widget(&token);
            if owner.is_some_and(|one| one.id != id) && !planted("widget-token-is-not-unique") {
                return Err(Conflict::SessionExists(id));
            }
            if owner.is_some_and(|one| one.id == id) && planted("widget-token-conflicts-with-itself") {
                return Err(Conflict::SessionExists(id));
            }
            let counts = |one: &&Session| {
                (one.account == account || planted("widget-tokens-of-every-account-count"))
                    && (one.id != id || planted("replaced-widget-token-counts"))
                    && one.widget_token.is_some()
            };
            let limit = if planted("widget-token-limit-is-one-more") { most + 1 } else { most };
            let others = self.sessions.values().filter(counts).count();
            if others >= limit as usize && !planted("widget-token-ignores-the-limit") {
                return Err(Conflict::TooManyWidgetTokens(account));
            }
        }
        if planted("widget-token-writes-nothing") || token.is_none() && planted("widget-token-is-not-removed")
        {
            return Ok(());
        }
        self.put_session(Session { widget_token: token, ..session });
        Ok(())
    }

    /// Session with this widget token, as the look-up compares them.
    fn by_widget(&self, token: &Digest) -> Option<&Session> {
        let equal = self.sessions.values().find(|session| session.widget_token == Some(*token));
        equal.or_else(|| match planted("widget-token-reads-a-prefix") {
            true => self.sessions.values().find(|session| {
                session.widget_token.is_some_and(|one| one.as_bytes()[..16] == token.as_bytes()[..16])
            }),
            false => None,
        })
    }

    fn put_tally(&mut self, id: TallyId, tally: Tally) {
        let id = TallyId::from_digest(column("tally-id").digest(*id.as_digest()));
        let count = column("tally-count").number(tally.count);
        self.tallies.put(id, Tally { count, expires_at: column("tally-expires-at").time(tally.expires_at) });
    }

    fn current(&self, id: AccountId, version: i64) -> Result<Account, Conflict> {
        let account = self.accounts.get(&id).filter(|account| account.version == version);
        account.cloned().ok_or(Conflict::AccountChanged(id))
    }

    /// Account with this address key, as the look-up `what` compares keys.
    fn owner(&self, what: &str, key: &EmailKey) -> Option<AccountId> {
        let equal =
            || self.by_email.iter().find(|(stored, _)| column(what).finds(stored.as_str(), key.as_str()));
        self.by_email.get(key).copied().or_else(|| equal().map(|(_, id)| *id))
    }

    fn as_seen(&self, what: &str, id: TokenId, seen: SeenToken) -> Result<Token, Conflict> {
        let token = self.tokens.get(&id).filter(|token| {
            let tries = match (seen.tries, planted_kind(what)) {
                (None, _)
                | (Some(Tries::Own(_)), Some("-ignores-own-tries"))
                | (Some(Tries::Foreign(_)), Some("-ignores-foreign-tries")) => true,
                (Some(Tries::Own(tries) | Tries::Foreign(tries)), Some("-sums-tries")) => {
                    token.tries + token.foreign_tries == tries
                }
                (Some(Tries::Own(tries)), _) => token.tries == tries,
                (Some(Tries::Foreign(tries)), _) => token.foreign_tries == tries,
            };
            let form = token.used_form == seen.used_form || planted_kind(what) == Some("-ignores-the-form");
            token.used_at.is_none() && form && tries
        });
        token.cloned().ok_or(Conflict::TokenChanged(id))
    }

    fn live_tally(&self, what: &str, id: TallyId, at: Timestamp) -> Option<Tally> {
        let at = if planted("store-tallies-expire-by-its-clock") { system_time() } else { at };
        let live = |tally: &&Tally| match planted_kind(what) {
            Some("-never-expires") => true,
            Some("-lives-at-its-expiry") => tally.expires_at >= at,
            _ => tally.expires_at > at,
        };
        self.tallies.get(&id).filter(live).copied()
    }

    /// Removes the tokens that an account requested in the sessions for which `matches` returns true.
    fn remove_tokens(&mut self, account: AccountId, matches: impl Fn(SessionId) -> bool) {
        let requested = |token: &Token| token.account == Some(account) && token.session.is_some_and(&matches);
        for token in self.tokens.purge(u32::MAX, requested, |_| ()) {
            self.unindex(&token);
        }
    }

    /// Tokens of a kind and address, as the look-up `what` compares them.
    fn mailed(&self, what: &str, kind: TokenKind, email: &EmailKey) -> Vec<Token> {
        let matches = |token: &&Token| {
            (token.kind == kind || planted_kind(what) == Some("-ignores-the-kind"))
                && (column(what).finds(token.email.key().as_str(), email.as_str())
                    || planted_kind(what) == Some("-ignores-the-address"))
        };
        self.tokens.values().filter(matches).cloned().collect()
    }

    fn unindex(&mut self, token: &Token) {
        self.by_link.remove(&token.link);
    }

    fn end_session(&mut self, account: AccountId, id: SessionId) {
        if let Some(session) = self.sessions.remove(&(account, id))
            && !planted("ended-sessions-are-still-found")
        {
            self.by_bearer.remove(&session.token);
        }
    }

    fn end_sessions(&mut self, account: AccountId, except: Option<SessionId>) {
        for id in self.sessions_of(account).map(|session| session.id).collect::<Vec<_>>() {
            if Some(id) != except {
                self.end_session(account, id);
            }
        }
    }

    fn sessions_of(&self, account: AccountId) -> impl DoubleEndedIterator<Item = &Session> {
        let range = (account, SessionId::from_uuid(NIL))..=(account, SessionId::from_uuid(MAX));
        self.sessions.range(range).map(|(_, session)| session)
    }

    /// Greatest id.
    pub(super) fn latest(&self) -> Option<AccountId> {
        self.accounts.iter().next_back().map(|(id, _)| *id)
    }

    /// Removes the account with the greatest id, for a store that forgets its latest commit.
    pub(super) fn forget_latest(&mut self) {
        if let Some(id) = self.latest() {
            self.accounts.remove(&id);
            self.accounts.end(true);
        }
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        match kind {
            "-accounts" => self.accounts = Table::default(),
            "-sessions" => self.sessions = Table::default(),
            "-tokens" => self.tokens = Table::default(),
            "-tallies" => self.tallies = Table::default(),
            _ => {}
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.accounts.end(keep);
        self.by_email.end(keep);
        self.tokens.end(keep);
        self.by_link.end(keep);
        self.sessions.end(keep);
        self.by_bearer.end(keep);
        self.tallies.end(keep);
    }
}

#[async_trait]
impl AccountReads for FaultyStore {
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        if planted("store-read-is-stale") {
            return Ok(self.stale_account(id));
        }
        Ok(self.state()?.account.accounts.get(&id).cloned())
    }
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error> {
        let tables = &self.state()?.account;
        Ok(tables.owner("account-by-email", email).and_then(|id| tables.accounts.get(&id)).cloned())
    }
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error> {
        let state = self.state()?;
        let is_on_page = |due: Timestamp, id: AccountId| {
            after.is_none_or(|(at, last)| match planted_kind("accounts-to-delete") {
                Some("-page-skips-ties") => due > at,
                Some("-page-repeats-the-last") => (due, id) >= (at, last),
                Some("-page-is-by-id") => id > last,
                Some("-page-is-ignored") => true,
                _ => (due, id) > (at, last),
            })
        };
        let mut due: Vec<Account> = state
            .account
            .accounts
            .values()
            .filter(|account| match account.deletion_due {
                Some(due) => {
                    (due < now
                        || (due == now && !planted("accounts-to-delete-without-those-due-now"))
                        || planted("accounts-to-delete-with-those-due-later"))
                        && is_on_page(due, account.id)
                }
                None => planted("accounts-to-delete-with-those-without-a-request"),
            })
            .cloned()
            .collect();
        match planted_kind("accounts-to-delete") {
            Some("-latest-first") => {
                due.sort_by_key(|account| std::cmp::Reverse((account.deletion_due, account.id)));
            }
            Some("-by-id") => {}
            Some("-with-unordered-ties") => {
                due.sort_by_key(|account| std::cmp::Reverse(account.id));
                due.sort_by_key(|account| account.deletion_due);
            }
            _ => due.sort_by_key(|account| (account.deletion_due, account.id)),
        }
        due.truncate(column("accounts-to-delete").limit(limit as usize));
        Ok(due)
    }
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        let token = self.state()?.account.tokens.get(&id).cloned();
        Ok(token.filter(|token| token.used_at.is_none() || !planted("used-tokens-are-not-found")))
    }
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error> {
        let tables = &self.state()?.account;
        let token = tables.by_link.get(link).and_then(|id| tables.tokens.get(id)).cloned();
        let token =
            token.or_else(|| similar("token-by-link", link, tables.tokens.values(), |token| token.link));
        Ok(token.filter(|token| token.used_at.is_none() || !planted("used-tokens-are-not-found-by-link")))
    }
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error> {
        let mut open = self.state()?.account.mailed("open-tokens", kind, email);
        let now = if planted("store-tokens-expire-by-its-clock") { system_time() } else { now };
        let expiry = |token: &Token| {
            if planted("open-tokens-end-with-their-code") { token.code_expires_at } else { token.expires_at }
        };
        open.retain(|token| {
            (token.used_at.is_none() || planted("open-tokens-with-used-ones"))
                && column("open-tokens-with-expired-ones").is_before(now, expiry(token))
        });
        match planted_kind("open-tokens") {
            Some("-oldest-first") => open.sort_by_key(|token| (token.created_at, token.id)),
            Some("-with-unordered-ties") => open.sort_by_key(|token| std::cmp::Reverse(token.created_at)),
            Some("-by-id") => open.sort_by_key(|token| std::cmp::Reverse(token.id)),
            Some("-by-expiry") => open.sort_by_key(|token| std::cmp::Reverse((token.expires_at, token.id))),
            _ => open.sort_by_key(|token| std::cmp::Reverse((token.created_at, token.id))),
        }
        if planted("open-tokens-limit-keeps-the-oldest") {
            open.drain(..open.len().saturating_sub(32));
        }
        open.truncate(column("open-tokens").limit(32));
        Ok(open)
    }
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error> {
        let tables = &self.state()?.account;
        let key = tables.by_bearer.get(token).copied().or_else(|| {
            similar("session-by-token", token, tables.sessions.values(), |session| session.token)
                .map(|session| (session.account, session.id))
        });
        let Some(key) = key else { return Ok(None) };
        let is_expired = |session: &Session| session.expires_at <= system_time();
        if planted("store-sessions-expire-by-its-clock") && tables.sessions.get(&key).is_some_and(is_expired)
        {
            return Ok(None);
        }
        let session = match tables.sessions.get(&key) {
            Some(session) => session,
            None if planted("ended-sessions-are-still-found") || planted("purge-sessions-keeps-bearers") => {
                &tables.ended[&key.1]
            }
            None => return Ok(None),
        };
        let account = match tables.accounts.get(&key.0) {
            Some(_) if planted("session-has-a-cached-account") => tables.cached.get(&key.1),
            Some(account) => Some(account),
            None if planted("erase-keeps-sessions") => tables.cached.get(&key.1),
            None => None,
        };
        Ok(account.map(|account| (session.clone(), account.clone())))
    }
    async fn session_and_couple(
        &self,
        token: &SessionToken,
    ) -> Result<Option<(Session, Account, Option<Couple>)>, Error> {
        let state = self.state()?;
        let tables = &state.account;
        let by_bearer =
            |token: &Digest| tables.by_bearer.get(token).and_then(|key| tables.sessions.get(key)).cloned();
        let by_widget = |token: &Digest| {
            let of_ended = || tables.ended.values().find(|session| session.widget_token == Some(*token));
            let found = tables.by_widget(token);
            match planted("ended-sessions-are-found-by-their-widget-token") {
                true => found.or_else(of_ended).cloned(),
                false => found.cloned(),
            }
        };
        let session = match token {
            SessionToken::Bearer(token) if planted("widget-tokens-are-bearer-tokens") => {
                by_bearer(token).or_else(|| by_widget(token))
            }
            SessionToken::Widget(token) if planted("bearer-tokens-are-widget-tokens") => {
                by_widget(token).or_else(|| by_bearer(token))
            }
            SessionToken::Bearer(token) => by_bearer(token),
            SessionToken::Widget(token) => by_widget(token),
        };
        let Some(session) = session else { return Ok(None) };
        let account = match planted("session-and-couple-has-a-cached-account") {
            true => tables.cached.get(&session.id),
            false => tables.accounts.get(&session.account).or_else(|| tables.cached.get(&session.id)),
        };
        let couple = match planted("session-and-couple-finds-an-ended-couple") {
            true => state.pairing.any_couple_of(session.account),
            false => state.pairing.couple_of(session.account),
        };
        let couple = couple.filter(|_| !planted("session-and-couple-has-no-couple")).cloned();
        Ok(account.map(|account| (session, account.clone(), couple)))
    }
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error> {
        let state = self.state()?;
        let tables = &state.account;
        if tokens.is_empty() && planted("present-sessions-of-no-token-are-all") {
            return Ok(tables.by_bearer.iter().map(|(token, _)| *token).collect());
        }
        let most = if planted("present-sessions-are-cut-at-64") { 64 } else { usize::MAX };
        let is_present = |token: &&Digest| {
            tables.by_bearer.has(token)
                || (planted("present-sessions-include-ended-ones")
                    && tables.ended.values().any(|session| session.token == **token))
                || planted("present-sessions-are-all-that-are-given")
        };
        let mut present: Vec<_> = tokens.iter().take(most).filter(is_present).copied().collect();
        if planted("present-sessions-lack-the-last-of-a-statement") {
            present =
                tokens.chunks(64).flat_map(|some| some.iter().take(63).filter(is_present)).copied().collect();
        }
        Ok(present)
    }
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        let state = self.state()?;
        let mut sessions: Vec<Session> = if planted("sessions-of-every-account") {
            state.account.sessions.values().cloned().collect()
        } else {
            state.account.sessions_of(account).cloned().collect()
        };
        match planted_kind("sessions-of") {
            Some("-oldest-first") => sessions.sort_by_key(|session| (session.created_at, session.id)),
            Some("-with-unordered-ties") => {
                sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
            }
            Some("-by-last-use") => {
                sessions.sort_by_key(|session| std::cmp::Reverse((session.seen_at, session.id)));
            }
            Some("-by-id") => sessions.sort_by_key(|session| std::cmp::Reverse(session.id)),
            _ => sessions.sort_by_key(|session| std::cmp::Reverse((session.created_at, session.id))),
        }
        if planted("sessions-of-limit-keeps-the-oldest") {
            sessions.drain(..sessions.len().saturating_sub(200));
        }
        sessions.truncate(column("sessions-of").limit(200));
        Ok(sessions)
    }
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error> {
        let state = self.state()?;
        let tallies = state.account.tallies.iter().map(|(id, tally)| (*id.as_digest(), *tally));
        let near = similar("tally", id.as_digest(), &tallies.collect::<Vec<_>>(), |(id, _)| *id);
        Ok(state
            .account
            .live_tally("tally", id, now)
            .or(near.map(|(_, tally)| tally).filter(|tally| tally.expires_at > now)))
    }
}

/// Number of removed rows, or with a fault another one.
pub(super) fn rows(name: &str, removed: usize) -> ChangeResult {
    match planted_kind(name) {
        Some("-returns-no-number") => ChangeResult::Applied,
        Some("-returns-one-more") => ChangeResult::RowsAffected(removed as u64 + 1),
        _ => ChangeResult::RowsAffected(removed as u64),
    }
}

/// Row whose digest a faulty comparison takes for the one that it looks for.
pub(super) fn similar<'a, T: Clone + 'a>(
    what: &str,
    sought: &Digest,
    rows: impl IntoIterator<Item = &'a T>,
    digest: impl Fn(&T) -> Digest,
) -> Option<T> {
    let kind = planted_kind(what)?;
    let column = match kind {
        "-ignores-case" => |digest: Digest| digest.as_bytes().to_ascii_lowercase(),
        "-ends-at-nul" => {
            |digest: Digest| digest.as_bytes().split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
        }
        "-reads-a-prefix" => |digest: Digest| digest.as_bytes()[..16].to_vec(),
        _ => return None,
    };
    rows.into_iter().find(|row| column(digest(row)) == column(*sought)).cloned()
}
