//! The use cases of accounts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{
    Account, AccountChange, MailJob, MailLimits, Password, PasswordHash, PasswordHasher, Policy, Refusal,
    Session, TallyId, Token, TokenKind,
    admission::client_network,
    rules::{self, Named, Shown},
};
use crate::{
    AccountId, Call, Change, Decision, Digest, DisplayName, EmailAddress, EmailKey, Error, Failure, Locale,
    Ports, Secret, SessionId, TimeZoneName, Timestamp, TokenId, digest,
    limits::{LimitKey, rules::WRITE_PER_ACCOUNT},
    pairing::{Directory, Profile},
    ports::settled,
    store::Transaction,
    text::parse_birthday,
};

/// What sign-up takes.
#[derive(Debug, Clone)]
pub struct SignUp {
    /// Where the code goes.
    pub email: String,
    /// What they are called.
    pub display_name: String,
    /// The language of their mails, as [`Locale::matched`] takes it.
    pub locale: Option<String>,
}

/// What a person shows of a mail.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The address and its 6-digit code.
    Code {
        /// Where it was mailed to.
        email: String,
        /// Six digits.
        code: Secret<String>,
    },
    /// The link's token.
    Link(Secret<String>),
}

/// Confirmation of a sign-up.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Code or link of the mail.
    pub proof: Proof,
    /// Password to choose, if any.
    pub password: Option<Secret<String>>,
    /// Display name, if the owner of the address gives one. Takes precedence over the name of the sign-up, which
    /// a stranger may have sent.
    pub display_name: Option<String>,
    /// Locale, likewise.
    pub locale: Option<String>,
}

/// How a person signs in.
#[derive(Debug, Clone)]
pub enum SignIn {
    /// With a password.
    Password {
        /// Whose.
        email: String,
        /// As typed.
        password: Secret<String>,
    },
    /// With a mailed code.
    Code {
        /// Whose.
        email: String,
        /// Six digits.
        code: Secret<String>,
    },
    /// With the token of a mailed link.
    Link(Secret<String>),
}

/// A person, their session, and the bearer token that is shown once.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Who.
    pub account: Account,
    /// The session.
    pub session: Session,
    /// What the device shows from now on.
    pub token: Secret<String>,
}

/// What a person may change about themselves. None leaves a field, `Some(None)` clears it.
#[derive(Debug, Clone, Default)]
pub struct ProfilePatch {
    /// What they are called.
    pub display_name: Option<String>,
    /// The language of their mails, as [`Locale::matched`] takes it; one that it does not know clears the field.
    pub locale: Option<Option<String>>,
    /// Where their day begins and ends.
    pub time_zone: Option<Option<String>>,
    /// `YYYY-MM-DD`.
    pub birthday: Option<Option<String>>,
}

/// What a session-making request answers from again. The seed is no secret without the key ring.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    session: SessionId,
    account: AccountId,
    seed: String,
}

pub(super) type Answer<T> = Result<T, Failure<Refusal>>;

/// Sign-up, verification, sign-in, sessions, recovery, profile and deletion.
#[derive(Debug, Clone)]
pub struct Accounts {
    pub(super) ports: Ports,
    hasher: Arc<PasswordHasher>,
    pub(super) policy: Arc<Policy>,
}

impl Accounts {
    /// The service over its ports.
    #[must_use]
    pub fn new(ports: Ports, hasher: Arc<PasswordHasher>, policy: Policy) -> Self {
        Self { ports, hasher, policy: Arc::new(policy) }
    }

    /// How long things last.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes an address and a name, and mails a code and a link to it. The answer, and its time, are the same whether
    /// or not the address has an account: the request only enqueues, the job looks.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::RateLimited`], [`Refusal::KeyReused`].
    pub async fn sign_up(&self, call: &Call, command: &SignUp) -> Answer<()> {
        let email = EmailAddress::parse("email", &command.email).map_err(refuse)?;
        let display_name = DisplayName::parse("display_name", &command.display_name).map_err(refuse)?;
        let locale = command.locale.as_deref().and_then(Locale::matched);
        let (token, network) = (self.fresh_token(), self.network(call));
        let job = MailJob::SignUp { token, email: email.clone(), display_name, locale, network };
        self.enqueue_mail(call, &self.policy.limits.sign_up_mail, &email, &job).await
    }

    /// Mails another code for a sign-up that is waiting; an address without one gets nothing.
    ///
    /// # Errors
    /// As [`sign_up`](Self::sign_up).
    pub async fn resend(&self, call: &Call, email: &str) -> Answer<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let job =
            MailJob::Resend { token: self.fresh_token(), email: email.clone(), network: self.network(call) };
        self.enqueue_mail(call, &self.policy.limits.sign_up_mail, &email, &job).await
    }

    /// Mails a code and a link to sign in with.
    ///
    /// # Errors
    /// As [`sign_up`](Self::sign_up).
    pub async fn request_code(&self, call: &Call, email: &str) -> Answer<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let job =
            MailJob::SignIn { token: self.fresh_token(), email: email.clone(), network: self.network(call) };
        self.enqueue_mail(call, &self.policy.limits.sign_in_mail, &email, &job).await
    }

    /// Mails a link to set a new password with.
    ///
    /// # Errors
    /// As [`sign_up`](Self::sign_up).
    pub async fn forgot_password(&self, call: &Call, email: &str) -> Answer<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let job = MailJob::Password { token: self.fresh_token(), email: email.clone() };
        self.enqueue_mail(call, &self.policy.limits.password_mail, &email, &job).await
    }

    async fn enqueue_mail(
        &self,
        call: &Call,
        limits: &MailLimits,
        email: &EmailAddress,
        job: &MailJob,
    ) -> Answer<()> {
        let mut work = Transaction::new(&self.ports, call, self.ports.now());
        let mut admitted = false;
        loop {
            if work.replay::<(), Refusal>().await?.is_some() {
                return Ok(());
            }
            if !std::mem::replace(&mut admitted, true) {
                self.admit_mail(call, limits, email.key()).await?;
            }
            let changes = vec![self.ports.enqueue(job)?];
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Confirms a sign-up: the account is created, with a password if one is chosen, and is signed in. The other form
    /// of the same mail signs in too, as long as the code lasts; it sets the password only if there is none.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], [`Refusal::UsedToken`], [`Refusal::Invalid`] for the password, the name or the
    /// locale, [`Refusal::RateLimited`].
    pub async fn verify(&self, call: &Call, command: &Verification) -> Answer<SignedIn> {
        let now = self.ports.now();
        let named = Named {
            display_name: match &command.display_name {
                Some(name) => Some(DisplayName::parse("display_name", name).map_err(refuse)?),
                None => None,
            },
            locale: command.locale.as_deref().and_then(Locale::matched),
        };
        let mut work = Transaction::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        self.admit_proof(call, &command.proof).await?;
        let mut hash = None;
        loop {
            let shown = match self.prove(call, &command.proof, TokenKind::SignUp, Refusal::InvalidToken).await
            {
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
                // Only who owns the address makes us pay for a hash.
                hash = Some(self.hasher.hash(chosen).await?);
            }
            let id = account.as_ref().map(|account| account.id);
            let id = id.unwrap_or_else(|| AccountId::new(&*self.ports.clock, &*self.ports.entropy));
            let (session, bearer, seed) = self.begin_session(id, call, now);
            let chosen = hash.clone().filter(|_| may_choose);
            let decided = match &account {
                Some(account) => rules::sign_in(account, chosen, Some(&shown), session.clone(), now)
                    .map_err(|_| Refusal::InvalidToken),
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
            changes.push(self.remember_client(call, token.email.key(), now));
            let outcome = Begun { session: session.id, account: account.id, seed };
            if work.commit(Decision { changes, outcome }).await?.is_some() {
                return Ok(SignedIn { account, session, token: bearer });
            }
            if let Some(begun) = work.replay().await? {
                return self.resume(begun).await;
            }
        }
    }

    /// Signs in. Wrong password, unknown address, no password: one answer, one hash.
    ///
    /// # Errors
    /// [`Refusal::InvalidCredentials`], [`Refusal::UsedToken`] for a used link, [`Refusal::InvalidToken`] for another
    /// link, [`Refusal::RateLimited`].
    pub async fn sign_in(&self, call: &Call, command: &SignIn) -> Answer<SignedIn> {
        match command {
            SignIn::Password { email, password } => self.sign_in_by_password(call, email, password).await,
            SignIn::Code { email, code } => {
                let proof = Proof::Code { email: email.clone(), code: code.clone() };
                self.sign_in_by_mail(call, &proof, Refusal::InvalidCredentials).await
            }
            SignIn::Link(link) => {
                self.sign_in_by_mail(call, &Proof::Link(link.clone()), Refusal::InvalidToken).await
            }
        }
    }

    async fn sign_in_by_password(
        &self,
        call: &Call,
        email: &str,
        password: &Secret<String>,
    ) -> Answer<SignedIn> {
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let attempt = self.admit_password(call, email.key()).await?;
        let mut verified: Option<(PasswordHash, Option<PasswordHash>)> = None;
        loop {
            let account = self.ports.store.account_by_email(email.key()).await?;
            let stored = account.as_ref().and_then(|account| account.password.as_ref());
            // A repeat after a conflict does not hash again, unless the password was changed meanwhile.
            let known = verified.as_ref().filter(|(seen, _)| Some(seen) == stored);
            let rehashed = if let Some((_, rehashed)) = known {
                rehashed.clone()
            } else {
                let matches = match Password::typed(password) {
                    Some(typed) => self.hasher.verify(stored, typed).await?,
                    None => None,
                };
                let Some(rehashed) = matches else { return Err(self.wrong_password(&attempt).await) };
                verified = stored.map(|seen| (seen.clone(), rehashed.clone()));
                rehashed
            };
            let account = account.ok_or(Failure::Refused(Refusal::InvalidCredentials))?;
            let (session, bearer, seed) = self.begin_session(account.id, call, now);
            let (account, mut changes) =
                rules::sign_in(&account, rehashed, None, session.clone(), now).map_err(Failure::Refused)?;
            changes.extend(self.right_password(call, email.key(), &attempt, now));
            let outcome = Begun { session: session.id, account: account.id, seed };
            if work.commit(Decision { changes, outcome }).await?.is_some() {
                return Ok(SignedIn { account, session, token: bearer });
            }
            if let Some(begun) = work.replay().await? {
                return self.resume(begun).await;
            }
            // Concurrent wrong guesses may have used up the day's.
            self.require_guesses(&attempt).await?;
        }
    }

    async fn sign_in_by_mail(&self, call: &Call, proof: &Proof, refusal: Refusal) -> Answer<SignedIn> {
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        self.admit_proof(call, proof).await?;
        loop {
            let shown = match self.prove(call, proof, TokenKind::SignIn, refusal.clone()).await {
                Ok(shown) => shown,
                Err(refused) => return self.resume_or(&work, refused).await,
            };
            let account = self.owner_of(&shown.token).await?;
            let account = account.ok_or_else(|| Failure::Refused(refusal.clone()))?;
            let (session, bearer, seed) = self.begin_session(account.id, call, now);
            let (account, mut changes) = rules::sign_in(&account, None, Some(&shown), session.clone(), now)
                .map_err(Failure::Refused)?;
            changes.push(self.remember_client(call, account.email.key(), now));
            let outcome = Begun { session: session.id, account: account.id, seed };
            if work.commit(Decision { changes, outcome }).await?.is_some() {
                return Ok(SignedIn { account, session, token: bearer });
            }
            if let Some(begun) = work.replay().await? {
                return self.resume(begun).await;
            }
        }
    }

    /// Who a bearer token belongs to.
    ///
    /// # Errors
    /// [`Refusal::Unauthenticated`] for anything but a live session's token.
    pub async fn authenticate(&self, bearer: &Secret<String>) -> Answer<(Session, Account)> {
        let now = self.ports.now();
        let unknown = Failure::Refused(Refusal::Unauthenticated);
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
            settled(self.ports.commit(vec![touch.into()]).await)?;
            session.seen_at = now;
        }
        Ok((session, account))
    }

    /// Whether an account has a live session of this id: for requests that prove it otherwise than by its token.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_session(&self, account: AccountId, id: SessionId) -> Result<bool, Error> {
        if !self.sessions(account).await?.iter().any(|session| session.id == id) {
            return Ok(false);
        }
        let account = self.ports.store.account(account).await?;
        Ok(account.is_some_and(|account| account.deletion_due.is_none()))
    }

    /// For how long a session stays good if nobody ends it.
    #[must_use]
    pub fn left(&self, session: &Session) -> Duration {
        session.left(&self.policy, self.ports.now())
    }

    /// A person's live sessions, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn sessions(&self, account: AccountId) -> Result<Vec<Session>, Error> {
        let now = self.ports.now();
        let mut sessions = self.ports.store.sessions_of(account).await?;
        sessions.retain(|session| session.is_live(&self.policy, now));
        Ok(sessions)
    }

    /// Signs a device out.
    ///
    /// # Errors
    /// The store's.
    pub async fn sign_out(&self, session: &Session) -> Result<(), Error> {
        let end = AccountChange::EndSession { account: session.account, id: session.id };
        settled(self.ports.commit(vec![end.into()]).await)?;
        Ok(())
    }

    /// Ends one session of a person.
    ///
    /// # Errors
    /// [`Refusal::SessionNotFound`].
    pub async fn end_session(&self, account: AccountId, id: SessionId) -> Answer<()> {
        if !self.ports.store.sessions_of(account).await?.iter().any(|session| session.id == id) {
            return Err(Failure::Refused(Refusal::SessionNotFound));
        }
        settled(self.ports.commit(vec![AccountChange::EndSession { account, id }.into()]).await)?;
        Ok(())
    }

    /// Ends all sessions of a person but one.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_sessions(&self, account: AccountId, except: Option<SessionId>) -> Result<(), Error> {
        settled(self.ports.commit(vec![AccountChange::EndSessions { account, except }.into()]).await)?;
        Ok(())
    }

    /// Sets a new password with a mailed link. Every session ends.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], [`Refusal::Invalid`] for the password, [`Refusal::RateLimited`].
    pub async fn reset_password(
        &self,
        call: &Call,
        link: &Secret<String>,
        new: &Secret<String>,
    ) -> Answer<()> {
        let now = self.ports.now();
        self.admit_link(call).await?;
        let mut work = Transaction::new(&self.ports, call, now);
        let mut hash = None;
        loop {
            let proof = Proof::Link(link.clone());
            let shown = self.prove(call, &proof, TokenKind::Password, Refusal::InvalidToken).await?;
            let account =
                self.owner_of(&shown.token).await?.ok_or(Failure::Refused(Refusal::InvalidToken))?;
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

    /// Changes the password of who is signed in: every other session ends, and this one gets a new token. Someone
    /// without a password needs a recent sign-in instead of it.
    ///
    /// # Errors
    /// [`Refusal::InvalidCredentials`], [`Refusal::RecentSignInRequired`], [`Refusal::Invalid`],
    /// [`Refusal::RateLimited`].
    pub async fn change_password(
        &self,
        call: &Call,
        session: &Session,
        current: Option<&Secret<String>>,
        new: &Secret<String>,
    ) -> Answer<SignedIn> {
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            let account = self.current(session.account).await?;
            // With a password, only the password will do: a borrowed phone must not lock its owner out.
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

    /// Changes what a person says of themselves.
    ///
    /// # Errors
    /// [`Refusal::Invalid`].
    pub async fn update_profile(&self, id: AccountId, patch: &ProfilePatch) -> Answer<Account> {
        let call = Call::default();
        let mut work = Transaction::new(&self.ports, &call, self.ports.now());
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

    /// Asks for a new address, which must confirm. Needs the password or a recent sign-in. The old address gets a link
    /// that cancels the change; the end of the session cancels it too.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::InvalidCredentials`], [`Refusal::RecentSignInRequired`],
    /// [`Refusal::Unauthenticated`], [`Refusal::RateLimited`].
    pub async fn change_email(
        &self,
        call: &Call,
        session: &Session,
        new_email: &str,
        current_password: Option<&Secret<String>>,
    ) -> Answer<()> {
        let email = EmailAddress::parse("new_email", new_email).map_err(refuse)?;
        let account = self.current(session.account).await?;
        let required = self.reauthenticate(session, &account, current_password).await?;
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        if work.replay::<(), Refusal>().await?.is_some() {
            return Ok(());
        }
        self.admit_mail(call, &self.policy.limits.email_mail, email.key()).await?;
        let mailing = |kind, email| rules::Mailing {
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
        // Written here and not by the job, so that a cancellation finds it.
        let change = rules::Mailing { session: Some(session.id), ..mailing(TokenKind::Email, &email) }
            .token(keys, policy, now);
        let cancel = mailing(TokenKind::CancelEmail, &account.email).token(keys, policy, now);
        let jobs = [
            MailJob::Email { token: change.id, account: account.id, session: session.id, email },
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
            if work.commit(decision).await?.is_some() || work.replay::<(), Refusal>().await?.is_some() {
                return Ok(());
            }
            if !self.ports.store.sessions_of(account.id).await?.iter().any(|live| live.id == session.id) {
                return Err(Failure::Refused(Refusal::Unauthenticated));
            }
        }
    }

    /// Confirms a new address. With a code, for the account that is signed in; a link needs no session and gives none.
    /// The other form of the same mail is taken too, as long as the code lasts, and changes nothing more.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], [`Refusal::UsedToken`], [`Refusal::RateLimited`].
    pub async fn confirm_email(
        &self,
        call: &Call,
        signed_in: Option<AccountId>,
        proof: &Proof,
    ) -> Answer<()> {
        let now = self.ports.now();
        self.admit_proof(call, proof).await?;
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            let shown = self.prove(call, proof, TokenKind::Email, Refusal::InvalidToken).await?;
            let token = &shown.token;
            let owner = token.account.filter(|owner| signed_in.is_none_or(|id| id == *owner));
            let account = match owner {
                Some(owner) => self.ports.store.account(owner).await?,
                None => None,
            };
            let holder = self.ports.store.account_by_email(token.email.key()).await?.map(|holder| holder.id);
            let account = account.filter(|account| account.deletion_due.is_none());
            let changes = match account {
                Some(account) if shown.is_second() && holder == Some(account.id) => {
                    rules::confirm_email_again(&shown, now)
                }
                Some(account) if !shown.is_second() && holder.is_none() => {
                    let mut changes = rules::confirm_email(&account, &shown, now);
                    changes.push(self.remember_client(call, token.email.key(), now));
                    changes.push(self.tell(&account, |to, locale| MailJob::EmailChanged { to, locale })?);
                    changes
                }
                _ => return Err(Failure::Refused(Refusal::InvalidToken)),
            };
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Cancels the changes of address that an account asked for, by the link that its address got.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], [`Refusal::UsedToken`] also when the change was confirmed or ended, and
    /// [`Refusal::RateLimited`].
    pub async fn cancel_email_change(&self, call: &Call, link: &Secret<String>) -> Answer<()> {
        let now = self.ports.now();
        self.admit_link(call).await?;
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            let proof = Proof::Link(link.clone());
            let shown = self.prove(call, &proof, TokenKind::CancelEmail, Refusal::InvalidToken).await?;
            let account = self.owner_of(&shown.token).await?;
            let account = account.ok_or(Failure::Refused(Refusal::InvalidToken))?;
            let changes = rules::cancel_email(&account, &shown, now);
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Asks for the account to be deleted after a grace period, which a sign-in ends. All sessions end now.
    ///
    /// # Errors
    /// [`Refusal::RecentSignInRequired`], [`Refusal::InvalidCredentials`].
    pub async fn request_deletion(
        &self,
        call: &Call,
        session: &Session,
        current_password: Option<&Secret<String>>,
    ) -> Answer<Timestamp> {
        let now = self.ports.now();
        let due = now.plus(self.policy.deletion_grace);
        let mut work = Transaction::new(&self.ports, call, now);
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

    /// Whether a session is recent enough for an export.
    ///
    /// # Errors
    /// [`Refusal::RecentSignInRequired`].
    pub fn require_recent(&self, session: &Session) -> Result<(), Refusal> {
        rules::require_recent(session, &self.policy, self.ports.now())
    }

    /// Checks the password if one is given, else requires a recent sign-in. The returned changes belong in the commit.
    async fn reauthenticate(
        &self,
        session: &Session,
        account: &Account,
        password: Option<&Secret<String>>,
    ) -> Answer<Vec<Change>> {
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
            Some(_) => Ok(vec![self.require_below(&attempt, self.ports.now())]),
            None => Err(self.wrong_password(&attempt).await),
        }
    }

    async fn hash_new(&self, account: &Account, new: &Secret<String>) -> Answer<PasswordHash> {
        let context = [account.display_name.as_str(), local(&account.email)];
        let chosen = Password::choose("new_password", new, &context).map_err(refuse)?;
        Ok(self.hasher.hash(chosen).await?)
    }

    async fn admit_proof(&self, call: &Call, proof: &Proof) -> Answer<()> {
        match proof {
            Proof::Code { email, code } => {
                // A text that cannot be a code counts as no try.
                rules::typed_code(code).map_err(refuse)?;
                let email = EmailAddress::parse("email", email).map_err(refuse)?;
                self.admit_code(call, email.key()).await
            }
            Proof::Link(_) => self.admit_link(call).await,
        }
    }

    /// The token that a proof shows. A wrong code is counted before it is refused, with the same reads and writes
    /// whether or not a code was mailed.
    async fn prove(&self, call: &Call, proof: &Proof, kind: TokenKind, refusal: Refusal) -> Answer<Shown> {
        let now = self.ports.now();
        match proof {
            Proof::Link(link) => {
                if link.expose().is_empty() || link.expose().len() > 256 {
                    return Err(Failure::Refused(refusal));
                }
                let token = self.ports.store.token_by_link(&digest(&[link.expose().as_bytes()])).await?;
                let token = rules::require_link(token, kind, now, &refusal).map_err(Failure::Refused)?;
                Ok(Shown::link(token))
            }
            Proof::Code { email, code } => {
                let email = EmailAddress::parse("email", email).map_err(refuse)?;
                let code = &rules::typed_code(code).map_err(refuse)?;
                let (keys, network) = (&self.ports.keys, client_network(&self.ports.keys, call));
                let open = self.ports.store.open_tokens(kind, email.key(), now).await?;
                if let Some(shown) = rules::match_code(keys, &open, code, &network, &self.policy, now) {
                    return Ok(shown);
                }
                let tries = AccountChange::CountTries { kind, email: email.key().clone(), network, at: now };
                let tally = AccountChange::CountTally {
                    id: TallyId::codes(keys, email.key(), kind),
                    below: i64::MAX,
                    at: now,
                    expires_at: now.plus(Duration::from_hours(24)),
                };
                settled(self.ports.commit(vec![tries.into(), tally.into()]).await)?;
                Err(Failure::Refused(refusal))
            }
        }
    }

    /// The account that a sign-in or password token was mailed for, if the address is still its own.
    async fn owner_of(&self, token: &Token) -> Answer<Option<Account>> {
        let Some(owner) = token.account else { return Ok(None) };
        let account = self.ports.store.account(owner).await?;
        Ok(account.filter(|account| account.email.key() == token.email.key()))
    }

    async fn current(&self, id: AccountId) -> Answer<Account> {
        self.ports.store.account(id).await?.ok_or(Failure::Refused(Refusal::Unauthenticated))
    }

    fn tell(
        &self,
        account: &Account,
        job: impl FnOnce(EmailAddress, Option<Locale>) -> MailJob,
    ) -> Result<Change, Error> {
        self.ports.enqueue(&job(account.email.clone(), account.locale.clone()))
    }

    /// The client's network, to be stored with a token.
    fn network(&self, call: &Call) -> Option<Digest> {
        Some(client_network(&self.ports.keys, call))
    }

    fn fresh_token(&self) -> TokenId {
        TokenId::new(&*self.ports.clock, &*self.ports.entropy)
    }

    fn begin_session(
        &self,
        account: AccountId,
        call: &Call,
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

    /// Answers what the same request, under way at the same time, came to; else refuses.
    async fn resume_or(&self, work: &Transaction<'_>, refused: Failure<Refusal>) -> Answer<SignedIn> {
        match (&refused, work.replay().await?) {
            (Failure::Refused(_), Some(begun)) => self.resume(begun).await,
            _ => Err(refused),
        }
    }

    /// Answers a repeated request again, if its session still lives.
    async fn resume(&self, begun: Begun) -> Answer<SignedIn> {
        let seed = HEXLOWER
            .decode(begun.seed.as_bytes())
            .map_err(|_| Error::corrupt("outcome", "outcome", begun.session))?;
        let token = self.bearer(&seed);
        let stored: Digest = digest(&[token.expose().as_bytes()]);
        match self.ports.store.session_by_token(&stored).await? {
            Some((session, account)) => Ok(SignedIn { account, session, token }),
            None => Err(Failure::Refused(Refusal::InvalidCredentials)),
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

fn refuse(invalid: crate::Invalid) -> Failure<Refusal> {
    Failure::Refused(Refusal::Invalid(invalid))
}

/// The local part: a word that a password must not consist of.
fn local(email: &EmailAddress) -> &str {
    email.as_str().rsplit_once('@').map_or("", |(local, _)| local)
}
