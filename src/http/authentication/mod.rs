//! Authentication of callers: by the built-in accounts, or by an [`Authenticator`] of the host.

mod cross_origin;
#[cfg(feature = "jwt")]
mod jwt;
mod trusted_header;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::http::{HeaderValue, header, request::Parts};
use couple_core::{
    AccountId, Clock, Digest, Error, ErrorKind, Failure, Principal, Secret, account::Accounts, digest,
    live::SessionChecker,
};
use couple_notify::live::{CloseReason, Gate};
#[cfg(feature = "jwt")]
pub use jwt::{JwtAuthenticator, JwtKeys};
use tokio::time::timeout;
pub use trusted_header::TrustedHeader;

use super::{ApiResult, App, Problem, extract::bearer};
use crate::Backend;

/// Maximum time for an authenticator to check sessions.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a session without an expiry is checked again, if no notice causes a check before.
const RECHECK_INTERVAL: Duration = Duration::from_hours(1);

/// The caller is not authenticated: credentials are missing, wrong or have ended. The response is 401 `unauthenticated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unauthenticated;

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller is not authenticated")
    }
}

impl std::error::Error for Unauthenticated {}

/// Authentication of requests and live connections by a host with its own users.
///
/// The HTTP routes, live streams and Socket.IO ask it; give it to [`BackendBuilder::authenticator`](crate::BackendBuilder::authenticator).
/// The built-in accounts are one implementation, [`TrustedHeader`] is one for services behind a gateway, and
/// `JwtAuthenticator` (feature `jwt`) is one for tokens of an identity provider.
///
/// * **AU1** A session that has ended is refused by every later call of both methods. A session that cannot be ended has
///   [an expiry](Principal::with_expiry).
/// * **AU2** A request of a person always has the same [person](Principal::person), and requests of a session always have the same
///   name of the session.
/// * **AU3** `authenticate` returns within the request timeout, and `still_valid` within 5 s: a slower call counts as a failure.
/// * **AU4** A request without credentials, or with wrong ones, is [refused](Unauthenticated), which is not an error.
/// * **AU5** `still_valid` returns one value for each principal, in the same order.
/// * **AU6** `sessions_of` returns all valid sessions of the person and no other, or none for every person.
///
/// ```
/// use async_trait::async_trait;
/// use axum::http::request::Parts;
/// use couple::{AccountId, Error, Failure, Principal, http::{Authenticator, Unauthenticated}};
///
/// # struct Sessions;
/// # impl Sessions {
/// #     async fn user_of(&self, _: &str) -> Result<Option<AccountId>, Error> { Ok(None) }
/// # }
///
/// /// Sessions of the host, named by the token in the header `x-session`.
/// struct MySessions(Sessions);
///
/// #[async_trait]
/// impl Authenticator for MySessions {
///     async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
///         let token = request.headers.get("x-session").and_then(|token| token.to_str().ok());
///         let token = token.ok_or(Failure::Refused(Unauthenticated))?;
///         let user = self.0.user_of(token).await?.ok_or(Failure::Refused(Unauthenticated))?;
///         Ok(Principal::new(user, token))
///     }
///     async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
///         let mut valid = Vec::new();
///         for principal in principals {
///             let token = principal.session().unwrap_or_default();
///             valid.push(self.0.user_of(token).await? == Some(principal.person()));
///         }
///         Ok(valid)
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Authenticates the caller of a request.
    ///
    /// A browser cannot send a header with a WebSocket or an `EventSource`: a token that the client sent as subprotocol, as
    /// `access_token` or in `auth` of Socket.IO is in `Authorization: Bearer` here.
    ///
    /// # Errors
    /// [`Unauthenticated`] is answered with 401. A failure is logged and answered with 503, without its text;
    /// [`ErrorKind::Overloaded`] is logged at level `debug`.
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>>;

    /// Whether the session of each principal is still valid, in the same order.
    ///
    /// Asked every second for the live streams of this process, up to 512 at a time, and at the end of long uploads. A session that
    /// ends by [its expiry](Principal::expires_at) need not be looked up for it.
    ///
    /// # Errors
    /// Any failure of the check, which is repeated after a second. A stream continues until it has an entry to deliver; then it ends
    /// with `unavailable`, because it is unknown whether its session is valid.
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error>;

    /// Principals of all valid sessions of a person, for pictures that are shown by a signed URL. None: unknown.
    ///
    /// Default: none. Then the signed URL of a picture works until it expires, at most ten minutes, even if the session has ended.
    ///
    /// # Errors
    /// Any failure of the look-up. It is answered with 503.
    async fn sessions_of(&self, person: AccountId) -> Result<Option<Vec<Principal>>, Error> {
        let _ = person;
        Ok(None)
    }
}

#[async_trait]
impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        (**self).authenticate(request).await
    }
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        (**self).still_valid(principals).await
    }
    async fn sessions_of(&self, person: AccountId) -> Result<Option<Vec<Principal>>, Error> {
        (**self).sessions_of(person).await
    }
}

/// Authentication by bearer tokens of built-in sessions.
#[async_trait]
impl Authenticator for Accounts {
    async fn authenticate(&self, request: &Parts) -> Result<Principal, Failure<Unauthenticated>> {
        let token = bearer(&request.headers).map_err(|_| Failure::Refused(Unauthenticated))?;
        match Self::authenticate(self, &token).await {
            Ok((session, _)) => Ok(Principal::of_account(session.account, session.id, token_digest(&token))),
            Err(Failure::Refused(_)) => Err(Failure::Refused(Unauthenticated)),
            Err(Failure::Failed(error)) => Err(Failure::Failed(error)),
        }
    }
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        SessionChecker::still_valid(self, principals).await
    }
}

/// Digest by which the store finds the session of a bearer token.
pub(super) fn token_digest(token: &Secret<String>) -> Digest {
    digest(&[token.expose().as_bytes()])
}

/// Checks the sessions of live streams by a host's authenticator.
pub(crate) struct HostSessions(pub(crate) Arc<dyn Authenticator>);

#[async_trait]
impl SessionChecker for HostSessions {
    async fn still_valid(&self, principals: &[Principal]) -> Result<Vec<bool>, Error> {
        match timeout(CHECK_TIMEOUT, self.0.still_valid(principals)).await {
            Ok(valid) => valid,
            Err(_) => Err(Error::new(ErrorKind::TimedOut, "check sessions by the authenticator")),
        }
    }
    fn reads_store(&self) -> bool {
        false
    }
}

/// Authentication of callers: built-in accounts, or an authenticator of the host.
#[derive(Clone)]
pub(super) enum Authentication {
    Accounts(Accounts),
    Host(Arc<dyn Authenticator>),
    /// The host has its own users and gave no authenticator.
    Missing,
}

impl Authentication {
    pub(super) fn new(backend: &Backend) -> Self {
        match (backend.authenticator(), backend.accounts()) {
            (Some(host), _) => Self::Host(host.clone()),
            (None, Ok(accounts)) => Self::Accounts(accounts.clone()),
            (None, Err(_)) => {
                tracing::error!("the host has its own users and no .authenticator(…): every caller gets 503");
                Self::Missing
            }
        }
    }

    pub(super) const fn is_built_in(&self) -> bool {
        matches!(self, Self::Accounts(_))
    }
}

/// Principal of a request, asked of the authenticator or put into the request's extensions by a layer of the host.
///
/// `token` is a token that the client sent in place of the header.
pub(super) async fn principal_of(
    app: &App,
    request: &mut Parts,
    token: Option<&Secret<String>>,
) -> ApiResult<Principal> {
    let unauthenticated = || Problem::new("unauthenticated");
    if !cross_origin::is_allowed(app, request) {
        return Err(unauthenticated().detail("the request was sent by a page of another origin"));
    }
    let principal = match request.extensions.get::<Principal>() {
        Some(principal) => principal.clone(),
        None => {
            if let Some(token) = token.filter(|_| !request.headers.contains_key(header::AUTHORIZATION)) {
                let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                let mut value = value.map_err(|_| unauthenticated())?;
                value.set_sensitive(true);
                request.headers.insert(header::AUTHORIZATION, value);
            }
            ask(app, request).await?
        }
    };
    if principal.has_expired(app.backend.ports().now()) {
        return Err(unauthenticated());
    }
    Ok(principal)
}

async fn ask(app: &App, request: &Parts) -> ApiResult<Principal> {
    let answer = match &app.authentication {
        Authentication::Host(host) => {
            timeout(app.options.request_timeout, host.authenticate(request)).await.ok()
        }
        Authentication::Accounts(accounts) => Some(Authenticator::authenticate(accounts, request).await),
        Authentication::Missing => Some(Err(Failure::Failed(
            Error::new(ErrorKind::Misconfigured, "authenticate")
                .context("the backend has no .authenticator(…)"),
        ))),
    };
    match answer {
        Some(Ok(principal)) => Ok(principal),
        Some(Err(Failure::Refused(Unauthenticated))) => Err(Problem::new("unauthenticated")),
        Some(Err(Failure::Failed(error))) if error.kind() == ErrorKind::Overloaded => {
            match app.authentication {
                // The authenticator refuses at once what anybody may send: a warning per request would fill the log.
                Authentication::Host(_) => {
                    tracing::debug!(%error, "the authenticator is overloaded");
                    Err(Problem::new("overloaded"))
                }
                _ => Err(error.into()),
            }
        }
        Some(Err(Failure::Failed(error))) => Err(unavailable(&error)),
        None => Err(Problem::new("timed_out")),
    }
}

/// Reports that the authenticator failed, without its text.
pub(super) fn unavailable(error: &Error) -> Problem {
    tracing::error!(%error, "the authenticator failed");
    Problem::new("unavailable")
}

/// A caller's session, which is checked again while a stream or an upload lasts.
#[derive(Clone)]
pub(super) struct SignIn {
    pub(super) authentication: Authentication,
    pub(super) principal: Principal,
    /// Bearer token of a built-in session.
    pub(super) bearer: Option<Secret<String>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl SignIn {
    /// Remaining lifetime of the session, as far as is known, or the reason for which its streams end.
    ///
    /// A built-in session counts as used.
    async fn left(&self) -> Result<Duration, Failure<CloseReason>> {
        let ended = || Failure::Refused(CloseReason::SignedOut);
        let valid = match (&self.authentication, &self.bearer) {
            (Authentication::Accounts(accounts), Some(bearer)) => {
                return match accounts.authenticate(bearer).await {
                    Ok((session, _)) => Ok(accounts.left(&session)),
                    Err(Failure::Refused(_)) => Err(ended()),
                    Err(Failure::Failed(error)) => Err(Failure::Failed(error)),
                };
            }
            (Authentication::Accounts(accounts), None) => {
                SessionChecker::still_valid(accounts, std::slice::from_ref(&self.principal)).await?
            }
            (Authentication::Host(host), _) => {
                HostSessions(host.clone()).still_valid(std::slice::from_ref(&self.principal)).await?
            }
            (Authentication::Missing, _) => vec![false],
        };
        let &[valid] = valid.as_slice() else {
            return Err(Error::new(ErrorKind::Internal, "check a session")
                .context("still_valid must return one value for each principal")
                .into());
        };
        // After the check, for which a session that has expired may count as ended.
        let now = self.clock.now();
        if self.principal.has_expired(now) {
            return Err(Failure::Refused(CloseReason::Expired));
        }
        let left = self.principal.expires_at().map_or(RECHECK_INTERVAL, |at| at.since(now));
        if valid { Ok(left) } else { Err(ended()) }
    }

    /// Whether the session is still valid.
    pub(super) async fn still_valid(self) -> Result<bool, Error> {
        match self.left().await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(_)) => Ok(false),
            Err(Failure::Failed(error)) => Err(error),
        }
    }
}

#[async_trait]
impl Gate for SignIn {
    async fn open_for(&self) -> Result<Duration, Failure<CloseReason>> {
        self.left().await
    }

    fn principal(&self) -> Option<Principal> {
        Some(self.principal.clone())
    }

    fn reads_store(&self) -> bool {
        self.authentication.is_built_in()
    }
}
