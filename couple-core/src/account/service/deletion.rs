//! Deletion of an account, and the recent sign-in that it requires.

use super::{AccountResult, Accounts};
use crate::{
    Change, Decision, Secret, Timestamp, UnitOfWork,
    account::{Account, AccountError, MailJob, Session, rules},
};

impl Accounts {
    /// Schedules the deletion of the account after a grace period, and ends all sessions.
    ///
    /// A sign-in before the end of the grace period withdraws the request.
    ///
    /// # Errors
    /// [`AccountError::RecentSignInRequired`], [`AccountError::InvalidCredentials`], [`AccountError::RateLimited`].
    pub async fn request_deletion(
        &self,
        session: &Session,
        current_password: Option<&Secret<String>>,
    ) -> AccountResult<Timestamp> {
        self.allow_repeated_password(session.account, current_password).await?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let due = now.plus(self.policy.deletion_grace);
        work.run_unkeyed(
            async |previous: Option<(Account, Vec<Change>)>| {
                let account = self.current(session.account).await?;
                let verified = previous.as_ref().map(|(account, _)| account);
                let required = self.reauthenticate(session, &account, current_password, verified).await?;
                Ok((account, required))
            },
            |(account, required)| {
                let mut changes = required.clone();
                changes.extend(rules::request_deletion(account, due, now));
                changes.push(self.notify(account, |to, locale| MailJob::DeletionScheduled {
                    to,
                    locale,
                    due,
                })?);
                Ok(Decision::commit(changes, due))
            },
        )
        .await
    }

    /// Checks that the session's last proof of identity is recent enough for an export.
    ///
    /// # Errors
    /// [`AccountError::RecentSignInRequired`].
    pub fn require_recent(&self, session: &Session) -> Result<(), AccountError> {
        rules::require_recent(session, &self.policy, self.ports.now())
    }
}
