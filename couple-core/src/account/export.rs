//! Export of the data of an account, except its timelines, which are read page by page.

use super::{Account, Session};
use crate::{
    AccountId, Error, Ports,
    date::CoupleDate,
    device::Device,
    notification::Preferences,
    pairing::{Block, Couple, Invite},
};

/// Number of couples per read.
const MAX_ROWS_PER_READ: u32 = 100;

/// Stored data of an account, except its timelines.
#[derive(Debug, Clone)]
pub struct Export {
    /// The account.
    pub account: Account,
    /// Sessions of the account, newest first, at most 200.
    pub sessions: Vec<Session>,
    /// Devices of the account, in the order of their registration.
    pub devices: Vec<Device>,
    /// Notification preferences, if the account has changed any.
    pub preferences: Option<Preferences>,
    /// All couples that the account has been in, in the order of their ids.
    pub couples: Vec<Couple>,
    /// Dates of these couples, in the order of the couples and of their creation.
    pub dates: Vec<CoupleDate>,
    /// Open invites that the account sent, including expired ones, newest first, at most 200.
    pub invites: Vec<Invite>,
    /// Blocks by the account, newest first, at most 200.
    pub blocks: Vec<Block>,
}

impl Export {
    /// Reads the data; none if the account does not exist.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn read(ports: &Ports, id: AccountId) -> Result<Option<Self>, Error> {
        let store = &ports.store;
        let Some(account) = store.account(id).await? else { return Ok(None) };
        let mut couples: Vec<Couple> = Vec::new();
        loop {
            let page =
                store.couples_page(id, couples.last().map(|couple| couple.id), MAX_ROWS_PER_READ).await?;
            let last = page.len() < MAX_ROWS_PER_READ as usize;
            couples.extend(page);
            if last {
                break;
            }
        }
        let mut dates = Vec::new();
        for couple in &couples {
            dates.extend(store.dates_of(couple.id).await?);
        }
        Ok(Some(Self {
            account,
            sessions: store.sessions_of(id).await?,
            devices: store.devices_of(id).await?,
            preferences: store.preferences(id).await?,
            couples,
            dates,
            invites: store.invites_of(id).await?,
            blocks: store.blocks_of(id).await?,
        }))
    }
}
