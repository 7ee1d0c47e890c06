//! Pairing: how two people become exactly one couple, and stop being one.
//!
//! ```text
//!                    invite                          accept (the other's open invite)
//!   person ────────────────────────▶ inviting ─────────────────────────────────────────▶ couple, epoch 1
//!     ▲   withdraw, decline, expiry     │  ▲                                                │
//!     └─────────────────────────────────┘  └── invite again                                 │ leave (either one,
//!     ▲                                                                                     │ nobody's consent)
//!     └───────────────────── person, couple ended, epoch 2 ◀────────────────────────────────┘
//!
//!   Two invites by address that cross are one accept: whoever commits second founds the couple.
//! ```
//!
//! The edges are [`rules`]: pure functions from what was read to changes. Whoever races is decided by the
//! preconditions of those changes: an account is in at most one couple, an invite ends once, at most one open
//! invite joins the same two addresses.
//!
//! Nothing here knows about accounts but their ids: a host with users of its own implements [`Directory`] and
//! passes a [`Person`].

mod job;
mod port;
pub mod rules;
mod service;

pub use job::{InviteMail, InviteMailHandler, PurgeInvites, PurgeInvitesHandler};
pub use port::{Directory, PairingChange, PairingReads};
pub use service::{Founded, Inviting, Named, Pairings, Sent};

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    AccountId, CoupleId, Digest, DisplayName, EmailAddress, EmailKey, Invalid, InviteId, Label, Timestamp,
    digest,
    idempotency::KeyReused,
    limits::{Rule, rules as limit},
};

/// One who pairs, as the host vouches for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub id: AccountId,
    /// The address that is proven to be theirs. Without one they cannot pair.
    pub email: Option<EmailAddress>,
}

/// Where an invite is in its life. An open one past `expires_at` has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// Waiting for an answer.
    Open,
    /// Answered with yes.
    Accepted {
        /// By whom.
        by: AccountId,
        /// What came of it.
        couple: CoupleId,
    },
    /// Answered with no.
    Declined,
    /// Taken back, or ended because its sender paired.
    Withdrawn,
}

/// An invitation to pair. Its code and link are derived from its id by the server's key ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Which.
    pub id: InviteId,
    /// Who asks.
    pub inviter: AccountId,
    /// The address of who asks.
    pub inviter_email: EmailKey,
    /// The only address it works for, if it was sent to one.
    pub target: Option<EmailAddress>,
    /// A line from the inviter.
    pub message: Option<Label>,
    /// Keyed digest of the short code.
    pub code: Digest,
    /// SHA-256 of the link's token.
    pub link: Digest,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// How it stands.
    pub state: InviteState,
}

impl Invite {
    /// The key that at most one open invite may have: the unordered pair of addresses it would join.
    #[must_use]
    pub fn pair_key(&self) -> Option<Digest> {
        self.target.as_ref().map(|target| pair_key(&self.inviter_email, target.key()))
    }
    /// Whether it can be answered at `now`.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == InviteState::Open && now < self.expires_at
    }
}

/// The key of an unordered pair of addresses.
#[must_use]
pub fn pair_key(one: &EmailKey, other: &EmailKey) -> Digest {
    let (low, high) = if one <= other { (one, other) } else { (other, one) };
    digest(&[b"pair", low.as_str().as_bytes(), high.as_str().as_bytes()])
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The one who invited.
    First,
    /// The one who accepted.
    Second,
}

impl Side {
    /// 0 or 1: the index into what a couple has two of.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
    /// Reads a stored index.
    #[must_use]
    pub const fn from_index(index: i64) -> Option<Self> {
        match index {
            0 => Some(Self::First),
            1 => Some(Self::Second),
            _ => None,
        }
    }
    /// The other of the two.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Two people and what they share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Couple {
    /// Which.
    pub id: CoupleId,
    /// Who, by [`Side`].
    pub members: [AccountId; 2],
    /// When they paired here.
    pub since: Timestamp,
    /// 1 while it lives; rises when it ends. What carries an older one is dead.
    pub epoch: i64,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What they call themselves.
    pub title: Option<Label>,
    /// `YYYY-MM-DD`.
    pub anniversary: Option<String>,
    /// The couple that the same two were before.
    pub previous: Option<CoupleId>,
    /// Who of them wants to see the previous couple's timeline again, by [`Side`].
    pub restore: [bool; 2],
    /// The `seq` of the newest entry; 0 before the first.
    pub head_seq: i64,
    /// Up to where each has read, by [`Side`].
    pub read: [i64; 2],
}

impl Couple {
    /// Which side an account is.
    #[must_use]
    pub fn side_of(&self, account: AccountId) -> Option<Side> {
        match self.members {
            [first, _] if first == account => Some(Side::First),
            [_, second] if second == account => Some(Side::Second),
            _ => None,
        }
    }
    /// The account on a side.
    #[must_use]
    pub const fn member(&self, side: Side) -> AccountId {
        self.members[side.index()]
    }
    /// Whether both chose to see the previous couple's timeline.
    #[must_use]
    pub const fn restored(&self) -> bool {
        self.restore[0] && self.restore[1]
    }
}

/// One person's wish not to hear from another again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Who does not want to hear.
    pub blocker: AccountId,
    /// Their address then, so that an invite to it can be dropped without asking who they are.
    pub blocker_email: EmailKey,
    /// From whom.
    pub blocked: AccountId,
    /// Since when.
    pub at: Timestamp,
}

/// What the other may see of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What they are called.
    pub display_name: DisplayName,
}

/// Numbers a host may change.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long an invite waits.
    pub invite_lifetime: Duration,
    /// How many invites one person may have waiting.
    pub open_invites: usize,
    /// Mails with an invite to one address, of all inviters.
    pub invite_mail_per_address: Rule,
    /// Mails with an invite of one account to one address.
    pub invite_mail_per_account_and_address: Rule,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            invite_lifetime: Duration::from_hours(24),
            open_invites: 10,
            invite_mail_per_address: limit::INVITE_MAIL_PER_ADDRESS,
            invite_mail_per_account_and_address: limit::INVITE_MAIL_PER_ACCOUNT_AND_ADDRESS,
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
    /// They are in a couple.
    #[error("you are in a couple")]
    AlreadyPaired,
    /// They are in none.
    #[error("you are in no couple")]
    NotPaired,
    /// Wrong, used, withdrawn, somebody else's, blocked: one answer for all.
    #[error("there is no such invite")]
    InviteNotFound,
    /// Their own invite, or one addressed to them, that waited too long.
    #[error("the invite has expired")]
    InviteExpired,
    /// It is their own.
    #[error("this is your own invite")]
    OwnInvite,
    /// They have as many waiting as one may.
    #[error("too many invites are waiting; withdraw one")]
    TooManyInvites,
    /// Their address is not proven.
    #[error("confirm your e-mail address first")]
    Unverified,
    /// These two were no couple before.
    #[error("there is no earlier timeline")]
    NoPrevious,
    /// Nobody of theirs is blocked by that id.
    #[error("no such block")]
    BlockNotFound,
    /// The session's account has asked to be deleted, or has another address by now.
    #[error("sign in again")]
    Unauthenticated,
    /// Too often.
    #[error("too many tries; wait {} s", .0.as_secs().max(1))]
    RateLimited(Duration),
    /// The key came before with another request.
    #[error("this Idempotency-Key came before with another request")]
    KeyReused,
}

impl Refusal {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
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
