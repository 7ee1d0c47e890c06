//! Pairing over HTTP.

use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
};
use couple_core::{
    AccountId, Secret,
    pairing::{Couple, Invite, InviteOutcome, InviteRef, NewInvite, Profile, SentInvite, Side},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::Caller,
    extract::{JsonBody, PathParam, RequestMeta},
    frame::presence,
    media::{self, MediaOut},
    nullable, picture_access, time,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(invite, list_invites))
        .routes(routes!(withdraw))
        .routes(routes!(preview))
        .routes(routes!(accept))
        .routes(routes!(decline))
        .routes(routes!(couple, describe, leave))
        .routes(routes!(restore))
        .routes(routes!(blocks))
        .routes(routes!(unblock))
}

/// Profile of an account, as shown to another account.
#[derive(Debug, Serialize, ToSchema)]
struct ProfileOut {
    display_name: String,
    /// Avatar as a `data:` URL, about 100 pixels a side.
    avatar: Option<String>,
}

impl ProfileOut {
    async fn new(app: &App, of: AccountId, profile: Profile) -> ApiResult<Self> {
        let avatar = media::avatar_preview(app, of).await?;
        Ok(Self { display_name: profile.display_name.to_string(), avatar })
    }
}

/// An invite of the caller, with its code and link.
#[derive(Serialize, ToSchema)]
struct SentOut {
    id: String,
    /// Code to type: case, spaces, hyphens and look-alike characters do not matter.
    code: String,
    /// Link to open.
    link: String,
    /// The only address that may accept the invite.
    email: Option<String>,
    message: Option<String>,
    created_at: String,
    expires_at: String,
}

impl From<SentInvite> for SentOut {
    fn from(sent: SentInvite) -> Self {
        Self {
            id: sent.invite.id.to_string(),
            code: sent.code.expose().clone(),
            link: sent.link.expose().clone(),
            email: sent.invite.target.map(|target| target.to_string()),
            message: sent.invite.message.map(|message| message.to_string()),
            created_at: time(sent.invite.created_at),
            expires_at: time(sent.invite.expires_at),
        }
    }
}

/// An invite addressed to the caller.
#[derive(Debug, Serialize, ToSchema)]
struct ReceivedOut {
    id: String,
    from: ProfileOut,
    message: Option<String>,
    expires_at: String,
}

impl ReceivedOut {
    async fn new(app: &App, invite: Invite, from: Profile) -> ApiResult<Self> {
        Ok(Self {
            id: invite.id.to_string(),
            from: ProfileOut::new(app, invite.inviter, from).await?,
            message: invite.message.map(|message| message.to_string()),
            expires_at: time(invite.expires_at),
        })
    }
}

/// A member of the couple.
#[derive(Debug, Serialize, ToSchema)]
struct MemberOut {
    id: String,
    display_name: Option<String>,
    avatar: Option<MediaOut>,
    /// Presence of the partner: `here` or `away`.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<&'static str>,
}

/// The couple, as seen by the caller.
#[derive(Debug, Serialize, ToSchema)]
struct CoupleOut {
    id: String,
    since: String,
    title: Option<String>,
    /// Anniversary, `YYYY-MM-DD`.
    anniversary: Option<String>,
    me: MemberOut,
    /// The partner, without a name if the partner's account was deleted.
    partner: MemberOut,
    head_seq: i64,
    my_read_seq: i64,
    partner_read_seq: i64,
    /// Number of entries by the partner after `my_read_seq`, at most 1,000.
    ///
    /// Edits, deletions, reactions, other system entries and deleted entries do not count. Counted among the newest 1,000 entries of the
    /// couple.
    #[schema(minimum = 0, maximum = 1000)]
    unread: u32,
    /// Earlier timeline, if the same two accounts were a couple before.
    previous: Option<PreviousOut>,
}

/// Earlier timeline of the same two accounts.
#[derive(Debug, Serialize, ToSchema)]
struct PreviousOut {
    /// Whether the caller wants to restore it.
    wanted: bool,
    /// Whether both members want to restore it, so that it can be read.
    restored: bool,
}

/// Response that contains a couple.
#[derive(Debug, Serialize, ToSchema)]
struct CoupleAnswer {
    couple: CoupleOut,
}

async fn couple_out(app: &App, caller: &Caller, couple: Couple, side: Side) -> ApiResult<CoupleOut> {
    let viewer = picture_access::viewer(caller.id(), caller.session(), Some(&couple));
    let member = async |side: Side| -> ApiResult<MemberOut> {
        let id = couple.member(side);
        let profile = app.backend.pairings().profile(id).await?;
        let display_name = profile.map(|p| p.display_name.to_string());
        let avatar = media::avatar(app, id, &viewer).await?;
        Ok(MemberOut { id: id.to_string(), display_name, avatar, presence: None })
    };
    let (me, mut partner) = (member(side).await?, member(side.other()).await?);
    let presences = &app.backend.ports().presence;
    // If presence is unknown, the rest of the response is still useful.
    let left = presences.left(couple.member(side.other())).await.unwrap_or(None);
    partner.presence = Some(presence(left.is_some()));
    let unread = app.backend.timeline().unread(&couple, side).await?;
    Ok(CoupleOut {
        id: couple.id.to_string(),
        since: time(couple.since),
        title: couple.title.as_ref().map(ToString::to_string),
        anniversary: couple.anniversary.clone(),
        me,
        partner,
        head_seq: couple.head_seq,
        my_read_seq: couple.read[side.index()],
        partner_read_seq: couple.read[side.other().index()],
        unread,
        previous: couple
            .previous
            .map(|_| PreviousOut { wanted: couple.restore[side.index()], restored: couple.restored() }),
    })
}

fn side_of(couple: &Couple, caller: &Caller) -> ApiResult<Side> {
    couple.side_of(caller.id()).ok_or_else(|| Problem::new("not_paired"))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewInvite)]
struct NewInviteIn {
    /// The only address that may accept the invite; it gets a mail.
    email: Option<String>,
    /// A message to the partner.
    message: Option<String>,
}

/// Invite a partner by code, by link or, with `email`, by address.
///
/// If that address has already invited the caller, the two become a couple.
#[utoipa::path(post, path = "/v1/invites", tag = "pairing", security(("session" = [])), request_body = NewInviteIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key returns the first response")),
    responses((status = 201, description = "A pending invite; or, if the two invites crossed, `{couple}`", body = InvitedOut)))]
async fn invite(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    body: JsonBody<NewInviteIn>,
) -> ApiResult<(StatusCode, Json<InvitedOut>)> {
    let context = meta.context(caller.id(), &body);
    let NewInviteIn { email, message } = body.value;
    let command = NewInvite { email, message };
    match app.backend.pairings().invite(&context, &caller.person(&app).await?, &command).await? {
        InviteOutcome::Pending(sent) => {
            Ok((StatusCode::CREATED, Json(InvitedOut::Waiting(SentOut::from(*sent)))))
        }
        InviteOutcome::Paired(couple) => {
            let side = side_of(&couple, &caller)?;
            let couple = couple_out(&app, &caller, *couple, side).await?;
            Ok((StatusCode::CREATED, Json(InvitedOut::Couple(Box::new(CoupleAnswer { couple })))))
        }
    }
}

/// A pending invite, or the couple that two crossing invites formed.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum InvitedOut {
    Waiting(SentOut),
    Couple(Box<CoupleAnswer>),
}

/// Pending invites from and to the caller.
#[derive(Serialize, ToSchema)]
struct Invites {
    sent: Vec<SentOut>,
    received: Vec<ReceivedOut>,
}

/// List pending invites that the caller sent, or that are addressed to the caller.
#[utoipa::path(get, path = "/v1/invites", tag = "pairing", security(("session" = [])),
    responses((status = 200, description = "Newest first", body = Invites)))]
async fn list_invites(State(app): State<App>, caller: Caller) -> ApiResult<Json<Invites>> {
    let pairings = app.backend.pairings();
    let sent = pairings.sent(caller.id()).await?.into_iter().map(SentOut::from).collect();
    let mut received = Vec::new();
    for invite in pairings.received(&caller.person(&app).await?).await? {
        if let Some(from) = pairings.profile(invite.inviter).await? {
            received.push(ReceivedOut::new(&app, invite, from).await?);
        }
    }
    Ok(Json(Invites { sent, received }))
}

/// Withdraw an invite.
#[utoipa::path(delete, path = "/v1/invites/{id}", tag = "pairing", security(("session" = [])),
    params(("id" = String, Path, description = "Id of the invite")),
    responses((status = 204, description = "Withdrawn")))]
async fn withdraw(State(app): State<App>, caller: Caller, PathParam(id): PathParam) -> ApiResult<StatusCode> {
    let id = id.parse().map_err(|_| Problem::new("invite_not_found"))?;
    app.backend.pairings().withdraw(caller.id(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reference to an invite: exactly one of the fields.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InviteName {
    /// Short code; case, spaces, dashes, look-alike characters and full-width forms do not matter.
    ///
    /// The link is accepted here, too. Anything else is refused without counting as an attempt.
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// Token of the link, or the link.
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
    /// Id of an invite to the caller's own address.
    id: Option<String>,
}

impl InviteName {
    fn into_ref(self) -> ApiResult<InviteRef> {
        match (self.code, self.token, self.id) {
            (Some(code), None, None) => Ok(InviteRef::Code(code)),
            (None, Some(token), None) => Ok(InviteRef::Link(token)),
            (None, None, Some(id)) => {
                id.parse().map(InviteRef::Id).map_err(|_| Problem::new("invite_not_found"))
            }
            _ => Err(Problem::new("invalid_field").field("code", "exactly_one_of_code_token_id")),
        }
    }
}

/// Preview an invite: the inviter's name, avatar and message.
#[utoipa::path(post, path = "/v1/invites/preview", tag = "pairing", security(("session" = [])),
    request_body = InviteName, responses((status = 200, description = "The invite", body = ReceivedOut)))]
async fn preview(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    body: JsonBody<InviteName>,
) -> ApiResult<Json<ReceivedOut>> {
    let reference = body.value.into_ref()?;
    let (invite, from) = app
        .backend
        .pairings()
        .preview(&meta.context_without_key(), &caller.person(&app).await?, &reference)
        .await?;
    Ok(Json(ReceivedOut::new(&app, invite, from).await?))
}

/// Accept an invite. A repeat returns the same couple.
#[utoipa::path(post, path = "/v1/invites/accept", tag = "pairing", security(("session" = [])),
    request_body = InviteName,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repeat with the same key returns the first response")),
    responses((status = 201, description = "The new couple", body = CoupleAnswer)))]
async fn accept(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    body: JsonBody<InviteName>,
) -> ApiResult<(StatusCode, Json<CoupleAnswer>)> {
    let context = meta.context(caller.id(), &body);
    let reference = body.value.into_ref()?;
    let couple = app.backend.pairings().accept(&context, &caller.person(&app).await?, &reference).await?;
    let side = side_of(&couple, &caller)?;
    Ok((StatusCode::CREATED, Json(CoupleAnswer { couple: couple_out(&app, &caller, couple, side).await? })))
}

/// Decline an invite.
#[utoipa::path(post, path = "/v1/invites/decline", tag = "pairing", security(("session" = [])),
    request_body = InviteName, responses((status = 204, description = "Declined")))]
async fn decline(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    body: JsonBody<InviteName>,
) -> ApiResult<StatusCode> {
    let context = meta.context(caller.id(), &body);
    let reference = body.value.into_ref()?;
    app.backend.pairings().decline(&context, &caller.person(&app).await?, &reference).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get the caller's couple.
#[utoipa::path(get, path = "/v1/couple", tag = "pairing", security(("session" = [])),
    responses((status = 200, description = "The couple", body = CoupleOut)))]
async fn couple(State(app): State<App>, caller: Caller) -> ApiResult<Json<CoupleOut>> {
    let (couple, side) = app.backend.pairings().couple_of(caller.id()).await?;
    Ok(Json(couple_out(&app, &caller, couple, side).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CouplePatch {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    title: Option<Option<String>>,
    /// Anniversary, `YYYY-MM-DD`.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    anniversary: Option<Option<String>>,
}

/// Change the couple's title and anniversary. Absent fields stay, null clears a field.
#[utoipa::path(patch, path = "/v1/couple", tag = "pairing", security(("session" = [])), request_body = CouplePatch,
    params(("Couple-Id" = Option<String>, Header, description = "The couple to change; if the caller is in another one, 404 `not_paired`")),
    responses((status = 200, description = "The couple", body = CoupleOut)))]
async fn describe(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<CouplePatch>,
) -> ApiResult<Json<CoupleOut>> {
    let CouplePatch { title, anniversary } = body.value;
    let expected = super::timeline::expected_couple(&headers)?;
    let couple = app.backend.pairings().describe(caller.id(), expected, title, anniversary).await?;
    let side = side_of(&couple, &caller)?;
    Ok(Json(couple_out(&app, &caller, couple, side).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Leaving {
    /// Whether to block the partner as well.
    #[serde(default)]
    block: bool,
}

/// End the couple immediately, without the partner's consent.
///
/// Send `Couple-Id`, so that a late repeat does not end a later couple.
#[utoipa::path(delete, path = "/v1/couple", tag = "pairing", security(("session" = [])),
    params(Leaving,
        ("Couple-Id" = Option<String>, Header, description = "The couple to leave. Answers 204 when this couple of the caller has \
            ended already, and 404 `not_paired` when it is no couple of the caller. Without it, the current couple ends"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours ends nothing else")),
    responses((status = 204, description = "Left")))]
async fn leave(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    headers: HeaderMap,
    query: Result<Query<Leaving>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<StatusCode> {
    let Query(Leaving { block }) = query.map_err(super::timeline::bad_query)?;
    let expected_couple = super::timeline::expected_couple(&headers)?;
    let couple = expected_couple.map(|id| id.to_string()).unwrap_or_default();
    let context = meta.context_with(caller.id(), format!("{block} {couple}").as_bytes());
    app.backend.pairings().leave(&context, &caller.person(&app).await?, expected_couple, block).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Restoring {
    wanted: bool,
}

/// Choose whether to restore the earlier timeline. It can be read once both members want it.
#[utoipa::path(put, path = "/v1/couple/previous", tag = "pairing", security(("session" = [])),
    params(("Couple-Id" = Option<String>, Header, description = "The couple in which the caller chooses; if the caller is in another one, 404 `not_paired`")),
    request_body = Restoring, responses((status = 200, description = "The couple", body = CoupleOut)))]
async fn restore(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<Restoring>,
) -> ApiResult<Json<CoupleOut>> {
    let expected = super::timeline::expected_couple(&headers)?;
    let couple = app.backend.pairings().restore(caller.id(), expected, body.value.wanted).await?;
    let side = side_of(&couple, &caller)?;
    Ok(Json(couple_out(&app, &caller, couple, side).await?))
}

/// A block of another account.
#[derive(Debug, Serialize, ToSchema)]
struct BlockOut {
    id: String,
    display_name: Option<String>,
    since: String,
}

/// Blocks of the caller.
#[derive(Debug, Serialize, ToSchema)]
struct Blocks {
    blocks: Vec<BlockOut>,
}

/// List the accounts that the caller blocks.
#[utoipa::path(get, path = "/v1/blocks", tag = "pairing", security(("session" = [])),
    responses((status = 200, description = "Newest first", body = Blocks)))]
async fn blocks(State(app): State<App>, caller: Caller) -> ApiResult<Json<Blocks>> {
    let pairings = app.backend.pairings();
    let mut blocks = Vec::new();
    for block in pairings.blocks(caller.id()).await? {
        let profile = pairings.profile(block.blocked).await?;
        blocks.push(BlockOut {
            id: block.blocked.to_string(),
            display_name: profile.map(|profile| profile.display_name.to_string()),
            since: time(block.at),
        });
    }
    Ok(Json(Blocks { blocks }))
}

/// Remove a block.
#[utoipa::path(delete, path = "/v1/blocks/{id}", tag = "pairing", security(("session" = [])),
    params(("id" = String, Path, description = "Id of the blocked account")),
    responses((status = 204, description = "Removed")))]
async fn unblock(State(app): State<App>, caller: Caller, PathParam(id): PathParam) -> ApiResult<StatusCode> {
    let id = id.parse().map_err(|_| Problem::new("block_not_found"))?;
    app.backend.pairings().unblock(caller.id(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
