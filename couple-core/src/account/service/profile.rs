//! Profile of an account, and the directory of accounts for pairing.

use async_trait::async_trait;

use super::{AccountResult, Accounts, invalid};
use crate::{
    AccountId, Decision, DisplayName, EmailKey, Error, Locale, TimeZoneName, Timestamp, UnitOfWork,
    account::{Account, AccountChange},
    limits::{LimitKey, rules::WRITE_PER_ACCOUNT},
    pairing::{Contact, Couple, Directory, Profile},
    text::parse_birthday,
    timeline,
};

/// Changes of a profile. None keeps a field, `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct ProfilePatch {
    /// Display name.
    pub display_name: Option<String>,
    /// Language of mails, parsed by [`Locale::matched`]; an unknown language clears the field.
    pub locale: Option<Option<String>>,
    /// Time zone of the user's calendar days, an IANA name.
    pub time_zone: Option<Option<String>>,
    /// Birthday, `YYYY-MM-DD`.
    pub birthday: Option<Option<String>>,
}

impl ProfilePatch {
    /// The account after the changes.
    fn applied(&self, before: &Account, now: Timestamp) -> AccountResult<Account> {
        let mut account = before.clone();
        if let Some(name) = &self.display_name {
            account.display_name = DisplayName::parse("display_name", name).map_err(invalid)?;
        }
        if let Some(to) = &self.locale {
            account.locale = to.as_deref().and_then(Locale::matched);
        }
        if let Some(zone) = &self.time_zone {
            let parsed = zone.as_deref().map(|zone| TimeZoneName::parse("time_zone", zone));
            account.time_zone = parsed.transpose().map_err(invalid)?;
        }
        if let Some(day) = &self.birthday {
            let parsed = day.as_deref().map(|day| parse_birthday("birthday", day, now));
            account.birthday = parsed.transpose().map_err(invalid)?;
        }
        Ok(account)
    }
}

struct ProfileFacts {
    before: Account,
    after: Account,
    /// Couple of the account, if its partner is to learn of a new name.
    couple: Option<Couple>,
}

impl Accounts {
    /// Changes the profile of an account.
    ///
    /// # Errors
    /// [`AccountError::Invalid`](crate::account::AccountError::Invalid),
    /// [`AccountError::RateLimited`](crate::account::AccountError::RateLimited).
    pub async fn update_profile(&self, id: AccountId, patch: &ProfilePatch) -> AccountResult<Account> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |previous: Option<ProfileFacts>| {
                let before = self.current(id).await?;
                let after = patch.applied(&before, now)?;
                // Only a change takes a token, and only once.
                if previous.is_none() && after != before {
                    self.ports.allow(&[(WRITE_PER_ACCOUNT, LimitKey::new("account", id))]).await?;
                }
                let couple = match after.display_name == before.display_name {
                    true => None,
                    false => self.ports.store.couple_of(id).await?,
                };
                Ok(ProfileFacts { before, after, couple })
            },
            |ProfileFacts { before, after, couple }| {
                if after == before {
                    return Ok(Decision::Answer(after.clone()));
                }
                let mut changes = Vec::new();
                if after.display_name != before.display_name {
                    changes.push(timeline::rules::profile_changed(couple.as_ref(), id, now));
                }
                changes.push(AccountChange::Update(after.clone()).into());
                Ok(Decision::commit(changes, after.clone()))
            },
        )
        .await
    }
}

#[async_trait]
impl Directory for Accounts {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        let account = self.ports.store.account(person).await?;
        Ok(account.map(|account| Profile { display_name: account.display_name }))
    }
    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error> {
        let account = self.ports.store.account(person).await?;
        Ok(account.map(|account| Contact {
            email: account.email,
            locale: account.locale,
            time_zone: account.time_zone,
        }))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        Ok(self.ports.store.account_by_email(email).await?.map(|account| account.id))
    }
    async fn may_pair(&self, person: AccountId, email: &EmailKey) -> Result<bool, Error> {
        let account = self.ports.store.account(person).await?;
        Ok(account.is_some_and(|account| account.email.key() == email && account.deletion_due.is_none()))
    }
}
