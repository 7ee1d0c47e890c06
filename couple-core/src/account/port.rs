//! What accounts need of a store.

use async_trait::async_trait;

use super::{Account, Session, Token, TokenKind};
use crate::{AccountId, Digest, EmailKey, Error, SessionId, Timestamp, TokenId};

/// Changes to accounts, mailed tokens and sessions. Ending, touching and purging have no precondition: they hold for whatever is
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// Adds an account. Precondition: neither its id nor its address key is taken
    /// ([`AccountExists`](crate::Conflict::AccountExists)).
    Insert(Account),
    /// Replaces an account that still has the given `version`
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)) and stores it with `version + 1`; its address key
    /// must be nobody else's ([`AccountExists`](crate::Conflict::AccountExists)).
    Update(Account),
    /// Removes an account that still has this version, with its tokens and sessions.
    Erase {
        /// Whose.
        id: AccountId,
        /// As it was read.
        version: i64,
    },
    /// Adds a token. Precondition: its id is not taken ([`TokenExists`](crate::Conflict::TokenExists)).
    InsertToken(Token),
    /// Uses a token. Precondition: it is unused and had exactly `tries` tries
    /// ([`TokenChanged`](crate::Conflict::TokenChanged)), so that a right guess cannot race past the last wrong one.
    RedeemToken {
        /// Which.
        id: TokenId,
        /// As it was read.
        tries: i64,
        /// When.
        at: Timestamp,
    },
    /// Counts a wrong code. Precondition: the token is unused and had exactly `tries` tries
    /// ([`TokenChanged`](crate::Conflict::TokenChanged)), so that racing guesses cannot share one.
    CountTry {
        /// Which.
        id: TokenId,
        /// As it was read.
        tries: i64,
    },
    /// Ends every unused token of a kind for an address.
    EndTokens {
        /// Of this kind.
        kind: TokenKind,
        /// Mailed to this address.
        email: EmailKey,
        /// When.
        at: Timestamp,
    },
    /// Ends every unused token of a kind that is an account's, wherever it was mailed.
    EndTokensOf {
        /// Whose.
        account: AccountId,
        /// Of this kind.
        kind: TokenKind,
        /// When.
        at: Timestamp,
    },
    /// Adds a session. Precondition: its account still has this version
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)), so that what was proven of it still holds.
    InsertSession {
        /// The session.
        session: Session,
        /// Of its account, as it was read or as this commit left it.
        version: i64,
    },
    /// Notes a session's use; a session that has ended stays so.
    TouchSession {
        /// Whose.
        account: AccountId,
        /// Which.
        id: SessionId,
        /// When.
        seen_at: Timestamp,
    },
    /// Ends one session of an account; one that is not there is no conflict.
    EndSession {
        /// Whose.
        account: AccountId,
        /// Which.
        id: SessionId,
    },
    /// Ends all sessions of an account but one.
    EndSessions {
        /// Whose.
        account: AccountId,
        /// The one that stays.
        except: Option<SessionId>,
    },
    /// Removes up to `cap` tokens that expired before `before`; counted.
    PurgeTokens {
        /// Tokens whose link ends earlier go.
        before: Timestamp,
        /// At most so many.
        cap: u32,
    },
    /// Removes up to `cap` sessions that expired before `before` or were last seen before `idle`; counted.
    PurgeSessions {
        /// Sessions that end earlier go.
        before: Timestamp,
        /// Sessions last seen earlier go.
        idle: Timestamp,
        /// At most so many.
        cap: u32,
    },
}

/// What accounts read.
///
/// * **A1** Of two inserts with the same address key one conflicts; keys that differ in any byte do not.
/// * **A2** An account reads back as it was written, every field, `version` one higher after each update.
/// * **A3** An update of a stale version conflicts and changes nothing.
/// * **A4** An update to a taken address key conflicts.
/// * **A5** A token is redeemed once: of 50 at once exactly one commit succeeds.
/// * **A6** Tries are counted one by one: of 50 guesses at once that read the same count one commit succeeds.
/// * **A7** Open tokens are listed by kind and address, unused and unexpired only, newest first.
/// * **A8** Ending tokens ends those of the kind and address, or of the kind and account, and no other.
/// * **A9** Ending sessions ends those of the account but the excepted one, and no other's.
/// * **A10** Erasing an account takes its tokens and sessions along and frees its address.
/// * **A11** Purges remove only what has expired, at most `cap`, and count it.
/// * **A12** Accounts due for deletion are listed page by page, earliest first, at most `limit` in a page.
/// * **A13** A session begins only for an account that still has the version that was read.
#[async_trait]
pub trait AccountReads: Send + Sync {
    /// The account with this id.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error>;
    /// The account with this address.
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error>;
    /// A page of the accounts whose deletion is due at `now`: up to `limit`, ordered by due time and id, after the account with
    /// the due time and id in `after`.
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error>;
    /// The token with this id, in whatever state.
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error>;
    /// The token with this link, in whatever state.
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error>;
    /// Tokens of a kind mailed to an address that are unused and whose link lasts beyond `now`, newest first,
    /// at most 8.
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error>;
    /// The session with this bearer token, and its account.
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error>;
    /// An account's sessions, newest first, at most 200.
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error>;
}

#[async_trait]
impl<S: AccountReads + ?Sized> AccountReads for std::sync::Arc<S> {
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error> {
        (**self).account(id).await
    }
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error> {
        (**self).account_by_email(email).await
    }
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error> {
        (**self).accounts_to_delete(now, after, limit).await
    }
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error> {
        (**self).token(id).await
    }
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error> {
        (**self).token_by_link(link).await
    }
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error> {
        (**self).open_tokens(kind, email, now).await
    }
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error> {
        (**self).session_by_token(token).await
    }
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        (**self).sessions_of(account).await
    }
}
