//! Sign-in with a password, a mailed code or a mailed link.

use super::{AccountResult, Accounts, Proof, SignedIn, admission::Attempt};
use crate::{
    Decision, EmailAddress, EmailKey, Failure, RequestContext, Secret, UnitOfWork,
    account::{Account, AccountError, MailJob, Password, PasswordHash, TokenKind, rules},
};

/// Credentials of a sign-in.
#[derive(Debug, Clone)]
pub enum SignIn {
    /// Address and password.
    Password {
        /// Address of the account.
        email: String,
        /// Password as typed.
        password: Secret<String>,
    },
    /// Address and mailed code.
    Code {
        /// Address of the account.
        email: String,
        /// Six digits.
        code: Secret<String>,
    },
    /// Token of a mailed link.
    Link(Secret<String>),
}

/// Account whose password was verified.
struct VerifiedAccount {
    account: Account,
    /// Stored hash that the password matches.
    matched: PasswordHash,
    /// Hash with the current cost, if the stored one has another.
    rehashed: Option<PasswordHash>,
    /// Whether the account has a session of a device with the same name.
    known_device: bool,
}

impl Accounts {
    /// Signs in.
    ///
    /// A wrong password, an unknown address and a missing password get the same refusal and cost one hash.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::UsedToken`] for a used link,
    /// [`AccountError::InvalidToken`] for another invalid link, [`AccountError::RateLimited`].
    pub async fn sign_in(&self, context: &RequestContext, command: &SignIn) -> AccountResult<SignedIn> {
        match command {
            SignIn::Password { email, password } => self.sign_in_by_password(context, email, password).await,
            SignIn::Code { email, code } => {
                let proof = Proof::Code { email: email.clone(), code: code.clone() };
                self.sign_in_by_mail(context, &proof, AccountError::InvalidCredentials).await
            }
            SignIn::Link(link) => {
                self.sign_in_by_mail(context, &Proof::Link(link.clone()), AccountError::InvalidToken).await
            }
        }
    }

    async fn sign_in_by_password(
        &self,
        context: &RequestContext,
        email: &str,
        password: &Secret<String>,
    ) -> AccountResult<SignedIn> {
        let email = EmailAddress::parse("email", email).map_err(super::invalid)?;
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let completed = work
            .run(
                context,
                self.admit_password(context, email.key()),
                async |attempt, previous| {
                    self.verified_account(context, &attempt, email.key(), password, previous).await
                },
                |attempt, VerifiedAccount { account, rehashed, known_device, .. }| {
                    let new = self.new_session(account.id, context, now);
                    let (account, mut changes) =
                        rules::sign_in(account, rehashed.clone(), None, new.session.clone(), now)
                            .map_err(Failure::Refused)?;
                    changes.extend(self.right_password(context, email.key(), attempt, now));
                    if !known_device {
                        let (device, at) = (context.device.clone(), now);
                        changes.push(self.notify(&account, |to, locale| MailJob::NewDevice {
                            to,
                            locale,
                            device,
                            at,
                        })?);
                    }
                    let answer = SignedIn { account, session: new.session, token: new.token };
                    Ok(Decision::Commit { changes, outcome: new.outcome, answer })
                },
            )
            .await?;
        self.signed_in(completed).await
    }

    async fn verified_account(
        &self,
        context: &RequestContext,
        attempt: &Attempt,
        email: &EmailKey,
        password: &Secret<String>,
        previous: Option<VerifiedAccount>,
    ) -> AccountResult<VerifiedAccount> {
        self.require_guesses(attempt).await?;
        let account = self.ports.store.account_by_email(email).await?;
        let stored = account.as_ref().and_then(|account| account.password.as_ref());
        // After a conflict, hash again only if the stored password has changed.
        let known = previous.filter(|previous| Some(&previous.matched) == stored);
        let rehashed = if let Some(known) = known {
            Some(known.rehashed)
        } else {
            match Password::typed(password) {
                Some(typed) => self.hasher.verify(stored, typed).await?,
                None => None,
            }
        };
        let matched = stored.cloned();
        match (account, matched, rehashed) {
            (Some(account), Some(matched), Some(rehashed)) => {
                let sessions = self.ports.store.sessions_of(account.id).await?;
                let known_device = sessions.iter().any(|session| session.device == context.device);
                Ok(VerifiedAccount { account, matched, rehashed, known_device })
            }
            _ => Err(self.wrong_guess(attempt, Vec::new(), AccountError::InvalidCredentials).await),
        }
    }

    async fn sign_in_by_mail(
        &self,
        context: &RequestContext,
        proof: &Proof,
        refusal: AccountError,
    ) -> AccountResult<SignedIn> {
        let work = UnitOfWork::new(&self.ports);
        let now = work.now();
        let completed = work
            .run(
                context,
                self.admit_proof(context, proof),
                async |proof, _previous| {
                    let presented = self.prove(context, &proof, TokenKind::SignIn, refusal.clone()).await?;
                    let account = self.owner_of(&presented.token).await?;
                    Ok((presented, account.ok_or_else(|| Failure::Refused(refusal.clone()))?))
                },
                |proof, (presented, account)| {
                    let new = self.new_session(account.id, context, now);
                    let (account, mut changes) =
                        rules::sign_in(account, None, Some(presented), new.session.clone(), now)
                            .map_err(Failure::Refused)?;
                    changes.extend(proof.require_below(now));
                    changes.extend(self.address_is_proven(context, account.email.key(), now));
                    let answer = SignedIn { account, session: new.session, token: new.token };
                    Ok(Decision::Commit { changes, outcome: new.outcome, answer })
                },
            )
            .await?;
        self.signed_in(completed).await
    }
}
