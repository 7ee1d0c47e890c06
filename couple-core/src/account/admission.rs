//! Admission of account requests: rate limits, and the daily limit of wrong passwords.
//!
//! Other clients must not be able to lock out the owner of an address. So a limit that counts all clients of
//! an address refuses only clients from unknown networks. A network is known for
//! [`Policy::client_remembered`](super::Policy) after the address was proven from it. Attempts of other
//! clients never cause a mailed code or link to be refused.

use std::time::Duration;

use super::{Account, AccountChange, Accounts, MailLimits, Refusal, Tally, TallyId, service::Answer};
use crate::{
    Call, Change, CommitError, Conflict, Digest, EmailKey, Error, ErrorKind, Failure, Keyring, Timestamp,
    limits::{LimitKey, Limited, per_client},
};

/// Admitted password attempt, with the tally that counts it if the password is wrong.
pub(super) struct Attempt {
    tally: TallyId,
    /// Whether the client's network is known, so that a sign-in need not remember it.
    remembered: bool,
}

/// Digest of a client network. Keyed, so that a leaked database contains no client addresses.
pub(super) fn client_network(keys: &Keyring, call: &Call) -> Digest {
    let key = call.ip.map(LimitKey::client);
    keys.derive("client-network", &[key.as_ref().map_or("-", LimitKey::as_str).as_bytes()])
}

impl Accounts {
    /// Admits a request that sends mail to an address.
    pub(super) async fn admit_mail(&self, call: &Call, limits: &MailLimits, email: &EmailKey) -> Answer<()> {
        let mut own = per_client(limits.per_client, call.ip);
        own.push((limits.per_client_and_address, LimitKey::client_and_email(call.ip, email)));
        self.ports.allow(&own).await?;
        let all = [limits.per_address, limits.per_address_and_day].map(|rule| (rule, LimitKey::email(email)));
        match self.ports.allow(&all).await {
            Err(Failure::Refused(limited)) if self.known_client(call, email).await?.is_none() => {
                Err(Failure::Refused(limited))
            }
            Err(Failure::Failed(error)) => Err(error.into()),
            Ok(()) | Err(Failure::Refused(_)) => Ok(()),
        }
    }

    /// Admits a password attempt for an address.
    pub(super) async fn admit_password(&self, call: &Call, email: &EmailKey) -> Answer<Attempt> {
        let limits = &self.policy.limits;
        let mut own = per_client(limits.password.per_client, call.ip);
        own.push((limits.password.per_client_and_address, LimitKey::client_and_email(call.ip, email)));
        self.ports.allow(&own).await?;
        let known = self.known_client(call, email).await?;
        if known.is_none() {
            self.ports.allow(&[(limits.password_per_address, LimitKey::email(email))]).await?;
        }
        let tally = TallyId::passwords(&self.ports.keys, email, known.is_some());
        let fresh = self.ports.now().plus(self.policy.client_remembered * 3 / 4);
        let attempt = Attempt { tally, remembered: known.is_some_and(|known| known.expires_at > fresh) };
        self.require_guesses(&attempt).await?;
        Ok(attempt)
    }

    /// Admits an attempt of a signed-in account to repeat its password.
    ///
    /// Other clients cannot cause a refusal.
    pub(super) async fn admit_repeated_password(&self, account: &Account) -> Answer<Attempt> {
        let rule = self.policy.limits.password_per_account;
        self.ports.allow(&[(rule, LimitKey::new("account", account.id))]).await?;
        let tally = TallyId::passwords(&self.ports.keys, account.email.key(), true);
        let attempt = Attempt { tally, remembered: true };
        self.require_guesses(&attempt).await?;
        Ok(attempt)
    }

    /// Refuses an attempt when the daily limit of wrong passwords is reached.
    pub(super) async fn require_guesses(&self, attempt: &Attempt) -> Answer<()> {
        let now = self.ports.now();
        let counted = self.ports.store.tally(attempt.tally, now).await?;
        match counted.filter(|counted| counted.count >= self.policy.password_guesses_per_day) {
            Some(full) => Err(limited(full.expires_at, now)),
            None => Ok(()),
        }
    }

    /// Counts a wrong password and returns the error for the client.
    ///
    /// [`Refusal::InvalidCredentials`], or [`Refusal::RateLimited`] when concurrent attempts have reached the
    /// daily limit.
    pub(super) async fn wrong_password(&self, attempt: &Attempt) -> Failure<Refusal> {
        let now = self.ports.now();
        let count = AccountChange::CountTally {
            id: attempt.tally,
            below: self.policy.password_guesses_per_day,
            at: now,
            expires_at: now.plus(GUESS_WINDOW),
        };
        match self.ports.commit(vec![count.into()]).await {
            Ok(_) => Failure::Refused(Refusal::InvalidCredentials),
            Err(CommitError::Conflict(Conflict::TallyFull)) => limited(now.plus(GUESS_WINDOW), now),
            Err(CommitError::Conflict(conflict)) => {
                Error::new(ErrorKind::Internal, "count guess").source(conflict).into()
            }
            Err(CommitError::Failed(error)) => error.into(),
        }
    }

    /// Changes that a sign-in with a password adds to its commit.
    ///
    /// The commit succeeds only below the daily limit of wrong passwords. It also makes the client's network
    /// known.
    pub(super) fn right_password(
        &self,
        call: &Call,
        email: &EmailKey,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Vec<Change> {
        let mut changes = vec![self.require_below(attempt, now)];
        if !attempt.remembered {
            changes.push(self.remember_client(call, email, now));
        }
        changes
    }

    /// Change that makes a commit conflict when the daily limit of wrong passwords is reached.
    pub(super) fn require_below(&self, attempt: &Attempt, now: Timestamp) -> Change {
        let below = self.policy.password_guesses_per_day;
        AccountChange::RequireTally { id: attempt.tally, below, at: now }.into()
    }

    /// Admits an attempt with a mailed code.
    pub(super) async fn admit_code(&self, call: &Call, email: &EmailKey) -> Answer<()> {
        let limits = &self.policy.limits.code;
        let mut own = per_client(limits.per_client, call.ip);
        own.push((limits.per_client_and_address, LimitKey::client_and_email(call.ip, email)));
        self.ports.allow(&own).await
    }

    /// Admits an attempt with a mailed link.
    pub(super) async fn admit_link(&self, call: &Call) -> Answer<()> {
        self.ports.allow(&per_client(self.policy.limits.link_per_client, call.ip)).await
    }

    /// Tally of the client's network, if the address was proven from it recently.
    async fn known_client(&self, call: &Call, email: &EmailKey) -> Result<Option<Tally>, Error> {
        let id = TallyId::client(&self.ports.keys, email, &client_network(&self.ports.keys, call));
        self.ports.store.tally(id, self.ports.now()).await
    }

    /// Change that makes the client's network known, after a proof of the address from it.
    pub(super) fn remember_client(&self, call: &Call, email: &EmailKey, now: Timestamp) -> Change {
        let id = TallyId::client(&self.ports.keys, email, &client_network(&self.ports.keys, call));
        let tally = Tally { count: 1, expires_at: now.plus(self.policy.client_remembered) };
        AccountChange::PutTally { id, tally }.into()
    }

    /// Changes that reset the wrong passwords of an address, after its password has changed.
    pub(super) fn forget_guesses(&self, email: &EmailKey, now: Timestamp) -> impl Iterator<Item = Change> {
        [false, true]
            .map(|known| TallyId::passwords(&self.ports.keys, email, known))
            .into_iter()
            .map(move |id| AccountChange::PutTally { id, tally: Tally { count: 0, expires_at: now } }.into())
    }
}

/// Period in which wrong passwords are counted together.
const GUESS_WINDOW: Duration = Duration::from_hours(24);

fn limited(until: Timestamp, now: Timestamp) -> Failure<Refusal> {
    Failure::Refused(Limited { retry_after: until.since(now) }.into())
}
