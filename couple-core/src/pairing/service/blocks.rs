//! Blocks of an account.

use super::{PairingResult, Pairings};
use crate::{
    AccountId, Failure,
    pairing::{Block, PairingChange, PairingError},
    ports::without_conflict,
};

impl Pairings {
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
}
