//! What accounts need of a store.

use async_trait::async_trait;

use super::{Account, ProofForm, Session, Tally, TallyId, Token, TokenKind, Tries};
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
    /// Adds a token. Preconditions: its id is not taken ([`TokenExists`](crate::Conflict::TokenExists)), and the
    /// session that it names exists ([`SessionEnded`](crate::Conflict::SessionEnded)).
    InsertToken(Token),
    /// Uses a token. Precondition: it is unused and as it was read, as far as `seen` says
    /// ([`TokenChanged`](crate::Conflict::TokenChanged)), so that a right guess cannot race past the last wrong one.
    RedeemToken {
        /// Token to use.
        id: TokenId,
        /// State that must still hold.
        seen: SeenToken,
        /// Time of use.
        at: Timestamp,
    },
    /// Changes nothing. Precondition as of [`RedeemToken`](Self::RedeemToken).
    RequireToken {
        /// Token to look at.
        id: TokenId,
        /// State that must still hold.
        seen: SeenToken,
    },
    /// Uses one of a token's two forms, code or link, and leaves the other usable. Precondition as of
    /// [`RedeemToken`](Self::RedeemToken).
    RedeemForm {
        /// Token to use.
        id: TokenId,
        /// State that must still hold.
        seen: SeenToken,
        /// Form that is used.
        form: ProofForm,
        /// Account that the other form signs in.
        account: AccountId,
    },
    /// Counts a wrong code on every unused token of a kind for an address.
    ///
    /// For each token it counts as a try of the token's own network if the token was requested from `network`, else as a foreign try.
    CountTries {
        /// Kind of the tokens.
        kind: TokenKind,
        /// Address that they were mailed to.
        email: EmailKey,
        /// Client network that tried the code.
        network: Digest,
        /// Time of the try; tokens whose code ended before do not count it.
        at: Timestamp,
    },
    /// Ends every unused token of a kind for an address.
    EndTokens {
        /// Of this kind.
        kind: TokenKind,
        /// Mailed to this address.
        email: EmailKey,
        /// Token that stays.
        except: Option<TokenId>,
        /// When.
        at: Timestamp,
    },
    /// Ends every unused token of a kind that is an account's, wherever it was mailed.
    EndTokensOf {
        /// Whose.
        account: AccountId,
        /// Of this kind.
        kind: TokenKind,
        /// Token that stays.
        except: Option<TokenId>,
        /// When.
        at: Timestamp,
    },
    /// Adds one to a tally; begins it anew if it is absent or has ended. Precondition: its count is below `below`
    /// ([`TallyFull`](crate::Conflict::TallyFull)).
    CountTally {
        /// Tally to count in.
        id: TallyId,
        /// Exclusive upper bound of the count before this change.
        below: i64,
        /// Time of the count.
        at: Timestamp,
        /// End of a tally that begins with this count.
        expires_at: Timestamp,
    },
    /// Changes nothing. Precondition: the tally's count is below `below`, or the tally is absent or has ended
    /// ([`TallyFull`](crate::Conflict::TallyFull)).
    RequireTally {
        /// Tally to look at.
        id: TallyId,
        /// Exclusive upper bound of its count.
        below: i64,
        /// Time at which it must not have ended to count.
        at: Timestamp,
    },
    /// Sets a tally, whatever it was.
    PutTally {
        /// Tally to set.
        id: TallyId,
        /// Its value from now on.
        tally: Tally,
    },
    /// Removes up to `cap` tallies that ended before `before`, and counts them.
    PurgeTallies {
        /// Tallies that ended earlier are removed.
        before: Timestamp,
        /// Maximum number to remove.
        cap: u32,
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
    /// Ends one session of an account, and removes the tokens that it requested; an absent session is no conflict.
    EndSession {
        /// Whose.
        account: AccountId,
        /// Which.
        id: SessionId,
    },
    /// Ends all sessions of an account but one, and removes the tokens that they requested.
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

/// State of a token that must hold when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenToken {
    /// Wrong codes as they were read; none for a link, which wrong codes do not invalidate.
    pub tries: Option<Tries>,
    /// Form that was used before.
    pub used_form: Option<ProofForm>,
}

/// What accounts read.
///
/// * **A1** Of two inserts with the same address key one conflicts; keys that differ in any byte do not.
/// * **A2** An account reads back as it was written, every field, `version` one higher after each update.
/// * **A3** An update of a stale version conflicts and changes nothing.
/// * **A4** An update to a taken address key conflicts.
/// * **A5** A token is redeemed once: of 50 at once exactly one commit succeeds.
/// * **A6** Tries are counted one by one, each on every unused token of the kind and address; a token whose tries rose
///   since they were read is not redeemed by its code.
/// * **A7** Open tokens are listed by kind and address, unused and unexpired only, newest first.
/// * **A8** Ending tokens ends those of the kind and address, or of the kind and account, but the excepted one, and no
///   other.
/// * **A9** Ending sessions ends those of the account but the excepted one, and no other's.
/// * **A10** Erasing an account takes its tokens and sessions along and frees its address.
/// * **A11** Purges remove only what has expired, at most `cap`, and count it.
/// * **A12** Accounts due for deletion are listed page by page, earliest first, at most `limit` in a page.
/// * **A13** A session begins only for an account that still has the version that was read.
/// * **A14** Ending a session removes the tokens that it requested, and no token is added for an ended session.
/// * **A15** A token's two forms are each redeemed once, and ending the token ends the form that is left.
/// * **A16** A tally counts concurrent counts one by one up to its bound, begins anew after its end, and is purged then.
/// * **A17** Of the given bearer tokens, exactly those are returned whose sessions have not been ended.
#[async_trait]
pub trait AccountReads: Send + Sync {
    /// The account with this id.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error>;
    /// The account with this address.
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error>;
    /// A page of the accounts whose deletion is due at `now`, ordered by due time and id.
    ///
    /// At most `limit` accounts, after the due time and id in `after`.
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
    /// at most 32.
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
    /// A tally that has not ended at `now`.
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error>;
    /// The given bearer tokens whose sessions have not been ended, in any order; an expired session may count as either. Asked every
    /// second for every session that a process follows: an adapter uses the index on tokens, and bounds each statement.
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error>;
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
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error> {
        (**self).tally(id, now).await
    }
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error> {
        (**self).present_sessions(tokens).await
    }
}
