//! Limits of this server, as a route and in the OpenAPI document.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header},
};
use couple_core::media::{Purpose, Viewer};
use couple_media::gallery::Gallery;
use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{OpenApi, RefOr},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{App, paced_body::Pace, upload_permits};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(capabilities))
}

/// Limits of this server. They are the same for every client and change only with the configuration.
#[derive(Debug, Serialize, ToSchema)]
struct Capabilities {
    /// Maximum bytes of a JSON body.
    json_bytes: usize,
    /// Maximum number of dates of a couple; more get 409 `too_many_dates`.
    dates: u32,
    /// Maximum number of devices of a person; more get 409 `too_many_devices`.
    devices: u32,
    media: MediaCapabilities,
}

/// Limits of pictures and uploads.
#[derive(Debug, Serialize, ToSchema)]
struct MediaCapabilities {
    /// Accepted media types, recognised by content.
    types: &'static [&'static str],
    /// Maximum bytes of a picture.
    bytes: usize,
    /// Maximum width and height in pixels.
    side: u32,
    /// Maximum number of pixels, in millions.
    megapixels: u32,
    /// Maximum concurrent uploads of one account.
    concurrent_uploads: usize,
    /// Maximum number of further uploads of one account that wait; more get 429 `too_many_uploads`.
    waiting_uploads: usize,
    /// Maximum time that an upload waits for a permit, in seconds.
    upload_wait_seconds: u64,
    /// Maximum duration of an upload, in seconds.
    upload_seconds: u64,
    /// Maximum time without bytes during an upload, in seconds.
    upload_idle_seconds: u64,
    /// Minimum number of bytes that must arrive in each `upload_rate_seconds`.
    upload_rate_bytes: usize,
    /// Period of `upload_rate_bytes`, in seconds.
    upload_rate_seconds: u64,
    /// Lifetime of a resumable upload (tus), in seconds.
    resumable_seconds: u64,
    /// Maximum number of unfinished resumable uploads of one account; more get 413 `unfinished_uploads_full`.
    unfinished_uploads: u32,
    /// Maximum bytes in the unfinished resumable uploads of one account.
    unfinished_bytes: u64,
    /// Maximum bytes of a couple's photos, renditions included.
    photo_quota_bytes: i64,
    /// Maximum bytes of an account's avatars, renditions included.
    avatar_quota_bytes: i64,
    /// Renditions of photos.
    photo_renditions: Vec<RenditionBound>,
    /// Renditions of avatars.
    avatar_renditions: Vec<RenditionBound>,
    /// Maximum lifetime of a `signed_url`, in seconds.
    signed_url_seconds: u64,
}

/// Maximum size of a rendition.
#[derive(Debug, Serialize, ToSchema)]
struct RenditionBound {
    name: String,
    /// Maximum width in pixels.
    width: u32,
    /// Maximum height in pixels.
    height: u32,
}

impl Capabilities {
    fn new(app: &App) -> Self {
        let (options, gallery) = (&app.options, app.backend.gallery());
        let (limits, policy) = (gallery.options().limits(), gallery.pictures().policy());
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
            json_bytes: options.max_json_bytes,
            dates: app.backend.dates().policy().max_dates(),
            devices: app.backend.devices().policy().max_devices(),
            media: MediaCapabilities {
                types: gallery.renderer().media_types(),
                bytes: limits.bytes(),
                side: limits.side(),
                megapixels: limits.megapixels(),
                concurrent_uploads: options.max_concurrent_uploads_per_account,
                waiting_uploads: upload_permits::WAITING_PER_ACCOUNT,
                upload_wait_seconds: options.max_upload_wait.as_secs(),
                upload_seconds: options.upload_timeout.as_secs(),
                upload_idle_seconds: Pace::IDLE_TIMEOUT.as_secs(),
                upload_rate_bytes: Pace::window_bytes(options),
                upload_rate_seconds: Pace::RATE_WINDOW.as_secs(),
                resumable_seconds: Gallery::UPLOAD_LIFETIME.as_secs(),
                unfinished_uploads: gallery.options().max_unfinished_uploads_per_account(),
                unfinished_bytes: gallery.options().max_unfinished_bytes_per_account(),
                photo_quota_bytes: policy.couple_quota(),
                avatar_quota_bytes: policy.account_quota(),
                photo_renditions: renditions(Purpose::Photo),
                avatar_renditions: renditions(Purpose::Avatar),
                signed_url_seconds: Viewer::MAX_LIFETIME.as_secs(),
            },
        }
    }
}

/// Get the limits of this server.
#[utoipa::path(get, path = "/v1/capabilities", tag = "operations",
    responses((status = 200, description = "Limits; may be cached for 5 minutes", body = Capabilities)))]
async fn capabilities(State(app): State<App>) -> ([(HeaderName, &'static str); 1], Json<Capabilities>) {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(Capabilities::new(&app)))
}

/// Adds the limits of uploads to the description of the upload operation.
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

/// Replaces `{{name}}` in the texts of the document by configured limits.
pub(super) fn with_limits(document: &str, app: &App) -> String {
    let gallery = app.backend.gallery().options();
    let mut limits = vec![
        ("dates", app.backend.dates().policy().max_dates().to_string()),
        ("devices", app.backend.devices().policy().max_devices().to_string()),
        ("unfinished-uploads", gallery.max_unfinished_uploads_per_account().to_string()),
        ("unfinished-bytes", bytes(gallery.max_unfinished_bytes_per_account())),
    ];
    if let Ok(accounts) = app.backend.accounts() {
        let policy = accounts.policy();
        limits.extend([
            ("code-lifetime", duration(policy.code_lifetime())),
            ("widget-tokens", policy.max_widget_tokens().to_string()),
            ("recent", duration(policy.recent_sign_in_time())),
            ("password-guesses", policy.password_guesses_per_day().to_string()),
            ("client-remembered", duration(policy.known_network_time())),
        ]);
    }
    limits
        .iter()
        .fold(document.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}

/// Replaces `{{name}}` in the texts of the document's operations by configured limits.
pub(super) fn fill(document: &mut OpenApi, app: &App) {
    let fill = |text: &mut String| {
        if text.contains("{{") {
            *text = with_limits(text, app);
        }
    };
    for item in document.paths.paths.values_mut() {
        let reading = [&mut item.get, &mut item.head, &mut item.options];
        let writing = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in reading.into_iter().chain(writing).flatten() {
            operation.summary.iter_mut().chain(&mut operation.description).for_each(fill);
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    fill(&mut response.description);
                }
            }
        }
    }
}

/// Formats a duration in the largest unit of which it is a multiple.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
        .unwrap_or((1, "second"));
    let count = seconds / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// Formats a number of bytes, in MiB if it is a multiple of one.
fn bytes(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_in_whole_units() {
        let texts = [60, 90, 3_600, 86_400 * 90, 0].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(texts, ["1 minute", "90 seconds", "1 hour", "90 days", "0 seconds"]);
        assert_eq!([bytes(100 << 20), bytes(1_000_000), bytes(0)], ["100 MiB", "1000000 bytes", "0 bytes"]);
    }
}
