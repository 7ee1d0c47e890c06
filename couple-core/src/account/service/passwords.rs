//! Passwords: reset with a mailed link, change, and repetition before a sensitive request.

use super::{AccountResult, Accounts, SignedIn, invalid, local_part};
use crate::{
    Change, Decision, Failure, Invalid, RequestContext, Secret, UnitOfWork,
    account::{
        Account, AccountError, MailJob, Password, PasswordHash, Session, TokenKind,
        rules::{self, PresentedToken},
    },
};

struct ResetFacts {
    presented: PresentedToken,
    account: Account,
    /// Hash of the new password.
    hash: PasswordHash,
}

struct ChangeFacts {
    account: Account,
    /// Changes that make the commit conflict if the proof of identity no longer holds.
    required: Vec<Change>,
    /// Hash of the new password.
    hash: PasswordHash,
}

impl Accounts {
    /// Sets a new password with a mailed link. Ends all sessions.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::Invalid`] for the password, [`AccountError::RateLimited`].
    pub async fn reset_password(
        &self,
        context: &RequestContext,
        link: &Secret<String>,
        new: &Secret<String>,
    ) -> AccountResult<()> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run(
            context,
            self.admit_link_proof(context, link),
            async |proof, previous: Option<ResetFacts>| {
                let presented =
                    self.prove(context, &proof, TokenKind::Password, AccountError::InvalidToken).await?;
                let account = self.owner_of(&presented.token).await?;
                let account = account.ok_or(Failure::Refused(AccountError::InvalidToken))?;
                let hash = match previous {
                    Some(previous) => previous.hash,
                    None => self.hash_new(&account, new).await?,
                };
                Ok(ResetFacts { presented, account, hash })
            },
            |_, ResetFacts { presented, account, hash }| {
                let mut changes = rules::set_password(account, hash.clone(), Some(presented), None, now);
                changes.extend(self.forget_guesses(account.email.key(), now));
                changes.extend(self.address_is_proven(context, account.email.key(), now));
                changes.push(self.notify(account, |to, locale| MailJob::PasswordChanged { to, locale })?);
                Ok(Decision::commit(changes, ()))
            },
        )
        .await
        .map(drop)
    }

    /// Changes the password: ends all other sessions and gives this session a new token.
    ///
    /// An account without a password needs a recent sign-in in place of its current password. An idempotency key
    /// is ignored, because a repeat has no valid session.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::RecentSignInRequired`], [`AccountError::Invalid`],
    /// [`AccountError::RateLimited`].
    pub async fn change_password(
        &self,
        context: &RequestContext,
        session: &Session,
        current: Option<&Secret<String>>,
        new: &Secret<String>,
    ) -> AccountResult<SignedIn> {
        self.allow_repeated_password(session.account, current).await?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run_unkeyed(
            async |previous: Option<ChangeFacts>| {
                let account = self.current(session.account).await?;
                // If there is a password, a recent sign-in is not enough: a person with a borrowed phone must not
                // lock out its owner.
                if account.password.is_some() && current.is_none() {
                    return Err(invalid(Invalid::new("current_password", "required")));
                }
                let verified = previous.as_ref().map(|previous| &previous.account);
                let required = self.reauthenticate(session, &account, current, verified).await?;
                let hash = match previous {
                    Some(previous) => previous.hash,
                    None => self.hash_new(&account, new).await?,
                };
                Ok(ChangeFacts { account, required, hash })
            },
            |ChangeFacts { account, required, hash }| {
                let new = self.new_session(account.id, context, now);
                let session = Session { device: session.device.clone(), ..new.session };
                let mut changes = required.clone();
                changes.extend(rules::set_password(account, hash.clone(), None, Some(session.clone()), now));
                changes.extend(self.forget_guesses(account.email.key(), now));
                changes.push(self.notify(account, |to, locale| MailJob::PasswordChanged { to, locale })?);
                let answer = SignedIn { account: account.clone(), session, token: new.token };
                Ok(Decision::commit(changes, answer))
            },
        )
        .await
    }

    /// Checks the password if one is given, else requires a recent sign-in.
    ///
    /// `verified` is the account for which an earlier attempt of the same request verified the password: it is
    /// hashed again only if the stored hash has changed since. The caller adds the returned changes to its
    /// commit, and has called [`allow_repeated_password`](Self::allow_repeated_password) once.
    pub(super) async fn reauthenticate(
        &self,
        session: &Session,
        account: &Account,
        password: Option<&Secret<String>>,
        verified: Option<&Account>,
    ) -> AccountResult<Vec<Change>> {
        let Some(password) = password else {
            self.require_recent(session).map_err(Failure::Refused)?;
            return Ok(Vec::new());
        };
        let attempt = self.repeated_password(account);
        self.require_guesses(&attempt).await?;
        let matches = match Password::typed(password) {
            _ if verified.is_some_and(|verified| verified.password == account.password) => true,
            Some(typed) => self.hasher.verify(account.password.as_ref(), typed).await?.is_some(),
            None => false,
        };
        if matches {
            Ok(vec![attempt.require_below(self.ports.now())])
        } else {
            Err(self.wrong_guess(&attempt, Vec::new(), AccountError::InvalidCredentials).await)
        }
    }

    async fn hash_new(&self, account: &Account, new: &Secret<String>) -> AccountResult<PasswordHash> {
        let known_words = [account.display_name.as_str(), local_part(&account.email)];
        let chosen = Password::choose("new_password", new, &known_words).map_err(invalid)?;
        Ok(self.hasher.hash(chosen).await?)
    }
}
