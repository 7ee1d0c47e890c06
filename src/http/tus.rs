//! Resumable uploads with tus 1.0: the core protocol and the [`EXTENSIONS`].
//!
//! See <https://tus.io/protocols/resumable-upload>.

use axum::{
    body::Body as HttpBody,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    middleware,
    response::{IntoResponse as _, Response},
};
use couple_core::UploadId;
use couple_media::gallery::{NewUpload, PARTIAL_FOLDER, Resumable, ResumeError, UploadMetadata};
use data_encoding::BASE64;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem,
    caller::Caller,
    extract::{PathParam, RequestMeta, require_no_coding},
    media::upload_metadata,
    paced_body::{PacedBody, Read},
    timeline::expected_couple,
    trailing_slashes::TrailingSlashes,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    let routes = OpenApiRouter::new().routes(routes!(options, create)).routes(routes!(offset, append, end));
    routes.layer(middleware::map_response(versioned))
}

/// Adds the protocol's version to every response.
async fn versioned(mut answer: Response) -> Response {
    for name in ["tus-resumable", "tus-version"] {
        answer.headers_mut().insert(name, VERSION.1);
    }
    answer
}

const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,concatenation,termination,expiration";
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("tus-resumable"), HeaderValue::from_static("1.0.0"));
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const CONCAT: HeaderName = HeaderName::from_static("upload-concat");
const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
/// Content type of bytes that are appended at an offset.
const CHUNK_TYPE: &str = "application/offset+octet-stream";
/// Maximum bytes of `Upload-Metadata`, which is stored and sent back.
const MAX_METADATA_BYTES: usize = 2_048;
/// Maximum number of partial uploads that one final upload joins.
const MAX_PARTIAL_UPLOADS: usize = 64;

/// Extractor that requires the supported tus version.
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

impl From<ResumeError> for Problem {
    fn from(error: ResumeError) -> Self {
        let detail = error.to_string();
        match error {
            ResumeError::Upload(not) => not.into(),
            ResumeError::NotFound => Self::new("upload_not_found"),
            ResumeError::Expired => Self::new("upload_expired"),
            ResumeError::CoupleEnded => Self::new("upload_couple_ended"),
            ResumeError::Offset { .. } => Self::new("upload_conflict").detail(detail),
            ResumeError::Superseded => Self::new("upload_locked"),
            ResumeError::Length => Self::new("malformed_request").detail(detail),
            ResumeError::Empty => Self::new("invalid_field").field(LENGTH.as_str(), "invalid").detail(detail),
            ResumeError::NotJoinable => Self::new("upload_incomplete"),
            ResumeError::TooMuchUnfinished => Self::new("unfinished_uploads_full"),
        }
    }
}

fn header_text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> ApiResult<Option<&'h str>> {
    let unreadable = |_| Problem::new("malformed_request").detail(format!("{name} is not ASCII text"));
    headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}

fn header_number(headers: &HeaderMap, name: &HeaderName) -> ApiResult<Option<u64>> {
    let wrong = |_| Problem::new("malformed_request").detail(format!("{name} is not a number"));
    header_text(headers, name)?.map(|text| text.parse().map_err(wrong)).transpose()
}

fn required<T>(value: Option<T>, name: &HeaderName) -> ApiResult<T> {
    value.ok_or_else(|| Problem::new("malformed_request").detail(format!("{name} is missing")))
}

/// Length of a new upload; none if it is deferred.
fn declared_length(headers: &HeaderMap) -> ApiResult<Option<u64>> {
    let deferred = header_number(headers, &DEFER_LENGTH)?;
    match (header_number(headers, &LENGTH)?, deferred) {
        (Some(length), None) => Ok(Some(length)),
        (None, Some(1)) => Ok(None),
        (None, None) => required(None, &LENGTH),
        _ => Err(Problem::new("malformed_request").detail("send Upload-Length, or Upload-Defer-Length: 1")),
    }
}

/// Metadata of a file, as in the query of `POST /v1/media`.
///
/// `purpose`, for an avatar `crop`, and `placeholder`.
fn read_metadata(metadata: &str) -> ApiResult<UploadMetadata> {
    let value = |wanted: &str| {
        let pair = metadata
            .split(',')
            .map(str::trim)
            .find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix(' '))?;
        String::from_utf8(BASE64.decode(pair.trim().as_bytes()).ok()?).ok()
    };
    let purpose = value("purpose").unwrap_or_default();
    // The upload itself is bound to its couple.
    upload_metadata(&purpose, None, value("crop").as_deref(), value("placeholder").as_deref())
}

/// Partial uploads that a final upload names by their URLs.
fn partials(urls: &str) -> ApiResult<Vec<UploadId>> {
    let id = |url: &str| url.trim_end_matches('/').rsplit('/').next().and_then(|id| id.parse().ok());
    let ids: Option<Vec<UploadId>> = urls.split_ascii_whitespace().map(id).collect();
    ids.filter(|ids| ids.len() <= MAX_PARTIAL_UPLOADS).ok_or_else(|| {
        let detail =
            format!("Upload-Concat: name at most {MAX_PARTIAL_UPLOADS} partial uploads by their URLs");
        Problem::new("malformed_request").detail(detail)
    })
}

/// Response with the state of an upload.
fn upload_response(app: &App, upload: &Resumable, status: StatusCode) -> Response {
    let mut answer = status.into_response();
    let headers = answer.headers_mut();
    headers.insert(OFFSET, upload.offset().into());
    match upload.length() {
        Some(length) => headers.insert(LENGTH, length.into()),
        None => headers.insert(DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    let prefix = app.backend.ports().links.prefix();
    let media = upload.media().map(|id| format!("{prefix}/v1/media/{id}"));
    let metadata = Some(upload.metadata()).filter(|metadata| !metadata.is_empty());
    let values = [
        (METADATA, metadata),
        (CONCAT, upload.concatenation()),
        (header::CONTENT_LOCATION, media.as_deref()),
    ];
    for (name, value) in values {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    if let Some(expires) = http_date(upload.expires_at().micros() / 1_000_000) {
        headers.insert(EXPIRES, expires);
    }
    answer
}

/// Formats a time as an HTTP date (RFC 9110, 5.6.7).
fn http_date(seconds: i64) -> Option<HeaderValue> {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).ok()?);
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

async fn find(app: &App, caller: &Caller, name: &str) -> ApiResult<Resumable> {
    let id = name.parse().map_err(|_| Problem::new("upload_not_found"))?;
    Ok(app.backend.gallery().resume(caller.id(), id).await?)
}

/// Replaces 429 by 503: tus clients repeat a request after a 503, but give up after a 429.
fn busy(problem: Problem) -> Problem {
    match problem.code() {
        "too_many_uploads" => problem.with_code("uploads_busy"),
        _ => problem,
    }
}

/// Creates the picture once all bytes are stored.
async fn completed(app: &App, upload: Resumable, meta: RequestMeta, caller: &Caller) -> ApiResult<Resumable> {
    if !upload.is_complete() || upload.media().is_some() {
        return Ok(upload);
    }
    // This reads and writes the bytes once more, so it is rate limited and needs a permit as an upload does, even for a HEAD.
    app.backend.gallery().pictures().allow_append(caller.id()).await?;
    let _permit = app.uploads.take(caller.id()).await.map_err(busy)?;
    // No idempotency key: an upload becomes a picture once, whatever key its requests have.
    let context = move |_: &couple_core::Digest| meta.context_without_key();
    let stored = upload
        .complete(read_metadata(upload.metadata())?, context, caller.sign_in(app).still_valid())
        .await?;
    Ok(upload.became(stored.media.id))
}

/// Stores a body from an offset on.
///
/// If the body breaks off or is too slow, the bytes that arrived stay stored.
///
/// The upload is claimed before the request waits for a permit, so that an older, stalled request for it returns its permit.
async fn receive(
    app: &App,
    caller: &Caller,
    upload: Resumable,
    from: u64,
    length: Option<u64>,
    body: HttpBody,
) -> ApiResult<Resumable> {
    let mut appending = upload.append(from, length).await?;
    let permit = tokio::select! {
        permit = app.uploads.take(caller.id()) => permit,
        () = appending.superseded() => Err(Problem::new("upload_locked")),
    };
    let _permit = permit.map_err(busy)?;
    let mut body = PacedBody::new(body, &app.options);
    let ended = loop {
        let read = tokio::select! {
            read = body.read(None) => read,
            () = appending.superseded() => break Err(Problem::new("upload_locked")),
        };
        match read {
            Ok(Read::Bytes(bytes)) => match appending.write(bytes).await {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(too_many) => break Err(too_many.into()),
            },
            Ok(Read::End | Read::Nothing) => break Ok(()),
            // The body broke off or was too slow: the client continues from the stored bytes.
            Err(_) => break Err(Problem::new("upload_interrupted")),
        }
    };
    let stored = appending.finish().await?;
    ended.map(|()| stored)
}

/// Get the supported version and extensions of tus, and the maximum size of an upload.
#[utoipa::path(options, path = "/v1/uploads", tag = "media",
    responses((status = 204, description = "`Tus-Version`, `Tus-Extension`, and `Tus-Max-Size` in bytes")))]
async fn options(State(app): State<App>) -> Response {
    let max_bytes = app.backend.gallery().options().limits().bytes().to_string();
    let headers = [("tus-extension", EXTENSIONS), ("tus-max-size", max_bytes.as_str())];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Create a resumable upload (tus 1.0).
///
/// Extensions: creation, creation-with-upload, creation-defer-length, concatenation, termination, expiration. An upload lasts 24 hours. A photo belongs to the
/// couple in which the account is when the upload is created; once that couple has ended, the upload is refused with 410. Send `Couple-Id`, so
/// that an upload from a queue never belongs to a later couple.
#[utoipa::path(post, path = "/v1/uploads", tag = "media", security(("session" = [])),
    params(("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Couple-Id" = Option<String>, Header, description = "The couple that a photo, or a part of one, is for; if the caller is in another one, 404 `not_paired`"),
        ("Upload-Length" = Option<u64>, Header, description = "Length in bytes, at least 1. Not with `Upload-Defer-Length`, nor of a final upload"),
        ("Upload-Defer-Length" = Option<u64>, Header, description = "`1`: a later `PATCH` declares the length"),
        ("Upload-Concat" = Option<String>, Header, description = "`partial`, or `final;` and the URLs of at most 64 complete partial uploads, separated by spaces"),
        ("Upload-Metadata" = Option<String>, Header, description = "`purpose`, of an avatar `crop`, and `placeholder`, as `POST /v1/media` has them, each in base64; at most 2,048 bytes. A partial upload needs none")),
    request_body(content_type = "application/offset+octet-stream", description = "The first bytes, if the client sends some now"),
    responses((status = 201, description = "`Location` is the URL of the upload, `Upload-Offset` the number of stored bytes. Once they are all stored, `Content-Location` is the picture"),
        (status = 400, description = "`malformed_request`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`not_paired`, or `upload_not_found` for a part of a final upload", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`quota_exceeded`; `upload_incomplete`: a part of a final upload is not complete or not partial", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "`upload_couple_ended`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`unsupported_tus_version`: `Tus-Version` has the supported one", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: more than `Tus-Max-Size`; `unfinished_uploads_full`: the account has {{unfinished-uploads}} unfinished uploads, or {{unfinished-bytes}} in them", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unknown_type`: the bytes are not a picture; `unsupported_encoding`", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`invalid_field`: invalid metadata, or a length of 0", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`: 120 uploads in 10 minutes", body = Problem, content_type = "application/problem+json")))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    _: Tus,
    meta: RequestMeta,
    slashes: TrailingSlashes,
    headers: HeaderMap,
    body: HttpBody,
) -> ApiResult<Response> {
    require_no_coding(&headers)?;
    let metadata = header_text(&headers, &METADATA)?.unwrap_or("").to_owned();
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(Problem::new("invalid_field").field(METADATA.as_str(), "too_long"));
    }
    let (gallery, concatenation) = (app.backend.gallery(), header_text(&headers, &CONCAT)?);
    let new = NewUpload {
        couple: expected_couple(&headers)?,
        metadata,
        concatenation: concatenation.map(str::to_owned),
        ..NewUpload::default()
    };
    let mut upload = match concatenation {
        Some(PARTIAL_FOLDER) => {
            gallery.begin(caller.id(), NewUpload { length: declared_length(&headers)?, ..new }).await?
        }
        None => {
            let purpose = Some(read_metadata(&new.metadata)?.purpose);
            gallery
                .begin(caller.id(), NewUpload { purpose, length: declared_length(&headers)?, ..new })
                .await?
        }
        Some(concatenation) => {
            let urls = concatenation.strip_prefix("final;");
            let urls =
                urls.ok_or_else(|| Problem::new("malformed_request").detail("Upload-Concat is not valid"))?;
            let purpose = Some(read_metadata(&new.metadata)?.purpose);
            gallery.join(caller.id(), NewUpload { purpose, ..new }, &partials(urls)?).await?
        }
    };
    if !upload.is_final() && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == CHUNK_TYPE) {
        upload = first_bytes(&app, &caller, upload, body).await?;
    }
    let upload = completed(&app, upload, meta, &caller).await?;
    let mut answer = upload_response(&app, &upload, StatusCode::CREATED);
    // Relative to the requested URL, so that it works under any prefix.
    let location = slashes.sibling(&format!("uploads/{}", upload.id()));
    let location = HeaderValue::try_from(location).map_err(|_| Problem::new("internal_error"))?;
    answer.headers_mut().insert(header::LOCATION, location);
    Ok(answer)
}

/// Stores the bytes that a client sends with the creation of an upload.
///
/// If they do not all arrive, the upload still exists: the client continues from the offset in the response.
async fn first_bytes(app: &App, caller: &Caller, upload: Resumable, body: HttpBody) -> ApiResult<Resumable> {
    let id = upload.id();
    match receive(app, caller, upload, 0, None, body).await {
        Ok(upload) => Ok(upload),
        Err(problem) => {
            tracing::debug!(upload = %id, code = problem.code(), "the first bytes of an upload did not all arrive");
            Ok(app.backend.gallery().resume(caller.id(), id).await?)
        }
    }
}

/// Get the number of stored bytes of a resumable upload.
#[utoipa::path(head, path = "/v1/uploads/{upload}", tag = "media", security(("session" = [])),
    params(("upload" = String, Path, description = "Id of the upload"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses((status = 200, description = "`Upload-Offset`; `Upload-Length`, or `Upload-Defer-Length` before it is declared; `Upload-Metadata` and `Upload-Concat` as they were sent; `Upload-Expires`. Once all bytes are stored, `Content-Location` is the picture"),
        (status = 404, description = "`upload_not_found`: there is no such upload of this account"),
        (status = 410, description = "`upload_expired`, or `upload_couple_ended`: the couple in which it was created has ended"),
        (status = 412, description = "`unsupported_tus_version`"),
        (status = 415, description = "`unknown_type`: the bytes are not a picture; the upload is removed")))]
async fn offset(
    State(app): State<App>,
    caller: Caller,
    _: Tus,
    meta: RequestMeta,
    PathParam(name): PathParam,
) -> ApiResult<Response> {
    // A process may have died after it stored the last byte and before it created the picture.
    let upload = completed(&app, find(&app, &caller, &name).await?, meta, &caller).await?;
    Ok(upload_response(&app, &upload, StatusCode::OK))
}

/// Append bytes to a resumable upload.
///
/// Bytes that arrive before a connection breaks are stored. Of two concurrent requests for one upload the newer one continues it, and the
/// older one ends with 423. Clients repeat a request that ended with 409, 423 or 5xx, from the offset that `HEAD` returns.
#[utoipa::path(patch, path = "/v1/uploads/{upload}", tag = "media", security(("session" = [])),
    params(("upload" = String, Path, description = "Id of the upload"), ("Tus-Resumable" = String, Header, description = "`1.0.0`"),
        ("Upload-Offset" = u64, Header, description = "Number of stored bytes, where these continue"),
        ("Upload-Length" = Option<u64>, Header, description = "Length in bytes, if it was deferred")),
    request_body(content_type = "application/offset+octet-stream", description = "Bytes from the offset on"),
    responses((status = 204, description = "`Upload-Offset` is the number of stored bytes. Once they are all stored, `Content-Location` is the picture"),
        (status = 400, description = "`malformed_request`: a header is missing, or the length differs from the one before", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "`upload_is_final`: a final upload takes no bytes", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`upload_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "`upload_conflict`: the upload has another number of bytes; `quota_exceeded`", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "`upload_expired`, or `upload_couple_ended`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`unsupported_tus_version`", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: more than its length; `unfinished_uploads_full`: the unfinished uploads of the account have {{unfinished-bytes}}", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`; `unsupported_encoding`; `unknown_type`: the bytes are not a picture, and the upload is removed", body = Problem, content_type = "application/problem+json"),
        (status = 423, description = "`upload_locked`: a newer request continues the upload", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "`rate_limited`: 600 requests in a minute", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`upload_interrupted`: the body was interrupted, or no bytes arrived for 60 s, or too few in 120 s; the bytes that arrived are stored. `uploads_busy`: too many concurrent uploads", body = Problem, content_type = "application/problem+json")))]
async fn append(
    State(app): State<App>,
    caller: Caller,
    _: Tus,
    meta: RequestMeta,
    PathParam(name): PathParam,
    headers: HeaderMap,
    body: HttpBody,
) -> ApiResult<Response> {
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != CHUNK_TYPE) {
        return Err(Problem::new("unsupported_media_type").detail(format!("send {CHUNK_TYPE}")));
    }
    require_no_coding(&headers)?;
    let from = required(header_number(&headers, &OFFSET)?, &OFFSET)?;
    let length = header_number(&headers, &LENGTH)?;
    app.backend.gallery().pictures().allow_append(caller.id()).await?;
    let upload = find(&app, &caller, &name).await?;
    if upload.is_final() {
        return Err(Problem::new("upload_is_final"));
    }
    // A client that lost the response to its last bytes may repeat the request.
    if upload.media().is_some() && upload.offset() == from {
        return Ok(upload_response(&app, &upload, StatusCode::NO_CONTENT));
    }
    let upload = receive(&app, &caller, upload, from, length, body).await?;
    let upload = completed(&app, upload, meta, &caller).await?;
    Ok(upload_response(&app, &upload, StatusCode::NO_CONTENT))
}

/// Cancel a resumable upload and delete its bytes. A picture that was made of it is kept.
#[utoipa::path(delete, path = "/v1/uploads/{upload}", tag = "media", security(("session" = [])),
    params(("upload" = String, Path, description = "Id of the upload"), ("Tus-Resumable" = String, Header, description = "`1.0.0`")),
    responses((status = 204, description = "The upload no longer exists"),
        (status = 404, description = "`upload_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "`upload_expired`", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "`unsupported_tus_version`", body = Problem, content_type = "application/problem+json")))]
async fn end(
    State(app): State<App>,
    caller: Caller,
    _: Tus,
    PathParam(name): PathParam,
) -> ApiResult<Response> {
    let id = name.parse().map_err(|_| Problem::new("upload_not_found"))?;
    app.backend.gallery().cancel(caller.id(), id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
