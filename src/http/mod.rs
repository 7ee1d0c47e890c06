//! The HTTP contract as an axum router, to be mounted under any prefix of a host's app.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = couple::Backend::builder().build()?;
//! let app: axum::Router = axum::Router::new().nest("/couple", couple::http::router(backend));
//! # Ok(()) }
//! ```
//!
//! Serve it with [`serve`], which bounds what a connection can hold, or under `axum::serve` with
//! `into_make_service_with_connect_info::<SocketAddr>()`, so that limits per client know the client. For a
//! graceful shutdown call `backend.announce_stop()`, so that readiness answers 503, and some seconds later
//! `backend.live().drain()`: live streams end only then. Calls from browser pages of other origins are refused
//! unless [`HttpOptions::cors_origins`] names those origins.

mod account;
mod capabilities;
#[cfg(feature = "socketio")]
mod client_permits;
mod connection;
mod connection_table;
mod cors;
mod descriptors;
#[cfg(feature = "socketio")]
mod engine_sessions;
mod export;
mod extract;
mod frame;
mod guard;
mod heartbeat;
mod live;
mod media;
mod operations;
mod paced_body;
mod page;
mod pairing;
mod picture_access;
mod places;
mod problem;
mod request_body;
mod serve;
mod socket;
#[cfg(feature = "socketio")]
mod socketio;
mod timeline;
mod tus;
mod upload_form;
mod upload_permits;
mod waiting;

pub use cors::{NotAnOrigin, Origin};
pub use descriptors::raise_descriptor_limit;
pub use problem::{CODES, FieldError, Problem};
pub use serve::{ServeOptions, listen, serve};

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{Uri, header},
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
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

use crate::Backend;

/// Where trusted proxies write the addresses of those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// What most proxies write.
    XForwardedFor,
    /// The standard one (RFC 7239).
    Forwarded,
}

/// Limits, all on by default.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Bytes of a JSON body. Default: 64 KiB.
    pub body_limit: usize,
    /// How long a request may take, live ones aside. Default: 10 s.
    pub timeout: Duration,
    /// Requests that are answered at once, live ones aside; more get 503. Default: 1,024.
    pub concurrency: usize,
    /// Live connections at once; more get 503. Default: 10,000.
    pub live_connections: usize,
    /// Proxies whose `Forwarded` or `X-Forwarded-For` is believed. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Which header those proxies write. Default: `X-Forwarded-For`.
    pub proxy_header: ProxyHeader,
    /// Uploads that are received at the same time; while half of these are taken, an account has one. Further uploads wait. Each holds at
    /// most 300 KiB of memory, and as many as [`upload_parts`](crate::gallery::GalleryOptions::upload_parts) more. Default: 256.
    pub uploads: usize,
    /// Uploads of one account that are received at the same time; 54 more wait, and further ones get 429. Default: 10.
    pub uploads_per_account: usize,
    /// How long an upload waits to be received before it gets 429 or 503. Default: 30 s.
    pub upload_wait: Duration,
    /// How long an upload may take. Default: 1 h.
    pub upload_timeout: Duration,
    /// Bytes of an upload that must arrive in each 120 s; a slower upload, or one of which nothing arrives for 60 s, gets 408; a
    /// resumable upload can be continued. Default: 30 KiB.
    pub upload_least: usize,
    /// Pictures are answered with a link to their store, where it signs such, that lasts so long: also when the couple ends
    /// meanwhile. Default: none, they are passed on.
    pub media_links: Option<Duration>,
    /// Live connections of one person at once; more get 429. Default: 10.
    pub live_per_account: usize,
    /// Socket.IO connections of one client network (an IPv4 address, an IPv6 /64) that have not authenticated yet; more get 429. All
    /// networks together have as many as `live_connections`. Default: 256.
    pub handshakes_per_client: usize,
    /// Origins whose pages may call every route from a browser (CORS), preflight requests included. Credentials are never allowed:
    /// sessions are bearer tokens, not cookies. The `Origin` of a WebSocket is not checked, for the same reason. Default: none.
    pub cors_origins: Vec<Origin>,
    /// Whether `GET /metrics` is served here, to every client and without a session. Default: no; the router for the admin address, see
    /// [`routers`], always has it.
    pub metrics: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            body_limit: 64 * 1024,
            timeout: Duration::from_secs(10),
            concurrency: 1024,
            live_connections: 10_000,
            uploads: 256,
            uploads_per_account: 10,
            upload_wait: Duration::from_secs(30),
            upload_timeout: Duration::from_hours(1),
            upload_least: 30 << 10,
            media_links: None,
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::XForwardedFor,
            live_per_account: 10,
            handshakes_per_client: 256,
            cors_origins: Vec::new(),
            metrics: false,
        }
    }
}

/// What handlers share. One pointer: every layer around a handler has a clone of it for each request.
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
    streams: Arc<places::Streams>,
    uploads: upload_permits::UploadPermits,
    #[cfg(feature = "socketio")]
    handshakes: Arc<client_permits::ClientPermits>,
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
        (name = "accounts", description = "Who a person is, and how they prove it"),
        (name = "pairing", description = "How two people become a couple, and stop being one"),
        (name = "timeline", description = "What they share"),
        (name = "media", description = "Their pictures"),
        (name = "live", description = "The same, as it happens"),
        (name = "operations", description = "For whoever runs it"),
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

/// The whole contract, with default limits.
pub fn router(backend: Backend) -> Router {
    router_with(backend, HttpOptions::default())
}

/// The whole contract.
pub fn router_with(backend: Backend, options: HttpOptions) -> Router {
    contract(&App::new(backend, options))
}

/// The whole contract, and what is for whoever runs it (metrics, health and readiness) for an address of its own.
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
    fn new(backend: Backend, options: HttpOptions) -> Self {
        Self(Arc::new(Shared {
            requests: Arc::new(Semaphore::new(options.concurrency)),
            streams: places::Streams::new(options.live_connections, options.live_per_account),
            uploads: upload_permits::UploadPermits::new(&options),
            #[cfg(feature = "socketio")]
            handshakes: client_permits::ClientPermits::new(
                options.live_connections,
                options.handshakes_per_client,
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
    complete(&mut api);
    capabilities::document(&mut api, app);
    let document: axum::body::Bytes = serde_json::to_vec(&api).unwrap_or_default().into();
    let mut router = bounded.merge(free).route(
        "/v1/openapi.json",
        get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
    );
    #[cfg(feature = "socketio")]
    {
        router = router.route(socketio::PATH, socketio::route(app));
    }
    if app.options.metrics {
        router = router.merge(operations::metrics_route());
    }
    let router = router
        .fallback(async || Problem::new("not_found"))
        .method_not_allowed_fallback(async || Problem::new("method_not_allowed"))
        // As one, the outermost first: each alone would have every route in a box of its own, and copied for each request.
        .layer((
            middleware::from_fn_with_state(app.clone(), guard::observed),
            guard::panics(),
            DefaultBodyLimit::max(app.options.body_limit),
        ))
        .with_state(app.clone());
    let routes = router.clone();
    // Outside of the layers, which the routes have already.
    router.fallback(async move |request: Request| {
        let Ok(answer) = routes.oneshot(without_last_slash(request)).await;
        answer
    })
}

/// A path with slashes at its end means the route without them.
fn without_last_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let path = uri.path().trim_end_matches('/');
    if path.is_empty() || path.len() == uri.path().len() {
        return request;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{path}{query}").parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// Every operation may end in a problem, whose codes are listed, and has a name of its own.
fn complete(api: &mut utoipa::openapi::OpenApi) {
    use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, Schema};
    if let Some(components) = &mut api.components
        && let Some(RefOr::T(Schema::Object(problem))) = components.schemas.get_mut("Problem")
        && let Some(RefOr::T(Schema::Object(code))) = problem.properties.get_mut("code")
    {
        code.enum_values = Some(CODES.iter().map(|(code, ..)| (*code).into()).collect());
    }
    for item in api.paths.paths.values_mut() {
        let reading = [&mut item.get, &mut item.head, &mut item.options];
        let writing = [&mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in reading.into_iter().chain(writing).flatten() {
            if let Some(summary) = &mut operation.summary {
                *summary = summary.replace('\n', " ");
            }
            // A handler's name is one among those of its area only.
            if let (Some(name), Some([area, ..])) = (&mut operation.operation_id, operation.tags.as_deref()) {
                *name = format!("{area}_{name}");
            }
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let problem = ResponseBuilder::new()
                .description("A problem; its `code` says which")
                .content("application/problem+json", content)
                .build();
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem));
        }
    }
}

/// A time as the contract writes it.
fn time(time: Timestamp) -> String {
    time.to_rfc3339()
}

/// Tells an absent field from one that is null.
fn nullable<'de, D, T>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    serde::Deserialize::deserialize(from).map(Some)
}

type Answer<T> = Result<T, Problem>;
