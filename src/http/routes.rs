//! The routes of each area, for a host that mounts some of them, each with its part of the OpenAPI document.
//!
//! Parts of one [`Api`] share its limits and metrics. A part has no fallback, serves no document, and does not know paths with a slash at
//! their end: those belong to the host's router, or to [`Api::router`].
//!
//! ```
//! use couple::{Backend, http::{Api, HttpOptions, routes}};
//! use utoipa::OpenApi;
//!
//! #[derive(OpenApi)]
//! #[openapi(info(title = "My app"))]
//! struct MyDocument;
//!
//! let backend = Backend::builder().public_url("https://my.app/love").build()?;
//! let api = Api::new(backend, HttpOptions::default());
//! let (pairing, document) = routes::pairing(&api).merge(routes::timeline(&api)).into_parts();
//! let app: axum::Router = axum::Router::new().nest("/love", pairing);
//! let document = MyDocument::openapi().nest("/love", document);
//! assert!(document.paths.paths.contains_key("/love/v1/invites"));
//! # drop(app);
//! # Ok::<(), couple::Error>(())
//! ```

use axum::{Router, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{
    Api, App, account, capabilities, contract, date, device, export, glance, guard, live, media,
    notification, operations, page, pairing, rendition, timeline, tus,
};
#[cfg(feature = "socketio")]
use super::{engine_sessions, socketio};

/// Routes of an area, and their part of the OpenAPI document.
#[derive(Clone)]
pub struct RoutePart {
    router: Router,
    document: OpenApi,
}

impl std::fmt::Debug for RoutePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<_> = self.document.paths.paths.keys().collect();
        f.debug_struct("RoutePart").field("paths", &paths).finish_non_exhaustive()
    }
}

impl RoutePart {
    /// Adds another part, of the same [`Api`].
    ///
    /// # Panics
    /// If both parts have the same routes.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self { router: self.router.merge(other.router), document: self.document.merge_from(other.document) }
    }

    /// The router, for a host's router with any state, and the document, to be merged into the host's.
    ///
    /// Schemas of the host must have other names than ours: of two with one name, utoipa keeps the first.
    pub fn into_parts<S>(self) -> (Router<S>, OpenApi) {
        (self.router.with_state(()), self.document)
    }
}

impl<S> From<RoutePart> for Router<S> {
    fn from(part: RoutePart) -> Self {
        part.router.with_state(())
    }
}

/// Sign-up, sessions, passwords, profile, export and deletion. Empty if the host has its own users.
#[must_use]
pub fn accounts(api: &Api) -> RoutePart {
    part(&api.0, Area::Accounts)
}

/// Invites, couples, their dates, and blocks.
///
/// The link in an invite's mail leads to `/open/invite` below the public URL: mount [`pages`] too, or an own page.
#[must_use]
pub fn pairing(api: &Api) -> RoutePart {
    part(&api.0, Area::Pairing)
}

/// The log of the couple: entries, reactions, read positions, signals.
#[must_use]
pub fn timeline(api: &Api) -> RoutePart {
    part(&api.0, Area::Timeline)
}

/// Pictures: uploads, resumable uploads, renditions, avatars.
#[must_use]
pub fn media(api: &Api) -> RoutePart {
    part(&api.0, Area::Media)
}

/// Devices for push messages, and the preferences for them.
#[must_use]
pub fn devices(api: &Api) -> RoutePart {
    part(&api.0, Area::Devices)
}

/// What a widget or a watch face shows.
///
/// The pictures that it names are served by [`media`].
#[must_use]
pub fn glance(api: &Api) -> RoutePart {
    part(&api.0, Area::Glance)
}

/// Live delivery by WebSocket, server-sent events, long poll and, with the feature `socketio`, Socket.IO.
#[must_use]
pub fn live(api: &Api) -> RoutePart {
    part(&api.0, Area::Live)
}

/// Health, readiness and limits; metrics if [the options](super::HttpOptions::with_metrics) say so.
#[must_use]
pub fn operations(api: &Api) -> RoutePart {
    part(&api.0, Area::Operations)
}

/// Pages behind the links in mails, in English. They call the other routes, and are not in the document.
#[must_use]
pub fn pages(api: &Api) -> RoutePart {
    let app = &api.0;
    let router = page::routes().route_layer(middleware::from_fn_with_state(app.clone(), guard::bounded));
    RoutePart { router: contract::mountable(app, router), document: OpenApi::default() }
}

/// Area of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Accounts,
    Pairing,
    Timeline,
    Media,
    Devices,
    Glance,
    Live,
    Operations,
}

impl Area {
    pub(super) const ALL: [Self; 8] = [
        Self::Accounts,
        Self::Pairing,
        Self::Timeline,
        Self::Media,
        Self::Devices,
        Self::Glance,
        Self::Live,
        Self::Operations,
    ];

    /// Tag of the area's operations.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Pairing => "pairing",
            Self::Timeline => "timeline",
            Self::Media => "media",
            Self::Devices => "devices",
            Self::Glance => "glance",
            Self::Live => "live",
            Self::Operations => "operations",
        }
    }

    /// Routes whose number and time are bounded for all requests together.
    pub(super) fn bounded(self, app: &App) -> Option<OpenApiRouter<App>> {
        match self {
            Self::Accounts if app.backend.accounts().is_ok() => {
                Some(account::routes().merge(export::routes()))
            }
            Self::Pairing => Some(pairing::routes().merge(date::routes())),
            Self::Timeline => Some(timeline::routes()),
            Self::Media => Some(media::routes().merge(rendition::routes())),
            Self::Devices => Some(device::routes().merge(notification::routes())),
            Self::Glance => Some(glance::routes()),
            Self::Accounts | Self::Live | Self::Operations => None,
        }
    }

    /// Routes with their own limits.
    pub(super) fn unbounded(self) -> OpenApiRouter<App> {
        match self {
            Self::Accounts | Self::Pairing | Self::Timeline | Self::Devices | Self::Glance => {
                OpenApiRouter::new()
            }
            Self::Media => media::uploads().merge(tus::routes()),
            Self::Live => live::routes(),
            Self::Operations => operations::routes().merge(capabilities::routes()),
        }
    }

    /// Routes that are not in the document.
    pub(super) fn undocumented(self, app: &App) -> Router<App> {
        match self {
            #[cfg(feature = "socketio")]
            Self::Live => Router::new().route(engine_sessions::PATH, socketio::route(app)),
            Self::Operations if app.options.metrics => operations::metrics_route(),
            _ => Router::new(),
        }
    }
}

/// Routes of one area with all layers.
fn part(app: &App, area: Area) -> RoutePart {
    if area == Area::Accounts && app.backend.accounts().is_err() {
        return RoutePart { router: Router::new(), document: OpenApi::default() };
    }
    let (router, mut document) = contract::collect(app, &[area], Router::new());
    if let Some(tags) = &mut document.tags {
        tags.retain(|tag| tag.name == area.tag());
    }
    capabilities::fill(&mut document, app);
    RoutePart { router: contract::mountable(app, router), document }
}
