//! Pairing: how two accounts become one couple, and how a couple ends.
//!
//! ```text
//!                    invite                          accept (the partner's open invite)
//!   person ────────────────────────▶ inviting ─────────────────────────────────────────▶ couple, epoch 1
//!     ▲   withdraw, decline, expiry     │  ▲                                                │
//!     └─────────────────────────────────┘  └── invite again                                 │ leave (either one,
//!     ▲                                                                                     │ no consent needed)
//!     └───────────────────── person, couple ended, epoch 2 ◀────────────────────────────────┘
//!
//!   Two invites by address that cross count as an accept: the second commit creates the couple.
//! ```
//!
//! Each edge is a function in [`rules`]: a pure function from the state that was read to changes. The
//! preconditions of those changes resolve races: an account is in at most one couple, an invite is closed
//! once, and at most one open invite connects the same two addresses.
//!
//! Pairing uses accounts only by their ids: a host with its own users implements [`Directory`] and passes a
//! [`Person`].

mod job;
mod port;
pub mod rules;
mod service;

pub(crate) use job::MailInvites;
pub use job::{
    AcceptedMail, AcceptedMailHandler, InviteMail, InviteMailHandler, PurgeInvites, PurgeInvitesHandler,
};
pub use port::{Directory, PairingChange, PairingReads};
pub use service::{InviteOutcome, InviteRef, NewInvite, Pairings, SentInvite};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, CoupleId, Digest, DisplayName, EmailAddress, EmailKey, Invalid, InviteId, Label, Locale,
    TimeZoneName, Timestamp, digest,
    limits::{Rule, rules as limit},
};

/// Authenticated user who pairs, as provided by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Id of the account.
    pub id: AccountId,
    /// Verified e-mail address of the account. Without one the account cannot pair.
    pub email: Option<EmailAddress>,
}

/// State of an invite. An open invite whose `expires_at` has passed is expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// Neither accepted, declined nor withdrawn.
    Open,
    /// Accepted; a couple was created.
    Accepted {
        /// Account that accepted.
        by: AccountId,
        /// Couple that was created.
        couple: CoupleId,
    },
    /// Declined by the recipient.
    Declined,
    /// Withdrawn by the inviter, or closed because the inviter paired.
    Withdrawn,
}

/// Invite to pair. Its code and its link are derived from its id and the key ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Id of the invite.
    pub id: InviteId,
    /// Account that invites.
    pub inviter: AccountId,
    /// Key of the inviter's address at the time of the invite.
    pub inviter_email: EmailKey,
    /// Only address that may answer the invite; none if anyone with the code or link may.
    pub target: Option<EmailAddress>,
    /// Message of the inviter.
    pub message: Option<Label>,
    /// Keyed digest of the short code.
    pub code: Digest,
    /// SHA-256 of the link's token.
    pub link: Digest,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of expiry.
    pub expires_at: Timestamp,
    /// State of the invite.
    pub state: InviteState,
}

impl Invite {
    /// Key of the unordered pair of addresses that the invite connects. At most one open invite has it.
    #[must_use]
    pub fn pair_key(&self) -> Option<Digest> {
        self.target.as_ref().map(|target| pair_key(&self.inviter_email, target.key()))
    }
    /// Whether the invite can be answered at `now`.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == InviteState::Open && now < self.expires_at
    }
}

/// Key of an unordered pair of addresses.
#[must_use]
pub fn pair_key(one: &EmailKey, other: &EmailKey) -> Digest {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    digest(&[b"pair", low.as_str().as_bytes(), high.as_str().as_bytes()])
}

/// Side of a couple: one of its two members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The member who sent the invite.
    First,
    /// The member who accepted the invite.
    Second,
}

impl Side {
    /// Index 0 or 1 into arrays with one element per member.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
    /// Side of a stored index; none unless the index is 0 or 1.
    #[must_use]
    pub const fn from_index(index: i64) -> Option<Self> {
        match index {
            0 => Some(Self::First),
            1 => Some(Self::Second),
            _ => None,
        }
    }
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Couple: two accounts and their shared state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Couple {
    /// Id of the couple.
    pub id: CoupleId,
    /// Accounts of the members, by [`Side`].
    pub members: [AccountId; 2],
    /// Time of pairing.
    pub since: Timestamp,
    /// 1 until the couple ends; incremented at its end. Data with an older epoch is invalid.
    pub epoch: i64,
    /// Time at which the couple ended; none while it is active.
    pub ended_at: Option<Timestamp>,
    /// Title that the couple chose.
    pub title: Option<Label>,
    /// Anniversary, `YYYY-MM-DD`.
    pub anniversary: Option<String>,
    /// Latest earlier couple of the same two accounts.
    pub previous: Option<CoupleId>,
    /// Whether each member wants to restore the previous couple's timeline, by [`Side`].
    pub restore: [bool; 2],
    /// `seq` of the newest entry; 0 while the log is empty.
    pub head_seq: i64,
    /// `seq` up to which each member has read, by [`Side`].
    pub read: [i64; 2],
}

impl Couple {
    /// Side of an account; none if it is not a member.
    #[must_use]
    pub fn side_of(&self, account: AccountId) -> Option<Side> {
        match self.members {
            [first, _] if first == account => Some(Side::First),
            [_, second] if second == account => Some(Side::Second),
            _ => None,
        }
    }
    /// Account on a side.
    #[must_use]
    pub const fn member(&self, side: Side) -> AccountId {
        self.members[side.index()]
    }
    /// Whether both members want to restore the previous couple's timeline.
    #[must_use]
    pub const fn restored(&self) -> bool {
        self.restore[0] && self.restore[1]
    }
}

/// Block: one account refuses invites from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Account that blocks.
    pub blocker: AccountId,
    /// Address key of the blocker at the time of the block.
    ///
    /// An invite to it is dropped without looking up the account.
    pub blocker_email: EmailKey,
    /// Account that is blocked.
    pub blocked: AccountId,
    /// Time of the block.
    pub at: Timestamp,
}

/// Data of an account that its partner may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Display name.
    pub display_name: DisplayName,
}

/// Verified address, language and time zone of a person. Not visible to the partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Verified e-mail address.
    pub email: EmailAddress,
    /// Language of mails.
    pub locale: Option<Locale>,
    /// Time zone of the person's calendar days.
    pub time_zone: Option<TimeZoneName>,
}

crate::options! {
    /// Lifetimes and limits of pairing.
    #[derive(Debug, Clone)]
    pub struct PairingPolicy {
        /// Sets the lifetime of an invite. Default: 24 h.
        pub(crate) invite_lifetime: Duration = Duration::from_hours(24), with_invite_lifetime;
        /// Sets the maximum number of open invites per account. Default: 10.
        pub(crate) max_open_invites: usize = 10, with_max_open_invites;
        /// Sets the rate limit of invite mails to one address, from all inviters together. Default: 10 per hour.
        pub(crate) invite_mail_per_address: Rule = limit::INVITE_MAIL_PER_ADDRESS, with_invite_mail_per_address;
        /// Sets the rate limit of invite mails from one account to one address. Default: 3 per hour.
        pub(crate) invite_mail_per_account_and_address: Rule = limit::INVITE_MAIL_PER_ACCOUNT_AND_ADDRESS,
            with_invite_mail_per_account_and_address;
    }
}

/// Error of a pairing use case that a client may see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairingError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The account is in a couple.
    #[error("you are in a couple")]
    AlreadyPaired,
    /// The account is in no couple.
    #[error("you are not in a couple")]
    NotPaired,
    /// The invite does not exist, is closed, is for another address, or is blocked: one refusal for all.
    #[error("there is no such invite")]
    InviteNotFound,
    /// The invite has expired. Only the owner of its target address sees this.
    #[error("the invite has expired")]
    InviteExpired,
    /// The invite was sent by the account itself.
    #[error("this is your own invite")]
    OwnInvite,
    /// The account has reached its limit of open invites.
    #[error("too many invites are waiting; withdraw one")]
    TooManyInvites,
    /// The account has no verified address.
    #[error("confirm your e-mail address first")]
    Unverified,
    /// The two members were no couple before.
    #[error("there is no earlier timeline")]
    NoPrevious,
    /// The account has no block with this id.
    #[error("no such block")]
    BlockNotFound,
    /// The account has requested deletion, or has another address than the session assumes.
    #[error("sign in again")]
    Unauthenticated,
    /// A rate limit is used up; the value is the time until a retry can succeed.
    #[error("too many attempts; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The idempotency key was used for another request.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
}

impl PairingError {
    /// Stable error code of the HTTP contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_field",
            Self::AlreadyPaired => "already_paired",
            Self::NotPaired => "not_paired",
            Self::InviteNotFound => "invite_not_found",
            Self::InviteExpired => "invite_expired",
            Self::OwnInvite => "own_invite",
            Self::TooManyInvites => "too_many_invites",
            Self::Unverified => "unverified",
            Self::NoPrevious => "no_previous",
            Self::BlockNotFound => "block_not_found",
            Self::Unauthenticated => "unauthenticated",
            Self::RateLimited(_) => "rate_limited",
            Self::KeyReused => "idempotency_key_reused",
        }
    }
}

from_common_refusals!(PairingError);
