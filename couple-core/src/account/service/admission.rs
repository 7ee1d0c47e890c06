//! Admission of account requests: rate limits, and the daily limits of wrong passwords and codes.
//!
//! Other clients must not be able to lock out the owner of an address. So a limit that counts all clients of
//! an address refuses only clients from unknown networks. A network is known for
//! [`AccountPolicy::known_network_time`](crate::account::AccountPolicy::known_network_time) after the address was proven from it. Attempts of other
//! clients never cause a mailed link to be refused, nor a mailed code that is sent from a known network.

use std::time::Duration;

use super::{AccountResult, Accounts};
use crate::{
    AccountId, Change, CommitError, Conflict, Digest, EmailAddress, EmailKey, Error, ErrorKind, Failure,
    Keyring, RequestContext, Secret, Timestamp,
    account::{Account, AccountChange, AccountError, MailJob, MailLimits, Tally, TallyId},
    limits::{LimitKey, Limited, per_client},
    mail,
};

/// Admitted attempt with a password or a mailed code, with the tally that counts it if it is wrong.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    tally: TallyId,
    /// Exclusive upper bound of the tally.
    below: i64,
    /// Whether the client's network is known, so that a sign-in need not remember it.
    remembered: bool,
}

impl Attempt {
    /// Change that makes a commit conflict when the daily limit is reached.
    pub(super) fn require_below(&self, now: Timestamp) -> Change {
        AccountChange::RequireTally { id: self.tally, below: self.below, at: now }.into()
    }
}

/// Digest of a client network. Keyed, so that a leaked database contains no client addresses.
pub(super) fn client_network(keys: &Keyring, context: &RequestContext) -> Digest {
    let key = context.ip.map(LimitKey::client);
    keys.derive("client-network", &[key.as_ref().map_or("-", LimitKey::as_str).as_bytes()])
}

impl Accounts {
    /// Admits a request that sends a mail to an address. False: all clients together have used up the limit of the address.
    ///
    /// The client is not told then: a refusal would tell clients of known networks that theirs is known. [`limit_mail`](Self::limit_mail)
    /// makes the mail to enqueue.
    pub(super) async fn admit_mail(
        &self,
        context: &RequestContext,
        limits: &MailLimits,
        email: &EmailKey,
    ) -> AccountResult<bool> {
        let mut own = per_client(limits.per_client, context.ip);
        own.push((limits.per_client_and_address, LimitKey::client_and_email(context.ip, email)));
        self.ports.allow(&own).await?;
        let all = [limits.per_address, limits.per_address_and_day].map(|rule| (rule, LimitKey::email(email)));
        match self.ports.allow::<AccountError>(&all).await {
            Ok(()) => Ok(true),
            Err(Failure::Refused(_)) => Ok(false),
            Err(Failure::Failed(error)) => Err(error.into()),
        }
    }

    /// Mail to enqueue for a request: beyond the limit of its address, one that is sent to known networks only.
    pub(super) fn limit_mail(
        &self,
        context: &RequestContext,
        email: &EmailAddress,
        within_limit: bool,
        mail: MailJob,
    ) -> MailJob {
        if within_limit {
            return mail;
        }
        let network = client_network(&self.ports.keys, context);
        MailJob::ForKnownNetwork { network, email: email.clone(), job: Box::new(mail) }
    }

    /// Admits a password attempt for an address.
    pub(super) async fn admit_password(
        &self,
        context: &RequestContext,
        email: &EmailKey,
    ) -> AccountResult<Attempt> {
        let limits = &self.policy.limits;
        let mut own = per_client(limits.password.per_client, context.ip);
        own.push((limits.password.per_client_and_address, LimitKey::client_and_email(context.ip, email)));
        self.ports.allow(&own).await?;
        let known = self.known_client(context, email).await?;
        if known.is_none() {
            self.ports.allow(&[(limits.password_per_address, LimitKey::email(email))]).await?;
        }
        let tally = TallyId::passwords(&self.ports.keys, email, known.is_some());
        let fresh = self.ports.now().plus(self.policy.known_network_time * 3 / 4);
        let remembered = known.is_some_and(|known| known.expires_at > fresh);
        Ok(Attempt { tally, below: self.policy.password_guesses_per_day, remembered })
    }

    /// Takes a token from the rate limit of attempts to repeat a password, if one is given.
    ///
    /// Attempts of other clients do not count.
    pub(super) async fn allow_repeated_password(
        &self,
        account: AccountId,
        password: Option<&Secret<String>>,
    ) -> AccountResult<()> {
        if password.is_none() {
            return Ok(());
        }
        let rule = self.policy.limits.password_per_account;
        self.ports.allow(&[(rule, LimitKey::new("account", account))]).await
    }

    /// Attempt of a signed-in account to repeat its password.
    ///
    /// It has a separate tally: a client with a stolen session must not use up the attempts to sign in.
    pub(super) fn repeated_password(&self, account: &Account) -> Attempt {
        let tally = TallyId::repeated_passwords(&self.ports.keys, account.email.key());
        Attempt { tally, below: self.policy.password_guesses_per_day, remembered: true }
    }

    /// Refuses an attempt when the daily limit of wrong passwords or codes is reached.
    ///
    /// Asked before each comparison: concurrent wrong attempts may have reached the limit since the admission.
    pub(super) async fn require_guesses(&self, attempt: &Attempt) -> AccountResult<()> {
        let now = self.ports.now();
        let counted = self.ports.store.tally(attempt.tally, now).await?;
        match counted.filter(|counted| counted.count >= attempt.below) {
            Some(full) => Err(limited(full.expires_at, now)),
            None => Ok(()),
        }
    }

    /// Counts a wrong password or code, together with `changes`, and returns the error for the client.
    ///
    /// `refusal`, or [`AccountError::RateLimited`] when concurrent attempts have reached the daily limit.
    pub(super) async fn wrong_guess(
        &self,
        attempt: &Attempt,
        mut changes: Vec<Change>,
        refusal: AccountError,
    ) -> Failure<AccountError> {
        let now = self.ports.now();
        let count = AccountChange::CountTally {
            id: attempt.tally,
            below: attempt.below,
            at: now,
            expires_at: now.plus(GUESS_WINDOW),
        };
        changes.push(count.into());
        match self.ports.commit(changes).await {
            Ok(_) => Failure::Refused(refusal),
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
        context: &RequestContext,
        email: &EmailKey,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Vec<Change> {
        let mut changes = vec![attempt.require_below(now)];
        if !attempt.remembered {
            changes.push(self.remember_client(context, email, now));
        }
        changes
    }

    /// Admits an attempt with a mailed code.
    pub(super) async fn admit_code(
        &self,
        context: &RequestContext,
        email: &EmailKey,
    ) -> AccountResult<Attempt> {
        let limits = &self.policy.limits.code;
        let mut own = per_client(limits.per_client, context.ip);
        own.push((limits.per_client_and_address, LimitKey::client_and_email(context.ip, email)));
        self.ports.allow(&own).await?;
        let known = self.known_client(context, email).await?.is_some();
        let tally = TallyId::codes(&self.ports.keys, email, known);
        // `remembered: false`: after each proof by mail, the network becomes known for another period.
        Ok(Attempt { tally, below: self.policy.code_guesses_per_day, remembered: false })
    }

    /// Admits an attempt with a mailed link.
    pub(super) async fn admit_link(&self, context: &RequestContext) -> AccountResult<()> {
        self.ports.allow(&per_client(self.policy.limits.link_per_client, context.ip)).await
    }

    /// Client network to store with a token, as a keyed digest.
    pub(super) fn network(&self, context: &RequestContext) -> Option<Digest> {
        Some(client_network(&self.ports.keys, context))
    }

    /// Tally of the client's network, if the address was proven from it recently.
    async fn known_client(&self, context: &RequestContext, email: &EmailKey) -> Result<Option<Tally>, Error> {
        let id = TallyId::client(&self.ports.keys, email, &client_network(&self.ports.keys, context));
        self.ports.store.tally(id, self.ports.now()).await
    }

    /// Change that makes the client's network known, after a proof of the address from it.
    fn remember_client(&self, context: &RequestContext, email: &EmailKey, now: Timestamp) -> Change {
        let id = TallyId::client(&self.ports.keys, email, &client_network(&self.ports.keys, context));
        let tally = Tally { count: 1, expires_at: now.plus(self.policy.known_network_time) };
        AccountChange::PutTally { id, tally, retires: None }.into()
    }

    /// Changes after a code or link that was mailed to an address: the client's network becomes known, and the address gets mails
    /// again if it was retired.
    pub(super) fn address_is_proven(
        &self,
        context: &RequestContext,
        email: &EmailKey,
        now: Timestamp,
    ) -> [Change; 2] {
        [self.remember_client(context, email, now), mail::restore(&self.ports.keys, email, now)]
    }

    /// Changes that reset the wrong passwords of an address, after its password has changed.
    pub(super) fn forget_guesses(&self, email: &EmailKey, now: Timestamp) -> impl Iterator<Item = Change> {
        let keys = &self.ports.keys;
        let of_sign_in = [false, true].map(|known| TallyId::passwords(keys, email, known));
        of_sign_in.into_iter().chain([TallyId::repeated_passwords(keys, email)]).map(move |id| {
            AccountChange::PutTally { id, tally: Tally { count: 0, expires_at: now }, retires: None }.into()
        })
    }
}

/// Period in which wrong passwords are counted together.
const GUESS_WINDOW: Duration = Duration::from_hours(24);

fn limited(until: Timestamp, now: Timestamp) -> Failure<AccountError> {
    Failure::Refused(Limited { retry_after: until.since(now) }.into())
}
