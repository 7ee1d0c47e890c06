//! The limits of this server, for clients and in the document.

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header},
};
use couple_core::media::{Purpose, Viewer};
use couple_media::{gallery::Gallery, picture::Kind};
use serde::Serialize;
use utoipa::{ToSchema, openapi::OpenApi};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{App, paced_body::Pace, upload_permits};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(capabilities))
}

/// The limits of this server. They are the same for every client and change only with the configuration.
#[derive(Debug, Serialize, ToSchema)]
struct Capabilities {
    /// Most bytes of a JSON body.
    json_bytes: usize,
    media: MediaCapabilities,
}

/// The limits of pictures and uploads.
#[derive(Debug, Serialize, ToSchema)]
struct MediaCapabilities {
    /// Media types that are accepted, recognised by content.
    types: Vec<&'static str>,
    /// Most bytes of a picture.
    bytes: usize,
    /// Most pixels in a row or column.
    side: u32,
    /// Most pixels, in millions.
    megapixels: u32,
    /// Uploads of one account that are received at the same time.
    concurrent_uploads: usize,
    /// Further uploads of one account that wait for their turn; more get 429 `too_many_uploads`.
    waiting_uploads: usize,
    /// How long an upload waits for its turn, in seconds.
    upload_wait_seconds: u64,
    /// How long an upload may take in total, in seconds.
    upload_seconds: u64,
    /// How long an upload may send nothing, in seconds.
    upload_idle_seconds: u64,
    /// Bytes that must arrive in each `upload_rate_seconds`.
    upload_rate_bytes: usize,
    /// See `upload_rate_bytes`.
    upload_rate_seconds: u64,
    /// How long a resumable upload (tus) may take, in seconds.
    resumable_seconds: u64,
    /// Bytes of a couple's photos, renditions included.
    photo_quota_bytes: i64,
    /// Bytes of an account's avatars, renditions included.
    avatar_quota_bytes: i64,
    /// Sizes of photos.
    photo_renditions: Vec<RenditionBound>,
    /// Sizes of avatars.
    avatar_renditions: Vec<RenditionBound>,
    /// Most seconds that a `signed_url` works.
    signed_url_seconds: u64,
}

/// A size that pictures are offered in.
#[derive(Debug, Serialize, ToSchema)]
struct RenditionBound {
    name: String,
    /// Most pixels in a row.
    width: u32,
    /// Most pixels in a column.
    height: u32,
}

impl Capabilities {
    fn new(app: &App) -> Self {
        let (options, gallery) = (&app.options, app.backend.gallery());
        let (limits, policy) = (&gallery.options().limits, gallery.pictures().policy());
        let renditions = |purpose| {
            let sizes = gallery.sizes(purpose).iter();
            let bound = |size: &couple_media::picture::Rendition| RenditionBound {
                name: size.name.to_string(),
                width: size.width,
                height: size.height,
            };
            sizes.map(bound).collect()
        };
        Self {
            json_bytes: options.body_limit,
            media: MediaCapabilities {
                types: accepted_types(),
                bytes: limits.bytes,
                side: limits.side,
                megapixels: limits.megapixels,
                concurrent_uploads: options.uploads_per_account,
                waiting_uploads: upload_permits::WAITING_PER_ACCOUNT,
                upload_wait_seconds: options.upload_wait.as_secs(),
                upload_seconds: options.upload_timeout.as_secs(),
                upload_idle_seconds: Pace::IDLE.as_secs(),
                upload_rate_bytes: options.upload_least,
                upload_rate_seconds: Pace::STRETCH.as_secs(),
                resumable_seconds: Gallery::RESUMABLE.as_secs(),
                photo_quota_bytes: policy.couple_quota,
                avatar_quota_bytes: policy.account_quota,
                photo_renditions: renditions(Purpose::Photo),
                avatar_renditions: renditions(Purpose::Avatar),
                signed_url_seconds: Viewer::LONGEST.as_secs(),
            },
        }
    }
}

/// Media types that are accepted as pictures.
pub(super) fn accepted_types() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.media_type()).collect()
}

/// The limits of this server.
#[utoipa::path(get, path = "/v1/capabilities", tag = "operations",
    responses((status = 200, description = "Limits; may be cached for 5 minutes", body = Capabilities)))]
async fn capabilities(State(app): State<App>) -> ([(HeaderName, &'static str); 1], Json<Capabilities>) {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(Capabilities::new(&app)))
}

/// Writes the limits of uploads into the document, where a reader looks for them.
pub(super) fn document(api: &mut OpenApi, app: &App) {
    let limits = Capabilities::new(app).media;
    let text = format!(
        "\n\nLimits: {} bytes; {} pixels a side; {} megapixels; {} concurrent uploads of an account, {} more wait for {} s; {} bytes of \
         a couple's photos and {} of an account's avatars; {} s in total, {} s without bytes, and {} bytes in each {} s. Types: {}.",
        limits.bytes,
        limits.side,
        limits.megapixels,
        limits.concurrent_uploads,
        limits.waiting_uploads,
        limits.upload_wait_seconds,
        limits.photo_quota_bytes,
        limits.avatar_quota_bytes,
        limits.upload_seconds,
        limits.upload_idle_seconds,
        limits.upload_rate_bytes,
        limits.upload_rate_seconds,
        limits.types.join(", ")
    );
    let upload = api.paths.paths.get_mut("/v1/media").and_then(|item| item.post.as_mut());
    if let Some(upload) = upload {
        upload.description.get_or_insert_default().push_str(&text);
    }
}
