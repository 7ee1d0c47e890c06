//! Glance over HTTP: the small answer of widgets and watch faces.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use couple_core::{
    Digest, Principal, digest,
    glance::{Glance, GlanceReader, ShownPicture, rules},
    timeline::Entry,
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    authentication::{Authentication, principal_of},
    conditional::matches_none,
    extract::bearer,
    media, time,
    timeline::By,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(glance))
}

/// Extractor of a member who looks at a glance, with a session or with a widget token.
pub(super) struct GlanceCaller(pub(super) GlanceReader);

impl FromRequestParts<App> for GlanceCaller {
    type Rejection = Problem;

    /// Reads the store once. A host's directory and authenticator are asked beside it.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let glances = app.backend.glances();
        if let Authentication::Accounts(accounts) = &app.authentication
            && parts.extensions.get::<Principal>().is_none()
        {
            let (_, account, couple) = accounts.authenticate_glance(&bearer(&parts.headers)?).await?;
            return Ok(Self(glances.reader(account.id, couple, account.time_zone).await?));
        }
        let person = Box::pin(principal_of(app, parts, None)).await?.person();
        let couple = app.backend.ports().store.couple_of(person).await?;
        let contact = app.backend.directory().contact(person).await?;
        let time_zone = contact.and_then(|contact| contact.time_zone);
        Ok(Self(glances.reader(person, couple, time_zone).await?))
    }
}

/// Caching of a glance: a cache asks the server each time, with the tag.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("private, no-cache");

/// A rendition of a picture.
#[derive(Debug, Serialize, ToSchema)]
struct GlanceRendition {
    name: String,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// URL of the bytes, which never change. Needs the `Authorization` header, as this operation does.
    url: String,
}

/// A picture that is ready to be shown.
#[derive(Debug, Serialize, ToSchema)]
struct GlancePicture {
    id: String,
    /// ThumbHash in base64, for a blurred placeholder.
    placeholder: Option<String>,
    renditions: Vec<GlanceRendition>,
}

impl GlancePicture {
    fn new(app: &App, shown: &ShownPicture) -> Self {
        let ShownPicture { media, renditions } = shown;
        let rendition = |(name, width, height, url): (&str, _, _, _)| GlanceRendition {
            name: name.to_owned(),
            width,
            height,
            url,
        };
        Self {
            id: media.id.to_string(),
            placeholder: media.placeholder.as_ref().map(|hash| BASE64.encode(hash)),
            renditions: media::renditions(app, media, renditions).map(rendition).collect(),
        }
    }
}

/// The partner.
#[derive(Debug, Serialize, ToSchema)]
struct GlancePartner {
    /// None if the partner's account was deleted.
    display_name: Option<String>,
    /// None until the avatar is ready.
    avatar: Option<GlancePicture>,
}

/// The newest photo.
#[derive(Debug, Serialize, ToSchema)]
struct GlancePhotoOut {
    /// `seq` of the entry.
    seq: i64,
    author: By,
    created_at: String,
    picture: GlancePicture,
}

/// The newest mood of the partner.
#[derive(Debug, Serialize, ToSchema)]
struct GlanceMood {
    /// `seq` of the entry.
    seq: i64,
    /// Body of the entry, as the partner's app wrote it.
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
    created_at: String,
}

impl GlanceMood {
    fn new(entry: Entry) -> Self {
        Self {
            seq: entry.seq,
            body: entry.body.and_then(|body| RawValue::from_string(body.into_text()).ok()),
            created_at: time(entry.created_at),
        }
    }
}

/// What a widget or a watch face shows.
#[derive(Debug, Serialize, ToSchema)]
struct GlanceOut {
    partner: GlancePartner,
    /// Newest photo of the couple that is ready, by either member.
    photo: Option<GlancePhotoOut>,
    /// Newest entry of the kind `mood` by the partner.
    mood: Option<GlanceMood>,
    /// Days since the anniversary or, without one or before it, since the pairing.
    ///
    /// Days of the calendar in the time zone of the caller's profile; the first day is 0.
    #[schema(minimum = 0)]
    days_together: i64,
    /// Number of unread entries, as in `GET /v1/couple`.
    #[schema(minimum = 0, maximum = 1000)]
    unread: u32,
}

impl GlanceOut {
    fn new(app: &App, reader: &GlanceReader, glance: Glance) -> Self {
        let picture = |shown: &ShownPicture| GlancePicture::new(app, shown);
        Self {
            partner: GlancePartner {
                display_name: glance.partner_name.map(|name| name.to_string()),
                avatar: glance.avatar.as_ref().map(picture),
            },
            photo: glance.photo.map(|photo| GlancePhotoOut {
                seq: photo.entry.seq,
                author: By::new(photo.entry.author, Some(reader.side)),
                created_at: time(photo.entry.created_at),
                picture: picture(&photo.picture),
            }),
            mood: glance.mood.map(GlanceMood::new),
            days_together: glance.days_together,
            unread: glance.unread,
        }
    }
}

/// Entity tag of a version. Another version of the server, or other kinds or renditions in its options, make another tag.
fn tag(app: &App, version: Digest) -> String {
    let (gallery, kinds) = (app.backend.gallery(), app.backend.timeline().kinds());
    let (avatars, photos) = (couple_core::media::Purpose::Avatar, couple_core::media::Purpose::Photo);
    let sizes = gallery.sizes(avatars).iter().chain(gallery.sizes(photos)).map(|size| size.name.as_bytes());
    let kinds = kinds.not_unread().iter().map(String::as_bytes);
    let parts = [env!("CARGO_PKG_VERSION").as_bytes(), version.as_bytes()];
    let all: Vec<&[u8]> = parts.into_iter().chain(kinds).chain(sizes).collect();
    format!("\"{}\"", BASE64URL_NOPAD.encode(&digest(&all).as_bytes()[..16]))
}

/// Get what a widget or a watch face shows: partner, newest photo, mood, days together, unread entries.
///
/// The `ETag` changes with everything that the response shows, also at midnight in the time zone of the caller's profile. A request whose
/// `If-None-Match` has it gets 304. A widget token (`PUT /v1/me/widget-token`) is enough.
#[utoipa::path(get, path = "/v1/glance", tag = "glance", security(("session" = []), ("widget" = [])),
    params(("If-None-Match" = Option<String>, Header, description = "`ETag` of the cached response, a list of tags, or `*`")),
    responses((status = 200, description = "The glance, with an `ETag`", body = GlanceOut),
        (status = 304, description = "The cached response is current")))]
async fn glance(
    State(app): State<App>,
    GlanceCaller(reader): GlanceCaller,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let tag = tag(&app, rules::version(&reader, app.backend.ports().now()));
    let tagged = [
        (header::ETAG, HeaderValue::try_from(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
        (header::CACHE_CONTROL, CACHE_CONTROL),
        (header::VARY, HeaderValue::from_static("authorization")),
    ];
    if matches_none(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, tagged).into_response());
    }
    let glance = app.backend.glances().read(&reader).await?;
    Ok((tagged, Json(GlanceOut::new(&app, &reader, glance))).into_response())
}
