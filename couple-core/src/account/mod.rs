//! Accounts: who a person is, and how they prove it.
//!
//! Sign-up is e-mail first: it takes an address and a name and writes one job. The account comes into being when
//! the code or link that the job mailed is confirmed, so every account has a proven address, an address that
//! nobody confirmed reserves nothing, and nobody can plant a password on somebody else's.

mod admission;
mod export;
mod hasher;
mod job;
mod limits;
mod password;
mod port;
mod purge;
pub mod rules;
mod service;
mod tally;

pub use export::Export;
pub use hasher::{HashCost, PasswordHasher};
pub use job::{MailJob, MailJobHandler};
pub use limits::{AccountLimits, GuessLimits, MailLimits};
pub use password::{Password, PasswordHash};
pub use port::{AccountChange, AccountReads, SeenToken};
pub use purge::{
    PurgeAccounts, PurgeAccountsHandler, PurgePlan, PurgeReport, PurgeTokens, PurgeTokensHandler,
};
pub use service::{Accounts, ProfilePatch, Proof, SignIn, SignUp, SignedIn, Verification};
pub use tally::{Tally, TallyId};

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, Digest, DisplayName, EmailAddress, Invalid, Label, Locale, SessionId, TimeZoneName, Timestamp,
    TokenId, idempotency::KeyReused,
};

/// A person whose address is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub id: AccountId,
    /// The proven address. Its key is unique.
    pub email: EmailAddress,
    /// What they are called.
    pub display_name: DisplayName,
    /// The language of their mails.
    pub locale: Option<Locale>,
    /// Where their day begins and ends.
    pub time_zone: Option<TimeZoneName>,
    /// `YYYY-MM-DD`.
    pub birthday: Option<String>,
    /// None: they sign in with a mailed code.
    pub password: Option<PasswordHash>,
    /// When the address was confirmed.
    pub created_at: Timestamp,
    /// When the account goes, if its owner asked for that and does not sign in before.
    pub deletion_due: Option<Timestamp>,
    /// Rises with every change; the precondition of the next.
    pub version: i64,
}

/// What a mailed token proves. One of a kind is refused wherever another is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// The address of a new account.
    SignUp,
    /// That the owner of the address signs in.
    SignIn,
    /// That the owner of the address sets a password.
    Password,
    /// The new address of an account.
    Email,
    /// Cancels the changes of address, by the owner of the old address.
    CancelEmail,
}

impl TokenKind {
    /// The kind as stored, and as the prefix of its link tokens.
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
    /// Reads what [`as_str`](Self::as_str) wrote.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::SignUp, Self::SignIn, Self::Password, Self::Email, Self::CancelEmail]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// The two forms of a mailed proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProofForm {
    /// The 6-digit code.
    Code,
    /// The link.
    Link,
}

impl ProofForm {
    /// The form as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Link => "link",
        }
    }
    /// Reads what [`as_str`](Self::as_str) wrote.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        [Self::Code, Self::Link].into_iter().find(|form| form.as_str() == text)
    }
}

/// Wrong codes that were tried on a token, by one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// Codes from the client network that requested the mail.
    Own(i64),
    /// Codes from all other networks.
    Foreign(i64),
}

/// A mailed proof: a 6-digit code and a link, both derived from `id` by the server's key ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What code and link are derived from.
    pub id: TokenId,
    /// What it proves.
    pub kind: TokenKind,
    /// The address it was mailed to, in the same row as what it proves.
    pub email: EmailAddress,
    /// Whose it is; none for a sign-up, and for a decoy that answers for an unknown address.
    pub account: Option<AccountId>,
    /// SHA-256 of the link's token.
    pub link: Digest,
    /// Session that requested it, for a change of address. The token ends with the session.
    pub session: Option<SessionId>,
    /// Client network that requested it, keyed; none of tokens older than this field.
    pub network: Option<Digest>,
    /// Number of wrong codes that were tried from `network`.
    pub tries: i64,
    /// Number of wrong codes that were tried from other networks.
    pub foreign_tries: i64,
    /// The one form that was used, while the other one is left.
    pub used_form: Option<ProofForm>,
    /// The name given at sign-up.
    pub display_name: Option<DisplayName>,
    /// The locale given at sign-up.
    pub locale: Option<Locale>,
    /// When it was mailed.
    pub created_at: Timestamp,
    /// When the code ends.
    pub code_expires_at: Timestamp,
    /// When the link ends.
    pub expires_at: Timestamp,
    /// When it was used or ended by a newer one's use.
    pub used_at: Option<Timestamp>,
}

/// A signed-in device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Which; safe to show.
    pub id: SessionId,
    /// Whose.
    pub account: AccountId,
    /// SHA-256 of the bearer token.
    pub token: Digest,
    /// What the device called itself.
    pub device: Option<Label>,
    /// When it signed in.
    pub created_at: Timestamp,
    /// When its person last proved who they are.
    pub authenticated_at: Timestamp,
    /// When it was last used, to within [`Policy::seen_resolution`].
    pub seen_at: Timestamp,
    /// When it ends however much it is used.
    pub expires_at: Timestamp,
}

impl Session {
    /// Whether it is good at `now`.
    #[must_use]
    pub fn is_live(&self, policy: &Policy, now: Timestamp) -> bool {
        !self.left(policy, now).is_zero()
    }
    /// For how long it is good after `now` if it is not used.
    #[must_use]
    pub fn left(&self, policy: &Policy, now: Timestamp) -> Duration {
        self.expires_at.min(self.seen_at.plus(policy.session_idle)).since(now)
    }
}

/// How long things last. Each number is a default that a host may change.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A mailed code: 10 minutes at most (NIST SP 800-63B-4, 3.1.3).
    pub code_lifetime: Duration,
    /// A mailed link.
    pub link_lifetime: Duration,
    /// A link that sets a password.
    pub password_link_lifetime: Duration,
    /// Wrong codes after which a token accepts no code.
    ///
    /// Counted for the client network that requested the mail, and once for all other networks together.
    pub code_tries: i64,
    /// Wrong passwords for one address within 24 hours, after which only a mailed code or link signs in.
    ///
    /// Counted once for networks from which the address signed in lately, and once for all others. Kept in the store, so that it holds
    /// without a rate limiter.
    pub password_guesses_per_day: i64,
    /// Time for which a client network is known after an address was proven from it.
    pub client_remembered: Duration,
    /// Rate limits.
    pub limits: AccountLimits,
    /// A session that nobody uses.
    pub session_idle: Duration,
    /// A session at most.
    pub session_lifetime: Duration,
    /// How stale `seen_at` may be, so that a request does not cost a write.
    pub seen_resolution: Duration,
    /// How long after proving who they are a person may do what cannot be undone.
    pub recent: Duration,
    /// Between asking for deletion and losing everything.
    pub deletion_grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            code_lifetime: Duration::from_mins(10),
            link_lifetime: Duration::from_hours(24),
            password_link_lifetime: Duration::from_hours(1),
            code_tries: 5,
            password_guesses_per_day: 100,
            client_remembered: Duration::from_hours(24 * 90),
            limits: AccountLimits::default(),
            session_idle: Duration::from_hours(24 * 30),
            session_lifetime: Duration::from_hours(24 * 365),
            seen_resolution: Duration::from_mins(10),
            recent: Duration::from_mins(10),
            deletion_grace: Duration::from_hours(24 * 14),
        }
    }
}

/// What a person may be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A field is not as it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Address and password, or address and code, do not belong together.
    #[error("the address and the password or code do not match")]
    InvalidCredentials,
    /// The code or link is wrong, used or too old; which of them is not told.
    #[error("the code or link is wrong, used or too old")]
    InvalidToken,
    /// The link was used already. Only a client that has the link gets this answer, so guessing reveals nothing.
    #[error("this link was used already")]
    UsedToken,
    /// No session, or one that ended.
    #[error("sign in first")]
    Unauthenticated,
    /// The session is fine but its person proved themselves too long ago.
    #[error("sign in again to do this")]
    RecentSignInRequired,
    /// There is no such session of this person.
    #[error("no such session")]
    SessionNotFound,
    /// Too often.
    #[error("too many tries; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The key came before with another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
}

impl Refusal {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Invalid(_) => "invalid_field",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidToken | Self::UsedToken => "invalid_token",
            Self::Unauthenticated => "unauthenticated",
            Self::RecentSignInRequired => "recent_sign_in_required",
            Self::SessionNotFound => "session_not_found",
            Self::RateLimited(_) => "rate_limited",
            Self::KeyReused => "idempotency_key_reused",
        })
    }
}

impl From<KeyReused> for Refusal {
    fn from(_: KeyReused) -> Self {
        Self::KeyReused
    }
}

impl From<crate::limits::Limited> for Refusal {
    fn from(limited: crate::limits::Limited) -> Self {
        Self::RateLimited(limited.retry_after)
    }
}
