//! What pairing needs of a store, and of the host's users.

use async_trait::async_trait;

use super::{Block, Couple, Invite, InviteState, Profile, Side};
use crate::{AccountId, CoupleId, Digest, EmailKey, Error, InviteId, Label, Timestamp};

/// Changes to invites, couples and blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairingChange {
    /// Adds an open invite. Preconditions, in this order: its inviter is in no couple ([`Paired`](crate::Conflict::Paired));
    /// the inviter's account, where the store has one, still has the address `inviter_email` and no deletion request
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)); fewer than `limit` invites of the inviter are open at
    /// `created_at` ([`TooManyInvites`](crate::Conflict::TooManyInvites)); no open invite, expired or not, has its
    /// [`pair_key`](Invite::pair_key) ([`InviteCrossed`](crate::Conflict::InviteCrossed)).
    InsertInvite {
        /// The new invite.
        invite: Invite,
        /// Maximum number of open invites of the inviter, this one included.
        limit: u32,
    },
    /// Ends an invite. Precondition: it is open ([`InviteClosed`](crate::Conflict::InviteClosed)).
    CloseInvite {
        /// Which.
        id: InviteId,
        /// How.
        to: InviteState,
    },
    /// Withdraws all open invites of an account. No precondition; until the commit ends, no other commit can add an invite
    /// of this account or pair it.
    WithdrawInvitesOf {
        /// Whose.
        inviter: AccountId,
    },
    /// Adds a couple. Preconditions, in this order: neither member is in a couple ([`Paired`](crate::Conflict::Paired));
    /// neither member's account, where the store has one, has a deletion request
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)).
    Found(Couple),
    /// Writes nothing. Precondition: the account is in no couple ([`Paired`](crate::Conflict::Paired)), and is in none until
    /// the commit ends.
    ExpectUnpaired {
        /// Account that was read as unpaired.
        account: AccountId,
    },
    /// Sets title, anniversary or both; a field that is not given keeps its value.
    ///
    /// So concurrent changes of different fields do not overwrite each other. Precondition, here and below: the couple has not ended
    /// ([`CoupleEnded`](crate::Conflict::CoupleEnded)).
    Describe {
        /// The couple.
        id: CoupleId,
        /// None leaves the title, `Some(None)` clears it.
        title: Option<Option<Label>>,
        /// None leaves the anniversary, `Some(None)` clears it.
        anniversary: Option<Option<String>>,
    },
    /// Sets whether one member wants the previous couple's timeline back. Precondition: both members' wishes are `read`
    /// ([`CoupleChanged`](crate::Conflict::CoupleChanged)), because whether this change restores the timeline was decided from
    /// them.
    Restore {
        /// The couple.
        id: CoupleId,
        /// The member whose wish is set.
        side: Side,
        /// The new wish.
        wanted: bool,
        /// Both wishes as they were read, by [`Side`].
        read: [bool; 2],
    },
    /// Ends a couple: its epoch rises and both are free.
    End {
        /// Which.
        id: CoupleId,
        /// When.
        at: Timestamp,
    },
    /// Adds or replaces a block.
    Block(Block),
    /// Removes a block; one that is not there is no conflict.
    Unblock {
        /// Whose.
        blocker: AccountId,
        /// Of whom.
        blocked: AccountId,
    },
    /// Removes invites and blocks of an account that is deleted, and counts them together.
    ///
    /// Up to `cap` invites that it sent, up to `cap` blocks that it made and up to `cap` blocks of it. A count below `cap` means that
    /// nothing is left.
    Forget {
        /// Account that is deleted.
        account: AccountId,
        /// Upper bound of the rows of each kind that one change removes.
        cap: u32,
    },
    /// Removes up to `cap` invites that expired before `before`, whatever their state; counted.
    PurgeInvites {
        /// Invites that end earlier go.
        before: Timestamp,
        /// At most so many.
        cap: u32,
    },
}

/// What pairing reads.
///
/// * **P1** An account is in at most one couple: of 50 foundings at once that share a member one succeeds.
/// * **P2** Both members are in the couple, or neither is.
/// * **P3** An invite ends once: of 50 closings at once one succeeds.
/// * **P4** Of two invites at once that join the same two addresses, in either direction, one conflicts; once it is
///   closed the pair is free again.
/// * **P5** Someone in a couple cannot add an invite.
/// * **P6** Withdrawing takes all open invites of that account and no other's.
/// * **P7** Ending raises the epoch, frees both, keeps the couple readable by id, and happens once.
/// * **P8** What needs a living couple conflicts once it ended.
/// * **P9** Invites and couples read back as they were written, every field.
/// * **P10** Blocks are found by the blocker's id, by the blocker's address then, and in one direction only.
/// * **P11** The couples of an account, ended ones too, are listed, newest first; in the order of their ids they are listed page
///   by page, however many there are.
/// * **P12** A purge removes only expired invites, at most `cap`, and counts them; forgetting removes an account's
///   invites and blocks, at most `cap` of each kind in one change, and repeated changes end.
/// * **P13** Describing writes only the given fields: concurrent changes of title and anniversary are both kept.
/// * **P14** A restore wish is set only while both wishes are as they were read: of 50 concurrent changes after the same
///   reading one succeeds.
/// * **P15** An account never has more than `limit` open invites: 50 concurrent inserts add as many as fit; closed and
///   expired ones do not count.
/// * **P16** An account with a deletion request, or another address than the invite says, cannot add an invite, and an
///   account that has a deletion request cannot be paired: of a concurrent deletion request, invite and founding, no open
///   invite and no new couple remains after the request.
/// * **P17** Expecting an account to be unpaired conflicts when it is in a couple.
#[async_trait]
pub trait PairingReads: Send + Sync {
    /// The couple with this id, ended or not.
    ///
    /// # Errors
    /// The store's, here as in every method below.
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error>;
    /// The couple that an account is in now.
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error>;
    /// All couples that an account was ever in, newest first, at most 200.
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error>;
    /// A page of all couples that an account was ever in: up to `limit`, in the order of their ids, after `after`.
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error>;
    /// The invite with this id, in whatever state.
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error>;
    /// The invite with this short code, in whatever state.
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error>;
    /// The invite with this link, in whatever state.
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error>;
    /// The open invite, expired or not, with this pair key.
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error>;
    /// The open invites of an account, expired ones too, newest first, at most 200.
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error>;
    /// The open invites to an address, expired ones too, newest first, at most 200.
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error>;
    /// Whom an account blocks, newest first, at most 200.
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error>;
    /// Whether `blocker` blocks `blocked`.
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error>;
    /// Whether someone whose address was `blocker` when they blocked blocks `blocked`.
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error>;
}

#[async_trait]
impl<S: PairingReads + ?Sized> PairingReads for std::sync::Arc<S> {
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error> {
        (**self).couple(id).await
    }
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error> {
        (**self).couple_of(account).await
    }
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error> {
        (**self).couples_of(account).await
    }
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error> {
        (**self).couples_page(account, after, limit).await
    }
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error> {
        (**self).invite(id).await
    }
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error> {
        (**self).invite_by_code(code).await
    }
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error> {
        (**self).invite_by_link(link).await
    }
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error> {
        (**self).invite_between(pair_key).await
    }
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error> {
        (**self).invites_of(inviter).await
    }
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error> {
        (**self).invites_to(target).await
    }
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error> {
        (**self).blocks_of(blocker).await
    }
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error> {
        (**self).is_blocked(blocker, blocked).await
    }
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error> {
        (**self).is_blocked_by_email(blocker, blocked).await
    }
}

/// What pairing and the timeline ask of whoever keeps the users: `couple`'s own accounts, or a host's.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// What others may see of a person; none for someone who is gone.
    ///
    /// # Errors
    /// The error of the directory.
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error>;
    /// The person with this proven address.
    ///
    /// # Errors
    /// The error of the directory.
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error>;
    /// Whether a person may pair under an address: the address is still theirs, and they have not asked to be deleted.
    ///
    /// # Errors
    /// The directory's.
    async fn may_pair(&self, person: AccountId, email: &EmailKey) -> Result<bool, Error> {
        Ok(self.find_by_email(email).await? == Some(person))
    }
}
