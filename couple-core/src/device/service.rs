//! Use cases of devices.

use super::{Device, DeviceChange, DeviceError, DevicePolicy, NewDevice, rules};
use crate::{
    AccountId, Decision, DeviceId, Error, Failure, Ports, Principal, UnitOfWork,
    limits::{LimitKey, rules::DEVICE_PER_ACCOUNT},
    ports::without_conflict,
};

/// Service for the devices of persons.
#[derive(Clone, Debug)]
pub struct Devices {
    ports: Ports,
    policy: DevicePolicy,
}

/// Result of [`Devices::register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The device as it is stored.
    pub device: Device,
    /// Whether the account had no device with this id.
    pub is_new: bool,
}

/// State that a registration is decided from.
struct Facts {
    devices: Vec<Device>,
    /// Whether the session of the request has ended.
    has_ended: bool,
}

impl Devices {
    /// Creates the service.
    #[must_use]
    pub const fn new(ports: Ports, policy: DevicePolicy) -> Self {
        Self { ports, policy }
    }

    /// Limits of devices.
    #[must_use]
    pub const fn policy(&self) -> &DevicePolicy {
        &self.policy
    }

    /// Registers a device of a person, or replaces the one with this id.
    ///
    /// Takes the destination over from any other device, also of another person. The device ends with the built-in
    /// session of the principal, if it has one.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn register(
        &self,
        principal: &Principal,
        id: DeviceId,
        device: &NewDevice,
    ) -> Result<Registration, Failure<DeviceError>> {
        let parsed = rules::parse(device, &self.policy).map_err(|error| Failure::Refused(error.into()))?;
        let account = principal.person();
        self.ports.allow(&[(DEVICE_PER_ACCOUNT, LimitKey::new("account", account))]).await?;
        let session = principal.token().map(|_| principal.session_id());
        let work = UnitOfWork::new(&self.ports);
        let device = Device {
            account,
            id,
            session,
            destination: parsed.destination,
            surface: parsed.surface,
            locale: parsed.locale,
            time_zone: parsed.time_zone,
            app_version: parsed.app_version,
            registered_at: work.now(),
        };
        let most = self.policy.max_devices;
        work.run_unkeyed(
            async |previous: Option<Facts>| {
                // Only after a conflict: the request was authenticated by the session.
                let has_ended = match (previous, principal.token()) {
                    (Some(_), Some(token)) => self.ports.store.session_by_token(token).await?.is_none(),
                    _ => false,
                };
                Ok(Facts { devices: self.ports.store.devices_of(account).await?, has_ended })
            },
            |Facts { devices, has_ended }| {
                if *has_ended {
                    return Err(Failure::Refused(DeviceError::Unauthenticated));
                }
                let destination = device.destination_digest();
                let stays = |other: &&Device| other.id != id && other.destination_digest() != destination;
                if devices.iter().filter(stays).count() >= most as usize {
                    return Err(Failure::Refused(DeviceError::TooManyDevices(most)));
                }
                let is_new = !devices.iter().any(|other| other.id == id);
                let put = DeviceChange::Put { device: device.clone(), most };
                Ok(Decision::commit(vec![put.into()], Registration { device: device.clone(), is_new }))
            },
        )
        .await
    }

    /// Removes a device of a person, if it exists.
    ///
    /// # Errors
    /// [`DeviceError::RateLimited`].
    pub async fn remove(&self, person: AccountId, id: DeviceId) -> Result<(), Failure<DeviceError>> {
        self.ports.allow(&[(DEVICE_PER_ACCOUNT, LimitKey::new("account", person))]).await?;
        let remove = DeviceChange::Remove { account: person, id };
        without_conflict(self.ports.commit(vec![remove.into()]).await)?;
        Ok(())
    }

    /// Devices of a person, in the order of their registration.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn list(&self, person: AccountId) -> Result<Vec<Device>, Error> {
        self.ports.store.devices_of(person).await
    }

    /// Removes the device that has a destination, after the push service has reported that it is gone.
    ///
    /// `device` is the device as it was read before the message was sent, and `since` the time at which the service
    /// noticed it, if it says so. A device that has registered again since then stays.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn retire(&self, device: &Device, since: Option<crate::Timestamp>) -> Result<(), Error> {
        let not_after = since.unwrap_or(device.registered_at);
        let retire = DeviceChange::Retire { destination: device.destination_digest(), not_after };
        without_conflict(self.ports.commit(vec![retire.into()]).await)?;
        Ok(())
    }
}
