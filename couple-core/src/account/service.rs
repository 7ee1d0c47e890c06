//! The use cases of accounts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{
    Account, AccountChange, MailJob, Password, PasswordHash, PasswordHasher, Policy, Refusal, Session, Token,
    TokenKind,
    rules::{self, Guess},
};
use crate::{
    AccountId, Call, Change, Decision, Digest, DisplayName, EmailAddress, EmailKey, Error, Failure, Locale,
    Ports, Secret, SessionId, TimeZoneName, Timestamp, TokenId, digest,
    limits::{LimitKey, rules as limit},
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

type Answer<T> = Result<T, Failure<Refusal>>;

/// Sign-up, verification, sign-in, sessions, recovery, profile and deletion.
#[derive(Debug, Clone)]
pub struct Accounts {
    ports: Ports,
    hasher: Arc<PasswordHasher>,
    policy: Arc<Policy>,
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
        let token = self.fresh_token();
        self.enqueue_mail(call, &email.clone(), MailJob::SignUp { token, email, display_name, locale }).await
    }

    /// Mails another code for a sign-up that is waiting; an address without one gets nothing.
    ///
    /// # Errors
    /// As [`sign_up`](Self::sign_up).
    pub async fn resend(&self, call: &Call, email: &str) -> Answer<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let token = self.fresh_token();
        self.enqueue_mail(call, &email.clone(), MailJob::Resend { token, email }).await
    }

    /// Mails a code to sign in with.
    ///
    /// # Errors
    /// As [`sign_up`](Self::sign_up).
    pub async fn request_code(&self, call: &Call, email: &str) -> Answer<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let token = self.fresh_token();
        self.enqueue_mail(call, &email.clone(), MailJob::SignIn { token, email }).await
    }

    /// Mails a link to set a new password with.
    ///
    /// # Errors
    /// As [`sign_up`](Self::sign_up).
    pub async fn forgot_password(&self, call: &Call, email: &str) -> Answer<()> {
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        let token = self.fresh_token();
        self.enqueue_mail(call, &email.clone(), MailJob::Password { token, email }).await
    }

    async fn enqueue_mail(&self, call: &Call, email: &EmailAddress, job: MailJob) -> Answer<()> {
        let mut work = Transaction::new(&self.ports, call, self.ports.now());
        let mut allowed = false;
        loop {
            if work.replay::<(), Refusal>().await?.is_some() {
                return Ok(());
            }
            if !std::mem::replace(&mut allowed, true) {
                self.allow(call, limit::MAIL_PER_ADDRESS, limit::MAIL_PER_CLIENT, Some(email.key())).await?;
            }
            let changes = vec![self.ports.enqueue(&job)?];
            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Confirms a sign-up: the account comes into being, with a password if one is chosen, and is signed in.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], [`Refusal::Invalid`] for the password, [`Refusal::RateLimited`].
    pub async fn verify(
        &self,
        call: &Call,
        proof: &Proof,
        password: Option<&Secret<String>>,
    ) -> Answer<SignedIn> {
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        self.allow_proof(call, proof).await?;
        let mut hash = None;
        loop {
            let token = match self.prove(proof, TokenKind::SignUp, Refusal::InvalidToken).await {
                Ok(token) => token,
                Err(refused) => return self.resume_or(&work, refused).await,
            };
            let existing = self.ports.store.account_by_email(token.email.key()).await?;
            if let (Some(typed), None, None) = (password, &hash, &existing) {
                let context =
                    [token.display_name.as_ref().map_or("", DisplayName::as_str), local(&token.email)];
                let chosen = Password::choose("password", typed, &context).map_err(refuse)?;
                // Only who owns the address makes us pay for a hash.
                hash = Some(self.hasher.hash(chosen).await?);
            }
            let (session, bearer, seed) =
                self.begin_session(AccountId::new(&*self.ports.clock, &*self.ports.entropy), call, now);
            let decided =
                rules::confirm_sign_up(&token, existing.as_ref(), hash.clone(), session.clone(), now)
                    .map_err(Failure::Refused);
            let (account, changes) = match decided {
                Ok(decided) => decided,
                Err(refused) => return self.resume_or(&work, refused).await,
            };
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
    /// [`Refusal::InvalidCredentials`], [`Refusal::RateLimited`].
    pub async fn sign_in(&self, call: &Call, command: &SignIn) -> Answer<SignedIn> {
        let now = self.ports.now();
        let mut work = Transaction::new(&self.ports, call, now);
        if let Some(begun) = work.replay().await? {
            return self.resume(begun).await;
        }
        let (SignIn::Password { email, .. } | SignIn::Code { email, .. }) = command;
        let email = EmailAddress::parse("email", email).map_err(refuse)?;
        if let SignIn::Code { code, .. } = command {
            // What cannot be a code counts as no try.
            rules::typed_code(code).map_err(refuse)?;
        }
        self.allow(call, limit::PROOF_PER_ADDRESS, limit::PROOF_PER_CLIENT, Some(email.key())).await?;
        let mut verified: Option<(PasswordHash, Option<PasswordHash>)> = None;
        loop {
            let (account, rehashed, token) = match command {
                SignIn::Password { password, .. } => {
                    let account = self.ports.store.account_by_email(email.key()).await?;
                    let stored = account.as_ref().and_then(|account| account.password.as_ref());
                    // A repeat after a conflict does not hash again, unless the password was changed meanwhile.
                    let known = verified.as_ref().filter(|(seen, _)| Some(seen) == stored);
                    let rehashed = if let Some((_, rehashed)) = known {
                        rehashed.clone()
                    } else {
                        let typed =
                            Password::typed(password).ok_or(Failure::Refused(Refusal::InvalidCredentials))?;
                        let matches = self.hasher.verify(stored, typed).await?;
                        let rehashed = matches.ok_or(Failure::Refused(Refusal::InvalidCredentials))?;
                        verified = stored.map(|seen| (seen.clone(), rehashed.clone()));
                        rehashed
                    };
                    (account, rehashed, None)
                }
                SignIn::Code { code, .. } => {
                    let proof = Proof::Code { email: email.as_str().to_owned(), code: code.clone() };
                    let token = match self.prove(&proof, TokenKind::SignIn, Refusal::InvalidCredentials).await
                    {
                        Ok(token) => token,
                        Err(refused) => return self.resume_or(&work, refused).await,
                    };
                    (self.owner_of(&token).await?, None, Some(token))
                }
            };
            let account = account.ok_or(Failure::Refused(Refusal::InvalidCredentials))?;
            let (session, bearer, seed) = self.begin_session(account.id, call, now);
            let (account, changes) = rules::sign_in(&account, rehashed, token.as_ref(), session.clone(), now)
                .map_err(Failure::Refused)?;
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
        self.allow(call, limit::PROOF_PER_ADDRESS, limit::PROOF_PER_CLIENT, None).await?;
        let mut work = Transaction::new(&self.ports, call, now);
        let mut hash = None;
        loop {
            let token =
                self.prove(&Proof::Link(link.clone()), TokenKind::Password, Refusal::InvalidToken).await?;
            let account = self.owner_of(&token).await?.ok_or(Failure::Refused(Refusal::InvalidToken))?;
            let hash = match &hash {
                Some(hash) => PasswordHash::clone(hash),
                None => hash.insert(self.hash_new(&account, new).await?).clone(),
            };
            let mut changes = rules::set_password(&account, hash, Some(&token), None, now);
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
            self.reauthenticate(call, session, &account, current).await?;
            let hash = self.hash_new(&account, new).await?;
            let (replacement, bearer, _) = self.begin_session(account.id, call, now);
            let replacement = Session { device: session.device.clone(), ..replacement };
            let mut changes = rules::set_password(&account, hash, None, Some(replacement.clone()), now);
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
                self.ports.allow(&[(limit::WRITE_PER_ACCOUNT, key)]).await?;
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

    /// Asks for a new address, which must confirm. Needs the password or a recent sign-in.
    ///
    /// # Errors
    /// [`Refusal::Invalid`], [`Refusal::InvalidCredentials`], [`Refusal::RecentSignInRequired`],
    /// [`Refusal::RateLimited`].
    pub async fn change_email(
        &self,
        call: &Call,
        session: &Session,
        new_email: &str,
        current_password: Option<&Secret<String>>,
    ) -> Answer<()> {
        let email = EmailAddress::parse("new_email", new_email).map_err(refuse)?;
        let account = self.current(session.account).await?;
        self.reauthenticate(call, session, &account, current_password).await?;
        let token = self.fresh_token();
        let job = MailJob::Email { token, account: account.id, session: session.id, email: email.clone() };
        self.enqueue_mail(call, &email, job).await
    }

    /// Confirms a new address. With a code, for the account that is signed in; a link needs no session and gives none.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], [`Refusal::RateLimited`].
    pub async fn confirm_email(
        &self,
        call: &Call,
        signed_in: Option<AccountId>,
        proof: &Proof,
    ) -> Answer<()> {
        let now = self.ports.now();
        self.allow_proof(call, proof).await?;
        let mut work = Transaction::new(&self.ports, call, now);
        loop {
            let token = self.prove(proof, TokenKind::Email, Refusal::InvalidToken).await?;
            let owner = token.account.filter(|owner| signed_in.is_none_or(|id| id == *owner));
            let account = match owner {
                Some(owner) => self.ports.store.account(owner).await?,
                None => None,
            };
            let taken = self.ports.store.account_by_email(token.email.key()).await?.is_some();
            let Some(account) = account.filter(|account| !taken && account.deletion_due.is_none()) else {
                return Err(Failure::Refused(Refusal::InvalidToken));
            };
            let mut changes = rules::confirm_email(&account, &token, now);
            changes.push(self.tell(&account, |to, locale| MailJob::EmailChanged { to, locale })?);
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
            self.reauthenticate(call, session, &account, current_password).await?;
            let mut changes = rules::request_deletion(&account, due, now);
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

    /// The password if one is shown, else a recent sign-in.
    async fn reauthenticate(
        &self,
        call: &Call,
        session: &Session,
        account: &Account,
        password: Option<&Secret<String>>,
    ) -> Answer<()> {
        let Some(password) = password else {
            return self.require_recent(session).map_err(Failure::Refused);
        };
        self.allow(call, limit::PROOF_PER_ADDRESS, limit::PROOF_PER_CLIENT, Some(account.email.key()))
            .await?;
        let typed = Password::typed(password).ok_or(Failure::Refused(Refusal::InvalidCredentials))?;
        match self.hasher.verify(account.password.as_ref(), typed).await? {
            Some(_) => Ok(()),
            None => Err(Failure::Refused(Refusal::InvalidCredentials)),
        }
    }

    async fn hash_new(&self, account: &Account, new: &Secret<String>) -> Answer<PasswordHash> {
        let context = [account.display_name.as_str(), local(&account.email)];
        let chosen = Password::choose("new_password", new, &context).map_err(refuse)?;
        Ok(self.hasher.hash(chosen).await?)
    }

    async fn allow_proof(&self, call: &Call, proof: &Proof) -> Answer<()> {
        let email = match proof {
            Proof::Code { email, code } => {
                // What cannot be a code counts as no try.
                rules::typed_code(code).map_err(refuse)?;
                Some(EmailAddress::parse("email", email).map_err(refuse)?)
            }
            Proof::Link(_) => None,
        };
        let key = email.as_ref().map(EmailAddress::key);
        self.allow(call, limit::PROOF_PER_ADDRESS, limit::PROOF_PER_CLIENT, key).await
    }

    async fn allow(
        &self,
        call: &Call,
        per_address: crate::limits::Rule,
        per_client: crate::limits::Rule,
        email: Option<&EmailKey>,
    ) -> Answer<()> {
        // The client first: a flood from one host must not use up an address's allowance.
        let client = call.ip.map(|ip| (per_client, LimitKey::client(ip)));
        let address = email.map(|email| (per_address, LimitKey::email(email)));
        let wanted: Vec<_> = client.into_iter().chain(address).collect();
        self.ports.allow(&wanted).await
    }

    /// The token that a proof shows; a wrong code is counted before the refusal is told.
    async fn prove(&self, proof: &Proof, kind: TokenKind, refusal: Refusal) -> Answer<Token> {
        let now = self.ports.now();
        let no = || Failure::Refused(refusal.clone());
        match proof {
            Proof::Link(link) => {
                if link.expose().is_empty() || link.expose().len() > 256 {
                    return Err(no());
                }
                let token = self.ports.store.token_by_link(&digest(&[link.expose().as_bytes()])).await?;
                token.filter(|token| rules::is_usable(token, kind, now)).ok_or_else(no)
            }
            Proof::Code { email, code } => {
                let email = EmailAddress::parse("email", email).map_err(refuse)?;
                let code = &rules::typed_code(code).map_err(refuse)?;
                let call = Call::default();
                let mut work = Transaction::new(&self.ports, &call, now);
                loop {
                    let open = self.ports.store.open_tokens(kind, email.key(), now).await?;
                    match rules::guess(&self.ports.keys, &open, code, &self.policy, now) {
                        Guess::Right(token) => return Ok(token.clone()),
                        Guess::Wrong(changes) => {
                            if work.commit(Decision { changes, outcome: () }).await?.is_some() {
                                return Err(no());
                            }
                        }
                    }
                }
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
