//! Devices in memory.

use async_trait::async_trait;
use couple_core::{
    AccountId, Conflict, DeviceId, Digest, Error, Locale, Secret, SessionId, TimeZoneName,
    device::{Device, DeviceChange, DeviceReads},
    digest,
    push::{Destination, Surface},
};

use super::{FaultyStore, MAX, NIL, account::AccountTables, column::column, table::Table};
use crate::planted;

#[derive(Clone, Default)]
pub(super) struct DeviceTables {
    devices: Table<(AccountId, DeviceId), Device>,
    by_destination: Table<Digest, (AccountId, DeviceId)>,
}

/// Key of the unique index of destinations.
fn key(destination: &Destination) -> Digest {
    let (address, app) = match destination {
        Destination::Apns { token, app, .. } | Destination::Fcm { token, app } => {
            (token.expose(), app.as_str())
        }
        Destination::WebPush { endpoint, .. } => (endpoint.expose(), ""),
    };
    let address = column("device-destination").key(address);
    let app = if planted("device-destination-includes-the-app") { app } else { "" };
    let platform =
        if planted("device-destination-ignores-the-service") { "" } else { destination.platform() };
    digest(&[platform.as_bytes(), address.as_bytes(), app.as_bytes()])
}

fn destination_columns(destination: Destination) -> Destination {
    let text = |secret: &Secret<String>| Secret::new(column("device-token").text(secret.expose()));
    match destination {
        Destination::Apns { token, app, sandbox } => Destination::Apns {
            token: text(&token),
            app: column("device-app").text(&app),
            sandbox: sandbox && !planted("device-sandbox-is-lost"),
        },
        Destination::Fcm { token, app } => {
            Destination::Fcm { token: text(&token), app: column("device-app").text(&app) }
        }
        Destination::WebPush { endpoint, key, auth } => {
            let (key, auth) = (column("device-key").bytes(&key), column("device-auth").bytes(auth.expose()));
            Destination::WebPush {
                endpoint: text(&endpoint),
                key: std::array::from_fn(|n| key.get(n).copied().unwrap_or(0)),
                auth: Secret::new(std::array::from_fn(|n| auth.get(n).copied().unwrap_or(0))),
            }
        }
    }
}

/// The device as it is written.
fn columns(device: Device, before: Option<Device>) -> Device {
    let text = |name, text: &str| column(name).text(text);
    let mut device = Device {
        destination: destination_columns(device.destination),
        locale: device.locale.map(|locale| Locale::from_stored(text("device-locale", locale.as_str()))),
        time_zone: device
            .time_zone
            .map(|zone| TimeZoneName::from_stored(text("device-time-zone", zone.as_str()))),
        app_version: device.app_version.map(|version| text("device-app-version", &version)),
        registered_at: column("device-registered-at").time(device.registered_at),
        ..device
    };
    if planted("device-session-is-lost") {
        device.session = None;
    }
    if planted("device-surface-is-lost") {
        device.surface = Surface::Alert;
    }
    if planted("device-controls-are-widgets") && device.surface == Surface::Control {
        device.surface = Surface::Widget;
    }
    if planted("device-locale-is-lost") {
        device.locale = None;
    }
    if planted("device-time-zone-is-lost") {
        device.time_zone = None;
    }
    if planted("device-absent-version-is-empty") {
        device.app_version = Some(device.app_version.unwrap_or_default());
    }
    let Some(before) = before else { return device };
    if planted("device-second-registration-keeps-the-session") {
        device.session = before.session;
    }
    if planted("device-second-registration-keeps-the-destination") {
        device.destination = before.destination;
    }
    if planted("device-second-registration-keeps-the-surface") {
        device.surface = before.surface;
    }
    if planted("device-second-registration-keeps-the-locale") {
        device.locale = device.locale.or(before.locale);
    }
    if planted("device-second-registration-keeps-the-time-zone") {
        device.time_zone = device.time_zone.or(before.time_zone);
    }
    if planted("device-second-registration-keeps-the-version") {
        device.app_version = device.app_version.or(before.app_version);
    }
    if planted("device-second-registration-keeps-the-time") {
        device.registered_at = before.registered_at;
    }
    device
}

impl DeviceTables {
    pub(super) fn apply(&mut self, accounts: &AccountTables, change: DeviceChange) -> Result<(), Conflict> {
        match change {
            DeviceChange::Put { device, most } => self.put(accounts, device, most)?,
            DeviceChange::Remove { account, id } => {
                let missing = !self.devices.has(&(account, id));
                if missing && planted("device-removal-of-a-missing-one-conflicts") {
                    return Err(Conflict::TooManyDevices(account));
                }
                if planted("device-removal-ignores-the-account") {
                    let owner = self.devices.values().find(|one| one.id == id).map(|one| one.account);
                    self.remove(owner.unwrap_or(account), id);
                } else if planted("device-removal-removes-all") {
                    self.remove_of(account, |_| true);
                } else if !planted("device-removal-removes-nothing") {
                    self.remove(account, id);
                }
            }
            DeviceChange::RemoveOf { account } => {
                let kept = self.of(account).next().map(|device| device.id);
                if kept.is_none() && planted("device-removal-of-none-conflicts") {
                    return Err(Conflict::TooManyDevices(account));
                }
                let kept = kept.filter(|_| planted("device-removal-of-all-keeps-one"));
                self.remove_of(account, |device| Some(device.id) != kept);
                if planted("device-removal-of-all-is-of-all-accounts") {
                    let all: Vec<_> = self.devices.iter().map(|(key, _)| *key).collect();
                    all.into_iter().for_each(|(account, id)| self.remove(account, id));
                }
            }
            DeviceChange::Retire { destination, not_after } => {
                let found = self.devices.values().find(|one| one.destination_digest() == destination);
                let Some(device) = found.cloned() else {
                    if planted("device-retirement-of-a-missing-one-conflicts") {
                        return Err(Conflict::QuotaExceeded);
                    }
                    return Ok(());
                };
                let is_older = if planted("device-retirement-excludes-the-time") {
                    device.registered_at < not_after
                } else {
                    device.registered_at <= not_after || planted("device-retirement-ignores-the-time")
                };
                if is_older && planted("device-retirement-removes-all-of-the-account") {
                    self.remove_of(device.account, |_| true);
                } else if is_older && !planted("device-retirement-removes-nothing") {
                    self.remove(device.account, device.id);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, accounts: &AccountTables, device: Device, most: u32) -> Result<(), Conflict> {
        let (account, id, destination) = (device.account, device.id, key(&device.destination));
        let most = if planted("device-limit-is-twenty") { 20 } else { most as usize };
        let counts = |other: &Device| {
            (other.id != id || planted("device-limit-counts-the-replaced-one"))
                && (key(&other.destination) != destination || planted("device-limit-counts-the-destination"))
        };
        let mut count = self.of(account).filter(|other| counts(other)).count();
        if planted("device-limit-is-of-all-accounts") {
            count = self.devices.values().filter(|other| counts(other)).count();
        }
        if planted("device-limit-exceeds-by-one") {
            count = count.saturating_sub(1);
        }
        if planted("device-limit-is-one-less") {
            count += 1;
        }
        let is_full = count >= most && !planted("device-limit-is-ignored");
        if is_full && planted("device-limit-comes-before-the-session") {
            return Err(Conflict::TooManyDevices(account));
        }
        if let Some(session) = device.session
            && !accounts.has_session(account, session)
            && !(planted("device-session-of-any-account") && accounts.has_session_of_any(session))
            && !planted("device-session-is-not-required")
        {
            return Err(Conflict::SessionEnded(session));
        }
        if is_full {
            return Err(Conflict::TooManyDevices(account));
        }
        if let Some((owner, other)) = self.by_destination.get(&destination).copied() {
            let taken = (owner, other) != (account, id);
            if taken && planted("device-destination-is-never-taken-over") {
                return Err(Conflict::TooManyDevices(account));
            }
            let stays = planted("device-destination-is-not-unique")
                || (owner != account && planted("device-destination-is-unique-within-an-account"))
                || (owner == account && planted("device-destination-is-unique-between-accounts"));
            if !stays {
                self.remove(owner, other);
            }
        }
        let before = self.devices.get(&(account, id)).cloned();
        if planted("device-former-destination-stays-taken") {
            self.devices.remove(&(account, id));
        } else {
            self.remove(account, id);
        }
        if planted("device-id-belongs-to-one-account") {
            let owner = self.devices.values().find(|one| one.id == id).map(|one| one.account);
            owner.into_iter().for_each(|owner| self.remove(owner, id));
        }
        self.by_destination.put(destination, (account, id));
        self.devices.put((account, id), columns(device, before));
        Ok(())
    }

    /// Removes the devices of an account that a session registered for which `ended` returns true.
    pub(super) fn end_sessions(&mut self, account: AccountId, ended: impl Fn(SessionId) -> bool) {
        if planted("device-end-of-sessions-ignores-the-account") {
            let keys: Vec<_> = self
                .devices
                .values()
                .filter(|device| device.session.is_some_and(&ended))
                .map(|device| (device.account, device.id))
                .collect();
            keys.into_iter().for_each(|(account, id)| self.remove(account, id));
        }
        let without = planted("device-without-a-session-ends-with-one");
        let all = planted("device-end-of-a-session-removes-all");
        self.remove_of(account, |device| all || device.session.map_or(without, &ended));
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
            let destination = key(&device.destination);
            if self.by_destination.get(&destination) == Some(&(account, id)) {
                self.by_destination.remove(&destination);
            }
        }
    }

    fn of(&self, account: AccountId) -> impl Iterator<Item = &Device> {
        let range = (account, DeviceId::from_uuid(NIL))..=(account, DeviceId::from_uuid(MAX));
        self.devices.range(range).map(|(_, device)| device)
    }

    /// Forgets rows of one kind, as a store does that keeps them only in memory.
    pub(super) fn forget_rows(&mut self, kind: &str) {
        if kind == "-devices" {
            self.devices = Table::default();
        }
    }

    pub(super) fn end(&mut self, keep: bool) {
        self.devices.end(keep);
        self.by_destination.end(keep);
    }
}

#[async_trait]
impl DeviceReads for FaultyStore {
    async fn device(&self, account: AccountId, id: DeviceId) -> Result<Option<Device>, Error> {
        let found = self.state()?.device.devices.get(&(account, id)).cloned();
        Ok(found
            .filter(|device| !(device.session.is_none() && planted("device-without-a-session-is-hidden"))))
    }
    async fn devices_of(&self, account: AccountId) -> Result<Vec<Device>, Error> {
        let mut devices: Vec<Device> = self.state()?.device.of(account).cloned().collect();
        devices.sort_by_key(|device| (device.registered_at, device.id));
        if planted("device-list-is-in-the-order-of-ids") {
            devices.sort_by_key(|device| device.id);
        }
        if planted("device-list-has-the-latest-first") {
            devices.sort_by_key(|device| (std::cmp::Reverse(device.registered_at), device.id));
        }
        if planted("device-list-of-equal-times-has-the-greatest-first") {
            devices.sort_by_key(|device| (device.registered_at, std::cmp::Reverse(device.id)));
        }
        if planted("device-list-lacks-the-version") {
            devices.iter_mut().for_each(|device| device.app_version = None);
        }
        if planted("device-list-has-the-latest-ones") && devices.len() > 200 {
            devices.drain(..devices.len() - 200);
        }
        devices.truncate(column("device-list").limit(200));
        Ok(devices)
    }
}
