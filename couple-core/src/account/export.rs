//! All that is held of one person, but for their timeline, which is read page by page.

use super::{Account, Session};
use crate::{
    AccountId, Error, Ports,
    pairing::{Block, Couple, Invite},
};

/// What is held of one person beside what they wrote.
#[derive(Debug, Clone)]
pub struct Export {
    /// Who they are.
    pub account: Account,
    /// Their signed-in devices.
    pub sessions: Vec<Session>,
    /// Every couple they were part of.
    pub couples: Vec<Couple>,
    /// Their waiting invites.
    pub invites: Vec<Invite>,
    /// Whom they block.
    pub blocks: Vec<Block>,
}

impl Export {
    /// Reads it; none for someone who is gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(ports: &Ports, id: AccountId) -> Result<Option<Self>, Error> {
        let store = &ports.store;
        let Some(account) = store.account(id).await? else { return Ok(None) };
        Ok(Some(Self {
            account,
            sessions: store.sessions_of(id).await?,
            couples: store.couples_of(id).await?,
            invites: store.invites_of(id).await?,
            blocks: store.blocks_of(id).await?,
        }))
    }
}
