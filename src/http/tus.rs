//! Uploads that resume, by tus 1.0 (<https://tus.io/protocols/resumable-upload>): core, creation, termination, expiration.

use axum::{
    body::Body as HttpBody,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware,
    response::{IntoResponse as _, Response},
};
use couple_media::gallery::{About, Progress, Resumable};
use data_encoding::BASE64;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, App, Problem,
    extract::{Meta, Segment, Signed, require_no_coding},
    media::{read_about, still_signed_in},
    paced_body::Pace,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    let routes = OpenApiRouter::new().routes(routes!(options, create)).routes(routes!(offset, append, end));
    routes.layer(middleware::map_response(versioned))
}

/// Every answer says what is spoken.
async fn versioned(mut answer: Response) -> Response {
    for name in ["tus-resumable", "tus-version"] {
        answer.headers_mut().insert(name, VERSION.1);
    }
    answer
}

const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("tus-resumable"), HeaderValue::from_static("1.0.0"));
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

/// A request that speaks this version.
struct Tus;

impl FromRequestParts<App> for Tus {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        match parts.headers.get(VERSION.0) {
            Some(version) if version == VERSION.1 => Ok(Self),
            _ => Err(Problem::new("unsupported_tus_version")),
        }
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Answer<u64> {
    let number = headers.get(name).and_then(|text| text.to_str().ok()?.parse().ok());
    number.ok_or_else(|| Problem::new("malformed_request").detail(format!("{name} is missing, or no number")))
}

/// What a client says of its file: `purpose`, of an avatar `crop`, and `placeholder`, as the query of `POST /v1/media` has them.
fn metadata(headers: &HeaderMap) -> Answer<About> {
    let text = headers.get("upload-metadata").and_then(|text| text.to_str().ok()).unwrap_or("");
    let value = |wanted: &str| {
        let pair =
            text.split(',').map(str::trim).find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix(' '))?;
        String::from_utf8(BASE64.decode(pair.trim().as_bytes()).ok()?).ok()
    };
    let purpose = value("purpose").unwrap_or_default();
    read_about(&purpose, value("crop").as_deref(), value("placeholder").as_deref())
}

fn told(upload: &Resumable, status: StatusCode, progress: Progress) -> Response {
    let mut answer = status.into_response();
    let headers = answer.headers_mut();
    headers.insert(OFFSET, progress.offset.into());
    headers.insert(LENGTH, upload.length().into());
    let seconds = upload.expires_at().micros() / 1_000_000;
    if let Some(expires) = http_date(seconds) {
        headers.insert(EXPIRES, expires);
    }
    if let Some(id) = progress.done
        && let Ok(place) = HeaderValue::try_from(format!("/v1/media/{id}"))
    {
        headers.insert(header::CONTENT_LOCATION, place);
    }
    answer
}

/// As HTTP writes times (RFC 9110, 5.6.7).
fn http_date(seconds: i64) -> Option<HeaderValue> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).ok()?);
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

fn find(app: &App, signed: &Signed, name: &str) -> Answer<Resumable> {
    let upload = app.backend.gallery().resume(signed.id(), name);
    let upload = upload.ok_or_else(|| Problem::new("upload_not_found"))?;
    if upload.is_expired() { Err(Problem::new("upload_expired")) } else { Ok(upload) }
}

async fn at(upload: &Resumable) -> Answer<Progress> {
    upload.progress().await?.ok_or_else(|| Problem::new("upload_not_found"))
}

/// Becomes a picture, if all came.
async fn completed(
    app: &App,
    upload: &Resumable,
    meta: Meta,
    signed: &Signed,
    progress: Progress,
) -> Answer<Progress> {
    if progress.done.is_some() || progress.offset < upload.length() {
        return Ok(progress);
    }
    let by = signed.id();
    let call = move |digest: &couple_core::Digest| meta.call_with(by, digest.as_bytes());
    let stored = upload.complete(call, still_signed_in(app, signed)).await?;
    Ok(Progress { done: Some(stored.media.id), ..progress })
}

/// What of tus is spoken.
#[utoipa::path(options, path = "/v1/uploads", tag = "media",
    responses((status = 204, description = "`Tus-Version`, `Tus-Extension`, `Tus-Max-Size`")))]
async fn options(State(app): State<App>) -> Response {
    let most = app.backend.gallery().options().limits.bytes.to_string();
    let headers = [("tus-extension", "creation,termination,expiration"), ("tus-max-size", most.as_str())];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Begins an upload that may come in several requests, by tus 1.0.
#[utoipa::path(post, path = "/v1/uploads", tag = "media", security(("session" = [])),
    params(("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Length" = u64, Header, description = "Bytes of the picture"),
        ("Upload-Metadata" = String, Header, description = "`purpose`, of an avatar `crop`, and `placeholder`, as `POST /v1/media` has them, each in base64")),
    responses((status = 201, description = "`Location` says where the bytes go")))]
async fn create(State(app): State<App>, signed: Signed, _: Tus, headers: HeaderMap) -> Answer<Response> {
    let about = metadata(&headers)?;
    let length = number(&headers, &LENGTH)?;
    let upload = app.backend.gallery().begin(signed.id(), about, length).await?;
    let mut answer = told(&upload, StatusCode::CREATED, Progress { offset: 0, done: None });
    // From where it was asked for, wherever this is mounted.
    let place = HeaderValue::try_from(format!("uploads/{}", upload.name()));
    let place = place.map_err(|_| Problem::new("internal_error"))?;
    answer.headers_mut().insert(header::LOCATION, place);
    Ok(answer)
}

/// How far an upload is.
#[utoipa::path(head, path = "/v1/uploads/{upload}", tag = "media", security(("session" = [])),
    params(("upload" = String, Path, description = "Its name"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses((status = 200, description = "`Upload-Offset`; once it is whole, `Content-Location` is the picture's")))]
async fn offset(
    State(app): State<App>,
    signed: Signed,
    _: Tus,
    meta: Meta,
    Segment(name): Segment,
) -> Answer<Response> {
    let upload = find(&app, &signed, &name)?;
    // A process may have died between the last byte and the picture.
    let progress = completed(&app, &upload, meta, &signed, at(&upload).await?).await?;
    Ok(told(&upload, StatusCode::OK, progress))
}

/// Goes on with an upload. What came before a connection broke is kept.
#[utoipa::path(patch, path = "/v1/uploads/{upload}", tag = "media", security(("session" = [])),
    params(("upload" = String, Path, description = "Its name"), ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Offset" = u64, Header, description = "Where these bytes begin: where the upload is")),
    request_body(content_type = "application/offset+octet-stream", description = "Bytes from there on"),
    responses((status = 204, description = "`Upload-Offset`; once it is whole, `Content-Location` is the picture's")))]
async fn append(
    State(app): State<App>,
    signed: Signed,
    _: Tus,
    meta: Meta,
    Segment(name): Segment,
    headers: HeaderMap,
    mut body: HttpBody,
) -> Answer<Response> {
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/offset+octet-stream") {
        return Err(Problem::new("unsupported_media_type").detail("send application/offset+octet-stream"));
    }
    require_no_coding(&headers)?;
    let from = number(&headers, &OFFSET)?;
    let upload = find(&app, &signed, &name)?;
    let _permit = app.uploads.take(signed.id()).await?;
    let progress = at(&upload).await?;
    if progress.offset != from {
        return Err(Problem::new("upload_conflict").detail(format!("it is at {}", progress.offset)));
    }
    let mut left = upload.length() - from;
    let (send, written) = upload.write(from);
    let mut pace = Pace::new(&app.options, Instant::now());
    let ended = loop {
        match timeout_at(pace.late(Instant::now()), body.frame()).await {
            Ok(None) => break Ok(()),
            Ok(Some(Ok(frame))) => {
                let Ok(bytes) = frame.into_data() else { continue };
                match left.checked_sub(bytes.len() as u64) {
                    Some(less) => left = less,
                    None => break Err(Problem::new("body_too_large").detail("more than its length")),
                }
                let (length, begun) = (bytes.len(), Instant::now());
                // It fails only when the store did, which the task tells.
                if send.send(bytes).await.is_err() {
                    break Ok(());
                }
                pace.kept(begun.elapsed());
                pace.came(length, Instant::now());
            }
            Ok(Some(Err(_))) => break Err(Problem::new("malformed_request").detail("the body ended early")),
            Err(_) => break Err(Problem::new("body_timed_out")),
        }
    };
    drop(send);
    let written = written.await.map_err(|_| Problem::new("internal_error"))??;
    ended?;
    let progress = Progress { offset: from + written, done: progress.done };
    let progress = completed(&app, &upload, meta, &signed, progress).await?;
    Ok(told(&upload, StatusCode::NO_CONTENT, progress))
}

/// Ends an upload, and forgets what came. The picture that it may have become stays.
#[utoipa::path(delete, path = "/v1/uploads/{upload}", tag = "media", security(("session" = [])),
    params(("upload" = String, Path, description = "Its name"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses((status = 204, description = "Gone")))]
async fn end(State(app): State<App>, signed: Signed, _: Tus, Segment(name): Segment) -> Answer<Response> {
    let upload = find(&app, &signed, &name)?;
    at(&upload).await?;
    upload.end().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
