//! Invites, couples and blocks in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, ChangeResult, Conflict, CoupleId, Digest, EmailKey, Error, InviteId, Timestamp,
    account::Account,
    pairing::{Block, Couple, Invite, InviteState, PairingChange, PairingReads},
};

use super::{MAX, MemoryStore, NIL, account, date::DateTables, table::Table};

#[derive(Default)]
pub(super) struct PairingTables {
    invites: Table<InviteId, Invite>,
    by_code: Table<Digest, InviteId>,
    by_link: Table<Digest, InviteId>,
    /// Open invites only.
    by_pair: Table<Digest, InviteId>,
    couples: Table<CoupleId, Couple>,
    /// Current couple of each account.
    members: Table<AccountId, CoupleId>,
    /// All couples that an account has been in.
    history: Table<(AccountId, CoupleId), ()>,
    blocks: Table<(AccountId, AccountId), Block>,
    /// Times from which persons without an account are erased.
    erasures: Table<AccountId, Timestamp>,
}

impl PairingTables {
    pub(super) fn apply(
        &mut self,
        accounts: &account::AccountTables,
        dates: &mut DateTables,
        change: PairingChange,
    ) -> Result<ChangeResult, Conflict> {
        match change {
            PairingChange::InsertInvite { invite, limit } => {
                self.unpaired(invite.inviter)?;
                let moved = |account: &Account| *account.email.key() != invite.inviter_email;
                if self.erasures.has(&invite.inviter)
                    || accounts.get(invite.inviter).is_some_and(|a| a.deletion_due.is_some() || moved(a))
                {
                    return Err(Conflict::AccountChanged(invite.inviter));
                }
                let open = self.open_of(invite.inviter).filter(|open| open.is_open(invite.created_at));
                if open.take(limit as usize).count() >= limit as usize {
                    return Err(Conflict::TooManyInvites(invite.inviter));
                }
                let pair = invite.pair_key();
                if pair.is_some_and(|pair| self.by_pair.has(&pair)) {
                    return Err(Conflict::InviteCrossed);
                }
                let taken = self.by_code.has(&invite.code) || self.by_link.has(&invite.link);
                if self.invites.has(&invite.id) || taken {
                    return Err(Conflict::InviteExists(invite.id));
                }
                if let Some(pair) = pair {
                    self.by_pair.put(pair, invite.id);
                }
                self.by_code.put(invite.code, invite.id);
                self.by_link.put(invite.link, invite.id);
                self.invites.put(invite.id, invite);
            }
            PairingChange::CloseInvite { id, to } => {
                let open = self.invites.get(&id).filter(|invite| invite.state == InviteState::Open);
                let invite = open.cloned().ok_or(Conflict::InviteClosed(id))?;
                self.close(invite, to);
            }
            PairingChange::WithdrawInvitesOf { inviter } => {
                let open: Vec<Invite> = self.open_of(inviter).cloned().collect();
                for invite in open {
                    self.close(invite, InviteState::Withdrawn);
                }
            }
            PairingChange::ExpectUnpaired { account } => self.unpaired(account)?,
            PairingChange::Pair(couple) => {
                for member in couple.members {
                    self.unpaired(member)?;
                }
                for member in couple.members {
                    if self.erasures.has(&member)
                        || accounts.get(member).is_some_and(|account| account.deletion_due.is_some())
                    {
                        return Err(Conflict::AccountChanged(member));
                    }
                    self.members.put(member, couple.id);
                    self.history.put((member, couple.id), ());
                }
                self.couples.put(couple.id, couple);
            }
            PairingChange::Describe { id, title, anniversary } => {
                let mut couple = self.active_couple(id)?;
                couple.title = title.unwrap_or(couple.title);
                couple.anniversary = anniversary.unwrap_or(couple.anniversary);
                self.put_couple(couple);
            }
            PairingChange::Restore { id, side, wanted, read } => {
                let mut couple = self.active_couple(id)?;
                if couple.restore != read {
                    return Err(Conflict::CoupleChanged(id));
                }
                couple.restore[side.index()] = wanted;
                self.put_couple(couple);
            }
            PairingChange::End { id, at, .. } => {
                let couple = self.active_couple(id)?;
                for member in couple.members {
                    self.members.remove(&member);
                }
                self.put_couple(Couple { ended_at: Some(at), epoch: couple.epoch + 1, ..couple });
            }
            PairingChange::Block(block) => self.blocks.put((block.blocker, block.blocked), block),
            PairingChange::Unblock { blocker, blocked } => {
                self.blocks.remove(&(blocker, blocked));
            }
            PairingChange::Forget { account, cap } => {
                let invites = self.invites.purge(cap, |invite| invite.inviter == account, |_| ());
                for invite in &invites {
                    self.unindex(invite);
                }
                let made = self.blocks.purge(cap, |block| block.blocker == account, |_| ());
                let suffered = self.blocks.purge(cap, |block| block.blocked == account, |_| ());
                let forgotten = invites.len() + made.len() + suffered.len();
                return Ok(ChangeResult::RowsAffected(forgotten as u64));
            }
            PairingChange::SetErasure { person, due, before } => self.set_erasure(person, before, due)?,
            PairingChange::FinishErasure { person, due } => self.set_erasure(person, Some(due), None)?,
            PairingChange::Anonymize { couple: id, side, with } => {
                let ended = self.couples.get(&id).filter(|couple| couple.ended_at.is_some());
                let mut couple = ended.cloned().ok_or(Conflict::CoupleLives(id))?;
                self.history.remove(&(couple.member(side), id));
                couple.members[side.index()] = with;
                self.put_couple(couple);
                dates.remove_of(id);
            }
            PairingChange::PurgeInvites { before, cap } => {
                let purged =
                    self.invites.purge(cap, |invite| invite.expires_at < before, |invite| invite.expires_at);
                for invite in &purged {
                    self.unindex(invite);
                }
                return Ok(ChangeResult::RowsAffected(purged.len() as u64));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn unpaired(&self, account: AccountId) -> Result<(), Conflict> {
        if self.members.has(&account) { Err(Conflict::Paired(account)) } else { Ok(()) }
    }

    fn set_erasure(
        &mut self,
        person: AccountId,
        before: Option<Timestamp>,
        due: Option<Timestamp>,
    ) -> Result<(), Conflict> {
        if self.erasures.get(&person) != before.as_ref() {
            return Err(Conflict::AccountChanged(person));
        }
        match due {
            Some(due) => self.erasures.put(person, due),
            None => drop(self.erasures.remove(&person)),
        }
        Ok(())
    }

    /// The couple, if it has not ended.
    pub(super) fn active_couple(&self, id: CoupleId) -> Result<Couple, Conflict> {
        let couple = self.couples.get(&id).filter(|couple| couple.ended_at.is_none());
        couple.cloned().ok_or(Conflict::CoupleEnded(id))
    }
    pub(super) fn couple(&self, id: CoupleId) -> Option<&Couple> {
        self.couples.get(&id)
    }
    pub(super) fn put_couple(&mut self, couple: Couple) {
        self.couples.put(couple.id, couple);
    }

    fn close(&mut self, invite: Invite, to: InviteState) {
        if let Some(pair) = invite.pair_key() {
            self.by_pair.remove(&pair);
        }
        self.invites.put(invite.id, Invite { state: to, ..invite });
    }

    fn unindex(&mut self, invite: &Invite) {
        self.by_code.remove(&invite.code);
        self.by_link.remove(&invite.link);
        if let Some(pair) = invite.pair_key()
            && self.by_pair.get(&pair) == Some(&invite.id)
        {
            self.by_pair.remove(&pair);
        }
    }

    fn open_of(&self, inviter: AccountId) -> impl DoubleEndedIterator<Item = &Invite> {
        self.invites.values().filter(move |i| i.inviter == inviter && i.state == InviteState::Open)
    }

    pub(super) fn current_couple(&self, account: AccountId) -> Option<&Couple> {
        self.members.get(&account).and_then(|id| self.couples.get(id))
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.invites.end(keep);
        self.by_code.end(keep);
        self.by_link.end(keep);
        self.by_pair.end(keep);
        self.couples.end(keep);
        self.members.end(keep);
        self.history.end(keep);
        self.blocks.end(keep);
        self.erasures.end(keep);
    }
}

#[async_trait]
impl PairingReads for MemoryStore {
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error> {
        Ok(self.state().pairing.couples.get(&id).cloned())
    }
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error> {
        Ok(self.state().pairing.current_couple(account).cloned())
    }
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error> {
        let tables = &self.state().pairing;
        let range = (account, CoupleId::from_uuid(NIL))..=(account, CoupleId::from_uuid(MAX));
        let of = tables.history.range(range).filter_map(|((_, id), ())| tables.couples.get(id).cloned());
        Ok(newest(of.collect(), |couple| (couple.since, couple.id)))
    }
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error> {
        let tables = &self.state().pairing;
        let range = (account, CoupleId::from_uuid(NIL))..=(account, CoupleId::from_uuid(MAX));
        let ids = tables.history.range(range).map(|((_, id), ())| *id);
        let page = ids.filter(|id| after.is_none_or(|after| *id > after)).take(limit as usize);
        Ok(page.filter_map(|id| tables.couples.get(&id).cloned()).collect())
    }
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error> {
        Ok(self.state().pairing.invites.get(&id).cloned())
    }
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error> {
        let tables = &self.state().pairing;
        Ok(tables.by_code.get(code).and_then(|id| tables.invites.get(id)).cloned())
    }
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error> {
        let tables = &self.state().pairing;
        Ok(tables.by_link.get(link).and_then(|id| tables.invites.get(id)).cloned())
    }
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error> {
        let tables = &self.state().pairing;
        Ok(tables.by_pair.get(pair_key).and_then(|id| tables.invites.get(id)).cloned())
    }
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error> {
        let of = self.state().pairing.open_of(inviter).cloned().collect();
        Ok(newest(of, |invite| (invite.created_at, invite.id)))
    }
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error> {
        let to = |invite: &&Invite| {
            invite.state == InviteState::Open && invite.target.as_ref().is_some_and(|t| t.key() == target)
        };
        let to = self.state().pairing.invites.values().filter(to).cloned().collect();
        Ok(newest(to, |invite| (invite.created_at, invite.id)))
    }
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error> {
        let range = (blocker, AccountId::from_uuid(NIL))..=(blocker, AccountId::from_uuid(MAX));
        let of = self.state().pairing.blocks.range(range).map(|(_, block)| block.clone()).collect();
        Ok(newest(of, |block| (block.at, block.blocked)))
    }
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error> {
        Ok(self.state().pairing.blocks.has(&(blocker, blocked)))
    }
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error> {
        let state = self.state();
        Ok(state
            .pairing
            .blocks
            .values()
            .any(|block| block.blocker_email == *blocker && block.blocked == blocked))
    }
    async fn erasure_of(&self, person: AccountId) -> Result<Option<Timestamp>, Error> {
        Ok(self.state().pairing.erasures.get(&person).copied())
    }
    async fn erasures_due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<(Timestamp, AccountId)>, Error> {
        let state = self.state();
        let all = state.pairing.erasures.iter().map(|(person, due)| (*due, *person));
        let is_on_page = |at: &(Timestamp, AccountId)| at.0 <= now && after.is_none_or(|after| *at > after);
        let mut due: Vec<_> = all.filter(is_on_page).collect();
        due.sort_unstable();
        due.truncate(limit as usize);
        Ok(due)
    }
}

fn newest<T, K: Ord>(mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    rows.truncate(200);
    rows
}
