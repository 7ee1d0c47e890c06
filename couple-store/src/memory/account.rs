//! Accounts, mailed tokens and sessions in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, ChangeResult, Conflict, Digest, EmailKey, Error, SessionId, Timestamp, TokenId,
    account::{
        Account, AccountChange, AccountReads, SeenToken, Session, SessionToken, Tally, TallyId, Token,
        TokenKind, Tries,
    },
    pairing::Couple,
};

use super::{MAX, MemoryStore, NIL, device::DeviceTables, notification::NotificationTables, table::Table};

#[derive(Default)]
pub(super) struct AccountTables {
    accounts: Table<AccountId, Account>,
    by_email: Table<EmailKey, AccountId>,
    tokens: Table<TokenId, Token>,
    by_link: Table<Digest, TokenId>,
    by_target: Table<(TokenKind, EmailKey, TokenId), ()>,
    sessions: Table<(AccountId, SessionId), Session>,
    by_bearer: Table<Digest, (AccountId, SessionId)>,
    by_widget: Table<Digest, (AccountId, SessionId)>,
    tallies: Table<TallyId, Tally>,
}

impl AccountTables {
    pub(super) fn get(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    pub(super) fn has_session(&self, account: AccountId, id: SessionId) -> bool {
        self.sessions.has(&(account, id))
    }

    pub(super) fn apply(
        &mut self,
        devices: &mut DeviceTables,
        notifications: &mut NotificationTables,
        change: AccountChange,
    ) -> Result<ChangeResult, Conflict> {
        match change {
            AccountChange::Insert(account) => {
                if self.accounts.has(&account.id) || self.by_email.has(account.email.key()) {
                    return Err(Conflict::AccountExists);
                }
                self.by_email.put(account.email.key().clone(), account.id);
                self.accounts.put(account.id, account);
            }
            AccountChange::Update(account) => {
                let before = self.current(account.id, account.version)?;
                if self.by_email.get(account.email.key()).is_some_and(|owner| *owner != account.id) {
                    return Err(Conflict::AccountExists);
                }
                self.by_email.remove(before.email.key());
                self.by_email.put(account.email.key().clone(), account.id);
                self.accounts.put(account.id, Account { version: account.version + 1, ..account });
            }
            AccountChange::Erase { id, version } => {
                let account = self.current(id, version)?;
                self.by_email.remove(account.email.key());
                self.accounts.remove(&id);
                self.end_sessions(id, None);
                devices.remove_of(id, |_| true);
                notifications.remove(id);
                for token in self.tokens.purge(u32::MAX, |token| token.account == Some(id), |_| ()) {
                    self.unindex(&token);
                }
            }
            AccountChange::InsertToken(token) => {
                if let (Some(account), Some(session)) = (token.account, token.session)
                    && !self.sessions.has(&(account, session))
                {
                    return Err(Conflict::SessionEnded(session));
                }
                if self.tokens.has(&token.id) || self.by_link.has(&token.link) {
                    return Err(Conflict::TokenExists(token.id));
                }
                self.by_link.put(token.link, token.id);
                self.by_target.put((token.kind, token.email.key().clone(), token.id), ());
                self.tokens.put(token.id, token);
            }
            AccountChange::RedeemToken { id, seen, at } => {
                let token = self.as_seen(id, seen)?;
                self.tokens.put(id, Token { used_at: Some(at), ..token });
            }
            AccountChange::RequireToken { id, seen } => {
                self.as_seen(id, seen)?;
            }
            AccountChange::RedeemForm { id, seen, form, account } => {
                let token = self.as_seen(id, seen)?;
                self.tokens.put(id, Token { used_form: Some(form), account: Some(account), ..token });
            }
            AccountChange::CountTries { kind, email, network, at } => {
                for mut token in self.mailed(kind, &email) {
                    if token.used_at.is_some() || token.code_expires_at <= at {
                        continue;
                    }
                    let own = token.network == Some(network);
                    *(if own { &mut token.tries } else { &mut token.foreign_tries }) += 1;
                    self.tokens.put(token.id, token);
                }
            }
            AccountChange::EndTokens { kind, email, except, at } => {
                for token in self.mailed(kind, &email) {
                    if token.used_at.is_none() && Some(token.id) != except {
                        self.tokens.put(token.id, Token { used_at: Some(at), ..token });
                    }
                }
            }
            AccountChange::EndTokensOf { account, kind, except, at } => {
                let of = |token: &&Token| {
                    token.account == Some(account)
                        && token.kind == kind
                        && token.used_at.is_none()
                        && Some(token.id) != except
                };
                for token in self.tokens.values().filter(of).cloned().collect::<Vec<_>>() {
                    self.tokens.put(token.id, Token { used_at: Some(at), ..token });
                }
            }
            AccountChange::CountTally { id, below, at, expires_at } => {
                let tally = self.live_tally(id, at).unwrap_or(Tally { count: 0, expires_at });
                if tally.count >= below {
                    return Err(Conflict::TallyFull);
                }
                self.tallies.put(id, Tally { count: tally.count + 1, ..tally });
            }
            AccountChange::RequireTally { id, below, at } => {
                if self.live_tally(id, at).map_or(0, |tally| tally.count) >= below {
                    return Err(Conflict::TallyFull);
                }
            }
            AccountChange::PutTally { id, tally, .. } => self.tallies.put(id, tally),
            AccountChange::PurgeTallies { before, cap } => {
                let purged =
                    self.tallies.purge(cap, |tally| tally.expires_at < before, |tally| tally.expires_at);
                return Ok(ChangeResult::RowsAffected(purged.len() as u64));
            }
            AccountChange::InsertSession { session, version } => {
                self.current(session.account, version)?;
                let key = (session.account, session.id);
                let is_taken = |token: &Digest| self.by_widget.has(token);
                if self.sessions.has(&key)
                    || self.by_bearer.has(&session.token)
                    || session.widget_token.as_ref().is_some_and(is_taken)
                {
                    return Err(Conflict::SessionExists(session.id));
                }
                self.by_bearer.put(session.token, key);
                if let Some(token) = session.widget_token {
                    self.by_widget.put(token, key);
                }
                self.sessions.put(key, session);
            }
            AccountChange::TouchSession { account, id, seen_at } => {
                if let Some(session) = self.sessions.get(&(account, id)).cloned() {
                    self.sessions.put((account, id), Session { seen_at, ..session });
                }
            }
            AccountChange::SetWidgetToken { account, id, token, most } => {
                let key = (account, id);
                let Some(session) = self.sessions.get(&key).cloned() else {
                    return Err(Conflict::SessionEnded(id));
                };
                if let Some(token) = token {
                    if self.by_widget.get(&token).is_some_and(|owner| *owner != key) {
                        return Err(Conflict::SessionExists(id));
                    }
                    let others =
                        self.sessions_of(account).filter(|one| one.id != id && one.widget_token.is_some());
                    if others.count() >= most as usize {
                        return Err(Conflict::TooManyWidgetTokens(account));
                    }
                }
                if let Some(former) = session.widget_token {
                    self.by_widget.remove(&former);
                }
                if let Some(token) = token {
                    self.by_widget.put(token, key);
                }
                self.sessions.put(key, Session { widget_token: token, ..session });
            }
            AccountChange::EndSession { account, id } => {
                self.end_session(account, id);
                self.remove_tokens(account, |session| session == id);
                devices.end_sessions(account, |session| session == id);
            }
            AccountChange::EndSessions { account, except } => {
                self.end_sessions(account, except);
                self.remove_tokens(account, |session| Some(session) != except);
                devices.end_sessions(account, |session| Some(session) != except);
            }
            AccountChange::PurgeTokens { before, cap } => {
                let purged =
                    self.tokens.purge(cap, |token| token.expires_at < before, |token| token.expires_at);
                for token in &purged {
                    self.unindex(token);
                }
                return Ok(ChangeResult::RowsAffected(purged.len() as u64));
            }
            AccountChange::PurgeSessions { before, idle, cap } => {
                let mut purged = self.sessions.purge(
                    cap,
                    |session| session.expires_at < before,
                    |session| session.expires_at,
                );
                let left = cap.saturating_sub(u32::try_from(purged.len()).unwrap_or(cap));
                purged.extend(self.sessions.purge(
                    left,
                    |session| session.seen_at < idle,
                    |session| session.seen_at,
                ));
                for session in &purged {
                    self.unindex_session(session);
                    devices.end_sessions(session.account, |id| id == session.id);
                }
                return Ok(ChangeResult::RowsAffected(purged.len() as u64));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn current(&self, id: AccountId, version: i64) -> Result<Account, Conflict> {
        let account = self.accounts.get(&id).filter(|account| account.version == version);
        account.cloned().ok_or(Conflict::AccountChanged(id))
    }

    fn as_seen(&self, id: TokenId, seen: SeenToken) -> Result<Token, Conflict> {
        let token = self.tokens.get(&id).filter(|token| {
            let tries = match seen.tries {
                None => true,
                Some(Tries::Own(tries)) => token.tries == tries,
                Some(Tries::Foreign(tries)) => token.foreign_tries == tries,
            };
            token.used_at.is_none() && token.used_form == seen.used_form && tries
        });
        token.cloned().ok_or(Conflict::TokenChanged(id))
    }

    fn live_tally(&self, id: TallyId, at: Timestamp) -> Option<Tally> {
        self.tallies.get(&id).filter(|tally| tally.expires_at > at).copied()
    }

    /// Removes the tokens that an account requested in the sessions for which `matches` returns true.
    fn remove_tokens(&mut self, account: AccountId, matches: impl Fn(SessionId) -> bool) {
        let requested = |token: &Token| token.account == Some(account) && token.session.is_some_and(&matches);
        for token in self.tokens.purge(u32::MAX, requested, |_| ()) {
            self.unindex(&token);
        }
    }

    fn mailed(&self, kind: TokenKind, email: &EmailKey) -> Vec<Token> {
        let from = (kind, email.clone(), TokenId::from_uuid(NIL));
        self.by_target
            .range(from..)
            .take_while(|((k, e, _), ())| *k == kind && e == email)
            .filter_map(|((_, _, id), ())| self.tokens.get(id).cloned())
            .collect()
    }

    fn unindex(&mut self, token: &Token) {
        self.by_link.remove(&token.link);
        self.by_target.remove(&(token.kind, token.email.key().clone(), token.id));
    }

    fn end_session(&mut self, account: AccountId, id: SessionId) {
        if let Some(session) = self.sessions.remove(&(account, id)) {
            self.unindex_session(&session);
        }
    }

    fn unindex_session(&mut self, session: &Session) {
        self.by_bearer.remove(&session.token);
        if let Some(token) = session.widget_token {
            self.by_widget.remove(&token);
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

    pub(super) fn end(&mut self, keep: bool) {
        self.accounts.end(keep);
        self.by_email.end(keep);
        self.tokens.end(keep);
        self.by_link.end(keep);
        self.by_target.end(keep);
        self.sessions.end(keep);
        self.by_bearer.end(keep);
        self.by_widget.end(keep);
        self.tallies.end(keep);
    }
}

#[async_trait]
impl AccountReads for MemoryStore {
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        Ok(self.state().account.accounts.get(&id).cloned())
    }
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error> {
        let tables = &self.state().account;
        Ok(tables.by_email.get(email).and_then(|id| tables.accounts.get(id)).cloned())
    }
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error> {
        let state = self.state();
        let mut due: Vec<Account> = state
            .account
            .accounts
            .values()
            .filter(|account| {
                account
                    .deletion_due
                    .is_some_and(|due| due <= now && after.is_none_or(|after| (due, account.id) > after))
            })
            .cloned()
            .collect();
        due.sort_by_key(|account| (account.deletion_due, account.id));
        due.truncate(limit as usize);
        Ok(due)
    }
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        Ok(self.state().account.tokens.get(&id).cloned())
    }
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error> {
        let tables = &self.state().account;
        Ok(tables.by_link.get(link).and_then(|id| tables.tokens.get(id)).cloned())
    }
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error> {
        let mut open = self.state().account.mailed(kind, email);
        open.retain(|token| token.used_at.is_none() && token.expires_at > now);
        open.sort_by_key(|token| std::cmp::Reverse((token.created_at, token.id)));
        open.truncate(32);
        Ok(open)
    }
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error> {
        let tables = &self.state().account;
        Ok(tables
            .by_bearer
            .get(token)
            .and_then(|key| Some((tables.sessions.get(key)?.clone(), tables.accounts.get(&key.0)?.clone()))))
    }
    async fn session_and_couple(
        &self,
        token: &SessionToken,
    ) -> Result<Option<(Session, Account, Option<Couple>)>, Error> {
        let state = self.state();
        let tables = &state.account;
        let key = match token {
            SessionToken::Bearer(token) => tables.by_bearer.get(token),
            SessionToken::Widget(token) => tables.by_widget.get(token),
        };
        let found = key.and_then(|key| Some((tables.sessions.get(key)?, tables.accounts.get(&key.0)?)));
        Ok(found.map(|(session, account)| {
            (session.clone(), account.clone(), state.pairing.current_couple(account.id).cloned())
        }))
    }
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error> {
        let state = self.state();
        Ok(tokens.iter().filter(|token| state.account.by_bearer.get(*token).is_some()).copied().collect())
    }
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        let mut sessions: Vec<Session> = self.state().account.sessions_of(account).cloned().collect();
        sessions.sort_by_key(|session| std::cmp::Reverse((session.created_at, session.id)));
        sessions.truncate(200);
        Ok(sessions)
    }
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error> {
        Ok(self.state().account.live_tally(id, now))
    }
}
