//! Pictures over HTTP.

use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
};
use couple_core::{
    AccountId, CoupleId, MediaId,
    media::{Crop, Media, MediaState, Purpose, Rendition, Space, Viewer},
};
use couple_media::gallery::{UploadError, UploadMetadata, Uploading};
use data_encoding::{BASE64, BASE64_NOPAD};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::Caller,
    extract::{JsonBody, PathParam, RequestMeta, require_no_coding},
    paced_body::{PacedBody, Read},
    picture_access, time,
    timeline::{bad_query, expected_couple},
    upload_form::{Fields, Form},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(look, delete))
        .routes(routes!(set_avatar, clear_avatar))
}

/// Routes with their own limits, because their bodies are large and are streamed.
pub(super) fn uploads() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upload))
}

/// A rendition of a picture.
#[derive(Debug, Serialize, ToSchema)]
struct RenditionOut {
    name: String,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// JPEG or, if the request accepts it, WebP or PNG. Needs the `Authorization` header.
    url: String,
    /// URL that needs no `Authorization` header, for `<img>`.
    ///
    /// It works until `signed_url_expires_at`, and no longer than the session and the couple for which it was made.
    signed_url: String,
    /// Expiry of `signed_url`, 5 to 10 minutes after the response.
    ///
    /// Within 5 minutes, responses contain the same URL.
    signed_url_expires_at: String,
}

/// A picture.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MediaOut {
    id: String,
    /// `avatar` or `photo`.
    purpose: &'static str,
    /// Id of the account that uploaded it.
    owner_id: String,
    /// `processing`, `ready` or `rejected`.
    state: &'static str,
    /// Reason for the rejection, as a stable code.
    ///
    /// `truncated`, `corrupt`, `unsupported`, `arithmetic_jpeg`, `too_large`, `too_complex`, `took_too_long`, `crop_outside`,
    /// `unknown_type`, `too_many_bytes`, `lost` (its bytes) or `unavailable` (it was never decoded).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Explanation of the rejection for developers: the exceeded limit, and for `too_large` the size.
    ///
    /// Present with `too_large`, `too_many_bytes`, `too_complex` and `took_too_long`.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// ThumbHash in base64, for a blurred placeholder.
    ///
    /// Until the picture is ready, that of the upload, if any.
    placeholder: Option<String>,
    /// Width of the upright picture, in pixels. Until the picture is ready, from its headers, if known.
    width: Option<u32>,
    /// Height of the upright picture, in pixels, by the same rule.
    height: Option<u32>,
    /// Whether the uploaded file is an animation; false until the picture is ready.
    ///
    /// WebP is animated if the server keeps animations; JPEG shows the first frame.
    animated: bool,
    /// Whether a part of the picture is transparent; false until the picture is ready.
    ///
    /// The transparent part is white in JPEG, and transparent in WebP and PNG.
    alpha: bool,
    /// Renditions of the picture.
    ///
    /// The shorter side of a photo is at least 45/128 of the rendition's name, unless the photo itself is smaller: a screenshot of 1080 × 8000
    /// pixels is 720 × 5333 in the rendition `2048`.
    renditions: Vec<RenditionOut>,
}

impl MediaOut {
    fn new(app: &App, media: &Media, made: &[Rendition], viewer: &Viewer) -> Self {
        let (reason, detail) = media.state.rejection().unzip();
        let rendition = |(name, width, height, url)| {
            let (signed_url, expires_at) = picture_access::sign(app, viewer, media.id, name);
            RenditionOut {
                name: name.to_owned(),
                width,
                height,
                url,
                signed_url: app.backend.ports().links.below(&signed_url),
                signed_url_expires_at: time(expires_at),
            }
        };
        let renditions = renditions(app, media, made).map(rendition).collect();
        Self {
            id: media.id.to_string(),
            purpose: media.purpose.as_str(),
            owner_id: media.owner.to_string(),
            state: media.state.as_str(),
            reason: reason.map(str::to_owned),
            detail: detail.flatten().map(str::to_owned),
            placeholder: media.placeholder.as_ref().map(|hash| BASE64.encode(hash)),
            width: (media.width > 0).then_some(media.width),
            height: (media.height > 0).then_some(media.height),
            animated: media.animated,
            alpha: media.alpha,
            renditions,
        }
    }
}

/// Name, width, height and URL of each rendition of a picture that is ready, made or not. `made` are those that have been made.
pub(super) fn renditions<'a>(
    app: &'a App,
    media: &'a Media,
    made: &'a [Rendition],
) -> impl Iterator<Item = (&'a str, u32, u32, String)> {
    let (gallery, links) = (app.backend.gallery(), &app.backend.ports().links);
    let sizes = gallery.sizes(media.purpose).iter().filter(|_| media.state == MediaState::Ready);
    sizes.filter_map(move |size| {
        let there = made.iter().find(|one| one.name == size.name).map(|one| (one.width, one.height));
        let can_be = media.source.as_ref().map(|_| gallery.size_of(media, size));
        let (width, height) = there.or(can_be)?;
        let url = links.below(&format!("/v1/media/{}/{}", media.id, size.name));
        Some((size.name.as_ref(), width, height, url))
    })
}

/// Avatar of an account, for a viewer.
pub(super) async fn avatar(app: &App, of: AccountId, viewer: &Viewer) -> ApiResult<Option<MediaOut>> {
    let store = &app.backend.ports().store;
    let Some(media) = store.avatar_of(of).await? else { return Ok(None) };
    let made = store.renditions(media.space, media.id).await?;
    Ok(Some(MediaOut::new(app, &media, &made, viewer)))
}

/// Small avatar of an inviter as a `data:` URL, which gives no access to the picture itself.
pub(super) async fn avatar_preview(app: &App, of: AccountId) -> ApiResult<Option<String>> {
    let (store, gallery) = (&app.backend.ports().store, app.backend.gallery());
    let Some(media) = store.avatar_of(of).await?.filter(|media| media.state == MediaState::Ready) else {
        return Ok(None);
    };
    let made = store.renditions(media.space, media.id).await?;
    let large_enough = made.iter().filter(|one| one.width >= 100).min_by_key(|one| one.width);
    let Some(rendition) = large_enough.or_else(|| made.iter().max_by_key(|one| one.width)) else {
        return Ok(None);
    };
    // An invite can be shown without a picture.
    let bytes = gallery.blobs().read(&media.path(&rendition.blob), 64 << 10).await.unwrap_or_else(|error| {
        tracing::warn!(%error, media = %media.id, "cannot read the avatar of an inviter: the invite is shown without it");
        None
    });
    Ok(bytes.map(|bytes| format!("data:{};base64,{}", rendition.format.media_type(), BASE64.encode(&bytes))))
}

impl From<UploadError> for Problem {
    fn from(not: UploadError) -> Self {
        match not {
            UploadError::Refused(refusal) => refusal.into(),
            UploadError::UnknownType { found, accepted } => {
                let accepted = accepted.join(", ");
                let detail = format!("found {found}; accepted are {accepted}");
                Self::new("unknown_type").detail(detail).accept(accepted)
            }
            UploadError::TooLarge { .. } => Self::new("picture_too_large").detail(not.to_string()),
            UploadError::TooManyBytes { limit } => {
                Self::new("body_too_large").detail(format!("at most {limit} bytes are accepted"))
            }
            UploadError::Busy { expected_wait } => {
                Self::new("uploads_busy").retry_within_reason(expected_wait)
            }
            UploadError::SignedOut => Self::new("unauthenticated"),
            UploadError::Failed(error) => error.into(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// `avatar` or `photo`. Required here, or as a field of the form before its file.
    purpose: Option<String>,
    /// Visible area of an avatar: `x,y,width,height` in pixels of the upright picture.
    crop: Option<String>,
    /// ThumbHash of the picture, computed by the client, in base64, up to 40 bytes.
    ///
    /// The partner sees it immediately. The server's own replaces it once the picture is ready.
    placeholder: Option<String>,
}

/// Metadata of an upload: purpose, expected couple, visible area, placeholder.
pub(super) fn upload_metadata(
    purpose: &str,
    couple: Option<CoupleId>,
    crop: Option<&str>,
    placeholder: Option<&str>,
) -> ApiResult<UploadMetadata> {
    let invalid = |field| Problem::new("invalid_field").field(field, "invalid");
    let purpose = match purpose {
        "avatar" => Purpose::Avatar,
        "photo" => Purpose::Photo,
        _ => return Err(invalid("purpose")),
    };
    let edges = |crop: &str| {
        let edges: Vec<u32> = crop.split(',').map(|edge| edge.parse().ok()).collect::<Option<_>>()?;
        match edges[..] {
            [x, y, width, height] if width > 0 && height > 0 && purpose == Purpose::Avatar => {
                Some(Crop { x, y, width, height })
            }
            _ => None,
        }
    };
    let crop = crop.map(|crop| edges(crop).ok_or_else(|| invalid("crop"))).transpose()?;
    let placeholder = placeholder.map(|text| hash(text).ok_or_else(|| invalid("placeholder"))).transpose()?;
    Ok(UploadMetadata { purpose, couple, crop, placeholder })
}

/// Decodes base64 in either alphabet (RFC 4648), padded or not.
///
/// An unescaped `+` in a query is decoded as a space, so spaces are accepted for it.
fn hash(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').replace('-', "+").replace('_', "/").replace(' ', "+");
    let hash = BASE64_NOPAD.decode(text.as_bytes()).ok()?;
    is_whole(&hash).then_some(hash)
}

/// Whether a ThumbHash has the length that its header declares (evanw.github.io/thumbhash).
///
/// Decoders of clients do not check it.
fn is_whole(hash: &[u8]) -> bool {
    let &[_, _, low, middle, high, ..] = hash else { return false };
    let (alpha, landscape, side) = (low & 0x80 != 0, high & 0x80 != 0, usize::from(middle & 7));
    let long = if alpha { 5 } else { 7 };
    let (across, down) = if landscape { (long, side.max(3)) } else { (side.max(3), long) };
    // Frequencies of a channel in a triangle, without the first one.
    let terms = |across: usize, down: usize| {
        (0..down).map(|y| (across * (down - y)).div_ceil(down) - usize::from(y == 0)).sum::<usize>()
    };
    let nibbles = terms(across, down) + 2 * terms(3, 3) + if alpha { terms(5, 5) } else { 0 };
    let header = if alpha { 6 } else { 5 };
    side > 0 && hash.len() <= Media::MAX_PLACEHOLDER_BYTES && hash.len() == header + nibbles.div_ceil(2)
}

/// The picture as `multipart/form-data`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only documents the form")]
struct UploadForm {
    /// `avatar` or `photo`, unless the query contains it. Fields must precede the file.
    purpose: Option<String>,
    /// Visible area of an avatar, in the format of the query parameter `crop`.
    crop: Option<String>,
    /// ThumbHash, in the format of the query parameter `placeholder`.
    placeholder: Option<String>,
    /// The picture: the only part with a file name; its field name does not matter.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Bytes of a picture: the body itself, or a part of a form.
enum UploadBody {
    Raw(PacedBody),
    Form(Form),
}

/// Upload a picture: JPEG, PNG, WebP, GIF, or HEIC if the server supports it.
///
/// The type is recognised by the content. The body is the picture, or a form with one file. The response is sent before the picture is
/// decoded; uploading the same bytes again returns the existing picture. Concurrent uploads of an account beyond its limit wait, and get
/// 429 `too_many_uploads` if they wait too long or too many wait; 503 `uploads_busy` if other accounts hold all permits. 408
/// `body_timed_out` if no bytes arrive for 60 s or too few in 120 s. `GET /v1/capabilities` has every limit.
#[utoipa::path(post, path = "/v1/media", tag = "media", security(("session" = [])), params(UploadQuery,
        ("Couple-Id" = Option<String>, Header, description = "The couple that a photo is for; if the caller is in another one, 404 `not_paired`"),
        ("Idempotency-Key" = Option<String>, Header, description = "Optional: the same bytes have the same effect")),
    request_body(description = "The bytes", content(("application/octet-stream"), (UploadForm = "multipart/form-data"))),
    responses((status = 202, description = "Accepted; watch its state, or `media_ready` in the timeline", body = MediaOut),
        (status = 200, description = "The picture exists already", body = MediaOut)))]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    meta: RequestMeta,
    headers: HeaderMap,
    query: Result<Query<UploadQuery>, QueryRejection>,
    body: HttpBody,
) -> ApiResult<(StatusCode, Json<MediaOut>)> {
    let Query(query) = query.map_err(bad_query)?;
    require_no_coding(&headers)?;
    let couple = expected_couple(&headers)?;
    let _permit = app.uploads.take(caller.id()).await?;
    let body = PacedBody::new(body, &app.options);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let (mut body, fields) = if kind.trim_start().to_ascii_lowercase().starts_with("multipart/") {
        let mut form = Form::new(kind, body).ok_or_else(|| {
            let problem = Problem::new("unsupported_media_type").accept("multipart/form-data, image/*");
            problem.detail("send the bytes of the picture, or multipart/form-data with a boundary")
        })?;
        let fields = form.picture().await?;
        (UploadBody::Form(form), fields)
    } else {
        (UploadBody::Raw(body), Fields::default())
    };
    let purpose = query.purpose.or(fields.purpose).ok_or_else(|| {
        let problem = Problem::new("invalid_field").field("purpose", "required");
        problem.detail("send it in the query, or in a form before the file")
    })?;
    let (crop, placeholder) = (query.crop.or(fields.crop), query.placeholder.or(fields.placeholder));
    let about = upload_metadata(&purpose, couple, crop.as_deref(), placeholder.as_deref())?;
    let shown_as = format!("{:?}{:?}", about.purpose, about.crop);
    let length: Option<u64> =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    // The length of a form is not the length of the picture.
    let length = length.filter(|_| matches!(body, UploadBody::Raw(_)));
    let uploading = app.backend.gallery().upload(caller.id(), about, length).await;
    let mut uploading = uploading.map_err(|error| match (error, length) {
        (UploadError::TooManyBytes { limit }, Some(length)) => Problem::new("body_too_large")
            .detail(format!("the picture has {length} bytes; at most {limit} are accepted")),
        (error, _) => error.into(),
    })?;
    receive(&mut uploading, &mut body).await?;
    let (by, signed_in) = (caller.id(), caller.sign_in(&app).still_valid());
    let context = move |digest: &couple_core::Digest| {
        meta.context_with(by, &[digest.as_bytes(), shown_as.as_bytes()].concat())
    };
    let stored = uploading.finish(context, signed_in).await?;
    let made = if stored.created {
        Vec::new()
    } else {
        app.backend.ports().store.renditions(stored.media.space, stored.media.id).await?
    };
    let status = if stored.created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let viewer = picture_access::viewer_of(&app, caller.id(), caller.session()).await?;
    Ok((status, Json(MediaOut::new(&app, &stored.media, &made, &viewer))))
}

/// Stores a picture as it arrives. While no bytes arrive, the upload frees its memory.
async fn receive(uploading: &mut Uploading, body: &mut UploadBody) -> ApiResult<()> {
    loop {
        let until = uploading.release_at();
        let read = match body {
            UploadBody::Raw(body) => body.read(until).await?,
            UploadBody::Form(form) => form.read(until).await?,
        };
        match read {
            Read::Bytes(bytes) => uploading.write(bytes).await?,
            Read::Nothing => uploading.release().await?,
            Read::End => break,
        }
    }
    match body {
        UploadBody::Raw(_) => Ok(()),
        UploadBody::Form(form) => form.finish().await,
    }
}

/// Pictures of a space, oldest first.
#[derive(Debug, Serialize, ToSchema)]
struct MediaPage {
    media: Vec<MediaOut>,
    /// `after` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Quota for pictures of this purpose.
    quota: QuotaOut,
}

/// Quota for pictures, in bytes, renditions included.
#[derive(Debug, Serialize, ToSchema)]
struct QuotaOut {
    limit: i64,
    used: i64,
    remaining: i64,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MediaQuery {
    /// `photo` (default): the couple's photos, by both members. `avatar`: the account's avatars.
    purpose: Option<String>,
    /// Id of the last picture of the previous page.
    after: Option<String>,
    /// Maximum number of pictures per page, 1 to 100. Default: 50.
    limit: Option<u32>,
}

/// List pictures (the couple's photos, or the account's avatars) and their quota.
#[utoipa::path(get, path = "/v1/media", tag = "media", security(("session" = [])), params(MediaQuery),
    responses((status = 200, description = "In the order of upload, oldest first", body = MediaPage)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<MediaQuery>, QueryRejection>,
) -> ApiResult<Json<MediaPage>> {
    let Query(MediaQuery { purpose, after, limit }) = query.map_err(bad_query)?;
    let invalid = |field| Problem::new("invalid_field").field(field, "invalid");
    let store = &app.backend.ports().store;
    let couple = store.couple_of(caller.id()).await?;
    let space = match purpose.as_deref() {
        None | Some("photo") => Space::Couple(couple.as_ref().ok_or_else(|| Problem::new("not_paired"))?.id),
        Some("avatar") => Space::Account(caller.id()),
        Some(_) => return Err(invalid("purpose")),
    };
    let after = after.map(|after| after.parse().map_err(|_| invalid("after"))).transpose()?;
    let limit = limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(invalid("limit"));
    }
    let viewer = picture_access::viewer(caller.id(), caller.session(), couple.as_ref());
    let page = store.media_in(space, after, limit).await?;
    let next = page.last().filter(|_| page.len() == limit as usize).map(|media| media.id.to_string());
    let mut media = Vec::with_capacity(page.len());
    for one in page {
        // The renditions of a photo with a stored copy follow from its size, so their rows are not read.
        let known = one.source.is_some() && one.purpose == Purpose::Photo || one.state != MediaState::Ready;
        let made = if known { Vec::new() } else { store.renditions(one.space, one.id).await? };
        media.push(MediaOut::new(&app, &one, &made, &viewer));
    }
    let (limit, used) =
        (app.backend.gallery().pictures().policy().quota(space), store.media_space(space).await?.bytes);
    Ok(Json(MediaPage { media, next, quota: QuotaOut { limit, used, remaining: (limit - used).max(0) } }))
}

pub(super) fn media_id(path: &str) -> ApiResult<MediaId> {
    path.parse().map_err(|_| Problem::new("media_not_found"))
}

/// Get a picture of the account or, while the couple is active, of the partner.
#[utoipa::path(get, path = "/v1/media/{id}", tag = "media", security(("session" = [])),
    params(("id" = String, Path, description = "Id of the picture")),
    responses((status = 200, description = "State and renditions of the picture", body = MediaOut)))]
async fn look(State(app): State<App>, caller: Caller, PathParam(id): PathParam) -> ApiResult<Json<MediaOut>> {
    let (media, made) = app.backend.gallery().pictures().view(caller.id(), media_id(&id)?).await?;
    let viewer = picture_access::viewer_of(&app, caller.id(), caller.session()).await?;
    Ok(Json(MediaOut::new(&app, &media, &made, &viewer)))
}

/// Delete a picture of the account. Entries that name it are kept.
#[utoipa::path(delete, path = "/v1/media/{id}", tag = "media", security(("session" = [])),
    params(("id" = String, Path, description = "Id of the picture")),
    responses((status = 204, description = "Deleted; its bytes are removed soon after")))]
async fn delete(State(app): State<App>, caller: Caller, PathParam(id): PathParam) -> ApiResult<StatusCode> {
    app.backend.gallery().pictures().delete(caller.id(), media_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AvatarIn {
    /// Id of an avatar that the account uploaded, ready or in processing.
    ///
    /// A rejected one gets 409 `media_rejected`, a photo 409 `media_wrong_purpose`.
    media_id: String,
}

/// Set the account's avatar. The previous one is deleted.
#[utoipa::path(put, path = "/v1/me/avatar", tag = "media", security(("session" = [])), request_body = AvatarIn,
    responses((status = 204, description = "Set; it is shown once it is ready")))]
async fn set_avatar(
    State(app): State<App>,
    caller: Caller,
    body: JsonBody<AvatarIn>,
) -> ApiResult<StatusCode> {
    let id = media_id(&body.value.media_id)?;
    app.backend.gallery().pictures().set_avatar(caller.id(), Some(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove the account's avatar and delete the picture.
#[utoipa::path(delete, path = "/v1/me/avatar", tag = "media", security(("session" = [])),
    responses((status = 204, description = "The account has no avatar")))]
async fn clear_avatar(State(app): State<App>, caller: Caller) -> ApiResult<StatusCode> {
    app.backend.gallery().pictures().set_avatar(caller.id(), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of the format's page: complete, truncated, too long, and with a side of 0.
    #[test]
    fn placeholder_must_have_its_declared_length() {
        for good in ["1QcSHQRnh493V4dIh4eXh1h4kJUI", "3OcRJYB4d3h/iIeHeEh3eIhw+j3A"] {
            let whole = hash(good).unwrap();
            for length in 0..whole.len() {
                assert!(!is_whole(&whole[..length]), "{length} of {good}");
            }
            assert!(!is_whole(&[&whole[..], &[0]].concat()));
            let mut flat = whole;
            flat[3] &= !7;
            assert!(!is_whole(&flat));
        }
    }
}
