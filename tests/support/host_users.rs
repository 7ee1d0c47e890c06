//! Users and sessions of a host, in memory: a directory and an authenticator.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use axum::http::request::Parts;
use couple::{
    AccountId, Error, ErrorKind, Failure, OsEntropy, Principal, SystemClock,
    core::{DisplayName, EmailAddress, EmailKey, Locale},
    http::{Authenticator, Unauthenticated},
    pairing::{Contact, Directory, Profile},
};

#[derive(Default)]
struct Tables {
    /// Name and verified address of each user.
    users: HashMap<AccountId, (String, Option<EmailAddress>)>,
    /// User of each session.
    sessions: HashMap<String, AccountId>,
    /// Session whose checks do not return.
    stalls: Option<String>,
}

/// Users of a host. A session is named by its token, which is sent as a bearer token, in `x-session` or as a cookie.
#[derive(Clone, Default)]
pub(crate) struct HostUsers {
    tables: Arc<Mutex<Tables>>,
    fails: Arc<AtomicBool>,
    stalled: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
}

impl HostUsers {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    /// Adds a user whose name is the local part of the address, and whose language is German.
    pub(crate) fn add(&self, email: &str) -> AccountId {
        let name = email.split('@').next().unwrap();
        self.insert(name, Some(EmailAddress::parse("email", email).unwrap()))
    }

    /// Adds a user without a verified address.
    pub(crate) fn add_unverified(&self, name: &str) -> AccountId {
        self.insert(name, None)
    }

    fn insert(&self, name: &str, email: Option<EmailAddress>) -> AccountId {
        let id = AccountId::new(&SystemClock, &OsEntropy);
        self.tables().users.insert(id, (name.to_owned(), email));
        id
    }

    /// Begins a session of a user; returns its token.
    pub(crate) fn sign_in(&self, user: AccountId) -> String {
        let mut tables = self.tables();
        let token = format!("session-{}-{user}", tables.sessions.len());
        tables.sessions.insert(token.clone(), user);
        token
    }

    /// Renames the user of a session.
    pub(crate) fn rename(&self, token: &str, name: &str) {
        let mut tables = self.tables();
        let user = tables.sessions[token];
        tables.users.get_mut(&user).unwrap().0 = name.to_owned();
    }

    /// Deletes a user; the sessions stay, as in a host that caches them.
    pub(crate) fn remove(&self, user: AccountId) {
        self.tables().users.remove(&user);
    }

    pub(crate) fn sign_out(&self, token: &str) {
        self.tables().sessions.remove(token);
    }

    /// Deletes a user with all sessions.
    pub(crate) fn delete(&self, user: AccountId) {
        let mut tables = self.tables();
        tables.users.remove(&user);
        tables.sessions.retain(|_, owner| *owner != user);
    }

    /// From now on every call fails with a text that no client may see.
    pub(crate) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// From now on no check of this session returns.
    pub(crate) fn stall(&self, token: &str) {
        self.tables().stalls = Some(token.to_owned());
    }

    /// Number of checks that do not return.
    pub(crate) fn stalled(&self) -> usize {
        self.stalled.load(Ordering::SeqCst)
    }

    /// Number of batches of sessions that were checked.
    pub(crate) fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }

    fn available(&self) -> Result<(), Error> {
        match self.fails.load(Ordering::SeqCst) {
            true => {
                Err(Error::new(ErrorKind::Rejected, "look up a session").source("password of the driver"))
            }
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Directory for HostUsers {
    async fn profile(&self, person: AccountId) -> Result<Option<Profile>, Error> {
        let name = self.tables().users.get(&person).map(|(name, _)| name.clone());
        Ok(name.map(|name| Profile { display_name: DisplayName::from_stored(name) }))
    }
    async fn contact(&self, person: AccountId) -> Result<Option<Contact>, Error> {
        let email = self.tables().users.get(&person).and_then(|(_, email)| email.clone());
        Ok(email.map(|email| Contact { email, locale: Locale::matched("de"), time_zone: None }))
    }
    async fn find_by_email(&self, email: &EmailKey) -> Result<Option<AccountId>, Error> {
        let tables = self.tables();
        Ok(tables
            .users
            .iter()
            .find(|(_, (_, address))| address.as_ref().is_some_and(|address| address.key() == email))
            .map(|(id, _)| *id))
    }
}

/// Token of a request, from the places in which this host looks.
fn token(request: &Parts) -> Option<&str> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let cookie = || header("cookie")?.split("; ").find_map(|pair| pair.strip_prefix("session="));
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| header("x-session")).or_else(cookie)
}

#[async_trait]
impl Authenticator for HostUsers {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        self.available()?;
        let token = token(request).ok_or(Failure::Refused(Unauthenticated))?;
        let user = self.tables().sessions.get(token).copied().ok_or(Failure::Refused(Unauthenticated))?;
        Ok(Principal::new(user, token))
    }
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        self.available()?;
        let stalls = self.tables().stalls.clone();
        if stalls.is_some() && principals.iter().any(|principal| principal.session() == stalls.as_deref()) {
            self.stalled.fetch_add(1, Ordering::SeqCst);
            return std::future::pending().await;
        }
        self.checks.fetch_add(1, Ordering::SeqCst);
        let tables = self.tables();
        let valid = |principal: &Principal| {
            principal.session().and_then(|token| tables.sessions.get(token)) == Some(&principal.person())
        };
        Ok(principals.iter().map(valid).collect())
    }
    async fn sessions_of(&self, person: AccountId) -> Result<Option<Vec<Principal>>, Error> {
        self.available()?;
        let tables = self.tables();
        let own = tables.sessions.iter().filter(|(_, user)| **user == person);
        Ok(Some(own.map(|(token, user)| Principal::new(*user, token.as_str())).collect()))
    }
}
