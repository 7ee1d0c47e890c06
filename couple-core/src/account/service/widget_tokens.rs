//! Widget tokens of sessions, and the authentication of glances.

use super::{AccountResult, Accounts};
use crate::{
    AccountId, Decision, Failure, Secret, SessionId, UnitOfWork,
    account::{Account, AccountChange, AccountError, Session, SessionToken},
    digest,
    limits::{LimitKey, rules::WRITE_PER_ACCOUNT},
    pairing::Couple,
    ports::without_conflict,
};

/// First characters of every widget token, and of no bearer token of a session.
const PREFIX: &str = "widget_";

impl Accounts {
    /// Whether a token has the form of a widget token.
    #[must_use]
    pub fn is_widget_token(token: &Secret<String>) -> bool {
        token.expose().starts_with(PREFIX)
    }

    /// Makes a widget token for a session, in place of its former one. It is returned only here.
    ///
    /// # Errors
    /// [`AccountError::TooManyWidgetTokens`], [`AccountError::Unauthenticated`] if the session has ended,
    /// [`AccountError::RateLimited`].
    pub async fn new_widget_token(&self, session: &Session) -> AccountResult<Secret<String>> {
        let (account, id) = (session.account, session.id);
        self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", account))]).await?;
        let mut seed = [0; 32];
        self.ports.entropy.fill(&mut seed);
        let token = self.ports.keys.bearer("widget", &[&seed]);
        let most = self.policy.max_widget_tokens;
        let set = AccountChange::SetWidgetToken {
            account,
            id,
            token: Some(digest(&[token.expose().as_bytes()])),
            most,
        };
        UnitOfWork::new(&self.ports)
            .run_unkeyed(
                async |_previous: Option<Vec<Session>>| Ok(self.ports.store.sessions_of(account).await?),
                |sessions| {
                    if !sessions.iter().any(|one| one.id == id) {
                        return Err(Failure::Refused(AccountError::Unauthenticated));
                    }
                    let others = sessions.iter().filter(|one| one.id != id && one.widget_token.is_some());
                    if others.count() >= most as usize {
                        return Err(Failure::Refused(AccountError::TooManyWidgetTokens(most)));
                    }
                    Ok(Decision::commit(vec![set.clone().into()], ()))
                },
            )
            .await?;
        Ok(token)
    }

    /// Removes the widget token of a session, if it has one.
    ///
    /// # Errors
    /// [`AccountError::RateLimited`].
    pub async fn remove_widget_token(&self, account: AccountId, id: SessionId) -> AccountResult<()> {
        self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", account))]).await?;
        let most = self.policy.max_widget_tokens;
        let remove = AccountChange::SetWidgetToken { account, id, token: None, most };
        without_conflict(self.ports.commit(vec![remove.into()]).await)?;
        Ok(())
    }

    /// Session, account and current couple of the bearer token or the widget token of a session, in one read.
    ///
    /// A bearer token counts as a use of the session, a widget token does not: a widget alone does not keep a session.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] unless the token belongs to a live session.
    pub async fn authenticate_glance(
        &self,
        token: &Secret<String>,
    ) -> AccountResult<(Session, Account, Option<Couple>)> {
        let unknown = Failure::Refused(AccountError::Unauthenticated);
        let Some(digest) = Self::token_digest(token) else { return Err(unknown) };
        let is_widget = Self::is_widget_token(token);
        let by = if is_widget { SessionToken::Widget(digest) } else { SessionToken::Bearer(digest) };
        let Some((mut session, account, couple)) = self.ports.store.session_and_couple(&by).await? else {
            return Err(unknown);
        };
        if !session.is_live(&self.policy, self.ports.now()) || account.deletion_due.is_some() {
            return Err(unknown);
        }
        if !is_widget {
            self.touch(&mut session).await?;
        }
        Ok((session, account, couple))
    }
}
