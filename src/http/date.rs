//! Dates of the couple over HTTP.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
};
use couple_core::{
    DateId,
    date::{Birthday, CoupleDate, DatePatch, DateView, NewDate},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::Caller,
    extract::{JsonBody, PathParam, RequestMeta},
    nullable, time,
    timeline::{bad_query, expected_couple},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(dates, add_date)).routes(routes!(change_date, remove_date))
}

/// A date to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DateIn {
    /// `anniversary`, `first_date`, `birthday` or `other`.
    kind: String,
    /// Title, at most 200 characters. Required for the kind `other`.
    title: Option<String>,
    /// Day, `YYYY-MM-DD`, or `--MM-DD` without a year.
    date: String,
    /// Whether the date repeats every year. One that does not has a year.
    #[serde(default = "yes")]
    yearly: bool,
}

const fn yes() -> bool {
    true
}

/// Fields of a date to change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DatePatchIn {
    /// Version that the client has read. If the date has another one, 409 `date_changed`.
    version: Option<i64>,
    /// `anniversary`, `first_date`, `birthday` or `other`.
    kind: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    title: Option<Option<String>>,
    /// Day, `YYYY-MM-DD`, or `--MM-DD` without a year.
    date: Option<String>,
    yearly: Option<bool>,
}

/// A date of the couple.
#[derive(Debug, Serialize, ToSchema)]
struct DateOut {
    id: String,
    /// `anniversary`, `first_date`, `birthday` or `other`.
    kind: &'static str,
    title: Option<String>,
    /// Day, `YYYY-MM-DD`, or `--MM-DD` without a year.
    date: String,
    /// Whether the date repeats every year.
    yearly: bool,
    /// Number of changes, counted from 1.
    version: i64,
    created_at: String,
    /// First day that is not before today in the caller's time zone, `YYYY-MM-DD`; null if there is none.
    ///
    /// 29 February is 28 February in a year without one.
    next_on: Option<String>,
}

impl From<DateView> for DateOut {
    fn from(DateView { date, next_on }: DateView) -> Self {
        Self {
            id: date.id.to_string(),
            kind: date.kind.as_str(),
            title: date.title.map(|title| title.to_string()),
            date: date.day.to_string(),
            yearly: date.is_yearly,
            version: date.version,
            created_at: time(date.created_at),
            next_on: next_on.map(|day| day.to_string()),
        }
    }
}

/// The birthday of a member, as the member's account has it.
#[derive(Debug, Serialize, ToSchema)]
struct BirthdayOut {
    /// Account of the member.
    account_id: String,
    /// Day without the year, `--MM-DD`.
    date: String,
    /// First day that is not before today in the caller's time zone, `YYYY-MM-DD`.
    next_on: Option<String>,
}

impl From<Birthday> for BirthdayOut {
    fn from(birthday: Birthday) -> Self {
        Self {
            account_id: birthday.member.to_string(),
            date: birthday.day.to_string(),
            next_on: birthday.next_on.map(|day| day.to_string()),
        }
    }
}

/// Dates of the couple.
#[derive(Debug, Serialize, ToSchema)]
struct DatesOut {
    /// In the order of their creation, the earliest first.
    dates: Vec<DateOut>,
    /// Birthdays of the members whose profile has one.
    birthdays: Vec<BirthdayOut>,
}

/// Date in the export of an account.
pub(super) fn exported(date: &CoupleDate) -> Value {
    json!({
        "id": date.id.to_string(),
        "couple_id": date.couple.to_string(),
        "kind": date.kind.as_str(),
        "title": date.title.as_ref().map(ToString::to_string),
        "date": date.day.to_string(),
        "yearly": date.is_yearly,
        "created_at": time(date.created_at),
    })
}

fn date_id(id: &str) -> ApiResult<DateId> {
    id.parse().map_err(|_| Problem::new("date_not_found"))
}

/// List the couple's dates and the birthdays of its members.
#[utoipa::path(get, path = "/v1/couple/dates", tag = "pairing", security(("session" = [])),
    responses((status = 200, description = "The dates", body = DatesOut)))]
async fn dates(State(app): State<App>, caller: Caller) -> ApiResult<Json<DatesOut>> {
    let found = app.backend.dates().list(caller.id()).await?;
    Ok(Json(DatesOut {
        dates: found.dates.into_iter().map(DateOut::from).collect(),
        birthdays: found.birthdays.into_iter().map(BirthdayOut::from).collect(),
    }))
}

/// Create a date of the couple. Both members see and change it.
///
/// At most {{dates}} dates a couple.
#[utoipa::path(post, path = "/v1/couple/dates", tag = "pairing", security(("session" = [])), request_body = DateIn,
    params(
        ("Couple-Id" = Option<String>, Header, description = "The couple of the date; if the caller is in another one, 404 `not_paired`"),
        ("Idempotency-Key" = Option<String>, Header, description = "A repeat within 24 hours adds no second date")),
    responses((status = 201, description = "Added", body = DateOut)))]
async fn add_date(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    headers: HeaderMap,
    body: JsonBody<DateIn>,
) -> ApiResult<(StatusCode, Json<DateOut>)> {
    let expected = expected_couple(&headers)?;
    let context = meta.context(caller.id(), &body);
    let DateIn { kind, title, date, yearly } = body.value;
    let new = NewDate { kind, title, day: date, is_yearly: yearly };
    let added = app.backend.dates().add(&context, caller.id(), expected, &new).await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

/// Change a date of the couple. Absent fields stay, a title of null removes the title.
#[utoipa::path(patch, path = "/v1/couple/dates/{id}", tag = "pairing", security(("session" = [])), request_body = DatePatchIn,
    params(("id" = String, Path, description = "Id of the date"),
        ("Couple-Id" = Option<String>, Header, description = "The couple of the date; if the caller is in another one, 404 `not_paired`")),
    responses((status = 200, description = "The date", body = DateOut)))]
async fn change_date(
    State(app): State<App>,
    caller: Caller,
    PathParam(id): PathParam,
    headers: HeaderMap,
    body: JsonBody<DatePatchIn>,
) -> ApiResult<Json<DateOut>> {
    let (expected, id) = (expected_couple(&headers)?, date_id(&id)?);
    let DatePatchIn { version, kind, title, date, yearly } = body.value;
    let patch = DatePatch { version, kind, title, day: date, is_yearly: yearly };
    Ok(Json(app.backend.dates().change(caller.id(), expected, id, &patch).await?.into()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// Version that the client has read. If the date has another one, 409 `date_changed`.
    version: Option<i64>,
}

/// Remove a date of the couple.
#[utoipa::path(delete, path = "/v1/couple/dates/{id}", tag = "pairing", security(("session" = [])),
    params(Removal, ("id" = String, Path, description = "Id of the date"),
        ("Couple-Id" = Option<String>, Header, description = "The couple of the date; if the caller is in another one, 404 `not_paired`")),
    responses((status = 204, description = "Removed")))]
async fn remove_date(
    State(app): State<App>,
    caller: Caller,
    PathParam(id): PathParam,
    headers: HeaderMap,
    query: Result<Query<Removal>, QueryRejection>,
) -> ApiResult<StatusCode> {
    let (expected, id) = (expected_couple(&headers)?, date_id(&id)?);
    let Query(Removal { version }) = query.map_err(bad_query)?;
    app.backend.dates().remove(caller.id(), expected, id, version).await?;
    Ok(StatusCode::NO_CONTENT)
}
