//! Devices in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, DeviceId, Digest, Error, SessionId,
    device::{Device, DeviceChange, DeviceReads},
};

use super::{MAX, MemoryStore, NIL, account::AccountTables, table::Table};

#[derive(Default)]
pub(super) struct DeviceTables {
    devices: Table<(AccountId, DeviceId), Device>,
    by_destination: Table<Digest, (AccountId, DeviceId)>,
}

impl DeviceTables {
    pub(super) fn apply(&mut self, accounts: &AccountTables, change: DeviceChange) -> Result<(), Conflict> {
        match change {
            DeviceChange::Put { device, most } => {
                if let Some(session) = device.session
                    && !accounts.has_session(device.account, session)
                {
                    return Err(Conflict::SessionEnded(session));
                }
                let destination = device.destination_digest();
                let stays =
                    |other: &&Device| other.id != device.id && other.destination_digest() != destination;
                if self.of(device.account).filter(stays).count() >= most as usize {
                    return Err(Conflict::TooManyDevices(device.account));
                }
                if let Some((account, id)) = self.by_destination.get(&destination).copied() {
                    self.remove(account, id);
                }
                self.remove(device.account, device.id);
                self.by_destination.put(destination, (device.account, device.id));
                self.devices.put((device.account, device.id), device);
            }
            DeviceChange::Remove { account, id } => self.remove(account, id),
            DeviceChange::RemoveOf { account } => self.remove_of(account, |_| true),
            DeviceChange::Retire { destination, not_after } => {
                let found = self.by_destination.get(&destination).and_then(|key| self.devices.get(key));
                if let Some(device) = found.filter(|device| device.registered_at <= not_after) {
                    self.remove(device.account, device.id);
                }
            }
        }
        Ok(())
    }

    /// Removes the devices of an account that a session registered for which `ended` returns true.
    pub(super) fn end_sessions(&mut self, account: AccountId, ended: impl Fn(SessionId) -> bool) {
        self.remove_of(account, |device| device.session.is_some_and(&ended));
    }

    pub(super) fn remove_of(&mut self, account: AccountId, matches: impl Fn(&Device) -> bool) {
        let ids: Vec<DeviceId> =
            self.of(account).filter(|device| matches(device)).map(|device| device.id).collect();
        for id in ids {
            self.remove(account, id);
        }
    }

    fn remove(&mut self, account: AccountId, id: DeviceId) {
        if let Some(device) = self.devices.remove(&(account, id)) {
            self.by_destination.remove(&device.destination_digest());
        }
    }

    fn of(&self, account: AccountId) -> impl Iterator<Item = &Device> {
        let range = (account, DeviceId::from_uuid(NIL))..=(account, DeviceId::from_uuid(MAX));
        self.devices.range(range).map(|(_, device)| device)
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.devices.end(keep);
        self.by_destination.end(keep);
    }
}

#[async_trait]
impl DeviceReads for MemoryStore {
    async fn device(&self, account: AccountId, id: DeviceId) -> Result<Option<Device>, Error> {
        Ok(self.state().device.devices.get(&(account, id)).cloned())
    }
    async fn devices_of(&self, account: AccountId) -> Result<Vec<Device>, Error> {
        let mut devices: Vec<Device> = self.state().device.of(account).cloned().collect();
        devices.sort_by_key(|device| (device.registered_at, device.id));
        devices.truncate(200);
        Ok(devices)
    }
}
