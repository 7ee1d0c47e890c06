//! Sent invites: creation, list and withdrawal.

use super::{PairingResult, Pairings, account_key, answers::AcceptRead, invalid};
use crate::{
    AccountId, Completed, CoupleId, Decision, EmailAddress, EmailKey, Failure, InviteId, Label,
    RequestContext, Secret, UnitOfWork,
    limits::{LimitKey, rules as limit},
    pairing::{
        Couple, Invite, InviteState, PairingError, Person, pair_key,
        rules::{self, AcceptDecision, InviteDecision},
    },
};

/// Request to create an invite.
#[derive(Debug, Clone, Default)]
pub struct NewInvite {
    /// Only address that may answer the invite, and to which it is mailed; none for an invite to pass on.
    pub email: Option<String>,
    /// Message for the recipient.
    pub message: Option<String>,
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
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
enum RecordedOutcome {
    Waiting(InviteId),
    Couple(CoupleId),
}

struct InviteFacts {
    couple: Option<Couple>,
    open: Vec<Invite>,
    /// Open invite between the same two addresses.
    between: Option<Invite>,
    /// Whether the invite in `between` cannot be accepted.
    between_blocked: bool,
    /// For accepting the invite in `between`.
    accept: Option<AcceptRead>,
    /// Couple with the owner of the target address that a crossing invite created since the first attempt.
    crossed: Option<Couple>,
}

impl Pairings {
    /// Creates an invite, for the owner of an address or for anyone who gets its code or link.
    ///
    /// Two accounts that invite each other concurrently become one couple.
    ///
    /// # Errors
    /// [`PairingError::Unverified`], [`PairingError::AlreadyPaired`], [`PairingError::OwnInvite`], [`PairingError::TooManyInvites`],
    /// [`PairingError::Invalid`], [`PairingError::RateLimited`], [`PairingError::KeyReused`].
    pub async fn invite(
        &self,
        context: &RequestContext,
        person: &Person,
        command: &NewInvite,
    ) -> PairingResult<InviteOutcome> {
        let email = person.email.as_ref().ok_or(Failure::Refused(PairingError::Unverified))?;
        let target = match &command.email {
            Some(email) => Some(EmailAddress::parse("email", email).map_err(invalid)?),
            None => None,
        };
        let message = match &command.message {
            Some(text) => Some(Label::parse("message", text).map_err(invalid)?),
            None => None,
        };
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let id = self.ports.new_id();
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
        let completed = work
            .run(
                context,
                self.allow_invite(person.id, invite.target.as_ref()),
                async |(), previous: Option<InviteFacts>| {
                    self.invite_facts(person, email.key(), &invite, previous.is_some()).await
                },
                |(), facts| {
                    if let Some(couple) = &facts.crossed {
                        return Ok(Decision::Answer(RecordedOutcome::Couple(couple.id)));
                    }
                    let read = rules::InviteFacts {
                        couple: facts.couple.as_ref(),
                        open: &facts.open,
                        between: facts.between.as_ref(),
                        between_blocked: facts.between_blocked,
                        invite: &invite,
                    };
                    let decision = rules::invite(&read, &self.policy, now).map_err(Failure::Refused)?;
                    let (changes, outcome) = match (decision, &facts.accept) {
                        (InviteDecision::Crossing(_), Some(read)) => {
                            match self.decide_accept(person, read, now).map_err(Failure::Refused)? {
                                AcceptDecision::AlreadyPaired(couple) => {
                                    return Ok(Decision::Answer(RecordedOutcome::Couple(couple.id)));
                                }
                                AcceptDecision::Paired(couple, mut changes) => {
                                    changes.extend(self.tell_inviter(person, &couple)?);
                                    (changes, RecordedOutcome::Couple(couple.id))
                                }
                            }
                        }
                        // Without the facts for accepting it there is no crossing invite.
                        (InviteDecision::Crossing(_), None) => {
                            return Err(Failure::Refused(PairingError::InviteNotFound));
                        }
                        (InviteDecision::Waiting(changes), _) => (changes, RecordedOutcome::Waiting(id)),
                    };
                    Ok(Decision::Commit { changes, outcome, answer: outcome })
                },
            )
            .await?;
        let (Completed::Committed(outcome, _) | Completed::Unchanged(outcome) | Completed::Replayed(outcome)) =
            completed;
        let gone = || Failure::Refused(PairingError::InviteNotFound);
        Ok(match outcome {
            RecordedOutcome::Waiting(id) => {
                let invite = self.ports.store.invite(id).await?.ok_or_else(gone)?;
                InviteOutcome::Pending(Box::new(self.with_code(invite)))
            }
            RecordedOutcome::Couple(id) => InviteOutcome::Paired(Box::new(self.living_couple(id).await?)),
        })
    }

    async fn allow_invite(&self, person: AccountId, target: Option<&EmailAddress>) -> PairingResult<()> {
        self.ports.allow(&[(limit::INVITE_PER_ACCOUNT, account_key(person))]).await?;
        let Some(target) = target else { return Ok(()) };
        let pair = LimitKey::new("account-email", format_args!("{person} {}", target.key().as_str()));
        let wanted = [
            (self.policy.invite_mail_per_account_and_address, pair),
            (self.policy.invite_mail_per_address, LimitKey::email(target.key())),
        ];
        self.ports.allow(&wanted).await
    }

    async fn invite_facts(
        &self,
        person: &Person,
        email: &EmailKey,
        invite: &Invite,
        is_retry: bool,
    ) -> PairingResult<InviteFacts> {
        let store = &self.ports.store;
        let mut crossed = None;
        // A crossing invite that committed first has already created the couple.
        if is_retry
            && let Some(target) = &invite.target
            && let Some(couple) = store.couple_of(person.id).await?
        {
            let side = rules::require_member(Some(&couple), person.id).map_err(Failure::Refused)?.1;
            let partner = self.directory.find_by_email(target.key()).await?;
            crossed = (partner == Some(couple.member(side.other()))).then_some(couple);
        }
        // Check again after authentication: the account may have requested deletion or changed its address
        // since.
        self.require_may_pair(person).await?;
        let couple = store.couple_of(person.id).await?;
        let between = match &invite.target {
            Some(target) => store.invite_between(&pair_key(email, target.key())).await?,
            None => None,
        };
        // The invites cross only if the sender of the other one still has that address and may pair, and
        // neither account blocks the other.
        let between_blocked = match (&between, &invite.target) {
            (Some(between), Some(target)) => {
                self.is_blocked_between(person.id, between.inviter).await?
                    || !self.directory.may_pair(between.inviter, target.key()).await?
            }
            _ => false,
        };
        let accept = match &between {
            Some(theirs) if theirs.inviter != person.id && !between_blocked => {
                Some(self.read_for_accept(person, couple.clone(), between.clone()).await?)
            }
            _ => None,
        };
        let open = store.invites_of(person.id).await?;
        Ok(InviteFacts { couple, open, between, between_blocked, accept, crossed })
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

    /// Withdraws an invite.
    ///
    /// # Errors
    /// [`PairingError::InviteNotFound`].
    pub async fn withdraw(&self, person: AccountId, id: InviteId) -> PairingResult<()> {
        UnitOfWork::new(&self.ports)
            .run_unkeyed(
                async |_previous| Ok(self.ports.store.invite(id).await?),
                |invite| {
                    let changes = rules::withdraw(invite.as_ref(), person).map_err(Failure::Refused)?;
                    Ok(Decision::commit(changes, ()))
                },
            )
            .await
    }

    fn with_code(&self, invite: Invite) -> SentInvite {
        let code = rules::code_of(&self.ports.keys, invite.id);
        let link = self.ports.links.to("invite", &rules::link_of(&self.ports.keys, invite.id));
        SentInvite { invite, code, link }
    }
}
