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
mod api;
mod authentication;
mod caller;
mod capabilities;
mod client_network;
#[cfg(feature = "socketio")]
mod client_permits;
mod conditional;
mod contract;
mod cors;
mod date;
mod device;
mod document;
#[cfg(feature = "socketio")]
mod engine_sessions;
mod entry_kinds;
mod export;
mod extract;
mod frame;
mod glance;
mod guard;
mod heartbeat;
mod live;
mod media;
mod message_rate;
mod notification;
mod operations;
mod paced_body;
mod page;
mod pairing;
mod picture_access;
mod problem;
mod rendition;
pub mod routes;
mod server;
mod socket;
#[cfg(feature = "socketio")]
mod socketio;
mod stream_permits;
mod timeline;
mod trailing_slashes;
mod tus;
mod upload_form;
mod upload_permits;
#[cfg(feature = "socketio")]
mod websocket_frames;

pub use api::Api;
pub(crate) use authentication::HostSessions;
pub use authentication::{Authenticator, TrustedHeader, Unauthenticated};
#[cfg(feature = "jwt")]
pub use authentication::{JwtAuthenticator, JwtKeys};
pub use caller::Caller;
pub use cors::{NotAnOrigin, Origin};
pub use extract::{JsonBody, RequestMeta};
pub use problem::{CODES, FieldError, Problem};
pub use routes::RoutePart;
pub use server::{ServeOptions, listen, raise_descriptor_limit, serve};

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::Router;
use couple_core::Timestamp;
pub use ipnet::IpNet;
use tokio::sync::Semaphore;
use tower_http::cors::CorsLayer;

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
        /// Credentials are never allowed: built-in sessions are bearer tokens, not cookies. For the same reason the `Origin` of their
        /// WebSockets is not checked. With an [`Authenticator`], writes and WebSockets from pages of other origins are refused with 401,
        /// unless they have a bearer token in `Authorization` or their origin is listed here by name.
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
    authentication: authentication::Authentication,
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

/// Router of the whole contract, with default options.
pub fn router(backend: Backend) -> Router {
    router_with(backend, HttpOptions::default())
}

/// Router of the whole contract.
pub fn router_with(backend: Backend, options: HttpOptions) -> Router {
    Api::new(backend, options).router()
}

/// Router of the whole contract, and a router for an admin address with metrics and health.
pub fn routers(backend: Backend, options: HttpOptions) -> (Router, Router) {
    let api = Api::new(backend, options);
    (api.router(), api.admin_router())
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
            authentication: authentication::Authentication::new(&backend),
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
