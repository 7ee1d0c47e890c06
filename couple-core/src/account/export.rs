//! All that is held of one person, but for their timeline, which is read page by page.

use super::{Account, Session};
use crate::{
    AccountId, Error, Ports,
    pairing::{Block, Couple, Invite},
};

/// Couples that are read together.
const PAGE: u32 = 100;

/// What is held of one person beside what they wrote.
#[derive(Debug, Clone)]
pub struct Export {
    /// Who they are.
    pub account: Account,
    /// Their signed-in devices.
    pub sessions: Vec<Session>,
    /// Every couple that the account was ever in, in the order of their ids.
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
        let mut couples: Vec<Couple> = Vec::new();
        loop {
            let page = store.couples_page(id, couples.last().map(|couple| couple.id), PAGE).await?;
            let last = page.len() < PAGE as usize;
            couples.extend(page);
            if last {
                break;
            }
        }
        Ok(Some(Self {
            account,
            sessions: store.sessions_of(id).await?,
            couples,
            invites: store.invites_of(id).await?,
            blocks: store.blocks_of(id).await?,
        }))
    }
}
