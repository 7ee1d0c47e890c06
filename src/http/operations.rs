//! Operations: health, readiness and metrics.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use couple_core::Error;
use couple_media::blobs::Blobs;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use serde::Serialize;
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ApiResult, App, Problem};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

pub(super) fn metrics_route() -> Router<App> {
    Router::new().route("/metrics", get(metrics))
}

/// Health of the process.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Check that the process handles requests (liveness).
#[utoipa::path(get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "The process handles requests", body = Health)))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Readiness of the process.
#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// Always `ready`.
    status: &'static str,
    /// `ok`, or `unavailable` while the blob store of pictures does not respond.
    ///
    /// Everything else works without it.
    pictures: &'static str,
    /// Number of restarts of the store's tasks after a panic, since the process started.
    ///
    /// Above 0, look for the reason in the log: the commits that such a task held have failed with an unknown outcome.
    writer_restarts: u64,
}

/// Check that the store responds and the process is not stopping (readiness for load balancers).
#[utoipa::path(get, path = "/readyz", tag = "operations",
    responses((status = 200, description = "Send requests here", body = Readiness),
        (status = 503, description = "Send requests elsewhere: the process is stopping, or its store does not respond")))]
async fn readyz(State(app): State<App>) -> ApiResult<Json<Readiness>> {
    if app.backend.is_stopping() {
        return Err(Problem::new("unavailable").detail("stopping"));
    }
    let store = async {
        match timeout(CHECK_TIMEOUT, app.backend.ports().store.ping()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Problem::new("timed_out").detail("the store does not respond")),
        }
    };
    let pictures = async { Ok(app.pictures.answer(app.backend.gallery().blobs()).await) };
    let ((), pictures) = tokio::try_join!(store, pictures)?;
    Ok(Json(Readiness {
        status: "ready",
        pictures: if pictures { "ok" } else { "unavailable" },
        writer_restarts: app.backend.ports().store.writer_restarts(),
    }))
}

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which the result of a check of the blob store is cached, since a check may use the network.
const BLOB_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum time to wait for the first result: shorter than the timeout of a probe.
const FIRST_BLOB_CHECK_TIMEOUT: Duration = Duration::from_millis(200);

/// Last result of checking the blob store of pictures, and its time.
#[derive(Debug, Clone, Default)]
pub(super) struct PicturesAnswer {
    last: watch::Sender<Option<(Instant, bool)>>,
    /// Held during a check: concurrent probes share one check.
    asking: Arc<Mutex<()>>,
}

impl PicturesAnswer {
    /// Returns the last known result, or waits briefly for the first one.
    async fn answer(&self, blobs: &Blobs) -> bool {
        let known = *self.last.borrow();
        if known.is_none_or(|(at, _)| at.elapsed() >= BLOB_CHECK_INTERVAL)
            && let Ok(asking) = self.asking.clone().try_lock_owned()
        {
            // A separate task: the probe may be cancelled before the check is done.
            let (last, blobs) = (self.last.clone(), blobs.clone());
            tokio::spawn(async move {
                let answered = is_available(&blobs).await;
                last.send_replace(Some((Instant::now(), answered)));
                drop(asking);
            });
        }
        if let Some((_, answered)) = known {
            return answered;
        }
        let mut coming = self.last.subscribe();
        let first = timeout(FIRST_BLOB_CHECK_TIMEOUT, coming.wait_for(Option::is_some)).await;
        matches!(first, Ok(Ok(answer)) if answer.is_some_and(|(_, answered)| answered))
    }
}

/// Whether the blob store responds in time.
async fn is_available(blobs: &Blobs) -> bool {
    match timeout(CHECK_TIMEOUT, blobs.ping()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "the blob store of pictures failed");
            false
        }
        Err(_) => {
            tracing::error!("the blob store of pictures does not respond in time");
            false
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
    state: &'static str,
}

/// Metrics of the process.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    jobs: Family<QueueLabels, Gauge>,
    streams: Gauge,
    rendered: Counter,
    rejected: Counter,
    picture_memory: Gauge,
    #[cfg(feature = "socketio")]
    pub(super) socketio_sessions: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::default();
        let seconds: Family<RouteLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 14)));
        let jobs = Family::default();
        let (streams, picture_memory) = (Gauge::default(), Gauge::default());
        let (rendered, rejected) = (Counter::default(), Counter::default());
        let mut registry = Registry::with_prefix("couple");
        registry.register("http_requests", "Answered requests", requests.clone());
        registry.register("http_request_seconds", "Time to an answer's head", seconds.clone());
        registry.register("jobs", "Jobs by queue and state, counted every 15 s at most", jobs.clone());
        registry.register("live_streams", "Live connections", streams.clone());
        registry.register("pictures_rendered", "Pictures decoded here", rendered.clone());
        registry.register("pictures_rejected", "Pictures that could not be decoded", rejected.clone());
        registry.register(
            "picture_memory_bytes",
            "Bytes set aside for pictures being decoded here",
            picture_memory.clone(),
        );
        #[cfg(feature = "socketio")]
        let socketio_sessions = Gauge::default();
        #[cfg(feature = "socketio")]
        registry.register(
            "socketio_sessions",
            "Socket.IO sessions in memory, including ended ones",
            socketio_sessions.clone(),
        );
        Self {
            registry: Arc::new(registry),
            requests,
            seconds,
            jobs,
            streams,
            rendered,
            rejected,
            picture_memory,
            #[cfg(feature = "socketio")]
            socketio_sessions,
        }
    }
}

impl Metrics {
    pub(super) fn count(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        // A client's arbitrary method must not become a time series.
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        let method = known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
        let labels = RequestLabels { method, route: route.to_owned(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&RouteLabels { route: route.to_owned() }).observe(took.as_secs_f64());
    }
}

/// Time for which a count of jobs is cached: counting reads every job.
const JOB_COUNT_INTERVAL: Duration = Duration::from_secs(15);

/// Time of the last count of jobs.
#[derive(Debug, Clone, Default)]
pub(super) struct JobCounts(Arc<Mutex<Option<Instant>>>);

impl JobCounts {
    /// Counts jobs for the metrics, unless a recent count exists or a count is running.
    async fn refresh(&self, app: &App) {
        let Ok(mut counted) = self.0.try_lock() else { return };
        if counted.is_some_and(|at| at.elapsed() < JOB_COUNT_INTERVAL) {
            return;
        }
        *counted = Some(Instant::now());
        match timeout(CHECK_TIMEOUT, count_jobs(app)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot count jobs for the metrics"),
            Err(_) => tracing::warn!("counting jobs for the metrics timed out"),
        }
    }
}

async fn count_jobs(app: &App) -> Result<(), Error> {
    let ports = app.backend.ports();
    for queue in app.backend.queues() {
        let stats = ports.store.queue_stats(&queue.name, ports.now()).await?;
        for (state, count) in [("ready", stats.ready), ("waiting", stats.waiting), ("dead", stats.dead)] {
            let labels = QueueLabels { queue: queue.name.clone(), state };
            app.metrics.jobs.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
    Ok(())
}

async fn metrics(State(app): State<App>) -> ApiResult<Response> {
    app.job_counts.refresh(&app).await;
    app.metrics.streams.set(i64::try_from(app.streams.count()).unwrap_or(i64::MAX));
    let stats = app.backend.gallery().stats();
    app.metrics.rendered.inner().store(stats.rendered, Ordering::Relaxed);
    app.metrics.rejected.inner().store(stats.rejected, Ordering::Relaxed);
    app.metrics.picture_memory.set(i64::try_from(stats.memory).unwrap_or(i64::MAX));
    let mut text = String::new();
    encode(&mut text, &app.metrics.registry).map_err(|_| Problem::new("internal_error"))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response())
}
