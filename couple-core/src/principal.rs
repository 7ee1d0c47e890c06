//! Principal: the authenticated caller of a request.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::{AccountId, Digest, SessionId, Timestamp, digest};

/// Authenticated caller of a request: a person, and the session by which the person is authenticated.
///
/// `Debug` does not print the session, since a host may name it by a secret token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    person: AccountId,
    session: SessionName,
    expires_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum SessionName {
    /// Digest of the bearer token of a built-in session, and its id.
    Token(Digest, SessionId),
    /// Name of a session of the host.
    Host(Arc<str>),
}

impl Principal {
    /// Principal of a person in a session of the host.
    ///
    /// `session` names the session: its id, or the token itself. A live stream asks with this name whether the session is still valid,
    /// so it must be the same in all requests of the session.
    #[must_use]
    pub fn new(person: AccountId, session: impl Into<Arc<str>>) -> Self {
        Self { person, session: SessionName::Host(session.into()), expires_at: None }
    }

    /// Principal of a built-in session with this id and this digest of its bearer token.
    #[must_use]
    pub const fn of_account(person: AccountId, session: SessionId, token: Digest) -> Self {
        Self { person, session: SessionName::Token(token, session), expires_at: None }
    }

    /// Sets the time at which the session ends by itself. Default: never.
    ///
    /// From then on the principal is refused, and its live streams end.
    #[must_use]
    pub const fn with_expiry(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Id of the person.
    #[must_use]
    pub const fn person(&self) -> AccountId {
        self.person
    }

    /// Name of the session as the host gave it; none for a built-in session.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match &self.session {
            SessionName::Host(name) => Some(name),
            SessionName::Token(..) => None,
        }
    }

    /// Digest of the bearer token of a built-in session; none for a session of the host.
    #[must_use]
    pub const fn token(&self) -> Option<&Digest> {
        match &self.session {
            SessionName::Token(token, _) => Some(token),
            SessionName::Host(_) => None,
        }
    }

    /// Time at which the session ends by itself, if known.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether the session has ended by itself at `now`.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Id of the session. For a session of the host it is derived from person and name, and does not reveal the name.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        let name = match &self.session {
            SessionName::Token(_, id) => return *id,
            SessionName::Host(name) => name.as_bytes(),
        };
        let digest = digest(&[b"principal", self.person.as_uuid().as_bytes(), name]);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        SessionId::from_uuid(Uuid::from_bytes(id))
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("person", &self.person)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
