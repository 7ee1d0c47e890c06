//! The use cases of pairing.

use std::sync::Arc;

use super::{
    Block, Couple, Directory, Invite, InviteMail, InviteState, PairingChange, Person, Policy, Profile,
    Refusal, Side, pair_key,
    rules::{self, Accepted, Accepting, Invited},
};
use crate::{
    AccountId, Call, CoupleId, Decision, EmailAddress, Failure, Invalid, InviteId, Label, Ports, Secret,
    limits::{LimitKey, per_client, rules as limit},
    ports::settled,
    store::Transaction,
    text::parse_day,
    timeline::{NewEntry, system},
};

/// What an invite takes.
#[derive(Debug, Clone, Default)]
pub struct Inviting {
    /// The only address it is for; a mail goes there.
    pub email: Option<String>,
    /// A line for the other.
    pub message: Option<String>,
}

/// How somebody names an invite that they got.
#[derive(Debug, Clone)]
pub enum Named {
    /// The short code.
    Code(Secret<String>),
    /// The link's token.
    Link(Secret<String>),
    /// Its id, for one addressed to them.
    Id(InviteId),
}

impl Named {
    /// The name in the form in which it is compared. A link that was pasted in place of its token or of a code is taken for
    /// what it is; what cannot be a code or a link counts as no try.
    fn normalized(&self) -> Result<Self, Invalid> {
        let linked = |text: &Secret<String>| {
            rules::typed_link(text.expose()).map(|token| Self::Link(Secret::new(token.to_owned())))
        };
        match self {
            Self::Code(text) => linked(text)
                .or_else(|| rules::typed_code(text.expose()).map(|code| Self::Code(Secret::new(code))))
                .ok_or(Invalid::new("code", "invalid")),
            Self::Link(text) => linked(text).ok_or(Invalid::new("token", "invalid")),
            Self::Id(id) => Ok(Self::Id(*id)),
        }
    }
}

/// An invite with what its sender passes on.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The invite.
    pub invite: Invite,
    /// The short code.
    pub code: Secret<String>,
    /// The link.
    pub link: Secret<String>,
}

/// What inviting came to.
#[derive(Debug, Clone)]
pub enum Founded {
    /// It waits for an answer.
    Waiting(Box<Sent>),
    /// The other had invited them: they are a couple now.
    Couple(Box<Couple>),
}

/// What a repeat of an inviting request answers from.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Outcome {
    Waiting(InviteId),
    Couple(CoupleId),
}

type Answer<T> = Result<T, Failure<Refusal>>;

/// Inviting, answering, leaving, and what a couple says of itself.
#[derive(Clone)]
pub struct Pairings {
    ports: Ports,
    directory: Arc<dyn Directory>,
    policy: Policy,
}

impl std::fmt::Debug for Pairings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pairings").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Pairings {
    /// The service over its ports and whoever keeps the users.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, policy: Policy) -> Self {
        Self { ports, directory, policy }
    }

    /// What others may see of a person.
    ///
    /// # Errors
    /// The directory's.
    pub async fn profile(&self, person: AccountId) -> Result<Option<Profile>, crate::Error> {
        self.directory.profile(person).await
    }

    /// Invites somebody: whoever gets code or link, or only the owner of an address. Two who invite each other at the
    /// same time end up as one couple.
    ///
    /// # Errors
    /// [`Refusal::Unverified`], [`Refusal::AlreadyPaired`], [`Refusal::OwnInvite`], [`Refusal::TooManyInvites`],
    /// [`Refusal::Invalid`], [`Refusal::RateLimited`], [`Refusal::KeyReused`].
    pub async fn invite(&self, call: &Call, person: &Person, command: &Inviting) -> Answer<Founded> {
        let now = self.ports.now();
        let email = person.email.as_ref().ok_or(Failure::Refused(Refusal::Unverified))?;
        let target = match &command.email {
            Some(email) => Some(EmailAddress::parse("email", email).map_err(refuse)?),
            None => None,
        };
        let message = match &command.message {
            Some(text) => Some(Label::parse("message", text).map_err(refuse)?),
            None => None,
        };
        let mut work = Transaction::new(&self.ports, call, now);
        if let Some(outcome) = work.replay().await? {
            return self.invited_before(outcome).await;
        }
        self.ports.allow(&[(limit::INVITE_PER_ACCOUNT, account_key(person.id))]).await?;
        if let Some(target) = &target {
            let pair =
                LimitKey::new("account-email", format_args!("{} {}", person.id, target.key().as_str()));
            let wanted = [
                (self.policy.invite_mail_per_account_and_address, pair),
                (self.policy.invite_mail_per_address, LimitKey::email(target.key())),
            ];
            self.ports.allow(&wanted).await?;
        }
        let id = InviteId::new(&*self.ports.clock, &*self.ports.entropy);
        let invite = Invite {
            id,
            inviter: person.id,
            inviter_email: email.key().clone(),
            target,
            message,
            code: rules::code_digest(&self.ports.keys, rules::code_of(&self.ports.keys, id).expose()),
            link: rules::link_digest(rules::link_of(&self.ports.keys, id).expose()),
            created_at: now,
            expires_at: now.plus(self.policy.invite_lifetime),
            state: InviteState::Open,
        };
        loop {
            let store = &self.ports.store;
            // The request was authenticated before this: the person may have asked to be deleted, or changed the address.
            self.require_may_pair(person).await?;
            let couple = store.couple_of(person.id).await?;
            let between = match &invite.target {
                Some(target) => store.invite_between(&pair_key(email.key(), target.key())).await?,
                None => None,
            };
            // It crosses this invite only if its sender still has that address and may pair, and neither blocks the other.
            let between_blocked = match (&between, &invite.target) {
                (Some(between), Some(target)) => {
                    self.blocked(person.id, between.inviter).await?
                        || !self.directory.may_pair(between.inviter, target.key()).await?
                }
                _ => false,
            };
            let read = rules::Inviting {
                couple: couple.as_ref(),
                open: &store.invites_of(person.id).await?,
                between: between.as_ref(),
                between_blocked,
                invite: &invite,
            };
            let (outcome, mut changes) =
                match rules::invite(&read, &self.policy, now).map_err(Failure::Refused)? {
                    Invited::Waiting(changes) => (Outcome::Waiting(id), changes),
                    Invited::Crossing(_) => {
                        match self.decide_accept(person, couple.clone(), between, now).await {
                            Ok(Accepted::Founded(couple, changes)) => (Outcome::Couple(couple.id), changes),
                            Ok(Accepted::Already(couple)) => return Ok(Founded::Couple(couple)),
                            Err(refused) => return Err(refused),
                        }
                    }
                };
            if matches!(outcome, Outcome::Waiting(_)) && invite.target.is_some() {
                changes.push(self.ports.enqueue(&InviteMail { invite: id })?);
            }
            if let Some((_, outcome)) = work.commit(Decision { changes, outcome }).await? {
                return self.invited_before(outcome).await;
            }
            if let Some(outcome) = work.replay().await? {
                return self.invited_before(outcome).await;
            }
            // Lost to a crossing invite: whose commit came first has made us a couple already.
            if let (Some(target), Some(couple)) =
                (&invite.target, self.ports.store.couple_of(person.id).await?)
            {
                let side = rules::seated(Some(&couple), person.id).map_err(Failure::Refused)?.1;
                let partner = self.directory.find_by_email(target.key()).await?;
                if partner == Some(couple.member(side.other())) {
                    return Ok(Founded::Couple(Box::new(couple)));
                }
            }
        }
    }

    async fn invited_before(&self, outcome: Outcome) -> Answer<Founded> {
        let gone = || Failure::Refused(Refusal::InviteNotFound);
        Ok(match outcome {
            Outcome::Waiting(id) => {
                let invite = self.ports.store.invite(id).await?.ok_or_else(gone)?;
                Founded::Waiting(Box::new(self.with_code(invite)))
            }
            Outcome::Couple(id) => Founded::Couple(Box::new(self.still(id).await?)),
        })
    }

    /// The open invites that a person sent, with what to pass on.
    ///
    /// # Errors
    /// The store's.
    pub async fn sent(&self, person: AccountId) -> Answer<Vec<Sent>> {
        let now = self.ports.now();
        let invites = self.ports.store.invites_of(person).await?;
        Ok(invites.into_iter().filter(|i| i.is_open(now)).map(|invite| self.with_code(invite)).collect())
    }

    /// The open invites to a person's address, but those from whom they block.
    ///
    /// # Errors
    /// The store's.
    pub async fn received(&self, person: &Person) -> Answer<Vec<Invite>> {
        let Some(email) = &person.email else { return Ok(Vec::new()) };
        let now = self.ports.now();
        let mut open = Vec::new();
        for invite in self.ports.store.invites_to(email.key()).await? {
            if invite.is_open(now)
                && !self.blocked(person.id, invite.inviter).await?
                && self.directory.may_pair(invite.inviter, &invite.inviter_email).await?
            {
                open.push(invite);
            }
        }
        Ok(open)
    }

    /// Takes an invite back.
    ///
    /// # Errors
    /// [`Refusal::InviteNotFound`].
    pub async fn withdraw(&self, person: AccountId, id: InviteId) -> Answer<()> {
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, self.ports.now());
        loop {
            let invite = self.ports.store.invite(id).await?;
            let changes = rules::withdraw(invite.as_ref(), person).map_err(Failure::Refused)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Who invites, before one says yes.
    ///
    /// # Errors
    /// [`Refusal::InviteNotFound`] and the others of answering.
    pub async fn preview(&self, call: &Call, person: &Person, named: &Named) -> Answer<(Invite, Profile)> {
        let now = self.ports.now();
        let named = &named.normalized().map_err(refuse)?;
        self.allow_code(call, person.id, named).await?;
        let invite = self.find(named).await?;
        let blocked = self.closed_to(person.id, invite.as_ref()).await?;
        let invite = rules::answerable(invite.as_ref(), person, blocked, now).map_err(Failure::Refused)?;
        // Somebody who paired meanwhile has no open invites; between the two commits they look like it.
        let profile = self.directory.profile(invite.inviter).await?;
        Ok((invite.clone(), profile.ok_or(Failure::Refused(Refusal::InviteNotFound))?))
    }

    /// Says yes.
    ///
    /// # Errors
    /// [`Refusal::InviteNotFound`], [`Refusal::InviteExpired`], [`Refusal::OwnInvite`], [`Refusal::AlreadyPaired`],
    /// [`Refusal::Unverified`], [`Refusal::RateLimited`], [`Refusal::KeyReused`].
    pub async fn accept(&self, call: &Call, person: &Person, named: &Named) -> Answer<Couple> {
        let now = self.ports.now();
        let named = &named.normalized().map_err(refuse)?;
        let mut work = Transaction::new(&self.ports, call, now);
        let mut allowed = false;
        loop {
            if let Some(id) = work.replay::<CoupleId, Refusal>().await? {
                return self.still(id).await;
            }
            if !std::mem::replace(&mut allowed, true) {
                self.allow_code(call, person.id, named).await?;
            }
            // The couple before the invite: who is seen in one then sees what became of the invite.
            let couple = self.ports.store.couple_of(person.id).await?;
            let invite = self.find(named).await?;
            let (couple, changes) = match self.decide_accept(person, couple, invite, now).await? {
                Accepted::Already(couple) => return Ok(*couple),
                Accepted::Founded(couple, changes) => (couple, changes),
            };
            if work.commit(Decision { changes, outcome: couple.id }).await?.is_some() {
                return Ok(*couple);
            }
        }
    }

    /// The couple that a repeated request founded, unless it ended since.
    async fn still(&self, id: CoupleId) -> Answer<Couple> {
        let couple = self.ports.store.couple(id).await?.filter(|couple| couple.ended_at.is_none());
        couple.ok_or(Failure::Refused(Refusal::NotPaired))
    }

    async fn decide_accept(
        &self,
        person: &Person,
        mut couple: Option<Couple>,
        invite: Option<Invite>,
        now: crate::Timestamp,
    ) -> Answer<Accepted> {
        let store = &self.ports.store;
        if let (None, Some(Invite { state: InviteState::Accepted { by, couple: id }, .. })) =
            (&couple, &invite)
            && *by == person.id
        {
            // Read again what was accepted between the two reads.
            couple = store.couple(*id).await?.filter(|couple| couple.ended_at.is_none());
        }
        if couple.is_none() {
            self.require_may_pair(person).await?;
        }
        let blocked = self.closed_to(person.id, invite.as_ref()).await?;
        let previous = match &invite {
            Some(invite) => store
                .couples_of(person.id)
                .await?
                .into_iter()
                // One in which nothing was ever said is nobody's to want back.
                .find(|couple| couple.side_of(invite.inviter).is_some() && couple.head_seq > 1)
                .map(|couple| couple.id),
            None => None,
        };
        let id = CoupleId::new(&*self.ports.clock, &*self.ports.entropy);
        let read =
            Accepting { person, couple: couple.as_ref(), invite: invite.as_ref(), blocked, previous, id };
        rules::accept(&read, now).map_err(Failure::Refused)
    }

    /// Says no.
    ///
    /// # Errors
    /// As [`preview`](Self::preview).
    pub async fn decline(&self, call: &Call, person: &Person, named: &Named) -> Answer<()> {
        let now = self.ports.now();
        let named = &named.normalized().map_err(refuse)?;
        self.allow_code(call, person.id, named).await?;
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            let invite = self.find(named).await?;
            let blocked = self.closed_to(person.id, invite.as_ref()).await?;
            let decided = rules::decline(invite.as_ref(), person, blocked, now);
            // Looked at last: the same request, under way at the same time, may have declined it meanwhile.
            if work.replay::<(), Refusal>().await?.is_some() {
                return Ok(());
            }
            let changes = decided.map_err(Failure::Refused)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// The couple that a person is in, and which side they are.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`].
    pub async fn couple_of(&self, person: AccountId) -> Answer<(Couple, Side)> {
        let couple = self.ports.store.couple_of(person).await?;
        let side = rules::seated(couple.as_ref(), person).map_err(Failure::Refused)?.1;
        Ok((couple.ok_or(Failure::Refused(Refusal::NotPaired))?, side))
    }

    /// Sets what a couple calls itself. `None` leaves a field, `Some(None)` clears it.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], [`Refusal::Invalid`].
    pub async fn describe(
        &self,
        person: AccountId,
        title: Option<Option<String>>,
        anniversary: Option<Option<String>>,
    ) -> Answer<Couple> {
        let now = self.ports.now();
        let title = title
            .map(|title| title.map(|title| Label::parse("title", &title)).transpose())
            .transpose()
            .map_err(refuse)?;
        let anniversary = anniversary
            .map(|day| day.map(|day| parse_day("anniversary", &day)).transpose())
            .transpose()
            .map_err(refuse)?;
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, now);
        let mut allowed = false;
        loop {
            let (couple, side) = self.couple_of(person).await?;
            if title.as_ref().is_none_or(|title| *title == couple.title)
                && anniversary.as_ref().is_none_or(|day| *day == couple.anniversary)
            {
                return Ok(couple);
            }
            if !std::mem::replace(&mut allowed, true) {
                self.ports.allow(&[(limit::WRITE_PER_ACCOUNT, account_key(person))]).await?;
            }
            let describe = PairingChange::Describe {
                id: couple.id,
                title: title.clone(),
                anniversary: anniversary.clone(),
            };
            let changes = vec![
                describe.into(),
                rules::append(&couple, NewEntry::system(system::COUPLE_CHANGED, Some(side), None, now)),
            ];
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                // Read again: the partner may have changed the other field meanwhile.
                let couple = self.ports.store.couple(couple.id).await?;
                return couple.ok_or(Failure::Refused(Refusal::NotPaired));
            }
        }
    }

    /// Says whether the previous couple's timeline shall be readable again; it is when both say so.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], [`Refusal::NoPrevious`].
    pub async fn restore(&self, person: AccountId, wanted: bool) -> Answer<Couple> {
        let now = self.ports.now();
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, now);
        self.ports.allow(&[(limit::WRITE_PER_ACCOUNT, account_key(person))]).await?;
        loop {
            let couple = self.ports.store.couple_of(person).await?;
            let (after, changes) =
                rules::restore(couple.as_ref(), person, wanted, now).map_err(Failure::Refused)?;
            if changes.is_empty() {
                return Ok(after);
            }
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(after);
            }
        }
    }

    /// Leaves the couple immediately, without the partner's consent. With `block`, the partner cannot invite again. `meant`
    /// names the couple to leave: a late repeat then never ends another one, and a couple of the person that has ended
    /// already is no error.
    ///
    /// # Errors
    /// [`Refusal::NotPaired`], also when `meant` is not a couple of this person; [`Refusal::KeyReused`].
    pub async fn leave(
        &self,
        call: &Call,
        person: &Person,
        meant: Option<CoupleId>,
        block: bool,
    ) -> Answer<()> {
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            let couple = self.ports.store.couple_of(person.id).await?;
            // After the couple: a repeat that is under way at the same time may have ended it meanwhile.
            if work.replay::<(), Refusal>().await?.is_some() {
                return Ok(());
            }
            let changes = match meant {
                Some(id) if couple.as_ref().is_none_or(|couple| couple.id != id) => {
                    let named = self.ports.store.couple(id).await?;
                    rules::left_already(named.as_ref(), person, block, now)
                }
                _ => rules::leave(couple.as_ref(), person, block, now),
            };
            let changes = changes.map_err(Failure::Refused)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Whom a person blocks.
    ///
    /// # Errors
    /// The store's.
    pub async fn blocks(&self, person: AccountId) -> Answer<Vec<Block>> {
        Ok(self.ports.store.blocks_of(person).await?)
    }

    /// Takes a block back.
    ///
    /// # Errors
    /// [`Refusal::BlockNotFound`].
    pub async fn unblock(&self, person: AccountId, blocked: AccountId) -> Answer<()> {
        if !self.ports.store.is_blocked(person, blocked).await? {
            return Err(Failure::Refused(Refusal::BlockNotFound));
        }
        let unblock = PairingChange::Unblock { blocker: person, blocked };
        settled(self.ports.commit(vec![unblock.into()]).await)?;
        Ok(())
    }

    async fn find(&self, named: &Named) -> Answer<Option<Invite>> {
        let store = &self.ports.store;
        Ok(match named {
            Named::Code(code) => {
                store.invite_by_code(&rules::code_digest(&self.ports.keys, code.expose())).await?
            }
            Named::Link(link) => store.invite_by_link(&rules::link_digest(link.expose())).await?,
            // An id is no secret: it opens only what is addressed to the asker, or is their own.
            Named::Id(id) => store.invite(*id).await?.filter(|invite| invite.target.is_some()),
        })
    }

    /// Whether either blocks the other.
    async fn blocked(&self, one: AccountId, other: AccountId) -> Result<bool, crate::Error> {
        let store = &self.ports.store;
        Ok(store.is_blocked(one, other).await? || store.is_blocked(other, one).await?)
    }

    /// Whether an invite cannot be answered by a person: one of the two blocks the other, or its sender may not pair any more.
    async fn closed_to(&self, person: AccountId, invite: Option<&Invite>) -> Result<bool, crate::Error> {
        let Some(invite) = invite.filter(|invite| invite.state == InviteState::Open) else {
            return Ok(false);
        };
        Ok(self.blocked(person, invite.inviter).await?
            || !self.directory.may_pair(invite.inviter, &invite.inviter_email).await?)
    }

    /// Refuses a person who asked to be deleted, or whose address is not theirs any more.
    async fn require_may_pair(&self, person: &Person) -> Answer<()> {
        let email = person.email.as_ref().ok_or(Failure::Refused(Refusal::Unverified))?;
        if self.directory.may_pair(person.id, email.key()).await? {
            Ok(())
        } else {
            Err(Failure::Refused(Refusal::Unauthenticated))
        }
    }

    async fn allow_code(&self, call: &Call, person: AccountId, named: &Named) -> Answer<()> {
        let mut wanted = per_client(limit::CODE_PER_CLIENT, call.ip);
        wanted.push((limit::CODE_PER_ACCOUNT, account_key(person)));
        if let Named::Code(code) = named {
            let digest = rules::code_digest(&self.ports.keys, code.expose());
            wanted.push((
                limit::TRY_PER_CODE,
                LimitKey::new("code", data_encoding::HEXLOWER.encode(digest.as_bytes())),
            ));
        }
        self.ports.allow(&wanted).await
    }

    fn with_code(&self, invite: Invite) -> Sent {
        let code = rules::code_of(&self.ports.keys, invite.id);
        let link = self.ports.links.to("invite", &rules::link_of(&self.ports.keys, invite.id));
        Sent { invite, code, link }
    }
}

fn account_key(id: AccountId) -> LimitKey {
    LimitKey::new("account", id)
}

fn refuse(invalid: crate::Invalid) -> Failure<Refusal> {
    Failure::Refused(Refusal::Invalid(invalid))
}
