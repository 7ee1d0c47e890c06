//! Use cases of pairing, one file for each group.

mod answers;
mod blocks;
mod couples;
mod invites;

use std::sync::Arc;

pub use answers::InviteRef;
pub use invites::{InviteOutcome, NewInvite, SentInvite};

use super::{Directory, Invite, InviteState, PairingError, PairingPolicy, Person, Profile};
use crate::{AccountId, Error, Failure, Invalid, Ports, limits::LimitKey};

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
    pub async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        self.directory.profile(person).await
    }

    /// A person with the verified address of the directory, if the person has one.
    ///
    /// # Errors
    /// Errors of the directory.
    pub async fn person(&self, id: AccountId) -> Result<Person, Error> {
        let contact = self.directory.contact(id).await?;
        Ok(Person { id, email: contact.map(|contact| contact.email) })
    }

    /// Whether one of two accounts blocks the other.
    async fn is_blocked_between(&self, one: AccountId, other: AccountId) -> Result<bool, Error> {
        let store = &self.ports.store;
        Ok(store.is_blocked(one, other).await? || store.is_blocked(other, one).await?)
    }

    /// Whether an account cannot answer an invite: a block, or its sender may not pair.
    async fn is_closed_to(&self, person: AccountId, invite: Option<&Invite>) -> Result<bool, Error> {
        let Some(invite) = invite.filter(|invite| invite.state == InviteState::Open) else {
            return Ok(false);
        };
        Ok(self.is_blocked_between(person, invite.inviter).await?
            || !self.directory.may_pair(invite.inviter, &invite.inviter_email).await?)
    }

    /// Refuses an account that is to be deleted or has changed its address.
    async fn require_may_pair(&self, person: &Person) -> PairingResult<()> {
        let email = person.email.as_ref().ok_or(Failure::Refused(PairingError::Unverified))?;
        let may_pair = self.directory.may_pair(person.id, email.key()).await?;
        if may_pair && self.ports.store.erasure_of(person.id).await?.is_none() {
            Ok(())
        } else {
            Err(Failure::Refused(PairingError::Unauthenticated))
        }
    }
}

fn account_key(id: AccountId) -> LimitKey {
    LimitKey::new("account", id)
}

fn invalid(field: Invalid) -> Failure<PairingError> {
    Failure::Refused(PairingError::Invalid(field))
}
