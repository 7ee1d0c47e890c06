//! Change of an account's address: request, confirmation and cancellation.

use super::{AccountResult, Accounts, Proof, invalid};
use crate::{
    AccountId, Decision, EmailAddress, Failure, RequestContext, Secret, UnitOfWork,
    account::{
        Account, AccountChange, AccountError, MailJob, Session, TokenKind,
        rules::{self, PresentedToken},
    },
};

struct ConfirmFacts {
    presented: PresentedToken,
    /// Account that requested the change, unless its deletion is scheduled.
    account: Option<Account>,
    /// Account that has the new address.
    holder: Option<AccountId>,
}

impl Accounts {
    /// Requests a change of address, which the new address must confirm.
    ///
    /// Needs the password or a recent sign-in. The old address gets a link that cancels the change; the end
    /// of the session cancels it too.
    ///
    /// # Errors
    /// [`AccountError::Invalid`], [`AccountError::InvalidCredentials`], [`AccountError::RecentSignInRequired`],
    /// [`AccountError::Unauthenticated`], [`AccountError::RateLimited`].
    pub async fn change_email(
        &self,
        context: &RequestContext,
        session: &Session,
        new_email: &str,
        current_password: Option<&Secret<String>>,
    ) -> AccountResult<()> {
        let email = EmailAddress::parse("new_email", new_email).map_err(invalid)?;
        let admit = async {
            let account = self.current(session.account).await?;
            self.allow_repeated_password(session.account, current_password).await?;
            let required = self.reauthenticate(session, &account, current_password, None).await?;
            let within_limit = self.admit_mail(context, &self.policy.limits.email_mail, email.key()).await?;
            Ok((account, required, within_limit))
        };
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run(
            context,
            admit,
            async |(account, ..), previous: Option<()>| {
                // The commit conflicts if the session has ended.
                if previous.is_some() {
                    let sessions = self.ports.store.sessions_of(account.id).await?;
                    if !sessions.iter().any(|live| live.id == session.id) {
                        return Err(Failure::Refused(AccountError::Unauthenticated));
                    }
                }
                Ok(())
            },
            |(account, required, within_limit), ()| {
                let new_token = |kind, email| rules::NewToken {
                    id: self.new_token_id(),
                    kind,
                    email,
                    account: Some(account.id),
                    display_name: None,
                    locale: None,
                    session: None,
                    network: self.network(context),
                };
                let (keys, policy) = (&self.ports.keys, &self.policy);
                // Insert the tokens here and not in the job, so that a cancellation finds them.
                let change =
                    rules::NewToken { session: Some(session.id), ..new_token(TokenKind::Email, &email) }
                        .token(keys, policy, now);
                let cancel = new_token(TokenKind::CancelEmail, &account.email).token(keys, policy, now);
                let to_new = MailJob::Email {
                    token: change.id,
                    account: account.id,
                    session: session.id,
                    email: email.clone(),
                };
                let to_new = self.limit_mail(context, &email, *within_limit, to_new);
                let token = cancel.id;
                let mut changes = required.clone();
                changes.extend([change, cancel].map(|token| AccountChange::InsertToken(token).into()));
                changes.push(self.ports.enqueue(&to_new)?);
                changes.push(self.notify(account, |to, locale| MailJob::EmailAsked { token, to, locale })?);
                Ok(Decision::commit(changes, ()))
            },
        )
        .await
        .map(drop)
    }

    /// Confirms a new address, with a code for the signed-in account or with a link without a session.
    ///
    /// The other form of the same mail is also accepted until the code expires, and changes nothing more.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::UsedToken`], [`AccountError::RateLimited`].
    pub async fn confirm_email(
        &self,
        context: &RequestContext,
        signed_in: Option<AccountId>,
        proof: &Proof,
    ) -> AccountResult<()> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run(
            context,
            self.admit_proof(context, proof),
            async |proof, _previous| {
                let presented =
                    self.prove(context, &proof, TokenKind::Email, AccountError::InvalidToken).await?;
                let owner = presented.token.account.filter(|owner| signed_in.is_none_or(|id| id == *owner));
                let account = match owner {
                    Some(owner) => self.ports.store.account(owner).await?,
                    None => None,
                };
                let account = account.filter(|account| account.deletion_due.is_none());
                let holder = self.ports.store.account_by_email(presented.token.email.key()).await?;
                Ok(ConfirmFacts { presented, account, holder: holder.map(|holder| holder.id) })
            },
            |proof, ConfirmFacts { presented, account, holder }| {
                let mut changes = match account {
                    Some(account) if presented.is_second() && *holder == Some(account.id) => {
                        rules::confirm_email_again(presented, now)
                    }
                    Some(account) if !presented.is_second() && holder.is_none() => {
                        let mut changes = rules::confirm_email(account, presented, now);
                        changes.extend(self.address_is_proven(context, presented.token.email.key(), now));
                        changes
                            .push(self.notify(account, |to, locale| MailJob::EmailChanged { to, locale })?);
                        changes.push(self.notify(account, |_, locale| MailJob::EmailConfirmed {
                            to: presented.token.email.clone(),
                            locale,
                        })?);
                        changes
                    }
                    _ => return Err(Failure::Refused(AccountError::InvalidToken)),
                };
                changes.extend(proof.require_below(now));
                Ok(Decision::commit(changes, ()))
            },
        )
        .await
        .map(drop)
    }

    /// Cancels pending changes of address with the link that was mailed to the old address.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`]; [`AccountError::UsedToken`], also after the change was confirmed or ended;
    /// [`AccountError::RateLimited`].
    pub async fn cancel_email_change(
        &self,
        context: &RequestContext,
        link: &Secret<String>,
    ) -> AccountResult<()> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        work.run(
            context,
            self.admit_link_proof(context, link),
            async |proof, _previous| {
                let presented =
                    self.prove(context, &proof, TokenKind::CancelEmail, AccountError::InvalidToken).await?;
                let account = self.owner_of(&presented.token).await?;
                Ok((presented, account.ok_or(Failure::Refused(AccountError::InvalidToken))?))
            },
            |_, (presented, account)| Ok(Decision::commit(rules::cancel_email(account, presented, now), ())),
        )
        .await
        .map(drop)
    }
}
