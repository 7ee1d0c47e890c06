//! Account changes and reads that a store supports.

use async_trait::async_trait;

use super::{Account, ProofForm, Session, Tally, TallyId, Token, TokenKind, Tries};
use crate::{
    AccountId, Digest, EmailKey, Error, SessionId, Timestamp, TokenId, mail::RetiredAddress, pairing::Couple,
};

/// Changes to accounts, mailed tokens and sessions.
///
/// Changes that end, touch or purge rows have no precondition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// Adds an account.
    ///
    /// Precondition: its id and its address key are unused ([`AccountExists`](crate::Conflict::AccountExists)).
    Insert(Account),
    /// Replaces an account and stores it with `version + 1`.
    ///
    /// Preconditions: the stored account has the given `version`
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)); no other account has its address key
    /// ([`AccountExists`](crate::Conflict::AccountExists)).
    Update(Account),
    /// Removes an account that still has this version, with its tokens, sessions, devices and notification
    /// preferences.
    Erase {
        /// Id of the account.
        id: AccountId,
        /// Version as it was read.
        version: i64,
    },
    /// Adds a token.
    ///
    /// Preconditions: the session that it names exists ([`SessionEnded`](crate::Conflict::SessionEnded)), and
    /// its id and its link are unused ([`TokenExists`](crate::Conflict::TokenExists)).
    InsertToken(Token),
    /// Marks a token as used.
    ///
    /// Precondition: it is unused and in the state `seen` ([`TokenChanged`](crate::Conflict::TokenChanged)),
    /// so that a correct code cannot be accepted concurrently with the last allowed wrong one.
    RedeemToken {
        /// Id of the token.
        id: TokenId,
        /// State that the token must still have.
        seen: SeenToken,
        /// Time of use.
        at: Timestamp,
    },
    /// Writes nothing. Precondition as for [`RedeemToken`](Self::RedeemToken).
    RequireToken {
        /// Id of the token.
        id: TokenId,
        /// State that the token must still have.
        seen: SeenToken,
    },
    /// Marks one form of a token, code or link, as used; the other form stays usable.
    ///
    /// Precondition as for [`RedeemToken`](Self::RedeemToken).
    RedeemForm {
        /// Id of the token.
        id: TokenId,
        /// State that the token must still have.
        seen: SeenToken,
        /// Form that is used.
        form: ProofForm,
        /// Account that the other form signs in.
        account: AccountId,
    },
    /// Counts a wrong code for every unused token of a kind and address.
    ///
    /// A token counts it in `tries` if the token was requested from `network`, else in `foreign_tries`.
    CountTries {
        /// Kind of the tokens.
        kind: TokenKind,
        /// Address to which the tokens were mailed.
        email: EmailKey,
        /// Client network of the attempt, as a keyed digest.
        network: Digest,
        /// Time of the attempt; tokens whose code has expired then do not count it.
        at: Timestamp,
    },
    /// Ends every unused token of a kind for an address.
    EndTokens {
        /// Kind of the tokens.
        kind: TokenKind,
        /// Address to which the tokens were mailed.
        email: EmailKey,
        /// Token that stays usable.
        except: Option<TokenId>,
        /// Current time.
        at: Timestamp,
    },
    /// Ends every unused token of a kind of an account, for any address.
    EndTokensOf {
        /// Account of the tokens.
        account: AccountId,
        /// Kind of the tokens.
        kind: TokenKind,
        /// Token that stays usable.
        except: Option<TokenId>,
        /// Current time.
        at: Timestamp,
    },
    /// Adds one to a tally; starts it again if it does not exist or has expired.
    ///
    /// Precondition: its count is below `below` ([`TallyFull`](crate::Conflict::TallyFull)).
    CountTally {
        /// Id of the tally.
        id: TallyId,
        /// Limit: the count before this change must be lower.
        below: i64,
        /// Current time.
        at: Timestamp,
        /// Expiry of a tally that starts with this count.
        expires_at: Timestamp,
    },
    /// Writes nothing.
    ///
    /// Precondition: the tally does not exist, has expired, or has a count below `below`
    /// ([`TallyFull`](crate::Conflict::TallyFull)).
    RequireTally {
        /// Id of the tally.
        id: TallyId,
        /// Limit: the count must be lower.
        below: i64,
        /// Current time: a tally that has expired then does not count.
        at: Timestamp,
    },
    /// Sets a tally, whatever its value.
    PutTally {
        /// Id of the tally.
        id: TallyId,
        /// New value.
        tally: Tally,
        /// Address that the tally retires, for the [event](crate::events::Event::AddressRetired). A store ignores it.
        retires: Option<Box<RetiredAddress>>,
    },
    /// Removes up to `cap` tallies that expired before `before`. The commit returns their number.
    PurgeTallies {
        /// Tallies with an earlier expiry are removed.
        before: Timestamp,
        /// Maximum number of tallies to remove.
        cap: u32,
    },
    /// Adds a session.
    ///
    /// Preconditions: its account still has this version
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)), so that the proof of identity is still valid; its
    /// id in the account, its bearer token and its widget token are unused
    /// ([`SessionExists`](crate::Conflict::SessionExists)).
    InsertSession {
        /// Session to add.
        session: Session,
        /// Version of the account, as it was read or as this commit left it.
        version: i64,
    },
    /// Updates the last use of a session. A no-op if the session has ended.
    TouchSession {
        /// Account that owns the session.
        account: AccountId,
        /// Id of the session.
        id: SessionId,
        /// Time of the use.
        seen_at: Timestamp,
    },
    /// Sets, replaces or removes the widget token of a session.
    ///
    /// Preconditions, in this order: the session exists ([`SessionEnded`](crate::Conflict::SessionEnded)); of a new
    /// token, no other session has it ([`SessionExists`](crate::Conflict::SessionExists)), and fewer than `most` other
    /// sessions of the account have a widget token
    /// ([`TooManyWidgetTokens`](crate::Conflict::TooManyWidgetTokens)).
    SetWidgetToken {
        /// Account that owns the session.
        account: AccountId,
        /// Id of the session.
        id: SessionId,
        /// SHA-256 of the new token; none removes the token.
        token: Option<Digest>,
        /// Maximum number of sessions of the account with a widget token, this one included.
        most: u32,
    },
    /// Ends a session of an account, if it exists.
    ///
    /// Tokens that the session requested, and devices that it registered, are removed.
    EndSession {
        /// Account that owns the session.
        account: AccountId,
        /// Id of the session.
        id: SessionId,
    },
    /// Ends all sessions of an account except one.
    ///
    /// Tokens that the ended sessions requested, and devices that they registered, are removed.
    EndSessions {
        /// Account that owns the sessions.
        account: AccountId,
        /// Session that stays.
        except: Option<SessionId>,
    },
    /// Removes up to `cap` tokens that expired before `before`. The commit returns their number.
    PurgeTokens {
        /// Tokens whose link expired earlier are removed.
        before: Timestamp,
        /// Maximum number of tokens to remove.
        cap: u32,
    },
    /// Removes up to `cap` sessions that expired before `before` or were last used before `idle`.
    ///
    /// Devices that they registered are removed. The commit returns the number of sessions.
    PurgeSessions {
        /// Sessions with an earlier expiry are removed.
        before: Timestamp,
        /// Sessions with an earlier last use are removed.
        idle: Timestamp,
        /// Maximum number of sessions to remove.
        cap: u32,
    },
}

/// SHA-256 of a token by which a session is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionToken {
    /// The bearer token of the session.
    Bearer(Digest),
    /// The widget token of the session.
    Widget(Digest),
}

/// State that a token must still have when it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenToken {
    /// Number of wrong codes as it was read; none for a link, which wrong codes do not invalidate.
    pub tries: Option<Tries>,
    /// Form that was used before.
    pub used_form: Option<ProofForm>,
}

/// Reads of accounts, with the guarantees that a store must give.
///
/// * **A1** Of two inserts with the same address key one conflicts; keys that differ in any byte do not
///   conflict.
/// * **A2** Every field of an account reads back as it was written, by id and by address key; an update
///   replaces every field, also with none, and increments `version`. A store keeps each time to the
///   microsecond, before 1970 and after 2038 too, and texts of up to 1,024 bytes. An address key has at most
///   254 bytes, a display name 64 characters, a locale 35 bytes.
/// * **A3** An update with an old version conflicts and changes nothing.
/// * **A4** An update to an address key of another account conflicts.
/// * **A5** A token is redeemed once: of 50 concurrent commits exactly one succeeds.
/// * **A6** Each wrong code is counted on every unused token of the kind and address. A token is not redeemed
///   by its code if its number of wrong codes has increased since it was read.
/// * **A7** Open tokens of a kind and address are listed newest first, without used and expired ones, at most
///   32. Those of the same time are ordered by id, the greatest first.
/// * **A8** Ending tokens ends those of the kind and address, or of the kind and account, except the given
///   one, and no others.
/// * **A9** Ending sessions ends those of the account except the given one, and no others.
/// * **A10** Erasing an account removes its tokens and sessions and frees its address.
/// * **A11** Purges remove at most `cap` expired rows, those that expired earliest, and return their number.
/// * **A12** Accounts due for deletion are listed page by page, earliest first, at most `limit` per page.
///   Those of the same time are ordered by id.
/// * **A13** A session is added only if its account still has the version that was read.
/// * **A14** Ending a session removes the tokens that it requested, and no token is added for an ended
///   session.
/// * **A15** Each of the two forms of a token is redeemed once; ending the token also ends the unused form.
/// * **A16** A tally counts every concurrent count up to its limit, starts again after its expiry, and is
///   then purged.
/// * **A17** Of the given bearer tokens, exactly those with a session that has not been ended are returned.
/// * **A18** Every field of tokens, sessions and tallies reads back as it was written, as in A2. A label has
///   at most 200 characters.
/// * **A19** Sessions of an account are listed newest first, those of the same time by id, the greatest first,
///   at most 200; expired ones too.
/// * **A20** A session is found by its bearer token with the present state of its account.
/// * **A21** Links of tokens and bearer tokens of sessions are unique, and all 32 bytes are compared. A token or
///   session with the id, or with the link or bearer token, of another one conflicts and does not replace it.
/// * **A22** A session is found by its bearer token, or by its widget token, with the present state of its account and
///   the account's current couple. It is not found by a token of the other kind, by a token that was replaced or
///   removed, nor after its end.
/// * **A23** An account never has more sessions with a widget token than `most`: of 50 concurrent changes as many
///   succeed as fit. Sessions of other accounts do not count, nor does the session whose token is replaced. Widget
///   tokens are unique, and all 32 bytes are compared.
#[async_trait]
pub trait AccountReads: Send + Sync {
    /// Account with this id.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn account(&self, id: AccountId) -> Result<Option<Account>, Error>;
    /// Account with this address key.
    async fn account_by_email(&self, email: &EmailKey) -> Result<Option<Account>, Error>;
    /// Page of the accounts whose deletion is due at `now`, ordered by due time and id.
    ///
    /// At most `limit` accounts after the due time and id in `after`.
    async fn accounts_to_delete(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<Account>, Error>;
    /// Token with this id, in any state.
    async fn token(&self, id: TokenId) -> Result<Option<Token>, Error>;
    /// Token with this digest of its link token, in any state.
    async fn token_by_link(&self, link: &Digest) -> Result<Option<Token>, Error>;
    /// Unused tokens of a kind and address whose link is valid at `now`, newest first, at most 32.
    async fn open_tokens(
        &self,
        kind: TokenKind,
        email: &EmailKey,
        now: Timestamp,
    ) -> Result<Vec<Token>, Error>;
    /// Session with this digest of its bearer token, and its account.
    async fn session_by_token(&self, token: &Digest) -> Result<Option<(Session, Account)>, Error>;
    /// Session with this token, its account, and the current couple of the account, in one read.
    ///
    /// Each look of a widget calls this, mostly to find that nothing has changed: an adapter uses one statement.
    async fn session_and_couple(
        &self,
        token: &SessionToken,
    ) -> Result<Option<(Session, Account, Option<Couple>)>, Error>;
    /// Sessions of an account, newest first, at most 200.
    async fn sessions_of(&self, account: AccountId) -> Result<Vec<Session>, Error>;
    /// Tally that has not expired at `now`.
    async fn tally(&self, id: TallyId, now: Timestamp) -> Result<Option<Tally>, Error>;
    /// Those of the given bearer tokens whose sessions have not been ended, in any order.
    ///
    /// An expired session may count either way. Each process calls this every second with all sessions of its
    /// live streams: an adapter uses the index on tokens and bounds each statement.
    async fn present_sessions(&self, tokens: &[Digest]) -> Result<Vec<Digest>, Error>;
}
