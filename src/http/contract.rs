//! The whole contract as one router, composed of the parts of its areas.

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request},
    http::header,
    middleware,
    routing::get,
};
use tower::ServiceExt as _;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Server,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use super::{
    App, FieldError, Problem, capabilities, document, entry_kinds, guard, page, routes::Area,
    trailing_slashes::without_last_slash,
};

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
        (name = "pairing", description = "Invites, couples, their dates, and blocks"),
        (name = "timeline", description = "The couple's shared log of entries"),
        (name = "media", description = "Pictures of couples and accounts"),
        (name = "devices", description = "Devices that receive push messages, and preferences for them"),
        (name = "glance", description = "What a widget or a watch face shows"),
        (name = "live", description = "Live delivery of entries, signals and presence"),
        (name = "operations", description = "Health, readiness and limits of the server"),
    )
)]
struct Contract;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = || HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("opaque");
        let widget = bearer().description(Some("Widget token of a session (`PUT /v1/me/widget-token`)"));
        let components = api.components.get_or_insert_with(Default::default);
        components.add_security_scheme("session", SecurityScheme::Http(bearer().build()));
        components.add_security_scheme("widget", SecurityScheme::Http(widget.build()));
    }
}

/// Routes of some areas and of `pages`, and their document. `pages` share the limits of the bounded routes.
pub(super) fn collect(
    app: &App,
    areas: &[Area],
    pages: Router<App>,
) -> (Router<App>, utoipa::openapi::OpenApi) {
    let bounded = areas.iter().filter_map(|area| area.bounded(app));
    let bounded = bounded.fold(OpenApiRouter::with_openapi(Contract::openapi()), OpenApiRouter::merge);
    let (bounded, mut api) = bounded.split_for_parts();
    let mut router = bounded.merge(pages);
    if router.has_routes() {
        router = router.route_layer(middleware::from_fn_with_state(app.clone(), guard::bounded));
    }
    let unbounded =
        areas.iter().map(|area| area.unbounded()).fold(OpenApiRouter::new(), OpenApiRouter::merge);
    let (unbounded, unbounded_api) = unbounded.split_for_parts();
    api.merge(unbounded_api);
    document::complete(&mut api);
    capabilities::document(&mut api, app);
    entry_kinds::document(&mut api, app.backend.timeline().kinds());
    let undocumented = areas.iter().map(|area| area.undocumented(app)).fold(Router::new(), Router::merge);
    (router.merge(unbounded).merge(undocumented), api)
}

/// Adds the layers of every request: one layer, the outermost part first.
///
/// Each separate layer would box every route and clone it for each request.
fn with_layers(app: &App, router: Router<App>) -> Router<App> {
    router.method_not_allowed_fallback(async || Problem::new("method_not_allowed")).layer((
        middleware::from_fn_with_state(app.clone(), guard::observed),
        guard::panics(),
        DefaultBodyLimit::max(app.options.max_json_bytes),
    ))
}

/// Routes with all layers and without a fallback, for the router of a host.
pub(super) fn mountable(app: &App, router: Router<App>) -> Router {
    with_layers(app, router).reset_fallback().with_state(app.clone())
}

/// Router of the whole contract.
pub(super) fn router(app: &App) -> Router {
    let (router, mut api) = collect(app, &Area::ALL, page::routes());
    if app.backend.accounts().is_err()
        && let Some(tags) = &mut api.tags
    {
        tags.retain(|tag| tag.name != Area::Accounts.tag());
    }
    // Without it, clients of the document would look for the routes at the root of its host.
    let prefix = app.backend.ports().links.prefix();
    api.servers = (!prefix.is_empty()).then(|| vec![Server::new(prefix)]);
    let document = serde_json::to_string(&api).unwrap_or_default();
    let document = Bytes::from(capabilities::with_limits(&document, app));
    let router = router
        .route(
            "/v1/openapi.json",
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
        )
        .fallback(async || Problem::new("not_found"));
    let router = with_layers(app, router).with_state(app.clone());
    let routes = router.clone();
    // The fallback has no layers: the routes that it calls have them.
    router.fallback(async move |request: Request| {
        let Ok(answer) = routes.oneshot(without_last_slash(request)).await;
        answer
    })
}
