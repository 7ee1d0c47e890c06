//! Invites, couples and blocks in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Change, ChangeResult, Conflict, CoupleId, Digest, EmailAddress, EmailKey, Error, InviteId,
    Label, Timestamp,
    pairing::{Block, Couple, Invite, InviteState, PairingChange, PairingReads},
};

use super::{
    FaultyStore, MAX, NIL,
    account::{self, similar},
    column::column,
    date::DateTables,
    table::Table,
};
use crate::{plant::planted_kind, planted};

#[derive(Clone, Default)]
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
            PairingChange::InsertInvite { invite, limit } => self.insert_invite(accounts, invite, limit)?,
            PairingChange::CloseInvite { id, to } => {
                let open = self.invites.get(&id).filter(|invite| {
                    invite.state == InviteState::Open
                        || planted("close-of-a-closed-invite-succeeds")
                        || (planted("close-of-a-declined-invite-succeeds")
                            && invite.state == InviteState::Declined)
                });
                let invite = open.cloned().ok_or(Conflict::InviteClosed(id))?;
                let to = match to {
                    InviteState::Declined if planted("close-stores-declined-as-withdrawn") => {
                        InviteState::Withdrawn
                    }
                    InviteState::Accepted { .. } if planted("close-forgets-who-accepted") => {
                        InviteState::Declined
                    }
                    InviteState::Accepted { by: _, couple }
                        if planted("close-stores-the-inviter-as-acceptor") =>
                    {
                        InviteState::Accepted { by: invite.inviter, couple }
                    }
                    to => to,
                };
                if planted("close-removes-the-invite") {
                    self.invites.remove(&id);
                    self.unindex(&invite);
                } else if planted("close-closes-all-of-the-inviter") {
                    for invite in self.open_of(invite.inviter).cloned().collect::<Vec<_>>() {
                        self.close("close", invite, to);
                    }
                } else {
                    self.close("close", invite, to);
                }
            }
            PairingChange::WithdrawInvitesOf { inviter } => {
                let all = self.invites.values().filter(|invite| {
                    (invite.inviter == inviter || planted("withdraw-of-every-account"))
                        && (invite.state == InviteState::Open || planted("withdraw-changes-closed-ones"))
                        && !(planted("withdraw-of-those-with-a-target-only") && invite.target.is_none())
                        && !(planted("withdraw-of-those-without-a-target-only") && invite.target.is_some())
                });
                let most = if planted("withdraw-of-one-only") { 1 } else { usize::MAX };
                for invite in all.take(most).cloned().collect::<Vec<_>>() {
                    self.close("withdraw", invite, InviteState::Withdrawn);
                }
            }
            PairingChange::ExpectUnpaired { account } => {
                let second = self.members.get(&account).and_then(|id| self.couples.get(id));
                let is_second = second.is_some_and(|couple| couple.members[1] == account);
                if planted("expect-unpaired-always-succeeds")
                    || (planted("expect-unpaired-of-the-first-member-only") && is_second)
                {
                    return Ok(ChangeResult::Applied);
                }
                if planted("expect-unpaired-counts-ended-couples")
                    && self.couples.values().any(|couple| couple.members.contains(&account))
                {
                    return Err(Conflict::Paired(account));
                }
                self.unpaired(account)?;
            }
            PairingChange::Pair(couple) => self.pair(accounts, couple)?,
            PairingChange::Describe { id, title, anniversary } => {
                let mut couple = self.active_or("describe-of-an-ended-couple-succeeds", id)?;
                couple.title = match title {
                    None if planted("describe-clears-a-title-that-is-not-given") => None,
                    Some(None) if planted("describe-keeps-the-title") => couple.title,
                    Some(title) => title,
                    None => couple.title,
                };
                couple.anniversary = match anniversary {
                    None if planted("describe-clears-an-anniversary-that-is-not-given") => None,
                    Some(None) if planted("describe-keeps-the-anniversary") => couple.anniversary,
                    Some(anniversary) => anniversary,
                    None => couple.anniversary,
                };
                if planted("describe-changes-every-couple") {
                    for other in self.couples.values().cloned().collect::<Vec<_>>() {
                        self.put_couple(Couple { title: couple.title.clone(), ..other });
                    }
                }
                self.put_couple(couple);
            }
            PairingChange::Restore { id, side, wanted, read } => {
                let mut couple = self.active_or("restore-of-an-ended-couple-succeeds", id)?;
                let own = side.index();
                let unchanged = match () {
                    () if planted("restore-ignores-the-wishes") => true,
                    () if planted("restore-ignores-the-other-wish") => couple.restore[own] == read[own],
                    () if planted("restore-ignores-the-own-wish") => couple.restore[1 - own] == read[1 - own],
                    () => couple.restore == read,
                };
                if !unchanged {
                    return Err(Conflict::CoupleChanged(id));
                }
                let at = if planted("restore-sets-the-other-side") { 1 - own } else { own };
                couple.restore[at] = wanted || (couple.restore[at] && planted("restore-is-not-taken-back"));
                if planted("restore-sets-both-sides") {
                    couple.restore = [wanted; 2];
                }
                self.put_couple(couple);
            }
            PairingChange::End { id, at, members, .. } => {
                let couple = self.active_or("end-of-an-ended-couple-succeeds", id)?;
                dates.couple_ended(id);
                let members = if planted("end-unpairs-the-given-members") { members } else { couple.members };
                let keeps = [planted("end-keeps-the-first-paired"), planted("end-keeps-the-second-paired")];
                for (member, keeps) in members.into_iter().zip(keeps) {
                    if !keeps {
                        self.members.remove(&member);
                    }
                }
                let epoch = couple.epoch
                    + match () {
                        () if planted("end-keeps-the-epoch") => 0,
                        () if planted("end-adds-two-to-the-epoch") => 2,
                        () => 1,
                    };
                let title = couple.title.clone().filter(|_| !planted("end-clears-the-title"));
                let restore = if planted("end-clears-the-wishes") { [false; 2] } else { couple.restore };
                if planted("end-removes-the-couple") {
                    self.couples.remove(&id);
                } else if !planted("end-writes-no-time") {
                    self.put_couple(Couple { ended_at: Some(at), epoch, title, restore, ..couple });
                }
            }
            PairingChange::Block(block) => {
                let key = (block.blocker, block.blocked);
                if planted("block-replaces-other-blocks") {
                    self.blocks.purge(u32::MAX, |other| other.blocker == block.blocker, |_| ());
                }
                if !(planted("block-keeps-an-existing-one") && self.blocks.has(&key)) {
                    let email = column("block-email").text(block.blocker_email.as_str());
                    let email = match self.blocks.get(&key) {
                        Some(before) if planted("block-keeps-the-address") => before.blocker_email.clone(),
                        _ => EmailKey::from_stored(email),
                    };
                    let at = column("block-at").time(block.at);
                    self.blocks.put(key, Block { blocker_email: email, at, ..block });
                }
            }
            PairingChange::Unblock { blocker, blocked } => match () {
                () if planted("unblock-writes-nothing") => {}
                () if planted("unblock-removes-both-directions") => {
                    self.blocks.remove(&(blocked, blocker));
                    self.blocks.remove(&(blocker, blocked));
                }
                () if planted("unblock-removes-all-of-the-blocker") => {
                    self.blocks.purge(u32::MAX, |block| block.blocker == blocker, |_| ());
                }
                () if planted("unblock-removes-all-of-the-blocked") => {
                    self.blocks.purge(u32::MAX, |block| block.blocked == blocked, |_| ());
                }
                () => drop(self.blocks.remove(&(blocker, blocked))),
            },
            PairingChange::Forget { account, cap } => return Ok(self.forget(account, cap)),
            PairingChange::SetErasure { person, due, before } => {
                let stored = self.erasures.get(&person).copied();
                let before = match before {
                    _ if planted("erasure-ignores-the-time-that-was-read") => stored,
                    None if planted("erasure-replaces-one-that-was-not-read") => stored,
                    Some(_) if planted("erasure-ignores-the-value-that-was-read") && stored.is_some() => {
                        stored
                    }
                    before => before,
                };
                if planted("erasure-cannot-be-withdrawn") && due.is_none() {
                    return self.set_erasure(person, before, stored).map(|()| ChangeResult::Applied);
                }
                if planted("erasure-cannot-be-moved") && due.is_some() && stored.is_some() {
                    return self.set_erasure(person, before, stored).map(|()| ChangeResult::Applied);
                }
                self.set_erasure(person, before, due)?;
            }
            PairingChange::FinishErasure { person, due } => {
                let stored = self.erasures.get(&person).copied();
                let before = match stored {
                    Some(stored) if planted("finish-ignores-the-time-that-was-read") => stored,
                    None if planted("finish-of-no-erasure-succeeds") => return Ok(ChangeResult::Applied),
                    _ => due,
                };
                let left = planted("finish-keeps-the-erasure").then_some(before);
                self.set_erasure(person, Some(before), left)?;
            }
            PairingChange::Anonymize { couple: id, side, with } => {
                let ended = self.couples.get(&id).filter(|couple| {
                    couple.ended_at.is_some() || planted("anonymize-of-an-active-couple-succeeds")
                });
                let mut couple = match ended {
                    None if planted("anonymize-of-a-missing-couple-succeeds") && !self.couples.has(&id) => {
                        return Ok(ChangeResult::Applied);
                    }
                    ended => ended.cloned().ok_or(Conflict::CoupleLives(id))?,
                };
                dates.remove_of(id);
                let side = if planted("anonymize-replaces-the-other-side") { side.other() } else { side };
                let member = couple.member(side);
                if !planted("anonymize-keeps-the-history") {
                    self.history.remove(&(member, id));
                }
                if planted("anonymize-forgets-all-couples-of-the-member") {
                    for key in self.history.iter().map(|(key, ())| *key).collect::<Vec<_>>() {
                        if key.0 == member {
                            self.history.remove(&key);
                        }
                    }
                }
                if planted("anonymize-adds-a-history") {
                    self.history.put((with, id), ());
                }
                if planted("anonymize-increments-the-epoch") {
                    couple.epoch += 1;
                }
                couple.members[side.index()] = with;
                if planted("anonymize-replaces-both-sides") {
                    couple.members = [with; 2];
                }
                if planted("anonymize-replaces-the-member-in-every-couple") {
                    for mut other in self.couples.values().cloned().collect::<Vec<_>>() {
                        if other.members[side.index()] == member {
                            other.members[side.index()] = with;
                            self.put_couple(other);
                        }
                    }
                }
                self.put_couple(couple);
            }
            PairingChange::PurgeInvites { before, cap } => {
                let cap = if planted("purge-invites-ignores-the-cap") { u32::MAX } else { cap };
                let newest = if planted("purge-invites-newest-first") { -1 } else { 1 };
                let purged = self.invites.purge(
                    cap,
                    |invite| {
                        column("purge-invites").is_before(invite.expires_at, before)
                            && match invite.state {
                                InviteState::Open => !planted("purge-invites-keeps-open-ones"),
                                InviteState::Accepted { .. } => !planted("purge-invites-keeps-accepted-ones"),
                                InviteState::Declined => !planted("purge-invites-keeps-declined-ones"),
                                InviteState::Withdrawn => !planted("purge-invites-keeps-withdrawn-ones"),
                            }
                    },
                    |invite| newest * invite.expires_at.micros(),
                );
                for invite in &purged {
                    if planted("purge-invites-keeps-the-pair-taken") {
                        self.by_code.remove(&invite.code);
                        self.by_link.remove(&invite.link);
                    } else if planted("purge-invites-keeps-the-code-taken") {
                        self.unindex(invite);
                        self.by_code.put(invite.code, invite.id);
                    } else {
                        self.unindex(invite);
                    }
                    if let InviteState::Accepted { couple, .. } = invite.state
                        && planted("purge-invites-removes-the-accepted-couple")
                        && let Some(couple) = self.couples.remove(&couple)
                    {
                        for member in couple.members {
                            self.members.remove(&member);
                        }
                    }
                }
                return Ok(account::rows("purge-invites", purged.len()));
            }
        }
        Ok(ChangeResult::Applied)
    }

    fn insert_invite(
        &mut self,
        accounts: &account::AccountTables,
        invite: Invite,
        limit: u32,
    ) -> Result<(), Conflict> {
        if !planted("invite-of-a-paired-account") {
            self.unpaired(invite.inviter)?;
        }
        let changed = accounts.get(invite.inviter).is_some_and(|account| {
            (account.deletion_due.is_some() && !planted("invite-ignores-a-deletion-request"))
                || (*account.email.key() != invite.inviter_email && !planted("invite-ignores-a-new-address"))
        });
        if changed || (self.erasures.has(&invite.inviter) && !planted("invite-ignores-an-erasure")) {
            return Err(Conflict::AccountChanged(invite.inviter));
        }
        if planted("invite-needs-an-account") && accounts.get(invite.inviter).is_none() {
            return Err(Conflict::AccountChanged(invite.inviter));
        }
        let counts = |other: &&Invite| {
            (other.inviter == invite.inviter || planted("invite-limit-counts-every-inviter"))
                && (other.state == InviteState::Open || planted("invite-limit-counts-closed-ones"))
                && column("invite-limit-counts-expired-ones").is_before(invite.created_at, other.expires_at)
                && !(planted("invite-limit-ignores-those-with-a-target") && other.target.is_some())
        };
        let limit = column("invite").limit(limit as usize);
        if self.invites.values().filter(counts).count() >= limit {
            return Err(Conflict::TooManyInvites(invite.inviter));
        }
        let pair = pair_of(&invite);
        if let Some(pair) = pair {
            let taken = self.by_pair.get(&pair).and_then(|id| self.invites.get(id));
            let freed = planted("invite-pair-is-free-after-expiry")
                && taken.is_some_and(|taken| taken.expires_at <= invite.created_at);
            if self.by_pair.has(&pair) && !freed && !planted("invite-pair-is-not-unique") {
                return Err(Conflict::InviteCrossed);
            }
        }
        if (self.invites.has(&invite.id) && !planted("invite-replaces-the-same-id"))
            || (self.by_code.has(&invite.code) && !planted("invite-code-is-not-unique"))
            || (self.by_link.has(&invite.link) && !planted("invite-link-is-not-unique"))
        {
            return Err(Conflict::InviteExists(invite.id));
        }
        if let Some(pair) = pair {
            self.by_pair.put(pair, invite.id);
        }
        self.put_invite(invite);
        Ok(())
    }

    fn put_invite(&mut self, invite: Invite) {
        let mut invite = Invite {
            inviter_email: EmailKey::from_stored(column("invite-email").text(invite.inviter_email.as_str())),
            target: invite.target.map(|target| {
                let key = EmailKey::from_stored(column("invite-target-key").text(target.key().as_str()));
                EmailAddress::from_stored(column("invite-target").text(target.as_str()), key)
            }),
            message: invite
                .message
                .map(|text| Label::from_stored(column("invite-message").text(text.as_str()))),
            code: column("invite-code").digest(invite.code),
            link: column("invite-link").digest(invite.link),
            created_at: column("invite-created-at").time(invite.created_at),
            expires_at: column("invite-expires-at").time(invite.expires_at),
            ..invite
        };
        if planted("invite-digests-are-swapped") {
            std::mem::swap(&mut invite.code, &mut invite.link);
        }
        if planted("invite-times-are-swapped") {
            std::mem::swap(&mut invite.created_at, &mut invite.expires_at);
        }
        if planted("invite-addresses-are-swapped")
            && let Some(target) = &mut invite.target
        {
            let key = std::mem::replace(&mut invite.inviter_email, target.key().clone());
            *target = EmailAddress::from_stored(target.as_str(), key);
        }
        if planted("invite-message-is-lost") {
            invite.message = None;
        }
        self.by_code.put(invite.code, invite.id);
        self.by_link.put(invite.link, invite.id);
        self.invites.put(invite.id, invite);
    }

    fn pair(&mut self, accounts: &account::AccountTables, couple: Couple) -> Result<(), Conflict> {
        let ignored = |side: usize, first: &str, second: &str| planted([first, second][side]);
        for (side, member) in couple.members.into_iter().enumerate() {
            if !ignored(side, "pair-ignores-the-couple-of-the-first", "pair-ignores-the-couple-of-the-second")
            {
                self.unpaired(member)?;
            }
        }
        for (side, member) in couple.members.into_iter().enumerate() {
            let due = accounts.get(member).is_some_and(|account| account.deletion_due.is_some());
            let due = due
                && !ignored(
                    side,
                    "pair-ignores-the-deletion-of-the-first",
                    "pair-ignores-the-deletion-of-the-second",
                );
            let erased = self.erasures.has(&member)
                && !ignored(
                    side,
                    "pair-ignores-the-erasure-of-the-first",
                    "pair-ignores-the-erasure-of-the-second",
                );
            if due || erased {
                return Err(Conflict::AccountChanged(member));
            }
            if !ignored(side, "pair-leaves-the-first-unpaired", "pair-leaves-the-second-unpaired") {
                self.members.put(member, couple.id);
            }
            if !ignored(side, "pair-lacks-the-history-of-the-first", "pair-lacks-the-history-of-the-second") {
                self.history.put((member, couple.id), ());
            }
        }
        self.put_couple(couple);
        Ok(())
    }

    fn forget(&mut self, account: AccountId, cap: u32) -> ChangeResult {
        let cap = if planted("forget-ignores-the-cap") { u32::MAX } else { cap };
        let matches = |invite: &Invite| {
            (invite.inviter == account
                || (planted("forget-removes-invites-that-the-account-accepted")
                    && matches!(invite.state, InviteState::Accepted { by, .. } if by == account)))
                && (invite.state == InviteState::Open || !planted("forget-keeps-closed-invites"))
                && !(invite.state == InviteState::Open && planted("forget-keeps-open-invites"))
        };
        let invites = self.invites.purge(cap, matches, |_| ());
        for invite in &invites {
            if planted("forget-keeps-the-pair-taken") {
                self.by_code.remove(&invite.code);
                self.by_link.remove(&invite.link);
            } else if planted("forget-keeps-the-code-taken") {
                self.unindex(invite);
                self.by_code.put(invite.code, invite.id);
            } else {
                self.unindex(invite);
            }
        }
        let left = |used: usize| {
            if planted("forget-caps-all-kinds-together") {
                cap.saturating_sub(u32::try_from(used).unwrap_or(cap))
            } else {
                cap
            }
        };
        let made = match () {
            () if planted("forget-keeps-blocks-by-the-account") => Vec::new(),
            () => self.blocks.purge(left(invites.len()), |block| block.blocker == account, |_| ()),
        };
        let suffered = match () {
            () if planted("forget-keeps-blocks-of-the-account") => Vec::new(),
            () if planted("forget-removes-all-blocks") => self.blocks.purge(cap, |_| true, |_| ()),
            () => {
                self.blocks.purge(left(invites.len() + made.len()), |block| block.blocked == account, |_| ())
            }
        };
        account::rows("forget", invites.len() + made.len() + suffered.len())
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
            Some(due) => self.erasures.put(person, column("erasure-due").time(due)),
            None => drop(self.erasures.remove(&person)),
        }
        Ok(())
    }

    /// The couple, if it has not ended, or with the fault also if it has.
    fn active_or(&self, fault: &str, id: CoupleId) -> Result<Couple, Conflict> {
        match self.couples.get(&id) {
            Some(couple) if planted(fault) => Ok(couple.clone()),
            _ => self.active_couple(id),
        }
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
        let mut couple = Couple {
            since: column("couple-since").time(couple.since),
            epoch: column("couple-epoch").number(couple.epoch),
            ended_at: couple.ended_at.map(|at| column("couple-ended-at").time(at)),
            title: couple.title.map(|title| Label::from_stored(column("couple-title").text(title.as_str()))),
            head_seq: column("couple-head").number(couple.head_seq),
            read: couple.read.map(|seq| column("couple-read").number(seq)),
            anniversary: couple
                .anniversary
                .filter(|day| !planted("couple-anniversary-before-1970-is-lost") || day.as_str() > "1970"),
            previous: couple.previous.filter(|_| !planted("couple-previous-is-lost")),
            ..couple
        };
        if planted("couple-wishes-are-swapped") {
            couple.restore.reverse();
        }
        if planted("couple-read-positions-are-swapped") {
            couple.read.reverse();
        }
        if planted("couple-members-are-sorted") {
            couple.members.sort_unstable();
        }
        self.couples.put(couple.id, couple);
    }

    fn close(&mut self, what: &str, invite: Invite, to: InviteState) {
        if let Some(pair) = pair_of(&invite)
            && planted_kind(what) != Some("-keeps-the-pair-taken")
        {
            self.by_pair.remove(&pair);
        }
        self.invites.put(invite.id, Invite { state: to, ..invite });
    }

    fn unindex(&mut self, invite: &Invite) {
        self.by_code.remove(&invite.code);
        self.by_link.remove(&invite.link);
        if let Some(pair) = pair_of(invite)
            && self.by_pair.get(&pair) == Some(&invite.id)
        {
            self.by_pair.remove(&pair);
        }
    }

    fn open_of(&self, inviter: AccountId) -> impl DoubleEndedIterator<Item = &Invite> {
        self.invites.values().filter(move |i| i.inviter == inviter && i.state == InviteState::Open)
    }

    /// Invites that a commit closes, as they are now.
    pub(super) fn closed_in(&self, changes: &[Change]) -> Vec<Invite> {
        let closed = changes.iter().filter_map(|change| match change {
            Change::Pairing(PairingChange::CloseInvite { id, .. }) => self.invites.get(id),
            _ => None,
        });
        closed.cloned().collect()
    }

    /// Writes invites without a check.
    pub(super) fn overwrite(&mut self, invites: Vec<Invite>) {
        for invite in invites {
            self.invites.put(invite.id, invite);
        }
        self.invites.end(true);
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        match kind {
            "-invites" => self.invites = Table::default(),
            "-couples" => self.couples = Table::default(),
            "-blocks" => self.blocks = Table::default(),
            "-erasures" => self.erasures = Table::default(),
            "-read-positions" => {
                let couples: Vec<_> = self.couples.values().cloned().collect();
                couples.into_iter().for_each(|one| self.couples.put(one.id, Couple { read: [0, 0], ..one }));
            }
            _ => {}
        }
    }

    pub(super) fn couple_of(&self, account: AccountId) -> Option<&Couple> {
        self.members.get(&account).and_then(|id| self.couples.get(id))
    }

    /// A couple of an account, ended or not.
    pub(super) fn any_couple_of(&self, account: AccountId) -> Option<&Couple> {
        self.couples.values().find(|couple| couple.members.contains(&account))
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
impl PairingReads for FaultyStore {
    async fn couple(&self, id: CoupleId) -> Result<Option<Couple>, Error> {
        let found = self.state()?.pairing.couples.get(&id).cloned();
        if planted("store-couples-are-cached-per-process") {
            return Ok(self.cache().couples.entry(id).or_insert(found).clone());
        }
        Ok(found)
    }
    async fn couple_of(&self, account: AccountId) -> Result<Option<Couple>, Error> {
        let tables = &self.state()?.pairing;
        if planted("couple-of-finds-an-ended-couple") {
            let of = tables.couples.values().filter(|couple| couple.members.contains(&account));
            return Ok(of.max_by_key(|couple| couple.ended_at.is_none()).cloned());
        }
        Ok(tables.couple_of(account).cloned())
    }
    async fn couples_of(&self, account: AccountId) -> Result<Vec<Couple>, Error> {
        let tables = &self.state()?.pairing;
        let range = (account, CoupleId::from_uuid(NIL))..=(account, CoupleId::from_uuid(MAX));
        let of = tables.history.range(range).filter_map(|((_, id), ())| tables.couples.get(id).cloned());
        let of = of.filter(|couple| couple.ended_at.is_some() || !planted("couples-of-lacks-the-active-one"));
        let of = of.filter(|couple| couple.ended_at.is_none() || !planted("couples-of-lacks-ended-ones"));
        Ok(newest("couples-of", of.collect(), |couple| couple.since, |couple| couple.id))
    }
    async fn couples_page(
        &self,
        account: AccountId,
        after: Option<CoupleId>,
        limit: u32,
    ) -> Result<Vec<Couple>, Error> {
        let tables = &self.state()?.pairing;
        let ids = tables
            .history
            .iter()
            .filter(|((of, _), ())| *of == account || planted("couples-page-is-of-every-account"));
        let mut ids: Vec<CoupleId> = ids.map(|((_, id), ())| *id).collect();
        if planted("couples-page-is-newest-first") {
            ids.reverse();
        }
        if planted("couples-page-is-by-time") {
            ids.sort_by_key(|id| tables.couples.get(id).map(|couple| couple.since));
        }
        let is_after = |id: &CoupleId| {
            after.is_none_or(|after| match planted_kind("couples-page") {
                Some("-repeats-the-last") => *id >= after,
                Some("-is-ignored") => true,
                _ => *id > after,
            })
        };
        let page = ids.into_iter().filter(is_after).take(column("couples-page").limit(limit as usize));
        Ok(page.filter_map(|id| tables.couples.get(&id).cloned()).collect())
    }
    async fn invite(&self, id: InviteId) -> Result<Option<Invite>, Error> {
        let invite = self.state()?.pairing.invites.get(&id).cloned();
        Ok(invite
            .filter(|invite| invite.state == InviteState::Open || !planted("closed-invites-are-not-found")))
    }
    async fn invite_by_code(&self, code: &Digest) -> Result<Option<Invite>, Error> {
        let tables = &self.state()?.pairing;
        let invite = tables.by_code.get(code).and_then(|id| tables.invites.get(id)).cloned();
        let invite =
            invite.or_else(|| similar("invite-by-code", code, tables.invites.values(), |invite| invite.code));
        Ok(invite.filter(|invite| {
            invite.state == InviteState::Open || !planted("closed-invites-are-not-found-by-code")
        }))
    }
    async fn invite_by_link(&self, link: &Digest) -> Result<Option<Invite>, Error> {
        let tables = &self.state()?.pairing;
        let invite = tables.by_link.get(link).and_then(|id| tables.invites.get(id)).cloned();
        let invite =
            invite.or_else(|| similar("invite-by-link", link, tables.invites.values(), |invite| invite.link));
        Ok(invite.filter(|invite| {
            invite.state == InviteState::Open || !planted("closed-invites-are-not-found-by-link")
        }))
    }
    async fn invite_between(&self, pair_key: &Digest) -> Result<Option<Invite>, Error> {
        let tables = &self.state()?.pairing;
        let closed = || tables.invites.values().find(|invite| invite.pair_key() == Some(*pair_key)).cloned();
        let open = tables.by_pair.get(pair_key).and_then(|id| tables.invites.get(id)).cloned();
        Ok(if planted("invite-between-finds-closed-ones") { open.or_else(closed) } else { open })
    }
    async fn invites_of(&self, inviter: AccountId) -> Result<Vec<Invite>, Error> {
        let state = self.state()?;
        let of = state.pairing.invites.values().filter(|invite| {
            (invite.inviter == inviter || planted("invites-of-every-account"))
                && (invite.state == InviteState::Open || planted("invites-of-include-closed-ones"))
                && !(planted("invites-of-lack-expired-ones") && invite.expires_at < invite.created_at)
        });
        Ok(newest("invites-of", of.cloned().collect(), |invite| invite.created_at, |invite| invite.id))
    }
    async fn invites_to(&self, target: &EmailKey) -> Result<Vec<Invite>, Error> {
        let state = self.state()?;
        let to = state.pairing.invites.values().filter(|invite| {
            (invite.state == InviteState::Open || planted("invites-to-include-closed-ones"))
                && !(planted("invites-to-lack-expired-ones") && invite.expires_at < invite.created_at)
                && (invite
                    .target
                    .as_ref()
                    .is_some_and(|to| column("invites-to").finds(to.key().as_str(), target.as_str()))
                    || (planted("invites-to-include-those-without-a-target") && invite.target.is_none())
                    || (planted("invites-to-include-those-from-the-address")
                        && invite.inviter_email == *target))
        });
        Ok(newest("invites-to", to.cloned().collect(), |invite| invite.created_at, |invite| invite.id))
    }
    async fn blocks_of(&self, blocker: AccountId) -> Result<Vec<Block>, Error> {
        let state = self.state()?;
        let of = state.pairing.blocks.values().filter(|block| {
            block.blocker == blocker
                || (planted("blocks-of-include-blocks-of-the-account") && block.blocked == blocker)
        });
        Ok(newest("blocks-of", of.cloned().collect(), |block| block.at, |block| block.blocked))
    }
    async fn is_blocked(&self, blocker: AccountId, blocked: AccountId) -> Result<bool, Error> {
        let blocks = &self.state()?.pairing.blocks;
        Ok(blocks.has(&(blocker, blocked))
            || (planted("blocks-hold-in-both-directions") && blocks.has(&(blocked, blocker)))
            || (planted("blocks-hold-for-everyone") && blocks.values().any(|block| block.blocker == blocker)))
    }
    async fn is_blocked_by_email(&self, blocker: &EmailKey, blocked: AccountId) -> Result<bool, Error> {
        let state = self.state()?;
        let owner = |block: &Block| state.account.get(block.blocker).map(|account| account.email.key());
        Ok(state.pairing.blocks.values().any(|block| {
            (if planted("blocks-follow-a-new-address") && owner(block).is_some() {
                owner(block) == Some(blocker)
            } else {
                column("block-by-email").finds(block.blocker_email.as_str(), blocker.as_str())
            }) && (block.blocked == blocked || planted("blocks-by-address-hold-for-everyone"))
        }))
    }
    async fn erasure_of(&self, person: AccountId) -> Result<Option<Timestamp>, Error> {
        Ok(self.state()?.pairing.erasures.get(&person).copied())
    }
    async fn erasures_due(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, AccountId)>,
        limit: u32,
    ) -> Result<Vec<(Timestamp, AccountId)>, Error> {
        let state = self.state()?;
        let all = state.pairing.erasures.iter().map(|(person, due)| (*due, *person));
        let is_due = |due: Timestamp| match planted_kind("erasures") {
            Some("-without-those-due-now") => due < now,
            Some("-with-those-due-later") => true,
            _ => due <= now,
        };
        let is_after = |at: &(Timestamp, AccountId)| {
            after.is_none_or(|after| match planted_kind("erasures") {
                Some("-page-skips-ties") => at.0 > after.0,
                Some("-page-repeats-the-last") => *at >= after,
                Some("-page-is-by-id") => at.1 > after.1,
                Some("-page-is-ignored") => true,
                _ => *at > after,
            })
        };
        let mut due: Vec<_> = all.filter(|at| is_due(at.0) && is_after(at)).collect();
        match planted_kind("erasures") {
            Some("-latest-first") => due.sort_unstable_by_key(|at| std::cmp::Reverse(*at)),
            Some("-by-id") => due.sort_unstable_by_key(|at| at.1),
            Some("-with-unordered-ties") => due.sort_unstable_by_key(|at| (at.0, std::cmp::Reverse(at.1))),
            _ => due.sort_unstable(),
        }
        due.truncate(column("erasures").limit(limit as usize));
        Ok(due)
    }
}

/// Key of the addresses of an invite, or with a fault another one.
fn pair_of(invite: &Invite) -> Option<Digest> {
    let target = invite.target.as_ref()?.key();
    if planted("invite-pair-has-a-direction") {
        return Some(couple_core::digest(&[
            invite.inviter_email.as_str().as_bytes(),
            target.as_str().as_bytes(),
        ]));
    }
    if planted("invite-pair-ignores-the-inviter") {
        return Some(couple_core::digest(&[target.as_str().as_bytes()]));
    }
    invite.pair_key()
}

/// The newest 200 rows, those of the same time by id.
fn newest<T, I: Ord>(
    name: &str,
    mut rows: Vec<T>,
    at: impl Fn(&T) -> Timestamp,
    id: impl Fn(&T) -> I,
) -> Vec<T> {
    rows.sort_by_key(&id);
    match planted_kind(name) {
        Some("-oldest-first") => rows.sort_by_key(&at),
        Some("-with-unordered-ties") => rows.sort_by_key(|row| std::cmp::Reverse(at(row))),
        Some("-by-id") => rows.reverse(),
        _ => rows.sort_by_key(|row| std::cmp::Reverse((at(row), id(row)))),
    }
    if planted_kind(name) == Some("-limit-keeps-the-oldest") {
        rows.drain(..rows.len().saturating_sub(200));
    }
    rows.truncate(column(name).limit(200));
    rows
}
