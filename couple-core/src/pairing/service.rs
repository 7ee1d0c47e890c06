//! Use cases of pairing.

use std::sync::Arc;

use super::{
    Block, Couple, Directory, Invite, InviteMail, InviteState, PairingChange, PairingError, PairingPolicy,
    Person, Profile, Side, pair_key,
    rules::{self, AcceptDecision, AcceptFacts, InviteDecision},
};
use crate::{
    AccountId, CoupleId, Decision, EmailAddress, Failure, Invalid, InviteId, Label, Ports, RequestContext,
    Secret,
    limits::{LimitKey, per_client, rules as limit},
    ports::without_conflict,
    store::UnitOfWork,
    text::parse_day,
    timeline::{NewEntry, system},
};

/// Request to create an invite.
#[derive(Debug, Clone, Default)]
pub struct NewInvite {
    /// Only address that may answer the invite, and to which it is mailed; none for an invite to pass on.
    pub email: Option<String>,
    /// Message for the recipient.
    pub message: Option<String>,
}

/// Reference to a received invite.
#[derive(Debug, Clone)]
pub enum InviteRef {
    /// The short code.
    Code(Secret<String>),
    /// The link token, or the link with the token.
    Link(Secret<String>),
    /// The id of an invite to the account's own address.
    Id(InviteId),
}

impl InviteRef {
    /// Normalises the reference for comparison.
    ///
    /// Recognises a link in place of its token or of a code. A text that can be neither a code nor a link is
    /// invalid and does not count as an attempt.
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

/// Invite with the code and the link that its sender passes on.
#[derive(Debug, Clone)]
pub struct SentInvite {
    /// The invite.
    pub invite: Invite,
    /// The short code.
    pub code: Secret<String>,
    /// The link.
    pub link: Secret<String>,
}

/// Result of an invite request.
#[derive(Debug, Clone)]
pub enum InviteOutcome {
    /// The invite waits for an answer.
    Pending(Box<SentInvite>),
    /// The target had already invited the inviter: the two are a couple now.
    Paired(Box<Couple>),
}

/// Recorded outcome of an invite request.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum RecordedOutcome {
    Waiting(InviteId),
    Couple(CoupleId),
}

type PairingResult<T> = Result<T, Failure<PairingError>>;

/// Service for invites, couples and blocks.
#[derive(Clone)]
pub struct Pairings {
    ports: Ports,
    directory: Arc<dyn Directory>,
    policy: PairingPolicy,
}

impl std::fmt::Debug for Pairings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pairings").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Pairings {
    /// Creates the service.
    #[must_use]
    pub fn new(ports: Ports, directory: Arc<dyn Directory>, policy: PairingPolicy) -> Self {
        Self { ports, directory, policy }
    }

    /// Public profile of an account.
    ///
    /// # Errors
    /// Errors of the directory.
    pub async fn profile(&self, person: AccountId) -> Result<Option<Profile>, crate::Error> {
        self.directory.profile(person).await
    }

    /// Creates an invite, for the owner of an address or for anyone who gets its code or link.
    ///
    /// Two accounts that invite each other concurrently become one couple.
    ///
    /// # Errors
    /// [`PairingError::Unverified`], [`PairingError::AlreadyPaired`], [`PairingError::OwnInvite`], [`PairingError::TooManyInvites`],
    /// [`PairingError::Invalid`], [`PairingError::RateLimited`], [`PairingError::KeyReused`].
    pub async fn invite(
        &self,
        call: &RequestContext,
        person: &Person,
        command: &NewInvite,
    ) -> PairingResult<InviteOutcome> {
        let now = self.ports.now();
        let email = person.email.as_ref().ok_or(Failure::Refused(PairingError::Unverified))?;
        let target = match &command.email {
            Some(email) => Some(EmailAddress::parse("email", email).map_err(refuse)?),
            None => None,
        };
        let message = match &command.message {
            Some(text) => Some(Label::parse("message", text).map_err(refuse)?),
            None => None,
        };
        let mut work = UnitOfWork::new(&self.ports, call, now);
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
            // Check again after authentication: the account may have requested deletion or changed its
            // address since.
            self.require_may_pair(person).await?;
            let couple = store.couple_of(person.id).await?;
            let between = match &invite.target {
                Some(target) => store.invite_between(&pair_key(email.key(), target.key())).await?,
                None => None,
            };
            // The invites cross only if the sender of the other one still has that address and may pair, and
            // neither account blocks the other.
            let between_blocked = match (&between, &invite.target) {
                (Some(between), Some(target)) => {
                    self.blocked(person.id, between.inviter).await?
                        || !self.directory.may_pair(between.inviter, target.key()).await?
                }
                _ => false,
            };
            let read = rules::InviteFacts {
                couple: couple.as_ref(),
                open: &store.invites_of(person.id).await?,
                between: between.as_ref(),
                between_blocked,
                invite: &invite,
            };
            let (outcome, mut changes) =
                match rules::invite(&read, &self.policy, now).map_err(Failure::Refused)? {
                    InviteDecision::Waiting(changes) => (RecordedOutcome::Waiting(id), changes),
                    InviteDecision::Crossing(_) => {
                        match self.decide_accept(person, couple.clone(), between, now).await {
                            Ok(AcceptDecision::Paired(couple, changes)) => {
                                (RecordedOutcome::Couple(couple.id), changes)
                            }
                            Ok(AcceptDecision::AlreadyPaired(couple)) => {
                                return Ok(InviteOutcome::Paired(couple));
                            }
                            Err(refused) => return Err(refused),
                        }
                    }
                };
            if matches!(outcome, RecordedOutcome::Waiting(_)) && invite.target.is_some() {
                changes.push(self.ports.enqueue(&InviteMail { invite: id })?);
            }
            if let Some((_, outcome)) = work.commit(Decision { changes, outcome }).await? {
                return self.invited_before(outcome).await;
            }
            if let Some(outcome) = work.replay().await? {
                return self.invited_before(outcome).await;
            }
            // A crossing invite that committed first has already created the couple.
            if let (Some(target), Some(couple)) =
                (&invite.target, self.ports.store.couple_of(person.id).await?)
            {
                let side = rules::require_member(Some(&couple), person.id).map_err(Failure::Refused)?.1;
                let partner = self.directory.find_by_email(target.key()).await?;
                if partner == Some(couple.member(side.other())) {
                    return Ok(InviteOutcome::Paired(Box::new(couple)));
                }
            }
        }
    }

    async fn invited_before(&self, outcome: RecordedOutcome) -> PairingResult<InviteOutcome> {
        let gone = || Failure::Refused(PairingError::InviteNotFound);
        Ok(match outcome {
            RecordedOutcome::Waiting(id) => {
                let invite = self.ports.store.invite(id).await?.ok_or_else(gone)?;
                InviteOutcome::Pending(Box::new(self.with_code(invite)))
            }
            RecordedOutcome::Couple(id) => InviteOutcome::Paired(Box::new(self.still(id).await?)),
        })
    }

    /// Open invites that an account sent, with their codes and links.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn sent(&self, person: AccountId) -> PairingResult<Vec<SentInvite>> {
        let now = self.ports.now();
        let invites = self.ports.store.invites_of(person).await?;
        Ok(invites.into_iter().filter(|i| i.is_open(now)).map(|invite| self.with_code(invite)).collect())
    }

    /// Open invites to the address of an account, without those of blocked accounts.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn received(&self, person: &Person) -> PairingResult<Vec<Invite>> {
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

    /// Withdraws an invite.
    ///
    /// # Errors
    /// [`PairingError::InviteNotFound`].
    pub async fn withdraw(&self, person: AccountId, id: InviteId) -> PairingResult<()> {
        let call = RequestContext::default();
        let mut work = UnitOfWork::new(&self.ports, &call, self.ports.now());
        loop {
            let invite = self.ports.store.invite(id).await?;
            let changes = rules::withdraw(invite.as_ref(), person).map_err(Failure::Refused)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Preview of an invite: the invite and its sender's profile.
    ///
    /// # Errors
    /// [`PairingError::InviteNotFound`], [`PairingError::InviteExpired`], [`PairingError::OwnInvite`], [`PairingError::Invalid`],
    /// [`PairingError::Unverified`], [`PairingError::RateLimited`].
    pub async fn preview(
        &self,
        call: &RequestContext,
        person: &Person,
        named: &InviteRef,
    ) -> PairingResult<(Invite, Profile)> {
        let now = self.ports.now();
        let named = &named.normalized().map_err(refuse)?;
        self.allow_code(call, person.id, named).await?;
        let invite = self.find(named).await?;
        let blocked = self.is_closed_to(person.id, invite.as_ref()).await?;
        let invite = rules::answerable(invite.as_ref(), person, blocked, now).map_err(Failure::Refused)?;
        // No check whether the inviter is in a couple: the commit that pairs an account also closes its open
        // invites.
        let profile = self.directory.profile(invite.inviter).await?;
        Ok((invite.clone(), profile.ok_or(Failure::Refused(PairingError::InviteNotFound))?))
    }

    /// Accepts an invite: the two accounts become a couple.
    ///
    /// # Errors
    /// [`PairingError::InviteNotFound`], [`PairingError::InviteExpired`], [`PairingError::OwnInvite`], [`PairingError::AlreadyPaired`],
    /// [`PairingError::Unverified`], [`PairingError::RateLimited`], [`PairingError::KeyReused`].
    pub async fn accept(
        &self,
        call: &RequestContext,
        person: &Person,
        named: &InviteRef,
    ) -> PairingResult<Couple> {
        let now = self.ports.now();
        let named = &named.normalized().map_err(refuse)?;
        let mut work = UnitOfWork::new(&self.ports, call, now);
        let mut allowed = false;
        loop {
            if let Some(id) = work.replay::<CoupleId, PairingError>().await? {
                return self.still(id).await;
            }
            if !std::mem::replace(&mut allowed, true) {
                self.allow_code(call, person.id, named).await?;
            }
            // Read the couple before the invite: a read that finds the couple then also finds the invite
            // closed.
            let couple = self.ports.store.couple_of(person.id).await?;
            let invite = self.find(named).await?;
            let (couple, changes) = match self.decide_accept(person, couple, invite, now).await? {
                AcceptDecision::AlreadyPaired(couple) => return Ok(*couple),
                AcceptDecision::Paired(couple, changes) => (couple, changes),
            };
            if work.commit(Decision { changes, outcome: couple.id }).await?.is_some() {
                return Ok(*couple);
            }
        }
    }

    /// Couple that a repeated request created, unless it has ended since.
    async fn still(&self, id: CoupleId) -> PairingResult<Couple> {
        let couple = self.ports.store.couple(id).await?.filter(|couple| couple.ended_at.is_none());
        couple.ok_or(Failure::Refused(PairingError::NotPaired))
    }

    async fn decide_accept(
        &self,
        person: &Person,
        mut couple: Option<Couple>,
        invite: Option<Invite>,
        now: crate::Timestamp,
    ) -> PairingResult<AcceptDecision> {
        let store = &self.ports.store;
        if let (None, Some(Invite { state: InviteState::Accepted { by, couple: id }, .. })) =
            (&couple, &invite)
            && *by == person.id
        {
            // Read again: the invite was accepted between the two reads.
            couple = store.couple(*id).await?.filter(|couple| couple.ended_at.is_none());
        }
        if couple.is_none() {
            self.require_may_pair(person).await?;
        }
        let blocked = self.is_closed_to(person.id, invite.as_ref()).await?;
        let previous = match &invite {
            Some(invite) => store
                .couples_of(person.id)
                .await?
                .into_iter()
                // A couple whose log holds only the entry of its pairing has no timeline to restore.
                .find(|couple| couple.side_of(invite.inviter).is_some() && couple.head_seq > 1)
                .map(|couple| couple.id),
            None => None,
        };
        let id = CoupleId::new(&*self.ports.clock, &*self.ports.entropy);
        let read =
            AcceptFacts { person, couple: couple.as_ref(), invite: invite.as_ref(), blocked, previous, id };
        rules::accept(&read, now).map_err(Failure::Refused)
    }

    /// Declines an invite.
    ///
    /// # Errors
    /// The same as for [`preview`](Self::preview), and [`PairingError::KeyReused`].
    pub async fn decline(
        &self,
        call: &RequestContext,
        person: &Person,
        named: &InviteRef,
    ) -> PairingResult<()> {
        let now = self.ports.now();
        let named = &named.normalized().map_err(refuse)?;
        self.allow_code(call, person.id, named).await?;
        let mut work = UnitOfWork::new(&self.ports, call, now);
        loop {
            let invite = self.find(named).await?;
            let blocked = self.is_closed_to(person.id, invite.as_ref()).await?;
            let decided = rules::decline(invite.as_ref(), person, blocked, now);
            // Read the recorded outcome last: the same request, running concurrently, may have declined the
            // invite.
            if work.replay::<(), PairingError>().await?.is_some() {
                return Ok(());
            }
            let changes = decided.map_err(Failure::Refused)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Current couple of an account, and the account's side.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`].
    pub async fn couple_of(&self, person: AccountId) -> PairingResult<(Couple, Side)> {
        let couple = self.ports.store.couple_of(person).await?;
        let side = rules::require_member(couple.as_ref(), person).map_err(Failure::Refused)?.1;
        Ok((couple.ok_or(Failure::Refused(PairingError::NotPaired))?, side))
    }

    /// Sets title and anniversary. `None` keeps a field, `Some(None)` clears it.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`], [`PairingError::Invalid`].
    pub async fn describe(
        &self,
        person: AccountId,
        title: Option<Option<String>>,
        anniversary: Option<Option<String>>,
    ) -> PairingResult<Couple> {
        let now = self.ports.now();
        let title = title
            .map(|title| title.map(|title| Label::parse("title", &title)).transpose())
            .transpose()
            .map_err(refuse)?;
        let anniversary = anniversary
            .map(|day| day.map(|day| parse_day("anniversary", &day)).transpose())
            .transpose()
            .map_err(refuse)?;
        let call = RequestContext::default();
        let mut work = UnitOfWork::new(&self.ports, &call, now);
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
                // Read again: the partner may have changed the other field concurrently.
                let couple = self.ports.store.couple(couple.id).await?;
                return couple.ok_or(Failure::Refused(PairingError::NotPaired));
            }
        }
    }

    /// Sets whether a member wants to restore the previous couple's timeline.
    ///
    /// It is readable when both want it.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`], [`PairingError::NoPrevious`].
    pub async fn restore(&self, person: AccountId, wanted: bool) -> PairingResult<Couple> {
        let now = self.ports.now();
        let call = RequestContext::default();
        let mut work = UnitOfWork::new(&self.ports, &call, now);
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

    /// Leaves the couple immediately, without the partner's consent.
    ///
    /// With `block`, the partner cannot invite the account again. `meant` names the couple to leave, so that
    /// a late repeat never ends another couple; if that couple has already ended, the request succeeds.
    ///
    /// # Errors
    /// [`PairingError::NotPaired`], also when the account was never in `meant`; [`PairingError::KeyReused`].
    pub async fn leave(
        &self,
        call: &RequestContext,
        person: &Person,
        meant: Option<CoupleId>,
        block: bool,
    ) -> PairingResult<()> {
        let now = self.ports.now();
        let mut work = UnitOfWork::new(&self.ports, call, now);
        loop {
            let couple = self.ports.store.couple_of(person.id).await?;
            // Read after the couple: a concurrent repeat may have ended the couple.
            if work.replay::<(), PairingError>().await?.is_some() {
                return Ok(());
            }
            let changes = match meant {
                Some(id) if couple.as_ref().is_none_or(|couple| couple.id != id) => {
                    let named = self.ports.store.couple(id).await?;
                    rules::already_ended(named.as_ref(), person, block, now)
                }
                _ => rules::leave(couple.as_ref(), person, block, now),
            };
            let changes = changes.map_err(Failure::Refused)?;
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Blocks by an account.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn blocks(&self, person: AccountId) -> PairingResult<Vec<Block>> {
        Ok(self.ports.store.blocks_of(person).await?)
    }

    /// Removes a block.
    ///
    /// # Errors
    /// [`PairingError::BlockNotFound`].
    pub async fn unblock(&self, person: AccountId, blocked: AccountId) -> PairingResult<()> {
        if !self.ports.store.is_blocked(person, blocked).await? {
            return Err(Failure::Refused(PairingError::BlockNotFound));
        }
        let unblock = PairingChange::Unblock { blocker: person, blocked };
        without_conflict(self.ports.commit(vec![unblock.into()]).await)?;
        Ok(())
    }

    async fn find(&self, named: &InviteRef) -> PairingResult<Option<Invite>> {
        let store = &self.ports.store;
        Ok(match named {
            InviteRef::Code(code) => {
                store.invite_by_code(&rules::code_digest(&self.ports.keys, code.expose())).await?
            }
            InviteRef::Link(link) => store.invite_by_link(&rules::link_digest(link.expose())).await?,
            // An id is no secret: it only finds invites with a target address, and `answerable` checks the
            // address.
            InviteRef::Id(id) => store.invite(*id).await?.filter(|invite| invite.target.is_some()),
        })
    }

    /// Whether one of two accounts blocks the other.
    async fn blocked(&self, one: AccountId, other: AccountId) -> Result<bool, crate::Error> {
        let store = &self.ports.store;
        Ok(store.is_blocked(one, other).await? || store.is_blocked(other, one).await?)
    }

    /// Whether an account cannot answer an invite: a block, or its sender may not pair.
    async fn is_closed_to(&self, person: AccountId, invite: Option<&Invite>) -> Result<bool, crate::Error> {
        let Some(invite) = invite.filter(|invite| invite.state == InviteState::Open) else {
            return Ok(false);
        };
        Ok(self.blocked(person, invite.inviter).await?
            || !self.directory.may_pair(invite.inviter, &invite.inviter_email).await?)
    }

    /// Refuses an account that requested deletion or has changed its address.
    async fn require_may_pair(&self, person: &Person) -> PairingResult<()> {
        let email = person.email.as_ref().ok_or(Failure::Refused(PairingError::Unverified))?;
        if self.directory.may_pair(person.id, email.key()).await? {
            Ok(())
        } else {
            Err(Failure::Refused(PairingError::Unauthenticated))
        }
    }

    async fn allow_code(
        &self,
        call: &RequestContext,
        person: AccountId,
        named: &InviteRef,
    ) -> PairingResult<()> {
        let mut wanted = per_client(limit::CODE_PER_CLIENT, call.ip);
        wanted.push((limit::CODE_PER_ACCOUNT, account_key(person)));
        if let InviteRef::Code(code) = named {
            let digest = rules::code_digest(&self.ports.keys, code.expose());
            wanted.push((
                limit::TRY_PER_CODE,
                LimitKey::new("code", data_encoding::HEXLOWER.encode(digest.as_bytes())),
            ));
        }
        self.ports.allow(&wanted).await
    }

    fn with_code(&self, invite: Invite) -> SentInvite {
        let code = rules::code_of(&self.ports.keys, invite.id);
        let link = self.ports.links.to("invite", &rules::link_of(&self.ports.keys, invite.id));
        SentInvite { invite, code, link }
    }
}

fn account_key(id: AccountId) -> LimitKey {
    LimitKey::new("account", id)
}

fn refuse(invalid: crate::Invalid) -> Failure<PairingError> {
    Failure::Refused(PairingError::Invalid(invalid))
}
