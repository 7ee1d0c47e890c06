//! Use cases of accounts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{
    Account, AccountChange, AccountError, AccountPolicy, MailJob, MailLimits, Password, PasswordHash,
    PasswordHasher, Session, Token, TokenKind,
    admission::{Attempt, client_network},
    rules::{self, PresentedToken, VerifiedFields},
};
use crate::{
    AccountId, Change, Decision, Digest, DisplayName, EmailAddress, EmailKey, Error, Failure, Locale, Ports,
    RequestContext, Secret, SessionId, TimeZoneName, Timestamp, TokenId, digest,
    limits::{LimitKey, rules::WRITE_PER_ACCOUNT},
    pairing::{Directory, Profile},
    ports::without_conflict,
    store::UnitOfWork,
    text::parse_birthday,
    typed_text,
};

/// Request to sign up.
#[derive(Debug, Clone)]
pub struct SignUp {
    /// Address to which code and link are mailed.
    pub email: String,
    /// Display name.
    pub display_name: String,
    /// Language of the account's mails, parsed by [`Locale::matched`].
    pub locale: Option<String>,
}

/// Proof from a mail: its code or its link.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Address and 6-digit code.
    Code {
        /// Address to which the code was mailed.
        email: String,
        /// Six digits.
        code: Secret<String>,
    },
    /// The link token.
    Link(Secret<String>),
}

/// Request to confirm a sign-up.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Code or link of the mail.
    pub proof: Proof,
    /// Password to set, if any.
    pub password: Option<Secret<String>>,
    /// Display name, if given. Overrides the name of the sign-up, which a stranger may have sent.
    pub display_name: Option<String>,
    /// Locale, if given. Overrides the locale of the sign-up.
    pub locale: Option<String>,
}

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

/// Result of a sign-in: account, session and bearer token, which is returned only once.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The account.
    pub account: Account,
    /// The session.
    pub session: Session,
    /// Bearer token that authenticates the device's requests.
    pub token: Secret<String>,
}

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

/// Proof of an address whose attempt was admitted.
enum AdmittedProof {
    Code { attempt: Attempt, email: EmailAddress, code: Secret<String> },
    Link(Secret<String>),
}

impl AdmittedProof {
    /// Change that makes a commit conflict when the daily limit of wrong codes is reached.
    fn require_below(&self, now: Timestamp) -> Option<Change> {
        match self {
            Self::Code { attempt, .. } => Some(attempt.require_below(now)),
            Self::Link(_) => None,
        }
    }
}

/// Recorded outcome of a request that started a session. The seed is useless without the key ring.
#[derive(Debug, Serialize, Deserialize)]
struct SessionOutcome {
    session: SessionId,
    account: AccountId,
    seed: String,
}

pub(super) type AccountResult<T> = Result<T, Failure<AccountError>>;

/// Service for sign-up, verification, sign-in, sessions, password recovery, profile and deletion.
#[derive(Debug, Clone)]
pub struct Accounts {
    pub(super) ports: Ports,
    hasher: Arc<PasswordHasher>,
    pub(super) policy: Arc<AccountPolicy>,
}

impl Accounts {
    /// Creates the service.
    #[must_use]
    pub fn new(ports: Ports, hasher: Arc<PasswordHasher>, policy: AccountPolicy) -> Self {
        Self { ports, hasher, policy: Arc::new(policy) }
    }

    /// Lifetimes and limits.
    #[must_use]
    pub fn policy(&self) -> &AccountPolicy {
        &self.policy
    }

    /// Signs up: mails a code and a link to an address.
    ///
    /// The answer and its time are the same whether or not the address has an account: the request only
    /// enqueues a job, and the job looks the address up.
    ///
    /// # Errors
    /// [`AccountError::Invalid`], [`AccountError::RateLimited`], [`AccountError::KeyReused`].
    pub async fn sign_up(&self, call: &RequestContext, command: &SignUp) -> AccountResult<()> {
        let email = EmailAddress::parse("email", &command.email).map_err(refuse)?;
        let display_name = DisplayName::parse("display_name", &command.display_name).map_err(refuse)?;
        let locale = command.locale.as_deref().and_then(Locale::matched);
        let (token, network) = (self.fresh_token(), self.network(call));
        let job = MailJob::SignUp { token, email: email.clone(), display_name, locale, network };
        self.enqueue_mail(call, &self.policy.limits.sign_up_mail, &email, &job).await
    }

    /// Mails another code and link for an open sign-up. Sends nothing to an address without one.
    ///
    /// # Errors
    /// The same as for [`sign_up`](Self::sign_up).
    pub async fn resend(&self, call: &RequestContext, email: &str) -> AccountResult<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let job =
            MailJob::Resend { token: self.fresh_token(), email: email.clone(), network: self.network(call) };
        self.enqueue_mail(call, &self.policy.limits.sign_up_mail, &email, &job).await
    }

    /// Mails a code and a link for signing in.
    ///
    /// # Errors
    /// The same as for [`sign_up`](Self::sign_up).
    pub async fn request_code(&self, call: &RequestContext, email: &str) -> AccountResult<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let job =
            MailJob::SignIn { token: self.fresh_token(), email: email.clone(), network: self.network(call) };
        self.enqueue_mail(call, &self.policy.limits.sign_in_mail, &email, &job).await
    }

    /// Mails a link for setting a new password.
    ///
    /// # Errors
    /// The same as for [`sign_up`](Self::sign_up).
    pub async fn forgot_password(&self, call: &RequestContext, email: &str) -> AccountResult<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let job = MailJob::Password { token: self.fresh_token(), email: email.clone() };
        self.enqueue_mail(call, &self.policy.limits.password_mail, &email, &job).await
    }

    async fn enqueue_mail(
        &self,
        call: &RequestContext,
        limits: &MailLimits,
        email: &EmailAddress,
        job: &MailJob,
    ) -> AccountResult<()> {
        let mut work = UnitOfWork::new(&self.ports, call, self.ports.now());
        let mut enqueue = None;
        loop {
            if work.replay::<(), AccountError>().await?.is_some() {
                return Ok(());
            }
            let enqueue = match &enqueue {
                Some(enqueue) => Change::clone(enqueue),
                None => {
                    let sent = self.admit_mail(call, limits, email.key()).await?;
                    // A job in any case: the time of the answer must not tell which of them it is.
                    enqueue.insert(self.ports.enqueue(if sent { job } else { &MailJob::Suppressed })?).clone()
                }
            };
            let changes = vec![enqueue];
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Confirms a sign-up: creates the account, sets a password if one is given, and starts a session.
    ///
    /// The other form of the same mail also signs in until the code expires; it sets the password only if
    /// there is none.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::UsedToken`], [`AccountError::Invalid`] for the password, the name or the
    /// locale, [`AccountError::RateLimited`].
    pub async fn verify(&self, call: &RequestContext, command: &Verification) -> AccountResult<SignedIn> {
        let now = self.ports.now();
        let named = VerifiedFields {
            display_name: match &command.display_name {
                Some(name) => Some(DisplayName::parse("display_name", name).map_err(refuse)?),
                None => None,
            },
            locale: command.locale.as_deref().and_then(Locale::matched),
        };
        let mut work = UnitOfWork::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        let proof = self.admit_proof(call, &command.proof).await?;
        let mut hash = None;
        loop {
            let shown = match self.prove(call, &proof, TokenKind::SignUp, AccountError::InvalidToken).await {
                Ok(shown) => shown,
                Err(refused) => return self.resume_or(&work, refused).await,
            };
            let token = &shown.token;
            let account = if shown.is_second() { self.owner_of(token).await? } else { None };
            let existing = match &account {
                Some(account) => Some(account.clone()),
                None => self.ports.store.account_by_email(token.email.key()).await?,
            };
            let may_choose = match (&account, &existing) {
                (Some(account), _) => account.password.is_none(),
                (None, existing) => existing.is_none(),
            };
            if let (Some(typed), true) = (&command.password, may_choose && hash.is_none()) {
                let name = named.display_name.as_ref().or(token.display_name.as_ref());
                let context = [name.map_or("", DisplayName::as_str), local(&token.email)];
                let chosen = Password::choose("password", typed, &context).map_err(refuse)?;
                // Hash only after the proof: hashing is expensive, so strangers must not cause it.
                hash = Some(self.hasher.hash(chosen).await?);
            }
            let id = account.as_ref().map(|account| account.id);
            let id = id.unwrap_or_else(|| AccountId::new(&*self.ports.clock, &*self.ports.entropy));
            let (session, bearer, seed) = self.begin_session(id, call, now);
            let chosen = hash.clone().filter(|_| may_choose);
            let decided = match &account {
                Some(account) => rules::sign_in(account, chosen, Some(&shown), session.clone(), now)
                    .map_err(|_| AccountError::InvalidToken),
                None => rules::confirm_sign_up(
                    &shown,
                    existing.as_ref(),
                    named.clone(),
                    chosen,
                    session.clone(),
                    now,
                ),
            };
            let (account, mut changes) = match decided.map_err(Failure::Refused) {
                Ok(decided) => decided,
                Err(refused) => return self.resume_or(&work, refused).await,
            };
            changes.extend(proof.require_below(now));
            changes.push(self.remember_client(call, token.email.key(), now));
            let outcome = SessionOutcome { session: session.id, account: account.id, seed };
            if work.commit(Decision { changes, outcome }).await?.is_some() {
                return Ok(SignedIn { account, session, token: bearer });
            }
            if let Some(begun) = work.replay().await? {
                return self.resume(begun).await;
            }
        }
    }

    /// Signs in.
    ///
    /// A wrong password, an unknown address and a missing password get the same refusal and cost one hash.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::UsedToken`] for a used link, [`AccountError::InvalidToken`] for
    /// another invalid link, [`AccountError::RateLimited`].
    pub async fn sign_in(&self, call: &RequestContext, command: &SignIn) -> AccountResult<SignedIn> {
        match command {
            SignIn::Password { email, password } => self.sign_in_by_password(call, email, password).await,
            SignIn::Code { email, code } => {
                let proof = Proof::Code { email: email.clone(), code: code.clone() };
                self.sign_in_by_mail(call, &proof, AccountError::InvalidCredentials).await
            }
            SignIn::Link(link) => {
                self.sign_in_by_mail(call, &Proof::Link(link.clone()), AccountError::InvalidToken).await
            }
        }
    }

    async fn sign_in_by_password(
        &self,
        call: &RequestContext,
        email: &str,
        password: &Secret<String>,
    ) -> AccountResult<SignedIn> {
        let now = self.ports.now();
        let mut work = UnitOfWork::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let attempt = self.admit_password(call, email.key()).await?;
        let mut verified: Option<(PasswordHash, Option<PasswordHash>)> = None;
        loop {
            let account = self.ports.store.account_by_email(email.key()).await?;
            let stored = account.as_ref().and_then(|account| account.password.as_ref());
            // After a conflict, hash again only if the stored password has changed.
            let known = verified.as_ref().filter(|(seen, _)| Some(seen) == stored);
            let rehashed = if let Some((_, rehashed)) = known {
                rehashed.clone()
            } else {
                let matches = match Password::typed(password) {
                    Some(typed) => self.hasher.verify(stored, typed).await?,
                    None => None,
                };
                let Some(rehashed) = matches else {
                    return Err(self
                        .wrong_guess(&attempt, Vec::new(), AccountError::InvalidCredentials)
                        .await);
                };
                verified = stored.map(|seen| (seen.clone(), rehashed.clone()));
                rehashed
            };
            let account = account.ok_or(Failure::Refused(AccountError::InvalidCredentials))?;
            let (session, bearer, seed) = self.begin_session(account.id, call, now);
            let (account, mut changes) =
                rules::sign_in(&account, rehashed, None, session.clone(), now).map_err(Failure::Refused)?;
            changes.extend(self.right_password(call, email.key(), &attempt, now));
            let outcome = SessionOutcome { session: session.id, account: account.id, seed };
            if work.commit(Decision { changes, outcome }).await?.is_some() {
                return Ok(SignedIn { account, session, token: bearer });
            }
            if let Some(begun) = work.replay().await? {
                return self.resume(begun).await;
            }
            // Concurrent wrong passwords may have reached the daily limit.
            self.require_guesses(&attempt).await?;
        }
    }

    async fn sign_in_by_mail(
        &self,
        call: &RequestContext,
        proof: &Proof,
        refusal: AccountError,
    ) -> AccountResult<SignedIn> {
        let now = self.ports.now();
        let mut work = UnitOfWork::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        let proof = self.admit_proof(call, proof).await?;
        loop {
            let shown = match self.prove(call, &proof, TokenKind::SignIn, refusal.clone()).await {
                Ok(shown) => shown,
                Err(refused) => return self.resume_or(&work, refused).await,
            };
            let account = self.owner_of(&shown.token).await?;
            let account = account.ok_or_else(|| Failure::Refused(refusal.clone()))?;
            let (session, bearer, seed) = self.begin_session(account.id, call, now);
            let (account, mut changes) = rules::sign_in(&account, None, Some(&shown), session.clone(), now)
                .map_err(Failure::Refused)?;
            changes.extend(proof.require_below(now));
            changes.push(self.remember_client(call, account.email.key(), now));
            let outcome = SessionOutcome { session: session.id, account: account.id, seed };
            if work.commit(Decision { changes, outcome }).await?.is_some() {
                return Ok(SignedIn { account, session, token: bearer });
            }
            if let Some(begun) = work.replay().await? {
                return self.resume(begun).await;
            }
        }
    }

    /// Session and account of a bearer token.
    ///
    /// # Errors
    /// [`AccountError::Unauthenticated`] unless the token belongs to a live session.
    pub async fn authenticate(&self, bearer: &Secret<String>) -> AccountResult<(Session, Account)> {
        let now = self.ports.now();
        let unknown = Failure::Refused(AccountError::Unauthenticated);
        if bearer.expose().is_empty() || bearer.expose().len() > 256 {
            return Err(unknown);
        }
        let token = digest(&[bearer.expose().as_bytes()]);
        let Some((mut session, account)) = self.ports.store.session_by_token(&token).await? else {
            return Err(unknown);
        };
        if !session.is_live(&self.policy, now) || account.deletion_due.is_some() {
            return Err(unknown);
        }
        if now >= session.seen_at.plus(self.policy.seen_resolution) {
            let touch =
                AccountChange::TouchSession { account: session.account, id: session.id, seen_at: now };
            without_conflict(self.ports.commit(vec![touch.into()]).await)?;
            session.seen_at = now;
        }
        Ok((session, account))
    }

    /// Whether an account has a live session with this id.
    ///
    /// For requests that prove the session otherwise than by its token.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn has_session(&self, account: AccountId, id: SessionId) -> Result<bool, Error> {
        if !self.sessions(account).await?.iter().any(|session| session.id == id) {
            return Ok(false);
        }
        let account = self.ports.store.account(account).await?;
        Ok(account.is_some_and(|account| account.deletion_due.is_none()))
    }

    /// Remaining lifetime of a session if it is neither used nor ended.
    #[must_use]
    pub fn left(&self, session: &Session) -> Duration {
        session.left(&self.policy, self.ports.now())
    }

    /// Live sessions of an account, newest first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn sessions(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        let now = self.ports.now();
        let mut sessions = self.ports.store.sessions_of(account).await?;
        sessions.retain(|session| session.is_live(&self.policy, now));
        Ok(sessions)
    }

    /// Ends the session of a device.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn sign_out(&self, session: &Session) -> Result<(), Error> {
        let end = AccountChange::EndSession { account: session.account, id: session.id };
        without_conflict(self.ports.commit(vec![end.into()]).await)?;
        Ok(())
    }

    /// Ends a session of an account.
    ///
    /// # Errors
    /// [`AccountError::SessionNotFound`].
    pub async fn end_session(&self, account: AccountId, id: SessionId) -> AccountResult<()> {
        if !self.ports.store.sessions_of(account).await?.iter().any(|session| session.id == id) {
            return Err(Failure::Refused(AccountError::SessionNotFound));
        }
        without_conflict(self.ports.commit(vec![AccountChange::EndSession { account, id }.into()]).await)?;
        Ok(())
    }

    /// Ends all sessions of an account except one.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn end_sessions(&self, account: AccountId, except: Option<SessionId>) -> Result<(), Error> {
        without_conflict(
            self.ports.commit(vec![AccountChange::EndSessions { account, except }.into()]).await,
        )?;
        Ok(())
    }

    /// Sets a new password with a mailed link. Ends all sessions.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::Invalid`] for the password, [`AccountError::RateLimited`].
    pub async fn reset_password(
        &self,
        call: &RequestContext,
        link: &Secret<String>,
        new: &Secret<String>,
    ) -> AccountResult<()> {
        let now = self.ports.now();
        self.admit_link(call).await?;
        let mut work = UnitOfWork::new(&self.ports, call, now);
        let mut hash = None;
        loop {
            let proof = AdmittedProof::Link(link.clone());
            let shown = self.prove(call, &proof, TokenKind::Password, AccountError::InvalidToken).await?;
            let account =
                self.owner_of(&shown.token).await?.ok_or(Failure::Refused(AccountError::InvalidToken))?;
            let hash = match &hash {
                Some(hash) => PasswordHash::clone(hash),
                None => hash.insert(self.hash_new(&account, new).await?).clone(),
            };
            let mut changes = rules::set_password(&account, hash, Some(&shown), None, now);
            changes.extend(self.forget_guesses(account.email.key(), now));
            changes.push(self.remember_client(call, account.email.key(), now));
            changes.push(self.tell(&account, |to, locale| MailJob::PasswordChanged { to, locale })?);
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Changes the password: ends all other sessions and gives this session a new token.
    ///
    /// An account without a password needs a recent sign-in in place of its current password.
    ///
    /// # Errors
    /// [`AccountError::InvalidCredentials`], [`AccountError::RecentSignInRequired`], [`AccountError::Invalid`],
    /// [`AccountError::RateLimited`].
    pub async fn change_password(
        &self,
        call: &RequestContext,
        session: &Session,
        current: Option<&Secret<String>>,
        new: &Secret<String>,
    ) -> AccountResult<SignedIn> {
        let now = self.ports.now();
        let mut work = UnitOfWork::new(&self.ports, call, now);
        loop {
            let account = self.current(session.account).await?;
            // If there is a password, a recent sign-in is not enough: a person with a borrowed phone must not
            // lock out its owner.
            if account.password.is_some() && current.is_none() {
                return Err(refuse(crate::Invalid::new("current_password", "required")));
            }
            let required = self.reauthenticate(session, &account, current).await?;
            let hash = self.hash_new(&account, new).await?;
            let (replacement, bearer, _) = self.begin_session(account.id, call, now);
            let replacement = Session { device: session.device.clone(), ..replacement };
            let mut changes = required;
            changes.extend(rules::set_password(&account, hash, None, Some(replacement.clone()), now));
            changes.extend(self.forget_guesses(account.email.key(), now));
            changes.push(self.tell(&account, |to, locale| MailJob::PasswordChanged { to, locale })?);
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(SignedIn { account, session: replacement, token: bearer });
            }
        }
    }

    /// Changes the profile of an account.
    ///
    /// # Errors
    /// [`AccountError::Invalid`].
    pub async fn update_profile(&self, id: AccountId, patch: &ProfilePatch) -> AccountResult<Account> {
        let call = RequestContext::default();
        let mut work = UnitOfWork::new(&self.ports, &call, self.ports.now());
        let mut allowed = false;
        loop {
            let mut account = self.current(id).await?;
            let before = account.clone();
            if let Some(name) = &patch.display_name {
                account.display_name = DisplayName::parse("display_name", name).map_err(refuse)?;
            }
            if let Some(to) = &patch.locale {
                account.locale = to.as_deref().and_then(Locale::matched);
            }
            if let Some(zone) = &patch.time_zone {
                account.time_zone = zone
                    .as_deref()
                    .map(|zone| TimeZoneName::parse("time_zone", zone))
                    .transpose()
                    .map_err(refuse)?;
            }
            if let Some(day) = &patch.birthday {
                let parsed = day.as_deref().map(|day| parse_birthday("birthday", day, self.ports.now()));
                account.birthday = parsed.transpose().map_err(refuse)?;
            }
            if account == before {
                return Ok(account);
            }
            if !std::mem::replace(&mut allowed, true) {
                let key = LimitKey::new("account", id);
                self.ports.allow(&[(WRITE_PER_ACCOUNT, key)]).await?;
            }
            let mut changes = vec![AccountChange::Update(account.clone()).into()];
            if account.display_name != before.display_name {
                let couple = self.ports.store.couple_of(id).await?;
                let told = crate::timeline::rules::profile_changed(couple.as_ref(), id, self.ports.now());
                changes.insert(0, told);
            }
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(account);
            }
        }
    }

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
        call: &RequestContext,
        session: &Session,
        new_email: &str,
        current_password: Option<&Secret<String>>,
    ) -> AccountResult<()> {
        let email = EmailAddress::parse("new_email", new_email).map_err(refuse)?;
        let account = self.current(session.account).await?;
        let required = self.reauthenticate(session, &account, current_password).await?;
        let now = self.ports.now();
        let mut work = UnitOfWork::new(&self.ports, call, now);
        if work.replay::<(), AccountError>().await?.is_some() {
            return Ok(());
        }
        let sent = self.admit_mail(call, &self.policy.limits.email_mail, email.key()).await?;
        let mailing = |kind, email| rules::NewToken {
            id: self.fresh_token(),
            kind,
            email,
            account: Some(account.id),
            display_name: None,
            locale: None,
            session: None,
            network: self.network(call),
        };
        let (keys, policy) = (&self.ports.keys, &self.policy);
        // Insert the tokens here and not in the job, so that a cancellation finds them.
        let change = rules::NewToken { session: Some(session.id), ..mailing(TokenKind::Email, &email) }
            .token(keys, policy, now);
        let cancel = mailing(TokenKind::CancelEmail, &account.email).token(keys, policy, now);
        let jobs = [
            if sent {
                MailJob::Email { token: change.id, account: account.id, session: session.id, email }
            } else {
                MailJob::Suppressed
            },
            MailJob::EmailAsked {
                token: cancel.id,
                to: account.email.clone(),
                locale: account.locale.clone(),
            },
        ];
        let mut changes = required;
        changes.extend([change, cancel].map(|token| AccountChange::InsertToken(token).into()));
        for job in &jobs {
            changes.push(self.ports.enqueue(job)?);
        }
        loop {
            let decision = Decision { changes: changes.clone(), outcome: () };
            if work.commit(decision).await?.is_some() || work.replay::<(), AccountError>().await?.is_some() {
                return Ok(());
            }
            if !self.ports.store.sessions_of(account.id).await?.iter().any(|live| live.id == session.id) {
                return Err(Failure::Refused(AccountError::Unauthenticated));
            }
        }
    }

    /// Confirms a new address, with a code for the signed-in account or with a link without a session.
    ///
    /// The other form of the same mail is also accepted until the code expires, and changes nothing more.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::UsedToken`], [`AccountError::RateLimited`].
    pub async fn confirm_email(
        &self,
        call: &RequestContext,
        signed_in: Option<AccountId>,
        proof: &Proof,
    ) -> AccountResult<()> {
        let now = self.ports.now();
        let proof = self.admit_proof(call, proof).await?;
        let mut work = UnitOfWork::new(&self.ports, call, now);
        loop {
            let shown = self.prove(call, &proof, TokenKind::Email, AccountError::InvalidToken).await?;
            let token = &shown.token;
            let owner = token.account.filter(|owner| signed_in.is_none_or(|id| id == *owner));
            let account = match owner {
                Some(owner) => self.ports.store.account(owner).await?,
                None => None,
            };
            let holder = self.ports.store.account_by_email(token.email.key()).await?.map(|holder| holder.id);
            let account = account.filter(|account| account.deletion_due.is_none());
            let mut changes = match account {
                Some(account) if shown.is_second() && holder == Some(account.id) => {
                    rules::confirm_email_again(&shown, now)
                }
                Some(account) if !shown.is_second() && holder.is_none() => {
                    let mut changes = rules::confirm_email(&account, &shown, now);
                    changes.push(self.remember_client(call, token.email.key(), now));
                    changes.push(self.tell(&account, |to, locale| MailJob::EmailChanged { to, locale })?);
                    changes
                }
                _ => return Err(Failure::Refused(AccountError::InvalidToken)),
            };
            changes.extend(proof.require_below(now));
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Cancels pending changes of address with the link that was mailed to the old address.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`]; [`AccountError::UsedToken`], also after the change was confirmed or ended;
    /// [`AccountError::RateLimited`].
    pub async fn cancel_email_change(
        &self,
        call: &RequestContext,
        link: &Secret<String>,
    ) -> AccountResult<()> {
        let now = self.ports.now();
        self.admit_link(call).await?;
        let mut work = UnitOfWork::new(&self.ports, call, now);
        loop {
            let proof = AdmittedProof::Link(link.clone());
            let shown = self.prove(call, &proof, TokenKind::CancelEmail, AccountError::InvalidToken).await?;
            let account = self.owner_of(&shown.token).await?;
            let account = account.ok_or(Failure::Refused(AccountError::InvalidToken))?;
            let changes = rules::cancel_email(&account, &shown, now);
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Schedules the deletion of the account after a grace period, and ends all sessions.
    ///
    /// A sign-in before the end of the grace period withdraws the request.
    ///
    /// # Errors
    /// [`AccountError::RecentSignInRequired`], [`AccountError::InvalidCredentials`].
    pub async fn request_deletion(
        &self,
        call: &RequestContext,
        session: &Session,
        current_password: Option<&Secret<String>>,
    ) -> AccountResult<Timestamp> {
        let now = self.ports.now();
        let due = now.plus(self.policy.deletion_grace);
        let mut work = UnitOfWork::new(&self.ports, call, now);
        loop {
            let account = self.current(session.account).await?;
            let mut changes = self.reauthenticate(session, &account, current_password).await?;
            changes.extend(rules::request_deletion(&account, due, now));
            changes.push(self.tell(&account, |to, locale| MailJob::DeletionScheduled { to, locale, due })?);
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(due);
            }
        }
    }

    /// Checks that the session's last proof of identity is recent enough for an export.
    ///
    /// # Errors
    /// [`AccountError::RecentSignInRequired`].
    pub fn require_recent(&self, session: &Session) -> Result<(), AccountError> {
        rules::require_recent(session, &self.policy, self.ports.now())
    }

    /// Checks the password if one is given, else requires a recent sign-in.
    ///
    /// The caller adds the returned changes to its commit.
    async fn reauthenticate(
        &self,
        session: &Session,
        account: &Account,
        password: Option<&Secret<String>>,
    ) -> AccountResult<Vec<Change>> {
        let Some(password) = password else {
            self.require_recent(session).map_err(Failure::Refused)?;
            return Ok(Vec::new());
        };
        let attempt = self.admit_repeated_password(account).await?;
        let matches = match Password::typed(password) {
            Some(typed) => self.hasher.verify(account.password.as_ref(), typed).await?,
            None => None,
        };
        match matches {
            Some(_) => Ok(vec![attempt.require_below(self.ports.now())]),
            None => Err(self.wrong_guess(&attempt, Vec::new(), AccountError::InvalidCredentials).await),
        }
    }

    async fn hash_new(&self, account: &Account, new: &Secret<String>) -> AccountResult<PasswordHash> {
        let context = [account.display_name.as_str(), local(&account.email)];
        let chosen = Password::choose("new_password", new, &context).map_err(refuse)?;
        Ok(self.hasher.hash(chosen).await?)
    }

    async fn admit_proof(&self, call: &RequestContext, proof: &Proof) -> AccountResult<AdmittedProof> {
        match proof {
            Proof::Code { email, code } => {
                // A text that cannot be a code does not count as an attempt.
                let code = rules::typed_code(code).map_err(refuse)?;
                let email = EmailAddress::parse("email", email).map_err(refuse)?;
                let attempt = self.admit_code(call, email.key()).await?;
                Ok(AdmittedProof::Code { attempt, email, code })
            }
            Proof::Link(link) => {
                self.admit_link(call).await?;
                Ok(AdmittedProof::Link(link.clone()))
            }
        }
    }

    /// Finds the token of a proof.
    ///
    /// Counts a wrong code before refusing it, with the same reads and writes whether or not a code was
    /// mailed.
    async fn prove(
        &self,
        call: &RequestContext,
        proof: &AdmittedProof,
        kind: TokenKind,
        refusal: AccountError,
    ) -> AccountResult<PresentedToken> {
        let now = self.ports.now();
        match proof {
            AdmittedProof::Link(link) => {
                // People paste the whole link, with blanks or brackets around it.
                let Some(link) = typed_text::link_token(link.expose(), kind.as_str()) else {
                    return Err(Failure::Refused(refusal));
                };
                let token = self.ports.store.token_by_link(&digest(&[link.as_bytes()])).await?;
                let token = rules::require_link(token, kind, now, &refusal).map_err(Failure::Refused)?;
                Ok(PresentedToken::link(token))
            }
            AdmittedProof::Code { attempt, email, code } => {
                // Concurrent wrong codes may have reached the daily limit since the attempt was admitted.
                self.require_guesses(attempt).await?;
                let (keys, network) = (&self.ports.keys, client_network(&self.ports.keys, call));
                let open = self.ports.store.open_tokens(kind, email.key(), now).await?;
                if let Some(shown) = rules::match_code(keys, &open, code, &network, &self.policy, now) {
                    return Ok(shown);
                }
                let tries = AccountChange::CountTries { kind, email: email.key().clone(), network, at: now };
                Err(self.wrong_guess(attempt, vec![tries.into()], refusal).await)
            }
        }
    }

    /// Account of a token, if the token's address is still the account's address.
    async fn owner_of(&self, token: &Token) -> AccountResult<Option<Account>> {
        let Some(owner) = token.account else { return Ok(None) };
        let account = self.ports.store.account(owner).await?;
        Ok(account.filter(|account| account.email.key() == token.email.key()))
    }

    async fn current(&self, id: AccountId) -> AccountResult<Account> {
        self.ports.store.account(id).await?.ok_or(Failure::Refused(AccountError::Unauthenticated))
    }

    fn tell(
        &self,
        account: &Account,
        job: impl FnOnce(EmailAddress, Option<Locale>) -> MailJob,
    ) -> Result<Change, Error> {
        self.ports.enqueue(&job(account.email.clone(), account.locale.clone()))
    }

    /// Client network to store with a token, as a keyed digest.
    fn network(&self, call: &RequestContext) -> Option<Digest> {
        Some(client_network(&self.ports.keys, call))
    }

    fn fresh_token(&self) -> TokenId {
        TokenId::new(&*self.ports.clock, &*self.ports.entropy)
    }

    fn begin_session(
        &self,
        account: AccountId,
        call: &RequestContext,
        now: Timestamp,
    ) -> (Session, Secret<String>, String) {
        let mut seed = [0; 32];
        self.ports.entropy.fill(&mut seed);
        let bearer = self.bearer(&seed);
        let session = Session {
            id: SessionId::new(&*self.ports.clock, &*self.ports.entropy),
            account,
            token: digest(&[bearer.expose().as_bytes()]),
            device: call.device.clone(),
            created_at: now,
            authenticated_at: now,
            seen_at: now,
            expires_at: now.plus(self.policy.session_lifetime),
        };
        (session, bearer, HEXLOWER.encode(&seed))
    }

    fn bearer(&self, seed: &[u8]) -> Secret<String> {
        self.ports.keys.bearer("session", &[seed])
    }

    /// Outcome of the same request that ran concurrently, if any; else the refusal.
    async fn resume_or(
        &self,
        work: &UnitOfWork<'_>,
        refused: Failure<AccountError>,
    ) -> AccountResult<SignedIn> {
        match (&refused, work.replay().await?) {
            (Failure::Refused(_), Some(begun)) => self.resume(begun).await,
            _ => Err(refused),
        }
    }

    /// Answers a repeated request from its recorded outcome, if the session still exists.
    async fn resume(&self, begun: SessionOutcome) -> AccountResult<SignedIn> {
        let seed = HEXLOWER
            .decode(begun.seed.as_bytes())
            .map_err(|_| Error::corrupt("outcome", "outcome", begun.session))?;
        let token = self.bearer(&seed);
        let stored: Digest = digest(&[token.expose().as_bytes()]);
        match self.ports.store.session_by_token(&stored).await? {
            Some((session, account)) => Ok(SignedIn { account, session, token }),
            None => Err(Failure::Refused(AccountError::InvalidCredentials)),
        }
    }
}

#[async_trait]
impl Directory for Accounts {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        let account = self.ports.store.account(person).await?;
        Ok(account.map(|account| Profile { display_name: account.display_name }))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        Ok(self.ports.store.account_by_email(email).await?.map(|account| account.id))
    }
    async fn may_pair(&self, person: AccountId, email: &EmailKey) -> Result<bool, Error> {
        let account = self.ports.store.account(person).await?;
        Ok(account.is_some_and(|account| account.email.key() == email && account.deletion_due.is_none()))
    }
}

fn refuse(invalid: crate::Invalid) -> Failure<AccountError> {
    Failure::Refused(AccountError::Invalid(invalid))
}

/// Local part of an address: a word that a password must not consist of.
fn local(email: &EmailAddress) -> &str {
    email.as_str().rsplit_once('@').map_or("", |(local, _)| local)
}
