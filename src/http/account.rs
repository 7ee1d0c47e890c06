//! Accounts over HTTP.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use couple_core::{
    Secret, SessionId,
    account::{self, Account, ProfilePatch, Proof, Session, SignIn, SignUp, SignedIn},
    mail::RetireReason,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::AuthSession,
    extract::{JsonBody, PathParam, RequestMeta},
    media::{self, MediaOut},
    nullable, picture_access, time,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(verify))
        .routes(routes!(resend))
        .routes(routes!(sign_in, list_sessions, end_other_sessions))
        .routes(routes!(request_code))
        .routes(routes!(end_current_session))
        .routes(routes!(end_session))
        .routes(routes!(forgot_password))
        .routes(routes!(set_password))
        .routes(routes!(me, update_me, delete_me))
        .routes(routes!(new_widget_token, remove_widget_token))
        .routes(routes!(change_email))
        .routes(routes!(confirm_email))
        .routes(routes!(cancel_email_change))
}

/// The caller's account.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountOut {
    id: String,
    email: String,
    display_name: String,
    locale: Option<String>,
    time_zone: Option<String>,
    /// Date of birth, `YYYY-MM-DD`.
    birthday: Option<String>,
    has_password: bool,
    created_at: String,
    /// Time at which the account will be deleted, if its deletion was requested.
    deletion_due: Option<String>,
}

impl From<Account> for AccountOut {
    fn from(account: Account) -> Self {
        Self {
            id: account.id.to_string(),
            email: account.email.to_string(),
            display_name: account.display_name.to_string(),
            locale: account.locale.map(|locale| locale.to_string()),
            time_zone: account.time_zone.map(|zone| zone.to_string()),
            birthday: account.birthday,
            has_password: account.password.is_some(),
            created_at: time(account.created_at),
            deletion_due: account.deletion_due.map(time),
        }
    }
}

/// The caller's account and avatar.
#[derive(Debug, Serialize, ToSchema)]
struct MeOut {
    #[serde(flatten)]
    account: AccountOut,
    avatar: Option<MediaOut>,
    /// Why the address gets no mails: `bounced` or `complained`; null if it gets them.
    ///
    /// It still gets mails with a code or a link that are asked for; using one ends this.
    #[schema(value_type = Option<String>)]
    email_retired: Option<&'static str>,
}

impl MeOut {
    async fn new(app: &App, signed: &AuthSession, account: Account) -> ApiResult<Json<Self>> {
        let viewer = picture_access::viewer_of(app, signed.id(), signed.session.id).await?;
        let avatar = media::avatar(app, account.id, &viewer).await?;
        let email_retired = app.backend.mail().retired(account.email.key()).await?.map(RetireReason::as_str);
        Ok(Json(Self { account: account.into(), avatar, email_retired }))
    }
}

/// A session with its bearer token, which is returned only once.
#[derive(Serialize, ToSchema)]
pub(super) struct NewSession {
    id: String,
    token: String,
    expires_at: String,
}

/// The account and the new session after a sign-in.
#[derive(Serialize, ToSchema)]
pub(super) struct SignedInOut {
    account: AccountOut,
    session: NewSession,
}

impl From<SignedIn> for SignedInOut {
    fn from(signed: SignedIn) -> Self {
        Self {
            account: signed.account.into(),
            session: NewSession {
                id: signed.session.id.to_string(),
                token: signed.token.expose().clone(),
                expires_at: time(signed.session.expires_at),
            },
        }
    }
}

/// A signed-in device.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionOut {
    id: String,
    device: Option<String>,
    created_at: String,
    /// Time of last use, accurate to some minutes.
    seen_at: String,
    expires_at: String,
    /// Whether it is the session of this request.
    current: bool,
    /// Whether it has a widget token.
    has_widget_token: bool,
}

impl SessionOut {
    pub(super) fn new(session: Session, current: SessionId) -> Self {
        Self {
            id: session.id.to_string(),
            device: session.device.map(|device| device.to_string()),
            created_at: time(session.created_at),
            seen_at: time(session.seen_at),
            expires_at: time(session.expires_at),
            current: session.id == current,
            has_widget_token: session.widget_token.is_some(),
        }
    }
}

/// Status of an accepted operation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    status: &'static str,
}

const SENT: (StatusCode, Json<Status>) = (StatusCode::ACCEPTED, Json(Status { status: "sent" }));

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    email: String,
    /// 1 to 64 characters, at least one of them visible.
    display_name: String,
    /// Language of the account's mails, as a BCP 47 tag or as devices write it (`en_US`).
    ///
    /// It is stored in canonical form; a text that names no language is ignored.
    locale: Option<String>,
}

/// Sign up: mail a code and a link.
///
/// The response and its time are the same whether or not the address has an account.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = NewAccount,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key returns the first response")),
    responses((status = 202, description = "A mail is being sent", body = Status)))]
async fn sign_up(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<NewAccount>,
) -> ApiResult<(StatusCode, Json<Status>)> {
    let context = meta.anonymous_context(&body.value.email, &body);
    let NewAccount { email, display_name, locale } = body.value;
    app.backend.accounts()?.sign_up(&context, &SignUp { email, display_name, locale }).await?;
    Ok((StatusCode::ACCEPTED, Json(Status { status: "verification_sent" })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Verification {
    /// Address of the sign-up. Required with `code`.
    email: Option<String>,
    /// Six digits; spaces, dashes and digits of other scripts are accepted.
    ///
    /// Anything else is refused without counting as an attempt.
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// Token of the mailed link, instead of `email` and `code`.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
    /// At least 15 characters.
    ///
    /// Without a password, sign-in is by mailed code. Ignored if the account has a password.
    #[schema(value_type = Option<String>)]
    password: Option<Secret<String>>,
    /// Display name of the account. Default: the name given at sign-up.
    display_name: Option<String>,
    /// Locale of the account. Default: the locale given at sign-up.
    locale: Option<String>,
}

/// Scope of the idempotency key of a confirmation: its address or its token.
fn subject<'a>(email: Option<&'a str>, token: Option<&'a Secret<String>>) -> &'a str {
    email.or_else(|| token.map(|token| token.expose().as_str())).unwrap_or_default()
}

fn proof(
    email: Option<String>,
    code: Option<Secret<String>>,
    token: Option<Secret<String>>,
) -> Result<Proof, Problem> {
    match (email, code, token) {
        (Some(email), Some(code), None) => Ok(Proof::Code { email, code }),
        (None, None, Some(token)) => Ok(Proof::Link(token)),
        (Some(_), None, None) => Err(Problem::new("invalid_field").field("code", "required")),
        (None, Some(_), None) => Err(Problem::new("invalid_field").field("email", "required")),
        _ => Err(Problem::new("invalid_field").field("token", "either_token_or_email_and_code")),
    }
}

/// Confirm a sign-up: create the account and sign it in.
///
/// Code and link of one mail work once each, the second of them within the {{code-lifetime}} of the code; the second one signs in to the
/// same account.
#[utoipa::path(post, path = "/v1/accounts/verify", tag = "accounts", request_body = Verification,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key returns the first response")),
    responses((status = 200, description = "Confirmed and signed in", body = SignedInOut)))]
async fn verify(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<Verification>,
) -> ApiResult<Json<SignedInOut>> {
    let context =
        meta.anonymous_context(subject(body.value.email.as_deref(), body.value.token.as_ref()), &body);
    let Verification { email, code, token, password, display_name, locale } = body.value;
    let command = account::Verification { proof: proof(email, code, token)?, password, display_name, locale };
    let signed = app.backend.accounts()?.verify(&context, &command).await?;
    Ok(Json(signed.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Address {
    email: String,
}

/// Mail another code for a pending sign-up. The response is the same without one.
#[utoipa::path(post, path = "/v1/accounts/verify/resend", tag = "accounts", request_body = Address,
    responses((status = 202, description = "If there is a pending sign-up, a mail is being sent", body = Status)))]
async fn resend(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<Address>,
) -> ApiResult<(StatusCode, Json<Status>)> {
    let context = meta.anonymous_context(&body.value.email, &body);
    app.backend.accounts()?.resend(&context, &body.value.email).await?;
    Ok(SENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// Required with `password` or `code`.
    email: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<Secret<String>>,
    /// Six digits, instead of the password.
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// Token of a mailed link, instead of address and password or code.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
}

/// Sign in by password, mailed code or mailed link.
///
/// Code and link of one mail work once each, the second of them within the {{code-lifetime}} of the code.
///
/// An address allows {{password-guesses}} wrong passwords in 24 hours from networks without a sign-in to it in the last
/// {{client-remembered}}, and {{password-guesses}} from the others; further attempts get 429 until the 24 hours are over. Mailed codes
/// and links still work.
#[utoipa::path(post, path = "/v1/sessions", tag = "accounts", request_body = Credentials,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key returns the first response")),
    responses((status = 201, description = "Signed in", body = SignedInOut)))]
async fn sign_in(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<Credentials>,
) -> ApiResult<(StatusCode, Json<SignedInOut>)> {
    let context =
        meta.anonymous_context(subject(body.value.email.as_deref(), body.value.token.as_ref()), &body);
    let command = match body.value {
        Credentials { email: Some(email), password: Some(password), code: None, token: None } => {
            SignIn::Password { email, password }
        }
        Credentials { email: Some(email), password: None, code: Some(code), token: None } => {
            SignIn::Code { email, code }
        }
        Credentials { email: None, password: None, code: None, token: Some(token) } => SignIn::Link(token),
        Credentials { email: None, token: None, .. } => {
            return Err(Problem::new("invalid_field").field("email", "required"));
        }
        Credentials { token: Some(_), .. } => {
            return Err(Problem::new("invalid_field").field("token", "either_token_or_email"));
        }
        _ => return Err(Problem::new("invalid_field").field("password", "either_password_or_code")),
    };
    let signed = app.backend.accounts()?.sign_in(&context, &command).await?;
    Ok((StatusCode::CREATED, Json(signed.into())))
}

/// Mail a sign-in code and link. The response is the same without an account.
#[utoipa::path(post, path = "/v1/sessions/code", tag = "accounts", request_body = Address,
    responses((status = 202, description = "If there is an account, a mail is being sent", body = Status)))]
async fn request_code(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<Address>,
) -> ApiResult<(StatusCode, Json<Status>)> {
    let context = meta.anonymous_context(&body.value.email, &body);
    app.backend.accounts()?.request_code(&context, &body.value.email).await?;
    Ok(SENT)
}

/// List the account's sessions.
#[utoipa::path(get, path = "/v1/sessions", tag = "accounts", security(("session" = [])),
    responses((status = 200, description = "Newest first", body = Sessions)))]
async fn list_sessions(State(app): State<App>, signed: AuthSession) -> ApiResult<Json<Sessions>> {
    let sessions = app.backend.accounts()?.sessions(signed.id()).await?;
    let sessions = sessions.into_iter().map(|session| SessionOut::new(session, signed.session.id)).collect();
    Ok(Json(Sessions { sessions }))
}

/// A widget token, which is shown only here.
#[derive(Serialize, ToSchema)]
struct WidgetTokenOut {
    /// Token for the `Authorization` header of `GET /v1/glance` and of the pictures that it names.
    token: String,
}

/// Create a widget token for this session, in place of its former one.
///
/// It reads `GET /v1/glance` and the pictures that it names; every other operation refuses it. It ends with the session, and does not
/// count as a use of it. At most {{widget-tokens}} sessions of an account have one.
#[utoipa::path(put, path = "/v1/me/widget-token", tag = "accounts", security(("session" = [])),
    responses((status = 200, description = "The token, which is not shown again", body = WidgetTokenOut)))]
async fn new_widget_token(State(app): State<App>, signed: AuthSession) -> ApiResult<Json<WidgetTokenOut>> {
    let token = app.backend.accounts()?.new_widget_token(&signed.session).await?;
    Ok(Json(WidgetTokenOut { token: token.expose().clone() }))
}

/// Remove the widget token of this session. Answers 204 as well if it has none.
#[utoipa::path(delete, path = "/v1/me/widget-token", tag = "accounts", security(("session" = [])),
    responses((status = 204, description = "Removed")))]
async fn remove_widget_token(State(app): State<App>, signed: AuthSession) -> ApiResult<StatusCode> {
    app.backend.accounts()?.remove_widget_token(signed.id(), signed.session.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sessions of an account.
#[derive(Debug, Serialize, ToSchema)]
struct Sessions {
    sessions: Vec<SessionOut>,
}

/// Sign out: end the current session.
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "accounts", security(("session" = [])),
    responses((status = 204, description = "Signed out")))]
async fn end_current_session(State(app): State<App>, signed: AuthSession) -> ApiResult<StatusCode> {
    app.backend.accounts()?.sign_out(&signed.session).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End one of the account's sessions.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "accounts", security(("session" = [])),
    params(("id" = String, Path, description = "Id of the session")),
    responses((status = 204, description = "Signed out")))]
async fn end_session(
    State(app): State<App>,
    signed: AuthSession,
    PathParam(id): PathParam,
) -> ApiResult<StatusCode> {
    let id = id.parse().map_err(|_| Problem::new("session_not_found"))?;
    app.backend.accounts()?.end_session(signed.id(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End all other sessions of the account.
#[utoipa::path(delete, path = "/v1/sessions", tag = "accounts", security(("session" = [])),
    responses((status = 204, description = "All other sessions have ended")))]
async fn end_other_sessions(State(app): State<App>, signed: AuthSession) -> ApiResult<StatusCode> {
    app.backend.accounts()?.end_sessions(signed.id(), Some(signed.session.id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mail a link to set a new password. The response is the same without an account.
#[utoipa::path(post, path = "/v1/password/forgot", tag = "accounts", request_body = Address,
    responses((status = 202, description = "If there is an account, a mail is being sent", body = Status)))]
async fn forgot_password(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<Address>,
) -> ApiResult<(StatusCode, Json<Status>)> {
    let context = meta.anonymous_context(&body.value.email, &body);
    app.backend.accounts()?.forgot_password(&context, &body.value.email).await?;
    Ok(SENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// Token of the mailed link. Without it the request needs a session.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
    /// Required with a session if the account has a password.
    #[schema(value_type = Option<String>)]
    current_password: Option<Secret<String>>,
    /// At least 15 characters.
    #[schema(value_type = String)]
    new_password: Secret<String>,
}

/// Set a new password.
///
/// With a link's token all sessions end. With a session all others end, and this one continues with a new token.
#[utoipa::path(put, path = "/v1/password", tag = "accounts", request_body = NewPassword,
    security((), ("session" = [])),
    responses((status = 200, description = "Set; continue with the returned session", body = SignedInOut),
        (status = 204, description = "Set with a link's token; sign in")))]
async fn set_password(
    State(app): State<App>,
    signed: Option<AuthSession>,
    meta: RequestMeta,
    body: JsonBody<NewPassword>,
) -> ApiResult<Response> {
    let accounts = app.backend.accounts()?;
    let NewPassword { token, current_password, new_password } = body.value;
    match (token, signed) {
        (Some(token), _) => {
            accounts.reset_password(&meta.context_without_key(), &token, &new_password).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        (None, Some(signed)) => {
            let current = current_password.as_ref();
            let signed = accounts
                .change_password(&meta.context_without_key(), &signed.session, current, &new_password)
                .await?;
            Ok(Json(SignedInOut::from(signed)).into_response())
        }
        (None, None) => Err(Problem::new("unauthenticated")),
    }
}

/// Get the caller's account.
#[utoipa::path(get, path = "/v1/me", tag = "accounts", security(("session" = [])),
    responses((status = 200, description = "The account", body = MeOut)))]
async fn me(State(app): State<App>, signed: AuthSession) -> ApiResult<Json<MeOut>> {
    MeOut::new(&app, &signed, signed.account.clone()).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AccountPatch {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    display_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    /// Language of the account's mails, as a BCP 47 tag or as devices write it (`en_US`).
    ///
    /// It is stored in canonical form; a text that names no language clears the field.
    #[schema(value_type = Option<String>)]
    locale: Option<Option<String>>,
    /// Name of a time zone in the IANA database.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    time_zone: Option<Option<String>>,
    /// `YYYY-MM-DD`, not in the future.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    birthday: Option<Option<String>>,
}

/// Change the caller's profile. Absent fields stay, null clears a field.
#[utoipa::path(patch, path = "/v1/me", tag = "accounts", security(("session" = [])), request_body = AccountPatch,
    responses((status = 200, description = "The account", body = MeOut)))]
async fn update_me(
    State(app): State<App>,
    signed: AuthSession,
    body: JsonBody<AccountPatch>,
) -> ApiResult<Json<MeOut>> {
    let AccountPatch { display_name, locale, time_zone, birthday } = body.value;
    // The display name cannot be cleared.
    let display_name = display_name.map(Option::unwrap_or_default);
    let patch = ProfilePatch { display_name, locale, time_zone, birthday };
    let account = app.backend.accounts()?.update_profile(signed.id(), &patch).await?;
    MeOut::new(&app, &signed, account).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEmail {
    new_email: String,
    /// Required if the last sign-in is not recent.
    #[schema(value_type = Option<String>)]
    current_password: Option<Secret<String>>,
}

/// Request a change of address, which the new address must confirm.
///
/// The current address gets a link that cancels the change. It is also cancelled when the session that requested it ends, and by a new
/// password.
#[utoipa::path(post, path = "/v1/me/email", tag = "accounts", security(("session" = [])), request_body = NewEmail,
    responses((status = 202, description = "A mail to the new address is being sent", body = Status)))]
async fn change_email(
    State(app): State<App>,
    signed: AuthSession,
    meta: RequestMeta,
    body: JsonBody<NewEmail>,
) -> ApiResult<(StatusCode, Json<Status>)> {
    let context = meta.context(signed.id(), &body);
    let NewEmail { new_email, current_password } = body.value;
    app.backend
        .accounts()?
        .change_email(&context, &signed.session, &new_email, current_password.as_ref())
        .await?;
    Ok((StatusCode::ACCEPTED, Json(Status { status: "verification_sent" })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmailProof {
    /// New address. Required with `code`.
    email: Option<String>,
    /// Six digits; spaces, dashes and digits of other scripts are accepted.
    ///
    /// Anything else is refused without counting as an attempt.
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// Token of the mailed link, instead of `email` and `code`.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
}

/// Confirm a new address with the mailed code or link.
///
/// The code needs a session; the link needs no session and returns none. Code and link of one mail work once each, the second of them
/// within the {{code-lifetime}} of the code.
#[utoipa::path(post, path = "/v1/me/email/verify", tag = "accounts", security((), ("session" = [])),
    request_body = EmailProof, responses((status = 204, description = "The account has the new address")))]
async fn confirm_email(
    State(app): State<App>,
    signed: Option<AuthSession>,
    meta: RequestMeta,
    body: JsonBody<EmailProof>,
) -> ApiResult<StatusCode> {
    let EmailProof { email, code, token } = body.value;
    let proof = proof(email, code, token)?;
    if matches!(proof, Proof::Code { .. }) && signed.is_none() {
        return Err(Problem::new("unauthenticated"));
    }
    let account = signed.map(|signed| signed.id());
    app.backend.accounts()?.confirm_email(&meta.context_without_key(), account, &proof).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmailCancellation {
    /// Token from the link that was mailed to the current address of the account.
    #[schema(value_type = String)]
    token: Secret<String>,
}

/// Cancel the account's pending changes of address. Needs no session.
#[utoipa::path(post, path = "/v1/me/email/cancel", tag = "accounts", request_body = EmailCancellation,
    responses((status = 204, description = "The account keeps its address")))]
async fn cancel_email_change(
    State(app): State<App>,
    meta: RequestMeta,
    body: JsonBody<EmailCancellation>,
) -> ApiResult<StatusCode> {
    app.backend.accounts()?.cancel_email_change(&meta.context_without_key(), &body.value.token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// State of a requested deletion.
#[derive(Debug, Serialize, ToSchema)]
struct Deletion {
    status: &'static str,
    deletion_due: String,
}

/// Request deletion of the account. Needs a sign-in within {{recent}}.
///
/// All sessions end. A sign-in before the deletion is due cancels it.
#[utoipa::path(delete, path = "/v1/me", tag = "accounts", security(("session" = [])),
    responses((status = 202, description = "All sessions have ended; the account is deleted when it is due", body = Deletion)))]
async fn delete_me(State(app): State<App>, signed: AuthSession) -> ApiResult<(StatusCode, Json<Deletion>)> {
    let due = app.backend.accounts()?.request_deletion(&signed.session, None).await?;
    Ok((StatusCode::ACCEPTED, Json(Deletion { status: "deletion_scheduled", deletion_due: time(due) })))
}
