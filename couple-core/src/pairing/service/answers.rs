//! Received invites: preview, acceptance and refusal.

use super::{PairingResult, Pairings, account_key, invalid};
use crate::{
    AccountId, Change, Completed, CoupleId, Decision, Error, Failure, Invalid, InviteId, RequestContext,
    Secret, UnitOfWork,
    limits::{LimitKey, per_client, rules as limit},
    pairing::{
        AcceptedMail, Couple, Invite, InviteState, PairingError, Person, Profile,
        rules::{self, AcceptDecision, AcceptFacts},
    },
};

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

/// State that a user's acceptance of an invite is decided from, as it was read.
pub(super) struct AcceptRead {
    couple: Option<Couple>,
    invite: Option<Invite>,
    blocked: bool,
    previous: Option<CoupleId>,
}

impl Pairings {
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
                && !self.is_blocked_between(person.id, invite.inviter).await?
                && self.directory.may_pair(invite.inviter, &invite.inviter_email).await?
            {
                open.push(invite);
            }
        }
        Ok(open)
    }

    /// Preview of an invite: the invite and its sender's profile.
    ///
    /// # Errors
    /// [`PairingError::InviteNotFound`], [`PairingError::InviteExpired`], [`PairingError::OwnInvite`], [`PairingError::Invalid`],
    /// [`PairingError::Unverified`], [`PairingError::RateLimited`].
    pub async fn preview(
        &self,
        context: &RequestContext,
        person: &Person,
        reference: &InviteRef,
    ) -> PairingResult<(Invite, Profile)> {
        let now = self.ports.now();
        let reference = &reference.normalized().map_err(invalid)?;
        self.allow_answer(context, person.id, reference).await?;
        let invite = self.find(reference).await?;
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
        context: &RequestContext,
        person: &Person,
        reference: &InviteRef,
    ) -> PairingResult<Couple> {
        let reference = &reference.normalized().map_err(invalid)?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let completed = work
            .run(
                context,
                self.allow_answer(context, person.id, reference),
                async |(), _previous| {
                    // Read the couple before the invite: a read that finds the couple then also finds the invite
                    // closed.
                    let couple = self.ports.store.couple_of(person.id).await?;
                    let invite = self.find(reference).await?;
                    self.read_for_accept(person, couple, invite).await
                },
                |(), read| match self.decide_accept(person, read, now).map_err(Failure::Refused)? {
                    AcceptDecision::AlreadyPaired(couple) => Ok(Decision::Answer(*couple)),
                    AcceptDecision::Paired(couple, mut changes) => {
                        changes.extend(self.tell_inviter(person, &couple)?);
                        Ok(Decision::Commit { changes, outcome: couple.id, answer: *couple })
                    }
                },
            )
            .await?;
        match completed {
            Completed::Committed(couple, _) | Completed::Unchanged(couple) => Ok(couple),
            Completed::Replayed(id) => self.living_couple(id).await,
        }
    }

    /// Couple that a repeated request created, unless it has ended since.
    pub(super) async fn living_couple(&self, id: CoupleId) -> PairingResult<Couple> {
        let couple = self.ports.store.couple(id).await?.filter(|couple| couple.ended_at.is_none());
        couple.ok_or(Failure::Refused(PairingError::NotPaired))
    }

    /// Reads what [`decide_accept`](Self::decide_accept) needs beside the couple and the invite.
    pub(super) async fn read_for_accept(
        &self,
        person: &Person,
        mut couple: Option<Couple>,
        invite: Option<Invite>,
    ) -> PairingResult<AcceptRead> {
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
        Ok(AcceptRead { couple, invite, blocked, previous })
    }

    pub(super) fn decide_accept(
        &self,
        person: &Person,
        read: &AcceptRead,
        now: crate::Timestamp,
    ) -> Result<AcceptDecision, PairingError> {
        let facts = AcceptFacts {
            person,
            couple: read.couple.as_ref(),
            invite: read.invite.as_ref(),
            blocked: read.blocked,
            previous: read.previous,
            id: self.ports.new_id(),
        };
        rules::accept(&facts, now)
    }

    /// Job that tells the inviter of the couple that `person` has created by accepting.
    pub(super) fn tell_inviter(&self, person: &Person, couple: &Couple) -> Result<Option<Change>, Error> {
        let inviter = couple.side_of(person.id).map(|side| couple.member(side.other()));
        let job = inviter.map(|inviter| AcceptedMail { couple: couple.id, inviter });
        job.map(|job| self.ports.enqueue(&job)).transpose()
    }

    /// Declines an invite.
    ///
    /// # Errors
    /// The same as for [`preview`](Self::preview), and [`PairingError::KeyReused`].
    pub async fn decline(
        &self,
        context: &RequestContext,
        person: &Person,
        reference: &InviteRef,
    ) -> PairingResult<()> {
        let reference = &reference.normalized().map_err(invalid)?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run(
            context,
            self.allow_answer(context, person.id, reference),
            async |(), _previous| {
                let invite = self.find(reference).await?;
                let blocked = self.is_closed_to(person.id, invite.as_ref()).await?;
                Ok((invite, blocked))
            },
            |(), (invite, blocked)| {
                let changes = rules::decline(invite.as_ref(), person, *blocked, now);
                Ok(Decision::commit(changes.map_err(Failure::Refused)?, ()))
            },
        )
        .await
        .map(drop)
    }

    async fn find(&self, reference: &InviteRef) -> PairingResult<Option<Invite>> {
        let store = &self.ports.store;
        Ok(match reference {
            InviteRef::Code(code) => {
                store.invite_by_code(&rules::code_digest(&self.ports.keys, code.expose())).await?
            }
            InviteRef::Link(link) => store.invite_by_link(&rules::link_digest(link.expose())).await?,
            // An id is no secret: it only finds invites with a target address, and `answerable` checks the
            // address.
            InviteRef::Id(id) => store.invite(*id).await?.filter(|invite| invite.target.is_some()),
        })
    }

    async fn allow_answer(
        &self,
        context: &RequestContext,
        person: AccountId,
        reference: &InviteRef,
    ) -> PairingResult<()> {
        let mut wanted = per_client(limit::CODE_PER_CLIENT, context.ip);
        wanted.push((limit::CODE_PER_ACCOUNT, account_key(person)));
        if let InviteRef::Code(code) = reference {
            let digest = rules::code_digest(&self.ports.keys, code.expose());
            wanted.push((
                limit::TRY_PER_CODE,
                LimitKey::new("code", data_encoding::HEXLOWER.encode(digest.as_bytes())),
            ));
        }
        self.ports.allow(&wanted).await
    }
}
