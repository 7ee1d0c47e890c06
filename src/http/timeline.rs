//! The timeline over HTTP.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
};
use couple_core::{
    CoupleId,
    pairing::Side,
    timeline::{Append, Entry, EntryView, Page, Timeline},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::Caller,
    extract::{JsonBody, PathParam, RequestMeta},
    time,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(append, page))
        .routes(routes!(entry, edit, delete))
        .routes(routes!(react, unreact))
        .routes(routes!(mark_read))
        .routes(routes!(signal))
        .routes(routes!(previous))
}

/// Author of an entry, relative to the reader.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum By {
    Me,
    Partner,
    System,
}

impl By {
    pub(super) fn new(author: Option<Side>, reader: Option<Side>) -> Self {
        match author {
            None => Self::System,
            Some(_) if author == reader => Self::Me,
            Some(_) => Self::Partner,
        }
    }
}

/// Reactions of both members.
#[derive(Debug, Serialize, ToSchema)]
struct ReactionsOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    me: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner: Option<String>,
}

/// An entry of the couple's log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntryOut {
    /// 1, 2, 3, … within the couple.
    seq: i64,
    author: By,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    kind: String,
    /// Null on a tombstone and on most system entries.
    ///
    /// In a `photo`, `media` has the picture's state when it was appended: `{"state", "placeholder", "width", "height"}`, and once it is
    /// ready `"animated"` and `"alpha"`. `media_ready` repeats all but the state, with the `media_id`; `media_rejected` has a
    /// `reason` and, if the picture has one, a `detail`.
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<String>,
    reactions: ReactionsOut,
    /// `seq` of the entry that this one changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_seq: Option<i64>,
    /// Current state of the entry that this one changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    target: Option<Box<EntryOut>>,
}

impl EntryOut {
    pub(super) fn new(entry: Entry, reader: Option<Side>, target: Option<Entry>) -> Self {
        let [first, second] = entry.reactions;
        let (me, partner) = if reader == Some(Side::Second) { (second, first) } else { (first, second) };
        Self {
            seq: entry.seq,
            author: By::new(entry.author, reader),
            // Only the author sees the client id.
            client_id: entry.client_id.filter(|_| entry.author == reader),
            kind: entry.kind,
            body: entry.body.and_then(|body| RawValue::from_string(body.into_text()).ok()),
            created_at: time(entry.created_at),
            edited_at: entry.edited_at.map(time),
            deleted_at: entry.deleted_at.map(time),
            reactions: ReactionsOut { me, partner },
            target_seq: entry.target,
            target: target.map(|target| Box::new(Self::new(target, reader, None))),
        }
    }
    pub(super) fn of(view: EntryView, reader: Side) -> Self {
        Self::new(view.entry, Some(reader), view.target)
    }
}

/// A page of entries in `seq` order.
#[derive(Debug, Serialize, ToSchema)]
struct EntriesOut {
    entries: Vec<EntryOut>,
    /// `seq` for the next page in the same direction; none at the end.
    next: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEntryIn {
    /// Client's own id of the entry, 1 to 64 visible ASCII characters: a repeat returns the same entry.
    client_id: String,
    /// `text`, `photo`, `hug`, `kiss`, `mood`, `place`, `doodle`, or an app's own `x-…`.
    kind: String,
    /// Object of up to 16 KiB of JSON and 32 levels.
    ///
    /// A `text` has a `text`, a `photo` a `media_id`; the server replaces `media` of a `photo`. Integers from -2^63 to 2^64-1 are kept
    /// exactly; other numbers beyond 2^53 are refused.
    #[schema(value_type = Object)]
    body: serde_json::Value,
}

/// Append an entry.
#[utoipa::path(post, path = "/v1/couple/entries", tag = "timeline", security(("session" = [])),
    request_body = NewEntryIn,
    params(("Idempotency-Key" = Option<String>, Header, description = "Optional: `client_id` has the same effect"),
        ("Couple-Id" = Option<String>, Header, description = "The couple that the entry is for; if the caller is in another one, 404 `not_paired`")),
    responses((status = 201, description = "Appended", body = EntryOut),
        (status = 200, description = "The entry exists already: the `client_id` was repeated", body = EntryOut)))]
async fn append(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    headers: HeaderMap,
    body: JsonBody<NewEntryIn>,
) -> ApiResult<(StatusCode, Json<EntryOut>)> {
    let context = meta.context(caller.id(), &body);
    let NewEntryIn { client_id, kind, body } = body.value;
    let couple = expected_couple(&headers)?;
    let done = app
        .backend
        .timeline()
        .append(&context, caller.id(), &Append { couple, client_id, kind, body })
        .await?;
    let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
    let author = done.entry.author;
    Ok((status, Json(EntryOut::new(done.entry, author, None))))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// Entries with a greater `seq`, oldest first. Without `after` and `before`: the newest page.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Entries with a smaller `seq`, nearest first.
    #[param(minimum = 0)]
    before: Option<i64>,
    /// Maximum number of entries.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Only entries of this kind: 1 to 64 visible ASCII characters.
    kind: Option<String>,
}

impl Paging {
    fn page(&self) -> ApiResult<(Page, u32)> {
        let wrong = |field| Err(Problem::new("invalid_field").field(field, "out_of_range"));
        let limit = self.limit.unwrap_or(Timeline::DEFAULT_PAGE_SIZE);
        if !(1..=Timeline::MAX_PAGE_SIZE).contains(&limit) {
            return wrong("limit");
        }
        match (self.after, self.before) {
            (Some(_), Some(_)) => {
                Err(Problem::new("invalid_field").field("before", "either_after_or_before"))
            }
            (Some(after), None) if after < 0 => wrong("after"),
            (None, Some(before)) if before < 0 => wrong("before"),
            (Some(after), None) => Ok((Page::After(after), limit)),
            (None, Some(before)) => Ok((Page::Before(before), limit)),
            (None, None) => Ok((Page::Before(i64::MAX), limit)),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature for map_err")]
pub(super) fn bad_query(rejection: QueryRejection) -> Problem {
    let message = rejection.body_text();
    // "…: limit: invalid digit …", or "…: missing field `purpose`"
    let field_name = message.split(": ").nth(1).filter(|name| !name.contains([' ', '`']));
    let field = field_name.or_else(|| message.split('`').nth(1)).unwrap_or("query").to_owned();
    Problem::new("invalid_field").field(field, "invalid")
}

fn entries_out(views: Vec<EntryView>, reader: Side, page: Page, limit: u32) -> EntriesOut {
    let full = views.len() == limit as usize;
    let next = match page {
        Page::After(_) => views.last(),
        // There is no page before the first entry.
        Page::Before(_) => views.first().filter(|view| view.entry.seq > 1),
    };
    let next = next.filter(|_| full).map(|view| view.entry.seq);
    EntriesOut { entries: views.into_iter().map(|view| EntryOut::of(view, reader)).collect(), next }
}

/// Get a page of the log.
#[utoipa::path(get, path = "/v1/couple/entries", tag = "timeline", security(("session" = [])), params(Paging),
    responses((status = 200, description = "In `seq` order", body = EntriesOut)))]
async fn page(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<Paging>, QueryRejection>,
) -> ApiResult<Json<EntriesOut>> {
    let Query(paging) = query.map_err(bad_query)?;
    let (page, limit) = paging.page()?;
    let timeline = app.backend.timeline();
    let (at, _) = timeline.membership(caller.id()).await?;
    let views = timeline.page(caller.id(), page, limit, paging.kind.as_deref()).await?;
    Ok(Json(entries_out(views, at.side, page, limit)))
}

/// Get a page of the earlier log, if both members chose to restore it.
#[utoipa::path(get, path = "/v1/couple/previous/entries", tag = "timeline", security(("session" = [])),
    params(Paging), responses((status = 200, description = "In `seq` order", body = EntriesOut)))]
async fn previous(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<Paging>, QueryRejection>,
) -> ApiResult<Json<EntriesOut>> {
    let Query(paging) = query.map_err(bad_query)?;
    let (page, limit) = paging.page()?;
    let (side, views) =
        app.backend.timeline().previous_page(caller.id(), page, limit, paging.kind.as_deref()).await?;
    Ok(Json(entries_out(views, side, page, limit)))
}

/// Id of the couple that a write is for, from its `Couple-Id` header.
pub(super) fn expected_couple(headers: &HeaderMap) -> ApiResult<Option<CoupleId>> {
    let Some(id) = headers.get("couple-id") else { return Ok(None) };
    let id = id.to_str().ok().and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| Problem::new("not_paired"))
}

fn seq(path: &str) -> ApiResult<i64> {
    path.parse().map_err(|_| Problem::new("entry_not_found"))
}

fn entry_json(entry: Entry, reader: Side) -> Json<EntryOut> {
    Json(EntryOut::new(entry, Some(reader), None))
}

/// Get an entry.
#[utoipa::path(get, path = "/v1/couple/entries/{seq}", tag = "timeline", security(("session" = [])),
    params(("seq" = i64, Path, description = "`seq` of the entry")),
    responses((status = 200, description = "The entry", body = EntryOut)))]
async fn entry(
    State(app): State<App>,
    caller: Caller,
    PathParam(path): PathParam,
) -> ApiResult<Json<EntryOut>> {
    let timeline = app.backend.timeline();
    let (at, _) = timeline.membership(caller.id()).await?;
    Ok(entry_json(timeline.entry(caller.id(), seq(&path)?).await?, at.side))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EditIn {
    #[schema(value_type = Object)]
    body: serde_json::Value,
}

/// Replace the body of an entry. Appends a system entry about it.
///
/// An entry is edited by its author, unless its kind says otherwise (`x-entry-kinds` of `NewEntryIn`).
#[utoipa::path(patch, path = "/v1/couple/entries/{seq}", tag = "timeline", security(("session" = [])),
    params(("seq" = i64, Path, description = "`seq` of the entry"),
        ("Couple-Id" = Option<String>, Header, description = "The couple of the entry; if the caller is in another one, 404 `not_paired`")), request_body = EditIn,
    responses((status = 200, description = "The entry", body = EntryOut)))]
async fn edit(
    State(app): State<App>,
    caller: Caller,
    PathParam(path): PathParam,
    headers: HeaderMap,
    body: JsonBody<EditIn>,
) -> ApiResult<Json<EntryOut>> {
    let timeline = app.backend.timeline();
    let (at, _) = timeline.membership(caller.id()).await?;
    Ok(entry_json(
        timeline.edit(caller.id(), expected_couple(&headers)?, seq(&path)?, &body.value.body).await?,
        at.side,
    ))
}

/// Delete an entry, which leaves a tombstone. Appends a system entry about it.
///
/// An entry is deleted by its author, unless its kind says otherwise (`x-entry-kinds` of `NewEntryIn`).
#[utoipa::path(delete, path = "/v1/couple/entries/{seq}", tag = "timeline", security(("session" = [])),
    params(("seq" = i64, Path, description = "`seq` of the entry"),
        ("Couple-Id" = Option<String>, Header, description = "The couple of the entry; if the caller is in another one, 404 `not_paired`")),
    responses((status = 204, description = "Deleted")))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    PathParam(path): PathParam,
    headers: HeaderMap,
) -> ApiResult<StatusCode> {
    app.backend.timeline().delete(caller.id(), expected_couple(&headers)?, seq(&path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReactionIn {
    emoji: String,
}

/// React to an entry of either member. A second reaction replaces the first.
#[utoipa::path(put, path = "/v1/couple/entries/{seq}/reaction", tag = "timeline", security(("session" = [])),
    params(("seq" = i64, Path, description = "`seq` of the entry"),
        ("Couple-Id" = Option<String>, Header, description = "The couple of the entry; if the caller is in another one, 404 `not_paired`")), request_body = ReactionIn,
    responses((status = 200, description = "The entry", body = EntryOut)))]
async fn react(
    State(app): State<App>,
    caller: Caller,
    PathParam(path): PathParam,
    headers: HeaderMap,
    body: JsonBody<ReactionIn>,
) -> ApiResult<Json<EntryOut>> {
    let timeline = app.backend.timeline();
    let (at, _) = timeline.membership(caller.id()).await?;
    Ok(entry_json(
        timeline.react(caller.id(), expected_couple(&headers)?, seq(&path)?, Some(&body.value.emoji)).await?,
        at.side,
    ))
}

/// Remove a reaction.
#[utoipa::path(delete, path = "/v1/couple/entries/{seq}/reaction", tag = "timeline", security(("session" = [])),
    params(("seq" = i64, Path, description = "`seq` of the entry"),
        ("Couple-Id" = Option<String>, Header, description = "The couple of the entry; if the caller is in another one, 404 `not_paired`")),
    responses((status = 204, description = "Removed")))]
async fn unreact(
    State(app): State<App>,
    caller: Caller,
    PathParam(path): PathParam,
    headers: HeaderMap,
) -> ApiResult<StatusCode> {
    app.backend.timeline().react(caller.id(), expected_couple(&headers)?, seq(&path)?, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReadIn {
    seq: i64,
}

/// Advance the caller's read position. It never moves back.
#[utoipa::path(put, path = "/v1/couple/read", tag = "timeline", security(("session" = [])),
    params(("Couple-Id" = Option<String>, Header, description = "The couple that `seq` belongs to; if the caller is in another one, 404 `not_paired`")),
    request_body = ReadIn,
    responses((status = 204, description = "The read position is stored")))]
async fn mark_read(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<ReadIn>,
) -> ApiResult<StatusCode> {
    app.backend.timeline().mark_read(caller.id(), expected_couple(&headers)?, body.value.seq).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignalIn {
    /// `typing`, `hug`, `kiss`, `thumb`, or an app's own `x-…`.
    kind: String,
    /// For a `thumb`: `{"x": …, "y": …}`, the touched point, each from 0 to 1.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    body: Option<serde_json::Value>,
}

/// Send a signal to the partner's connected devices. It is not stored.
///
/// A client with a WebSocket or Socket.IO connection may send it there, as `{"type": "signal", "kind": …, "body": …}`. When both
/// members send a `thumb` at about the same point within 1.5 seconds, both get a signal `thumb_kiss` with the point between.
#[utoipa::path(post, path = "/v1/couple/signals", tag = "timeline", security(("session" = [])),
    params(("Couple-Id" = Option<String>, Header, description = "The couple that the signal is for; if the caller is in another one, 404 `not_paired`")),
    request_body = SignalIn, responses((status = 202, description = "Sent to connected devices")))]
async fn signal(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<SignalIn>,
) -> ApiResult<StatusCode> {
    let SignalIn { kind, body } = body.value;
    app.backend.timeline().signal(caller.id(), expected_couple(&headers)?, &kind, body.as_ref()).await?;
    Ok(StatusCode::ACCEPTED)
}
