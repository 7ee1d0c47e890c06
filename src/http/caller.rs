//! Extractors of authenticated callers.

use axum::{
    extract::{FromRef, FromRequestParts, OptionalFromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use couple_core::{
    AccountId, EmailAddress, Principal, Secret, SessionId,
    account::{Account, Session},
    pairing::Person,
};

use super::{
    Api, ApiResult, App, Problem,
    authentication::{Authentication, SignIn, principal_of, token_digest},
    extract::bearer,
};

/// Extractor of the authenticated caller: of a built-in account, or of a user of the host.
///
/// Refuses with 401 `unauthenticated`.
pub struct Caller {
    principal: Principal,
    /// Address of a built-in account, which is known from its authentication.
    email: Option<EmailAddress>,
    /// Bearer token of a built-in session.
    bearer: Option<Secret<String>>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Caller {
    /// Id of the person.
    #[must_use]
    pub const fn id(&self) -> AccountId {
        self.principal.person()
    }

    /// The person and the session.
    #[must_use]
    pub fn into_principal(self) -> Principal {
        self.principal
    }

    /// Id of the session. For a session of the host it is derived from person and name.
    pub(super) fn session(&self) -> SessionId {
        self.principal.session_id()
    }

    /// The caller with the verified address.
    pub(super) async fn person(&self, app: &App) -> ApiResult<Person> {
        match &self.email {
            Some(email) => Ok(Person { id: self.id(), email: Some(email.clone()) }),
            None => Ok(app.backend.pairings().person(self.id()).await?),
        }
    }

    /// The session, to check it again later.
    pub(super) fn sign_in(&self, app: &App) -> SignIn {
        SignIn {
            authentication: app.authentication.clone(),
            principal: self.principal.clone(),
            bearer: self.bearer.clone(),
            clock: app.backend.ports().clock.clone(),
        }
    }

    /// Caller with a bearer token, or with credentials of the host.
    pub(super) async fn by(app: &App, credentials: Credentials) -> ApiResult<Self> {
        match credentials {
            Credentials::Token(token) => Ok(AuthSession::by(app, token).await?.into()),
            Credentials::Request(mut head, token) => {
                Ok(principal_of(app, &mut head, token.as_ref()).await?.into())
            }
        }
    }
}

impl From<Principal> for Caller {
    fn from(principal: Principal) -> Self {
        Self { principal, email: None, bearer: None }
    }
}

impl From<AuthSession> for Caller {
    fn from(signed: AuthSession) -> Self {
        let AuthSession { account, session, bearer } = signed;
        Self {
            principal: Principal::of_account(account.id, session.id, token_digest(&bearer)),
            email: Some(account.email),
            bearer: Some(bearer),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Api: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let app = &Api::from_ref(state).0;
        if app.authentication.is_built_in() && parts.extensions.get::<Principal>().is_none() {
            return Ok(AuthSession::by(app, bearer(&parts.headers)?).await?.into());
        }
        // Boxed, so that requests of built-in accounts do not reserve memory for it.
        Ok(Box::pin(principal_of(app, parts, None)).await?.into())
    }
}

impl OptionalFromRequestParts<App> for Caller {
    type Rejection = Problem;

    /// None: the request has no credentials. Wrong credentials are refused.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Problem> {
        let has_credentials = parts.headers.contains_key(header::AUTHORIZATION)
            || parts.extensions.get::<Principal>().is_some();
        if app.authentication.is_built_in() && !has_credentials {
            return Ok(None);
        }
        match <Self as FromRequestParts<App>>::from_request_parts(parts, app).await {
            Ok(caller) => Ok(Some(caller)),
            // Whether a request has credentials is known to the host only.
            Err(problem) if !app.authentication.is_built_in() && problem.code() == "unauthenticated" => {
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }
}

/// Credentials that are checked after the other parts of a request.
pub(super) enum Credentials {
    /// Bearer token of a built-in session.
    Token(Secret<String>),
    /// Request for the host's authenticator, and a token that the client sent in place of the header.
    Request(Box<Parts>, Option<Secret<String>>),
}

/// Copy of a request's head for the host's authenticator; none for built-in accounts.
pub(super) struct HostRequest(pub(super) Option<Box<Parts>>);

impl FromRequestParts<App> for HostRequest {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Self::Rejection> {
        let is_host = !app.authentication.is_built_in() || parts.extensions.get::<Principal>().is_some();
        Ok(Self(is_host.then(|| Box::new(parts.clone()))))
    }
}

impl HostRequest {
    /// Copy of a request's head, if a host authenticates its caller.
    #[cfg(feature = "socketio")]
    pub(super) fn of(app: &App, request: &axum::extract::Request) -> Self {
        let is_host = !app.authentication.is_built_in() || request.extensions().get::<Principal>().is_some();
        Self(is_host.then(|| {
            let (mut head, ()) = axum::http::Request::new(()).into_parts();
            head.method = request.method().clone();
            head.uri = request.uri().clone();
            head.version = request.version();
            head.headers = request.headers().clone();
            head.extensions = request.extensions().clone();
            Box::new(head)
        }))
    }

    /// Credentials of the request. `token` is one that the client sent in place of the header.
    pub(super) fn credentials(
        self,
        headers: &HeaderMap,
        token: impl FnOnce() -> Option<Secret<String>>,
    ) -> ApiResult<Credentials> {
        if let Some(head) = self.0 {
            return Ok(Credentials::Request(head, token()));
        }
        let token = match headers.get(header::AUTHORIZATION) {
            Some(_) => Some(bearer(headers)?),
            None => token(),
        };
        token.map(Credentials::Token).ok_or_else(|| Problem::new("unauthenticated"))
    }
}

/// Session of the built-in accounts, with its account.
pub(super) struct AuthSession {
    pub(super) account: Account,
    pub(super) session: Session,
    bearer: Secret<String>,
}

impl AuthSession {
    pub(super) const fn id(&self) -> AccountId {
        self.account.id
    }

    async fn by(app: &App, bearer: Secret<String>) -> Result<Self, Problem> {
        let Authentication::Accounts(accounts) = &app.authentication else {
            return Err(Problem::new("unauthenticated"));
        };
        let (session, account) = accounts.authenticate(&bearer).await?;
        Ok(Self { account, session, bearer })
    }
}

impl FromRequestParts<App> for AuthSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Self::by(app, bearer(&parts.headers)?).await
    }
}

impl OptionalFromRequestParts<App> for AuthSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Problem> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            <Self as FromRequestParts<App>>::from_request_parts(parts, app).await.map(Some)
        } else {
            Ok(None)
        }
    }
}
