//! The HTTP contract as an axum router, which a host can mount under any prefix.
//!
//! [`public_url`](crate::BackendBuilder::public_url) must include the prefix, since URLs in responses and mails begin with it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = couple::Backend::builder().public_url("https://my.app/couple").build()?;
//! let app: axum::Router = axum::Router::new().nest("/couple", couple::http::router(backend));
//! # Ok(()) }
//! ```
//!
//! Serve it with [`Service`](crate::Service), which also runs jobs and ends a process in order; with [`serve`], which bounds the
//! resources of each connection; or under `axum::serve` with `into_make_service_with_connect_info::<SocketAddr>()`, so that limits per
//! client see the client's address. For a graceful shutdown without `Service` call `backend.announce_stop()`, so that readiness answers
//! 503, and some seconds later `backend.live().drain()`, which ends live streams. Calls from browser pages of other origins are refused
//! unless [`HttpOptions::with_cors_origins`] names those origins.

mod account;
mod capabilities;
mod client_network;
#[cfg(feature = "socketio")]
mod client_permits;
mod cors;
mod document;
#[cfg(feature = "socketio")]
mod engine_sessions;
mod entry_kinds;
mod export;
mod extract;
mod frame;
mod guard;
mod heartbeat;
mod live;
mod media;
mod message_rate;
mod operations;
mod paced_body;
mod page;
mod pairing;
mod picture_access;
mod problem;
mod rendition;
mod server;
mod socket;
#[cfg(feature = "socketio")]
mod socketio;
mod stream_permits;
mod timeline;
mod tus;
mod upload_form;
mod upload_permits;
#[cfg(feature = "socketio")]
mod websocket_frames;

pub use cors::{NotAnOrigin, Origin};
pub use problem::{CODES, FieldError, Problem};
pub use server::{ServeOptions, listen, raise_descriptor_limit, serve};

use std::{convert::Infallible, ops::Deref, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRequestParts, Request},
    http::{Uri, header, request::Parts},
    middleware,
    routing::get,
};
use couple_core::Timestamp;
pub use ipnet::IpNet;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use tower_http::cors::CorsLayer;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Server,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::Backend;

/// Header in which trusted proxies write the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, which most proxies write.
    XForwardedFor,
    /// `Forwarded`, the standard header (RFC 7239).
    Forwarded,
}

couple_core::options! {
    /// Limits and options of the HTTP contract.
    #[derive(Debug, Clone)]
    pub struct HttpOptions {
        /// Sets the maximum size of a JSON body, in bytes. Default: 64 KiB.
        max_json_bytes: usize = 64 * 1024, with_max_json_bytes;
        /// Sets the maximum duration of a request, except live connections. Default: 10 s.
        request_timeout: Duration = Duration::from_secs(10), with_request_timeout;
        /// Sets the maximum number of concurrent requests, except live connections; more get 503. Default: 1,024.
        max_concurrent_requests: usize = 1024, with_max_concurrent_requests;
        /// Sets the maximum number of concurrent live connections; more get 503. Default: 10,000.
        max_live_connections: usize = 10_000, with_max_live_connections;
        /// Sets the proxies whose `Forwarded` or `X-Forwarded-For` header is trusted. Default: none.
        trusted_proxies: Vec<IpNet> = Vec::new(), with_trusted_proxies;
        /// Sets the header that the trusted proxies write. Default: `X-Forwarded-For`.
        proxy_header: ProxyHeader = ProxyHeader::XForwardedFor, with_proxy_header;
        /// Sets the maximum number of concurrent uploads; further ones wait. Default: 256.
        ///
        /// While half of them are in use, each account has at most one. An upload holds at most 300 KiB of memory, and as many as
        /// [`max_upload_parts`](crate::gallery::GalleryOptions::with_max_upload_parts) hold more.
        max_concurrent_uploads: usize = 256, with_max_concurrent_uploads;
        /// Sets the maximum number of concurrent uploads of one account. Default: 10.
        ///
        /// 54 more wait, and further ones get 429.
        max_concurrent_uploads_per_account: usize = 10, with_max_concurrent_uploads_per_account;
        /// Sets the maximum time that an upload waits for a permit before it gets 429 or 503. Default: 30 s.
        max_upload_wait: Duration = Duration::from_secs(30), with_max_upload_wait;
        /// Sets the maximum duration of an upload. Default: 1 h.
        upload_timeout: Duration = Duration::from_hours(1), with_upload_timeout;
        /// Sets the minimum rate of an upload, in bytes per second, on average over 120 s. Default: 256.
        ///
        /// A slower upload, or one of which nothing arrives for 60 s, gets 408; a resumable upload can be continued.
        min_upload_rate: usize = 256, with_min_upload_rate;
        /// Sets the lifetime of signed links to the blob store, with which pictures are answered.
        ///
        /// Default: none, the server sends the bytes.
        ///
        /// It applies to stores that sign links. A link works for that long even if the couple ends meanwhile.
        signed_link_lifetime: Option<Duration> = None, with_signed_link_lifetime;
        /// Sets the maximum number of concurrent live connections of one account; more get 429. Default: 10.
        max_live_connections_per_account: usize = 10, with_max_live_connections_per_account;
        /// Sets the maximum number of Socket.IO connections of one client that are not authenticated yet; more get 429.
        ///
        /// A client is an IPv4 address or an IPv6 /64; a /56 has twice as many and a /48 four times. All clients together have as many as
        /// `max_live_connections`. Once half of these are open, each client has fewer. Default: 256.
        ///
        /// A connection that ends without authenticating uses memory for up to 10 s. Together with these, a client may have four times as
        /// many, and all clients twice as many.
        max_handshakes_per_client: usize = 256, with_max_handshakes_per_client;
        /// Sets the origins whose pages may call every route from a browser (CORS), preflight requests included.
        ///
        /// Default: none.
        ///
        /// Credentials are never allowed: sessions are bearer tokens, not cookies. For the same reason the `Origin` of a WebSocket is not
        /// checked.
        cors_origins: Vec<Origin> = Vec::new(), with_cors_origins;
        /// Sets whether this router serves `GET /metrics`, to every client and without a session. Default: no.
        ///
        /// The router for the admin address, see [`routers`], always serves it.
        metrics: bool = false, with_metrics;
    }
}

/// Maximum Socket.IO sessions in memory that have not authenticated, as a multiple of `handshakes_per_client`.
///
/// More than 1, because a client whose session has ended may begin another one immediately.
#[cfg(feature = "socketio")]
const RETAINED_SESSIONS_PER_CLIENT: usize = 4;
/// The same for all clients, as a multiple of `live_connections`.
#[cfg(feature = "socketio")]
const RETAINED_SESSIONS_IN_TOTAL: usize = 2;

/// State shared by handlers.
///
/// One pointer, because each layer around a handler clones it for each request.
#[derive(Clone)]
struct App(Arc<Shared>);

impl Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

struct Shared {
    backend: Backend,
    options: HttpOptions,
    requests: Arc<Semaphore>,
    streams: Arc<stream_permits::StreamPermits>,
    uploads: upload_permits::UploadPermits,
    #[cfg(feature = "socketio")]
    handshakes: Arc<client_permits::ClientPermits>,
    /// Permits of Socket.IO sessions in memory that have not authenticated, including ended ones.
    #[cfg(feature = "socketio")]
    retained_sessions: Arc<client_permits::ClientPermits>,
    cors: Option<CorsLayer>,
    metrics: operations::Metrics,
    pictures: operations::PicturesAnswer,
    job_counts: operations::JobCounts,
    proxy_warnings: guard::ProxyWarnings,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "couple",
        description = "The back end of an app for two people. Every error is a problem detail (RFC 9457) with a stable `code`."
    ),
    modifiers(&Bearer),
    components(schemas(Problem, FieldError)),
    tags(
        (name = "accounts", description = "Accounts, sessions, passwords and profiles"),
        (name = "pairing", description = "Invites, couples and blocks"),
        (name = "timeline", description = "The couple's shared log of entries"),
        (name = "media", description = "Pictures of couples and accounts"),
        (name = "live", description = "Live delivery of entries, signals and presence"),
        (name = "operations", description = "Health, readiness and limits of the server"),
    )
)]
struct Contract;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("opaque").build();
        api.components
            .get_or_insert_with(Default::default)
            .add_security_scheme("session", SecurityScheme::Http(scheme));
    }
}

/// Router of the whole contract, with default options.
pub fn router(backend: Backend) -> Router {
    router_with(backend, HttpOptions::default())
}

/// Router of the whole contract.
pub fn router_with(backend: Backend, options: HttpOptions) -> Router {
    contract(&App::new(backend, options))
}

/// Router of the whole contract, and a router for an admin address with metrics and health.
pub fn routers(backend: Backend, options: HttpOptions) -> (Router, Router) {
    let app = App::new(backend, options);
    let (admin, _) = operations::routes().split_for_parts();
    let admin = admin
        .merge(operations::metrics_route())
        .fallback(async || Problem::new("not_found"))
        .with_state(app.clone());
    (contract(&app), admin)
}

impl App {
    /// Random number of milliseconds below `max`, which spreads reconnects of clients.
    fn jitter(&self, max: u64) -> u64 {
        let mut random = [0; 8];
        self.backend.ports().entropy.fill(&mut random);
        u64::from_be_bytes(random) % max.max(1)
    }

    fn new(backend: Backend, options: HttpOptions) -> Self {
        Self(Arc::new(Shared {
            requests: Arc::new(Semaphore::new(options.max_concurrent_requests)),
            streams: stream_permits::StreamPermits::new(
                options.max_live_connections,
                options.max_live_connections_per_account,
            ),
            uploads: upload_permits::UploadPermits::new(&options),
            #[cfg(feature = "socketio")]
            handshakes: client_permits::ClientPermits::new(
                options.max_live_connections,
                options.max_handshakes_per_client,
            ),
            #[cfg(feature = "socketio")]
            retained_sessions: client_permits::ClientPermits::new(
                options.max_live_connections.saturating_mul(RETAINED_SESSIONS_IN_TOTAL),
                options.max_handshakes_per_client.saturating_mul(RETAINED_SESSIONS_PER_CLIENT),
            ),
            cors: cors::layer(&options.cors_origins),
            metrics: operations::Metrics::default(),
            pictures: operations::PicturesAnswer::default(),
            job_counts: operations::JobCounts::default(),
            proxy_warnings: guard::ProxyWarnings::default(),
            options,
            backend,
        }))
    }
}

fn contract(app: &App) -> Router {
    let (bounded, mut api) = OpenApiRouter::with_openapi(Contract::openapi())
        .merge(account::routes())
        .merge(export::routes())
        .merge(pairing::routes())
        .merge(timeline::routes())
        .merge(media::routes())
        .merge(rendition::routes())
        .split_for_parts();
    let bounded = bounded
        .merge(page::routes())
        .route_layer(middleware::from_fn_with_state(app.clone(), guard::bounded));
    let (free, free_api) = OpenApiRouter::new()
        .merge(live::routes())
        .merge(media::uploads())
        .merge(tus::routes())
        .merge(operations::routes())
        .merge(capabilities::routes())
        .split_for_parts();
    api.merge(free_api);
    document::complete(&mut api);
    capabilities::document(&mut api, app);
    entry_kinds::document(&mut api, app.backend.timeline().kinds());
    // Without it, clients of the document would look for the routes at the root of its host.
    let prefix = app.backend.ports().links.prefix();
    api.servers = (!prefix.is_empty()).then(|| vec![Server::new(prefix)]);
    let document = serde_json::to_string(&api).unwrap_or_default();
    let document = axum::body::Bytes::from(capabilities::with_limits(&document, app));
    let mut router = bounded.merge(free).route(
        "/v1/openapi.json",
        get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
    );
    #[cfg(feature = "socketio")]
    {
        router = router.route(engine_sessions::PATH, socketio::route(app));
    }
    if app.options.metrics {
        router = router.merge(operations::metrics_route());
    }
    let router = router
        .fallback(async || Problem::new("not_found"))
        .method_not_allowed_fallback(async || Problem::new("method_not_allowed"))
        // One layer, the outermost part first: each separate layer would box every route and clone it for each request.
        .layer((
            middleware::from_fn_with_state(app.clone(), guard::observed),
            guard::panics(),
            DefaultBodyLimit::max(app.options.max_json_bytes),
        ))
        .with_state(app.clone());
    let routes = router.clone();
    // The fallback has no layers: the routes that it calls have them.
    router.fallback(async move |request: Request| {
        let Ok(answer) = routes.oneshot(without_last_slash(request)).await;
        answer
    })
}

/// Number of slashes at the end of the requested path, which its route does not have.
#[derive(Debug, Clone, Copy, Default)]
struct TrailingSlashes(usize);

impl TrailingSlashes {
    /// Reference, relative to the requested URL, to a path in the folder of the route.
    fn sibling(self, path: &str) -> String {
        "../".repeat(self.0) + path
    }
}

impl<S: Sync> FromRequestParts<S> for TrailingSlashes {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or_default())
    }
}

/// Removes slashes at the end of the path, so that it matches the route without them.
fn without_last_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path().trim_end_matches('/');
    let slashes = uri.path().len() - path.len();
    if path.is_empty() || slashes == 0 {
        return request;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{path}{query}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(TrailingSlashes(slashes));
    }
    request
}

/// Formats a time for the contract: RFC 3339.
fn time(time: Timestamp) -> String {
    time.to_rfc3339()
}

/// Deserializes a field so that an absent field differs from null.
fn nullable<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(from).map(Some)
}

type ApiResult<T> = Result<T, Problem>;
