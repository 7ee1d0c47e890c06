//! Pairing changes and reads that a store supports, and the port to the host's users.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Block, Contact, Couple, Invite, InviteState, Profile, Side};
use crate::{AccountId, CoupleId, Digest, EmailKey, Error, InviteId, Label, Timestamp};

/// Changes to invites, couples and blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairingChange {
    /// Adds an open invite.
    ///
    /// Preconditions, in this order: the inviter is in no couple ([`Paired`](crate::Conflict::Paired)); the
    /// inviter's account, if the store has one, still has the address `inviter_email` and no deletion request,
    /// and the inviter has no request of [erasure](Self::SetErasure)
    /// ([`AccountChanged`](crate::Conflict::AccountChanged)); fewer than `limit` invites of the inviter are
    /// open at `created_at` ([`TooManyInvites`](crate::Conflict::TooManyInvites)); no open invite, expired or
    /// not, has its [`pair_key`](Invite::pair_key) ([`InviteCrossed`](crate::Conflict::InviteCrossed)); no
    /// invite in any state has its id, code or link ([`InviteExists`](crate::Conflict::InviteExists)).
    InsertInvite {
        /// The new invite.
        invite: Invite,
        /// Maximum number of open invites of the inviter, including this one.
        limit: u32,
    },
    /// Closes an invite. Precondition: it is open ([`InviteClosed`](crate::Conflict::InviteClosed)).
    CloseInvite {
        /// Id of the invite.
        id: InviteId,
        /// New state.
        to: InviteState,
    },
    /// Withdraws all open invites of an account. No precondition.
    ///
    /// Until the transaction ends, no other commit can add an invite of this account or pair it.
    WithdrawInvitesOf {
        /// Account that sent the invites.
        inviter: AccountId,
    },
    /// Adds a couple.
    ///
    /// Preconditions, in this order: neither member is in a couple ([`Paired`](crate::Conflict::Paired));
    /// neither member's account, if the store has one, has a deletion request, and neither member has a request
    /// of [erasure](Self::SetErasure) ([`AccountChanged`](crate::Conflict::AccountChanged)).
    Pair(Couple),
    /// Writes nothing. Precondition: the account is in no couple ([`Paired`](crate::Conflict::Paired)).
    ///
    /// Until the transaction ends, no other commit can pair the account.
    ExpectUnpaired {
        /// Account that was read as unpaired.
        account: AccountId,
    },
    /// Sets title, anniversary or both; a field that is not given keeps its value.
    ///
    /// So concurrent changes of different fields do not overwrite each other. Precondition, here and below:
    /// the couple has not ended ([`CoupleEnded`](crate::Conflict::CoupleEnded)).
    Describe {
        /// Id of the couple.
        id: CoupleId,
        /// New title. None keeps the title, `Some(None)` clears it.
        title: Option<Option<Label>>,
        /// New anniversary, `YYYY-MM-DD`. None keeps the anniversary, `Some(None)` clears it.
        anniversary: Option<Option<String>>,
    },
    /// Sets whether one member wants to restore the previous couple's timeline.
    ///
    /// Precondition: the wishes of both members are `read`
    /// ([`CoupleChanged`](crate::Conflict::CoupleChanged)), because the use case decided from them whether
    /// this change restores the timeline.
    Restore {
        /// Id of the couple.
        id: CoupleId,
        /// Member whose wish is set.
        side: Side,
        /// New wish.
        wanted: bool,
        /// Wishes of both members as they were read, by [`Side`].
        read: [bool; 2],
    },
    /// Ends a couple: increments its epoch and unpairs both members.
    End {
        /// Id of the couple.
        id: CoupleId,
        /// Both members, for the [event](crate::events::Event::CoupleEnded). A store unpairs those of its row.
        members: [AccountId; 2],
        /// Time of the end.
        at: Timestamp,
        /// Member who leaves or is deleted, for the event; none if it is not known. A store ignores it.
        by: Option<AccountId>,
    },
    /// Adds or replaces a block.
    Block(Block),
    /// Removes a block, if it exists.
    Unblock {
        /// Account that blocks.
        blocker: AccountId,
        /// Account that is blocked.
        blocked: AccountId,
    },
    /// Removes invites and blocks of a deleted account. The commit returns their total number.
    ///
    /// Removes up to `cap` invites that the account sent, up to `cap` blocks by it and up to `cap` blocks of
    /// it. A number below `cap` means that nothing is left.
    Forget {
        /// Account that is deleted.
        account: AccountId,
        /// Maximum number of rows of each kind that one change removes.
        cap: u32,
    },
    /// Sets the time from which the data of a person without an account in the store is erased.
    ///
    /// None withdraws the request. An account has [its own time](crate::account::Account::deletion_due).
    /// Precondition: the stored time is `before` ([`AccountChanged`](crate::Conflict::AccountChanged)). Until
    /// the transaction ends, no other commit can add an invite of this person or pair it.
    SetErasure {
        /// The person.
        person: AccountId,
        /// New time; none if the data is not to be erased.
        due: Option<Timestamp>,
        /// Time as it was read.
        before: Option<Timestamp>,
    },
    /// Removes the request to erase a person: the last change of an erasure.
    ///
    /// Precondition: the stored time is `due` ([`AccountChanged`](crate::Conflict::AccountChanged)).
    FinishErasure {
        /// The person.
        person: AccountId,
        /// Time as it was read.
        due: Timestamp,
    },
    /// Replaces an erased member of an ended couple with an id that belongs to no person.
    ///
    /// The couple is no longer among the couples of the member, and its [dates](crate::date) are removed: they name
    /// days and persons of both members, and no client can read them after the end. Precondition: the couple has ended
    /// ([`CoupleLives`](crate::Conflict::CoupleLives)).
    Anonymize {
        /// Id of the couple.
        couple: CoupleId,
        /// Member that is replaced.
        side: Side,
        /// Id in place of the member's.
        with: AccountId,
    },
    /// Removes up to `cap` invites that expired before `before`, in any state.
    ///
    /// The commit returns their number.
    PurgeInvites {
        /// Invites with an earlier expiry are removed.
        before: Timestamp,
        /// Maximum number of invites to remove.
        cap: u32,
    },
}

/// Reads of pairing, with the guarantees that a store must give.
///
/// * **P1** An account is in at most one couple: of 50 concurrent commits that add a couple with the same
///   member, one succeeds.
/// * **P2** Both members are in the couple, or neither is.
/// * **P3** An invite is closed once: of 50 concurrent closing commits one succeeds.
/// * **P4** Of two concurrent invites between the same two addresses, in either direction, one conflicts;
///   after it is closed the pair is free again.
/// * **P5** An account in a couple cannot add an invite.
/// * **P6** Withdrawing closes all open invites of the account and no others.
/// * **P7** Ending a couple increments the epoch, unpairs both members, keeps the couple readable by id, and
///   happens once.
/// * **P8** A change that needs an active couple conflicts after the couple's end.
/// * **P9** Every field of invites, couples, blocks and erasures reads back as it was written. A store keeps
///   each time to the microsecond, before 1970 and after 2038 too. An address key has at most 254 bytes, a
///   title or message 200 characters.
/// * **P10** Blocks are found by the blocker's id and by the blocker's address at the time of the block, in
///   one direction only. Address keys are compared byte by byte.
/// * **P11** The couples of an account, including ended ones, are listed newest first. A paged list, in the
///   order of ids, returns all of them.
/// * **P12** A purge removes at most `cap` expired invites, those that expired earliest, in any state, and
///   returns their number; couples stay. Forgetting an account removes its invites in any state and its blocks,
///   at most `cap` of each kind per change, and repeated changes remove everything.
/// * **P13** Describing writes only the given fields: concurrent changes of title and anniversary are both
///   kept.
/// * **P14** A restore wish is set only while both wishes are as they were read: of 50 concurrent changes
///   after the same read one succeeds.
/// * **P15** An account never has more than `limit` open invites: of 50 concurrent inserts as many succeed as
///   fit. Closed and expired invites do not count.
/// * **P16** An account with a deletion request, or with another address than its invite, cannot add the
///   invite, and an account with a deletion request cannot be paired. When a deletion request, an invite and
///   a pairing are concurrent, no open invite and no new couple remains after the request.
/// * **P17** Expecting an account to be unpaired conflicts when the account is in a couple.
/// * **P18** The time of an erasure is set only while it is as it was read: of 50 concurrent changes after the
///   same read one succeeds. A person with such a time cannot add an invite and cannot be paired. Due persons
///   are listed page by page, earliest first.
/// * **P19** After a member of an ended couple was replaced, the couple does not name the member, and is not
///   among the member's couples; everything else is unchanged. A member of an active couple is not replaced.
/// * **P20** Codes and links of invites are unique, and all 32 bytes are compared. An invite with the id, code
///   or link of another one conflicts and does not replace it.
/// * **P21** Open invites of an account, open invites to an address, couples and blocks are listed newest
///   first, at most 200. Those of the same time are ordered by id, blocks by the blocked account, the greatest
///   first.
/// * **P22** Open invites to an address are found by exactly its key, byte by byte.
#[async_trait]
pub trait PairingReads: Send + Sync {
    /// Couple with this id, ended or not.
    ///
    /// # Errors
    /// Errors of the store, as in every method below.
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error>;
    /// Current couple of an account.
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error>;
    /// All couples that an account has been in, newest first, at most 200.
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error>;
    /// Page of all couples that an account has been in: up to `limit` after the id `after`, in id order.
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error>;
    /// Invite with this id, in any state.
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error>;
    /// Invite with this digest of its short code, in any state.
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error>;
    /// Invite with this digest of its link, in any state.
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error>;
    /// Open invite with this pair key, expired or not.
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error>;
    /// Open invites of an account, including expired ones, newest first, at most 200.
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error>;
    /// Open invites to an address, including expired ones, newest first, at most 200.
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error>;
    /// Blocks by an account, newest first, at most 200.
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error>;
    /// Whether `blocker` blocks `blocked`.
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error>;
    /// Whether an account that had the address `blocker` when it blocked `blocked` still blocks it.
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error>;
    /// Time from which the data of a person is erased, as set by [`PairingChange::SetErasure`].
    async fn erasure_of(&self, person: AccountId) -> Result<Option<Timestamp>, Error>;
    /// Page of the persons whose erasure is due at `now`, ordered by due time and id.
    ///
    /// At most `limit` persons after the due time and id in `after`.
    async fn erasures_due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<(Timestamp, AccountId)>, Error>;
}

/// Port to the users, the built-in accounts or those of a host, that pairing, the timeline and invite mails use.
///
/// * **D1** [`find_by_email`](Self::find_by_email) finds a person by the address of [`contact`](Self::contact) only.
/// * **D2** A person who was deleted has neither a profile nor a contact, and is not found by the former address.
/// * **D3** A person with a contact has a profile.
/// * **D4** An id that no person has has neither a profile nor a contact.
/// * **D5** A person [may pair](Self::may_pair) under the address of [`contact`](Self::contact) only.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// Public profile of a person; none if the person does not exist.
    ///
    /// # Errors
    /// Errors of the directory.
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error>;
    /// Contact of a person; none if the person does not exist or has no verified address.
    ///
    /// A person without a contact cannot pair.
    ///
    /// # Errors
    /// Errors of the directory.
    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error>;
    /// Account with this verified address.
    ///
    /// # Errors
    /// Errors of the directory.
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error>;
    /// Whether an account may pair under an address: it still has the address and no deletion request.
    ///
    /// # Errors
    /// Errors of the directory.
    async fn may_pair(&self, person: AccountId, email: &EmailKey) -> Result<bool, Error> {
        Ok(self.find_by_email(email).await? == Some(person))
    }
}

#[async_trait]
impl<D: Directory + ?Sized> Directory for Arc<D> {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        (**self).profile(person).await
    }
    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error> {
        (**self).contact(person).await
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        (**self).find_by_email(email).await
    }
    async fn may_pair(&self, person: AccountId, email: &EmailKey) -> Result<bool, Error> {
        (**self).may_pair(person, email).await
    }
}
