//! Sessions of an account: authentication, list and end.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;

use super::{AccountResult, Accounts};
use crate::{
    AccountId, Digest, Error, Failure, Principal, Secret, SessionId,
    account::{Account, AccountChange, AccountError, Session},
    digest,
    live::SessionChecker,
    ports::without_conflict,
};

impl Accounts {
    /// Session and account of a bearer token.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] unless the token belongs to a live session.
    pub async fn authenticate(&self, bearer: &Secret<String>) -> AccountResult<(Session, Account)> {
        let now = self.ports.now();
        let unknown = Failure::Refused(AccountError::Unauthenticated);
        let Some(token) = Self::token_digest(bearer) else { return Err(unknown) };
        let Some((mut session, account)) = self.ports.store.session_by_token(&token).await? else {
            return Err(unknown);
        };
        if !session.is_live(&self.policy, now) || account.deletion_due.is_some() {
            return Err(unknown);
        }
        self.touch(&mut session).await?;
        Ok((session, account))
    }

    /// Digest by which the store finds the session of a token; none for a text that is no token.
    pub(super) fn token_digest(token: &Secret<String>) -> Option<Digest> {
        let text = token.expose();
        (!text.is_empty() && text.len() <= 256).then(|| digest(&[text.as_bytes()]))
    }

    /// Counts a use of a session, if the last one was counted long enough ago.
    pub(super) async fn touch(&self, session: &mut Session) -> Result<(), Error> {
        let now = self.ports.now();
        if now >= session.seen_at.plus(self.policy.seen_resolution) {
            let touch =
                AccountChange::TouchSession { account: session.account, id: session.id, seen_at: now };
            without_conflict(self.ports.commit(vec![touch.into()]).await)?;
            session.seen_at = now;
        }
        Ok(())
    }

    /// Whether an account has a live session with this id.
    ///
    /// For requests that prove the session otherwise than by its token.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn has_session(&self, account: AccountId, id: SessionId) -> Result<bool, Error> {
        if !self.sessions(account).await?.iter().any(|session| session.id == id) {
            return Ok(false);
        }
        let account = self.ports.store.account(account).await?;
        Ok(account.is_some_and(|account| account.deletion_due.is_none()))
    }

    /// Remaining lifetime of a session if it is neither used nor ended.
    #[must_use]
    pub fn left(&self, session: &Session) -> Duration {
        session.left(&self.policy, self.ports.now())
    }

    /// Live sessions of an account, newest first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn sessions(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        let now = self.ports.now();
        let mut sessions = self.ports.store.sessions_of(account).await?;
        sessions.retain(|session| session.is_live(&self.policy, now));
        Ok(sessions)
    }

    /// Ends the session of a device.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn sign_out(&self, session: &Session) -> Result<(), Error> {
        let end = AccountChange::EndSession { account: session.account, id: session.id };
        without_conflict(self.ports.commit(vec![end.into()]).await)?;
        Ok(())
    }

    /// Ends a session of an account.
    ///
    /// # Errors
    /// [`AccountError::SessionNotFound`].
    pub async fn end_session(&self, account: AccountId, id: SessionId) -> AccountResult<()> {
        if !self.ports.store.sessions_of(account).await?.iter().any(|session| session.id == id) {
            return Err(Failure::Refused(AccountError::SessionNotFound));
        }
        without_conflict(self.ports.commit(vec![AccountChange::EndSession { account, id }.into()]).await)?;
        Ok(())
    }

    /// Ends all sessions of an account except one.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn end_sessions(&self, account: AccountId, except: Option<SessionId>) -> Result<(), Error> {
        without_conflict(
            self.ports.commit(vec![AccountChange::EndSessions { account, except }.into()]).await,
        )?;
        Ok(())
    }
}

#[async_trait]
impl SessionChecker for Accounts {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        let tokens: Vec<_> = principals.iter().filter_map(|principal| principal.token().copied()).collect();
        let present: HashSet<_> = self.ports.store.present_sessions(&tokens).await?.into_iter().collect();
        let valid = |principal: &Principal| principal.token().is_some_and(|token| present.contains(token));
        Ok(principals.iter().map(valid).collect())
    }
}
