//! Accounts: identity of users, and the proofs by which they sign in.
//!
//! Sign-up starts with the e-mail address: it takes an address and a name and enqueues one job, which mails a
//! code and a link. Confirming one of them creates the account. So every account has a verified address, an
//! unconfirmed sign-up reserves nothing, and no user can set a password for the address of another person.

mod argon2id;
mod erasure;
mod export;
mod hasher;
mod hashing_pool;
mod job;
mod limits;
mod password;
mod port;
mod purge;
pub mod rules;
mod service;
mod tally;

pub use argon2id::{Argon2id, HashCost};
pub use erasure::Erasures;
pub use export::Export;
pub use hasher::PasswordHasher;
pub use hashing_pool::HashingPool;
pub use job::{MailJob, MailJobHandler};
pub use limits::{AccountLimits, GuessLimits, MailLimits};
pub use password::{Password, PasswordHash};
pub use port::{AccountChange, AccountReads, SeenToken, SessionToken};
pub use purge::{
    PurgeAccounts, PurgeAccountsHandler, PurgePlan, PurgeReport, PurgeTokens, PurgeTokensHandler,
};
pub use service::{Accounts, ProfilePatch, Proof, SignIn, SignUp, SignedIn, Verification};
pub use tally::{Tally, TallyId};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Digest, DisplayName, EmailAddress, Invalid, Label, Locale, SessionId, TimeZoneName, Timestamp,
    TokenId,
};

/// User with a verified e-mail address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Id of the account.
    pub id: AccountId,
    /// Verified e-mail address. Its key is unique.
    pub email: EmailAddress,
    /// Display name.
    pub display_name: DisplayName,
    /// Language of the account's mails.
    pub locale: Option<Locale>,
    /// Time zone of the user's calendar days.
    pub time_zone: Option<TimeZoneName>,
    /// Birthday, `YYYY-MM-DD`.
    pub birthday: Option<String>,
    /// Hash of the password; none if the user signs in with mailed codes.
    pub password: Option<PasswordHash>,
    /// Time at which the address was confirmed.
    pub created_at: Timestamp,
    /// Time of deletion, if the owner requested it; a sign-in before then withdraws the request.
    pub deletion_due: Option<Timestamp>,
    /// Incremented by every change; the precondition of the next change.
    pub version: i64,
}

/// Purpose of a mailed token. A token is valid for its own kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Confirms the address of a new account.
    SignUp,
    /// Signs in the owner of the address.
    SignIn,
    /// Lets the owner of the address set a password.
    Password,
    /// Confirms a new address of an account.
    Email,
    /// Cancels pending changes of address; mailed to the old address.
    CancelEmail,
}

impl TokenKind {
    /// Kind as stored, and as prefix of its link tokens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignUp => "verify",
            Self::SignIn => "signin",
            Self::Password => "reset",
            Self::Email => "email",
            Self::CancelEmail => "cancel",
        }
    }
    /// Parses the result of [`as_str`](Self::as_str).
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::SignUp, Self::SignIn, Self::Password, Self::Email, Self::CancelEmail]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// Form of a mailed token: code or link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProofForm {
    /// 6-digit code that the user types.
    Code,
    /// Link that contains the secret.
    Link,
}

impl ProofForm {
    /// Form as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Link => "link",
        }
    }
    /// Parses the result of [`as_str`](Self::as_str).
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Code, Self::Link].into_iter().find(|form| form.as_str() == text)
    }
}

/// Number of wrong codes for a token, from one group of client networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// Codes from the client network that requested the mail.
    Own(i64),
    /// Codes from all other networks.
    Foreign(i64),
}

/// Mailed token: a 6-digit code and a link, both derived from `id` with the key ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Id from which code and link are derived.
    pub id: TokenId,
    /// Purpose of the token.
    pub kind: TokenKind,
    /// Address to which it was mailed, and which it proves.
    pub email: EmailAddress,
    /// Account of the token; none for a sign-up, and for a token that was created for an unknown address.
    pub account: Option<AccountId>,
    /// SHA-256 of the link token.
    pub link: Digest,
    /// Session that requested a change of address. The end of the session removes the token.
    pub session: Option<SessionId>,
    /// Client network that requested the mail, as a keyed digest; none in rows older than this field.
    pub network: Option<Digest>,
    /// Number of wrong codes from `network`.
    pub tries: i64,
    /// Number of wrong codes from other networks.
    pub foreign_tries: i64,
    /// Form that was used first, code or link. The other form stays usable until `used_at` is set.
    pub used_form: Option<ProofForm>,
    /// Display name of the sign-up.
    pub display_name: Option<DisplayName>,
    /// Locale of the sign-up.
    pub locale: Option<Locale>,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Expiry of the code.
    pub code_expires_at: Timestamp,
    /// Expiry of the link.
    pub expires_at: Timestamp,
    /// Time at which the token was used or ended.
    pub used_at: Option<Timestamp>,
}

/// Session: one device that is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Id of the session; no secret.
    pub id: SessionId,
    /// Account that owns the session.
    pub account: AccountId,
    /// SHA-256 of the bearer token.
    pub token: Digest,
    /// Name that the device gave itself.
    pub device: Option<Label>,
    /// Time of the sign-in.
    pub created_at: Timestamp,
    /// Time at which the user last proved their identity.
    pub authenticated_at: Timestamp,
    /// Time of the last use, accurate to [`AccountPolicy::with_seen_resolution`].
    pub seen_at: Timestamp,
    /// Expiry of the session, however often it is used.
    pub expires_at: Timestamp,
    /// SHA-256 of the session's widget token, with which a widget reads a [glance](crate::glance) and nothing else.
    pub widget_token: Option<Digest>,
}

impl Session {
    /// Whether the session is valid at `now`.
    #[must_use]
    pub fn is_live(&self, policy: &AccountPolicy, now: Timestamp) -> bool {
        !self.left(policy, now).is_zero()
    }
    /// Remaining lifetime at `now` if the session is not used any more; zero if it has expired.
    #[must_use]
    pub fn left(&self, policy: &AccountPolicy, now: Timestamp) -> Duration {
        self.expires_at.min(self.seen_at.plus(policy.session_idle_time)).since(now)
    }
}

crate::options! {
    /// Lifetimes and limits of accounts.
    #[derive(Debug, Clone)]
    pub struct AccountPolicy {
        /// Sets the lifetime of a mailed code: at most 10 minutes (NIST SP 800-63B-4, 3.1.3). Default: 10 min.
        pub(crate) code_lifetime: Duration = Duration::from_mins(10), with_code_lifetime;
        /// Sets the lifetime of a mailed link. Default: 24 h.
        pub(crate) link_lifetime: Duration = Duration::from_hours(24), with_link_lifetime;
        /// Sets the lifetime of a link that signs in or sets a password. Default: 1 h.
        pub(crate) password_link_lifetime: Duration = Duration::from_hours(1), with_password_link_lifetime;
        /// Sets the number of wrong codes after which a token accepts no code. Default: 5.
        ///
        /// Counted separately for the client network that requested the mail and for all other networks together.
        pub(crate) code_tries: i64 = 5, with_code_tries;
        /// Sets the number of wrong passwords per address in 24 hours. Default: 100.
        ///
        /// Beyond it only mailed codes and links sign in.
        ///
        /// Counted separately for networks from which the address signed in recently and for all others. Stored
        /// in the database, so that the limit holds without a rate limiter.
        pub(crate) password_guesses_per_day: i64 = 100, with_password_guesses_per_day;
        /// Sets the number of wrong mailed codes per address in 24 hours. Default: 100.
        ///
        /// Beyond it only mailed links prove the address.
        ///
        /// Counted and stored as wrong passwords are.
        pub(crate) code_guesses_per_day: i64 = 100, with_code_guesses_per_day;
        /// Sets the time for which a client network is known after an address was proven from it. Default: 90 days.
        pub(crate) known_network_time: Duration = Duration::from_hours(24 * 90), with_known_network_time;
        /// Sets the rate limits.
        pub(crate) limits: AccountLimits = AccountLimits::default(), with_limits;
        /// Sets the lifetime of a session that is not used. Default: 30 days.
        pub(crate) session_idle_time: Duration = Duration::from_hours(24 * 30), with_session_idle_time;
        /// Sets the maximum lifetime of a session. Default: 365 days.
        pub(crate) session_lifetime: Duration = Duration::from_hours(24 * 365), with_session_lifetime;
        /// Sets the maximum age of `seen_at` before a request updates it. Saves a write per request. Default: 10 min.
        pub(crate) seen_resolution: Duration = Duration::from_mins(10), with_seen_resolution;
        /// Sets the time after a proof of identity in which a session may perform irreversible actions. Default: 10 min.
        pub(crate) recent_sign_in_time: Duration = Duration::from_mins(10), with_recent_sign_in_time;
        /// Sets the maximum number of sessions of an account that have a widget token. Default: 5.
        pub(crate) max_widget_tokens: u32 = 5, with_max_widget_tokens;
        /// Sets the time between a deletion request and the deletion, also of users of a host ([`Erasures`]).
        ///
        /// Default: 14 days.
        pub(crate) deletion_grace: Duration = Duration::from_hours(24 * 14), with_deletion_grace;
    }
}

impl AccountPolicy {
    /// Lifetime of a mailed code.
    #[must_use]
    pub const fn code_lifetime(&self) -> Duration {
        self.code_lifetime
    }
    /// Number of wrong passwords per address in 24 hours.
    #[must_use]
    pub const fn password_guesses_per_day(&self) -> i64 {
        self.password_guesses_per_day
    }
    /// Maximum number of sessions of an account that have a widget token.
    #[must_use]
    pub const fn max_widget_tokens(&self) -> u32 {
        self.max_widget_tokens
    }
    /// Time for which a client network is known after an address was proven from it.
    #[must_use]
    pub const fn known_network_time(&self) -> Duration {
        self.known_network_time
    }
    /// Time after a proof of identity in which a session may perform irreversible actions.
    #[must_use]
    pub const fn recent_sign_in_time(&self) -> Duration {
        self.recent_sign_in_time
    }
}

/// Error of an account use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The password or code does not match the address.
    #[error("the address and the password or code do not match")]
    InvalidCredentials,
    /// The code or link is wrong, used or expired; the client does not learn which.
    #[error("the code or link is wrong, used or too old")]
    InvalidToken,
    /// The link was used before.
    ///
    /// Only a client that has the link sees this, so it reveals nothing to a guess.
    #[error("this link was used already")]
    UsedToken,
    /// There is no session, or it has ended.
    #[error("sign in first")]
    Unauthenticated,
    /// The session is valid, but its last proof of identity is too old.
    #[error("sign in again to do this")]
    RecentSignInRequired,
    /// The account has no session with this id.
    #[error("no such session")]
    SessionNotFound,
    /// The maximum number of other sessions of the account have a widget token.
    #[error("{0} other sessions have a widget token already; end one of them first")]
    TooManyWidgetTokens(u32),
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many attempts; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
}

impl AccountError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_field",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidToken | Self::UsedToken => "invalid_token",
            Self::Unauthenticated => "unauthenticated",
            Self::RecentSignInRequired => "recent_sign_in_required",
            Self::SessionNotFound => "session_not_found",
            Self::TooManyWidgetTokens(_) => "too_many_widget_tokens",
            Self::RateLimited(_) => "rate_limited",
            Self::KeyReused => "idempotency_key_reused",
        }
    }
}

from_common_refusals!(AccountError);
