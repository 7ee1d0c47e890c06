//! State that the routes of a backend share.

use axum::{
    Router,
    extract::{FromRef, FromRequestParts as _, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use couple_core::pairing::Side;
use couple_notify::live::Frame;

use super::{App, Caller, HttpOptions, Problem, contract, frame, operations};
use crate::Backend;

/// The HTTP contract of a backend: its whole router, or the state for [parts](super::routes) of it and for a host's own routes.
///
/// Cheap to clone. All routes of one `Api` share its limits and metrics.
///
/// A host's own routes answer as these do: they refuse with a [`Problem`], and take a [`Caller`], a [`JsonBody`](super::JsonBody) and
/// [`RequestMeta`](super::RequestMeta). Their state is an `Api`, or has one (`FromRef`).
///
/// ```no_run
/// use axum::{Json, extract::State, routing::post};
/// use couple::{Backend, http::{Api, Caller, HttpOptions, JsonBody, Problem, RequestMeta}};
/// use serde_json::{Value, json};
///
/// #[derive(serde::Deserialize)]
/// struct Note { id: String, text: String }
///
/// async fn note(
///     State(api): State<Api>, caller: Caller, meta: RequestMeta, body: JsonBody<Note>,
/// ) -> Result<Json<Value>, Problem> {
///     if body.value.text.is_empty() {
///         return Err(Problem::new("invalid_field").field("text", "required"));
///     }
///     // A repeat with the same `Idempotency-Key` appends nothing: the context carries the key.
///     let context = meta.context(caller.id(), &body);
///     # use couple::timeline::Append;
///     let Note { id, text } = body.value;
///     let entry = Append { couple: None, client_id: id, kind: "x-note".into(), body: json!({ "text": text }) };
///     let done = api.backend().timeline().append(&context, caller.id(), &entry).await?;
///     Ok(Json(json!({ "seq": done.entry.seq })))
/// }
///
/// let api = Api::new(Backend::builder().build()?, HttpOptions::default());
/// let app: axum::Router = axum::Router::new().route("/notes", post(note)).with_state(api.clone()).merge(api.router());
/// # drop(app);
/// # Ok::<(), couple::Error>(())
/// ```
#[derive(Clone)]
pub struct Api(pub(super) App);

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("backend", &self.0.backend).finish_non_exhaustive()
    }
}

impl FromRef<App> for Api {
    fn from_ref(app: &App) -> Self {
        Self(app.clone())
    }
}

impl Api {
    /// Creates the state of a backend's routes.
    #[must_use]
    pub fn new(backend: Backend, options: HttpOptions) -> Self {
        Self(App::new(backend, options))
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// Router of the whole contract, with its document at `/v1/openapi.json` and a fallback.
    pub fn router(&self) -> Router {
        contract::router(&self.0)
    }

    /// Router for an admin address: metrics, health and readiness.
    pub fn admin_router(&self) -> Router {
        let (admin, _) = operations::routes().split_for_parts();
        admin
            .merge(operations::metrics_route())
            .fallback(async || Problem::new("not_found"))
            .with_state(self.0.clone())
    }

    /// Requires an authenticated caller for all routes of a host's router, whose [`Principal`](crate::Principal) is then in the
    /// extensions of the request.
    ///
    /// # Panics
    /// If the router has no routes.
    pub fn authenticated<S: Clone + Send + Sync + 'static>(&self, router: Router<S>) -> Router<S> {
        router.route_layer(middleware::from_fn_with_state(self.0.clone(), authenticate))
    }

    /// JSON text of a live frame for its reader, as clients of the contract get it, for a transport of the host.
    #[must_use]
    pub fn frame_json(&self, frame: &Frame, reader: Side) -> String {
        frame::text(&self.0, frame, reader)
    }
}

async fn authenticate(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match Caller::from_request_parts(&mut head, &app).await {
        Ok(caller) => {
            head.extensions.insert(caller.into_principal());
            next.run(Request::from_parts(head, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}
