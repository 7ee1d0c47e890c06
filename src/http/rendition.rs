//! Bytes of pictures over HTTP: conditional requests, ranges and formats.

use std::ops::{ControlFlow, Range};

use axum::{
    body::Body as HttpBody,
    extract::{FromRequestParts, OptionalFromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use couple_core::{account::Accounts, glance::GlanceReader};
use couple_media::gallery::{Accepts, RenditionError};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiResult, App, Problem, caller::Caller, conditional::matches_none, extract::bearer,
    glance::GlanceCaller, media::media_id, picture_access,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(rendition))
}

/// Caching of renditions, whose bytes never change: one that is made again has another tag.
const CACHE_CONTROL_IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

impl From<RenditionError> for Problem {
    fn from(not: RenditionError) -> Self {
        match not {
            RenditionError::Unknown => Self::new("media_not_found"),
            RenditionError::Processing => Self::new("media_processing"),
            RenditionError::Gone => Self::new("media_gone"),
            RenditionError::Later { expected_wait } => {
                Self::new("rendition_pending").retry_within_reason(expected_wait)
            }
            RenditionError::TooMany { expected_wait } => {
                Self::new("too_many_renditions").retry_within_reason(expected_wait)
            }
            RenditionError::Failed(error) => error.into(),
        }
    }
}

/// Extractor of a caller who asks for a picture.
enum PictureCaller {
    Session(Box<Caller>),
    /// Caller with a widget token.
    Widget(Box<GlanceReader>),
    None,
}

impl FromRequestParts<App> for PictureCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let is_widget = app.authentication.is_built_in()
            && bearer(&parts.headers).is_ok_and(|token| Accounts::is_widget_token(&token));
        if is_widget {
            return match GlanceCaller::from_request_parts(parts, app).await {
                Ok(GlanceCaller(reader)) => Ok(Self::Widget(Box::new(reader))),
                Err(problem) if problem.code() == "not_paired" => Err(Problem::new("media_not_found")),
                Err(problem) => Err(problem),
            };
        }
        let caller = <Caller as OptionalFromRequestParts<App>>::from_request_parts(parts, app).await?;
        Ok(caller.map_or(Self::None, |caller| Self::Session(Box::new(caller))))
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RenditionQuery {
    /// Signed access from a `signed_url`, instead of the `Authorization` header.
    access: Option<String>,
}

/// Get the bytes of a rendition.
///
/// The first request for a photo's rendition waits until it is made; a request that waits too long gets 503 `rendition_pending`,
/// and too many requests of one couple get 429 `too_many_renditions`. A signed access that expired, was tampered with, or whose session or
/// couple ended gets 403 `access_invalid`. A widget token gets the pictures that `GET /v1/glance` names now.
#[utoipa::path(get, path = "/v1/media/{id}/{rendition}", tag = "media", security(("session" = []), ("widget" = []), ()),
    params(("id" = String, Path, description = "Id of the picture"), ("rendition" = String, Path, description = "Name of the rendition"),
        RenditionQuery,
        ("Accept" = Option<String>, Header, description = "With `image/webp`, a photo or an avatar with transparent parts is sent as WebP, a photo animated if the server keeps animations; with `image/png`, a picture with transparent parts is sent as PNG; otherwise JPEG on white"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-None-Match" = Option<String>, Header, description = "Tag of the cached rendition")),
    responses((status = 200, description = "The bytes", content(("image/jpeg"), ("image/webp"), ("image/png"))),
        (status = 206, description = "The requested range of bytes", content(("image/jpeg"), ("image/webp"), ("image/png"))),
        (status = 304, description = "The cached rendition is current"),
        (status = 307, description = "If the server is configured so: a link to the blob store with a short lifetime")))]
async fn rendition(
    State(app): State<App>,
    caller: PictureCaller,
    path: Option<Path<(String, String)>>,
    query: Result<Query<RenditionQuery>, QueryRejection>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let Some(Path((id, name))) = path else { return Err(Problem::new("media_not_found")) };
    let gallery = app.backend.gallery();
    let (reader, by_url) = match (caller, query.ok().and_then(|Query(query)| query.access)) {
        (PictureCaller::Widget(reader), _) => {
            if !app.backend.glances().shows(&reader, media_id(&id)?).await? {
                return Err(Problem::new("media_not_found"));
            }
            (reader.account(), false)
        }
        (PictureCaller::Session(caller), _) => (caller.id(), false),
        (PictureCaller::None, Some(access)) => {
            (picture_access::verify(&app, &access, media_id(&id)?, &name).await?, true)
        }
        (PictureCaller::None, None) => return Err(Problem::new("unauthenticated")),
    };
    let (media, made) = gallery.pictures().view(reader, media_id(&id)?).await?;
    let found = gallery.find(&media, &made, &name, accepts(&headers)).await?;
    let tag = format!("\"{}\"", found.blob);
    let answer = Response::builder()
        .header(header::CACHE_CONTROL, CACHE_CONTROL_IMMUTABLE)
        .header(header::VARY, "accept, authorization")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'");
    // An isolated page (COEP) shows only resources that allow it; the signature is the permission.
    let answer = match by_url {
        true => answer.header("cross-origin-resource-policy", "cross-origin"),
        false => answer,
    };
    let failed = |_| Problem::new("internal_error");
    if matches_none(&headers, &tag) {
        let answer = answer.status(StatusCode::NOT_MODIFIED).header(header::ETAG, tag);
        return answer.body(HttpBody::empty()).map_err(failed);
    }
    if let Some(lasting) = app.options.signed_link_lifetime
        && let Some(link) = gallery.blobs().signed(&media.path(&found.blob), lasting).await?
    {
        gallery.pictures().touch(&media, &found).await?;
        let headers = [(header::LOCATION, link), (header::VARY, "accept, authorization".to_owned())];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    let size = u64::try_from(found.bytes).unwrap_or(0);
    let range = match range(&headers, &tag, size) {
        ControlFlow::Continue(range) => range,
        ControlFlow::Break(()) => {
            let mut answer = Problem::new("range_not_satisfiable").into_response();
            let whole = HeaderValue::try_from(format!("bytes */{size}"))
                .unwrap_or(HeaderValue::from_static("bytes */0"));
            answer.headers_mut().insert(header::CONTENT_RANGE, whole);
            return Ok(answer);
        }
    };
    let partial = range.is_some();
    let shown = gallery.open(&media, found, range).await?;
    let (of, sent) = (shown.blob.size, shown.blob.range.clone());
    // A rendition that was lost and made again has another tag than the one that was found.
    let answer = answer
        .header(header::ETAG, format!("\"{}\"", shown.rendition.blob))
        .header(header::CONTENT_TYPE, shown.rendition.format.media_type())
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, sent.end - sent.start);
    let answer = match partial {
        true => {
            let range = format!("bytes {}-{}/{of}", sent.start, sent.end.saturating_sub(1));
            answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range)
        }
        false => answer,
    };
    answer.body(HttpBody::from_stream(shown.blob.bytes)).map_err(failed)
}

/// Whether WebP and PNG are accepted by name, with a quality other than 0.
///
/// A client that accepts `*/*` gets JPEG, which every client can show.
fn accepts(headers: &HeaderMap) -> Accepts {
    let accepts_type = |wanted: &str| {
        let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
        accepts.flat_map(|accept| accept.split(',')).any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
                && !parts.any(|part| {
                    part.strip_prefix("q=").is_some_and(|q| q.parse().is_ok_and(|q: f32| q <= 0.0))
                })
        })
    };
    Accepts { webp: accepts_type("image/webp"), png: accepts_type("image/png") }
}

/// The requested range, if it is supported; another range is ignored (RFC 9110, 14.2).
///
/// Breaks if the range lies after the end.
fn range(headers: &HeaderMap, tag: &str, size: u64) -> ControlFlow<(), Option<Range<u64>>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|other| other != tag) {
        return ControlFlow::Continue(None);
    }
    let Some((first, last)) = text(header::RANGE)
        .and_then(|range| range.strip_prefix("bytes="))
        .filter(|range| !range.contains(','))
        .and_then(|range| range.split_once('-'))
    else {
        return ControlFlow::Continue(None);
    };
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    let range = match (first.trim(), last.trim()) {
        ("", last) => number(last).map(|last| size.saturating_sub(last)..size),
        (first, "") => number(first).map(|first| first..size),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(size)),
            _ => None,
        },
    };
    match range {
        Some(range) if range.start >= size || range.is_empty() => ControlFlow::Break(()),
        range => ControlFlow::Continue(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_as_in_rfc_9110() {
        let parsed = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(text))]);
            range(&headers, "\"t\"", 1000)
        };
        let part = |range| ControlFlow::Continue(Some(range));
        assert_eq!(parsed("bytes=0-0"), part(0..1));
        assert_eq!(parsed("bytes=10-"), part(10..1000));
        assert_eq!(parsed("bytes=-10"), part(990..1000));
        assert_eq!(parsed("bytes=-5000"), part(0..1000));
        assert_eq!(parsed("bytes=990-18446744073709551615"), part(990..1000));
        for beyond in ["bytes=1000-", "bytes=1000-1001", "bytes=-0"] {
            assert_eq!(parsed(beyond), ControlFlow::Break(()), "{beyond}");
        }
        for other in
            ["bytes=5-4", "bytes=a-b", "bytes=+1-2", "bytes=0-1,5-6", "lines=1-2", "bytes=", "bytes=-", ""]
        {
            assert_eq!(parsed(other), ControlFlow::Continue(None), "{other}");
        }
    }

    #[test]
    fn webp_must_be_accepted_by_name() {
        let accepts = |text: &'static str| {
            super::accepts(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))])).webp
        };
        assert!(accepts("image/avif,image/webp,*/*") && accepts("text/html, Image/WebP;q=0.5"));
        assert!(!accepts("*/*") && !accepts("image/webp;q=0, image/jpeg") && !accepts("image/jpeg"));
    }
}
