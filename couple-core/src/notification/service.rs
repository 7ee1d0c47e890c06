//! Use cases of notification preferences.

use super::{
    NotificationChange, NotificationError, NotificationPolicy, Preferences, PreferencesPatch, rules,
};
use crate::{
    AccountId, Decision, Error, Failure, Invalid, Ports, UnitOfWork,
    account::AccountPolicy,
    device::Device,
    limits::{LimitKey, rules::WRITE_PER_ACCOUNT},
    push::Surface,
};

/// Service for the notification preferences of persons.
#[derive(Clone, Debug)]
pub struct Notifications {
    ports: Ports,
    digests: bool,
}

impl Notifications {
    /// Creates the service.
    #[must_use]
    pub const fn new(ports: Ports, policy: &NotificationPolicy) -> Self {
        Self { ports, digests: policy.digests }
    }

    /// Preferences of a person, the defaults if the person has changed none.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn preferences(&self, person: AccountId) -> Result<Preferences, Error> {
        read(&self.ports, person).await
    }

    /// Changes the given fields of a person's preferences. Returns all of them.
    ///
    /// # Errors
    /// [`NotificationError`].
    pub async fn change(
        &self,
        person: AccountId,
        patch: &PreferencesPatch,
    ) -> Result<Preferences, Failure<NotificationError>> {
        if !self.digests && patch.digest.flatten().is_some() {
            let refusal = Invalid::new("digest_minutes", "not_available");
            return Err(Failure::Refused(NotificationError::from(refusal)));
        }
        self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", person))]).await?;
        self.write(person, patch).await
    }

    /// Switches off the digests of the person of an [unsubscribe token](rules::unsubscribe_token).
    ///
    /// A repeat changes nothing, and so does the token of a person who has none.
    ///
    /// # Errors
    /// [`NotificationError::InvalidToken`].
    pub async fn unsubscribe(&self, token: &str) -> Result<(), Failure<NotificationError>> {
        let person = rules::person_of_token(&self.ports.keys, token)
            .ok_or(Failure::Refused(NotificationError::InvalidToken))?;
        self.write(person, &PreferencesPatch { digest: Some(None), ..PreferencesPatch::default() }).await?;
        Ok(())
    }

    async fn write(
        &self,
        person: AccountId,
        patch: &PreferencesPatch,
    ) -> Result<Preferences, Failure<NotificationError>> {
        UnitOfWork::new(&self.ports)
            .run_unkeyed(
                async |_previous| Ok(read(&self.ports, person).await?),
                |stored| {
                    let changed = rules::patched(stored, patch)
                        .map_err(|error| Failure::Refused(NotificationError::from(error)))?;
                    if changed == *stored {
                        return Ok(Decision::Answer(changed));
                    }
                    let written = Preferences { version: changed.version + 1, ..changed.clone() };
                    Ok(Decision::commit(vec![NotificationChange::Put(changed).into()], written))
                },
            )
            .await
    }
}

/// Stored preferences of a person, or the defaults.
pub(super) async fn read(ports: &Ports, person: AccountId) -> Result<Preferences, Error> {
    let stored = ports.store.preferences(person).await?;
    Ok(stored.unwrap_or_else(|| Preferences::default_of(person)))
}

/// Devices of a person on a surface, without those whose built-in session has expired.
pub(super) async fn devices_on(
    ports: &Ports,
    sessions: Option<&AccountPolicy>,
    person: AccountId,
    surface: Surface,
) -> Result<Vec<Device>, Error> {
    let mut devices = ports.store.devices_of(person).await?;
    devices.retain(|device| device.surface == surface);
    let Some(policy) = sessions.filter(|_| !devices.is_empty()) else { return Ok(devices) };
    // The commit that ends a session removes its devices; one that has expired is removed by the next purge.
    let (now, sessions) = (ports.now(), ports.store.sessions_of(person).await?);
    devices.retain(|device| {
        device
            .session
            .is_none_or(|id| sessions.iter().any(|session| session.id == id && session.is_live(policy, now)))
    });
    Ok(devices)
}
